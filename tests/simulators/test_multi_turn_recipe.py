"""Multi-turn DPO and KTO against simulated users, end to end on a tiny policy."""

import math

import numpy as np
import pytest
import torch

from persona.policy import ConditionedPolicy
from persona.recipes.imitation import ImitationConfig
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.recipes.judged import JudgedTraining
from simulators.recipes.multi_turn import MultiTurnConfig, train_multi_turn
from simulators.recipes.trajectories import TrajectoryConfig
from tests.helpers.talking import talking_world
from tests.helpers.tiny_models import tiny_language_model

pytestmark = pytest.mark.integration

WORLD, _, VIEWERS = talking_world()
USERS = list(range(40))
HISTORIES = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
KNOWN = Condition.of_latent(
    torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), direction_dim=len(ATTRIBUTES)
)
SHORT = MultiTurnConfig(
    plans=0,
    attempts=4,
    imitation=ImitationConfig(steps=1),
    epochs=None,
    learning=TrajectoryConfig(steps=2, examples_per_step=4),
)


def train(config: MultiTurnConfig, *, seed: int = 3) -> tuple[JudgedTraining, list[torch.Tensor]]:
    policy = ConditionedPolicy.build(tiny_language_model(), 2, len(ATTRIBUTES), rank=2, seed=0)
    everyone = histories_from_log(WORLD.log, np.arange(60), len(WORLD.catalogue))
    agent = Recommender(
        WORLD.catalogue,
        Popularity.fit(everyone),
        policy,
        max_new_tokens=24,
        attempts=1,
        history_turns=0,
        keep_tokens=True,
    )
    result = train_multi_turn(agent, VIEWERS, USERS, config, histories=HISTORIES, condition=KNOWN, seed=seed)
    return result, [parameter.detach().clone() for parameter in policy.adapter_parameters()]


@pytest.mark.parametrize("paired", [True, False])
def test_a_round_learns_from_what_ended_well_and_repeats_itself(paired: bool) -> None:
    config = SHORT.model_copy(update={"paired": paired})
    result, weights = train(config)
    assert 0 < result.rounds[0]["accepted"] < 1 and "loss" in result.rounds[0]
    again, same = train(config)
    assert str(again.rounds) == str(result.rounds)
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    _, untrained = train(config.model_copy(update={"rounds": 0}))
    assert any(not torch.equal(a, b) for a, b in zip(weights, untrained, strict=True))


def test_a_round_whose_last_step_saw_one_kind_alone_still_has_finite_figures() -> None:
    single = TrajectoryConfig(steps=4, examples_per_step=2)
    for seed in range(3):
        result, _ = train(SHORT.model_copy(update={"paired": False, "learning": single}), seed=seed)
        assert all(math.isfinite(value) for value in result.rounds[0].values())


def test_plans_come_first() -> None:
    _, planned = train(SHORT.model_copy(update={"rounds": 0, "plans": 2}))
    _, untrained = train(SHORT.model_copy(update={"rounds": 0}))
    assert any(not torch.equal(a, b) for a, b in zip(planned, untrained, strict=True))
