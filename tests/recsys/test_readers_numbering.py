import numpy as np
import pyarrow as pa
import pytest

from recsys.data.readers import grouping
from recsys.data.readers.grouping import group_by_value
from recsys.data.readers.numbering import encode, number_ids, sort_ids
from recsys.errors import DataFileError


def test_whole_numbers_are_in_the_order_of_numbers_and_keep_their_zeros() -> None:
    assert sort_ids(pa.array(["10", "9", "1", "01", "-2", "9"])).to_pylist() == ["-2", "01", "1", "9", "10"]


def test_ids_equal_as_numbers_stay_in_the_order_of_their_characters() -> None:
    values = [f"{'0' * zeros}{number}" for number in range(1, 60) for zeros in range(4)]
    turned = [values[place] for place in np.random.default_rng(0).permutation(len(values))]
    assert sort_ids(pa.array(turned)).to_pylist() == sorted(values, key=lambda value: (int(value), value))


def test_one_word_among_numbers_orders_all_by_characters() -> None:
    assert sort_ids(pa.array(["10", "9", "x", "é", "Z"])).to_pylist() == sorted(["10", "9", "x", "é", "Z"])


@pytest.mark.parametrize("seed", range(5))
def test_numbers_do_not_depend_on_the_order_or_the_chunks_of_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [str(value) for value in rng.integers(0, 30, size=200)]
    shuffled = [rows[place] for place in rng.permutation(200)]
    chunks = pa.chunked_array(
        [pa.array(shuffled[:70]).dictionary_encode(), pa.array(shuffled[70:]).dictionary_encode()]
    )
    ids, (numbers,) = number_ids([encode(pa.array(rows))])
    again, (others,) = number_ids([chunks])
    assert ids.to_pylist() == again.to_pylist()
    assert [ids[int(number)].as_py() for number in numbers] == rows
    assert [ids[int(number)].as_py() for number in others] == shuffled


def test_several_columns_share_numbers_and_unused_dictionary_entries_get_none() -> None:
    log = encode(pa.array(["5", "7", "9"])).slice(0, 2)
    ids, (first, second) = number_ids([log, encode(pa.array(["8", "5"]))])
    assert ids.to_pylist() == ["5", "7", "8"]
    assert first.tolist() == [0, 1] and second.tolist() == [2, 0]


def test_groups_are_named_by_their_values_alone() -> None:
    table = pa.table({"a": ["x", "y", "x", "x"], "b": ["1", "1", "1", ""]})
    groups = group_by_value(table, ["a", "b"])
    names = groups.ids.to_pylist()
    assert names[0] == names[2] and len(set(names)) == 3
    turned = group_by_value(table.take([3, 2, 1, 0]), ["a", "b"]).ids.to_pylist()
    assert turned == names[::-1]
    assert {names[int(row)] for row in groups.first_rows} == set(names)
    assert groups.distinct.to_pylist() == [names[int(row)] for row in groups.first_rows]


def test_values_are_kept_apart_where_their_joined_characters_are_the_same() -> None:
    table = pa.table({"a": ["ab", "a"], "b": ["c", "bc"]})
    assert len(set(group_by_value(table, ["a", "b"]).ids.to_pylist())) == 2


def test_values_that_hash_alike_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "ID_DIGITS", 1)
    table = pa.table({"a": [str(value) for value in range(17)]})
    with pytest.raises(
        DataFileError, match=r"Different values of a must hash .*; got \d+ ids for 17 combinations"
    ):
        group_by_value(table, ["a"])
