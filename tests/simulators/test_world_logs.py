"""Simulated interaction logs."""

import numpy as np
import pandas as pd
import pytest

from simulators.errors import WorldError
from simulators.world import NestedChoice, Oracle, draw_population, invent_catalogue, simulate_log

CATALOGUE = invent_catalogue(300, seed=0)
ORACLE = Oracle(draw_population(CATALOGUE, 200, seed=0), CATALOGUE, NestedChoice.impressions())


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return simulate_log(ORACLE, CATALOGUE, np.arange(200), 120, seed=0)


def test_log_has_the_columns_and_rows_of_its_contract(log: pd.DataFrame) -> None:
    assert list(log.columns) == ["user_id", "item_id", "level", "timestamp", "position"]
    assert (log.dtypes == np.int64).all()
    assert (log.groupby("user_id").size() == 120).all()
    assert log["item_id"].between(0, 299).all()


def test_no_film_is_shown_twice_to_a_user(log: pd.DataFrame) -> None:
    assert not log.duplicated(["user_id", "item_id"]).any()
    everything = simulate_log(ORACLE, CATALOGUE, [4], 300, seed=1)
    assert sorted(everything["item_id"]) == list(range(300))


def test_time_rises_for_each_user_and_slates_have_ten_places(log: pd.DataFrame) -> None:
    assert (log.groupby("user_id")["timestamp"].diff().dropna() > 0).all()
    assert log["position"].tolist() == list(range(10)) * (len(log) // 10)


def test_most_impressions_are_ignored_and_deeper_levels_are_rarer(log: pd.DataFrame) -> None:
    shares = log["level"].value_counts(normalize=True).sort_index()
    assert 0.65 < shares[0] < 0.87
    assert (np.diff(shares) < 0).all()


def test_later_places_get_less_interest(log: pd.DataFrame) -> None:
    opened = (log["level"] > 0).groupby(log["position"]).mean()
    assert opened[:3].mean() > opened[7:].mean() + 0.03


def test_famous_films_are_shown_more_but_every_film_is_shown(log: pd.DataFrame) -> None:
    shown = np.bincount(log["item_id"], minlength=300)
    fame = ORACLE.browsing_logits(np.arange(200)).mean(axis=0)
    assert shown[fame > np.quantile(fame, 0.9)].mean() > 1.5 * shown[fame < np.median(fame)].mean()
    assert shown.min() > 0


def test_users_come_across_films_of_their_own_taste(log: pd.DataFrame) -> None:
    met = ORACLE.item_utility(log["user_id"], log["item_id"])
    anyone = ORACLE.item_utility(log["user_id"], np.random.default_rng(0).permutation(log["item_id"]))
    assert met.mean() > anyone.mean() + 0.1


def test_levels_rise_with_utility(log: pd.DataFrame) -> None:
    utility = ORACLE.item_utility(log["user_id"], log["item_id"])
    by_level = pd.Series(utility).groupby(log["level"]).mean()
    assert (np.diff(by_level) > 0).all()


def test_the_same_seed_gives_the_same_log() -> None:
    first, second = (simulate_log(ORACLE, CATALOGUE, [3, 1], 25, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert first["user_id"].unique().tolist() == [3, 1]
    assert not first.equals(simulate_log(ORACLE, CATALOGUE, [3, 1], 25, seed=3))


def test_no_users_give_an_empty_log() -> None:
    assert len(simulate_log(ORACLE, CATALOGUE, [], 10, seed=0)) == 0


def test_impossible_logs_are_refused() -> None:
    with pytest.raises(WorldError, match=r"number of films \(300\), as no film is shown twice; got 301"):
        simulate_log(ORACLE, CATALOGUE, [0], 301, seed=0)
    with pytest.raises(WorldError, match=r"got 0\."):
        simulate_log(ORACLE, CATALOGUE, [0], 0, seed=0)
    with pytest.raises(WorldError, match=r"got 1 repeats"):
        simulate_log(ORACLE, CATALOGUE, [0, 2, 0], 5, seed=0)
