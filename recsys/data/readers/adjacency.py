"""Lists of neighbours, as graph recommenders publish them: a line a user, first the user, then the items; no times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.columns import IS_TEST
from recsys.data.dataset import Dataset
from recsys.data.readers.assemble import LogColumns, build_dataset, stack
from recsys.data.readers.levels import all_met
from recsys.data.readers.numbering import encode
from recsys.errors import DataFileError

REMEDY = "Write a line as `user item item ...` with whole numbers"


def read_adjacency(train: Path, test: Path | None = None) -> Dataset:
    """Read one or two files of lines `user item item ...`.

    Args:
        train: The log.
        test: A second one; the rows of both get a column `is_test`.

    Returns:
        Level 1 in every row, no timestamps; named after the folder. A user without items gets no row.

    Raises:
        DataFileError: A file is missing or empty, a line holds something else than whole numbers, or a user has two.
    """
    parts = [_read_lines(path) for path in (train, test) if path is not None]
    log = stack([part for part, _ in parts])
    if test is not None:
        sizes = [len(part.users) for part, _ in parts]
        log = log._replace(others={IS_TEST: np.repeat([False, True], sizes)})
    notes = [note for _, each in parts for note in each]
    return build_dataset(train.resolve().parent.name, log, all_met(len(log.users)), notes=notes)


def _read_lines(path: Path) -> tuple[LogColumns, list[str]]:
    if not path.is_file():
        raise DataFileError(f"{path} must be a file; there is none. Check the path.")
    lines = [line.split() for line in path.read_bytes().splitlines()]
    numbers = np.array([number for number, line in enumerate(lines, start=1) if line], dtype=np.int64)
    filled = [line for line in lines if line]
    items = pa.array([item for line in filled for item in line[1:]], pa.binary())
    users = pa.array([line[0] for line in filled], pa.binary())
    if len(items) == 0:
        raise DataFileError(f"{path} must hold lines `user item item ...`; got no item. Fetch it again.")
    lengths = np.array([len(line) - 1 for line in filled], dtype=np.int64)
    owner = np.repeat(np.arange(len(filled)), lengths)
    _check_whole(path, users, numbers)
    _check_whole(path, items, numbers[owner])
    _check_distinct(path, users, numbers)
    notes = []
    if idle := int((lengths == 0).sum()):
        notes.append(f"{idle} users of {path.name} have no items and are left out.")
    who = pa.DictionaryArray.from_arrays(pa.array(owner.astype(np.int32)), pc.cast(users, pa.string()))
    return LogColumns(pa.chunked_array([who]), encode(pc.cast(items, pa.string())), None, {}), notes


def _check_whole(path: Path, values: pa.Array, lines: Sequence[int] | NDArray[np.int64]) -> None:
    bad = ~np.asarray(pc.match_substring_regex(values, r"^\d{1,18}$"), dtype=np.bool_)
    if bad.any():
        place = int(np.argmax(bad))
        shown = values[place].as_py().decode("utf-8", "backslashreplace")
        raise DataFileError(
            f"{path}, line {lines[place]} must hold whole numbers only; got {shown!r}. {REMEDY}."
        )


def _check_distinct(path: Path, users: pa.Array, lines: NDArray[np.int64]) -> None:
    places = users.dictionary_encode().indices.to_numpy()
    order = np.argsort(places, kind="stable")
    codes = places[order]
    again = np.flatnonzero(codes[1:] == codes[:-1])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise DataFileError(
            f"{path}, line {lines[second]} must start with a user of its own; got {users[second].as_py().decode()!r} "
            f"again, after line {lines[first]}. Join the lines."
        )
