"""Choosing how hard to shrink weights from the log itself.

Both rules walk from the least to the most biased level. They look at the log that the estimate is made from, so the
interval of a tuned estimator is a little too short; how much the choice moved the estimate is reported beside it.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from recsys.data.bandit import Values
from recsys.off_policy.estimators import Estimator, Rounds, estimator_terms, residual_rewards
from recsys.off_policy.intervals import bernstein_half_width

Rule: TypeAlias = Literal["bound", "mse", "slope"]


class _Tried(NamedTuple):
    """One level. value: estimate; error: its standard error; bias: as measured; doubt: how much more it may be."""

    value: float
    error: float
    bias: float
    doubt: float


def choose_level(estimator: Estimator, rounds: Rounds, rule: Rule) -> float:
    """The level of an estimator's shrinkage that the log speaks for.

    Args:
        estimator: One with a shrinkage; any other gets infinity, which is of no consequence.
        rounds: N rows.
        rule: "bound" takes the least sum of variance and squared bias, with the bias at the upper end of its
            empirical Bernstein interval: it shrinks where that is safe, so mostly in long logs. "mse" takes the bias
            as measured. "slope" takes the last level whose interval of two standard errors still meets those of all
            levels before it. The last two shrink more, and their intervals can miss the truth for it.

    Returns:
        The level.

    Source: Su, Dimakopoulou, Krishnamurthy and Dudik (2020), "Doubly robust off-policy evaluation with shrinkage",
        for "bound" and "mse"; Su, Srinath and Krishnamurthy (2020), "Adaptive Estimator Selection for
        Off-Policy Evaluation", for "slope", with standard errors in place of its high-probability widths.
    """
    if estimator.shrinkage is None:
        return np.inf
    levels = estimator.shrinkage.candidates(rounds.weights)
    tried = [_try(estimator, rounds, float(level)) for level in levels]
    if rule != "slope":
        biases = [one.bias + (one.doubt if rule == "bound" else 0.0) for one in tried]
        risks = [one.error**2 + bias**2 for one, bias in zip(tried, biases, strict=True)]
        return float(levels[int(np.argmin(risks))])
    lows = np.maximum.accumulate([one.value - 2 * one.error for one in tried])
    highs = np.minimum.accumulate([one.value + 2 * one.error for one in tried])
    return float(levels[int(np.flatnonzero(lows <= highs)[-1])])


def _try(estimator: Estimator, rounds: Rounds, level: float) -> _Tried:
    terms = estimator_terms(estimator, rounds, level)
    values = terms.base + terms.numerator
    lost: Values = (rounds.weights - terms.used) * residual_rewards(estimator, rounds)
    moved = bool(np.any(lost))
    doubt = bernstein_half_width(lost, float(np.ptp(lost)), level=0.95) if moved else 0.0
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return _Tried(terms.value(), error, abs(float(lost.mean())), doubt)
