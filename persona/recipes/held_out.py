"""Choosing on held-out users: who they are, how surprising their choices are, and when a training surprises least."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from persona.data.comparisons import ComparisonTable, Episodes, gather_pairs, sample_episodes
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.profiles import Profile
from persona.types import ReplyPairs

Figures = dict[str, float]
AnyProfile = TypeVar("AnyProfile")
Lifter = TypeVar("Lifter", bound=Profile)

REPEATS = 4
"""Episodes drawn for each held-out user."""
LEAST_USERS = 4
"""With fewer, those held out say nothing of others."""


class LookSettings(Protocol):
    """What a recipe's configuration says about looks at held-out users."""

    @property
    def max_context(self) -> int:
        """Largest context, in pairs."""
        ...

    @property
    def check_every(self) -> int:
        """Optimiser steps between two looks."""
        ...


class Look(NamedTuple, Generic[AnyProfile]):
    """A profile as it was when held-out users were asked.

    profile: A copy of it.
    steps: Optimiser steps until then.
    log_loss: Mean negative log-probability of their targets, in nats.
    """

    profile: AnyProfile
    steps: int
    log_loss: float


def check_users(table: ComparisonTable) -> None:
    """Refuse a table of too few users to train on most and ask the others.

    Raises:
        DataError: Fewer than `LEAST_USERS` users.
    """
    if len(table.user_ids) < LEAST_USERS:
        raise DataError(
            f"Comparisons must come from at least {LEAST_USERS} users; got {len(table.user_ids)}. Collect comparisons "
            "of more users."
        )


def part_users(table: ComparisonTable, share: float, *, seed: int) -> tuple[ComparisonTable, ComparisonTable]:
    """Comparisons of the users that stay, and those of the users held out.

    Args:
        table: Comparisons of training users.
        share: About how many of the users are held out, 0..1; at least one is, and one stays.
        seed: Draws who is.

    Raises:
        DataError: Fewer than two users.
    """
    stay, held_out = hold_out_users(table, share, np.random.default_rng(seed))
    return table.select(np.isin(table.users, stay)), table.select(np.isin(table.users, held_out))


def held_out_episodes(table: ComparisonTable, *, max_context: int, seed: int) -> Episodes:
    """Random contexts of every user of `table`, and all targets that they leave; one seed gives the same ones.

    Args:
        table: Comparisons of held-out users.
        max_context: Largest context, in pairs; 0 judges the average user.
        seed: Draws contexts and targets.
    """
    rng = np.random.default_rng((seed, 2))
    users = np.tile(table.user_ids, REPEATS)
    return sample_episodes(table, users, max_context=max_context, max_targets=len(table), rng=rng)


@torch.no_grad()
def target_surprise(profile: Profile, context: ReplyPairs, target: ReplyPairs) -> float:
    """Mean negative log-probability of what users chose, after what they had shown.

    Args:
        profile: What is judged.
        context: What B users show, with lifted features. Shapes (B, P, L).
        target: What they chose elsewhere, lifted alike, at least one pair. Shapes (B, T, L).

    Returns:
        Nats a target.
    """
    probability = profile.predict(profile.encode(context), target)[target.mask]
    return -probability.clamp_min(torch.finfo(probability.dtype).tiny).log().mean().item()


@torch.no_grad()
def held_out_surprise(
    profile: Profile, table: ComparisonTable, features: Tensor, *, max_context: int, seed: int
) -> float:
    """Mean negative log-probability of users' targets, each after a random context; the same at every call.

    Args:
        profile: What is judged.
        table: Comparisons of held-out users.
        features: Plain features of every reply. Shape (N, D).
        max_context: Largest context, in pairs; 0 judges the average user.
        seed: Draws contexts and targets; one seed gives the same episodes to every profile.

    Returns:
        Nats a target.
    """
    episodes = held_out_episodes(table, max_context=max_context, seed=seed)
    lifted = profile.lift(features)
    context, target = (gather_pairs(table, lifted, padded) for padded in episodes)
    return target_surprise(profile, context, target)


def look_steps(training: Iterable[Figures], *, every: int, last: int, name: str = "step") -> Iterator[int]:
    """Train on, stopping at each step at which held-out users are to be asked: every `every`-th one and the last.

    Args:
        training: Figures after each optimiser step, its number among them.
        every: Steps between two looks.
        last: Number of the last step.
        name: What the step's number is called.
    """
    for figures in training:
        step = int(figures[name])
        if step % every == 0 or step == last:
            yield step


def best_look(
    profile: AnyProfile,
    training: Iterable[Figures],
    judge: Callable[[AnyProfile], float],
    *,
    every: int,
    last: int,
    report: Callable[[Figures], None],
    name: str = "step",
    patience: int | None = None,
) -> Look[AnyProfile]:
    """Train `profile` in place, and tell when it was best; not at all is among the choices, and the first of equals.

    Args:
        profile: At its start.
        training: Trains it a step at a time, with figures after each.
        judge: Mean surprise of held-out users at it, in nats.
        every: Steps between two looks.
        last: Number of the last step.
        report: Gets `name` and `held_out_log_loss` at each look after the first.
        name: What figures call a step's number.
        patience: Looks without a better one after which training ends early; None always goes to the last step.
    """
    best = Look(copy.deepcopy(profile), 0, judge(profile))
    for step in look_steps(training, every=every, last=last, name=name):
        log_loss = judge(profile)
        report({name: step, "held_out_log_loss": log_loss})
        if log_loss < best.log_loss:
            best = Look(copy.deepcopy(profile), step, log_loss)
        elif patience is not None and step - best.steps >= patience * every:
            break
    return best


def least_surprised(
    profile: Lifter,
    training: Iterable[Figures],
    asked: ComparisonTable,
    features: Tensor,
    settings: LookSettings,
    *,
    last: int,
    seed: int,
    report: Callable[[Figures], None],
    name: str = "step",
) -> Look[Lifter]:
    """`best_look` as `held_out_surprise` judges.

    Args:
        profile: At its start.
        training: Trains it a step at a time, with figures after each.
        asked: Comparisons of the held-out users.
        features: Plain features of every reply. Shape (N, D).
        settings: How often to look, and how much users show then.
        last: Number of the last step.
        seed: Draws what users show; the same at every look.
        report: As for `best_look`.
        name: What figures call a step's number.
    """
    return best_look(
        profile,
        training,
        lambda tried: held_out_surprise(tried, asked, features, max_context=settings.max_context, seed=seed),
        every=settings.check_every,
        last=last,
        report=report,
        name=name,
    )
