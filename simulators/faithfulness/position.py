"""How fast attention falls along a list, in a simulator and in a log: the slope of a logistic curve.

P(level >= 1 at position p) = sigmoid(a + b log(1 + p)), positions counted from 0. Lists ranked well put better items
first, so the slope mixes attention with quality: compare sides that were shown lists of the same recommender.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.significance import Interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import (
    RESAMPLES,
    Values,
    bootstrap_gap,
    bootstrap_statistic,
    cells_by_user,
)

_STEPS = 50
_LONGEST_STEP = 2.0
_PRIOR_PRECISION = 1e-2
"""Of a normal belief in slope and intercept, so wide that it matters only where nothing or everything was opened."""


class PositionGap(NamedTuple):
    """Slopes of both sides, and the rates that they were fitted to.

    positions: Positions that occur on either side, ascending. Shape (P,).
    simulated_rate: Share of rows opened at each position; NaN where the side has none. Shape (P,).
    real_rate: The same. Shape (P,).
    simulated: Slope of the simulated side, in logits a unit of log(1 + position).
    real: Slope of the real side.
    gap: Simulated less real slope.
    """

    positions: Values
    simulated_rate: Values
    real_rate: Values
    simulated: Interval
    real: Interval
    gap: Interval


def compare_position_bias(
    simulated: tuple[ArrayLike, ArrayLike, ArrayLike],
    real: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    seed: int,
    n_boot: int = RESAMPLES,
) -> PositionGap:
    """Compare how fast openings fall along the list.

    Args:
        simulated: Id of each row's user, its position from 0, and whether it was opened; shape (N,) each.
        real: The same of the real side.
        seed: Draws users.
        n_boot: Number of resamples.

    Raises:
        FaithfulnessError: A position is negative or no whole number, or a side has one position only.

    Source: position terms in clicks as in Craswell et al. (2008), "An Experimental Comparison of Click Position-Bias
    Models"; fitted by Newton's method to counts.
    """
    places = np.union1d(_checked(simulated[1], "simulated"), _checked(real[1], "real")).astype(np.float64)
    first, second = (_counts(side, places) for side in (simulated, real))

    def slope(counts: Values) -> Values:
        return logistic_slope(counts, np.log1p(places))

    def gap(one: Values, other: Values) -> Values:
        return slope(one) - slope(other)

    return PositionGap(
        places,
        _rates(first),
        _rates(second),
        bootstrap_statistic(first, slope, seed=seed, n_boot=n_boot),
        bootstrap_statistic(second, slope, seed=seed + 1, n_boot=n_boot),
        bootstrap_gap(first, second, gap, seed=seed, n_boot=n_boot),
    )


def logistic_slope(counts: Values, x: Values) -> Values:
    """Slope b of P(success) = sigmoid(a + b x) by maximum likelihood, for many sets of counts at once.

    Args:
        counts: Successes at each x, then trials at each x. Shape (R, 2 P).
        x: Distinct numbers. Shape (P,).

    Returns:
        Shape (R,). A very weak prior keeps it finite where all trials succeed or none does.
    """
    success, trials = np.split(counts, 2, axis=-1)
    total = np.maximum(trials.sum(-1), 1.0)
    centre = (trials @ x / total)[:, None]
    away = x[None] - centre
    rate = np.clip(success.sum(-1) / total, 1e-3, 1 - 1e-3)
    intercept, slope = np.log(rate / (1 - rate)), np.zeros(len(counts))
    for _ in range(_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(intercept[:, None] + slope[:, None] * away, -30, 30)))
        wrong, weight = success - trials * fitted, trials * fitted * (1 - fitted)
        g_0 = wrong.sum(-1) - _PRIOR_PRECISION * intercept
        g_1 = (wrong * away).sum(-1) - _PRIOR_PRECISION * slope
        h_00, h_01 = weight.sum(-1) + _PRIOR_PRECISION, (weight * away).sum(-1)
        h_11 = (weight * away**2).sum(-1) + _PRIOR_PRECISION
        determinant = h_00 * h_11 - h_01**2
        steps = (h_11 * g_0 - h_01 * g_1) / determinant, (h_00 * g_1 - h_01 * g_0) / determinant
        intercept = intercept + np.clip(steps[0], -_LONGEST_STEP, _LONGEST_STEP)
        slope = slope + np.clip(steps[1], -_LONGEST_STEP, _LONGEST_STEP)
        if max(np.abs(steps[0]).max(), np.abs(steps[1]).max()) < 1e-9:
            break
    return slope


def _counts(side: tuple[ArrayLike, ArrayLike, ArrayLike], places: Values) -> Values:
    """Openings, then rows, at each position of each user. Shape (U, 2 P)."""
    place = np.searchsorted(places, np.asarray(side[1], dtype=np.float64))
    return cells_by_user(side[0], place, len(places), side[2], 1)[1]


def _rates(counts: Values) -> Values:
    opened, rows = np.split(counts.sum(0), 2)
    rates: Values = np.divide(opened, rows, out=np.full(len(rows), np.nan), where=rows > 0)
    return rates


def _checked(positions: ArrayLike, name: str) -> NDArray[np.float64]:
    found = np.asarray(positions, dtype=np.float64)
    wrong = found[~(np.isfinite(found) & (found >= 0) & (np.floor(found) == found))]
    if len(wrong):
        raise FaithfulnessError(
            f"Positions must be whole numbers from 0; got {wrong[:3].tolist()} on the {name} side. Count from 0."
        )
    if len(np.unique(found)) < 2:
        raise FaithfulnessError(
            f"A side must have rows at two positions or more; got {len(np.unique(found))} on the {name} side. "
            "Leave the column `position` out."
        )
    return found
