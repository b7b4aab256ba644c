import numpy as np
import pydantic
import pytest
import torch

from persona.data import PreferenceSplit, context_pairs, split_users_and_prompts
from persona.errors import DataError
from persona.evaluation import oracle_accuracy, paired_difference, score_users
from persona.profiles.prompt_weights import PromptWeights, describe_weights
from persona.recipes.prompt_weights import PromptWeightsConfig, train_prompt_weights
from tests.helpers.orchestrated_world import PROMPT_DIM, OrchestratedWorld, make_orchestrated_world


def settings(objectives: int, **changes: object) -> PromptWeightsConfig:
    return PromptWeightsConfig.model_validate({"objectives": objectives, "prompt_dim": PROMPT_DIM, **changes})


@torch.no_grad()
def weights_at_unseen_prompts(
    profile: PromptWeights, world: OrchestratedWorld, split: PreferenceSplit
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Weights at prompts that no training pair had, and the objective that matters most there."""
    prompts = np.setdiff1d(np.arange(len(world.topics)), split.train.prompts)
    return profile.log_weights(world.prompt_features[prompts]).exp().numpy(), world.topics[prompts]


def test_training_is_the_same_to_the_bit_and_reported() -> None:
    world = make_orchestrated_world(users=10, comparisons=10, prompts=30)
    short = settings(3, steps=4, check_every=2, user_steps=2, concentrations=(1.0, 1.1), points=64)
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        runs.append(
            (train_prompt_weights(world.table, world.features, short, seed=1, report=rows.append), rows)
        )
    (first, rows), (second, again) = runs
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name])
    assert rows == again
    looks = [(row["concentration"], row["step"]) for row in rows if "concentration" in row]
    assert looks == [(1.0, 2), (1.0, 4), (1.1, 2), (1.1, 4)]
    assert set(rows[-1]) == {"spread", "scale"}
    assert not first.training


def test_faults_are_named() -> None:
    world = make_orchestrated_world(users=3, comparisons=5, prompts=10)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        train_prompt_weights(world.table, world.features, settings(3), seed=0)
    with pytest.raises(pydantic.ValidationError, match="objectives"):
        settings(1)
    with pytest.raises(pydantic.ValidationError, match="temprature"):
        settings(3, temprature=1.0)


@pytest.mark.integration
def test_gap_form_weighs_what_matters_most_where_the_published_form_turns_it_around() -> None:
    """Objective 1 is harmlessness: where prompts are harmful it decides, and all replies score low on it."""
    world = make_orchestrated_world(objectives=2, users=80, spread=0.5)
    split = split_users_and_prompts(world.table, seed=0)
    gaps, published = (
        train_prompt_weights(
            split.train, world.features, settings(2, published=form, steps=150, user_steps=50), seed=0
        )
        for form in (False, True)
    )
    weights, topics = weights_at_unseen_prompts(gaps, world, split)
    assert (weights.argmax(1) == topics).mean() >= 0.95
    harmful = topics == 1
    assert weights[harmful, 1].mean() > 0.7
    assert weights[~harmful, 1].mean() < 0.3
    turned, _ = weights_at_unseen_prompts(published, world, split)
    assert turned[harmful, 1].mean() < 0.2
    assert turned[~harmful, 1].mean() > 0.8
    mended, inverted = (describe_weights(p, split.target, world.features) for p in (gaps, published))
    assert mended.accuracy > inverted.accuracy + 0.15
    assert mended.log_loss < inverted.log_loss
    assert mended.ece < inverted.ece
    assert mended.entropy > inverted.entropy  # a temperature of 0.1 leaves one objective nearly alone


@pytest.mark.statistical
def test_unseen_users_are_read_almost_as_well_as_the_truth_could() -> None:
    world = make_orchestrated_world(objectives=4, users=300, comparisons=80, spread=1.5)
    split = split_users_and_prompts(world.table, seed=0)
    profile = train_prompt_weights(split.train, world.features, settings(4, steps=200), seed=0)
    weights, topics = weights_at_unseen_prompts(profile, world, split)
    assert (weights.argmax(1) == topics).mean() >= 0.95

    truth = PromptWeights(4, prompt_dim=4, hidden=0)
    told = torch.eye(4)[torch.from_numpy(world.topics).repeat_interleave(4)]
    known = torch.cat([world.features[:, :4], told], dim=1)
    with torch.no_grad():
        truth.linear.copy_(2.0 * torch.eye(4))
        truth.log_scale.fill_(np.log(3.0))
        truth.log_spread.fill_(np.log(1.5 * 0.75**0.5))  # centring took a quarter of the variance
    for k in (0, 16):
        own = score_users(profile, split.context, split.target, world.features, k=k, seed=0).accuracy
        best = score_users(truth, split.context, split.target, known, k=k, seed=0).accuracy
        assert paired_difference(own, best, 0)["value"] > -0.015
    zero = score_users(profile, split.context, split.target, world.features, k=0, seed=0).accuracy
    assert paired_difference(own, zero, 0)["ci95"][0] > 0.01
    asked = np.isin(world.table.users, split.target.users) & np.isin(
        world.table.prompts, split.target.prompts
    )
    assert own.mean() < oracle_accuracy(split.target, world.advantage[asked]).mean()
    with torch.no_grad():
        pairs = context_pairs(split.context, profile.lift(world.features), split.context.user_ids)
        tilts = profile.encode(pairs).mean.numpy()
    assert np.corrcoef(tilts.ravel(), world.tilts[split.context.user_ids].ravel())[0, 1] > 0.6
