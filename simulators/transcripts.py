"""Dialogues as JSON objects and back, for transcripts that people and programs can read."""

from collections.abc import Mapping
from typing import Any

from simulators.types import (
    Confirmation,
    Dialogue,
    Feedback,
    GeneratedTokens,
    ItemCard,
    StopReason,
    Turn,
    Utterance,
)


def dialogue_to_json(dialogue: Dialogue) -> dict[str, Any]:
    """The dialogue as plain JSON values."""
    return {
        "user": int(dialogue.user),
        "stop": dialogue.stop,
        **({} if dialogue.opening is None else {"opening": _spoken(dialogue.opening)}),
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
                **_confirmed(turn.feedback.confirmation),
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
            utterance=_utterance(row["next"]),
            complaint=(complaint[0], complaint[1]) if complaint else None,
            stop=_stop(row["stop"]),
            confirmation=Confirmation(**row["confirmation"]) if "confirmation" in row else None,
        )
        card = ItemCard(row["item"], row["title"], row["facts"])
        turns.append(Turn(_utterance(row["user"]), card, _utterance(row["reply"]), feedback))
    opening = _utterance(saved["opening"]) if "opening" in saved else None
    return Dialogue(saved["user"], tuple(turns), _stop(saved["stop"]), opening)


def _confirmed(confirmation: Confirmation | None) -> dict[str, Any]:
    if confirmation is None:
        return {}
    said = {"scores": dict(confirmation.scores), "reasons": dict(confirmation.reasons)}
    return {"confirmation": {**said, "intent": confirmation.intent}}


def _spoken(utterance: Utterance) -> dict[str, Any]:
    said: dict[str, Any] = {"raw": utterance.raw, "text": utterance.text}
    if utterance.failure is not None:
        said["failure"] = utterance.failure
    if utterance.masked:
        said["masked"] = True
    if utterance.tokens is not None:
        said["tokens"] = {"prompt": list(utterance.tokens.prompt), "reply": list(utterance.tokens.reply)}
    return said


def _utterance(saved: Mapping[str, Any]) -> Utterance:
    tokens = saved.get("tokens")
    if tokens is None:
        return Utterance(**saved)
    return Utterance(**{**saved, "tokens": GeneratedTokens(tuple(tokens["prompt"]), tuple(tokens["reply"]))})


def _stop(value: str | None) -> StopReason | None:
    return None if value is None else StopReason(value)
