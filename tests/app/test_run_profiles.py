"""A run learns users with any personal profile: its latents condition the policy, its beliefs teach the demo."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from app.config import RunConfig, load_config
from app.demo.teaching import Teacher
from app.pipeline.context import RunContext
from app.pipeline.conversations import unseen_condition
from app.pipeline.pairs import pool_pairs
from app.pipeline.policy import train_first_policy
from app.pipeline.preferences import ask_users, learn_preferences, load_comparisons
from app.pipeline.profiles import (
    latent_size,
    load_profile,
    pool_features,
    reply_features,
    rewards,
    side_by_side,
)
from app.pipeline.replies import base_policy, load_replies, sample_replies
from app.pipeline.retrieval import train_retrieval
from app.profile_methods import METHODS, POOLED
from persona.data.comparisons import context_pairs
from persona.profiles.hierarchical_bayes import HierarchicalBayes
from persona.profiles.latent import LatentProfile
from tests.helpers.scripted_run import ScriptedRun

SMALL = (
    "users=60 films=120 learners=30 unseen_users=12 impressions=40 prompts=16 replies_per_prompt=4 comparisons=12 "
    "dialogues=8 turns=2 policy_steps=2 pairs_per_step=4 reply_tokens=24 latent_dim=3 device=cpu"
).split()
FAST = ("hierarchical", "direction", "particles")


def test_the_setting_names_every_personal_method() -> None:
    names = get_args(RunConfig.model_fields["profile"].annotation)
    assert sorted(names) == sorted(name for name in METHODS if name != POOLED)


@pytest.fixture(name="begun", scope="module")
def a_run_up_to_the_choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run = RunContext(load_config(None, SMALL), folder)
    for name, work in (("retrieval", train_retrieval), ("replies", sample_replies), ("choices", ask_users)):
        run.stage(name).mkdir(parents=True)
        work(run, run.stage(name))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.integration if name in FAST else pytest.mark.statistical)
        for name in METHODS
        if name != POOLED
    ],
)
def test_its_latents_condition_the_policy(name: str, begun: Path, tmp_path: Path) -> None:
    run = RunContext(load_config(None, [*SMALL, f"profile={name}"]), tmp_path)
    (tmp_path / "stages").mkdir()
    for stage in ("retrieval", "replies", "choices"):
        run.stage(stage).symlink_to(begun / "stages" / stage)
    assert latent_size(run) == 3  # nothing is fitted yet
    partial = tmp_path / "stages" / ".partial-preferences"
    partial.mkdir()
    learn_preferences(run, partial)
    partial.rename(run.stage("preferences"))
    pool, profile = load_replies(run), load_profile(run)
    assert latent_size(run) == profile.latent_dim
    run.stage("policy").mkdir()
    train_first_policy(run, run.stage("policy"))
    assert unseen_condition(run, 4).latent.shape == (12, profile.latent_dim)
    policy = base_policy(run, latent_size(run))
    pairs = pool_pairs(run, policy, pool, 20, np.random.default_rng(0))
    assert pairs.condition.latent.shape[1] == profile.latent_dim
    # Rewrites are read as the pool is.
    raw, asked = (
        [pool.replies[place].raw for place in (0, 5)],
        [pool.prompts[pool.prompt_of[p]] for p in (0, 5)],
    )
    again = reply_features(run, pool, policy, asked, raw)
    assert torch.allclose(again, pool_features(run, pool)[[0, 5]], atol=0.2)
    assert reply_features(run, pool, policy, [], []).shape == (0, again.shape[1])


def test_a_reward_is_the_chance_to_win_where_a_profile_has_none_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, generator=generator)
    profile = HierarchicalBayes(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.eye(4))
    latent = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    found = rewards(profile, latent, features)
    worth = torch.einsum("bkd,bd->bk", features, latent + profile.mean)
    chance = torch.sigmoid(worth[:, :, None] - worth[:, None, :])
    others = ~torch.eye(3, dtype=torch.bool)
    expected = torch.stack([chance[:, k, others[k]].mean(1) for k in range(3)], dim=1)
    assert torch.allclose(found, expected, atol=1e-4)
    linear = LatentProfile(4, 2, seed=0)
    z = torch.randn(2, 2, generator=generator)
    assert torch.equal(rewards(linear, z, features), linear.reward(features, z))


@pytest.mark.integration
def test_profiles_of_different_features_meet_in_one_table(begun: Path) -> None:
    run = RunContext(load_config(None, [*SMALL, "profile=direction"]), begun)
    pool = load_replies(run)
    own = HierarchicalBayes(torch.zeros(6), torch.eye(6))
    other = HierarchicalBayes(torch.zeros(pool.features.shape[1]), torch.eye(pool.features.shape[1]))
    profiles, features = side_by_side(run, pool, {"own": own, "other": other}, "own")
    table = load_comparisons(run).context
    for name, profile, plain in (
        ("own", own, torch.from_numpy(pool.attributes).float()),
        ("other", other, pool.features),
    ):
        wrapped = profiles[name]
        users = table.user_ids[:3]
        seen = context_pairs(table, wrapped.lift(features), users, 4)
        assert torch.equal(
            wrapped.encode(seen).mean, profile.encode(context_pairs(table, plain, users, 4)).mean
        )
        assert wrapped.latent_dim == profile.latent_dim


def test_the_demo_learns_through_a_profile_without_a_head() -> None:
    trained = ScriptedRun()
    size = trained.pool.features.shape[1]
    exact, drawn = (
        Teacher(trained.pool, profile)
        for profile in (trained.profile, HierarchicalBayes(torch.zeros(size), torch.eye(size)))
    )
    lesson = drawn.begin()
    for _ in range(10):
        # The first attribute is brevity; the person always takes the shorter reply.
        worth = [trained.pool.attributes[row, 0] for row in lesson.offer]
        lesson = drawn.pick(lesson, int(worth[1] > worth[0]))
    found, wanted = drawn.belief(lesson), exact.belief(lesson)
    assert found.probability_of_more()[0] > 0.9
    assert np.allclose(found.mean, wanted.mean, atol=0.15) and np.allclose(found.std, wanted.std, rtol=0.2)
