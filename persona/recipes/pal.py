"""PAL: train prototypes and the space around them on many users' comparisons.

Follows Chen et al. (2024), with these departures:

1. Ideal points are compared by squared distance, the published code takes the distance itself: squared, the score
   is linear in a user's weights, so that a new user is a convex problem.
2. Prompts' cosines are taken with each prototype and then mixed; published is the cosine with the mixture. Both are
   the same for a user of one kind; for a mixed one the published form hides how far the prototypes agree, and is not
   convex.
3. A user's weights are nowhere stored in training: they are the mode under the current scores (with gradients), after
   a random context of 0 and more pairs. What is minimised is the loss of other choices of the same user, with the
   belief's uncertainty in it, so that training asks for what use asks for.
4. The prior is entropic, c KL(w || w0), with w0 and c trained along; published is no prior, and 20 epochs of gradient
   descent for each new user.
5. The start is hierarchical Bayes with one more column, the square of a reply's length, written as prototypes at the
   corners of a simplex of K points (on a sphere, for cosines); published is a random one. Held-out users choose K and
   the number of steps, none included.
6. Features are given and fixed; the reply's embedding is linear in them and in a few learned ones. The scale of the
   cosines has no cap.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable
from persona.errors import DataError
from persona.objectives.score_gap import logistic_loss
from persona.profiles.hierarchical_bayes import HierarchicalBayes, fit_hierarchical_bayes
from persona.profiles.pal import START_CONCENTRATION, IdealPoints, PalProfile, PromptCosines
from persona.profiles.simplex import logit_basis
from persona.recipes.episodes import GapLoss, Report, choose_steps, optimise, target_loss
from persona.recipes.held_out import part_users

LEAST_CURVATURE = 1e-3
REMOTENESS = 4.0
"""How far out replies start, in units of their spread, for cosines to be nearly linear."""


class PalConfig(BaseModel):
    """Settings of `train_pal`; the defaults suit a few hundred users with a few dozen comparisons each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Which of the two scorers: PAL-A or PAL-B.
    form: Literal["ideal points", "prompt cosines"] = "ideal points"
    # How many of the last columns of the features are the prompt's; must be 0 for ideal points.
    prompt_dim: int = Field(default=0, ge=0)
    # Numbers of prototypes K that held-out users choose from.
    kinds: tuple[int, ...] = Field(default=(4, 16, 32), min_length=1)
    # Most dimensions of the learned space; no more than features are taken.
    embed_dim: int = Field(default=24, ge=1)
    # Learned tanh features beside the given ones.
    hidden: int = Field(default=0, ge=0)
    # Largest context in training, in pairs.
    max_context: int = Field(default=16, ge=1)
    # Most targets of one user in a step.
    max_targets: int = Field(default=16, ge=1)
    # Users in a step.
    users_per_step: int = Field(default=64, ge=1)
    # Most optimiser steps; held-out users may choose fewer.
    steps: int = Field(default=120, ge=0)
    # Optimiser steps between two looks at the held-out users.
    check_every: int = Field(default=20, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=2e-3, gt=0)
    # Largest norm of a gradient.
    clip_norm: float = Field(default=1.0, gt=0)
    # Share of the training users that choose K and the number of steps.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    # EM iterations of the hierarchical Bayes start.
    em_iterations: int = Field(default=30, ge=1)


class _Population(NamedTuple):
    """Tastes of the training users in a small space: where each K starts from.

    basis: Orthonormal rows, from features to the space. Shape (E, R).
    tastes: Gaussian of linear weights over the space.
    curvature: What the square of a unit of the space costs, at least a little.
    spread: Root mean square length of a reply in the space.
    """

    basis: Tensor
    tastes: HierarchicalBayes
    curvature: float
    spread: float


def train_pal(
    table: ComparisonTable,
    features: Tensor,
    config: PalConfig,
    *,
    seed: int,
    report: Report | None = None,
    loss: GapLoss = logistic_loss,
) -> PalProfile:
    """A PAL profile trained on the users of `table`, on the device of `features`.

    Args:
        table: Comparisons of training users alone; ties are left out.
        features: Features of every reply, the prompt's `prompt_dim` last. Shape (N, D), float32.
        config: Settings.
        seed: Draws held-out users, batches, contexts and targets; one seed gives one result.
        report: Gets `kinds`, `step`, `held_out_log_loss` while K and the number of steps are chosen, then `kinds`,
            `step`, `loss` of the final training.
        loss: `logistic_loss`, or `hinge_loss` as published for PAL-A; probabilities, and what held-out users choose
            by, stay logistic.

    Raises:
        DataError: Fewer than four users, fewer than two prototypes, or a `prompt_dim` that the form or the features
            have no room for.
    """
    table = table.without_ties()
    _check(table, features, config)
    report = report or _ignore
    kept, asked = part_users(table, config.held_out_share, seed=seed)
    objective = target_loss(loss)
    population = _fit_population(kept, features, config, seed)
    stops = {}
    for kinds in config.kinds:
        profile = _start(population, config, kinds, seed).to(features.device)
        stops[kinds] = choose_steps(
            profile, kept, asked, features, config, objective, seed=seed, report=_with_kinds(report, kinds)
        )
    kinds = min(stops, key=lambda kinds: stops[kinds].log_loss)
    profile = _start(_fit_population(table, features, config, seed), config, kinds, seed).to(features.device)
    for figures in optimise(profile, table, features, config, objective, steps=stops[kinds].steps, seed=seed):
        _with_kinds(report, kinds)(figures)
    return profile.eval()


def _fit_population(table: ComparisonTable, features: Tensor, config: PalConfig, seed: int) -> _Population:
    """Hierarchical Bayes twice: over all features, to find the space, and within it with one more column, the square.

    The square's average weight says how curved tastes are; it is common to all users in PAL.
    """
    replies = features[:, : features.shape[1] - config.prompt_dim]
    wide = fit_hierarchical_bayes(table, replies, seed=seed, iterations=config.em_iterations)
    moment = (wide.covariance + torch.outer(wide.mean, wide.mean)).double().cpu()
    size = min(config.embed_dim, replies.shape[1])
    basis = torch.linalg.eigh(moment).eigenvectors[:, -size:].T.to(replies)
    projected = replies @ basis.T
    square = projected.square().sum(1, keepdim=True)
    scale = square.std()
    narrow = fit_hierarchical_bayes(
        table, torch.cat([projected, square / scale], dim=1), seed=seed, iterations=config.em_iterations
    )
    # Leaving the square's column out keeps the other weights as they were found beside it.
    tastes = HierarchicalBayes(narrow.mean[:-1], narrow.factor[:-1])
    curvature = max(float(-narrow.mean[-1] / scale), LEAST_CURVATURE)
    return _Population(basis, tastes, curvature, float(square.mean().sqrt()))


def _start(population: _Population, config: PalConfig, kinds: int, seed: int) -> PalProfile:
    """Prototypes at the corners of a simplex along the directions in which users differ most.

    For weights near the average ones the mixture is then Gaussian, and its tastes are those of the population.
    """
    size, width = population.basis.shape
    uniform = torch.full((kinds,), kinds, dtype=torch.float32).reciprocal()
    basis = logit_basis(uniform.log(), torch.tensor(START_CONCENTRATION))
    values, vectors = torch.linalg.eigh(population.tastes.covariance.double().cpu())
    kept = min(kinds - 1, size)
    head = torch.zeros(kinds - 1, size)
    head[:kept] = (vectors * values.clamp_min(0).sqrt()).T.flip(0)[:kept].float()
    # Weights move by diag(w0) B z, which the points below turn into head^T z.
    corners = population.tastes.mean.cpu() + START_CONCENTRATION * basis @ head
    if config.form == "ideal points":
        points = IdealPoints(width, kinds, size, hidden=config.hidden, seed=seed)
        with torch.no_grad():
            points.embed.zero_()[:, :width] = population.basis
            points.points.copy_(0.5 * corners)
            points.log_curvature.fill_(float(np.log(population.curvature)))
        return PalProfile(points)
    return PalProfile(_start_cosines(population, config, corners, seed))


def _start_cosines(population: _Population, config: PalConfig, corners: Tensor, seed: int) -> PromptCosines:
    """Ideal points on a sphere: one more coordinate puts replies far out, one makes prototypes equally long.

    With a reply at (e, far) and a prototype at (corner, pole), their cosine is e . corner + far pole, shortened by
    1 + |e|^2 / (2 far^2): linear, less a curve of pole |e|^2 / (2 far).
    """
    (size, width), kinds = population.basis.shape, len(corners)
    far = REMOTENESS * population.spread
    pole = 2.0 * far * population.curvature
    length = corners.square().sum(1) + pole**2
    longest = float(length.max().sqrt())
    cosines = PromptCosines(
        width, kinds, size + 2, prompt_dim=config.prompt_dim, hidden=config.hidden, seed=seed
    )
    with torch.no_grad():
        cosines.embed.zero_()[:size, :width] = population.basis
        cosines.embed_bias.zero_()[size] = far
        cosines.wants.zero_()[:, :size] = corners
        cosines.wants[:, size] = pole
        cosines.wants[:, size + 1] = (longest**2 - length).clamp_min(0).sqrt()
        cosines.project.zero_()
        cosines.log_scale.fill_(float(np.log(longest * far)))
    return cosines


def _check(table: ComparisonTable, features: Tensor, config: PalConfig) -> None:
    if len(table.user_ids) < 4 or min(config.kinds) < 2:
        raise DataError(
            f"Users must be at least 4 and each of `kinds` at least 2; got {len(table.user_ids)} users and "
            f"{list(config.kinds)}. Collect more, or ask for more prototypes."
        )
    room = 0 if config.form == "ideal points" else features.shape[1] - 1
    if config.prompt_dim > room:
        raise DataError(
            f"`prompt_dim` must be at most {room} for {config.form} over {features.shape[1]} features; got "
            f"{config.prompt_dim}. Ideal points read no prompt; give features of replies before the prompt's."
        )


def _with_kinds(report: Report, kinds: int) -> Report:
    return lambda figures: report({"kinds": kinds, **figures})


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
