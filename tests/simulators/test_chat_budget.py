"""Budgets count over threads and say when they are spent; asynchronous work can be waited for anywhere."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from simulators.chat.blocking import wait_for
from simulators.chat.budget import Budget, Spent


def test_requests_are_counted_up_to_the_limit() -> None:
    budget = Budget(max_requests=2)
    assert [budget.take_request() for _ in range(2)] == [None, None]
    assert budget.take_request() == "the budget of 2 requests is spent; raise `max_requests`"
    assert budget.spent == Spent(2, 0, 0)
    assert Budget(max_requests=0).take_request() is not None


def test_tokens_are_counted_when_they_are_known() -> None:
    budget = Budget(max_tokens=10)
    assert budget.take_request() is None
    budget.count_tokens(7, 2)
    assert budget.take_request() is None
    budget.count_tokens(3, 1)
    assert budget.take_request() == "the budget of 10 tokens is spent (13 used); raise `max_tokens`"
    assert budget.spent == Spent(2, 10, 3)


def test_without_limits_everything_is_counted_and_nothing_refused() -> None:
    budget = Budget()

    def work() -> None:
        for _ in range(500):
            assert budget.take_request() is None
            budget.count_tokens(2, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent == Spent(2000, 4000, 2000)


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_work_is_waited_for_with_and_without_a_running_loop() -> None:
    async def inside() -> int:
        return wait_for(double(4))

    assert wait_for(double(3)) == 6
    assert asyncio.run(inside()) == 8


def test_the_caller_s_own_loop_stays_its_own() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        wait_for(double(1))
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_what_the_work_raises_reaches_the_caller() -> None:
    async def fails() -> None:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        wait_for(fails())


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler: a process begun in the background inherits one that ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_the_work() -> None:
    ended: list[str] = []
    main = threading.main_thread().ident

    async def endless() -> None:
        try:
            threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT]).start()
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait_for(endless())
    assert ended == ["cancelled"] and time.monotonic() - start < 30
