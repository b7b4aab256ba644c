"""From ranked lists to figures with intervals over users and seeds: whole, by slice, and what lists do to a catalogue.

An interval draws users and training seeds again, all figures of one set of users under the same draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.data.dataset import Entities, FeatureKind
from recsys.features import FeatureEncoder
from recsys.metrics import (
    PerUser,
    catalogue_coverage,
    exposure_entropy,
    exposure_gini,
    genre_calibration,
    intra_list_diversity,
    item_popularity,
    keep_items,
    novelty,
    popularity_lift,
    ranking_metrics,
    relevant_levels,
    slice_items,
    slice_users,
    slice_values,
)
from recsys.recipes.contest_data import Contest
from recsys.significance.bootstrap import resampled_means
from recsys.types import Histories, Ints

# Printed for every cut-off; the first is the one that models are compared by.
RANKING = ("ndcg", "recall", "recall_capped", "precision", "hit_rate", "mrr", "map", "ndcg_exponential")
# Printed for every slice, at the first cut-off.
SLICED = ("ndcg", "recall")
RESAMPLES = 2000
# Of each of the many slices.
SLICE_RESAMPLES = 500

# As reports hold a figure: "value", "ci95" (None where there is no interval) and "n", the users that have a value.
Measure: TypeAlias = dict[str, Any]
Table: TypeAlias = NDArray[np.float64]


class ListFigures(NamedTuple):
    """What one model's lists are worth.

    metrics: By metric and cut-off, such as "ndcg@10".
    slices: By slice, then by metric. A slice in which nobody has a value is left out.
    beyond: What the lists do beyond accuracy, at the first cut-off.
    main: The metric that models are compared by, of every user that has it. Shape (S, V).
    """

    metrics: dict[str, Measure]
    slices: dict[str, dict[str, Measure]]
    beyond: dict[str, Measure]
    main: Table


def measure_lists(contest: Contest, lists: Ints, *, cutoffs: Sequence[int], seed: int) -> ListFigures:
    """Every figure of one model's lists.

    Args:
        contest: Who was asked, and what was relevant.
        lists: Of every seed and test user. Shape (S, B, max(cutoffs) or more).
        cutoffs: List lengths k; the first is the main one.
        seed: Of the resamples.
    """
    relevant = relevant_levels(contest.test.target, contest.relevant_level)
    by_seed = [ranking_metrics(own, relevant, cutoffs, RANKING) for own in lists]
    tables = {name: np.stack([found[name].values for found in by_seed]) for name in by_seed[0]}
    return ListFigures(
        measure_tables(tables, seed),
        _slices(contest, lists, relevant, cutoffs[0], seed),
        _beyond(contest, lists, cutoffs[0], seed),
        tables[f"{RANKING[0]}@{cutoffs[0]}"],
    )


def measure_tables(
    tables: Mapping[str, Table], seed: int, *, resamples: int = RESAMPLES
) -> dict[str, Measure]:
    """Means over seeds and users with percentile intervals, all under the same draws of users.

    Args:
        tables: By name; the same users in all. Shape (S, V) each.
        seed: Of the draws.
        resamples: Number of draws.
    """
    means = resampled_means(list(tables.values()), seed=seed, n_boot=resamples)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {
        name: as_measure(float(table.mean()), (float(low[place]), float(high[place])), table.shape[1])
        for place, (name, table) in enumerate(tables.items())
    }


def as_measure(value: float, interval: tuple[float, float] | None, n: int) -> Measure:
    """A figure as reports hold it; one that is not finite is None."""
    if not np.isfinite(value):
        return {"value": None, "ci95": None, "n": n}
    return {"value": value, "ci95": None if interval is None else list(interval), "n": n}


def _slices(
    contest: Contest, lists: Ints, relevant: Histories, k: int, seed: int
) -> dict[str, dict[str, Measure]]:
    found = {}
    for name, mask in slice_items(contest.train).items():
        inside = keep_items(relevant, mask)
        found[name] = _sliced([ranking_metrics(own, inside, [k], SLICED) for own in lists], seed)
    whole = [ranking_metrics(own, relevant, [k], SLICED) for own in lists]
    for name, mask in slice_users(contest.test.known).items():
        own = [
            {metric: slice_values(values, {name: mask})[name] for metric, values in one.items()}
            for one in whole
        ]
        found[name] = _sliced(own, seed)
    return {name: figures for name, figures in found.items() if figures}


def _sliced(by_seed: Sequence[Mapping[str, PerUser]], seed: int) -> dict[str, Measure]:
    tables = {name: np.stack([found[name].values for found in by_seed]) for name in by_seed[0]}
    if not next(iter(tables.values())).size:
        return {}
    return measure_tables(tables, seed, resamples=SLICE_RESAMPLES)


def _beyond(contest: Contest, lists: Ints, k: int, seed: int) -> dict[str, Measure]:
    n_users = lists.shape[1]
    found = {
        f"{name}@{k}": as_measure(
            float(np.mean([figure(own, contest.n_items, k) for own in lists])), None, n_users
        )
        for name, figure in (
            ("coverage", catalogue_coverage),
            ("gini", exposure_gini),
            ("entropy", exposure_entropy),
        )
    }
    trained = contest.train[np.flatnonzero(np.diff(contest.train.indptr))]
    by_user: dict[str, list[PerUser]] = {"novelty": [novelty(own, trained, k) for own in lists]}
    tags = item_tags(contest.dataset.items)
    if tags is not None:
        by_user["diversity"] = [intra_list_diversity(own, tags, k) for own in lists]
        by_user["genre_calibration"] = [genre_calibration(own, contest.test.known, tags, k) for own in lists]
    for name, values in by_user.items():
        table = _shared(values)
        if table.size:
            found |= measure_tables({f"{name}@{k}": table}, seed)
    found[f"popularity_lift@{k}"] = _lift(contest, lists, k, seed)
    return found


def item_tags(items: Entities) -> csr_array | None:
    """The first multi-hot column of the items, such as genres, a column a tag; None where there is none."""
    name = next((name for name, kind in items.kinds.items() if kind is FeatureKind.MULTI_HOT), None)
    if name is None:
        return None
    alone = Entities(items.ids, items.features[[name]], {name: FeatureKind.MULTI_HOT})
    # The first column holds tags that the encoder does not know, of which there are none here.
    return csr_array(FeatureEncoder.fit(alone, np.arange(len(items))).transform(alone).sparse[:, 1:])


def _shared(by_seed: Sequence[PerUser]) -> Table:
    """The values of users that have one for every seed. Shape (S, V)."""
    users = by_seed[0].users
    for other in by_seed[1:]:
        users = np.intersect1d(users, other.users)
    return np.stack([one.values[np.isin(one.users, users)] for one in by_seed])


def _lift(contest: Contest, lists: Ints, k: int, seed: int) -> Measure:
    """Popularity lift, a ratio of two means over the same users, with an interval over both."""
    popularity = item_popularity(contest.train)
    by_seed = [popularity_lift(own, contest.test.known, popularity, k) for own in lists]
    inside, own = (
        _shared([PerUser(getattr(one, part), one.users, one.skipped) for one in by_seed])
        for part in ("in_lists", "in_histories")
    )
    if not own.size or not own.sum():
        return as_measure(float("nan"), None, own.shape[1])
    means = resampled_means([inside, own], seed=seed, n_boot=RESAMPLES)
    drawn = np.divide(means[:, 0], means[:, 1], out=np.ones(len(means)), where=means[:, 1] > 0) - 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    return as_measure(float(inside.mean() / own.mean() - 1), (float(low), float(high)), own.shape[1])
