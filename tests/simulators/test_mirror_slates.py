"""Which rows of a log were shown together, in whatever order its rows stand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulators.mirror import LevelModel, fit_levels, slate_scenes
from simulators.mirror.slates import known_slates, number_slates
from simulators.world import World, build_film_world

USERS, FILMS = 60, 80


@pytest.fixture(scope="module")
def world() -> World:
    return build_film_world(FILMS, USERS, seed=1, impressions_per_user=35)


def log_of(users: list[int], places: list[int], times: list[int] | None = None) -> pd.DataFrame:
    columns = {"user_id": users, "position": places}
    return pd.DataFrame(columns if times is None else columns | {"timestamp": times})


def shuffled(log: pd.DataFrame) -> pd.DataFrame:
    return log.sample(frac=1.0, random_state=0, ignore_index=True)


def test_a_slate_ends_where_the_user_changes_or_places_stop_rising() -> None:
    log = log_of([0, 0, 0, 0, 1, 1], [0, 1, 0, 3, 4, 4])
    assert number_slates(log).tolist() == [0, 0, 1, 1, 2, 3]


def test_a_slate_ends_at_a_gap_in_time() -> None:
    log = log_of([0, 0, 0, 0], [0, 1, 2, 3], [0, 600, 1201, 1202])
    assert number_slates(log).tolist() == [0, 0, 1, 1]
    assert number_slates(log, longest_gap_s=599).tolist() == [0, 1, 2, 2]


def test_rows_in_any_order_keep_their_slates() -> None:
    log = log_of([1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 1], [50, 20, 10, 51, 100, 100])
    assert number_slates(log).tolist() == [2, 0, 0, 2, 1, 1]


def test_without_times_rows_of_a_user_are_taken_as_they_stand() -> None:
    log = log_of([1, 0, 1, 0, 1], [0, 0, 1, 1, 0])
    assert number_slates(log).tolist() == [1, 0, 1, 0, 2]


def test_without_places_there_are_no_slates() -> None:
    assert known_slates(log_of([0, 0], [0, 0], [0, 1])) is None
    assert known_slates(pd.DataFrame({"user_id": [0, 0]})) is None
    assert known_slates(log_of([], [])) is None
    found = known_slates(log_of([0, 0], [0, 1], [0, 1]))
    assert found is not None and found.tolist() == [0, 0]


def test_the_film_worlds_slates_are_its_tens(world: World) -> None:
    row = np.arange(len(world.log))
    tens = 4 * (row // 35) + row % 35 // 10
    np.testing.assert_array_equal(number_slates(world.log), tens)
    # In this log places alone tell slates apart: times change nothing.
    np.testing.assert_array_equal(number_slates(world.log.drop(columns="timestamp")), tens)


def test_scenes_are_the_slates_of_a_shuffled_log_too(world: World) -> None:
    found, left_out = slate_scenes(world.log, n_items=FILMS)
    again, as_many = slate_scenes(shuffled(world.log), n_items=FILMS)
    assert len(found) + left_out == 4 * USERS and as_many == left_out
    np.testing.assert_array_equal(again.options, found.options)
    np.testing.assert_array_equal(again.chosen, found.chosen)


def test_a_shuffled_log_gives_the_same_fit_and_fold_in(world: World) -> None:
    arguments: dict[str, Any] = dict(n_users=USERS, n_factors=1, iterations=4, seed=0)
    model, again = (
        fit_levels(log, world.catalogue.features, **arguments) for log in (world.log, shuffled(world.log))
    )
    assert 0.05 < model.browsed < 0.95 and model.gamma > 0
    _check_same(again, model)
    few = world.log[world.log["user_id"] < 5]
    _check_same(model.for_users(shuffled(few), 5), model.for_users(few, 5))


def _check_same(found: LevelModel, expected: LevelModel) -> None:
    """Equal but for the order in which numbers were added."""
    assert found.gamma == pytest.approx(expected.gamma, rel=1e-6)
    assert found.browsed == pytest.approx(expected.browsed, rel=1e-6)
    for name in ("users", "items"):
        np.testing.assert_allclose(getattr(found, name).mean, getattr(expected, name).mean, atol=1e-6)
    np.testing.assert_allclose(found.choice.thresholds, expected.choice.thresholds, atol=1e-6)
