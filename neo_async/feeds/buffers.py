"""Buffers between the feed and a consumer that may be slower than the market."""

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
"""Ticks at which BLOCK and DROP_OLDEST set in, unless the caller chooses another number."""
BATCH_SIZE = 64
"""Ticks that a consumer of single ticks prefetches from a conflating buffer."""


class Policy(StrEnum):
    """The treatment of ticks that the consumer has not taken when newer ones arrive."""

    CONFLATE = "conflate"
    """The newest of each instrument and level is kept: never more than is subscribed."""
    BLOCK = "block"
    """No tick is lost: the server is held up until there is room. A server that is held up for long
    may close the connection; the first message of the next one is lost then, and counted."""
    DROP_OLDEST = "drop_oldest"
    """The oldest ticks are dropped."""


T = TypeVar("T")
TickT = TypeVar("TickT", bound=Tick)


class Buffer(ABC, Generic[T]):
    """A buffer for one consumer: the feed puts, the consumer takes all that is pending at once."""

    def __init__(self) -> None:
        self._wanted: asyncio.Future[None] | None = None
        """The future on which the consumer waits; None while it does not."""
        self._closed = False
        self.lost = 0
        """Number of items that were conflated or dropped so far."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """Number of items that wait for the consumer."""

    @abstractmethod
    def _drain(self) -> list[T]:
        """Remove and return everything that is pending."""

    async def take(self) -> list[T]:
        """Return all that is pending, at least one item; nothing when the feed was closed and all
        is taken."""
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
        """Let the consumer take what is pending, and end there."""
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)


class TickBuffer(Buffer[TickT]):
    """A buffer of ticks, from which a consumer takes lists or, by `prefetched`, single ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.prefetched: Iterator[TickT] = iter(())
        """Ticks that the consumer goes through one by one. They may be requeued while it does: then
        the iterator ends early, and `refill` prefetches what has replaced them."""

    async def refill(self) -> bool:
        """Wait for ticks and prefetch them; False when the feed was closed and all is taken."""
        await self._until_pending()
        self.prefetched = iter(self._batch())
        return length_hint(self.prefetched) > 0

    def _batch(self) -> list[TickT]:
        """Remove and return the ticks to prefetch."""
        return self._drain()

    @abstractmethod
    def put(self, ticks: list[TickT]) -> Awaitable[None] | None:
        """Take over ticks; an awaitable when the feed must not read on before there is room."""


class ConflatingBuffer(TickBuffer[TickT]):
    """A buffer of Policy.CONFLATE: the newest tick of each instrument and level."""

    def __init__(self) -> None:
        super().__init__()
        self._fresh: list[TickT] = []
        """Ticks that arrived while the consumer waited: all of them, for it is not slow."""
        self._newest: OrderedDict[tuple[str, int], TickT] = OrderedDict()

    @property
    def pending(self) -> int:
        return len(self._fresh) + len(self._newest) + length_hint(self.prefetched)

    def put(self, ticks: list[TickT]) -> None:
        if self._wanted is not None:
            # The consumer waits, or was woken and has not had its turn: it is not slow.
            self._fresh += ticks
            self._notify()
            return
        newest = self._newest
        self._requeue()
        before = len(newest)
        for tick in ticks:
            newest[tick.instrument, tick.level] = tick
        self.lost += len(ticks) - (len(newest) - before)
        self._notify()

    def _requeue(self) -> None:
        """Put prefetched ticks back at the front, where newer ones conflate them like any other."""
        newest = self._newest
        for tick in reversed(list(self.prefetched)):
            key = tick.instrument, tick.level
            if key in newest:
                self.lost += 1
            else:
                newest[key] = tick
            newest.move_to_end(key, last=False)

    def _drain(self) -> list[TickT]:
        ticks = [*self.prefetched, *self._fresh, *self._newest.values()]
        self._fresh = []
        self._newest.clear()
        return ticks

    def _batch(self) -> list[TickT]:
        if self._fresh or len(self._newest) <= BATCH_SIZE:
            return self._drain()
        # A few at a time, as all of them may have to be requeued when the next message arrives.
        return [self._newest.popitem(last=False)[1] for _ in range(BATCH_SIZE)]


class BlockingBuffer(TickBuffer[TickT]):
    """A buffer of Policy.BLOCK: every tick, and no more reading beyond `bound` of them."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._ticks: list[TickT] = []
        self._bound = bound
        self._room = asyncio.Event()

    @property
    def pending(self) -> int:
        return len(self._ticks) + length_hint(self.prefetched)

    def put(self, ticks: list[TickT]) -> Awaitable[None] | None:
        if len(self._ticks) >= self._bound:
            # The feed did not wait for room: the connection that was held up is lost, and this is
            # the first message of the next one. However many connections follow, the buffer does
            # not grow.
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

    def _drain(self) -> list[TickT]:
        ticks, self._ticks = self._ticks, []
        self._room.set()
        return ticks


class DroppingBuffer(TickBuffer[TickT]):
    """A buffer of Policy.DROP_OLDEST: the newest `bound` ticks."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._ticks: deque[TickT] = deque(maxlen=bound)
        self._bound = bound

    @property
    def pending(self) -> int:
        return len(self._ticks) + length_hint(self.prefetched)

    def put(self, ticks: list[TickT]) -> None:
        self.lost += max(0, len(self._ticks) + len(ticks) - self._bound)
        self._ticks.extend(ticks)
        self._notify()

    def _drain(self) -> list[TickT]:
        ticks = list(self._ticks)
        self._ticks.clear()
        return ticks


class MessageBuffer(Buffer[bytes]):
    """A buffer of undecoded messages; beyond `bound` bytes the oldest are dropped."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._bound = bound

    @property
    def pending(self) -> int:
        return len(self._messages)

    def put(self, message: bytes) -> None:
        """Take over a message. The newest is kept, however long it is."""
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


def tick_buffer(policy: Policy, bound: int) -> TickBuffer[TickT]:
    """Return a buffer of that policy. Raises UsageError for a bound below 1."""
    if bound < 1:
        raise UsageError(f"bound={bound}: must be at least 1 tick")
    if policy is Policy.BLOCK:
        return BlockingBuffer(bound)
    return DroppingBuffer(bound) if policy is Policy.DROP_OLDEST else ConflatingBuffer()
