"""What may not be found: checking the masks, counting what they take away, and taking it away."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.errors import ShapeError
from recsys.topk import check_flags
from recsys.types import Bools, Histories, Ints, TopK, levels_in


def check_queries(queries: Tensor, width: int) -> None:
    """Check queries.

    Raises:
        ShapeError: `queries` has another width than the items' vectors, or holds NaN or infinity.
    """
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ShapeError(
            f"`queries` must have shape (B, {width}) as the item vectors do; got {tuple(queries.shape)}. "
            "Take both from the same model."
        )
    check_finite("queries", queries)


def check_finite(name: str, vectors: Tensor) -> None:
    """Refuse vectors that have no place in any order.

    Args:
        name: What the caller calls them.
        vectors: Shape (N, D).

    Raises:
        ShapeError: A number is NaN or infinite.
    """
    # A sum is finite only where all of its terms are, unless it overflows; so the careful look is seldom taken.
    if not bool(torch.isfinite(vectors.sum())) and not bool(torch.isfinite(vectors).all()):
        rows = torch.nonzero(~torch.isfinite(vectors).all(dim=1))[:3, 0].tolist()
        raise ShapeError(
            f"`{name}` must be finite; got NaN or infinity in rows {rows}. Train the model again."
        )


def check_filters(rows: int, n_items: int, k: int, seen: Histories | None, allowed: Bools | None) -> None:
    """Check what a search is asked for.

    Raises:
        ShapeError: `seen` or `allowed` does not fit the queries and the items, `allowed` holds no flags, or `k` is
            below 1.
    """
    if k < 1:
        raise ShapeError(f"`k` must be at least 1; got {k}. Ask for one item or more.")
    if seen is not None and seen.shape != (rows, n_items):
        raise ShapeError(
            f"`seen` must have shape ({rows}, {n_items}), a row a query and a column an item; got {seen.shape}. "
            "Build it with `histories_from_log` and the same `n_items`."
        )
    if allowed is not None and allowed.shape not in {(n_items,), (rows, n_items)}:
        raise ShapeError(
            f"`allowed` must have shape ({n_items},) or ({rows}, {n_items}); got {allowed.shape}. "
            "Give one flag an item, for all queries or for each."
        )
    if allowed is not None:
        check_flags(allowed)


def count_seen(rows: int, seen: Histories | None) -> Ints:
    """How many items each query has seen. Shape (rows,)."""
    if seen is None:
        return np.zeros(rows, dtype=np.int64)
    counts: Ints = np.diff(seen.indptr).astype(np.int64)
    return counts


def count_allowed(rows: int, n_items: int, allowed: Bools | None) -> Ints:
    """How many items each query may be offered, seen ones among them. Shape (rows,)."""
    if allowed is None:
        return np.full(rows, n_items, dtype=np.int64)
    if allowed.ndim == 1:
        return np.full(rows, np.count_nonzero(allowed), dtype=np.int64)
    counts: Ints = np.count_nonzero(allowed, axis=1).astype(np.int64)
    return counts


def take_seen(seen: Histories | None, rows: Ints) -> Histories | None:
    """The queries `rows` of `seen`."""
    return None if seen is None else seen[rows]


def take_allowed(allowed: Bools | None, rows: Ints) -> Bools | None:
    """The queries `rows` of `allowed`, which may be one mask for all of them."""
    return allowed[rows] if allowed is not None and allowed.ndim == 2 else allowed


def select_columns(seen: Histories, columns: Ints) -> Histories:
    """The named columns, in the given order, without work on the others.

    Args:
        seen: Shape (B, W), W as large as 64-bit numbers go.
        columns: Ascending. Shape (I,).

    Returns:
        Shape (B, I), float32.
    """
    if len(columns) == 0 or seen.nnz == 0:
        return csr_array((seen.shape[0], len(columns)), dtype=np.float32)
    place = np.minimum(np.searchsorted(columns, seen.indices), len(columns) - 1)
    kept = columns[place] == seen.indices
    before = np.concatenate([[0], np.cumsum(kept)])
    data = seen.data[kept].astype(np.float32)
    return csr_array((data, place[kept], before[seen.indptr]), shape=(seen.shape[0], len(columns)))


def drop_blocked(found: TopK, seen: Histories | None, allowed: Bools | None) -> TopK:
    """Blank out what is seen or not allowed, where it stands.

    Args:
        found: Items -1 are padding. Shape (B, N).
        seen: Shape (B, I).
        allowed: Shape (I,) or (B, I).

    Returns:
        Blanks are item -1 and score -inf. Shape (B, N).
    """
    if seen is None and allowed is None:
        return found
    blocked = found.items < 0
    rows, places = np.nonzero(~blocked)
    items = found.items[rows, places]
    wrong = np.zeros(len(rows), dtype=bool)
    if seen is not None:
        wrong |= levels_in(seen, rows, items) >= 0
    if allowed is not None:
        wrong |= ~(allowed[items] if allowed.ndim == 1 else allowed[rows, items])
    blocked[rows[wrong], places[wrong]] = True
    return TopK(
        np.where(blocked, -1, found.items), np.where(blocked, -np.inf, found.scores).astype(np.float32)
    )


def cut(found: TopK, k: int) -> TopK:
    """The first k places once blanks have moved to the end and equal scores stand by ascending item.

    Only rows that are not in order yet are sorted.

    Args:
        found: Shape (B, N), N at least k.
        k: Length of the lists.

    Returns:
        Shape (B, k).
    """
    items, scores = found
    unsorted = ~(scores[:, 1:] < scores[:, :-1]).all(axis=1)
    if not unsorted.any():
        return TopK(np.ascontiguousarray(items[:, :k]), np.ascontiguousarray(scores[:, :k]))
    rows = np.flatnonzero(unsorted)
    order = np.lexsort((items[rows], -scores[rows]), axis=1)[:, :k]
    best, values = items[:, :k].copy(), scores[:, :k].copy()
    best[rows] = items[rows[:, None], order]
    values[rows] = scores[rows[:, None], order]
    return TopK(best, values)
