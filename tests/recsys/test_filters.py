import numpy as np
import pandas as pd
import pytest

from recsys.data import describe, k_core, split_by_time, split_users
from recsys.data.filters import Description
from recsys.errors import InteractionError
from tests.helpers.slow_splits import core, pairs_of


def draw_log(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = 150
    return pd.DataFrame(
        {
            "user_id": rng.zipf(1.6, size) % 30 + 7,
            "item_id": rng.zipf(1.5, size) % 40,
            "level": rng.integers(3, size=size),
            "timestamp": rng.integers(90, size=size),
        },
        index=rng.permutation(size),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("users", "items"), [(3, 3), (1, 4), (5, 2)])
def test_the_core_is_what_dropping_one_at_a_time_leaves(seed: int, users: int, items: int) -> None:
    log = draw_log(seed)
    expected = core(log, users, items)
    if not expected:
        with pytest.raises(
            InteractionError, match=f"150 rows has {users} items for each user and {items} users"
        ):
            k_core(log, users=users, items=items)
        return
    kept, note = k_core(log, users=users, items=items)
    assert pairs_of(kept) == expected
    pd.testing.assert_frame_equal(kept, log[log.index.isin(kept.index)])
    pairs = zip(log["user_id"], log["item_id"], strict=True)
    assert len(kept) == sum(pair in expected for pair in pairs)  # repeats of a pair stay together
    assert f"dropped {150 - len(kept)} of 150 rows" in note
    again, said = k_core(kept, users=users, items=items)
    assert len(again) == len(kept) and "dropped 0 of" in said


def test_a_chain_that_falls_apart_from_one_end_is_followed_to_the_other() -> None:
    # User n met items n and n + 1: item 0 has one user only, so user 0 goes, then item 1, and so on; a block stays.
    chain = [(n, item) for n in range(50) for item in (n, n + 1)]
    block = [(user, item) for user in (90, 91) for item in (90, 91)]
    log = pd.DataFrame(chain + block, columns=["user_id", "item_id"])
    kept, note = k_core(log, users=2, items=2)
    assert pairs_of(kept) == set(block)
    assert "dropped 100 of 104 rows, 50 of 52 users and 51 of 53 items" in note


def test_a_core_that_asks_for_nothing_keeps_all_and_below_is_refused() -> None:
    log = draw_log(0)
    assert len(k_core(log, users=0, items=0).log) == 150
    with pytest.raises(InteractionError, match="0 or more; got -1 and 2"):
        k_core(log, users=-1, items=2)
    with pytest.raises(InteractionError, match="no part of the 0 rows"):
        k_core(log.iloc[:0], users=1, items=1)


def test_a_log_is_described_by_its_counts() -> None:
    log = pd.DataFrame({"user_id": [3, 3, 3, 5], "item_id": [0, 1, 1, 0], "level": [0, 2, 2, 3]})
    assert describe(log) == {
        "log": Description(rows=4, users=2, items=2, density=3 / 4, level_counts=(1, 0, 2, 1), duplicates=1)
    }
    assert describe(log.iloc[:0])["log"].density == 0.0


def test_cold_rows_of_a_split_are_counted_and_still_there() -> None:
    log = pd.DataFrame(
        {
            "user_id": [0, 0, 1, 1, 1, 2, 0, 3, 0, 3],
            "item_id": [0, 1, 0, 2, 1, 0, 5, 1, 2, 6],
            "level": [1, 0, 1, 1, 1, 1, 2, 1, 1, 0],
            "timestamp": range(10),
        }
    )
    split = split_by_time(log, test=0.3, validation=0.2)
    found = describe(split)
    assert list(found) == ["train", "validation known", "validation target", "test known", "test target"]
    assert found["train"].rows == found["validation known"].rows == 5
    assert found["train"].level_counts == (1, 4, 0)
    validation, test = found["validation target"], found["test target"]
    # Train has users 0, 1 and items 0, 1, 2. Validation: user 2 with item 0, user 0 with item 5.
    assert (validation.cold_users, validation.cold_items, validation.cold_rows) == (1, 1, 2)
    assert validation.users_without_history == 1
    # Test: user 3 with items 1 and 6, user 0 with item 2.
    assert (test.rows, test.cold_users, test.cold_items, test.cold_rows) == (3, 1, 1, 2)
    assert test.users_without_history == 1
    known = found["test known"]
    assert (known.rows, known.cold_users, known.cold_items, known.cold_rows) == (7, 1, 1, 2)


def test_held_out_users_are_cold_but_not_without_history() -> None:
    log = pd.DataFrame(
        {"user_id": np.repeat(np.arange(10), 10), "item_id": np.tile(np.arange(10), 10), "level": 1}
    )
    found = describe(split_users(log, n_test=2, n_validation=1, seed=0))["test target"]
    assert (found.cold_users, found.cold_rows, found.cold_items) == (2, 4, 0)
    assert found.users_without_history == 0
