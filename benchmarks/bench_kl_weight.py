"""Does the default's latent depend on the weight of the KL: accuracy and use of the latent from 1e-6 to 1.

Trains the closed-form profile on the planted world with each weight and scores it on unseen users and prompts. Writes
`results/kl_weight/<date>-<commit>.json`; a dirty checkout writes to `results/local/kl_weight/`.

    python -m benchmarks.bench_kl_weight --seeds 3
"""

import argparse
from collections.abc import Mapping

import numpy as np
import torch

from benchmarks.recording import record
from persona.data.splits import split_users_and_prompts
from persona.evaluation import active_units, context_shuffle_gap, score_users
from persona.recipes.latent import LatentConfig, train_latent
from tests.helpers.preference_world import make_world

WEIGHTS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SHOWN = 8
GOAL_SPREAD = 0.015
"""Largest difference of accuracy over the weights up to 0.1."""


def sweep(seed: int) -> dict[str, dict[str, float]]:
    """By weight: accuracy, active directions and the loss of accuracy under shuffled contexts, at 8 pairs."""
    world = make_world(comparisons=100, seed=seed)
    split = split_users_and_prompts(world.table, seed=seed, test_users=1 / 3)
    measured = {}
    for weight in WEIGHTS:
        profile = train_latent(split.train, world.features, LatentConfig(beta=weight), seed=seed)
        at = (profile, split.context, split.target, world.features)
        measured[f"{weight:g}"] = {
            "accuracy": float(score_users(*at, k=SHOWN, seed=seed).accuracy.mean()),
            "active": active_units(profile, split.context, world.features, k=SHOWN, seed=seed)["value"],
            "shuffle_gap": context_shuffle_gap(*at, k=SHOWN, seed=seed)["value"],
        }
    return measured


def main() -> None:
    """Sweep on every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="worlds")
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    runs = [sweep(seed) for seed in range(seeds)]
    mean = {weight: _mean([run[weight] for run in runs]) for weight in runs[0]}
    swept = [figures["accuracy"] for weight, figures in mean.items() if float(weight) <= 0.1]
    spread = max(swept) - min(swept)
    record("kl_weight", {"runs": runs, "mean": mean, "spread_up_to_0.1": spread, "goal_spread": GOAL_SPREAD})
    for weight, figures in mean.items():
        shown = f"{100 * figures['accuracy']:.2f} %, {figures['active']:.1f} active"
        print(f"weight {weight}: {shown}, shuffle gap {100 * figures['shuffle_gap']:.1f}")
    print(f"spread up to 0.1: {100 * spread:.2f} points, goal {100 * GOAL_SPREAD:g}")


def _mean(rows: list[dict[str, float]]) -> Mapping[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


if __name__ == "__main__":
    main()
