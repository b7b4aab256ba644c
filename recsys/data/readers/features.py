"""Feature columns of users and items, made from the cells of a file and brought into the order of numbered ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.dataset import Entities, FeatureKind
from recsys.data.readers.numbering import number_ids
from recsys.data.readers.raw import MISSING, NAMED_AT_MOST, RawTable, id_column, place_of, refuse_rows
from recsys.errors import DataFileError

# A number with more distinct values than this is dense, one with fewer is a category.
FEW_VALUES = 20


@dataclass(slots=True, eq=False)
class FeatureTable:
    """What a file knows of users or items, row by row of `ids`, before they are numbered.

    Attributes:
        ids: Distinct, dictionary-encoded.
        kinds: How to read each column, in order.
        columns: The cells by name, in the form that `FeatureKind` says.
        labels: What people call each; None where the file does not say.
        notes: What was left out, a sentence each.
    """

    ids: pa.ChunkedArray
    kinds: dict[str, FeatureKind] = field(default_factory=dict)
    columns: dict[str, pd.Series] = field(default_factory=dict)
    labels: pd.Series | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, kind: FeatureKind, cells: pd.Series) -> None:
        """Add a column; categories with more than 20 values for half the rows or more are noted and left out."""
        distinct = cells.nunique() if kind is FeatureKind.CATEGORICAL else 0
        if distinct > len(cells) / 2 and distinct > FEW_VALUES:
            self.notes.append(
                f"Column `{name}` is left out: its {distinct} values for {len(cells)} rows say who, not what."
            )
            return
        self.kinds[name], self.columns[name] = kind, cells


def feature_table(raw: RawTable, id_name: str) -> FeatureTable:
    """An empty table over the ids of a file.

    Raises:
        DataFileError: An id is missing or stands twice.
    """
    ids = id_column(raw, id_name)
    repeated = pd.Series(ids.to_pandas()).duplicated().to_numpy(dtype=np.bool_)
    if repeated.any():
        row = int(np.argmax(repeated))
        shown = ids[row].as_py()
        first = int(np.argmax(np.asarray(pc.equal(pc.cast(ids, pa.string()), shown))))
        raise DataFileError(
            f"{place_of(raw, row)}: `{id_name}` must name each row once; got {shown!r} again, after "
            f"{place_of(raw, first)}. Drop one of the rows."
        )
    return FeatureTable(ids)


def category_cells(column: pa.ChunkedArray | pa.Array) -> pd.Series:
    """Strings, None where "" or missing. Dtype object."""
    values = _texts(column)
    return _objects(pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values).to_pylist())


def set_cells(column: pa.ChunkedArray | pa.Array, separator: str, *, empty: str = "") -> pd.Series:
    """Tuples of strings, cut at `separator`, empty where a cell is missing, "" or `empty`. Dtype object."""
    texts = pd.Series(_texts(column).to_pylist(), dtype=object)
    known = {text: tuple(part for part in text.split(separator) if part) for text in texts.dropna().unique()}
    known[empty] = ()
    return _objects([known[text] if text is not None else () for text in texts])


def number_cells(column: pa.ChunkedArray | pa.Array) -> pd.Series:
    """Numbers, NaN where missing or not finite. Dtype float64."""
    values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return pd.Series(np.where(np.isfinite(values), values, np.nan))


def vector_cells(raw: RawTable, name: str, separator: str) -> pd.Series:
    """Vectors of float32, cut at `separator`, or from Arrow lists; None where missing. Dtype object.

    Raises:
        DataFileError: Vectors differ in length, or a part is not a number.
    """
    column = raw.cells[name].combine_chunks()
    if not _is_list(column.type):
        filled = pc.if_else(pc.equal(_texts(column), ""), pa.scalar(None, pa.string()), _texts(column))
        column = pc.split_pattern(filled, separator)
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = lengths >= 0
    usual = int(lengths[known][0]) if known.any() else 0
    remedy = "Give every row a vector of one length"
    refuse_rows(
        raw, known & (lengths != usual), f"`{name}` must have {usual} parts, as the first", lengths, remedy
    )
    parts = pc.list_flatten(column)
    numbers = pd.to_numeric(parts.to_pandas(), errors="coerce").to_numpy(dtype=np.float32, na_value=np.nan)
    table = np.full((len(lengths), usual), 0.0, dtype=np.float32)
    table[known] = numbers.reshape(-1, usual) if usual else table[known]
    bad = np.asarray(~np.isfinite(table).all(axis=1), dtype=np.bool_)
    refuse_rows(raw, bad, f"`{name}` must hold numbers", raw.cells[name].to_pylist(), "Repair the cell")
    return _objects([row if there else None for row, there in zip(table, known, strict=True)])


def infer_kind(column: pa.ChunkedArray, given: FeatureKind | None = None) -> FeatureKind:
    """How to read a column of unknown meaning: lists, `|` between words, many numbers, or else categories."""
    if given is not None:
        return given
    if pa.types.is_fixed_size_list(column.type):
        return FeatureKind.EMBEDDING
    if _is_list(column.type):
        is_vector = pa.types.is_floating(column.type.value_type)
        return FeatureKind.EMBEDDING if is_vector else FeatureKind.MULTI_HOT
    texts = _texts(column)
    if pc.any(pc.match_substring(texts, "|")).as_py():
        return FeatureKind.MULTI_HOT
    known = pc.unique(texts.filter(pc.invert(pc.is_in(texts, value_set=pa.array(MISSING)))))
    numbers = pd.to_numeric(pd.Series(known.to_pylist(), dtype=object), errors="coerce")
    is_dense = len(known) > FEW_VALUES and bool(numbers.notna().all())
    return FeatureKind.DENSE if is_dense else FeatureKind.CATEGORICAL


def add_column(table: FeatureTable, raw: RawTable, name: str, kind: FeatureKind) -> None:
    """Add a column of a file whose cells are cut by `|`, in the form of `kind`.

    Raises:
        DataFileError: A cell of a dense column is not a number, or a vector does not fit.
    """
    column = raw.cells[name]
    match kind:
        case FeatureKind.CATEGORICAL:
            cells = category_cells(column)
        case FeatureKind.MULTI_HOT if _is_list(column.type):
            cells = _objects([tuple(map(str, cell)) if cell else () for cell in column.to_pylist()])
        case FeatureKind.MULTI_HOT:
            cells = set_cells(column, "|")
        case FeatureKind.EMBEDDING:
            cells = vector_cells(raw, name, "|")
        case FeatureKind.DENSE:
            numbers = pd.to_numeric(_texts(column).to_pandas(), errors="coerce")
            missing = np.asarray(pc.is_in(_texts(column), value_set=pa.array([*MISSING, None], pa.string())))
            bad = numbers.isna().to_numpy(dtype=np.bool_) & ~missing.astype(np.bool_)
            refuse_rows(
                raw, bad, f"`{name}` must be a number", column, "Repair the cell, or call it categorical"
            )
            cells = pd.Series(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    table.add(name, kind, cells)


def number_entities(
    table: FeatureTable | None, log_ids: pa.ChunkedArray, what: str
) -> tuple[Entities, NDArray[np.int64], list[str]]:
    """Number the ids of a log and of its table together, and order the features by these numbers.

    Args:
        table: None where nothing is known.
        log_ids: One a row of the log, dictionary-encoded.
        what: "users" or "items", for the notes.

    Returns:
        The entities, each log row's number, and notes.
    """
    ids, numbers = number_ids([log_ids] if table is None else [log_ids, table.ids])
    names = pd.Index(ids.to_pylist(), dtype=object)
    if table is None:
        return Entities(names, pd.DataFrame(index=pd.RangeIndex(len(names))), {}), numbers[0], []
    notes = list(table.notes)
    place = np.full(len(ids), -1, dtype=np.int64)
    place[numbers[1]] = np.arange(len(numbers[1]))
    strangers = names[place < 0]
    if len(strangers) and table.kinds:
        notes.append(
            f"{len(strangers)} {what} of the log are not in their table, such as {strangers[:NAMED_AT_MOST].tolist()}; "
            "they are kept with missing features."
        )
    columns = {name: _place(cells, table.kinds[name], place) for name, cells in table.columns.items()}
    features = pd.DataFrame(columns, index=pd.RangeIndex(len(names)))
    labels = None if table.labels is None else _place(table.labels, FeatureKind.CATEGORICAL, place)
    return Entities(names, features, table.kinds, labels), numbers[0], notes


def table_from_frame(frame: pd.DataFrame, id_name: str, kinds: Mapping[str, FeatureKind]) -> FeatureTable:
    """A feature table of a frame with distinct ids, for readers that gather their features row by row."""
    ids = pa.chunked_array([pa.array(frame[id_name].tolist(), pa.string())]).dictionary_encode()
    table = FeatureTable(ids)
    for name, kind in kinds.items():
        table.add(name, kind, frame[name])
    return table


def _place(cells: pd.Series, kind: FeatureKind, place: NDArray[np.int64]) -> pd.Series:
    """`cells` in the order of `place`, whose -1 become missing."""
    if kind is FeatureKind.DENSE:
        padded = np.append(cells.to_numpy(dtype=np.float64), np.nan)
        return pd.Series(padded[place])
    padded_objects = np.empty(len(cells) + 1, dtype=object)
    padded_objects[:-1] = cells.to_numpy(dtype=object)
    padded_objects[-1] = () if kind is FeatureKind.MULTI_HOT else None
    return pd.Series(padded_objects[place], dtype=object)


def _objects(values: list[object]) -> pd.Series:
    """A series of any objects, sequences among them."""
    return pd.Series(values, dtype=object)


def _texts(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    return pc.cast(column, pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
