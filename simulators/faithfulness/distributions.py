"""How far two distributions of behaviour lie apart: levels, ratings, lengths of sessions, mixes of actions.

All distances take histograms, many at once, so that users can be drawn again a thousand times; each equals what scipy
computes from the values.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.significance import Interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import (
    PERMUTATIONS,
    RESAMPLES,
    Values,
    bootstrap_gap,
    cells_by_user,
    permutation_p,
    unseen_share,
)

MOST_VALUES = 512
"""Distinct values told apart; more are moved up to the next of as many quantiles of both sides together."""


class DistributionGap(NamedTuple):
    """Two distributions over the same ordered values, and how far apart they are.

    support: Distinct values, ascending. Shape (K,).
    simulated: Share of each value on the simulated side. Shape (K,).
    real: The same of the real side. Shape (K,).
    ks: Largest distance of the two cumulative shares, in 0..1; as users who do what none of these did may be unseen,
        its upper end is 3 / users at least.
    p: Chance of such a distance if it made no difference which side a user is on.
    wasserstein: Mean distance that values must be moved to turn one into the other, in their own unit.
    mean_gap: Simulated mean less real mean.
    """

    support: Values
    simulated: Values
    real: Values
    ks: Interval
    p: float
    wasserstein: Interval
    mean_gap: Interval


def compare_distributions(
    simulated: tuple[ArrayLike, ArrayLike],
    real: tuple[ArrayLike, ArrayLike],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
    n_permutations: int = PERMUTATIONS,
) -> DistributionGap:
    """Compare values of simulated users with those of real ones.

    Args:
        simulated: Id of each row's user and its value, shapes (N,) and (N,).
        real: The same of the real side.
        seed: Draws users and sides.
        n_boot: Number of resamples for the intervals.
        n_permutations: Number of deals for p.

    Raises:
        FaithfulnessError: A side has no value, or one that is not finite.

    Source: Kolmogorov-Smirnov and Wasserstein distances as `scipy.stats.ks_2samp` and `wasserstein_distance`.
    """
    for name, side in (("simulated", simulated), ("real", real)):
        values = np.asarray(side[1], dtype=np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise FaithfulnessError(
                f"`{name}` must hold finite values, at least one; got {len(values)} values, "
                f"{int((~np.isfinite(values)).sum())} of them not finite. Drop the rows without a value."
            )
    support = _support(np.concatenate([np.asarray(side[1], np.float64) for side in (simulated, real)]))
    sides = [
        cells_by_user(users, np.searchsorted(support, np.asarray(values, np.float64)), len(support), 1)
        for users, values in (simulated, real)
    ]
    (_, first), (_, second) = sides

    def moved(one: Values, other: Values) -> Values:
        return wasserstein_distance(one, other, support)

    def moved_astray(one: Values, other: Values, first: Values, second: Values) -> Values:
        return _area(_cumulated(one, other) - _cumulated(first, second), support)

    def means(one: Values, other: Values) -> Values:
        return _shares(one) @ support - _shares(other) @ support

    ks = bootstrap_gap(first, second, ks_distance, seed=seed, n_boot=n_boot, strayed=_ks_astray)
    return DistributionGap(
        support,
        _shares(first.sum(0)),
        _shares(second.sum(0)),
        ks._replace(high=max(ks.high, unseen_share(ks.n))),
        permutation_p(sides[0], sides[1], ks_distance, seed=seed, n_permutations=n_permutations),
        bootstrap_gap(first, second, moved, seed=seed, n_boot=n_boot, strayed=moved_astray),
        bootstrap_gap(first, second, means, seed=seed, n_boot=n_boot),
    )


def ks_distance(simulated: Values, real: Values) -> Values:
    """Kolmogorov-Smirnov distance of histograms: the largest gap of the cumulative shares.

    Args:
        simulated: Counts of ordered values. Shape (..., K).
        real: The same values. Shape (..., K).

    Returns:
        In 0..1, shape (...); NaN where a side is empty.

    Example:
        >>> float(ks_distance(np.array([1.0, 1.0, 2.0]), np.array([2.0, 2.0, 0.0])))  # |1/2 - 1| after two values
        0.5
    """
    distance: Values = np.abs(_cumulated(simulated, real)).max(axis=-1)
    return distance


def wasserstein_distance(simulated: Values, real: Values, support: Values) -> Values:
    """Area between the two cumulative shares: sum over k of |F_k - G_k| (v_(k+1) - v_k).

    Args:
        simulated: Counts. Shape (..., K).
        real: Counts. Shape (..., K).
        support: The values, ascending. Shape (K,).

    Returns:
        In the unit of the values, shape (...); NaN where a side is empty.
    """
    return _area(_cumulated(simulated, real), support)


def jensen_shannon(simulated: Values, real: Values) -> Values:
    """Jensen-Shannon distance of two mixes, the square root of the divergence in bits.

    Args:
        simulated: Counts of kinds, in any order. Shape (..., K).
        real: The same kinds. Shape (..., K).

    Returns:
        0 for equal mixes, 1 for mixes without a common kind; shape (...), NaN where a side is empty.

    Source: Endres and Schindelin (2003), "A New Metric for Probability Distributions"; equal to
    `scipy.spatial.distance.jensenshannon` with base 2.
    """
    one, other = _shares(simulated), _shares(real)
    middle = (one + other) / 2
    divergence = (_relative_entropy(one, middle) + _relative_entropy(other, middle)) / 2
    return np.sqrt(np.maximum(divergence, 0.0))


def compare_mixes(
    simulated: tuple[ArrayLike, ArrayLike],
    real: tuple[ArrayLike, ArrayLike],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
) -> tuple[NDArray[np.str_], Values, Values, Interval]:
    """Compare how often each kind of action occurs on the two sides.

    Args:
        simulated: Id of each row's user and its kind, shapes (N,) and (N,).
        real: The same of the real side.
        seed: Draws users.
        n_boot: Number of resamples.

    Returns:
        The kinds, their shares on the simulated and on the real side, and the Jensen-Shannon distance.
    """
    named = [(np.asarray(users), np.asarray(kinds).astype(np.str_)) for users, kinds in (simulated, real)]
    kinds = np.union1d(named[0][1], named[1][1])
    first, second = (cells_by_user(u, np.searchsorted(kinds, own), len(kinds), 1)[1] for u, own in named)
    distance = bootstrap_gap(first, second, jensen_shannon, seed=seed, n_boot=n_boot, strayed=_mix_astray)
    return kinds, _shares(first.sum(0)), _shares(second.sum(0)), distance


def _cumulated(simulated: Values, real: Values) -> Values:
    """Cumulative shares of the simulated side less those of the real one. Shape (..., K)."""
    return np.asarray(np.cumsum(_shares(simulated) - _shares(real), axis=-1))


def _area(cumulated: Values, support: Values) -> Values:
    moved: Values = np.abs(cumulated)[..., :-1] @ np.diff(support)
    return moved


def _ks_astray(one: Values, other: Values, first: Values, second: Values) -> Values:
    return np.asarray(np.abs(_cumulated(one, other) - _cumulated(first, second)).max(axis=-1))


def _mix_astray(one: Values, other: Values, first: Values, second: Values) -> Values:
    """How far each side strayed from itself, added up: Jensen-Shannon is a metric, but no norm of a difference."""
    own = jensen_shannon(one, np.broadcast_to(first, one.shape))
    return own + jensen_shannon(other, np.broadcast_to(second, other.shape))


def _support(values: Values) -> Values:
    """Distinct values, or so many quantiles that each value is moved up to the next of them."""
    distinct = np.unique(values)
    if len(distinct) <= MOST_VALUES:
        return distinct
    return np.unique(np.quantile(values, np.linspace(0, 1, MOST_VALUES), method="higher"))


def _shares(counts: Values) -> Values:
    total = counts.sum(axis=-1, keepdims=True)
    shares: Values = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def _relative_entropy(one: Values, middle: Values) -> Values:
    ratio = np.divide(one, middle, out=np.ones_like(one), where=one > 0)
    bits: Values = (np.where(one > 0, one, 0.0) * np.log2(ratio)).sum(axis=-1)
    return np.where(np.isnan(one).any(axis=-1), np.nan, bits)
