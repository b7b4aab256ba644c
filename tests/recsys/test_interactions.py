import numpy as np
import pandas as pd
import pytest

from recsys.data import check_log, merge_repeats
from recsys.errors import InteractionError


def log(**columns: list[object]) -> pd.DataFrame:
    good = {
        "user_id": [0, 0, 1, 2],
        "item_id": [3, 1, 1, 0],
        "level": [0, 2, 4, 1],
        "timestamp": [5, 6, 7, 8],
    }
    return pd.DataFrame({**good, **columns})


def test_a_good_log_keeps_its_rows_and_further_columns() -> None:
    given = log(position=[0, 1, 0, 0], timestamp=[5.5, 6, 7, 8], level=[0.0, 2.0, 4.0, 1.0]).iloc[::-1]
    checked = check_log(given, n_items=4)
    assert checked.index.tolist() == [0, 1, 2, 3]
    assert checked["timestamp"].tolist() == [8, 7, 6, 5]
    assert checked["position"].tolist() == [0, 0, 1, 0]
    assert {str(checked[c].dtype) for c in ("user_id", "item_id", "level", "timestamp")} == {"int64"}


def test_missing_columns_are_named() -> None:
    with pytest.raises(InteractionError, match=r"level, timestamp missing among \['user_id', 'item_id'\]"):
        check_log(log().drop(columns=["level", "timestamp"]), 4)


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(InteractionError, match="at least one row; got none"):
        check_log(log().iloc[:0], 4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"level": [0, None, 4, 1]},
            r"`level` must hold whole numbers only; got \[nan\] in row 1 \(user 0, item 1\)",
        ),
        ({"level": [0, 1.5, 4, 1]}, r"`level` must hold whole numbers only; got \[1\.5\] in row 1"),
        ({"user_id": ["a", 0, 1, 2]}, r"`user_id` must hold whole numbers only; got \['a'\] in row 0"),
        ({"timestamp": [1, 2, float("inf"), 4]}, r"`timestamp` .* got \[inf\] in row 2"),
        ({"level": [0, -1, 4, 1]}, r"`level` must lie in 0\.\.4; got \[-1\] in row 1"),
        (
            {"level": [9, 8, 7, 6]},
            r"got \[9, 8, 7\] in row 0 .*, row 1 .*, row 2 \(user 1, item 1\) and 1 more",
        ),
        ({"item_id": [3, 4, 1, 0]}, r"`item_id` must lie in 0\.\.3; got \[4\] in row 1"),
        ({"user_id": [0, 0, 1, 3]}, r"`user_id` must lie in 0\.\.2; got \[3\] in row 3 \(user 3, item 0\)"),
        ({"item_id": [1, 1, 1, 0]}, r"logged with an item once; got row 1 \(user 0, item 1\) again"),
    ],
)
def test_bad_rows_are_named(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InteractionError, match=message):
        check_log(log(**columns), n_items=4, n_users=3)


def test_any_user_id_passes_without_a_population() -> None:
    assert check_log(log(user_id=[0, 0, 1, 10**12]), 4)["user_id"].max() == 10**12
    with pytest.raises(InteractionError, match="`user_id` must lie in 0 or more; got \\[-5\\]"):
        check_log(log(user_id=[0, 0, 1, -5]), 4)


def test_merged_repeats_keep_the_deepest_level_and_when_it_was_first_reached() -> None:
    twice = log(user_id=[0, 0, 1, 0], item_id=[1, 1, 1, 1], level=[1, 3, 0, 3], timestamp=[9, 6, 5, 7])
    merged = merge_repeats(twice)
    assert merged[["user_id", "item_id", "level", "timestamp"]].to_numpy().tolist() == [
        [1, 1, 0, 5],
        [0, 1, 3, 6],
    ]
    assert np.array_equal(merged, merge_repeats(merged))
