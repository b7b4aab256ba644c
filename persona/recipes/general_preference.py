"""General preference model (GPM): train an embedding whose blocks may go round in circles, and users' weights of them.

Follows Zhang et al. (2025), with these departures:

1. Users differ: the weight of a block is linear in a Gaussian latent. It may turn negative, which is a user who goes
   round the other way; the score stays skew-symmetric. Published is one preference for all.
2. The embedding is not brought to unit length (the published training code does not either): a block of Bradley-Terry,
   with its constant 1, could not be represented. A temperature would only rescale it.
3. The prompt's gates are a softmax times the number of blocks, and enter by their roots into both embeddings.
4. The start is hierarchical Bayes over the scores of blocks: those of Bradley-Terry along the directions in which users
   differ most, and those of all pairs of a few directions in which rewards leave a circular residue. Its size is
   chosen by held-out users, nothing (plain Bradley-Terry) among the choices, and so is the number of steps.
5. A user's latent is the mode under the current scores (with gradients), after a random context of 0 and more pairs;
   minimised is the log loss of other choices of the same user, with the belief's width in it.
6. Features are given and fixed; embeddings are linear in them and in a few learned ones. The published regulariser by
   a language-model loss has no place here.
"""

from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import ComparisonTable, context_pairs
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.profiles.general_preference import GeneralPreferenceProfile, skew_products
from persona.profiles.hierarchical_bayes import HierarchicalBayes, fit_hierarchical_bayes
from persona.recipes.episodes import Report, choose_steps, optimise, target_loss

USERS_PER_BLOCK = 512
MOST_NUMBERS = 1 << 24
"""Users whose slopes are held at once: no more than these, and no more numbers than these."""


class GeneralPreferenceConfig(BaseModel):
    """Settings of `train_general_preference`; the defaults suit a few hundred users with a few dozen choices each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How many of the last columns of the features are the prompt's.
    prompt_dim: int = Field(default=0, ge=0)
    # Most dimensions Z of a user's latent; no more than there are blocks are taken.
    latent_dim: int = Field(default=16, ge=1)
    # Most directions of linear rewards, a block of Bradley-Terry each.
    linear_dims: int = Field(default=24, ge=1)
    # Numbers of directions that may form circles, each two of them a block; held-out users choose one.
    circular_dims: tuple[int, ...] = Field(default=(0, 2, 4, 6), min_length=1)
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
    # Share of the training users that choose the circles and the number of steps.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    # EM iterations of each hierarchical Bayes of the start.
    em_iterations: int = Field(default=30, ge=1)


class _Directions(NamedTuple):
    """Where blocks start from.

    linear: Orthonormal rows along which linear rewards vary. Shape (L, R).
    circular: Orthonormal rows in whose planes choices go round, the strongest first. Shape (R, R).
    """

    linear: Tensor
    circular: Tensor


def train_general_preference(
    table: ComparisonTable,
    features: Tensor,
    config: GeneralPreferenceConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> GeneralPreferenceProfile:
    """A general preference model of the users of `table`, on the device of `features`.

    Args:
        table: Comparisons of training users alone; ties are left out.
        features: Features of every reply, the prompt's `prompt_dim` last. Shape (N, D), float32.
        config: Settings.
        seed: Draws held-out users, batches, contexts and targets; one seed gives one result.
        report: Gets `circular_dims`, `step`, `held_out_log_loss` while those two are chosen, then `circular_dims`,
            `step`, `loss` of the final training.

    Raises:
        DataError: Fewer than four users, a negative number of circular directions, or no features of replies.
    """
    table = table.without_ties()
    _check(table, features, config)
    report = report or _ignore
    stay, held_out = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    kept, asked = (table.select(np.isin(table.users, users)) for users in (stay, held_out))
    room = features.shape[1] - config.prompt_dim
    directions = _find_directions(kept, features[:, :room], config, seed)
    stops = {}
    for size in sorted({min(size, room) for size in config.circular_dims}):
        profile = _start(kept, features, config, directions, size, seed)
        stops[size] = choose_steps(
            profile, kept, asked, features, config, target_loss(), seed=seed, report=_with_size(report, size)
        )
    size = min(stops, key=lambda size: stops[size].log_loss)
    directions = _find_directions(table, features[:, :room], config, seed)
    profile = _start(table, features, config, directions, size, seed)
    for figures in optimise(
        profile, table, features, config, target_loss(), steps=stops[size].steps, seed=seed
    ):
        _with_size(report, size)(figures)
    return profile.eval()


def _find_directions(
    table: ComparisonTable, replies: Tensor, config: GeneralPreferenceConfig, seed: int
) -> _Directions:
    """Directions of linear tastes, and of what they leave unexplained as circles.

    The likelihood's slope towards a user's own skew matrix K, of a score y_i K y_j on top of the linear one, is the
    sum of (1 - probability) (y_i y_j^T - y_j y_i^T) over the choices; planes in which many users' slopes are large are
    the ones to look in.
    """
    bayes = fit_hierarchical_bayes(table, replies, seed=seed, iterations=config.em_iterations)
    moment = bayes.covariance + torch.outer(bayes.mean, bayes.mean)
    energy = torch.zeros_like(moment)
    block = max(1, min(USERS_PER_BLOCK, MOST_NUMBERS // replies.shape[1] ** 2))
    for start in range(0, len(table.user_ids), block):
        pairs = context_pairs(table, replies, table.user_ids[start : start + block])
        surprise = (1.0 - bayes.predict(bayes.encode(pairs), pairs)) * pairs.mask
        slope = (pairs.chosen * surprise[..., None]).mT @ pairs.rejected
        energy += torch.einsum("bij,bkj->ik", slope - slope.mT, slope - slope.mT)
    linear = _leading(moment)[: min(config.linear_dims, replies.shape[1])]
    return _Directions(linear, _leading(energy))


def _start(
    table: ComparisonTable,
    features: Tensor,
    config: GeneralPreferenceConfig,
    directions: _Directions,
    circular: int,
    seed: int,
) -> GeneralPreferenceProfile:
    """Blocks of Bradley-Terry and of circles, weighted as hierarchical Bayes over their scores finds it."""
    linear, rows = directions.linear, directions.circular[:circular]
    first, second = torch.triu_indices(circular, circular, 1)
    blocks = len(linear) + len(first)
    profile = GeneralPreferenceProfile(
        linear.shape[1],
        blocks,
        min(config.latent_dim, blocks),
        prompt_dim=config.prompt_dim,
        hidden=config.hidden,
        seed=seed,
    ).to(features.device)
    with torch.no_grad():
        sides = profile.embed.zero_().unflatten(0, (blocks, 2))[..., : linear.shape[1]]
        sides[: len(linear), 0] = linear
        profile.embed_bias.unflatten(0, (blocks, 2))[: len(linear), 1] = 1.0
        sides[len(linear) :, 0], sides[len(linear) :, 1] = rows[first], rows[second]
        products = _products(profile, table, features)
        # The fit takes standardised features, whose differences have variance 2; linear blocks are theirs.
        scale = (products.square().mean(0) / 2.0).sqrt().clamp_min(1e-6)
        scale[: len(linear)] = 1.0
        bayes = _fit_products(table, products / scale, config, seed)
        profile.base.copy_(bayes.mean / scale)
        values, vectors = torch.linalg.eigh(bayes.covariance.double().cpu())
        leading = (vectors * values.clamp_min(0).sqrt()).T.flip(0)[: profile.latent_dim]
        profile.head.copy_(leading.to(scale) / scale)
    return profile


def _products(profile: GeneralPreferenceProfile, table: ComparisonTable, features: Tensor) -> Tensor:
    """Scores of the blocks for the choice of each comparison. Shape (M, blocks)."""
    lifted = profile.lift(features)
    chosen, rejected = (torch.from_numpy(side).to(features.device) for side in (table.chosen, table.rejected))
    return skew_products(lifted[chosen], lifted[rejected])


def _fit_products(
    table: ComparisonTable, products: Tensor, config: GeneralPreferenceConfig, seed: int
) -> HierarchicalBayes:
    """Hierarchical Bayes whose feature differences are `products`: each against one reply of zeros."""
    rows = np.arange(len(table))
    alone = ComparisonTable(table.users, table.prompts, rows, np.full_like(rows, len(rows)))
    columns = torch.cat([products, torch.zeros_like(products[:1])])
    return fit_hierarchical_bayes(alone, columns, seed=seed, iterations=config.em_iterations)


def _leading(moment: Tensor) -> Tensor:
    """Eigenvectors as rows, the largest first. Shape (R, R)."""
    vectors: Tensor = torch.linalg.eigh(moment.double().cpu()).eigenvectors
    return vectors.T.flip(0).to(moment)


def _check(table: ComparisonTable, features: Tensor, config: GeneralPreferenceConfig) -> None:
    if len(table.user_ids) < 4 or min(config.circular_dims) < 0:
        raise DataError(
            f"Users must be at least 4 and each of `circular_dims` at least 0; got {len(table.user_ids)} users and "
            f"{list(config.circular_dims)}. Collect more, or use (0, 2, 4, 6)."
        )
    if config.prompt_dim >= features.shape[1]:
        raise DataError(
            f"`prompt_dim` must be below the number of features ({features.shape[1]}); got {config.prompt_dim}. Give "
            "features of replies before the prompt's."
        )


def _with_size(report: Report, size: int) -> Report:
    return lambda figures: report({"circular_dims": size, **figures})


def _ignore(figures: dict[str, float]) -> None:
    """Take a report and do nothing with it."""
