"""Splits that do not follow time."""

import numpy as np
import pandas as pd
import pytest

from recsys.data import split_as_given, split_at_random, split_users
from recsys.data.splits import TimeOrder
from recsys.errors import InteractionError
from tests.helpers.slow_splits import latest_of_each_user


def draw_log(seed: int, users: int = 20) -> pd.DataFrame:
    """A log without repeats; user n has n + 1 rows."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), np.arange(1, users + 1))
    item = np.concatenate([rng.permutation(60)[: n + 1] for n in range(users)])
    time = rng.integers(1000, size=len(owner))
    return pd.DataFrame({"user_id": owner, "item_id": item, "level": 1, "timestamp": time})


def counts_by_user(part: pd.DataFrame, users: int = 20) -> list[int]:
    return [int((part["user_id"] == user).sum()) for user in range(users)]


def test_random_shares_are_rounded_down_but_to_one_row_where_train_keeps_one() -> None:
    split = split_at_random(draw_log(0), test=0.2, validation=0.1, seed=3)
    # Users of 1, 2, 3, ... 20 rows: the test takes its one row before the validation does.
    expected = [0, 1] + [1] * 7 + [2] * 5 + [3] * 5 + [4]
    assert counts_by_user(split.test.target) == expected
    assert counts_by_user(split.validation.target) == [0, 0] + [1] * 17 + [2]
    assert counts_by_user(split.train)[:4] == [1, 1, 1, 2]
    assert split.order is TimeOrder.NONE
    assert (
        "seed 3: a share 0.2 of each user's rows is the test (37 rows), 0.1 the validation (19)"
        in split.protocol
    )


def test_what_is_known_for_a_random_test_is_as_asked() -> None:
    log = draw_log(0)
    pd.testing.assert_frame_equal((narrow := split_at_random(log, seed=0)).test.known, narrow.train)
    wide = split_at_random(log, seed=0, known="train+validation")
    assert set(wide.test.known.index) == set(wide.train.index) | set(wide.validation.target.index)
    pd.testing.assert_frame_equal(wide.test.target, narrow.test.target)
    with pytest.raises(InteractionError, match=r"one of 'train', 'train\+validation'; got 'all'"):
        split_at_random(log, seed=0, known="all")  # type: ignore[arg-type]


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    log = draw_log(1)
    shuffled = log.sample(frac=1.0, random_state=5)
    for columns in (list(log.columns), ["user_id", "item_id", "level"]):
        for cut in (split_at_random, split_users):
            first, again = cut(log[columns], seed=1), cut(shuffled[columns], seed=1)
            assert set(first.test.target.index) == set(again.test.target.index)
            assert set(first.test.target.index) != set(cut(log[columns], seed=2).test.target.index)


def test_every_row_is_as_likely_to_be_held_out_as_any_other_of_its_user() -> None:
    log = pd.DataFrame({"user_id": 0, "item_id": range(10), "level": 0})
    drawn = [
        split_at_random(log, seed=seed, validation=0.0).test.target["item_id"].item() for seed in range(500)
    ]
    counts = np.bincount(drawn, minlength=10)
    assert ((counts - 50) ** 2 / 50).sum() < 27.9  # chi-squared with 9 degrees of freedom, p = .001


def test_held_out_users_are_known_by_their_share_only() -> None:
    split = split_users(draw_log(0), n_test=4, n_validation=3, known_share=0.75, seed=0)
    parts = {
        "train": set(split.train["user_id"]),
        "validation": set(split.validation.known["user_id"]) | set(split.validation.target["user_id"]),
        "test": set(split.test.known["user_id"]) | set(split.test.target["user_id"]),
    }
    assert [len(users) for users in parts.values()] == [13, 3, 4]
    assert len(set.union(*parts.values())) == 20
    for name, (known, target) in (("validation", split.validation), ("test", split.test)):
        for user in parts[name]:
            rows = user + 1
            assert int((target["user_id"] == user).sum()) == rows // 4
            assert int((known["user_id"] == user).sum()) == rows - rows // 4
    assert (
        "4 test and 3 validation users held out of 20; 0.75 of their rows, drawn at random" in split.protocol
    )


def test_a_known_share_of_four_fifths_leaves_one_row_of_five() -> None:
    log = pd.DataFrame({"user_id": [0] * 5 + [1] * 5 + [2] * 5, "item_id": list(range(5)) * 3, "level": 1})
    assert len(split_users(log, n_test=1, n_validation=1, seed=0).test.target) == 1


def test_held_out_users_by_time_are_asked_for_their_latest_rows() -> None:
    log = draw_log(0)
    split = split_users(log, test=0.3, validation=0.2, seed=0, by_time=True)
    fifth = latest_of_each_user(log, {n: int(n * 0.2 + 1e-9) for n in range(21)})
    test_users = set(split.test.known["user_id"])
    assert len(test_users) == 6
    expected = [label for label in fifth if log.loc[label, "user_id"] in test_users]
    assert sorted(split.test.target.index) == expected
    assert split.order is TimeOrder.PER_USER


def test_the_number_of_held_out_users_must_leave_someone() -> None:
    log = draw_log(0)
    with pytest.raises(InteractionError, match="got 15 test and 5 validation users of 20"):
        split_users(log, n_test=15, n_validation=5, seed=0)
    with pytest.raises(InteractionError, match=r"`n_test` must be at least 1 .*; got 0 and 2"):
        split_users(log, n_test=0, n_validation=2, seed=0)
    with pytest.raises(InteractionError, match=r"`known_share` must lie .*; got 1\.0"):
        split_users(log, known_share=1.0, seed=0)
    assert len(split_users(log, test=0.01, validation=0.0, seed=0).test.known["user_id"].unique()) == 1
    assert len(split_users(log, validation=0.0, seed=0).validation.target) == 0


def test_a_given_test_is_kept_as_it_is_and_the_validation_comes_from_the_rest() -> None:
    log = draw_log(0).sample(frac=1.0, random_state=1)
    flags = pd.Series(
        np.arange(len(log)) % 5 == 0, index=range(500, 500 + len(log))
    )  # other labels do not matter
    split = split_as_given(log, flags, validation=0.2, seed=0)
    pd.testing.assert_frame_equal(split.test.target, log[flags.to_numpy()])
    pd.testing.assert_frame_equal(split.test.known, log[~flags.to_numpy()])
    rest, taken = counts_by_user(log[~flags.to_numpy()]), counts_by_user(split.validation.target)
    assert taken == [max(int(n * 0.2 + 1e-9), int(n > 1)) for n in rest]
    whole = split_as_given(log, flags, validation=0.0, seed=0)
    pd.testing.assert_frame_equal(whole.train, split.test.known)


def test_flags_that_do_not_mark_a_test_are_refused() -> None:
    log = draw_log(0)
    with pytest.raises(InteractionError, match=r"each of the 210 rows; got shape \(209,\), bool"):
        split_as_given(log, np.ones(209, dtype=bool), seed=0)
    with pytest.raises(InteractionError, match=r"got shape \(210,\), int64"):
        split_as_given(log, log["level"], seed=0)
    for value, marked in ((True, 210), (False, 0)):
        with pytest.raises(InteractionError, match=f"it marks {marked} of 210"):
            split_as_given(log, np.full(210, value), seed=0)
    with pytest.raises(InteractionError, match=r"`validation` must lie .*; got 1\.0"):
        split_as_given(log, np.arange(210) < 9, validation=1.0, seed=0)
