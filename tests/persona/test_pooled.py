import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles import bradley_terry_weights, fit_pooled
from tests.helpers.preference_world import make_world


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_weights_minimise_the_penalised_loss(l2: float) -> None:
    difference = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).double() + 0.3
    x = difference.numpy()
    best = minimize(lambda w: np.logaddexp(0.0, -x @ w).sum() + l2 / 2 * w @ w, np.zeros(4), method="BFGS").x
    np.testing.assert_allclose(bradley_terry_weights(difference, l2).numpy(), best, atol=1e-4)


def test_one_pair_in_closed_form() -> None:
    # Stationary point of log(1 + exp(-w)) + l2 w^2 / 2 at w = 1: l2 = sigmoid(-1).
    l2 = float(torch.sigmoid(torch.tensor(-1.0, dtype=torch.float64)))
    weights = bradley_terry_weights(torch.ones(1, 1, dtype=torch.float64), l2)
    assert weights.item() == pytest.approx(1.0, abs=1e-6)


def test_held_out_users_choose_a_strong_penalty_for_noise_and_a_weak_one_for_signal() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(400, 30))).float()
    users, first, second = np.repeat(np.arange(20), 10), np.arange(200), np.arange(200, 400)
    order = features[:, 0].numpy()
    wins = order[first] > order[second]
    clear = ComparisonTable(users, first, np.where(wins, first, second), np.where(wins, second, first))
    coin = rng.random(200) < 0.5
    noise = ComparisonTable(users, first, np.where(coin, first, second), np.where(coin, second, first))
    assert fit_pooled(clear, features, seed=0).l2 <= 10.0
    assert fit_pooled(noise, features, seed=0).l2 >= 1000.0


def test_the_same_for_every_user_and_a_proper_profile() -> None:
    world = make_world(users=6, comparisons=8)
    pooled = fit_pooled(world.table, world.features, seed=0)
    pairs = context_pairs(world.table, world.features, np.arange(6))
    check_profile(pooled, pairs)
    assert pooled.latent_dim == 0
    assert torch.equal(
        pooled.predict(pooled.encode(pairs), pairs),
        torch.sigmoid(pairs.difference @ pooled.weights),
    )
    assert torch.equal(pooled.lift(world.features), world.features)


def test_recovers_a_common_taste() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(3000, 3))).float()
    first, second = np.arange(0, 3000, 2), np.arange(1, 3000, 2)
    odds = ((features[first] - features[second]) @ torch.tensor([1.0, -2.0, 0.0])).numpy()
    wins = rng.random(1500) < 1 / (1 + np.exp(-odds))
    table = ComparisonTable(
        np.arange(1500) % 30, first, np.where(wins, first, second), np.where(wins, second, first)
    )
    weights = fit_pooled(table, features, seed=0).weights
    torch.testing.assert_close(weights, torch.tensor([1.0, -2.0, 0.0]), atol=0.2, rtol=0.0)


def test_wrong_inputs_are_named() -> None:
    world = make_world(users=3, comparisons=3)
    with pytest.raises(DataError, match=r"must be positive, at least one; got \[0\.0\]"):
        fit_pooled(world.table, world.features, seed=0, penalties=[0.0])
    with pytest.raises(DataError, match="must be at least 2; got 5 and 1"):
        fit_pooled(world.table.select(world.table.users == 0), world.features, seed=0)
    with pytest.raises(ShapeError, match=r"shape \(M, D\); got \(3,\)"):
        bradley_terry_weights(torch.zeros(3), 1.0)
