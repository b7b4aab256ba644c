"""What is in a user's list: how unlike its items are, and whether its mix of genres is the user's own."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from recsys.errors import ShapeError
from recsys.metrics.exposure import list_indicator
from recsys.metrics.hits import PerUser, Values, keep_users
from recsys.types import Histories, Ints

SMOOTHING = 0.01

VARIETY: dict[str, str] = {
    "diversity": "Mean over the pairs of items in the first k of 1 - cosine of their vectors, an item without a vector "
    "being unlike all others.",
    "genre_calibration": "Kullback-Leibler divergence, in nats, from the genre mix of a user's history to that of the "
    f"first k smoothed by {SMOOTHING:g} of the former: 0 where they agree.",
}


def intra_list_diversity(items: Ints, vectors: NDArray[np.floating] | csr_array, k: int) -> PerUser:
    """Mean cosine distance over the pairs of items in the first k.

    The sum over pairs follows from the length of the sum of unit vectors, so the cost is linear in k.

    Args:
        items: Ranked lists, -1 where padded. Shape (B, k or more).
        vectors: One row an item, dense, or sparse such as multi-hot genres. Shape (I, d).
        k: Cut-off.

    Returns:
        A value in 0..2 (0..1 where vectors have no negative entry) for each user with two items or more.

    Raises:
        ShapeError: The lists are shorter than `k`, or hold an item without a row.

    Source: Ziegler et al. (WWW 2005), "Improving Recommendation Lists Through Topic Diversification".

    Example:
        >>> vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> intra_list_diversity(np.array([[0, 1, 2]]), vectors, 3).values.round(4).tolist()  # (0 + 1 + 1) / 3
        [0.6667]
    """
    rows = csr_array(vectors, dtype=np.float64)
    norm = np.sqrt(rows.multiply(rows).sum(1))
    unit = diags_array(np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)) @ rows
    shown = list_indicator(items, rows.shape[0], k)
    length = np.diff(shown.indptr)
    total = csr_array(shown @ unit)
    alike = (total.multiply(total).sum(1) - shown @ (norm > 0).astype(np.float64)) / 2
    pairs = length * (length - 1) / 2
    return keep_users(1 - alike / np.maximum(pairs, 1), length > 1)


def genre_calibration(
    items: Ints,
    histories: Histories,
    genres: csr_array | NDArray[np.generic],
    k: int,
    *,
    smoothing: float = SMOOTHING,
) -> PerUser:
    """How far the genres of the first k are from those of the user's history; less is better.

    With p(g) the mean over the history of an item's genre shares (1 / number of its genres each) and q(g) that of the
    list: sum over g of p(g) log(p(g) / ((1 - a) q(g) + a p(g))), a the smoothing.

    Args:
        items: Ranked lists, -1 where padded. Shape (B, k or more).
        histories: What each user chose before. Shape (B, I).
        genres: Multi-hot, one row an item. Shape (I, G). Items without a genre are left out of both mixes.
        k: Cut-off.
        smoothing: Above 0, below 1; keeps the divergence finite where a genre is missing from the list.

    Returns:
        In nats, 0..-log(smoothing), for each user with a genre in history and list.

    Raises:
        ShapeError: The arrays do not fit one another, or `smoothing` is out of range.

    Source: Steck (RecSys 2018), "Calibrated Recommendations"; every item of the history and of the list
    weighs the same.

    Example:
        A history half drama, half comedy, a list of drama: .5 log(.5 / .995) + .5 log(.5 / .005).

        >>> genres = np.array([[1, 0], [0, 1], [1, 0]])
        >>> genre_calibration(np.array([[2]]), csr_array(np.array([[1, 1, 0]])), genres, 1).values.round(4).tolist()
        [1.9585]
    """
    if not 0 < smoothing < 1:
        raise ShapeError(f"`smoothing` must lie above 0 and below 1; got {smoothing}. Use {SMOOTHING:g}.")
    marks = csr_array(genres).astype(bool).astype(np.float64)
    if histories.shape != (len(items), marks.shape[0]):
        raise ShapeError(
            f"`histories` must have one row a list and one column an item, ({len(items)}, {marks.shape[0]}); got "
            f"{histories.shape}. Take the users that the lists are for."
        )
    per_item = marks.sum(1)
    shares = diags_array(np.divide(1.0, per_item, out=np.zeros_like(per_item), where=per_item > 0)) @ marks
    met = csr_array((np.ones(histories.nnz), histories.indices, histories.indptr), shape=histories.shape)
    wanted, has_wanted = _mix(met, shares)
    offered, has_offered = _mix(list_indicator(items, marks.shape[0], k), shares)
    blurred = (1 - smoothing) * offered + smoothing * wanted
    ratio = np.divide(wanted, blurred, out=np.ones_like(wanted), where=wanted > 0)
    return keep_users((wanted * np.log(ratio)).sum(1), has_wanted & has_offered)


def _mix(chosen: csr_array, shares: csr_array) -> tuple[Values, NDArray[np.bool_]]:
    """Genre shares of each row's items, summing to 1, and whether there is any. Shapes (B, G) and (B,)."""
    total = (chosen @ shares).toarray()
    whole = total.sum(1)
    return total / np.where(whole > 0, whole, 1.0)[:, None], whole > 0
