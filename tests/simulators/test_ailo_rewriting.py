"""Expectation confirmation with AILO users: their scores find short turns, their reasons reach the rewriter alone."""

from collections.abc import Sequence

import pytest

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from simulators.chat.model import Message, ScriptedChat
from simulators.recipes.rewriting import ChatRewriter, RewritingConfig, felt_by, rewrite_turns, short_turns
from simulators.types import Dialogue
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_types import AiloConfig, Form
from tests.helpers.actor import Actor
from tests.helpers.persona_users import persona_world, talk

WORLD, AGENT, PERSONAS = persona_world()
USERS = list(range(40))
ABSENT = Condition.absent(len(USERS), latent_dim=4, direction_dim=len(ATTRIBUTES))
CONFIG = AiloConfig(form=Form.FIVE_CALLS, satisfaction_from=("expression",))


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return talk(WORLD, AGENT, AiloUsers(PERSONAS, Actor(), CONFIG), USERS)


def test_a_rewrite_that_mends_what_was_minded_is_accepted(dialogues: list[Dialogue]) -> None:
    asked: list[str] = []

    def kindly(conversation: Sequence[Message]) -> str:
        asked.append(conversation[-1]["content"])
        return "See <title> because it is short. Will that do?"

    people = AiloUsers(PERSONAS, Actor(), CONFIG)
    short = short_turns(dialogues, AGENT, 4.0)
    slots = AGENT.policy.slots
    found = rewrite_turns(
        short,
        ChatRewriter(ScriptedChat(kindly, slots)),
        ABSENT,
        RewritingConfig(candidates=1),
        gates=[felt_by(people, seed=3)],
        seed=0,
    )
    assert len(found) > len(short) / 4
    for rewrite in found:
        confirmation = rewrite.short.turn.feedback.confirmation
        assert confirmation is not None and confirmation.scores["expression"] <= 4
        assert rewrite.gains[0] > 0
    reasons = [
        turn.turn.feedback.confirmation.reasons["expression"]
        for turn in short
        if turn.turn.feedback.confirmation
    ]
    assert all(reason in text for reason, text in zip(reasons, asked, strict=True))


def test_a_rewrite_that_mends_nothing_is_not(dialogues: list[Dialogue]) -> None:
    people = AiloUsers(PERSONAS, Actor(noise=0.0), CONFIG.model_copy(update={"rating_noise": 0.0}))
    short = short_turns(dialogues, AGENT, 4.0)
    bare = ChatRewriter(ScriptedChat(lambda conversation: "See <title>.", AGENT.policy.slots))
    found = rewrite_turns(
        short, bare, ABSENT, RewritingConfig(candidates=1), gates=[felt_by(people, seed=3)], seed=0
    )
    assert len(found) < len(short) / 4
