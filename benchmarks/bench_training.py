"""Does training against learned users help users who are real, as far as the film world knows: recipes and ablations.

Starts from finished runs of `persona run`, each the film world of another seed. Every arm trains in every world with
users learned from the run's log, comparisons and rated dialogues. The policy that it leaves talks with the world's own
users, whom training never meets, several times under luck of its own; all arms meet the same luck. Told are success,
satisfaction and true utility, the gains over the policy before and over imitation alone, with intervals over users,
worlds and seeds. Needs about eight minutes an arm, world and seed on one core; a stopped benchmark goes on where it
was, and several may share a folder once imitation is done. Writes `results/training/<date>-<commit>.json`.

    for seed in 1 2 3; do persona run seed=$seed --out runs/film-world-seed$seed; done
    python -m benchmarks.bench_training runs/film-world-seed1 runs/film-world-seed2 runs/film-world-seed3
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from app.agents import agent_from
from app.config import load_settings
from app.files import read_json, write_json
from app.pipeline.rounds import viewers_of
from app.quiet import quiet_libraries
from app.rehearsing import invite_unseen
from app.train import MEASURES, train
from app.train_config import TrainConfig
from app.trained import open_run
from benchmarks.recording import record
from persona.policy.conditioned import ConditionedPolicy
from recsys.significance import bootstrap_interval, combine_seeds
from simulators.rehearsal import Rehearsal

REFERENCE, LEADER = "imitation alone", "ECPO"
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    REFERENCE: ("ecpo", ("rounds=0",)),
    LEADER: ("ecpo", ()),
    "ECPO, steered": ("ecpo", ("steer=1",)),
    "ECPO, threshold 3": ("ecpo", ("threshold=3",)),
    "ECPO without confirmation": ("ecpo", ("confirmation=false",)),
    "ECPO without gate": ("ecpo", ("gate=none",)),
    "ECPO with replay": ("ecpo", ("replay=256",)),
    "trajectory DPO": ("mtdpo", ()),
    "trajectory KTO": ("mtkto", ()),
}
# Training hears few judges, for its stop rule; the benchmark hears all, afterwards.
SETTINGS = ("learners=400", "judging=40")
Values = NDArray[np.float64]


def main() -> None:
    """Train every arm on every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs of the film world")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="draws of learners and luck in each run"
    )
    parser.add_argument(
        "--lucks", type=int, default=6, help="dialogues of each judging user with each policy"
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench-training"), help="folder of the trainings"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields for every arm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    arms = [REFERENCE, *(name for name in options.arms if name != REFERENCE)]
    worlds = [_People(run, options.lucks, options.out / run.name) for run in options.runs]
    found = {
        name: [_train(name, seed, options, people) for people in worlds for seed in options.seeds]
        for name in arms
    }
    table = {
        name: _compare(rows, found[REFERENCE], found.get(LEADER, found[REFERENCE]))
        for name, rows in found.items()
    }
    for name, row in table.items():
        print(
            f"{name:<26} "
            + " | ".join(_said(measure, row) for measure in ("success", "satisfaction", "utility"))
        )
    facts = {
        "runs": [run.name for run in options.runs],
        "seeds": options.seeds,
        "lucks": options.lucks,
        "set": [*SETTINGS, *options.set],
    }
    print(record("training", {**facts, "arms": table}))


class _People:
    """The world's own users whom the run never learned from, to be met under the same luck by every policy."""

    def __init__(self, run: Path, lucks: int, out: Path) -> None:
        self.run, self.out = run, out
        self._opened = open_run(run, "choices", "policy")
        self._guests = invite_unseen(self._opened, len(self._opened.groups.unseen), seed=0)
        self._viewers = viewers_of(self._opened, self._opened.chat)
        self._lucks = lucks
        self.before = self.judge(None, out)

    def judge(self, policy: Path | None, kept: Path) -> dict[str, list[float]]:
        """How each user fares with a policy, on average over lucks, or with the one that training starts from.

        Kept in a file in the folder `kept`, and read from it where it was.
        """
        judged = kept / f"judged-{self._lucks}.json"
        if not judged.is_file():
            kept.mkdir(parents=True, exist_ok=True)
            write_json(judged, {name: values.tolist() for name, values in self._judge(policy).items()})
        found: dict[str, list[float]] = read_json(judged)
        return found

    def _judge(self, policy: Path | None) -> dict[str, Values]:
        agent = agent_from(self._opened, "policy")
        if policy is not None:
            agent.policy = ConditionedPolicy.load(policy, self._opened.language_model)
        guests = self._guests
        outcomes = [
            Rehearsal(
                self._viewers,
                guests.users.tolist(),
                guests.histories,
                guests.condition,
                self._opened.seed(f"benchmark judges {luck}"),
            ).run(agent)
            for luck in range(self._lucks)
        ]
        return {name: np.mean([getattr(outcome, name) for outcome in outcomes], axis=0) for name in MEASURES}


def _train(name: str, seed: int, options: argparse.Namespace, people: _People) -> dict[str, Any]:
    """What one training brought to the people whom it never met."""
    method, changes = ARMS[name]
    given = [f"run={people.run}", f"seed={seed}", *SETTINGS, *options.set, *changes]
    config = load_settings(TrainConfig, None, given)
    folder = people.out / f"{name.replace(' ', '-').replace(',', '').lower()}-{seed}"
    began = time.process_time()
    train(method, config, folder, resume=True, console=Console(quiet=True))
    stage = folder / "stages" / "train"
    after = people.judge(stage / "policy", folder)
    rounds = read_json(stage / "result.json")["rounds"]
    print(
        f"{name}, {people.run.name}, seed {seed}: {time.process_time() - began:.0f} s; {rounds}",
        flush=True,
    )
    return {"before": people.before, "after": after, "rounds": rounds}


def _compare(
    rows: list[dict[str, Any]], reference: list[dict[str, Any]], leader: list[dict[str, Any]]
) -> dict[str, Any]:
    """Means before and after, gains over both and over the reference, and ECPO's, with intervals over users and runs.

    A column holds a user of each world. Which one is arbitrary, and the interval the same on average for any pairing of
    independent users.
    """
    part: dict[str, Any] = {"rounds": [row["rounds"] for row in rows]}
    for measure in MEASURES:
        before, after, other, best = (
            np.stack([np.asarray(row[when][measure], np.float64) for row in source])
            for source, when in ((rows, "before"), (rows, "after"), (reference, "after"), (leader, "after"))
        )
        part[measure] = {
            "before": float(before.mean()),
            "after": bootstrap_interval(after.mean(0), seed=0).to_report(),
            "gain": combine_seeds(after - before, seed=0).to_report(),
            "over_imitation": combine_seeds(after - other, seed=0).to_report(),
            "ecpo_over_this": combine_seeds(best - after, seed=0).to_report(),
            "over_imitation_each": (after - other).mean(1).tolist(),
        }
    return part


def _said(measure: str, row: dict[str, Any]) -> str:
    gain, over = row[measure]["gain"], row[measure]["over_imitation"]
    return (
        f"{measure} {row[measure]['before']:.3f} -> {row[measure]['after']['value']:.3f}, gain {gain['value']:+.3f} "
        f"[{gain['ci95'][0]:+.3f}, {gain['ci95'][1]:+.3f}], over imitation {over['value']:+.3f} "
        f"[{over['ci95'][0]:+.3f}, {over['ci95'][1]:+.3f}]"
    )


if __name__ == "__main__":
    main()
