"""Parts of the users and of the catalogue to measure apart: head, torso and tail, cold and warm, how active."""

from collections.abc import Mapping

import numpy as np

from recsys.errors import ShapeError
from recsys.metrics.exposure import item_popularity
from recsys.metrics.hits import PerUser
from recsys.types import Bools, Histories, Ints

SLICES: dict[str, str] = {
    "head": "The most popular items, in order, up to the first that brings them to a third of all training rows.",
    "torso": "The next items, up to the first that brings them and the head to two thirds of all training rows.",
    "tail": "The other items with a training row.",
    "cold_items": "Items without a training row.",
    "warm_items": "Items with a training row.",
    "cold_users": "Users of whom nothing is known when the lists are made.",
    "warm_users": "Users of whom something is known.",
    "activity": "Tenths of the warm users by number of known items, 1 the least active; users with equal numbers share "
    "a tenth.",
}


def slice_items(training: Histories) -> dict[str, Bools]:
    """Which items belong to which slice of the catalogue; definitions in `SLICES`.

    Args:
        training: What the models learned from, a stored entry a training row. Shape (U, I).

    Returns:
        Masks "head", "torso", "tail", "cold_items" and "warm_items", of shape (I,) each. The first four share
        nothing and make up the catalogue. Equally popular items go by ascending item.

    Example:
        >>> from scipy.sparse import csr_array
        >>> masks = slice_items(csr_array(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]])))
        >>> {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
        {'head': [0], 'torso': [2], 'tail': [1], 'cold_items': [3], 'warm_items': [0, 1, 2]}
    """
    count = item_popularity(training)
    order = np.argsort(-count, kind="stable")
    # Integers keep the thirds exact: an item belongs to the head if those before it hold less than a third.
    before = np.empty_like(count)
    before[order] = 3 * (np.cumsum(count[order]) - count[order])
    total = int(count.sum())
    is_warm = count > 0
    return {
        "head": is_warm & (before < total),
        "torso": is_warm & (before >= total) & (before < 2 * total),
        "tail": is_warm & (before >= 2 * total),
        "cold_items": ~is_warm,
        "warm_items": is_warm,
    }


def slice_users(known: Histories) -> dict[str, Bools]:
    """Which users belong to which slice; definitions in `SLICES`.

    Args:
        known: What is known of the users when the lists are made. Shape (B, I).

    Returns:
        Masks "cold_users", "warm_users" and "activity_1" to "activity_10", of shape (B,) each. The tenths share
        nothing and make up the warm users; one may be empty where many users tie.

    Example:
        >>> from scipy.sparse import csr_array
        >>> masks = slice_users(csr_array(np.array([[0, 0], [1, 0], [1, 1]])))
        >>> {name: np.flatnonzero(mask).tolist() for name, mask in masks.items() if mask.any()}
        {'cold_users': [0], 'warm_users': [1, 2], 'activity_1': [1], 'activity_6': [2]}
    """
    count = np.diff(known.indptr).astype(np.int64)
    is_warm = count > 0
    warm = np.sort(count[is_warm])
    tenth = np.searchsorted(warm, count) * 10 // max(len(warm), 1)
    by_activity = {f"activity_{n + 1}": is_warm & (tenth == n) for n in range(10)}
    return {"cold_users": ~is_warm, "warm_users": is_warm, **by_activity}


def keep_items(relevant: Histories, mask: Bools) -> Histories:
    """The relevant items that belong to a slice, stored values kept: what to pass to a ranking metric instead of all.

    Lists stay as they are, so a metric says how well the slice's items are found among all others.

    Args:
        relevant: Shape (B, I).
        mask: Shape (I,).

    Raises:
        ShapeError: `mask` does not have one flag an item.
    """
    if mask.shape != relevant.shape[1:]:
        raise ShapeError(
            f"`mask` must have one flag for each of the {relevant.shape[1]} items; got shape {mask.shape}. "
            "Take it from `slice_items` of the same catalogue."
        )
    kept = relevant.copy()
    kept.data = np.where(mask[kept.indices], kept.data, 0).astype(kept.data.dtype)
    kept.eliminate_zeros()
    return kept


def slice_values(metric: PerUser, masks: Mapping[str, Bools]) -> dict[str, PerUser]:
    """A metric's values apart for each slice of users.

    Args:
        metric: Of B users.
        masks: By name, from `slice_users`. Shape (B,) each.

    Returns:
        By name; `skipped` counts the slice's own users without a value.

    Raises:
        ShapeError: A mask does not have one flag for each user that was measured or skipped.
    """
    rows = len(metric.users) + metric.skipped
    for name, mask in masks.items():
        if mask.shape != (rows,):
            raise ShapeError(
                f"`masks` must have one flag for each of the {rows} users; got shape {mask.shape} for {name!r}. "
                "Take them from `slice_users` of the same users."
            )
    return {name: _part(metric, mask) for name, mask in masks.items()}


def _part(metric: PerUser, mask: Bools) -> PerUser:
    inside = mask[metric.users]
    users: Ints = metric.users[inside]
    return PerUser(metric.values[inside], users, int(mask.sum()) - len(users))
