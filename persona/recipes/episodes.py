"""Training on episodes: random contexts of a user, and what the same user chose elsewhere, to be predicted from them.

Shared by profiles whose encoder is the posterior under their own scores, so that one loss trains everything. How long
to train is chosen on held-out users, with not at all among the choices.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from persona.data.comparisons import ComparisonTable, Episodes, PaddedRows, gather_pairs, sample_episodes
from persona.objectives.score_gap import logistic_loss, moderated_gap
from persona.profiles import Profile
from persona.recipes.held_out import Look, best_look, held_out_episodes, target_surprise
from persona.types import Posterior, ReplyPairs

Report = Callable[[dict[str, float]], None]

PATIENCE = 3
"""Looks at held-out users without a better one after which no more steps are tried."""


class EpisodeSettings(Protocol):
    """What a recipe's configuration says about episodes and steps; see `persona.recipes.latent` for their meaning."""

    @property
    def max_context(self) -> int:
        """Largest context, in pairs."""
        ...

    @property
    def max_targets(self) -> int:
        """Most targets of a user in a step."""
        ...

    @property
    def users_per_step(self) -> int:
        """Users in a step."""
        ...

    @property
    def steps(self) -> int:
        """Most optimiser steps."""
        ...

    @property
    def check_every(self) -> int:
        """Steps between two looks at held-out users."""
        ...

    @property
    def learning_rate(self) -> float:
        """Adam's step size."""
        ...

    @property
    def clip_norm(self) -> float:
        """Largest norm of a gradient."""
        ...


class Learner(Profile, Protocol):
    """A profile with weights to train, and log-odds beside its probabilities."""

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, T) of the log-odds of each first reply."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...


EpisodeLoss = Callable[[Learner, ReplyPairs, ReplyPairs], Tensor]
"""(profile, context, target) with lifted features -> loss of each user, shape (B,)."""


GapLoss = Callable[[Tensor], Tensor]
"""From gaps (B, T) between preferred and other replies, in logits, to losses (B, T)."""


def target_loss(loss: GapLoss = logistic_loss) -> EpisodeLoss:
    """Mean loss of each user's targets under the belief after the context, the belief's width included."""

    def of_episode(profile: Learner, context: ReplyPairs, target: ReplyPairs) -> Tensor:
        gap = moderated_gap(*profile.log_odds(profile.encode(context), target))
        return torch.where(target.mask, loss(gap), 0.0).sum(1) / target.mask.sum(1)

    return of_episode


def choose_steps(
    profile: Learner,
    table: ComparisonTable,
    held_out: ComparisonTable,
    features: Tensor,
    settings: EpisodeSettings,
    loss: EpisodeLoss,
    *,
    seed: int,
    report: Report,
) -> Look[Learner]:
    """Train `profile` in place and find the number of steps under which other users' choices are likeliest.

    Args:
        profile: At its start.
        table: Comparisons of the users that are trained on.
        held_out: Comparisons of the users that choose.
        features: Plain features of every reply. Shape (N, D).
        settings: Sizes and steps.
        loss: What is minimised.
        seed: Draws batches and episodes.
        report: Gets `step` and `held_out_log_loss`.
    """
    return best_look(
        profile,
        optimise(profile, table, features, settings, loss, steps=settings.steps, seed=seed),
        lambda tried: held_out_loss(tried, held_out, features, settings, seed=seed),
        every=settings.check_every,
        last=settings.steps,
        report=report,
        patience=PATIENCE,
    )


def optimise(
    profile: Learner,
    table: ComparisonTable,
    features: Tensor,
    settings: EpisodeSettings,
    loss: EpisodeLoss,
    *,
    steps: int,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train `profile` in place on the users of `table`, giving `step` and `loss` after each optimiser step."""
    rng = np.random.default_rng((seed, 1))
    users = table.user_ids
    optimiser = torch.optim.Adam(profile.parameters(), lr=settings.learning_rate)
    for step in range(1, steps + 1):
        batch = rng.choice(users, size=min(settings.users_per_step, len(users)), replace=False)
        episodes = sample_episodes(
            table, batch, max_context=settings.max_context, max_targets=settings.max_targets, rng=rng
        )
        value = loss(profile, *_lifted(profile, table, features, episodes)).mean()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(profile.parameters(), settings.clip_norm)
        optimiser.step()
        yield {"step": step, "loss": value.item()}


@torch.no_grad()
def held_out_loss(
    profile: Learner, table: ComparisonTable, features: Tensor, settings: EpisodeSettings, *, seed: int
) -> float:
    """As `persona.recipes.held_out.held_out_surprise`, lifting the replies of its episodes alone, as training does."""
    episodes = held_out_episodes(table, max_context=settings.max_context, seed=seed)
    return target_surprise(profile, *_lifted(profile, table, features, episodes))


def _lifted(
    profile: Learner, table: ComparisonTable, features: Tensor, episodes: Episodes
) -> tuple[ReplyPairs, ReplyPairs]:
    """Context and target of each episode, with lifted features."""

    def lifted(padded: PaddedRows) -> ReplyPairs:
        # Only the replies of this batch are lifted, not all that there are.
        pairs = gather_pairs(table, features, padded)
        return ReplyPairs(profile.lift(pairs.chosen), profile.lift(pairs.rejected), pairs.mask).keep(
            pairs.mask
        )

    return lifted(episodes.context), lifted(episodes.target)
