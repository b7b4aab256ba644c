from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles import HierarchicalBayes, LatentProfile, logistic_posterior
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world

USERS = np.arange(10)


def population(size: int = 40) -> HierarchicalBayes:
    rng = torch.Generator().manual_seed(0)
    return HierarchicalBayes(
        0.3 * torch.randn(size, generator=rng), 0.3 * torch.randn(size, size, generator=rng) / size**0.5
    )


def contexts(profile: LatentProfile, k: int = 8) -> ReplyPairs:
    world = make_world(users=10, comparisons=8)
    return context_pairs(world.table, profile.lift(world.features), USERS, k)


@pytest.mark.parametrize("hidden", [0, 5])
def test_keeps_the_contract_of_profiles(hidden: int) -> None:
    profile = LatentProfile.from_population(population(), 4, hidden=hidden, seed=1)
    with torch.no_grad():
        check_profile(profile, contexts(profile))


def test_full_size_latent_is_hierarchical_bayes() -> None:
    exact = population()
    profile = LatentProfile.from_population(exact, 40)
    pairs = contexts(profile)
    with torch.no_grad():
        got = profile.predict(profile.encode(pairs), pairs)
    torch.testing.assert_close(got, exact.predict(exact.encode(pairs), pairs), atol=1e-4, rtol=1e-4)


def test_start_keeps_the_directions_in_which_users_differ_most() -> None:
    model = HierarchicalBayes(torch.zeros(3), torch.diag(torch.tensor([1.0, 3.0, 2.0])))
    head = LatentProfile.from_population(model, 2).head.detach()
    torch.testing.assert_close(head, torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]))


def test_without_context_it_is_the_pooled_reward() -> None:
    profile = LatentProfile.from_population(population(), 4)
    posterior = profile.encode(contexts(profile, k=0))
    assert torch.equal(posterior.mean, torch.zeros(10, 4))
    features = torch.randn(10, 3, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(profile.reward(features, posterior.mean), features @ profile.pooled)


@pytest.mark.parametrize("hidden", [0, 5])
def test_log_odds_are_differences_of_rewards(hidden: int) -> None:
    profile = LatentProfile.from_population(population(), 4, hidden=hidden)
    with torch.no_grad():
        profile.head.add_(0.1)
        posterior = profile.encode(contexts(profile))
        features = torch.randn(10, 2, 40, generator=torch.Generator().manual_seed(0))
        rewards = profile.reward(features, posterior.mean)
        lifted = profile.lift(features)
        mask = torch.ones(10, 1, dtype=torch.bool)
        odds, variance = profile.log_odds(posterior, ReplyPairs(lifted[:, :1], lifted[:, 1:], mask))
    torch.testing.assert_close(odds, rewards[:, :1] - rewards[:, 1:], atol=1e-5, rtol=1e-4)
    assert (variance > 0).all()


def test_reward_of_shared_replies_equals_that_of_own_ones() -> None:
    profile = LatentProfile.from_population(population(), 4)
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    shared = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(profile.reward(shared, z), profile.reward(shared.expand(3, 6, 40), z))


def test_encoder_is_the_posterior_of_its_own_reward() -> None:
    profile = LatentProfile.from_population(population(), 4)
    pairs = contexts(profile)
    expected = logistic_posterior(
        pairs.difference @ profile.head.T, pairs.difference @ profile.pooled, pairs.mask
    )
    assert torch.equal(profile.encode(pairs).mean, expected.mean)


def test_gradient_reaches_every_part() -> None:
    profile = LatentProfile(40, 4, hidden=3, seed=0)
    pairs = contexts(profile)
    profile.predict(profile.encode(pairs), pairs).log().mean().backward()
    for weights in profile.parameters():
        assert weights.grad is not None
        assert (weights.grad != 0).any()


def test_align_keeps_predictions_and_orders_the_axes() -> None:
    profile = LatentProfile(40, 4, seed=0)
    with torch.no_grad():
        profile.head.mul_(10.0)
        pairs = contexts(profile)
        before = profile.predict(profile.encode(pairs), pairs)
        profile.align(pairs)
        posterior = profile.encode(pairs)
        torch.testing.assert_close(profile.predict(posterior, pairs), before, atol=1e-4, rtol=1e-4)
    spread = torch.cov(posterior.mean.T)
    torch.testing.assert_close(spread, torch.diag(spread.diagonal()), atol=1e-4, rtol=0.0)
    assert (spread.diagonal().diff() <= 1e-6).all()


def test_saved_profile_is_the_same_to_the_bit(tmp_path: Path) -> None:
    profile = LatentProfile(7, 3, hidden=2, seed=5)
    profile.save(tmp_path)
    again = LatentProfile.load(tmp_path)
    features = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.reward(features, z), profile.reward(features, z))


def test_a_profile_of_other_sizes_than_described_is_refused(tmp_path: Path) -> None:
    LatentProfile(7, 3).save(tmp_path)
    path = tmp_path / "latent_profile.json"
    path.write_text(path.read_text().replace('"latent_dim": 3', '"latent_dim": 4'))
    with pytest.raises(DataError, match="a profile of 7 features and 4 latents"):
        LatentProfile.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 0, 3 and 0"):
        LatentProfile(0, 3)
    profile = LatentProfile(7, 3, hidden=2)
    with pytest.raises(ShapeError, match=r"must have 7 columns.*got 6"):
        profile.lift(torch.zeros(2, 6))
    plain = ReplyPairs.of_differences(torch.zeros(1, 1, 7), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"must have 9 columns.*got 7"):
        profile.encode(plain)
