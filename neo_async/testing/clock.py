"""The clock of a test, for the exchange and its clients alike."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime

from neo_async.base.india import IST, in_india
from neo_async.errors import UsageError

START = datetime(2026, 11, 23, 10, tzinfo=IST)
"""A Monday on which everything trades, and a whole number of TOTP steps."""


class Clock:
    """Unix seconds, when called. Passes with the running loop, be its time real or virtual, and can
    be moved forward.

        clock = Clock()
        async with Exchange(clock=clock) as exchange, NeoClient(..., clock=clock) as neo:
            clock.advance(3600)
    """

    def __init__(self, start: datetime = START) -> None:
        self._began = _seconds_of(start)
        """Unix seconds at the first reading, and what the clock was moved by since."""
        self._loop_began: float | None = None
        """Time of the loop at the first reading."""
        self._passed = 0.0
        """Seconds that had passed in the loop at the last reading."""
        self._listeners: list[Callable[[], None]] = []

    def __call__(self) -> float:
        try:
            loop_time = asyncio.get_running_loop().time()
        except RuntimeError:  # between two steps of a test, no time passes
            return self._began + self._passed
        if self._loop_began is None:
            self._loop_began = loop_time
        self._passed = loop_time - self._loop_began
        return self._began + self._passed

    @property
    def now(self) -> datetime:
        """The present time by India's clock."""
        return in_india(self())

    def advance(self, seconds: float) -> None:
        """Move the clock forward. What sleeps in the loop sleeps on: in virtual time, use
        `asyncio.sleep` instead. Raises UsageError for a step back."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"seconds={seconds!r}: must not be below 0, time does not go back")
        self._began += seconds
        for listener in self._listeners:
            listener()

    def move_to(self, moment: datetime) -> None:
        """Move the clock forward to a time. Raises UsageError for one that has passed."""
        seconds = _seconds_of(moment)
        if seconds < self():
            raise UsageError(f"moment={moment}: must not be before {self.now}, the present time")
        self.advance(seconds - self())

    def on_move(self, listener: Callable[[], None]) -> None:
        """Call a function whenever the clock has been moved, as `exchange.tick`."""
        self._listeners.append(listener)


def _seconds_of(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise UsageError(f"{moment!r} has no time zone; India's is neo_async.calendar.IST")
    return moment.timestamp()
