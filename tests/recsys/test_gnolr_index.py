"""GNOLR behind the index that suits its catalogue."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtefactError
from recsys.index import FaissIndex, IndexKind, choose_index, save_index
from recsys.models.gnolr import Gnolr
from tests.helpers.slow_gnolr import draw_histories, draw_model

ITEMS, USERS = 600, 80


def test_a_small_catalogue_keeps_the_exact_index(tmp_path: Path) -> None:
    model, histories = draw_model(items=ITEMS), draw_histories(USERS, ITEMS, 3, 0)
    indexed, plan = model.indexed(histories)
    assert plan.settings.kind is IndexKind.FLAT and plan.recall.value == 1
    found, expected = indexed.search(histories, 7), model.search(histories, 7)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_large_one_is_saved_with_its_index_and_its_measured_recall(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.models.gnolr.choose_index", partial(choose_index, flat_at_most=10))
    model, histories = draw_model(items=ITEMS), draw_histories(USERS, ITEMS, 3, 0)
    indexed, plan = model.indexed(histories, target_recall=0.9)
    assert plan.settings.kind is not IndexKind.FLAT and plan.recall.value >= 0.9
    indexed.save(tmp_path)
    loaded = Gnolr.load(tmp_path)
    assert isinstance(loaded.index, FaissIndex) and loaded.index.settings == plan.settings
    assert loaded.recall == plan.recall
    found, expected = loaded.search(histories, 10, level=level), model.search(histories, 10, level=level)
    shared = [
        len(set(a) & set(b)) / 10 for a, b in zip(found.items.tolist(), expected.items.tolist(), strict=True)
    ]
    assert np.mean(shared) >= 0.8
    # A save that was cut off after the index leaves it beside the weights of an earlier model.
    save_index(tmp_path / "index", FaissIndex(2 * model.item_blocks.flatten(1), plan.settings))
    with pytest.raises(ArtefactError, match=r"index in .* its vectors differ from the model"):
        Gnolr.load(tmp_path)
    # Saving the model with the exact index again leaves nothing of the other behind to be read.
    model.save(tmp_path)
    assert Gnolr.load(tmp_path).recall is None
