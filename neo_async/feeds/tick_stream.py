"""Streams of the market feed beside prices: indices, market statuses, auctions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Generic

from neo_async.feeds.buffers import TickBuffer, TickT


class TickStream(AsyncIterator[TickT], Generic[TickT]):
    """An iterator over the ticks of one kind, with a buffer of its own. It begins with the newest
    tick of each subject, and ends when the feed is closed."""

    def __init__(self, buffer: TickBuffer[TickT], newest: Iterable[TickT]) -> None:
        self._buffer = buffer
        buffer.put(list(newest))

    def put(self, ticks: list[TickT]) -> Awaitable[None] | None:
        """Take over ticks; an awaitable when the feed must not read on before there is room."""
        return self._buffer.put(ticks)

    def close(self) -> None:
        """Let the consumer take what is pending, and end there."""
        self._buffer.close()

    async def __anext__(self) -> TickT:
        for tick in self._buffer.prefetched:
            return tick
        if not await self._buffer.refill():
            raise StopAsyncIteration
        return next(self._buffer.prefetched)
