"""The kill switch: no new orders from this moment on, and none left open.

It is turned by whoever calls `halt`, by a signal, or by the dead man's switch below it: when the
event loop was held up or a feed was down for too long, nobody is looking after the orders.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeAlias
from weakref import WeakKeyDictionary

from neo_async.config import RiskLimits
from neo_async.errors import (
    Halted,
    NeoError,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
    UsageError,
)
from neo_async.feeds import ColumnFeed, MarketFeed, OrderFeed
from neo_async.logs import Subject, tell
from neo_async.orders import Orders
from neo_async.tracking import Order, Tracker
from neo_async.transport.backoff import backoff
from neo_async.transport.limiter import Kind
from neo_async.transport.websocket import FeedState

log = logging.getLogger(__name__)

Feed: TypeAlias = OrderFeed | MarketFeed | ColumnFeed

AGAIN = 2.0
"""Seconds after which an order whose cancellation was accepted, and which is open all the same, is
cancelled once more."""

RETRY_BASE = 0.1
RETRY_CAP = 5.0
"""Seconds between two looks at what is still open."""

BEATS = 10
"""Looks at the loop and the feeds in the shortest time that they may fail."""
LONGEST_BEAT = 1.0


class KillSwitch:
    """Turned by `halt`, and back by `resume` only. `close` ends what a halt has not finished."""

    def __init__(
        self, orders: Orders, tracker: Tracker, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._orders = orders
        self._tracker = tracker
        self._clock = clock
        self._listeners: list[Callable[[Halted], None]] = []
        self._watch: Callable[[], None] | None = None
        self._cancelling: asyncio.Task[list[Order | NeoError]] | None = None
        self._ending = asyncio.Event()
        """Set when what is open has to be left as it is."""
        self._signals: dict[int, asyncio.AbstractEventLoop] = {}
        self._cancels = False
        """Whether what is open during the present halt is to be cancelled."""
        self.halted: Halted | None = None
        orders.on_latecomer(self._cancel_latecomer)

    def halt(
        self, *, cancel_open: bool = True, reason: str = "halt() was called"
    ) -> Awaitable[list[Order | NeoError]]:
        """See NeoClient.halt."""
        if self.halted is None:
            self._turn(Halted(reason, since=self._clock()))
        if not cancel_open:
            nothing: asyncio.Future[list[Order | NeoError]] = (
                asyncio.get_running_loop().create_future()
            )
            nothing.set_result([])
            return nothing
        self._cancels = True
        if self._cancelling is None or self._cancelling.done():
            self._ending.clear()
            self._cancelling = asyncio.create_task(self._cancel_open(), name="halt")
        # Whoever gives up waiting does not take the cancelling with it.
        return asyncio.shield(self._cancelling)

    def resume(self) -> None:
        """Let orders go out again, and leave those that are still open."""
        if self.halted is not None:
            log.warning("the halt is over (%s)", self.halted.reason)
        self.halted = None
        self._cancels = False
        self._ending.set()
        self._orders.refuse_by(None if self._watch is None else self._refusal)

    def on_halt(self, listener: Callable[[Halted], None]) -> None:
        self._listeners.append(listener)

    def watch_by(self, watch: Callable[[], None] | None) -> None:
        """Let `watch` look before every placement and change whether there is reason to halt."""
        self._watch = watch
        if self.halted is None:
            self._orders.refuse_by(None if watch is None else self._refusal)

    def on_signal(self, number: int) -> None:
        """See NeoClient.halt_on_signal."""
        loop = asyncio.get_running_loop()
        name = signal.Signals(number).name
        try:
            loop.add_signal_handler(number, lambda: self.halt(reason=f"signal {name}"))
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"signal {name} cannot be handled ({error or 'not on this system'}): it takes an "
                "event loop in the main thread, and not Windows"
            ) from error
        self._signals[number] = loop

    def stop(self) -> None:
        """Leave alone what is still open, and the signals."""
        for number, loop in self._signals.items():
            loop.remove_signal_handler(number)
        self._signals.clear()
        self._ending.set()

    async def close(self) -> None:
        """Stop, and wait until what was being cancelled is known or has failed."""
        self.stop()
        if self._cancelling is not None:
            await asyncio.wait([self._cancelling])

    # --- new orders ---------------------------------------------------------------------------

    def _turn(self, halted: Halted) -> None:
        self.halted = halted
        self._orders.refuse_by(self._refusal)
        log.critical("%s", halted)
        for listener in [*self._listeners]:
            try:
                listener(halted)
            except Exception:
                log.exception("a listener of the kill switch failed on %r", halted)

    def _refusal(self, kind: Kind) -> Halted | None:
        if kind not in (Kind.PLACE, Kind.MODIFY):
            return None
        if self._watch is not None:
            self._watch()
        if self.halted is None:
            return None
        return Halted(self.halted.reason, since=self.halted.since)  # each raised with its own trace

    # --- open orders --------------------------------------------------------------------------

    def _cancel_latecomer(self, order: Order) -> None:
        """It appeared longer after its placement than any order was thought to take."""
        if self._cancels:
            self.halt()

    async def _cancel_open(self) -> list[Order | NeoError]:
        """Until the book shows that nothing is open and nothing of ours can still arrive."""
        cancelling = _Cancelling(self._orders, self._tracker)
        looks = 0
        while not self._ending.is_set():
            found = await cancelling.look()
            if cancelling.is_over:
                break
            looks = 0 if found else looks + 1
            await self._pause(backoff(looks, base=RETRY_BASE, cap=RETRY_CAP) if looks else 0.0)
        results = cancelling.results()
        problems = [result for result in results if isinstance(result, NeoError)]
        log.log(
            logging.ERROR if problems else logging.WARNING,
            "halt: %d orders were open, %d of them may still be",
            len(results),
            len(problems),
        )
        return results

    async def _pause(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._ending.wait()
        except TimeoutError:
            pass


class _Cancelling:
    """One halt's work on what is open."""

    def __init__(self, orders: Orders, tracker: Tracker) -> None:
        self._orders = orders
        self._tracker = tracker
        self._met: dict[str, Order] = {}
        """Every order that was open."""
        self._asked_at: dict[str, float] = {}
        """Times of the loop at which a cancellation was accepted."""
        self._problems: dict[str, NeoError] = {}
        self._gone: set[str] = set()
        """Orders that the broker says are final."""
        self._blindness: NeoError | None = None
        """Why the order book could not be read."""
        self.is_done = False
        """Whether nothing is open any more."""
        self.is_over = False
        """Whether looking again is of no use."""

    async def look(self) -> bool:
        """Cancel what is open as far as is known, and read the book. Returns whether that found
        orders that nobody has tried to cancel yet."""
        # Those that are known first: the book may be long in coming.
        await self._cancel(
            order for order in self._tracker.open_orders if order.number not in self._gone
        )
        was_quiet = self._orders.is_quiet
        try:
            still_open = await self._orders.read_open()
        except NotLoggedIn as error:
            self._blindness = error
            self.is_over = True
            return False
        except NeoError as error:
            self._blindness = error
            log.warning("halt: the order book could not be read: %s", error)
            return False
        self._blindness = None
        self._gone.difference_update(order.number for order in still_open)
        known = [one for one in self._tracker.open_orders if one.number not in self._gone]
        self.is_done = self.is_over = was_quiet and not still_open and not known
        return any(order.number not in self._met for order in known)

    def results(self) -> list[Order | NeoError]:
        """What became of every order that was open."""
        results: list[Order | NeoError] = [
            order
            if order.is_final or order.number in self._gone
            else self._problems.get(order.number) or _left_open(order)
            for order in self._met.values()
        ]
        if not self.is_done and not any(isinstance(result, NeoError) for result in results):
            results.append(self._blindness or UsageError("the halt was ended before it was done"))
        return results

    async def _cancel(self, orders: Iterable[Order]) -> None:
        now = asyncio.get_running_loop().time()
        due = []
        for order in orders:
            self._met[order.number] = order
            if self._asked_at.get(order.number, -AGAIN) <= now - AGAIN:
                due.append(order)
        await asyncio.gather(*map(self._cancel_one, due))

    async def _cancel_one(self, order: Order) -> None:
        try:
            await self._orders.cancel(order, settle=False)
        except OrderAlreadyFinal:
            self._gone.add(order.number)
        except OutcomeUnknown as error:  # the book tells, and cancelling twice does no harm
            self._problems[order.number] = error
        except NeoError as error:
            self._problems[order.number] = error
            subject = Subject("cancel", order.client_tag, order.number)
            tell(log, logging.WARNING, subject, "the halt could not cancel it: %s", error)
        else:
            self._problems.pop(order.number, None)
            self._asked_at[order.number] = asyncio.get_running_loop().time()


class DeadMansSwitch:
    """Turns the kill switch when nobody can be looking after the orders."""

    def __init__(
        self,
        switch: KillSwitch,
        limits: RiskLimits,
        order_feed: OrderFeed,
        market_feeds: Collection[MarketFeed | ColumnFeed],
    ) -> None:
        self._switch = switch
        self._loop_stall = limits.loop_stall
        self._feed_outage = limits.feed_outage
        self._order_feed = order_feed
        self._market_feeds = market_feeds
        shortest = min(filter(None, (self._loop_stall, self._feed_outage)), default=LONGEST_BEAT)
        self._beat = min(LONGEST_BEAT, shortest / BEATS)
        self._beat_at = 0.0
        self._down_since: WeakKeyDictionary[Feed, float] = WeakKeyDictionary()
        """Times of the loop."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is anything to watch."""
        return self._loop_stall is not None or self._feed_outage is not None

    def start(self) -> None:
        """Watch from now on; a second time changes nothing."""
        if not self.is_set or self._task is not None:
            return
        self._beat_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._watch(), name="dead man's switch")
        if self._loop_stall is not None:
            self._switch.watch_by(self.check_loop)

    async def close(self) -> None:
        self._switch.watch_by(None)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._down_since.clear()

    def check_loop(self) -> None:
        """Halt when the last beat is too long ago: an order may be on its way out before the next
        beat notices."""
        age = asyncio.get_running_loop().time() - self._beat_at
        if self._loop_stall is not None and age > self._loop_stall and self._switch.halted is None:
            self._switch.halt(reason=f"the event loop was held up for {age:.1f} s")

    def _check_feeds(self, now: float) -> None:
        if self._feed_outage is None:
            return
        if self._switch.halted is not None:
            self._down_since.clear()  # once it is over, they have as long as ever
            return
        feed: Feed
        for feed in (self._order_feed, *self._market_feeds):
            if feed.state in (FeedState.LIVE, FeedState.CLOSED):
                self._down_since.pop(feed, None)
                continue
            since = self._down_since.setdefault(feed, now)
            if now - since >= self._feed_outage:
                name = "order" if feed is self._order_feed else "market"
                self._switch.halt(reason=f"the {name} feed was down for {now - since:.1f} s")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            now = asyncio.get_running_loop().time()
            self.check_loop()
            self._beat_at = now
            self._check_feeds(now)


def _left_open(order: Order) -> NeoError:
    return UsageError(f"order {order.number} is {order.status_text}: the halt was ended before")
