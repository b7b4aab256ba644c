"""Training on episodes: random contexts of a user, and what the same user chose elsewhere, to be predicted from them.

Shared by profiles whose encoder is the posterior under their own scores, so that one loss trains everything. How long
to train is chosen on held-out users, with not at all among the choices.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from persona.data.comparisons import ComparisonTable, PaddedRows, Rows, gather_pairs, sample_episodes
from persona.objectives.score_gap import logistic_loss, moderated_gap
from persona.types import Posterior, ReplyPairs

Report = Callable[[dict[str, float]], None]

HELD_OUT_REPEATS = 4
"""Episodes drawn for each held-out user."""
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


class Learner(Protocol):
    """A profile with weights to train, and log-odds beside its probabilities."""

    def lift(self, features: Tensor) -> Tensor:
        """From plain features to those that the rest takes."""
        ...

    def encode(self, pairs: ReplyPairs) -> Posterior:
        """Belief about each user after a context."""
        ...

    def log_odds(self, posterior: Posterior, asked: ReplyPairs) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, T) of the log-odds of each first reply."""
        ...

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        """Probability (B, T) of each first reply."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...


EpisodeLoss = Callable[[Learner, ReplyPairs, ReplyPairs], Tensor]
"""(profile, context, target) with lifted features -> loss of each user, shape (B,)."""


GapLoss = Callable[[Tensor], Tensor]
"""From gaps (B, T) between preferred and other replies, in logits, to losses (B, T)."""


class Stop(NamedTuple):
    """When held-out users' choices were likeliest.

    steps: Optimiser steps until then.
    log_loss: Mean negative log-probability of their targets there, in nats.
    """

    steps: int
    log_loss: float


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
) -> Stop:
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
    best = Stop(0, held_out_loss(profile, held_out, features, settings, seed=seed))
    for figures in optimise(profile, table, features, settings, loss, steps=settings.steps, seed=seed):
        step = int(figures["step"])
        if step % settings.check_every == 0 or step == settings.steps:
            here = Stop(step, held_out_loss(profile, held_out, features, settings, seed=seed))
            report({"step": step, "held_out_log_loss": here.log_loss})
            best = min(best, here, key=lambda stop: stop.log_loss)
            if step - best.steps >= PATIENCE * settings.check_every:
                break
    return best


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
        context, target = _draw(profile, table, features, settings, batch, rng, settings.max_targets)
        value = loss(profile, context, target).mean()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(profile.parameters(), settings.clip_norm)
        optimiser.step()
        yield {"step": step, "loss": value.item()}


@torch.no_grad()
def held_out_loss(
    profile: Learner, table: ComparisonTable, features: Tensor, settings: EpisodeSettings, *, seed: int
) -> float:
    """Mean negative log-probability of the targets of the users of `table`, in nats; the same at every call."""
    rng = np.random.default_rng((seed, 2))
    users = np.tile(table.user_ids, HELD_OUT_REPEATS)
    context, target = _draw(profile, table, features, settings, users, rng, len(table))
    probability = profile.predict(profile.encode(context), target)[target.mask]
    return -probability.clamp_min(torch.finfo(probability.dtype).tiny).log().mean().item()


def _draw(
    profile: Learner,
    table: ComparisonTable,
    features: Tensor,
    settings: EpisodeSettings,
    users: Rows,
    rng: np.random.Generator,
    max_targets: int,
) -> tuple[ReplyPairs, ReplyPairs]:
    episodes = sample_episodes(
        table, users, max_context=settings.max_context, max_targets=max_targets, rng=rng
    )

    def lifted(padded: PaddedRows) -> ReplyPairs:
        # Only the replies of this batch are lifted, not all that there are.
        pairs = gather_pairs(table, features, padded)
        return ReplyPairs(profile.lift(pairs.chosen), profile.lift(pairs.rejected), pairs.mask).keep(
            pairs.mask
        )

    return lifted(episodes.context), lifted(episodes.target)
