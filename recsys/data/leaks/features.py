"""Finding feature columns that were computed on the whole log, test rows included.

A number such as an item's popularity, mean rating or latest sale is compared with the same figure of the known rows and
of all rows, on those users or items whose figure the test rows change: rows as they were merged for the split, and,
where they are given, the events that they were merged from. A column that follows the latter far more closely
has seen the test. What does not follow the log at all, such as an age or a year, is never near enough to be told.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from recsys.columns import IS_TEST, ITEM, LEVEL, TIMESTAMP, USER
from recsys.data.dataset import Dataset, Entities, FeatureKind
from recsys.data.leaks.findings import NAMED_AT_MOST, Leak, LeakKind, Severity
from recsys.data.splits import Split
from recsys.errors import InteractionError

# Flagged: at most this share of the column's variance is left open by the figure of all rows ...
LEFT_OPEN = 0.1
# ... and at most this part of what the best figure without the test rows leaves open.
FAR_BELOW = 1 / 3
# Fewer users or items than this cannot tell; more than that many are thinned out evenly.
ENOUGH, PLENTY = 20, 5_000
# Differences below this are rounding.
ROUNDING = 1e-9


class _Figure(NamedTuple):
    """A figure of each user or item: a count, or the mean `sums / rows`. Shape (N,) each.

    rows: None for a count.
    """

    sums: NDArray[np.float64]
    rows: NDArray[np.float64] | None = None

    def at(self, places: NDArray[np.int64]) -> "_Figure":
        """The figure of some users or items only."""
        return _Figure(self.sums[places], None if self.rows is None else self.rows[places])

    def values(self) -> NDArray[np.float64]:
        """NaN where a mean is of no row. Shape (N,)."""
        if self.rows is None:
            return self.sums
        with np.errstate(invalid="ignore"):
            return self.sums / self.rows


Figures = Mapping[str, _Figure]


class _Fit(NamedTuple):
    """How closely a column follows one figure: shares of its variance left open, and on how many entities."""

    figure: str
    without_test: float
    with_test: float
    places: NDArray[np.int64]


def feature_leaks(split: Split, dataset: Dataset, events: pd.DataFrame | None = None) -> list[Leak]:
    """Dense columns of users and items that reproduce figures of the log with the test rows in it.

    Args:
        split: Cut from `dataset.log` or from a filtered copy with the same ids and index labels.
        dataset: Its feature tables are looked at.
        events: What `dataset.log` was merged from, repeats of a pair included, over the same ids; -1 stands for users
            and items that the tables lack. A column `is_test` marks what a source gives as its test.

    Returns:
        One finding a column.

    Raises:
        InteractionError: Two parts use one index label for different rows, or an id lies outside the tables.
    """
    sides = [(USER, "users", dataset.users), (ITEM, "items", dataset.items)]
    sides = [side for side in sides if _dense_columns(side[2])]
    if not sides:
        return []
    before = _union([split.train, split.validation.known, split.validation.target, split.test.known])
    without_test = [before, split.train]
    with_test = [_union([before, split.test.target])]
    if len(dataset.log) != len(with_test[0]):
        with_test.append(dataset.log)
        without_test.append(dataset.log[~dataset.log.index.isin(split.test.target.index)])
    views = [(without_test, with_test)]
    if events is not None:
        views.append((_events_without_test(events, split), [events]))
    found = []
    for id_column, name, entities in sides:
        figures = [
            tuple([_figures(log, id_column, len(entities), dataset.levels) for log in logs] for logs in view)
            for view in views
        ]
        # What follows any figure without the test rows is clean, in whichever view.
        clean = [one for without, _ in figures for one in without]
        for column, values in _dense_columns(entities).items():
            fits = [_worst_fit(values, without, full, clean) for without, full in figures]
            fit = min((fit for fit in fits if fit is not None), key=_suspicion, default=None)
            if fit is not None:
                found.append(_finding(f"{name}.{column}", fit, entities))
    return found


def _events_without_test(events: pd.DataFrame, split: Split) -> list[pd.DataFrame]:
    """The events that someone could have counted without the test: all but its pairs, train's pairs, earlier ones."""
    own = pd.MultiIndex.from_frame(events[[USER, ITEM]])
    target, train = (
        pd.MultiIndex.from_frame(part[[USER, ITEM]]) for part in (split.test.target, split.train)
    )
    found = [events[~own.isin(target)], events[own.isin(train)]]
    if IS_TEST in events.columns:
        found.append(events[~events[IS_TEST].to_numpy(dtype=bool)])
    if TIMESTAMP in events.columns:
        parts = (split.test.target, split.validation.target)
        begins = [part[TIMESTAMP].min() for part in parts if TIMESTAMP in part.columns and len(part)]
        found += [events[events[TIMESTAMP] < begin] for begin in begins]
    return found


def _dense_columns(entities: Entities) -> dict[str, NDArray[np.float64]]:
    """The dense feature columns that vary, by name."""
    columns = {
        name: entities.features[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name, kind in entities.kinds.items()
        if kind is FeatureKind.DENSE
    }
    return {name: values for name, values in columns.items() if len(np.unique(values)) > 1}


def _union(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows of the parts, each index label once."""
    full = [part for part in parts if len(part)]
    kept = [USER, ITEM, LEVEL] + [TIMESTAMP] * all(TIMESTAMP in part.columns for part in full)
    rows = pd.concat([part[kept] for part in full])
    repeated = rows.index.duplicated()
    once = rows[~repeated]
    again = rows[repeated]
    same = once.loc[again.index, [USER, ITEM]].to_numpy() == again[[USER, ITEM]].to_numpy()
    if not same.all():
        label = again.index[~same.all(axis=1)][0]
        raise InteractionError(
            f"The parts of a split must keep the index labels of one log; label {label} names different rows in two "
            "parts. Cut with the functions of `recsys.data.splits`, or do not reset the index."
        )
    return once


def _figures(log: pd.DataFrame, id_column: str, size: int, deepest: int) -> Figures:
    """Figures of each user or item in the log, by name. Shape (size,) each."""
    log = log[log[id_column] >= 0]
    ids, levels = log[id_column].to_numpy(dtype=np.int64), log[LEVEL].to_numpy(dtype=np.int64)
    if len(ids) and (ids.max() >= size or levels.max() > deepest):
        raise InteractionError(
            f"`{id_column}` must lie in 0..{size - 1} and `{LEVEL}` in 0..{deepest}; got {ids.max()} and "
            f"{levels.max()}. Give the data set that the split was cut from."
        )
    table = np.bincount(ids * (deepest + 1) + levels, minlength=size * (deepest + 1))
    reached = table.reshape(size, deepest + 1)[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
    rows = reached[:, 0]
    figures = {"number of rows": _Figure(rows), "mean level": _Figure(reached[:, 1:].sum(axis=1), rows)}
    if TIMESTAMP in log.columns:
        latest = log.groupby(id_column)[TIMESTAMP].max().reindex(range(size))
        figures["latest moment"] = _Figure(latest.to_numpy(dtype=np.float64))
    exactly = table.reshape(size, deepest + 1).astype(np.float64)
    figures["number of rows at level 0"] = _Figure(exactly[:, 0])
    for level in range(1, deepest + 1):
        figures[f"number of rows at level {level} alone"] = _Figure(exactly[:, level])
        figures[f"number of rows at level {level} or deeper"] = _Figure(reached[:, level])
        figures[f"share of rows at level {level} or deeper"] = _Figure(reached[:, level], rows)
    return figures


def _worst_fit(
    values: NDArray[np.float64], without_test: list[Figures], full: list[Figures], clean: list[Figures]
) -> _Fit | None:
    """The figure of all rows that the column follows most suspiciously, if any does.

    Args:
        values: The column. Shape (N,).
        without_test: The first holds the figures of the same rows but those of the test.
        full: Figures with the test rows.
        clean: Every figure that may be known.
    """
    worst: _Fit | None = None
    for name, whole in ((name, figures[name]) for figures in full for name in figures):
        if name not in without_test[0]:
            continue
        places = _changed(values, without_test[0][name].values(), whole.values())
        if len(places) < ENOUGH:
            continue
        with_test = _left_open(values[places], whole.at(places))
        if with_test > LEFT_OPEN:
            continue
        enough = max(with_test / FAR_BELOW, ROUNDING)
        without = _left_open_without(values, places, name, clean, enough)
        fit = _Fit(name, without, with_test, places)
        if without > enough and (worst is None or _suspicion(fit) < _suspicion(worst)):
            worst = fit
    return worst


def _suspicion(fit: _Fit) -> float:
    """How much closer the column is to the figure with the test rows; less is worse."""
    return fit.with_test / fit.without_test


def _left_open_without(
    values: NDArray[np.float64], places: NDArray[np.int64], name: str, clean: list[Figures], enough: float
) -> float:
    """Least share left open by any figure without the test rows, the named one first; ends once `enough` is met."""
    least = 1.0
    for other in (name, *clean[0]):
        for figures in (figures for figures in clean if other in figures):
            least = min(least, _left_open(values[places], figures[other].at(places)))
            if least <= enough:
                return least
    return least


def _changed(
    values: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Users or items with a value whose figure the test rows change, thinned out where they are many."""
    same = np.abs(after - before) <= ROUNDING
    places = np.flatnonzero(np.isfinite(values) & np.isfinite(after) & ~same)
    return places[:: max(1, -(-len(places) // PLENTY))]


def _left_open(column: NDArray[np.float64], figure: _Figure) -> float:
    """Share of the column's variance that the figure leaves open: by value, by rank, or smoothed, what fits best."""
    values = figure.values()
    found = [_open_to_line(column, values), _open_to_line(rankdata(column), _ranks(values))]
    if figure.rows is not None:
        found.append(_open_to_line(column, _smoothed(column, figure.sums, figure.rows)))
    # Rounding may leave a hair less than nothing.
    return max(0.0, min(found))


def _open_to_line(column: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Share of the variance that is left by a line through the finite values, and one constant for all others."""
    seen = np.isfinite(values)
    total = _scatter(column, column)
    across = _scatter(column[seen], values[seen])
    along = _scatter(values[seen], values[seen])
    told = across**2 / along if along > 0 else 0.0
    others = _scatter(column[~seen], column[~seen])
    return (_scatter(column[seen], column[seen]) - told + others) / total if total > 0 else 1.0


def _scatter(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Sum of products of the differences from the means; 0 of nothing."""
    return float((first - first.mean()) @ (second - second.mean())) if len(first) else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of the finite values, NaN for the others. Shape (N,)."""
    ranks = np.full(len(values), np.nan)
    finite = np.isfinite(values)
    ranks[finite] = rankdata(values[finite])
    return ranks


def _smoothed(
    column: NDArray[np.float64], sums: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smoothed mean nearest to the column, with strength, prior and scale chosen for it.

    A column c = (s sums + k rows + b) / (rows + m) has c = s sums / rows + k + b / rows - m c / rows, which is linear
    in s, k, b and m.
    """
    seen = rows > 0
    c, n = column[seen], rows[seen]
    terms = np.stack([sums[seen] / n, np.ones_like(n), 1.0 / n, -c / n], axis=1)
    s, k, b, m = np.linalg.lstsq(terms, c)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        smoothed: NDArray[np.float64] = (s * sums + k * rows + b) / (rows + max(m, 0.0))
    return smoothed


def _finding(column: str, fit: _Fit, entities: Entities) -> Leak:
    examples = tuple(str(entities.ids[place]) for place in fit.places[:NAMED_AT_MOST])
    sentence = (
        f"Column {column} follows the {fit.figure} of the log with the test rows in it: on the {len(fit.places):,} "
        f"entities compared it leaves {fit.with_test:.2%} of the variance open, against {fit.without_test:.2%} "
        f"without them (e.g. {', '.join(examples)}). Compute it on train rows only, or drop it."
    )
    share = len(fit.places) / max(len(entities), 1)
    return Leak(LeakKind.FEATURE, Severity.LEAK, share, len(fit.places), examples, sentence)
