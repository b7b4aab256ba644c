import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import InteractionError, ShapeError
from recsys.index import ExactIndex, FaissIndex, IndexKind, IndexSettings, ItemIndex, LiveIndex
from recsys.types import TopK

D = 8
HNSW = IndexSettings(kind=IndexKind.HNSW, ef_search=200, tuned_k=5)
BUILDS: dict[str, Callable[[torch.Tensor], ItemIndex]] = {
    "scan": ExactIndex,
    "flat": FaissIndex,
    "hnsw": lambda vectors: FaissIndex(vectors, HNSW),
}


def draw(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def answer(catalogue: dict[int, torch.Tensor], queries: torch.Tensor, k: int) -> TopK:
    """The exact answer over a plain dictionary of vectors by id."""
    ids = np.array([*sorted(catalogue), -1])
    found = ExactIndex(torch.stack([catalogue[i] for i in ids[:-1].tolist()])).search(queries, k)
    return TopK(ids[found.items], found.scores)


def same(found: TopK, wanted: TopK) -> bool:
    return np.array_equal(found.items, wanted.items) and np.allclose(found.scores, wanted.scores, atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("rebuild_share", [0.001, 0.1, 100.0])
def test_any_run_of_writes_leaves_what_a_dictionary_would_hold(build: str, rebuild_share: float) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(5000)[:700]
    vectors, queries = draw(700, 0), draw(10, 1)
    live = LiveIndex(ids, vectors, build=BUILDS[build], rebuild_share=rebuild_share)
    held = dict(zip(ids.tolist(), vectors, strict=True))
    for step in range(6):
        absent = rng.permutation(np.setdiff1d(np.arange(5000), list(held)))[:20]
        present = rng.permutation(list(held))[:30]
        fresh = draw(50, 10 + step)
        live.add(absent, fresh[:20])
        live.update(present[:15], fresh[20:35])
        live.remove(present[15:])
        held |= dict(zip(absent.tolist(), fresh[:20], strict=True))
        held |= dict(zip(present[:15].tolist(), fresh[20:35], strict=True))
        held = {i: v for i, v in held.items() if i not in present[15:]}
        assert len(live) == len(held)
        assert same(live.search(queries, 5), answer(held, queries, 5))
    live.rebuild()
    assert len(live.snapshot.fresh_ids) == 0 and live.snapshot.is_alive.all()
    assert same(live.search(queries, 5), answer(held, queries, 5))
    kept, stored = live.snapshot.catalogue()
    assert kept.tolist() == sorted(held)
    assert torch.equal(stored, torch.stack([held[i] for i in sorted(held)]))


def test_filters_go_by_id_across_all_parts() -> None:
    live = LiveIndex(np.array([2, 5, 9]), torch.eye(3, D), build=ExactIndex, rebuild_share=9.0)
    live.add(np.array([4]), 2 * torch.eye(1, D))
    live.remove(np.array([9]))
    query = torch.ones(2, D)
    seen = csr_array((np.ones(2, dtype=np.float32), (np.array([0, 1]), np.array([4, 5]))), shape=(2, 30))
    assert live.search(query, 3).items.tolist() == [[4, 2, 5]] * 2
    assert live.search(query, 3, seen=seen).items.tolist() == [[2, 5, -1], [4, 2, -1]]
    # A mask of six columns says nothing of ids from 6 on, which are therefore not allowed.
    mask = np.array([0, 0, 1, 1, 1, 0], dtype=bool)
    assert live.search(query, 3, allowed=mask).items.tolist() == [[4, 2, -1]] * 2
    both = np.stack([mask, ~mask])
    assert live.search(query, 3, allowed=both, seen=seen).items.tolist() == [[2, -1, -1], [-1, -1, -1]]


def test_equal_scores_stand_by_ascending_id_across_parts() -> None:
    live = LiveIndex(np.array([7, 3]), torch.ones(2, D), rebuild_share=9.0)
    live.add(np.array([5, 1]), torch.ones(2, D))
    assert live.search(torch.ones(1, D), 3).items.tolist() == [[1, 3, 5]]


def test_an_index_can_be_emptied_and_filled_again() -> None:
    live = LiveIndex(np.array([4]), torch.ones(1, D))
    live.remove(np.array([4]))
    assert len(live) == 0 and live.search(torch.ones(1, D), 2).items.tolist() == [[-1, -1]]
    live.add(np.array([6]), torch.ones(1, D))
    assert live.search(torch.ones(1, D), 2).items.tolist() == [[6, -1]]


def test_a_snapshot_stays_what_it_was_and_owns_its_vectors() -> None:
    vectors = torch.eye(3, D)
    live = LiveIndex(np.arange(3), vectors)
    before = live.snapshot
    vectors.zero_()
    live.remove(np.array([0]))
    assert before.search(torch.ones(1, D), 3).items.tolist() == [[0, 1, 2]]
    assert live.search(torch.ones(1, D), 3).items.tolist() == [[1, 2, -1]]


def test_the_index_is_built_anew_only_past_the_share() -> None:
    builds: list[int] = []

    def count(vectors: torch.Tensor) -> ItemIndex:
        builds.append(len(vectors))
        return ExactIndex(vectors)

    live = LiveIndex(np.arange(100), draw(100, 0), build=count, rebuild_share=0.1)
    live.add(np.arange(100, 110), draw(10, 1))
    live.remove(np.arange(10))
    assert builds == [100]
    live.add(np.array([200]), draw(1, 2))
    assert builds == [100, 101]


def test_writes_that_make_no_sense_are_refused_and_change_nothing() -> None:
    live = LiveIndex(np.array([1, 2]), torch.eye(2, D))
    before = live.snapshot
    with pytest.raises(InteractionError, match=r"new to the index; got \[2\]"):
        live.add(np.array([2, 3]), torch.ones(2, D))
    with pytest.raises(InteractionError, match=r"in the index; got \[8, 9\]"):
        live.update(np.array([9, 1, 8]), torch.ones(3, D))
    with pytest.raises(InteractionError, match=r"in the index; got \[7\]"):
        live.remove(np.array([7]))
    with pytest.raises(InteractionError, match=r"distinct and 0 or more; got \[-1, 5\]"):
        live.add(np.array([5, 5, -1]), torch.ones(3, D))
    with pytest.raises(ShapeError, match=r"`vectors` must have shape \(1, 8\).* got \(2, 8\)"):
        live.add(np.array([5]), torch.ones(2, D))
    with pytest.raises(InteractionError, match="`ids` must be whole numbers; got dtype float64"):
        live.add(np.array([5.5]), torch.ones(1, D))
    with pytest.raises(ShapeError, match=r"`vectors` must be finite; got NaN or infinity in rows \[1\]"):
        live.add(np.array([5, 6]), torch.tensor([[1.0] * D, [torch.nan] * D]))
    assert live.snapshot is before


def test_searches_that_do_not_fit_are_refused() -> None:
    live = LiveIndex(np.array([1, 2]), torch.eye(2, D))
    with pytest.raises(ShapeError, match=r"shape \(B, 8\).* got \(1, 3\)"):
        live.search(torch.ones(1, 3), 1)
    with pytest.raises(ShapeError, match=r"`seen` must have 1 rows.* got 2"):
        live.search(torch.ones(1, D), 1, seen=csr_array((2, 9), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"`allowed` must have shape \(W,\) or \(1, W\); got \(2, 9\)"):
        live.search(torch.ones(1, D), 1, allowed=np.ones((2, 9), dtype=bool))
    with pytest.raises(ShapeError, match="True or False for each item; got dtype int64"):
        live.search(torch.ones(1, D), 1, allowed=np.array([1, 2]))


@pytest.mark.parametrize("rebuild_share", [0.001, 100.0])
def test_searches_in_many_threads_see_whole_states_only(rebuild_share: float) -> None:
    # Each write moves every item's vector to the next version, so one search may hold one version only.
    n, rounds = 40, 60
    ids = np.arange(n)
    live = LiveIndex(ids, torch.ones(n, D), rebuild_share=rebuild_share)
    done = threading.Event()
    faults: list[TopK] = []
    seen_versions: set[float] = set()

    def read() -> None:
        last = 0.0
        while not done.is_set():
            found = live.search(torch.ones(2, D), n)
            version = float(found.scores[0, 0])
            if (
                not (found.scores == version).all()
                or set(found.items[0].tolist()) != set(range(n))
                or version < last
            ):
                faults.append(found)
            seen_versions.add(version)
            last = version

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for v in range(1, rounds):
        live.update(ids, torch.full((n, D), v + 1.0))
    done.set()
    for reader in readers:
        reader.join()
    assert not faults and seen_versions
    assert (live.search(torch.ones(1, D), n).scores == float(rounds * D)).all()


def test_writers_in_many_threads_lose_nothing() -> None:
    live = LiveIndex(np.arange(10), draw(10, 0), rebuild_share=0.3)

    def write(first: int) -> None:
        for place in range(20):
            live.add(np.array([first + place]), draw(1, first + place))
        live.remove(np.arange(first, first + 10))

    writers = [threading.Thread(target=write, args=(100 * (w + 1),)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    wanted = [*range(10), *(100 * (w + 1) + p for w in range(4) for p in range(10, 20))]
    assert live.snapshot.catalogue()[0].tolist() == wanted


@pytest.mark.parametrize("kind", [IndexKind.FLAT, IndexKind.HNSW, IndexKind.IVF_SQ8])
def test_one_index_answers_many_threads_as_one(kind: IndexKind) -> None:
    index = FaissIndex(draw(3000, 0), IndexSettings(kind=kind, ef_search=50, lists=30, probes=10))
    queries = [draw(5, 20 + t) for t in range(6)]
    wanted = [index.search(q, 10).items for q in queries]
    wrong: list[int] = []

    def ask(t: int) -> None:
        for _ in range(15):
            if not np.array_equal(index.search(queries[t], 10).items, wanted[t]):
                wrong.append(t)

    threads = [threading.Thread(target=ask, args=(t,)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
