"""The interface through which simulated users speak: a local model, or a scripted one for tests and demos."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import torch

from persona.policy.language_model import LanguageModel
from persona.policy.sampling import Sampling, sample_tokens

Message = Mapping[str, str]


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
    ) -> list[str]:
        """The next message of every conversation, as generated.

        Args:
            conversations: B lists of messages with `role` and `content`.
            seeds: One seed a row; the same seed and conversation give the same text.
            max_new_tokens: Longest completion, in tokens.
            temperature: 0 for the likeliest words.
            banned: For each row, slots that must not be written.
        """
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
    ) -> list[str]:
        """See `ChatModel.complete`."""
        model = self._model
        with torch.inference_mode(), model.precision():
            tokens = sample_tokens(
                model.model,
                [model.encode(conversation, reserve=max_new_tokens) for conversation in conversations],
                Sampling(max_new_tokens, temperature),
                seeds=seeds,
                stop_tokens=sorted(model.stop_tokens),
                banned=None if banned is None else [model.slot_tokens(sorted(names)) for names in banned],
            )
        return [model.decode(row) for row in tokens]


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
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
    ) -> list[str]:
        """See `ChatModel.complete`; only the conversation matters."""
        return [self._answer(conversation) for conversation in conversations]
