import json
import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from recsys.data.dataset import Entities, FeatureKind
from recsys.errors import ShapeError
from recsys.features import BUCKETS, FeatureEncoder, FeatureTable
from tests.helpers.slow_gnolr import draw_table

KINDS = {
    "genre": FeatureKind.CATEGORICAL,
    "tags": FeatureKind.MULTI_HOT,
    "price": FeatureKind.DENSE,
    "text": FeatureKind.EMBEDDING,
}


# Four things, of which the last lacks everything.
CELLS: dict[str, list[object]] = {
    "genre": ["war", "art", "war", None],
    "tags": [("new", "red"), (), ("red",), None],
    "price": [1.0, 2.0, 3.0, np.nan],
    "text": [np.array([3.0, 4.0]), np.zeros(2), np.array([0.0, 5.0]), None],
}


def shop(**changes: dict[int, object]) -> Entities:
    """The four things, with some cells changed: column to row to cell."""
    columns = {
        name: pd.Series(
            [changes.get(name, {}).get(row, cell) for row, cell in enumerate(cells)], dtype=object
        )
        for name, cells in CELLS.items()
    }
    return Entities(pd.Index(["a", "b", "c", "d"]), pd.DataFrame(columns), KINDS)


def single(name: str, cells: list[object], kind: FeatureKind) -> Entities:
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object)})
    return Entities(pd.Index([str(n) for n in range(len(cells))]), frame, {name: kind})


def encode(entities: Entities, rows: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    table = FeatureEncoder.fit(entities, np.array(rows)).transform(entities)
    return table.sparse.toarray(), table.dense


def test_categories_take_a_column_each_after_the_unknown_one() -> None:
    found, dense = encode(single("g", ["war", "art", None, "war"], FeatureKind.CATEGORICAL), [0, 1, 3])
    assert found.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert dense.shape == (4, 0)


def test_categories_that_training_did_not_see_are_unknown() -> None:
    found, _ = encode(single("g", ["war", "art", "new"], FeatureKind.CATEGORICAL), [0])
    assert found.tolist() == [[0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize(("missing", "text"), [(None, "None"), (np.nan, "nan")])
def test_a_missing_category_is_not_the_one_spelled_like_it(missing: object, text: str) -> None:
    found, _ = encode(single("g", [text, missing], FeatureKind.CATEGORICAL), [0, 1])
    assert found.tolist() == [[0, 1], [1, 0]]


def test_tags_share_one_unit_of_length() -> None:
    cells: list[object] = [("b", "a"), (), ["b"], np.array(["a", "c", "b", "d"]), None]
    found, _ = encode(single("t", cells, FeatureKind.MULTI_HOT), [0, 1, 2])
    half = math.sqrt(0.5)
    # Columns: unknown, a, b; two unknown tags of four weigh a half each.
    expected = np.array([[0, half, half], [0, 0, 0], [0, 0, 1], [1, 0.5, 0.5], [0, 0, 0]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_numbers_become_a_standardised_column_and_a_bucket() -> None:
    values = [float(n) for n in range(100)]
    found, dense = encode(single("n", [*values, np.nan, -1e9, 1e9], FeatureKind.DENSE), [*range(100), 100])
    centre, spread = np.mean(values), np.std(values)
    np.testing.assert_allclose(dense[:100, 0], (np.array(values) - centre) / spread, rtol=1e-5)
    assert dense[100, 0] == 0.0
    assert found.shape == (103, BUCKETS + 1) and (found.sum(1) == 1).all()
    bucket = found.argmax(1)
    assert bucket[100] == 0 and bucket[101] == 1 and bucket[102] == BUCKETS
    # Ten equal buckets in the order of the values, the missing one beside them.
    assert (np.diff(bucket[:100]) >= 0).all()
    assert np.abs(np.bincount(bucket[:100], minlength=BUCKETS + 1)[1:] - 10).max() <= 1


def test_numbers_all_alike_or_all_missing_stay_finite() -> None:
    found, dense = encode(single("n", [2.0, 2.0, np.nan], FeatureKind.DENSE), [0, 1, 2])
    assert dense.tolist() == [[0.0], [0.0], [0.0]] and found[2, 0] == 1 and found[0, 0] == 0
    found, dense = encode(single("n", [np.nan, 3.0], FeatureKind.DENSE), [0])
    assert np.isfinite(dense).all() and found[0].tolist() == [1, 0] and found[1].tolist() == [0, 1]


def test_embeddings_have_unit_root_mean_square_length() -> None:
    cells: list[object] = [np.array([3.0, 4.0]), np.array([0.0, 1.0]), None, [30.0, 40.0]]
    found, dense = encode(single("e", cells, FeatureKind.EMBEDDING), [0, 1, 2])
    length = math.sqrt((25 + 1) / 2)
    np.testing.assert_allclose(dense, np.array([[3, 4], [0, 1], [0, 0], [30, 40]]) / length, rtol=1e-6)
    assert found.shape == (4, 0)


def test_a_table_of_every_kind_has_all_columns_side_by_side() -> None:
    table = FeatureEncoder.fit(shop(), np.arange(4)).transform(shop())
    # Genres and tags: two each and the unknown; prices: buckets of three distinct values at most, and the unknown.
    assert table.widths[1] == 1 + 2 and table.widths[0] <= 3 + 3 + BUCKETS + 1
    last = table.sparse.toarray()[3]
    assert last[0] == 1 and last[3:6].tolist() == [0, 0, 0] and last[6] == 1
    assert table.dense[3].tolist() == [0.0, 0.0, 0.0]


def test_nothing_is_learned_from_other_rows() -> None:
    other = shop(genre={2: "odd"}, tags={2: ("odd",)}, price={2: 1e6}, text={2: np.array([1e6, 0.0])})
    rows = np.array([0, 1])
    first, second = FeatureEncoder.fit(shop(), rows), FeatureEncoder.fit(other, rows)
    assert first.to_settings() == second.to_settings()
    assert first.to_settings() != FeatureEncoder.fit(shop(), np.arange(4)).to_settings()


def test_ids_are_a_category_of_the_entities_of_training() -> None:
    encoder = FeatureEncoder.fit(shop(), np.array([2, 0, 0]), with_ids=True)
    plain = FeatureEncoder.fit(shop(), np.array([2, 0, 0])).transform(shop())
    found = encoder.transform(shop()).sparse.toarray()[:, plain.widths[0] :]
    # Unknown, "a", "c".
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_settings_survive_json() -> None:
    encoder = FeatureEncoder.fit(shop(), np.array([0, 1, 2]), with_ids=True)
    again = FeatureEncoder.from_settings(json.loads(json.dumps(encoder.to_settings())))
    assert again.to_settings() == encoder.to_settings()
    found, expected = again.transform(shop()), encoder.transform(shop())
    assert np.array_equal(found.sparse.toarray(), expected.sparse.toarray())
    assert np.array_equal(found.dense, expected.dense)


def test_no_features_are_a_table_without_columns() -> None:
    bare = Entities(pd.Index(["a", "b"]), pd.DataFrame(index=pd.RangeIndex(2)), {})
    table = FeatureEncoder.fit(bare, np.arange(2)).transform(bare)
    assert table.widths == (0, 0) and len(table) == 2


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        ([1.0, "dear"], FeatureKind.DENSE, r"Column `x` must hold finite numbers; got \['dear'\]"),
        ([1.0, math.inf], FeatureKind.DENSE, r"must hold finite numbers; got \[inf\]"),
        ([("a",), "a|b"], FeatureKind.MULTI_HOT, r"Column `x` must hold lists of tags; got \['a\|b'\]"),
        ([[1.0, 2.0], [1.0]], FeatureKind.EMBEDDING, r"vectors of one length; got shapes \[\(1,\), \(2,\)\]"),
        ([[[1.0]]], FeatureKind.EMBEDDING, r"vectors of one length; got shapes \[\(1, 1\)\]"),
        ([None], FeatureKind.EMBEDDING, r"vectors of one length; got shapes \[\]"),
    ],
)
def test_cells_of_another_kind_are_refused(cells: list[object], kind: FeatureKind, message: str) -> None:
    entities = single("x", cells, kind)
    with pytest.raises(ShapeError, match=message):
        FeatureEncoder.fit(entities, np.arange(len(cells)))


def test_tables_that_do_not_fit_the_encoder_are_refused() -> None:
    encoder = FeatureEncoder.fit(shop(), np.arange(4))
    poorer = Entities(shop().ids, shop().features.drop(columns=["price"]), {})
    with pytest.raises(ShapeError, match=r"\['price'\] missing among \['genre', 'tags', 'text'\]"):
        encoder.transform(poorer)
    with pytest.raises(ShapeError, match=r"vectors of length 2; got shape \(3,\) in row 1"):
        encoder.transform(shop(text={1: np.zeros(3)}))


def test_rows_are_taken_and_minus_one_is_blank() -> None:
    table = draw_table(5, 4, 2, 0)
    rows = np.array([3, -1, 0, 3])
    taken = table.take(rows)
    dense = table.sparse.toarray()
    assert np.array_equal(taken.sparse.toarray(), np.stack([dense[3], 0 * dense[0], dense[0], dense[3]]))
    blank = np.zeros(2, dtype=np.float32)
    assert np.array_equal(taken.dense, np.stack([table.dense[3], blank, table.dense[0], table.dense[3]]))
    assert len(table.take(np.empty(0, dtype=np.int64))) == 0
    known = table.take(np.array([1, 4]))
    assert np.array_equal(known.sparse.toarray(), dense[[1, 4]])


def test_a_table_of_nobody_gives_blank_rows() -> None:
    table = FeatureTable.empty(0).take(np.array([5, -1]))
    assert len(table) == 2 and table.widths == (0, 0)
    blank = draw_table(5, 4, 2, 0).take(np.empty(0, dtype=np.int64)).take(np.array([-1, -1, -1]))
    assert len(blank) == 3 and blank.widths == (4, 2) and blank.sparse.nnz == 0


def test_tables_of_the_same_columns_are_appended() -> None:
    first, second = draw_table(3, 4, 2, 0), draw_table(2, 4, 2, 1)
    both = first.append(second)
    assert len(both) == 5
    assert np.array_equal(both.sparse.toarray()[3:], second.sparse.toarray())
    assert np.array_equal(both.dense[:3], first.dense)
    with pytest.raises(ShapeError, match=r"the same columns; got \(4, 2\) and \(4, 3\) \(sparse, dense\)"):
        first.append(draw_table(2, 4, 3, 1))


def test_numbers_alone_make_a_table() -> None:
    values = np.arange(6.0).reshape(3, 2)
    table = FeatureTable.of_dense(values)
    assert table.widths == (0, 2) and table.dense.dtype == np.float32
    assert np.array_equal(table.dense, values) and table.sparse.shape == (3, 0)
