"""How often something happens on the two sides, with intervals over users that hold up when it never does."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recsys.significance import Interval
from simulators.faithfulness.resampling import (
    RESAMPLES,
    Values,
    bootstrap_gap,
    bootstrap_statistic,
    sums_by_user,
    unseen_share,
)


class RateGap(NamedTuple):
    """A rate or a mean on both sides.

    simulated: Of the simulated rows.
    real: Of the real rows.
    gap: Simulated less real.
    """

    simulated: Interval
    real: Interval
    gap: Interval


def compare_rates(
    simulated: tuple[ArrayLike, ArrayLike],
    real: tuple[ArrayLike, ArrayLike],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
) -> RateGap:
    """Compare how often something happens.

    Resampling never finds what was not seen once, so a rate of 0 among U users gets the upper end 3 / U, and a rate of
    1 the lower end 1 - 3 / U.

    Args:
        simulated: Id of each row's user and whether it happened, shapes (N,) and (N,).
        real: The same of the real side.
        seed: Draws users.
        n_boot: Number of resamples.
    """
    found = compare_means(simulated, real, seed=seed, n_boot=n_boot)
    if not any(side.value in (0.0, 1.0) for side in (found.simulated, found.real)):
        return found
    one, other, gap = _widened(found.simulated), _widened(found.real), found.gap
    low = min(gap.low, one.low - other.value, one.value - other.high)
    high = max(gap.high, one.high - other.value, one.value - other.low)
    return RateGap(one, other, gap._replace(low=low, high=high))


def compare_means(
    simulated: tuple[ArrayLike, ArrayLike],
    real: tuple[ArrayLike, ArrayLike],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
) -> RateGap:
    """Compare means over rows of any numbers, with percentile intervals over users.

    Args:
        simulated: Id of each row's user and its number, shapes (N,) and (N,).
        real: The same of the real side.
        seed: Draws users.
        n_boot: Number of resamples.
    """
    first, second = (
        sums_by_user(users, np.stack([np.asarray(own, np.float64), np.ones(len(np.asarray(own)))], axis=1))[1]
        for users, own in (simulated, real)
    )
    return RateGap(
        bootstrap_statistic(first, _rate, seed=seed, n_boot=n_boot),
        bootstrap_statistic(second, _rate, seed=seed + 1, n_boot=n_boot),
        bootstrap_gap(first, second, _gap, seed=seed, n_boot=n_boot),
    )


def _rate(sums: Values) -> Values:
    rate: Values = sums[:, 0] / sums[:, 1]
    return rate


def _gap(one: Values, other: Values) -> Values:
    return _rate(one) - _rate(other)


def _widened(found: Interval) -> Interval:
    reach = unseen_share(found.n)
    if found.value == 0.0:
        return Interval(0.0, 0.0, reach, found.n)
    return Interval(1.0, 1.0 - reach, 1.0, found.n) if found.value == 1.0 else found
