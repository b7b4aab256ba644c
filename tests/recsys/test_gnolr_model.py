from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import OrdinalError, ShapeError
from recsys.index import ExactIndex
from recsys.models.gnolr import Gnolr, towers_like
from recsys.models.ordinal import Calibration
from recsys.models.towers import Towers, TowerSizes
from recsys.types import Histories

ITEMS, LEVELS = 60, 4


def make_model(*, dense: int = 0, exact: bool = False, seed: int = 0) -> Gnolr:
    """Towers with large random weights, so that every part of a step matters."""
    rng = torch.Generator().manual_seed(seed)
    towers = Towers(TowerSizes(ITEMS, LEVELS, 5, 6, 3, dense), torch.randn(ITEMS, 3, generator=rng), rng)
    with torch.no_grad():
        for weight in towers.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng))
    thresholds = torch.tensor([1.0, 2.0, 3.2, 4.9])
    towers.limit_steps(thresholds.diff())
    index = ExactIndex(towers.item_blocks().flatten(1)) if exact else None
    return Gnolr(towers, Calibration(torch.tensor(0.8), thresholds), retrieve_level=2, index=index)


@pytest.fixture
def histories() -> Histories:
    rng = np.random.default_rng(0)
    stored = rng.integers(1, LEVELS + 2, size=(9, ITEMS)) * (rng.random((9, ITEMS)) < 0.25)
    stored[-1] = 0
    return csr_array(stored.astype(np.float32))


def every_item(histories: Histories) -> np.ndarray:
    return np.tile(np.arange(ITEMS), (histories.shape[0], 1))


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_one_index_ranks_by_every_level_as_brute_force_does(
    histories: Histories, level: int, exact: bool
) -> None:
    model = make_model(exact=exact)
    found = model.search(histories, 10, level=level)
    probability = model.probabilities(histories, every_item(histories))[:, :, level - 1]
    probability[histories.toarray() > 0] = -1
    best = np.sort(probability, axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(np.take_along_axis(probability, found.items, 1), best, rtol=1e-5)
    # The scores are the logits of those very probabilities.
    np.testing.assert_allclose(1 / (1 + np.exp(-found.scores)), best, rtol=1e-5)


def test_search_aims_at_the_models_own_level(histories: Histories) -> None:
    model = make_model()
    assert np.array_equal(model.search(histories, 5).items, model.search(histories, 5, level=2).items)
    assert not np.array_equal(model.search(histories, 5).items, model.search(histories, 5, level=4).items)


def test_probabilities_fall_from_level_to_level_for_every_pair(histories: Histories) -> None:
    for seed in range(3):
        found = make_model(seed=seed).probabilities(histories, every_item(histories))
        assert found.shape == (9, ITEMS, LEVELS)
        assert (np.diff(found, axis=2) < 0).all()


def test_an_item_in_the_history_does_not_see_itself(histories: Histories) -> None:
    model = make_model()
    items = np.array([int(row.indices[0]) if row.nnz else 0 for row in (histories[[r]] for r in range(9))])
    reduced = histories.toarray()
    reduced[np.arange(9), items] = 0
    without = model.logits(csr_array(reduced), items)
    torch.testing.assert_close(model.logits(histories, items), without, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.logits(histories, items[:, None])[:, 0], without, rtol=1e-4, atol=1e-5)


def test_long_requests_are_answered_in_parts(histories: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    whole = model.logits(histories, every_item(histories))
    monkeypatch.setattr("recsys.models.gnolr.PAIRS_AT_ONCE", 100)
    torch.testing.assert_close(model.logits(histories, every_item(histories)), whole)
    assert model.logits(histories[:0], np.empty((0, 3), dtype=np.int64)).shape == (0, 3, LEVELS)


def test_user_features_matter_and_are_checked(histories: Histories) -> None:
    model = make_model(dense=2)
    zeros, ones = np.zeros((9, 2), dtype=np.float32), np.ones((9, 2), dtype=np.float32)
    first = model.search(histories, 5, user_features=zeros).items
    assert not np.array_equal(first, model.search(histories, 5, user_features=ones).items)
    with pytest.raises(ShapeError, match=r"`user_features` must have shape \(9, 2\); got None"):
        model.search(histories, 5)
    with pytest.raises(ShapeError, match=r"must have shape \(9, 0\); got \(9, 2\)"):
        make_model().search(histories, 5, user_features=zeros)


def test_a_saved_model_answers_the_same(histories: Histories, tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path)
    loaded = Gnolr.load(tmp_path)
    found, expected = loaded.search(histories, 7), model.search(histories, 7)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)
    assert torch.equal(
        loaded.logits(histories, every_item(histories)), model.logits(histories, every_item(histories))
    )


def test_copied_towers_share_no_memory() -> None:
    towers = make_model().towers
    copy = towers_like(asdict(towers.sizes), towers.state_dict())
    with torch.no_grad():
        copy.item_id.zero_()
    assert bool((towers.item_id != 0).any())
    assert copy.item_id.requires_grad


def test_requests_that_do_not_fit_are_refused(histories: Histories) -> None:
    model = make_model()
    for level in (0, 5):
        with pytest.raises(OrdinalError, match=rf"`level` must lie in 1\.\.4; got {level}"):
            model.search(histories, 5, level=level)
    with pytest.raises(ShapeError, match=r"\(9,\) or \(9, N\), one row a history; got \(3,\)"):
        model.logits(histories, np.arange(3))
    with pytest.raises(ShapeError, match=r"`items` must lie in 0\.\.59; got -1\.\.7"):
        model.logits(histories, np.arange(-1, 8))
