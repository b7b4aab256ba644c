"""The last step that all readers share: checked columns of a log, numbered and joined with what is known."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.data.dataset import Dataset
from recsys.data.readers.features import FeatureTable, number_entities
from recsys.data.readers.levels import Levels
from recsys.errors import InteractionError


class LogColumns(NamedTuple):
    """The checked columns of one log file, or of several one below the other.

    users: Outside ids, dictionary-encoded. Length N.
    items: As `users`.
    seconds: Since 1970; None where the source has no times. Shape (N,), int64.
    others: Further columns of the log by name, N values each.
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    seconds: NDArray[np.int64] | None
    others: Mapping[str, NDArray[np.generic]]


def stack(parts: Sequence[LogColumns]) -> LogColumns:
    """Several logs one below the other; times and further columns are those that all have."""
    seconds = [part.seconds for part in parts if part.seconds is not None]
    shared = [name for name in parts[0].others if all(name in part.others for part in parts)]
    return LogColumns(
        pa.chunked_array([chunk for part in parts for chunk in part.users.chunks]),
        pa.chunked_array([chunk for part in parts for chunk in part.items.chunks]),
        np.concatenate(seconds) if len(seconds) == len(parts) else None,
        {name: np.concatenate([part.others[name] for part in parts]) for name in shared},
    )


def build_dataset(
    name: str,
    log: LogColumns,
    levels: Levels,
    *,
    users: FeatureTable | None = None,
    items: FeatureTable | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Number users and items and put the data set together.

    Args:
        name: What reports call it.
        log: N rows.
        levels: Of the same N rows; those not kept leave no user and no item behind.
        users: What is known of users.
        items: What is known of items, possibly of more than the log has.
        notes: What the reader already has to say.

    Raises:
        InteractionError: No row is kept.
    """
    if not levels.keep.any():
        raise InteractionError(
            f"The log of {name} must keep at least one row; got {len(levels.keep)} rows, all left out as "
            "contradictory. Choose another policy."
        )
    keep = levels.keep
    is_whole = bool(keep.all())
    user_ids, item_ids = (
        column if is_whole else column.filter(pa.array(keep)) for column in (log.users, log.items)
    )
    known_users, user_numbers, user_notes = number_entities(users, user_ids, "users")
    known_items, item_numbers, item_notes = number_entities(items, item_ids, "items")
    columns: dict[str, NDArray[np.generic]] = {
        USER: user_numbers,
        ITEM: item_numbers,
        LEVEL: levels.level[keep],
    }
    if log.seconds is not None:
        columns[TIMESTAMP] = log.seconds[keep]
    columns.update({other: values[keep] for other, values in log.others.items()})
    return Dataset(
        name,
        pd.DataFrame(columns),
        known_users,
        known_items,
        levels.names,
        (*notes, *levels.notes, *user_notes, *item_notes),
    )
