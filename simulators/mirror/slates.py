"""Which rows of a log of exposures were shown together: one definition for everything that reads slates."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys import columns

LONGEST_GAP_S = 600
"""Seconds between two rows of a user after which a new slate begins."""


def number_slates(log: pd.DataFrame, *, longest_gap_s: int = LONGEST_GAP_S) -> NDArray[np.int64]:
    """Number of each row's slate, by user, then time; rows may stand in any order, and the numbers stand in theirs.

    A slate ends where the user changes, the position stops rising or, in a log with times, a gap is longer than
    `longest_gap_s`. Rows of one moment are read by position. Without times a user's rows must stand in the order in
    which they were shown.

    Args:
        log: Columns user_id, position and, where known, timestamp.
        longest_gap_s: Seconds between two rows after which a new slate begins.

    Returns:
        Shape (N,), 0..S-1 for S slates.
    """
    has_times = columns.TIMESTAMP in log.columns
    keys = [columns.USER, columns.TIMESTAMP, columns.POSITION] if has_times else [columns.USER]
    users, places = (log[name].to_numpy(np.int64) for name in (columns.USER, columns.POSITION))
    # The last key of a lexical sort counts first; equal rows keep their order.
    order = np.lexsort([log[name].to_numpy(np.int64) for name in reversed(keys)])
    users, places = users[order], places[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (users[1:] != users[:-1]) | (places[1:] <= places[:-1])
    if has_times:
        starts[1:] |= np.diff(log[columns.TIMESTAMP].to_numpy(np.int64)[order]) > longest_gap_s
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(starts) - 1
    return numbers


def known_slates(log: pd.DataFrame) -> NDArray[np.int64] | None:
    """As `number_slates`; None where a log has no positions, or none but the first. Shape (N,)."""
    if columns.POSITION not in log.columns or not log[columns.POSITION].to_numpy().any():
        return None
    return number_slates(log)
