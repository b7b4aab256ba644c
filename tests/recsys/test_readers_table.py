import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.dataset import FeatureKind
from recsys.data.readers import ContradictionPolicy, read_dataset, read_split, read_table
from recsys.errors import DataFileError, OrdinalError
from tests.helpers.log_files import feature_of, outside_rows, write_lines

COLUMNS = {"user_id": "who", "item_id": "what", "rating": "stars", "timestamp": "when"}
ROWS = [("b", 10, 5.0, 100), ("a", 2, 3.5, 50), ("b", 2, 1.0, 70)]
EXPECTED = [("b", "10", 3, 100), ("a", "2", 1, 50), ("b", "2", 0, 70)]


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["who", "what", "stars", "when"])


def test_the_same_log_is_read_from_every_kind_of_table(tmp_path: Path) -> None:
    table = frame()
    table.to_csv(tmp_path / "log.csv", index=False)
    table.to_csv(tmp_path / "log.tsv", index=False, sep="\t")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress((tmp_path / "log.csv").read_bytes()))
    table.to_parquet(tmp_path / "log.parquet")
    for name in ("log.csv", "log.tsv", "log.csv.gz", "log.parquet"):
        found = read_table(tmp_path / name, columns=COLUMNS)
        assert outside_rows(found) == EXPECTED
        assert found.name == "log" and found.log["rating"].tolist() == [5.0, 3.5, 1.0]
        assert found.items.ids.tolist() == ["2", "10"]


def test_columns_with_our_names_need_no_map_and_others_are_noted(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "log.csv", ["timestamp,user_id,shop,item_id,level", "9,1,x,01,0", "8,1,y,1,2"]
    )
    found = read_table(path)
    assert outside_rows(found) == [("1", "01", 0, 9), ("1", "1", 2, 8)]
    assert found.level_names == ("level 0", "level 1", "level 2")
    assert "Columns ['shop'] of log.csv are not read." in found.notes
    assert read_table(path, levels=("seen", "bought")).level_names == ("not met", "seen", "bought")
    with pytest.raises(
        OrdinalError, match=r"must name the levels 1\.\.2 of the log; got \['seen'\]\. Name 2 or more"
    ):
        read_table(path, levels=("seen",))


def test_events_flags_and_bare_pairs_make_levels(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "log.csv", ["user_id,item_id,event,click,buy", "1,2,view,0,1", "1,3,buy,1,1"]
    )
    assert read_table(path, levels=("view", "buy")).log["level"].tolist() == [1, 2]
    pairs = {"user_id": "user_id", "item_id": "item_id"}
    flags = read_table(path, columns=pairs, levels=("click", "buy"))
    assert flags.log["level"].tolist() == [2, 2] and flags.level_names == ("shown", "click", "buy")
    shallow = read_table(
        path, columns=pairs, levels=("click", "buy"), contradictions=ContradictionPolicy.SHALLOW
    )
    assert shallow.log["level"].tolist() == [0, 2]
    bare = read_table(path, columns=pairs)
    assert bare.log["level"].tolist() == [1, 1] and not bare.has_times
    with pytest.raises(
        OrdinalError, match=r"0/1 columns of a log without .*; \['like'\] not found among \['user_id'"
    ):
        read_table(path, columns=pairs, levels=("click", "like"))


def test_a_given_split_shares_ids_and_marks_the_test_rows(tmp_path: Path) -> None:
    table = frame()
    table.iloc[:2].to_csv(tmp_path / "train.csv", index=False)
    table.iloc[2:].assign(what=1).to_csv(tmp_path / "test.csv", index=False)
    found = read_split(tmp_path / "train.csv", tmp_path / "test.csv", columns=COLUMNS)
    assert found.items.ids.tolist() == ["1", "2", "10"]
    assert outside_rows(found) == [*EXPECTED[:2], ("b", "1", 0, 70)]
    assert found.log["is_test"].tolist() == [False, False, True]


def test_features_of_text_tables_are_read_by_what_they_look_like(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "log.csv", index=False)
    people = [
        "who,age,city,code",
        *(f"u{row},{row}.5,{'RS'[row % 2]},{row % 3}" for row in range(24)),
        "a,,R,1",
    ]
    films = ["item_id,title,genres,vector", "2,Two,x|y,1|2", "10,Ten,,3|4", "11,Eleven,y,"]
    found = read_table(
        tmp_path / "log.csv",
        columns=COLUMNS,
        users=write_lines(tmp_path / "users.csv", people),
        items=write_lines(tmp_path / "items.csv", films),
        kinds={"vector": FeatureKind.EMBEDDING},
    )
    assert found.users.kinds == {
        "age": FeatureKind.DENSE,
        "city": FeatureKind.CATEGORICAL,
        "code": FeatureKind.CATEGORICAL,
    }
    ages = feature_of(found, "users", "age")
    assert ages["u3"] == 3.5 and np.isnan(np.asarray([ages["a"], ages["b"]], dtype=float)).all()
    assert feature_of(found, "users", "city")["b"] is None
    assert feature_of(found, "items", "genres") == {"2": ("x", "y"), "10": (), "11": ("y",)}
    vectors = feature_of(found, "items", "vector")
    assert vectors["11"] is None and np.array_equal(np.asarray(vectors["10"]), [3.0, 4.0])
    assert found.items.labels is not None and found.items.labels.tolist() == ["Two", "Ten", "Eleven"]
    assert any("1 users of the log are not in their table, such as ['b']" in note for note in found.notes)
    assert "Column `title` is read as labels, not as a feature." in found.notes


def test_parquet_lists_are_sets_or_vectors_by_their_type(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "log.parquet")
    columns = {
        "what": pa.array([2, 10]),
        "tags": pa.array([["x", "y"], None]),
        "numbers": pa.array([[1, 2], []], pa.list_(pa.int64())),
        "vector": pa.array([[0.5, 1.0], None], pa.list_(pa.float32())),
        "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
        "price": pa.array([1.5, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    found = read_table(tmp_path / "log.parquet", columns=COLUMNS, items=tmp_path / "items.parquet")
    assert found.items.kinds == {
        "tags": FeatureKind.MULTI_HOT,
        "numbers": FeatureKind.MULTI_HOT,
        "vector": FeatureKind.EMBEDDING,
        "fixed": FeatureKind.EMBEDDING,
        "price": FeatureKind.CATEGORICAL,
    }
    assert feature_of(found, "items", "tags") == {"2": ("x", "y"), "10": ()}
    assert feature_of(found, "items", "numbers") == {"2": ("1", "2"), "10": ()}
    assert feature_of(found, "items", "price") == {"2": "1.5", "10": None}
    vectors = feature_of(found, "items", "vector")
    assert vectors["10"] is None and np.array_equal(np.asarray(vectors["2"]), [0.5, 1.0])
    assert np.array_equal(np.asarray(feature_of(found, "items", "fixed")["10"]), [3.0, 4.0])


ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1)
rows = st.lists(st.tuples(ids, ids, st.integers(0, 3)), min_size=1, max_size=30)


@settings(max_examples=20, deadline=None)
@given(rows=rows, seed=st.integers(0, 2**32 - 1))
def test_any_text_is_an_id_and_the_order_of_rows_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "level"])
    table.loc[len(table)] = ("u", "i", 1)
    turned = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    table.to_parquet(folder / "a.parquet")
    turned.to_csv(folder / "b.csv", index=False)
    first, second = read_table(folder / "a.parquet"), read_table(folder / "b.csv")
    assert outside_rows(first) == [tuple(row) for row in table.itertuples(index=False)]
    assert outside_rows(second) == [tuple(row) for row in turned.itertuples(index=False)]
    assert first.users.ids.tolist() == second.users.ids.tolist()
    assert first.items.ids.tolist() == second.items.ids.tolist()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (
            ["a,b", "1,2"],
            None,
            r"columns for user_id and item_id; user_id and item_id not found among \['a', 'b'\]",
        ),
        (["a,item_id", "1,2"], None, r"; user_id not found among \['a', 'item_id'\]\. Say which is which"),
        (["a,b", "1,2"], {"user": "a", "item_id": "b"}, r"`columns` must map names among .*; got \['user'\]"),
        (["a,b", "1,2"], {"user_id": "a", "item_id": "c"}, r"must have the columns a, c; c missing among"),
        (
            ["a,b", "1,2"],
            {"user_id": "a", "item_id": "b", "level": "b", "rating": "b"},
            r"one of level, rating and event; got \['level', 'rating'\]\. Choose one",
        ),
        (
            ["user_id,item_id,level", "1,2,0", "1,3,1.5"],
            None,
            r"line 3: `level` must be a whole number in 0\.\.20; got 1",
        ),
        (
            ["user_id,item_id,level", "1,2,-1"],
            None,
            r"line 2: `level` must be a whole number in 0\.\.20; got -1\.0",
        ),
        (["user_id,item_id,event", "1,2,"], None, r"line 2: `event` must not be empty"),
    ],
)
def test_a_fault_of_the_log_is_named(
    tmp_path: Path, content: list[str], columns: dict[str, str] | None, message: str
) -> None:
    path = write_lines(tmp_path / "log.csv", content)
    with pytest.raises(DataFileError, match=message):
        read_table(path, columns=columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ["id,age", "1,2"],
            r"items\.csv must have a column of ids called what or item_id; got \['id', 'age'\]",
        ),
        (
            ["what,age", "1,2", "2,old"],
            r"items\.csv, line 3: `age` must be a number; got 'old'\. Repair the cell",
        ),
        (
            ["what,age", "1,2", "1,3"],
            r"line 3: `what` must name each row once; got '1' again, after .*line 2\.",
        ),
    ],
)
def test_a_fault_of_a_feature_table_is_named(tmp_path: Path, content: list[str], message: str) -> None:
    frame().to_csv(tmp_path / "log.csv", index=False)
    items = write_lines(tmp_path / "items.csv", content)
    with pytest.raises(DataFileError, match=message):
        read_dataset(tmp_path / "log.csv", columns=COLUMNS, items=items, kinds={"age": FeatureKind.DENSE})


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.json", ["{}"])
    with pytest.raises(
        DataFileError, match=r"must end in one of \.csv, \.tsv, \.tab, \.parquet, .*; got '\.json'"
    ):
        read_table(path)
