import math
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs, split_users_and_prompts
from persona.errors import DataError, ShapeError
from persona.evaluation import context_shuffle_gap, score_users
from persona.profiles import fit_pooled
from persona.profiles.criteria import CriteriaProfile
from persona.recipes.context_aware import ContextAwareConfig, fit_criteria_profile, train_context_aware
from persona.rewards.context_aware import ContextAwareReward
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world
from tests.helpers.reversal_world import ReversalWorld, make_reversal_world


def two_signs(**changes: object) -> CriteriaProfile:
    """One reply feature, liked by candidate 0 and disliked by candidate 1 with log-odds 2."""
    reward = ContextAwareReward(1, 1, hidden=0)
    with torch.no_grad():
        reward.linear.fill_(2.0)
    settings = {"prior": torch.tensor([0.75, 0.25]), "lapse": 0.2, **changes}
    return CriteriaProfile(reward, torch.tensor([[1.0], [-1.0]]), **settings)  # type: ignore[arg-type]


def shown(profile: CriteriaProfile, differences: list[float]) -> ReplyPairs:
    first = profile.lift(torch.tensor(differences)[None, :, None])
    return ReplyPairs(first, torch.zeros_like(first), torch.ones(1, len(differences), dtype=torch.bool))


def test_keeps_the_contract_of_profiles() -> None:
    world = make_world(users=10, comparisons=8)
    reward = ContextAwareReward(40, 3, hidden=4)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        reward.linear.copy_(0.3 * torch.randn(40, 3, generator=rng))
        prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
        profile = CriteriaProfile(reward, torch.randn(4, 3, generator=rng), prior=prior)
        check_profile(profile, context_pairs(world.table, profile.lift(world.features), np.arange(10)))


@torch.no_grad()
def test_belief_and_prediction_by_arithmetic() -> None:
    profile = two_signs()
    win = 0.1 + 0.8 / (1 + math.exp(-2))
    lose = 0.1 + 0.8 / (1 + math.exp(2))
    posterior = profile.encode(shown(profile, [1.0]))
    belief = 0.75 * win / (0.75 * win + 0.25 * lose)
    assert posterior.weights is not None
    torch.testing.assert_close(posterior.weights, torch.tensor([[belief, 1 - belief]]))
    torch.testing.assert_close(posterior.mean, torch.tensor([[belief - 0.75, 0.75 - belief]]))
    spread = belief * (1 - belief)
    wanted = torch.tensor([[[spread, -spread], [-spread, spread]]]) + 1e-4 * torch.eye(2)
    torch.testing.assert_close(posterior.covariance, wanted)
    asked = shown(profile, [1.0, -1.0])
    expected = torch.tensor([[belief * win + (1 - belief) * lose, belief * lose + (1 - belief) * win]])
    torch.testing.assert_close(profile.predict(posterior, asked), expected)
    torch.testing.assert_close(profile.predict(posterior._replace(weights=None), asked), expected)


@torch.no_grad()
def test_unknown_criterion_is_summed_out() -> None:
    profile = two_signs(lapse=0.0)
    asked = shown(profile, [1.0])
    nobody = profile.encode(ReplyPairs(*(part[:, :0] for part in asked)))
    win = 1 / (1 + math.exp(-2))
    assert profile.predict(nobody, asked).item() == pytest.approx(0.75 * win + 0.25 * (1 - win), rel=1e-5)


@torch.no_grad()
def test_lapses_keep_one_odd_choice_from_deciding() -> None:
    sure, forgiving = two_signs(lapse=0.0), two_signs(lapse=0.4)
    odd = [3.0, 3.0, -9.0]
    weights = [profile.encode(shown(profile, odd)).weights for profile in (sure, forgiving)]
    assert weights[0] is not None
    assert weights[1] is not None
    assert weights[0][0, 0] < 0.05
    assert weights[1][0, 0] > 0.8


def test_saved_profile_is_the_same_to_the_bit(tmp_path: Path) -> None:
    profile = two_signs()
    profile.save(tmp_path)
    again = CriteriaProfile.load(tmp_path)
    with torch.no_grad():
        pairs = shown(profile, [1.0, -0.5])
        assert torch.equal(again.encode(pairs).mean, profile.encode(pairs).mean)
        assert torch.equal(again.lift(torch.ones(3, 1)), profile.lift(torch.ones(3, 1)))
    assert again.lapse == 0.2
    path = tmp_path / "criteria_profile.json"
    path.write_text(path.read_text().replace('"n_features": 1', '"n_features": 2'))
    with pytest.raises(DataError, match="2 criteria and a reward over 2 features"):
        CriteriaProfile.load(tmp_path)


def test_faults_are_named() -> None:
    with pytest.raises(ShapeError, match=r"got \(2, 1\) and \(3,\)"):
        two_signs(prior=torch.ones(3) / 3)
    with pytest.raises(DataError, match=r"got a sum of 0\.5, a least value of 0 and lapse 0\.2"):
        two_signs(prior=torch.tensor([0.5, 0.0]))
    with pytest.raises(DataError, match=r"lapse 1\.0"):
        two_signs(lapse=1.0)
    with pytest.raises(ShapeError, match=r"must have 2 columns.*got 3"):
        two_signs().encode(
            ReplyPairs.of_differences(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool))
        )
    zero = np.zeros(1, dtype=np.int64)
    table = ComparisonTable(zero, zero, zero, zero + 1)
    with pytest.raises(DataError, match="at least one candidate; got none"):
        fit_criteria_profile(
            two_signs().reward, torch.zeros(2, 1), table, torch.zeros(2, 1), seed=0, lapses=()
        )


def followers(
    world: ReversalWorld, *, users: int = 120, each: int = 40, lapse: float = 0.2, seed: int = 0
) -> tuple[ComparisonTable, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Users who each follow one unseen criterion, the first three far more often, but for some choices."""
    rng = np.random.default_rng(seed)
    unseen = np.arange(world.seen, len(world.directions))
    share = np.where(np.arange(len(unseen)) < 3, 0.2, 0.4 / (len(unseen) - 3))
    followed = rng.choice(unseen, size=users, p=share)
    half = len(world.attributes) // 2
    who = np.repeat(np.arange(users), each)
    prompt = rng.integers(half // 2, size=len(who))  # two replies of the second half to each prompt
    first, second = half + 2 * prompt, half + 2 * prompt + 1
    gain = np.einsum(
        "ma,ma->m", world.attributes[first] - world.attributes[second], world.directions[followed[who]]
    )
    follows = rng.random(len(who)) > lapse
    wins = np.where(follows, gain > 0, rng.random(len(who)) < 0.5)
    return ComparisonTable(
        who, prompt, np.where(wins, first, second), np.where(wins, second, first)
    ), followed


@pytest.mark.integration
def test_users_are_found_among_criteria_that_nobody_was_trained_on() -> None:
    world = make_reversal_world()
    reward = train_context_aware(world.train, world.features, world.criteria, ContextAwareConfig(), seed=0)
    table, followed = followers(world, users=400)
    split = split_users_and_prompts(table, seed=0)
    candidates = world.criteria[world.seen :]
    profile = fit_criteria_profile(reward, candidates, split.train, world.features, seed=0)
    assert profile.lapse in (0.1, 0.2)  # the truth is 0.2
    prior = profile.log_prior.exp()
    assert prior[:3].sum() > 0.2  # a tenth if all were alike; some criteria resemble these three

    def accuracy(k: int) -> float:
        return float(
            score_users(profile, split.context, split.target, world.features, k=k, seed=0).accuracy.mean()
        )

    pooled = fit_pooled(split.train, world.features, seed=0)
    base = score_users(pooled, split.context, split.target, world.features, k=0, seed=0).accuracy.mean()
    assert accuracy(0) > base - 0.03
    assert accuracy(8) > accuracy(2) > accuracy(0)
    assert accuracy(8) > base + 0.1
    gap = context_shuffle_gap(profile, split.context, split.target, world.features, k=8, seed=0)
    assert gap["ci95"][0] > 0.05
    with torch.no_grad():
        users = split.context.user_ids
        belief = profile.encode(context_pairs(split.context, profile.lift(world.features), users)).weights
    assert belief is not None
    found = world.seen + belief.argmax(1).numpy()
    alike = (world.directions[found] * world.directions[followed[users]]).sum(1)
    assert alike.mean() > 0.7
