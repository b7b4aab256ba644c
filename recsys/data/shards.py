"""Logs larger than memory: cut once into files that each hold whole users, so that one file at a time is enough."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.errors import InteractionError
from recsys.types import Ints

_COLUMNS = (USER, ITEM, LEVEL, TIMESTAMP)
# A multiplier that spreads consecutive ids over all shards alike (2^64 over the golden ratio).
_SPREAD = np.uint64(11400714819323198485)


@dataclass(frozen=True, slots=True)
class UserShards:
    """A log in several files, every user's rows in one of them.

    Attributes:
        paths: Parquet files with columns user_id, item_id, level and timestamp.
    """

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def read(self, place: int) -> pd.DataFrame:
        """The rows of one file, in the order in which they came."""
        frame: pd.DataFrame = pq.read_table(self.paths[place]).to_pandas()
        return frame


def write_shards(frames: Iterator[pd.DataFrame], folder: Path, n_shards: int) -> UserShards:
    """Deal the rows of a log out to files by user; memory holds one frame at a time.

    Args:
        frames: Pieces of the log with columns user_id, item_id, level and timestamp, integers.
        folder: Where to write; created if missing.
        n_shards: Number of files. The largest must fit into memory.

    Returns:
        The files, complete: each is written beside its place and moved there at the end.

    Raises:
        InteractionError: `n_shards` is below 1, a column is missing, or there is no row at all.
    """
    if n_shards < 1:
        raise InteractionError(f"`n_shards` must be at least 1; got {n_shards}. Ask for one file or more.")
    folder.mkdir(parents=True, exist_ok=True)
    places = tuple(folder / f"shard-{number:05d}.parquet" for number in range(n_shards))
    partial = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in places]
    schema = pa.schema([(name, pa.int64()) for name in _COLUMNS])
    writers = [pq.ParquetWriter(path, schema) for path in partial]
    rows = 0
    try:
        for frame in frames:
            rows += len(frame)
            _deal(frame, writers, schema)
        if rows == 0:
            raise InteractionError("A log must hold at least one row; got none. Check how it was read.")
    except BaseException:
        _close(writers)
        for path in partial:
            path.unlink()
        raise
    _close(writers)
    for temporary, path in zip(partial, places, strict=True):
        os.replace(temporary, path)
    return UserShards(places)


def _close(writers: list[Any]) -> None:
    for writer in writers:
        writer.close()


def _deal(frame: pd.DataFrame, writers: list[Any], schema: pa.Schema) -> None:
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise InteractionError(
            f"Every piece of a log must have the columns {', '.join(_COLUMNS)}; {', '.join(missing)} missing. "
            "Rename the columns."
        )
    columns = {name: _whole_numbers(frame, name) for name in _COLUMNS}
    mixed = columns[USER].astype(np.uint64) * _SPREAD
    shard = (mixed >> np.uint64(32)) % np.uint64(len(writers))
    order = np.argsort(shard, kind="stable")
    ends = np.cumsum(np.bincount(shard.astype(np.int64), minlength=len(writers)))
    columns = {name: values[order] for name, values in columns.items()}
    for writer, start, end in zip(writers, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        if end > start:
            writer.write_table(
                pa.table({name: values[start:end] for name, values in columns.items()}, schema=schema)
            )


def _whole_numbers(frame: pd.DataFrame, name: str) -> Ints:
    values = frame[name].to_numpy()
    if not np.issubdtype(values.dtype, np.integer):
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = ~np.isfinite(numbers) | (np.floor(numbers) != numbers)
        if bad.any():
            raise InteractionError(
                f"Column `{name}` must hold whole numbers only; got {values[bad][:3].tolist()}. "
                "Drop or repair these rows."
            )
        values = numbers
    return values.astype(np.int64)
