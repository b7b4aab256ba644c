"""The language-model calls of AILO: one a turn, or the published five in sequence, for all dialogues at once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from simulators.chat.model import ChatModel, Message
from simulators.chat.structured import Parsed, complete_json
from simulators.users import ailo_prompts as prompts
from simulators.users.ailo_prompts import TurnContext
from simulators.users.ailo_types import (
    ActionRating,
    AiloConfig,
    ExpressionRating,
    Form,
    Intent,
    IntentChoice,
    MergedTurn,
    PlainReply,
    RecommendationRating,
    WrittenReply,
)
from simulators.users.places import Place, place_seeds

_OPEN, _SELECT, _WRITE, _RECOMMEND, _EXPRESS, _ACT, _AGAIN = range(301, 308)

T = TypeVar("T", bound=BaseModel)


class Answer(NamedTuple):
    """A message that a user wants to send.

    text: The message; empty where there is none.
    failure: Why there is none; None where there is one.
    prompt: What it answers, for asking again.
    turn: All that was decided with it; None for an opening or a failure.
    """

    text: str
    failure: str | None
    prompt: list[Message]
    turn: MergedTurn | None = None


class AiloCalls:
    """Asks a chat model for openings, reactions, and messages without a title.

    Args:
        chat: Answers.
        config: Which form, and how a call is made.
    """

    def __init__(self, chat: ChatModel, config: AiloConfig) -> None:
        self._chat = chat
        self._config = config

    def open(self, contexts: Sequence[TurnContext], places: Sequence[Place], *, seed: int) -> list[Answer]:
        """The first message of each user, by one call in either form."""
        word = self._config.item_word
        if self._config.form is Form.MERGED:
            asked = [prompts.merged_prompt(context, word) for context in contexts]
            said = [_text(answer) for answer in self._ask(asked, PlainReply, places, seed, _OPEN)]
        else:
            asked = [prompts.writer_prompt(context, None, word) for context in contexts]
            said = [_text(answer) for answer in self._ask(asked, WrittenReply, places, seed, _OPEN)]
        return [Answer(text, failure, prompt) for (text, failure), prompt in zip(said, asked, strict=True)]

    def react(self, contexts: Sequence[TurnContext], places: Sequence[Place], *, seed: int) -> list[Answer]:
        """Intent, message and ratings of each turn, in the form of the configuration."""
        form = self._merged if self._config.form is Form.MERGED else self._five
        return form(contexts, places, seed)

    def say_again(self, answers: Sequence[Answer], places: Sequence[Place], *, seed: int) -> list[Answer]:
        """The same messages without the title that they told; an answer that fails stays as it was."""
        asked = [prompts.again_prompt(answer.prompt, answer.text) for answer in answers]
        found = self._ask(asked, PlainReply, places, seed, _AGAIN)
        return [
            answer._replace(text=anew.value.reply) if anew.value else answer
            for answer, anew in zip(answers, found, strict=True)
        ]

    def _merged(self, contexts: Sequence[TurnContext], places: Sequence[Place], seed: int) -> list[Answer]:
        asked = [prompts.merged_prompt(context, self._config.item_word) for context in contexts]
        found = self._ask(asked, MergedTurn, places, seed, _WRITE)
        return [
            Answer(answer.value.reply if answer.value else "", answer.failure, prompt, answer.value)
            for answer, prompt in zip(found, asked, strict=True)
        ]

    def _five(self, contexts: Sequence[TurnContext], places: Sequence[Place], seed: int) -> list[Answer]:
        """The published sequence: select, write, then rate the recommendation, the expression and the action.

        A row that fails is left out of the calls that follow.
        """
        word = self._config.item_word
        parts: list[dict[str, Any]] = [{} for _ in contexts]
        failures: dict[int, str] = {}

        def call(asked: Mapping[int, list[Message]], model: type[BaseModel], purpose: int) -> None:
            found = self._ask(list(asked.values()), model, [places[i] for i in asked], seed, purpose)
            for i, answer in zip(asked, found, strict=True):
                if answer.value is None:
                    failures[i] = answer.failure or "no answer"
                else:
                    parts[i].update(answer.value.model_dump())

        def going() -> list[int]:
            return [i for i in range(len(contexts)) if i not in failures]

        call({i: prompts.selector_prompt(contexts[i], word) for i in going()}, IntentChoice, _SELECT)
        written = {i: prompts.writer_prompt(contexts[i], Intent(parts[i]["intent"]), word) for i in going()}
        call(written, WrittenReply, _WRITE)
        fit = {i: prompts.recommendation_prompt(contexts[i], word) for i in going()}
        call(fit, RecommendationRating, _RECOMMEND)
        wording = {i: prompts.expression_prompt(contexts[i], word) for i in going()}
        call(wording, ExpressionRating, _EXPRESS)
        moves = {i: prompts.action_prompt(contexts[i], parts[i]["reply"], word) for i in going()}
        call(moves, ActionRating, _ACT)
        return [
            Answer("", failures[i], written.get(i, []))
            if i in failures
            else Answer(part["reply"], None, written[i], MergedTurn.model_validate(part))
            for i, part in enumerate(parts)
        ]

    def _ask(
        self,
        asked: Sequence[Sequence[Message]],
        model: type[T],
        places: Sequence[Place],
        seed: int,
        purpose: int,
    ) -> list[Parsed[T]]:
        return complete_json(
            self._chat,
            asked,
            model,
            seeds=place_seeds(seed, places, purpose),
            attempts=self._config.attempts,
            max_new_tokens=self._config.max_new_tokens,
            temperature=self._config.temperature,
        )


def _text(answer: Parsed[PlainReply] | Parsed[WrittenReply]) -> tuple[str, str | None]:
    return (answer.value.reply if answer.value else ""), answer.failure
