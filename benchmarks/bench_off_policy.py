"""Off-policy estimators: how often their intervals hold the truth, how far off they are, and what they cost.

Logs are drawn from a world whose truth is known, evenly and by a policy of its own mind, with a reward model that can
be right and one that cannot, under each rule for choosing levels. With `--open-bandit DIR`, a folder that holds
`random` and `bts`, each real policy is also evaluated from the other's log, beside what it earned on its own. Writes
`results/off_policy/<date>-<commit>.json` with the machine and all figures; a dirty checkout writes to `results/local/`.

    python -m benchmarks.bench_off_policy --logs 200
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.recording import record
from recsys.data.bandit import bandit_log_from_frame
from recsys.data.readers.open_bandit import read_bandit_log
from recsys.off_policy import ESTIMATORS, RewardConfig, evaluate_policy, logged_policy
from recsys.off_policy.tuning import Rule
from tests.helpers.bandit_world import make_world

ROWS, RESAMPLES = 1500, 400
CASES: dict[str, tuple[bool, bool, Rule]] = {
    "even log, right model, bound": (True, True, "bound"),
    "other log, right model, bound": (False, True, "bound"),
    "other log, wrong model, bound": (False, False, "bound"),
    "other log, right model, mse": (False, True, "mse"),
    "other log, wrong model, mse": (False, False, "mse"),
    "other log, right model, slope": (False, True, "slope"),
}


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=200, help="logs drawn in each case")
    parser.add_argument("--open-bandit", type=Path, help="folder that holds random/ and bts/")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the log that is timed")
    options = parser.parse_args()
    coverage = {name: _cover(*case, logs=options.logs) for name, case in CASES.items()}
    seconds = _time(options.rows)
    real = _real(options.open_bandit) if options.open_bandit else None
    record("off_policy", {"coverage": coverage, "seconds": seconds, "open_bandit": real})
    for case, by_name in coverage.items():
        print(case)
        for estimator, row in by_name.items():
            figures = f"covered {row['covered']:.3f} bias {row['bias']:+.4f} rmse {row['rmse']:.4f}"
            print(f"  {estimator:17} {figures}")
    print(json.dumps(seconds))


def _cover(is_uniform: bool, can_be_right: bool, rule: Rule, *, logs: int) -> dict[str, dict[str, float]]:
    """Share of intervals that hold the truth, bias and root mean square error, by estimator."""
    world = make_world(is_uniform=is_uniform)
    truth = world.true_value()
    config = RewardConfig(interactions=can_be_right, l2=0.1)
    rows = []
    for seed in range(logs):
        log, dist = world.draw(ROWS, seed)
        found = evaluate_policy(log, dist, reward_model=config, seed=seed, rule=rule, n_boot=RESAMPLES)
        rows.append([(one.value, one.low, one.high) for one in found.estimates])
    value, low, high = np.moveaxis(np.asarray(rows), 2, 0)
    return {
        name: {
            "covered": float(((low <= truth) & (truth <= high))[:, place].mean()),
            "bias": float((value - truth)[:, place].mean()),
            "rmse": float(np.sqrt(((value - truth)[:, place] ** 2).mean())),
            "truth": truth,
        }
        for place, name in enumerate(ESTIMATORS)
    }


def _time(rows: int) -> dict[str, float]:
    """Seconds of one whole evaluation with all estimators and 2,000 resamples."""
    log, dist = make_world().draw(rows, 0)
    began = time.perf_counter()
    evaluate_policy(log, dist, reward_model=RewardConfig(interactions=True), seed=0)
    return {"rows": rows, "all_estimators": time.perf_counter() - began}


def _real(folder: Path) -> dict[str, object]:
    """Each policy of the Open Bandit Dataset from the other's log."""
    frames = {name: read_bandit_log(folder / name) for name in ("random", "bts")}
    logs = {
        name: bandit_log_from_frame(
            frame, position="position", context=[str(c) for c in frame if str(c).startswith("user")]
        )
        for name, frame in frames.items()
    }
    found: dict[str, object] = {}
    for name, other in (("random", "bts"), ("bts", "random")):
        one = evaluate_policy(logs[name], logged_policy(logs[other], logs[name]), seed=0)
        own = float(logs[other].rewards.mean())
        found[f"{other} from the log of {name}"] = {
            "on its own log": own,
            "effective_sample_size": one.overlap.ess,
            "estimates": [row.to_report() for row in one.estimates],
        }
        print(f"{other} from the log of {name}: {own:.4f} on its own log, ESS {one.overlap.ess:.0f}")
        print(one.table()[["value", "low", "high", "ess"]].to_string())
    return found


if __name__ == "__main__":
    main()
