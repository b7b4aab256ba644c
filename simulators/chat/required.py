"""An endpoint that work depends on: where it stops answering, the work stops, to be gone on with later."""

from collections.abc import Callable, Collection, Sequence
from typing import Unpack

from simulators.chat.endpoint import EndpointChat
from simulators.chat.model import AskSettings, Completion, Message
from simulators.errors import EndpointError

_AGAIN = "start again (`persona train` with --resume)"


class RequiredChat:
    """Passes everything on to an endpoint, and ends the call where asking further would only collect failures.

    That is where its budget is spent, where it never answered anything, and where so many answers failed one after the
    other that it gives up. A failure among answers is passed on: it costs its own dialogue and no other. Put a
    `CachedChat` around it, which keeps what arrived before the end.

    Args:
        inner: The endpoint.
        give_up_after: Failures one after the other, over all calls, that end a call.
    """

    slots: frozenset[str] = frozenset()
    """An endpoint copies facts itself."""

    def __init__(self, inner: EndpointChat, *, give_up_after: int = 50) -> None:
        self._inner = inner
        self._name = inner.identity
        self._give_up_after = give_up_after
        self._has_answered = False
        self._failures: list[str] = []

    @property
    def identity(self) -> str:
        """The endpoint's."""
        return self._inner.identity

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
            EndpointError: As the class says.
        """
        return self.complete_each(conversations, seeds=seeds, **settings)

    def complete_each(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        arrived: Callable[[int, Completion], None] | None = None,
        **settings: Unpack[AskSettings],
    ) -> list[Completion]:
        """See `ArrivingChat.complete_each`; what arrived is told before a call ends.

        Raises:
            EndpointError: As the class says.
        """

        def tell(row: int, completion: Completion) -> None:
            if completion.failure is None:
                self._has_answered = True
                self._failures.clear()
            else:
                self._failures.append(completion.failure)
            if arrived:
                arrived(row, completion)

        found = self._inner.complete_each(conversations, seeds=seeds, arrived=tell, **settings)
        if any(completion.failure for completion in found) and (spent := self._inner.exhausted):
            raise EndpointError(f"{self._name}: {spent}. What was answered is kept: {_AGAIN} to go on.")
        is_silent = self._failures and not self._has_answered
        if is_silent or len(self._failures) >= self._give_up_after:
            raise EndpointError(
                f"the endpoint of {self._name} must answer; its last {len(self._failures)} answers failed, the first "
                f"of them because {self._failures[0]}. What was answered is kept: {_AGAIN} when it answers."
            )
        return found
