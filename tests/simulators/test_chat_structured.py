"""Answers as checked values: what counts as an answer, who is asked again and with what."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from simulators.chat.model import Completion, Message, ScriptedChat
from simulators.chat.structured import Parsed, closed_schema, complete_json, parse_json
from simulators.errors import ChatError


class Mood(StrEnum):
    WARM = "warm"
    DARK = "dark"


class Reason(BaseModel):
    text: str
    weight: float = 1.0


class Rating(BaseModel):
    score: int = Field(ge=1, le=5)
    reason: str = ""


class Verdict(BaseModel):
    mood: Mood
    reasons: list[Reason]
    best: Reason | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    properties: Reason | None = None


def question(text: str = "Rate it.") -> list[Message]:
    return [{"role": "user", "content": text}]


class Script:
    """A chat model that answers row by row from lists, and remembers what it was asked."""

    slots: frozenset[str] = frozenset()

    def __init__(self, *answers: Sequence[str | Completion]) -> None:
        self._answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    def complete(self, conversations: Sequence[Sequence[Message]], **settings: Any) -> list[Completion]:
        self.calls.append({"conversations": [list(c) for c in conversations], **settings})
        said = self._answers[len(self.calls) - 1]
        return [row if isinstance(row, Completion) else Completion(row, None, 10, 2) for row in said]


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 4, "reason": "so"}',
        'Sure!\n```json\n{"score": 4, "reason": "so"}\n```\nAnything else?',
        'I think {well} it is {"score": 4, "reason": "so"}.',
        'First {"score": 1} came to mind, then {"score": 4, "reason": "so"}',
        '{"score": 9} is too much: {"score": 4, "reason": "so"} but {"score": 0} too little',
        '{"score": 1, {"score": 2} no: {"score": 4, "reason": "so"}',
        '{\n  "score": "4", "reason": "so", "more": {"score": 1}\n}',
    ],
)
def test_the_last_valid_object_is_found_whatever_is_around_it(text: str) -> None:
    assert parse_json(text, Rating) == (Rating(score=4, reason="so"), None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it holds none"),
        ("[1, 2]", "it holds none"),
        ("{'score': 4}", "it holds none"),
        ('{"score": 4, "rea', "broken at its character 13: Unterminated string"),
        ('{"score": 4,}', "broken at its character 12"),
        ('{"outer": {"score": 4}, "rea', "broken at its character 24"),
        ('{"score": NaN}', "NaN is no JSON number"),
        ('{"a":' * 100_000, "cannot be read: maximum recursion depth"),
        ('{"score": ' + "9" * 5000 + "}", "cannot be read: Exceeds the limit"),
        ('{"score": 6}', "score: Input should be less than or equal to 5"),
        ("{}", "score: Field required"),
        ('{"score": 1.5, "reason": 3}', "reason: Input should be a valid string"),
    ],
)
def test_what_is_no_answer_says_why(text: str, reason: str) -> None:
    value, failure = parse_json(text, Rating)
    assert value is None
    assert failure is not None and reason in failure and "\n" not in failure


def test_many_problems_are_counted_not_listed() -> None:
    class Five(BaseModel):
        a: int
        b: int
        c: int
        d: int
        e: int

    assert (parse_json("{}", Five)[1] or "").endswith("c: Field required; and 2 more problems")


def test_strict_models_are_read_as_json() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        mood: Mood
        pair: tuple[int, int]

    assert parse_json('{"mood": "dark", "pair": [1, 2]}', Strict)[0] == Strict(mood=Mood.DARK, pair=(1, 2))
    assert parse_json('{"mood": "dark", "pair": ["1", 2]}', Strict)[0] is None


def test_schemas_are_closed_and_ask_for_every_field() -> None:
    schema = closed_schema(Verdict)
    objects = [schema, schema["$defs"]["Reason"]]
    assert all(node["additionalProperties"] is False for node in objects)
    assert [node["required"] for node in objects] == [list(Verdict.model_fields), ["text", "weight"]]
    assert schema["properties"]["counts"]["additionalProperties"] == {"type": "integer"}
    assert "default" not in json.dumps(schema)
    assert "additionalProperties" not in schema["properties"]["properties"]
    assert schema["$defs"]["Mood"]["enum"] == ["warm", "dark"]


def test_only_rows_that_failed_are_asked_again_with_what_was_wrong() -> None:
    chat = Script(
        ['{"score": 2}', "no idea", '{"score": 7}'], ['{"score": 5}', "still none"], ['{"score": 1}']
    )
    rows = [question("a"), question("b"), question("c")]
    found = complete_json(chat, rows, Rating, seeds=[7, 8, 9], max_new_tokens=33, temperature=0.5)
    assert [row.value for row in found] == [Rating(score=score) for score in (2, 5, 1)]
    assert [row.failure for row in found] == [None] * 3
    assert [row.attempts for row in found] == [1, 2, 3]
    assert [(row.prompt_tokens, row.completion_tokens) for row in found] == [(10, 2), (20, 4), (30, 6)]

    first, second, third = chat.calls
    assert first["conversations"] == rows and first["seeds"] == [7, 8, 9]
    assert first["max_new_tokens"] == 33 and first["temperature"] == 0.5
    assert all(call["schema"] == closed_schema(Rating) for call in chat.calls)
    assert [c[:2] for c in second["conversations"]] == [
        [*question("b"), {"role": "assistant", "content": "no idea"}],
        [*question("c"), {"role": "assistant", "content": '{"score": 7}'}],
    ]
    told = second["conversations"][1][2]["content"]
    assert "score: Input should be less than or equal to 5" in told
    assert json.dumps(closed_schema(Rating), separators=(",", ":")) in told
    # The last answer is shown, not the whole history of failures.
    assert [len(c) for c in third["conversations"]] == [3]
    assert third["conversations"][0][1]["content"] == "still none"
    assert len({*first["seeds"], *second["seeds"], *third["seeds"]}) == 6


def test_company_does_not_change_the_seeds_of_a_second_try() -> None:
    together = Script(["?", "?"], ["?", "?"], ["?", "?"])
    complete_json(together, [question(), question()], Rating, seeds=[3, 4])
    alone = Script(["?"], ["?"], ["?"])
    complete_json(alone, [question()], Rating, seeds=[4])
    assert [call["seeds"][1] for call in together.calls] == [call["seeds"][0] for call in alone.calls]


def test_rows_that_never_answer_well_end_with_the_last_reason() -> None:
    chat = Script(["?", '{"score": 3}'], ['{"score": 0}'])
    found = complete_json(chat, [question(), question()], Rating, seeds=[1, 2], attempts=2)
    assert found[0] == Parsed(None, "score: Input should be greater than or equal to 1", 20, 4, 2)
    assert found[1].value == Rating(score=3)


def test_a_failed_chat_model_is_not_asked_again() -> None:
    chat = Script([Completion("", "the budget is spent"), "?"], ['{"score": 3}'])
    found = complete_json(chat, [question(), question()], Rating, seeds=[1, 2])
    assert found[0] == Parsed(None, "the budget is spent", 0, 0, 1)
    assert found[1].value == Rating(score=3) and found[1].attempts == 2


def test_no_rows_ask_nothing_and_no_attempts_are_refused() -> None:
    chat = Script()
    assert complete_json(chat, [], Rating, seeds=[]) == [] and chat.calls == []
    with pytest.raises(ChatError, match="`attempts` must be at least 1; got 0"):
        complete_json(chat, [question()], Rating, seeds=[1], attempts=0)


def test_a_scripted_model_that_listens_corrects_itself() -> None:
    chat = ScriptedChat(lambda c: '{"score": 2}' if "cannot be used" in c[-1]["content"] else "two")
    found = complete_json(chat, [question()] * 4, Rating, seeds=range(4))
    assert [row.value for row in found] == [Rating(score=2)] * 4
