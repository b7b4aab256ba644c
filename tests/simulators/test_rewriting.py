"""Backward derivation: which turns are rewritten, and which rewrites are accepted."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.types import histories_from_log
from simulators.chat.model import Message, ScriptedChat
from simulators.judge import PairwiseJudge
from simulators.recipes.rewriting import (
    ChatRewriter,
    RewritingConfig,
    RewrittenTurn,
    ShortTurn,
    SteeredRewriter,
    complaint_direction,
    felt_by,
    judged_by,
    rewrite_turns,
    short_turns,
    turns_by_chance,
)
from simulators.rollout import rollout
from simulators.types import Confirmation, Dialogue, ItemCard, Utterance
from tests.helpers.talking import talking_world

WORLD, AGENT, VIEWERS = talking_world()
USERS = list(range(50))
ABSENT = Condition.absent(len(USERS), latent_dim=4, direction_dim=len(ATTRIBUTES))


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    histories = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
    return rollout(USERS, AGENT, VIEWERS, histories=histories, condition=ABSENT, seed=5)


def rewrite(
    turns: Sequence[ShortTurn], *, steer: float = 1.0, candidates: int = 4, gated: bool = True
) -> list[RewrittenTurn]:
    config = RewritingConfig(candidates=candidates)
    gates = [felt_by(VIEWERS, seed=5)] if gated else []
    return rewrite_turns(turns, SteeredRewriter(AGENT, steer), ABSENT, config, gates=gates, seed=5)


def test_short_turns_are_those_rated_at_most_the_threshold(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    expected = [
        (r, i) for r, d in enumerate(dialogues) for i, t in enumerate(d.turns) if t.feedback.satisfaction <= 3
    ]
    assert [(s.row, s.number) for s in short] == expected
    for turn in short:
        assert turn.prompt == AGENT.prompt(
            Dialogue(turn.row, dialogues[turn.row].turns[: turn.number]), turn.turn.user, turn.turn.card
        )


def test_last_turns_are_used_like_every_other(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    assert any(s.number == len(dialogues[s.row].turns) - 1 for s in short)


def test_only_rewrites_that_are_rated_higher_under_the_same_luck_are_accepted(
    dialogues: list[Dialogue],
) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    accepted = rewrite(short)
    assert 0 < len(accepted) <= len(short)
    for rewritten in accepted:
        turn = rewritten.short.turn
        again = VIEWERS.decide([rewritten.short.before], [turn.card], [rewritten.reply], seed=5)
        assert rewritten.gains == (again[0].satisfaction - turn.feedback.satisfaction,)
        assert rewritten.gains[0] > 0


def test_steering_by_the_complaint_finds_more_rewrites(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    steered, unsteered = rewrite(short, candidates=2), rewrite(short, candidates=2, steer=0.0)
    blind = rewrite([turn.blind() for turn in short], candidates=2)
    assert len(steered) > len(unsteered)
    assert [(r.short.row, r.reply) for r in blind] == [(r.short.row, r.reply) for r in unsteered]


def test_without_gates_the_first_new_reply_is_trusted(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)
    trusted = rewrite(short, gated=False)
    assert len(trusted) == len(short) and not any(r.gains for r in trusted)
    once = rewrite(short, candidates=1, gated=False)
    assert [r.reply for r in once] == [r.reply for r in trusted]
    assert len(rewrite(short)) < len(trusted)


def test_every_gate_must_agree(dialogues: list[Dialogue]) -> None:
    def odd_rows(
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        rewrites: Sequence[Utterance],
    ) -> NDArray[np.float64]:
        return np.asarray([1.0 if dialogue.user % 2 else -1.0 for dialogue in dialogues])

    short = short_turns(dialogues, AGENT, 3.0)
    config = RewritingConfig()
    gates = [felt_by(VIEWERS, seed=5), odd_rows]
    both = rewrite_turns(short, SteeredRewriter(AGENT), ABSENT, config, gates=gates, seed=5)
    felt = rewrite(short)
    assert [r.reply for r in both] == [r.reply for r in felt if r.short.before.user % 2]


def test_a_rewrite_that_says_the_same_or_nothing_is_dropped(dialogues: list[Dialogue]) -> None:
    class Echo:
        def rewrite(
            self, turns: Sequence[ShortTurn], condition: Condition, *, seeds: Sequence[int]
        ) -> list[Utterance]:
            return [t.turn.reply if i % 2 else Utterance("", "", "no answer") for i, t in enumerate(turns)]

    short = short_turns(dialogues, AGENT, 3.0)
    assert rewrite_turns(short, Echo(), ABSENT, RewritingConfig(), gates=[], seed=0) == []


def test_turns_by_chance_are_any_turns(dialogues: list[Dialogue]) -> None:
    picked = turns_by_chance(dialogues, AGENT, 20, seed=1)
    assert len({(t.row, t.number) for t in picked}) == 20
    assert {t.turn.feedback.satisfaction > 3 for t in picked} == {True, False}
    assert picked == turns_by_chance(dialogues, AGENT, 20, seed=1)
    assert len(turns_by_chance(dialogues, AGENT, 10_000, seed=1)) == sum(len(d.turns) for d in dialogues)


def test_another_model_is_told_the_reply_and_the_reasons(dialogues: list[Dialogue]) -> None:
    told: list[str] = []

    def answer(conversation: Sequence[dict[str, str]]) -> str:
        told.append(conversation[-1]["content"])
        return "Try <title>."

    chat = ScriptedChat(answer, {"<title>"})  # type: ignore[arg-type]
    short = [t for t in short_turns(dialogues, AGENT, 3.0) if t.turn.feedback.complaint][:1]
    reasons = {"flexibility": "It did not follow my change of mind."}
    feedback = replace(short[0].turn.feedback, confirmation=Confirmation({"flexibility": 1.0}, reasons))
    reasoned = short[0]._replace(turn=replace(short[0].turn, feedback=feedback))
    rewrites = ChatRewriter(chat).rewrite([short[0], reasoned], ABSENT.select([0, 0]), seeds=[1, 2])
    assert [r.text for r in rewrites] == [f"Try {short[0].turn.card.title}."] * 2
    assert all(short[0].turn.reply.raw in text for text in told)
    assert "mind" in told[0] and reasons["flexibility"] in told[1]


def test_what_a_model_without_slots_writes_is_learned_in_slots(dialogues: list[Dialogue]) -> None:
    short = short_turns(dialogues, AGENT, 3.0)[:1]
    title = short[0].turn.card.title
    chat = ScriptedChat(lambda conversation: f"Try {title}, it is good.")
    slotted, plain = (
        ChatRewriter(chat, slots=slots).rewrite(short, ABSENT.select([0]), seeds=[1])[0]
        for slots in (AGENT.policy.slots, ())
    )
    assert slotted.raw == "Try <title>, it is good." and slotted.text == plain.text == plain.raw


def test_a_judge_at_the_gate_reads_the_conversation_and_the_two_replies_alone(
    dialogues: list[Dialogue],
) -> None:
    told: list[str] = []

    def vote(conversation: Sequence[Message]) -> str:
        told.append(conversation[-1]["content"])
        texts = [told[-1].split(f"[{name}]\n")[1].split("\n[end")[0] for name in ("first", "second")]
        return json.dumps(
            {"reason": "It says more.", "better": "first" if len(texts[0]) > len(texts[1]) else "second"}
        )

    late = [turn for turn in short_turns(dialogues, AGENT, 5.0) if turn.number == 1][:2]
    replies = [turn.turn.reply for turn in late]
    rewrites = [Utterance(more, more) for more in (replies[0].text + " And more.", replies[1].text[:-5])]
    gate = judged_by(PairwiseJudge(ScriptedChat(vote)), seed=1)
    gains = gate([turn.before for turn in late], [turn.turn.card for turn in late], replies, rewrites)
    assert gains.tolist() == [0.5, -0.5] and len(told) == 4
    for turn, text in zip(late, told[:2], strict=True):
        first = turn.before.turns[0]
        asked = f"User: {first.user.text}\nRecommender: {first.reply.text}\nUser: {turn.turn.user.text}"
        assert f"[question]\n{asked}\n[end of question]" in text
    mute = judged_by(PairwiseJudge(ScriptedChat(lambda conversation: "Hm.")), seed=1)
    assert np.isnan(mute([late[0].before], [late[0].turn.card], replies[:1], rewrites[:1])).all()


def test_a_complaint_points_away_from_what_was_heard() -> None:
    direction = complaint_direction(("brevity", -1), 0.5)
    assert direction.tolist() == [0.5, 0, 0, 0, 0, 0]
    assert not complaint_direction(None, 1.0).any()


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("threshold", 0.5, "greater than or equal to 1"),
        ("threshold", 5.5, "less than or equal to 5"),
        ("candidates", 0, "greater than or equal to 1"),
    ],
)
def test_settings_keep_to_their_ranges(field: str, value: float, bound: str) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n.*{bound}"):
        RewritingConfig.model_validate({field: value})


def test_nothing_short_gives_nothing() -> None:
    assert rewrite([]) == []
