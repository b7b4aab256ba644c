"""Transcripts: what a dialogue holds beyond the film viewers' own comes back too."""

import json
from dataclasses import replace

from simulators.transcripts import dialogue_from_json, dialogue_to_json
from simulators.types import Confirmation, Dialogue, Feedback, ItemCard, StopReason, Turn, Utterance

CONFIRMATION = Confirmation(
    {"recommendation": 0, "action": 3, "expression": 4}, {"action": "It asked too much."}
)


def dialogue(feedback: Feedback) -> Dialogue:
    said = Utterance("Something funny.", "Something funny.")
    reply = Utterance("See Heat Wave.", "See Heat Wave.")
    turn = Turn(said, ItemCard(3, "Heat Wave", {"year": "1994"}), reply, feedback)
    return Dialogue(7, (turn,), feedback.stop)


def test_scores_reasons_and_masks_come_back_from_text() -> None:
    words = Utterance("I want that film.", "I want that film.", masked=True)
    whole = dialogue(Feedback(2, 3.5, words, stop=StopReason.MAX_TURNS, confirmation=CONFIRMATION))
    assert dialogue_from_json(json.loads(json.dumps(dialogue_to_json(whole)))) == whole
    plain = dialogue(replace(whole.turns[0].feedback, confirmation=None, utterance=Utterance("No.", "No.")))
    assert dialogue_from_json(json.loads(json.dumps(dialogue_to_json(plain)))) == plain


def test_a_transcript_without_them_is_as_it_always_was() -> None:
    saved = dialogue_to_json(dialogue(Feedback(0, 2.0, Utterance("No.", "No."))))["turns"][0]
    assert "confirmation" not in saved
    assert saved["next"] == {"raw": "No.", "text": "No."}


def test_words_that_nothing_came_of_are_kept() -> None:
    dead = Dialogue(2, stop=StopReason.MODEL_FAILED, opening=Utterance("", "", "the endpoint did not answer"))
    assert dialogue_from_json(json.loads(json.dumps(dialogue_to_json(dead)))) == dead
    assert dead.said == dead.opening


def test_a_dialogue_is_met_again_as_it_stood() -> None:
    whole = dialogue(Feedback(0, 2.0, Utterance("No.", "No.")))
    assert whole.before(0) == Dialogue(7, opening=whole.turns[0].user)
    assert whole.before(1).said == whole.said == Utterance("No.", "No.")
    assert Dialogue(7).said is None
