"""Popularity of late: each row of the log counts less the older it is, halved every so many days.

The answer is a `Popularity` whose counts are discounted, so it is searched, saved and loaded as that one is. It is
the baseline that a temporal split asks for: plain counts favour what was popular years before the test.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InteractionError, RecsysError, ShapeError
from recsys.models.popularity import Popularity
from recsys.types import Floats, Histories

SECONDS_A_DAY = 86_400.0


def fit_recent_popularity(
    histories: Histories,
    times: Histories | None,
    *,
    half_life_days: float,
    levels: int = 4,
    level_weights: Floats | None = None,
) -> Popularity:
    """Counts in which a row of age a days, seen from the latest row, weighs 0.5^(a / half_life_days).

    Args:
        histories: Training users. Shape (U, I).
        times: When each entry of `histories` happened, in seconds. The same entries, shape (U, I).
        half_life_days: Age at which a row counts half, above 0.
        levels: The deepest level C.
        level_weights: What each level counts for. Shape (C + 1,); None counts level c as c.

    Raises:
        RecsysError: `half_life_days` is not above 0.
        InteractionError: There are no times.
        ShapeError: `times` does not have the entries of `histories`.
        OrdinalError: A history holds a level above C.
    """
    if not half_life_days > 0:
        raise RecsysError(f"`half_life_days` must be above 0; got {half_life_days}. Try 30.")
    when = entry_times(histories, times, needed_by="recent popularity")
    age_days = (when.max(initial=0.0) - when) / SECONDS_A_DAY
    discount = np.exp2(-age_days / half_life_days)
    return Popularity.fit(histories, levels=levels, level_weights=level_weights, entry_weights=discount)


def entry_times(histories: Histories, times: Histories | None, *, needed_by: str) -> NDArray[np.float64]:
    """When each stored entry of `histories` happened, in the order in which they are stored.

    Args:
        histories: Shape (B, I).
        times: The same entries, stored in any order. Shape (B, I).
        needed_by: Name of the model, for the error.

    Returns:
        In the unit of `times`. Shape (nnz,).

    Raises:
        InteractionError: `times` is None, though there are entries.
        ShapeError: `times` does not have the entries of `histories`.
    """
    if times is None:
        if histories.nnz == 0:
            return np.empty(0, dtype=np.float64)
        raise InteractionError(
            f"`times` must say when each of the {histories.nnz:,} entries of `histories` happened, as {needed_by} "
            "follows it; got None. Build it with `times_from_log`, or choose a model that knows no order."
        )
    if times.shape == histories.shape and times.nnz == histories.nnz:
        ours, theirs = _keys(histories), _keys(times)
        to, of = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
        if np.array_equal(ours[to], theirs[of]):
            found = np.empty(histories.nnz, dtype=np.float64)
            found[to] = times.data[of]
            return found
    raise ShapeError(
        f"`times` must hold the same entries as `histories` ({histories.nnz:,} of shape {histories.shape}); got "
        f"{times.nnz:,} of shape {times.shape}, or others. Build both from one log, users and `n_items`."
    )


def _keys(entries: Histories) -> NDArray[np.int64]:
    """One number for each stored place, row first."""
    owner = np.repeat(np.arange(entries.shape[0], dtype=np.int64), np.diff(entries.indptr))
    keys: NDArray[np.int64] = owner * entries.shape[1] + entries.indices
    return keys
