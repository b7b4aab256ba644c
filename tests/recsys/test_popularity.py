from pathlib import Path

import numpy as np
import pytest

from recsys.errors import OrdinalError
from recsys.models.popularity import Popularity
from recsys.recipes.popularity import PopularityConfig, train
from recsys.types import Histories


def test_items_rank_by_the_sum_of_their_levels(small_histories: Histories) -> None:
    levels = np.maximum(small_histories.toarray() - 1, 0).sum(0)
    found = Popularity.fit(small_histories).search(small_histories, 30, exclude_seen=False)
    expected = np.lexsort((np.arange(30), -levels))
    assert all(row.tolist() == expected.tolist() for row in found.items)
    assert found.scores[0].tolist() == levels[expected].tolist()


def test_a_level_ranks_by_how_often_it_was_reached(small_histories: Histories) -> None:
    reached = (small_histories.toarray() >= 4).sum(0)
    found = Popularity.fit(small_histories, levels=3).search(small_histories, 5, level=3, exclude_seen=False)
    assert found.items[0].tolist() == np.lexsort((np.arange(30), -reached))[:5].tolist()
    with pytest.raises(OrdinalError, match=r"lie in 1\.\.3; got 4"):
        Popularity.fit(small_histories, levels=3).search(small_histories, 5, level=4)


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    weights = np.array([0, 3, 1, 1, 0], dtype=np.float32)
    model = Popularity.fit(small_histories, level_weights=weights)
    model.save(tmp_path)
    found = Popularity.load(tmp_path).search(small_histories, 8)
    assert np.array_equal(found.items, model.search(small_histories, 8).items)


def test_the_recipe_counts_what_reached_the_relevant_level(small_histories: Histories) -> None:
    reached = (small_histories.toarray() >= 3).sum(0)
    model = train(small_histories, seed=0, config=PopularityConfig(levels=3, relevant_level=2))
    found = model.search(small_histories, 30, exclude_seen=False)
    assert found.items[0].tolist() == np.lexsort((np.arange(30), -reached)).tolist()
    assert found.scores[0].tolist() == sorted(reached.tolist(), reverse=True)


def test_levels_deeper_than_told_are_refused(small_histories: Histories) -> None:
    with pytest.raises(OrdinalError, match=r"levels 0\.\.2; got 3"):
        Popularity.fit(small_histories, levels=2)
