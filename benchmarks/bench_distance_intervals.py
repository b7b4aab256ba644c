"""Do intervals of distances between simulated and real users cover the truth: those of the audit, and percentiles.

Draws users whose levels hang together from two populations a known distance apart, and counts how often each interval
holds the true distance, and how often it does not even hold the distance that was measured. Writes
`results/distance-intervals/<date>-<commit>.json`.

    python -m benchmarks.bench_distance_intervals --repeats 400
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import record
from recsys.significance import Interval
from simulators.faithfulness import compare_distributions, ks_distance
from simulators.faithfulness.distributions import wasserstein_distance
from simulators.faithfulness.resampling import bootstrap_gap
from tests.helpers.level_counts import draw_levels

Values = NDArray[np.float64]
SUPPORT = np.arange(5.0)
DISTANCES: Mapping[str, Callable[[Values, Values], Values]] = {
    "ks": ks_distance,
    "wasserstein": partial(wasserstein_distance, support=SUPPORT),
}
SIZES = ((20, 20, 5), (60, 60, 5), (100, 40, 1))
SHIFTS = (0.0, 0.1, 0.3, 0.8)


def main() -> None:
    """Print a line for each setting and distance, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400, help="pairs of samples for each setting")
    options = parser.parse_args()
    rows = [row for sizes in SIZES for shift in SHIFTS for row in _compare(sizes, shift, options.repeats)]
    print(record("distance-intervals", {"repeats": options.repeats, "rows": rows}))


def _compare(sizes: tuple[int, int, int], shift: float, repeats: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    everyone = [draw_levels(400_000, 4, own, rng).sum(0) for own in (shift, 0.0)]
    truth = {name: float(distance(*everyone)) for name, distance in DISTANCES.items()}
    found: dict[str, list[Interval]] = {
        f"{kind} {name}": [] for name in truth for kind in ("ours", "percentile")
    }
    for seed in range(repeats):
        one, other = draw_levels(sizes[0], sizes[2], shift, rng), draw_levels(sizes[1], sizes[2], 0.0, rng)
        ours = compare_distributions(_rows(one), _rows(other), seed=seed, n_boot=400, n_permutations=1)
        for name, distance in DISTANCES.items():
            found[f"ours {name}"].append(getattr(ours, name))
            found[f"percentile {name}"].append(bootstrap_gap(one, other, distance, seed=seed, n_boot=400))
    rows = []
    for name, intervals in found.items():
        true = truth[name.partition(" ")[2]]
        covers = np.mean([i.low - 1e-3 <= true <= i.high + 1e-3 for i in intervals])
        holds = np.mean([i.low <= i.value <= i.high for i in intervals])
        width = np.mean([i.high - i.low for i in intervals])
        print(
            f"{sizes} true {true:.3f} {name:<23} covers {covers:.3f}, holds its value {holds:.3f}, width {width:.3f}"
        )
        rows.append(
            {
                "sizes": sizes,
                "true": true,
                "interval": name,
                "covers": float(covers),
                "holds": float(holds),
                "width": float(width),
            }
        )
    return rows


def _rows(counts: Values) -> tuple[NDArray[np.int64], Values]:
    """User and level of each row."""
    users = np.repeat(np.arange(len(counts)), counts.sum(1).astype(np.int64))
    return users, np.repeat(np.tile(SUPPORT, len(counts)), counts.ravel().astype(np.int64))


if __name__ == "__main__":
    main()
