import time

import numpy as np
import pydantic
import pytest
import torch
from numpy.typing import NDArray

from persona.data import ComparisonTable
from persona.errors import DataError
from persona.evaluation import (
    active_units,
    bootstrap_mean,
    context_shuffle_gap,
    oracle_accuracy,
    paired_difference,
    score_users,
)
from persona.profiles import Profile, fit_hierarchical_bayes, fit_pooled
from persona.recipes.latent import LatentConfig, train_latent
from tests.helpers.preference_world import PreferenceWorld, make_world

SHORT = LatentConfig(latent_dim=3, steps=4, check_every=2, users_per_step=8, em_iterations=2)


def unseen(
    world: PreferenceWorld, seed: int, users: int = 150, train_each: int = 40
) -> tuple[ComparisonTable, ComparisonTable, ComparisonTable, NDArray[np.float64]]:
    """Training users on training prompts, then contexts and targets of other users, and the truth."""
    rng = np.random.default_rng(seed)
    table = world.table
    test = np.isin(table.users, rng.permutation(table.user_ids)[:users])
    asked = np.isin(table.prompts, rng.permutation(np.unique(table.prompts))[: int(table.prompts.max()) // 3])
    kept = ~test & ~asked
    place = np.zeros(len(table), dtype=np.int64)
    order = np.argsort(table.users[kept], kind="stable")
    _, count = np.unique(table.users[kept], return_counts=True)
    place[np.flatnonzero(kept)[order]] = np.concatenate([np.arange(c) for c in count])
    return (
        table.select(kept & (place < train_each)),
        table.select(test & ~asked),
        table.select(test & asked),
        world.advantage[test & asked],
    )


def test_training_is_the_same_to_the_bit_and_reported() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        runs.append((train_latent(world.table, world.features, SHORT, seed=1, report=rows.append), rows))
    (first, rows), (second, again) = runs
    assert torch.equal(first.head, second.head)
    assert torch.equal(first.pooled, second.pooled)
    assert rows == again
    assert [row["step"] for row in rows if "held_out_log_loss" in row] == [2, 4]
    assert not first.training


def test_no_steps_leave_the_leading_directions_of_hierarchical_bayes() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    config = SHORT.model_copy(update={"steps": 0})
    profile = train_latent(world.table, world.features, config, seed=1)
    prior = fit_hierarchical_bayes(world.table, world.features, seed=1, iterations=2)
    assert torch.equal(profile.pooled, prior.mean)
    # Turning the latent keeps the covariance of weights that the head stands for.
    values, vectors = torch.linalg.eigh(prior.covariance)
    kept = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
    torch.testing.assert_close((profile.head.T @ profile.head).detach(), kept, atol=1e-4, rtol=1e-3)


def test_held_out_users_choose_the_number_of_steps() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    rows: list[dict[str, float]] = []
    wild = SHORT.model_copy(update={"learning_rate": 3.0})
    train_latent(world.table, world.features, wild, seed=1, report=rows.append)
    assert not [row for row in rows if "loss" in row]  # every look found the start to be better


def test_config_and_data_faults_are_named() -> None:
    world = make_world(users=4, comparisons=4, prompts=10)
    with pytest.raises(DataError, match=r"features \(40\).*got latent_dim 41 and 4 users"):
        train_latent(world.table, world.features, LatentConfig(latent_dim=41), seed=0)
    with pytest.raises(pydantic.ValidationError, match="laten_dim"):
        LatentConfig(laten_dim=4)  # type: ignore[call-arg]
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        LatentConfig().beta = 0.5


@pytest.mark.integration
def test_beats_pooled_and_keeps_up_with_hierarchical_bayes_on_unseen_users_and_prompts() -> None:
    world = make_world(comparisons=60, seed=11)
    train, context, target, advantage = unseen(world, 11)
    start = time.process_time()
    profile = train_latent(train, world.features, LatentConfig(), seed=0)
    seconds = time.process_time() - start
    bayes = fit_hierarchical_bayes(train, world.features, seed=0)
    pooled = fit_pooled(train, world.features, seed=0)

    def accuracy(which: Profile, k: int) -> NDArray[np.float64]:
        return score_users(which, context, target, world.features, k=k, seed=0).accuracy

    own, base, ceiling = accuracy(profile, 8), accuracy(pooled, 8), oracle_accuracy(target, advantage)
    gain = paired_difference(own, base, 0)
    assert 0.85 < ceiling.mean() < 0.91
    assert gain["value"] >= 0.08
    assert gain["ci95"][0] > 0.05
    assert gain["value"] >= 0.4 * (ceiling.mean() - base.mean())
    assert paired_difference(own, accuracy(bayes, 8), 0)["value"] >= -0.01
    assert abs(bootstrap_mean(accuracy(profile, 0) - base, 0)["value"]) <= 0.02
    assert context_shuffle_gap(profile, context, target, world.features, k=8, seed=0)["value"] >= 0.08
    assert active_units(profile, context, world.features, k=8, seed=0)["value"] >= 4
    assert seconds < 60  # about 6 s on an idle core


@pytest.mark.statistical
def test_no_weight_of_the_kl_collapses_the_latent() -> None:
    world = make_world(comparisons=60, seed=11)
    train, context, target, _ = unseen(world, 11)
    accuracy = []
    for beta in (1e-6, 1e-4, 1e-2, 1e-1):
        profile = train_latent(train, world.features, LatentConfig(beta=beta), seed=0)
        accuracy.append(score_users(profile, context, target, world.features, k=8, seed=0).accuracy.mean())
        assert active_units(profile, context, world.features, k=8, seed=0)["value"] >= 4
        assert context_shuffle_gap(profile, context, target, world.features, k=8, seed=0)["value"] >= 0.1
    assert max(accuracy) - min(accuracy) <= 0.015
