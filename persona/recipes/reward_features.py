"""Reward features: a few learned rewards that all users share, and for each user weights over them.

Follows Barreto et al. (2025), "Capturing Individual Human Preferences with Reward Features", with these departures:

1. Features of replies are given (frozen), and the shared rewards are linear in them, with learned tanh features beside
   where asked for; the paper trains a language model end to end.
2. Users' weights have a standard normal prior in training too, so that a new user's weights, found by the same convex
   problem, are on the same scale.
3. How long to train is chosen on held-out users, each read from a random context.

A new user's weights come with a Gaussian posterior (Laplace), since the problem that finds them is `LatentProfile`'s
own, with no reward for the average user.
"""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from persona.data.comparisons import ComparisonTable, Rows
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.profiles.latent import LatentProfile
from persona.recipes.held_out import held_out_surprise

Report = Callable[[dict[str, float]], None]


class RewardFeaturesConfig(BaseModel):
    """Settings of `train_reward_features`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Shared rewards Z.
    latent_dim: int = Field(default=8, ge=1)
    # Learned tanh features of a reply beside the given ones; 0 keeps rewards linear.
    hidden: int = Field(default=0, ge=0)
    # Comparisons in a step.
    batch_rows: int = Field(default=2048, ge=1)
    # Most passes over the comparisons; held-out users may choose fewer.
    epochs: int = Field(default=60, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=1e-2, gt=0)
    # Penalty on squared weights of the shared rewards.
    weight_decay: float = Field(default=1e-3, ge=0)
    # Largest context of held-out users, in pairs.
    max_context: int = Field(default=16, ge=1)
    # Share of the training users that choose the number of passes.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    # Passes between two looks at the held-out users.
    check_every: int = Field(default=5, ge=1)


def train_reward_features(
    table: ComparisonTable,
    features: Tensor,
    config: RewardFeaturesConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> LatentProfile:
    """Shared rewards from the users of `table`, as a latent profile whose average user prefers nothing.

    Args:
        table: Comparisons of training users alone.
        features: Features of every reply. Shape (N, D), float32.
        config: Settings.
        seed: Draws held-out users, starts and batches; one seed gives one result.
        report: Gets `epoch` and `loss` of the final training.

    Raises:
        DataError: Fewer than four users.
    """
    if len(table.user_ids) < 4:
        raise DataError(
            f"Comparisons must come from at least 4 users; got {len(table.user_ids)}. Collect comparisons of more "
            "users."
        )
    stay, held_out = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    judged = table.select(np.isin(table.users, held_out))
    surprises: dict[int, float] = {}

    def look(epoch: int, profile: LatentProfile) -> None:
        if epoch % config.check_every == 0 or epoch == config.epochs:
            surprises[epoch] = held_out_surprise(
                profile, judged, features, max_context=config.max_context, seed=seed
            )

    kept = table.select(np.isin(table.users, stay))
    _fit(kept, features, config, seed=seed, epochs=config.epochs, after=lambda epoch, p, loss: look(epoch, p))
    best = min(surprises, key=lambda epoch: surprises[epoch])
    tell = report or (lambda figures: None)
    return _fit(
        table, features, config, seed=seed, epochs=best,
        after=lambda epoch, profile, loss: tell({"epoch": epoch, "loss": loss}),
    )  # fmt: skip


def _fit(
    table: ComparisonTable,
    features: Tensor,
    config: RewardFeaturesConfig,
    *,
    seed: int,
    epochs: int,
    after: Callable[[int, LatentProfile, float], None],
) -> LatentProfile:
    """Shared rewards and users' weights by stochastic gradients on the joint posterior."""
    profile = LatentProfile(features.shape[1], config.latent_dim, hidden=config.hidden, seed=seed)
    profile = profile.to(features.device)
    profile.pooled.requires_grad_(False)
    users, owner = np.unique(table.users, return_inverse=True)
    rng = torch.Generator().manual_seed(seed)
    weights = nn.Parameter((0.1 * torch.randn(len(users), config.latent_dim, generator=rng)).to(features))
    shared = [part for part in profile.parameters() if part.requires_grad]
    optimiser = torch.optim.Adam(
        [{"params": shared, "weight_decay": config.weight_decay}, {"params": [weights], "weight_decay": 0.0}],
        lr=config.learning_rate,
    )
    order = np.random.default_rng((seed, 1))
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in _batches(len(table), config.batch_rows, order):
            who = torch.from_numpy(owner[rows]).to(features.device)
            loss = -_log_joint(profile, weights[who], table, features, rows) / len(rows)
            loss = loss + 0.5 * weights.square().sum() / len(table)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        after(epoch, profile, total / len(table))
    return profile.eval()


def _log_joint(
    profile: LatentProfile, weights: Tensor, table: ComparisonTable, features: Tensor, rows: Rows
) -> Tensor:
    """Log-probability of the choices in `rows`, summed."""
    sides = (torch.from_numpy(part[rows]).to(features.device) for part in (table.chosen, table.rejected))
    chosen, rejected = (profile.lift(features[side]) for side in sides)
    odds = ((chosen - rejected) @ profile.head.T * weights).sum(1)
    return logsigmoid(odds).sum()


def _batches(count: int, size: int, rng: np.random.Generator) -> list[Rows]:
    order = rng.permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]
