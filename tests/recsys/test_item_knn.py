from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.artefacts import read_artefact, write_artefact
from recsys.errors import ArtefactError, OrdinalError, RecsysError
from recsys.models import item_knn
from recsys.models.ease import weigh_levels
from recsys.models.item_knn import ItemKnn
from recsys.recipes.item_knn import ItemKnnConfig, train
from recsys.types import Histories

WEIGHTS = np.array([0, 0.5, 1, 2], dtype=np.float32)


def slow_similarity(x: np.ndarray, neighbours: int, shrink: float) -> np.ndarray:
    """One pair at a time: row j of the history, column i of what is scored."""
    n_items = x.shape[1]
    found = np.zeros((n_items, n_items))
    for i in range(n_items):
        near = []
        for j in range(n_items):
            base = np.linalg.norm(x[:, i]) * np.linalg.norm(x[:, j]) + shrink
            if j != i and x[:, i] @ x[:, j] > 0:
                near.append((-np.float32(x[:, i] @ x[:, j] / base), j))
        for negative, j in sorted(near)[:neighbours]:
            found[j, i] = -negative
    return found


@pytest.mark.parametrize(("neighbours", "shrink"), [(3, 0.0), (5, 2.0), (100, 10.0)])
def test_similarity_is_the_shrunk_cosine_of_the_nearest(
    neighbours: int, shrink: float, small_histories: Histories
) -> None:
    model = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=neighbours, shrink=shrink)
    x = weigh_levels(small_histories, WEIGHTS).toarray().astype(np.float64)
    np.testing.assert_allclose(
        model.similarity.toarray(), slow_similarity(x, neighbours, shrink), rtol=1e-5, atol=1e-7
    )


def test_blocks_do_not_change_the_similarity(
    small_histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=4, shrink=1.0)
    monkeypatch.setattr(item_knn, "CELLS_AT_ONCE", 7 * 30)
    cut = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=4, shrink=1.0)
    assert np.array_equal(whole.similarity.toarray(), cut.similarity.toarray())


def test_scores_are_histories_times_similarity(small_histories: Histories) -> None:
    model = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=4, shrink=1.0)
    expected = weigh_levels(small_histories, WEIGHTS).toarray() @ model.similarity.toarray()
    found = model.search(small_histories[:5], 30, exclude_seen=False)
    np.testing.assert_allclose(found.scores, np.sort(expected[:5], axis=1)[:, ::-1], rtol=1e-5, atol=1e-7)


def test_items_that_nobody_took_have_no_neighbours_even_without_shrinkage() -> None:
    model = ItemKnn.fit(
        csr_array(np.array([[2, 2, 0], [2, 2, 0]], dtype=np.float32)),
        level_weights=np.array([0, 1], dtype=np.float32),
        neighbours=2,
        shrink=0.0,
    )
    np.testing.assert_allclose(model.similarity.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]], rtol=1e-6)


def test_a_user_without_weighted_history_gets_what_is_popular(small_histories: Histories) -> None:
    model = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=4, shrink=1.0)
    energy = (weigh_levels(small_histories, WEIGHTS).toarray() ** 2).sum(0)
    listed = energy[model.search(small_histories[[5]], 30).items[0]]
    assert listed.tolist() == sorted(energy.tolist(), reverse=True)


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    model = ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=4, shrink=1.0)
    model.save(tmp_path)
    found, expected = ItemKnn.load(tmp_path).search(small_histories, 8), model.search(small_histories, 8)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


def test_the_recipe_fits_with_its_config(small_histories: Histories) -> None:
    config = ItemKnnConfig(levels=3, relevant_level=3, neighbours=6, shrink=2.0)
    wanted = np.array([0, 0, 0, 1], dtype=np.float32)
    expected = ItemKnn.fit(small_histories, level_weights=wanted, neighbours=6, shrink=2.0)
    found = train(small_histories, seed=0, config=config)
    assert np.array_equal(found.similarity.toarray(), expected.similarity.toarray())


def test_settings_out_of_range_are_refused(small_histories: Histories) -> None:
    with pytest.raises(RecsysError, match="at least 1 and `shrink` at least 0; got 0 and 1"):
        ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=0, shrink=1.0)
    with pytest.raises(RecsysError, match="at least 0; got 5 and -1"):
        ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=5, shrink=-1.0)
    with pytest.raises(OrdinalError, match=r"`relevant_level` must lie in 1\.\.3, .*; got 4"):
        train(small_histories, seed=0, config=ItemKnnConfig(levels=3, relevant_level=4))


def test_a_saved_neighbour_outside_the_catalogue_is_refused(
    small_histories: Histories, tmp_path: Path
) -> None:
    ItemKnn.fit(small_histories, level_weights=WEIGHTS, neighbours=3, shrink=0.0).save(tmp_path)
    tensors, settings = read_artefact(tmp_path, item_knn.KIND)
    tensors["indices"][0] = 10**6
    write_artefact(tmp_path, item_knn.KIND, tensors, settings)
    with pytest.raises(ArtefactError, match=r"sparse matrix `data` of shape \(30, 30\); got: "):
        ItemKnn.load(tmp_path)
