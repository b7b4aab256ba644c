"""Every figure of a comparison of profiles, from what the methods did to each user on each split.

Splits share users, so a user's values are averaged over the splits that measured them before users are resampled.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.fit_scores import Scores, Values
from app.profile_methods import POOLED
from persona.diagnostics import scale_ratio
from persona.evaluation import (
    Measure,
    UserScores,
    bootstrap_mean,
    calibration_error,
    paired_difference,
    worst_decile,
)
from recsys.significance import compare_models

Report = dict[str, Any]
_RESAMPLES = 500


class Tables(NamedTuple):
    """One method's values, by user over all splits; NaN where there is none.

    accuracy: Shape (K, U).
    log_loss: Shape (K, U).
    shuffled: Shape (U,).
    agreed: Shape (U,).
    controversial: Shape (U,).
    flip: Shape (U,).
    scale: In units of the split's median. Shape (U,).
    bin_count: Sum over splits. Shape (K, U, C).
    bin_gap: Shape (K, U, C).
    """

    accuracy: Values
    log_loss: Values
    shuffled: Values
    agreed: Values
    controversial: Values
    flip: Values
    scale: Values
    bin_count: Values
    bin_gap: Values


def gather(by_seed: Sequence[Scores], users: NDArray[np.int64]) -> Tables:
    """Values of all splits as means over those that measured each user.

    Args:
        by_seed: One entry a split.
        users: All users that were measured, ascending. Shape (U,).
    """
    # Each split has pairs and a model of its own, so loudness is comparable within a split alone.
    by_seed = [part._replace(scale=_relative(part.scale)) for part in by_seed]
    mean = {
        name: _mean([(s.users, getattr(s, name)) for s in by_seed], users) for name in Tables._fields[:-2]
    }
    total = {
        name: _sum([(s.users, getattr(s, name)) for s in by_seed], users) for name in Tables._fields[-2:]
    }
    return Tables(**mean, **total)


def measure_methods(
    scores: Mapping[str, Sequence[Scores]], sizes: Sequence[int], *, seed: int
) -> tuple[Report, list[Report], Report]:
    """All figures by method, the comparisons with the average user's model, and those with the best method.

    Args:
        scores: By method, one entry a split; the splits are the same for all.
        sizes: Context sizes.
        seed: Draws the resamples.

    Returns:
        Figures by method; rows of `compare_models` against the pooled model; `best` with its rows against the others.
    """
    users = np.unique(np.concatenate([part.users for part in scores[POOLED]]))
    tables = {name: gather(parts, users) for name, parts in scores.items()}
    pooled = tables[POOLED]
    figures = {}
    for name, table in tables.items():
        by_size = {
            f"k{size}": _at_size(table, pooled, users, place, seed) for place, size in enumerate(sizes)
        }
        figures[name] = {
            "by_context": by_size,
            "shuffle_gap": paired_difference(table.accuracy[-1], table.shuffled, seed),
            "agreed": _optional(table.agreed, seed),
            "controversial": _optional(table.controversial, seed),
            "gains": (table.accuracy[-1] - pooled.accuracy[-1]).tolist(),
            "label_flip": _optional(table.flip, seed),
            "loudness": _loudness(table.scale, seed),
            "calibration": _calibration(table),
        }
    last = {name: table.accuracy[-1] for name, table in tables.items()}
    comparisons = _compare(last, POOLED, seed)
    for row in comparisons:
        # One difference has one interval, that which its verdict rests on.
        measure = figures[row["first"]]["by_context"][f"k{sizes[-1]}"]["over_pooled"]
        measure["ci95"] = [row["low"], row["high"]]
    return figures, comparisons, _best(last, seed)


def _at_size(
    table: Tables, pooled: Tables, users: NDArray[np.int64], place: int, seed: int
) -> dict[str, Measure]:
    own = UserScores(
        users, table.accuracy[place], table.log_loss[place], table.bin_count[place], table.bin_gap[place]
    )
    return {
        "accuracy": bootstrap_mean(own.accuracy, seed),
        "over_pooled": paired_difference(own.accuracy, pooled.accuracy[place], seed),
        "worst_decile": worst_decile(own.accuracy, seed),
        "log_loss": bootstrap_mean(own.log_loss, seed),
        "ece": calibration_error(own, seed),
    }


def _calibration(table: Tables) -> list[Report]:
    """Bins of confidence at the last context size: bounds, choices, and right less confidence on average."""
    count, gap = table.bin_count[-1].sum(0), table.bin_gap[-1].sum(0)
    edges = np.linspace(0.5, 1.0, len(count) + 1)
    return [
        {"from": float(edges[i]), "to": float(edges[i + 1]), "choices": int(count[i]),
         "gap": float(gap[i] / count[i])}
        for i in range(len(count)) if count[i]
    ]  # fmt: skip


def _relative(scales: Values) -> Values:
    """Scales in units of their median; as they are where that is 0."""
    middle = float(np.median(scales))
    return scales / middle if middle else scales


def _loudness(scales: Values, seed: int) -> Measure | None:
    """How much louder the tenth loudest user is than the tenth quietest; None where some have no reward at all."""
    rng = np.random.default_rng(seed)
    drawn = [scale_ratio(scales[rng.integers(len(scales), size=len(scales))]) for _ in range(_RESAMPLES)]
    value = scale_ratio(scales)
    # Quantiles between infinite values have none.
    if not np.isfinite([value, *drawn]).all():
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": value, "ci95": [float(low), float(high)], "n": len(scales)}


def _compare(last: Mapping[str, Values], baseline: str, seed: int) -> list[Report]:
    if len(last) < 2:
        return []
    return [dict(row._asdict()) for row in compare_models(last, seed=seed, baseline=baseline)]


def _best(last: Mapping[str, Values], seed: int) -> Report:
    """The method of the highest mean at the last size, and how it compares with each other one."""
    best = max(last, key=lambda name: float(last[name].mean()))
    rows = _compare(last, best, seed)
    definition = (
        "Better: over the same users, the paired permutation test has p < 0.05 after Holm's correction for all "
        f"{len(rows)} comparisons, and the 95 % bootstrap interval of the difference over users is clear of 0."
    )
    return {"name": best, "others": rows, "definition": definition}


def _optional(values: Values, seed: int) -> Measure | None:
    return bootstrap_mean(values, seed) if np.isfinite(values).any() else None


def _mean(parts: Sequence[tuple[NDArray[np.int64], Values]], users: NDArray[np.int64]) -> Values:
    spread = np.stack([_spread(own, values, users, np.nan) for own, values in parts])
    known = np.isfinite(spread)
    total = np.where(known, spread, 0.0).sum(0)
    count = known.sum(0)
    mean: Values = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


def _sum(parts: Sequence[tuple[NDArray[np.int64], Values]], users: NDArray[np.int64]) -> Values:
    total: Values = np.sum(
        [np.moveaxis(_spread(own, np.moveaxis(values, 1, -1), users, 0.0), -1, 1) for own, values in parts],
        axis=0,
    )
    return total


def _spread(own: NDArray[np.int64], values: Values, users: NDArray[np.int64], rest: float) -> Values:
    """Values of some users (last axis) at the places of all."""
    found = np.full((*values.shape[:-1], len(users)), rest)
    found[..., np.searchsorted(users, own)] = values
    return found
