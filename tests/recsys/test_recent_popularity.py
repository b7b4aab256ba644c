import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.errors import InteractionError, RecsysError, ShapeError
from recsys.models.popularity import Popularity
from recsys.models.recent_popularity import entry_times, fit_recent_popularity
from recsys.recipes.popularity import PopularityConfig, train
from recsys.types import Histories

DAY = 86_400.0


def times_like(histories: Histories, seed: int = 0) -> Histories:
    rng = np.random.default_rng(seed)
    moments = 1.0 + rng.integers(0, 100, histories.nnz) * DAY
    return csr_array((moments, histories.indices.copy(), histories.indptr.copy()), shape=histories.shape)


def test_a_row_counts_half_as_much_a_half_life_earlier() -> None:
    histories = csr_array(np.array([[3, 2, 0], [3, 0, 4]], dtype=np.float32))
    times = csr_array(np.array([[1 + 40 * DAY, 1 + 30 * DAY, 0], [1 + 20 * DAY, 0, 1.0]]))
    model = fit_recent_popularity(histories, times, half_life_days=10.0, levels=3)
    # Level times 0.5 to the age in half-lives: 2 * (1 + 1/4), 1 * 1/2, 3 * 1/16.
    found = model.search(histories, 3, exclude_seen=False)
    assert found.items[0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.scores[0], [2.5, 0.5, 0.1875], rtol=1e-6)


def test_a_very_long_half_life_is_plain_popularity(small_histories: Histories) -> None:
    model = fit_recent_popularity(small_histories, times_like(small_histories), half_life_days=1e12)
    np.testing.assert_allclose(
        model.counts.numpy(), Popularity.fit(small_histories).counts.numpy(), rtol=1e-6
    )


def test_times_may_be_stored_in_another_order(small_histories: Histories) -> None:
    times = times_like(small_histories)
    shuffled = csr_array((times.data.copy(), times.indices.copy(), times.indptr.copy()), shape=times.shape)
    for row in range(times.shape[0]):
        part = slice(times.indptr[row], times.indptr[row + 1])
        shuffled.indices[part], shuffled.data[part] = times.indices[part][::-1], times.data[part][::-1]
    assert np.array_equal(entry_times(small_histories, shuffled, needed_by="x"), times.data)


def test_the_recipe_fades_where_a_half_life_is_set(small_histories: Histories) -> None:
    times = times_like(small_histories)
    config = PopularityConfig(levels=3, relevant_level=2, half_life_days=7.0)
    wanted = np.array([0, 0, 1, 1], dtype=np.float32)
    expected = fit_recent_popularity(
        small_histories, times, half_life_days=7.0, levels=3, level_weights=wanted
    )
    found = train(small_histories, seed=0, config=config, times=times)
    ours, theirs = found.search(small_histories, 9), expected.search(small_histories, 9)
    assert np.array_equal(ours.items, theirs.items) and np.array_equal(ours.scores, theirs.scores)


def test_times_must_be_there_and_fit(small_histories: Histories) -> None:
    with pytest.raises(InteractionError, match=f"each of the {small_histories.nnz} entries.*got None"):
        fit_recent_popularity(small_histories, None, half_life_days=7.0)
    with pytest.raises(
        ShapeError, match=rf"same entries .*of shape \(6, 30\)\); got {small_histories[:5].nnz}"
    ):
        fit_recent_popularity(small_histories, times_like(small_histories[:5]), half_life_days=7.0)
    moved = times_like(small_histories)
    moved.indices[:] = (moved.indices + 1) % 30
    with pytest.raises(ShapeError, match="or others"):
        fit_recent_popularity(small_histories, moved, half_life_days=7.0)
    with pytest.raises(RecsysError, match="`half_life_days` must be above 0; got -1"):
        fit_recent_popularity(small_histories, times_like(small_histories), half_life_days=-1)


def test_no_history_needs_no_times() -> None:
    empty = csr_array((2, 3), dtype=np.float32)
    assert fit_recent_popularity(empty, None, half_life_days=1.0).counts.sum() == 0
