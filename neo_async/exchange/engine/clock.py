"""Time as a market knows it: it stands still between two commands."""

from __future__ import annotations

from datetime import date, timedelta

from neo_async.exchange.engine.trading_hours import SECOND_NS, indian_day

_EPOCH = date(1970, 1, 1)


class Clock:
    """What every order asks of the time is reckoned once a second, or once a day."""

    __slots__ = ("date", "date_code", "day", "last_stamp", "now_ns", "second")

    def __init__(self, now_ns: int) -> None:
        self.last_stamp = 0
        self.second = ""
        """Unix time, in decimals."""
        self.day = -1
        """Days since 1970 in IST."""
        self.date = _EPOCH
        self.date_code = ""
        """`YYMMDD`."""
        self._set(now_ns)

    def move_to(self, now_ns: int) -> None:
        """A time before the present one is ignored."""
        if now_ns > self.now_ns:
            self._set(now_ns)

    def stamp(self) -> int:
        """Now, but at least a nanosecond after the stamp before, so that all that happens at one
        time stays in sequence."""
        stamp = self.last_stamp + 1
        if stamp < self.now_ns:
            stamp = self.now_ns
        self.last_stamp = stamp
        return stamp

    def _set(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.second = str(now_ns // SECOND_NS)
        day = indian_day(now_ns)
        if day != self.day:
            self.day = day
            self.date = _EPOCH + timedelta(days=day)
            self.date_code = f"{self.date:%y%m%d}"
