"""Duplicate reads: a read that takes long is made once more, and the first good answer wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from neo_async.errors import TransportError
from neo_async.model.answer import Answer


async def with_duplicate(
    ask: Awaitable[Answer],
    ask_again: Callable[[], Awaitable[Answer]],
    *,
    delay: float,
    timeout: float,
) -> Answer:
    """Return the answer of `ask`, or that of `ask_again` when none has come after `delay` seconds.
    Both end `timeout` seconds after the first began.

    A read that fails within the delay is not repeated. Only for requests that change nothing.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    second: asyncio.Task[Answer] | None = None
    is_first_over = False

    async def once_more() -> Answer:
        async with asyncio.timeout_at(deadline):
            return await ask_again()

    def begin_second() -> None:
        nonlocal second
        second = asyncio.create_task(once_more(), name="read once more")
        second.add_done_callback(end_first)

    def end_first(second: asyncio.Task[Answer]) -> None:
        if _is_good(second) and not is_first_over:
            first_wait.reschedule(loop.time())

    timer = loop.call_later(delay, begin_second)
    try:
        # The first runs here and not in a task of its own: the limiter has counted its start as one
        # of this moment, and a task would begin a turn of the loop later.
        try:
            async with asyncio.timeout(None) as first_wait:
                answer = await ask
        except (TimeoutError, TransportError):
            is_first_over = True
            if second is None or not await _turns_out_good(second):
                raise
            return second.result()
        is_first_over = True
        if second is None or answer.status < 429 or not await _turns_out_good(second):
            return answer
        return second.result()
    finally:
        timer.cancel()
        # Cancelling closes its connection, too: the late answer must not be read by another.
        if second is not None and second.cancel():
            await asyncio.gather(second, return_exceptions=True)


async def _turns_out_good(task: asyncio.Task[Answer]) -> bool:
    await asyncio.wait([task])
    return _is_good(task)


def _is_good(task: asyncio.Task[Answer]) -> bool:
    """Return whether a read has an answer that the other one could not improve on."""
    return not task.cancelled() and task.exception() is None and task.result().status < 429
