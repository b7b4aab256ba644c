"""Speed and recall of retrieval: the exact index beside bare FAISS, filters, and approximate kinds by search width.

Compared things are timed in turn within one process, so that their ratio holds even where the machine is shared; CPU
time of the searching thread stands beside wall time for the same reason. Searches run on one thread, building on as
many as OMP_NUM_THREADS says. Writes `results/index/<date>-<commit>.json`; a dirty checkout writes to `results/local/`.

    OMP_NUM_THREADS=2 python -m benchmarks.bench_index --catalogue clustered:1000000 --kind hnsw --kind ivf
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from benchmarks.recording import record
from recsys.index import FaissIndex, IndexKind, IndexSettings, measure_recall
from recsys.types import Bools

EXACT_ITEMS, WIDTH, K = 200_000, 64, 100
BATCH, SINGLES = 256, 100
QUERIES = 200
HNSW_WIDTHS = (100, 128, 192, 256, 384, 512, 768)
IVF_WIDTHS = (16, 32, 64, 128, 256, 512)
SHARES = (0.9, 0.5, 0.2, 0.1, 0.05, 0.005)


def main() -> None:
    """Time everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats of the exact searches")
    parser.add_argument("--catalogue", action="append", default=[], help="clustered:ITEMS or random:ITEMS")
    parser.add_argument(
        "--kind", action="append", default=[], help="hnsw, ivf+sq8 or ivf; all of them by default"
    )
    options = parser.parse_args()
    builders = faiss.omp_get_max_threads()
    _use_threads(1)
    result: dict[str, Any] = {"exact": exact_beside_faiss(options.repeats)}
    for kind in ("batch", "single"):
        print(f"exact {kind}: {result['exact'][kind]['ratio']:.3f} times the time of bare FAISS")
    for name in options.catalogue or ["clustered:200000"]:
        kinds = [IndexSettings(kind=IndexKind(kind)) for kind in options.kind or ("hnsw", "ivf+sq8", "ivf")]
        result[name] = approximate_kinds(name, kinds, builders)
    record("index", result)


def exact_beside_faiss(repeats: int) -> dict[str, Any]:
    """Our exact search and bare FAISS in turn, for a batch and for single queries."""
    vectors, queries = draw("random", EXACT_ITEMS, 0), draw("random", BATCH, 1)
    ours, rows = FaissIndex(vectors), queries.numpy()
    # FAISS's own object, so that both scan the same memory: where it lies makes a tenth of a difference.
    bare = ours.native
    assert type(bare) is faiss.IndexFlatIP
    rng = np.random.default_rng(2)
    at = (np.repeat(np.arange(BATCH), 100), rng.integers(0, EXACT_ITEMS, BATCH * 100))
    seen = csr_array((np.ones(BATCH * 100, dtype=np.float32), at), shape=(BATCH, EXACT_ITEMS))
    work: dict[str, dict[str, Callable[[int], object]]] = {
        "batch": {
            "faiss": lambda _: bare.search(rows, K),
            "ours": lambda _: ours.search(queries, K),
            "ours_with_seen": lambda _: ours.search(queries, K, seen=seen),
        },
        "single": {
            "faiss": lambda i: bare.search(rows[i : i + 1], K),
            "ours": lambda i: ours.search(queries[i : i + 1], K),
        },
    }
    result: dict[str, Any] = {"items": EXACT_ITEMS, "dim": WIDTH, "k": K}
    for name, rivals in work.items():
        ms = in_turn(rivals, repeats if name == "batch" else SINGLES)
        wall, cpu = (medians(ms, at) for at in (0, 1))
        result[name] = {
            "wall_ms": wall,
            "cpu_ms": cpu,
            "repeats_ms": ms,
            "ratio": wall["ours"] / wall["faiss"],
        }
        result[name]["ratio_cpu"] = cpu["ours"] / cpu["faiss"]
    return result


def approximate_kinds(name: str, kinds: list[IndexSettings], builders: int) -> list[dict[str, Any]]:
    """Recall and time of each kind by its search width, and under filters at the first width that finds 0.98."""
    shape, _, items = name.partition(":")
    vectors, queries = draw(shape, int(items), 0), draw(shape, QUERIES, 1)
    flat = FaissIndex(vectors)
    exact = flat.search(queries, K)
    rows: list[dict[str, Any]] = []
    for base in kinds:
        _use_threads(builders)
        began, began_cpu = time.perf_counter(), time.process_time()
        index = FaissIndex(vectors, base)
        built = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu}
        _use_threads(1)
        row: dict[str, Any] = {"settings": base.model_dump(mode="json"), "build": built, "widths": []}
        is_graph = base.kind is IndexKind.HNSW
        for width in HNSW_WIDTHS if is_graph else IVF_WIDTHS:
            index = index.with_settings(base.model_copy(update={"ef_search": width, "probes": width}))
            found = measure_recall(index.search(queries, K), exact)
            ms = in_turn({"ours": one_query(index, queries)}, QUERIES)
            row["widths"].append(
                {
                    "width": width,
                    "recall": found,
                    "p50_ms": medians(ms, 0)["ours"],
                    "p50_cpu_ms": medians(ms, 1)["ours"],
                }
            )
            if found >= 0.98 and "filters" not in row:
                row["filters"] = under_filters(index, flat, queries)
            print(name, base.kind.value, row["widths"][-1], flush=True)
        rows.append(row)
    return rows


def one_query(index: FaissIndex, queries: Tensor) -> Callable[[int], object]:
    """A search for the query of a number."""
    return lambda i: index.search(queries[i : i + 1], K)


def under_filters(index: FaissIndex, flat: FaissIndex, queries: Tensor) -> list[dict[str, float]]:
    """Recall and median time of a query where a random share of the items is allowed."""
    result, few = [], queries[:20]
    for share in SHARES:
        allowed = np.random.default_rng(3).random(index.n_items) < share

        def ask(i: int, allowed: Bools = allowed) -> object:
            return index.search(few[i : i + 1], K, allowed=allowed)

        recall = measure_recall(index.search(few, K, allowed=allowed), flat.search(few, K, allowed=allowed))
        spent = medians(in_turn({"ours": ask}, len(few)), 1)["ours"]
        result.append({"share": share, "recall": recall, "p50_cpu_ms": spent})
    return result


def draw(shape: str, items: int, seed: int) -> Tensor:
    """Unit vectors: `random` ones, or `clustered` around 2,000 centres with a falling spectrum, as learned ones are."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn(items, WIDTH, generator=rng)
    if shape == "clustered":
        centres = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(99))
        rows = centres[torch.randint(2000, (items,), generator=rng)] + 0.7 * rows
        rows *= torch.arange(1, WIDTH + 1) ** -0.3
    return torch.nn.functional.normalize(rows)


def in_turn(rivals: dict[str, Callable[[int], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU milliseconds of each rival, run one after the other in every repeat."""
    ms: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for repeat in range(-1, repeats):
        # Who goes first changes, since whoever does finds the cache full of the other's vectors.
        for name, work in list(rivals.items())[:: 1 if repeat % 2 else -1]:
            wall, cpu = time.perf_counter(), time.thread_time()
            work(max(repeat, 0))
            if repeat >= 0:
                ms[name].append(((time.perf_counter() - wall) * 1000, (time.thread_time() - cpu) * 1000))
    return ms


def medians(ms: dict[str, list[tuple[float, float]]], at: int) -> dict[str, float]:
    """Median of wall (0) or CPU (1) time by rival."""
    return {name: statistics.median(pair[at] for pair in pairs) for name, pairs in ms.items()}


def _use_threads(count: int) -> None:
    faiss.omp_set_num_threads(count)
    torch.set_num_threads(count)


if __name__ == "__main__":
    main()
