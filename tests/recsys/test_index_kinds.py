import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import ShapeError
from recsys.index import ExactIndex, FaissIndex, IndexKind, IndexSettings, measure_recall
from recsys.index.settings import bytes_of, default_lists, faiss_to_bytes
from recsys.types import Bools, TopK

N, D, K = 6000, 16, 10
SETTINGS = {
    IndexKind.HNSW: IndexSettings(kind=IndexKind.HNSW, ef_search=100, tuned_k=K),
    IndexKind.IVF: IndexSettings(kind=IndexKind.IVF, lists=40, probes=20, tuned_k=K),
    IndexKind.IVF_SQ8: IndexSettings(kind=IndexKind.IVF_SQ8, lists=40, probes=20, tuned_k=K),
}


def clusters(n: int, seed: int) -> torch.Tensor:
    centres = torch.randn(60, D, generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    spread = 0.4 * torch.randn(n, D, generator=rng)
    return torch.nn.functional.normalize(centres[torch.randint(60, (n,), generator=rng)] + spread)


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return clusters(N, 0)


@pytest.fixture(scope="module")
def built(vectors: torch.Tensor) -> dict[IndexKind, FaissIndex]:
    return {kind: FaissIndex(vectors, settings) for kind, settings in SETTINGS.items()}


def queries_near(vectors: torch.Tensor, n: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(5)
    return vectors[torch.randint(len(vectors), (n,), generator=rng)] + 0.1 * torch.randn(n, D, generator=rng)


def share(part: float, *shape: int, seed: int) -> Bools:
    mask: Bools = np.random.default_rng(seed).random(shape) < part
    return mask


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("part", [1.0, 0.9, 0.5, 0.2, 0.05, 0.005])
@pytest.mark.parametrize("by_query", [False, True])
def test_recall_holds_under_filters(
    kind: IndexKind, part: float, by_query: bool, vectors: torch.Tensor, built: dict[IndexKind, FaissIndex]
) -> None:
    queries = queries_near(vectors, 40)
    allowed = share(part, 40, N, seed=1) if by_query else share(part, N, seed=1)
    seen = csr_array(share(0.01, 40, N, seed=2).astype(np.float32))
    exact = ExactIndex(vectors).search(queries, K, seen=seen, allowed=allowed)
    found = built[kind].search(queries, K, seen=seen, allowed=allowed)
    recall = measure_recall(found, exact)
    assert recall == 1.0 if part <= 0.05 else recall >= 0.97
    by_row = np.broadcast_to(allowed, (40, N))
    owner = np.arange(40)[:, None]
    assert by_row[owner, found.items].all() and not seen.toarray()[owner, found.items].any()


@pytest.mark.parametrize("kind", SETTINGS)
def test_rows_left_short_by_an_unlucky_filter_are_scanned(
    kind: IndexKind, vectors: torch.Tensor, built: dict[IndexKind, FaissIndex]
) -> None:
    # The 80 % farthest from the query: none of the candidates survives.
    query = vectors[:1]
    score = (vectors @ query[0]).numpy()
    allowed = score <= np.quantile(score, 0.8)
    exact = ExactIndex(vectors).search(query, K, allowed=allowed)
    found = built[kind].search(query, K, allowed=allowed)
    assert np.array_equal(found.items, exact.items)


@pytest.mark.parametrize("kind", SETTINGS)
def test_scores_are_inner_products_of_the_full_vectors(
    kind: IndexKind, vectors: torch.Tensor, built: dict[IndexKind, FaissIndex]
) -> None:
    queries = 3.0 * queries_near(vectors, 25)
    found = built[kind].search(queries, K)
    wanted = (queries[:, None] * vectors[torch.from_numpy(found.items)]).sum(-1)
    np.testing.assert_allclose(found.scores, wanted.numpy(), rtol=1e-5)
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()


def test_vectors_of_different_lengths_are_found_by_inner_product(vectors: torch.Tensor) -> None:
    lengths = torch.rand(N, 1, generator=torch.Generator().manual_seed(3)) + 0.5
    index = FaissIndex(vectors * lengths, SETTINGS[IndexKind.IVF_SQ8])
    queries = queries_near(vectors, 40)
    exact = ExactIndex(vectors * lengths).search(queries, K)
    assert measure_recall(index.search(queries, K), exact) > 0.95


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_same_settings_build_the_same_index_on_one_thread(kind: IndexKind, vectors: torch.Tensor) -> None:
    few = vectors[:1500]
    first, second = (faiss_to_bytes(FaissIndex(few, SETTINGS[kind]).native) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF])
def test_a_wider_search_finds_more_in_the_same_index(
    kind: IndexKind, vectors: torch.Tensor, built: dict[IndexKind, FaissIndex]
) -> None:
    narrow = SETTINGS[kind].model_copy(update={"ef_search": 10, "probes": 1})
    queries = torch.randn(40, D, generator=torch.Generator().manual_seed(8))
    index = built[kind].with_settings(narrow)
    exact = ExactIndex(vectors).search(queries, K)
    assert index.native is built[kind].native
    assert measure_recall(index.search(queries, K), exact) < measure_recall(
        built[kind].search(queries, K), exact
    )


def test_settings_that_need_building_are_refused(built: dict[IndexKind, FaissIndex]) -> None:
    with pytest.raises(
        ShapeError, match=r"differ in ef_search, probes, tuned_k only; got another neighbours"
    ):
        built[IndexKind.HNSW].with_settings(SETTINGS[IndexKind.HNSW].model_copy(update={"neighbours": 8}))


def test_more_lists_than_items_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"at most the number of items \(50\); got 51"):
        FaissIndex(clusters(50, 0), IndexSettings(kind=IndexKind.IVF, lists=51))


def test_lists_grow_with_the_root_of_the_items_and_stay_full() -> None:
    assert [default_lists(n) for n in (1, 50, 3900, 1_000_000)] == [1, 1, 100, 4000]


@pytest.mark.parametrize("kind", SETTINGS)
def test_memory_is_foretold_to_a_tenth(kind: IndexKind, built: dict[IndexKind, FaissIndex]) -> None:
    size = len(faiss_to_bytes(built[kind].native))
    assert bytes_of(N, D, SETTINGS[kind]) == pytest.approx(size, rel=0.1)


def lists(items: list[list[int]], scores: list[list[float]]) -> TopK:
    return TopK(np.array(items, dtype=np.int64), np.array(scores, dtype=np.float32))


def test_recall_is_the_share_of_the_best_that_was_found() -> None:
    no = -np.inf
    exact = lists([[3, 1, 0], [5, 4, -1], [-1, -1, -1]], [[9, 8, 7], [2, 1, no], [no, no, no]])
    found = lists([[3, 0, 2], [4, -1, -1], [-1, -1, -1]], [[9, 7, 6], [1, no, no], [no, no, no]])
    empty = TopK(exact.items[2:], exact.scores[2:])
    assert measure_recall(found, exact) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert measure_recall(exact, exact) == measure_recall(empty, empty) == 1.0


def test_items_as_good_as_the_last_stand_for_one_another() -> None:
    exact = lists([[0, 1]], [[2, 1]])
    assert measure_recall(lists([[0, 7]], [[2, 1]]), exact) == 1.0
    assert measure_recall(lists([[0, 7]], [[2, 0.9]]), exact) == 0.5
