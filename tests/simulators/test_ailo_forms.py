"""The merged form of AILO beside the published one: the same judgement for a fifth of the tokens."""

from typing import NamedTuple

import pytest

from persona.policy.language_model import load_language_model
from simulators.types import Dialogue, Feedback
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_types import AiloConfig, Form
from tests.helpers.actor import Actor
from tests.helpers.persona_users import RecordingChat, persona_world, talk

WORLD, AGENT, PERSONAS = persona_world()


class Met(NamedTuple):
    reactions: list[Feedback]
    tokens: int


def meet(form: Form, chat: Actor, dialogues: list[Dialogue], seed: int) -> Met:
    recording = RecordingChat(chat)
    people = AiloUsers(PERSONAS, recording, AiloConfig(form=form, rating_noise=0.0, lapse_rate=0.0))
    turns = [(d.before(i), t) for d in dialogues for i, t in enumerate(d.turns)]
    found = people.react(
        [d for d, _ in turns], [t.card for _, t in turns], [t.reply for _, t in turns], seed=seed
    )
    return Met(found, sum(row.prompt_tokens + row.completion_tokens for row in recording.answers))


@pytest.mark.integration
def test_both_forms_tell_a_model_the_same_and_the_merged_one_costs_a_fifth() -> None:
    tokenizer = load_language_model("nano", "cpu").tokenizer
    sure = Actor(noise=0.0, count_tokens=lambda text: len(tokenizer(text)["input_ids"]))
    people = AiloUsers(PERSONAS, Actor(), AiloConfig(form=Form.FIVE_CALLS))
    dialogues = talk(WORLD, AGENT, people, range(40))
    five, merged = (meet(form, sure, dialogues, seed) for seed, form in enumerate(Form))
    assert merged.tokens <= five.tokens / 5
    for one, other in zip(five.reactions, merged.reactions, strict=True):
        assert one.confirmation is not None and other.confirmation is not None
        assert one.confirmation.scores == other.confirmation.scores
        assert one.confirmation.intent == other.confirmation.intent
        assert (one.level, one.stop) == (other.level, other.stop)
