"""Which two replies to show a user next, so that the answer says most about the user.

A rule scores candidate pairs for every user of a batch; `choose_question` takes the best. The expected information of
an answer is its mutual information with the user's latent, H(E[p]) - E[H(p)]: high where the model is unsure although
each possible user would be sure. Being unsure alone (`predictive_entropy`) is not enough: two replies that are much
alike leave everyone undecided and teach nothing.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.profiles import Profile
from persona.types import Posterior, ReplyPairs

Rule: TypeAlias = Callable[[Profile, Posterior, ReplyPairs], Tensor]
"""From a profile, B beliefs and T candidates each (B, T, L) to scores (B, T); the largest is asked."""

NODES = 64
REACH = 6.0
"""Of the quadrature: even steps over this many deviations to both sides. Its error falls exponentially with the step
(Trefethen & Weideman, 2014), below 1e-4 nats up to a deviation of 10 in the log-odds, where Gauss-Hermite needs many
more nodes."""
ENTRIES_PER_BLOCK = 1 << 23
"""Largest array of simulated contexts that is held at once, in numbers; it changes no result."""


@runtime_checkable
class GaussianOdds(Protocol):
    """A profile that knows how sure it is of each pair."""

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (B, T), of the log-odds of preferring the first reply."""
        ...


@runtime_checkable
class JointOdds(Protocol):
    """A profile that also knows which pairs stand or fall together."""

    def joint_log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean (B, T) and covariance (B, T, T) of the log-odds of preferring the first replies."""
        ...


def mutual_information(mean: Tensor, variance: Tensor) -> Tensor:
    """What the answer to a question tells about the latent, if its log-odds are N(mean, variance).

    I(answer; z) = H(E[sigmoid(x)]) - E[H(sigmoid(x))] for x ~ N(mean, variance), by quadrature; exact where the
    log-odds are linear in a Gaussian latent.

    Args:
        mean: Of the log-odds, any shape, float.
        variance: At least 0, same shape.

    Returns:
        Same shape, in nats, between 0 and log 2.

    Example:
        >>> mutual_information(torch.zeros(2), torch.tensor([0.0, 4.0])).clamp_min(1e-6)
        tensor([1.0000e-06, 2.3114e-01])

    Source: Houlsby et al. (2011), "Bayesian Active Learning for Classification and Preference Learning", arXiv
    1112.5745; there the second term is approximated.
    """
    odds, weights = _odds_points(mean, variance)
    return (_entropy(torch.sigmoid(odds) @ weights) - _entropy_of_odds(odds) @ weights).clamp_min(0.0)


def prediction_gain(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
    """The rule to use where the candidates are like what will be predicted: how far an answer narrows all of them.

    With log-odds of mean m and covariance C under the belief and slopes s = E[p (1 - p)], an answer to pair i has the
    precision s_i, which lowers the variance of pair j by C_ij^2 s_i / (1 + s_i C_ii). The score is the sum of that over
    all candidates j, each with its weight s_j: what is settled already, or has little to do with i, counts little.
    Costs O(T^2 Z) a user.

    Returns:
        Shape (B, T), at least 0.

    Raises:
        DataError: The profile has no covariance of log-odds.

    Source: in the spirit of Smith et al. (2023), "Prediction-Oriented Bayesian Active Learning", arXiv 2304.08151,
    with the variance of the log-odds, by one Gaussian update, in place of the information about each answer.
    """
    if not isinstance(profile, JointOdds):
        raise DataError(
            f"This rule needs a profile with `joint_log_odds`; got {type(profile).__name__}, which has none. Use "
            "`expected_information` or `simulated_information(context)`."
        )
    mean, covariance = profile.joint_log_odds(posterior, candidates)
    variance = covariance.diagonal(dim1=1, dim2=2)
    odds, weights = _odds_points(mean, variance)
    slope = (torch.sigmoid(odds) * torch.sigmoid(-odds)) @ weights
    settled = torch.einsum("bij,bj->bi", covariance.square(), slope * candidates.mask)
    return settled * slope / (1.0 + slope * variance)


def expected_information(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
    """Mutual information of the answer and the user's latent, in nats. Shape (B, T).

    Raises:
        DataError: The profile has no Gaussian log-odds.
    """
    return mutual_information(*_log_odds(profile, posterior, candidates))


def log_odds_variance(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
    """How unsure the belief leaves the log-odds, whatever their mean: the D-optimal question. Shape (B, T).

    Raises:
        DataError: The profile has no Gaussian log-odds.
    """
    return _log_odds(profile, posterior, candidates)[1]


def predictive_entropy(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
    """How even the predicted choice is, in nats: uncertainty sampling, kept to be compared with. Shape (B, T)."""
    return _entropy(profile.predict(posterior, candidates))


def simulated_information(context: ReplyPairs) -> Rule:
    """A rule for any profile: how far the belief's entropy is expected to fall, by trying both answers.

    Every candidate is added to the context with either answer, all are encoded, and the entropies are weighed with
    the predicted probability of the answers. A belief over kinds counts with the entropy of its weights, which makes
    the score the mutual information of answer and kind; another belief counts as a Gaussian. Costs 2 B T encodings.

    Args:
        context: What the B users of the beliefs have chosen so far. Shape (B, P, L).
    """

    def score(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> Tensor:
        if len(context.mask) != len(candidates.mask):
            raise ShapeError(
                f"`context` must have one row for each belief ({len(candidates.mask)}); got {len(context.mask)}. Pass "
                "the comparisons that the beliefs come from."
            )
        chance = profile.predict(posterior, candidates)
        left = chance * _entropy_after(profile, context, candidates)
        left = left + (1.0 - chance) * _entropy_after(profile, context, candidates.swapped)
        return _belief_entropy(posterior)[:, None] - left

    return score


def choose_question(
    profile: Profile, posterior: Posterior, candidates: ReplyPairs, rule: Rule = expected_information
) -> Tensor:
    """For each user the candidate pair that the rule scores highest; the first of equal ones.

    Args:
        profile: Holds the beliefs.
        posterior: Of B users.
        candidates: T pairs that each user could be asked about, with lifted features; masked ones are not asked.
            Leave out what was asked before.
        rule: `expected_information`, `simulated_information(context)` for profiles without log-odds, or another.

    Returns:
        Place of the pair among the candidates, 0..T-1. Shape (B,), int64.

    Raises:
        DataError: A user has no candidates, or the rule needs what the profile does not offer.
    """
    lacking = torch.nonzero(~candidates.mask.any(1))[:, 0].tolist()
    if lacking:
        raise DataError(
            f"Each user must have at least one candidate; got none for the users in rows {lacking[:3]}. Pass more "
            "pairs, or leave these users out."
        )
    return rule(profile, posterior, candidates).masked_fill(~candidates.mask, -torch.inf).argmax(1)


def _log_odds(profile: Profile, posterior: Posterior, candidates: ReplyPairs) -> tuple[Tensor, Tensor]:
    if not isinstance(profile, GaussianOdds):
        raise DataError(
            f"This rule needs a profile with `log_odds`; got {type(profile).__name__}, which has none. Use "
            "`simulated_information(context)`."
        )
    return profile.log_odds(posterior, candidates)


def _odds_points(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Values (..., N) of log-odds N(mean, variance), and the weights (N,) with which they make an expectation."""
    steps = torch.linspace(-REACH, REACH, NODES, dtype=mean.dtype, device=mean.device)
    return mean[..., None] + variance.sqrt()[..., None] * steps, torch.softmax(-0.5 * steps.square(), dim=0)


def _entropy(probability: Tensor) -> Tensor:
    for_it: Tensor = torch.special.xlogy(probability, probability)
    against: Tensor = torch.special.xlog1py(1 - probability, -probability)
    return -for_it - against


def _entropy_of_odds(odds: Tensor) -> Tensor:
    """H(sigmoid(x)) = log(1 + e^-|x|) + |x| sigmoid(-|x|), without cancellation."""
    size = odds.abs()
    entropy: Tensor = torch.exp(-size).log1p() + size * torch.sigmoid(-size)
    return entropy


def _entropy_after(profile: Profile, context: ReplyPairs, candidates: ReplyPairs) -> Tensor:
    """Entropy (B, T) of the belief after the context and one more pair, chosen as given."""
    rows, count = candidates.mask.shape
    width = context.chosen.shape[1] + 1
    block = max(1, ENTRIES_PER_BLOCK // max(1, rows * width * candidates.chosen.shape[2]))
    parts = []
    for start in range(0, count, block):
        some = ReplyPairs(*(part[:, start : start + block] for part in candidates))
        size = some.mask.shape[1]
        repeated = ReplyPairs(*(part.repeat_interleave(size, dim=0) for part in context))
        added = ReplyPairs(*(part.reshape(rows * size, 1, *part.shape[2:]) for part in some))
        belief = profile.encode(ReplyPairs.join([repeated, added]))
        parts.append(_belief_entropy(belief).reshape(rows, size))
    return torch.cat(parts, dim=1)


def _belief_entropy(posterior: Posterior) -> Tensor:
    """In nats, up to a constant for a Gaussian. Shape (B,)."""
    if posterior.weights is not None:
        kinds: Tensor = -torch.special.xlogy(posterior.weights, posterior.weights).sum(1)
        return kinds
    log_det: Tensor = torch.linalg.slogdet(posterior.covariance).logabsdet
    return 0.5 * log_det
