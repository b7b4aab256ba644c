"""GNOLR on rating levels with side features: quality over seeds with intervals by user, and speed of training.

Protocol: a MovieLens folder, levels 3, 4 and 5 stars, the last tenth of all ratings to foretell and the tenth before
it to stop and to calibrate by; ids, user age, gender and occupation, genres. "static" knows the training ratings
alone; "refreshed" brings histories and item statistics up to date with the validation ratings, without training.
`--cuts 0.5,0.6,0.7,0.8,0.9,1` asks the same question at earlier dates too, of the default model alone: each uses the
first share of the ratings as if there were no more, so that one test of some 170 users does not decide.
With `--authors DIR`, a checkout of the authors' published code, their model, their loss and their loop are measured in
the same run on the same rows, each at the better of two learning rates by validation. Writes
`results/gnolr/<date>-<commit>.json`.

    python -m benchmarks.bench_gnolr path/to/ml-100k --authors path/to/GNOLR
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.recording import record
from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.data.dataset import Dataset
from recsys.data.interactions import merge_repeats
from recsys.data.readers import read_dataset
from recsys.data.splits import Split, split_by_time
from recsys.features import FeatureEncoder, FeatureTable
from recsys.metrics.discrimination import auc
from recsys.metrics.pointwise import exact_level_nll, level_metrics
from recsys.models.gnolr import Gnolr
from recsys.recipes import gnolr
from recsys.types import Ints, histories_from_log

Probabilities = NDArray[np.floating]
USED = {"age", "gender", "occupation", "class", "genres", "genre"}
OURS: dict[str, dict[str, Any]] = {
    "GNOLR": {},
    "GNOLR, large batches": {"batch_rows": 8192},
    "GNOLR, small and fast": {"embedding": 16, "width": 8, "batch_rows": 8192, "learning_rate": 0.004},
    "V1 (no nesting)": {"structure": "v1"},
    "V0 (nor adding)": {"structure": "v0", "biases": False},
    "NOLR": {"structure": "nolr"},
    "GNOLR, cosines alone": {"biases": False},
}
AUTHORS = {"GNOLR": 1.2, "NeuralOLR": 1.2}
RATES = (0.05, 0.01)
RESAMPLES = 300


class Task(NamedTuple):
    """One cut of one data set, with features fitted on its training rows."""

    data: Dataset
    split: Split
    users: FeatureTable
    items: FeatureTable

    @property
    def target(self) -> pd.DataFrame:
        """The rows to foretell."""
        return self.split.test.target


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of MovieLens")
    parser.add_argument("--authors", type=Path, help="checkout of the authors' code")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs of each model, interleaved")
    parser.add_argument(
        "--cuts", default="1", help="shares of the log, from its start, to measure quality on"
    )
    parser.add_argument("--only", choices=["quality", "speed"], help="measure one part only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.authors is not None:
        sys.path.insert(0, str(options.authors))
    shares = [float(part) for part in options.cuts.split(",")]
    result: dict[str, object] = {}
    for share in shares if options.only != "speed" else []:
        task = _open(options.data, share)
        print(f"first {share:.0%} of the log: {task.split.protocol}", flush=True)
        ours = OURS if len(shares) == 1 else {"GNOLR": OURS["GNOLR"]}
        found = _quality(task, _theirs(task, options.authors), ours, options.seeds)
        result[f"quality, first {share:.0%}"] = {"protocol": task.split.protocol, **found}
    if options.only != "quality":
        task = _open(options.data, 1.0)
        result["cpu_seconds_per_epoch"] = _speed(task, _theirs(task, options.authors), options.repeats)
    print(record("gnolr", result))


def _theirs(task: Task, checkout: Path | None) -> Any:
    """The authors' code on the same rows, or None."""
    if checkout is None:
        return None
    from benchmarks.authors_gnolr import AuthorsGnolr  # noqa: PLC0415 - needs their checkout on the path

    return AuthorsGnolr(task.data, task.split)


def _open(folder: Path, share: float) -> Task:
    data = read_dataset(folder, levels=("3", "4", "5"))
    for table in (data.users, data.items):
        for name in [name for name in table.kinds if name not in USED]:
            del table.kinds[name]  # type: ignore[attr-defined]
    log = merge_repeats(data.log).sort_values(TIMESTAMP, kind="stable")
    log = log.iloc[: round(share * len(log))]
    # Test and validation are tenths of the whole log at every cut.
    split = split_by_time(log, test=0.1 / share, validation=0.1 / share)
    users, items = (
        FeatureEncoder.fit(table, np.unique(split.train[column].to_numpy())).transform(table)
        for table, column in ((data.users, USER), (data.items, ITEM))
    )
    return Task(data, split, users, items)


def _train(task: Task, seed: int, settings: dict[str, Any], **how: Any) -> Gnolr:
    config = gnolr.GnolrConfig(levels=task.data.levels, negatives=0.0, batch_rows=4096, learning_rate=0.003)
    return gnolr.train(
        task.split.train,
        n_items=len(task.data.items),
        seed=seed,
        config=config.model_copy(update=settings),
        item_features=task.items,
        user_features=task.users,
        **how,
    )


def _foretell(task: Task, model: Gnolr, known: pd.DataFrame) -> Probabilities:
    users, rows = np.unique(task.target[USER].to_numpy(), return_inverse=True)
    histories = histories_from_log(known, users, len(task.data.items))
    logits = model.pair_logits(histories, rows, task.target[ITEM].to_numpy(), users=users)
    found: Probabilities = logits.sigmoid().numpy()
    return found


def _quality(task: Task, theirs: Any, ours: dict[str, dict[str, Any]], seeds: int) -> dict[str, Any]:
    found: dict[str, list[Probabilities]] = {}
    everything = task.split.test.known
    users = np.unique(everything[USER].to_numpy())
    now = histories_from_log(everything, users, len(task.data.items))
    for name, settings in ours.items():
        for seed in range(seeds):
            model = _train(task, seed, settings, validation=task.split.validation.target)
            found.setdefault(f"{name}, static", []).append(_foretell(task, model, task.split.train))
            found.setdefault(f"{name}, refreshed", []).append(
                _foretell(task, model.refreshed(now), everything)
            )
    if theirs is not None:
        for name, gamma in AUTHORS.items():
            runs = {
                rate: [theirs.foretell(name, rate, gamma, seed) for seed in range(seeds)] for rate in RATES
            }
            best = max(RATES, key=lambda rate: float(np.mean([run.validation for run in runs[rate]])))
            found[f"authors' {name}"] = [run.probabilities for run in runs[best]]
    rates = _item_rates(task)
    found["item rates"] = [rates]
    return {name: _summary(task, runs, name) for name, runs in found.items()}


def _item_rates(task: Task, prior_rows: float = 5.0) -> Probabilities:
    """Every item's share of each level in training, drawn to that of all items: the rule to beat."""
    train, levels = task.split.train, np.arange(1, task.data.levels + 1)
    reached = (train[LEVEL].to_numpy()[:, None] >= levels).astype(np.float64)
    sums = np.zeros((len(task.data.items), len(levels)))
    np.add.at(sums, train[ITEM].to_numpy(), reached)
    rows = np.bincount(train[ITEM].to_numpy(), minlength=len(sums))[:, None]
    rate = (sums + prior_rows * reached.mean(0)) / (rows + prior_rows)
    found: Probabilities = rate[task.target[ITEM].to_numpy()]
    return found


def _summary(task: Task, runs: list[Probabilities], name: str) -> dict[str, Any]:
    levels, users = task.target[LEVEL].to_numpy(), task.target[USER].to_numpy()
    rows = [level_metrics(run, levels, users) for run in runs]
    mean = {
        metric: [
            float(np.mean([getattr(run[level], metric) for run in rows])) for level in range(len(rows[0]))
        ]
        for metric in ("auc", "log_loss", "ece_width")
    }
    summary = {
        **mean,
        "nll": float(np.mean([exact_level_nll(run, levels) for run in runs])),
        "auc_ci95": _auc_interval(runs, levels, users),
        "seeds": len(runs),
        "auc_by_seed": [[row.auc for row in run] for run in rows],
        "ece_by_seed": [[row.ece_width for row in run] for run in rows],
        "log_loss_by_seed": [[row.log_loss for row in run] for run in rows],
    }
    shown = " | ".join(f"{metric} " + " ".join(f"{value:.4f}" for value in mean[metric]) for metric in mean)
    print(f"{name}: {shown} | nll {summary['nll']:.4f}", flush=True)
    return summary


def _auc_interval(runs: list[Probabilities], levels: Ints, users: Ints) -> list[list[float]]:
    """95 % of the seeds' mean AUC of each level when users are drawn again."""
    names, owner = np.unique(users, return_inverse=True)
    rows = [np.flatnonzero(owner == user) for user in range(len(names))]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rows[user] for user in rng.integers(len(names), size=len(names))])
        draws.append(
            [
                np.mean([auc(run[drawn, level], levels[drawn] > level) for run in runs])
                for level in range(runs[0].shape[1])
            ]
        )
    ends: list[list[float]] = np.quantile(np.array(draws), [0.025, 0.975], axis=0).T.tolist()
    return ends


def _speed(task: Task, theirs: Any, repeats: int) -> dict[str, Any]:
    """Processor seconds of one pass over the training rows, all models in turn."""
    runs: dict[str, Callable[[], float]] = {
        name: _epoch_timer(task, settings) for name, settings in OURS.items() if not name.startswith("V")
    }
    if theirs is not None:
        runs["authors' GNOLR, fed with tensors"] = theirs.tensor_epoch
        runs["authors' GNOLR, as shipped"] = theirs.shipped_epoch
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios: dict[str, dict[str, float]] = {}
    for name, own in seconds.items():
        # Within a repeat, as what else the machine does changes from one to the next.
        ratios[name] = {
            base: statistics.median(
                one / mine for one, mine in zip(seconds[f"authors' GNOLR, {base}"], own, strict=True)
            )
            for base in ("fed with tensors", "as shipped")
            if theirs is not None
        }
        shown = {base: round(ratio, 1) for base, ratio in ratios[name].items()}
        print(f"{name}: {medians[name]:.3f} s", shown, flush=True)
    return {"rows": len(task.split.train), "median": medians, "ratios": ratios, "all": seconds}


def _epoch_timer(task: Task, settings: dict[str, Any]) -> Callable[[], float]:
    """Times passes of the training loop, the first left out, without validation."""

    def seconds() -> float:
        moments: list[float] = []
        _train(
            task,
            0,
            {**settings, "epochs": 4, "validation_users": 0.0},
            report=lambda _: moments.append(time.process_time()),
        )
        return statistics.median(after - before for before, after in pairwise(moments))

    return seconds


if __name__ == "__main__":
    main()
