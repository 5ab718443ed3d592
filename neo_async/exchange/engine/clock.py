"""The clock of the matching engine, which stands still while a command is executed."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec

from neo_async.exchange.engine.trading_hours import SECOND_NS, indian_day

_EPOCH = date(1970, 1, 1)


class ClockState(msgspec.Struct, frozen=True, kw_only=True):
    """The clock, as a snapshot keeps it."""

    now_ns: int
    last_stamp: int


class Clock:
    """The present time, and what every order needs of it, calculated once a second or once a
    day."""

    __slots__ = ("date", "date_code", "day", "last_stamp", "now_ns", "second")

    def __init__(self, now_ns: int) -> None:
        self.last_stamp = 0
        self.second = ""
        """Unix seconds, as text."""
        self.day = -1
        """Days since 1970 in India."""
        self.date = _EPOCH
        self.date_code = ""
        """The date in India as `YYMMDD`."""
        self._set(now_ns)

    def move_to(self, now_ns: int) -> None:
        """Move the clock on; a time before the present one is ignored."""
        if now_ns > self.now_ns:
            self._set(now_ns)

    def stamp(self) -> int:
        """Return the present time, or a nanosecond after the last stamp where that is later.

        All that happens at one time so stays in sequence.
        """
        stamp = self.last_stamp + 1
        if stamp < self.now_ns:
            stamp = self.now_ns
        self.last_stamp = stamp
        return stamp

    def snapshot(self) -> ClockState:
        """Return present time and last stamp."""
        return ClockState(now_ns=self.now_ns, last_stamp=self.last_stamp)

    def restore(self, state: ClockState) -> None:
        """Go on from the last stamp of a snapshot; the constructor has had the time."""
        self.last_stamp = state.last_stamp

    def _set(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.second = str(now_ns // SECOND_NS)
        day = indian_day(now_ns)
        if day != self.day:
            self.day = day
            self.date = _EPOCH + timedelta(days=day)
            self.date_code = f"{self.date:%y%m%d}"
