"""Splits along time."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest

from recsys.data import (
    Split,
    split_as_given,
    split_at_random,
    split_by_time,
    split_leave_last_out,
    split_per_user_by_time,
    split_users,
)
from recsys.data.splits import TimeOrder
from recsys.errors import InteractionError
from tests.helpers.slow_splits import latest_of_each_user

ALONG_TIME: tuple[Callable[[pd.DataFrame], Split], ...] = (
    split_by_time,
    partial(split_per_user_by_time, validation=0.1),
    split_leave_last_out,
    partial(split_users, seed=0, by_time=True),
)
WITHOUT_TIMES: tuple[Callable[[pd.DataFrame], Split], ...] = (
    partial(split_at_random, seed=0),
    partial(split_at_random, seed=0, known="train+validation"),
    partial(split_users, seed=0),
    lambda log: split_as_given(log, np.arange(len(log)) % 7 == 0, seed=0),
)


def draw_log(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": rng.integers(12, size=200),
            "item_id": np.arange(200),
            "level": rng.integers(3, size=200),
            "timestamp": rng.integers(40, size=200),
        },
        index=rng.permutation(200) + 1000,
    )


@pytest.mark.parametrize("cut", [*ALONG_TIME, *WITHOUT_TIMES])
def test_every_row_falls_into_one_part_and_known_rows_are_never_targets(
    cut: Callable[[pd.DataFrame], Split],
) -> None:
    log = draw_log(0)
    split = cut(log)
    pieces = [split.train, split.validation.target, split.test.target]
    if "strong" in split.protocol:
        pieces += [split.validation.known, split.test.known]
    assert sorted(label for piece in pieces for label in piece.index) == sorted(log.index)
    for known, target in (split.validation, split.test):
        assert not set(known.index) & set(target.index)
        assert len(target) > 0
    for piece in (*pieces, split.test.known):
        pd.testing.assert_frame_equal(piece, log[log.index.isin(piece.index)])  # order and labels kept


@pytest.mark.parametrize("cut", [*ALONG_TIME, *WITHOUT_TIMES])
def test_the_same_arguments_give_the_same_split_and_leave_the_log_alone(
    cut: Callable[[pd.DataFrame], Split],
) -> None:
    log = draw_log(0)
    first, second = cut(log), cut(log)
    assert first.protocol == second.protocol
    pd.testing.assert_frame_equal(first.test.target, second.test.target)
    pd.testing.assert_frame_equal(log, draw_log(0))


@pytest.mark.parametrize("cut", ALONG_TIME)
def test_a_split_along_time_names_those_that_need_none(cut: Callable[[pd.DataFrame], Split]) -> None:
    log = draw_log(0)
    with pytest.raises(
        InteractionError, match=r"needs the column timestamp; got .*'level'\]\. Use `split_at_ran"
    ):
        cut(log.drop(columns="timestamp"))
    gap = log["timestamp"].astype(float).where(log["item_id"] > 1)
    with pytest.raises(InteractionError, match="2 of 200 rows have none"):
        cut(log.assign(timestamp=gap))


@pytest.mark.parametrize("cut", [*ALONG_TIME, *WITHOUT_TIMES])
def test_a_log_that_cannot_be_cut_is_refused(cut: Callable[[pd.DataFrame], Split]) -> None:
    with pytest.raises(InteractionError, match="needs a log with rows; got none"):
        cut(draw_log(0).iloc[:0])
    with pytest.raises(InteractionError, match=r"item_id, level missing among .'user_id', 'timestamp'"):
        cut(draw_log(0)[["user_id", "timestamp"]])


def test_a_cut_in_time_leaves_nothing_of_the_future_in_earlier_parts() -> None:
    log = draw_log(1)
    split = split_by_time(log, test=0.2, validation=0.1)
    assert split.train["timestamp"].max() < split.validation.target["timestamp"].min()
    assert split.test.known["timestamp"].max() < split.test.target["timestamp"].min()
    assert 0.2 * len(log) <= len(split.test.target) < 0.3 * len(log)
    assert 0.1 * len(log) <= len(split.validation.target) < 0.2 * len(log)
    assert len(split.test.known) == len(split.train) + len(split.validation.target)
    assert split.order is TimeOrder.GLOBAL


def test_a_cut_in_time_takes_the_asked_share_where_no_moment_is_shared() -> None:
    times = np.arange(30)
    log = pd.DataFrame({"user_id": 0, "item_id": times, "level": 0, "timestamp": times})
    split = split_by_time(log, test=0.1, validation=0.2)
    assert split.test.target["item_id"].tolist() == [27, 28, 29]
    assert split.validation.target["item_id"].tolist() == [21, 22, 23, 24, 25, 26]
    assert split.protocol == (
        "global temporal: 3 test rows from timestamp 27 (1970-01-01) on, 6 validation rows from timestamp 21 "
        "(1970-01-01) on, 21 earlier train rows of 30; ranking for the test knows all earlier rows"
    )


def test_a_cut_in_time_takes_no_row_more_for_rounding() -> None:
    log = pd.DataFrame({"user_id": 0, "item_id": range(50), "level": 0, "timestamp": range(50)})
    assert 50 * 0.14 > 7
    assert len(split_by_time(log, test=0.14).test.target) == 7


def test_without_validation_its_target_is_empty_and_train_is_known() -> None:
    log = draw_log(1)
    for split in (split_by_time(log, validation=0.0), split_per_user_by_time(log)):
        assert len(split.validation.target) == 0
        pd.testing.assert_frame_equal(split.test.known, split.train)


def test_a_log_of_too_few_moments_cannot_be_cut() -> None:
    log = draw_log(0).assign(timestamp=3)
    with pytest.raises(InteractionError, match=r"earlier than its last 200; all 200 have timestamp 3"):
        split_by_time(log)
    log["timestamp"] = (np.arange(200) >= 100).astype(int)
    with pytest.raises(InteractionError, match=r"earlier than its last 200; all 200 have timestamp 0"):
        split_by_time(log)
    assert len(split_by_time(log, validation=0.0).train) == 100


@pytest.mark.parametrize(("test", "validation"), [(0.3, 0.0), (0.25, 0.2), (0.1, 0.5)])
def test_each_user_gives_the_latest_rows(test: float, validation: float) -> None:
    log = draw_log(0)
    split = split_per_user_by_time(log, test=test, validation=validation)
    n_test = {n: int(n * test + 1e-9) for n in range(201)}
    both = {n: n_test[n] + int(n * validation + 1e-9) for n in range(201)}
    assert sorted(split.test.target.index) == latest_of_each_user(log, n_test)
    later = latest_of_each_user(log, both)
    assert sorted([*split.validation.target.index, *split.test.target.index]) == later
    assert split.order is TimeOrder.PER_USER


def test_a_share_that_is_a_whole_number_of_rows_loses_none_to_rounding() -> None:
    log = pd.DataFrame({"user_id": 0, "item_id": range(10), "level": 0, "timestamp": range(10)})
    assert split_per_user_by_time(log, test=0.3).test.target["item_id"].tolist() == [7, 8, 9]


def test_a_user_with_few_rows_stays_in_train() -> None:
    log = pd.DataFrame({"user_id": [0, 0, 1], "item_id": [0, 1, 0], "level": 0, "timestamp": [1, 2, 3]})
    assert len(split_per_user_by_time(log, test=0.3).test.target) == 0


def test_leave_last_out_takes_one_row_for_each_part_of_long_enough_histories() -> None:
    log = draw_log(2)
    counts = log["user_id"].value_counts()
    least = int(counts.sort_values().iloc[4])
    split = split_leave_last_out(log, min_rows=least)
    one = {n: int(n >= least) for n in range(201)}
    assert sorted(split.test.target.index) == latest_of_each_user(log, one)
    two = latest_of_each_user(log, {n: 2 * one[n] for n in one})
    assert sorted([*split.test.target.index, *split.validation.target.index]) == two
    assert set(split.train["user_id"]) == set(counts.index)
    assert f"of {int((counts >= least).sum())} users with {least} rows or more" in split.protocol


def test_a_history_of_equal_times_is_cut_in_the_order_given() -> None:
    log = pd.DataFrame({"user_id": 0, "item_id": [5, 3, 4, 1], "level": 0, "timestamp": 7})
    split = split_leave_last_out(log)
    assert (split.validation.target["item_id"].item(), split.test.target["item_id"].item()) == (4, 1)


def test_shares_out_of_range_are_refused() -> None:
    log = draw_log(0)
    for cut in (split_per_user_by_time, split_by_time, partial(split_at_random, seed=0)):
        for share in (0.0, 1.0, -0.1):
            with pytest.raises(InteractionError, match=f"`test` must lie .* both excluded; got {share}"):
                cut(log, test=share)
        for share in (1.0, -0.1):
            with pytest.raises(InteractionError, match=f"`validation` must lie .*; got {share}"):
                cut(log, validation=share)
        with pytest.raises(InteractionError, match=r"got 0\.5 and 0\.6, together 1\.1"):
            cut(log, test=0.5, validation=0.6)
    with pytest.raises(InteractionError, match="`min_rows` must be at least 3, a row for each part; got 2"):
        split_leave_last_out(log, min_rows=2)
