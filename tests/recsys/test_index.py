import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.index import ExactIndex, FaissIndex
from recsys.types import Bools, Histories


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_seen(rows: int, items: int, share: float, seed: int) -> Histories:
    return csr_array((np.random.default_rng(seed).random((rows, items)) < share).astype(np.float32))


def allowed_masks(rows: int, items: int) -> list[Bools | None]:
    rng = np.random.default_rng(3)
    lopsided = rng.random((rows, items)) < 0.95
    lopsided[::4] = rng.random((len(lopsided[::4]), items)) < 0.02
    return [None, rng.random(items) < 0.9, rng.random(items) < 0.03, np.zeros(items, dtype=bool), lopsided]


@pytest.mark.parametrize("seen_share", [0.0, 0.05, 0.7])
@pytest.mark.parametrize("mask", range(5))
def test_faiss_finds_exactly_what_a_scan_finds(seen_share: float, mask: int) -> None:
    vectors, queries = draw(400, 12, seed=0), draw(30, 12, seed=1)
    seen, allowed = some_seen(30, 400, seen_share, 2), allowed_masks(30, 400)[mask]
    exact = ExactIndex(vectors).search(queries, 15, seen=seen, allowed=allowed)
    found = FaissIndex(vectors).search(queries, 15, seen=seen, allowed=allowed)
    assert np.array_equal(found.items, exact.items)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5, atol=1e-5)


def test_ties_at_the_cut_go_to_the_smaller_item() -> None:
    vectors = torch.ones(100, 4)
    for index in (ExactIndex(vectors), FaissIndex(vectors)):
        assert index.search(torch.ones(3, 4), 5).items.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_more_queries_than_a_block_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = draw(50, 4, seed=0), draw(23, 4, seed=1)
    whole = FaissIndex(vectors).search(queries, 5)
    monkeypatch.setattr("recsys.index.ROWS_AT_ONCE", 10)
    assert np.array_equal(FaissIndex(vectors).search(queries, 5).items, whole.items)


def test_no_queries_give_no_lists() -> None:
    for index in (ExactIndex(draw(50, 4, seed=0)), FaissIndex(draw(50, 4, seed=0))):
        assert index.search(torch.empty(0, 4), 5).items.shape == (0, 5)


def test_queries_of_another_width_are_refused() -> None:
    for index in (ExactIndex(draw(5, 4, seed=0)), FaissIndex(draw(5, 4, seed=0))):
        with pytest.raises(ShapeError, match=r"shape \(B, 4\).* got \(2, 3\)"):
            index.search(torch.ones(2, 3), 1)


@pytest.mark.gpu
def test_gpu_search_finds_what_cpu_search_finds() -> None:
    vectors, queries = draw(400, 12, seed=0), draw(30, 12, seed=1)
    found = FaissIndex(vectors.cuda()).search(queries.cuda(), 15)
    assert np.array_equal(found.items, ExactIndex(vectors).search(queries, 15).items)
