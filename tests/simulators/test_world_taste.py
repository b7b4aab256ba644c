"""The fit of real tastes, on planted ones."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import ArrayLike

from simulators.errors import WorldError
from simulators.world import FittedTaste, NestedChoice, fit_taste, item_mean_levels, log_loss_by_user
from simulators.world.taste import _nll, _Parameters, _Rows

N_USERS, N_ITEMS, N_FEATURES = 80, 60, 3


def planted_log(seed: int, per_user: int = 40) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A log of users with known tastes, its features, and the true utility of every pair."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N_ITEMS, N_FEATURES)).astype(np.float32)
    utility = rng.normal(size=(N_USERS, N_FEATURES)) @ features.T + 0.7 * rng.normal(size=N_ITEMS)
    utility += 0.5 * rng.normal(size=(N_USERS, 1))
    items = np.argsort(rng.random((N_USERS, N_ITEMS)), axis=1)[:, :per_user]
    users = np.repeat(np.arange(N_USERS), per_user)
    choice = NestedChoice(np.array([-2.0, -1.0, 0.5, 1.5]), np.ones(4))
    levels = choice.sample(utility[users, items.ravel()], rng.random(len(users)))
    log = pd.DataFrame({"user_id": users, "item_id": items.ravel(), "level": levels})
    return log, features, utility


def predicted(fitted: FittedTaste, users: ArrayLike, items: ArrayLike) -> np.ndarray:
    """P(level = k) of each user-item pair, shape (B, K)."""
    return fitted.choice.probabilities(fitted.utility(users, items))


def test_fit_recovers_planted_utilities() -> None:
    log, features, utility = planted_log(0)
    fitted = fit_taste(log, features, n_users=N_USERS, n_factors=0, epochs=150, learning_rate=0.05, seed=0)
    users, items = np.repeat(np.arange(N_USERS), N_ITEMS), np.tile(np.arange(N_ITEMS), N_USERS)
    assert np.corrcoef(fitted.utility(users, items), utility.ravel())[0, 1] > 0.9


def test_the_loss_is_that_of_the_nested_choice() -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = [(4,), (3,), (5, 1), (6, 1), (5, 3), (5, 2), (6, 2)]
    parameters = _Parameters(*(torch.randn(shape, generator=rng) for shape in shapes))
    features = torch.randn(6, 3, generator=rng)
    rows = _Rows(torch.arange(5).repeat(5), torch.arange(25) % 6, torch.arange(25) // 5)
    taste = parameters.taste + parameters.shared_taste
    utility = (
        parameters.user_effect
        + parameters.item_effect.T
        + taste @ features.T
        + parameters.loadings @ parameters.factors.T
    )
    choice = NestedChoice(parameters.thresholds.double().numpy(), np.ones(4))
    expected = -choice.log_likelihood(utility[rows.users, rows.items].numpy(), rows.levels.numpy())
    np.testing.assert_allclose(_nll(parameters, rows, features).numpy(), expected, rtol=1e-4)


def test_fit_starts_at_the_base_rates() -> None:
    log, features, _ = planted_log(1)
    fitted = fit_taste(log, features, n_users=N_USERS, n_factors=0, epochs=1, learning_rate=1e-9, seed=0)
    shares = np.bincount(log["level"]) / len(log)
    np.testing.assert_allclose(predicted(fitted, [0], [0])[0], shares, atol=1e-5)


def test_the_same_seed_gives_the_same_fit() -> None:
    log, features, _ = planted_log(2)
    first, second = (fit_taste(log, features, n_users=N_USERS, epochs=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.taste, second.taste)
    np.testing.assert_array_equal(first.factors, second.factors)


def test_users_without_rows_get_the_shared_taste() -> None:
    log, features, _ = planted_log(3)
    fitted = fit_taste(log, features, n_users=N_USERS + 1, n_factors=0, epochs=20, seed=0)
    assert fitted.user_effect[-1] == 0
    np.testing.assert_allclose(fitted.taste[-1], fitted.taste[:-1].mean(axis=0), atol=0.3)


def test_fit_beats_the_item_mean_on_later_rows() -> None:
    log, features, _ = planted_log(4, per_user=50)
    late = log.groupby("user_id").cumcount() >= 40
    fitted = fit_taste(log[~late], features, n_users=N_USERS, epochs=60, seed=0)
    users, items, levels = (log[late][name].to_numpy() for name in ("user_id", "item_id", "level"))
    model = log_loss_by_user(predicted(fitted, users, items), levels, users)
    rule = log_loss_by_user(item_mean_levels(log[~late], items, n_items=N_ITEMS), levels, users)
    assert model.mean() < rule.mean() - 0.1


def test_item_means_are_smoothed_towards_the_overall_shares() -> None:
    log = pd.DataFrame({"item_id": [0, 0, 1], "level": [1, 1, 0]})
    # Overall counts (1, 2) give shares (2/5, 3/5); item 0 has counts (0, 2), item 2 none.
    predicted = item_mean_levels(log, [0, 2], n_items=3, n_levels=2, strength=5)
    np.testing.assert_allclose(predicted, [[(0 + 2) / 7, (2 + 3) / 7], [2 / 5, 3 / 5]])


def test_log_loss_is_averaged_within_users() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]])
    loss = log_loss_by_user(probabilities, [0, 1, 0], [7, 7, 2])
    assert loss.to_dict() == pytest.approx({2: -np.log(0.1), 7: -(np.log(0.5) + np.log(0.75)) / 2})


def test_a_log_without_a_level_is_refused() -> None:
    log, features, _ = planted_log(5)
    with pytest.raises(WorldError, match=r"every level 0\.\.4 and no other .* got counts \[0, \d+"):
        fit_taste(log[log["level"] > 0], features, n_users=N_USERS, seed=0)
    with pytest.raises(WorldError, match=r"every level 0\.\.3 and no other"):
        fit_taste(log, features, n_users=N_USERS, n_levels=4, seed=0)
