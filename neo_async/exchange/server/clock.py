"""The exchange's own clock: another one, moved on by as much as somebody wanted."""

from __future__ import annotations

import math
from collections.abc import Callable

from neo_async.errors import UsageError


class MovedClock:
    """Unix seconds. Goes on as the other clock does, and never back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.unmoved = clock
        """What callers have for a clock."""
        self._ahead = 0.0

    def __call__(self) -> float:
        return self.unmoved() + self._ahead

    def advance(self, seconds: float) -> None:
        """Raises UsageError for a step back."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"advance={seconds}: must be seconds, not below 0")
        self._ahead += seconds

    def set(self, now: float) -> None:
        """Raises UsageError for a time that has passed."""
        if not now >= self():
            raise UsageError(f"now={now:.3f}: must not be before {self():.3f}, the present time")
        self.advance(now - self())

    def catch_up(self, now: float) -> None:
        """Be at least there."""
        self._ahead += max(0.0, now - self())
