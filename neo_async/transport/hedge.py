"""Asking twice: a read that takes long is made once more, and the first good answer wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from neo_async.model.answer import Answer


async def hedged(
    ask: Coroutine[Any, Any, Answer],
    ask_again: Callable[[], Awaitable[Answer]],
    *,
    delay: float,
    timeout: float,
) -> Answer:
    """The answer of `ask`, or of `ask_again` when none has come after `delay` seconds. Both end
    `timeout` seconds after the first began.

    What fails within the delay is not asked again. Only for requests that change nothing.
    """

    async def once_more() -> Answer:
        async with asyncio.timeout_at(deadline):
            return await ask_again()

    deadline = asyncio.get_running_loop().time() + timeout
    first = asyncio.create_task(ask, name="read")
    tasks = {first}
    try:
        await asyncio.wait(tasks, timeout=delay)
        if not first.done():
            tasks.add(asyncio.create_task(once_more(), name="read once more"))
        pending = tasks
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if _is_good(task):
                    return task.result()
        return first.result()
    finally:
        # That closes the loser's connection, too: nothing is ever read from it again.
        losers = [task for task in tasks if task.cancel()]
        if losers:
            await asyncio.gather(*losers, return_exceptions=True)


def _is_good(task: asyncio.Task[Answer]) -> bool:
    """Whether nothing better is to be expected of the other one."""
    return task.exception() is None and task.result().status < 429
