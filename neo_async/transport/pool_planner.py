"""The rules of the connection pool, as arithmetic: no I/O, no clock, no await.

1. Placements and changes never use more than `maximum` connections at once, and leave some idle
   ones to cancels.
2. Cancels may take any connection, and open more than the others may where all are in use: no
   request that hangs, not even another cancel, holds up what takes orders back.
3. No connection is opened but for a request that waits, or to keep the pool warm.
"""

from __future__ import annotations

from typing import Final

from neo_async.config import PoolLimits
from neo_async.transport.kinds import Kind

_CANCEL: Final = Kind.CANCEL


class PoolPlanner:
    """Answers, by counts of connections, what the pool has to do.

    Of the counts, `open_` are the connections that stand, `idle` those of them without a request,
    and `connecting` those that are being opened.
    """

    __slots__ = (
        "_max_busy",
        "_max_for_cancels",
        "_max_for_others",
        "_max_open",
        "_warm",
        "idle_for_cancels",
    )

    def __init__(self, limits: PoolLimits) -> None:
        self._warm = limits.warm
        self._max_busy = limits.maximum
        """Connections that may be in use before only cancels get another one."""
        self.idle_for_cancels = min(limits.reserved, limits.warm - 1)
        """Idle connections that are left to cancels, as long as another one can be opened."""
        self._max_for_others = self._max_busy + self.idle_for_cancels
        """Connections beyond which none is opened for a placement or a change."""
        self._max_open = limits.maximum + limits.reserved
        """Connections that are open at most, without those that only hanging cancels need."""
        self._max_for_cancels = self._max_open + limits.for_cancels
        """Connections beyond which none is opened for a cancel."""

    def may_take(self, kind: Kind, idle: int, open_: int) -> bool:
        """Return whether a request of this kind may use one of the idle connections."""
        if kind is _CANCEL:
            return idle > 0
        return idle > self.idle_for_cancels and open_ - idle < self._max_busy

    def may_open(self, open_: int, connecting: int, cancels: int) -> bool:
        """Return whether `missing` may be more than 0 while so many cancels wait. It costs less."""
        most = self._max_for_cancels if cancels else self._max_for_others
        return open_ + connecting < most

    def missing(self, *, idle: int, open_: int, connecting: int, cancels: int, others: int) -> int:
        """Return how many connections to open for the requests that wait for one: `cancels`, and
        `others`."""
        if not self.may_open(open_, connecting, cancels):
            return 0
        size = open_ + connecting
        ready = idle + connecting
        served_others = min(others, ready + self._max_busy - size - cancels)
        if served_others > 0:
            # A connection is opened in the place of each that is left to cancels.
            return max(0, cancels + served_others + self.idle_for_cancels - ready)
        return max(0, min(cancels - ready, self._max_for_cancels - size))

    def is_warm(self, *, idle: int, open_: int, connecting: int) -> bool:
        """Return whether the pool has the connections that it keeps although nothing waits."""
        size = open_ + connecting
        ready = idle + connecting
        return size >= self._warm and (ready >= self.idle_for_cancels or size >= self._max_open)
