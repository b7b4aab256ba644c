from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs
from persona.errors import DataError, ShapeError
from persona.evaluation import score_users
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes
from persona.profiles.particles import Particles
from persona.recipes.particles import fit_particles
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world


def two() -> Particles:
    """One user who wants more of a feature and, as its opposite, one who wants less."""
    return Particles.of_users(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), latent_dim=4, is_symmetric=True)


def pairs(*differences: list[float]) -> ReplyPairs:
    seen = torch.tensor(differences).reshape(1, len(differences), 2)
    return ReplyPairs.of_differences(seen, torch.ones(1, len(differences), dtype=torch.bool))


def test_belief_and_prediction_by_bayes_rule() -> None:
    particles = two()
    posterior = particles.encode(pairs([1.0, 0.0], [0.5, 3.0]))
    # Log-odds of the two kinds: each choice gives log s(x) - log s(-x) = x, so 2 + 1 in all.
    like = 1 / (1 + np.exp(-3.0))
    assert posterior.weights is not None
    assert posterior.weights[0, :2].sum().item() == pytest.approx(like)
    asked = particles.predict(posterior, pairs([-1.0, 9.0]))
    low = 1 / (1 + np.exp(2.0))
    assert asked.item() == pytest.approx(like * low + (1 - like) * (1 - low))


def test_a_latent_alone_means_the_particles_near_it() -> None:
    rng = torch.Generator().manual_seed(0)
    particles = Particles.of_users(torch.randn(40, 3, generator=rng), latent_dim=3, is_symmetric=True)
    nearby = particles.belief_at(particles.places)
    assert nearby.weights is not None
    torch.testing.assert_close(nearby.weights.sum(1), torch.ones(80))
    assert (nearby.weights.argmax(1) == torch.arange(80)).all()
    asked = ReplyPairs.of_differences(
        torch.randn(80, 30, 3, generator=rng), torch.ones(80, 30, dtype=torch.bool)
    )
    own = torch.einsum("btd,bd->bt", asked.difference, particles.weights) > 0
    assert ((particles.predict(nearby, asked) > 0.5) == own).float().mean() > 0.85
    assert torch.isfinite(two().belief_at(torch.tensor([[7.0]])).weights).all()  # type: ignore[arg-type]


def test_latent_is_the_place_among_particles() -> None:
    particles = two()
    assert particles.latent_dim == 1
    assert particles.encode(pairs()).mean.abs().max() < 1e-6
    posterior = particles.encode(pairs([50.0, 0.0]))
    torch.testing.assert_close(posterior.mean.abs(), torch.ones(1, 1))


def planted(users: int = 60, seed: int = 0) -> tuple[ComparisonTable, torch.Tensor]:
    """Users who each care for one of three features, some for less of it."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(600, 3))
    who = np.repeat(np.arange(users), 30)
    first, second = rng.integers(0, 300, size=len(who)), rng.integers(300, 600, size=len(who))
    taste = np.eye(3)[np.arange(users) % 3] * np.where(np.arange(users) % 2, -4.0, 4.0)[:, None]
    wins = rng.random(len(who)) < 1 / (
        1 + np.exp(-((features[first] - features[second]) * taste[who]).sum(1))
    )
    prompts = rng.integers(0, 1000, size=len(who))
    return (
        ComparisonTable(who, prompts, np.where(wins, first, second), np.where(wins, second, first)),
        torch.from_numpy(features).float(),
    )


def test_beats_a_gaussian_where_users_are_a_few_kinds() -> None:
    table, features = planted()
    train = table.select(table.users < 45)
    context = table.select((table.users >= 45) & (table.prompts < 500))
    target = table.select((table.users >= 45) & (table.prompts >= 500))
    particles = fit_particles(train, features, seed=0, iterations=8)
    gaussian = fit_hierarchical_bayes(train, features, seed=0, iterations=8)
    scores = [
        score_users(profile, context, target, features, k=3, seed=0).log_loss.mean()
        for profile in (particles, gaussian)
    ]
    assert scores[0] < scores[1] - 0.02


def test_keeps_the_contract_of_profiles_and_comes_back(tmp_path: Path) -> None:
    world = make_world(users=12, comparisons=10)
    particles = fit_particles(world.table, world.features, seed=0, iterations=2)
    shown = context_pairs(world.table, world.features, np.arange(12))
    check_profile(particles, shown)
    particles.save(tmp_path)
    again = Particles.load(tmp_path)
    assert torch.equal(again.encode(shown).mean, particles.encode(shown).mean)
    assert particles.lift(world.features) is world.features


def test_opposites_are_added_only_where_they_help() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(400, 2))).float()
    who = np.repeat(np.arange(20), 20)
    first, second = rng.integers(0, 200, 400), rng.integers(200, 400, 400)
    # Everybody wants more of the first feature: nobody is anybody's opposite.
    wins = (features[first, 0] > features[second, 0]).numpy()
    table = ComparisonTable(who, np.arange(400), np.where(wins, first, second), np.where(wins, second, first))
    assert len(fit_particles(table, features, seed=0, iterations=4).weights) == 20


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(DataError, match="at least 2 users; got 1"):
        Particles.of_users(torch.ones(1, 2), latent_dim=2, is_symmetric=False)
    with pytest.raises(DataError, match="got 3 equal rows"):
        Particles.of_users(torch.ones(3, 2), latent_dim=2, is_symmetric=False)
    with pytest.raises(ShapeError, match="2 features, as the particles have; got 1"):
        two().encode(ReplyPairs.of_differences(torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)))
    with pytest.raises(ShapeError, match="weights over 4 particles; got None"):
        two().predict(two().encode(pairs())._replace(weights=None), pairs([1.0, 0.0]))
    world = make_world(users=3, comparisons=3)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        fit_particles(world.table, world.features, seed=0)
