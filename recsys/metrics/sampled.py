"""Ranking among sampled negatives, under its own name only, and the correction that takes its bias out.

Ranking a relevant item among a few random ones says little about its place in the catalogue: it need not even keep
the order of two models (Krichene and Rendle, KDD 2020; CACM 2022, "On Sampled Metrics for Item Recommendation"). Full
ranking is the default everywhere else. Where a sample is wanted, for old tables or catalogues too large to score,
every name carries its size, sampler and seed, as in "ndcg@10~100neg-uniform-seed0".
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from recsys.errors import RecsysError, ShapeError
from recsys.metrics.hits import Hits, PerUser, Values, discount, keep_users
from recsys.metrics.ranking import METRICS, measure
from recsys.types import Bools, Floats, Histories, Ints

ROWS_AT_ONCE = 256
CORRECTABLE = ("recall", "ndcg")

Sampler = Literal["uniform", "popularity"]
Correction = Literal["rank", "bias-variance"]


class SampledRanks(NamedTuple):
    """Where each relevant item came among the user's sampled negatives and other relevant items.

    rows: Row of the user. Shape (n,), int64, ascending; within a user best item first.
    relevant_above: Relevant items of the user ranked above it. Shape (n,), int64.
    negatives_above: Sampled negatives ranked above it. Shape (n,), int64.
    unreachable: Whether it may not be offered, so that no list can hold it. Shape (n,).
    candidates: Negatives that could have been drawn, of each user. Shape (B,), int64.
    counts: Relevant items of each user. Shape (B,), int64.
    negatives: Size m of the sample.
    """

    rows: Ints
    relevant_above: Ints
    negatives_above: Ints
    unreachable: Bools
    candidates: Ints
    counts: Ints
    negatives: int


class SampledRanking(NamedTuple):
    """Sampled metrics with the names and sentences that they must be printed under.

    values: By name, such as "ndcg@10~100neg-uniform-seed0".
    definitions: One sentence for each name.
    """

    values: dict[str, PerUser]
    definitions: dict[str, str]


def sampled_ranking(
    scores: Floats,
    relevant: Histories,
    cutoffs: Sequence[int],
    *,
    names: Sequence[str] = ("recall", "ndcg"),
    negatives: int = 100,
    sampler: Sampler = "uniform",
    popularity: Ints | None = None,
    correction: Correction | None = None,
    seed: int,
) -> SampledRanking:
    """Metrics of each user's relevant items ranked among sampled negatives instead of the whole catalogue.

    Args:
        scores: -inf for items not to be offered, such as seen ones. Shape (B, I), float32.
        relevant: Any stored entry is a relevant item. Shape (B, I).
        cutoffs: List lengths k.
        names: Binary metrics of `METRICS`; "recall" and "ndcg" only where corrected.
        negatives: Number m of draws for each user, with replacement, from the items that may be offered and are
            not relevant.
        sampler: "uniform" draws each alike, "popularity" in proportion to `popularity`.
        popularity: Training users of each item, for the sampler of that name. Shape (I,).
        correction: None leaves the sample's own ranks, which flatter every model. "rank" and "bias-variance" are
            those of `corrected_metric`, for the uniform sampler.
        seed: Draws the negatives.

    Returns:
        Values of each user with a relevant item, and a negative to draw.

    Raises:
        RecsysError: A metric or correction does not go with the sampler or the correction.
        ShapeError: The arrays do not fit one another, or `negatives` is below 1.

    Source: Krichene and Rendle, as above.
    """
    _check_request(names, sampler, correction)
    if sampler == "popularity" and popularity is None:
        raise RecsysError(
            "`popularity` must be given for the sampler of that name; got None. See `item_popularity`."
        )
    weights = None if sampler == "uniform" else popularity
    ranks = sample_ranks(scores, relevant, negatives=negatives, weights=weights, seed=seed)
    mark = f"~{negatives}neg-{sampler}-seed{seed}" + (f"-corrected-{correction}" if correction else "")
    values, definitions = {}, {}
    for name in names:
        for k in cutoffs:
            if correction is None:
                found = measure(METRICS[name], _as_hits(ranks, k), k)
                found = _drop_users(found, ranks)
            else:
                found = corrected_metric(ranks, name, k, correction)
            values[f"{name}@{k}{mark}"] = found
            definitions[f"{name}@{k}{mark}"] = _sentence(name, negatives, sampler, correction, seed)
    return SampledRanking(values, definitions)


def sample_ranks(
    scores: Floats, relevant: Histories, *, negatives: int, weights: Ints | None = None, seed: int
) -> SampledRanks:
    """Draw negatives for each user and place the relevant items among them.

    Equal scores rank by ascending item, as in full lists; a negative drawn twice counts twice.

    Args:
        scores: -inf for items not to be offered. Shape (B, I), float32.
        relevant: Any stored entry is a relevant item. Shape (B, I).
        negatives: Number m of draws, with replacement.
        weights: Not negative, chance of each item to be drawn, in any unit; None draws all alike. Shape (I,).
        seed: Draws the negatives.

    Returns:
        One place for each relevant item.

    Raises:
        ShapeError: The arrays do not fit one another, or `negatives` is below 1.
    """
    if scores.shape != relevant.shape or (weights is not None and weights.shape != scores.shape[1:]):
        got = f"{scores.shape}" + ("" if weights is None else f" and popularity of {weights.shape}")
        raise ShapeError(
            f"`scores` must have one row a user and one column an item, {relevant.shape}; got {got}. "
            "Score the whole catalogue for the users of `relevant`."
        )
    if negatives < 1:
        raise ShapeError(f"`negatives` must be at least 1; got {negatives}. 100 is usual.")
    rng = np.random.default_rng(seed)
    chance = np.ones(scores.shape[1]) if weights is None else weights.astype(np.float64)
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(scores), ROWS_AT_ONCE)]
    parts = [_rank_block(scores[b], relevant[b], chance, negatives, rng, b.start) for b in blocks]
    counts = np.diff(relevant.indptr).astype(np.int64)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] or [
        np.empty(0, dtype=np.int64)
    ] * 5
    return SampledRanks(
        columns[0], columns[1], columns[2], columns[3].astype(bool), columns[4], counts, negatives
    )


def corrected_metric(
    ranks: SampledRanks, name: str, k: int, correction: Correction, *, variance_weight: float = 0.1
) -> PerUser:
    """Estimate of a full-catalogue metric from the ranks of a uniform sample.

    A relevant item with x of N negatives above it sees Binomial(m, x / N) of the m drawn. "rank" puts the unbiased
    estimate of x, drawn above * N / m, into the metric. "bias-variance" chooses the value g(drawn above) of every
    outcome to minimise, over x evenly spread on 0..N, squared bias + w variance against the metric:
    g = ((1 - w) A'A + w diag(A'1))^-1 A'f, A the binomial chances and f the metric at each x.

    Args:
        ranks: From a uniform sample.
        name: "recall" or "ndcg", which are sums over relevant items.
        k: Cut-off, 1 or more.
        correction: Which estimate. "bias-variance" costs one solve of size m for each distinct N.
        variance_weight: w, above 0, at most 1; less trusts the sample more.

    Returns:
        One value for each user with a relevant item and a negative to draw; it may leave 0..1, its mean is what
        counts.

    Raises:
        RecsysError: `name` has no correction, or `variance_weight` is out of range.

    Source: Krichene and Rendle (CACM 2022), "On Sampled Metrics for Item Recommendation", the unbiased rank
    estimator and the estimator of the bias-variance trade-off. Differs from the paper: other relevant items above are
    known, not sampled, so only the negatives' part of the rank is estimated; that serves users with several.
    """
    if name not in CORRECTABLE:
        raise RecsysError(
            f"Only {' and '.join(CORRECTABLE)} can be corrected; got {name!r}. Rank in full for it."
        )
    if not 0 < variance_weight <= 1:
        raise RecsysError(f"`variance_weight` must lie above 0, at most 1; got {variance_weight}. Use 0.1.")
    reached = ~ranks.unreachable & (ranks.relevant_above < k) & (ranks.candidates[ranks.rows] > 0)
    rows, above, drawn = (part[reached] for part in (ranks.rows, ranks.relevant_above, ranks.negatives_above))
    if correction == "rank":
        gain = _gain(name, k, above + drawn * ranks.candidates[rows] / ranks.negatives)
    else:
        gain = np.empty(len(rows))
        for candidates in np.unique(ranks.candidates[rows]):
            mine = ranks.candidates[rows] == candidates
            table = outcome_values(name, k, int(candidates), ranks.negatives, variance_weight)
            gain[mine] = table[drawn[mine], above[mine]]
    total = np.bincount(rows, weights=gain, minlength=len(ranks.counts))
    ideal = np.append(1.0, discount(k).cumsum())[np.minimum(ranks.counts, k)]
    best = np.maximum(ranks.counts, 1) if name == "recall" else ideal
    return keep_users(total / best, (ranks.counts > 0) & (ranks.candidates > 0))


def outcome_values(name: str, k: int, candidates: int, negatives: int, variance_weight: float) -> Values:
    """What each outcome of a sample is worth, chosen for little bias and variance; see `corrected_metric`.

    Args:
        name: "recall" or "ndcg".
        k: Cut-off.
        candidates: Negatives N that could be drawn, 1 or more.
        negatives: Draws m.
        variance_weight: w in 0..1, not 0.

    Returns:
        Row: drawn negatives above, 0..m. Column: relevant items above, 0..k - 1. Shape (m + 1, k).
    """
    outcomes = np.arange(negatives + 1)
    share = np.arange(candidates + 1)[:, None] / candidates
    chances = binom.pmf(outcomes, negatives, share)
    targets = _gain(name, k, np.arange(candidates + 1)[:, None] + np.arange(k))
    total = chances.sum(0)
    # What can hardly come out, as most outcomes with fewer candidates than draws, is worth nothing.
    diagonal = np.where(total > 1e-12, variance_weight * total, 1.0)
    left = (1 - variance_weight) * chances.T @ chances + np.diag(diagonal)
    solved: Values = np.linalg.solve(left, chances.T @ targets)
    return solved


def _gain(name: str, k: int, above: NDArray[np.number]) -> Values:
    """What a relevant item adds to the metric before division by the best list, with `above` items above it."""
    gain = np.ones(np.shape(above)) if name == "recall" else 1.0 / np.log2(above + 2)
    return np.where(above < k, gain, 0.0)


def _rank_block(
    scores: Floats,
    relevant: Histories,
    chance: Values,
    negatives: int,
    rng: np.random.Generator,
    first_row: int,
) -> tuple[Ints, Ints, Ints, Bools, Ints]:
    """Columns of `SampledRanks` for a block of users."""
    rows = np.repeat(np.arange(len(scores)), np.diff(relevant.indptr))
    items = relevant.indices.astype(np.int64)
    score = scores[rows, items]
    order = np.lexsort((items, -score, rows))
    rows, items, score = rows[order], items[order], score[order]
    weight = np.where(np.isneginf(scores), 0.0, chance)
    weight[rows, items] = 0.0
    candidates = (weight > 0).sum(1)
    drawn = _draw(weight, candidates > 0, negatives, rng)
    drawn_scores = np.take_along_axis(scores, drawn, axis=1)[rows]
    is_above = (drawn_scores > score[:, None]) | (
        (drawn_scores == score[:, None]) & (drawn[rows] < items[:, None])
    )
    relevant_above = np.arange(len(rows)) - relevant.indptr[rows].astype(np.int64)
    return rows + first_row, relevant_above, is_above.sum(1), np.isneginf(score), candidates


def _draw(weight: Values, has_any: Bools, negatives: int, rng: np.random.Generator) -> Ints:
    """Items by weight, with replacement; item 0 for users without a candidate, who are dropped. Shape (b, m)."""
    ends = weight.cumsum(1)
    # Shares of each row's own total, moved into 0..1, 1..2, .. so that one search serves all rows.
    shares = ends / np.where(has_any, ends[:, -1], 1.0)[:, None]
    lines = np.arange(len(weight))[:, None]
    # 2^-30 steps stay exact beside a row number, and below 1.
    asked = rng.integers(2**30, size=(len(weight), negatives)) / 2**30 + lines
    place = np.searchsorted((shares + lines).ravel(), asked.ravel(), side="right").reshape(asked.shape)
    return np.where(has_any[:, None], place - lines * weight.shape[1], 0)


def _as_hits(ranks: SampledRanks, k: int) -> Hits:
    place = ranks.relevant_above + ranks.negatives_above
    inside = (place < k) & ~ranks.unreachable
    levels = np.full((len(ranks.counts), k), -1, dtype=np.int64)
    levels[ranks.rows[inside], place[inside]] = 0
    return Hits(levels, ranks.counts, np.where(np.arange(k) < ranks.counts[:, None], 0, -1))


def _drop_users(found: PerUser, ranks: SampledRanks) -> PerUser:
    """Leave out users without a negative to draw, who would be perfect by default."""
    kept = ranks.candidates[found.users] > 0
    users = found.users[kept]
    return PerUser(found.values[kept], users, len(ranks.counts) - len(users))


def _sentence(name: str, negatives: int, sampler: Sampler, correction: Correction | None, seed: int) -> str:
    how = {
        None: "not comparable with the full ranking",
        "rank": "corrected by the unbiased estimate of the rank",
        "bias-variance": "corrected by the estimator that trades bias for variance",
    }[correction]
    return (
        f"{METRICS[name].text} Each user's relevant items ranked among {negatives} negatives drawn with replacement "
        f"({sampler}, seed {seed}) instead of the catalogue, {how}."
    )


def _check_request(names: Sequence[str], sampler: Sampler, correction: Correction | None) -> None:
    usable = CORRECTABLE if correction else tuple(n for n, d in METRICS.items() if not d.is_graded)
    unknown = [name for name in names if name not in usable]
    if unknown:
        raise RecsysError(
            f"`names` must be among {', '.join(usable)} here; got {unknown[:3]}. Rank the full catalogue for others."
        )
    if correction and sampler != "uniform":
        raise RecsysError(
            f"A correction needs the uniform sampler; got {sampler!r}. Draw uniformly, or leave `correction` out."
        )
