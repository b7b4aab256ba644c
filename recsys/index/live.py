"""An index that changes while it is searched: additions, updates and removals without a moment in between.

Every state is an immutable `Snapshot`: an index over most items, marks on its items that are gone, and the latest
items beside it, scanned exactly. A writer makes the next snapshot and puts it in place by one assignment, so a
search sees the state before or the state after. Graphs cannot forget nodes and FAISS cannot add while it searches;
marks and the scanned rest stand in for both until they grow past a share, when the index is built anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from recsys.errors import InteractionError, ShapeError
from recsys.index.exact import ExactIndex, ItemIndex
from recsys.index.faiss_index import FaissIndex
from recsys.index.filters import check_finite, check_queries, cut, select_columns
from recsys.topk import check_flags
from recsys.types import Bools, Histories, Ints, TopK

# Dead or waiting items, as a share of the indexed ones, above which the index is built anew.
REBUILD_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One state of a `LiveIndex`; never changes, so it may be searched for as long as it is held.

    Attributes:
        ids: Ids of the indexed items, ascending, dead ones among them. Shape (N,), int64.
        vectors: Of the indexed items. Shape (N, D), float32.
        index: Over `vectors`.
        is_alive: False for indexed items that were removed or replaced. Shape (N,).
        fresh_ids: Ids of the items that wait to be indexed, ascending. Shape (M,), int64.
        fresh: Vectors of those. Shape (M, D), float32.
    """

    ids: Ints
    vectors: Tensor
    index: ItemIndex
    is_alive: Bools
    fresh_ids: Ints
    fresh: Tensor

    def __len__(self) -> int:
        """Number of items that can be found."""
        return int(self.is_alive.sum()) + len(self.fresh_ids)

    def catalogue(self) -> tuple[Ints, Tensor]:
        """Ids, ascending, and vectors of all items that can be found. Shapes (I,) and (I, D)."""
        kept = np.flatnonzero(self.is_alive)
        ids = np.concatenate([self.ids[kept], self.fresh_ids])
        vectors = torch.cat([self.vectors[torch.from_numpy(kept).to(self.vectors.device)], self.fresh])
        order = np.argsort(ids)
        return ids[order], vectors[torch.from_numpy(order).to(vectors.device)]

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query; see `LiveIndex.search`."""
        check_queries(queries, self.vectors.shape[1])
        _check_rows(len(queries), seen, allowed)
        mask = None if self.is_alive.all() else self.is_alive
        found = _search_part(self.index, self.ids, queries, k, seen=seen, allowed=allowed, mask=mask)
        if len(self.fresh_ids) == 0:
            return found
        late = _search_part(
            ExactIndex(self.fresh), self.fresh_ids, queries, k, seen=seen, allowed=allowed, mask=None
        )
        items = np.concatenate([found.items, late.items], axis=1)
        return cut(TopK(items, np.concatenate([found.scores, late.scores], axis=1)), k)


class LiveIndex:
    """Items under ids of their own, which may be added, updated and removed while others search.

    Ids are columns of the histories and masks that searches are given, 0 or more, with gaps allowed; they stay what
    they are whatever happens to other items. Writers wait for one another, readers for nobody.

    Args:
        ids: Distinct, 0 or more. Shape (I,), int64.
        vectors: Shape (I, D), float32.
        build: Makes the index of a snapshot from its vectors, e.g. `lambda v: FaissIndex(v, plan.settings)`.
        rebuild_share: Share of dead or waiting items above which a write builds the index anew, above 0.

    Raises:
        InteractionError: An id is negative or comes twice.
        ShapeError: `ids` and `vectors` do not fit one another.
    """

    def __init__(
        self,
        ids: Ints,
        vectors: Tensor,
        *,
        build: Callable[[Tensor], ItemIndex] = FaissIndex,
        rebuild_share: float = REBUILD_SHARE,
    ) -> None:
        """Build the first snapshot."""
        self._build, self._rebuild_share = build, rebuild_share
        self._width = vectors.shape[-1]
        self._writing = Lock()
        self._snapshot = self._index(*self._checked(ids, vectors))

    @property
    def snapshot(self) -> Snapshot:
        """The present state; hold it for answers that belong together."""
        return self._snapshot

    def __len__(self) -> int:
        """Number of items that can be found."""
        return len(self._snapshot)

    def search(
        self, queries: Tensor, k: int, *, seen: Histories | None = None, allowed: Bools | None = None
    ) -> TopK:
        """The k best items of each query, by id; fits `ItemIndex`.

        Args:
            queries: Shape (B, D), float32.
            k: Length of the lists.
            seen: Ids to leave out, by query. Shape (B, W), any W.
            allowed: Ids that may be found; ids of W and above may not. Shape (W,) or (B, W).

        Returns:
            Ids as items, equal scores by ascending id. Shape (B, k).

        Raises:
            ShapeError: `queries` has another width, or `seen` or `allowed` another number of rows, or `k` is below 1.
        """
        return self._snapshot.search(queries, k, seen=seen, allowed=allowed)

    def add(self, ids: Ints, vectors: Tensor) -> None:
        """Add items that are not there.

        Args:
            ids: Shape (N,), int64.
            vectors: Shape (N, D), float32.

        Raises:
            InteractionError: An id is negative, comes twice, or is there already.
            ShapeError: `ids` and `vectors` do not fit one another or the index.
        """
        ids, vectors = self._checked(ids, vectors)
        with self._writing:
            present = ids[_is_present(self._snapshot, ids)]
            if len(present):
                raise InteractionError(
                    f"`ids` must be new to the index; got {present[:3].tolist()}, which it holds. Use `update`."
                )
            self._snapshot = self._settled(_with_fresh(self._snapshot, ids, vectors))

    def update(self, ids: Ints, vectors: Tensor) -> None:
        """Give items that are there new vectors.

        Takes the arguments of `add`.

        Raises:
            InteractionError: An id comes twice or is not there.
            ShapeError: `ids` and `vectors` do not fit one another or the index.
        """
        ids, vectors = self._checked(ids, vectors)
        with self._writing:
            _demand_present(self._snapshot, ids)
            self._snapshot = self._settled(_with_fresh(_without(self._snapshot, ids), ids, vectors))

    def remove(self, ids: Ints) -> None:
        """Remove items that are there.

        Args:
            ids: Shape (N,), int64.

        Raises:
            InteractionError: An id comes twice or is not there.
        """
        ids = _checked_ids(ids)
        with self._writing:
            _demand_present(self._snapshot, ids)
            self._snapshot = self._settled(_without(self._snapshot, ids))

    def rebuild(self) -> None:
        """Build the index anew from the items that can be found, whatever their shares."""
        with self._writing:
            self._snapshot = self._index(*self._snapshot.catalogue())

    def _settled(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot itself, or one built anew where too much is dead or waiting."""
        dead = len(snapshot.ids) - int(snapshot.is_alive.sum())
        if max(dead, len(snapshot.fresh_ids)) <= self._rebuild_share * len(snapshot.ids):
            return snapshot
        return self._index(*snapshot.catalogue())

    def _index(self, ids: Ints, vectors: Tensor) -> Snapshot:
        return Snapshot(
            ids, vectors, self._build(vectors), np.ones(len(ids), dtype=bool), ids[:0], vectors[:0]
        )

    def _checked(self, ids: Ints, vectors: Tensor) -> tuple[Ints, Tensor]:
        """Ids in ascending order and a copy of their vectors, which nobody else can change."""
        ids = _checked_ids(ids)
        if tuple(vectors.shape) != (len(ids), self._width):
            raise ShapeError(
                f"`vectors` must have shape ({len(ids)}, {self._width}), a row an id; got {tuple(vectors.shape)}. "
                "Take them from the model that made the others."
            )
        check_finite("vectors", vectors)
        order = np.argsort(ids)
        return ids[order], vectors.detach()[torch.from_numpy(order).to(vectors.device)]


def _search_part(
    index: ItemIndex,
    ids: Ints,
    queries: Tensor,
    k: int,
    *,
    seen: Histories | None,
    allowed: Bools | None,
    mask: Bools | None,
) -> TopK:
    """Search one part of a snapshot with filters by id, and answer by id."""
    mine = None if seen is None else select_columns(seen, ids)
    if allowed is not None:
        inside = ids < allowed.shape[-1]
        by_row = np.zeros((*allowed.shape[:-1], len(ids)), dtype=bool)
        by_row[..., inside] = allowed[..., ids[inside]]
        mask = by_row if mask is None else by_row & mask
    found = index.search(queries, k, seen=mine, allowed=mask)
    return TopK(np.append(ids, -1)[found.items], found.scores)


def _with_fresh(snapshot: Snapshot, ids: Ints, vectors: Tensor) -> Snapshot:
    all_ids = np.concatenate([snapshot.fresh_ids, ids])
    order = np.argsort(all_ids)
    joined = torch.cat([snapshot.fresh, vectors.to(snapshot.fresh)])[
        torch.from_numpy(order).to(snapshot.fresh.device)
    ]
    return Snapshot(snapshot.ids, snapshot.vectors, snapshot.index, snapshot.is_alive, all_ids[order], joined)


def _without(snapshot: Snapshot, ids: Ints) -> Snapshot:
    is_fresh = ~np.isin(snapshot.fresh_ids, ids)
    return Snapshot(
        snapshot.ids,
        snapshot.vectors,
        snapshot.index,
        snapshot.is_alive & ~np.isin(snapshot.ids, ids),
        snapshot.fresh_ids[is_fresh],
        snapshot.fresh[torch.from_numpy(np.flatnonzero(is_fresh)).to(snapshot.fresh.device)],
    )


def _is_present(snapshot: Snapshot, ids: Ints) -> Bools:
    return np.isin(ids, snapshot.ids[snapshot.is_alive]) | np.isin(ids, snapshot.fresh_ids)


def _demand_present(snapshot: Snapshot, ids: Ints) -> None:
    absent = ids[~_is_present(snapshot, ids)]
    if len(absent):
        raise InteractionError(
            f"`ids` must be in the index; got {absent[:3].tolist()}, which it does not hold. Use `add`, or drop them."
        )


def _checked_ids(ids: Ints) -> Ints:
    if np.asarray(ids).dtype.kind not in "iu":
        raise InteractionError(
            f"`ids` must be whole numbers; got dtype {np.asarray(ids).dtype}. Use `.astype(np.int64)`."
        )
    ids = np.asarray(ids, dtype=np.int64)
    values, counts = np.unique(ids, return_counts=True)
    wrong = values[(counts > 1) | (values < 0)]
    if len(wrong):
        raise InteractionError(
            f"`ids` must be distinct and 0 or more; got {wrong[:3].tolist()}. Drop repeats, number from 0."
        )
    return ids


def _check_rows(rows: int, seen: Histories | None, allowed: Bools | None) -> None:
    """Filters need one row a query, or none; their width is free."""
    if seen is not None and seen.shape[0] != rows:
        raise ShapeError(
            f"`seen` must have {rows} rows, one a query; got {seen.shape[0]}. Give the histories of these queries."
        )
    if allowed is not None and (allowed.ndim not in {1, 2} or (allowed.ndim == 2 and len(allowed) != rows)):
        raise ShapeError(
            f"`allowed` must have shape (W,) or ({rows}, W); got {allowed.shape}. Give one flag an id, for all queries "
            "or for each."
        )
    if allowed is not None:
        check_flags(allowed)
