"""Where the relevant items stand in ranked lists, found once, and the formulas of every metric that follows from it.

Finding the hits is the dear part of a ranking metric. `find_hits` does it for the longest cut-off; each formula below
then reads the first k places of it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.types import Bools, Histories, Ints, levels_in

Values = NDArray[np.float64]


class PerUser(NamedTuple):
    """A metric of each user that has one.

    values: Shape (V,), float64, in 0..1 unless the metric says otherwise.
    users: Row of each value's user. Shape (V,), int64.
    skipped: Users left out because they have no relevant item, or whatever else the metric needs.
    """

    values: Values
    users: Ints
    skipped: int


class Hits(NamedTuple):
    """Ranked lists seen through what is relevant to each user.

    levels: Level of the item in each place, -1 where it is padding or not relevant. Shape (B, k), int64.
    counts: Relevant items of each user. Shape (B,), int64.
    best_levels: The levels of each user's relevant items, deepest first, -1 where there are fewer. Shape (B, k).
    """

    levels: Ints
    counts: Ints
    best_levels: Ints

    def found(self, k: int) -> Bools:
        """Whether each of the first k places holds a relevant item. Shape (B, k)."""
        return self.levels[:, :k] >= 0


def find_hits(items: Ints, relevant: Histories, k: int) -> Hits:
    """Look up the first k places of each list among the user's relevant items.

    Args:
        items: Ranked lists of at least k places, no item twice, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item; the stored value less 1 is its level. Shape (B, I).
        k: The longest cut-off that will be asked for, 1 or more.

    Returns:
        The hits of every user, those without relevant items included.

    Raises:
        ShapeError: `k` is below 1, or the lists are shorter than `k` or do not have one row a user.
    """
    if k < 1:
        raise ShapeError(f"`k` must be at least 1; got {k}. Measure one place or more.")
    if items.ndim != 2 or len(items) != relevant.shape[0] or items.shape[1] < k:
        raise ShapeError(
            f"`items` must have one row for each of the {relevant.shape[0]} users and at least {k} places; got shape "
            f"{items.shape}. Search with a larger `k`."
        )
    cut = items[:, :k]
    rows = np.repeat(np.arange(len(cut)), k)
    levels = levels_in(relevant, rows, np.maximum(cut, 0).ravel()).reshape(cut.shape)
    counts = np.diff(relevant.indptr).astype(np.int64)
    return Hits(np.where(cut >= 0, levels, -1), counts, _deepest_first(relevant, counts, k))


def relevant_levels(histories: Histories, level: int) -> Histories:
    """The entries that reached at least `level`, their levels kept for graded metrics; compare `relevant_items`.

    Args:
        histories: Stored value level + 1. Shape (B, I).
        level: The shallowest level that is relevant.

    Returns:
        Shape (B, I), stored value level + 1.
    """
    kept = histories.copy()
    kept.data = np.where(kept.data >= level + 1, kept.data, 0).astype(kept.data.dtype)
    kept.eliminate_zeros()
    return kept


def keep_users(values: Values, has_value: Bools) -> PerUser:
    """The values of the users that have one, and how many have none. Both of shape (B,)."""
    users = np.flatnonzero(has_value)
    return PerUser(values[users], users, len(has_value) - len(users))


def recall(hits: Hits, k: int) -> Values:
    """Hits in the first k / relevant items."""
    return _number_found(hits, k) / np.maximum(hits.counts, 1)


def recall_capped(hits: Hits, k: int) -> Values:
    """Hits in the first k / the most hits possible there, min(k, relevant items)."""
    return _number_found(hits, k) / np.clip(hits.counts, 1, k)


def precision(hits: Hits, k: int) -> Values:
    """Hits in the first k / k."""
    return _number_found(hits, k) / k


def hit_rate(hits: Hits, k: int) -> Values:
    """1 where the first k hold a hit."""
    return (_number_found(hits, k) > 0).astype(np.float64)


def reciprocal_rank(hits: Hits, k: int) -> Values:
    """1 / place of the first hit, 0 where the first k hold none."""
    found = hits.found(k)
    values: Values = found.any(1) / (found.argmax(1) + 1.0)
    return values


def average_precision(hits: Hits, k: int) -> Values:
    """Precision at each hit in the first k, summed / min(k, relevant items)."""
    return _precision_at_hits(hits, k) / np.clip(hits.counts, 1, k)


def average_precision_full(hits: Hits, k: int) -> Values:
    """Precision at each hit in the first k, summed / relevant items."""
    return _precision_at_hits(hits, k) / np.maximum(hits.counts, 1)


def ndcg(hits: Hits, k: int) -> Values:
    """Discounted hits of the first k over those of the best list, min(k, relevant items) hits in front."""
    discounts = discount(k)
    # The first is for users without relevant items, who are dropped.
    ideal = np.concatenate([[1.0], discounts.cumsum()])
    gained: Values = hits.found(k) @ discounts
    best: Values = ideal[np.minimum(hits.counts, k)]
    return gained / best


def ndcg_exponential(hits: Hits, k: int) -> Values:
    """Discounted gains 2^level - 1 of the first k over those of the best list."""
    return _graded(np.exp2(np.maximum(hits.levels, 0)) - 1, np.exp2(np.maximum(hits.best_levels, 0)) - 1, k)


def ndcg_linear(hits: Hits, k: int) -> Values:
    """Discounted gains equal to the level of the first k over those of the best list."""
    gains, best = np.maximum(hits.levels, 0), np.maximum(hits.best_levels, 0)
    return _graded(gains.astype(np.float64), best.astype(np.float64), k)


def discount(k: int) -> Values:
    """1 / log2(place + 1) of places 1..k. Shape (k,)."""
    divisors: Values = np.log2(np.arange(2, k + 2))
    return 1.0 / divisors


def _number_found(hits: Hits, k: int) -> Values:
    number: Values = hits.found(k).sum(1, dtype=np.float64)
    return number


def _precision_at_hits(hits: Hits, k: int) -> Values:
    found = hits.found(k)
    total: Values = (found * found.cumsum(1)) @ (1.0 / np.arange(1, k + 1))
    return total


def _graded(gains: Values, best: Values, k: int) -> Values:
    """Users whose best list gains nothing get 0; they are dropped by whoever asks."""
    discounts = discount(k)
    ideal: Values = best[:, :k] @ discounts
    gained: Values = gains[:, :k] @ discounts
    return gained / np.where(ideal > 0, ideal, 1.0)


def _deepest_first(relevant: Histories, counts: Ints, k: int) -> Ints:
    owner = np.repeat(np.arange(len(counts)), counts)
    level = relevant.data.astype(np.int64) - 1
    order = np.lexsort((-level, owner))
    place = np.arange(len(owner)) - np.repeat(relevant.indptr[:-1].astype(np.int64), counts)
    best = np.full((len(counts), k), -1, dtype=np.int64)
    inside = place < k
    best[owner[inside], place[inside]] = level[order][inside]
    return best
