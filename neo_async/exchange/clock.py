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
        self._stands_at: float | None = None
        """Time of the last recorded frame; None without a recording."""
        self._played_at = 0.0
        """Time of the unmoved clock at that frame."""
        self._speed = 0.0

    def __call__(self) -> float:
        running = self.unmoved() if self._stands_at is None else self._played()
        return running + self._ahead

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

    def begin_at(self, now: float) -> None:
        """Stand still at a time, also a past one, until the next `play_at`: for the clock of a
        recording, before anybody has read it."""
        self._stands_at = now

    def play_at(self, now: float, speed: float) -> None:
        """Move on to the time of a recorded frame, unless it has passed, and run from there with
        the recording's speed; stand still between frames where that is infinite."""
        self._stands_at = max(self._played(), now)
        self._speed = 0.0 if math.isinf(speed) else speed
        self._played_at = self.unmoved()

    def end_playing(self) -> None:
        """Run on from the present time like the unmoved clock."""
        self._stands_at = self._played()
        self._played_at, self._speed = self.unmoved(), 1.0

    def _played(self) -> float:
        assert self._stands_at is not None
        return self._stands_at + (self.unmoved() - self._played_at) * self._speed

    def catch_up(self, now: float) -> None:
        """Move to a time unless it has passed. Raises UsageError for a time beyond `LATEST`."""
        if not now <= LATEST:
            raise UsageError(f"the clock cannot go on from {now:g}: that is beyond the year 2100")
        self._ahead += max(0.0, now - self())
