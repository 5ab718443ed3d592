"""Reads that are repeated: a report that is polled, and one read until it is answered."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from neo_async.base.logs import Log
from neo_async.errors import NeoError
from neo_async.transport.backoff import backoff
from neo_async.transport.retry import TRANSIENT

RETRY_BASE_SECONDS: Final = 0.5
RETRY_CAP_SECONDS: Final = 10.0
"""Longest pause after a read that failed."""

URGENT_RETRY_SECONDS: Final = 1.0
"""Time after which a try without an answer is joined by another one, and longest pause after one
that failed, while a read is urgent."""
URGENT_SECONDS: Final = 60.0
"""Time for which `retry_until_answered` is urgent; then up to `RETRY_CAP_SECONDS` pass between two
tries."""
MAX_CONCURRENT_TRIES: Final = 4
"""Tries of one read that wait for an answer at the same time: more would only add to the load of a
server that hangs."""

T = TypeVar("T")


async def retry_until_answered(read: Callable[[], Coroutine[Any, Any, T]], log: Log) -> T:
    """Return the result of the first try of `read` that is answered.

    A slow try goes on beside the new ones: a late answer counts as well. Raises errors that another
    try a moment later would meet again, such as NotLoggedIn or RateLimited.
    """
    loop = asyncio.get_running_loop()
    tries: set[asyncio.Task[T]] = set()
    began = next_at = loop.time()
    failures = 0
    try:
        while True:
            is_urgent = loop.time() < began + URGENT_SECONDS
            pace = URGENT_RETRY_SECONDS if is_urgent else RETRY_CAP_SECONDS
            if loop.time() >= next_at and len(tries) < MAX_CONCURRENT_TRIES:
                tries.add(asyncio.create_task(read(), name="repeated read"))
                next_at = loop.time() + pace
            has_room = len(tries) < MAX_CONCURRENT_TRIES
            rest = max(0.0, next_at - loop.time()) if has_room else None
            if not tries:
                await asyncio.sleep(rest or 0.0)
                continue
            done, tries = await asyncio.wait(
                tries, timeout=rest, return_when=asyncio.FIRST_COMPLETED
            )
            # Every error is retrieved before one result is returned: asyncio would log the others
            # as never retrieved.
            errors = {one: one.exception() for one in done}
            for one, error in errors.items():
                if error is None:
                    return one.result()
            for error in errors.values():
                if not isinstance(error, TRANSIENT):
                    assert error is not None
                    raise error
                failures += 1
                pause = backoff(failures, base=RETRY_BASE_SECONDS, cap=pace)
                next_at = min(next_at, loop.time() + pause)
                level = logging.WARNING if failures == 1 else logging.DEBUG
                log.log(level, "%s; trying again until there is an answer", error)
    finally:
        for one in tries:
            one.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


class Poller:
    """Makes one read at a time: at once when it is requested, else when `due_in` has passed.

    `due_in` returns the seconds until a read is due, None while none is needed; `look` has to be
    called when its result may have become smaller. A request that comes during a read leads to one
    more, since that read may have begun too early for it. A read that fails, for whatever reason,
    is tried again after a growing, jittered pause.
    """

    def __init__(
        self,
        report: str,
        read: Callable[[], Awaitable[object]],
        due_in: Callable[[], float | None],
        log: Log,
    ) -> None:
        """`report` is the name of what is read, in log lines."""
        self._report = report
        self._read = read
        self._due_in = due_in
        self._log = log
        self._requested = False
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.read_at = -math.inf
        """Loop time at which the last successful read ended; -inf before the first."""

    @property
    def is_requested(self) -> bool:
        """Whether a read was requested and has not begun."""
        return self._requested

    def ask(self) -> None:
        """Request a read that begins no earlier than now."""
        self._requested = True
        self.look()

    def look(self) -> None:
        """Call `due_in` again, now."""
        self._look.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"{self._report} reader")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Read whenever it is due, until no read is needed any more."""
        failures = 0
        try:
            while True:
                self._look.clear()
                delay = 0.0 if self._requested else self._due_in()
                if delay is None:
                    return
                if delay > 0:
                    await self._pause(delay)
                    continue
                requested, self._requested = self._requested, False
                try:
                    await self._read()
                except Exception as error:
                    self._requested |= requested
                    failures += 1
                    delay = backoff(failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
                    self._log.log(
                        logging.WARNING if isinstance(error, NeoError) else logging.ERROR,
                        "the %s could not be read: %s; next try in %.1f s",
                        self._report,
                        error,
                        delay,
                        exc_info=None if isinstance(error, NeoError) else error,
                    )
                    await asyncio.sleep(delay)
                else:
                    failures = 0
                    self.read_at = asyncio.get_running_loop().time()
        finally:
            self._task = None

    async def _pause(self, delay: float) -> None:
        """Wait for `delay` seconds, or until `look` is called."""
        try:
            async with asyncio.timeout(delay):
                await self._look.wait()
        except TimeoutError:
            pass
