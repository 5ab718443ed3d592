"""The retry loop: which failures are worth another try, how long to pause, and when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from neo_async.errors import NeoError, ProtocolError, ServerError, TransportError
from neo_async.transport.backoff import backoff

T = TypeVar("T")

TRANSIENT: Final = (TransportError, ServerError, ProtocolError)
"""Failures that may be gone at the next try of a request that changes nothing."""


async def retry(
    call: Callable[[], Awaitable[T]],
    should_retry: Callable[[NeoError], bool],
    *,
    base: float,
    cap: float,
    attempts: int | None = None,
    within: float | None = None,
    on_retry: Callable[[NeoError], object] | None = None,
) -> T:
    """Call until a result, and return it. An error that `should_retry` rejects is raised at once.

    Pauses grow from `base` to `cap` seconds, with jitter. The last error is raised after `attempts`
    calls, or when the next one would begin later than `within` seconds after the first failure.
    `on_retry` gets the error before the pause.
    """
    loop = asyncio.get_running_loop()
    failures, give_up_at = 0, 0.0
    while True:
        try:
            return await call()
        except NeoError as error:
            failures += 1
            if not should_retry(error) or failures == attempts:
                raise
            pause = backoff(failures, base=base, cap=cap)
            if within is not None:
                if failures == 1:
                    give_up_at = loop.time() + within
                if loop.time() + pause >= give_up_at:
                    raise
            if on_retry is not None:
                on_retry(error)
        await asyncio.sleep(pause)
