"""What every index promises, and the scan that keeps the promise to the letter: the twin that others are held to."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.index.filters import (
    check_filters,
    check_finite,
    check_queries,
    select_columns,
    take_allowed,
    take_seen,
)
from recsys.topk import mask_scores, top_k
from recsys.types import Bools, Histories, Ints, TopK, levels_in

# Scores held at once, 128 MiB of float32, however large the catalogue.
SCORES_AT_ONCE = 2**25
ROWS_AT_ONCE = 512


class ItemIndex(Protocol):
    """Finds the items whose vectors have the largest inner products with a query."""

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query.

        Args:
            queries: Shape (B, D), float32.
            k: Length of the lists.
            seen: Items to leave out, by query. Shape (B, I).
            allowed: Items that may be found. Shape (I,) or (B, I).

        Returns:
            Inner products as scores, -1 and -inf where fewer than k items could be found. Shape (B, k).
        """
        ...


class ExactIndex:
    """Scans every item, by one matrix product for each block of queries.

    Args:
        vectors: One row an item. Shape (I, D), float32, on the device that shall search.

    Raises:
        ShapeError: A vector holds NaN or infinity.
    """

    def __init__(self, vectors: Tensor) -> None:
        """Keep the vectors, detached."""
        check_finite("vectors", vectors)
        self.vectors = vectors.detach()

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query, equal ones by ascending item; see `ItemIndex.search`.

        Raises:
            ShapeError: `queries`, `seen` or `allowed` does not fit the items, or `k` is below 1.
        """
        n_items, width = self.vectors.shape
        check_queries(queries, width)
        check_filters(len(queries), n_items, k, seen, allowed)
        at_home = queries.detach().to(self.vectors.device, self.vectors.dtype)
        step = _rows_at_once(n_items)
        parts = []
        for start in range(0, len(queries), step):
            rows = np.arange(start, min(start + step, len(queries)))
            scores = at_home[start : start + step] @ self.vectors.T
            scores = mask_scores(scores, take_seen(seen, rows), take_allowed(allowed, rows))
            parts.append(top_k(scores, k))
        return _join(parts, k)


def scan_allowed(vectors: Tensor, queries: Tensor, k: int, *, seen: Histories | None, allowed: Bools) -> TopK:
    """The exact answer by looking at allowed items alone; cheap where they are few.

    Args:
        vectors: Shape (I, D), float32.
        queries: Shape (B, D), float32.
        k: Length of the lists.
        seen: Items to leave out, by query. Shape (B, I).
        allowed: Shape (I,) or (B, I).

    Returns:
        As `ExactIndex.search` with the same arguments. Shape (B, k).
    """
    if allowed.ndim == 2:
        return _scan_by_row(vectors, queries.to(vectors.device), k, seen, allowed)
    rows = np.flatnonzero(allowed)
    few = ExactIndex(vectors[torch.from_numpy(rows).to(vectors.device)])
    found = few.search(queries, k, seen=None if seen is None else select_columns(seen, rows))
    return TopK(np.where(found.items >= 0, np.append(rows, -1)[found.items], -1), found.scores)


def _scan_by_row(vectors: Tensor, queries: Tensor, k: int, seen: Histories | None, allowed: Bools) -> TopK:
    """`scan_allowed` where every query has items of its own, in blocks of bounded memory."""
    most = int(allowed.sum(1).max(initial=0))
    step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // max(1, most * vectors.shape[1])))
    parts = []
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        owner, item = np.nonzero(allowed[start : start + step])
        if seen is not None:
            is_new = levels_in(seen[rows], owner, item) < 0
            owner, item = owner[is_new], item[is_new]
        mine = queries[start : start + step]
        left = mine[torch.from_numpy(owner).to(vectors.device)]
        scores = (left * vectors[torch.from_numpy(item).to(vectors.device)]).sum(1)
        parts.append(_rank_pairs(_Pairs(owner, item, scores.cpu().numpy()), len(rows), k))
    return _join(parts, k)


class _Pairs(NamedTuple):
    """Queries (N,), items (N,) and their scores (N,), float32."""

    owner: Ints
    item: Ints
    score: NDArray[np.float32]


def _rank_pairs(pairs: _Pairs, rows: int, k: int) -> TopK:
    """The best k pairs of each query, padded."""
    order = np.lexsort((pairs.item, -pairs.score, pairs.owner))
    owner = pairs.owner[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < k
    items = np.full((rows, k), -1, dtype=np.int64)
    scores = np.full((rows, k), -np.inf, dtype=np.float32)
    items[owner[kept], place[kept]] = pairs.item[order][kept]
    scores[owner[kept], place[kept]] = pairs.score[order][kept]
    return TopK(items, scores)


def _rows_at_once(n_items: int) -> int:
    return max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // max(1, n_items)))


def _join(parts: list[TopK], k: int) -> TopK:
    if not parts:
        return TopK(np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32))
    return TopK(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
