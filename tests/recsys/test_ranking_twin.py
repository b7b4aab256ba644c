from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import RecsysError, ShapeError
from recsys.metrics import METRICS, PerUser, definitions, ranking_metrics, relevant_levels
from recsys.metrics import ranking as module
from recsys.types import Histories, Ints, relevant_items
from tests.helpers import slow_metrics

AT_K: dict[str, Callable[[Ints, Histories, int], PerUser]] = {
    "recall": module.recall_at_k,
    "recall_capped": module.recall_capped_at_k,
    "precision": module.precision_at_k,
    "hit_rate": module.hit_rate_at_k,
    "ndcg": module.ndcg_at_k,
    "ndcg_exponential": module.graded_ndcg_at_k,
    "ndcg_linear": lambda items, relevant, k: module.graded_ndcg_at_k(items, relevant, k, exponential=False),
    "mrr": module.mrr_at_k,
    "map": module.map_at_k,
    "map_full": lambda items, relevant, k: module.map_at_k(items, relevant, k, capped=False),
}


def draw_lists(rng: np.random.Generator, users: int, n_items: int, k: int) -> Ints:
    """Lists of k places without repeats, cut short at random, longer than the catalogue where k is."""
    items = np.full((users, k), -1, dtype=np.int64)
    for row in items:
        length = rng.integers(min(k, n_items) + 1)
        row[:length] = rng.permutation(n_items)[:length]
    return items


def draw_relevant(rng: np.random.Generator, users: int, n_items: int) -> Histories:
    """Levels 0..4 stored one higher; some users have nothing."""
    share = rng.choice([0.0, 0.1, 0.9], size=(users, 1))
    return csr_array(
        ((rng.random((users, n_items)) < share) * rng.integers(1, 6, (users, n_items))).astype(np.float32)
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), n_items=st.integers(1, 12), k=st.integers(1, 15))
def test_every_metric_equals_its_slow_twin(seed: int, n_items: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    items, relevant = draw_lists(rng, 8, n_items, 15), draw_relevant(rng, 8, n_items)
    found = ranking_metrics(items, relevant, [k, 15], list(METRICS))
    assert found.keys() == {f"{name}@{cut}" for name in METRICS for cut in (k, 15)}
    stored = relevant.toarray().astype(int)
    levels = [{item: row[item] - 1 for item in np.flatnonzero(row).tolist()} for row in stored]
    for name in METRICS:
        for cut in (k, 15):
            slow = {
                user: slow_metrics.ranking(items[user].tolist(), levels[user], cut)
                for user in range(8)
                if levels[user]
            }
            expected = {user: values[name] for user, values in slow.items() if name in values}
            result = found[f"{name}@{cut}"]
            assert result.users.tolist() == list(expected)
            assert result.skipped == 8 - len(expected)
            np.testing.assert_allclose(result.values, list(expected.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_alone_is_the_metric_among_others(name: str) -> None:
    rng = np.random.default_rng(3)
    items, relevant = draw_lists(rng, 30, 40, 10), draw_relevant(rng, 30, 40)
    together = ranking_metrics(items, relevant, (5, 10), list(METRICS))[f"{name}@5"]
    alone = AT_K[name](items, relevant, 5)
    assert np.array_equal(alone.values, together.values)
    assert alone.users.tolist() == together.users.tolist() and alone.skipped == together.skipped


def test_the_best_list_scores_one_under_every_capped_metric() -> None:
    relevant = csr_array(np.array([[5, 4, 0, 2], [2, 2, 2, 2]], dtype=np.float32))
    best = np.array([[0, 1, 3], [3, 1, 0]])
    found = ranking_metrics(best, relevant, [3], list(METRICS))
    for name in (
        "recall_capped",
        "precision",
        "hit_rate",
        "ndcg",
        "ndcg_exponential",
        "ndcg_linear",
        "mrr",
        "map",
    ):
        np.testing.assert_allclose(found[f"{name}@3"].values, 1.0)
    assert found["recall@3"].values.tolist() == [1.0, 0.75]


def test_graded_ndcg_of_one_level_is_the_binary_one() -> None:
    rng = np.random.default_rng(0)
    items, relevant = draw_lists(rng, 20, 15, 10), draw_relevant(rng, 20, 15)
    flat = csr_array((np.full(relevant.nnz, 2.0), relevant.indices, relevant.indptr), shape=relevant.shape)
    found = ranking_metrics(items, flat, [10], ["ndcg", "ndcg_exponential", "ndcg_linear"])
    for name in ("ndcg_exponential@10", "ndcg_linear@10"):
        np.testing.assert_allclose(found[name].values, found["ndcg@10"].values, rtol=1e-12)


def test_a_user_whose_items_are_all_of_level_zero_has_no_graded_value() -> None:
    relevant = csr_array(np.array([[1, 1], [1, 2]], dtype=np.float32))
    found = ranking_metrics(np.array([[0, 1], [0, 1]]), relevant, [2], ["ndcg", "ndcg_linear"])
    assert found["ndcg@2"].users.tolist() == [0, 1]
    assert found["ndcg_linear@2"].users.tolist() == [1] and found["ndcg_linear@2"].skipped == 1


def test_relevant_levels_are_the_relevant_items_with_their_levels() -> None:
    histories = draw_relevant(np.random.default_rng(1), 10, 8)
    kept = relevant_levels(histories, 2)
    assert np.array_equal(kept.toarray() > 0, relevant_items(histories, 2).toarray() > 0)
    assert np.array_equal(kept.toarray(), np.where(histories.toarray() >= 3, histories.toarray(), 0))


def test_every_metric_has_a_printed_definition() -> None:
    found = definitions([f"{name}@10" for name in METRICS] + ["gauc", "coverage", "head", "full_list_auc"])
    assert all(text[0].isupper() or text[0] in "1|" for text in found.values())
    assert all(text.endswith("Here k = 10.") for name, text in found.items() if "@" in name)


@pytest.mark.parametrize("name", ["mapp@10", "ndcg@ten", "ndcg@", "ndcg@10~100neg-uniform-seed0"])
def test_an_unknown_figure_has_no_definition(name: str) -> None:
    with pytest.raises(RecsysError, match=f"such as 'ndcg@10'; got '{name}'"):
        definitions([name])


def test_requests_that_cannot_be_measured_are_refused() -> None:
    items, relevant = np.array([[0, 1]]), csr_array(np.ones((1, 3)))
    with pytest.raises(RecsysError, match="ranking metrics; got 'ndgc'"):
        ranking_metrics(items, relevant, [1], ["ndgc"])
    with pytest.raises(ShapeError, match=r"at least one; got \[\]"):
        ranking_metrics(items, relevant, [])
    with pytest.raises(ShapeError, match=r"1 or more, at least one; got \[0, 2\]"):
        ranking_metrics(items, relevant, [0, 2])
    with pytest.raises(ShapeError, match="`k` must be at least 1; got 0"):
        module.mrr_at_k(items, relevant, 0)
    with pytest.raises(ShapeError, match=r"at least 3 places; got shape \(1, 2\)"):
        ranking_metrics(items, relevant, [1, 3])
