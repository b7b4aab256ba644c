import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import MissingDependency, OrdinalError, RecsysError
from recsys.models import als
from recsys.models.als import IAls, implicit_penalty, import_implicit
from recsys.models.ease import weigh_levels
from recsys.recipes.als import IAlsConfig, train
from recsys.types import Histories

WEIGHTS = np.array([0, 0.5, 1, 2], dtype=np.float32)
BINARY = np.array([0, 1, 1, 1], dtype=np.float32)


def model_of(weights: np.ndarray = WEIGHTS, *, unobserved: float = 0.3, penalty: float = 2.0) -> IAls:
    factors = torch.from_numpy(np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32))
    return IAls(
        factors, torch.from_numpy(weights), torch.arange(30.0), unobserved=unobserved, penalty=penalty
    )


def test_fold_in_solves_each_users_normal_equations(small_histories: Histories) -> None:
    model = model_of()
    y = model.factors.numpy().astype(np.float64)
    taken = weigh_levels(small_histories, WEIGHTS).toarray().astype(np.float64)
    for found, weights in zip(model.fold_in(small_histories).numpy(), taken, strict=True):
        confidence = 1 + weights / 0.3
        expected = np.linalg.solve(
            (y.T * confidence) @ y + 2.0 * np.eye(4), y.T @ (confidence * (weights > 0))
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fold_in_does_not_depend_on_how_users_are_put_together(
    small_histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = model_of().fold_in(small_histories)
    monkeypatch.setattr(als, "GATHERED_AT_ONCE", 1)
    alone = model_of().fold_in(small_histories)
    np.testing.assert_allclose(alone.numpy(), together.numpy(), atol=1e-6, rtol=1e-5)


def test_settings_mean_what_the_paper_means(small_histories: Histories) -> None:
    """Minimise the paper's loss over one user at v = 0, and compare after the change of scale."""
    a, ridge = 0.3, 0.7
    model = model_of(BINARY, unobserved=a, penalty=ridge * (1 + a) / a)
    items = model.factors.numpy().astype(np.float64) / np.sqrt(1 + a)
    taken = weigh_levels(small_histories, BINARY).toarray().astype(np.float64)
    for found, seen in zip(model.fold_in(small_histories).numpy(), taken, strict=True):
        left = (items.T * seen) @ items + a * items.T @ items + ridge * np.eye(4)
        user = np.linalg.solve(left, items.T @ seen)
        np.testing.assert_allclose(found, np.sqrt(1 + a) * user, atol=1e-5)


def test_the_penalty_grows_with_rows_and_catalogue(small_histories: Histories) -> None:
    taken = weigh_levels(small_histories, BINARY)
    rows, a = taken.nnz, 0.5
    expected = 0.1 * 3.0 * np.sqrt((rows / 6 + a * 30) * (rows / 30 + a * 6))
    assert implicit_penalty(taken, regularization=0.1, unobserved=a) == pytest.approx(expected)


def test_a_user_without_weighted_history_gets_what_is_popular(small_histories: Histories) -> None:
    assert model_of().search(small_histories[[5]], 3).items[0].tolist() == [29, 28, 27]


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    model = model_of()
    model.save(tmp_path)
    found, expected = IAls.load(tmp_path).search(small_histories, 8), model.search(small_histories, 8)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


def test_a_missing_package_is_named_with_its_remedy(
    small_histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu", None)
    with pytest.raises(
        MissingDependency, match=r"`implicit` must be installed for training iALS and BPR.*baselines"
    ):
        train(small_histories, seed=0, config=IAlsConfig(levels=3))


def test_settings_out_of_range_are_refused(small_histories: Histories) -> None:
    def fit(
        factors: int = 4, regularization: float = 0.1, unobserved: float = 0.1, weights: np.ndarray = WEIGHTS
    ) -> None:
        IAls.fit(
            small_histories,
            level_weights=weights,
            factors=factors,
            regularization=regularization,
            unobserved=unobserved,
            iterations=2,
            seed=0,
        )

    with pytest.raises(RecsysError, match=r"got 0, 2, 0[.]1 and 0[.]1"):
        fit(factors=0)
    with pytest.raises(RecsysError, match=r"got 4, 2, 0[.]0 and 0[.]1"):
        fit(regularization=0.0)
    with pytest.raises(RecsysError, match=r"got 4, 2, 0[.]1 and -1"):
        fit(unobserved=-1)
    with pytest.raises(RecsysError, match="an item of weight above 0; got none among 6 users"):
        fit(weights=np.zeros(4, dtype=np.float32))
    with pytest.raises(OrdinalError, match=r"levels 0\.\.2, those with a weight; got 3"):
        fit(weights=WEIGHTS[:3])


def test_known_users_fold_in_as_implicit_recalculates_them(small_histories: Histories) -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    model = train(small_histories, seed=3, config=IAlsConfig(levels=3, relevant_level=1, factors=5))
    theirs = import_implicit().als.AlternatingLeastSquares(
        factors=5, regularization=model.penalty, num_threads=1
    )
    theirs.item_factors = model.factors.numpy()
    seen = csr_matrix(weigh_levels(small_histories, BINARY).toarray() * np.float32(1 + 1 / 0.2))
    expected = theirs.recalculate_user(np.arange(6), seen)
    np.testing.assert_allclose(model.fold_in(small_histories).numpy(), expected, atol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_leaves_thread_pools_alone(small_histories: Histories) -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    from threadpoolctl import threadpool_info  # noqa: PLC0415 - comes with `implicit`, which may be missing

    config = IAlsConfig(levels=3, relevant_level=1, factors=5)
    first = train(small_histories, seed=3, config=config)
    before = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    again, other = (train(small_histories, seed=seed, config=config) for seed in (3, 4))
    assert torch.equal(first.factors, again.factors) and not torch.equal(first.factors, other.factors)
    assert [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()] == before
