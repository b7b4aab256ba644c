"""Parquet: whole tables, and logs larger than memory one row group at a time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data.readers.raw import ID_TYPE, RawTable
from recsys.errors import DataFileError


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        DataFileError: It is missing or no Parquet file.
    """
    with _open(path) as file:
        return [str(name) for name in file.schema_arrow.names]


def read_parquet_raw(
    path: Path, *, ids: Sequence[str] = (), numbers: Sequence[str] = (), others: Sequence[str] = ()
) -> RawTable:
    """Read the named columns of a Parquet file.

    Args:
        path: The file.
        ids: Columns of ids, text or whole numbers; "01" and "1" stay different, 1 is "1".
        numbers: Columns of numbers, read as float64.
        others: Columns to leave as they are.

    Raises:
        DataFileError: The file is missing or empty, lacks a column, or one is of another type.
    """
    with _open(path) as file:
        cells = _chosen(path, file, [*ids, *numbers, *others])
    for name in [*ids, *numbers]:
        place = cells.column_names.index(name)
        cells = cells.set_column(place, name, _cast(path, name, cells[name], is_id=name in ids))
    return RawTable(path, None, cells)


def iter_parquet_logs(path: Path, columns: Mapping[str, str], *, batch_rows: int) -> Iterator[pd.DataFrame]:
    """The rows of a Parquet log, in order, a frame at a time, never more than one row group in memory.

    Nothing is numbered here: ids must already be rows of the tables of users and items.

    Args:
        path: A file, or a folder of `.parquet` files, read in the order of their names.
        columns: What to call each column, and its name in the file, such as {"user_id": "visitor"}.
        batch_rows: Rows of a frame at most; the last of each row group may be shorter.

    Yields:
        Frames with the columns of `columns`, in that order, and a RangeIndex.

    Raises:
        DataFileError: There is no file, a file lacks a column, or `batch_rows` is below 1.
    """
    if batch_rows < 1:
        raise DataFileError(f"`batch_rows` must be at least 1; got {batch_rows}. Ask for 65,536.")
    paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise DataFileError(f"{path} must hold .parquet files; got none. Check the path.")
    for each in paths:
        with _open(each) as file:
            _check_names(each, file.schema_arrow.names, list(columns.values()))
            for group in range(file.num_row_groups):
                batches = file.iter_batches(batch_rows, row_groups=[group], columns=list(columns.values()))
                for batch in batches:
                    yield pd.DataFrame(
                        {name: batch.column(source).to_pandas() for name, source in columns.items()}
                    )


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise DataFileError(f"{path} must be a file; there is none. Check the path.")
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as err:
        raise DataFileError(f"{path} must be a Parquet file; Arrow says: {err}. Write it again.") from err


def _chosen(path: Path, file: pq.ParquetFile, wanted: list[str]) -> pa.Table:
    _check_names(path, file.schema_arrow.names, wanted)
    cells = file.read(columns=wanted)
    if cells.num_rows == 0:
        raise DataFileError(f"{path} must hold rows; got none. Write it again.")
    return cells


def _check_names(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataFileError(
            f"{path} must have the columns {', '.join(wanted)}; {', '.join(missing)} missing among {list(names)}. "
            "Rename the columns, or say which is which."
        )


def _cast(path: Path, name: str, column: pa.ChunkedArray, *, is_id: bool) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    fits = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    if not is_id:
        fits = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        fits = fits or pa.types.is_boolean(kind)
    if not fits:
        wanted = "text or whole numbers" if is_id else "numbers"
        raise DataFileError(
            f"{path}: column `{name}` must hold {wanted}; got {kind}. Convert it before writing the file."
        )
    if is_id:
        texts = pc.cast(pc.cast(column, kind), pa.string())
        encoded = texts.dictionary_encode()
        return pc.cast(encoded, ID_TYPE) if encoded.type != ID_TYPE else encoded
    return pc.cast(pc.cast(column, kind), pa.float64(), safe=False)
