"""Every profile on made-up users whose truth is known: where its assumptions hold, and where they do not.

Families (`persona.data.synthetic`): linear, ideal points, cycles, flipped labels, ties, clusters, and cycles that half
of the users go round the other way. A quarter of the users and half of the prompts are never trained on. Accuracy and
log loss after 16 choices and after about a hundred stand beside those of the oracle, who knows each user: a method
whose assumptions hold comes within noise of it when it has seen enough. Writes `results/families/<date>-<commit>.json`.

    python -m benchmarks.bench_families --seeds 3
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.profile_methods import METHODS, Material
from benchmarks.recording import record
from persona.data import split_users_and_prompts
from persona.data.comparisons import ComparisonTable
from persona.data.synthetic import FAMILIES, PreferenceFamily, Size, draw_cyclic
from persona.evaluation import bootstrap_mean, oracle_accuracy, paired_difference, score_users

Values = NDArray[np.float64]

SIZES = {"k16": 16, "all": 1000}
"""Most choices shown of each unseen user."""
COMPARISONS = 480
DIMENSIONS = {"ideal": 3, "cyclic": 2, "cyclic, both ways": 2}
USUAL_DIMENSIONS = 6

EVERYTHING: Mapping[str, Callable[..., PreferenceFamily]] = {
    **FAMILIES,
    "cyclic, both ways": partial(draw_cyclic, reversed_users=0.5),
}


def main() -> None:
    """Measure all and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="draws of each family")
    parser.add_argument("--families", nargs="+", choices=list(EVERYTHING), default=list(EVERYTHING))
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[name for name, method in METHODS.items() if method.reads == "replies"],
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods = [name for name in options.methods if name != "length"]
    found = {family: _family(family, methods, options.seeds) for family in options.families}
    print(record("families", found))


def _family(name: str, methods: list[str], seeds: int) -> dict[str, Any]:
    """Accuracy and log loss of every method and of the oracle on one family, users of all seeds together."""
    rows: dict[tuple[str, str], list[tuple[Values, Values]]] = {}
    size = Size(comparisons=COMPARISONS, dims=DIMENSIONS.get(name, USUAL_DIMENSIONS))
    began = time.process_time()
    for seed in range(seeds):
        family = EVERYTHING[name](seed, size)
        split = split_users_and_prompts(family.table.without_ties(), seed=seed)
        for shown in SIZES:
            rows.setdefault(("oracle", shown), []).append(_oracle(family, split.target))
        for method in methods:
            profile = METHODS[method].fit(Material(split.train, family.features, seed))
            for shown, k in SIZES.items():
                scores = score_users(profile, split.context, split.target, family.features, k=k, seed=seed)
                rows.setdefault((method, shown), []).append((scores.accuracy, scores.log_loss))
    whole = {key: tuple(map(np.concatenate, zip(*parts, strict=True))) for key, parts in rows.items()}
    table: dict[str, Any] = {}
    for (method, shown), (accuracy, loss) in whole.items():
        ceiling, least = whole["oracle", shown]
        table.setdefault(method, {})[shown] = {
            "accuracy": bootstrap_mean(accuracy, seed=0),
            "below_oracle": paired_difference(ceiling, accuracy, seed=0),
            "log_loss_over_oracle": paired_difference(loss, least, seed=0),
        }
    for method, found in table.items():
        _show(name, method, found)
    print(f"{name}: {time.process_time() - began:.0f} s", flush=True)
    return table


def _oracle(family: PreferenceFamily, target: ComparisonTable) -> tuple[Values, Values]:
    """Accuracy and log loss by user of someone who knows the users."""
    loss = -np.log(family.probability(target))
    _, owner = np.unique(target.users, return_inverse=True)
    return oracle_accuracy(target, family.advantage(target)), np.bincount(owner, loss) / np.bincount(owner)


def _show(family: str, method: str, found: dict[str, Any]) -> None:
    parts = []
    for shown, measures in found.items():
        value, (low, high) = measures["below_oracle"]["value"], measures["below_oracle"]["ci95"]
        parts.append(
            f"{shown} {100 * measures['accuracy']['value']:.1f}, {100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}] "
            f"below the oracle, log loss +{measures['log_loss_over_oracle']['value']:.3f}"
        )
    print(f"{family:<18} {method:<14} {' | '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
