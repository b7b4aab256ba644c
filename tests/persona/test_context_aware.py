from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.profiles import fit_pooled
from persona.recipes.context_aware import ContextAwareConfig, criterion_margins, train_context_aware
from persona.rewards.context_aware import ContextAwareReward
from tests.helpers.reversal_world import make_reversal_world

SHORT = ContextAwareConfig(hidden=4, steps=4, check_every=2, batch=16)


def lively(prompt_dim: int = 2) -> ContextAwareReward:
    """Five columns, the last `prompt_dim` the prompt's, and criteria of three."""
    reward = ContextAwareReward(5, 3, prompt_dim=prompt_dim, hidden=4, seed=0)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (reward.base, reward.linear, reward.outer):
            weights.copy_(torch.randn(weights.shape, generator=rng))
    return reward


@torch.no_grad()
def test_reward_by_arithmetic() -> None:
    reward = ContextAwareReward(2, 1, prompt_dim=0, hidden=1)
    reward.base.copy_(torch.tensor([1.0, 0.0]))
    reward.linear.copy_(torch.tensor([[0.0], [2.0]]))
    reward.inner.copy_(torch.tensor([[0.5]]))
    reward.outer.copy_(torch.tensor([[1.0], [0.0]]))
    # weights (1 + tanh(0.5 * 3), 2 * 3) on the reply (4, -1)
    got = reward(torch.tensor([4.0, -1.0]), torch.tensor([3.0]))
    expected = 4.0 * (1.0 + np.tanh(1.5)) - 6.0
    assert got.item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_each_criterion_is_judged_like_it_alone() -> None:
    reward = lively()
    rng = torch.Generator().manual_seed(1)
    features, criteria = torch.randn(2, 4, 5, generator=rng), torch.randn(3, 3, generator=rng)
    table = reward.each(features, criteria)
    assert table.shape == (2, 4, 3)
    for row, criterion in enumerate(criteria):
        torch.testing.assert_close(table[..., row], reward(features, criterion.expand(2, 4, 3)))


@torch.no_grad()
def test_the_prompt_changes_what_a_criterion_asks_for() -> None:
    reward = lively()
    reply, criterion = torch.ones(3), torch.ones(3)
    here, there = (
        reward(torch.cat([reply, torch.tensor(prompt)]), criterion) for prompt in ([1.0, 0.0], [0.0, 1.0])
    )
    assert abs(here - there) > 0.1


def test_gradient_reaches_every_part() -> None:
    reward = lively()
    rng = torch.Generator().manual_seed(1)
    reward(torch.randn(6, 5, generator=rng), torch.randn(6, 3, generator=rng)).sum().backward()
    for weights in reward.parameters():
        assert weights.grad is not None
        assert (weights.grad != 0).any()


def test_saved_reward_is_the_same_to_the_bit(tmp_path: Path) -> None:
    reward = lively()
    reward.save(tmp_path)
    again = ContextAwareReward.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(
            again(torch.ones(2, 5), torch.ones(2, 3)), reward(torch.ones(2, 5), torch.ones(2, 3))
        )
    path = tmp_path / "context_aware_reward.json"
    path.write_text(path.read_text().replace('"criterion_dim": 3', '"criterion_dim": 4'))
    with pytest.raises(DataError, match="5 features and 4 of the criterion"):
        ContextAwareReward.load(tmp_path)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 0, 64 and 0 of 5"):
        ContextAwareReward(5, 0)
    with pytest.raises(ShapeError, match="got 1, 64 and 5 of 5"):
        ContextAwareReward(5, 1, prompt_dim=5)
    with pytest.raises(ShapeError, match="5 columns and `criterion` 3; got 4 and 3"):
        lively()(torch.zeros(1, 4), torch.zeros(1, 3))


def test_training_is_the_same_to_the_bit_and_reported() -> None:
    world = make_reversal_world(pairs=200, tests=10)
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        reward = train_context_aware(
            world.train, world.features, world.criteria, SHORT, seed=1, report=rows.append
        )
        runs.append((reward, rows))
    (first, rows), (second, again) = runs
    assert torch.equal(first.linear, second.linear)
    assert rows == again
    assert [row["step"] for row in rows if "held_out_log_loss" in row] == [2, 4]
    assert not first.training


def test_faults_are_named() -> None:
    world = make_reversal_world(pairs=200, tests=10)
    with pytest.raises(ShapeError, match=r"Z at least 40.*got \(39, 24\)"):
        train_context_aware(world.train, world.features, world.criteria[:39], SHORT, seed=0)
    with pytest.raises(pydantic.ValidationError, match="step"):
        ContextAwareConfig(step=3)  # type: ignore[call-arg]


@pytest.mark.integration
@pytest.mark.parametrize("seed", [0, 1])
def test_obeys_unseen_criteria_where_a_blind_reward_can_only_guess(seed: int) -> None:
    world = make_reversal_world(seed=seed)
    reward = train_context_aware(world.train, world.features, world.criteria, ContextAwareConfig(), seed=0)
    with torch.no_grad():
        told = criterion_margins(reward, world.reversals, world.features, world.criteria) > 0
    blind = world.features @ fit_pooled(world.train, world.features, seed=0).weights
    untold = blind[world.reversals.chosen] > blind[world.reversals.rejected]
    assert world.reversals.users.min() >= world.seen
    assert untold.float().mean().item() == 0.5  # by construction
    assert told.float().mean().item() >= 0.95
