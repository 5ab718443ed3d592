"""Time as a market knows it: it stands still between two commands."""

from __future__ import annotations

from datetime import date, timedelta

from neo_async.exchange.core.sessions import indian_day


class Clock:
    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.last_stamp = 0
        self._coded_day = -1
        self._code = ""

    def stamp(self) -> int:
        """Now, but at least a nanosecond after the stamp before, so that all that happens at one
        time stays in sequence."""
        self.last_stamp = max(self.now_ns, self.last_stamp + 1)
        return self.last_stamp

    def day(self) -> int:
        """Days since 1970 in IST."""
        return indian_day(self.now_ns)

    def date(self) -> date:
        return date(1970, 1, 1) + timedelta(days=self.day())

    def date_code(self) -> str:
        """`YYMMDD`."""
        day = self.day()
        if day != self._coded_day:
            self._coded_day = day
            self._code = f"{self.date():%y%m%d}"
        return self._code
