import numpy as np
import pandas as pd
import pytest

from recsys.data import split_by_time, split_per_user_by_time
from recsys.errors import InteractionError


def draw_log(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": rng.integers(12, size=200),
            "item_id": np.arange(200),
            "level": 0,
            "timestamp": rng.integers(40, size=200),
        }
    )


def test_each_user_gives_the_latest_rows() -> None:
    log = draw_log(0)
    train, test = split_per_user_by_time(log, 0.3)
    for user, rows in log.groupby("user_id"):
        mine = rows.sort_values("timestamp", kind="stable")
        n_test = int(len(mine) * 0.3 + 1e-9)
        expected = mine["item_id"].tolist()[len(mine) - n_test :]
        assert sorted(test.loc[test["user_id"] == user, "item_id"]) == sorted(expected)
    assert sorted([*train["item_id"], *test["item_id"]]) == list(range(200))


def test_a_share_that_is_a_whole_number_of_rows_loses_none_to_rounding() -> None:
    log = pd.DataFrame({"user_id": 0, "item_id": range(10), "level": 0, "timestamp": range(10)})
    assert split_per_user_by_time(log, 0.3).test["item_id"].tolist() == [7, 8, 9]


def test_a_user_with_few_rows_stays_in_train() -> None:
    log = pd.DataFrame({"user_id": [0, 0, 1], "item_id": [0, 1, 0], "level": 0, "timestamp": [1, 2, 3]})
    assert len(split_per_user_by_time(log, 0.3).test) == 0


def test_a_cut_in_time_leaves_nothing_of_the_future_in_train() -> None:
    log = draw_log(1)
    train, test = split_by_time(log, 0.2)
    assert train["timestamp"].max() < test["timestamp"].min()
    assert 0.2 * len(log) <= len(test) < 0.3 * len(log)
    assert len(train) + len(test) == len(log)


def test_a_log_of_one_moment_cannot_be_cut() -> None:
    with pytest.raises(InteractionError, match=r"earlier than its last 40; all 200 have timestamp 3"):
        split_by_time(draw_log(0).assign(timestamp=3), 0.2)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    for split in (split_per_user_by_time, split_by_time):
        with pytest.raises(InteractionError, match=f"both excluded; got {fraction}"):
            split(draw_log(0), fraction)
