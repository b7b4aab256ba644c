"""Checking an interaction log before anything is learned from it."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.errors import InteractionError

# All but the last are required; a source without times has no timestamps.
COLUMNS = (USER, ITEM, LEVEL, TIMESTAMP)
NAMED_AT_MOST = 3


def check_log(
    log: pd.DataFrame, n_items: int, *, n_users: int | None = None, max_level: int = 4
) -> pd.DataFrame:
    """The same log with its four own columns as int64, or an error that names the offending rows.

    Args:
        log: One row a shown item: user_id and item_id (rows of their tables), level (0 shown and ignored, up to
            `max_level`), and timestamp (seconds) unless the source has no times; what needs times asks for them
            itself. Other columns, such as position, are kept as they are.
        n_items: Number of items I of the catalogue.
        n_users: Number of users of the population; None accepts any id from 0 up.
        max_level: The deepest level C.

    Returns:
        A copy with a fresh index, in the order given.

    Raises:
        InteractionError: A column is missing, the log is empty, a value is missing or not whole, an id or level is
            out of range, or a user was logged with one item twice (see `merge_repeats`).
    """
    missing = [name for name in COLUMNS if name not in log.columns]
    if missing and missing != [TIMESTAMP]:
        raise InteractionError(
            f"An interaction log must have the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing among "
            f"{[str(name) for name in log.columns]}. Rename the columns."
        )
    if log.empty:
        raise InteractionError(
            "An interaction log must hold at least one row; got none. Check how it was read."
        )
    checked = log.reset_index(drop=True)
    for name in COLUMNS:
        if name in missing:
            continue
        checked[name] = _whole_numbers(checked, name)
    _check_range(checked, ITEM, 0, n_items - 1)
    _check_range(checked, USER, 0, None if n_users is None else n_users - 1)
    _check_range(checked, LEVEL, 0, max_level)
    repeated = checked.duplicated([USER, ITEM]).to_numpy()
    if repeated.any():
        raise InteractionError(
            f"A user must be logged with an item once; got {_name_rows(checked, repeated)} again. "
            "Merge them with `merge_repeats`."
        )
    return checked


def merge_repeats(log: pd.DataFrame) -> pd.DataFrame:
    """One row for each user and item: the deepest level that it reached, at the moment when it first did.

    So a purchase stays where it happened, however often the item is looked at afterwards, and a part cut off by time
    holds nothing that was not yet true.

    Args:
        log: Columns user_id, item_id, level and, where the source has times, timestamp; other columns are taken from
            that row. Where there are no times, rows count as ordered.

    Returns:
        Sorted by timestamp, equal times in the order given; fresh index.
    """
    ordered = log.sort_values(TIMESTAMP, kind="stable") if TIMESTAMP in log.columns else log
    deepest = ordered.groupby([USER, ITEM], sort=False)[LEVEL].transform("max")
    merged = ordered[ordered[LEVEL] == deepest].drop_duplicates([USER, ITEM], keep="first")
    return merged.reset_index(drop=True)


def _whole_numbers(log: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """The column as int64; timestamps may carry fractions of a second, which are cut off."""
    values = pd.to_numeric(log[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if name != TIMESTAMP:
        bad |= np.floor(values) != values
    if bad.any():
        shown = log[name].to_numpy()[bad][:NAMED_AT_MOST].tolist()
        raise InteractionError(
            f"Column `{name}` must hold whole numbers only; got {shown} in {_name_rows(log, bad)}. "
            "Drop or repair these rows."
        )
    if pd.api.types.is_integer_dtype(log[name].dtype):
        return log[name].to_numpy(dtype=np.int64)
    return values.astype(np.int64)


def _check_range(log: pd.DataFrame, name: str, low: int, high: int | None) -> None:
    values = log[name].to_numpy(dtype=np.int64)
    bad = values < low
    if high is not None:
        bad |= values > high
    if bad.any():
        wanted = f"{low}..{high}" if high is not None else f"{low} or more"
        raise InteractionError(
            f"Column `{name}` must lie in {wanted}; got {values[bad][:NAMED_AT_MOST].tolist()} in "
            f"{_name_rows(log, bad)}. Drop these rows, or pass the limits that the log really has."
        )


def _name_rows(log: pd.DataFrame, bad: NDArray[np.bool_]) -> str:
    """Up to three of the rows, by place, user and item, and how many there are."""
    places = np.flatnonzero(bad)
    users, items = log[USER].to_numpy(), log[ITEM].to_numpy()
    named = [f"row {p} (user {users[p]}, item {items[p]})" for p in places[:NAMED_AT_MOST].tolist()]
    more = len(places) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
