"""Live positions: the position book, kept current by the order feed, by ticks and by reports.

The positions report is read again whenever the messages are not enough: after a reconnect, when a
message is about a position that is not known, and when a fill was reported that no position message
has covered in time. It is also read at midnight, at the start of trading, and every five minutes,
for trades of which no message arrived. Positions are valued as by `Portfolio.positions`, so both
agree to the paisa.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

from neo_async.base import logs
from neo_async.base.india import DAY_SECONDS, day_number, second_of_day
from neo_async.base.logs import Log, logger_of
from neo_async.errors import NotLoggedIn, UsageError
from neo_async.feeds.order_feed import OrderSource
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Holding, Position, PositionKey, PositionRow, TotalPnl
from neo_async.model.ticks import LiteTick, ScripTick, Tick
from neo_async.model.updates import PositionUpdate
from neo_async.portfolio.coverage import Coverage
from neo_async.portfolio.position_book import PositionBook
from neo_async.portfolio.position_effects import ReportEffect
from neo_async.portfolio.position_rows import instrument_of
from neo_async.portfolio.valuation import total_pnl
from neo_async.session.polling import Poller

READ_INTERVAL_SECONDS = 300.0
"""Most time between two readings of the report, whatever the feed reports."""

_LAG_READ_SECONDS = 15.0
"""Time between two readings of a report that lags behind the messages."""

_BOUNDARIES = (0, 9 * 3600, 9 * 3600 + 15 * 60)
"""Seconds of the day in India after which the report is read anew: at midnight the broker may begin
a new day, and it has done so at the latest when trading begins (9:00 for commodities and
currencies, 9:15 for shares)."""

Report: TypeAlias = tuple[list[PositionRow], Mapping[str, Holding]]
"""The positions report, and the holdings as far as its rows need them, by instrument; see
`holdings_by_instrument`."""


class LivePositions:
    """Positions and their values, kept current from `start` on.

        await neo.portfolio.live.start()
        feed = neo.market_feed(on_tick=neo.portfolio.live.on_tick)

    Prices are those of the report until the first tick of an instrument; `instruments` is what to
    subscribe.
    """

    def __init__(
        self,
        report: Callable[[], Awaitable[Report]],
        *,
        grace_period: float = 1.0,
        clock: Callable[[], float] = time.time,
        log: Log | None = None,
    ) -> None:
        """`grace_period` is the time, in seconds, for which a fill may lack its position message,
        and the least time between two readings of the report (but a reconnect makes one at once).
        `clock` gives Unix seconds, by which a new day begins."""
        self._report = report
        self._log = log or logger_of(logs.PORTFOLIO)
        self._grace_period = grace_period
        self._clock = clock
        self._book = PositionBook()
        self._feed: OrderSource | None = None
        self._is_started = False
        self._coverage = Coverage()

        self._poller = Poller("positions report", self._read, self._due_in, self._log)
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._read_period = (0, 0)
        """Part of the day in which the last reading began; see `_period`."""
        self._is_behind = False
        """Whether the report has to be read again."""
        self._uncertain_since = math.inf
        """Time of the loop since which only the report can show what has happened; inf while the
        messages can."""
        self._uncertain_before = math.inf
        """The same time of a reading that is under way: restored when it fails."""

        self._changed: asyncio.Event | None = None
        """Set at the next change; None while no task waits for it."""
        self._unseen: dict[int, dict[PositionKey, None]] = {}
        """Changed positions that each consumer of `changes` has not taken yet."""

    # --- positions ----------------------------------------------------------------------------

    @property
    def positions(self) -> Mapping[PositionKey, Position]:
        """Open and closed positions of the day and those carried, at this moment."""
        return self._book.positions

    @property
    def instruments(self) -> list[str]:
        """Instruments of the positions that are not closed, as the market feed names them."""
        positions = self.positions.values()
        open_ones = (position for position in positions if position.net_quantity != 0)
        return list(dict.fromkeys(instrument_of(position.row) for position in open_ones))

    def total(self) -> TotalPnl:
        """Return the P&L over all positions."""
        return total_pnl(self.positions)

    def net_range(self, segment: str, symbol: str) -> tuple[int, int] | None:
        """Return the least and the most units of an instrument that may be held over all products:
        they differ while a fill was reported, and not yet its effect on the position. None when no
        bound is known: a quantity of a position or a fill cannot be read, or the instrument of a
        position that is not flat."""
        return self._book.net_range(segment, symbol, self._today())

    @property
    def is_started(self) -> bool:
        """Whether the positions are kept current."""
        return self._is_started

    @property
    def is_current(self) -> bool:
        """False while a trade may have happened that `positions` does not show."""
        return (
            self._is_started
            and self._feed is not None
            and self._feed.is_live
            and not self._reading.locked()
            and not self._poller.is_requested
            and not self._is_behind
            and self._read_period == self._period()
            and not self._book.has_unlisted
            and not self._book.awaits_messages
        )

    @property
    def age(self) -> float:
        """Seconds since the last moment at which `net_range` certainly included every trade: 0
        while the order feed is live, inf before the first reading."""
        if not self._is_started:
            return math.inf
        now = asyncio.get_running_loop().time()
        uncertain_since = min(self._uncertain_since, self._uncertain_before)
        age = max(self._coverage.age(now), now - uncertain_since)
        if self._read_period[0] != self._today():
            return max(age, second_of_day(self._clock()))
        return age

    @property
    def read_at(self) -> float:
        """Time of the loop at which the last reading of the report ended; long ago before the
        first."""
        return self._read_at

    async def changes(self) -> AsyncIterator[Position]:
        """Yield every position that changes from now on, by trades or by its price. A slow consumer
        gets the newest state of each."""
        unseen: dict[PositionKey, None] = {}
        self._unseen[id(unseen)] = unseen
        try:
            while True:
                while not unseen:
                    await self._until_changed()
                key = next(iter(unseen))
                del unseen[key]
                if key in self._book:
                    yield self._book.position(key)
        finally:
            del self._unseen[id(unseen)]

    async def wait(
        self, condition: Callable[[LivePositions], bool], *, timeout: float | None = None
    ) -> None:
        """Wait until `condition` is true; it is evaluated at every change.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition(self):
                await self._until_changed()

    def __repr__(self) -> str:
        state = (
            "current" if self.is_current else "catching up" if self._is_started else "not started"
        )
        return f"<LivePositions {len(self._book)}, {state}>"

    # --- start and end ------------------------------------------------------------------------

    def attach(self, feed: OrderSource) -> None:
        """Take the trades from this feed. Called once, before it is started."""
        self._feed = feed
        self._coverage.attach(feed)
        feed.subscribe(self._on_update)
        feed.on_event(self._on_feed_event)

    def ignore_fills_if(self, is_odd: Callable[[OrderRow], bool]) -> None:
        """Ignore the filled quantity of an order's report where `is_odd` finds that it is
        impossible."""
        self._book.is_odd = is_odd

    async def start(self) -> None:
        """Read the positions, and keep them current until the logout.

        Raises what `Portfolio.positions` raises.
        """
        if self._feed is None:
            raise UsageError("live positions need the order feed: attach() comes before start()")
        if self._is_started:
            return
        self._is_started = True
        self._feed.start()
        try:
            await self._read()
        except BaseException:
            await self.close()
            raise
        self._poller.look()

    async def close(self) -> None:
        """Stop keeping them current."""
        self._is_started = False
        await self._poller.close()
        self._publish(())

    # --- updates ------------------------------------------------------------------------------

    def on_tick(self, tick: Tick) -> None:
        """Value positions at the tick's price; ticks of other instruments are passed over."""
        if self._book.has_instrument(tick.instrument) and isinstance(tick, LiteTick | ScripTick):
            self.price(tick.instrument, tick.last_price)

    def price(self, instrument: str, last_price: float) -> None:
        """Value positions at a price from another source, as at that of a tick."""
        if changed := self._book.apply_price(instrument, last_price):
            self._publish(changed)

    def on_missed_fill(self, row: OrderRow) -> None:
        """Take over a fill that the order book has shown and the feed has not. The report is read
        in any case, for the position message may be lost as well."""
        self._on_fill(row, is_young=False)
        self._mark_uncertain()

    def on_order_book(self, rows: Iterable[OrderRow]) -> None:
        """Take over the fills of a whole order book that no message has reported, also those of
        orders that are not known otherwise."""
        today = self._today()
        for row in rows:
            if self._book.is_new_fill(row, today):
                self._on_fill(row, is_young=False)

    def refresh(self) -> None:
        """Read the report again soon."""
        if self._is_started:
            self._is_behind = True
            self._poller.look()

    def _mark_uncertain(self) -> None:
        """Read the report again soon, because something has happened that only it can show."""
        now = asyncio.get_running_loop().time()
        self._uncertain_since = min(self._uncertain_since, now)
        self.refresh()

    def _on_feed_event(self, event: FeedEvent) -> None:
        if self._is_started:
            if event.state is FeedState.LIVE:
                self._poller.ask()
            self._publish(())

    def _on_update(self, update: OrderRow | PositionUpdate) -> None:
        if isinstance(update, OrderRow):
            self._on_fill(update)
        elif self._is_started:
            self._on_message(update)

    def _on_fill(self, row: OrderRow, *, is_young: bool = True) -> None:
        now = asyncio.get_running_loop().time()
        fill = self._book.apply_fill(row, now=now, today=self._today())
        if fill is None:
            return
        if fill.key is None:
            self._mark_uncertain()
        elif self._is_started:
            self._book.await_message(fill, now, is_young=is_young)
            self._poller.look()

    def _on_message(self, update: PositionUpdate) -> None:
        effect = self._book.apply_message(update)
        if effect.is_unidentified:
            self._mark_uncertain()
        elif effect.is_unlisted:
            # Not uncertain: `net_range` takes the message into account.
            self.refresh()
        elif effect.changed:
            self._publish([effect.changed])

    # --- the report ---------------------------------------------------------------------------

    def _due_in(self) -> float:
        """Return the seconds until the report has to be read."""
        now, read_at = asyncio.get_running_loop().time(), self._poller.read_at
        due = max(read_at, self._read_at) + READ_INTERVAL_SECONDS
        due = min(due, now + self._until_next_period())
        if self._is_behind or self._read_period != self._period():
            due = min(due, read_at + self._grace_period)
        if self._book.has_unlisted:
            due = min(due, read_at + self._grace_period * 2**self._book.unlisted_reads)
        if self._book.awaits_messages:
            due = min(due, max(read_at, self._book.awaiting_since) + self._grace_period)
        if self._book.is_report_behind:
            due = min(due, read_at + _LAG_READ_SECONDS)
        return due - now

    def _period(self) -> tuple[int, int]:
        """Return the number of the day in India, and of the part of it: the report of an earlier
        one may be out of date."""
        now = self._clock()
        return day_number(now), bisect.bisect_right(_BOUNDARIES, second_of_day(now))

    def _today(self) -> int:
        """Return the number of the day in India."""
        return day_number(self._clock())

    def _until_next_period(self) -> float:
        second = second_of_day(self._clock())
        return next((at for at in _BOUNDARIES if at > second), DAY_SECONDS) - second

    async def _read(self) -> None:
        # Before the lock: waiting for another reading must not make this one look newer.
        requested_at, period = asyncio.get_running_loop().time(), self._period()
        async with self._reading:
            self._uncertain_before, self._uncertain_since = self._uncertain_since, math.inf
            self._is_behind = False
            self._book.begin_report()
            try:
                rows, holdings = await self._report()
            except BaseException:
                self._book.abandon_report()
                self._is_behind = True
                self._uncertain_since = min(self._uncertain_since, self._uncertain_before)
                raise
            finally:
                self._uncertain_before = math.inf
        self._read_at = asyncio.get_running_loop().time()
        self._read_period = period
        self._coverage.take_report(requested_at)
        effect = self._book.apply_report(
            rows, holdings, requested_at=requested_at, received_at=self._read_at
        )
        self._log_report(effect)
        self._publish(effect.changed)

    def _log_report(self, effect: ReportEffect) -> None:
        for position in effect.overruled:
            self._log.warning(
                "the positions report has lacked trades in %s for %.0f s that the order "
                "feed has reported: bought and sold %s there, %s here; the report counts",
                position.key,
                position.seconds,
                position.reported,
                position.known,
            )
        if effect.dropped:
            self._log.warning(
                "the positions report lacks what was traded in %s", list(effect.dropped)
            )

    # --- subscribers --------------------------------------------------------------------------

    def _publish(self, keys: Iterable[PositionKey]) -> None:
        """Wake the tasks that wait: these positions have changed, or, when there are none,
        something else has."""
        for key in keys:
            for unseen in self._unseen.values():
                unseen[key] = None
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _until_changed(self) -> None:
        if not self._is_started:
            raise NotLoggedIn("live positions are kept from `await start()` until the logout")
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()
