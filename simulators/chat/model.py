"""The interface through which simulated users speak: a local model, or a scripted one for tests and demos."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack, runtime_checkable

import torch

from persona.policy.language_model import LanguageModel
from persona.policy.sampling import Sampling, sample_tokens

Message = Mapping[str, str]
Schema = Mapping[str, Any]
"""A JSON schema, as plain values."""


class Completion(NamedTuple):
    """What came back for one conversation.

    text: As generated; empty where nothing came back.
    failure: Why nothing came back, in one sentence; None where something did.
    prompt_tokens: Tokens read, as the model counts them; 0 where it does not say or nothing was computed anew.
    completion_tokens: Tokens written, likewise.
    """

    text: str
    failure: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AskSettings(TypedDict, total=False):
    """How a chat model is asked, as arguments of `ChatModel.complete`, for those who pass them on or do not care."""

    max_new_tokens: int
    temperature: float
    schema: Schema | None


class ChatModel(Protocol):
    """Messages in, one completion a row out."""

    @property
    def slots(self) -> frozenset[str]:
        """Tokens such as `<title>` that the model leaves to be filled; empty for a model that copies facts."""
        ...

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
        schema: Schema | None = None,
    ) -> list[Completion]:
        """The next message of every conversation, as generated.

        A row that fails says why and costs the others nothing.

        Args:
            conversations: B lists of messages with `role` and `content`.
            seeds: One seed a row; the same seed and conversation give the same text.
            max_new_tokens: Longest completion, in tokens.
            temperature: 0 for the likeliest words.
            banned: For each row, slots that must not be written.
            schema: JSON schema that the text should follow, for models that can be held to one; others ignore it, so
                check what comes back.
        """
        ...


@runtime_checkable
class ArrivingChat(ChatModel, Protocol):
    """A chat model whose answers arrive one by one and are worth keeping at once."""

    @property
    def identity(self) -> str:
        """Names what answers, with every setting of it that changes the answers."""
        ...

    def complete_each(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        schema: Schema | None = None,
        arrived: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """As `ChatModel.complete`, and calls `arrived(row, completion)` for each row as soon as it is done."""
        ...


class LocalChat:
    """A Hugging Face model in this process, all rows in one batch."""

    def __init__(self, language_model: LanguageModel) -> None:
        """Speak through the given model."""
        self._model = language_model

    @property
    def slots(self) -> frozenset[str]:
        """The model's slot tokens."""
        return self._model.slots

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
        schema: Schema | None = None,
    ) -> list[Completion]:
        """See `ChatModel.complete`; the model is not held to a schema."""
        model = self._model
        prompts = [model.encode(conversation, reserve=max_new_tokens) for conversation in conversations]
        with torch.inference_mode(), model.precision():
            tokens = sample_tokens(
                model.model,
                prompts,
                Sampling(max_new_tokens, temperature),
                seeds=seeds,
                stop_tokens=sorted(model.stop_tokens),
                banned=None if banned is None else [model.slot_tokens(sorted(names)) for names in banned],
            )
        return [
            Completion(model.decode(row), prompt_tokens=len(prompt), completion_tokens=len(row))
            for prompt, row in zip(prompts, tokens, strict=True)
        ]


class ScriptedChat:
    """Answers by a function of the conversation: a whole simulation runs without any model."""

    def __init__(self, answer: Callable[[Sequence[Message]], str], slots: Collection[str] = ()) -> None:
        """Answer each conversation with `answer(conversation)`."""
        self._answer = answer
        self._slots = frozenset(slots)

    @property
    def slots(self) -> frozenset[str]:
        """The slots given at construction."""
        return self._slots

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        banned: Sequence[Collection[str]] | None = None,
        **settings: Unpack[AskSettings],
    ) -> list[Completion]:
        """See `ChatModel.complete`; only the conversation matters."""
        return [Completion(self._answer(conversation)) for conversation in conversations]
