"""The chat models that a simulation or a training names, opened when asked for and shared by all who name them."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from app.chat_config import LOCAL, ChatFields, split_endpoint
from app.manifest import hash_files
from app.pipeline.context import RunContext
from persona.policy.language_model import load_language_model
from simulators.chat.budget import Spent
from simulators.chat.cache import ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import ChatModel, LocalChat
from simulators.chat.required import RequiredChat

ANSWERS = "answers.sqlite"
"""Name of the file, in the folder of the work, that keeps what endpoints answered."""


class Chats:
    """Chat models by name; a context manager that closes the file of answers.

    Args:
        config: How endpoints are asked.
        run: Whose base model is "local".
        out: Folder of the work.
    """

    def __init__(self, config: ChatFields, run: RunContext, out: Path) -> None:
        self._config = config
        self._run = run
        self._answers = Path(config.answers) if config.answers else out / ANSWERS
        self._cache: ResponseCache | None = None
        self._open: dict[str, ChatModel] = {}
        self._endpoints: dict[str, EndpointChat] = {}

    def __enter__(self) -> Self:
        """The chat models themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file of answers."""
        if self._cache is not None:
            self._cache.close()

    def of(self, name: str) -> ChatModel:
        """The chat model of a name as `app.chat_config.ChatName` has it.

        Raises:
            MissingDependency: It is an endpoint, and the package that asks one is not installed.
            CacheError: It is an endpoint, and its answers cannot be kept where they should.
            ModelError: It is neither a folder nor an id of a language model.
        """
        if name not in self._open:
            self._open[name] = self._make(name)
        return self._open[name]

    @property
    def spent(self) -> dict[str, Spent]:
        """What each endpoint was asked and how much it read and wrote, by its name."""
        return {name: chat.spent for name, chat in self._endpoints.items()}

    def _make(self, name: str) -> ChatModel:
        if name == LOCAL:
            return self._run.chat
        parts = split_endpoint(name)
        if parts is None:
            return LocalChat(load_language_model(name, device=self._run.config.device))
        config = self._config
        settings = EndpointSettings(
            model=parts[0],
            base_url=parts[1],
            api_key_variable=config.key_variable_of(parts[1]),
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
            attempts=config.tries,
            max_requests=config.max_requests,
            max_tokens=config.max_tokens,
        )
        endpoint = EndpointChat(settings)
        self._endpoints[name] = endpoint
        self._cache = self._cache or ResponseCache(self._answers)
        return CachedChat(RequiredChat(endpoint, give_up_after=settings.give_up_after), self._cache)


def hash_chats(*names: str) -> dict[str, str]:
    """SHA-256 of the files of those chat models that are folders."""
    # Unlike Path.is_dir, this takes names too long for a file.
    folders = {Path(name) for name in names if name != LOCAL and os.path.isdir(name)}
    return {f"{folder}/{name}": h for folder in sorted(folders) for name, h in hash_files(folder).items()}
