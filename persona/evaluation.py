"""How well profiles predict unseen users on unseen prompts, with intervals that resample users.

Every measure is a mean over users (or is computed from sums by user), because the comparisons of one user are
not independent. A user without targets is left out and does not count in `n`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable, Rows, context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles import Profile

Values = NDArray[np.float64]

RESAMPLES = 2000
CALIBRATION_BINS = 10
ACTIVE_VARIANCE = 0.05
"""A direction of the latent is active if posterior means vary by more than this; the prior has 1."""
EVEN = 1e-6
"""A probability nearer than this to one half is an even call, which counts half."""
_BLOCK = 1 << 22


class Measure(TypedDict):
    """A figure with its 95 % interval (percentiles over resampled users) and the number of users."""

    value: float
    ci95: list[float]
    n: int


class UserScores(NamedTuple):
    """How one profile did with one context size, user by user.

    users: Users with targets, ascending. Shape (U,).
    accuracy: Share of targets whose chosen reply was the likelier one; an even call counts half. Shape (U,).
    log_loss: Mean negative log-probability of the choices, in nats. Shape (U,).
    bin_count: Targets by confidence, in equal bins from one half to 1. Shape (U, `CALIBRATION_BINS`).
    bin_gap: Sum of (right or wrong minus confidence) in each bin. Shape (U, `CALIBRATION_BINS`).
    """

    users: Rows
    accuracy: Values
    log_loss: Values
    bin_count: Values
    bin_gap: Values


@torch.no_grad()
def score_users(
    profile: Profile,
    context: ComparisonTable,
    target: ComparisonTable,
    features: Tensor,
    *,
    k: int,
    seed: int,
    shuffled: bool = False,
) -> UserScores:
    """Score a profile on every user who has targets, after at most `k` context pairs.

    Args:
        profile: What is scored.
        context: What the users may show.
        target: What is to be predicted; no prompt of it may be in `context`.
        features: Plain features of every reply. Shape (N, D).
        k: Context pairs for each user; contexts of smaller k are the first pairs of larger ones at the same
            seed.
        seed: Draws the contexts, and who gets whose if shuffled.
        shuffled: Give every user the context of another one.

    Raises:
        DataError: A user shows a prompt that is also asked for, or there are no targets.
    """
    check_targets(context, target)
    users = target.user_ids
    owners = other_users(users, np.random.default_rng((seed, 1))) if shuffled else users
    lifted = profile.lift(features)
    shown = context_pairs(context, lifted, owners, k, np.random.default_rng(seed))
    asked = context_pairs(target, lifted, users)
    probability = profile.predict(profile.encode(shown), asked)
    return scores_by_user(users, probability.double().cpu().numpy(), asked.mask.cpu().numpy())


def check_targets(context: ComparisonTable, target: ComparisonTable) -> None:
    """Refuse what no measure could be believed of.

    Args:
        context: What users may show.
        target: What is to be predicted of them.

    Raises:
        DataError: A user shows a prompt that is also asked for, or there are no targets.
    """
    users = target.user_ids
    if not len(users):
        raise DataError(
            "`target` must hold at least one comparison; got none. Hold out more prompts or users."
        )
    leaked = np.intersect1d(np.unique(context.prompts[np.isin(context.users, users)]), target.prompts)
    if len(leaked):
        raise DataError(
            f"No prompt of `target` may occur in `context`; got {len(leaked)} shared ones, such as "
            f"{leaked[:3].tolist()}. Split by prompt, with `split_users_and_prompts`."
        )


def other_users(users: Rows, rng: np.random.Generator) -> Rows:
    """For each user another one, each used once; a lone user has only itself.

    Args:
        users: Shape (U,).
        rng: Draws the ring in which each is followed by its other.

    Returns:
        Shape (U,).
    """
    order = rng.permutation(len(users))
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)
    return users[donor]


def scores_by_user(users: Rows, probability: Values, mask: NDArray[np.bool_]) -> UserScores:
    """Scores of U users from the probability that a profile gave each choice that they really made.

    Args:
        users: Shape (U,).
        probability: In 0..1; anything where padded. Shape (U, T).
        mask: True where a target is real, at least once a user. Shape (U, T), bool.

    Returns:
        Accuracy, surprise and bins of confidence of each user.
    """
    count = mask.sum(1)
    # The first reply of a target is the chosen one, so a rounding of an even call would count for or against it.
    even = np.abs(probability - 0.5) < EVEN
    right = np.where(even, 0.5, probability > 0.5)
    confidence = np.maximum(probability, 1.0 - probability)
    surprise = -np.log(np.clip(probability, np.finfo(np.float64).tiny, 1.0))
    place = np.minimum((2.0 * confidence - 1.0) * CALIBRATION_BINS, CALIBRATION_BINS - 1).astype(np.int64)
    cell = (np.arange(len(users))[:, None] * CALIBRATION_BINS + place)[mask]
    shape, cells = (len(users), CALIBRATION_BINS), len(users) * CALIBRATION_BINS
    return UserScores(
        users,
        (right * mask).sum(1) / count,
        (surprise * mask).sum(1) / count,
        np.bincount(cell, minlength=cells).reshape(shape).astype(np.float64),
        np.bincount(cell, (right - confidence)[mask], minlength=cells).reshape(shape).astype(np.float64),
    )


def oracle_accuracy(target: ComparisonTable, advantage: ArrayLike) -> Values:
    """Accuracy by user of someone who knows the truth, the ceiling that noise in the choices leaves.

    Args:
        target: Comparisons to be predicted.
        advantage: True utility of the chosen reply minus that of the rejected one. Shape (M,).

    Returns:
        Shape (U,), for the users of `target`, ascending.

    Raises:
        ShapeError: There is not one advantage for each comparison.
    """
    gain = np.asarray(advantage, dtype=np.float64)
    if gain.shape != (len(target),):
        raise ShapeError(
            f"`advantage` must have shape ({len(target)},), one entry for each comparison of `target`; got "
            f"{gain.shape}. Select the same rows."
        )
    _, owner = np.unique(target.users, return_inverse=True)
    right = np.bincount(owner, (gain > 0) + 0.5 * (gain == 0)).astype(np.float64)
    return right / np.bincount(owner)


def bootstrap_mean(values_by_user: ArrayLike, seed: int) -> Measure:
    """Mean over users with its 95 % interval.

    Args:
        values_by_user: One value for each user, NaN for a user to leave out. Shape (U,).
        seed: Draws the resamples; the same for measures that are compared.

    Raises:
        DataError: No user has a value.

    Example:
        >>> bootstrap_mean([1.0, 1.0, float("nan")], seed=0)
        {'value': 1.0, 'ci95': [1.0, 1.0], 'n': 2}
    """
    values = _present(values_by_user)
    means = np.concatenate([counts @ values / len(values) for counts in _resamples(len(values), seed)])
    return _measure(float(values.mean()), means, len(values))


def paired_difference(first: ArrayLike, second: ArrayLike, seed: int) -> Measure:
    """Mean over users of first minus second; users lacking either are left out.

    Raises:
        ShapeError: The two do not describe the same number of users.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise ShapeError(
            f"`first` and `second` must describe the same users; got shapes {one.shape} and {other.shape}. "
            "Score both on the same targets."
        )
    return bootstrap_mean(one - other, seed)


def worst_decile(values_by_user: ArrayLike, seed: int) -> Measure:
    """Mean of the lowest tenth of users (the user at the border counts in part), with its interval."""
    values = np.sort(_present(values_by_user))
    mass = len(values) / 10.0

    def lowest(counts: Values) -> Values:
        before = np.cumsum(counts, axis=1) - counts
        return np.clip(mass - before, 0.0, counts) @ values / mass

    resampled = np.concatenate([lowest(counts) for counts in _resamples(len(values), seed)])
    return _measure(float(lowest(np.ones((1, len(values))))[0]), resampled, len(values))


def calibration_error(scores: UserScores, seed: int) -> Measure:
    """Expected calibration error: mean distance between confidence and accuracy over bins of confidence.

    Its interval leans upwards, as resampling adds noise to every bin.
    """

    def error(counts: Values) -> Values:
        gap: Values = np.abs(counts @ scores.bin_gap).sum(1)
        total: Values = (counts @ scores.bin_count).sum(1)
        return gap / total

    users = len(scores.users)
    resampled = np.concatenate([error(counts) for counts in _resamples(users, seed)])
    return _measure(float(error(np.ones((1, users)))[0]), resampled, users)


def context_shuffle_gap(
    profile: Profile,
    context: ComparisonTable,
    target: ComparisonTable,
    features: Tensor,
    *,
    k: int,
    seed: int,
) -> Measure:
    """Accuracy lost when every user is read from another one's context: what the latent really knows."""
    own = score_users(profile, context, target, features, k=k, seed=seed)
    other = score_users(profile, context, target, features, k=k, seed=seed, shuffled=True)
    return paired_difference(own.accuracy, other.accuracy, seed)


@torch.no_grad()
def active_units(
    profile: Profile, context: ComparisonTable, features: Tensor, *, k: int, seed: int
) -> Measure:
    """Directions of the latent along which users' posterior means vary by more than `ACTIVE_VARIANCE`.

    Counted among the principal axes of the means, so that turning the latent around changes nothing: a single
    used direction counts once, even if it lies across all coordinates. A count can be high without the latent
    being of any use; judge it beside `context_shuffle_gap`.

    Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", section 5.1, there by
    coordinate.
    """
    users = context.user_ids
    pairs = context_pairs(context, profile.lift(features), users, k, np.random.default_rng(seed))
    mean = profile.encode(pairs).mean.double().cpu().numpy()
    size = mean.shape[1]
    products = (mean[:, :, None] * mean[:, None]).reshape(len(mean), size * size)

    def count(weights: Values) -> Values:
        share = weights / weights.sum(1, keepdims=True)
        centre = share @ mean
        second = (share @ products).reshape(len(weights), size, size)
        spread = np.linalg.eigvalsh(second - centre[:, :, None] * centre[:, None])
        active: Values = (spread > ACTIVE_VARIANCE).sum(1).astype(np.float64)
        return active

    resampled = np.concatenate([count(weights) for weights in _resamples(len(users), seed)])
    return _measure(float(count(np.ones((1, len(users))))[0]), resampled, len(users))


def evaluate_preferences(
    profiles: Mapping[str, Profile],
    context: ComparisonTable,
    target: ComparisonTable,
    features: Tensor,
    *,
    ks: Sequence[int],
    seed: int,
    baseline: str = "pooled",
) -> dict[str, dict[str, dict[str, Measure]]]:
    """Every profile at every context size, on the same users, contexts, targets and resamples.

    Args:
        profiles: By name; must hold `baseline`.
        context: What the users may show.
        target: What is to be predicted.
        features: Plain features of every reply. Shape (N, D).
        ks: Context sizes.
        seed: Draws contexts and resamples.
        baseline: The profile that the others are compared with, user by user.

    Returns:
        By name, then `k0`, `k2` ..., then `accuracy`, `over_baseline` (paired difference of accuracy),
        `worst_decile` (of accuracy), `log_loss` and `ece`. Accuracies are shares, 0..1.

    Raises:
        DataError: There is no such baseline.
    """
    if baseline not in profiles:
        raise DataError(
            f"`profiles` must hold the baseline `{baseline}`; got {', '.join(profiles) or 'none'}. Add it or "
            "name another."
        )
    table: dict[str, dict[str, dict[str, Measure]]] = {name: {} for name in profiles}
    for k in ks:
        scores = {
            name: score_users(profile, context, target, features, k=k, seed=seed)
            for name, profile in profiles.items()
        }
        for name, own in scores.items():
            table[name][f"k{k}"] = {
                "accuracy": bootstrap_mean(own.accuracy, seed),
                "over_baseline": paired_difference(own.accuracy, scores[baseline].accuracy, seed),
                "worst_decile": worst_decile(own.accuracy, seed),
                "log_loss": bootstrap_mean(own.log_loss, seed),
                "ece": calibration_error(own, seed),
            }
    return table


def _present(values_by_user: ArrayLike) -> Values:
    values = np.asarray(values_by_user, dtype=np.float64)
    kept = values[~np.isnan(values)] if values.ndim == 1 else values
    if values.ndim != 1 or not len(kept):
        raise DataError(
            "`values_by_user` must hold at least one value that is not NaN, in shape (U,); got shape "
            f"{values.shape}. Pass one value for each user."
        )
    return kept


def _resamples(users: int, seed: int) -> Iterator[Values]:
    """How often each user is drawn in each resample, in blocks that fit in memory. Shape (R, users)."""
    rng = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, _BLOCK // users))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        yield rng.multinomial(users, np.full(users, 1.0 / users), size=size).astype(np.float64)


def _measure(value: float, resampled: Values, n: int) -> Measure:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": value, "ci95": [float(low), float(high)], "n": n}
