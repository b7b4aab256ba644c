from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles import (
    HierarchicalBayes,
    fit_hierarchical_bayes,
    fit_length_rule,
    predictive_probability,
)
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world


def planted(
    users: int, each: int, mean: list[float], factor: list[list[float]], seed: int = 0
) -> tuple[ComparisonTable, torch.Tensor]:
    rng = np.random.default_rng(seed)
    size, count = len(mean), users * each
    features = rng.normal(size=(2 * count, size))
    weights = np.asarray(mean) + rng.normal(size=(users, size)) @ np.asarray(factor).T
    who, first = np.repeat(np.arange(users), each), np.arange(0, 2 * count, 2)
    odds = np.einsum("md,md->m", features[first] - features[first + 1], weights[who])
    wins = rng.random(count) < 1 / (1 + np.exp(-odds))
    table = ComparisonTable(
        who, first // 2, np.where(wins, first, first + 1), np.where(wins, first + 1, first)
    )
    return table, torch.from_numpy(features).float()


def test_em_recovers_a_planted_population() -> None:
    factor = [[1.2, 0.0], [0.8, 0.5]]
    table, features = planted(400, 40, [1.0, -0.5], factor)
    model = fit_hierarchical_bayes(table, features, seed=0, iterations=15)
    torch.testing.assert_close(model.mean, torch.tensor([1.0, -0.5]), atol=0.25, rtol=0.0)
    truth = torch.tensor(factor) @ torch.tensor(factor).T
    # Laplace's approximation shrinks variances a little; the correlation is kept.
    torch.testing.assert_close(model.covariance, truth, atol=0.45, rtol=0.0)
    correlation = model.covariance[0, 1] / model.covariance.diagonal().prod().sqrt()
    assert correlation.item() == pytest.approx(0.96 / (1.44 * 0.89) ** 0.5, abs=0.12)


def test_posterior_matches_a_grid_in_one_dimension() -> None:
    model = HierarchicalBayes(torch.tensor([0.7]), torch.tensor([[1.5]]))
    difference = torch.tensor([[[1.0], [-0.5], [2.0], [0.3]]])
    posterior = model.encode(ReplyPairs.of_differences(difference, torch.ones(1, 4, dtype=torch.bool)))
    grid = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    odds = (0.7 + grid[:, None]) * difference[0, :, 0].double()
    log_density = torch.nn.functional.logsigmoid(odds).sum(1) - grid.square() / (2 * 1.5**2)
    mode = grid[log_density.argmax()]
    assert posterior.mean.item() == pytest.approx(mode.item(), abs=1e-3)
    density = torch.softmax(log_density, 0)
    mean = (density * grid).sum()
    variance = (density * (grid - mean).square()).sum()
    assert posterior.covariance.item() == pytest.approx(variance.item(), rel=0.15)


def test_keeps_the_contract_of_profiles() -> None:
    world = make_world(users=12, comparisons=10)
    model = fit_hierarchical_bayes(world.table, world.features, seed=0, iterations=2)
    check_profile(model, context_pairs(world.table, world.features, np.arange(12)))
    rule = fit_length_rule(world.table, world.features, 3, seed=0)
    check_profile(rule, context_pairs(world.table, world.features, np.arange(12)))
    assert (model.latent_dim, rule.latent_dim) == (world.features.shape[1], 1)
    assert rule.lift(world.features) is world.features
    assert model.lift(world.features) is world.features


def test_length_rule_reads_one_column_only() -> None:
    table, features = planted(40, 20, [0.0], [[2.0]])
    wide = torch.cat([torch.randn(len(features), 2, generator=torch.Generator().manual_seed(0)), features], 1)
    rule = fit_length_rule(table, wide, 2, seed=0)
    pairs = context_pairs(table, wide, np.arange(40), 10)
    other = ReplyPairs(*(part.clone() for part in pairs))
    other.chosen[..., :2] = 9.0
    assert torch.equal(rule.encode(pairs).mean, rule.encode(other).mean)
    assert torch.equal(rule.encode(pairs).covariance, rule.encode(other).covariance)
    right = rule.predict(rule.encode(pairs), context_pairs(table, wide, np.arange(40))) > 0.5
    assert right.float().mean() > 0.7


def test_floor_keeps_every_direction_open() -> None:
    table, features = planted(30, 5, [1.0, 0.0], [[0.0, 0.0], [0.0, 0.0]])
    model = fit_hierarchical_bayes(table, features, seed=0, iterations=40, floor=0.01)
    assert torch.linalg.eigvalsh(model.covariance).min() >= 0.0099


def test_reports_every_iteration_and_settles() -> None:
    table, features = planted(60, 10, [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    rows: list[dict[str, float]] = []
    fit_hierarchical_bayes(table, features, seed=0, iterations=12, report=rows.append)
    assert [row["iteration"] for row in rows] == list(range(1, 13))
    assert rows[-1]["change"] < rows[0]["change"] < 1.0


def test_same_seed_same_bits() -> None:
    table, features = planted(20, 5, [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    first, second = (fit_hierarchical_bayes(table, features, seed=3, iterations=3) for _ in range(2))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.factor, second.factor)


def test_blocks_of_users_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    table, features = planted(20, 5, [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    whole = fit_hierarchical_bayes(table, features, seed=0, iterations=3)
    monkeypatch.setattr("persona.profiles.hierarchical_bayes.USERS_PER_BLOCK", 7)
    blocks = fit_hierarchical_bayes(table, features, seed=0, iterations=3)
    torch.testing.assert_close(blocks.covariance, whole.covariance, atol=1e-4, rtol=1e-4)


def test_saved_model_comes_back(tmp_path: Path) -> None:
    model = HierarchicalBayes(torch.randn(3), torch.randn(3, 3))
    model.save(tmp_path)
    again = HierarchicalBayes.load(tmp_path)
    assert torch.equal(again.mean, model.mean)
    assert torch.equal(again.factor, model.factor)


def test_wrong_inputs_are_named() -> None:
    table, features = planted(5, 3, [1.0], [[1.0]])
    with pytest.raises(DataError, match=r"got 0 and 0\.0001"):
        fit_hierarchical_bayes(table, features, seed=0, iterations=0)
    with pytest.raises(ShapeError, match="one of the 1 features, from 0; got 4"):
        fit_length_rule(table, features, 4, seed=0)
    model = HierarchicalBayes(torch.zeros(3), torch.eye(3))
    with pytest.raises(ShapeError, match=r"must have 3 features.*got 2"):
        model.encode(ReplyPairs.of_differences(torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)))


def test_joint_log_odds_hold_the_single_ones() -> None:
    world = make_world(users=6, comparisons=8)
    model = HierarchicalBayes(0.1 * torch.ones(40), 0.3 * torch.eye(40))
    pairs = context_pairs(world.table, world.features, np.arange(6))
    posterior = model.encode(pairs)
    mean, variance = model.log_odds(posterior, pairs)
    joint_mean, covariance = model.joint_log_odds(posterior, pairs)
    torch.testing.assert_close(joint_mean, mean)
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2), variance, atol=1e-5, rtol=1e-4)
    assert torch.equal(model.predict(posterior, pairs), predictive_probability(mean, variance))
