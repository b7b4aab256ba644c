from pathlib import Path

import numpy as np
import pytest

from recsys.data.dataset import FeatureKind
from recsys.data.readers import read_recbole
from recsys.errors import DataFileError
from tests.helpers.log_files import feature_of, outside_rows, write_lines

INTER = [
    "user_id:token\titem_id:token\trating:float\ttimestamp:float",
    "b\t2\t5\t7",
    "a\t10\t1\t9.5",
    "b\t10\t3\t8",
]


def write_atomic(folder: Path, inter: list[str], item: list[str] | None = None) -> Path:
    if item is not None:
        write_lines(folder / "toy.item", item)
    return write_lines(folder / "toy.inter", inter)


def test_ids_ratings_and_times_are_read_from_the_file_or_its_folder(tmp_path: Path) -> None:
    path = write_atomic(tmp_path, INTER)
    for place in (path, tmp_path):
        found = read_recbole(place)
        assert outside_rows(found) == [("b", "2", 3, 7), ("a", "10", 0, 9), ("b", "10", 1, 8)]
        assert found.items.ids.tolist() == ["2", "10"] and found.users.ids.tolist() == ["a", "b"]
        assert found.name == "toy"


def test_each_type_of_field_becomes_its_kind_of_feature(tmp_path: Path) -> None:
    item = [
        "item_id:token\tbrand:token\ttags:token_seq\tprice:float\tvector:float_seq\titem_name:token_seq",
        "10\tx\tred big\t1.5\t0.5 1\tLong Name",
        "2\t\t\t\t\t",
        "7\ty\tred\t2\t2 -1e-1\tOther",
    ]
    write_atomic(tmp_path, INTER, item)
    found = read_recbole(tmp_path)
    assert found.items.ids.tolist() == ["2", "7", "10"]
    assert found.items.kinds == {
        "brand": FeatureKind.CATEGORICAL,
        "tags": FeatureKind.MULTI_HOT,
        "price": FeatureKind.DENSE,
        "vector": FeatureKind.EMBEDDING,
    }
    assert feature_of(found, "items", "brand") == {"2": None, "7": "y", "10": "x"}
    assert feature_of(found, "items", "tags") == {"2": (), "7": ("red",), "10": ("red", "big")}
    assert np.array_equal(found.items.features["price"], [np.nan, 2.0, 1.5], equal_nan=True)
    vectors = feature_of(found, "items", "vector")
    assert vectors["2"] is None
    assert np.allclose(np.asarray(vectors["7"], dtype=np.float64), [2, -0.1])
    assert np.allclose(np.asarray(vectors["10"], dtype=np.float64), [0.5, 1])
    assert found.items.labels is not None and found.items.labels.tolist() == [None, "Other", "Long Name"]
    assert "Column `item_name` is read as labels, not as a feature." in found.notes


def test_a_log_without_ratings_and_times_is_met_throughout(tmp_path: Path) -> None:
    write_atomic(tmp_path, ["user_id:token\titem_id:token\tplace:token", "a\t1\tx", "b\t2\ty"])
    found = read_recbole(tmp_path)
    assert outside_rows(found) == [("a", "1", 1), ("b", "2", 1)]
    assert not found.has_times and found.level_names == ("not met", "met")
    assert "Columns ['place'] of toy.inter are not read." in found.notes


def test_other_names_of_columns_are_mapped(tmp_path: Path) -> None:
    write_atomic(tmp_path, ["session_id:token\titem_id:token\tstars:float", "a\t1\t4"])
    found = read_recbole(tmp_path, columns={"user_id": "session_id", "rating": "stars"}, levels=("4",))
    assert outside_rows(found) == [("a", "1", 1)]


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        (
            ["user_id:token\titem_id"],
            r"line 1 must name columns as name:type .* token_seq, float, float_seq; got 'item_id'",
        ),
        (["user_id:token\titem_id:word"], r"line 1 must name columns as name:type .*; got 'item_id:word'"),
        (
            ["user_id:token\tx:token", "a\tb"],
            r"must have the columns user_id:token, item_id:token; item_id:token missing",
        ),
        ([INTER[0], "a\t1\t4"], r"line 2 must have 4 cells, .*; got 3"),
        ([INTER[0], "a\t1\tfour\t4"], r"line 2: `rating:float` must be a number; got 'four'"),
        ([INTER[0], "a\t1\t4\t"], r"line 2: `timestamp:float` must be a moment; got nothing"),
        ([INTER[0], "a\t\t4\t4"], r"line 2: `item_id:token` must not be empty"),
    ],
)
def test_a_fault_of_the_log_is_named(tmp_path: Path, inter: list[str], message: str) -> None:
    write_atomic(tmp_path, inter)
    with pytest.raises(DataFileError, match=message):
        read_recbole(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["1\t0.5 1", "2\t0.5"],
            r"toy\.item, line 3: `vector:float_seq` must have 2 parts, as the first; got 1\.0",
        ),
        (["1\t0.5 1", "2\t0.5 x"], r"toy\.item, line 3: `vector:float_seq` must hold numbers; got '0\.5 x'"),
        (
            ["1\t0.5 1", "1\t0.5 1"],
            r"line 3: `item_id:token` must name each row once; got '1' again, after .* line 2",
        ),
    ],
)
def test_a_fault_of_a_table_is_named(tmp_path: Path, rows: list[str], message: str) -> None:
    write_atomic(tmp_path, INTER, ["item_id:token\tvector:float_seq", *rows])
    with pytest.raises(DataFileError, match=message):
        read_recbole(tmp_path)


def test_a_folder_must_hold_one_log(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"must hold one \.inter file; got \[\]"):
        read_recbole(tmp_path)
    for name in ("a.inter", "b.inter"):
        write_lines(tmp_path / name, INTER)
    with pytest.raises(DataFileError, match=r"got \['a\.inter', 'b\.inter'\]\. Name the file itself"):
        read_recbole(tmp_path)
