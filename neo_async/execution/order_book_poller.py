"""Polls the order book: it is read when the order feed may have left something open.

The order feed is fast but may lose, repeat and mix up messages; the order book is slow and right.
So the book is read once after every reconnect, whenever a message leaves something open, and when
no message has come about an open order for a while. While there is no feed, the book is polled for
those who wait for an order.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from neo_async.errors import NotLoggedIn
from neo_async.execution.order_cache import OrderCache
from neo_async.feeds.order_feed import OrderSource
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.session.polling import Poller

POLL_EVERY = 0.5
"""Seconds between two readings while an order is waited for and there is no live feed."""


class OrderBookPoller:
    """Reads the order book when an order cache, or those who wait for its orders, need it.

    Applying the book to the cache is the reader's task.
    """

    def __init__(
        self,
        cache: OrderCache,
        read_book: Callable[[], Awaitable[object]],
        *,
        interval: float = POLL_EVERY,
    ) -> None:
        """`interval` is the time in seconds between two readings while an order is waited for and
        there is no live feed."""
        self._cache = cache
        self._read_book = read_book
        self._interval = interval
        self._feed: OrderSource | None = None
        self._poller = Poller("order book", self._read, self._due_in, cache.log)
        cache.on_uncertainty(self._poller.look)

    def attach(self, feed: OrderSource) -> None:
        """Take the state of this order feed into account. Called once, before it is started."""
        self._feed = feed
        feed.on_event(self._on_feed_event)

    @property
    def read_at(self) -> float:
        """Time of the loop at which the last reading ended; minus infinity before the first."""
        return self._poller.read_at

    def request(self) -> None:
        """Have the book read, beginning no earlier than now."""
        self._poller.ask()

    async def close(self) -> None:
        """Stop reading; tasks that wait for an order raise NotLoggedIn."""
        await self._poller.close()
        self._cache.waiters.dismiss()

    def _on_feed_event(self, event: FeedEvent) -> None:
        self._cache.start_following()
        if event.state is FeedState.LIVE:
            self._poller.ask()
        elif self._cache.waiters:
            self._poller.look()

    def _due_in(self) -> float | None:
        """Return the seconds until the book has to be read; None when nothing needs it."""
        due_at = self._cache.book_due_at(self._poller.read_at)
        if self._cache.waiters and not (self._feed is not None and self._feed.is_live):
            due_at = min(due_at, self._poller.read_at + self._interval)
        return None if due_at == math.inf else due_at - asyncio.get_running_loop().time()

    async def _read(self) -> None:
        try:
            await self._read_book()
        except NotLoggedIn:
            self._cache.waiters.dismiss()
