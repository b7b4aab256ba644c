"""Dialogues as JSON objects and back, for transcripts that people and programs can read."""

from collections.abc import Mapping
from typing import Any

from simulators.types import Dialogue, Feedback, ItemCard, StopReason, Turn, Utterance


def dialogue_to_json(dialogue: Dialogue) -> dict[str, Any]:
    """The dialogue as plain JSON values."""
    return {
        "user": int(dialogue.user),
        "stop": dialogue.stop,
        "turns": [
            {
                "user": _spoken(turn.user),
                "item": turn.card.item,
                "title": turn.card.title,
                "facts": dict(turn.card.facts),
                "reply": _spoken(turn.reply),
                "level": turn.feedback.level,
                "satisfaction": turn.feedback.satisfaction,
                "complaint": turn.feedback.complaint,
                "next": _spoken(turn.feedback.utterance),
                "stop": turn.feedback.stop,
            }
            for turn in dialogue.turns
        ],
    }


def dialogue_from_json(saved: Mapping[str, Any]) -> Dialogue:
    """The dialogue that `dialogue_to_json` wrote."""
    turns = []
    for row in saved["turns"]:
        complaint = row["complaint"]
        feedback = Feedback(
            level=row["level"],
            satisfaction=row["satisfaction"],
            utterance=Utterance(**row["next"]),
            complaint=(complaint[0], complaint[1]) if complaint else None,
            stop=_stop(row["stop"]),
        )
        card = ItemCard(row["item"], row["title"], row["facts"])
        turns.append(Turn(Utterance(**row["user"]), card, Utterance(**row["reply"]), feedback))
    return Dialogue(saved["user"], tuple(turns), _stop(saved["stop"]))


def _spoken(utterance: Utterance) -> dict[str, str]:
    said = {"raw": utterance.raw, "text": utterance.text}
    return said if utterance.failure is None else {**said, "failure": utterance.failure}


def _stop(value: str | None) -> StopReason | None:
    return None if value is None else StopReason(value)
