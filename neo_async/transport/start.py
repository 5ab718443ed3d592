"""The start of one request whose connection may have to be opened first."""

from __future__ import annotations

import time

from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter


class Start:
    """A start that is taken before a connection is there, and moved to when it is.

    It is taken before, so that no more connections are opened than requests may start. It is moved,
    because time spent on a handshake would let two requests arrive closer together than the limit
    allows.
    """

    def __init__(self, limiter: Limiter, kind: Kind, *, first: bool = False) -> None:
        self._limiter = limiter
        self._kind = kind
        self._first = first
        self._started = 0.0
        self._is_fresh = False
        """Whether it was taken, and no connection used it yet."""
        self.queued = 0.0
        """Seconds for which it waited for its turn."""

    async def take(self) -> Start:
        """Wait until the request may start. Raises what `Limiter.acquire` raises."""
        began = time.perf_counter()
        self._started = await self._limiter.acquire(self._kind, first=self._first)
        self._is_fresh = True
        self.queued = time.perf_counter() - began
        return self

    async def at_connection(self) -> None:
        """Move the start to now, or wait for another one where that cannot be. A request that is
        sent once more, on another connection, takes another start. Raises what `Limiter.acquire`
        raises."""
        limiter, kind = self._limiter, self._kind
        if self._is_fresh:
            self._is_fresh = False
            try:
                moved = limiter.restart(kind, self._started)
            except BaseException:
                limiter.give_back(kind, self._started)
                raise
            if moved is not None:
                self._started = moved
                return
            limiter.give_back(kind, self._started)
        self._started = await limiter.acquire(kind, first=True)

    def answered_late(self) -> None:
        """Count the start as one of now; see Limiter.answered_late."""
        self._limiter.answered_late(self._kind, self._started)
