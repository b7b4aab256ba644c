"""The recipe end to end on a tiny policy: planning, confirmation, gates, judges, and when it stops."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from persona.policy import ConditionedPolicy
from persona.recipes.imitation import ImitationConfig
from persona.recipes.policy import PolicyConfig
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.recipes.ecpo import EcpoConfig, learn_plans, train_ecpo
from simulators.recipes.judged import JudgedTraining
from simulators.recipes.rewriting import Gate, RewritingConfig
from simulators.rehearsal import Rehearsal
from simulators.rollout import rollout
from simulators.types import Decision, Dialogue, ItemCard, StopReason, Utterance
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import reference_scale, talking_world
from tests.helpers.tiny_models import tiny_language_model

pytestmark = pytest.mark.integration

WORLD, _, VIEWERS = talking_world()
USERS = list(range(8))
HISTORIES = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
KNOWN = Condition.of_latent(
    torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), direction_dim=len(ATTRIBUTES)
)
SHORT = EcpoConfig(
    talks=1,
    imitation=ImitationConfig(steps=2),
    rewriting=RewritingConfig(threshold=5.0, candidates=2),
    epochs=None,
    policy=PolicyConfig(steps=2, pairs_per_step=4, drop_condition=0.0),
)


def agent_of() -> Recommender:
    policy = ConditionedPolicy.build(tiny_language_model(), 2, len(ATTRIBUTES), rank=2, seed=0)
    everyone = histories_from_log(WORLD.log, np.arange(60), len(WORLD.catalogue))
    return Recommender(
        WORLD.catalogue, Popularity.fit(everyone), policy, max_new_tokens=12, attempts=1, history_turns=0
    )


def train(config: EcpoConfig = SHORT, **others: Any) -> tuple[JudgedTraining, list[torch.Tensor]]:
    agent = agent_of()
    result = train_ecpo(agent, VIEWERS, USERS, config, histories=HISTORIES, condition=KNOWN, seed=3, **others)
    return result, [parameter.detach().clone() for parameter in agent.policy.adapter_parameters()]


def trusting(seed: int) -> Sequence[Gate]:
    return []


def test_a_round_trains_the_policy_and_the_same_seed_gives_the_same_bits() -> None:
    rows: list[Mapping[str, float]] = []
    result, weights = train(gates=trusting, report=rows.append)
    assert result.rounds[0]["accepted"] > 0 and result.rounds[0]["short"] >= result.rounds[0]["accepted"]
    assert [row["step"] for row in rows if "step" in row] == [0, 1]
    again, same = train(gates=trusting)
    assert again.rounds == result.rounds
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    start = agent_of().policy.adapter_parameters()
    assert any(not torch.equal(a, b) for a, b in zip(weights, start, strict=True))


def test_without_rounds_only_plans_are_learned() -> None:
    result, _ = train(SHORT.model_copy(update={"rounds": 0, "plans": 2}))
    assert result == JudgedTraining([], [], stopped=False)


def test_more_talks_bring_more_turns_of_the_same_users_under_other_luck() -> None:
    lucks: list[int] = []

    def gates(luck: int) -> Sequence[Gate]:
        lucks.append(luck)
        return []

    once, _ = train(gates=gates)
    several, _ = train(SHORT.model_copy(update={"talks": 3}), gates=gates)
    assert len(set(lucks)) == 3 and lucks[0] == lucks[1]
    assert several.rounds[0]["short"] > 2 * once.rounds[0]["short"]


def test_passes_over_the_pairs_set_the_number_of_steps() -> None:
    rows: list[Mapping[str, float]] = []
    result, _ = train(SHORT.model_copy(update={"epochs": 1.5}), gates=trusting, report=rows.append)
    steps = math.ceil(1.5 * result.rounds[0]["accepted"] / 4)
    assert [row["step"] for row in rows if "step" in row] == list(range(steps))
    assert {row["steps"] for row in rows if "step" in row} == {steps}


def test_judges_are_heard_before_and_after_and_count_everyone() -> None:
    judges = Rehearsal(VIEWERS, USERS, HISTORIES, KNOWN, seed=9)
    result, _ = train(SHORT.model_copy(update={"plans": 0}), gates=trusting, judges=judges)
    assert len(result.outcomes) == 2 and all(len(o.satisfaction) == len(USERS) for o in result.outcomes)


def test_blind_rewriting_takes_as_many_turns_and_steers_none_of_them() -> None:
    config = SHORT.model_copy(update={"plans": 0})
    seen, _ = train(config, gates=trusting)
    blind, _ = train(config.model_copy(update={"confirmation": False}), gates=trusting)
    assert blind.rounds[0]["short"] == seen.rounds[0]["short"]


class _Flattered(FilmViewers):
    """Judges who rate every talk with a trained agent higher and get less from it."""

    talks = 0

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        self.talks += 1
        return super().open(users, seed=seed)

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        late = self.talks > 1
        return [Decision(0, 5.0 if late else 3.0, None, -1.0 if late else 1.0) for _ in dialogues]


def test_a_run_stops_where_judges_are_pleased_without_being_served() -> None:
    def chat_of() -> _Flattered:
        return _Flattered(WORLD.oracle, reference_scale(), VIEWERS._chat, max_turns=1)

    judges = Rehearsal(chat_of(), USERS, HISTORIES, None, seed=9)
    config = SHORT.model_copy(update={"plans": 0, "rounds": 3})
    result, _ = train(config, gates=trusting, judges=judges)
    assert result.stopped and len(result.rounds) == 1


def test_plans_that_fail_teach_nothing() -> None:
    agent = agent_of()
    talked = rollout(USERS, agent, VIEWERS, histories=HISTORIES, condition=KNOWN, seed=1)
    failed = [d for d in talked if d.stop is not StopReason.ACCEPTED]
    before = [parameter.detach().clone() for parameter in agent.policy.adapter_parameters()]
    assert learn_plans(agent, [failed], KNOWN, ImitationConfig(steps=1), seed=0) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, agent.policy.adapter_parameters(), strict=True))
