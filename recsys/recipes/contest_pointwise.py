"""From predicted chances of each level to figures with intervals over users and seeds.

Rows of one user are drawn together, as they stand and fall together. Bins of calibration errors stay those of the
whole test while users are drawn; such an error is a mean of absolute values, so its resamples lie above it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.metrics import LevelMetrics, containment, exact_level_nll, level_metrics, reliability_curve
from recsys.metrics.calibration import BINS, SMALLEST
from recsys.recipes.contest_data import Round
from recsys.recipes.contest_measures import Measure, as_measure
from recsys.types import Bools, Ints

RESAMPLES = 500
# Rows times resamples that are held at once.
CELLS_AT_ONCE = 4_000_000
POINTWISE = ("auc", "gauc", "log_loss", "ece_width", "ece_mass", "brier")

Draws = NDArray[np.float64]


class Drawn(NamedTuple):
    """Resamples of users.

    users: The users that have a row, ascending. Shape (V,).
    owner: Place among them of each row's user. Shape (N,).
    counts: How often each user is drawn. Shape (R, V), float64.
    """

    users: Ints
    owner: Ints
    counts: Draws


def measure_chances(asked: Round, probabilities: NDArray[np.floating], *, seed: int) -> dict[str, Any]:
    """Every pointwise figure of one model.

    Args:
        asked: Rows that were foretold. N rows.
        probabilities: P(level >= k) in column k - 1, by seed. Shape (S, N, C).
        seed: Of the resamples.

    Returns:
        levels (for each: level, rate, metrics, curve), nll, containment, and the numbers of rows and users. A figure
        that a level does not have, such as the AUC of a level that every row reached, has the value None.
    """
    drawn = draw_users(asked.rows, seed)
    rng = np.random.default_rng([seed, 1])
    levels = range(1, probabilities.shape[2] + 1)
    nll = [exact_level_nll(own, asked.levels) for own in probabilities]
    order = [containment(own, asked.levels) for own in probabilities]
    return {
        "rows": len(asked.rows),
        "users": drawn.counts.shape[1],
        "levels": [_one_level(asked, probabilities, level, drawn, rng) for level in levels],
        "nll": _joined(
            nll, [_mean_draws(_row_nll(own, asked.levels), drawn) for own in probabilities], drawn, rng
        ),
        "containment": {
            "all_ordered": float(np.mean([one.all_ordered for one in order])),
            "predicted": _plain(np.mean([one.predicted for one in order], axis=0)),
            "going_deeper": _plain(order[0].going_deeper),
        },
    }


def draw_users(rows: Ints, seed: int) -> Drawn:
    """As many users as there are, with replacement, many times over.

    Args:
        rows: User of each row, any number. Shape (N,).
        seed: Of the draws.
    """
    users, owner = np.unique(rows, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(users), np.full(len(users), 1 / len(users)), size=RESAMPLES)
    return Drawn(users, owner.astype(np.int64), counts.astype(np.float64))


def _one_level(
    asked: Round, probabilities: NDArray[np.floating], level: int, drawn: Drawn, rng: np.random.Generator
) -> dict[str, Any]:
    happened = asked.levels >= level
    # One level alone is an event of two levels, so the metrics are asked about that.
    whole = [
        level_metrics(own[:, level - 1 : level], happened.astype(np.int64), asked.rows)[0]
        for own in probabilities
    ]
    draws = [
        level_draws(own[:, level - 1], happened, one, drawn)
        for own, one in zip(probabilities, whole, strict=True)
    ]
    values = [one.to_report() for one in whole]
    together = reliability_curve(
        np.concatenate([own[:, level - 1] for own in probabilities]), np.tile(happened, len(probabilities))
    )
    return {
        "level": level,
        "rate": values[0]["rate"],
        "metrics": {
            name: _joined([one[name] for one in values], [one[name] for one in draws], drawn, rng)
            for name in POINTWISE
        },
        "curve": {
            "mean": together.mean.tolist(),
            "rate": together.rate.tolist(),
            "rows": together.rows.tolist(),
        },
    }


def level_draws(
    probability: NDArray[np.floating], happened: Bools, whole: LevelMetrics, drawn: Drawn
) -> dict[str, Draws]:
    """Each metric of one level under every resample. Shape (R,) each, NaN where it is undefined.

    Args:
        probability: Of the event. Shape (N,).
        happened: Shape (N,).
        whole: The metrics of all rows, whose values by user are drawn again.
        drawn: The resamples.
    """
    p = probability.astype(np.float64)
    inside = np.clip(p, SMALLEST, 1 - SMALLEST)
    losses = -np.where(happened, np.log(inside), np.log1p(-inside))
    own = drawn.counts[:, np.searchsorted(drawn.users, whole.gauc.users)]
    weights = whole.gauc.weights.astype(np.float64)
    width = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    mass = np.searchsorted(np.sort(p), p) * BINS // len(p)
    return {
        "auc": auc_draws(p, happened, drawn),
        "gauc": _ratio(own @ (weights * whole.gauc.values), own @ weights),
        "log_loss": _mean_draws(losses, drawn),
        "ece_width": _ece_draws(p, happened, width, drawn),
        "ece_mass": _ece_draws(p, happened, mass, drawn),
        "brier": _mean_draws((p - happened) ** 2, drawn),
    }


def auc_draws(scores: NDArray[np.float64], happened: Bools, drawn: Drawn) -> Draws:
    """AUC over all rows under every resample, from one sort. O(R N).

    Args:
        scores: Shape (N,).
        happened: Shape (N,).
        drawn: R resamples.

    Returns:
        Shape (R,), NaN where a resample holds one class only.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    owner, is_positive = drawn.owner[order], happened[order].astype(np.float64)
    found = []
    at_once = max(1, CELLS_AT_ONCE // len(scores))
    for start in range(0, len(drawn.counts), at_once):
        weights = drawn.counts[start : start + at_once][:, owner]
        positive = np.add.reduceat(weights * is_positive, starts, axis=1)
        negative = np.add.reduceat(weights * (1 - is_positive), starts, axis=1)
        beaten = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        found.append(_ratio((positive * beaten).sum(1), pairs))
    return np.concatenate(found)


def _ece_draws(p: NDArray[np.float64], happened: Bools, place: Ints, drawn: Drawn) -> Draws:
    """Sum over fixed bins of |sum of happened - sum of p| of the rows drawn, over the number of rows drawn."""
    users = len(drawn.users)
    apart = np.bincount(drawn.owner * BINS + place, weights=happened - p, minlength=users * BINS)
    gaps = drawn.counts @ apart.reshape(users, BINS)
    return _ratio(np.abs(gaps).sum(1), drawn.counts @ np.bincount(drawn.owner, minlength=users))


def _row_nll(probabilities: NDArray[np.floating], levels: Ints) -> NDArray[np.float64]:
    """As `exact_level_nll`, a value a row."""
    n = len(levels)
    edges = np.concatenate([np.ones((n, 1)), probabilities.astype(np.float64), np.zeros((n, 1))], axis=1)
    rows = np.arange(n)
    losses: NDArray[np.float64] = -np.log(np.maximum(edges[rows, levels] - edges[rows, levels + 1], SMALLEST))
    return losses


def _mean_draws(values: NDArray[np.float64], drawn: Drawn) -> Draws:
    users = len(drawn.users)
    sums = np.bincount(drawn.owner, weights=values, minlength=users)
    return _ratio(drawn.counts @ sums, drawn.counts @ np.bincount(drawn.owner, minlength=users))


def _joined(
    values: Sequence[float], draws: Sequence[Draws], drawn: Drawn, rng: np.random.Generator
) -> Measure:
    """Mean over seeds, with the 95 % interval over users and seeds, each seed's resamples being of the same users."""
    by_seed = np.stack(draws)
    seeds, resamples = by_seed.shape
    picked = rng.integers(seeds, size=(seeds, resamples))
    means = np.take_along_axis(by_seed, picked, axis=0).mean(0)
    means = means[np.isfinite(means)]
    ends = tuple(np.quantile(means, [0.025, 0.975]).tolist()) if len(means) else None
    return as_measure(float(np.mean(values)), ends, len(drawn.users))


def _ratio(part: Draws, whole: Draws) -> Draws:
    found: Draws = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
