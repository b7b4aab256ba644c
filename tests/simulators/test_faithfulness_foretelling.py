"""Scenes of what was taken among what was not, and the probabilities that users give for them."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, USER
from simulators.faithfulness import checked_interactions, choices, scenes_from_frame
from simulators.faithfulness.foretelling import (
    chances_of_being_the_one,
    foretell,
    predictions_frame,
    reactions_frame,
    scenes_of_taken,
)
from simulators.types import SUCCESS_LEVEL
from simulators.users.film_viewers import FilmViewers
from simulators.world import World, build_film_world
from tests.helpers.talking import talking_world

Values = NDArray[np.float64]
TAKEN = SUCCESS_LEVEL


@pytest.fixture(name="world", scope="module")
def many_users() -> World:
    return build_film_world(300, 800, seed=5, impressions_per_user=60)


def viewers(world: World) -> FilmViewers:
    unread: Any = None
    return FilmViewers(world.oracle, unread, unread)


def test_the_chance_is_that_of_all_outcomes_with_one_taken() -> None:
    taking = np.array([0.9, 0.3, 0.05])
    found = np.zeros(3)
    for outcome in product((0, 1), repeat=3):
        if sum(outcome) == 1:
            found[outcome.index(1)] += np.prod(
                [p if o else 1 - p for p, o in zip(taking, outcome, strict=True)]
            )
    assert np.allclose(chances_of_being_the_one(taking[None]), found)
    sure = chances_of_being_the_one(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert np.isfinite(sure).all() and sure[0].argmax() == 0 and np.ptp(sure[1]) == 0 < sure[1, 0]


def test_each_scene_is_one_user_with_one_item_taken_and_no_row_stands_twice(world: World) -> None:
    met = world.log
    scenes = scenes_of_taken(met, accept_level=TAKEN, seed=0)
    users, levels = (met[name].to_numpy()[scenes.rows] for name in (USER, LEVEL))
    assert len(np.unique(scenes.rows)) == scenes.rows.size and (users == users[:, :1]).all()
    assert ((levels >= TAKEN).sum(axis=1) == 1).all()
    assert (np.take_along_axis(levels, scenes.slots[:, None], axis=1) >= TAKEN).all()
    taken = (met[LEVEL] >= TAKEN).groupby(met[USER]).agg(["sum", "size"])
    due = np.minimum(taken["sum"], (taken["size"] - taken["sum"]) // 4)
    assert len(scenes.slots) == due.sum() > 1000


def test_who_knows_the_truth_is_calibrated_and_slots_are_even(world: World) -> None:
    met = world.log
    scenes = scenes_of_taken(met, accept_level=TAKEN, seed=0)
    told = foretell(viewers(world), met, scenes, accept_level=TAKEN, draws=1, seed=0)
    own = told.choices[np.arange(len(scenes.slots)), scenes.slots]
    # The chosen one's probability, less its expectation if probabilities are right, has mean 0.
    surplus = own - (told.choices**2).sum(axis=1)
    assert abs(surplus.mean()) < 3 * surplus.std() / np.sqrt(len(surplus))
    read = scenes_from_frame(predictions_frame(met, scenes, told.choices))
    assert np.allclose(choices.nll_by_scene(read), -np.log(own))
    assert choices.nll_by_scene(read).mean() < np.log(5) - 0.1
    assert choices.slot_accuracy(read, seed=0).p_even > 0.01
    reacted = checked_interactions(reactions_frame(met, told), side="simulated", max_level=4)
    share = np.mean(told.acceptance)
    assert abs((reacted[LEVEL] >= TAKEN).mean() - share) < 4 * np.sqrt(share / len(met))
    assert abs((met[LEVEL] >= TAKEN).mean() - share) < 4 * np.sqrt(share / len(met))


class TwoMinds:
    """Likes items of even rows, or of odd ones, as the seed has it; levels 0 and 1."""

    def level_probabilities(self, users: Any, items: Any, *, position: Any, seed: int) -> Values:
        taking = np.where(items % 2 == seed % 2, 0.8, 0.1)
        return np.stack([1 - taking, taking], axis=1)


def test_probabilities_are_averaged_over_persons_and_not_within_an_item() -> None:
    met = pd.DataFrame({USER: 0, ITEM: [0, 2, 1], LEVEL: [1, 0, 0]})
    scenes = scenes_of_taken(met, accept_level=1, n_options=3, seed=0)
    told = foretell(TwoMinds(), met, scenes, accept_level=1, draws=4000, seed=1)
    even = np.array([0.8 * 0.2 * 0.9, 0.2 * 0.8 * 0.9, 0.2 * 0.2 * 0.1])
    odd = np.array([0.1 * 0.9 * 0.2, 0.9 * 0.1 * 0.2, 0.9 * 0.9 * 0.8])
    due = (even + odd) / (even + odd).sum()
    assert np.allclose(told.choices[0], due[scenes.rows[0]], atol=0.02)
    assert np.allclose(told.acceptance, 0.45, atol=0.02)


def test_the_same_seed_gives_the_same_and_too_few_rows_give_no_scene(world: World) -> None:
    again = [scenes_of_taken(world.log, accept_level=TAKEN, seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(again[0].rows, again[1].rows) and not np.array_equal(again[0].rows, again[2].rows)
    for levels in ([4, 4, 4], [0, 0, 0, 0], [4, 0, 0, 0]):
        met = pd.DataFrame({USER: 1, ITEM: range(len(levels)), LEVEL: levels})
        scenes = scenes_of_taken(met, accept_level=TAKEN, seed=0)
        assert scenes.rows.shape == (0, 5)
        told = foretell(viewers(world), met, scenes, accept_level=TAKEN, draws=1, seed=0)
        assert told.choices.shape == (0, 5) and len(told.levels) == len(levels)


def test_viewers_are_who_they_are_in_every_simulation() -> None:
    world, _, people = talking_world()
    rows = np.arange(20)
    told = [people.level_probabilities(rows, rows, position=2, seed=seed) for seed in (0, 1)]
    assert np.array_equal(told[0], told[1])
    assert np.array_equal(told[0], world.oracle.level_probabilities(rows, rows, position=2))
