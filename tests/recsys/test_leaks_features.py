"""Feature columns computed on the whole log, and columns that were not."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from recsys.data import (
    Split,
    find_leaks,
    k_core,
    merge_repeats,
    refuse_leaks,
    split_as_given,
    split_at_random,
    split_by_time,
    split_users,
)
from recsys.data.dataset import Dataset, Entities, FeatureKind
from recsys.data.leaks import LeakKind
from recsys.errors import InteractionError, LeakError

USERS, ITEMS = 80, 120
Columns = Mapping[str, NDArray[np.float64]]
WAYS: dict[str, Callable[[pd.DataFrame], Split]] = {
    "time": split_by_time,
    "random": lambda log: split_at_random(log, seed=0),
    "users": lambda log: split_users(log, test=0.2, known_share=0.5, seed=0),
}


def draw_log(seed: int) -> pd.DataFrame:
    """Popular and unpopular, better and worse items; each pair once."""
    rng = np.random.default_rng(seed)
    popularity = rng.gamma(0.8, size=ITEMS) + 0.02
    item = rng.choice(ITEMS, p=popularity / popularity.sum(), size=4000)
    level = np.clip(np.round(2 + 0.1 * item[rng.permutation(4000)] % 3 + rng.normal(size=4000)), 0, 4).astype(
        int
    )
    log = pd.DataFrame({"user_id": rng.integers(USERS, size=4000), "item_id": item, "level": level})
    log["timestamp"] = rng.permutation(4000)
    return log.drop_duplicates(["user_id", "item_id"]).reset_index(drop=True)


def entities(size: int, columns: Columns, kind: FeatureKind = FeatureKind.DENSE) -> Entities:
    frame = pd.DataFrame(dict(columns), index=pd.RangeIndex(size))
    return Entities(pd.Index([f"x{n}" for n in range(size)]), frame, dict.fromkeys(columns, kind))


def dataset(log: pd.DataFrame, items: Columns | None = None, users: Columns | None = None) -> Dataset:
    names = ("0", "1", "2", "3", "4")
    return Dataset("drawn", log, entities(USERS, users or {}), entities(ITEMS, items or {}), names)


def count(log: pd.DataFrame, name: str = "item_id", size: int = ITEMS) -> NDArray[np.float64]:
    return np.bincount(log[name], minlength=size).astype(np.float64)


def mean(log: pd.DataFrame) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(log["item_id"], weights=log["level"], minlength=ITEMS) / count(log))


def figures_of(log: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """What people put beside items: plain, transformed, smoothed on another scale, and at one level."""
    rows, average = count(log), float(log["level"].mean())
    liked = count(log[log["level"] >= 3])
    return {
        "clicks": rows,
        "log_clicks": np.log1p(rows),
        "percentile": rankdata(rows) / ITEMS,
        "mean": mean(log),
        "smoothed": 1 + 20 * (np.nan_to_num(mean(log)) * rows + 15 * average) / (rows + 15),
        "liked": liked,
        "rate": np.round((liked + 2) / (rows + 10), 3),
    }


def flagged(split: Split, data: Dataset) -> set[str]:
    leaks = find_leaks(split, dataset=data, relevant_level=1)
    return {leak.sentence.split()[1] for leak in leaks if leak.kind is LeakKind.FEATURE}


@pytest.mark.parametrize("way", WAYS)
def test_figures_of_the_whole_log_are_flagged(way: str) -> None:
    log = draw_log(0)
    split = WAYS[way](log)
    columns = figures_of(log)
    assert flagged(split, dataset(log, columns)) == {f"items.{name}" for name in columns}


def known_parts(log: pd.DataFrame, split: Split) -> dict[str, pd.DataFrame]:
    """Rows that a column may be computed on."""
    return {
        "train": split.train,
        "train and validation": pd.concat([split.train, split.validation.target]),
        "all but the test": log.drop(split.test.target.index),
    }


def outside(log: pd.DataFrame, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """What the world knows of items, close to the log's own figures or not."""
    return {
        "year": rng.integers(1930, 2000, size=ITEMS).astype(float),
        "box_office": count(log) * np.exp(0.2 * rng.normal(size=ITEMS)),
        "critics": np.nan_to_num(mean(log)) + 0.5 * rng.normal(size=ITEMS),
        "always": np.ones(ITEMS),
        "never": np.full(ITEMS, np.nan),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["train", "train and validation", "all but the test"])
def test_figures_of_what_may_be_known_are_not_flagged(way: str, part: str) -> None:
    log = draw_log(0)
    split = WAYS[way](log)
    known = known_parts(log, split)[part]
    zero, three = (np.nan_to_num(mean(known), nan=filler) for filler in (0.0, 3.0))
    assert flagged(split, dataset(log, {**figures_of(known), "zero": zero, "three": three})) == set()


@pytest.mark.parametrize("way", WAYS)
def test_what_the_world_knows_besides_the_log_is_not_flagged(way: str) -> None:
    log, rng = draw_log(0), np.random.default_rng(0)
    age = {"age": rng.integers(18, 80, size=USERS).astype(float)}
    assert flagged(WAYS[way](log), dataset(log, outside(log, rng), age)) == set()


def test_a_test_that_undoes_what_the_validation_changed_does_not_make_train_figures_suspect() -> None:
    # Ten rows of train for every four that an item gets later; even items get most of these early, odd ones late.
    size = np.arange(1, ITEMS + 1)
    early = np.where(size % 2, size, 3 * size)
    items = np.concatenate([np.repeat(np.arange(ITEMS), n) for n in (10 * size, early, 4 * size - early)])
    time = np.repeat([0, 1, 2], [10 * size.sum(), early.sum(), (4 * size - early).sum()])
    log = pd.DataFrame(
        {"user_id": np.arange(len(items)) % USERS, "item_id": items, "level": 1, "timestamp": time}
    )
    split = split_by_time(log, test=0.01, validation=0.01)
    assert len(split.train) == 10 * size.sum()
    assert flagged(split, dataset(log, {"clicks": count(split.train)})) == set()


@pytest.mark.statistical
@pytest.mark.parametrize("way", WAYS)
def test_over_many_logs_the_whole_is_told_from_the_known(way: str) -> None:
    for seed in range(20):
        log = draw_log(seed)
        split = WAYS[way](log)
        assert flagged(split, dataset(log, figures_of(log))) == {f"items.{name}" for name in figures_of(log)}
        for known in known_parts(log, split).values():
            clean = {**figures_of(known), **outside(log, np.random.default_rng(seed))}
            assert flagged(split, dataset(log, clean)) == set()


def test_users_columns_are_looked_at_and_the_finding_says_what_was_found() -> None:
    log = draw_log(0)
    split = split_by_time(log, test=0.2)
    leaks = find_leaks(
        split, dataset=dataset(log, users={"activity": count(log, "user_id", USERS)}), relevant_level=1
    )
    (found,) = leaks
    assert found.count == split.test.target["user_id"].nunique()
    assert found.share == found.count / USERS
    first = sorted(split.test.target["user_id"].unique())[:3]
    assert found.examples == tuple(f"x{user}" for user in first)
    message = r"features of the whole log: Column users\.activity follows the number of rows .* leaves 0\.00% of the"
    with pytest.raises(LeakError, match=message):
        refuse_leaks(leaks)


def test_figures_of_a_log_before_it_was_filtered_are_flagged_too() -> None:
    log = draw_log(0)
    core = k_core(log[log["level"] > 1], users=5, items=5).log
    split = split_by_time(core)
    assert flagged(split, dataset(log, {"clicks": count(log)})) == {"items.clicks"}
    assert flagged(split, dataset(log, {"clicks": count(log.drop(split.test.target.index))})) == set()


def test_columns_of_other_kinds_are_left_alone() -> None:
    log = draw_log(0)
    items = entities(ITEMS, {"clicks": count(log)}, FeatureKind.CATEGORICAL)
    data = Dataset("drawn", log, entities(USERS, {}), items, ("0", "1", "2", "3", "4"))
    assert flagged(split_by_time(log), data) == set()


def test_a_dataset_that_does_not_fit_the_split_is_refused() -> None:
    log = draw_log(0)
    split = split_by_time(log)
    clicks = {"clicks": count(log)}
    short = Dataset("short", log, entities(USERS, {}), entities(5, {"n": np.arange(5.0)}), tuple("01234"))
    with pytest.raises(
        InteractionError, match=r"`item_id` must lie in 0\.\.4 and `level` in 0\.\.4; got 119 and 4"
    ):
        find_leaks(split, dataset=short, relevant_level=1)
    renamed = split._replace(train=split.train.reset_index(drop=True))
    with pytest.raises(InteractionError, match=r"label \d+ names different rows in two parts"):
        find_leaks(renamed, dataset=dataset(log, clicks), relevant_level=1)


def draw_events(seed: int) -> pd.DataFrame:
    """Pairs that come back: viewed several times, and bought or not."""
    rng = np.random.default_rng(seed)
    log = draw_log(seed)
    times = rng.integers(1, 6, size=len(log))
    events = log.loc[log.index.repeat(times)].reset_index(drop=True)
    events["level"] = np.minimum(events["level"], rng.integers(0, 5, size=len(events)))
    events["timestamp"] = rng.permutation(len(events))
    return events


def event_figures(events: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """What a shop's own tables count: every event, though the log keeps one row of a pair."""
    latest = events.groupby("item_id")["timestamp"].max().reindex(range(ITEMS)).to_numpy(dtype=np.float64)
    bought = count(events[events["level"] >= 3])
    return {
        "views": count(events[events["level"] == 1]),
        "events": count(events),
        "bought": bought,
        "conversion": np.round((bought + 1) / (count(events) + 5), 3),
        "last_sold": latest,
    }


@pytest.mark.parametrize("way", WAYS)
def test_figures_of_events_before_they_were_merged_are_flagged(way: str) -> None:
    events = draw_events(0)
    log = merge_repeats(events)
    split = WAYS[way](log)
    columns = event_figures(events)
    leaks = find_leaks(split, dataset=dataset(log, columns), relevant_level=1, events=events)
    found = {leak.sentence.split()[1] for leak in leaks if leak.kind is LeakKind.FEATURE}
    if way != "time":
        # A random tenth of the rows is the latest of too few items to tell.
        columns.pop("last_sold")
        found.discard("items.last_sold")
    assert found == {f"items.{name}" for name in columns}


@pytest.mark.parametrize("way", WAYS)
def test_figures_of_events_that_may_be_known_are_not_flagged(way: str) -> None:
    events = draw_events(0)
    log = merge_repeats(events)
    split = WAYS[way](log)
    pairs = pd.MultiIndex.from_frame(events[["user_id", "item_id"]])
    parts = {
        "train": events[pairs.isin(pd.MultiIndex.from_frame(split.train[["user_id", "item_id"]]))],
        "all but the test": events[
            ~pairs.isin(pd.MultiIndex.from_frame(split.test.target[["user_id", "item_id"]]))
        ],
    }
    if way == "time":
        for name, part in (("before the test", split.test), ("before the validation", split.validation)):
            parts[name] = events[events["timestamp"] < part.target["timestamp"].min()]
    for known in parts.values():
        columns = {name: np.nan_to_num(values, nan=-1.0) for name, values in event_figures(known).items()}
        leaks = find_leaks(split, dataset=dataset(log, columns), relevant_level=1, events=events)
        assert [leak.sentence for leak in leaks if leak.kind is LeakKind.FEATURE] == []


def test_a_given_test_part_is_left_out_of_the_events() -> None:
    events = draw_events(0)
    events["is_test"] = events["timestamp"] >= 0.9 * len(events)
    pieces = [merge_repeats(events[~events["is_test"]]), merge_repeats(events[events["is_test"]])]
    log = pd.concat(pieces, ignore_index=True)
    split = split_as_given(log, log["is_test"], validation=0.1, seed=0)
    known, whole = (event_figures(rows) for rows in (events[~events["is_test"]], events))
    for columns, wanted in ((known, set()), (whole, {f"items.{name}" for name in whole})):
        columns = {name: np.nan_to_num(values, nan=-1.0) for name, values in columns.items()}
        leaks = find_leaks(split, dataset=dataset(log, columns), relevant_level=1, events=events)
        assert {leak.sentence.split()[1] for leak in leaks if leak.kind is LeakKind.FEATURE} == wanted


def test_events_of_users_and_items_that_were_dropped_count_for_the_others() -> None:
    events = draw_events(0)
    log = merge_repeats(events[events["item_id"] >= 10]).reset_index(drop=True)
    split = split_by_time(log)
    columns = {"activity": count(events, "user_id", USERS)}
    seen = events.assign(item_id=events["item_id"].where(events["item_id"] >= 10, -1))
    leaks = find_leaks(split, dataset=dataset(log, users=columns), relevant_level=1, events=seen)
    assert ["users.activity" in leak.sentence for leak in leaks if leak.kind is LeakKind.FEATURE] == [True]
