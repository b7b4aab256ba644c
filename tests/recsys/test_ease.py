from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import InteractionError, OrdinalError, RecsysError
from recsys.models.ease import Ease, level_weights, weigh_levels
from recsys.recipes.ease import EaseConfig, hide_at_random, train
from recsys.types import Histories

WEIGHTS = np.array([0, 0.5, 1, 2], dtype=np.float32)


def test_weights_solve_each_items_ridge_regression_on_the_others(small_histories: Histories) -> None:
    model = Ease.fit(small_histories, level_weights=WEIGHTS, l2=3.0)
    x = weigh_levels(small_histories, WEIGHTS).toarray().astype(np.float64)
    for item in range(30):
        others = np.delete(np.arange(30), item)
        gram = x[:, others].T @ x[:, others] + 3.0 * np.eye(29)
        expected = np.linalg.solve(gram, x[:, others].T @ x[:, item])
        np.testing.assert_allclose(model.weights[others, item].numpy(), expected, atol=1e-5)
    assert bool((model.weights.diagonal() == 0).all())


def test_scores_are_histories_times_weights(small_histories: Histories) -> None:
    model = Ease.fit(small_histories, level_weights=WEIGHTS, l2=3.0)
    scores = torch.from_numpy(weigh_levels(small_histories, WEIGHTS).toarray()) @ model.weights
    found = model.search(small_histories[:5], 30, exclude_seen=False)
    np.testing.assert_allclose(found.scores, np.sort(scores[:5].numpy(), axis=1)[:, ::-1], rtol=1e-5)


def test_a_user_without_weighted_history_gets_what_is_popular(small_histories: Histories) -> None:
    model = Ease.fit(small_histories, level_weights=WEIGHTS, l2=3.0)
    energy = (weigh_levels(small_histories, WEIGHTS).toarray() ** 2).sum(0)
    assert energy[model.search(small_histories[[5]], 30).items[0]].tolist() == sorted(
        energy.tolist(), reverse=True
    )


def test_levels_are_weighed_and_zero_weights_dropped(small_histories: Histories) -> None:
    found = weigh_levels(small_histories, WEIGHTS)
    stored = small_histories.toarray().astype(int)
    assert np.array_equal(found.toarray(), np.where(stored > 0, WEIGHTS[stored - 1], 0))
    assert found.nnz == int((stored > 1).sum())
    assert int((small_histories.data == 1).sum()) > 0  # the given histories are left as they were


def test_arguments_that_do_not_fit_are_refused(small_histories: Histories) -> None:
    with pytest.raises(RecsysError, match="`l2` must be above 0; got 0"):
        Ease.fit(small_histories, level_weights=WEIGHTS, l2=0)
    with pytest.raises(OrdinalError, match=r"levels 0\.\.2, those with a weight; got 3"):
        Ease.fit(small_histories, level_weights=WEIGHTS[:3], l2=1)
    with pytest.raises(
        RecsysError, match=r"at most 30,000 items.*got 30,001, 3\.6 GB for one copy\. Use iALS"
    ):
        Ease.fit(csr_array((2, 30_001), dtype=np.float32), level_weights=WEIGHTS, l2=1)
    with pytest.raises(InteractionError, match="10% of the users, which must be at least one; got 6 users"):
        train(small_histories, seed=0)


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    model = Ease.fit(small_histories, level_weights=WEIGHTS, l2=3.0)
    model.save(tmp_path)
    found, expected = Ease.load(tmp_path).search(small_histories, 8), model.search(small_histories, 8)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


def test_hiding_cuts_every_entry_into_one_of_two_parts(small_histories: Histories) -> None:
    known, hidden = hide_at_random(small_histories, 0.4, np.random.default_rng(0))
    assert (known * hidden).nnz == 0
    assert np.array_equal((known + hidden).toarray(), small_histories.toarray())
    assert 0 < hidden.nnz < known.nnz


def test_the_candidate_best_on_validation_is_fitted_on_everyone() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(3, size=90)
    likes = rng.random((90, 24)) < np.where(np.arange(24)[None] % 3 == groups[:, None], 0.6, 0.1)
    histories = csr_array(np.where(likes, 5, 0).astype(np.float32))
    rows: list[dict[str, float | str]] = []
    config = EaseConfig(l2=(1.0, 1e6), validation_users=0.3)
    model = train(histories, seed=0, config=config, report=rows.append)
    best = max(rows, key=lambda row: float(row["ndcg@10"]))
    weights = np.array([0, 0, 1, 1, 1]) if best["weighting"] == "wanted" else np.arange(5) / 4
    expected = Ease.fit(histories, level_weights=weights.astype(np.float32), l2=float(best["l2"]))
    assert len(rows) == 4
    assert torch.equal(model.weights, expected.weights)


def test_one_candidate_is_fitted_at_once_on_everyone(small_histories: Histories) -> None:
    rows: list[dict[str, float | str]] = []
    config = EaseConfig.model_validate({"levels": 3, "l2": 3.0, "weightings": "graded"})
    model = train(small_histories, seed=0, config=config, report=rows.append)
    graded = level_weights("graded", levels=3, relevant_level=2)
    expected = Ease.fit(small_histories, level_weights=graded, l2=3.0)
    assert rows == [] and torch.equal(model.weights, expected.weights)


def test_wanted_levels_count_one_and_graded_ones_their_share() -> None:
    assert level_weights("wanted", levels=3, relevant_level=2).tolist() == [0, 0, 1, 1]
    assert level_weights("graded", levels=2, relevant_level=2).tolist() == [0, 0.5, 1]
    for level in (0, 4):
        with pytest.raises(OrdinalError, match=rf"must lie in 1\.\.3, .*; got {level}"):
            level_weights("wanted", levels=3, relevant_level=level)
