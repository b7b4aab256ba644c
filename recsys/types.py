"""The plain data of retrieval: histories, ranked lists, and what every retriever does.

Axis letters: B users of a batch, I items, C the deepest level, k length of a list.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.errors import InteractionError

# One row a user, one column an item; a stored value is level + 1, so that level 0 (shown and ignored) is stored
# as 1 and an item never shown is absent. Shape (B, I), float32, sorted indices, no duplicates.
Histories: TypeAlias = csr_array

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]


class TopK(NamedTuple):
    """Ranked lists, best first, equal scores by ascending item.

    items: Rows of the items; -1 where fewer than k items could be offered. Shape (B, k), int64.
    scores: In the unit of the model that made them; -inf where padded. Shape (B, k), float32.
    """

    items: Ints
    scores: Floats


class Retriever(Protocol):
    """Anything that brings items to users known by their histories, and perhaps by name and by order of events."""

    def search(
        self,
        histories: Histories,
        k: int,
        *,
        level: int | None = None,
        allowed: Bools | None = None,
        exclude_seen: bool = True,
        users: Ints | None = None,
        times: Histories | None = None,
    ) -> TopK:
        """The k best items of each user.

        Args:
            histories: What each user was shown before, and how deep it went. Shape (B, I).
            k: Length of the lists.
            level: Rank by the chance of reaching this level, 1..C; None is the model's own aim. A model that has
                one ranking only ignores it.
            allowed: True for items that may be offered, to all users (I,) or by user (B, I). None allows all.
            exclude_seen: Leave out every item of the user's own history, ignored ones too.
            users: Each row's id in the table of users that the model was trained on, -1 for someone else. Shape (B,).
                Models that learned something of a user by name, or know users' features, look it up there; None
                makes everyone a stranger with a history.
            times: When each entry of `histories` happened. The same entries, shape (B, I). Models that follow the
                order of events need it; the others ignore it.
        """
        ...


def histories_from_log(log: pd.DataFrame, users: Sequence[int] | Ints, n_items: int) -> Histories:
    """The histories of `users`, in their order; a user without rows in the log gets an empty history.

    An item shown to one user several times keeps the deepest level that it reached.

    Args:
        log: A checked interaction log with columns user_id, item_id and level. Rows of other users are ignored.
        users: Distinct user ids, B of them.
        n_items: Number of items I of the catalogue.

    Returns:
        Stored value level + 1. Shape (B, I), float32.

    Raises:
        InteractionError: A user is named twice, or an item id lies outside the catalogue.
    """
    row, item = _places(log, users, n_items)
    level = log[LEVEL].to_numpy(dtype=np.int64)
    known = row >= 0
    row, item, level = row[known], item[known], level[known]
    order = np.lexsort((level, item, row))
    row, item, level = row[order], item[order], level[order]
    last = _is_last(row, item)
    return csr_array(
        ((level[last] + 1).astype(np.float32), (row[last], item[last])), shape=(len(users), n_items)
    )


def times_from_log(log: pd.DataFrame, users: Sequence[int] | Ints, n_items: int) -> Histories:
    """When each entry of `histories_from_log` of the same arguments last happened.

    Times are counted from just before the log's first row, so that none is zero and floats keep the seconds.

    Args:
        log: A checked interaction log with timestamps.
        users: Distinct user ids, B of them.
        n_items: Number of items I of the catalogue.

    Returns:
        Seconds, 1 or more. Shape (B, I), float64.

    Raises:
        InteractionError: A user is named twice, or an item id lies outside the catalogue.
    """
    row, item = _places(log, users, n_items)
    known = row >= 0
    moment = log[TIMESTAMP].to_numpy(dtype=np.float64)
    since = moment - (moment.min() if len(moment) else 0.0) + 1.0
    row, item, since = row[known], item[known], since[known]
    order = np.lexsort((since, item, row))
    row, item, since = row[order], item[order], since[order]
    last = _is_last(row, item)
    return csr_array((since[last], (row[last], item[last])), shape=(len(users), n_items))


def levels_in(histories: Histories, rows: Ints, items: Ints) -> Ints:
    """Level that each item reached in its row's history, -1 where it is not in it.

    Args:
        histories: Shape (B, I).
        rows: Row of `histories` that each question is about. Shape (N,).
        items: Item asked for. Shape (N,).

    Returns:
        Shape (N,), int64.
    """
    n_items = histories.shape[1]
    owner = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(histories.indptr))
    keys = owner * n_items + histories.indices
    order = np.argsort(keys, kind="stable")
    wanted = rows.astype(np.int64) * n_items + items
    if len(keys) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    found = order[place]
    level = histories.data[found].astype(np.int64) - 1
    return np.where(keys[found] == wanted, level, -1)


def relevant_items(histories: Histories, level: int) -> Histories:
    """The entries of `histories` that reached at least `level`, stored as 1. Shape (B, I), float32."""
    owner = np.repeat(np.arange(histories.shape[0], dtype=np.int64), np.diff(histories.indptr))
    keep = histories.data >= level + 1
    ones = np.ones(int(keep.sum()), dtype=np.float32)
    return csr_array((ones, (owner[keep], histories.indices[keep])), shape=histories.shape)


def _places(log: pd.DataFrame, users: Sequence[int] | Ints, n_items: int) -> tuple[Ints, Ints]:
    """Row among `users` (-1 for others) and item of every row of the log."""
    index = pd.Index(np.asarray(users, dtype=np.int64))
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()[:3].tolist()
        raise InteractionError(f"`users` must name each user once; got {repeated} again. Drop the repeats.")
    item = log[ITEM].to_numpy(dtype=np.int64)
    if len(item) and (item.min() < 0 or item.max() >= n_items):
        outside = item[(item < 0) | (item >= n_items)][:3].tolist()
        raise InteractionError(
            f"Item ids must lie in 0..{n_items - 1}; got {outside}. Run `check_log`, or pass the real `n_items`."
        )
    return index.get_indexer(pd.Index(log[USER].to_numpy(dtype=np.int64))).astype(np.int64), item


def _is_last(row: Ints, item: Ints) -> Bools:
    """Marks the last of each run of equal (row, item)."""
    last = np.ones(len(row), dtype=bool)
    last[:-1] = (row[1:] != row[:-1]) | (item[1:] != item[:-1])
    return last
