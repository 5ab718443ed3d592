"""How ticks reach a consumer that may be slower than the market."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable
from enum import StrEnum

from neo_async.errors import UsageError
from neo_async.model.ticks import Tick

DEFAULT_BOUND = 100_000


class Policy(StrEnum):
    """What happens to ticks that the consumer has not taken when newer ones arrive."""

    CONFLATE = "conflate"
    """The newest of each instrument and level is kept: never more than is subscribed."""
    BLOCK = "block"
    """Nothing is lost: the server is held up until there is room. A server that is held up for long
    may close the connection."""
    DROP_OLDEST = "drop_oldest"
    """The oldest are given up."""


class Delivery(ABC):
    """Takes ticks from the feed (`put`) and hands them to one consumer (`take`)."""

    def __init__(self) -> None:
        self._wanted: asyncio.Future[None] | None = None
        self._closed = False
        self.lost = 0
        """Ticks conflated or dropped so far."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """Ticks that wait for the consumer."""

    @abstractmethod
    def put(self, ticks: list[Tick]) -> Awaitable[None] | None:
        """Take over ticks; an awaitable when the feed must not go on before there is room."""

    @abstractmethod
    def _drain(self) -> list[Tick]: ...

    async def take(self) -> list[Tick]:
        """All that is pending, at least one; empty when the feed was closed and all is taken."""
        while not self.pending and not self._closed:
            if self._wanted is not None:
                raise UsageError("two consumers iterate over one feed: open a second feed")
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None
        return self._drain()

    def close(self) -> None:
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)


class Conflating(Delivery):
    def __init__(self) -> None:
        super().__init__()
        self._fresh: list[Tick] = []
        self._newest: dict[tuple[str, int], Tick] = {}

    @property
    def pending(self) -> int:
        return len(self._fresh) + len(self._newest)

    def put(self, ticks: list[Tick]) -> None:
        if self._wanted is not None:
            # The consumer waits, or was woken and has not had its turn: it is not slow.
            self._fresh += ticks
            self._notify()
            return
        newest = self._newest
        before = len(newest)
        for tick in ticks:
            newest[tick.instrument, tick.level] = tick
        self.lost += len(ticks) - (len(newest) - before)
        self._notify()

    def _drain(self) -> list[Tick]:
        ticks = self._fresh
        self._fresh = []
        if self._newest:
            ticks = [*ticks, *self._newest.values()]
            self._newest.clear()
        return ticks


class Blocking(Delivery):
    def __init__(self, bound: int) -> None:
        super().__init__()
        self._ticks: list[Tick] = []
        self._bound = bound
        self._room: asyncio.Event = asyncio.Event()

    @property
    def pending(self) -> int:
        return len(self._ticks)

    def put(self, ticks: list[Tick]) -> Awaitable[None] | None:
        self._ticks += ticks
        self._notify()
        if len(self._ticks) < self._bound:
            return None
        self._room.clear()
        return self._until_room()

    async def _until_room(self) -> None:
        await self._room.wait()

    def _drain(self) -> list[Tick]:
        ticks, self._ticks = self._ticks, []
        self._room.set()
        return ticks


class Dropping(Delivery):
    def __init__(self, bound: int) -> None:
        super().__init__()
        self._ticks: deque[Tick] = deque(maxlen=bound)
        self._bound = bound

    @property
    def pending(self) -> int:
        return len(self._ticks)

    def put(self, ticks: list[Tick]) -> None:
        self.lost += max(0, len(self._ticks) + len(ticks) - self._bound)
        self._ticks.extend(ticks)
        self._notify()

    def _drain(self) -> list[Tick]:
        ticks = list(self._ticks)
        self._ticks.clear()
        return ticks


def delivery(policy: Policy, bound: int) -> Delivery:
    if bound < 1:
        raise UsageError(f"bound={bound}: must be at least 1 tick")
    if policy is Policy.BLOCK:
        return Blocking(bound)
    return Dropping(bound) if policy is Policy.DROP_OLDEST else Conflating()
