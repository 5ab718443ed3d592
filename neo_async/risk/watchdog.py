"""The dead man's switch: halts when the event loop stalls or a feed is down for too long.

In both cases the program cannot look after its orders: a stalled loop runs none of its code, and
without a feed it acts on old prices and old order states.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TypeAlias
from weakref import WeakKeyDictionary

from neo_async.calendar import Calendar
from neo_async.config import RiskLimits
from neo_async.execution.order_cache import OrderCache
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.feeds.trading_hours import is_trading_time
from neo_async.model.enums import Segment
from neo_async.model.feed_state import FeedState
from neo_async.model.ticks import PriceTick
from neo_async.risk.kill_switch import KillSwitch
from neo_async.transport.trading_state import TradingState

Feed: TypeAlias = OrderFeed | MarketFeed[PriceTick] | ColumnFeed

CHECKS_PER_TIMEOUT = 10
"""Checks of the loop and the feeds within the shorter of `loop_stall` and `feed_outage`."""
MAX_CHECK_INTERVAL_SECONDS = 1.0
"""Longest time between two checks."""


def suspended_seconds() -> float:
    """Return the seconds for which this machine was suspended since it was started; 0 where the
    system does not count them apart."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    # The process may be preempted between the two readings, so the difference is not exact.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class DeadMansSwitch:
    """Halts when the event loop stalls, the machine is suspended, or a feed is disconnected for
    longer than the limits allow.

    A feed counts as down only in the trading hours of the segments that the limits allow; without
    such a limit, in those of the segments of the orders in the cache; without orders, in those of
    all segments. A market feed with `market_open` goes by that instead.
    """

    def __init__(
        self,
        switch: KillSwitch,
        state: TradingState,
        limits: RiskLimits,
        cache: OrderCache,
        order_feed: OrderFeed,
        market_feeds: Collection[MarketFeed[PriceTick] | ColumnFeed],
        calendar: Calendar,
        *,
        suspended: Callable[[], float] = suspended_seconds,
    ) -> None:
        """`suspended` gives the seconds for which the machine was suspended so far, which the
        loop's clock leaves out."""
        self._switch = switch
        self._log = switch.log
        self._state = state
        self._limits = limits
        self._cache = cache
        self._calendar = calendar
        self._suspended = suspended
        self._loop_stall = limits.loop_stall
        self._feed_outage = limits.feed_outage
        self._order_feed = order_feed
        self._market_feeds = market_feeds
        shortest = min(
            filter(None, (self._loop_stall, self._feed_outage)),
            default=MAX_CHECK_INTERVAL_SECONDS,
        )
        self._interval = min(MAX_CHECK_INTERVAL_SECONDS, shortest / CHECKS_PER_TIMEOUT)
        self._checked_at = 0.0
        """Time of the loop at which the last check ran."""
        self._suspended_at_check = 0.0
        """Seconds for which the machine had been suspended by then."""
        self._down_since: WeakKeyDictionary[Feed, float] = WeakKeyDictionary()
        """Times of the loop since which feeds are down."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether a limit has to be watched."""
        return self._loop_stall is not None or self._feed_outage is not None

    def start(self) -> None:
        """Watch from now on. A second call does nothing."""
        if not self.is_set or self._task is not None:
            return
        self._record_check()
        self._task = asyncio.create_task(self._watch(), name="dead man's switch")
        if self._loop_stall is not None:
            self._state.set_watchdog(self.check_loop)

    async def close(self) -> None:
        """Stop watching."""
        self._state.set_watchdog(None)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._down_since.clear()

    def check_loop(self) -> None:
        """Halt when the last check was too long ago.

        The limiter calls this before every start as well: after a stall, an order that waited may
        run before the watching task does.
        """
        age = asyncio.get_running_loop().time() - self._checked_at
        age += self._suspended() - self._suspended_at_check
        if self._loop_stall is not None and age > self._loop_stall and self._switch.halted is None:
            self._switch.halt(reason=f"the event loop stalled for {age:.1f} s")

    def _check_feeds(self, now: float) -> None:
        if self._feed_outage is None:
            return
        if self._switch.halted is not None:
            # After the halt, each feed has the whole time again.
            self._down_since.clear()
            return
        feed: Feed
        for feed in (self._order_feed, *self._market_feeds):
            is_up = feed.state in (FeedState.LIVE, FeedState.CLOSED)
            if is_up or not self._is_market_open(feed):
                self._down_since.pop(feed, None)
                continue
            since = self._down_since.setdefault(feed, now)
            if now - since >= self._feed_outage:
                name = "order" if feed is self._order_feed else "market"
                self._switch.halt(reason=f"the {name} feed was down for {now - since:.1f} s")

    def _is_market_open(self, feed: Feed) -> bool:
        if isinstance(feed, MarketFeed | ColumnFeed) and feed.market_open is not None:
            return feed.market_open()
        segments: Collection[str] = self._limits.segments or {
            str(order.segment) for order in self._cache.orders.values()
        }
        return is_trading_time(self._calendar, segments or Segment)

    def _record_check(self) -> None:
        self._checked_at = asyncio.get_running_loop().time()
        self._suspended_at_check = self._suspended()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.check_loop()
                self._record_check()
                self._check_feeds(self._checked_at)
            except Exception:
                # market_open is the program's own function: an error in it must not end the watch.
                self._log.exception("the dead man's switch continues after an error")
