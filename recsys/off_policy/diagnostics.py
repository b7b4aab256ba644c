"""How much a log can say of a target policy at all, before any estimate is believed."""

from typing import NamedTuple

import numpy as np

from recsys.data.bandit import BanditLog, Values
from recsys.off_policy.estimators import Terms
from recsys.off_policy.intervals import bootstrap_terms
from recsys.off_policy.weights import importance_weights
from recsys.significance import Interval

BINS = 30


class Overlap(NamedTuple):
    """Where the two policies meet.

    n: Number of rows N.
    ess: Effective sample size (sum w)^2 / sum w^2: so many rows of the target policy's own log would say as much. 0
        where all weights are 0.
    max_weight: Largest weight.
    mean_weight: Should be 1; an interval clear of 1 says that propensities or the target policy are wrong, or that the
        target policy shows what the logging policy never does.
    share_without_support: Share of rows whose logged action the target policy never shows; they say nothing of it.
    mass_never_logged: Mean probability that the target policy gives to actions that the log never holds in that slot.
    edges: Borders of the histogram, natural logarithms of the weights above 0. Shape (BINS + 1,).
    counts: Rows in each of its bins. Shape (BINS,).
    """

    n: int
    ess: float
    max_weight: float
    mean_weight: Interval
    share_without_support: float
    mass_never_logged: float
    edges: Values
    counts: Values

    def to_report(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "n": self.n,
            "effective_sample_size": self.ess,
            "max_weight": self.max_weight,
            "mean_weight": self.mean_weight.to_report(),
            "share_without_support": self.share_without_support,
            "mass_never_logged": self.mass_never_logged,
            "log_weights": {"edges": self.edges.tolist(), "counts": [int(count) for count in self.counts]},
        }


def effective_sample_size(weights: Values) -> float:
    """Kish's (sum w)^2 / sum w^2 of weights (N,); 0 where all are 0."""
    highest = float(weights.max(initial=0.0))
    if highest == 0:
        return 0.0
    relative = weights / highest
    return float(relative.sum() ** 2 / (relative**2).sum())


def measure_overlap(
    log: BanditLog, target: Values, *, seed: int, n_boot: int = 2000, level: float = 0.95
) -> Overlap:
    """Weights of a target policy on a log, summed up.

    Args:
        log: N rows.
        target: The policy at each row's slot, as `at_positions` gives it. Shape (N, A).
        seed: Draws rows or clusters for the interval of the mean weight.
        n_boot: Number of resamples.
        level: Coverage of that interval.

    Returns:
        What was found.
    """
    weights = importance_weights(target, log)
    terms = Terms(np.zeros_like(weights), weights, None, weights, None)
    low, high = bootstrap_terms([terms], log.clusters, seed=seed, n_boot=n_boot, level=level)[0]
    units = len(log) if log.clusters is None else int(np.unique(log.clusters).size)
    logged = np.zeros((log.n_positions, log.n_actions), dtype=bool)
    logged[log.positions, log.actions] = True
    used = np.log(weights[weights > 0])
    counts, edges = np.histogram(used, bins=BINS, range=_widen(used))
    return Overlap(
        len(log),
        effective_sample_size(weights),
        float(weights.max()),
        Interval(float(weights.mean()), float(low), float(high), units),
        float((weights == 0).mean()),
        float(np.where(logged[log.positions], 0.0, target).sum(axis=1).mean()),
        edges.astype(np.float64),
        counts.astype(np.float64),
    )


def _widen(values: Values) -> tuple[float, float]:
    """Range of the values, never empty."""
    if len(values) == 0:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)
