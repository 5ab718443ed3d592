"""A sliding window of starts.

A leaky bucket of 10 a second lets 19 requests into its first second, which a server that counts a
sliding window answers with 429. Here no window of one second ever holds more than N starts, and N
a second (less the margin) are reached under load.

Priority alone does not help a cancel: a window that was filled at once stays full for a second.
Therefore the last free start is taken by something other than a cancel only when another one
becomes free within `CANCEL_WAIT`. An idle window of 10 a second admits nine placements at once, and
ten cancels.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from neo_async.transport.kinds import Kind

# Starts are counted here, arrivals at the server: a request that travelled faster than one before
# it comes closer to it by the difference. The margin absorbs that, at a cost of 1.5 % of the rate.
WINDOW: Final = 1.015
"""Length of a rate window in seconds."""

CANCEL_WAIT: Final = 0.15
"""Seconds after which a start is free for a cancel at the latest, whatever else is sent. Limits of
less than seven a second are spread evenly instead: there, nothing shorter can be kept without
starts that stay unused."""


class StartWindow:
    """The last starts under one limit."""

    __slots__ = ("_gap", "_length", "limit", "starts")

    def __init__(self, limit: int, length: float) -> None:
        """`length` is in seconds."""
        self.limit = limit
        self.starts: deque[float] = deque(maxlen=limit)
        """Clock times of the starts, oldest first."""
        self._length = length
        self._gap = length - max(CANCEL_WAIT, length / limit)
        """Seconds between a start and the moment from which on the window counts as one that has
        another start for a cancel soon."""

    def free_at(self, kind: Kind, ahead: int = 0) -> float:
        """Return when one more start is possible after `ahead` others that begin now: a time in the
        past when it is possible now, infinity while that depends on when the others begin.

        To be called when there is no room for two more.
        """
        starts = self.starts
        first = ahead + len(starts) - self.limit
        """Index of the start that has to leave the window for this one."""
        if first >= len(starts) and first >= 0:
            return math.inf
        at = starts[first] + self._length if first >= 0 else 0.0
        if kind and self._gap > 0:  # not a cancel: the one after this has to be free soon
            if first + 1 >= len(starts):
                return math.inf
            at = max(at, starts[first + 1] + self._gap)
        return at

    def add(self, started: float) -> None:
        """Count a start."""
        starts = self.starts
        starts.append(started)
        # Two are dropped for each that comes: what has left the window is forgotten without ever
        # going through all of it.
        if starts[0] + self._length <= started:
            starts.popleft()
            if starts[0] + self._length <= started:
                starts.popleft()

    def remove(self, started: float) -> None:
        """Forget a start, unless it is forgotten already. It costs a step for each start since."""
        starts = self.starts
        for back, start in enumerate(reversed(starts), 1):
            if start <= started:
                if start == started:
                    del starts[-back]
                return

    def count(self, now: float) -> int:
        """Return the number of starts in the window that ends now."""
        recent = 0
        for start in reversed(self.starts):
            if start + self._length <= now:
                break
            recent += 1
        return recent
