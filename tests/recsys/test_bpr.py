import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import MissingDependency, RecsysError, ShapeError
from recsys.models.bpr import Bpr, mean_factors
from recsys.recipes.bpr import BprConfig, train
from recsys.types import Histories

CONFIG = BprConfig(levels=1, relevant_level=1, factors=8, learning_rate=0.05, iterations=60)


def two_camps(n_users: int, seed: int) -> Histories:
    """Even users take from the first ten items, odd ones from the other ten, six each."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((n_users, 20), dtype=np.float32)
    for user in range(n_users):
        taken[user, rng.choice(10, 6, replace=False) + 10 * (user % 2)] = 2
    return csr_array(taken)


def model_of() -> Bpr:
    rng = torch.Generator().manual_seed(0)
    users, items, biases, fold = (
        torch.randn(*shape, generator=rng) for shape in ((6, 3), (30, 3), (30,), (3, 3))
    )
    users[5] = 0.0
    return Bpr(users, items, biases, fold, torch.tensor([0.0, 1.0, 1.0, 1.0]))


def test_known_users_are_served_by_their_own_factors_and_strangers_by_the_fold_in(
    small_histories: Histories,
) -> None:
    model = model_of()
    ids = np.array([2, -1, 5, -1, 4, 0])
    found = model.user_factors(small_histories, ids)
    folded = model.user_factors(small_histories)
    assert torch.equal(found[[0, 4, 5]], model.users[[2, 4, 0]])
    # Row 2 names a user of whom nothing was learned.
    assert torch.equal(found[[1, 2, 3]], folded[[1, 2, 3]]) and bool(folded[2].any())
    taken = small_histories.toarray() >= 2
    means = (taken / np.maximum(taken.sum(1, keepdims=True), 1)) @ model.items.numpy()
    np.testing.assert_allclose(folded.numpy(), means @ model.fold.numpy(), atol=1e-5)


def test_scores_are_inner_products_and_biases(small_histories: Histories) -> None:
    model = model_of()
    expected = model.users[:5].numpy() @ model.items.numpy().T + model.biases.numpy()
    found = model.search(small_histories[:5], 30, exclude_seen=False, users=np.arange(5))
    np.testing.assert_allclose(found.scores, np.sort(expected, axis=1)[:, ::-1], atol=1e-5)


def test_without_a_history_the_biases_rank(small_histories: Histories) -> None:
    model = model_of()
    order = np.argsort(-model.biases.numpy(), kind="stable")
    assert model.search(small_histories[[5]], 5).items[0].tolist() == order[:5].tolist()


def test_users_that_do_not_fit_are_refused(small_histories: Histories) -> None:
    with pytest.raises(ShapeError, match=r"shape \(6,\), one id a history; got \(5,\)"):
        model_of().search(small_histories, 5, users=np.arange(5))
    with pytest.raises(ShapeError, match=r"0\.\.5, or be -1 for a stranger; got 1\.\.6"):
        model_of().search(small_histories, 5, users=np.arange(1, 7))
    with pytest.raises(ShapeError, match=r"got -2\.\.3"):
        model_of().search(small_histories, 5, users=np.arange(-2, 4))


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    model = model_of()
    model.save(tmp_path)
    ids = np.array([2, -1, 0, -1, 4, 5])
    loaded = Bpr.load(tmp_path)
    found, expected = (one.search(small_histories, 8, users=ids) for one in (loaded, model))
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu", None)
    with pytest.raises(MissingDependency, match="`implicit` must be installed for training iALS and BPR"):
        train(two_camps(4, 0), seed=0, config=CONFIG)


def test_settings_out_of_range_are_refused() -> None:
    weights = np.array([0, 1], dtype=np.float32)
    with pytest.raises(RecsysError, match=r"got 0, 1, 0[.]1 and 0[.]1"):
        Bpr.fit(
            two_camps(4, 0),
            level_weights=weights,
            factors=0,
            learning_rate=0.1,
            regularization=0.1,
            iterations=1,
            seed=0,
        )
    with pytest.raises(RecsysError, match="weight above 0; got none among 4 users"):
        train(csr_array(np.ones((4, 20), dtype=np.float32)), seed=0, config=CONFIG)


def test_training_tells_camps_apart_for_known_users_and_strangers() -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    histories, strangers = two_camps(80, 0), two_camps(20, 1)
    model = train(histories, seed=0, config=CONFIG)
    known = model.search(histories, 4, users=np.arange(80)).items // 10
    folded = model.search(strangers, 4).items // 10
    assert (known == np.arange(80)[:, None] % 2).mean() > 0.95
    assert (folded == np.arange(20)[:, None] % 2).mean() > 0.95


def test_the_fold_in_is_the_least_squares_map_to_learned_factors() -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    histories = two_camps(80, 0)
    model = train(histories, seed=0, config=CONFIG)
    means = mean_factors(histories, model.items)
    best = torch.linalg.lstsq(means.double(), model.users.double()).solution
    least = (means.double() @ best - model.users).square().sum()
    assert (means @ model.fold - model.users).square().sum() < 1.1 * least


def test_the_same_seed_gives_the_same_bits() -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    first, again, other = (train(two_camps(20, 0), seed=seed, config=CONFIG) for seed in (3, 3, 4))
    assert torch.equal(first.users, again.users) and torch.equal(first.items, again.items)
    assert not torch.equal(first.users, other.users)


def test_users_without_a_positive_have_no_learned_factors() -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    histories = two_camps(6, 0).toarray()
    histories[2] = 1.0
    model = train(csr_array(histories), seed=0, config=CONFIG)
    assert (model.users == 0).all(dim=1).tolist() == [False, False, True, False, False, False]


def test_divergence_is_told_with_the_step_size() -> None:
    pytest.importorskip("implicit", reason="the package `implicit` is not installed")
    config = CONFIG.model_copy(update={"learning_rate": 1e20, "iterations": 30})
    with pytest.raises(RecsysError, match=r"stay finite .*got NaN\. Lower `learning_rate` \(1e\+20\)"):
        train(two_camps(20, 0), seed=0, config=config)
