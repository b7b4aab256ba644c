"""Does training against learned users help users who are real, as far as the film world knows: recipes and ablations.

Starts from a finished `persona run` of the film world. Every arm trains with users learned from the run's log and
comparisons and is judged by the world's own users, whom training never meets, under the same luck for all arms:
success, satisfaction, true utility, and the gains over imitation alone, with intervals over users and seeds. Needs
about three minutes an arm and seed on one core; a stopped benchmark goes on where it was. Writes
`results/training/<date>-<commit>.json`.

    python -m benchmarks.bench_training runs/film-world-seed0 --seeds 0 1 2
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

from app.config import load_settings
from app.files import read_json
from app.train import MEASURES, train
from app.train_config import TrainConfig
from benchmarks.recording import record
from recsys.significance import bootstrap_interval, combine_seeds

REFERENCE = "imitation alone"
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    REFERENCE: ("ecpo", ("rounds=0",)),
    "ECPO": ("ecpo", ()),
    "ECPO, threshold 3": ("ecpo", ("threshold=3",)),
    "ECPO without confirmation": ("ecpo", ("confirmation=false",)),
    "ECPO without gate": ("ecpo", ("gate=none",)),
    "trajectory DPO": ("mtdpo", ()),
    "trajectory KTO": ("mtkto", ()),
}
Values = NDArray[np.float64]


def main() -> None:
    """Train every arm on every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of the film world")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="draws of learners and luck")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench-training"), help="folder of the trainings"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields for every arm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = [REFERENCE, *(name for name in options.arms if name != REFERENCE)]
    found = {name: [_train(name, seed, options) for seed in options.seeds] for name in arms}
    table = {name: _compare(rows, found[REFERENCE]) for name, rows in found.items()}
    for name, row in table.items():
        print(
            f"{name:<26} "
            + " | ".join(_said(measure, row) for measure in ("success", "satisfaction", "utility"))
        )
    print(record("training", {"seeds": options.seeds, "set": options.set, "arms": table}))


def _train(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What judges felt at the beginning and the end of one training."""
    method, changes = ARMS[name]
    config = load_settings(TrainConfig, None, [f"run={options.run}", f"seed={seed}", *options.set, *changes])
    folder = options.out / f"{name.replace(' ', '-').replace(',', '').lower()}-{seed}"
    began = time.process_time()
    train(method, config, folder, resume=True, console=Console(quiet=True))
    saved = read_json(folder / "stages" / "train" / "result.json")
    print(f"{name}, seed {seed}: {time.process_time() - began:.0f} s; {saved['rounds']}", flush=True)
    return {"before": saved["outcomes"][0], "after": saved["outcomes"][-1], "rounds": saved["rounds"]}


def _compare(rows: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    """Means before and after, the gain, and the gain over the reference, with intervals over users."""
    part: dict[str, Any] = {"rounds": [row["rounds"] for row in rows]}
    for measure in MEASURES:
        before, after, other = (
            _by_seed(source, moment, measure)
            for source, moment in ((rows, "before"), (rows, "after"), (reference, "after"))
        )
        part[measure] = {
            "before": float(before.mean()),
            "after": bootstrap_interval(after.mean(0), seed=0).to_report(),
            "gain": combine_seeds(after - before, seed=0).to_report(),
            "over_imitation": combine_seeds(after - other, seed=0).to_report(),
        }
    return part


def _by_seed(rows: list[dict[str, Any]], moment: str, measure: str) -> Values:
    """Shape (seeds, users); the judges are the same in every seed where all unseen users judge."""
    return np.stack([np.asarray(row[moment][measure], np.float64) for row in rows])


def _said(measure: str, row: dict[str, Any]) -> str:
    gain, over = row[measure]["gain"], row[measure]["over_imitation"]
    return (
        f"{measure} {row[measure]['before']:.3f} -> {row[measure]['after']['value']:.3f}, gain {gain['value']:+.3f} "
        f"[{gain['ci95'][0]:+.3f}, {gain['ci95'][1]:+.3f}], over imitation {over['value']:+.3f} "
        f"[{over['ci95'][0]:+.3f}, {over['ci95'][1]:+.3f}]"
    )


if __name__ == "__main__":
    main()
