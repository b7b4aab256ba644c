"""The leak detector on MovieLens-100K, where that folder is at hand: silent on clean splits, not on planted leaks."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data import (
    Split,
    describe,
    find_leaks,
    split_as_given,
    split_at_random,
    split_by_time,
    split_leave_last_out,
    split_per_user_by_time,
    split_users,
)
from recsys.data.dataset import Dataset, Entities, FeatureKind
from recsys.data.leaks import LeakKind, Severity
from recsys.data.splits import TimeOrder

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-100k"
FILES = [DATA / f"ml-100k.{end}" for end in ("inter", "item", "user")]
pytestmark = pytest.mark.skipif(not all(file.exists() for file in FILES), reason=f"{DATA} holds no ml-100k")

LIKED = 3
EVERY_WAY: dict[str, Callable[[pd.DataFrame], Split]] = {
    "time": split_by_time,
    "per user": lambda log: split_per_user_by_time(log, validation=0.1),
    "last out": split_leave_last_out,
    "random": lambda log: split_at_random(log, seed=0),
    "random, both known": lambda log: split_at_random(log, seed=0, known="train+validation"),
    "users": lambda log: split_users(log, seed=0),
    "users by time": lambda log: split_users(log, seed=0, by_time=True),
    "given": lambda log: split_as_given(log, np.random.default_rng(0).random(len(log)) < 0.2, seed=0),
}


@cache
def movielens() -> Dataset:
    """The ratings, with the films' years and the users' ages as dense columns."""
    ratings, films, people = (
        pd.read_csv(file, sep="\t").rename(columns=lambda name: name.split(":")[0]) for file in FILES
    )
    log = pd.DataFrame(
        {
            "user_id": ratings["user_id"] - 1,
            "item_id": ratings["item_id"] - 1,
            "level": ratings["rating"].astype(int) - 1,
            "timestamp": ratings["timestamp"].astype(int),
        }
    )
    films, people = films.sort_values("item_id"), people.sort_values("user_id")
    return Dataset(
        "ml-100k",
        log,
        dense(people["user_id"], "age", people["age"]),
        dense(films["item_id"], "release_year", pd.to_numeric(films["release_year"], errors="coerce")),
        ("1", "2", "3", "4", "5"),
    )


def dense(ids: pd.Series, name: str, values: pd.Series) -> Entities:
    frame = pd.DataFrame({name: values.to_numpy(dtype=np.float64)})
    return Entities(pd.Index(ids.astype(str)), frame, {name: FeatureKind.DENSE})


@pytest.mark.parametrize("way", EVERY_WAY)
def test_nothing_is_refused_on_clean_movielens(way: str) -> None:
    data = movielens()
    leaks = find_leaks(EVERY_WAY[way](data.log), dataset=data, relevant_level=LIKED)
    assert [leak.sentence for leak in leaks if leak.severity is Severity.LEAK] == []
    assert {leak.kind for leak in leaks} <= {LeakKind.TIME_TRAVEL}
    if way == "time":
        assert leaks == []


@pytest.mark.parametrize("way", EVERY_WAY)
def test_leaks_planted_into_movielens_are_refused(way: str) -> None:
    data = movielens()
    split = EVERY_WAY[way](data.log)
    liked = split.test.target[split.test.target["level"] >= LIKED]
    again = split._replace(train=pd.concat([split.train, liked.iloc[::50]]))
    carts = {"cart": liked.iloc[::2][["user_id", "item_id"]]}
    ratings = pd.Series(np.bincount(data.log["item_id"]).astype(np.float64))
    films = dense(pd.Series(data.items.ids), "n_ratings", ratings)
    counted = Dataset("counted", data.log, data.users, films, data.level_names)
    leaks = find_leaks(again, dataset=counted, relevant_level=LIKED, auxiliary=carts)
    refused = {leak.kind for leak in leaks if leak.severity is Severity.LEAK}
    assert refused >= {LeakKind.DUPLICATE, LeakKind.OTHER_LOG, LeakKind.FEATURE}
    assert (LeakKind.TIME_TRAVEL in refused) == (split.order is not TimeOrder.NONE)


def test_the_global_cut_leaves_few_users_who_were_met_before() -> None:
    found = describe(split_by_time(movielens().log))["test target"]
    assert (found.rows, found.users, found.cold_users, found.cold_rows) == (10_000, 166, 97, 8_656)
