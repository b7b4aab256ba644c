"""Typed columns of a file, checked, with every wrong value named by the line or row where it stands."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.readers.lines import TextLayout, numbered_rows
from recsys.errors import DataFileError

MISSING = ("", "NaN", "nan", "NA", "N/A", "null", "NULL", "None")
NAMED_AT_MOST = 3
ID_TYPE = pa.dictionary(pa.int32(), pa.string())


class RawTable(NamedTuple):
    """Some columns of a file: ids dictionary-encoded, numbers as float64 with nulls, everything else as read.

    path: The file.
    layout: None for Parquet, whose rows are counted instead of lines.
    cells: One row a row of the file, in its order.
    first_row: Which row of the file the first of `cells` is, from 0.
    """

    path: Path
    layout: TextLayout | None
    cells: pa.Table
    first_row: int = 0


def place_of(raw: RawTable, row: int) -> str:
    """Where a row stands, such as "data/u.data, line 7"; `row` counts from 0."""
    if raw.layout is None:
        return f"{raw.path}, row {row + 1}"
    skip = raw.first_row + row + (raw.layout.names is None)
    for place, (line, _) in enumerate(numbered_rows(raw.path, raw.layout)):
        if place == skip:
            return f"{raw.path}, line {line}"
    raise DataFileError(
        f"{raw.path} must stay as it was while it is read; its row {row} is gone. Read it again."
    )


def refuse_rows(raw: RawTable, bad: NDArray[np.bool_], must: str, got: Any, remedy: str) -> None:
    """Raise where `bad` marks a row: name the first by its line and what it holds, and count the others.

    Args:
        raw: The file.
        bad: One flag a row of `raw`.
        must: What must hold, such as "`rating` must be a number".
        got: Values to show, one a row of `raw`; None shows as a missing value.
        remedy: What to do, a sentence without its full stop.

    Raises:
        DataFileError: A row is marked.
    """
    if not bad.any():
        return
    row = int(np.argmax(bad))
    value = got[row].as_py() if isinstance(got, pa.ChunkedArray | pa.Array) else got[row]
    shown = (
        "nothing" if value is None or value == "" else repr(value if isinstance(value, str) else float(value))
    )
    others = int(bad.sum()) - 1
    more = f" there, and {others} rows more like it" if others else ""
    raise DataFileError(f"{place_of(raw, row)}: {must}; got {shown}{more}. {remedy}.")


def id_column(raw: RawTable, name: str) -> pa.ChunkedArray:
    """A checked column of ids, with one dictionary for all its chunks.

    Raises:
        DataFileError: A row has no id.
    """
    column = raw.cells[name].unify_dictionaries()
    empty = pc.fill_null(pc.equal(pc.cast(column, pa.string()), ""), True) if _may_be_empty(column) else None
    if empty is not None:
        refuse_rows(raw, _flags(empty), f"`{name}` must not be empty", column, "Drop or repair such rows")
    return column


def number_column(raw: RawTable, name: str) -> NDArray[np.float64]:
    """A checked column of numbers, all there and finite.

    Raises:
        DataFileError: A number is missing or not finite.
    """
    column = raw.cells[name]
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    bad = ~np.isfinite(values)
    refuse_rows(raw, bad, f"`{name}` must be a finite number", column, "Drop or repair such rows")
    return values


def flag_column(raw: RawTable, name: str) -> NDArray[np.bool_]:
    """A checked column of 0 and 1.

    Raises:
        DataFileError: Something else stands there.
    """
    values = number_column(raw, name)
    bad = (values != 0) & (values != 1)
    refuse_rows(raw, bad, f"`{name}` must be 0 or 1", raw.cells[name], "Drop or repair such rows")
    flags: NDArray[np.bool_] = values == 1
    return flags


def _may_be_empty(column: pa.ChunkedArray) -> bool:
    """Whether any id is missing or "": asked of the dictionary, which is short."""
    if column.null_count:
        return True
    chunk = column.chunk(0) if column.num_chunks else None
    return chunk is not None and bool(pc.any(pc.equal(chunk.dictionary, "")).as_py())


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = column.to_numpy().astype(np.bool_)
    return flags
