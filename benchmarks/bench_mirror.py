"""Users learned from logs: how near a fitted choice model comes to the truth, and what it can be trusted with.

In the film world, where the truth is known, for logs of each number of impressions asked for: log loss of later
impressions beside the oracle's, and beside that of the same model with the films' hidden qualities given, which no log
tells better; calibration; the effects of position and popularity beside their intervals; and the order of eight
recommenders beside the oracle's. With `--movielens`, `--redial` and `--openbandit`, on real people's later ratings,
likes and clicks (`benchmarks.mirror_real`, `benchmarks.mirror_clicks`). Writes `results/mirror/<date>-<commit>.json`
with the machine and all figures; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_mirror --seeds 3
    python -m benchmarks.bench_mirror --seeds 0 --movielens path/to/ml-100k --redial path/to/conversations
        --openbandit path/to/openbandit
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.mirror_choice import by_user
from benchmarks.mirror_clicks import measure_openbandit
from benchmarks.mirror_real import measure_movielens, measure_redial
from benchmarks.recording import record
from recsys.metrics.calibration import calibration_error
from recsys.recipes import als, ease, gnolr, item_knn, popularity
from recsys.recipes.gnolr_config import GnolrConfig
from recsys.significance import bootstrap_interval
from recsys.types import Histories, Ints, Retriever, histories_from_log
from simulators.mirror import LevelModel, fit_levels
from simulators.mirror.selection import (
    Setting,
    fit_best_levels,
    level_probabilities,
    log_losses,
    split_by_user,
)
from simulators.world import World, build_film_world, draw_population
from simulators.world.choice import IMPRESSION_POSITION_EFFECT, IMPRESSION_SLOPES

Values = NDArray[np.float64]
SUCCESS = 2
LIST = 10
USERS_FOR_MEANS = 300
FILM_SETTINGS = (Setting(0, True), Setting(4, True))


def main() -> None:
    """Measure what was asked for and write it down."""
    options = _options()
    torch.set_num_threads(1)
    result: dict[str, object] = {
        "command": f"films={options.films} users={options.users} impressions={options.impressions} "
        f"seeds={options.seeds} iterations={options.iterations}",
        "film_world": {
            str(impressions): [_measure_world(seed, impressions, options) for seed in range(options.seeds)]
            for impressions in options.impressions
        },
    }
    if options.movielens:
        result["movielens"] = measure_movielens(options.movielens, iterations=options.iterations)
    if options.redial:
        result["redial"] = measure_redial(options.redial, iterations=options.iterations)
    if options.openbandit:
        result["openbandit"] = measure_openbandit(options.openbandit, iterations=options.iterations)
    print(json.dumps(result, indent=2))
    print(record("mirror", result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="worlds to measure, 0 for none")
    parser.add_argument("--films", type=int, default=2400)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument(
        "--impressions", type=int, nargs="+", default=[300, 120], help="rows of the log for each user"
    )
    parser.add_argument("--iterations", type=int, default=40, help="rounds of a fit")
    parser.add_argument("--movielens", type=Path, help="folder of MovieLens 100K")
    parser.add_argument("--redial", type=Path, help="folder with redial_dialogues_valid.jsonl.gz")
    parser.add_argument("--openbandit", type=Path, help="folder with the logs `random` and `bts`")
    return parser.parse_args()


def _measure_world(seed: int, impressions: int, options: argparse.Namespace) -> dict[str, object]:
    start = time.process_time()
    world = build_film_world(options.films, options.users, seed=seed, impressions_per_user=impressions)
    log, later = split_by_user(world.log, 0.8)
    features = world.catalogue.features.astype(np.float64)
    model, chosen, tried = fit_best_levels(
        log,
        features,
        n_users=world.n_users,
        iterations=options.iterations,
        settings=FILM_SETTINGS,
        seed=0,
    )
    _progress(f"{impressions} impressions, seed {seed}: fitted", start)
    told = level_probabilities(model, later)
    true = world.oracle.level_probabilities(later["user_id"], later["item_id"], position=later["position"])
    loss, least = log_losses(told, later), log_losses(true, later)
    reached = later["level"].to_numpy()
    counts = np.bincount(log["level"], minlength=world.oracle.n_levels)
    base = np.broadcast_to(counts / counts.sum(), told.shape)
    histories = histories_from_log(log, np.arange(world.n_users), len(world.catalogue))
    result = {
        "seed": seed,
        "setting": {**chosen._asdict(), "tried": {str(s): loss for s, loss in tried.items()}},
        "nll": float(loss.mean()),
        "oracle_nll": float(least.mean()),
        "base_rate_nll": float(log_losses(base, later).mean()),
        "ratio": float(loss.mean() / least.mean()),
        "excess_by_user": bootstrap_interval(by_user(loss - least, later), seed=0).to_report(),
        "ratio_with_hidden_qualities_given": float(
            _loss_with_hidden_qualities(world, log, later, seed, options.iterations) / least.mean()
        ),
        "ece": [
            calibration_error(np.clip(told[:, k:].sum(axis=1), 0, 1), reached >= k)
            for k in range(1, told.shape[1])
        ],
        "position": _interval(model, "position", IMPRESSION_POSITION_EFFECT),
        "popularity": _interval(model, "popularity", _true_popularity_effect(world, model)),
        "recommenders": _rank_recommenders(world, log, model, histories, seed),
    }
    _progress(json.dumps(result), start)
    return result | {"cpu_s": time.process_time() - start}


def _progress(text: str, start: float) -> None:
    print(f"[{time.process_time() - start:.0f} s] {text}", flush=True)


def _loss_with_hidden_qualities(
    world: World, log: pd.DataFrame, later: pd.DataFrame, seed: int, iterations: int
) -> float:
    """NLL of the model where films' true hidden qualities are among their attributes: what is left is users to know."""
    vectors = draw_population(world.catalogue, world.n_users, seed=seed).item_vectors.astype(np.float64)
    model = fit_levels(log, vectors, n_users=world.n_users, n_factors=0, iterations=iterations, seed=0)
    return float(log_losses(level_probabilities(model, later), later).mean())


def _interval(model: LevelModel, name: str, truth: float) -> dict[str, object]:
    effect = model.effects[name]
    low, high = effect.interval
    return {
        "truth": truth,
        "value": float(effect.value),
        "ci95": [float(low), float(high)],
        "inside": bool(low <= truth <= high),
    }


def _true_popularity_effect(world: World, model: LevelModel) -> float:
    """Slope of films' true mean utility on popularity, attributes held fixed, in logits of the first step.

    The mean is over some users, enough as attributes take up all that they differ in but the hidden part.
    """
    users = np.arange(min(USERS_FOR_MEANS, world.n_users))
    items = np.arange(len(world.catalogue))
    mean = np.mean(
        [world.oracle.item_utility(np.full(len(items), user), items) for user in users.tolist()], axis=0
    )
    design = np.column_stack([model.popularity, model.features, np.ones(len(items))])
    return float(IMPRESSION_SLOPES[0] * np.linalg.lstsq(design, mean, rcond=None)[0][0])


def _rank_recommenders(
    world: World, log: pd.DataFrame, model: LevelModel, histories: Histories, seed: int
) -> dict[str, object]:
    """Mean chance that a recommended film is saved, by the truth and by the model, and how their orders agree."""
    found = {}
    for name, items in _lists(world, log, histories, seed).items():
        users = np.repeat(np.arange(world.n_users), items.shape[1])
        shown = items.ravel()
        true = world.oracle.level_probabilities(users, shown)[:, SUCCESS:].sum(axis=1).mean()
        told = model.probabilities(users, shown)[:, SUCCESS:].sum(axis=1).mean()
        found[name] = {"true": float(true), "simulated": float(told)}
    true, told = ([value[key] for value in found.values()] for key in ("true", "simulated"))
    return {
        "tau": float(kendalltau(true, told).statistic),
        "smallest_true_gap": float(np.diff(np.sort(true)).min()),
        "values": found,
    }


def _lists(world: World, log: pd.DataFrame, histories: Histories, seed: int) -> dict[str, Ints]:
    """What eight recommenders of different quality offer each user, films of the user's log left out."""
    rng = np.random.default_rng((seed, 9))
    some = histories[np.sort(rng.choice(world.n_users, world.n_users // 20, replace=False))]
    retrievers: dict[str, Retriever] = {
        "popularity": popularity.train(histories, seed=seed),
        "item_knn": item_knn.train(histories, seed=seed),
        "als_weak": als.train(some, seed=seed, config=als.IAlsConfig(factors=8, iterations=4)),
        "ease_weak": ease.train(
            some, seed=seed, config=ease.EaseConfig(l2=(1000.0,), weightings=("wanted",))
        ),
        "ease": ease.train(histories, seed=seed),
        "gnolr": gnolr.train(log, n_items=len(world.catalogue), seed=seed, config=GnolrConfig(epochs=8)),
    }
    lists = {name: model.search(histories, LIST).items for name, model in retrievers.items()}
    lists["random"] = _best(rng.random(histories.shape), histories)
    lists["noisy_oracle"] = _best(_noisy_truth(world, rng), histories)
    return lists


def _noisy_truth(world: World, rng: np.random.Generator) -> Values:
    """True utilities with as much noise as there is signal. Shape (U, I)."""
    items = np.arange(len(world.catalogue))
    true = [world.oracle.item_utility(np.full(len(items), user), items) for user in range(world.n_users)]
    return np.asarray(np.stack(true) + rng.normal(size=(world.n_users, len(items))))


def _best(scores: Values, histories: Histories) -> Ints:
    """The `LIST` items of the highest scores in each row that are not in its history."""
    met = histories.tocoo()
    scores[met.row, met.col] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :LIST]


if __name__ == "__main__":
    main()
