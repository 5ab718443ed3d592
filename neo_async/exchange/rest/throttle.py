"""The broker's rate limit: so many requests in any window of one second, per account."""

from __future__ import annotations

from collections import deque

from neo_async.config import RateLimits

_WINDOW = 1.0


class Throttled(Exception):
    """The window is full."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} requests a second")
        self.limit = limit


class Throttle:
    """Sliding windows: one for orders, one for everything. Refused requests do not count."""

    def __init__(self, limits: RateLimits | None) -> None:
        self._limits = limits
        self._orders: dict[str, deque[float]] = {}
        self._total: dict[str, deque[float]] = {}

    def admit(self, account: str, now: float, *, is_order: bool) -> None:
        """Count a request at `now`, in seconds. Raises Throttled when it is one too many."""
        if self._limits is None:
            return
        windows = [(self._total.setdefault(account, deque()), self._limits.total)]
        if is_order:
            windows.append((self._orders.setdefault(account, deque()), self._limits.orders))
        for times, limit in windows:
            while times and times[0] <= now - _WINDOW:
                times.popleft()
            if len(times) >= limit:
                raise Throttled(limit)
        for times, _ in windows:
            times.append(now)
