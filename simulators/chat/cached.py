"""Any chat model with a memory: what was answered once is read from the cache."""

from collections.abc import Callable, Collection, Sequence

from simulators.chat.cache import ResponseCache, answer_key
from simulators.chat.model import ArrivingChat, AskSettings, ChatModel, Completion, Message, Schema
from simulators.errors import CacheError


class CachedChat:
    """Any chat model with its answers kept in a cache.

    Failures are not kept: a later call asks for them again. A question that occurs twice in one call is asked once.
    Tokens are 0 for an answer from the cache, since nothing was computed anew.

    Args:
        inner: Answers what the cache does not hold. An `ArrivingChat`, such as an endpoint, has each answer kept as it
            arrives; the answers of any other are kept when its call returns.
        cache: Where the answers are.
        identity: Names what answers, with every setting of it that changes the answers, as part of each key; None
            takes the inner model's own.

    Raises:
        CacheError: `identity` is None and the inner model has none.
    """

    def __init__(self, inner: ChatModel, cache: ResponseCache, *, identity: str | None = None) -> None:
        name = inner.identity if identity is None and isinstance(inner, ArrivingChat) else identity
        if name is None:
            raise CacheError(
                f"answers can only be kept under the name of what gave them; {type(inner).__name__} has none. "
                "Pass `identity`, such as the model's folder and its hash."
            )
        self._identity = name
        self._inner = inner
        self._cache = cache

    @property
    def slots(self) -> frozenset[str]:
        """The inner model's."""
        return self._inner.slots

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
        """See `ChatModel.complete`.

        Raises:
            CacheError: The cache cannot be read or written.
        """
        hidden: Sequence[Collection[str]] = [()] * len(conversations) if banned is None else banned
        settings = AskSettings(max_new_tokens=max_new_tokens, temperature=temperature, schema=schema)
        keys = [
            answer_key(self._identity, messages, seed, banned=slots, **settings)
            for messages, seed, slots in zip(conversations, seeds, hidden, strict=True)
        ]
        found = {key: Completion(kept.text) for key, kept in self._cache.get(keys).items()}
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in found}
        rows = sorted(first.values())
        if not rows:
            return [found[key] for key in keys]
        fresh: dict[bytes, Completion] = {}

        def keep(place: int, answer: Completion) -> None:
            key = keys[rows[place]]
            kept = answer if answer.failure else self._cache.put(key, answer)
            fresh[key] = answer._replace(text=kept.text)

        self._ask(
            [conversations[row] for row in rows],
            [seeds[row] for row in rows],
            None if banned is None else [banned[row] for row in rows],
            settings,
            keep,
        )
        found |= {key: answer._replace(prompt_tokens=0, completion_tokens=0) for key, answer in fresh.items()}
        return [fresh[key] if first.get(key) == row else found[key] for row, key in enumerate(keys)]

    def _ask(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        banned: Sequence[Collection[str]] | None,
        settings: AskSettings,
        keep: Callable[[int, Completion], None],
    ) -> None:
        if isinstance(self._inner, ArrivingChat):
            self._inner.complete_each(conversations, seeds=seeds, arrived=keep, **settings)
            return
        for place, answer in enumerate(
            self._inner.complete(conversations, seeds=seeds, banned=banned, **settings)
        ):
            keep(place, answer)
