"""Speed of evaluation: from the scores of 6,000 users for 3,700 items to every ranking metric and the doubt of each.

Scores are drawn, and so are the held-out items: some 4 % of the catalogue, as in MovieLens-1M. Every step is timed on
its own. Writes `results/evaluation/<date>-<commit>.json` with the machine and every repeat; a dirty checkout writes
to `results/local/evaluation/`.

    python -m benchmarks.bench_evaluation --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array

from benchmarks.recording import record
from recsys.metrics import (
    METRICS,
    full_list_auc,
    intra_list_diversity,
    novelty,
    ranking_metrics,
    sampled_ranking,
)
from recsys.significance import bootstrap_interval, compare_models
from recsys.topk import rank_in_blocks
from recsys.types import Floats, Histories, Ints

USERS, ITEMS, GENRES = 6_000, 3_700, 18
CUTOFFS = (10, 20)
GOAL_S = 5.0


def main() -> None:
    """Time every step and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each measurement")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((USERS, ITEMS), dtype=np.float32)
    seen, held_out = _draw_log(rng), _draw_log(rng)
    genres = csr_array((rng.random((ITEMS, GENRES)) < 0.1).astype(np.float32))
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for task, work in _tasks(scores, seen, held_out, genres).items():
            began = time.perf_counter()
            work()
            seconds.setdefault(task, []).append(time.perf_counter() - began)
    _write(seconds)


def _draw_log(rng: np.random.Generator) -> Histories:
    """About 150 items a user, levels 0..4."""
    stored = rng.integers(1, 6, size=(USERS, ITEMS), dtype=np.int8) * (rng.random((USERS, ITEMS)) < 0.04)
    return csr_array(stored.astype(np.float32))


def _rank(scores: Floats, seen: Histories) -> Ints:
    tensor = torch.from_numpy(scores)
    return rank_in_blocks(
        lambda block: tensor[block].clone(), USERS, max(CUTOFFS), seen=seen, allowed=None
    ).items


def _tasks(
    scores: Floats, seen: Histories, held_out: Histories, genres: Histories
) -> dict[str, Callable[[], object]]:
    items = _rank(scores, seen)
    values = {str(n): row for n, row in enumerate(np.random.default_rng(0).random((6, USERS)))}

    def everything() -> object:
        return ranking_metrics(_rank(scores, seen), held_out, CUTOFFS, list(METRICS))

    return {
        "lists_and_all_ranking_metrics": everything,
        "lists": lambda: _rank(scores, seen),
        "all_ranking_metrics": lambda: ranking_metrics(items, held_out, CUTOFFS, list(METRICS)),
        "full_list_auc": lambda: full_list_auc(scores, held_out, 1),
        "sampled_100_negatives": lambda: sampled_ranking(scores, held_out, CUTOFFS, seed=0),
        "novelty_and_diversity": lambda: (novelty(items, seen, 10), intra_list_diversity(items, genres, 10)),
        "one_interval": lambda: bootstrap_interval(values["0"], seed=0),
        "all_pairs_of_six_models": lambda: compare_models(values, seed=0),
    }


def _write(seconds: dict[str, list[float]]) -> None:
    medians = {task: statistics.median(repeats) for task, repeats in seconds.items()}
    size = {"users": USERS, "items": ITEMS, "cutoffs": CUTOFFS, "metrics": list(METRICS)}
    record(
        "evaluation", {"size": size, "seconds": seconds, "median_seconds": medians, "goal_seconds": GOAL_S}
    )
    for task, median in medians.items():
        print(f"{task}: {median:.2f} s")
    whole = medians["lists_and_all_ranking_metrics"]
    print(
        f"{USERS} users x {ITEMS} items, {len(METRICS)} metrics at {CUTOFFS}: {whole:.2f} s, goal {GOAL_S:g} s"
    )


if __name__ == "__main__":
    main()
