import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics import ndcg_at_k, recall_at_k
from recsys.types import Histories, Ints


def draw_case(seed: int) -> tuple[Ints, Histories]:
    """Lists of 12 out of 20 items, some padded, for 50 users of whom a few have nothing relevant."""
    rng = np.random.default_rng(seed)
    items = rng.permuted(np.tile(np.arange(20), (50, 1)), axis=1)[:, :12].astype(np.int64)
    items[::7, 5:] = -1
    relevant = rng.random((50, 20)) < rng.choice([0.0, 0.1, 0.8], size=(50, 1))
    return items, csr_array(relevant.astype(np.float32))


def brute_metrics(items: list[int], relevant: set[int], k: int) -> tuple[float, float]:
    gains = [1.0 if item in relevant else 0.0 for item in items[:k]]
    gained = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    return sum(gains) / len(relevant), gained / best


@pytest.mark.parametrize("k", [1, 3, 10, 12])
def test_metrics_equal_their_definitions_user_by_user(k: int) -> None:
    items, relevant = draw_case(k)
    sets = [set(relevant[[user]].indices.tolist()) for user in range(50)]
    users = [user for user in range(50) if sets[user]]
    expected = np.array([brute_metrics(items[user].tolist(), sets[user], k) for user in users])
    for found, wanted in (
        (recall_at_k(items, relevant, k), expected[:, 0]),
        (ndcg_at_k(items, relevant, k), expected[:, 1]),
    ):
        np.testing.assert_allclose(found.values, wanted, rtol=1e-12)
        assert found.users.tolist() == users
        assert found.skipped == 50 - len(users) > 0


def test_the_best_list_scores_one_even_with_more_relevant_items_than_places() -> None:
    relevant = csr_array(np.ones((1, 5), dtype=np.float32))
    found = ndcg_at_k(np.array([[4, 2]]), relevant, 2)
    np.testing.assert_allclose(found.values, [1.0])
    assert recall_at_k(np.array([[4, 2]]), relevant, 2).values.tolist() == [2 / 5]


def test_lists_that_do_not_fit_are_refused() -> None:
    items, relevant = draw_case(0)
    with pytest.raises(ShapeError, match=r"50 users and at least 13 places; got shape \(50, 12\)"):
        recall_at_k(items, relevant, 13)
    with pytest.raises(ShapeError, match=r"50 users and at least 5 places; got shape \(49, 12\)"):
        ndcg_at_k(items[1:], relevant, 5)
