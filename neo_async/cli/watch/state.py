"""The state that `neo-async watch` shows, gathered from the feeds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from neo_async.base.text import shown
from neo_async.cli.exits_output import read_journal
from neo_async.client import NeoClient
from neo_async.errors import NeoError
from neo_async.execution.order import Order
from neo_async.execution.order_book_poller import OrderBookPoller
from neo_async.execution.order_cache import OrderCache
from neo_async.exits.plan import PlanChange
from neo_async.exits.state import PlanState
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Position
from neo_async.model.ticks import IndexTick, PriceTick, ScripTick
from neo_async.model.updates import OrderUpdate, PositionUpdate

ShownTick: TypeAlias = PriceTick | IndexTick

USUAL = (
    "nse_cm|Nifty 50",
    "nse_cm|2885",
    "nse_cm|1333",
    "nse_cm|4963",
    "nse_cm|1594",
    "nse_cm|11536",
    "nse_cm|3045",
)
"""Instruments that are watched by default: the index, RELIANCE, HDFCBANK, ICICIBANK, INFY, TCS and
SBIN."""

_RATE_OVER = 3.0
"""Seconds over which ticks are counted for their rate."""
_DELAYS_KEPT = 500
_JOURNAL_EVERY = 1.0
"""Seconds between two readings of the journal of another process."""


class Seen:
    """The newest tick of an instrument."""

    def __init__(self, tick: ShownTick) -> None:
        self.tick = tick
        self.moved = 0
        """1 when the last change of the price was upwards, -1 downwards, 0 before the first."""
        self.moved_at = 0.0

    def take(self, tick: ShownTick) -> None:
        if tick.last_price != self.tick.last_price:
            self.moved = 1 if tick.last_price > self.tick.last_price else -1
            self.moved_at = time.monotonic()
        self.tick = tick

    @property
    def age(self) -> float:
        """Seconds since the tick arrived."""
        return max(0.0, time.time() - self.tick.received_ns / 1e9)


class Watched:
    """The watched instruments and orders of an account, kept current within the `async with`
    block."""

    def __init__(
        self, neo: NeoClient, chosen: Sequence[str], level: Level, *, journal: Path | None = None
    ) -> None:
        """Watch the instruments in `chosen`, in the feed's notation; by default those that the
        account trades. `journal` is that of another process, whose exit plans are shown."""
        self.neo = neo
        self._journal = journal
        self._journal_read_at = -math.inf
        self._kept_plans: list[PlanChange] = []
        self.feed: MarketFeed[PriceTick] = neo.market_feed(level=level)
        self.order_feed: OrderFeed = neo.order_feed
        self.seen: dict[str, Seen] = {}
        self.notices: deque[tuple[float, str]] = deque(maxlen=20)
        """Notices with their Unix seconds, newest last."""
        self.tick_delays: deque[float] = deque(maxlen=_DELAYS_KEPT)
        """Seconds from the exchange's timestamp, in whole seconds, to the arrival of each tick."""
        self.update_delays: deque[float] = deque(maxlen=_DELAYS_KEPT)
        """Seconds from the broker's timestamp to the arrival of each order update."""
        self._chosen = list(chosen)
        self._shown: dict[str, None] = {}
        self._subscribed: set[str] = set()
        # A cache of its own, with the orders that other applications place, too.
        self._cache = OrderCache()
        self._poller = OrderBookPoller(self._cache, self._read_book)
        self._instruments: dict[tuple[str, str], str] = {}
        """Instruments of orders, by segment and symbol."""
        now = time.time()
        self._live_since: dict[MarketFeed[PriceTick] | OrderFeed, float] = {
            self.feed: now,
            self.order_feed: now,
        }
        """Unix seconds at which each feed became live. Earlier timestamps are of missed updates,
        and no measure of latency."""
        self._counts: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._consumers: list[asyncio.Task[None]] = []

    # --- what there is ------------------------------------------------------------------------

    @property
    def instruments(self) -> list[str]:
        """The instruments to show, in this order; some may have no tick yet."""
        return list(self._shown)

    @property
    def has_depth(self) -> bool:
        """Whether five levels of each book are watched."""
        return self.feed.level is Level.DEPTH

    @property
    def orders(self) -> list[Order]:
        """Today's orders: open ones first, then the latest changed."""
        return sorted(
            self._cache.orders.values(),
            key=lambda order: (not order.is_final, order.updated_ns, order.number),
            reverse=True,
        )

    @property
    def positions(self) -> list[Position]:
        """Positions: open ones first, then those with the largest P&L."""
        return sorted(
            self.neo.portfolio.live.positions.values(),
            key=lambda one: (one.net_quantity == 0, -abs(one.pnl or 0.0), one.symbol),
        )

    @property
    def plans(self) -> list[PlanChange]:
        """Exit plans: those of the client and of the journal that have not ended, oldest first."""
        own = self.neo.exits.plans if "exits" in vars(self.neo) else []  # made on first use
        return [*(plan.snapshot() for plan in own if not plan.is_final), *self._kept_plans]

    @property
    def ticks_per_second(self) -> float:
        (began, first), (ended, last) = self._counts[0], self._counts[-1]
        return (last - first) / (ended - began) if ended > began else 0.0

    def label(self, instrument: str) -> str:
        """Return the trading symbol, as soon as the server has sent it."""
        seen = self.seen.get(instrument)
        if seen is None:
            return shown(self.feed.symbols.get(instrument) or instrument)
        tick = seen.tick
        name = tick.name if isinstance(tick, IndexTick) else tick.symbol
        return shown(name or self.feed.symbols.get(instrument) or instrument)

    # --- how it is kept -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.order_feed.subscribe(self._cache.on_update)
        self._poller.attach(self.order_feed)
        self.order_feed.subscribe(self._apply_update)
        self._note_events("order feed", self.order_feed)
        self._note_events("market feed", self.feed)
        try:
            await self._read_book()
            await self.neo.portfolio.live.start()
            await self._subscribe(self._wanted())
            await self.feed.__aenter__()
        except BaseException:
            await self._close()
            raise
        self._consumers = [
            asyncio.create_task(self._take_prices(), name="watch: prices"),
            asyncio.create_task(self._take_indices(), name="watch: indices"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def look(self) -> None:
        """Refresh what has to be counted or fetched, before each update of the screen."""
        for consumer in self._consumers:
            if consumer.done():
                consumer.result()
        now = time.monotonic()
        self._counts.append((now, self.feed.ticks))
        while len(self._counts) > 2 and self._counts[0][0] < now - _RATE_OVER:
            self._counts.popleft()
        self._note_refusals()
        await self._read_journal(now)
        try:
            await self._subscribe(self._wanted())
        except NeoError as error:
            self.note(str(error))

    async def _read_journal(self, now: float) -> None:
        if self._journal is None or now < self._journal_read_at + _JOURNAL_EVERY:
            return
        self._journal_read_at = now
        try:
            kept = await asyncio.to_thread(read_journal, self._journal)
        except NeoError as error:
            self.note(str(error))
            return
        self._kept_plans = [
            PlanChange.of(one.state, at=time.time())
            for one in kept
            if one.account == self.neo.ucc and not one.is_final and isinstance(one.state, PlanState)
        ]

    def note(self, text: str) -> None:
        self.notices.append((time.time(), shown(text)))

    @contextlib.contextmanager
    def warnings_noted(self) -> Iterator[None]:
        """Show warnings of the log as notices: a line on stderr would break the screen."""
        handler = _Notices(self)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)

    async def _close(self) -> None:
        for consumer in self._consumers:
            consumer.cancel()
        await asyncio.gather(*self._consumers, return_exceptions=True)
        self.order_feed.unsubscribe(self._apply_update)
        self.order_feed.unsubscribe(self._cache.on_update)
        await self.feed.close()
        await self._poller.close()

    async def _take_prices(self) -> None:
        async for ticks in self.feed.batches():
            for tick in ticks:
                self.neo.portfolio.live.on_tick(tick)
                self._take(tick)

    async def _take_indices(self) -> None:
        async for tick in self.feed.indices():
            self._take(tick)

    def _take(self, tick: ShownTick) -> None:
        seen = self.seen.get(tick.instrument)
        if seen is None:
            self.seen[tick.instrument] = Seen(tick)
            return
        stamp = _stamp(tick)
        if stamp > max(_stamp(seen.tick), self._live_since[self.feed]):
            self.tick_delays.append(tick.received_ns / 1e9 - stamp)
        seen.take(tick)

    def _apply_update(self, update: OrderUpdate | PositionUpdate) -> None:
        if isinstance(update, OrderUpdate):
            stamp = update.updated_ns / 1e9
            if stamp > self._live_since[self.order_feed]:
                self.update_delays.append(time.time() - stamp)
            self._learn_instruments([update])

    async def _read_book(self) -> None:
        rows = await self.neo.orders.book()
        self._learn_instruments(rows)
        for row in rows:
            if row.has_number:
                self._cache.register(row)

    def _learn_instruments(self, rows: Iterable[OrderRow]) -> None:
        for row in rows:
            if row.segment and row.symbol and row.token.isdecimal():
                self._instruments[row.segment, row.symbol] = f"{row.segment}|{row.token}"

    def _wanted(self) -> list[str]:
        """Return the instruments to subscribe: those shown, and those of positions, for their
        valuation."""
        held = [
            position.row.instrument
            for position in self.positions
            if position.net_quantity != 0 and position.row.has_instrument
        ]
        if self._chosen:
            self._shown.update(dict.fromkeys(self._chosen))
        else:
            working = [
                instrument
                for order in self.orders
                if not order.is_final
                and (instrument := self._instruments.get((order.segment, order.symbol)))
            ]
            self._shown.update(dict.fromkeys([*held, *working]))
            if not self._shown:
                self._shown.update(dict.fromkeys(USUAL))
        return [*self._shown, *held]

    async def _subscribe(self, names: Iterable[str]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._subscribed]
        if not new:
            return
        self._subscribed.update(new)
        await self.feed.subscribe(new)

    def _note_refusals(self) -> None:
        while self.feed.refusals:
            self.note(f"not subscribed: {self.feed.refusals.popleft()}")

    def _note_events(self, name: str, feed: MarketFeed[PriceTick] | OrderFeed) -> None:
        def at_event(event: FeedEvent) -> None:
            if event.state is FeedState.WAITING:
                self.note(f"{name} lost: {event.reason}")
            elif event.state is FeedState.LIVE:
                self._live_since[feed] = event.at
                if feed.last_gap is not None:
                    self.note(f"{name} live again after {feed.last_gap:.1f} s")

        feed.on_event(at_event)


class _Notices(logging.Handler):
    def __init__(self, watched: Watched) -> None:
        super().__init__(logging.WARNING)
        self._watched = watched

    def emit(self, record: logging.LogRecord) -> None:
        self._watched.note(record.getMessage())


def _stamp(tick: ShownTick) -> int:
    """Return the exchange's timestamp in Unix seconds."""
    if isinstance(tick, ScripTick):
        return max(tick.last_update_time, tick.last_trade_time)
    return tick.last_trade_time
