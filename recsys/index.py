"""Maximum-inner-product search over items: an exact scan and the same answers from FAISS.

An index is a cache of item vectors: it is never saved, only rebuilt from the model's own arrays.
"""

from typing import Protocol

import faiss
import numpy as np
import torch
from torch import Tensor

from recsys.errors import ShapeError
from recsys.topk import rank_in_blocks
from recsys.types import Bools, Floats, Histories, Ints, TopK, levels_in

# Above this share of the catalogue, scanning is faster than fetching more and filtering afterwards.
FETCH_AT_MOST = 0.5
ROWS_AT_ONCE = 1024


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
            Inner products as scores. Shape (B, k).
        """
        ...


class ExactIndex:
    """Scans every item, by one matrix product for each block of queries.

    Args:
        vectors: One row an item. Shape (I, D), float32, on the device that shall search.
    """

    def __init__(self, vectors: Tensor) -> None:
        """Keep the vectors, detached."""
        self.vectors = vectors.detach()

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query, equal ones by ascending item; see `ItemIndex.search`.

        Raises:
            ShapeError: `queries` has another width than the items' vectors.
        """
        _check_width(queries, self.vectors.shape[1])
        at_home = queries.detach().to(self.vectors.device)

        def score(block: slice) -> Tensor:
            return at_home[block] @ self.vectors.T

        return rank_in_blocks(score, len(queries), k, seen=seen, allowed=allowed)


class FaissIndex:
    """FAISS flat inner-product search, with filters that never lose an item.

    What may not be offered is filtered out of a longer list. Rows for which that list would be most of the
    catalogue, or turns out too short to decide, are scanned exactly instead, so the answer is always the exact one.

    Args:
        vectors: One row an item. Shape (I, D), float32. On a CUDA device the index goes there too, where this FAISS
            can; otherwise it stays on the CPU.
    """

    def __init__(self, vectors: Tensor) -> None:
        """Build the index."""
        self._exact = ExactIndex(vectors)
        self.n_items, self.width = vectors.shape
        index: faiss.Index = faiss.IndexFlatIP(self.width)
        self.on_gpu = vectors.device.type == "cuda" and hasattr(faiss, "StandardGpuResources")
        if self.on_gpu:
            self._resources = faiss.StandardGpuResources()
            index = faiss.index_cpu_to_gpu(self._resources, vectors.device.index or 0, index)
        index.add(_as_rows(vectors))
        self._index = index

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query, equal ones by ascending item; see `ItemIndex.search`.

        Raises:
            ShapeError: `queries` has another width than the items' vectors.
        """
        _check_width(queries, self.width)
        items = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        # Fetching k + 1 beyond everything blocked leaves one item after the last, which shows whether they tie.
        fetch = self._blocked(len(queries), seen, allowed) + k + 1
        is_decided = fetch <= FETCH_AT_MOST * self.n_items
        easy = np.flatnonzero(is_decided)
        if len(easy):
            found = self._fetch(_take(queries, easy), int(fetch[easy].max()))
            part = _cut(_drop(found, _rows_of(seen, easy), _flags_of(allowed, easy)), k)
            items[easy], scores[easy] = part.items, part.scores
            is_decided[easy] = part.scores[:, -1] > found.scores[:, -1]
        hard = np.flatnonzero(~is_decided)
        if len(hard):
            part = self._exact.search(
                _take(queries, hard), k, seen=_rows_of(seen, hard), allowed=_flags_of(allowed, hard)
            )
            items[hard], scores[hard] = part.items, part.scores
        return TopK(items, scores)

    def _blocked(self, rows: int, seen: Histories | None, allowed: Bools | None) -> Ints:
        """At most how many items each row may not be offered. Shape (rows,)."""
        blocked = np.zeros(rows, dtype=np.int64)
        if allowed is not None:
            blocked += self.n_items - allowed.sum(-1)
        if seen is not None:
            blocked += np.diff(seen.indptr)
        return blocked

    def _fetch(self, queries: Tensor, k: int) -> TopK:
        """The raw answer of FAISS, a block of queries at a time."""
        rows = _as_rows(queries)
        blocks = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
        parts = [self._index.search(block, k) for block in blocks]
        return TopK(np.concatenate([p[1] for p in parts]), np.concatenate([p[0] for p in parts]))


def _take(queries: Tensor, rows: Ints) -> Tensor:
    return queries[torch.from_numpy(rows).to(queries.device)]


def _rows_of(seen: Histories | None, rows: Ints) -> Histories | None:
    return None if seen is None else seen[rows]


def _flags_of(allowed: Bools | None, rows: Ints) -> Bools | None:
    return allowed[rows] if allowed is not None and allowed.ndim == 2 else allowed


def _drop(found: TopK, seen: Histories | None, allowed: Bools | None) -> TopK:
    """Blank out what may not be offered."""
    rows = np.broadcast_to(np.arange(len(found.items))[:, None], found.items.shape)
    blocked = np.zeros(found.items.shape, dtype=bool)
    if seen is not None:
        blocked |= (levels_in(seen, rows.ravel(), found.items.ravel()) >= 0).reshape(blocked.shape)
    if allowed is not None:
        blocked |= ~np.broadcast_to(allowed, (len(rows), allowed.shape[-1]))[rows, found.items]
    return TopK(
        np.where(blocked, -1, found.items), np.where(blocked, -np.inf, found.scores).astype(np.float32)
    )


def _cut(found: TopK, k: int) -> TopK:
    """The first k of what is left, equal scores by ascending item."""
    order = np.lexsort((found.items, -found.scores), axis=1)[:, :k]
    return TopK(np.take_along_axis(found.items, order, 1), np.take_along_axis(found.scores, order, 1))


def _as_rows(vectors: Tensor) -> Floats:
    rows: Floats = np.ascontiguousarray(vectors.detach().cpu().numpy(), dtype=np.float32)
    return rows


def _check_width(queries: Tensor, width: int) -> None:
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ShapeError(
            f"`queries` must have shape (B, {width}) as the item vectors do; got {tuple(queries.shape)}. "
            "Take both from the same model."
        )
