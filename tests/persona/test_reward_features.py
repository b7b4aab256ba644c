import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import context_pairs, split_users_and_prompts
from persona.errors import DataError
from persona.evaluation import score_users
from persona.profiles.pooled import fit_pooled
from persona.recipes.reward_features import RewardFeaturesConfig, train_reward_features
from tests.helpers.preference_world import make_world

SMALL = RewardFeaturesConfig(latent_dim=3, epochs=2, check_every=1)


def test_serves_unseen_users_better_than_one_reward_for_all() -> None:
    world = make_world(users=150, comparisons=30)
    split = split_users_and_prompts(world.table, seed=0)
    profile = train_reward_features(split.train, world.features, RewardFeaturesConfig(), seed=0)
    pooled = fit_pooled(split.train, world.features, seed=0)
    own, common = (
        score_users(p, split.context, split.target, world.features, k=8, seed=0).accuracy.mean()
        for p in (profile, pooled)
    )
    assert own > common + 0.03


@pytest.mark.parametrize("hidden", [0, 4])
def test_keeps_the_contract_and_its_average_user_prefers_nothing(hidden: int) -> None:
    world = make_world(users=10, comparisons=10)
    config = SMALL.model_copy(update={"hidden": hidden})
    rows: list[dict[str, float]] = []
    profile = train_reward_features(world.table, world.features, config, seed=0, report=rows.append)
    with torch.no_grad():
        pairs = context_pairs(world.table, profile.lift(world.features), np.arange(10))
        check_profile(profile, pairs)
    assert not profile.pooled.any()
    assert rows and set(rows[0]) == {"epoch", "loss"}


def test_same_seed_same_bits() -> None:
    world = make_world(users=8, comparisons=10)
    first, second = (train_reward_features(world.table, world.features, SMALL, seed=3) for _ in range(2))
    assert torch.equal(first.head, second.head)


def test_too_few_users_are_named() -> None:
    world = make_world(users=3, comparisons=5)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        train_reward_features(world.table, world.features, SMALL, seed=0)
