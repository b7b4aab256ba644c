"""What lists do to a catalogue: how much of it they show, how evenly, and how far they lean to what is popular."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics.hits import PerUser, Values, keep_users
from recsys.types import Histories, Ints

EXPOSURE: dict[str, str] = {
    "coverage": "Share of the catalogue's items that stand in the first k of at least one list.",
    "gini": "Gini coefficient of how often each item of the catalogue stands in the first k: 0 all alike, near 1 one "
    "item takes all.",
    "entropy": "Shannon entropy, in bits, of the items in the first k of all lists together.",
    "novelty": "Mean over the first k of -log2(training users of the item / training users), an item without users "
    "counted as one with one user; in bits.",
    "popularity_lift": "Mean popularity (training users) of the first k over that of the users' histories, less 1.",
}


class PopularityLift(NamedTuple):
    """How much more popular lists are than what their users had chosen themselves.

    in_lists: Mean popularity of each user's list. Shape (V,), float64.
    in_histories: Mean popularity of each user's history. Shape (V,), float64.
    users: Row of each. Shape (V,), int64.
    skipped: Users without a history or a list.
    """

    in_lists: Values
    in_histories: Values
    users: Ints
    skipped: int

    @property
    def value(self) -> float:
        """Mean over users in lists / mean over users in histories - 1; NaN where there is no user."""
        total = float(self.in_histories.sum())
        return float(self.in_lists.sum()) / total - 1 if total else float("nan")


def item_popularity(histories: Histories) -> Ints:
    """Number of users that met each item, at any level. Shape (I,), int64."""
    return np.bincount(histories.indices, minlength=histories.shape[1]).astype(np.int64)


def catalogue_coverage(items: Ints, n_items: int, k: int) -> float:
    """Share of the catalogue in the first k of at least one list.

    Args:
        items: Ranked lists, -1 where padded. Shape (B, k or more).
        n_items: Size I of the catalogue.
        k: Cut-off.

    Raises:
        ShapeError: The lists are shorter than `k`, or hold an item outside the catalogue.

    Example:
        >>> catalogue_coverage(np.array([[0, 1], [1, -1]]), 4, 2)
        0.5
    """
    return float((_exposure(items, n_items, k) > 0).mean())


def exposure_gini(items: Ints, n_items: int, k: int) -> float:
    """Gini coefficient of the exposure of all items, those never shown included.

    Sum over items, by rising exposure e_1 <= .. <= e_I, of (2 i - I - 1) e_i / (I sum e). Arguments and errors as for
    `catalogue_coverage`; NaN where every list is empty.

    Example:
        Exposures 0, 0, 1, 2: (-3 * 0 - 1 * 0 + 1 * 1 + 3 * 2) / (4 * 3).

        >>> round(exposure_gini(np.array([[0, 1], [1, -1]]), 4, 2), 4)
        0.5833
    """
    count = np.sort(_exposure(items, n_items, k))
    if not count[-1]:
        return float("nan")
    return float((2 * np.arange(1, n_items + 1) - n_items - 1) @ count / (n_items * count.sum()))


def exposure_entropy(items: Ints, n_items: int, k: int) -> float:
    """Shannon entropy of the items shown, in bits, at most log2 of the catalogue's size.

    Arguments and errors as for `catalogue_coverage`; NaN where every list is empty.

    Example:
        >>> round(exposure_entropy(np.array([[0, 1], [1, -1]]), 4, 2), 4)  # 1/3 log2 3 + 2/3 log2 3/2
        0.9183
    """
    count = _exposure(items, n_items, k)
    share = count[count > 0] / max(count.sum(), 1)
    return float(share @ -np.log2(share)) if len(share) else float("nan")


def novelty(items: Ints, training: Histories, k: int) -> PerUser:
    """Mean self-information of the first k, in bits: how surprising it is that somebody knows the item.

    Args:
        items: Ranked lists, -1 where padded. Shape (B, k or more).
        training: The users that popularity is counted over. Shape (U, I).
        k: Cut-off.

    Returns:
        A value for each user with a list that is not empty, 0 or more, in bits.

    Raises:
        ShapeError: The lists are shorter than `k`, or hold an item outside the catalogue.

    Source: Zhou et al. (PNAS 2010), "Solving the apparent diversity-accuracy dilemma of recommender systems".
    An item without training users counts as one with one user, so that no list is infinitely novel.
    """
    known = np.maximum(item_popularity(training), 1)
    return _list_mean(items, -np.log2(known / max(training.shape[0], 1)), k)


def popularity_lift(
    items: Ints, histories: Histories, popularity: NDArray[np.integer], k: int
) -> PopularityLift:
    """Popularity of the first k beside that of the users' own histories.

    Args:
        items: Ranked lists, -1 where padded. Shape (B, k or more).
        histories: What the users chose before. Shape (B, I).
        popularity: Training users of each item, see `item_popularity`. Shape (I,).
        k: Cut-off.

    Returns:
        Users with both a history and a list.

    Raises:
        ShapeError: The lists are shorter than `k`, or the arrays do not fit one another.

    Source: Abdollahpouri et al. (RMSE workshop at RecSys 2019), "The Unfairness of Popularity Bias in
    Recommendation", group average popularity, taken over all users as one group.
    """
    if histories.shape != (len(items), len(popularity)):
        raise ShapeError(
            f"`histories` must have one row a list and one column an item, ({len(items)}, {len(popularity)}); got "
            f"{histories.shape}. Take the users that the lists are for."
        )
    weights = np.asarray(popularity, dtype=np.float64)
    lists = _list_mean(items, weights, k)
    rows = np.diff(histories.indptr)
    owner = np.repeat(np.arange(len(rows)), rows)
    own = np.bincount(owner, weights=weights[histories.indices], minlength=len(rows)) / np.maximum(rows, 1)
    has_history = rows[lists.users] > 0
    users = lists.users[has_history]
    return PopularityLift(lists.values[has_history], own[users], users, len(items) - len(users))


def list_indicator(items: Ints, n_items: int, k: int) -> csr_array:
    """1 for each item in the first k of each list. Shape (B, I), float64.

    Args:
        items: Ranked lists, no item twice, -1 where padded. Shape (B, k or more).
        n_items: Size I of the catalogue.
        k: Cut-off, 1 or more.

    Raises:
        ShapeError: The lists are shorter than `k`, or hold an item outside the catalogue.
    """
    if items.ndim != 2 or not 1 <= k <= items.shape[1]:
        raise ShapeError(
            f"`items` must be lists of at least {k} places and `k` at least 1; got shape {items.shape}. "
            "Search with a larger `k`."
        )
    cut = items[:, :k]
    if cut.size and (cut.max() >= n_items or cut.min() < -1):
        wrong = cut[(cut >= n_items) | (cut < -1)][:3].tolist()
        raise ShapeError(
            f"`items` must hold rows of the catalogue, 0..{n_items - 1}, or -1; got {wrong}. Pass the real catalogue."
        )
    is_item = cut >= 0
    ends = np.concatenate([[0], is_item.sum(1).cumsum()])
    return csr_array((np.ones(int(ends[-1])), cut[is_item], ends), shape=(len(cut), n_items))


def _exposure(items: Ints, n_items: int, k: int) -> Ints:
    return np.bincount(list_indicator(items, n_items, k).indices, minlength=n_items)


def _list_mean(items: Ints, weights: Values, k: int) -> PerUser:
    shown = list_indicator(items, len(weights), k)
    length = np.diff(shown.indptr)
    return keep_users(shown @ weights / np.maximum(length, 1), length > 0)
