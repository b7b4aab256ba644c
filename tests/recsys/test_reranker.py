from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.artefacts import read_artefact, write_artefact
from recsys.checks import check_lists, check_retriever
from recsys.errors import ArtefactError, RecsysError, ShapeError
from recsys.models.popularity import Popularity
from recsys.models.reranker import (
    FEATURES,
    ItemKnowledge,
    Reranked,
    Reranker,
    SlateScorer,
    level_scores,
    slate_features,
    standardise_scores,
)
from recsys.recipes.irpo import learn_items
from recsys.types import Floats, Histories, TopK


@pytest.fixture
def knowledge(small_histories: Histories) -> ItemKnowledge:
    tags = np.random.default_rng(1).random((30, 4)) < 0.4
    return learn_items(small_histories, features=csr_array(tags.astype(np.float32)), neighbours=6)


def reranker(knowledge: ItemKnowledge, *, beta: float = 1.0, hidden: int = 5, levels: int = 0) -> Reranker:
    """One with drawn weights."""
    scorer = SlateScorer(len(FEATURES) + levels, hidden=hidden, seed=3)
    with torch.no_grad():
        scorer.last.normal_(generator=torch.Generator().manual_seed(4))
    return Reranker(scorer, knowledge, beta=beta, levels=tuple(range(1, levels + 1)))


def found(items: list[list[int]], scores: list[list[float]]) -> TopK:
    return TopK(np.array(items, dtype=np.int64), np.array(scores, dtype=np.float32))


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("depth", [1, 8, 100])
def test_a_reranked_retriever_keeps_the_contract(
    depth: int, levels: int, small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    model = Reranked(Popularity.fit(small_histories), reranker(knowledge, levels=levels), depth)
    check_retriever(model, small_histories, 30)
    check_retriever(model, small_histories, 30, k=40)


def test_a_new_scorer_leaves_the_retrievers_lists(
    small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    retriever = Popularity.fit(small_histories)
    model = Reranked(retriever, Reranker(SlateScorer(len(FEATURES)), knowledge, beta=0.1), 12)
    expected = retriever.search(small_histories, 20)
    assert np.array_equal(model.search(small_histories, 20).items, expected.items)


def test_a_large_beta_keeps_the_retrievers_lists_and_a_small_one_follows_the_rewards(
    small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    retriever = Popularity.fit(small_histories)
    plain = retriever.search(small_histories, 12)
    # Without equal scores, which any reward, however small, would put in order.
    plain = TopK(plain.items, np.tile(np.arange(12, 0, -1, dtype=np.float32), (6, 1)))
    held = reranker(knowledge, beta=1e6).rerank(plain, small_histories)
    assert np.array_equal(held.items, plain.items)

    free = reranker(knowledge, beta=1e-6)
    features = slate_features(plain.scores, plain.items, small_histories, knowledge)
    rewards = free.scorer(torch.from_numpy(features)).numpy()
    expected = np.take_along_axis(plain.items, np.argsort(-rewards, axis=1), axis=1)
    assert np.array_equal(free.rerank(plain, small_histories).items, expected)


def test_policy_scores_are_reference_plus_reward_over_beta(
    small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    slate = found([[3, 7, 9]], [[4.0, 2.0, 0.0]])
    model = reranker(knowledge, beta=2.0)
    features = slate_features(slate.scores, slate.items, small_histories[:1], knowledge)
    rewards = model.scorer(torch.from_numpy(features))[0].tolist()
    step = 2 / np.sqrt(8 / 3)
    expected = {item: z + r / 2 for item, z, r in zip((3, 7, 9), (step, 0, -step), rewards, strict=True)}
    got = model.rerank(slate, small_histories[:1])
    assert dict(zip(got.items[0].tolist(), got.scores[0].tolist(), strict=True)) == pytest.approx(expected)


def test_only_the_first_places_are_reranked_and_the_rest_follows_in_order(
    small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    retriever = Popularity.fit(small_histories)
    plain = retriever.search(small_histories, 15)
    model = Reranked(retriever, reranker(knowledge, beta=0.01), 6)
    got = model.search(small_histories, 15)
    assert np.array_equal(np.sort(got.items[:, :6]), np.sort(plain.items[:, :6]))
    assert np.array_equal(got.items[:, 6:], plain.items[:, 6:])
    assert not np.array_equal(got.items[:, :6], plain.items[:, :6])
    assert np.array_equal(model.search(small_histories, 4).items, got.items[:, :4])


def test_padding_stays_behind_and_changes_nothing(
    small_histories: Histories, knowledge: ItemKnowledge
) -> None:
    model = reranker(knowledge, beta=0.5)
    short = found([[3, 7, 9]], [[4.0, 2.0, 0.0]])
    padded = found([[3, 7, 9, -1, -1]], [[4.0, 2.0, 0.0, -np.inf, -np.inf]])
    expected, got = (model.rerank(slate, small_histories[:1]) for slate in (short, padded))
    check_lists(got, 1, 5, 30)
    assert np.array_equal(got.items[:, :3], expected.items)
    np.testing.assert_allclose(got.scores[:, :3], expected.scores, rtol=1e-6)
    empty = found([[-1, -1]], [[-np.inf, -np.inf]])
    assert model.rerank(empty, small_histories[:1]).items.tolist() == [[-1, -1]]


def test_equal_scores_are_ordered_by_item(small_histories: Histories, knowledge: ItemKnowledge) -> None:
    model = Reranker(SlateScorer(len(FEATURES)), knowledge, beta=1.0)
    slate = found([[9, 3, 7]], [[2.0, 2.0, 2.0]])
    assert model.rerank(slate, small_histories[:1]).items.tolist() == [[3, 7, 9]]


def test_standardised_scores_have_mean_zero_and_deviation_one() -> None:
    scores = np.array([[3, 1, -np.inf], [5, 5, 5], [-np.inf] * 3, [3e-12, 1e-12, -np.inf]], dtype=np.float32)
    got = standardise_scores(scores)
    np.testing.assert_allclose(got, [[1, -1, 0], [0, 0, 0], [0, 0, 0], [1, -1, 0]], rtol=1e-6)
    np.testing.assert_allclose(standardise_scores(scores[:1] * 7 - 9), got[:1], rtol=1e-5)


def slow_features(slate: TopK, histories: Histories, knowledge: ItemKnowledge) -> Floats:
    """The last three features, user by user and item by item."""
    near, tags = knowledge.neighbours.toarray(), knowledge.features.toarray()
    result = np.zeros((*slate.items.shape, 3))
    for user, place in np.ndindex(*slate.items.shape):
        item, stored = slate.items[user, place], histories[[user]].toarray()[0]
        held = np.flatnonzero(stored)
        levels = stored[held] - 1
        total = levels.sum()
        cosine = near[held, item]
        shares = levels / total if total else 0 * levels
        mean = levels.mean() if len(held) else 0.0
        result[user, place, 0] = cosine @ shares
        result[user, place, 1] = cosine @ (levels - mean) / cosine.sum() if cosine.sum() else 0.0
        mine = np.flatnonzero(tags[item])
        result[user, place, 2] = np.mean([shares @ tags[held, tag] for tag in mine]) if len(mine) else 0.0
    return result.astype(np.float32)


def test_features_equal_their_definitions(small_histories: Histories, knowledge: ItemKnowledge) -> None:
    slate = Popularity.fit(small_histories).search(small_histories, 9)
    got = slate_features(slate.scores, slate.items, small_histories, knowledge)
    assert got.shape == (6, 9, len(FEATURES)) and got.dtype == np.float32
    assert np.array_equal(got[..., 0], standardise_scores(slate.scores))
    np.testing.assert_allclose(got[0, :3, 1], [1, 1 / np.log2(3), 0.5], rtol=1e-6)
    assert np.array_equal(got[..., 2], knowledge.popularity[slate.items])
    assert np.array_equal(got[..., 3], knowledge.mean_level[slate.items])
    np.testing.assert_allclose(got[..., 4:], slow_features(slate, small_histories, knowledge), atol=1e-6)
    assert bool((got[-1, :, 4:] == 0).all())  # nothing is known of a user without a history
    assert len(np.unique(got[:-1, :, 4:].reshape(-1, 3), axis=0)) > 20


def test_items_are_counted_averaged_and_compared(small_histories: Histories) -> None:
    known = learn_items(small_histories, neighbours=4, shrinkage=2.0)
    stored = small_histories.toarray()
    np.testing.assert_allclose(known.popularity, np.log1p((stored > 1).sum(0)), rtol=1e-6)
    rows, level = (stored > 0).sum(0), np.where(stored > 0, stored - 1, 0)
    overall = level.sum() / rows.sum()
    np.testing.assert_allclose(
        known.mean_level, (level.sum(0) - rows * overall) / (rows + 10), rtol=1e-4, atol=1e-6
    )
    norm = np.sqrt((level**2).sum(0))
    cosine = level.T @ level / (np.outer(norm, norm) + 2.0)
    np.fill_diagonal(cosine, 0)
    got = known.neighbours.toarray()
    kept = got > 0
    np.testing.assert_allclose(got[kept], cosine[kept], rtol=1e-5)
    assert np.array_equal(kept.sum(1), np.minimum((cosine > 0).sum(1), 4))
    np.testing.assert_allclose(got.sum(1), np.sort(cosine, axis=1)[:, -4:].sum(1), rtol=1e-5)
    assert known.features.shape == (30, 0)


def test_items_beyond_the_first_block_are_compared_alike(small_histories: Histories) -> None:
    few, n_items = learn_items(small_histories), 2100
    columns = np.random.default_rng(0).permutation(np.r_[0:1500:100, 2050:2065])
    coo = small_histories.tocoo()
    wide = csr_array((coo.data, (coo.row, columns[coo.col])), shape=(6, n_items))
    many = learn_items(wide)
    got = many.neighbours[np.repeat(columns, 30), np.tile(columns, 30)].reshape(30, 30)
    np.testing.assert_allclose(got, few.neighbours.toarray(), rtol=1e-6)
    assert many.neighbours.nnz == few.neighbours.nnz

    users = np.tile(np.arange(6), 350)
    places = np.tile(columns[:7], (2100, 1))
    slate = TopK(places, np.zeros(places.shape, dtype=np.float32))
    expected = TopK(places[:6], slate.scores[:6])
    np.testing.assert_allclose(
        slate_features(slate.scores, slate.items, wide[users], many),
        slate_features(expected.scores, expected.items, wide, many)[users],
        atol=1e-6,
    )


def test_level_scores_are_the_retrievers_own_for_each_level(small_histories: Histories) -> None:
    retriever = Popularity.fit(small_histories, levels=3)
    slate = retriever.search(small_histories, 7, exclude_seen=False)
    slate.items[2, 5:], slate.scores[2, 5:] = -1, -np.inf
    got = level_scores(retriever, slate, small_histories, (1, 3))
    for column, level in enumerate((1, 3)):
        counts = retriever.counts[:, level:].sum(1).numpy()
        expected = np.where(slate.items >= 0, counts[slate.items], -np.inf).astype(np.float32)
        np.testing.assert_allclose(got[..., column], standardise_scores(expected), atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_saved_reranker_answers_the_same(
    hidden: int, small_histories: Histories, knowledge: ItemKnowledge, tmp_path: Path
) -> None:
    model = reranker(knowledge, beta=0.3, hidden=hidden, levels=2)
    model.save(tmp_path)
    retriever = Popularity.fit(small_histories)
    expected, got = (
        Reranked(retriever, each, 8).search(small_histories, 10) for each in (model, Reranker.load(tmp_path))
    )
    assert np.array_equal(got.items, expected.items) and np.array_equal(got.scores, expected.scores)


def test_a_saved_matrix_that_points_outside_the_catalogue_is_refused(
    knowledge: ItemKnowledge, tmp_path: Path
) -> None:
    reranker(knowledge).save(tmp_path)
    tensors, settings = read_artefact(tmp_path, "reranker")
    tensors["neighbours.indices"][0] = 99
    write_artefact(tmp_path, "reranker", tensors, settings)
    with pytest.raises(ArtefactError, match=r"`neighbours` of shape \(30, 30\); got: "):
        Reranker.load(tmp_path)


def test_arguments_that_do_not_fit_are_refused(small_histories: Histories, knowledge: ItemKnowledge) -> None:
    slate = found([[3, 7]], [[4.0, 2.0]])
    with pytest.raises(RecsysError, match="`beta` must be above 0; got 0"):
        reranker(knowledge, beta=0)
    with pytest.raises(
        ShapeError, match=r"`histories` shape \(1, 30\); got \(1, 2\), \(1, 2\) and \(6, 30\)"
    ):
        slate_features(slate.scores, slate.items, small_histories, knowledge)
    with pytest.raises(
        ShapeError, match=r"`extra` must have shape \(1, 2, 2\), as in training; got \(1, 2, 0\)"
    ):
        reranker(knowledge, levels=2).rerank(slate, small_histories[:1])
    with pytest.raises(ShapeError, match=r"one row for each of the 30 items; got shape \(4, 2\)"):
        learn_items(small_histories, features=csr_array((4, 2), dtype=np.float32))
    retriever = Popularity.fit(small_histories)
    with pytest.raises(ShapeError, match="`depth` must be at least 1; got 0"):
        Reranked(retriever, reranker(knowledge), 0)
    with pytest.raises(ShapeError, match="`k` must be at least 1; got 0"):
        Reranked(retriever, reranker(knowledge), 5).search(small_histories, 0)
