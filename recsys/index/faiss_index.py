"""FAISS behind the protocol of `ItemIndex`, with filters that never lose an item.

What may not be offered is taken out of a longer list. Where that list would be long, where few items are allowed, or
where too few are left of it, the answer comes from an exact scan instead. The bounds below are about where the two cost
the same on 200,000 vectors of 64 numbers.
"""

import copy
import math
from threading import Lock
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from recsys.errors import ShapeError
from recsys.index.exact import ExactIndex, scan_allowed
from recsys.index.filters import (
    check_filters,
    check_queries,
    count_allowed,
    count_seen,
    cut,
    drop_blocked,
    take_allowed,
    take_seen,
)
from recsys.index.settings import IndexKind, IndexSettings, build_faiss, search_parameters
from recsys.types import Bools, Floats, Histories, Ints, TopK

FAISS_ROWS_AT_ONCE = 1024
# Longer lists than this share of the items, and than this many, are slower to fetch than a scan.
FETCH_SHARE = 0.02
FETCH_ANYWAY = 1024
# A smaller allowed share than this is scanned: fetching 1 / share times as much is slower, and finds less.
SCAN_BELOW = 0.1
# Fetched beyond what the allowed share asks for, against luck; and for IVF+SQ8, whose order is only nearly right.
SPARE = 1.25
# Settings that only say how widely to search what is built.
SEARCH_ONLY = frozenset({"ef_search", "probes", "tuned_k"})
# FAISS's own limit on the GPU.
GPU_FETCH_AT_MOST = 2048


class FaissIndex:
    """A FAISS index over item vectors; exact for kind `flat`, as good as its settings otherwise.

    Scores are inner products of the full vectors for every kind. Equal scores come by ascending item, for `flat`
    across the end of the list too. Searches may run in several threads at once.

    Args:
        vectors: One row an item. Shape (I, D), float32. On a CUDA device kind `flat` goes there too, into FAISS where
            it was built for it, otherwise into an exact scan by torch; the other kinds stay on the CPU.
        settings: Kind and knobs; exact by default. `choose_index` finds them by measurement.
        prebuilt: FAISS index of the same vectors and settings, as read from a cache; None builds one.

    Raises:
        ShapeError: A vector holds NaN or infinity, or more lists are asked for than there are items.
    """

    def __init__(
        self, vectors: Tensor, settings: IndexSettings | None = None, *, prebuilt: faiss.Index | None = None
    ) -> None:
        """Build the index."""
        self.settings = IndexSettings() if settings is None else settings
        self._exact = ExactIndex(vectors)
        self.n_items, self.width = vectors.shape
        is_flat = self.settings.kind is IndexKind.FLAT
        on_cuda = vectors.device.type == "cuda"
        self.on_gpu = is_flat and on_cuda and hasattr(faiss, "StandardGpuResources")
        self._gpu_lock = Lock()
        # None leaves everything to the scan.
        self.native: Any = prebuilt
        if prebuilt is None and self.n_items and (self.on_gpu or not (is_flat and on_cuda)):
            self.native = build_faiss(_as_rows(vectors), self.settings)
        if self.on_gpu:
            self._resources = faiss.StandardGpuResources()
            self.native = faiss.index_cpu_to_gpu(self._resources, vectors.device.index or 0, self.native)

    @property
    def vectors(self) -> Tensor:
        """The items' vectors, as given. Shape (I, D)."""
        return self._exact.vectors

    def with_settings(self, settings: IndexSettings) -> "FaissIndex":
        """The same vectors, graph or lists, searched more or less widely; nothing is built or copied.

        Args:
            settings: May differ in `ef_search`, `probes` and `tuned_k` only.

        Raises:
            ShapeError: They differ in what would have to be built.
        """
        differing = [
            name
            for name in IndexSettings.model_fields
            if name not in SEARCH_ONLY and getattr(settings, name) != getattr(self.settings, name)
        ]
        if differing:
            raise ShapeError(
                f"`settings` must differ in {', '.join(sorted(SEARCH_ONLY))} only; got another {differing[0]}. "
                "Build a new index."
            )
        other = copy.copy(self)
        other.settings = settings
        return other

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query; see `ItemIndex.search`.

        Raises:
            ShapeError: `queries`, `seen` or `allowed` does not fit the items, or `k` is below 1.
        """
        check_queries(queries, self.width)
        rows = queries.shape[0]
        check_filters(rows, self.n_items, k, seen, allowed)
        if self.native is None:
            return self._exact.search(queries, k, seen=seen, allowed=allowed)
        fetch = self._list_lengths(rows, k, seen, allowed)
        if isinstance(fetch, int):
            found, is_final = self._filtered(queries, k, fetch, seen, allowed)
        else:
            found, is_final = self._by_length(queries, k, fetch, seen, allowed)
        if is_final is None or is_final.all():
            return found
        rest = np.flatnonzero(~is_final)
        found.items[rest], found.scores[rest] = self._scan(
            _take(queries, rest), k, take_seen(seen, rest), take_allowed(allowed, rest)
        )
        return found

    def _by_length(
        self, queries: Tensor, k: int, fetch: Ints, seen: Histories | None, allowed: Bools | None
    ) -> tuple[TopK, Bools]:
        """Lists of queries that fetch different numbers of candidates, and whether they need no scan."""
        shape = (len(queries), k)
        found = TopK(np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32))
        is_final = np.zeros(len(queries), dtype=bool)
        for length in np.unique(fetch[fetch > 0]).tolist():
            rows = np.flatnonzero(fetch == length)
            part, is_done = self._filtered(
                _take(queries, rows), k, length, take_seen(seen, rows), take_allowed(allowed, rows)
            )
            found.items[rows], found.scores[rows] = part
            is_final[rows] = True if is_done is None else is_done
        return found, is_final

    def _list_lengths(self, rows: int, k: int, seen: Histories | None, allowed: Bools | None) -> Ints | int:
        """How many items to fetch for each query before filtering, 0 where a scan is better; one number for all.

        Without filters nothing is computed by row: after a scan of all vectors the cache is cold and steps cost.
        """
        is_flat = self.settings.kind is IndexKind.FLAT
        # One item beyond the k shows whether the last place is tied.
        plain = math.ceil((k + 1) * (SPARE if self.settings.kind is IndexKind.IVF_SQ8 else 1.0))
        if seen is None and allowed is None and plain <= self._longest():
            return plain
        n_seen, n_allowed = count_seen(rows, seen), count_allowed(rows, self.n_items, allowed)
        if is_flat:
            fetch = k + 1 + n_seen + (self.n_items - n_allowed)
        else:
            share = np.maximum(n_allowed, 1) / self.n_items
            fetch = np.ceil(plain / share * (1.0 if allowed is None else SPARE)).astype(np.int64) + n_seen
        # Few different lengths, so that queries are still answered together.
        fetch = 2 ** np.ceil(np.log2(fetch)).astype(np.int64)
        lengths: Ints = np.where(
            (fetch <= self._longest()) & (n_allowed >= SCAN_BELOW * self.n_items), fetch, 0
        )
        return lengths

    def _longest(self) -> float:
        """The longest list worth fetching."""
        most = min(max(FETCH_SHARE * self.n_items, FETCH_ANYWAY), self.n_items / 2)
        return min(most, GPU_FETCH_AT_MOST) if self.on_gpu else most

    def _filtered(
        self, queries: Tensor, k: int, fetch: int, seen: Histories | None, allowed: Bools | None
    ) -> tuple[TopK, Bools | None]:
        """Lists cut from `fetch` candidates each, and whether they need no scan; None where none does."""
        raw = self._fetch(queries, fetch)
        is_plain = seen is None and allowed is None
        if is_plain and (raw.scores[:, 1:] < raw.scores[:, :-1]).all():
            return TopK(raw.items[:, :k], raw.scores[:, :k]), None
        found = cut(drop_blocked(raw, seen, allowed), k)
        last = found.scores[:, -1]
        if self.settings.kind is IndexKind.FLAT:
            return found, last > raw.scores[:, -1]
        return found, ~np.isneginf(last)

    def _fetch(self, queries: Tensor, fetch: int) -> TopK:
        """What FAISS finds, padded as everywhere here; a block of queries at a time."""
        rows = _as_rows(queries)
        if len(rows) <= FAISS_ROWS_AT_ONCE:
            return self._ask(rows, fetch)
        blocks = [rows[at : at + FAISS_ROWS_AT_ONCE] for at in range(0, len(rows), FAISS_ROWS_AT_ONCE)]
        parts = [self._ask(block, fetch) for block in blocks]
        return TopK(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))

    def _ask(self, rows: Floats, fetch: int) -> TopK:
        if self.on_gpu:
            # GPU indexes share scratch memory, so searches take turns.
            with self._gpu_lock:
                scores, items = self.native.search(rows, fetch)
        else:
            scores, items = self.native.search(rows, fetch, params=search_parameters(self.settings, fetch))
        if self.settings.kind is IndexKind.FLAT:
            return TopK(items, scores)
        # A graph may find too few, and a cache that was tampered with could name items that are not there.
        wrong = (items < 0) | (items >= self.n_items)
        if wrong.any():
            items, scores = np.where(wrong, -1, items), np.where(wrong, np.float32(-np.inf), scores)
        if self.settings.kind is IndexKind.IVF_SQ8:
            scores = self._rescore(rows, items)
        return TopK(items, scores)

    def _rescore(self, rows: Floats, items: Ints) -> Floats:
        """Inner products with the full vectors; -inf for padding. Shape (B, N)."""
        vectors = self.vectors.cpu()[torch.from_numpy(np.maximum(items, 0))]
        scores = torch.einsum("bd,bnd->bn", torch.from_numpy(rows), vectors).numpy()
        full: Floats = np.where(items < 0, np.float32(-np.inf), scores)
        return full

    def _scan(self, queries: Tensor, k: int, seen: Histories | None, allowed: Bools | None) -> TopK:
        """The exact answer, through allowed items alone where they are few."""
        n_allowed = count_allowed(len(queries), self.n_items, allowed)
        if allowed is None or n_allowed.mean() >= SCAN_BELOW * self.n_items:
            return self._exact.search(queries, k, seen=seen, allowed=allowed)
        return scan_allowed(self.vectors, queries.detach(), k, seen=seen, allowed=allowed)


def _take(queries: Tensor, rows: Ints) -> Tensor:
    return queries if len(rows) == len(queries) else queries[torch.from_numpy(rows).to(queries.device)]


def _as_rows(vectors: Tensor) -> Floats:
    rows: Floats = np.ascontiguousarray(vectors.numpy(force=True), dtype=np.float32)
    return rows
