"""Any log in one table, CSV, TSV or Parquet, with a map from our names of columns to its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from recsys.columns import IS_TEST
from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.readers.assemble import LogColumns, build_dataset, stack
from recsys.data.readers.features import (
    FeatureTable,
    add_column,
    category_cells,
    feature_table,
    infer_kind,
)
from recsys.data.readers.levels import (
    ContradictionPolicy,
    Levels,
    all_met,
    levels_from_events,
    levels_from_flags,
    levels_from_ratings,
)
from recsys.data.readers.lines import TextLayout
from recsys.data.readers.parquet import parquet_columns, read_parquet_raw
from recsys.data.readers.raw import RawTable, flag_column, id_column, number_column, refuse_rows
from recsys.data.readers.text import column_names, read_raw
from recsys.data.readers.times import time_column
from recsys.errors import DataFileError, OrdinalError

ROLES = ("user_id", "item_id", "level", "rating", "event", "timestamp")
VALUE_ROLES = ("level", "rating", "event")
SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".parquet": ""}
MOST_LEVELS = 20


class Values(NamedTuple):
    """What a log says of depth: the role of its column, or "flags", or ""; only the field of that role is filled."""

    role: str
    numbers: NDArray[np.float64]
    events: pa.ChunkedArray | None
    flags: pd.DataFrame


def read_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    levels: Sequence[str] | None = None,
    contradictions: ContradictionPolicy = ContradictionPolicy.DEEPEST,
    test: Path | None = None,
    users: Path | None = None,
    items: Path | None = None,
    kinds: Mapping[str, FeatureKind] | None = None,
) -> Dataset:
    """Read a log, and what is known of its users and items, from plain tables.

    Depth comes from one of four places: a column `level` (0..C), a column `rating` (cut at `levels`, and kept in the
    log), a column `event` (named by `levels` in order of depth), or one 0/1 column for each of `levels`. Without any,
    every row is level 1.

    Args:
        path: The log: .csv, .tsv or .parquet; text may be gzipped (.gz).
        columns: File's name of user_id, item_id, and where they exist level, rating, event and timestamp. None takes
            the columns that are called so.
        levels: Steps from shallow to deep, or cut-points of ratings; see above.
        contradictions: What becomes of a row that went deep without a shallower step, for 0/1 columns.
        test: A second log; the rows of both get a column `is_test`.
        users: A table of users, whose column of ids is called as in the log, or user_id.
        items: A table of items, likewise. A column of titles or names becomes their labels.
        kinds: How to read feature columns, by name; the others are inferred: lists and cells with `|` are multi-hot,
            lists of fractions embeddings, more than 20 different numbers dense, all else categorical.

    Raises:
        DataFileError: A file does not hold what it should, or a column is not known.
        OrdinalError: `levels` do not fit the log.
    """
    names = _names(path)
    roles = _find_roles(path, names, columns)
    flags = _find_flags(names, roles, levels)
    parts = [_read_log(each, roles, flags) for each in (path, test) if each is not None]
    log = stack([part for part, _, _ in parts])
    if test is not None:
        sizes = [len(part.users) for part, _, _ in parts]
        log = log._replace(others={**log.others, IS_TEST: np.repeat([False, True], sizes)})
    found = _find_levels([values for _, values, _ in parts], levels, contradictions, len(log.users))
    return build_dataset(
        path.resolve().name.partition(".")[0],
        log,
        found,
        users=_read_entities(users, roles["user_id"], "user_id", kinds or {}),
        items=_read_entities(items, roles["item_id"], "item_id", kinds or {}),
        notes=list(dict.fromkeys(note for _, _, notes in parts for note in notes)),
    )


def _layout(path: Path) -> TextLayout | None:
    """None for Parquet."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix not in SUFFIXES:
        raise DataFileError(
            f"{path} must end in one of {', '.join(SUFFIXES)}, text also in .gz; got {plain.suffix!r}. Rename the file."
        )
    return TextLayout(SUFFIXES[plain.suffix]) if SUFFIXES[plain.suffix] else None


def _names(path: Path) -> list[str]:
    layout = _layout(path)
    return parquet_columns(path) if layout is None else column_names(path, layout)


def _read(path: Path, ids: Sequence[str], numbers: Sequence[str], others: Sequence[str]) -> RawTable:
    layout = _layout(path)
    if layout is None:
        return read_parquet_raw(path, ids=ids, numbers=numbers, others=others)
    return read_raw(path, layout, ids=ids, numbers=numbers, texts=others)


def _find_roles(path: Path, names: Sequence[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """The file's name of each role that it has."""
    given = dict(columns) if columns is not None else {role: role for role in ROLES if role in names}
    strange = [role for role in given if role not in ROLES]
    if strange:
        raise DataFileError(
            f"`columns` must map names among {', '.join(ROLES)}; got {strange}. Drop or rename these."
        )
    values = [role for role in VALUE_ROLES if role in given]
    if columns is None and len(values) > 1:
        given = {role: name for role, name in given.items() if role not in values[1:]}
    elif len(values) > 1:
        raise DataFileError(f"`columns` must map one of level, rating and event; got {values}. Choose one.")
    absent = [role for role in ("user_id", "item_id") if role not in given]
    if absent:
        raise DataFileError(
            f"{path} must have columns for user_id and item_id; {' and '.join(absent)} not found among {list(names)}. "
            'Say which is which, such as columns={"user_id": "visitor"}.'
        )
    return given


def _find_flags(names: Sequence[str], roles: Mapping[str, str], levels: Sequence[str] | None) -> list[str]:
    """The 0/1 columns that `levels` names; none where a column of depth is mapped."""
    if any(role in roles for role in VALUE_ROLES) or levels is None:
        return []
    absent = [level for level in levels if level not in names]
    if absent:
        raise OrdinalError(
            f"`levels` must name 0/1 columns of a log without level, rating or event; {absent} not found among "
            f"{list(names)}. Name such columns, or map one of level, rating and event."
        )
    return list(levels)


def _read_log(
    path: Path, roles: Mapping[str, str], flags: Sequence[str]
) -> tuple[LogColumns, Values, list[str]]:
    user, item = roles["user_id"], roles["item_id"]
    role = next((role for role in VALUE_ROLES if role in roles), "flags" if flags else "")
    ids = [user, item, *([roles["event"]] if role == "event" else [])]
    numbers = [roles[role]] if role in {"level", "rating"} else list(flags)
    others = [roles["timestamp"]] if "timestamp" in roles else []
    raw = _read(path, ids, numbers, others)
    seconds, notes = None, []
    if others:
        seconds, note = time_column(raw, others[0])
        notes.append(note)
    values = Values(
        role,
        number_column(raw, numbers[0]) if role in {"level", "rating"} else np.empty(0),
        id_column(raw, roles["event"]) if role == "event" else None,
        pd.DataFrame({flag: flag_column(raw, flag) for flag in flags}),
    )
    if role == "level":
        bad = (values.numbers < 0) | (values.numbers > MOST_LEVELS) | (values.numbers % 1 != 0)
        must = f"`{numbers[0]}` must be a whole number in 0..{MOST_LEVELS}"
        refuse_rows(raw, bad, must, values.numbers, "Repair the cell, or map the column as rating")
    if unread := [name for name in _names(path) if name not in {*roles.values(), *flags}]:
        notes.append(f"Columns {unread} of {path.name} are not read.")
    kept: dict[str, NDArray[np.generic]] = {}
    if role == "rating":
        kept["rating"] = values.numbers.astype(np.float32)
    return LogColumns(id_column(raw, user), id_column(raw, item), seconds, kept), values, notes


def _find_levels(
    parts: Sequence[Values], levels: Sequence[str] | None, policy: ContradictionPolicy, rows: int
) -> Levels:
    match parts[0].role:
        case "rating":
            return levels_from_ratings(np.concatenate([part.numbers for part in parts]), levels)
        case "event":
            chunks = [chunk for part in parts if part.events is not None for chunk in part.events.chunks]
            return levels_from_events(pa.chunked_array(chunks), levels)
        case "flags":
            flags = pd.concat([part.flags for part in parts], ignore_index=True)
            return levels_from_flags(flags, list(levels or ()), policy)
        case "level":
            return _given_levels(np.concatenate([part.numbers for part in parts]), levels)
        case _:
            return all_met(rows)


def _given_levels(numbers: NDArray[np.float64], names: Sequence[str] | None) -> Levels:
    deepest = int(numbers.max())
    if names is not None and len(names) < deepest:
        raise OrdinalError(
            f"`levels` must name the levels 1..{deepest} of the log; got {list(names)}. Name {deepest} or more."
        )
    steps = tuple(names) if names is not None else tuple(f"level {step}" for step in range(1, deepest + 1))
    ground = "level 0" if names is None else "not met"
    return Levels(numbers.astype(np.int64), (ground, *steps), np.ones(len(numbers), dtype=np.bool_))


def _read_entities(
    path: Path | None, log_name: str, role: str, kinds: Mapping[str, FeatureKind]
) -> FeatureTable | None:
    if path is None:
        return None
    names = _names(path)
    id_name = next((name for name in (log_name, role) if name in names), None)
    if id_name is None:
        raise DataFileError(
            f"{path} must have a column of ids called {log_name} or {role}; got {names}. Rename the column."
        )
    rest = [name for name in names if name != id_name]
    raw = _read(path, (id_name,), (), rest)
    table = feature_table(raw, id_name)
    for name in rest:
        given = FeatureKind(kinds[name]) if name in kinds else None
        is_label = given is None and ("title" in name.lower() or "name" in name.lower())
        if is_label and table.labels is None:
            table.labels = category_cells(raw.cells[name])
            table.notes.append(f"Column `{name}` is read as labels, not as a feature.")
        else:
            add_column(table, raw, name, infer_kind(raw.cells[name], given))
    return table
