"""Ranking metrics over the full catalogue, one value a user, with their definitions said once.

A user without a relevant item has no value: such users are left out and counted, never scored 0 or 1. Lists come
from `recsys.topk`, where equal scores rank by ascending item, so no metric depends on the order of a file. Every
`*_at_k` takes what `recall_at_k` takes; to measure several, let `ranking_metrics` look the hits up once for all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from recsys.errors import RecsysError, ShapeError
from recsys.metrics import hits as formulas
from recsys.metrics.hits import Hits, PerUser, Values, find_hits, keep_users
from recsys.types import Histories, Ints

__all__ = [
    "BINARY",
    "METRICS",
    "MetricDefinition",
    "PerUser",
    "Values",
    "graded_ndcg_at_k",
    "hit_rate_at_k",
    "map_at_k",
    "measure",
    "mrr_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
    "recall_capped_at_k",
]


class MetricDefinition(NamedTuple):
    """A ranking metric and what a report prints about it.

    formula: From the hits and a cut-off to one value a user. Shape (B,).
    text: One sentence with the formula.
    is_graded: Whether the levels of relevant items matter; then a user needs one above level 0.
    """

    formula: Callable[[Hits, int], Values]
    text: str
    is_graded: bool = False


METRICS: dict[str, MetricDefinition] = {
    "recall": MetricDefinition(
        formulas.recall, "Share of a user's relevant items among the first k: hits / |relevant|."
    ),
    "recall_capped": MetricDefinition(
        formulas.recall_capped,
        "Hits among the first k over the most there can be: hits / min(k, |relevant|).",
    ),
    "precision": MetricDefinition(
        formulas.precision, "Share of the first k places that hold a relevant item: hits / k."
    ),
    "hit_rate": MetricDefinition(
        formulas.hit_rate, "1 where the first k hold at least one relevant item, else 0."
    ),
    "ndcg": MetricDefinition(
        formulas.ndcg,
        "Sum of 1 / log2(place + 1) over the hits in the first k, over the same sum for min(k, |relevant|) hits in "
        "front (binary gain).",
    ),
    "ndcg_exponential": MetricDefinition(
        formulas.ndcg_exponential,
        "Sum of (2^level - 1) / log2(place + 1) over the first k, over the same sum for the best possible list.",
        is_graded=True,
    ),
    "ndcg_linear": MetricDefinition(
        formulas.ndcg_linear,
        "Sum of level / log2(place + 1) over the first k, over the same sum for the best possible list.",
        is_graded=True,
    ),
    "mrr": MetricDefinition(
        formulas.reciprocal_rank, "1 / place of the first relevant item, 0 where the first k hold none."
    ),
    "map": MetricDefinition(
        formulas.average_precision,
        "Sum over the hits in the first k of the precision at their place, over min(k, |relevant|).",
    ),
    "map_full": MetricDefinition(
        formulas.average_precision_full,
        "Sum over the hits in the first k of the precision at their place, over |relevant|.",
    ),
}
BINARY = tuple(name for name, definition in METRICS.items() if not definition.is_graded)


def ranking_metrics(
    items: Ints, relevant: Histories, cutoffs: Sequence[int], names: Sequence[str] = BINARY
) -> dict[str, PerUser]:
    """Several metrics at several cut-offs, with one look at where the hits are.

    Args:
        items: Ranked lists of at least max(cutoffs) places, no item twice, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item; graded metrics read the stored value less 1 as its level, as
            `recsys.types.Histories` store it. Shape (B, I).
        cutoffs: List lengths k, one or more.
        names: Keys of `METRICS`; all binary ones where not said.

    Returns:
        By name and cut-off, such as "ndcg@10", in the order of names, then cut-offs. Binary metrics have a value for
        each user with a relevant item, graded ones for each with a relevant item above level 0.

    Raises:
        RecsysError: A name is unknown.
        ShapeError: There is no cut-off, one is below 1 or longer than the lists, or the lists are not one a user.

    Example:
        >>> from scipy.sparse import csr_array
        >>> relevant = csr_array(np.array([[1, 0, 1, 1]], dtype=np.float32))
        >>> found = ranking_metrics(np.array([[1, 2, 3]]), relevant, [2, 3], ["recall", "map"])
        >>> {name: result.values.round(4).tolist() for name, result in found.items()}
        {'recall@2': [0.3333], 'recall@3': [0.6667], 'map@2': [0.25], 'map@3': [0.3889]}
    """
    chosen = [(name, _definition(name)) for name in names]
    if min(cutoffs, default=0) < 1:
        raise ShapeError(
            f"`cutoffs` must be list lengths of 1 or more, at least one; got {list(cutoffs)}. Ask for (10, 20)."
        )
    found = find_hits(items, relevant, max(cutoffs))
    return {f"{name}@{k}": measure(definition, found, k) for name, definition in chosen for k in cutoffs}


def measure(definition: MetricDefinition, hits: Hits, k: int) -> PerUser:
    """One metric of hits already found, for the users that have a value.

    Args:
        definition: A value of `METRICS`.
        hits: Found for k places or more.
        k: Cut-off.
    """
    has_value = hits.best_levels[:, 0] > 0 if definition.is_graded else hits.counts > 0
    return keep_users(definition.formula(hits, k), has_value)


def recall_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Share of a user's relevant items among the first k: hits / |relevant|.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item. Shape (B, I).
        k: Cut-off.

    Returns:
        One value for each user with a relevant item.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.

    Example:
        >>> from scipy.sparse import csr_array
        >>> relevant = csr_array(np.array([[1, 0, 1, 0], [0, 0, 0, 0]], dtype=np.float32))
        >>> recall_at_k(np.array([[2, 1], [0, 1]]), relevant, 2)
        PerUser(values=array([0.5]), users=array([0]), skipped=1)
    """
    return measure(METRICS["recall"], find_hits(items, relevant, k), k)


def recall_capped_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Hits among the first k over the most there can be: hits / min(k, |relevant|); as in the Mult-VAE protocol.

    Arguments, result and errors as for `recall_at_k`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> recall_capped_at_k(np.array([[2, 1]]), csr_array(np.array([[1, 0, 1, 1]])), 2).values.tolist()
        [0.5]
    """
    return measure(METRICS["recall_capped"], find_hits(items, relevant, k), k)


def precision_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Share of the first k places that hold a relevant item, padding counted as a miss: hits / k.

    Arguments, result and errors as for `recall_at_k`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> precision_at_k(np.array([[2, -1]]), csr_array(np.array([[0, 0, 1]])), 2).values.tolist()
        [0.5]
    """
    return measure(METRICS["precision"], find_hits(items, relevant, k), k)


def hit_rate_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """1 where the first k hold at least one relevant item, else 0.

    Arguments, result and errors as for `recall_at_k`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> hit_rate_at_k(np.array([[2, 1], [0, 1]]), csr_array(np.array([[0, 0, 1], [0, 0, 1]])), 2).values.tolist()
        [1.0, 0.0]
    """
    return measure(METRICS["hit_rate"], find_hits(items, relevant, k), k)


def ndcg_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """Discounted gain of the first k over that of the best possible list, with gain 1 for a relevant item.

    The hit in place r (from 1) counts 1 / log2(r + 1); the best list holds min(k, |relevant|) hits.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item. Shape (B, I).
        k: Cut-off.

    Returns:
        One value for each user with a relevant item.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.

    Source: Järvelin and Kekäläinen (2002), "Cumulated Gain-Based Evaluation of IR Techniques".

    Example:
        A hit in place 2 of 2 with three relevant items: (1 / log2 3) / (1 + 1 / log2 3).

        >>> from scipy.sparse import csr_array
        >>> ndcg_at_k(np.array([[1, 2]]), csr_array(np.array([[1, 0, 1, 1]])), 2).values.round(4).tolist()
        [0.3869]
    """
    return measure(METRICS["ndcg"], find_hits(items, relevant, k), k)


def graded_ndcg_at_k(items: Ints, relevant: Histories, k: int, *, exponential: bool = True) -> PerUser:
    """NDCG whose gain grows with the level, stored value less 1: 2^level - 1, or the level itself.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Stored value level + 1, as in `recsys.types.Histories`. Shape (B, I).
        k: Cut-off.
        exponential: Gain 2^level - 1; otherwise the level.

    Returns:
        One value for each user with an item above level 0.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.

    Example:
        Levels 1 and 2 in the wrong order: (1 + 3 / log2(3)) / (3 + 1 / log2(3)).

        >>> from scipy.sparse import csr_array
        >>> graded_ndcg_at_k(np.array([[0, 1]]), csr_array(np.array([[2, 3, 0]])), 2).values.round(4).tolist()
        [0.7967]
    """
    name = "ndcg_exponential" if exponential else "ndcg_linear"
    return measure(METRICS[name], find_hits(items, relevant, k), k)


def mrr_at_k(items: Ints, relevant: Histories, k: int) -> PerUser:
    """1 / place of the first relevant item, 0 where the first k hold none.

    Arguments, result and errors as for `recall_at_k`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> mrr_at_k(np.array([[1, 2], [0, 1]]), csr_array(np.array([[0, 0, 1], [0, 0, 1]])), 2).values.tolist()
        [0.5, 0.0]
    """
    return measure(METRICS["mrr"], find_hits(items, relevant, k), k)


def map_at_k(items: Ints, relevant: Histories, k: int, *, capped: bool = True) -> PerUser:
    """Sum over the hits in the first k of the precision at their place, over min(k, |relevant|) or |relevant|.

    Args:
        items: Ranked lists of at least k places, -1 where padded. Shape (B, k or more).
        relevant: Any stored entry is a relevant item. Shape (B, I).
        k: Cut-off.
        capped: Divide by min(k, |relevant|); otherwise by |relevant|.

    Returns:
        One value for each user with a relevant item.

    Raises:
        ShapeError: The lists are shorter than `k`, or do not have one row a user.

    Example:
        A hit in place 2 and three relevant items: (1/2) / 2, or (1/2) / 3.

        >>> from scipy.sparse import csr_array
        >>> relevant = csr_array(np.array([[1, 0, 1, 1]]))
        >>> map_at_k(np.array([[1, 2]]), relevant, 2).values.tolist()
        [0.25]
        >>> map_at_k(np.array([[1, 2]]), relevant, 2, capped=False).values.round(4).tolist()
        [0.1667]
    """
    return measure(METRICS["map" if capped else "map_full"], find_hits(items, relevant, k), k)


def _definition(name: str) -> MetricDefinition:
    if name not in METRICS:
        raise RecsysError(
            f"`names` must be ranking metrics; got {name!r}. Choose from {', '.join(METRICS)}, without a cut-off."
        )
    return METRICS[name]
