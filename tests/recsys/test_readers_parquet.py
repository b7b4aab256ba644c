from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.readers import iter_parquet_logs, read_table
from recsys.errors import DataFileError
from tests.helpers.log_files import write_lines

COLUMNS = {"user_id": "visitor", "level": "depth"}


def write_log(path: Path, rows: int, *, group_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"visitor": rng.integers(0, 9, rows), "depth": rng.integers(0, 3, rows), "noise": rng.random(rows)}
    )
    pq.write_table(pa.Table.from_pandas(table), path, row_group_size=group_rows, compression="none")
    return table


@pytest.mark.parametrize("batch_rows", [1, 7, 10, 1000])
def test_batches_in_order_are_the_whole_log_under_our_names(tmp_path: Path, batch_rows: int) -> None:
    table = write_log(tmp_path / "log.parquet", 45, group_rows=10)
    batches = list(iter_parquet_logs(tmp_path / "log.parquet", COLUMNS, batch_rows=batch_rows))
    whole = pd.concat(batches, ignore_index=True)
    expected = table.rename(columns={"visitor": "user_id", "depth": "level"})[["user_id", "level"]]
    pd.testing.assert_frame_equal(whole, expected)
    assert max(map(len, batches)) == min(batch_rows, 10)
    assert all(batch.index.equals(pd.RangeIndex(len(batch))) for batch in batches)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    first = write_log(tmp_path / "part-1.parquet", 5, group_rows=5)
    write_log(tmp_path / "part-0.parquet", 3, group_rows=5)
    batches = list(iter_parquet_logs(tmp_path, COLUMNS, batch_rows=100))
    assert [len(batch) for batch in batches] == [3, 5]
    assert batches[1]["user_id"].tolist() == first["visitor"].tolist()


def test_no_more_than_a_row_group_is_held_at_once(tmp_path: Path) -> None:
    path, groups, group_rows = tmp_path / "log.parquet", 20, 50_000
    write_log(path, groups * group_rows, group_rows=group_rows)
    columns = {**COLUMNS, "noise": "noise"}
    group_bytes = group_rows * 8 * len(columns)
    before, held = pa.total_allocated_bytes(), 0
    for batch in iter_parquet_logs(path, columns, batch_rows=10_000):
        held = max(held, pa.total_allocated_bytes() - before)
        assert len(batch) == 10_000
    assert pq.ParquetFile(path).num_row_groups == groups
    assert 0 < held < 2 * group_bytes
    assert pa.total_allocated_bytes() - before < group_bytes


@pytest.mark.parametrize(
    ("columns", "batch_rows", "message"),
    [
        (
            {"user_id": "who"},
            10,
            r"must have the columns who; who missing among \['visitor', 'depth', 'noise'\]",
        ),
        (COLUMNS, 0, r"`batch_rows` must be at least 1; got 0\. Ask for"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, str], batch_rows: int, message: str
) -> None:
    write_log(tmp_path / "log.parquet", 5, group_rows=5)
    with pytest.raises(DataFileError, match=message):
        next(iter_parquet_logs(tmp_path / "log.parquet", columns, batch_rows=batch_rows))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"must hold \.parquet files; got none"):
        next(iter_parquet_logs(tmp_path, COLUMNS, batch_rows=1))
    with pytest.raises(DataFileError, match=r"none\.parquet must be a file; there is none"):
        next(iter_parquet_logs(tmp_path / "none.parquet", COLUMNS, batch_rows=1))
    write_lines(tmp_path / "text.parquet", ["visitor,depth"])
    with pytest.raises(DataFileError, match=r"text\.parquet must be a Parquet file; Arrow says"):
        next(iter_parquet_logs(tmp_path, COLUMNS, batch_rows=1))


@pytest.mark.parametrize(
    ("users", "levels", "message"),
    [
        (["a", None], [1, 1], r"log\.parquet, row 2: `user_id` must not be empty; got nothing"),
        (["a", ""], [1, 1], r"log\.parquet, row 2: `user_id` must not be empty; got nothing"),
        ([1.5, 2.0], [1, 1], r"column `user_id` must hold text or whole numbers; got double"),
        (["a", "b"], ["x", "y"], r"column `level` must hold numbers; got string"),
        (["a", "b"], [1, None], r"log\.parquet, row 2: `level` must be a finite number; got nothing"),
        ([], [], r"log\.parquet must hold rows; got none"),
    ],
)
def test_a_fault_of_a_parquet_log_is_named_by_its_row(
    tmp_path: Path, users: list[object], levels: list[object], message: str
) -> None:
    table = pa.table(
        {"user_id": pa.array(users), "item_id": pa.array([7] * len(users)), "level": pa.array(levels)}
    )
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataFileError, match=message):
        read_table(tmp_path / "log.parquet")


def test_dictionaries_large_strings_and_booleans_are_read_as_what_they_hold(tmp_path: Path) -> None:
    columns = {
        "user_id": pa.array(["b", "a", "b"]).dictionary_encode(),
        "item_id": pa.array(["2", "10", "2"], pa.large_string()),
        "level": pa.array([True, False, True]),
        "timestamp": pa.array([3, 2, 1], pa.timestamp("s")),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    found = read_table(tmp_path / "log.parquet")
    assert found.log.to_dict("list") == {
        "user_id": [1, 0, 1],
        "item_id": [0, 1, 0],
        "level": [1, 0, 1],
        "timestamp": [3, 2, 1],
    }
