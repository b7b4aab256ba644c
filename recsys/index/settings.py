"""The kinds of index, their knobs, and the FAISS object that each kind is.

Inner product throughout: maximum-inner-product search needs no unit vectors, only a graph or a partition that copes
with them, which is why recall is measured and never taken for granted.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from recsys.errors import ShapeError
from recsys.types import Floats

# FAISS asks for this many training vectors a centroid before it calls a partition well trained.
VECTORS_PER_LIST = 39
_limits_are_mine = Lock()
# The types that FAISS ships lack much of what its module has.
_faiss: Any = faiss


class IndexKind(StrEnum):
    """How an index finds its items."""

    # A scan of every vector by FAISS; exact.
    FLAT = "flat"
    # A navigable small-world graph over the full vectors (Malkov and Yashunin 2018).
    HNSW = "hnsw"
    # Inverted lists around k-means centroids; the nearest lists are scanned.
    IVF = "ivf"
    # The same with a byte a number; what is found is scored again from the full vectors.
    IVF_SQ8 = "ivf+sq8"


class IndexSettings(BaseModel):
    """Everything that makes one index from item vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # What to build.
    kind: IndexKind = IndexKind.FLAT
    # HNSW: links of a node and layer, 2..256; memory is about 8 bytes each, recall rises with it.
    neighbours: int = Field(default=32, ge=2, le=256)
    # HNSW: candidates looked at while a node is linked, 8..4096; building time is linear in it.
    ef_construction: int = Field(default=100, ge=8, le=4096)
    # HNSW: candidates kept during a search, 1..1,000,000; time is linear in it.
    ef_search: int = Field(default=256, ge=1, le=1_000_000)
    # IVF: lists, 1 or more and at most the number of items; None takes 4 sqrt(items), 39 items a list or more.
    lists: int | None = Field(default=None, ge=1, le=1_000_000)
    # IVF: lists scanned a search, 1..1,000,000; time is linear in it.
    probes: int = Field(default=64, ge=1, le=1_000_000)
    # Length of list that `ef_search` and `probes` were tuned for, 1 or more; longer lists widen both in proportion.
    tuned_k: int = Field(default=100, ge=1, le=1_000_000)
    # Seed of the k-means behind IVF.
    seed: int = Field(default=0, ge=0, lt=2**31)


def default_lists(n_items: int) -> int:
    """4 sqrt(I) lists, fewer where that leaves a list below 39 items."""
    return max(1, min(round(4 * math.sqrt(n_items)), n_items // VECTORS_PER_LIST))


def build_faiss(rows: Floats, settings: IndexSettings) -> Any:
    """The FAISS index of one kind over the given vectors.

    HNSW graphs are the same each time on one OpenMP thread only; more threads link nodes in the order they come.

    Args:
        rows: One item each, at least one. Shape (I, D), float32, C-contiguous.
        settings: What to build.

    Returns:
        A `faiss.Index`.

    Raises:
        ShapeError: More lists are asked for than there are items.
    """
    n_items, width = rows.shape
    if settings.kind is IndexKind.FLAT:
        index: Any = faiss.IndexFlatIP(width)
    elif settings.kind is IndexKind.HNSW:
        index = faiss.IndexHNSWFlat(width, settings.neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.ef_construction
    else:
        index = _empty_ivf(n_items, width, settings)
        index.cp.seed = settings.seed
        index.train(rows)
    index.add(rows)
    return index


def search_parameters(settings: IndexSettings, fetch: int) -> Any:
    """FAISS's parameters of one search for `fetch` items; None for `Flat`.

    They travel with the call, so that threads share the index without changing it.
    """
    if settings.kind is IndexKind.FLAT:
        return None
    widened = max(1.0, fetch / settings.tuned_k)
    if settings.kind is IndexKind.HNSW:
        # bounded_queue stays True: without it FAISS up to 1.15 forgets filters.
        return _faiss.SearchParametersHNSW(
            efSearch=max(fetch, round(settings.ef_search * widened)), bounded_queue=True
        )
    return _faiss.SearchParametersIVF(nprobe=round(settings.probes * widened))


def bytes_of(n_items: int, width: int, settings: IndexSettings) -> int:
    """Memory that the FAISS index takes beside the vectors themselves, in bytes, to a few per cent."""
    if settings.kind is IndexKind.HNSW:
        # Twice the links on the lowest layer, 4 bytes each, and a few per cent of nodes on upper ones.
        return round(n_items * (4 * width + 8 * settings.neighbours * 1.05 + 12))
    if settings.kind is IndexKind.IVF_SQ8:
        return n_items * (width + 8) + 4 * default_lists(n_items) * width
    ids = 8 if settings.kind is IndexKind.IVF else 0
    return n_items * (4 * width + ids)


def faiss_to_bytes(index: faiss.Index) -> bytes:
    """What `faiss_from_bytes` reads."""
    blob: bytes = faiss.serialize_index(index).tobytes()
    return blob


def faiss_from_bytes(blob: NDArray[np.uint8]) -> faiss.Index:
    """Read a FAISS index whose hash has been checked; sizes inside may not exceed the size of the file.

    Args:
        blob: Shape (N,), uint8.

    Raises:
        RuntimeError: FAISS cannot read it.
    """
    with _bounded_reading(len(blob)):
        return faiss.deserialize_index(blob)


def matches(index: faiss.Index, n_items: int, width: int, settings: IndexSettings) -> bool:
    """Whether an index that was read is of the kind and size that the settings ask for."""
    classes = {
        IndexKind.FLAT: faiss.IndexFlatIP,
        IndexKind.HNSW: faiss.IndexHNSWFlat,
        IndexKind.IVF: faiss.IndexIVFFlat,
        IndexKind.IVF_SQ8: faiss.IndexIVFScalarQuantizer,
    }
    return bool(
        isinstance(index, classes[settings.kind])
        and index.ntotal == n_items
        and index.d == width
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
        and index.is_trained
    )


def _empty_ivf(n_items: int, width: int, settings: IndexSettings) -> Any:
    lists = default_lists(n_items) if settings.lists is None else settings.lists
    if lists > n_items:
        raise ShapeError(
            f"`lists` must be at most the number of items ({n_items}); got {lists}. "
            "Lower it, leave it to None, or use kind 'flat'."
        )
    quantizer = faiss.IndexFlatIP(width)
    if settings.kind is IndexKind.IVF:
        index: Any = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
    # A quarter of FAISS's default: k-means is most of the building time, and recall is measured afterwards.
    index.cp.max_points_per_centroid = 64
    # Who names `lists` has weighed it; FAISS would print its advice on small ones.
    index.cp.min_points_per_centroid = 1
    return index


@contextmanager
def _bounded_reading(size: int) -> Iterator[None]:
    """Hold FAISS's reader to `size`, where it can be held; its limits are global, hence the lock."""
    limits = {"deserialization_loop_limit": size, "deserialization_vector_byte_limit": size}
    settable = {name: most for name, most in limits.items() if hasattr(_faiss, f"set_{name}")}
    with _limits_are_mine:
        before = {name: getattr(_faiss, f"get_{name}")() for name in settable}
        try:
            for name, most in settable.items():
                getattr(_faiss, f"set_{name}")(most)
            yield
        finally:
            for name, old in before.items():
                getattr(_faiss, f"set_{name}")(old)
