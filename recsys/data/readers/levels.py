"""Levels of depth made from what logs hold: flags, ratings, or names of events."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import OrdinalError

FIVE_STAR_CUTS: tuple[float, ...] = (3.0, 4.0, 5.0)


class ContradictionPolicy(StrEnum):
    """What to do with a row that went deep without the shallower steps, such as a follow without a like."""

    # The deepest step counts.
    DEEPEST = "deepest"
    # The last step before the first one missing counts.
    SHALLOW = "shallow"
    # The row is left out.
    DROP = "drop"


class Levels(NamedTuple):
    """What rows reached.

    level: 0..C. Shape (N,), int64.
    names: What level 0..C means.
    keep: False for rows to leave out. Shape (N,), bool.
    notes: What was decided, a sentence each.
    """

    level: NDArray[np.int64]
    names: tuple[str, ...]
    keep: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def levels_from_flags(
    flags: pd.DataFrame,
    names: Sequence[str],
    policy: ContradictionPolicy = ContradictionPolicy.DEEPEST,
    *,
    ground: str = "shown",
) -> Levels:
    """Levels from one flag a step.

    Args:
        flags: Boolean columns, one for each of `names`.
        names: Steps 1..C, from shallow to deep.
        policy: What becomes of contradictory rows.
        ground: What level 0 is called.

    Raises:
        OrdinalError: No step is named, one is named twice, or one has no column.
    """
    check_names(names, flags.columns.tolist())
    steps = flags[list(names)].to_numpy(dtype=np.bool_)
    depth = np.arange(1, len(names) + 1)
    deepest = (steps * depth).max(axis=1).astype(np.int64)
    unbroken = np.logical_and.accumulate(steps, axis=1).sum(axis=1).astype(np.int64)
    contradicts = deepest != unbroken
    done = {
        ContradictionPolicy.DEEPEST: "the deepest step counts",
        ContradictionPolicy.SHALLOW: "the last step before the first one missing counts",
        ContradictionPolicy.DROP: "these rows are left out",
    }[policy]
    notes = (
        f"{int(contradicts.sum())} of {len(flags)} rows reached a step without a shallower one ({', '.join(names)}); "
        f"{done}.",
    )
    return Levels(
        unbroken if policy is ContradictionPolicy.SHALLOW else deepest,
        (ground, *names),
        ~contradicts if policy is ContradictionPolicy.DROP else np.ones(len(flags), dtype=np.bool_),
        notes if contradicts.any() else (),
    )


def levels_from_ratings(values: NDArray[np.float64], cuts: Sequence[str] | None) -> Levels:
    """Levels from ratings: level k holds those from the k-th cut-point up to the next.

    Args:
        values: Finite. Shape (N,).
        cuts: Ascending numbers, written as text; None takes 3, 4 and 5 for ratings of at most five stars.

    Raises:
        OrdinalError: Cut-points are no numbers or do not ascend, or none are given for another scale.
    """
    notes: tuple[str, ...] = ()
    if cuts is None:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        if low < 0 or not 3 < high <= 5:
            raise OrdinalError(
                f"`levels` must name cut-points unless ratings are of at most five stars; got ratings in "
                f"{low:g}..{high:g}. Name cut-points, such as those a third and two thirds up."
            )
        points = FIVE_STAR_CUTS
        notes = ("Ratings are cut at 3, 4 and 5, as nothing else was asked for.",)
    else:
        points = tuple(parse_cuts(cuts))
    names = (f"rated below {points[0]:g}", *(f"rated {cut:g} or more" for cut in points))
    level = np.searchsorted(np.asarray(points), values, side="right").astype(np.int64)
    return Levels(level, names, np.ones(len(values), dtype=np.bool_), notes)


def parse_cuts(cuts: Sequence[str]) -> list[float]:
    """Cut-points as numbers.

    Raises:
        OrdinalError: They are no numbers, none, or do not ascend.
    """
    points = pd.to_numeric(pd.Series(list(cuts), dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    if len(points) == 0 or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
        raise OrdinalError(
            f"`levels` of a log of ratings must be ascending cut-points, such as 3, 4, 5; got {list(cuts)}. "
            "Name numbers from low to high."
        )
    return [float(point) for point in points]


def levels_from_events(events: pa.ChunkedArray, names: Sequence[str] | None, *, ground: str = "") -> Levels:
    """Levels from the name of each row's event.

    Args:
        events: Dictionary-encoded names, none missing. Length N.
        names: Events in order of depth, levels 1..C; rows of other events are level 0. None takes the only event.
        ground: What level 0 is called; "" lists the events that it holds.

    Raises:
        OrdinalError: The order is not given and there are several events, or a named one never happens.
    """
    counts = {
        entry["values"]: entry["counts"]
        for entry in pc.value_counts(pc.cast(events, pa.string())).to_pylist()
    }
    found = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
    if names is None:
        if len(found) > 1:
            raise OrdinalError(
                f"`levels` must name the events in order of depth; got none, and the log holds {found}. "
                "Name them from shallow to deep."
            )
        names = list(found)
    check_names(names, list(found))
    rest = {name: count for name, count in found.items() if name not in names}
    codes = pc.index_in(pc.cast(events, pa.string()), value_set=pa.array(list(names)))
    level = pc.fill_null(codes, -1).to_numpy().astype(np.int64) + 1
    notes = (
        (f"Level 0 holds the events {rest}.",) if rest else ("No event is level 0: the log has none below.",)
    )
    below = ground or (" or ".join(rest) if rest else "not met")
    return Levels(level, (below, *names), np.ones(len(level), dtype=np.bool_), notes)


def all_met(rows: int) -> Levels:
    """Level 1 for each of `rows` rows of a log that only says what was met."""
    notes = ("The log holds no values: every row is level 1, met.",)
    return Levels(np.ones(rows, dtype=np.int64), ("not met", "met"), np.ones(rows, dtype=np.bool_), notes)


def check_names(names: Sequence[str], found: Sequence[str]) -> None:
    """Check the named steps against what a log holds.

    Raises:
        OrdinalError: None is named, one is named twice, or one is not among `found`.
    """
    unknown = [name for name in names if name not in found]
    if not names or unknown or len(set(names)) < len(names):
        wrong = f"{unknown} unknown" if unknown else "a repeat" if names else "none"
        raise OrdinalError(
            f"`levels` must name steps of the log, each once, among {list(found)}; got {list(names)}, {wrong}. "
            "Name them from shallow to deep."
        )
