"""A quota of requests for each calendar day in India."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from neo_async.base.india import IST_SECONDS
from neo_async.errors import RateLimited

_DAY_SECONDS: Final = 86_400


class DailyQuota:
    """Starts allowed on one calendar day in India.

    Only those of this process are counted: what was used before, or by other processes, the server
    counts, and answers with 429.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self.limit = limit
        self._clock = clock
        self._day = 0
        self.used = 0
        """Starts on the day of the last start."""

    def take(self) -> None:
        """Count a start. Raises RateLimited, with the seconds until midnight, when nothing is
        left."""
        day, second = divmod(self._clock() + IST_SECONDS, _DAY_SECONDS)
        if day != self._day:
            self._day, self.used = int(day), 0
        if self.used >= self.limit:
            raise RateLimited(
                f"the plan's {self.limit:,} requests of today are used up: nothing was sent",
                retry_after=_DAY_SECONDS - second,
                was_sent=False,
            )
        self.used += 1

    def give_back(self) -> None:
        """Undo a start: nothing was sent."""
        self.used = max(0, self.used - 1)
