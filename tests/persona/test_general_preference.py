from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from persona.checks import check_profile
from persona.data import context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles import HierarchicalBayes
from persona.profiles.general_preference import GeneralPreferenceProfile, skew_products
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world
from tests.helpers.slow_general_preference import published_score

USERS = np.arange(10)
COLUMNS, PROMPT_DIM, BLOCKS = 40, 6, 5


def made(*, prompt_dim: int = 0, hidden: int = 0) -> GeneralPreferenceProfile:
    profile = GeneralPreferenceProfile(
        COLUMNS - prompt_dim, BLOCKS, 3, prompt_dim=prompt_dim, hidden=hidden, seed=1
    )
    with torch.no_grad():
        profile.gate.copy_(rows(BLOCKS, prompt_dim, seed=5))
        profile.embed_bias.copy_(rows(2 * BLOCKS, seed=6))
    return profile


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def contexts(profile: GeneralPreferenceProfile, k: int = 8) -> ReplyPairs:
    world = make_world(users=10, comparisons=8)
    return context_pairs(world.table, profile.lift(world.features), USERS, k)


PROFILES = [made(), made(hidden=3), made(prompt_dim=PROMPT_DIM, hidden=3)]


@pytest.mark.parametrize("profile", PROFILES)
def test_keeps_the_contract_of_profiles(profile: GeneralPreferenceProfile) -> None:
    with torch.no_grad():
        check_profile(profile, contexts(profile))


@given(st.integers(0, 2**31 - 1), st.integers(1, 6), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_swapped_replies_give_exactly_the_negative(seed: int, blocks: int, scale: float) -> None:
    first, second = scale * rows(3, 2 * blocks, seed=seed), rows(3, 2 * blocks, seed=seed + 1)
    assert torch.equal(skew_products(first, second), -skew_products(second, first))
    assert torch.equal(skew_products(first, first), torch.zeros(3, blocks))


@pytest.mark.parametrize("profile", PROFILES)
def test_score_is_antisymmetric_to_the_bit(profile: GeneralPreferenceProfile) -> None:
    first, second, z = rows(4, 3, COLUMNS), rows(4, 3, COLUMNS, seed=1), rows(4, 3, seed=2)
    with torch.no_grad():
        assert torch.equal(profile.score(first, second, z), -profile.score(second, first, z))


def test_score_is_the_published_one_with_the_users_weights() -> None:
    profile = made(prompt_dim=PROMPT_DIM)
    replies, prompt, z = rows(2, COLUMNS - PROMPT_DIM), rows(PROMPT_DIM, seed=3), rows(3, seed=2)
    features = torch.cat([replies, prompt.expand(2, -1)], dim=1)
    with torch.no_grad():
        got = profile.score(features[None, :1], features[None, 1:], z[None])
        embedded = (replies @ profile.embed.T + profile.embed_bias).double().numpy()
        weights = (profile.gates(prompt) * (profile.base + z @ profile.head)).double().numpy()
    # The published score turns the first embedding a quarter, so a_1 b_2 - b_1 a_2 as here.
    assert float(got) == pytest.approx(published_score(embedded[0], embedded[1], weights), rel=1e-4)


def test_a_constant_coordinate_is_bradley_terry() -> None:
    model = HierarchicalBayes(rows(COLUMNS), 0.3 * rows(COLUMNS, 3, seed=1))
    profile = GeneralPreferenceProfile(COLUMNS, 4, 3)
    with torch.no_grad():
        profile.embed.zero_()
        profile.embed[0], profile.embed[2::2] = model.mean, model.factor.T
        profile.embed_bias.copy_(torch.tensor([0.0, 1.0]).repeat(4))
        profile.base.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        profile.head.copy_(torch.eye(3, 4).roll(1, 1))
        world = make_world(users=10, comparisons=8)
        plain = context_pairs(world.table, world.features, USERS)
        lifted = context_pairs(world.table, profile.lift(world.features), USERS)
        got = profile.predict(profile.encode(lifted), lifted)
    torch.testing.assert_close(got, model.predict(model.encode(plain), plain), atol=1e-4, rtol=1e-4)


def test_gates_are_positive_with_mean_one() -> None:
    profile = made(prompt_dim=PROMPT_DIM)
    gates = profile.gates(rows(7, PROMPT_DIM)).detach()
    assert (gates > 0).all()
    torch.testing.assert_close(gates.mean(1), torch.ones(7))
    torch.testing.assert_close(profile.gates(torch.zeros(PROMPT_DIM)).detach(), torch.ones(BLOCKS))


def test_a_user_may_go_round_the_other_way() -> None:
    profile = GeneralPreferenceProfile(2, 1, 1)
    with torch.no_grad():
        profile.embed.copy_(torch.eye(2))
        profile.base.zero_()
        profile.head.fill_(1.0)
        turn = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        first, second = turn.expand(2, 4, 2), turn.roll(-1, 0).expand(2, 4, 2)
        score = profile.score(first, second, torch.tensor([[2.0], [-2.0]]))
    assert score.tolist() == [[2.0] * 4, [-2.0] * 4]


@pytest.mark.parametrize("profile", PROFILES)
def test_log_odds_are_scores(profile: GeneralPreferenceProfile) -> None:
    first, second = rows(10, 3, COLUMNS), rows(10, 3, COLUMNS, seed=1)
    with torch.no_grad():
        posterior = profile.encode(contexts(profile))
        mask = torch.ones(10, 3, dtype=torch.bool)
        odds, variance = profile.log_odds(
            posterior, ReplyPairs(profile.lift(first), profile.lift(second), mask)
        )
        torch.testing.assert_close(odds, profile.score(first, second, posterior.mean), atol=1e-4, rtol=1e-4)
    assert (variance > 0).all()


def test_gradient_reaches_every_part() -> None:
    profile = made(prompt_dim=PROMPT_DIM, hidden=3)
    pairs = contexts(profile)
    profile.predict(profile.encode(pairs), pairs).log().mean().backward()
    for name, weights in profile.named_parameters():
        assert weights.grad is not None, name
        assert (weights.grad != 0).any(), name


def test_saved_profile_is_the_same_to_the_bit(tmp_path: Path) -> None:
    profile = made(prompt_dim=PROMPT_DIM, hidden=2)
    profile.save(tmp_path)
    again = GeneralPreferenceProfile.load(tmp_path)
    first, second, z = rows(4, 3, COLUMNS), rows(4, 3, COLUMNS, seed=1), rows(4, 3, seed=2)
    assert torch.equal(again.score(first, second, z), profile.score(first, second, z))


def test_a_profile_of_other_sizes_than_described_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path)
    path = tmp_path / "general_preference.json"
    path.write_text(path.read_text().replace('"blocks": 5', '"blocks": 6'))
    with pytest.raises(DataError, match="6 blocks over 40 features"):
        GeneralPreferenceProfile.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 0, 3, 2, 0 and 0"):
        GeneralPreferenceProfile(0, 3, 2)
    with pytest.raises(ShapeError, match="got 4, 3, 2, -1 and 0"):
        GeneralPreferenceProfile(4, 3, 2, prompt_dim=-1)
    with pytest.raises(ShapeError, match=r"40 columns, 6 of them the prompt's; got 34"):
        made(prompt_dim=PROMPT_DIM).lift(torch.zeros(2, 34))
    plain = ReplyPairs.of_differences(torch.zeros(1, 1, COLUMNS), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"must have 10 columns.*got 40"):
        made().encode(plain)
    with pytest.raises(ShapeError, match=r"got \(2, 4\) and \(2, 6\)"):
        skew_products(torch.zeros(2, 4), torch.zeros(2, 6))
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2, 3\)"):
        skew_products(torch.zeros(2, 3), torch.zeros(2, 3))
