"""What an endpoint's response means: an answer, a reason to try again, the end of one row or the end of the call."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple

_TRY_AGAIN = frozenset({408, 409, 425, 429})
_END_OF_CALL = {
    401: "it takes no such key; check the variable that `api_key_variable`, `key_variable` in commands, names",
    402: "the account must be paid for",
    404: "it has no such model or no such path; check `model` and `base_url`",
}
_MAY_MIND_THE_SCHEMA = frozenset({400, 422, 501})
_SHOWN = 200
_MOST_TOKENS = 2**40  # A larger count is no count, and would not fit the file of answers.


class Kind(StrEnum):
    """What to do about a response."""

    ANSWER = "answer"
    TRY_AGAIN = "try_again"
    END_OF_ROW = "end_of_row"
    REQUEST_REFUSED = "request_refused"
    END_OF_CALL = "end_of_call"


class Outcome(NamedTuple):
    """What one request came to.

    kind: What to do about it. A refused request ends its row too, unless it can be put in another way.
    text: The answer, or the reason why there is none, in a few words.
    wait_s: Seconds that the server asks to wait for, or None.
    prompt_tokens: Tokens read, 0 where the server does not say.
    completion_tokens: Tokens written, likewise.
    """

    kind: Kind
    text: str
    wait_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_answer(body: bytes) -> Outcome:
    """The answer in the body of a successful response of `/chat/completions`.

    A body that cannot be read, or lacks what it must hold, is a reason to try again: proxies and overloaded servers
    give such bodies. A model that declined, or used up its tokens before it said anything, would do so again.
    """
    try:
        response = json.loads(body)
    except (ValueError, RecursionError) as error:
        return Outcome(Kind.TRY_AGAIN, f"its response is no JSON ({error})")
    try:
        choice = response["choices"][0]
        message, end = choice["message"], choice.get("finish_reason")
        content, declined = message.get("content"), message.get("refusal")
    except (LookupError, TypeError, AttributeError):
        return Outcome(Kind.TRY_AGAIN, f"its response holds no message ({_message(response)})")
    read, written = _tokens(response)
    if declined or end == "content_filter":
        return Outcome(
            Kind.END_OF_ROW, f"the model declined ({_storable(str(declined or end))})", None, read, written
        )
    if not content and end == "length":
        reason = "the model used up `max_new_tokens` before it said anything"
        return Outcome(Kind.END_OF_ROW, reason, None, read, written)
    if not isinstance(content, str):
        return Outcome(Kind.TRY_AGAIN, "its response holds no text", None, read, written)
    return Outcome(Kind.ANSWER, _storable(content), None, read, written)


def read_refusal(
    status: int, headers: Mapping[str, str], body: str, *, now: datetime | None = None
) -> Outcome:
    """What to do about a response that is no success.

    Args:
        status: HTTP status, 300 or above.
        headers: Of the response; names are looked up in lower case.
        body: Of the response.
        now: Time to count a date in `Retry-After` from; None for the clock's.
    """
    said = _message(body)
    reason = f"it answered {status} ({said})" if said else f"it answered {status}"
    if status == 429 and "insufficient_quota" in body:
        return Outcome(Kind.END_OF_CALL, f"{reason}: the account must be paid for")
    if status in _END_OF_CALL:
        return Outcome(Kind.END_OF_CALL, f"{reason}: {_END_OF_CALL[status]}")
    if status in _MAY_MIND_THE_SCHEMA:
        return Outcome(Kind.REQUEST_REFUSED, reason)
    if status in _TRY_AGAIN or status >= 500:
        return Outcome(Kind.TRY_AGAIN, reason, wait_told(headers, now or datetime.now(UTC)))
    return Outcome(Kind.END_OF_ROW, reason)


def wait_told(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for, written as a number or as a date; None where it says nothing usable."""
    told = headers.get("retry-after", "").strip()
    try:
        wait = float(told)
    except ValueError:
        try:
            date = parsedate_to_datetime(told)
        except ValueError:
            return None
        wait = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return max(wait, 0.0) if math.isfinite(wait) else None


def _tokens(response: Mapping[str, Any]) -> tuple[int, int]:
    usage = response.get("usage")
    counts = [
        usage.get(name) if isinstance(usage, dict) else None
        for name in ("prompt_tokens", "completion_tokens")
    ]
    read, written = (count if isinstance(count, int) and 0 < count < _MOST_TOKENS else 0 for count in counts)
    return int(read), int(written)


def _storable(text: str) -> str:
    """The text with a mark for each half of a pair of surrogates, such as the limit of tokens may cut in two."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _message(body: object) -> str:
    """What the server says went wrong, in one line; the start of the body where it is in no known form."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return _storable(" ".join(str(body).split())[:_SHOWN])
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return _storable(" ".join(str(body).split())[:_SHOWN])
