"""How well predicted probabilities foretell which option of a list real users took.

Accuracy is never read off one random draw of the predicted distribution: the expected accuracy is the probability of
the option that was taken, and top-1 accuracy takes the likeliest option.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.significance import Interval, bootstrap_interval
from simulators.errors import FaithfulnessError
from simulators.faithfulness.resampling import (
    PERMUTATIONS,
    RESAMPLES,
    Values,
    bootstrap_statistic,
    cells_by_user,
    sums_by_user,
)

BINS = 15
SUM_TOLERANCE = 1e-3
"""How far the probabilities of a scene may sum from 1, as files often hold four digits."""
_SMALLEST = 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Lists of options with a predicted probability each, of which a real user took one.

    Attributes:
        users: Id of each scene's user. Shape (S,).
        lengths: Number of options of each scene. Shape (S,).
        probabilities: Of the options, scene by scene, in the order of their slots. Shape (N,), N the sum of lengths.
        slots: Place of the option that was taken in its list, from 0. Shape (S,).
    """

    users: NDArray[np.str_]
    lengths: NDArray[np.int64]
    probabilities: Values
    slots: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Row of each scene's first option. Shape (S,)."""
        starts: NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths
        return starts

    @property
    def taken(self) -> NDArray[np.int64]:
        """Row of each option that was taken. Shape (S,)."""
        return self.starts + self.slots

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.lengths)


class Reliability(NamedTuple):
    """Predicted probability against observed rate, over bins with about as many options each.

    error: Expected calibration error, mean |rate - probability| over options.
    probability: Mean prediction of each bin that holds an option. Shape (b,).
    rate: Share of its options that were taken. Shape (b,).
    rows: Number of its options. Shape (b,).
    """

    error: Interval
    probability: Values
    rate: Values
    rows: NDArray[np.int64]


class SlotAccuracy(NamedTuple):
    """Accuracy by the place of the option that was taken.

    rows: Scenes whose option stood there. Shape (K,).
    due: Scenes that would be there if options were placed evenly. Shape (K,).
    top1: Top-1 accuracy there; NaN without scenes. Shape (K,).
    expected: Mean probability of the option taken; NaN without scenes. Shape (K,).
    p_flat: Chance of expected accuracies as uneven if the place made no difference.
    by_chance: How far the slot that strays most lies from its due, in 95 of 100 cases at most, if the place made no
        difference; where it is large, few scenes hide a difference that matters. NaN where no two scenes of one length
        have their answers in different slots, so that nothing was tested.
    p_even: Chance of places as uneven if options had been placed evenly; low where a list never holds the answer in
        some slot, which hands a model accuracy for nothing.
    """

    rows: NDArray[np.int64]
    due: Values
    top1: Values
    expected: Values
    p_flat: float
    by_chance: float
    p_even: float


def scenes_from_frame(frame: pd.DataFrame) -> Scenes:
    """Scenes from a table with one option a row.

    Args:
        frame: Columns scene_id, user_id, probability, chosen (1 for the option taken, else 0), and slot (place in the
            list) unless the rows of a scene stand in that order.

    Raises:
        FaithfulnessError: A column is missing, there is no row, a probability is none, a scene's do not sum to 1, a
            scene has another number of chosen options than one, several users, or an option twice.
    """
    missing = [name for name in ("scene_id", "user_id", "probability", "chosen") if name not in frame]
    if missing:
        raise FaithfulnessError(
            f"Predictions must have the columns scene_id, user_id, probability and chosen; {', '.join(missing)} "
            f"missing among {', '.join(map(str, frame.columns))}. Rename the columns."
        )
    if frame.empty:
        raise FaithfulnessError(
            "Predictions must hold at least one scene; got none. Check how they were written."
        )
    by = ["scene_id", "slot"] if "slot" in frame else ["scene_id"]
    rows = frame.sort_values(by, kind="stable", ignore_index=True)
    _check_options(rows)
    scene = pd.factorize(rows["scene_id"])[0]
    lengths = np.bincount(scene)
    chosen = pd.to_numeric(rows["chosen"], errors="coerce").to_numpy(dtype=np.float64)
    probability = rows["probability"].to_numpy(dtype=np.float64)
    _check_scenes(rows, scene, probability, chosen)
    starts = np.cumsum(lengths) - lengths
    users = rows["user_id"].astype(str).to_numpy(dtype=np.str_)[starts]
    total = np.bincount(scene, weights=probability)
    return Scenes(users, lengths, probability / total[scene], np.flatnonzero(chosen) - starts)


def nll_by_scene(scenes: Scenes) -> Values:
    """Negative log-probability of each option taken, in nats; probabilities are held above 1e-15. Shape (S,)."""
    nats: Values = -np.log(np.maximum(scenes.probabilities[scenes.taken], _SMALLEST))
    return nats


def expected_accuracy_by_scene(scenes: Scenes) -> Values:
    """Probability of each option taken: how often a draw from the prediction would be right. Shape (S,)."""
    return scenes.probabilities[scenes.taken]


def top1_by_scene(scenes: Scenes) -> Values:
    """1 where the option taken was the likeliest, 1 / m where it shares that place with m - 1 others. Shape (S,)."""
    best = np.maximum.reduceat(scenes.probabilities, scenes.starts)
    is_best = scenes.probabilities == np.repeat(best, scenes.lengths)
    ties = np.add.reduceat(is_best.astype(np.float64), scenes.starts)
    right: Values = is_best[scenes.taken] / ties
    return right


def mean_over_users(scenes: Scenes, by_scene: Values, *, seed: int, n_boot: int = RESAMPLES) -> Interval:
    """Mean over users of the mean of each user's scenes, with its 95 % interval.

    Args:
        scenes: S scenes.
        by_scene: Shape (S,).
        seed: Draws users.
        n_boot: Number of resamples.
    """
    _, sums = sums_by_user(scenes.users, np.stack([by_scene, np.ones(len(by_scene))], axis=1))
    return bootstrap_interval(sums[:, 0] / sums[:, 1], seed=seed, n_boot=n_boot)


def reliability(scenes: Scenes, *, seed: int, bins: int = BINS, n_boot: int = RESAMPLES) -> Reliability:
    """Whether an option predicted with probability p is taken in a share p of cases; all options count.

    Bins are cut once, from all options; equal probabilities always share a bin. The interval is that of a distance.

    Args:
        scenes: S scenes.
        seed: Draws users.
        bins: Number of bins.
        n_boot: Number of resamples.

    Source: Naeini et al. (2015), "Obtaining Well Calibrated Probabilities Using Bayesian Binning", with equal mass; the
    value of `recsys.metrics.calibration_error`.
    """
    numbers = scenes.probabilities
    place = np.searchsorted(np.sort(numbers), numbers) * bins // len(numbers)
    happened = np.zeros(len(numbers))
    happened[scenes.taken] = 1.0
    owners = np.repeat(scenes.users, scenes.lengths)
    _, sums = cells_by_user(owners, place, bins, numbers, happened, 1)

    def off(counts: Values) -> Values:
        said, was, rows = np.split(counts, 3, axis=-1)
        return np.asarray((said - was) / rows.sum(-1, keepdims=True))

    def error(counts: Values) -> Values:
        return np.asarray(np.abs(off(counts)).sum(-1))

    def strayed(counts: Values, observed: Values) -> Values:
        return np.asarray(np.abs(off(counts) - off(observed)).sum(-1))

    said, was, rows = np.split(sums.sum(0), 3)
    kept = rows > 0
    found = bootstrap_statistic(sums, error, seed=seed, n_boot=n_boot, strayed=strayed)
    return Reliability(found, said[kept] / rows[kept], was[kept] / rows[kept], rows[kept].astype(np.int64))


def slot_accuracy(scenes: Scenes, *, seed: int, n_permutations: int = PERMUTATIONS) -> SlotAccuracy:
    """Accuracy by slot, whether it is flat, and whether the options taken were placed evenly.

    Flatness: slots are dealt anew among scenes of equal length; the statistic is the sum over slots of
    n_s (mean_s - mean)^2 of the expected accuracy, less the mean of scenes of that length. Evenness: slots are drawn
    evenly; the statistic is the sum of (n_s - due_s)^2 / due_s. Slots are what is drawn, so users may differ at will.

    Args:
        scenes: S scenes.
        seed: Draws slots.
        n_permutations: Number of draws.
    """
    slots, width = scenes.slots, int(scenes.lengths.max())
    right, hit = expected_accuracy_by_scene(scenes), top1_by_scene(scenes)
    rows = np.bincount(slots, minlength=width)
    due = np.add.reduce([(scenes.lengths > s) / scenes.lengths for s in range(width)], axis=1)
    _, group = np.unique(scenes.lengths, return_inverse=True)
    centred = right - (np.bincount(group, weights=right) / np.bincount(group))[group]
    by_group = np.argsort(group, kind="stable")
    rng = np.random.default_rng(seed)
    uneven, unflat = _unevenness(rows, due), _spread(slots, centred, width)
    as_uneven = as_unflat = 0
    strayed = np.empty(n_permutations)
    for n in range(n_permutations):
        dealt = np.empty_like(slots)
        dealt[np.lexsort((rng.random(len(slots)), group))] = slots[by_group]
        as_unflat += _spread(dealt, centred, width) >= unflat - 1e-12
        strayed[n] = np.nanmax(np.abs(_means(dealt, centred, width)))
        drawn = np.floor(rng.random(len(slots)) * scenes.lengths).astype(np.int64)
        as_uneven += _unevenness(np.bincount(drawn, minlength=width), due) >= uneven - 1e-12
    return SlotAccuracy(
        rows,
        due,
        _means(slots, hit, width),
        _means(slots, right, width),
        (1 + as_unflat) / (1 + n_permutations),
        float(np.quantile(strayed, 0.95))
        if len(np.unique([group, slots], axis=1).T) > group.max() + 1
        else np.nan,
        (1 + as_uneven) / (1 + n_permutations),
    )


def _spread(slots: NDArray[np.int64], values: Values, width: int) -> float:
    count = np.bincount(slots, minlength=width)
    total = np.bincount(slots, weights=values, minlength=width)
    return float((total**2 / np.maximum(count, 1)).sum())


def _unevenness(rows: NDArray[np.int64], due: Values) -> float:
    return float(((rows - due) ** 2 / due).sum())


def _means(slots: NDArray[np.int64], values: Values, width: int) -> Values:
    count = np.bincount(slots, minlength=width)
    total = np.bincount(slots, weights=values, minlength=width)
    means: Values = np.divide(total, count, out=np.full(width, np.nan), where=count > 0)
    return means


def _check_options(rows: pd.DataFrame) -> None:
    for name in ("scene_id", "user_id"):
        if rows[name].isna().any():
            raise FaithfulnessError(
                f"Column `{name}` of predictions must have a value in every row; got none in "
                f"{int(rows[name].isna().sum())} rows. Fill or drop these scenes."
            )
    probability = pd.to_numeric(rows["probability"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~(np.isfinite(probability) & (probability >= 0) & (probability <= 1))
    if bad.any():
        raise FaithfulnessError(
            f"Column `probability` must lie in 0..1; got {rows['probability'][bad].tolist()[:3]} in {int(bad.sum())} "
            "rows. Write probabilities, not logits, and none that is missing."
        )
    by = ["scene_id", *(name for name in ("slot", "item_id") if name in rows)]
    for name in by[1:]:
        twice = rows.duplicated(["scene_id", name])
        if twice.any():
            raise FaithfulnessError(
                f"A scene must have each `{name}` once; got scene {rows['scene_id'][twice].iloc[0]} with "
                f"{rows[name][twice].iloc[0]} twice ({int(twice.sum())} such rows). Drop the repeats."
            )


def _check_scenes(rows: pd.DataFrame, scene: NDArray[np.int64], probability: Values, chosen: Values) -> None:
    first = rows["scene_id"].to_numpy()[np.unique(scene, return_index=True)[1]]
    total, taken = np.bincount(scene, weights=probability), np.bincount(scene, weights=chosen)
    wrong = np.abs(total - 1) > SUM_TOLERANCE
    if wrong.any():
        raise FaithfulnessError(
            f"The probabilities of a scene must sum to 1; got {total[wrong][0]:.4g} in scene {first[wrong][0]} and "
            f"{int(wrong.sum())} such scenes in all. Divide by their sum, the option of taking nothing included."
        )
    if not np.isin(chosen, (0.0, 1.0)).all():
        raise FaithfulnessError(
            "Column `chosen` must hold 1 for the option taken and 0 elsewhere; got "
            f"{rows['chosen'][~np.isin(chosen, (0.0, 1.0))].tolist()[:3]}. Recode it."
        )
    if (taken != 1).any():
        place = int(np.argmax(taken != 1))
        raise FaithfulnessError(
            f"Each scene must have one chosen option, marked 1, and 0 elsewhere; got {taken[place]:g} in scene "
            f"{first[place]}. Mark the option that the real user took."
        )
    if (rows.groupby("scene_id")["user_id"].nunique() != 1).any():
        raise FaithfulnessError(
            "A scene must have one user; got several in one. Number scenes over all users."
        )
