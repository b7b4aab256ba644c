import numpy as np
import pydantic
import pytest
import torch
from numpy.typing import NDArray

from persona.data import ComparisonTable
from persona.errors import DataError
from persona.evaluation import context_shuffle_gap, paired_difference, score_users
from persona.profiles import Profile, fit_pooled
from persona.profiles.mixture_of_rewards import MixtureOfRewards
from persona.recipes.held_out import held_out_surprise
from persona.recipes.mixture_of_rewards import (
    MixtureOfRewardsConfig,
    adapt_router,
    train_mixture_of_rewards,
)
from tests.helpers.preference_world import make_world
from tests.persona.test_latent_recipe import unseen

SHORT = MixtureOfRewardsConfig(heads=4, hidden=4, points=64, steps=4, check_every=2, batch=8)


def topical(
    *, users: int = 40, each: int = 40, topics: int = 2, seed: int = 0
) -> tuple[ComparisonTable, torch.Tensor]:
    """Prompts of two topics: on the first everybody likes the only reply feature, on the second nobody does."""
    rng = np.random.default_rng(seed)
    prompts = users * each
    topic = rng.integers(topics, size=prompts)
    reply, told = rng.normal(size=(prompts, 2, 1)), np.eye(topics)[topic][:, None].repeat(2, 1)
    features = np.concatenate([reply, told], axis=2).reshape(2 * prompts, -1)
    gain = (reply[:, 0, 0] - reply[:, 1, 0]) * np.where(topic == 0, 3.0, -3.0)
    wins = rng.random(prompts) < 1 / (1 + np.exp(-gain))
    first = 2 * np.arange(prompts)
    table = ComparisonTable(
        np.repeat(np.arange(users), each),
        np.arange(prompts),
        np.where(wins, first, first + 1),
        np.where(wins, first + 1, first),
    )
    return table, torch.from_numpy(features).float()


@pytest.mark.parametrize("published", [False, True])
def test_training_is_the_same_to_the_bit_and_reported(published: bool) -> None:
    table, features = topical(users=8, each=8)
    config = SHORT.model_copy(update={"published": published, "prompt_dim": 2})
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        runs.append((train_mixture_of_rewards(table, features, config, seed=1, report=rows.append), rows))
    (first, rows), (second, again) = runs
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, second.state_dict()[name])
    assert rows == again
    assert [row["step"] for row in rows if "held_out_log_loss" in row] == [2, 4]
    assert "spread" in rows[-1]
    assert not first.training


def test_heads_start_at_the_population_and_its_leading_directions() -> None:
    world = make_world(users=20, comparisons=12, prompts=40)
    still = SHORT.model_copy(update={"steps": 0})
    heads = train_mixture_of_rewards(world.table, world.features, still, seed=1).heads.detach()
    ahead, behind = heads[:2], heads[2:]
    # Opposite heads differ by far more than their means do.
    assert (ahead - behind).norm(dim=1).min() > 5 * (ahead + behind - heads.mean(0) * 2).norm(dim=1).max() / 2


def test_faults_are_named() -> None:
    table, features = topical(users=3, each=4)
    with pytest.raises(DataError, match="at least 4 users; got 3"):
        train_mixture_of_rewards(table, features, SHORT, seed=0)
    with pytest.raises(pydantic.ValidationError, match="head"):
        MixtureOfRewardsConfig(head=3)  # type: ignore[call-arg]


@pytest.mark.integration
def test_adapting_the_router_keeps_heads_and_learns_which_one_a_prompt_asks_for() -> None:
    table, features = topical()
    profile = MixtureOfRewards(3, 2, prompt_dim=2, hidden=16, points=64, seed=0)
    with torch.no_grad():
        profile.heads.copy_(torch.tensor([[3.0], [-3.0]]))
    adapted = adapt_router(profile, table, features, learning_rate=1e-2, seed=0)
    assert torch.equal(adapted.heads, profile.heads)
    with torch.no_grad():
        asked = torch.cat([torch.zeros(2, 1), torch.eye(2)], dim=1)
        router = adapted.lift(asked)[:, 2:].exp()
    assert router[0, 0] > 0.75
    assert router[1, 1] > 0.75
    again = adapt_router(profile, table, features, learning_rate=1e-2, seed=0)
    assert torch.equal(again.router_out, adapted.router_out)


@pytest.mark.integration
def test_published_stage_finds_heads_that_the_prompt_tells_apart() -> None:
    table, features = topical()
    config = MixtureOfRewardsConfig(
        heads=2, prompt_dim=2, hidden=16, published=True, steps=400, learning_rate=1e-2, balance=0.1
    )
    profile = train_mixture_of_rewards(table, features, config, seed=0)
    fresh, new_features = topical(seed=1)
    mixed = held_out_surprise(profile, fresh, new_features, max_context=0, seed=0)
    one = held_out_surprise(fit_pooled(table, features, seed=0), fresh, new_features, max_context=0, seed=0)
    assert one > 0.68  # one reward for all prompts knows nothing here
    assert mixed < 0.45


@pytest.mark.statistical
def test_training_on_users_beats_the_published_stage_on_unseen_users_and_prompts() -> None:
    world = make_world(comparisons=60, seed=11)
    train, context, target, _ = unseen(world, 11)
    config = MixtureOfRewardsConfig(heads=12, points=512, steps=80)
    published = MixtureOfRewardsConfig(steps=300, published=True, learning_rate=2e-3, check_every=100)
    by_user, by_pair = (
        train_mixture_of_rewards(train, world.features, which, seed=0) for which in (config, published)
    )

    def accuracy(which: Profile, k: int) -> NDArray[np.float64]:
        return score_users(which, context, target, world.features, k=k, seed=0).accuracy

    pooled = fit_pooled(train, world.features, seed=0)
    assert paired_difference(accuracy(by_user, 8), accuracy(pooled, 8), 0)["ci95"][0] > 0.06
    assert paired_difference(accuracy(by_user, 8), accuracy(by_pair, 8), 0)["ci95"][0] > 0.03
    assert abs(paired_difference(accuracy(by_user, 0), accuracy(pooled, 0), 0)["value"]) < 0.02
    assert context_shuffle_gap(by_user, context, target, world.features, k=8, seed=0)["value"] > 0.08
