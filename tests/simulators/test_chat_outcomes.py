"""What a response means: held to hand-written bodies, statuses and headers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from simulators.chat.outcomes import Kind, Outcome, read_answer, read_refusal, wait_told

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def body(message: object, finish: str | None = "stop", **more: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}).encode()


def test_an_answer_is_read_with_its_tokens() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    assert read_answer(body({"content": "Hi \u2603"}, usage=usage)) == Outcome(
        Kind.ANSWER, "Hi \u2603", None, 9, 4
    )
    assert read_answer(body({"content": ""})) == Outcome(Kind.ANSWER, "", None, 0, 0)
    assert read_answer(body({"content": "cut o"}, "length")).kind is Kind.ANSWER


@pytest.mark.parametrize(
    "usage", [None, [], "many", {"prompt_tokens": None}, {"prompt_tokens": -3}, {"prompt_tokens": 10**30}]
)
def test_tokens_that_the_server_does_not_tell_are_zero(usage: object) -> None:
    assert read_answer(body({"content": "Hi"}, usage=usage)) == Outcome(Kind.ANSWER, "Hi")


def test_half_a_character_becomes_a_mark_that_can_be_stored() -> None:
    cut = b'{"choices": [{"message": {"content": "so \\ud83d"}}]}'
    assert read_answer(cut).text == "so ?"
    declined = b'{"choices": [{"message": {"content": null, "refusal": "no \\ud83d"}}]}'
    assert read_answer(declined).text == "the model declined (no ?)"
    assert read_refusal(403, {}, '{"error": "no \\ud83d"}').text == "it answered 403 (no ?)"


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (b"", "no JSON"),
        (b'{"choices": [{"mess', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"<html>Bad gateway</html>", "no JSON"),
        (b"[]", "holds no message"),
        (b'{"choices": []}', "holds no message"),
        (b'{"choices": null}', "holds no message"),
        (b'{"choices": [{"message": null}]}', "holds no message"),
        (b'{"choices": [{"message": "Hi"}]}', "holds no message"),
        (b'{"error": {"message": "overloaded\\n now"}}', "holds no message (overloaded now)"),
        (body({"content": None}), "holds no text"),
        (body({}), "holds no text"),
        (body({"content": [{"text": "Hi"}]}), "holds no text"),
    ],
)
def test_what_cannot_be_read_is_tried_again(received: bytes, reason: str) -> None:
    outcome = read_answer(received)
    assert outcome.kind is Kind.TRY_AGAIN and reason in outcome.text


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (body({"content": None, "refusal": "I must not"}), "the model declined (I must not)"),
        (body({"content": "Well"}, "content_filter"), "the model declined (content_filter)"),
        (body({"content": ""}, "length"), "used up `max_new_tokens` before it said anything"),
        (body({"content": None}, "length"), "used up `max_new_tokens` before it said anything"),
    ],
)
def test_what_would_come_again_ends_the_row(received: bytes, reason: str) -> None:
    outcome = read_answer(received)
    assert outcome.kind is Kind.END_OF_ROW and reason in outcome.text


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, Kind.TRY_AGAIN) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)],
        *[(status, Kind.REQUEST_REFUSED) for status in (400, 422, 501)],
        *[(status, Kind.END_OF_ROW) for status in (403, 413, 302)],
        *[(status, Kind.END_OF_CALL) for status in (401, 402, 404)],
    ],
)
def test_every_status_has_its_kind(status: int, kind: Kind) -> None:
    outcome = read_refusal(status, {}, '{"error": {"message": "because"}}')
    assert outcome.kind is kind
    assert outcome.text.startswith(f"it answered {status} (because)")


def test_a_quota_that_is_used_up_ends_the_call() -> None:
    said = '{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    outcome = read_refusal(429, {"retry-after": "1"}, said)
    assert outcome.kind is Kind.END_OF_CALL and "the account must be paid for" in outcome.text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", "it answered 500"),
        ("Bad\n  gateway", "it answered 500 (Bad gateway)"),
        ('{"message": "down"}', "it answered 500 (down)"),
        ('{"detail": [1]}', "it answered 500 ([1])"),
        ('"down"', "it answered 500 (down)"),
        ("x" * 1000, f"it answered 500 ({'x' * 200})"),
    ],
)
def test_what_the_server_says_is_one_short_line(said: str, shown: str) -> None:
    assert read_refusal(500, {}, said).text == shown


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(told: str, wait: float | None) -> None:
    assert wait_told({"retry-after": told}, NOW) == wait
    assert read_refusal(429, {"retry-after": told}, "", now=NOW).wait_s == wait


def test_without_a_date_of_its_own_the_clock_counts() -> None:
    later = (datetime.now(UTC) + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    wait = read_refusal(503, {"retry-after": later}, "").wait_s
    assert wait is not None and 90 < wait <= 100
