"""Waiting for asynchronous work from anywhere, also from a thread whose own event loop is running.

Notebooks and Gradio's handlers call from inside a running loop, where `asyncio.run` is not allowed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run the work on an event loop in a thread of its own, and return what it returns.

    An interrupt of the calling thread cancels the work before it goes on.

    Args:
        work: What to run; it must not need the caller's loop.
    """
    cancels: list[Callable[[], object]] = []

    async def cancellable() -> T:
        task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
        cancels.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await task

    with ThreadPoolExecutor(1, thread_name_prefix="chat") as thread:
        result = thread.submit(lambda: asyncio.run(cancellable()))
        try:
            return result.result()
        except KeyboardInterrupt:
            for cancel in cancels:
                with suppress(RuntimeError):  # It has ended meanwhile.
                    cancel()
            raise
