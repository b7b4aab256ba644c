import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import binom

from recsys.errors import RecsysError, ShapeError
from recsys.metrics import METRICS, ranking_metrics, sampled_ranking
from recsys.metrics.ranking import BINARY
from recsys.metrics.sampled import Correction, corrected_metric, outcome_values, sample_ranks
from recsys.topk import top_k
from recsys.types import Floats, Histories

CORRECTIONS: tuple[Correction, ...] = ("rank", "bias-variance")


def draw_scores(seed: int, users: int = 60, n_items: int = 40) -> tuple[Floats, Histories]:
    """Scores with ties that know something of what is relevant; some items may not be offered."""
    rng = np.random.default_rng(seed)
    relevant = rng.random((users, n_items)) < rng.choice([0.0, 0.05, 0.2], size=(users, 1))
    scores = (rng.normal(size=relevant.shape) + 1.5 * relevant).round(1).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    return scores, csr_array(relevant.astype(np.float32))


def test_ranks_are_counted_among_the_drawn_negatives_and_other_relevant_items() -> None:
    scores, relevant = draw_scores(0)
    negatives = 5000
    ranks = sample_ranks(scores, relevant, negatives=negatives, seed=0)
    row = 0
    for user in range(60):
        wanted = relevant.toarray()[user] > 0
        others = np.flatnonzero(~wanted & (scores[user] != -np.inf))
        assert ranks.candidates[user] == len(others) and ranks.counts[user] == wanted.sum()
        best = sorted(np.flatnonzero(wanted).tolist(), key=lambda i: (-scores[user, i], i))
        for place, item in enumerate(best):
            above = sum((-scores[user, i], i) < (-scores[user, item], item) for i in others)
            assert ranks.rows[row] == user and ranks.relevant_above[row] == place
            assert ranks.unreachable[row] == (scores[user, item] == -np.inf)
            # Five standard deviations of a share of 5,000 draws.
            assert (
                abs(ranks.negatives_above[row] / negatives - above / len(others)) < 5 * 0.5 / negatives**0.5
            )
            row += 1
    assert row == len(ranks.rows)


def test_a_very_large_sample_ranks_as_the_catalogue_does_once_corrected() -> None:
    scores, relevant = draw_scores(1)
    full = ranking_metrics(top_k(torch.from_numpy(scores), 10).items, relevant, [10], ["recall", "ndcg"])
    ranks = sample_ranks(scores, relevant, negatives=20_000, seed=0)
    for name in ("recall", "ndcg"):
        found = corrected_metric(ranks, name, 10, "rank")
        assert found.users.tolist() == full[f"{name}@10"].users.tolist()
        np.testing.assert_allclose(found.values.mean(), full[f"{name}@10"].values.mean(), atol=0.02)


def test_no_negative_above_gives_the_ranks_among_relevant_items_alone() -> None:
    relevant = csr_array(np.array([[1, 1, 0, 0, 0]], dtype=np.float32))
    scores = np.array([[5, 4, 3, 2, 1]], dtype=np.float32)
    found = sampled_ranking(scores, relevant, [1, 2], names=BINARY, negatives=3, seed=0)
    for name in BINARY:
        expected = ranking_metrics(np.array([[0, 1]]), relevant, [1, 2], [name])
        for k in (1, 2):
            assert found.values[f"{name}@{k}~3neg-uniform-seed0"].values == expected[f"{name}@{k}"].values


def test_names_and_sentences_say_how_the_sample_was_drawn() -> None:
    scores, relevant = draw_scores(2)
    popularity = np.arange(40)
    found = sampled_ranking(
        scores, relevant, [10], names=["mrr"], sampler="popularity", popularity=popularity, seed=7
    )
    assert list(found.values) == ["mrr@10~100neg-popularity-seed7"]
    sentence = found.definitions["mrr@10~100neg-popularity-seed7"]
    assert sentence.startswith(METRICS["mrr"].text) and "100 negatives" in sentence
    assert "(popularity, seed 7)" in sentence and "not comparable with the full ranking" in sentence
    corrected = sampled_ranking(scores, relevant, [10], negatives=50, correction="rank", seed=7)
    assert list(corrected.values) == [
        f"{name}@10~50neg-uniform-seed7-corrected-rank" for name in ("recall", "ndcg")
    ]


def test_the_same_seed_draws_the_same_and_plain_names_are_never_used() -> None:
    scores, relevant = draw_scores(3)
    one = sampled_ranking(scores, relevant, [5], names=BINARY, negatives=10, seed=1)
    two = sampled_ranking(scores, relevant, [5], names=BINARY, negatives=10, seed=1)
    assert all(np.array_equal(one.values[name].values, two.values[name].values) for name in one.values)
    assert all("~10neg-uniform-seed1" in name for name in one.values)
    other = sampled_ranking(scores, relevant, [5], negatives=10, seed=2).values["ndcg@5~10neg-uniform-seed2"]
    assert not np.array_equal(one.values["ndcg@5~10neg-uniform-seed1"].values, other.values)


def test_the_popularity_sampler_draws_in_proportion_and_never_what_has_none() -> None:
    scores = np.tile(np.arange(6, dtype=np.float32), (1, 1))
    relevant = csr_array(np.array([[0, 0, 0, 1, 0, 0]], dtype=np.float32))
    ranks = sample_ranks(scores, relevant, negatives=40_000, weights=np.array([5, 0, 0, 9, 1, 2]), seed=0)
    assert ranks.candidates.tolist() == [3]
    assert ranks.negatives_above[0] / 40_000 == pytest.approx(3 / 8, abs=0.015)


def test_users_without_a_negative_or_a_relevant_item_have_no_value() -> None:
    relevant = csr_array(np.array([[1, 1], [1, 0], [0, 0]], dtype=np.float32))
    scores = np.array([[1, 2], [1, 2], [1, 2]], dtype=np.float32)
    for correction in (None, *CORRECTIONS):
        found = sampled_ranking(scores, relevant, [1], negatives=5, correction=correction, seed=0)
        for result in found.values.values():
            assert result.users.tolist() == [1] and result.skipped == 2


def test_ties_rank_by_ascending_item_among_relevant_items_and_negatives() -> None:
    relevant = csr_array(np.array([[0, 1, 0, 1]], dtype=np.float32))
    scores = np.array([[0, 1, 1, 1]], dtype=np.float32)
    ranks = sample_ranks(scores, relevant, negatives=200, weights=np.array([0, 1, 1, 1]), seed=0)
    # Only item 2 is drawn: behind item 1 and in front of item 3, all of one score.
    assert ranks.relevant_above.tolist() == [0, 1]
    assert ranks.negatives_above.tolist() == [0, 200]


def test_a_relevant_item_that_may_not_be_offered_is_a_miss_however_few_negatives_there_are() -> None:
    relevant = csr_array(np.array([[1, 1, 0]], dtype=np.float32))
    scores = np.array([[1, -np.inf, 0]], dtype=np.float32)
    for correction in (None, *CORRECTIONS):
        found = sampled_ranking(
            scores, relevant, [8], names=["recall"], negatives=2, correction=correction, seed=0
        )
        (recall,) = (result.values for result in found.values.values())
        np.testing.assert_allclose(recall, [0.5])


def test_outcome_values_minimise_bias_and_variance_as_defined() -> None:
    n, m, k, w = 30, 6, 4, 0.1
    table = outcome_values("ndcg", k, n, m, w)
    assert table.shape == (m + 1, k)

    chances = [[float(binom.pmf(j, m, x / n)) for j in range(m + 1)] for x in range(n + 1)]

    def objective(values: np.ndarray, above: int) -> float:
        total = 0.0
        for x in range(n + 1):
            wanted = 1 / np.log2(x + above + 2) if x + above < k else 0.0
            mean = sum(c * v for c, v in zip(chances[x], values, strict=True))
            spread = sum(c * v * v for c, v in zip(chances[x], values, strict=True)) - mean**2
            total += (mean - wanted) ** 2 + w * spread
        return total

    rng = np.random.default_rng(0)
    for above in (0, 2):
        best = objective(table[:, above], above)
        moved = [objective(table[:, above] + 0.05 * rng.normal(size=m + 1), above) for _ in range(20)]
        assert best < min(moved)


def test_the_largest_variance_weight_gives_the_expected_gain_of_each_outcome() -> None:
    n, m = 25, 5
    table = outcome_values("recall", 3, n, m, 1.0)
    chance = np.array([[binom.pmf(j, m, x / n) for j in range(m + 1)] for x in range(n + 1)])
    gains = np.arange(n + 1) < 3
    np.testing.assert_allclose(table[:, 0], chance.T @ gains / chance.sum(0), rtol=1e-9)


def test_requests_that_cannot_be_answered_are_refused() -> None:
    scores, relevant = draw_scores(4)
    popularity = np.ones(40, dtype=np.int64)
    with pytest.raises(RecsysError, match=r"among recall, ndcg here; got \['map'\]"):
        sampled_ranking(scores, relevant, [5], names=["map"], correction="rank", seed=0)
    with pytest.raises(RecsysError, match=r"got \['ndcg_linear'\]"):
        sampled_ranking(scores, relevant, [5], names=["ndcg_linear"], seed=0)
    with pytest.raises(RecsysError, match="uniform sampler; got 'popularity'"):
        sampled_ranking(
            scores, relevant, [5], sampler="popularity", popularity=popularity, correction="rank", seed=0
        )
    with pytest.raises(RecsysError, match=r"`popularity` must be given .* got None"):
        sampled_ranking(scores, relevant, [5], sampler="popularity", seed=0)
    with pytest.raises(ShapeError, match="`negatives` must be at least 1; got 0"):
        sampled_ranking(scores, relevant, [5], negatives=0, seed=0)
    with pytest.raises(ShapeError, match=r"\(60, 40\); got \(60, 40\) and popularity of \(3,\)"):
        sampled_ranking(
            scores, relevant, [5], sampler="popularity", popularity=np.ones(3, dtype=np.int64), seed=0
        )
    ranks = sample_ranks(scores, relevant, negatives=5, seed=0)
    with pytest.raises(RecsysError, match="recall and ndcg can be corrected; got 'map'"):
        corrected_metric(ranks, "map", 5, "rank")
    with pytest.raises(RecsysError, match="above 0, at most 1; got 0"):
        corrected_metric(ranks, "recall", 5, "bias-variance", variance_weight=0)


@pytest.mark.statistical
def test_corrections_come_nearer_to_the_full_ranking_than_the_sample_does() -> None:
    rng = np.random.default_rng(0)
    relevant = np.zeros((3000, 400), dtype=np.float32)
    relevant[np.arange(3000)[:, None], rng.integers(400, size=(3000, 2))] = 1
    scores = (rng.normal(size=relevant.shape) + 2 * relevant).astype(np.float32)
    target = csr_array(relevant)
    full = ranking_metrics(top_k(torch.from_numpy(scores), 10).items, target, [10], ["recall", "ndcg"])
    away: dict[str, list[float]] = {}
    for seed in range(20):
        ranks = sample_ranks(scores, target, negatives=60, seed=seed)
        plain = sampled_ranking(scores, target, [10], negatives=60, seed=seed).values
        for name in ("recall", "ndcg"):
            truth = full[f"{name}@10"].values.mean()
            away.setdefault(f"{name} plain", []).append(
                plain[f"{name}@10~60neg-uniform-seed{seed}"].values.mean() - truth
            )
            for how in CORRECTIONS:
                estimate = corrected_metric(ranks, name, 10, how).values.mean()
                away.setdefault(f"{name} {how}", []).append(estimate - truth)
    bias = {name: abs(float(np.mean(values))) for name, values in away.items()}
    for name in ("recall", "ndcg"):
        assert bias[f"{name} rank"] < 0.5 * bias[f"{name} plain"]
        assert bias[f"{name} bias-variance"] < 0.5 * bias[f"{name} plain"]
