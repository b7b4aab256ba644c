"""A listwise choice among several options: a conditional logit with a no-choice constant of each user's own.

Learned users react to one item at a time and need the model of levels alone; this one goes on top of it, for logs of
choices out of lists.

P(option o | scene) = exp(x_o . theta) / (exp(c + a_u) + sum over options of exp(x_o . theta)), where x_o holds what is
known of the user's taste for the option, its place and its popularity (`option_covariates`), c is the constant of
choosing nothing and a_u ~ N(0, variance) the user's deviation from it (McFadden 1974, "Conditional logit analysis of
qualitative choice behavior"; Hausman and McFadden 1984 on independence of irrelevant alternatives, which it assumes).
Scenes in which something was always chosen have no constant.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from persona.artefacts import load_artefact, save_artefact
from simulators.errors import MirrorError
from simulators.mirror.effects import Effect
from simulators.mirror.level_model import LevelModel
from simulators.mirror.scenes import NONE, ChoiceScenes
from simulators.mirror.steps import Ints, Values, position_term

KIND = "conditional logit"
COVARIATES = ("taste", "doubt", "position", "popularity")
"""What describes an option: mean and variance of the believed utility, -log(1 + place), standardised popularity."""

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ConditionalLogit:
    """A fitted listwise choice model.

    Attributes:
        theta: Weights of the covariates. Shape (C,).
        covariance: Of the estimate, users being the independent units (sandwich); of theta and, where there is one,
            the constant. Shape (P, P).
        constant: Utility of choosing nothing for the average user; None where nothing can be refused.
        own: Deviations a_u, drawn towards zero; zero for users without scenes. Shape (U,).
        variance: Of a_u over the users.
    """

    theta: Values
    covariance: Values
    constant: float | None
    own: Values
    variance: float

    def effect(self, covariate: int) -> Effect:
        """A weight with its standard error."""
        return Effect(float(self.theta[covariate]), float(np.sqrt(self.covariance[covariate, covariate])))

    def probabilities(self, covariates: Values, available: NDArray[np.bool_], users: Ints) -> Values:
        """P(slot) with P(none) in the last column, shape (S, O + 1); rows sum to 1.

        Args:
            covariates: Shape (S, O, C).
            available: Which slots hold an option. Shape (S, O).
            users: Whose scene it is. Shape (S,).

        Raises:
            MirrorError: Other shapes than the model was fitted with.
        """
        _check(covariates, available, users, len(self.theta))
        constant = None if self.constant is None else self.constant + self.own[users]
        return _softmax(covariates @ self.theta, available, constant)

    def save(self, folder: Path, name: str = "conditional_logit") -> None:
        """Write `name`.safetensors and `name`.json into `folder`."""
        tensors = {key: torch.tensor(getattr(self, key)) for key in ("theta", "covariance", "own")}
        facts = {"constant": self.constant, "variance": self.variance}
        save_artefact(folder, name, kind=KIND, tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path, name: str = "conditional_logit") -> "ConditionalLogit":
        """The model that `save` wrote.

        Raises:
            DataError: The files are missing or damaged.
        """
        tensors, facts = load_artefact(folder, name, kind=KIND)
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        return cls(**arrays, constant=facts["constant"], variance=facts["variance"])


def option_covariates(model: LevelModel, scenes: ChoiceScenes) -> tuple[Values, NDArray[np.bool_]]:
    """The columns `COVARIATES` of every option, and which slots hold one; shapes (S, O, 4) and (S, O).

    The model must know nothing of the scenes, or taste counts for more in them than it will later.
    """
    available = scenes.options >= 0
    items = np.maximum(scenes.options, 0)
    who = np.broadcast_to(scenes.users[:, None], items.shape)
    mean, variance = model.utility(who.ravel(), items.ravel())
    columns = (
        mean.reshape(items.shape),
        variance.reshape(items.shape),
        position_term(scenes.positions),
        model.popularity[items],
    )
    return np.stack(columns, axis=2) * available[..., None], available


def fit_choices(
    covariates: Values,
    available: NDArray[np.bool_],
    chosen: Ints,
    users: Ints,
    *,
    n_users: int,
    penalty: float = 1e-3,
    iterations: int = 30,
) -> ConditionalLogit:
    """Fit by penalised maximum likelihood: Newton steps for all parameters, EM for the variance of users' constants.

    Args:
        covariates: Shape (S, O, C), finite.
        available: Which slots hold an option. Shape (S, O).
        chosen: Slot chosen, -1 for none. Shape (S,).
        users: Row of the user. Shape (S,).
        n_users: Number of users U.
        penalty: Ridge on theta and constant, one half of it times their square.
        iterations: Newton steps.

    Raises:
        MirrorError: Shapes that do not fit, or no scene.
    """
    _check(covariates, available, users, covariates.shape[-1])
    if not len(chosen) or chosen.shape != users.shape or users.max() >= n_users:
        raise MirrorError(
            f"`chosen` and `users` must have one entry for each of at least one scene, users below {n_users}; got "
            f"shapes {chosen.shape} and {users.shape}."
        )
    refuses = bool((chosen == NONE).any())
    inputs = _inputs(covariates, refuses)
    open_slots = np.concatenate([available, np.full((len(chosen), 1), refuses)], axis=1)
    took = np.where(chosen == NONE, covariates.shape[1], chosen)
    weights, own = np.zeros(inputs.shape[2]), np.zeros(n_users)
    variance = 0.1 if refuses else 0.0
    for _ in range(iterations):
        step = _Scores.of(inputs, open_slots, took, users, weights, own, refuses=refuses)
        weights, own, spread = _newton(step, weights, own, variance, penalty)
        if refuses:
            seen = step.information_own > 0
            variance = max(float((own[seen] ** 2 + spread[seen]).mean()), LEAST_VARIANCE)
    step = _Scores.of(inputs, open_slots, took, users, weights, own, refuses=refuses)
    covariance = _sandwich(step, own, variance, penalty)
    width = covariates.shape[2]
    return ConditionalLogit(
        weights[:width], covariance, float(weights[width]) if refuses else None, own, variance
    )


@dataclass(frozen=True)
class _Scores:
    """First and second derivatives of the log-likelihood: of the shared weights, by user, and across."""

    by_user: Values  # (U, P)
    information: Values  # (P, P)
    own: Values  # (U,)
    information_own: Values  # (U,)
    cross: Values  # (U, P)

    @classmethod
    def of(
        cls,
        inputs: Values,
        open_slots: NDArray[np.bool_],
        took: Ints,
        users: Ints,
        weights: Values,
        own: Values,
        *,
        refuses: bool,
    ) -> "_Scores":
        utility = inputs @ weights
        utility[:, -1] += own[users] if refuses else 0.0
        chance = _masked_softmax(utility, open_slots)
        mean = np.einsum("so,sop->sp", chance, inputs)
        rows = np.arange(len(took))
        away = inputs - mean[:, None]
        weighted = (away * chance[..., None]).reshape(-1, inputs.shape[2])
        refused = chance[:, -1]
        n_users = len(own)
        by_user = np.zeros((n_users, inputs.shape[2]))
        np.add.at(by_user, users, inputs[rows, took] - mean)
        cross = np.zeros_like(by_user)
        np.add.at(cross, users, refused[:, None] * away[:, -1])
        left = (took == inputs.shape[1] - 1) - refused
        return cls(
            by_user,
            weighted.T @ away.reshape(-1, inputs.shape[2]),
            np.bincount(users, weights=left, minlength=n_users).astype(np.float64),
            np.bincount(users, weights=refused * (1 - refused), minlength=n_users).astype(np.float64),
            cross,
        )


def _newton(
    step: _Scores, weights: Values, own: Values, variance: float, penalty: float
) -> tuple[Values, Values, Values]:
    """New weights and constants, and the posterior variance of the constants; users are eliminated first."""
    if not variance:
        information = step.information + penalty * np.eye(len(weights))
        return weights + np.linalg.solve(information, step.by_user.sum(0) - penalty * weights), own, 0 * own
    held = step.information_own + 1 / variance
    gradient_own = step.own - own / variance
    ratio = step.cross / held[:, None]
    information = step.information + penalty * np.eye(len(weights)) - step.cross.T @ ratio
    gradient = step.by_user.sum(axis=0) - penalty * weights - ratio.T @ gradient_own
    change = np.linalg.solve(information, gradient)
    return weights + change, own + (gradient_own - step.cross @ change) / held, 1 / held


def _sandwich(step: _Scores, own: Values, variance: float, penalty: float) -> Values:
    """Covariance of the shared weights: inverse profile information around the outer products of users' scores."""
    scores, information = step.by_user, step.information + penalty * np.eye(step.information.shape[0])
    if variance:
        held = step.information_own + 1 / variance
        ratio = step.cross / held[:, None]
        information = information - step.cross.T @ ratio
        scores = scores - ratio * (step.own - own / variance)[:, None]
    bread = np.linalg.inv(information)
    found: Values = bread @ (scores.T @ scores) @ bread
    return found


def _inputs(covariates: Values, refuses: bool) -> Values:
    """Covariates with an option "none" last, which has a 1 in a column of its own where nothing can be chosen."""
    scenes, options, width = covariates.shape
    inputs = np.zeros((scenes, options + 1, width + refuses))
    inputs[:, :-1, :width] = covariates
    if refuses:
        inputs[:, -1, -1] = 1.0
    return inputs


def _softmax(utility: Values, available: NDArray[np.bool_], constant: Values | None) -> Values:
    count = (len(utility), 1)
    nothing = np.zeros(count) if constant is None else constant[:, None]
    open_slots = np.concatenate([available, np.full(count, constant is not None)], axis=1)
    return _masked_softmax(np.concatenate([utility, nothing], axis=1), open_slots)


def _masked_softmax(utility: Values, open_slots: NDArray[np.bool_]) -> Values:
    masked = np.where(open_slots, utility, -np.inf)
    weights = np.exp(masked - masked.max(axis=1, keepdims=True))
    found: Values = weights / weights.sum(axis=1, keepdims=True)
    return found


def _check(covariates: Values, available: NDArray[np.bool_], users: Ints, width: int) -> None:
    if covariates.ndim != 3 or covariates.shape[:2] != available.shape or covariates.shape[2] != width:
        raise MirrorError(
            f"`covariates` must have shape (S, O, {width}) and `available` (S, O); got {covariates.shape} and "
            f"{available.shape}. Make both with `option_covariates`."
        )
    if users.shape != covariates.shape[:1] or not available.any(axis=1).all():
        raise MirrorError(
            f"Each of the {len(covariates)} scenes must have a user and an option; got {len(users)} users and "
            f"{int((~available.any(axis=1)).sum())} scenes without an option."
        )
