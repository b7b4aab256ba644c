import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.metrics import ndcg_at_k, recall_at_k
from recsys.models.popularity import Popularity
from recsys.recipes.evaluate import evaluate_retrievers
from recsys.types import Histories, relevant_items


@pytest.fixture
def later(small_histories: Histories) -> Histories:
    """Held-out levels of items outside the histories; nobody's reach level 2 but the first three users'."""
    rng = np.random.default_rng(1)
    levels = rng.integers(1, 6, size=(6, 30)) * (rng.random((6, 30)) < 0.4) * (small_histories.toarray() == 0)
    levels[3:] = np.minimum(levels[3:], 2)
    return csr_array(levels.astype(np.float32))


def test_values_are_the_metrics_of_each_models_own_lists(
    small_histories: Histories, later: Histories
) -> None:
    model = Popularity.fit(small_histories)
    found = evaluate_retrievers({"popularity": model}, small_histories, later, cutoffs=(3, 5))
    items, relevant = model.search(small_histories, 5).items, relevant_items(later, 2)
    assert found.users.tolist() == [0, 1, 2]
    assert found.skipped == 3
    assert found.values["popularity"].keys() == {"ndcg@3", "ndcg@5", "recall@3", "recall@5"}
    assert found.values["popularity"]["ndcg@3"].tolist() == ndcg_at_k(items, relevant, 3).values.tolist()
    assert found.values["popularity"]["recall@5"].tolist() == recall_at_k(items, relevant, 5).values.tolist()


def test_a_model_compared_with_itself_does_not_differ(small_histories: Histories, later: Histories) -> None:
    model = Popularity.fit(small_histories)
    found = evaluate_retrievers({"a": model, "b": model}, small_histories, later)
    assert found.difference("a", "b", "recall@10", seed=0) == (0.0, 0.0, 0.0, 3)
    assert found.intervals(seed=0)["a"]["ndcg@10"].value == pytest.approx(found.values["a"]["ndcg@10"].mean())


def test_a_held_out_item_that_is_in_the_history_is_a_leak(
    small_histories: Histories, later: Histories
) -> None:
    with pytest.raises(ShapeError, match=f"got {small_histories.nnz} shared entries"):
        evaluate_retrievers({}, small_histories, later + small_histories)


def test_parts_of_other_shapes_are_refused(small_histories: Histories, later: Histories) -> None:
    with pytest.raises(ShapeError, match=r"got shapes \(6, 30\) and \(5, 30\)"):
        evaluate_retrievers({}, small_histories, later[:5])
