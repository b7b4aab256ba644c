"""How good the predicted chances of reaching each level are, row by row of a log with impressions.

A model of ordered levels gives P(level >= k) for k = 1..C. Each level is judged as an event of its own, and all of
them together by the likelihood of the exact level and by whether deeper levels are less likely, as they must be.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import OrdinalError, ShapeError
from recsys.metrics.calibration import (
    BINS,
    SMALLEST,
    ReliabilityCurve,
    brier_score,
    log_loss,
    reliability_curve,
)
from recsys.metrics.discrimination import GroupedAuc, auc, grouped_auc
from recsys.metrics.hits import Values
from recsys.types import Bools, Ints

POINTWISE: dict[str, str] = {
    "auc": "Chance that a row that reached the level scores above one that did not, ties 1/2; over all rows.",
    "gauc": "AUC among each user's own rows, mean over users with both classes, weighted by their rows.",
    "log_loss": "Mean of -log(predicted probability of what happened), in nats, probabilities held in 1e-15..1-1e-15.",
    "ece_width": f"|rate - mean probability| of {BINS} bins of equal width over 0..1, weighted by their rows.",
    "ece_mass": f"|rate - mean probability| of {BINS} bins with equal numbers of rows, weighted by their rows.",
    "brier": "Mean squared distance of the probability from what happened (1 or 0).",
    "nll": "Mean of -log(P(level >= l) - P(level >= l + 1)) at the exact level l of a row, in nats, held above 1e-15.",
}


class LevelMetrics(NamedTuple):
    """How well one level is predicted; definitions in `POINTWISE`.

    level: 1..C.
    rate: Share of rows that reached it.
    auc: NaN where every row or none reached it.
    gauc: By user; its `mean` is the figure to print.
    log_loss: In nats.
    ece_width: 15 bins of equal width.
    ece_mass: 15 bins of equal numbers of rows.
    brier: In 0..1.
    curve: The bins of `ece_width`, to plot.
    """

    level: int
    rate: float
    auc: float
    gauc: GroupedAuc
    log_loss: float
    ece_width: float
    ece_mass: float
    brier: float
    curve: ReliabilityCurve

    def to_report(self) -> dict[str, float]:
        """The figures by their names in `POINTWISE`."""
        names = ("auc", "log_loss", "ece_width", "ece_mass", "brier")
        return {"rate": self.rate, "gauc": self.gauc.mean, **{name: getattr(self, name) for name in names}}


class Containment(NamedTuple):
    """Whether deeper levels are rarer than shallower ones, as they must be; one number for each k = 1..C - 1.

    ordered: Share of rows whose predicted P(level >= k) is above P(level >= k + 1). Shape (C - 1,).
    all_ordered: Share of rows where that holds for every k.
    predicted: Mean P(level >= k + 1) / mean P(level >= k), the model's chance of going deeper. Shape (C - 1,).
    going_deeper: Share of rows that reached k + 1 among those that reached k. NaN where none did. Shape (C - 1,).
    shallow_given_deep: Share of rows that reached k among those that reached k + 1: 1 by definition for levels, less
        where signals contradict one another, such as a purchase without a click. NaN where none did. Shape (C - 1,).
    """

    ordered: Values
    all_ordered: float
    predicted: Values
    going_deeper: Values
    shallow_given_deep: Values


def level_metrics(probabilities: NDArray[np.floating], levels: Ints, users: Ints) -> list[LevelMetrics]:
    """Every pointwise metric of every level.

    Args:
        probabilities: P(level >= k) in column k - 1. Shape (N, C), N at least 1.
        levels: The level that each row reached, 0..C. Shape (N,).
        users: Id of each row's user. Shape (N,).

    Returns:
        Levels 1..C.

    Raises:
        ShapeError: The arrays do not fit one another, or a probability lies outside 0..1.
        OrdinalError: A level lies outside 0..C.
    """
    _check_levels(probabilities, levels)
    return [
        _one_level(k, probabilities[:, k - 1], levels >= k, users)
        for k in range(1, probabilities.shape[1] + 1)
    ]


def exact_level_nll(probabilities: NDArray[np.floating], levels: Ints) -> float:
    """Mean negative log-likelihood of the exact level, in nats, from cumulative probabilities.

    Args:
        probabilities: P(level >= k) in column k - 1. Shape (N, C), N at least 1.
        levels: The level that each row reached, 0..C. Shape (N,).

    Returns:
        A level whose probability comes out below 1e-15, as where the order is broken, counts as 1e-15.

    Raises:
        ShapeError: The arrays do not fit one another.
        OrdinalError: A level lies outside 0..C.

    Example:
        >>> round(exact_level_nll(np.array([[0.75, 0.25]]), np.array([1])), 4)  # -log(3/4 - 1/4)
        0.6931
    """
    _check_levels(probabilities, levels)
    n = len(levels)
    edges = np.concatenate([np.ones((n, 1)), probabilities.astype(np.float64), np.zeros((n, 1))], axis=1)
    rows = np.arange(n)
    return float(-np.log(np.maximum(edges[rows, levels] - edges[rows, levels + 1], SMALLEST)).mean())


def containment(probabilities: NDArray[np.floating], reached: Bools | Ints) -> Containment:
    """Diagnostic of the order of levels, in what is predicted and in what was observed.

    Args:
        probabilities: P(level >= k) in column k - 1. Shape (N, C), N at least 1.
        reached: The level that each row reached, 0..C, shape (N,); or each signal's own flag, shape (N, C), which may
            contradict one another.

    Returns:
        One number for each pair of neighbouring levels.

    Raises:
        ShapeError: The arrays do not fit one another.
        OrdinalError: A level lies outside 0..C.
    """
    deep = np.asarray(reached)
    if deep.ndim == 1:
        _check_levels(probabilities, deep.astype(np.int64))
        deep = deep[:, None] >= np.arange(1, probabilities.shape[1] + 1)
    if probabilities.ndim != 2 or deep.shape != probabilities.shape or len(deep) == 0:
        raise ShapeError(
            f"`reached` must hold a level a row or a flag for each probability; got shapes {deep.shape} and "
            f"{probabilities.shape}. Take both from the same rows."
        )
    flags = deep.astype(bool)
    holds = probabilities[:, :-1] > probabilities[:, 1:]
    mean = probabilities.mean(0, dtype=np.float64)
    both = (flags[:, :-1] & flags[:, 1:]).sum(0)
    count = flags.sum(0)
    return Containment(
        ordered=holds.mean(0),
        all_ordered=float(holds.all(1).mean()),
        predicted=_share(mean[1:], mean[:-1]),
        going_deeper=_share(both, count[:-1]),
        shallow_given_deep=_share(both, count[1:]),
    )


def _one_level(level: int, probability: NDArray[np.floating], happened: Bools, users: Ints) -> LevelMetrics:
    curve = reliability_curve(probability, happened)
    return LevelMetrics(
        level=level,
        rate=float(happened.mean()),
        auc=auc(probability, happened),
        gauc=grouped_auc(probability, happened, users),
        log_loss=log_loss(probability, happened),
        ece_width=curve.error,
        ece_mass=reliability_curve(probability, happened, binning="mass").error,
        brier=brier_score(probability, happened),
        curve=curve,
    )


def _share(part: NDArray[np.number], whole: NDArray[np.number]) -> Values:
    share: Values = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return share


def _check_levels(probabilities: NDArray[np.floating], levels: Ints) -> None:
    if probabilities.ndim != 2 or levels.shape != probabilities.shape[:1] or len(levels) == 0:
        raise ShapeError(
            f"`probabilities` must have shape (rows, levels) and `levels` (rows,), with a row or more; got "
            f"{probabilities.shape} and {levels.shape}. Take both from the same rows."
        )
    deepest = probabilities.shape[1]
    outside = levels[(levels < 0) | (levels > deepest)]
    if len(outside):
        raise OrdinalError(
            f"`levels` must lie in 0..{deepest}, one column of `probabilities` for each above 0; got "
            f"{outside[:3].tolist()}. Predict every level that the log holds."
        )
