import numpy as np
import pytest
import torch

from recsys.errors import ShapeError
from recsys.index import ExactIndex, IndexKind, IndexPlan, choose_index, measure_recall
from recsys.index.settings import IndexSettings, bytes_of

N, D, K = 3000, 8, 5


def draw(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def choose(vectors: torch.Tensor, **more: float | int | None) -> IndexPlan:
    return choose_index(vectors, k=K, sample_queries=draw(60, 1), **{"flat_at_most": 0, **more})  # type: ignore[arg-type]


def test_small_catalogues_are_scanned_and_need_no_sample() -> None:
    plan = choose_index(draw(200, 0), sample_queries=torch.empty(0, D))
    assert plan.settings.kind is IndexKind.FLAT and plan.recall.value == 1.0 and plan.tried == ()
    assert plan.reason == "200 items are at most 200000, where an exact scan is fast."


@pytest.mark.parametrize("target", [0.7, 0.9, 0.98])
def test_the_narrowest_graph_that_reaches_the_target_is_taken(target: float) -> None:
    vectors = draw(N, 0)
    plan = choose(vectors, target_recall=target)
    assert plan.settings.kind is IndexKind.HNSW
    assert plan.recall.value >= target and plan.recall.k == K and plan.recall.queries == 30
    assert plan.tried[-1].settings == plan.settings and plan.tried[-1].recall >= target
    fresh = draw(200, 7)
    found, exact = plan.index.search(fresh, K), ExactIndex(vectors).search(fresh, K)
    assert measure_recall(found, exact) > target - 0.05


def test_a_graph_too_large_for_the_memory_gives_way_to_bytes() -> None:
    graph = bytes_of(N, D, IndexSettings(kind=IndexKind.HNSW))
    plan = choose(draw(N, 0), memory_bytes=graph - 1, target_recall=0.6)
    assert plan.settings.kind is IndexKind.IVF_SQ8 and plan.recall.value >= 0.6
    assert "ivf+sq8 finds" in plan.reason


def test_a_catalogue_too_large_for_a_graph_gives_way_to_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.index.choosing.HNSW_AT_MOST", N - 1)
    assert choose(draw(N, 0), target_recall=0.6).settings.kind is IndexKind.IVF_SQ8


def test_a_target_that_no_kind_reaches_leaves_the_scan() -> None:
    vectors = torch.randn(N, 32, generator=torch.Generator().manual_seed(0))
    memory = bytes_of(N, 32, IndexSettings(kind=IndexKind.IVF))
    plan = choose_index(
        vectors,
        k=K,
        sample_queries=vectors[:60].flip(1),
        target_recall=1.0,
        flat_at_most=0,
        memory_bytes=memory,
    )
    assert plan.settings.kind is IndexKind.FLAT and plan.recall.queries == 0
    assert plan.reason.startswith("ivf+sq8 and ivf stayed below recall@5 1.0")
    assert {trial.settings.kind for trial in plan.tried} == {IndexKind.IVF_SQ8, IndexKind.IVF}


def test_no_memory_leaves_the_scan() -> None:
    assert choose(draw(N, 0), memory_bytes=0).reason.startswith("No kind fits `memory_bytes`, so every")


def test_the_same_seed_chooses_the_same() -> None:
    first, second = (choose(draw(N, 0), target_recall=0.9, seed=4) for _ in range(2))
    assert first.settings == second.settings and first.recall == second.recall
    same = first.index.search(draw(20, 9), K), second.index.search(draw(20, 9), K)
    assert np.array_equal(same[0].items, same[1].items) and np.array_equal(same[0].scores, same[1].scores)


def test_what_cannot_be_tuned_is_refused() -> None:
    vectors = draw(50, 0)
    with pytest.raises(ShapeError, match=r"`target_recall` must lie in \(0, 1\]; got 1\.5"):
        choose(vectors, target_recall=1.5)
    with pytest.raises(ShapeError, match=r"`k` must be at least 1; got 0"):
        choose_index(vectors, k=0, sample_queries=vectors)
    with pytest.raises(ShapeError, match=r"2 queries or more.* got 1\. Some hundreds"):
        choose_index(vectors, sample_queries=vectors[:1], flat_at_most=0)
    with pytest.raises(ShapeError, match=r"shape \(B, 8\).* got \(9, 7\)"):
        choose_index(vectors, sample_queries=torch.ones(9, 7), flat_at_most=0)


@pytest.mark.gpu
def test_a_cuda_device_is_given_the_scan() -> None:
    plan = choose(draw(N, 0).cuda())
    assert plan.settings.kind is IndexKind.FLAT and "CUDA" in plan.reason
