import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.index import ExactIndex, FaissIndex, ItemIndex
from recsys.index.exact import scan_allowed
from recsys.index.filters import select_columns
from recsys.types import Bools, Histories
from tests.helpers.brute_force_search import search_by_force


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_seen(rows: int, items: int, share: float, seed: int) -> Histories:
    return csr_array((np.random.default_rng(seed).random((rows, items)) < share).astype(np.float32))


def allowed_masks(rows: int, items: int) -> list[Bools | None]:
    rng = np.random.default_rng(3)
    lopsided = rng.random((rows, items)) < 0.95
    lopsided[::4] = rng.random((len(lopsided[::4]), items)) < 0.02
    return [None, rng.random(items) < 0.9, rng.random(items) < 0.03, np.zeros(items, dtype=bool), lopsided]


def both(vectors: torch.Tensor) -> list[ItemIndex]:
    return [ExactIndex(vectors), FaissIndex(vectors)]


@pytest.mark.parametrize("seen_share", [0.0, 0.2])
@pytest.mark.parametrize("mask", range(5))
def test_both_find_what_brute_force_finds(seen_share: float, mask: int) -> None:
    vectors, queries = draw(60, 5, seed=0), draw(8, 5, seed=1)
    seen, allowed = some_seen(8, 60, seen_share, 2), allowed_masks(8, 60)[mask]
    twin = search_by_force(vectors, queries, 7, seen=seen, allowed=allowed)
    for index in both(vectors):
        found = index.search(queries, 7, seen=seen, allowed=allowed)
        assert np.array_equal(found.items, twin.items)
        np.testing.assert_allclose(found.scores, twin.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seen_share", [0.0, 0.05, 0.7])
@pytest.mark.parametrize("mask", range(5))
def test_faiss_finds_exactly_what_a_scan_finds(seen_share: float, mask: int) -> None:
    vectors, queries = draw(4000, 12, seed=0), draw(30, 12, seed=1)
    seen, allowed = some_seen(30, 4000, seen_share, 2), allowed_masks(30, 4000)[mask]
    exact = ExactIndex(vectors).search(queries, 15, seen=seen, allowed=allowed)
    found = FaissIndex(vectors).search(queries, 15, seen=seen, allowed=allowed)
    assert np.array_equal(found.items, exact.items)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [1, 2, 3, 4])
def test_scanning_allowed_items_alone_changes_nothing(mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries, seen = draw(300, 6, seed=0), draw(20, 6, seed=1), some_seen(20, 300, 0.1, 2)
    allowed = allowed_masks(20, 300)[mask]
    assert allowed is not None
    exact = ExactIndex(vectors).search(queries, 9, seen=seen, allowed=allowed)
    for at_once in (2**25, 5000):
        monkeypatch.setattr("recsys.index.exact.SCORES_AT_ONCE", at_once)
        found = scan_allowed(vectors, queries, 9, seen=seen, allowed=allowed)
        assert np.array_equal(found.items, exact.items)
        np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5, atol=1e-5)


def test_ties_at_the_cut_go_to_the_smaller_item() -> None:
    for index in both(torch.ones(100, 4)):
        assert index.search(torch.ones(3, 4), 5).items.tolist() == [[0, 1, 2, 3, 4]] * 3


@pytest.mark.parametrize("rows", [1, 40])
def test_ties_inside_and_across_the_cut_go_to_the_smaller_item(rows: int) -> None:
    # Whole numbers, whose products are exact: 3,000 items share 15 scores.
    vectors = torch.randint(0, 3, (3000, 3), generator=torch.Generator().manual_seed(0)).float()
    queries = torch.tensor([[1.0, 2.0, 4.0]]).repeat(rows, 1)
    score = (vectors @ queries[0]).numpy()
    wanted = np.lexsort((np.arange(3000), -score))[:150]
    for index in both(vectors):
        assert (index.search(queries, 150).items == wanted).all()


def test_a_positive_and_a_negative_zero_tie() -> None:
    vectors = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [-2.0, 0.0], [-3.0, 0.0]])
    for index in both(vectors):
        assert index.search(torch.tensor([[1.0, -0.0]]), 1).items.tolist() == [[1]]


def test_more_queries_than_a_block_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = draw(50, 4, seed=0), draw(23, 4, seed=1)
    whole = [index.search(queries, 5).items for index in both(vectors)]
    monkeypatch.setattr("recsys.index.faiss_index.FAISS_ROWS_AT_ONCE", 10)
    monkeypatch.setattr("recsys.index.exact.SCORES_AT_ONCE", 500)
    for index, items in zip(both(vectors), whole, strict=True):
        assert np.array_equal(index.search(queries, 5).items, items)


def test_a_row_is_answered_alone_as_beside_others() -> None:
    vectors, queries, seen = draw(3000, 8, seed=0), draw(12, 8, seed=1), some_seen(12, 3000, 0.02, 2)
    index = FaissIndex(vectors)
    whole = index.search(queries, 20, seen=seen)
    alone = [index.search(queries[[row]], 20, seen=seen[[row]]).items[0] for row in range(12)]
    assert np.array_equal(np.stack(alone), whole.items)


def test_no_queries_give_no_lists() -> None:
    for index in both(draw(50, 4, seed=0)):
        assert index.search(torch.empty(0, 4), 5).items.shape == (0, 5)


def test_no_items_give_padding() -> None:
    for index in both(torch.empty(0, 4)):
        found = index.search(torch.ones(2, 4), 3)
        assert (found.items == -1).all() and np.isneginf(found.scores).all()


def test_long_lists_hold_every_item_and_then_padding() -> None:
    for index in both(draw(20, 4, seed=0)):
        found = index.search(draw(2, 4, seed=1), 25)
        assert (np.sort(found.items[:, :20]) == np.arange(20)).all() and (found.items[:, 20:] == -1).all()


def test_what_does_not_fit_is_refused() -> None:
    for index in both(draw(5, 4, seed=0)):
        with pytest.raises(ShapeError, match=r"shape \(B, 4\).* got \(2, 3\)"):
            index.search(torch.ones(2, 3), 1)
        with pytest.raises(ShapeError, match=r"`k` must be at least 1; got 0"):
            index.search(torch.ones(2, 4), 0)
        with pytest.raises(ShapeError, match=r"`seen` must have shape \(2, 5\).* got \(3, 5\)"):
            index.search(torch.ones(2, 4), 1, seen=some_seen(3, 5, 0.5, 0))
        with pytest.raises(ShapeError, match=r"`allowed` must have shape \(5,\) or \(2, 5\); got \(4,\)"):
            index.search(torch.ones(2, 4), 1, allowed=np.ones(4, dtype=bool))
        with pytest.raises(ShapeError, match=r"True or False for each item; got dtype int64"):
            index.search(torch.ones(2, 4), 1, allowed=np.arange(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_have_no_place_in_an_order_are_refused(value: float) -> None:
    queries = torch.ones(5, 4)
    queries[3, 1] = value
    for index in both(draw(5, 4, seed=0)):
        with pytest.raises(ShapeError, match=r"`queries` must be finite; got NaN or infinity in rows \[3\]"):
            index.search(queries, 1)
    for build in (ExactIndex, FaissIndex):
        with pytest.raises(ShapeError, match=r"`vectors` must be finite; got NaN or infinity in rows \[3\]"):
            build(queries)


def test_finite_numbers_whose_sum_overflows_are_not_refused() -> None:
    for index in both(torch.full((3, 2), 3e38)):
        assert index.search(torch.zeros(1, 2), 1).items.tolist() == [[0]]


def test_columns_are_picked_by_number_however_large() -> None:
    far = 2**40
    seen = csr_array(
        (np.array([1.0, 2.0, 3.0]), np.array([5, far, 7]), np.array([0, 2, 3])), shape=(2, far + 1)
    )
    assert select_columns(seen, np.array([5, 6, far])).toarray().tolist() == [
        [1.0, 0.0, 2.0],
        [0.0, 0.0, 0.0],
    ]
    assert select_columns(seen, np.array([], dtype=np.int64)).shape == (2, 0)


@pytest.mark.gpu
def test_gpu_search_finds_what_cpu_search_finds() -> None:
    vectors, queries, seen = draw(4000, 12, seed=0), draw(30, 12, seed=1), some_seen(30, 4000, 0.02, 2)
    found = FaissIndex(vectors.cuda()).search(queries.cuda(), 15, seen=seen)
    assert np.array_equal(found.items, ExactIndex(vectors).search(queries, 15, seen=seen).items)
