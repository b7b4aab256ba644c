"""The rows of a part as arrays, which all detectors of leaks between rows read."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.types import Bools, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of a log, or of several after one another.

    Attributes:
        users: Shape (N,), int64.
        items: Shape (N,), int64.
        levels: 1 throughout for a log without levels. Shape (N,), int64.
        times: Seconds, shape (N,), float64; None where a row has none.
    """

    users: Ints
    items: Ints
    levels: Ints
    times: NDArray[np.float64] | None

    def __len__(self) -> int:
        """Number N of rows."""
        return len(self.users)

    def take(self, keep: Bools | Ints) -> "Rows":
        """Some of the rows."""
        times = None if self.times is None else self.times[keep]
        return Rows(self.users[keep], self.items[keep], self.levels[keep], times)

    def named(self, which: Ints) -> tuple[str, ...]:
        """Rows by user and item, for people."""
        return tuple(f"user {self.users[n]} with item {self.items[n]}" for n in which.tolist())


def rows_of(logs: Iterable[pd.DataFrame]) -> Rows:
    """The rows of all the logs after one another; the same object given twice counts once."""
    distinct = list({id(log): log for log in logs}.values())
    filled = [log for log in distinct if len(log)]
    if not filled:
        nothing = np.empty(0, dtype=np.int64)
        return Rows(nothing, nothing, nothing, None)
    users, items = (
        np.concatenate([log[name].to_numpy(dtype=np.int64) for log in filled]) for name in (USER, ITEM)
    )
    levels = np.concatenate([_levels(log) for log in filled])
    if not all(TIMESTAMP in log.columns for log in filled):
        return Rows(users, items, levels, None)
    times = np.concatenate([log[TIMESTAMP].to_numpy(dtype=np.float64) for log in filled])
    return Rows(users, items, levels, times if np.isfinite(times).all() else None)


def _levels(log: pd.DataFrame) -> Ints:
    return log[LEVEL].to_numpy(dtype=np.int64) if LEVEL in log.columns else np.ones(len(log), dtype=np.int64)
