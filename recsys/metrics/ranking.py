"""Ranking metrics over the full catalogue, one value a user, with their definitions said once.

A user without a relevant item has no value: such users are left out and counted, never scored 0 or 1. Lists come
from `recsys.topk`, where equal scores rank by ascending item, so no metric depends on the order of a file.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.types import Bools, Histories, Ints, levels_in

Values = NDArray[np.float64]


class PerUser(NamedTuple):
    """A metric of each user that has one.

    values: Shape (V,), float64, in 0..1.
    users: Row of each value's user. Shape (V,), int64.
    skipped: Users left out because they have no relevant item.
    """

    values: Values
    users: Ints
    skipped: int


def recall_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Share of a user's relevant items among the first k: hits / |relevant|.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item. Shape (B, I).
        k: Cut-off.

    Returns:
        One value for each user with a relevant item.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.

    Example:
        >>> from scipy.sparse import csr_array
        >>> relevant = csr_array(np.array([[1, 0, 1, 0], [0, 0, 0, 0]], dtype=np.float32))
        >>> recall_at_k(np.array([[2, 1], [0, 1]]), relevant, 2)
        PerUser(values=array([0.5]), users=array([0]), skipped=1)
    """
    hits, counts = _hits(items, relevant, k)
    return _with_relevant(hits.sum(1) / np.maximum(counts, 1), counts)


def ndcg_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Discounted gain of the first k over that of the best possible list, with gain 1 for a relevant item.

    The hit in place r (from 1) counts 1 / log2(r + 1); the best list holds min(k, |relevant|) hits.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item. Shape (B, I).
        k: Cut-off.

    Returns:
        One value for each user with a relevant item.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.
    """
    hits, counts = _hits(items, relevant, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(
        [[1.0], discounts.cumsum()]
    )  # the first is for users without relevant items, dropped
    return _with_relevant(hits @ discounts / ideal[np.minimum(counts, k)], counts)


def _hits(items: Ints, relevant: Histories, k: int) -> tuple[Bools, Ints]:
    """Whether each of the first k places holds a relevant item, and how many relevant ones each user has."""
    if items.ndim != 2 or len(items) != relevant.shape[0] or items.shape[1] < k:
        raise ShapeError(
            f"`items` must have one row for each of the {relevant.shape[0]} users and at least {k} places; got shape "
            f"{items.shape}. Search with a larger `k`."
        )
    cut = items[:, :k]
    rows = np.repeat(np.arange(len(cut)), k)
    found = levels_in(relevant, rows, np.maximum(cut, 0).ravel()).reshape(cut.shape) >= 0
    return found & (cut >= 0), np.diff(relevant.indptr).astype(np.int64)


def _with_relevant(values: Values, counts: Ints) -> PerUser:
    users = np.flatnonzero(counts)
    return PerUser(values[users], users, len(counts) - len(users))
