"""How well scores tell relevant from irrelevant: AUC over all rows, within each user, and over the full catalogue.

AUC is the chance that a relevant row scores above an irrelevant one, ties counting one half, which is what average
ranks give exactly (Mann and Whitney 1947). Costs one sort.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.metrics.hits import PerUser, Values, keep_users
from recsys.types import Bools, Floats, Histories, Ints, relevant_items

ROWS_AT_ONCE = 512


class GroupedAuc(NamedTuple):
    """AUC within each user that has both classes.

    values: Shape (V,), float64.
    users: Id of each value's user, ascending. Shape (V,), int64.
    weights: What each user counts for in the mean: impressions, or relevant items. Shape (V,), int64.
    skipped: Users left out because they have one class only.
    """

    values: Values
    users: Ints
    weights: Ints
    skipped: int

    @property
    def mean(self) -> float:
        """GAUC: the weighted mean of the users' values; NaN where no user has both classes."""
        total = int(self.weights.sum())
        return float(self.values @ self.weights / total) if total else float("nan")


def auc(scores: NDArray[np.floating], is_positive: Bools) -> float:
    """Chance that a positive row scores above a negative one, ties counting one half.

    Args:
        scores: Finite, larger where more relevant. Shape (N,).
        is_positive: Shape (N,).

    Returns:
        In 0..1; NaN where one class is missing.

    Raises:
        ShapeError: The arrays differ in shape, or a score is not finite.

    Example:
        >>> auc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, True, False, True]))  # (1 + 1/2 + 1 + 1) / 4
        0.875
    """
    found = grouped_auc(scores, is_positive, np.zeros(len(scores), dtype=np.int64))
    return float(found.values[0]) if len(found.values) else float("nan")


def grouped_auc(scores: NDArray[np.floating], is_positive: Bools, users: Ints) -> GroupedAuc:
    """AUC among the rows of each user, weighted by the user's rows in the mean (GAUC).

    Args:
        scores: Finite. Shape (N,).
        is_positive: Shape (N,).
        users: Id of each row's user. Shape (N,).

    Returns:
        Users with both classes.

    Raises:
        ShapeError: The arrays differ in shape, or a score is not finite.

    Source: Zhou et al. (KDD 2018), "Deep Interest Network for Click-Through Rate Prediction".
    """
    numbers = np.asarray(scores, dtype=np.float64)
    _check_rows(numbers, is_positive, users)
    ids, owner = np.unique(users, return_inverse=True)
    rows = np.bincount(owner, minlength=len(ids))
    positives = np.bincount(owner, weights=is_positive, minlength=len(ids)).astype(np.int64)
    place = _average_place(numbers, owner) - (np.cumsum(rows) - rows)[owner]
    above = (
        np.bincount(owner, weights=place * is_positive, minlength=len(ids)) - positives * (positives + 1) / 2
    )
    pairs = positives * (rows - positives)
    found = keep_users(above / np.maximum(pairs, 1), pairs > 0)
    return GroupedAuc(found.values, ids[found.users].astype(np.int64), rows[found.users], found.skipped)


def full_list_auc(scores: Floats, held_out: Histories, level: int) -> GroupedAuc:
    """AUC of each user's held-out items of a level against every other item that may be offered.

    Items shown but left below the level count as irrelevant. A relevant item that may not be offered counts as
    ranked below everything, as it is a miss for recall too.

    Args:
        scores: -inf for items not to be offered, such as seen ones; no NaN. Shape (B, I), float32.
        held_out: What happened later. Shape (B, I).
        level: Level from which a held-out item is relevant, 1..C.

    Returns:
        Users with a relevant item and an irrelevant one to offer, by row, weighted by their relevant items.

    Raises:
        ShapeError: `scores` does not have one row a user and one column an item.

    Example:
        Item 2 was seen; the relevant item 1 beats item 3 and ties with item 0: (1 + 1/2) / 2.

        >>> from scipy.sparse import csr_array
        >>> scores = np.array([[0.7, 0.7, -np.inf, 0.2]], dtype=np.float32)
        >>> full_list_auc(scores, csr_array(np.array([[0, 3, 0, 1]])), 2).mean
        0.75
    """
    if scores.shape != held_out.shape:
        raise ShapeError(
            f"`scores` must have one row a user and one column an item, {held_out.shape}; got {scores.shape}. "
            "Score the whole catalogue for the users of `held_out`."
        )
    relevant = relevant_items(held_out, level)
    blocks = range(0, len(scores), ROWS_AT_ONCE)
    parts = [_block_auc(scores[b : b + ROWS_AT_ONCE], relevant[b : b + ROWS_AT_ONCE]) for b in blocks]
    values = np.concatenate([values for values, _ in parts]) if parts else np.empty(0)
    pairs = np.concatenate([pairs for _, pairs in parts]) if parts else np.empty(0, dtype=np.int64)
    found: PerUser = keep_users(values, pairs > 0)
    weights = np.diff(relevant.indptr).astype(np.int64)[found.users]
    return GroupedAuc(found.values, found.users, weights, found.skipped)


def _block_auc(scores: Floats, relevant: Histories) -> tuple[Values, Ints]:
    """AUC and number of pairs of each user; 0 and 0 where there is no pair."""
    rows = len(scores)
    owner = np.repeat(np.arange(rows), np.diff(relevant.indptr))
    # A row and a score make one integer that sorts as the two do, so one search serves all users.
    lines = np.arange(rows, dtype=np.int64) << 33
    keys = _sortable(scores) + lines[:, None]
    asked = keys[owner, relevant.indices]
    is_offered = ~np.isneginf(scores)
    is_offered[owner, relevant.indices] = False
    count = is_offered.sum(1)
    # What is no irrelevant candidate goes to the end of its row, above every score; a relevant item that may not be
    # offered has the score -inf and beats none.
    others = np.sort(np.where(is_offered, keys, lines[:, None] + 2**32), axis=1).ravel()
    below, up_to = np.searchsorted(others, asked), np.searchsorted(others, asked, side="right")
    beaten = (below + up_to) / 2 - owner * scores.shape[1]
    won = np.bincount(owner, weights=beaten, minlength=rows)
    pairs = count * np.diff(relevant.indptr)
    return won / np.maximum(pairs, 1), pairs


def _sortable(scores: Floats) -> Ints:
    """Integers in the order of the floats, in 0..2^32 - 1; 0.0 and -0.0 are one."""
    bits = (scores.astype(np.float32) + np.float32(0.0)).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64) + 2**31


def _average_place(scores: Values, owner: Ints) -> Values:
    """Place of each row, from 1, when sorted by owner, then score; ties share the mean of their places."""
    order = np.lexsort((scores, owner))
    owners, ordered = owner[order], scores[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (owners[1:] != owners[:-1]) | (ordered[1:] != ordered[:-1])
    starts = np.flatnonzero(is_new)
    lengths = np.diff(np.append(starts, len(order)))
    place = np.empty(len(order))
    place[order] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return place


def _check_rows(scores: Values, is_positive: Bools, users: Ints) -> None:
    if scores.ndim != 1 or scores.shape != is_positive.shape or scores.shape != users.shape:
        raise ShapeError(
            "`scores`, `is_positive` and `users` must have one value a row; got shapes "
            f"{scores.shape}, {is_positive.shape} and {users.shape}. Take all three from the same rows."
        )
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        raise ShapeError(f"`scores` must be finite; got {wrong} that are not. Drop those rows or score them.")
