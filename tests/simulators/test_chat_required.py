"""An endpoint that work depends on: lone failures pass, silence and a spent budget end the call, answers are kept."""

from pathlib import Path

import pytest

from simulators.chat.cache import ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import Message
from simulators.chat.required import RequiredChat
from simulators.errors import EndpointError
from tests.helpers.faulty_server import FaultyServer


def rows(count: int, start: int = 0) -> list[list[Message]]:
    return [[{"role": "system", "content": f"You want: film {n}"}] for n in range(start, start + count)]


def required(server: FaultyServer, **settings: object) -> RequiredChat:
    given = {"base_url": server.url, "model": "m", "attempts": 1, "concurrency": 1, **settings}
    return RequiredChat(EndpointChat(EndpointSettings.model_validate(given)), give_up_after=4)


FAILS = (500, '{"error": {"message": "boom"}}')


def test_lone_failures_are_passed_on() -> None:
    with FaultyServer(script=[None, FAILS, None, *[FAILS] * 3]) as server:
        chat = required(server)
        found = chat.complete(rows(3), seeds=range(3), banned=[()] * 3)
        assert [row.failure is None for row in found] == [True, False, True]
        assert all(row.failure for row in chat.complete(rows(3, 3), seeds=range(3)))


def test_failures_one_after_the_other_end_a_later_call() -> None:
    with FaultyServer(script=[None, *[FAILS] * 4]) as server:
        chat = required(server)
        chat.complete(rows(3), seeds=range(3))
        with pytest.raises(
            EndpointError, match=r"its last 4 answers failed, the first of them because .*boom"
        ):
            chat.complete(rows(2, 3), seeds=range(2))


def test_an_endpoint_that_never_answered_ends_the_first_call() -> None:
    with (
        FaultyServer(script=[FAILS]) as server,
        pytest.raises(EndpointError, match="its last 1 answers failed"),
    ):
        required(server).complete(rows(1), seeds=[0])


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_spent_budget_ends_the_call_and_keeps_what_was_paid(tmp_path: Path, concurrency: int) -> None:
    with FaultyServer() as server, ResponseCache(tmp_path / "answers.sqlite") as cache:
        short = required(server, max_requests=3, concurrency=concurrency)
        with pytest.raises(
            EndpointError, match=r"the budget of 3 requests is spent; raise `max_requests`\. What"
        ):
            CachedChat(short, cache).complete(rows(5), seeds=range(5))
        assert cache.totals().answers == 3
        found = CachedChat(required(server, max_requests=3), cache).complete(rows(5), seeds=range(5))
        assert all(row.failure is None for row in found) and server.counts()["requests"] == 5


def test_a_budget_that_is_just_enough_ends_nothing() -> None:
    with FaultyServer() as server:
        assert len(required(server, max_requests=3).complete(rows(3), seeds=range(3))) == 3
