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
)

_RULE_OF_THREE = 3.0


class RateGap(NamedTuple):
    """A rate on both sides.

    simulated: Share of simulated rows.
    real: Share of real rows.
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

    Source: Hanley and Lippman-Hand (1983), "If Nothing Goes Wrong, Is Everything All Right?", the rule of three.
    """
    first, second = (
        sums_by_user(
            users, np.stack([np.asarray(flags, dtype=np.float64), np.ones(len(np.asarray(flags)))], axis=1)
        )[1]
        for users, flags in (simulated, real)
    )
    one = _widened(bootstrap_statistic(first, _rate, seed=seed, n_boot=n_boot))
    other = _widened(bootstrap_statistic(second, _rate, seed=seed + 1, n_boot=n_boot))
    gap = bootstrap_gap(first, second, _gap, seed=seed, n_boot=n_boot)
    low = min(gap.low, one.low - other.value, one.value - other.high) if _is_sure(one, other) else gap.low
    high = max(gap.high, one.high - other.value, one.value - other.low) if _is_sure(one, other) else gap.high
    return RateGap(one, other, Interval(gap.value, low, high, gap.n))


def _rate(sums: Values) -> Values:
    rate: Values = sums[:, 0] / sums[:, 1]
    return rate


def _gap(one: Values, other: Values) -> Values:
    return _rate(one) - _rate(other)


def _is_sure(one: Interval, other: Interval) -> bool:
    """Whether a side has nothing but 0 or nothing but 1."""
    return any(side.value in (0.0, 1.0) for side in (one, other))


def _widened(found: Interval) -> Interval:
    reach = min(1.0, _RULE_OF_THREE / found.n)
    if found.value == 0.0:
        return Interval(0.0, 0.0, reach, found.n)
    return Interval(1.0, 1.0 - reach, 1.0, found.n) if found.value == 1.0 else found
