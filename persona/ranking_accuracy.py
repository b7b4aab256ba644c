"""Whether a policy itself ranks replies as people do, beside whether its implicit reward does.

DPO raises the chosen reply's probability relative to the reference; that the policy then finds it likelier than the
rejected one does not follow. All functions take summed log-probabilities in nats, one entry a pair; divide by the
number of tokens first to judge by length-normalised ones.

Source: Chen, Malladi et al. (2024), "Preference Learning Algorithms Do Not Learn Preference Rankings", arXiv
2405.19534.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persona.errors import DataError, ShapeError

Values = NDArray[np.float64]


class PairLogProbs(NamedTuple):
    """What a policy and its reference think of both replies of M pairs, in nats; each of shape (M,)."""

    policy_chosen: ArrayLike
    policy_rejected: ArrayLike
    reference_chosen: ArrayLike
    reference_rejected: ArrayLike


class FlipTable(NamedTuple):
    """Shares of pairs by how reference and policy rank them; the four sum to 1."""

    kept_right: float
    lost: float
    gained: float
    kept_wrong: float


class RankingReport(NamedTuple):
    """Shares of pairs, 0..1, of which even calls count half.

    ranking: The policy finds the chosen reply likelier.
    reward: The policy raised the chosen reply over the reference by more than the rejected one.
    reference: The reference finds the chosen reply likelier.
    idealised: What `idealised_ranking` says could be reached.
    flips: How the ranking changed from the reference.
    """

    ranking: float
    reward: float
    reference: float
    idealised: float
    flips: FlipTable


def ranking_report(log_probs: PairLogProbs, *, beta: float, agreement: ArrayLike = 0.9) -> RankingReport:
    """Ranking accuracy, reward accuracy and the bound between them.

    Args:
        log_probs: Of M pairs.
        beta: Strength of DPO's pull towards the reference.
        agreement: Share of annotators who prefer the chosen reply, one for all pairs or (M,), in 0..1.

    Raises:
        ShapeError: The four differ in shape.
        DataError: There are no pairs.
    """
    arrays = [np.asarray(part, dtype=np.float64) for part in log_probs]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
        raise ShapeError(
            f"The four log-probabilities must each have shape (M,); got {[array.shape for array in arrays]}. Pass one "
            "number a pair in each."
        )
    if not arrays[0].size:
        raise DataError("There must be at least one pair; got none. Score some pairs first.")
    policy, reference = arrays[0] - arrays[1], arrays[2] - arrays[3]
    before, after = reference > 0, policy > 0
    shares = (before & after, before & ~after, ~before & after, ~before & ~after)
    return RankingReport(
        _share(policy),
        _share(policy - reference),
        _share(reference),
        float(idealised_ranking(reference, beta=beta, agreement=agreement).mean()),
        FlipTable(*(float(share.mean()) for share in shares)),
    )


def idealised_ranking(reference_gap: ArrayLike, *, beta: float, agreement: ArrayLike) -> Values:
    """Whether a policy that minimises DPO's loss perfectly ranks each pair as its annotators do.

    The optimum has odds (reference odds) * (agreement / (1 - agreement))^(1 / beta), so a pair that the reference ranks
    wrongly by too much stays wrong. In logarithms: reference_gap + logit(agreement) / beta > 0.

    Args:
        reference_gap: log p(chosen) - log p(rejected) under the reference. Shape (M,).
        beta: Strength of DPO's pull towards the reference, positive.
        agreement: Share of annotators who prefer the chosen reply, in 0..1.

    Returns:
        1, 0, or one half for an even call. Shape (M,).

    Raises:
        DataError: `beta` is not positive, or `agreement` out of range.

    Example:
        >>> idealised_ranking([-1.0, -1.0], beta=1.0, agreement=[0.6, 0.9]).tolist()
        [0.0, 1.0]
    """
    share = np.asarray(agreement, dtype=np.float64)
    if not beta > 0 or not ((share >= 0) & (share <= 1)).all():
        raise DataError(
            f"`beta` must be positive and `agreement` lie in 0..1; got {beta} and {share.min()} to {share.max()}. Pass "
            "the share of people who prefer the chosen reply."
        )
    with np.errstate(divide="ignore"):
        gap = np.asarray(reference_gap, dtype=np.float64) + (np.log(share) - np.log1p(-share)) / beta
    return _even(gap)


def ranking_loss_threshold(reference_gap: ArrayLike, *, beta: float) -> Values:
    """The DPO loss at or below which a pair is ranked right: -log sigmoid(beta c), c = -reference_gap.

    A pair's DPO loss falls as its implicit margin grows, and its ranking is right once the margin makes up for what
    the reference ranks wrongly; so the loss alone tells the ranking, exactly.

    Args:
        reference_gap: log p(chosen) - log p(rejected) under the reference. Shape (M,).
        beta: Strength of DPO's pull towards the reference, positive.

    Returns:
        In nats. Shape (M,).
    """
    gap: Values = np.logaddexp(0.0, beta * np.asarray(reference_gap, dtype=np.float64))
    return gap


def _share(gap: Values) -> float:
    return float(_even(gap).mean())


def _even(gap: Values) -> Values:
    values: Values = (gap > 0) + 0.5 * (gap == 0)
    return values
