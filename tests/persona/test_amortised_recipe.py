import numpy as np
import pydantic
import pytest
import torch

from persona.data import context_pairs
from persona.errors import DataError
from persona.evaluation import (
    active_units,
    bootstrap_mean,
    context_shuffle_gap,
    oracle_accuracy,
    paired_difference,
    score_users,
)
from persona.profiles import fit_hierarchical_bayes, fit_pooled
from persona.profiles.amortised import EncoderName, HeadName
from persona.profiles.reward_heads import BilinearHead
from persona.profiles.set_encoders import SymmetricEncoder
from persona.recipes.amortised import PAPER, AmortisedConfig, train_amortised
from tests.helpers.preference_world import make_world
from tests.persona.test_latent_recipe import unseen

SHORT = AmortisedConfig(latent_dim=3, hidden=8, steps=4, check_every=2, users_per_step=8)
PUBLISHED_ACTIVE = 0.005
"""Variance of a coordinate of the posterior means above which the paper's successor calls it active."""


@pytest.mark.parametrize("head", ["bilinear", "film"])
def test_training_is_the_same_to_the_bit_and_reported(head: HeadName) -> None:
    world = make_world(users=12, comparisons=10, prompts=30, informative=6, noise=2)
    runs = []
    config = SHORT.model_copy(
        update={"head": head, "guidance": 0.1, "base_dropout": 0.5, "learning_rate": 1e-4}
    )
    for _ in range(2):
        rows: list[dict[str, float]] = []
        runs.append((train_amortised(world.table, world.features, config, seed=1, report=rows.append), rows))
    (first, rows), (second, again) = runs
    assert all(
        torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert rows == again
    assert [row["step"] for row in rows if "held_out_log_loss" in row] == [2, 4]
    assert not first.training


@pytest.mark.parametrize(
    ("encoder", "head"), [("deep_sets", "film"), ("concat", "bilinear"), ("attention", "concat")]
)
def test_every_encoder_goes_with_every_head(encoder: EncoderName, head: HeadName) -> None:
    world = make_world(users=8, comparisons=6, prompts=20)
    settings = {
        "encoder": encoder,
        "head": head,
        "warm_start": False,
        "fictitious": 0.0,
        "held_out_share": 0.0,
    }
    rows: list[dict[str, float]] = []
    config = SHORT.model_copy(update=settings)
    train_amortised(world.table, world.features, config, seed=0, report=rows.append)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(list(row.values())).all() for row in rows)


def test_warm_start_is_hierarchical_bayes_cut_to_the_latent() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    profile = train_amortised(world.table, world.features, SHORT.model_copy(update={"steps": 0}), seed=1)
    prior = fit_hierarchical_bayes(world.table, world.features, seed=1)
    values, vectors = torch.linalg.eigh(prior.covariance)
    kept = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
    assert isinstance(profile.encoder, SymmetricEncoder)
    assert isinstance(profile.head, BilinearHead)
    weight = profile.encoder.evidence.detach()
    torch.testing.assert_close(weight.T @ weight, kept, atol=1e-4, rtol=1e-3)
    assert torch.equal(profile.head.weight, profile.encoder.evidence)
    assert torch.equal(profile.head.pooled, prior.mean)


def test_held_out_users_choose_the_number_of_steps() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    rows: list[dict[str, float]] = []
    wild = SHORT.model_copy(update={"learning_rate": 30.0})
    train_amortised(world.table, world.features, wild, seed=1, report=rows.append)
    assert not [row for row in rows if "loss" in row]  # every look found the start to be better


@pytest.mark.integration
def test_guidance_teaches_the_published_encoder_to_mirror() -> None:
    world = make_world(users=40, comparisons=12, prompts=40)
    pairs = context_pairs(world.table, world.features, np.arange(40), 8)

    def likeness(guidance: float) -> float:
        config = PAPER.model_copy(
            update={"latent_dim": 8, "hidden": 16, "steps": 60, "learning_rate": 3e-3, "guidance": guidance}
        )
        profile = train_amortised(world.table, world.features, config, seed=0)
        with torch.no_grad():
            forth, back = profile.encode(pairs).mean, profile.encode(pairs.swapped).mean
        return torch.nn.functional.cosine_similarity(forth, back).mean().item()

    assert likeness(1.0) < -0.5 < likeness(0.0)


def test_config_and_data_faults_are_named() -> None:
    world = make_world(users=3, comparisons=4, prompts=10)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        train_amortised(world.table, world.features, SHORT, seed=0)
    with pytest.raises(pydantic.ValidationError, match="got encoder concat, head bilinear, warm_start True"):
        AmortisedConfig(encoder="concat")
    with pytest.raises(pydantic.ValidationError, match="warm_start False and fictitious 4"):
        AmortisedConfig(warm_start=False)
    with pytest.raises(pydantic.ValidationError, match="multiple of 2"):
        AmortisedConfig(draws=3)


def published_activity(*, informative: int, noise: int) -> tuple[int, float]:
    """Active units of the published form by its successor's rule, the laxer of the two, and its shuffle gap."""
    world = make_world(users=160, comparisons=40, informative=informative, noise=noise, seed=3)
    train, context, target, _ = unseen(world, 3, users=60)
    profile = train_amortised(train, world.features, PAPER.model_copy(update={"steps": 200}), seed=0)
    pairs = context_pairs(context, world.features, context.user_ids, 8, np.random.default_rng(0))
    with torch.no_grad():
        mean = profile.encode(pairs).mean
    gap = context_shuffle_gap(profile, context, target, world.features, k=8, seed=0)
    return int((mean.var(0) > PUBLISHED_ACTIVE).sum()), gap["value"]


@pytest.mark.integration
def test_published_form_collapses_where_features_hardly_show_the_tastes() -> None:
    """Embeddings of real answers in small: nearly all features say nothing about the tastes."""
    active, gap = published_activity(informative=1, noise=99)
    assert active == 0
    assert abs(gap) < 0.01


@pytest.mark.statistical
def test_published_form_is_active_where_features_show_the_tastes() -> None:
    assert published_activity(informative=18, noise=22)[0] > 50


@pytest.mark.statistical
def test_mended_form_beats_the_pooled_reward_and_stays_near_hierarchical_bayes() -> None:
    world = make_world(comparisons=60, seed=11)
    train, context, target, advantage = unseen(world, 11)
    profile = train_amortised(train, world.features, AmortisedConfig(), seed=0)
    bayes = fit_hierarchical_bayes(train, world.features, seed=0)
    pooled = fit_pooled(train, world.features, seed=0)
    own, exact, base = (
        score_users(which, context, target, world.features, k=8, seed=0).accuracy
        for which in (profile, bayes, pooled)
    )
    assert 0.85 < oracle_accuracy(target, advantage).mean() < 0.91
    assert paired_difference(own, base, 0)["value"] >= 0.08
    assert paired_difference(own, exact, 0)["value"] >= -0.025
    assert context_shuffle_gap(profile, context, target, world.features, k=8, seed=0)["value"] >= 0.08
    assert active_units(profile, context, world.features, k=8, seed=0)["value"] >= 4
    assert bootstrap_mean(own, 0)["n"] == 150
