"""Outside ids numbered 0..N-1 in an order that does not depend on the order of rows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WHOLE_NUMBER = r"^-?\d{1,18}$"


def sort_ids(values: pa.Array) -> pa.Array:
    """Distinct ids in order: as numbers where every one is a whole number, else by their characters.

    Args:
        values: Strings; "01" and "1" are two ids, equal as numbers, and then in the order of their characters.
    """
    distinct = pc.unique(values)
    by_text = distinct.take(pc.sort_indices(distinct))
    if not pc.all(pc.match_substring_regex(by_text, WHOLE_NUMBER)).as_py():
        return by_text
    order = np.argsort(pc.cast(by_text, pa.int64()).to_numpy(), kind="stable")
    return by_text.take(pa.array(order))


def number_ids(columns: Sequence[pa.ChunkedArray]) -> tuple[pa.Array, list[NDArray[np.int64]]]:
    """Number the ids of several columns together.

    Args:
        columns: Dictionary-encoded strings without nulls. Ids that only stand in a dictionary are left out.

    Returns:
        The ids in the order of `sort_ids`, and each column's numbers in it.
    """
    parts = [_codes(column) for column in columns]
    used = [
        dictionary.take(pa.array(np.flatnonzero(np.bincount(codes, minlength=len(dictionary)))))
        for codes, dictionary in parts
    ]
    ids = sort_ids(pa.concat_arrays(used))
    numbers = []
    for codes, dictionary in parts:
        places = pc.fill_null(pc.index_in(dictionary, value_set=ids), -1).to_numpy().astype(np.int64)
        numbers.append(places[codes] if len(codes) else np.empty(0, dtype=np.int64))
    return ids, numbers


def encode(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings, dictionary-encoded as `number_ids` wants them."""
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return chunked if pa.types.is_dictionary(chunked.type) else chunked.dictionary_encode()


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Places in one dictionary, and the dictionary."""
    if column.num_chunks == 0:
        return np.empty(0, dtype=np.int64), pa.array([], pa.string())
    if not all(chunk.dictionary.equals(column.chunk(0).dictionary) for chunk in column.chunks):
        column = column.unify_dictionaries()
    chunks = [chunk.indices.to_numpy().astype(np.int64) for chunk in column.chunks]
    return np.concatenate(chunks), column.chunk(0).dictionary
