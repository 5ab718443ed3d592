"""Coverage: up to which moment a report and the messages after it are complete."""

from __future__ import annotations

import asyncio
import math

from neo_async.feeds.order_feed import OrderSource
from neo_async.model.feed_state import FeedEvent, FeedState


class Coverage:
    """The moment up to which a report of the account, with the messages of the order feed that
    followed it, is complete.

    With a live feed, and a report that was requested after the feed had become live, that is the
    present moment; without the feed, the loss of it or the request of a later report.
    """

    def __init__(self) -> None:
        self._live_since: float | None = None
        self._is_complete = False
        self._until = -math.inf
        """Time of the loop of that moment, while it is not the present one."""
        self.requested_at = -math.inf
        """Time of the loop at which the newest complete report was requested."""

    def attach(self, feed: OrderSource) -> None:
        """Take the state of this feed into account. Called once, before it is started."""
        feed.on_event(self._on_feed_event)

    def take_report(self, requested_at: float) -> None:
        """Take into account that a complete report was read."""
        self.requested_at = max(self.requested_at, requested_at)
        self._until = max(self._until, requested_at)
        # A report requested earlier may lack what happened before the feed was live.
        if self._live_since is not None and requested_at >= self._live_since:
            self._is_complete = True

    @property
    def is_complete(self) -> bool:
        """Whether report and messages are complete up to the present moment."""
        return self._is_complete

    def age(self, now: float) -> float:
        """Return the seconds since the moment up to which they are complete; inf before the first
        report."""
        return 0.0 if self._is_complete else now - self._until

    def _on_feed_event(self, event: FeedEvent) -> None:
        now = asyncio.get_running_loop().time()
        if event.state is FeedState.LIVE:
            self._live_since = now
            return
        if self._is_complete:
            self._until = now
        self._live_since = None
        self._is_complete = False
