"""PRISM: what 1,400 people said to language models, and how they rated the replies of each turn."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from persona.data.cleaning import clean_texts, object_frame, to_number, to_ratings
from persona.data.preferences import RatedRows
from persona.data.readers.files import RawRows
from persona.data.readers.options import ReadOptions

FILES = ("utterances.jsonl", "conversations.jsonl")
"""Files of the release that hold the ratings, the same ones; the first that is there is read."""

UTTERANCE = ("conversation_id", "user_id", "turn", "user_prompt", "model_response", "score", "if_chosen")


class _Reply(NamedTuple):
    """One rated reply as either file has it."""

    row: int
    conversation: str
    user_id: Any
    turn: int
    said: Any
    reply: Any
    score: Any
    is_chosen: bool


def fits_prism(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether these are PRISM's conversations or utterances."""
    columns = set(frame.columns)
    return {"user_id", "conversation_history"} <= columns or set(UTTERANCE) <= columns


def convert_prism(raw: RawRows, options: ReadOptions) -> RatedRows:
    """Ratings (1 to 100) of the replies within each turn; the conversation so far is the prompt.

    The conversation went on with the reply that was chosen, so earlier turns of a prompt hold that one.
    """
    is_long = "conversation_history" not in raw.frame.columns
    replies = list(_utterances(raw) if is_long else _conversations(raw))
    columns = {
        "user_id": [reply.user_id for reply in replies],
        "prompt": _prompts(replies),
        "reply": [reply.reply for reply in replies],
        "score": [reply.score for reply in replies],
    }
    places = pd.Series([(reply.conversation, reply.turn) for reply in replies], dtype=object)
    numbers = np.asarray([reply.row for reply in replies], dtype=np.int64)
    frame = object_frame(columns).assign(row=numbers, group=pd.factorize(places)[0])
    cleaned = clean_texts(frame, ("reply",), max_text=options.max_text)
    ratings, unrated = to_ratings(cleaned.frame[["score"]], cleaned.frame["row"].to_numpy(dtype=np.int64))
    dropped = (*raw.dropped, *cleaned.dropped, *unrated)
    return RatedRows(cleaned.frame.drop(columns="score"), ratings, None, {}, dropped)


def _conversations(raw: RawRows) -> Iterator[_Reply]:
    ids = raw.frame.get("conversation_id", pd.Series(raw.numbers))
    for row, conversation, user, history in zip(
        raw.numbers.tolist(), ids, raw.frame["user_id"], raw.frame["conversation_history"], strict=True
    ):
        turns = [turn for turn in history if isinstance(turn, dict)] if _is_list(history) else []
        said = {_place(turn): turn.get("content") for turn in turns if turn.get("role") == "user"}
        for turn in sorted((turn for turn in turns if turn.get("role") != "user"), key=_place):
            yield _Reply(
                row,
                str(conversation),
                user,
                _place(turn),
                said.get(_place(turn)),
                turn.get("content"),
                turn.get("score"),
                turn.get("if_chosen") is True,
            )


def _utterances(raw: RawRows) -> Iterator[_Reply]:
    frame = raw.frame.assign(row=raw.numbers)
    turn = np.asarray([_whole(cell) for cell in frame["turn"]], dtype=np.int64)
    conversation = pd.factorize(pd.Series(list(map(str, frame["conversation_id"])), dtype=object))[0]
    frame = frame.assign(turn=turn, conversation_id=conversation)
    frame = frame.sort_values(["conversation_id", "turn"], kind="stable")
    cells = (frame[name].tolist() for name in ("row", *UTTERANCE))
    for row, talk, user, place, said, reply, score, chosen in zip(*cells, strict=True):
        yield _Reply(row, str(talk), user, place, said, reply, score, chosen in (True, "True", "true", 1))


def _place(turn: dict[str, Any]) -> int:
    return _whole(turn.get("turn"))


def _whole(cell: object) -> int:
    """The number of a turn; 0 where it cannot be read."""
    number = to_number(cell)
    return int(number) if 0 <= number < 1_000_000 else 0


def _prompts(replies: list[_Reply]) -> list[Any]:
    """The messages before each reply; None where the user's own words are missing.

    Replies of a conversation come together, by turn.
    """
    prompts: list[Any] = []
    for start, end in _runs([reply.conversation for reply in replies]):
        history: list[dict[str, Any]] = []
        part = replies[start:end]
        for low, high in _runs([reply.turn for reply in part]):
            turn = part[low:high]
            asked = [*history, {"role": "user", "content": turn[0].said}]
            prompts += [asked if isinstance(turn[0].said, str) else None] * len(turn)
            chosen = next((reply.reply for reply in turn if reply.is_chosen), None)
            history = [*asked, {"role": "assistant", "content": chosen}] if chosen else asked
    return prompts


def _runs(values: list[Any]) -> Iterator[tuple[int, int]]:
    start = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[start]:
            yield start, place
            start = place


def _is_list(value: object) -> bool:
    return isinstance(value, (list, np.ndarray))
