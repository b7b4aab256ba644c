"""A regression of the reward on action, slot and context, fitted so that no row helps to predict itself.

The predictor is linear, through a logistic curve for rewards in 0..1, plain otherwise. It is solved by Newton's method
to the bottom, which has a use beyond the fit: at the optimum the effect of each training row on any smooth figure made
from the predictions is known in closed form. Intervals of model-based estimators add that effect, and so cover the
error of the fit as well, which resampling of finished predictions would leave out.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.special import expit

from recsys.data.bandit import BanditLog, Values
from recsys.errors import PolicyError, ShapeError
from recsys.types import Ints

_INTERCEPT_L2 = 1e-3
_STEPS = 60
_MOST_WEIGHTS = 8000


class RewardConfig(BaseModel):
    """Settings of the reward regression."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # "logit" for rewards in 0..1, "identity" for any; "auto" takes "logit" wherever rewards allow it.
    link: Literal["auto", "logit", "identity"] = "auto"
    # Ridge penalty on standardised weights, in rows; above 0. The intercept is all but free.
    l2: float = Field(default=1.0, gt=0)
    # Whether each action has its own slopes on the context; needs many rows an action.
    interactions: bool = False
    # Number of parts of the log; each is predicted from the others. 2 or more.
    folds: int = Field(default=3, ge=2)
    # Cut the log into stretches in its own order, such as time, instead of at random.
    in_blocks: bool = False


class RewardEstimates(NamedTuple):
    """What a reward model says of the logged rounds and of the target policy.

    logged: Predicted reward of the logged action. Shape (N,).
    target: Predicted reward of the target policy: the mean over its actions. Shape (N,).
    correction: From weights w (N,) of the rows to each row's effect on mean(target + w (reward - logged)) through the
        fit, times N, of mean 0. Shape (N,). All zero for predictions that come from outside.
    """

    logged: Values
    target: Values
    correction: Callable[[Values], Values]


class RewardModel(NamedTuple):
    """A fitted regression.

    theta: Its weights. Shape (P,).
    design: Makes its inputs from rows and their actions.
    is_logistic: Whether predictions pass through a logistic curve.
    """

    theta: Values
    design: "Design"
    is_logistic: bool

    def scores(self, log: BanditLog) -> Values:
        """The linear predictor of every action in each row. Shape (N, A)."""
        found: Values = np.stack(
            [self.design.rows(log, a) @ self.theta for a in range(log.n_actions)], axis=1
        )
        return found


class Design(NamedTuple):
    """Where a row's action, slot and context stand among the inputs of the regression.

    centre: Subtracted from the context. Shape (F,).
    scale: What the context is divided by after that. Shape (F,).
    interactions: Whether context columns are repeated for each action.
    """

    centre: Values
    scale: Values
    interactions: bool

    @classmethod
    def of_log(cls, log: BanditLog, interactions: bool) -> "Design":
        """Standardises the context of `log`; looks at no reward."""
        deviation = log.context.std(axis=0)
        return cls(log.context.mean(axis=0), np.where(deviation > 0, deviation, 1.0), interactions)

    def rows(self, log: BanditLog, actions: Ints | int) -> csr_array:
        """Inputs of the regression, one row a round.

        Args:
            log: N rows.
            actions: Of each row, or one for all. Shape (N,).

        Returns:
            Columns: 1, action, slot, features of the action, context, context by action. Shape (N, P).
        """
        n, features = log.context.shape
        action = np.broadcast_to(np.asarray(actions, dtype=np.int64), (n,))
        context = (log.context - self.centre) / self.scale
        known = np.zeros((log.n_actions, 0)) if log.action_features is None else log.action_features
        starts = np.cumsum([0, 1, log.n_actions, log.n_positions, known.shape[1], features])
        columns = [
            np.zeros((n, 1), dtype=np.int64),
            (starts[1] + action)[:, None],
            (starts[2] + log.positions)[:, None],
            np.broadcast_to(starts[3] + np.arange(known.shape[1]), (n, known.shape[1])),
            np.broadcast_to(starts[4] + np.arange(features), (n, features)),
        ]
        values = [np.ones((n, 3)), known[action], context]
        width = int(starts[5])
        if self.interactions:
            columns.append(width + action[:, None] * features + np.arange(features))
            values.append(context)
            width += log.n_actions * features
        indices, data = np.concatenate(columns, axis=1), np.concatenate(values, axis=1)
        indptr = np.arange(n + 1, dtype=np.int64) * indices.shape[1]
        return csr_array((data.ravel(), indices.ravel(), indptr), shape=(n, width))


class _Fit(NamedTuple):
    """Optimum of the regression: weights, and the Cholesky factor of its curvature there."""

    theta: Values
    factor: tuple[Values, bool]


class _Fold(NamedTuple):
    """One part of the log, and the model of all others.

    held: Rows of the part; train: the others.
    fit: Made from `train`.
    gap: Reward minus prediction. Shape (N,).
    slope: Derivative of the prediction by its score. Shape (N,).
    gradient: Derivative of the sum of `target` over `held` by the weights. Shape (P,).
    """

    held: Ints
    train: Ints
    fit: _Fit
    gap: Values
    slope: Values
    gradient: Values


def fit_rewards(log: BanditLog, config: RewardConfig) -> RewardModel:
    """One model of the whole log, for making a policy that is evaluated on another log.

    Args:
        log: Training rows.
        config: `folds` and `in_blocks` do not matter here.

    Returns:
        The model.

    Raises:
        PolicyError: The rewards do not fit the link, or there are too many inputs.
    """
    is_logistic = _takes_logit(log, config)
    design = Design.of_log(log, config.interactions)
    fit = _solve(design.rows(log, log.actions), log.rewards, config.l2, is_logistic)
    return RewardModel(fit.theta, design, is_logistic)


def cross_fit_rewards(log: BanditLog, target: Values, config: RewardConfig, *, seed: int) -> RewardEstimates:
    """Predictions for every row from a model that has not seen it, nor any row of the same cluster.

    Args:
        log: N rows.
        target: The target policy at each row's slot. Shape (N, A).
        config: Settings.
        seed: Deals rows or clusters to the parts.

    Returns:
        Predictions, and how they hang on the rows.

    Raises:
        PolicyError: The rewards do not fit the link, there are fewer clusters than parts, or too many inputs.

    Source: Chernozhukov et al. (2018), "Double/debiased machine learning for treatment and structural parameters", for
        the parts; Tsiatis (2006), "Semiparametric Theory and Missing Data", for the effect of the fit.
    """
    is_logistic = _takes_logit(log, config)
    design = Design.of_log(log, config.interactions)
    inputs = design.rows(log, log.actions)
    part = _deal(log, config, seed)
    logged, value = np.zeros(len(log)), np.zeros(len(log))
    folds = []
    for number in range(config.folds):
        held, train = np.flatnonzero(part == number), np.flatnonzero(part != number)
        fit = _solve(inputs[train], log.rewards[train], config.l2, is_logistic)
        mean, slope = _curve(inputs @ fit.theta, is_logistic)
        logged[held] = mean[held]
        value[held], gradient = _mean_over_actions(log.select(held), target[held], fit, design, is_logistic)
        folds.append(_Fold(held, train, fit, log.rewards - mean, slope, gradient))

    def correction(weights: Values) -> Values:
        effect = np.zeros(len(weights))
        for fold in folds:
            lost = inputs[fold.held].T @ (weights[fold.held] * fold.slope[fold.held])
            direction = cho_solve(fold.fit.factor, fold.gradient - lost)
            effect[fold.train] += (inputs[fold.train] @ direction) * fold.gap[fold.train]
        centred: Values = effect - effect.mean()
        return centred

    return RewardEstimates(logged, value, correction)


def rewards_from_table(log: BanditLog, target: Values, predicted: Values) -> RewardEstimates:
    """Predictions that come from outside, taken as given.

    Args:
        log: N rows.
        target: The target policy at each row's slot. Shape (N, A).
        predicted: Reward of each action in each row, made without that row's own reward. Shape (N, A).

    Returns:
        Predictions whose own error no interval knows of.

    Raises:
        ShapeError: `predicted` does not fit the log, or is not finite.
    """
    if predicted.shape != target.shape or not np.isfinite(predicted).all():
        raise ShapeError(
            f"`reward_model` must be one finite number for each row and action, shape {target.shape}; got shape "
            f"{predicted.shape} with {int(np.isfinite(predicted).sum())} finite. Predict every action in every row."
        )
    logged = predicted[np.arange(len(log)), log.actions]
    return RewardEstimates(logged, (target * predicted).sum(axis=1), np.zeros_like)


def _mean_over_actions(
    log: BanditLog, target: Values, fit: _Fit, design: Design, is_logistic: bool
) -> tuple[Values, Values]:
    """Prediction of the target policy in each row (N,), and the derivative of its sum by the weights (P,)."""
    value, gradient = np.zeros(len(log)), np.zeros(len(fit.theta))
    for action in range(log.n_actions):
        inputs = design.rows(log, action)
        mean, slope = _curve(inputs @ fit.theta, is_logistic)
        value += target[:, action] * mean
        gradient += inputs.T @ (target[:, action] * slope)
    return value, gradient


def _takes_logit(log: BanditLog, config: RewardConfig) -> bool:
    fits = bool(((log.rewards >= 0) & (log.rewards <= 1)).all())
    if config.link == "logit" and not fits:
        raise PolicyError(
            f"Rewards must lie in 0..1 for `link` logit; got {log.rewards.min():g} to {log.rewards.max():g}. "
            "Take identity."
        )
    return fits and config.link != "identity"


def _deal(log: BanditLog, config: RewardConfig, seed: int) -> Ints:
    """Part of each row, 0..folds-1: whole clusters, about equally many each. Shape (N,)."""
    n = len(log) if log.clusters is None else int(np.unique(log.clusters).size)
    if n < config.folds:
        raise PolicyError(
            f"`folds` must be at most the number of clusters, or of rows where there are none ({n}); got "
            f"{config.folds}. Lower `folds`, or bring a longer log."
        )
    first = np.arange(len(log)) if log.clusters is None else _by_first_appearance(log.clusters)
    order = np.arange(n) if config.in_blocks else np.random.default_rng(seed).permutation(n)
    return (order[first] * config.folds // n).astype(np.int64)


def _by_first_appearance(clusters: Ints) -> Ints:
    """Clusters numbered 0.. by first appearance."""
    _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _curve(scores: Values, is_logistic: bool) -> tuple[Values, Values]:
    """Prediction and its derivative by the score, each (N,)."""
    if not is_logistic:
        return scores, np.ones_like(scores)
    mean = expit(scores)
    return mean, mean * (1 - mean)


def _solve(inputs: csr_array, rewards: Values, l2: float, is_logistic: bool) -> _Fit:
    """Newton's method with halved steps; the objective is convex, so it ends at the one optimum."""
    width = inputs.shape[1]
    if width > _MOST_WEIGHTS:
        raise PolicyError(
            f"The reward regression must have at most {_MOST_WEIGHTS} inputs; got {width}. "
            "Set `interactions` to false, or give fewer context columns."
        )
    penalty = np.full(width, l2)
    penalty[0] = _INTERCEPT_L2
    theta = np.zeros(width)

    def loss(at: Values) -> float:
        scores = inputs @ at
        fit = np.logaddexp(0, scores) - rewards * scores if is_logistic else (scores - rewards) ** 2 / 2
        return float(fit.sum() + (penalty * at**2).sum() / 2)

    for _ in range(_STEPS):
        mean, slope = _curve(inputs @ theta, is_logistic)
        gradient = inputs.T @ (mean - rewards) + penalty * theta
        curvature = (inputs.T @ (inputs * slope[:, None])).toarray() + np.diag(penalty)
        factor = cho_factor(curvature)
        step = cho_solve(factor, gradient)
        promised = float(gradient @ step)
        if promised < 1e-12 * len(rewards):
            break
        size, now = 1.0, loss(theta)
        while loss(theta - size * step) > now - 1e-4 * size * promised and size > 1e-6:
            size /= 2
        theta = theta - size * step
    return _Fit(theta, factor)
