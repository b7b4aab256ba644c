"""Importance weights of a target policy, and the four ways of shrinking them.

Shrinking trades variance for bias. Each way has a level; at one end of its range the weights stay as they are, at the
other end they no longer follow the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recsys.data.bandit import BanditLog, Values, refuse_rows
from recsys.errors import PolicyError, ShapeError

SUM_TOLERANCE = 1e-6
_QUANTILES = (0.999, 0.995, 0.99, 0.975, 0.95, 0.9, 0.8)


class Shrinkage(NamedTuple):
    """A way of making large weights smaller.

    apply: From weights (N,) and a level to new weights (N,).
    candidates: From weights (N,) to levels worth trying, least biased first. Shape (L,).
    neutral: The level that leaves weights as they are.
    top: The highest level that has a meaning.
    """

    apply: Callable[[Values, float], Values]
    candidates: Callable[[Values], Values]
    neutral: float
    top: float


def at_positions(action_dist: Values, log: BanditLog) -> Values:
    """The target policy's distribution at each row's own slot, checked.

    Args:
        action_dist: Probability of each action. Shape (N, A), or (N, A, K) where it differs by slot.
        log: N rows.

    Returns:
        Shape (N, A), float64.

    Raises:
        ShapeError: The shape does not fit the log.
        InteractionError: A probability is negative or not finite, or a row does not sum to 1.
    """
    dist = np.asarray(action_dist, dtype=np.float64)
    shapes = ((len(log), log.n_actions), (len(log), log.n_actions, log.n_positions))
    if dist.shape not in shapes:
        raise ShapeError(
            f"`action_dist` must have shape {shapes[0]} or {shapes[1]}; got {dist.shape}. "
            "Give one probability for each row and action of the log."
        )
    if dist.ndim == 3:
        dist = dist[np.arange(len(log)), :, log.positions]
    refuse_rows(
        np.any(~(np.isfinite(dist) & (dist >= 0)), axis=1),
        dist.min(axis=1),
        "`action_dist` must hold finite probabilities of 0 or more",
        "Normalise the policy's scores",
    )
    refuse_rows(
        np.abs(dist.sum(axis=1) - 1) > SUM_TOLERANCE,
        dist.sum(axis=1),
        "Each row of `action_dist` must sum to 1",
        "Divide it by its sum",
    )
    return dist


def importance_weights(target: Values, log: BanditLog) -> Values:
    """How much more often the target policy shows the logged action than the logging policy did.

    Args:
        target: Its distribution at each row's slot. Shape (N, A).
        log: N rows.

    Returns:
        Target probability over propensity, 0 or more. Shape (N,).
    """
    return target[np.arange(len(log)), log.actions] / log.propensities


def clip(weights: Values, level: float) -> Values:
    """Weights cut down to `level`; infinity leaves them, 0 removes them. Shape (N,)."""
    return np.minimum(weights, level)


def switch_off(weights: Values, level: float) -> Values:
    """Weights above `level` set to 0; infinity leaves them, 0 removes them. Shape (N,).

    Source: Wang, Agarwal and Dudik (2017), "Optimal and Adaptive Off-policy Evaluation in Contextual Bandits", with
        the form that looks at the logged action only, as in Su et al. (2020).
    """
    return np.where(weights <= level, weights, 0.0)


def shrink_optimistically(weights: Values, level: float) -> Values:
    """Weights w turned into level * w / (w * w + level); infinity leaves them, 0 removes them. Shape (N,).

    Source: Su, Dimakopoulou, Krishnamurthy and Dudik (2020), "Doubly robust off-policy evaluation with shrinkage".
    """
    if np.isinf(level):
        return weights
    with np.errstate(over="ignore"):
        return np.divide(weights, weights**2 / level + 1) if level > 0 else np.zeros_like(weights)


def pull_to_one(weights: Values, level: float) -> Values:
    """Weights w turned into w / (1 - level + level * w); 0 leaves them, 1 makes every used weight 1. Shape (N,).

    Source: Metelli, Russo and Restelli (2021), "Subgaussian and Differentiable Importance Sampling for Off-Policy
        Evaluation and Learning", with s = -1.
    """
    below = 1 - level + level * weights
    return np.divide(weights, below, out=np.zeros_like(weights), where=weights > 0)


def check_level(name: str, level: float, shrinkage: Shrinkage) -> float:
    """`level` itself, if it has a meaning.

    Raises:
        PolicyError: It is NaN, negative or above the highest.
    """
    if not 0 <= level <= shrinkage.top:
        raise PolicyError(
            f"The level of `{name}` must lie in 0..{shrinkage.top:g}; got {level}. "
            f"Give {shrinkage.neutral:g} for no shrinking."
        )
    return float(level)


def _high_weights(weights: Values) -> Values:
    """No level, then falling quantiles of the weights that are used at all."""
    used = weights[weights > 0]
    found = np.quantile(used, _QUANTILES) if len(used) else np.zeros(0)
    return np.concatenate([[np.inf], np.unique(found)[::-1]])


def _high_squares(weights: Values) -> Values:
    """No level, then levels that halve a weight at falling quantiles; the first two hardly touch any."""
    high = _high_weights(weights)[1:]
    return np.concatenate([[np.inf], high[:1] ** 2 * 100, high[:1] ** 2 * 10, high**2])


def _small_shares(weights: Values) -> Values:
    del weights
    return np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2])


CLIP = Shrinkage(clip, _high_weights, np.inf, np.inf)
SWITCH = Shrinkage(switch_off, _high_weights, np.inf, np.inf)
OPTIMISTIC = Shrinkage(shrink_optimistically, _high_squares, np.inf, np.inf)
SUB_GAUSSIAN = Shrinkage(pull_to_one, _small_shares, 0.0, 1.0)
