"""How ticks reach a consumer that may be slower than the market."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Awaitable, Iterator
from enum import StrEnum
from operator import length_hint
from typing import Generic, TypeVar

from neo_async.errors import UsageError
from neo_async.model.ticks import Tick

DEFAULT_BOUND = 100_000
HANDFUL = 64


class Policy(StrEnum):
    """What happens to ticks that the consumer has not taken when newer ones arrive."""

    CONFLATE = "conflate"
    """The newest of each instrument and level is kept: never more than is subscribed."""
    BLOCK = "block"
    """Nothing is lost: the server is held up until there is room. A server that is held up for long
    may close the connection; the first message of the next one is lost then, and counted."""
    DROP_OLDEST = "drop_oldest"
    """The oldest are given up."""


T = TypeVar("T")


class Mailbox(ABC, Generic[T]):
    """Where one consumer finds what has come since it last looked."""

    def __init__(self) -> None:
        self._wanted: asyncio.Future[None] | None = None
        self._closed = False
        self.lost = 0
        """How many were conflated or dropped so far."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """How many wait for the consumer."""

    @abstractmethod
    def _drain(self) -> list[T]: ...

    async def take(self) -> list[T]:
        """All that is pending, at least one; empty when the feed was closed and all is taken."""
        await self._until_pending()
        return self._drain()

    async def _until_pending(self) -> None:
        while not self.pending and not self._closed:
            if self._wanted is not None:
                raise UsageError("two consumers iterate over one feed: open a second feed")
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None

    def close(self) -> None:
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)


class Delivery(Mailbox[Tick]):
    """Takes ticks from the feed."""

    def __init__(self) -> None:
        super().__init__()
        self.in_hand: Iterator[Tick] = iter(())
        """Ticks that the consumer goes through one by one. They may be taken back while it does:
        then the iterator ends early, and `refill` gives what became of them."""

    async def refill(self) -> bool:
        """Wait for ticks and put them in hand; False when the feed was closed and all is taken."""
        await self._until_pending()
        self.in_hand = iter(self._handful())
        return length_hint(self.in_hand) > 0

    def _handful(self) -> list[Tick]:
        return self._drain()

    @abstractmethod
    def put(self, ticks: list[Tick]) -> Awaitable[None] | None:
        """Take over ticks; an awaitable when the feed must not go on before there is room."""


class Conflating(Delivery):
    def __init__(self) -> None:
        super().__init__()
        self._fresh: list[Tick] = []
        self._newest: OrderedDict[tuple[str, int], Tick] = OrderedDict()

    @property
    def pending(self) -> int:
        return len(self._fresh) + len(self._newest) + length_hint(self.in_hand)

    def put(self, ticks: list[Tick]) -> None:
        if self._wanted is not None:
            # The consumer waits, or was woken and has not had its turn: it is not slow.
            self._fresh += ticks
            self._notify()
            return
        newest = self._newest
        self._take_back()
        before = len(newest)
        for tick in ticks:
            newest[tick.instrument, tick.level] = tick
        self.lost += len(ticks) - (len(newest) - before)
        self._notify()

    def _take_back(self) -> None:
        """A tick in hand that has not been looked at yet is conflated like any other."""
        newest = self._newest
        for tick in reversed(list(self.in_hand)):
            key = tick.instrument, tick.level
            if key in newest:
                self.lost += 1
            else:
                newest[key] = tick
            newest.move_to_end(key, last=False)

    def _drain(self) -> list[Tick]:
        ticks = [*self.in_hand, *self._fresh, *self._newest.values()]
        self._fresh = []
        self._newest.clear()
        return ticks

    def _handful(self) -> list[Tick]:
        if self._fresh or len(self._newest) <= HANDFUL:
            return self._drain()
        # A few at a time, as they may all have to be taken back when the next message comes.
        return [self._newest.popitem(last=False)[1] for _ in range(HANDFUL)]


class Blocking(Delivery):
    def __init__(self, bound: int) -> None:
        super().__init__()
        self._ticks: list[Tick] = []
        self._bound = bound
        self._room = asyncio.Event()

    @property
    def pending(self) -> int:
        return len(self._ticks) + length_hint(self.in_hand)

    def put(self, ticks: list[Tick]) -> Awaitable[None] | None:
        if len(self._ticks) >= self._bound:
            # Nobody has waited for room: the connection that was held up is lost, and this is
            # another one. However many follow, what is kept does not grow.
            self.lost += len(ticks)
            return self._until_room()
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
        return len(self._ticks) + length_hint(self.in_hand)

    def put(self, ticks: list[Tick]) -> None:
        self.lost += max(0, len(self._ticks) + len(ticks) - self._bound)
        self._ticks.extend(ticks)
        self._notify()

    def _drain(self) -> list[Tick]:
        ticks = list(self._ticks)
        self._ticks.clear()
        return ticks


class Messages(Mailbox[bytes]):
    """Takes messages as they are; beyond `bound` bytes the oldest are given up."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._bound = bound

    @property
    def pending(self) -> int:
        return len(self._messages)

    def put(self, message: bytes) -> None:
        self._messages.append(message)
        self._bytes += len(message)
        while self._bytes > self._bound and len(self._messages) > 1:
            self._bytes -= len(self._messages.popleft())
            self.lost += 1
        self._notify()

    def _drain(self) -> list[bytes]:
        messages = list(self._messages)
        self._messages.clear()
        self._bytes = 0
        return messages


def delivery(policy: Policy, bound: int) -> Delivery:
    if bound < 1:
        raise UsageError(f"bound={bound}: must be at least 1 tick")
    if policy is Policy.BLOCK:
        return Blocking(bound)
    return Dropping(bound) if policy is Policy.DROP_OLDEST else Conflating()
