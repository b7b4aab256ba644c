"""Chat models behind any OpenAI-compatible endpoint: vLLM, `transformers serve`, a commercial service."""

import asyncio
import json
import os
import warnings
from collections.abc import Awaitable, Callable, Collection, Sequence
from types import ModuleType
from typing import Any, Unpack

from simulators.chat.blocking import wait_for
from simulators.chat.budget import Budget, Spent
from simulators.chat.endpoint_call import EndpointCall
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import AskSettings, Completion, Message, Schema
from simulators.errors import ChatError, EndpointError, MissingDependency

_NO_KEY = "none"


class EndpointChat:
    """Asks an endpoint, many rows at once, and keeps trying where that may help.

    A row is tried again, after a growing wait, when it is turned away for now (429, with `Retry-After` honoured), when
    the server fails (5xx), stalls, drops the connection or sends what cannot be read. It then fails with its last
    reason and costs the others nothing. What no row could get past, such as a refused key or an unknown model, is an
    error of the whole call. A schema that the server refuses is left out, with one warning, and not sent again.

    The same seed and conversation give the same text as far as the server keeps that promise; put a `CachedChat`
    around it for a simulation that can be replayed, and that goes on after a kill without paying twice.

    Args:
        settings: Where and how to ask.
        progress: Called after every row of a call, in a thread of its own, with the number of rows that are done and
            their total.
        sleep: Waits for so many seconds between tries.

    Raises:
        MissingDependency: The `openai` package is not installed.
    """

    slots: frozenset[str] = frozenset()
    """It copies facts itself."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        progress: Callable[[int, int], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sdk = _import_openai()
        self._settings = settings
        self._progress = progress
        self._sleep = sleep
        self._budget = Budget(settings.max_requests, settings.max_tokens)
        self._schemas: dict[str, bool] = {}
        self._warned = False

    @property
    def identity(self) -> str:
        """The model's name with the further fields of its requests; where it is served does not count."""
        extra = self._settings.extra_body
        return (
            f"{self._settings.model} {json.dumps(extra, sort_keys=True)}" if extra else self._settings.model
        )

    @property
    def spent(self) -> Spent:
        """Requests and tokens used so far."""
        return self._budget.spent

    @property
    def exhausted(self) -> str | None:
        """Why it may be asked no more: its budget is spent. None while it may."""
        return self._budget.exhausted

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        banned: Sequence[Collection[str]] | None = None,
        **settings: Unpack[AskSettings],
    ) -> list[Completion]:
        """See `ChatModel.complete`; there are no slots to ban.

        Raises:
            ChatError: There is not one seed a row.
            EndpointError: The variable of the key is not set, or the server refuses everything.
        """
        return self.complete_each(conversations, seeds=seeds, **settings)

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
        """As `complete`, and tells each row to `arrived` as soon as it is done, in a thread other than the caller's.

        What `arrived` raises ends the call.
        """
        if len(conversations) != len(seeds):
            raise ChatError(
                f"`seeds` must hold one seed a row; got {len(seeds)} for {len(conversations)}. Pass as many."
            )
        if not conversations:
            return []
        found: dict[int, Completion] = {}

        def done(row: int, completion: Completion) -> None:
            found[row] = completion
            if arrived:
                arrived(row, completion)
            if self._progress:
                self._progress(len(found), len(conversations))

        key = self._key()

        async def work() -> None:
            async with self._sdk.AsyncOpenAI(
                base_url=self._settings.base_url,
                api_key=key or _NO_KEY,
                max_retries=0,
                timeout=self._settings.timeout_s,
            ) as client:
                _forget_environment(client)
                call = EndpointCall(
                    settings=self._settings,
                    sdk=self._sdk,
                    client=client,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    schema=schema,
                    schemas=self._schemas,
                    budget=self._budget,
                    sleep=self._sleep,
                    hide=lambda text: text.replace(key, "***") if key else text,
                )
                await call.answer_all(conversations, seeds, done)

        wait_for(work())
        self._warn_of_schemas()
        return [found[row] for row in range(len(conversations))]

    def _key(self) -> str | None:
        name = self._settings.api_key_variable
        if name is None:
            return None
        key = os.environ.get(name, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise EndpointError(
                f"the environment variable `{name}` must hold the key of {self._settings.base_url}; it "
                f"{'holds unprintable characters' if key else 'is not set'}. Set it, or leave `api_key_variable` "
                "(`key_variable` in commands) out."
            )
        return key

    def _warn_of_schemas(self) -> None:
        if not self._warned and not all(self._schemas.values()):
            self._warned = True
            warnings.warn(
                f"{self._settings.base_url} refuses a JSON schema: answers are not held to it, only checked",
                stacklevel=4,
            )


def _forget_environment(client: Any) -> None:
    """Drop what the package takes from the environment for its own service, and would send to any server."""
    client.organization = client.project = None
    client._custom_headers = {}


def _import_openai() -> ModuleType:
    try:
        import openai  # noqa: PLC0415 - optional
    except ImportError as err:
        raise MissingDependency(
            "openai", needed_for="asking an endpoint", install="pip install 'persona[llm]'"
        ) from err
    return openai
