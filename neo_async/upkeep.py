"""Reads a report again whenever the copy of it that is kept here may have fallen behind."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from neo_async.errors import NeoError
from neo_async.transport.backoff import backoff

log = logging.getLogger(__name__)

RETRY_BASE = 0.5
RETRY_CAP = 10.0
"""Seconds between two tries of a read that fails."""


class Upkeep:
    """Makes one read at a time: at once when it was asked for, else when `due_in` says so.

    `due_in` gives the seconds until a read is due, None while there is no need of one; `look` has
    to be called when its answer may have become smaller. Requests that come while a read is under
    way lead to one more, since that read may have begun too early for them. A read that fails is
    tried again after a growing, jittered while.
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
        """Time of the loop at which the last read ended; before the first, long ago."""

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
                except NeoError as error:
                    self._asked |= asked
                    failures += 1
                    delay = backoff(failures, base=RETRY_BASE, cap=RETRY_CAP)
                    log.warning(
                        "the %s could not be read: %s; next try in %.1f s",
                        self._report,
                        error,
                        delay,
                    )
                    await asyncio.sleep(delay)
                else:
                    failures = 0
                finally:
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
