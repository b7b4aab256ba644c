"""Answers as checked values: a JSON schema out, a pydantic model back, another try for the rows that failed.

What holds a model to a schema differs from server to server and is often nothing at all, so every answer is looked
through for a JSON object and validated here, whoever wrote it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from simulators.chat.model import ChatModel, Completion, Message, Schema
from simulators.errors import ChatError
from simulators.randomness import keyed_seeds

_RETRY = 907
_SHOWN = 2000
_PROBLEMS = 3
_OPENING = re.compile(r'\{\s*["}]')

T = TypeVar("T", bound=BaseModel)


class Parsed(NamedTuple, Generic[T]):
    """What one conversation came to.

    value: The validated answer; None where there is none.
    failure: Why there is none, in one sentence; None where there is one.
    prompt_tokens: Tokens read, summed over the attempts.
    completion_tokens: Tokens written, likewise.
    attempts: How often the model was asked.
    """

    value: T | None
    failure: str | None
    prompt_tokens: int
    completion_tokens: int
    attempts: int


def complete_json(
    chat: ChatModel,
    conversations: Sequence[Sequence[Message]],
    model: type[T],
    *,
    seeds: Sequence[int],
    attempts: int = 3,
    max_new_tokens: int = 512,
    temperature: float = 1.0,
) -> list[Parsed[T]]:
    """One validated answer a conversation.

    A row whose answer holds no valid object is asked again, with its answer, what was wrong with it and the schema
    added to the conversation, under another seed; the others are left alone. A row whose chat model failed is not
    asked again: whatever can be done about that, the chat model has done.

    Args:
        chat: Answers.
        conversations: B lists of messages. They should say in words what is wanted: not every model sees the schema.
        model: What an answer must be, an object.
        seeds: One seed a row.
        attempts: How often a row is asked, at least 1.
        max_new_tokens: Longest answer, in tokens.
        temperature: Of the sampling.

    Raises:
        ChatError: `attempts` is below 1.
    """
    if attempts < 1:
        raise ChatError(f"`attempts` must be at least 1; got {attempts}. Leave it at 3.")
    schema = closed_schema(model)
    asked = [list(conversation) for conversation in conversations]
    luck = list(seeds)
    found: list[Parsed[T]] = [Parsed(None, "it was never asked", 0, 0, 0) for _ in asked]
    rows = list(range(len(asked)))
    for attempt in range(1, attempts + 1):
        if not rows:
            break
        answers = chat.complete(
            [asked[row] for row in rows],
            seeds=[luck[row] for row in rows],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            schema=schema,
        )
        again = []
        for row, answer in zip(rows, answers, strict=True):
            found[row] = _added(found[row], answer, model)
            if found[row].value is None and answer.failure is None:
                asked[row] = [
                    *conversations[row],
                    *_correction(answer.text, found[row].failure or "", schema),
                ]
                luck[row] = keyed_seeds(_RETRY, seeds[row], attempt)[0]
                again.append(row)
        rows = again
    return found


def closed_schema(model: type[BaseModel]) -> Schema:
    """The model's JSON schema, as strict servers ask for it: every object closed and every field required.

    What an answer may leave out is for the validation to say; a model that is held to a schema gives everything.
    """
    schema = model.model_json_schema()
    _close(schema)
    return schema


def parse_json(text: str, model: type[T]) -> tuple[T | None, str | None]:
    """The last object in the text that is valid JSON and a valid `model`, and why there is none.

    Prose and code fences around it are overlooked; nothing is repaired. An object inside a broken one does not
    count.

    Args:
        text: As generated.
        model: What the object must be.

    Returns:
        The value and None, or None and what was wrong with the last object, in one sentence.
    """
    value, failure = None, "the answer must hold a JSON object; it holds none"
    for found, problem in _objects(text):
        if problem is not None:
            failure = problem
            continue
        try:
            value = model.model_validate_json(found)
        except ValidationError as error:
            failure = _problems_of(error)
    return (None, failure) if value is None else (value, None)


def _added(so_far: Parsed[T], answer: Completion, model: type[T]) -> Parsed[T]:
    value, failure = (None, answer.failure) if answer.failure else parse_json(answer.text, model)
    return Parsed(
        value,
        failure,
        so_far.prompt_tokens + answer.prompt_tokens,
        so_far.completion_tokens + answer.completion_tokens,
        so_far.attempts + 1,
    )


def _correction(text: str, failure: str, schema: Schema) -> list[Message]:
    wanted = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    told = f"That cannot be used: {failure}. Answer with one JSON object of this schema and nothing else: {wanted}"
    return [{"role": "assistant", "content": text[:_SHOWN]}, {"role": "user", "content": told}]


def _objects(text: str) -> Iterator[tuple[str, str | None]]:
    """Every outermost JSON object of the text, each with what is wrong with it or None.

    A brace that neither a quoted name nor a closing brace follows is prose.
    """
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    start = _OPENING.search(text)
    while start:
        first = end = start.start()
        try:
            _, end = decoder.raw_decode(text, first)
            yield text[first:end], None
        except json.JSONDecodeError as error:
            end = max(error.pos, first + 1)
            yield "", f"the JSON object is broken at its character {end - first}: {error.msg}"
        except (ValueError, RecursionError) as error:
            # How far the object goes is not known, so what follows may lie inside it.
            yield "", f"the JSON object cannot be read: {error}"
            return
        start = _OPENING.search(text, end)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _problems_of(error: ValidationError) -> str:
    """The first problems, each with where it is."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    said = [
        f"{'.'.join(map(str, problem['loc'])) or 'the object'}: {problem['msg']}"
        for problem in problems[:_PROBLEMS]
    ]
    more = len(problems) - len(said)
    return "; ".join([*said, f"and {more} more problems"] if more else said)


def _close(node: Any) -> None:
    """Close every object of the schema in place, and drop the defaults, which a strict server refuses."""
    if not isinstance(node, dict):
        return
    node.pop("default", None)
    if "properties" in node:
        node["additionalProperties"] = False
        node["required"] = list(node["properties"])
    for named in ("properties", "$defs"):
        for part in node.get(named, {}).values():
            _close(part)
    for listed in ("anyOf", "allOf", "oneOf", "prefixItems"):
        for part in node.get(listed, []):
            _close(part)
    for single in ("items", "additionalProperties"):
        _close(node.get(single))
