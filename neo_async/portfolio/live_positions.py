"""Positions and their worth, kept current by the order feed and by ticks.

What was traded today comes from the feed's position messages, which carry it exactly; what was
carried from earlier days, and everything that describes the instrument, comes from the positions
report. The report is read again whenever the messages alone cannot tell the truth: after a
reconnect, when one is about a position that is not known, and when a fill was reported that no
position message has accounted for in time. It is also read at midnight, at the begin of trading,
and every five minutes, for what no message has told. Order messages are no substitute, for their
average price is rounded. Valuation is that of `Portfolio.positions`, so both agree to the paisa.
"""

from __future__ import annotations

import asyncio
import bisect
import functools
import logging
import math
import operator
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from typing import TypeAlias, TypeGuard

import msgspec

from neo_async import logs
from neo_async.errors import NotLoggedIn, UsageError
from neo_async.feeds.order_feed import OrderSource
from neo_async.model.enums import OrderStatus, Segment, Side
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Holding, Position, PositionRow
from neo_async.model.ticks import LiteTick, ScripTick, Tick
from neo_async.model.updates import PositionUpdate
from neo_async.portfolio.valuation import value_position
from neo_async.session.polling import Poller

log = logging.getLogger(logs.PORTFOLIO)

TRIES = 6
"""Readings of the report for a position that it does not list."""

READ_EVERY = 300.0
"""Seconds between two readings of the report at most, whatever the feed reports."""

REPORT_LAG = 60.0
"""Seconds for which the report may lack trades that messages have reported; after that the report
is right."""

_LAG_READ_EVERY = 15.0
"""Seconds between two readings of a report that lags behind the messages."""

_BOUNDARIES = (0, 9 * 3600, 9 * 3600 + 15 * 60)
"""Seconds of the day in IST after which the report is read anew: at midnight the broker may begin a
new day, and it has done so at the latest when trading begins (9:00 for commodities and currencies,
9:15 for shares)."""

_DAY = 86_400
_IST_OFFSET = 19_800

PositionKey: TypeAlias = tuple[str, str, str]
"""Segment, trading symbol, product, in the spelling of `position_key`."""

Report: TypeAlias = tuple[list[PositionRow], Mapping[str, Holding]]
"""The positions report, and the holdings as far as its rows need them: by instrument
(`nse_cm|11536`), or by token alone where a holding does not name its exchange."""


def position_key(segment: str, symbol: str, product: str) -> PositionKey:
    """The one spelling of a position's key: reports may differ in case and in blanks around."""
    return segment.strip().lower(), symbol.strip().upper(), product.strip().upper()


def holdings_by_instrument(holdings: Iterable[Holding]) -> dict[str, Holding]:
    """The holdings as a Report has them. Several rows of one instrument are one holding, whose
    average price is that of all units."""
    joined: dict[str, Holding] = {}
    for holding in holdings:
        token, segment = holding.token.strip(), holding.segment.strip().lower()
        key = f"{segment}|{token}" if segment in _SEGMENTS else token
        known = joined.get(key)
        joined[key] = holding if known is None else _joined(known, holding)
    return joined


def holding_of(row: PositionRow, holdings: Mapping[str, Holding]) -> Holding | None:
    """The holding that a position's row belongs to: of its exchange and token, or of its token
    where the holding does not name an exchange."""
    return holdings.get(_instrument(row)) or holdings.get(row.token.strip())


class Coverage:
    """How far a report of the account and the messages of the order feed after it are complete.

    With a live feed, and a report that was requested after the feed had become live, they are so up
    to this moment; without the feed, up to its loss or to the request of a later report.
    """

    def __init__(self) -> None:
        self._live_since: float | None = None
        self._is_complete = False
        self._until = -math.inf
        self.requested_at = -math.inf
        """Time of the loop at which the newest complete report was requested."""

    def follow(self, feed: OrderSource) -> None:
        """Take the state of this feed into account. Called once, before it is started."""
        feed.on_event(self._feed_changed)

    def take_report(self, requested_at: float) -> None:
        """Take into account that a complete report was read."""
        self.requested_at = max(self.requested_at, requested_at)
        self._until = max(self._until, requested_at)
        if self._live_since is not None and requested_at >= self._live_since:
            self._is_complete = True

    @property
    def is_complete(self) -> bool:
        """Whether report and messages are complete up to this moment."""
        return self._is_complete

    def age(self, now: float) -> float:
        """Seconds since the moment up to which they are complete; inf before the first report."""
        return 0.0 if self._is_complete else now - self._until

    def _feed_changed(self, event: FeedEvent) -> None:
        now = asyncio.get_running_loop().time()
        if event.state is FeedState.LIVE:
            self._live_since = now
            return
        if self._is_complete:
            self._until = now
        self._live_since = None
        self._is_complete = False


class TotalPnl(msgspec.Struct, frozen=True, kw_only=True):
    """Over all positions; see Position. An amount is None when it is None for any of them."""

    realised: float | None
    unrealised: float | None
    pnl: float | None
    mtm_pnl: float | None
    unknown_reasons: Mapping[PositionKey, str]
    """Of the positions that have an amount which is None."""


class LivePositions:
    """await neo.portfolio.live.start()
    feed = neo.market_feed(on_tick=neo.portfolio.live.on_tick)

    Prices are those of the report until the first tick of an instrument; `instruments` is what to
    subscribe.
    """

    def __init__(
        self,
        report: Callable[[], Awaitable[Report]],
        *,
        patience: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`patience` is how long, in seconds, a fill may lack its position message, and the least
        time between two readings of the report (but a reconnect makes one at once). `clock` gives
        Unix seconds, by which a new day begins."""
        self._report = report
        self._patience = patience
        self._clock = clock
        self._feed: OrderSource | None = None
        self._is_started = False
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._read_period = (0, 0)
        """Part of the day in which the last reading began; see `_period`."""
        self._coverage = Coverage()
        self._poller = Poller("positions report", self._read, self._due_in)

        self._rows: dict[PositionKey, PositionRow] = {}
        self._nameless: set[PositionKey] = set()
        """Those of them that are not flat and do not say what they are of."""
        self._holdings: Mapping[str, Holding] = {}
        self._prices: dict[str, float] = {}
        """By instrument."""
        self._by_instrument: dict[str, list[PositionKey]] = {}
        self._valued: dict[PositionKey, Position] = {}
        """Those whose worth was asked for since they changed."""

        self._is_behind = False
        """The report has to be read again."""
        self._uncertain_since = math.inf
        """Time of the loop since which only the report can tell what has happened; inf when the
        messages can."""
        self._uncertain_before = math.inf
        """The same of a reading that is under way."""
        self._unknown_fills = 0
        """Fills that were reported without saying of what or how much, and that no reading has told
        since."""
        self._ahead_since: dict[PositionKey, float] = {}
        """Times of the loop since which the report lacks trades that messages have reported."""
        self._unlisted: dict[PositionKey, PositionUpdate] = {}
        """Messages about positions that the report did not list yet."""
        self._tries = 0
        self._is_odd: Callable[[OrderRow], bool] = operator.attrgetter("contradicts_itself")
        self._filled: dict[str, int] = {}
        """Units, by order number, as reports of `_heard_day` have told them."""
        self._filled_before: dict[str, int] = {}
        """The same of the last day before on which there was any."""
        self._traded: dict[PositionKey, tuple[int, int]] = {}
        """Units bought and sold today, by the last reading and the fills since then. One of those
        may have been in the reading already, so this may be too much, but never too little."""
        self._heard: defaultdict[PositionKey, list[int]] = defaultdict(lambda: [0, 0])
        """Units bought and sold by orders whose fills were reported on `_heard_day`, until the
        report must have them: may be too little, but never too much."""
        self._heard_at: dict[PositionKey, float] = {}
        """Times of the loop at which the last of those fills was reported."""
        self._heard_day = 0
        self._lacking_since = 0.0

        # What arrives while the report is on its way may be newer than the report.
        self._updates_meanwhile: list[PositionUpdate] = []
        self._fills_meanwhile: list[tuple[PositionKey, int, int]] = []
        self._ticked_meanwhile: set[str] = set()

        self._changed: asyncio.Event | None = None
        self._dirty: dict[int, dict[PositionKey, None]] = {}
        """Of each consumer of `changes`, the positions it has not taken yet."""

    # --- what it says -------------------------------------------------------------------------

    @property
    def positions(self) -> Mapping[PositionKey, Position]:
        """Open and closed positions of the day and those carried, as of now."""
        return {key: self._position(key) for key in self._rows}

    @property
    def instruments(self) -> list[str]:
        """Of the positions that are not closed, as the market feed names them."""
        open_ones = (one for one in self.positions.values() if one.net_quantity != 0)
        return list(dict.fromkeys(_instrument(one.row) for one in open_ones))

    @property
    def is_current(self) -> bool:
        """False while a trade may have happened that `positions` does not show."""
        return (
            self._is_started
            and self._feed is not None
            and self._feed.is_live
            and not self._reading.locked()
            and not self._poller.is_asked
            and not self._is_behind
            and self._read_period == self._period()
            and not self._unlisted
            and not self._lacks_fills()
        )

    @property
    def age(self) -> float:
        """Seconds since the last moment of which it is certain that `net_range` takes every trade
        into account: 0 while the order feed is live, inf before the first reading."""
        if not self._is_started:
            return math.inf
        now = asyncio.get_running_loop().time()
        uncertain_since = min(self._uncertain_since, self._uncertain_before)
        age = max(self._coverage.age(now), now - uncertain_since)
        if self._read_period[0] != self._period()[0]:
            return max(age, self._seconds_of_day())
        return age

    def total(self) -> TotalPnl:
        positions = self.positions
        return TotalPnl(
            realised=_sum(position.realised for position in positions.values()),
            unrealised=_sum(position.unrealised for position in positions.values()),
            pnl=_sum(position.pnl for position in positions.values()),
            mtm_pnl=_sum(position.mtm_pnl for position in positions.values()),
            unknown_reasons={
                key: position.unknown_reason
                for key, position in positions.items()
                if position.unknown_reason
            },
        )

    @property
    def is_started(self) -> bool:
        """Whether they are kept."""
        return self._is_started

    @property
    def read_at(self) -> float:
        """Time of the loop at which the last reading of the report ended; long ago before the
        first."""
        return self._read_at

    def net_range(self, segment: str, symbol: str) -> tuple[int, int] | None:
        """The least and the most units of an instrument that may be held over all products, when
        messages have reported a fill and not yet what it did to the position. None when nobody
        knows: a quantity of a position or a fill cannot be read, or the instrument of a position
        that is not flat."""
        if self._unknown_fills:
            return None
        self._begin_day()
        instrument = position_key(segment, symbol, "")[:2]
        least = most = 0
        keys = self._rows.keys() | self._traded.keys() | self._heard.keys() | self._unlisted.keys()
        for key in keys:
            if key[:2] != instrument:
                if key in self._nameless and _may_be(key, instrument):
                    return None
                continue
            row = self._rows.get(key)
            if row is not None and not row.has_quantities:
                return None
            carried, reported = (row.carried_quantity, _traded(row)) if row else (0, (0, 0))
            at_least = tuple(map(max, reported, self._heard.get(key, (0, 0))))
            at_most = tuple(map(max, at_least, self._traded.get(key, (0, 0))))
            if (update := self._unlisted.get(key)) is not None:
                at_most = tuple(map(max, at_most, _traded(update)))
            least += carried + at_least[0] - at_most[1]
            most += carried + at_most[0] - at_least[1]
        return least, most

    async def changes(self) -> AsyncIterator[Position]:
        """Every position that changes from now on, by trades or by its price. A slow consumer gets
        the newest state of each."""
        dirty: dict[PositionKey, None] = {}
        self._dirty[id(dirty)] = dirty
        try:
            while True:
                while not dirty:
                    await self._until_changed()
                key = next(iter(dirty))
                del dirty[key]
                if key in self._rows:
                    yield self._position(key)
        finally:
            del self._dirty[id(dirty)]

    async def wait(
        self, condition: Callable[[LivePositions], bool], *, timeout: float | None = None
    ) -> None:
        """Wait until `condition` holds; it is tried at every change.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition(self):
                await self._until_changed()

    def __repr__(self) -> str:
        state = (
            "current" if self.is_current else "catching up" if self._is_started else "not started"
        )
        return f"<LivePositions {len(self._rows)}, {state}>"

    # --- what it follows ----------------------------------------------------------------------

    def follow(self, feed: OrderSource) -> None:
        """Learn of trades from this feed. Called once, before it is started."""
        self._feed = feed
        self._coverage.follow(feed)
        feed.subscribe(self._hear)
        feed.on_event(self._feed_changed)

    def doubt_fills_by(self, is_odd: Callable[[OrderRow], bool]) -> None:
        """Believe no report of an order whose filled quantity `is_odd` calls impossible."""
        self._is_odd = is_odd

    async def start(self) -> None:
        """Read the positions, and keep them current until the logout.

        Raises what `Portfolio.positions` raises.
        """
        if self._feed is None:
            raise UsageError("live positions need the order feed: follow() comes before start()")
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
        """Keep them no longer."""
        self._is_started = False
        await self._poller.close()
        self._tell(())

    def refresh(self) -> None:
        """Read the report again soon."""
        if self._is_started:
            self._is_behind = True
            self._poller.look()

    def _doubt(self) -> None:
        """Read the report again soon, because something has happened that only it can tell."""
        now = asyncio.get_running_loop().time()
        self._uncertain_since = min(self._uncertain_since, now)
        self.refresh()

    def repair(self, row: OrderRow) -> None:
        """Take note of a fill that the order book has told, and the feed has not. The report is
        read in any case: the message of the position may be lost as well."""
        self._note_fill(row)
        self._doubt()

    def take_book(self, rows: Iterable[OrderRow]) -> None:
        """Take note of the fills of a whole order book that nothing has told before, also of orders
        that are not known otherwise."""
        today = self._period()[0]
        for row in rows:
            # A book may still be that of yesterday for a while after midnight.
            filled = self._filled_in(row) or 0
            # Without its number, an order that was heard of would count once more.
            is_news = filled > self._known_fill(row.number) and row.has_number
            if is_news and (_day_of_ns(row.updated_ns) or today) >= today:
                self._note_fill(row)

    def on_tick(self, tick: Tick) -> None:
        """Value positions at the tick's price; ticks of other instruments pass by."""
        keys = self._by_instrument.get(tick.instrument)
        if keys is None or not isinstance(tick, LiteTick | ScripTick):
            return
        if is_price(tick.last_price):
            self._take_price(tick.instrument, tick.last_price, keys)

    def price(self, instrument: str, last_price: float) -> None:
        """Value positions at a price that somebody else has, as if a tick had told it."""
        keys = self._by_instrument.get(instrument)
        if keys is not None and is_price(last_price):
            self._take_price(instrument, last_price, keys)

    def _take_price(self, instrument: str, last_price: float, keys: list[PositionKey]) -> None:
        if self._reading.locked():
            self._ticked_meanwhile.add(instrument)
        if self._prices.get(instrument) != last_price:
            self._prices[instrument] = last_price
            self._tell(keys)

    def _feed_changed(self, event: FeedEvent) -> None:
        if self._is_started:
            if event.state is FeedState.LIVE:
                self._poller.ask()
            self._tell(())

    def _hear(self, update: OrderRow | PositionUpdate) -> None:
        if isinstance(update, OrderRow):
            self._note_fill(update)
        elif self._is_started:
            if self._reading.locked():
                self._updates_meanwhile.append(update)
            self._place(update)

    # --- trades -------------------------------------------------------------------------------

    def _filled_in(self, row: OrderRow) -> int | None:
        """Units that an order's report says are filled; None when it does not say it so that it can
        be read and believed. All of a complete one are."""
        if self._is_odd(row):
            return None
        is_told = "filled_quantity" not in row.missing
        if row.status is OrderStatus.COMPLETE and not (is_told and row.filled_quantity):
            return row.quantity if row.quantity > 0 else None
        return row.filled_quantity if is_told else None

    def _note_fill(self, row: OrderRow) -> None:
        """Expect a position message for what an order message says was filled."""
        filled = self._filled_in(row)
        if filled is None and row.status.is_final:
            self._unknown_fills += 1
            self._doubt()
        if not filled:
            return
        self._begin_day()
        quantity = filled - self._known_fill(row.number)
        if quantity <= 0:
            return
        self._filled[row.number] = filled
        side = side_of(row.side)
        if side is None or not (row.segment and row.symbol and row.product):
            self._unknown_fills += 1
            self._doubt()
            return
        bought, sold = (quantity, 0) if side is Side.BUY else (0, quantity)
        key = position_key(row.segment, row.symbol, row.product)
        self._hear_of_trade(key, bought, sold)
        if not self._is_started:
            return
        if self._reading.locked():
            self._fills_meanwhile.append((key, bought, sold))
        self._expect(key, bought, sold)

    def _begin_day(self) -> None:
        """Forget, on a new day, what was traded on earlier ones."""
        today = self._period()[0]
        if self._heard_day == today:
            return
        self._heard.clear()
        self._heard_at.clear()
        if self._filled:
            self._filled_before, self._filled = self._filled, {}
        self._heard_day = today

    def _known_fill(self, number: str) -> int:
        """Units of an order whose fill reports have told."""
        return self._filled.get(number) or self._filled_before.get(number, 0)

    def _hear_of_trade(self, key: PositionKey, bought: int, sold: int) -> None:
        self._heard_at[key] = asyncio.get_running_loop().time()
        heard = self._heard[key]
        heard[0] += bought
        heard[1] += sold

    def _expect(self, key: PositionKey, bought: int, sold: int) -> None:
        if not self._lacks_fills():
            self._lacking_since = asyncio.get_running_loop().time()
        before = self._traded.get(key, (0, 0))
        self._traded[key] = (before[0] + bought, before[1] + sold)
        self._poller.look()

    def _lacks_fills(self) -> bool:
        """Whether an order was filled by more than its position shows."""
        for key, (bought, sold) in self._traded.items():
            row = self._rows.get(key)
            if row is not None and not row.has_quantities:
                continue  # what it shows is not known, and read again with all that is
            shown = (0, 0) if row is None else _traded(row)
            if shown[0] < bought or shown[1] < sold:
                return True
        return False

    def _place(self, update: PositionUpdate) -> None:
        """Take over a position message, or see to a reading of the report."""
        key = self._key_of(update)
        if key is None:
            self._doubt()
            return
        row = self._rows.get(key)
        if row is not None and _continues(update, row):
            self._take(key, row, update)
        elif not self._reading.locked():
            self._unlisted[key] = update
            self._tries = 0
            self.refresh()

    def _key_of(self, update: PositionUpdate) -> PositionKey | None:
        """None when the message does not say which position has changed, or not how."""
        if not all(is_finite(amount) for amount in _amounts(update)):
            return None
        wanted = position_key(update.segment, update.symbol, update.product)
        segment, symbol, product = wanted
        if symbol:
            return wanted if segment and product else None
        fitting = [
            key
            for key, row in self._rows.items()
            if (key[0], key[2]) == (segment, product)
            # All contracts of an underlying share its name.
            and (row.token == update.token if update.token else row.name == update.name)
            and (update.token or not row.is_derivative)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _take(self, key: PositionKey, row: PositionRow, update: PositionUpdate) -> None:
        changed = _updated(row, update)
        if changed is not None:
            self._rows[key] = changed
            self._tell([key])

    # --- the report ---------------------------------------------------------------------------

    def _due_in(self) -> float:
        """Seconds until the report has to be read."""
        now, read_at = asyncio.get_running_loop().time(), self._poller.read_at
        due = min(max(read_at, self._read_at) + READ_EVERY, now + self._until_next_period())
        if self._is_behind or self._read_period != self._period():
            due = min(due, read_at + self._patience)
        if self._unlisted:
            due = min(due, read_at + self._patience * 2**self._tries)
        if self._lacks_fills():
            due = min(due, max(read_at, self._lacking_since) + self._patience)
        if self._ahead_since:
            due = min(due, read_at + _LAG_READ_EVERY)
        return due - now

    def _period(self) -> tuple[int, int]:
        """Number of the day in India, and of the part of it: the report of an earlier one may be
        out of date."""
        day = int((self._clock() + _IST_OFFSET) // _DAY)
        return day, bisect.bisect_right(_BOUNDARIES, self._seconds_of_day())

    def _until_next_period(self) -> float:
        seconds = self._seconds_of_day()
        return next((at for at in _BOUNDARIES if at > seconds), _DAY) - seconds

    def _seconds_of_day(self) -> float:
        """Since midnight in India."""
        return (self._clock() + _IST_OFFSET) % _DAY

    async def _read(self) -> None:
        began, period = asyncio.get_running_loop().time(), self._period()
        async with self._reading:
            self._uncertain_before, self._uncertain_since = self._uncertain_since, math.inf
            unknown_fills = self._unknown_fills
            self._is_behind = False
            self._updates_meanwhile.clear()
            self._fills_meanwhile.clear()
            self._ticked_meanwhile.clear()
            try:
                rows, holdings = await self._report()
            except BaseException:
                self._is_behind = True
                self._uncertain_since = min(self._uncertain_since, self._uncertain_before)
                raise
            finally:
                self._uncertain_before = math.inf
        self._read_at = asyncio.get_running_loop().time()
        self._read_period = period
        self._unknown_fills -= unknown_fills
        # By now the report is right: a position may have been converted to another product.
        for key in [key for key, at in self._heard_at.items() if began >= at + REPORT_LAG]:
            del self._heard_at[key]
            self._heard.pop(key, None)
        self._coverage.take_report(began)
        before = self.positions
        self._holdings = holdings
        self._take_rows(rows)
        self._take_prices(rows)
        self._valued.clear()
        self._take_what_came_meanwhile()
        self._tell(
            [key for key, now in self.positions.items() if not _is_same(before.get(key), now)]
        )

    def _take_rows(self, rows: list[PositionRow]) -> None:
        before, self._rows = self._rows, {}
        self._by_instrument.clear()
        self._nameless.clear()
        ahead_since, self._ahead_since = self._ahead_since, {}
        for key, row in _by_key(rows).items():
            known = before.get(key)
            # The server that answers may be behind the one that sends the messages.
            if known is not None and _is_ahead(known, row):
                since = ahead_since.get(key, self._read_at)
                if self._read_at - since < REPORT_LAG:
                    self._ahead_since[key] = since
                    row = known
                else:
                    log.warning(
                        "the positions report has lacked trades in %s for %.0f s that the order "
                        "feed has reported: bought and sold %s there, %s here; the report counts",
                        key,
                        self._read_at - since,
                        _traded(row),
                        _traded(known),
                    )
            self._rows[key] = row
            self._by_instrument.setdefault(_instrument(row), []).append(key)
            if not (key[1] and key[0] in _SEGMENTS) and not _is_flat(row):
                self._nameless.add(key)

    def _take_prices(self, rows: list[PositionRow]) -> None:
        """The report's prices, but not those that a tick has overtaken."""
        prices = {_instrument(row): row.last_price for row in rows}
        for instrument, price in prices.items():
            if is_price(price) and instrument not in self._ticked_meanwhile:
                self._prices[instrument] = price
        for instrument in self._prices.keys() - prices.keys():
            del self._prices[instrument]

    def _take_what_came_meanwhile(self) -> None:
        """It may be in the report already, or not yet."""
        self._traded = {key: _traded(row) for key, row in self._rows.items()}
        for fill in self._fills_meanwhile:
            self._expect(*fill)
        updates = [*self._unlisted.values(), *self._updates_meanwhile]
        self._unlisted.clear()
        for update in updates:
            key = self._key_of(update)
            row = self._rows.get(key) if key else None
            if key and row and _continues(update, row):
                self._take(key, row, update)
            elif key:
                self._unlisted[key] = update
        self._tries = self._tries + 1 if self._unlisted else 0
        if self._tries >= TRIES:
            log.warning("the positions report lacks what was traded in %s", list(self._unlisted))
            self._unlisted.clear()
            self._tries = 0

    # ------------------------------------------------------------------------------------------

    def _position(self, key: PositionKey) -> Position:
        position = self._valued.get(key)
        if position is None:
            row = self._rows[key]
            price = self._prices.get(_instrument(row))
            position = value_position(row, holding_of(row, self._holdings), price)
            self._valued[key] = position
        return position

    def _tell(self, keys: Iterable[PositionKey]) -> None:
        """These have changed; or, when there are none, something else has."""
        for key in keys:
            self._valued.pop(key, None)
            for dirty in self._dirty.values():
                dirty[key] = None
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _until_changed(self) -> None:
        if not self._is_started:
            raise NotLoggedIn("live positions are kept from `await start()` until the logout")
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()


_SEGMENTS = frozenset(Segment)

_KEY = frozenset({"segment", "symbol", "product"})
_TOLD = {
    "buy_quantity": "flBuyQty",
    "sell_quantity": "flSellQty",
    "buy_value": "buyAmt",
    "sell_value": "sellAmt",
}
"""Fields of a row that a position message replaces, with their names on the wire."""

_TRADED = frozenset({"buy_quantity", "sell_quantity"})
_QUANTITIES = ("carried_buy_quantity", "carried_sell_quantity", "buy_quantity", "sell_quantity")
_ADDED_UP = (*_QUANTITIES, "carried_buy_value", "carried_sell_value", "buy_value", "sell_value")


def is_finite(value: object) -> bool:
    """Whether it is a number, and neither NaN nor infinite."""
    return type(value) is int or (isinstance(value, (int, float, Decimal)) and math.isfinite(value))


def _is_flat(row: PositionRow) -> bool:
    """Whether it is certain that nothing is held, nor was traded today."""
    return row.has_quantities and not any(getattr(row, name) for name in _QUANTITIES)


def _may_be(key: PositionKey, instrument: tuple[str, str]) -> bool:
    """Whether a position that does not say all of what it is of may be one in this instrument."""
    segment, symbol = instrument
    return key[1] in (symbol, "") and (key[0] == segment or key[0] not in _SEGMENTS)


def _by_key(rows: Iterable[PositionRow]) -> dict[PositionKey, PositionRow]:
    """The rows of a report. Several of one position are added up, but for mere repetitions; rows
    that do not say which position they are of stay apart."""
    several: dict[PositionKey, list[PositionRow]] = {}
    for count, row in enumerate(rows):
        key = position_key(row.segment, row.symbol, row.product)
        if not row.missing.isdisjoint(_KEY):
            key = (*key[:2], f"{key[2]}?{count}")
        same = several.setdefault(key, [])
        if all(_business(row) != _business(other) for other in same):
            same.append(row)
    return {key: functools.reduce(_added, same) for key, same in several.items()}


def _business(row: PositionRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _ADDED_UP)


def _added(one: PositionRow, other: PositionRow) -> PositionRow:
    sums = {name: getattr(one, name) + getattr(other, name) for name in _ADDED_UP}
    return msgspec.structs.replace(
        one,
        **sums,
        quantity=None,
        time_text=max(one.time_text, other.time_text),
        updated_ns=max(one.updated_ns, other.updated_ns),
        last_price=one.last_price or other.last_price,
        missing=one.missing | other.missing,
        odd=one.odd + other.odd,
    )


def _day_of_ns(unix_ns: int) -> int:
    """Number of the day in India; 0 when the time is not known."""
    return (unix_ns // 10**9 + _IST_OFFSET) // _DAY if unix_ns else 0


def is_price(value: float | None) -> TypeGuard[float]:
    """Whether it is a finite number above 0."""
    return value is not None and 0 < value < math.inf


def side_of(code: str) -> Side | None:
    """The side that a report names, `B`, `s` or `BUY`; None when it names none."""
    return _SIDES.get(code.strip().upper())


_SIDES = {"B": Side.BUY, "BUY": Side.BUY, "S": Side.SELL, "SELL": Side.SELL}


def _joined(one: Holding, other: Holding) -> Holding:
    quantity = one.quantity + other.quantity
    average = None
    if one.average_price is not None and other.average_price is not None and quantity:
        cost = one.average_price * one.quantity + other.average_price * other.quantity
        average = cost / quantity
    return msgspec.structs.replace(one, quantity=quantity, average_price=average, cost=None)


def _instrument(row: PositionRow) -> str:
    """As market feeds name it."""
    return f"{row.segment.strip().lower()}|{row.token.strip()}"


def _day(report: PositionRow | PositionUpdate) -> str:
    """`2026/02/16`; empty when it is not known."""
    return report.time_text[:10]


def _continues(update: PositionUpdate, row: PositionRow) -> bool:
    """Whether the update is later than the row on the same day, or is simply late. Otherwise only
    the report can tell how things stand."""
    assert update.buy_quantity is not None
    assert update.sell_quantity is not None
    if _day(update) != _day(row) and _day(update) and _day(row):
        return _is_of_an_earlier_day(update, row)
    for name in ("carried_buy_quantity", "carried_sell_quantity"):
        if name not in row.missing and getattr(update, name) not in (None, getattr(row, name)):
            return False
    if not row.missing.isdisjoint(_TRADED):
        return "" != row.time_text <= update.time_text
    before = _traded(row)
    bought = update.buy_quantity - before[0]
    sold = update.sell_quantity - before[1]
    return min(bought, sold) >= 0 or max(bought, sold) <= 0


def _is_of_an_earlier_day(update: PositionUpdate, row: PositionRow) -> bool:
    return "" != _day(update) < _day(row)


def _updated(row: PositionRow, update: PositionUpdate) -> PositionRow | None:
    """The row after the update; None when that is late, or says nothing new."""
    assert update.buy_quantity is not None
    assert update.sell_quantity is not None
    assert update.buy_value is not None
    assert update.sell_value is not None
    if _is_of_an_earlier_day(update, row):
        return None
    traded = update.buy_quantity + update.sell_quantity
    if traded <= sum(_traded(row)) and row.missing.isdisjoint(_TRADED):
        return None
    return msgspec.structs.replace(
        row,
        buy_quantity=update.buy_quantity,
        sell_quantity=update.sell_quantity,
        # As the report's own text would have been read: the float nearest to the decimal.
        buy_value=float(update.buy_value),
        sell_value=float(update.sell_value),
        quantity=None,
        time_text=update.time_text or row.time_text,
        updated_ns=max(update.updated_ns, row.updated_ns),
        missing=row.missing.difference(_TOLD),
        odd=tuple(odd for odd in row.odd if odd.partition("=")[0] not in _TOLD.values()),
    )


def _is_ahead(known: PositionRow, reported: PositionRow) -> bool:
    """Whether the known row has trades of the same day that the reported one lacks. Of quantities
    that cannot be read nobody knows."""
    if not (known.has_quantities and reported.has_quantities):
        return False
    return (
        _day(known) == _day(reported) != ""
        # What was carried changes over night only: a row that differs in it is of another day,
        # even where nothing has moved the time of its last change.
        and known.carried_buy_quantity == reported.carried_buy_quantity
        and known.carried_sell_quantity == reported.carried_sell_quantity
        and all(map(operator.ge, _traded(known), _traded(reported)))
        and _traded(known) != _traded(reported)
    )


def _amounts(update: PositionUpdate) -> tuple[int | Decimal | None, ...]:
    return update.buy_quantity, update.sell_quantity, update.buy_value, update.sell_value


def _is_same(before: Position | None, now: Position) -> bool:
    """Whether nothing has changed but times and what only the report's row tells."""
    if before is None or _traded(before.row) != _traded(now.row):
        return False
    return msgspec.structs.replace(now, row=before.row) == before


def _traded(report: PositionRow | PositionUpdate) -> tuple[int, int]:
    """Units bought and sold today; 0 for what cannot be read."""
    return _units(report.buy_quantity), _units(report.sell_quantity)


def _units(quantity: int | None) -> int:
    return quantity if quantity is not None and is_finite(quantity) else 0


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = []
    for amount in amounts:
        if amount is None:
            return None
        known.append(amount)
    try:
        total = math.fsum(known)
    except (OverflowError, ValueError):  # of what is infinite
        return None
    return total if math.isfinite(total) else None
