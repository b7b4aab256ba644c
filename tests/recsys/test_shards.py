from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data.shards import UserShards, write_shards
from recsys.errors import InteractionError

COLUMNS = ["user_id", "item_id", "level", "timestamp"]


def draw_log(users: int = 40, rows: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    columns = [rng.integers(users, size=rows), rng.integers(30, size=rows), rng.integers(4, size=rows)]
    return pd.DataFrame(dict(zip(COLUMNS, [*columns, np.arange(rows)], strict=True)))


def pieces(log: pd.DataFrame, rows: int = 70) -> Iterator[pd.DataFrame]:
    for start in range(0, len(log), rows):
        yield log.iloc[start : start + rows]


def every_row(shards: UserShards) -> pd.DataFrame:
    return pd.concat([shards.read(place) for place in range(len(shards))])


def test_every_row_lies_in_one_file_with_all_of_its_user(tmp_path: Path) -> None:
    log = draw_log()
    shards = write_shards(pieces(log), tmp_path / "new", 5)
    assert len(shards) == 5 and all(path.exists() for path in shards.paths)
    users = [set(shards.read(place)["user_id"]) for place in range(5)]
    assert sum(len(part) for part in users) == len(set().union(*users)) == log["user_id"].nunique()
    found = every_row(shards).sort_values("timestamp").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, log)


def test_rows_of_a_file_keep_the_order_in_which_they_came(tmp_path: Path) -> None:
    shards = write_shards(pieces(draw_log()), tmp_path, 3)
    assert all(shards.read(place)["timestamp"].is_monotonic_increasing for place in range(3))


@pytest.mark.parametrize("step", [1, 8, 1000])
def test_users_are_spread_over_all_files_however_their_ids_were_dealt_out(tmp_path: Path, step: int) -> None:
    log = pd.DataFrame(dict.fromkeys(COLUMNS, 0), index=range(8_000)).assign(user_id=step * np.arange(8_000))
    shards = write_shards(iter([log]), tmp_path, 8)
    counts = np.array([len(shards.read(place)) for place in range(8)])
    assert counts.sum() == 8_000 and counts.min() > 900 and counts.max() < 1_100


def test_how_the_log_was_cut_into_pieces_does_not_matter(tmp_path: Path) -> None:
    log = draw_log()
    first = write_shards(pieces(log, 7), tmp_path / "a", 4)
    second = write_shards(iter([log]), tmp_path / "b", 4)
    for place in range(4):
        pd.testing.assert_frame_equal(first.read(place), second.read(place))


def test_further_columns_and_empty_pieces_are_left_out(tmp_path: Path) -> None:
    log = draw_log(rows=20).assign(position=1)
    shards = write_shards(iter([log.iloc[:0], log]), tmp_path, 1)
    assert list(shards.read(0).columns) == COLUMNS and len(shards.read(0)) == 20


def test_nothing_but_complete_files_is_left_in_the_folder(tmp_path: Path) -> None:
    shards = write_shards(pieces(draw_log()), tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == sorted(shards.paths)


def test_logs_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match="`n_shards` must be at least 1; got 0"):
        write_shards(iter([draw_log()]), tmp_path, 0)
    with pytest.raises(InteractionError, match="level, timestamp missing"):
        write_shards(iter([draw_log()[["user_id", "item_id"]]]), tmp_path, 2)


@pytest.mark.parametrize("frames", [[], [draw_log().iloc[:0]]])
def test_a_log_without_rows_is_refused_and_leaves_nothing(tmp_path: Path, frames: list[pd.DataFrame]) -> None:
    with pytest.raises(InteractionError, match="at least one row; got none"):
        write_shards(iter(frames), tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_piece_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match="level missing"):
        write_shards(iter([draw_log(), draw_log().drop(columns="level")]), tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [1.5, np.nan])
def test_numbers_that_are_not_whole_are_refused(tmp_path: Path, bad: float) -> None:
    log = draw_log(rows=20).astype({"level": float})
    log.loc[3, "level"] = bad
    with pytest.raises(InteractionError, match=str(bad)):
        write_shards(iter([log]), tmp_path, 2)
