"""The exchange's clock: another clock, moved forward on request."""

from __future__ import annotations

import math
from collections.abc import Callable

from neo_async.errors import UsageError

LATEST = 4_102_444_800.0
"""2100-01-01 00:00 UTC, the latest time that the exchange can be moved to: contracts, candles and
order numbers are made for dates, and a clock beyond all of them could not be moved back."""


class MovedClock:
    """Unix seconds. Runs as the other clock does, and never back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.unmoved = clock
        """The clock that was not moved, as callers have it."""
        self._ahead = 0.0

    def __call__(self) -> float:
        return self.unmoved() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock on. Raises UsageError for a step back, and for a time beyond `LATEST`."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"advance={seconds}: must be seconds, not below 0")
        if self() + seconds > LATEST:
            raise UsageError(f"advance={seconds:g}: leads beyond the year 2100")
        self._ahead += seconds

    def set(self, now: float) -> None:
        """Set the clock. Raises UsageError for a time that has passed."""
        if not now >= self():
            raise UsageError(f"now={now:.3f}: must not be before {self():.3f}, the present time")
        self.advance(now - self())

    def catch_up(self, now: float) -> None:
        """Move to a time unless it has passed. Raises UsageError for a time beyond `LATEST`."""
        if not now <= LATEST:
            raise UsageError(f"the clock cannot go on from {now:g}: that is beyond the year 2100")
        self._ahead += max(0.0, now - self())
