"""Profiles on simulated users over real answers: accuracy after k choices, with intervals by user, over seeds.

Users weigh eight measured attributes of real answers (`benchmarks.real_answers`); those who are measured, and half of
the prompts, are never trained on. Every method of `persona fit` is measured, hierarchical Bayes over the true
attributes and the oracle beside them. `sweep` trains VPL with KL weights from 1e-6 to 1e-1. Writes
`results/profiles/<date>-<commit>.json`.

    python -m benchmarks.bench_profiles path/to/answers.jsonl.gz --encoder path/to/sentence-encoder
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.profile_methods import METHODS, Material
from benchmarks.real_answers import (
    ATTRIBUTES,
    FEATURE_SETS,
    Answers,
    Trial,
    controversial,
    draw_trial,
    feature_matrix,
    prompt_matrix,
    read_answers,
)
from benchmarks.recording import record
from persona.evaluation import active_units, bootstrap_mean, oracle_accuracy, score_users, worst_decile
from persona.features import LENGTH_COLUMN, probe_attributes
from persona.profiles import Profile
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.recipes.latent import LatentConfig, train_latent

SIZES = (0, 1, 2, 4, 8, 16)
MOST_AXES = 128
BETAS = (1e-6, 1e-4, 1e-2, 1e-1)
SKIPPED = ("direction", "pro")
"""They read named attributes, of which these learners are not told."""


def main() -> None:
    """Measure what is asked for and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("answers", type=Path, help="JSON lines of `prompt` and `responses`, gzipped or not")
    parser.add_argument("--encoder", required=True, help="folder or id of a sentence encoder")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="folder for its states")
    parser.add_argument("--seeds", type=int, default=3, help="draws of users and prompts")
    parser.add_argument("--train-users", type=int, nargs="+", default=[120], help="users to train on")
    parser.add_argument("--unseen-users", type=int, default=240, help="users of each seed that are measured")
    parser.add_argument("--features", nargs="+", choices=FEATURE_SETS, default=list(FEATURE_SETS[1:]))
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name not in SKIPPED])
    parser.add_argument("--parts", nargs="+", choices=("methods", "sweep"), default=["methods", "sweep"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    answers = read_answers(options.answers, options.encoder, options.cache)
    found: dict[str, Any] = {
        "answers": len(answers.prompt_of),
        "seeds": options.seeds,
        "unseen_users": options.unseen_users,
    }
    for users in options.train_users:
        trials = [
            draw_trial(answers, train_users=users, unseen_users=options.unseen_users, seed=seed)
            for seed in range(options.seeds)
        ]
        part: dict[str, Any] = {"truth": _truth(trials)}
        for name in options.features:
            matrices = [feature_matrix(answers, trial.split.train, name) for trial in trials]
            part[name] = {
                "attribute_r2": probe_attributes(matrices[0], answers.values, seed=0, names=ATTRIBUTES)
            }
            if "methods" in options.parts:
                part[name]["methods"] = _methods(answers, trials, matrices, options.methods)
            if "sweep" in options.parts:
                part[name]["kl_weight"] = _sweep(trials, matrices)
        found[f"{users} training users"] = part
    print(record("profiles", found))


def _methods(
    answers: Answers, trials: Sequence[Trial], matrices: Sequence[Tensor], names: Sequence[str]
) -> dict[str, Any]:
    prompts = [prompt_matrix(answers, trial.split.train) for trial in trials]
    wide = [torch.cat(pair, dim=1) for pair in zip(matrices, prompts, strict=True)]
    table = {}
    for name in names:
        reads_prompts = METHODS[name].reads == "replies and prompts"
        given = wide if reads_prompts else matrices

        def fit(
            row: int, given: Sequence[Tensor] = given, name: str = name, reads: bool = reads_prompts
        ) -> Profile:
            size = prompts[row].shape[1] if reads else 0
            material = Material(trials[row].split.train, given[row], row, size, LENGTH_COLUMN)
            return METHODS[name].fit(material)

        table[name] = _measure(trials, given, fit)
        _show(name, table[name])
    return table


def _truth(trials: Sequence[Trial]) -> dict[str, Any]:
    """What the true attributes allow: hierarchical Bayes over them, and someone who knows the users as well."""
    matrices = [torch.from_numpy(trial.users.values).float() for trial in trials]
    known = _measure(
        trials,
        matrices,
        lambda row: fit_hierarchical_bayes(trials[row].split.train, matrices[row], seed=row),
    )
    ceiling = np.concatenate(
        [oracle_accuracy(trial.split.target, trial.users.advantage(trial.split.target)) for trial in trials]
    )
    oracle = bootstrap_mean(ceiling, seed=0)
    _show("true attributes", known)
    print(f"oracle {100 * oracle['value']:.1f}", flush=True)
    return {"true attributes": known, "oracle": oracle}


def _measure(
    trials: Sequence[Trial], matrices: Sequence[Tensor], fit: Callable[[int], Profile]
) -> dict[str, Any]:
    """One method on the users of all seeds together; they are different people."""
    began = time.process_time()
    profiles = [fit(row) for row in range(len(trials))]
    seconds = time.process_time() - began
    rows = list(zip(profiles, trials, matrices, strict=True))

    def accuracy(k: int, *, shuffled: bool = False) -> np.ndarray:
        return np.concatenate(
            [
                score_users(p, t.split.context, t.split.target, m, k=k, seed=0, shuffled=shuffled).accuracy
                for p, t, m in rows
            ]
        )

    def divided(wanted: bool) -> np.ndarray:
        parts = []
        for profile, trial, matrix in rows:
            kept = trial.split.target.select(controversial(trial) == wanted)
            parts.append(
                score_users(profile, trial.split.context, kept, matrix, k=SIZES[-1], seed=0).accuracy
            )
        return np.concatenate(parts)

    own = accuracy(SIZES[-1])
    return {
        "accuracy": {f"k{k}": bootstrap_mean(accuracy(k), seed=0) for k in SIZES},
        "shuffle_gap": bootstrap_mean(own - accuracy(SIZES[-1], shuffled=True), seed=0),
        "worst_decile": worst_decile(own, seed=0),
        "agreed": bootstrap_mean(divided(False), seed=0),
        "controversial": bootstrap_mean(divided(True), seed=0),
        "active_units": [_active_units(p, t, m) for p, t, m in rows],
        "fit_cpu_s": seconds,
    }


def _active_units(profile: Profile, trial: Trial, matrix: Tensor) -> float | None:
    """Used directions of the latent; None where the latent is so wide that counting its axes would take hours."""
    if profile.latent_dim > MOST_AXES:
        return None
    return active_units(profile, trial.split.context, matrix, k=SIZES[-1], seed=0)["value"]


def _sweep(trials: Sequence[Trial], matrices: Sequence[Tensor]) -> dict[str, Any]:
    """VPL's default under KL weights over five orders of magnitude."""
    table = {}
    for beta in BETAS:
        config = LatentConfig(beta=beta)

        def fit(row: int, config: LatentConfig = config) -> Profile:
            return train_latent(trials[row].split.train, matrices[row], config, seed=row)

        table[f"{beta:g}"] = _measure(trials, matrices, fit)
        _show(f"VPL, KL weight {beta:g}", table[f"{beta:g}"])
    return table


def _show(name: str, found: dict[str, Any]) -> None:
    line = " ".join(f"{100 * found['accuracy'][f'k{k}']['value']:.1f}" for k in SIZES)
    last = [100 * bound for bound in found["accuracy"][f"k{SIZES[-1]}"]["ci95"]]
    gap = 100 * found["shuffle_gap"]["value"]
    print(
        f"{name:<20} {line}  [{last[0]:.1f}, {last[1]:.1f}] gap {gap:.1f}  {found['fit_cpu_s']:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
