import copy
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from persona.data import ComparisonTable, gather_pairs
from persona.errors import DataError
from persona.profiles import LatentProfile
from persona.recipes.held_out import (
    REPEATS,
    best_look,
    check_users,
    held_out_episodes,
    held_out_surprise,
    least_surprised,
    look_steps,
    part_users,
    target_surprise,
)
from persona.recipes.latent import LatentConfig
from persona.types import Posterior, ReplyPairs
from tests.helpers.preference_world import make_world

WORLD = make_world(users=12, comparisons=10, prompts=30)


class Told:
    """Says a probability of every choice that it was told."""

    latent_dim = 1

    def __init__(self, probability: Tensor) -> None:
        self.probability = probability

    def lift(self, features: Tensor) -> Tensor:
        return features

    def encode(self, pairs: ReplyPairs) -> Posterior:
        return Posterior(torch.zeros(len(pairs.mask), 1), torch.ones(len(pairs.mask), 1, 1))

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        return self.probability.expand(asked.mask.shape)


class Walker:
    """Something to train: it goes a step further each time, and each place surprises as it is told."""

    def __init__(self, surprises: list[float]) -> None:
        self.place, self.surprises = 0, surprises

    def train(self) -> Iterator[dict[str, float]]:
        for step in range(1, len(self.surprises)):
            self.place = step
            yield {"at": step, "loss": 0.0}

    def judge(self, tried: "Walker") -> float:
        return self.surprises[tried.place]


def walk(
    surprises: list[float], *, every: int = 1, patience: int | None = None
) -> tuple[int, float, int, list[float]]:
    walker = Walker(surprises)
    rows: list[dict[str, float]] = []
    best = best_look(
        walker, walker.train(), walker.judge, every=every, last=len(surprises) - 1, report=rows.append, name="at",
        patience=patience,
    )  # fmt: skip
    assert best.profile is not walker and best.profile.place == best.steps
    told = [row["held_out_log_loss"] for row in rows]
    assert np.array_equal(told, [surprises[int(row["at"])] for row in rows], equal_nan=True)
    return best.steps, best.log_loss, walker.place, [row["at"] for row in rows]


def test_the_least_surprised_step_is_kept_as_it_was() -> None:
    assert walk([3.0, 2.0, 1.0, 2.0]) == (2, 1.0, 3, [1, 2, 3])


def test_not_training_at_all_is_among_the_choices_and_wins_a_draw() -> None:
    assert walk([1.0, 1.0, 2.0]) == (0, 1.0, 2, [1, 2])
    assert walk([1.0]) == (0, 1.0, 0, [])


def test_a_surprise_that_is_no_number_is_never_the_best() -> None:
    assert walk([2.0, math.nan, 1.0])[:2] == (2, 1.0)


def test_only_every_few_steps_and_the_last_are_looked_at() -> None:
    assert walk([5.0, 0.0, 4.0, 0.0, 3.0, 2.0], every=2) == (5, 2.0, 5, [2, 4, 5])
    assert list(look_steps(({"step": s} for s in range(1, 8)), every=3, last=7)) == [3, 6, 7]


def test_patience_counts_looks_since_the_best_one() -> None:
    surprises = [3.0, 1.0, 2.0, 2.0, 0.0, 0.0]
    assert walk(surprises, patience=2) == (1, 1.0, 3, [1, 2, 3])
    assert walk(surprises, patience=3)[0] == 4


def test_surprise_is_the_mean_over_real_targets_of_what_was_said() -> None:
    nothing = torch.zeros(2, 2, 3)
    target = ReplyPairs(nothing, nothing, torch.tensor([[True, True], [True, False]]))
    told = Told(torch.tensor([[0.5, 0.25], [1.0, 1e-9]]))
    expected = (math.log(2) + math.log(4) + 0.0) / 3
    assert target_surprise(told, target, target) == pytest.approx(expected)


def test_an_impossible_choice_is_a_finite_surprise() -> None:
    nothing = torch.zeros(1, 1, 3)
    target = ReplyPairs(nothing, nothing, torch.ones(1, 1, dtype=torch.bool))
    assert 80 < target_surprise(Told(torch.zeros(1, 1)), target, target) < 90


def test_held_out_surprise_is_that_of_its_episodes() -> None:
    profile = LatentProfile(WORLD.features.shape[1], 2, seed=0)
    episodes = held_out_episodes(WORLD.table, max_context=3, seed=5)
    lifted = profile.lift(WORLD.features)
    context, target = (gather_pairs(WORLD.table, lifted, padded) for padded in episodes)
    own = held_out_surprise(profile, WORLD.table, WORLD.features, max_context=3, seed=5)
    assert own == target_surprise(profile, context, target)
    assert own == held_out_surprise(profile, WORLD.table, WORLD.features, max_context=3, seed=5)
    assert own != held_out_surprise(profile, WORLD.table, WORLD.features, max_context=3, seed=6)


def test_least_surprised_looks_as_held_out_surprise_does() -> None:
    profile = LatentProfile(WORLD.features.shape[1], 2, seed=0)
    config = LatentConfig(max_context=3, check_every=2)

    def train() -> Iterator[dict[str, float]]:
        for step in (1, 2, 3):
            with torch.no_grad():
                profile.pooled.add_(0.1)
            yield {"step": step}

    expected = copy.deepcopy(profile)
    rows: list[dict[str, float]] = []
    best = least_surprised(
        profile, train(), WORLD.table, WORLD.features, config, last=3, seed=5, report=rows.append
    )
    ask = partial(held_out_surprise, table=WORLD.table, features=WORLD.features, max_context=3, seed=5)
    losses = [ask(expected)]
    for _ in (2, 3):
        with torch.no_grad():
            expected.pooled.add_(0.1 if losses[1:] else 0.2)
        losses.append(ask(expected))
    assert [row["step"] for row in rows] == [2, 3]
    assert [row["held_out_log_loss"] for row in rows] == pytest.approx(losses[1:], rel=1e-5)
    assert best.log_loss == pytest.approx(min(losses), rel=1e-5)


def test_episodes_ask_every_user_several_times_and_never_about_a_prompt_that_was_shown() -> None:
    table = WORLD.table
    context, target = held_out_episodes(table, max_context=4, seed=0)
    assert len(target.mask) == REPEATS * len(table.user_ids)
    assert context.mask.sum(1).max() <= 4 and target.mask.any(1).all()
    for shown, real, asked, wanted in zip(context.rows, context.mask, target.rows, target.mask, strict=True):
        assert not set(table.prompts[shown[real]]) & set(table.prompts[asked[wanted]])
    alone = held_out_episodes(table, max_context=0, seed=0)
    assert not alone.context.mask.any()


def test_users_are_parted_whole_and_alike_for_a_seed() -> None:
    kept, asked = part_users(WORLD.table, 0.25, seed=3)
    assert len(asked.user_ids) == 3
    assert len(kept) + len(asked) == len(WORLD.table)
    assert not np.intersect1d(kept.user_ids, asked.user_ids).size
    assert np.array_equal(part_users(WORLD.table, 0.25, seed=3)[1].users, asked.users)
    seeds = [part_users(WORLD.table, 0.25, seed=seed)[1].user_ids.tolist() for seed in range(5)]
    assert len({tuple(users) for users in seeds}) > 1


def test_too_few_users_are_refused() -> None:
    rows = np.arange(3)
    few = ComparisonTable(rows, rows, 2 * rows, 2 * rows + 1)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        check_users(few)
    check_users(WORLD.table)
