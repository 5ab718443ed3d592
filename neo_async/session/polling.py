"""Reads a report again whenever the copy of it that is kept here may have fallen behind, and asks
persistently for one that somebody waits for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from neo_async import logs
from neo_async.errors import NeoError
from neo_async.transport.backoff import backoff
from neo_async.transport.retry import TRANSIENT

log = logging.getLogger(logs.SESSION)

RETRY_BASE = 0.5
RETRY_CAP = 10.0
"""Seconds between two tries of a read that fails."""

AGAIN_AFTER = 1.0
"""Seconds after which a try without an answer is joined by another one, and longest pause after one
that failed, where somebody waits."""
AT_ONCE = 4
"""Such tries at most: a server that hangs is not asked by more and more."""
URGENT_FOR = 60.0
"""Seconds of that; whoever waits longer can wait up to `RETRY_CAP` between two tries."""

T = TypeVar("T")


async def retry_until_answered(read: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of the first try of `read` that has one.

    Slow tries go on beside the new ones, for a slow answer is an answer. Raises what another try a
    moment later would not mend, such as NotLoggedIn or RateLimited.
    """
    loop = asyncio.get_running_loop()
    tries: set[asyncio.Task[T]] = set()
    began = next_at = loop.time()
    failures = 0
    try:
        while True:
            pace = AGAIN_AFTER if loop.time() < began + URGENT_FOR else RETRY_CAP
            if loop.time() >= next_at and len(tries) < AT_ONCE:
                tries.add(asyncio.create_task(read(), name="persistent read"))
                next_at = loop.time() + pace
            rest = max(0.0, next_at - loop.time()) if len(tries) < AT_ONCE else None
            if not tries:
                await asyncio.sleep(rest or 0.0)
                continue
            done, tries = await asyncio.wait(
                tries, timeout=rest, return_when=asyncio.FIRST_COMPLETED
            )
            errors = {one: one.exception() for one in done}
            for one, error in errors.items():
                if error is None:
                    return one.result()
            for error in errors.values():
                if not isinstance(error, TRANSIENT):
                    assert error is not None
                    raise error
                failures += 1
                pause = backoff(failures, base=RETRY_BASE, cap=pace)
                next_at = min(next_at, loop.time() + pause)
                level = logging.WARNING if failures == 1 else logging.DEBUG
                log.log(level, "%s; asking again until there is an answer", error)
    finally:
        for one in tries:
            one.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


class Poller:
    """Makes one read at a time: at once when it was asked for, else when `due_in` says so.

    `due_in` gives the seconds until a read is due, None while there is no need of one; `look` has
    to be called when its answer may have become smaller. Requests that come while a read is under
    way lead to one more, since that read may have begun too early for them. A read that fails,
    for whatever reason, is tried again after a growing, jittered while.
    """

    def __init__(
        self,
        report: str,
        read: Callable[[], Awaitable[object]],
        due_in: Callable[[], float | None],
    ) -> None:
        """`report` is what the log calls it."""
        self._report = report
        self._read = read
        self._due_in = due_in
        self._asked = False
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.read_at = -math.inf
        """Time of the loop at which the last read that worked ended; before the first, long ago."""

    @property
    def is_asked(self) -> bool:
        """Whether a read was asked for and has not begun."""
        return self._asked

    def ask(self) -> None:
        """Read, beginning no earlier than now."""
        self._asked = True
        self.look()

    def look(self) -> None:
        """Ask `due_in` again."""
        self._look.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"{self._report} reader")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Ends when no read is due at any time."""
        failures = 0
        try:
            while True:
                self._look.clear()
                delay = 0.0 if self._asked else self._due_in()
                if delay is None:
                    return
                if delay > 0:
                    await self._pause(delay)
                    continue
                asked, self._asked = self._asked, False
                try:
                    await self._read()
                except Exception as error:
                    self._asked |= asked
                    failures += 1
                    delay = backoff(failures, base=RETRY_BASE, cap=RETRY_CAP)
                    log.log(
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
        """Wait that long, or until there is reason to look again."""
        try:
            async with asyncio.timeout(delay):
                await self._look.wait()
        except TimeoutError:
            pass
