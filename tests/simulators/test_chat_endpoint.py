"""An endpoint that fails in every way: each row is answered or says why not, and the key stays secret."""

import asyncio
import json
import logging
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from simulators.chat.cache import CacheTotals, ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import ArrivingChat, Completion, Message
from simulators.chat.structured import complete_json
from simulators.errors import ChatError, EndpointError, MissingDependency
from tests.helpers.faulty_server import Fault, FaultyServer, Request

KEY = "sk-very-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}}


class Waits:
    """Waits for nothing, and remembers how long it would have waited."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def rows(count: int) -> list[list[Message]]:
    return [
        [{"role": "system", "content": f"You want: film {i}"}, {"role": "user", "content": "Go."}]
        for i in range(count)
    ]


def endpoint(server: FaultyServer, *, waits: Waits | None = None, **settings: Any) -> EndpointChat:
    given = {"base_url": server.url, "model": "m", "timeout_s": 20, **settings}
    return EndpointChat(EndpointSettings.model_validate(given), sleep=waits or Waits())


def echo(request: Request) -> str:
    return f"{request['messages'][0]['content']} {request['seed']}"


def echoed(seeds: Sequence[int]) -> list[str]:
    return [f"You want: film {row} {seed}" for row, seed in enumerate(seeds)]


def test_every_row_is_answered_and_the_settings_arrive() -> None:
    with FaultyServer(echo) as server:
        chat = endpoint(server, extra_body={"top_p": 0.9})
        found = chat.complete(rows(20), seeds=range(20), max_new_tokens=9, temperature=0.5)
        again = chat.complete(rows(1), seeds=[2**62 + 5])
    assert [row.text for row in found] == echoed(range(20))
    assert again[0].text == "You want: film 0 5"  # The lowest 31 bits, which every server can take.
    assert found[3] == Completion("You want: film 3 3", None, 5, 5)
    sent = next(body for body in server.bodies if body["seed"] == 3)
    assert sent == {
        "model": "m",
        "messages": rows(4)[3],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "top_p": 0.9,
    }
    assert chat.spent == (21, 105, 105)
    assert chat.slots == frozenset() and isinstance(chat, ArrivingChat)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in {Fault.STALL, Fault.DRIP}])
def test_each_transient_fault_is_tried_again_with_growing_waits(fault: Fault) -> None:
    waits = Waits()
    with FaultyServer(echo, script=[fault] * 3) as server:
        chat = endpoint(server, waits=waits, first_wait_s=1, longest_wait_s=3)
        assert chat.complete(rows(1), seeds=[7])[0].text == "You want: film 0 7"
    assert server.counts()["faults"] == {fault: 3} and chat.spent.requests == 4
    assert all(longest / 2 <= wait <= longest for longest, wait in zip([1, 2, 3], waits.seconds, strict=True))


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.DRIP])
def test_a_response_that_takes_too_long_as_a_whole_is_tried_again(fault: Fault) -> None:
    with FaultyServer(echo, script=[fault]) as server:
        chat = endpoint(server, timeout_s=0.5)
        assert chat.complete(rows(1), seeds=[7])[0].text == "You want: film 0 7"
    assert server.counts()["faults"] == {fault: 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.DROP, r"the connection failed \(RemoteProtocolError: Server disconnected"),
        (Fault.TRUNCATED, r"the connection failed \(RemoteProtocolError: peer closed"),
        (Fault.ERROR, r"it answered 500 \(boom\)"),
        (Fault.BROKEN_JSON, r"its response is no JSON"),
        (Fault.NO_CHOICES, r"its response holds no message"),
        (Fault.RATE_LIMIT, r"it answered 429 \(slow down\)"),
        (Fault.STALL, r"it did not answer within 0.3 s"),
    ],
)
def test_a_row_that_never_works_fails_with_its_last_reason_and_costs_others_nothing(
    fault: Fault, reason: str
) -> None:
    with FaultyServer(echo, chances={fault: 1.0}, longest_run=100) as server:
        chat = endpoint(server, attempts=2, timeout_s=0.3 if fault is Fault.STALL else 20)
        failed = chat.complete(rows(1), seeds=[7])[0]
        server.chances = {}
        alive = chat.complete(rows(1), seeds=[7])[0]
    assert failed.text == "" and failed.failure is not None
    assert re.match(f"2 attempts failed, the last because {reason}", failed.failure)
    assert alive.failure is None


def test_retry_after_is_honoured_and_too_long_a_wait_ends_the_row() -> None:
    waits = Waits()
    with FaultyServer(echo, script=[Fault.RATE_LIMIT], retry_after="17") as server:
        chat = endpoint(server, waits=waits, longest_wait_s=20)
        assert chat.complete(rows(1), seeds=[7])[0].failure is None
        server.script = [Fault.RATE_LIMIT]
        server.retry_after = "21"
        found = chat.complete(rows(1), seeds=[7])[0]
    assert waits.seconds == [17.0]
    assert found.failure == "it answered 429 (slow down), and asks to wait longer than `longest_wait_s`"


def test_waits_are_the_same_for_the_same_seed_and_differ_between_rows() -> None:
    waits = [Waits(), Waits(), Waits()]
    for wait, seed in zip(waits, [7, 7, 8], strict=True):
        with FaultyServer(echo, script=[Fault.ERROR] * 2) as server:
            endpoint(server, waits=wait).complete(rows(1), seeds=[seed])
    assert waits[0].seconds == waits[1].seconds != waits[2].seconds


def test_no_more_requests_are_under_way_than_allowed() -> None:
    with FaultyServer(echo) as server:
        endpoint(server, concurrency=3).complete(rows(30), seeds=range(30))
        assert 1 <= server.most_under_way <= 3


def test_the_rest_fails_when_a_budget_is_spent() -> None:
    with FaultyServer(echo) as server:
        few = endpoint(server, max_requests=5, concurrency=2)
        found = few.complete(rows(8), seeds=range(8))
        short = endpoint(server, max_tokens=25, concurrency=1).complete(rows(5), seeds=range(5))
    assert [row.failure for row in found].count(None) == 5
    told = "the budget of 5 requests is spent; raise `max_requests`"
    assert {row.failure for row in found} == {None, told} and few.spent.requests == 5
    assert [row.failure for row in short[:3]] == [None] * 3
    assert {row.failure for row in short[3:]} == {
        "the budget of 25 tokens is spent (30 used); raise `max_tokens`"
    }


def test_tries_that_fail_count_against_the_budget() -> None:
    with FaultyServer(echo, script=[Fault.ERROR] * 9) as server:
        found = endpoint(server, max_requests=3).complete(rows(1), seeds=[0])
    assert found[0].failure == "the budget of 3 requests is spent; raise `max_requests`"
    assert server.counts()["requests"] == 3


def test_a_dead_endpoint_is_given_up_not_asked_for_hours() -> None:
    with FaultyServer(echo) as server:
        url = server.url
    settings = EndpointSettings(base_url=url, model="m", attempts=2, concurrency=2, give_up_after=3)
    chat = EndpointChat(settings, sleep=Waits())
    found = chat.complete(rows(50), seeds=range(50))
    assert 6 <= chat.spent.requests <= 8
    assert (found[0].failure or "").startswith("2 attempts failed, the last because the connection failed")
    told = "not asked: 3 rows failed one after the other, one because 2 attempts failed, the last because"
    assert found[-1].failure is not None and found[-1].failure.startswith(told)


def test_a_model_that_is_not_there_is_an_error_of_the_call() -> None:
    with FaultyServer(echo, model="other") as server, pytest.raises(EndpointError) as caught:
        endpoint(server).complete(rows(40), seeds=range(40))
    assert "must answer; it answered 404 (no model m): it has no such model or no such path" in str(
        caught.value
    )


def test_nothing_of_the_environment_is_sent_but_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORG_ID", "PROJECT_ID", "API_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", f"private-{name.lower()}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: private-custom")
    with FaultyServer(echo) as server:
        assert endpoint(server).complete(rows(1), seeds=[0])[0].failure is None
    assert server.headers and "private" not in str(server.headers)


@pytest.mark.parametrize("status", [400, 500])
def test_a_key_is_hidden_before_what_the_server_says_is_cut(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    for body in (f"{'x' * 190} {KEY}", json.dumps({"error": f"{'x' * 190} {KEY}"})):
        with FaultyServer(echo, script=[(status, body)]) as server:
            chat = endpoint(server, attempts=1, api_key_variable="TEST_KEY")
            failure = chat.complete(rows(1), seeds=[0])[0].failure
        assert failure is not None and KEY[:6] not in failure


def test_a_request_that_is_refused_ends_its_row_without_another_try() -> None:
    with FaultyServer(echo, script=[(400, '{"error": {"message": "too long"}}')]) as server:
        chat = endpoint(server, concurrency=1)
        found = chat.complete(rows(2), seeds=[0, 1])
    assert [row.failure for row in found] == ["it answered 400 (too long)", None]
    assert chat.spent.requests == 2


def test_a_schema_is_sent_and_left_out_for_good_where_it_is_refused() -> None:
    with FaultyServer(echo) as server:
        endpoint(server).complete(rows(1), seeds=[0], schema=SCHEMA)
    form = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert server.bodies[0]["response_format"] == {"type": "json_schema", "json_schema": form}

    with FaultyServer(echo, refuses_schema=True) as server:
        chat = endpoint(server, concurrency=1)
        with pytest.warns(
            UserWarning, match="refuses a JSON schema: answers are not held to it, only checked"
        ):
            found = chat.complete(rows(3), seeds=range(3), schema=SCHEMA)
        assert [row.failure for row in found] == [None] * 3
        assert chat.spent.requests == 4
        chat.complete(rows(3), seeds=range(3), schema=SCHEMA)
        assert chat.spent.requests == 7
    assert not any("response_format" in body for body in server.bodies)


def test_rows_under_way_when_a_schema_turns_out_to_be_refused_are_asked_without_it() -> None:
    with FaultyServer(echo, refuses_schema=True) as server, pytest.warns(UserWarning, match="JSON schema"):
        found = endpoint(server, concurrency=4).complete(rows(4), seeds=range(4), schema=SCHEMA)
    assert [row.text for row in found] == echoed(range(4))


def test_a_schema_that_was_taken_is_kept_when_a_row_is_refused() -> None:
    with FaultyServer(echo) as server:
        chat = endpoint(server, concurrency=1)
        chat.complete(rows(1), seeds=[0], schema=SCHEMA)
        server.script = [(400, "too long")]
        assert chat.complete(rows(1), seeds=[1], schema=SCHEMA)[0].failure == "it answered 400 (too long)"
        chat.complete(rows(1), seeds=[2], schema=SCHEMA)
    assert ["response_format" in body for body in server.bodies] == [True] * 3


def test_a_row_that_is_refused_with_and_without_a_schema_says_nothing_of_the_schema() -> None:
    with FaultyServer(echo, script=[(400, "too long")] * 2) as server:
        chat = endpoint(server, concurrency=1)
        assert chat.complete(rows(1), seeds=[1], schema=SCHEMA)[0].failure == "it answered 400 (too long)"
        chat.complete(rows(1), seeds=[2], schema=SCHEMA)
    assert ["response_format" in body for body in server.bodies] == [True, False, True]


def test_the_key_is_read_from_its_variable_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    with FaultyServer(echo, key=KEY) as server, ResponseCache(tmp_path / "kept.sqlite") as cache:
        chat = endpoint(server, api_key_variable="SOME_KEY")
        assert CachedChat(chat, cache).complete(rows(1), seeds=[0])[0].failure is None
        monkeypatch.setenv("SOME_KEY", KEY + "-wrong")
        with pytest.raises(EndpointError) as caught:
            chat.complete(rows(3), seeds=range(3))
    shown = "".join(traceback.format_exception(caught.value))
    assert "it answered 401 (Incorrect API key provided: Bearer ***): it takes no such key" in shown
    texts = [shown, caplog.text, repr(chat), repr(vars(chat)), repr(chat._settings), chat.identity]
    assert not [text for text in texts if KEY in text]
    assert not [file for file in tmp_path.iterdir() if KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("value", "told"), [(None, "is not set"), ("  ", "is not set"), ("a\nb", "holds unprintable characters")]
)
def test_a_key_that_cannot_be_used_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, value: str | None, told: str
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with FaultyServer(echo) as server:
        with pytest.raises(
            EndpointError, match=rf"variable `SOME_KEY` must hold the key of http\S+; it {told}"
        ):
            endpoint(server, api_key_variable="SOME_KEY").complete(rows(1), seeds=[0])
        assert server.counts()["requests"] == 0


def test_a_server_without_keys_is_not_told_the_key_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultyServer(echo, key="none") as server:
        assert endpoint(server).complete(rows(1), seeds=[0])[0].failure is None


def test_progress_is_told_row_by_row() -> None:
    told: list[tuple[int, int]] = []
    with FaultyServer(echo) as server:
        settings = EndpointSettings(base_url=server.url, model="m")
        EndpointChat(settings, progress=lambda done, of: told.append((done, of))).complete(
            rows(4), seeds=range(4)
        )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_it_works_inside_a_running_event_loop() -> None:
    async def inside(chat: EndpointChat) -> list[Completion]:
        return chat.complete(rows(3), seeds=range(3))

    with FaultyServer(echo) as server:
        found = asyncio.run(inside(endpoint(server)))
    assert [row.text for row in found] == echoed(range(3))


def test_answers_are_kept_as_they_arrive_and_only_the_rest_is_asked_again(tmp_path: Path) -> None:
    class Killed(BaseException):
        """Ends everything, as a signal would."""

    def stop(done: int, of: int) -> None:
        if done == 5:
            raise Killed

    with FaultyServer(echo) as server, ResponseCache(tmp_path / "kept.sqlite") as cache:
        settings = EndpointSettings(base_url=server.url, model="m", concurrency=1)
        with pytest.raises(Killed):
            CachedChat(EndpointChat(settings, progress=stop), cache).complete(rows(12), seeds=range(12))
        assert cache.totals() == CacheTotals(5, 25, 25)
        found = CachedChat(EndpointChat(settings), cache).complete(rows(12), seeds=range(12))
    assert [row.text for row in found] == echoed(range(12))
    assert server.counts()["answered"] == 12 and server.counts()["answered_again"] == 0


def test_faults_by_chance_lose_no_row_and_hopeless_rows_say_so() -> None:
    chances: dict[Fault, float] = {fault: 0.1 for fault in Fault if fault not in {Fault.STALL, Fault.DRIP}}
    with FaultyServer(echo, seed=3, chances=chances, hopeless=0.1) as server:
        found = endpoint(server).complete(rows(40), seeds=range(40))
        again = endpoint(server).complete(rows(40), seeds=range(40))
    assert found == again
    failures = [row.failure for row in found if row.failure]
    assert 1 <= len(failures) <= 12
    assert set(failures) == {"6 attempts failed, the last because it answered 500 (this one never works)"}
    expected = echoed(range(40))
    assert all(row.failure or row.text == said for row, said in zip(found, expected, strict=True))


def test_checked_values_come_through_an_endpoint_without_schemas() -> None:
    class Rating(BaseModel):
        score: int

    def answer(request: Request) -> str:
        good = "cannot be used" in request["messages"][-1]["content"] or request["seed"] % 2
        return json.dumps({"score": request["seed"] % 5}) if good else "I would say four"

    with FaultyServer(answer, refuses_schema=True) as server, pytest.warns(UserWarning, match="JSON schema"):
        found = complete_json(endpoint(server), rows(10), Rating, seeds=range(10))
    assert [row.attempts for row in found] == [2, 1] * 5
    assert all(row.value is not None and row.failure is None for row in found)
    assert [row.prompt_tokens for row in found[1::2]] == [5] * 5
    assert all(row.prompt_tokens > 10 for row in found[::2])


def test_no_rows_ask_nothing_and_seeds_must_fit() -> None:
    chat = EndpointChat(EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m"))
    assert chat.complete([], seeds=[]) == [] and chat.spent.requests == 0
    with pytest.raises(ChatError, match="`seeds` must hold one seed a row; got 1 for 2"):
        chat.complete(rows(2), seeds=[1])


def test_the_identity_names_what_changes_answers() -> None:
    def identity(**settings: Any) -> str:
        base = {"base_url": "http://127.0.0.1:1/v1", "model": "m", **settings}
        return EndpointChat(EndpointSettings.model_validate(base)).identity

    assert identity() == identity(base_url="https://elsewhere/v1", timeout_s=1) == "m"
    assert identity(extra_body={"b": 1, "a": 2}) == identity(extra_body={"a": 2, "b": 1}) != identity()
    assert identity(model="n") == "n"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"base_url": "127.0.0.1:8000"}, "must be an http or https URL such as .*; got '127.0.0.1:8000'"),
        ({"base_url": "http://me:secret@host/v1"}, "must hold no user and password"),
        ({"base_url": "http://me:secret/v1"}, r"with a port in 1..65535"),
        ({"base_url": "http://host/v1?key=secret"}, r"must end with its path"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, r"with a port in 1..65535"),
        ({"base_url": "http://[::1]:0/v1"}, r"with a port in 1..65535"),
        ({"base_url": "http://127.0.0.1/v1\n"}, "must be printable"),
        (
            {"extra_body": {"seed": 1, "top_p": 1, "model": "x"}},
            "setting or argument of its own; got model, seed",
        ),
        ({"timeout": 3}, "Extra inputs are not permitted"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        EndpointSettings.model_validate({"base_url": "http://127.0.0.1/v1", "model": "m", **settings})
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_told_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(
        MissingDependency, match=r"`openai` must be installed for asking an endpoint; .*persona\[llm\]"
    ):
        EndpointChat(EndpointSettings(base_url="http://127.0.0.1/v1", model="m"))


@pytest.mark.parametrize(
    "url", ["http://[::1]:8000/v1", "http://[::1]/v1", "https://host:443", "http://host"]
)
def test_addresses_with_and_without_a_port_are_taken(url: str) -> None:
    assert EndpointSettings(base_url=url, model="m").base_url == url
