"""Which kind of index for which catalogue, decided by size and by measured recall.

The rule: on a CUDA device, or up to 200,000 items, `flat`: exact, and a single query takes under 2 ms. Above that
`hnsw`, which is the fastest at high recall, while the catalogue is at most 5 million and the graph fits the memory
allowed; then `ivf+sq8`, which takes a quarter of the memory; then `ivf`. A kind is taken only once its search width
reaches the target on queries that it was not tuned on; if none does, `flat` again. `benchmarks/bench_index.py`
measures what the rule rests on.
"""

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from recsys.errors import ShapeError
from recsys.index.exact import ItemIndex
from recsys.index.faiss_index import FaissIndex
from recsys.index.filters import check_queries
from recsys.index.settings import IndexKind, IndexSettings, bytes_of, default_lists
from recsys.types import Bools, TopK

FLAT_AT_MOST = 200_000
HNSW_AT_MOST = 5_000_000
# Widths tried grow by this factor.
STEP = 1.5
# Scores this close, relative to the larger, count as equal: products of float32 round differently in batches.
SAME_SCORE = 1e-6


class MeasuredRecall(BaseModel):
    """Recall of an index against the exact answer, and how it was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Share of the k exactly best items that were found, 0..1, mean over queries.
    value: float = Field(ge=0, le=1)
    # Length of the lists, 1 or more.
    k: int = Field(ge=1)
    # Queries that the figure is the mean of, 0 or more; 0 where the index is exact by construction.
    queries: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Attributes:
        settings: What was tried.
        recall: Of the queries that it was tuned on, 0..1.
        ms_a_query: Mean time in a batch, in milliseconds.
    """

    settings: IndexSettings
    recall: float
    ms_a_query: float


@dataclass(frozen=True, slots=True, eq=False)
class IndexPlan:
    """The index that was chosen, built, and why.

    Attributes:
        index: Ready to search.
        recall: Measured on queries that nothing was tuned on.
        reason: Why this kind, in a sentence or more.
        tried: Every setting tried, in order.
    """

    index: FaissIndex
    recall: MeasuredRecall
    reason: str
    tried: tuple[Trial, ...] = ()

    @property
    def settings(self) -> IndexSettings:
        """Kind and knobs of the chosen index."""
        return self.index.settings


def choose_index(
    vectors: Tensor,
    *,
    target_recall: float = 0.98,
    k: int = 100,
    sample_queries: Tensor,
    seed: int = 0,
    flat_at_most: int = FLAT_AT_MOST,
    memory_bytes: int | None = None,
) -> IndexPlan:
    """Build the index that this module's rule picks.

    Half of the sample tunes the width of the search, the other half measures the recall that is reported.

    Args:
        vectors: One row an item. Shape (I, D), float32.
        target_recall: Least share of the k best items to find, above 0 and at most 1.
        k: Length of the lists to tune for.
        sample_queries: Queries like those to come; some hundreds. Shape (N, D), float32.
        seed: Halves the sample and starts k-means.
        flat_at_most: Catalogues up to this many items get the exact scan.
        memory_bytes: What the index may take beside the vectors themselves; None is no limit.

    Raises:
        ShapeError: `sample_queries` does not fit or is too short to halve, `target_recall` is outside (0, 1], or `k` is
            below 1.
    """
    n_items = len(vectors)
    if not 0 < target_recall <= 1:
        raise ShapeError(f"`target_recall` must lie in (0, 1]; got {target_recall}. Try 0.98.")
    if k < 1:
        raise ShapeError(f"`k` must be at least 1; got {k}. Ask for one item or more.")
    if vectors.device.type == "cuda":
        return _exactly(vectors, k, "The vectors are on a CUDA device, where an exact scan is fast.")
    if n_items <= flat_at_most:
        return _exactly(
            vectors, k, f"{n_items} items are at most {flat_at_most}, where an exact scan is fast."
        )
    check_queries(sample_queries, vectors.shape[1])
    if len(sample_queries) < 2:
        raise ShapeError(
            f"`sample_queries` must hold 2 queries or more, to tune on some and measure on others; got "
            f"{len(sample_queries)}. Some hundreds make a firm figure."
        )
    tuning = _Tuning.of(vectors, sample_queries, k, target_recall, seed)
    tried: list[Trial] = []
    for base in _candidates(n_items, vectors.shape[1], k, seed, memory_bytes):
        plan = tuning.attempt(base, tried)
        if plan is not None:
            return plan
    kinds = " and ".join(dict.fromkeys(trial.settings.kind.value for trial in tried))
    missed = f"{kinds} stayed below recall@{k} {target_recall}" if tried else "No kind fits `memory_bytes`"
    return _exactly(vectors, k, f"{missed}, so every search is an exact scan.", tuple(tried))


def measure_recall(found: TopK, exact: TopK) -> float:
    """Share of the exactly best items that were found, mean over queries with any.

    An item that scores as much as the last of the exact list counts, so equal items may stand for one another.

    Args:
        found: What an index returned, scores being true inner products. Shape (B, k).
        exact: The exact answer to the same queries. Shape (B, k).

    Returns:
        0..1; 1 without queries.
    """
    wanted = (exact.items >= 0).sum(axis=1)
    span = np.int64(max(exact.items.max(initial=0), found.items.max(initial=0)) + 1)
    owner = np.arange(len(found.items), dtype=np.int64)[:, None] * span
    is_named = np.isin(owner + found.items, (owner + exact.items)[exact.items >= 0])
    highest = np.finfo(np.float32).max
    least = np.where(exact.items >= 0, exact.scores, highest).min(axis=1, keepdims=True, initial=highest)
    is_as_good = found.scores >= least - SAME_SCORE * np.abs(least)
    hits = np.minimum(((is_named | is_as_good) & (found.items >= 0)).sum(axis=1), wanted)
    has_any = wanted > 0
    return float((hits[has_any] / wanted[has_any]).mean()) if has_any.any() else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Tuning:
    """A catalogue with queries to tune on and queries to measure on, each with its exact answer."""

    vectors: Tensor
    queries: Tensor
    answers: TopK
    is_held_out: Bools
    target: float
    k: int

    @classmethod
    def of(cls, vectors: Tensor, queries: Tensor, k: int, target: float, seed: int) -> "_Tuning":
        """Halve the sample and answer it exactly."""
        is_held_out = np.random.default_rng(seed).permutation(len(queries)) % 2 == 0
        return cls(vectors, queries, FaissIndex(vectors).search(queries, k), is_held_out, target, k)

    def attempt(self, base: IndexSettings, tried: list[Trial]) -> IndexPlan | None:
        """Build one kind and widen its search until both halves reach the target."""
        index = FaissIndex(self.vectors, base)
        for settings in _widths(base, len(self.vectors), self.k):
            index = index.with_settings(settings)
            recall, ms = self._measure(index, ~self.is_held_out)
            tried.append(Trial(settings, recall, ms))
            if recall < self.target:
                continue
            held_out, _ = self._measure(index, self.is_held_out)
            if held_out >= self.target:
                measured = MeasuredRecall(value=held_out, k=self.k, queries=int(self.is_held_out.sum()))
                return IndexPlan(index, measured, self._reason(index, held_out), tuple(tried))
        return None

    def _measure(self, index: ItemIndex, rows: Bools) -> tuple[float, float]:
        """Recall, and milliseconds a query."""
        began = time.perf_counter()
        found = index.search(self.queries[np.flatnonzero(rows)], self.k)
        ms = (time.perf_counter() - began) * 1000 / int(rows.sum())
        return measure_recall(found, TopK(self.answers.items[rows], self.answers.scores[rows])), ms

    def _reason(self, index: FaissIndex, recall: float) -> str:
        return (
            f"{index.n_items} items are too many to scan for every query; {index.settings.kind} finds "
            f"{recall:.4f} of the {self.k} best against a target of {self.target}."
        )


def _exactly(vectors: Tensor, k: int, reason: str, tried: tuple[Trial, ...] = ()) -> IndexPlan:
    return IndexPlan(FaissIndex(vectors), MeasuredRecall(value=1.0, k=k, queries=0), reason, tried)


def _candidates(n_items: int, width: int, k: int, seed: int, memory_bytes: int | None) -> list[IndexSettings]:
    """Kinds worth building for a catalogue, best first."""
    kinds = [IndexKind.HNSW] if n_items <= HNSW_AT_MOST else []
    all_of_them = [
        IndexSettings(kind=kind, tuned_k=k, seed=seed) for kind in [*kinds, IndexKind.IVF_SQ8, IndexKind.IVF]
    ]
    return [s for s in all_of_them if memory_bytes is None or bytes_of(n_items, width, s) <= memory_bytes]


def _widths(base: IndexSettings, n_items: int, k: int) -> list[IndexSettings]:
    """Settings to try from narrow to wide, as far as they stay faster than a scan."""
    if base.kind is IndexKind.HNSW:
        return [base.model_copy(update={"ef_search": ef}) for ef in _ladder(k, max(4 * k, n_items // 200))]
    lists = default_lists(n_items) if base.lists is None else base.lists
    return [base.model_copy(update={"probes": probes}) for probes in _ladder(4, max(4, lists // 4))]


def _ladder(low: int, high: int) -> list[int]:
    """Distinct whole numbers from `low` to `high`, each `STEP` times the last, `high` among them."""
    steps = int(np.ceil(np.log(high / low) / np.log(STEP)))
    rungs = [*(round(low * STEP**i) for i in range(steps)), high]
    return [low, *(after for before, after in pairwise(rungs) if after > before)]
