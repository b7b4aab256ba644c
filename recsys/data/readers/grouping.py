"""Users and items of sources that name none: rows with the same values are taken as one."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.readers.numbering import encode
from recsys.errors import DataFileError

ID_DIGITS = 16


class Groups(NamedTuple):
    """Rows grouped by their values.

    ids: The group of each row: 16 hexadecimal digits of the SHA-256 of its values. Dictionary-encoded, length N.
    distinct: The G groups, dictionary-encoded.
    first_rows: The first row of each of `distinct`. Shape (G,), int64.
    """

    ids: pa.ChunkedArray
    distinct: pa.ChunkedArray
    first_rows: NDArray[np.int64]


def group_by_value(cells: pa.Table, names: Sequence[str]) -> Groups:
    """Group rows by the values of some columns; the id of a group depends on nothing but these values.

    Args:
        cells: N rows.
        names: Columns of strings, plain or dictionary-encoded.

    Raises:
        DataFileError: Two groups hash to one id.
    """
    key = np.zeros(cells.num_rows, dtype=np.int64)
    for name in names:
        column = encode(cells[name]).unify_dictionaries().combine_chunks()
        codes = column.indices.to_numpy().astype(np.int64)
        key = np.unique(key * len(column.dictionary) + codes, return_inverse=True)[1].astype(np.int64)
    first, place = np.unique(key, return_index=True, return_inverse=True)[1:]
    texts = [pc.cast(cells[name].take(pa.array(first)), pa.string()).to_pylist() for name in names]
    joined = ["\x1f".join(values) for values in zip(*texts, strict=True)]
    hashed = [hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS] for text in joined]
    if len(set(hashed)) < len(hashed):
        raise DataFileError(
            f"Different values of {', '.join(names)} must hash to different ids; got {len(set(hashed))} ids for "
            f"{len(hashed)} combinations. Name users and items in the file."
        )
    dictionary = pa.array(hashed, pa.string())
    ids = pa.DictionaryArray.from_arrays(pa.array(place.astype(np.int32)), dictionary)
    return Groups(pa.chunked_array([ids]), encode(dictionary), first.astype(np.int64))
