"""What a chat model may cost, in requests and tokens, counted over all threads that use it."""

import threading
from typing import NamedTuple


class Spent(NamedTuple):
    """What was used so far.

    requests: Requests sent, those that failed included.
    prompt_tokens: Tokens read.
    completion_tokens: Tokens written.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Budget:
    """Counts what is used, and says when it is spent.

    Args:
        max_requests: Most requests, or None.
        max_tokens: Most tokens read and written together, or None. They are known only when an answer is there, so
            the requests under way at that moment may exceed it.
    """

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._spent = Spent()
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spent:
        """What was used so far."""
        return self._spent

    @property
    def exhausted(self) -> str | None:
        """Why there must be no more requests; None while there may be."""
        spent = self._spent
        if self._max_requests is not None and spent.requests >= self._max_requests:
            return f"the budget of {self._max_requests} requests is spent; raise `max_requests`"
        tokens = spent.prompt_tokens + spent.completion_tokens
        if self._max_tokens is not None and tokens >= self._max_tokens:
            return f"the budget of {self._max_tokens} tokens is spent ({tokens} used); raise `max_tokens`"
        return None

    def take_request(self) -> str | None:
        """Count one more request, or say why there must be none."""
        with self._lock:
            refusal = self.exhausted
            if refusal is None:
                self._spent = self._spent._replace(requests=self._spent.requests + 1)
            return refusal

    def count_tokens(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of one response."""
        with self._lock:
            self._spent = self._spent._replace(
                prompt_tokens=self._spent.prompt_tokens + prompt_tokens,
                completion_tokens=self._spent.completion_tokens + completion_tokens,
            )
