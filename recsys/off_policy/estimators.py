"""Every single-action estimator as three columns of numbers, one row a logged round.

    estimate = mean(base) + sum(numerator) / sum(denominator)

A resample of the rows is then a weighted sum of the same columns, so intervals cost no second evaluation. The
estimators differ in three choices only: which weights, whether a reward model helps, whether weights are normalised.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from recsys.data.bandit import Values
from recsys.errors import PolicyError
from recsys.off_policy.reward_model import RewardEstimates
from recsys.off_policy.weights import CLIP, OPTIMISTIC, SUB_GAUSSIAN, SWITCH, Shrinkage


class Weighing(StrEnum):
    """What a row counts for before any shrinking."""

    # Target probability over propensity.
    RATIO = "ratio"
    # Target probability alone: 1 or 0 for a policy that always knows what to show.
    MATCH = "match"
    # Nothing: the reward model speaks alone.
    NONE = "none"


class Estimator(NamedTuple):
    """How an estimator is put together.

    weighing: The weights that it starts from.
    uses_model: Adds a reward model's prediction, and weighs what that missed instead of the reward.
    normalised: Divides by the sum of weights instead of the number of rows.
    shrinkage: How large weights are cut; None leaves them.
    """

    weighing: Weighing = Weighing.RATIO
    uses_model: bool = False
    normalised: bool = False
    shrinkage: Shrinkage | None = None


ESTIMATORS: Mapping[str, Estimator] = {
    "replay": Estimator(Weighing.MATCH, normalised=True),
    "ips": Estimator(),
    "snips": Estimator(normalised=True),
    "clipped-ips": Estimator(shrinkage=CLIP),
    "sub-gaussian-ips": Estimator(shrinkage=SUB_GAUSSIAN),
    "dm": Estimator(Weighing.NONE, uses_model=True),
    "dr": Estimator(uses_model=True),
    "sndr": Estimator(uses_model=True, normalised=True),
    "switch-dr": Estimator(uses_model=True, shrinkage=SWITCH),
    "dros": Estimator(uses_model=True, shrinkage=OPTIMISTIC),
    "sub-gaussian-dr": Estimator(uses_model=True, shrinkage=SUB_GAUSSIAN),
}
"""By the name that reports use. Replay is right only where the logging policy showed all actions equally often. The
others need every action that the target policy may show to have had a chance.

Sources: replay, Li et al. (2011), "Unbiased Offline Evaluation of Contextual-bandit-based News Article Recommendation
Algorithms"; ips, Horvitz and Thompson (1952), "A Generalization of Sampling Without Replacement From a Finite
Universe"; snips, Swaminathan and Joachims (2015), "The Self-Normalized Estimator for Counterfactual Learning"; dm and
dr, Dudik, Langford and Li (2011), "Doubly Robust Policy Evaluation and Learning"; the rest in
`recsys.off_policy.weights`. Replay of a policy that draws its actions is the mean over its draws.
"""


class Rounds(NamedTuple):
    """What estimators know of the logged rounds.

    weights: Target probability over propensity. Shape (N,).
    matches: Target probability of the logged action. Shape (N,).
    rewards: Shape (N,).
    model: Predictions of a reward model; None where no estimator asks for one.
    """

    weights: Values
    matches: Values
    rewards: Values
    model: RewardEstimates | None


class Terms(NamedTuple):
    """An estimate before it is summed up.

    base: Shape (N,).
    numerator: Shape (N,).
    denominator: None stands for all ones. Shape (N,).
    used: The weights that it came down to. Shape (N,).
    span: How far apart two rows' contributions can lie, as far as the log tells; None where no bound is known.
    """

    base: Values
    numerator: Values
    denominator: Values | None
    used: Values
    span: float | None

    def value(self) -> float:
        """The estimate; NaN where all weights are 0 and the estimator divides by their sum."""
        if self.denominator is None:
            return float(self.base.mean() + self.numerator.mean())
        total = float(self.denominator.sum())
        return float(self.base.mean() + self.numerator.sum() / total) if total > 0 else float("nan")


def estimator_terms(estimator: Estimator, rounds: Rounds, level: float | None) -> Terms:
    """The columns whose sums make the estimate.

    Args:
        estimator: How it is put together.
        rounds: N rows; with a model if the estimator uses one.
        level: Where its shrinkage stands; None shrinks nothing.

    Returns:
        The columns.

    Raises:
        PolicyError: The estimator needs a reward model and there is none.
    """
    model = _model_of(estimator, rounds)
    used = _weigh(estimator, rounds)
    if estimator.shrinkage is not None and level is not None:
        used = estimator.shrinkage.apply(used, level)
    residuals = residual_rewards(estimator, rounds)
    denominator = used if estimator.normalised else None
    if model is None:
        base = np.zeros_like(used)
        span = None if estimator.normalised else _span(used, residuals)
        return Terms(base, used * residuals, denominator, used, span)
    total = float(used.sum())
    relative = used * (len(used) / total) if estimator.normalised and total > 0 else used
    base = model.target + model.correction(relative)
    doubly = estimator.weighing is Weighing.RATIO and not estimator.normalised
    span = float(np.ptp(model.target)) + _span(used, residuals) if doubly else None
    return Terms(base, used * residuals, denominator, used, span)


def residual_rewards(estimator: Estimator, rounds: Rounds) -> Values:
    """What the estimator weighs: rewards, or how far the model's predictions fell short. Shape (N,)."""
    model = _model_of(estimator, rounds)
    return rounds.rewards if model is None else rounds.rewards - model.logged


def shrinkage_bias_bound(estimator: Estimator, rounds: Rounds, used: Values) -> float:
    """How much bias shrinking can have brought at most, estimated from the log: mean of |w - used| |residual|."""
    if estimator.shrinkage is None:
        return 0.0
    return float(np.mean(np.abs(rounds.weights - used) * np.abs(residual_rewards(estimator, rounds))))


def _model_of(estimator: Estimator, rounds: Rounds) -> RewardEstimates | None:
    """The reward model where the estimator uses one."""
    if estimator.uses_model and rounds.model is None:
        raise PolicyError(
            f"An estimator that uses a reward model must be given one; got None beside {len(rounds.rewards)} rewards. "
            "Set `model` of the rounds."
        )
    return rounds.model if estimator.uses_model else None


def _weigh(estimator: Estimator, rounds: Rounds) -> Values:
    match estimator.weighing:
        case Weighing.RATIO:
            return rounds.weights
        case Weighing.MATCH:
            return rounds.matches
        case Weighing.NONE:
            return np.zeros_like(rounds.weights)


def _span(weights: Values, residuals: Values) -> float:
    """Largest minus smallest product that these weights could make with these residuals."""
    highest = float(weights.max())
    return highest * (max(0.0, float(residuals.max())) - min(0.0, float(residuals.min())))
