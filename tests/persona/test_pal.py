from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from persona.checks import check_profile
from persona.data import context_pairs
from persona.errors import DataError, ShapeError
from persona.profiles.pal import IdealPoints, PalProfile, PromptCosines
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world
from tests.helpers.slow_pal import ideal_point_odds, published_cosine

USERS = np.arange(10)
COLUMNS, PROMPT_DIM, KINDS = 40, 6, 4


def ideal(hidden: int = 0) -> PalProfile:
    return PalProfile(IdealPoints(COLUMNS, KINDS, 5, hidden=hidden, seed=1))


def cosines(hidden: int = 0) -> PalProfile:
    return PalProfile(
        PromptCosines(COLUMNS - PROMPT_DIM, KINDS, 5, prompt_dim=PROMPT_DIM, hidden=hidden, seed=1)
    )


PROFILES = [ideal(), ideal(3), cosines(), cosines(3)]


def contexts(profile: PalProfile, k: int = 8) -> ReplyPairs:
    world = make_world(users=10, comparisons=8)
    return context_pairs(world.table, profile.lift(world.features), USERS, k)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("profile", PROFILES)
def test_keeps_the_contract_of_profiles(profile: PalProfile) -> None:
    with torch.no_grad():
        check_profile(profile, contexts(profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_without_context_it_is_the_average_user(profile: PalProfile) -> None:
    with torch.no_grad():
        profile.average_logits[0] += 1.0
        z = profile.encode(contexts(profile, k=0)).mean
        torch.testing.assert_close(
            profile.weights(z), torch.softmax(profile.average_logits, 0).expand(10, KINDS)
        )
        profile.average_logits[0] -= 1.0


def test_ideal_points_prefer_the_reply_nearer_to_the_users_own_point() -> None:
    profile = ideal(hidden=3)
    assert isinstance(profile.scorer, IdealPoints)
    features, z = rows(2, 2, COLUMNS), rows(2, KINDS - 1, seed=1)
    with torch.no_grad():
        reward = profile.reward(features, z)
        points = profile.scorer.locate(features).double().numpy()
        weights = profile.weights(z).double().numpy()
        prototypes = profile.scorer.prototypes.double().numpy()
    for row in range(2):
        first, second = points[row]
        odds = ideal_point_odds(first, second, prototypes, weights[row])
        assert float(reward[row, 0] - reward[row, 1]) == pytest.approx(odds, rel=1e-4)


def test_ideal_points_become_linear_as_the_curvature_goes_to_zero() -> None:
    scorer = IdealPoints(COLUMNS, KINDS, 5)
    with torch.no_grad():
        scorer.log_curvature.fill_(-40.0)
        one, other = rows(3, COLUMNS), rows(3, COLUMNS, seed=1)
        torch.testing.assert_close(scorer(one) + scorer(other), scorer(one + other), atol=1e-4, rtol=1e-4)


def test_cosines_are_the_published_score_for_a_user_of_one_kind() -> None:
    scorer = cosines().scorer
    assert isinstance(scorer, PromptCosines)
    features = rows(COLUMNS)
    reply, prompt = features[:-PROMPT_DIM], features[-PROMPT_DIM:]
    with torch.no_grad():
        got = scorer(features)
        embedded = (scorer.embed @ reply + scorer.embed_bias).double().numpy()
        wanted = (scorer.wants + scorer.project @ prompt).double().numpy()
        scale = float(scorer.log_scale.exp())
    assert scale == pytest.approx(1.0 / 0.07)
    for kind in range(KINDS):
        slow = published_cosine(embedded, wanted, np.eye(KINDS)[kind], scale)
        assert float(got[kind]) == pytest.approx(slow, rel=1e-4)


def test_what_a_prototype_wants_depends_on_the_prompt() -> None:
    profile = cosines()
    one = rows(2, COLUMNS)
    other = torch.cat([one[:, :-PROMPT_DIM], rows(1, PROMPT_DIM, seed=3).expand(2, -1)], dim=1)
    with torch.no_grad():
        gaps = [float(x[0, 0] - x[1, 0]) for x in (profile.lift(one), profile.lift(other))]
    assert abs(gaps[0] - gaps[1]) > 1e-3


@pytest.mark.parametrize("profile", PROFILES)
def test_log_odds_are_differences_of_rewards(profile: PalProfile) -> None:
    features = rows(10, 2, COLUMNS)
    features[..., -PROMPT_DIM:] = features[:, :1, -PROMPT_DIM:]
    with torch.no_grad():
        posterior = profile.encode(contexts(profile))
        rewards, lifted = profile.reward(features, posterior.mean), profile.lift(features)
        mask = torch.ones(10, 1, dtype=torch.bool)
        odds, variance = profile.log_odds(posterior, ReplyPairs(lifted[:, :1], lifted[:, 1:], mask))
    torch.testing.assert_close(odds, rewards[:, :1] - rewards[:, 1:], atol=1e-4, rtol=1e-4)
    assert (variance > 0).all()


@pytest.mark.parametrize("profile", [ideal(3), cosines(3)])
def test_gradient_reaches_every_part(profile: PalProfile) -> None:
    pairs = contexts(profile)
    # Pairs of one prompt have the prompt's columns alike.
    profile.predict(profile.encode(pairs), pairs).log().mean().backward()
    for name, weights in profile.named_parameters():
        assert weights.grad is not None, name
        assert (weights.grad != 0).any(), name


@pytest.mark.parametrize("profile", PROFILES)
def test_saved_profile_is_the_same_to_the_bit(profile: PalProfile, tmp_path: Path) -> None:
    profile.save(tmp_path)
    again = PalProfile.load(tmp_path)
    z = rows(2, KINDS - 1)
    assert torch.equal(again.reward(rows(4, COLUMNS), z), profile.reward(rows(4, COLUMNS), z))


def test_a_profile_of_other_sizes_than_described_is_refused(tmp_path: Path) -> None:
    ideal().save(tmp_path)
    path = tmp_path / "pal.json"
    path.write_text(path.read_text().replace('"kinds": 4', '"kinds": 5'))
    with pytest.raises(DataError, match="5 prototypes over 40 features"):
        PalProfile.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="at least 2 prototypes; got 1"):
        PalProfile(IdealPoints(COLUMNS, 1, 5))
    with pytest.raises(ShapeError, match=r"40 columns, 6 of them the prompt's; got 34"):
        cosines().lift(torch.zeros(2, 34))
    plain = ReplyPairs.of_differences(torch.zeros(1, 1, COLUMNS), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"must have 4 columns.*got 40"):
        ideal().encode(plain)
