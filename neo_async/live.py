"""Positions and their worth, kept current by the order feed and by ticks.

What was traded today comes from the feed's position messages, which carry it exactly; what was
carried from earlier days, and everything that describes the instrument, comes from the positions
report. The report is read again whenever the messages alone cannot tell the truth: after a
reconnect, when one is about a position that is not known, and when a fill was reported that no
position message has accounted for in time. Order messages are no substitute, for their average
price is rounded. Valuation is that of `Portfolio.positions`, so both agree to the paisa.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from neo_async.errors import NotLoggedIn, UsageError
from neo_async.model.enums import OrderStatus, Side
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Holding, Position, PositionRow, value_position
from neo_async.model.ticks import LiteTick, ScripTick, Tick
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.tracking import OrderSource
from neo_async.transport.websocket import FeedEvent, FeedState
from neo_async.upkeep import Upkeep

log = logging.getLogger(__name__)

TRIES = 6
"""Readings of the report for a position that it does not list."""

PositionKey: TypeAlias = tuple[str, str, str]
"""Segment, trading symbol, product."""

Report: TypeAlias = tuple[list[PositionRow], Mapping[str, Holding]]
"""The positions report, and the holdings by token as far as its rows need them."""


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

    def __init__(self, report: Callable[[], Awaitable[Report]], *, patience: float = 1.0) -> None:
        """`patience` is how long, in seconds, a fill may lack its position message, and the least
        time between two readings of the report (but a reconnect makes one at once)."""
        self._report = report
        self._patience = patience
        self._feed: OrderSource | None = None
        self._is_started = False
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._upkeep = Upkeep("positions report", self._read, self._due_in)

        self._rows: dict[PositionKey, PositionRow] = {}
        self._holdings: Mapping[str, Holding] = {}
        self._prices: dict[str, float] = {}
        """By instrument."""
        self._by_instrument: dict[str, list[PositionKey]] = {}
        self._valued: dict[PositionKey, Position] = {}
        """Those whose worth was asked for since they changed."""

        self._is_behind = False
        """Something has happened that only the report can tell."""
        self._unlisted: dict[PositionKey, PositionUpdate] = {}
        """Messages about positions that the report did not list yet."""
        self._tries = 0
        self._filled: dict[str, int] = {}
        """Units, by order number, as the feed has reported them."""
        self._traded: dict[PositionKey, tuple[int, int]] = {}
        """Units bought and sold today, by the last reading and the fills since then. One of those
        may have been in the reading already, so this may be too much, but never too little."""
        self._heard: defaultdict[PositionKey, list[int]] = defaultdict(lambda: [0, 0])
        """Units bought and sold by orders whose fills were reported on `_heard_day`: may be too
        little, but never too much."""
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
        return list(dict.fromkeys(f"{one.segment}|{one.token}" for one in open_ones))

    @property
    def is_current(self) -> bool:
        """False while a trade may have happened that `positions` does not show."""
        return (
            self._is_started
            and self._feed is not None
            and self._feed.is_live
            and not self._reading.locked()
            and not self._upkeep.is_asked
            and not self._is_behind
            and not self._unlisted
            and not self._lacks_fills()
        )

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

    def net_range(self, segment: str, symbol: str) -> tuple[int, int]:
        """The least and the most units of an instrument that may be held over all products, when
        the feed has told of a fill and not yet of what it did to the position."""
        if self._heard_day != _today():
            self._heard.clear()
        least = most = 0
        for key in self._rows.keys() | self._traded.keys() | self._heard.keys():
            if key[0] != segment or key[1] != symbol:
                continue
            row = self._rows.get(key)
            carried, reported = (row.carried_quantity, _traded(row)) if row else (0, (0, 0))
            at_least = tuple(map(max, reported, self._heard.get(key, (0, 0))))
            at_most = tuple(map(max, at_least, self._traded.get(key, (0, 0))))
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
        feed.listen(self._hear)
        feed.on_event(self._feed_changed)

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
        self._upkeep.look()

    async def close(self) -> None:
        """Keep them no longer."""
        self._is_started = False
        await self._upkeep.close()
        self._tell(())

    def refresh(self) -> None:
        """Read the report again soon."""
        if self._is_started:
            self._is_behind = True
            self._upkeep.look()

    def repair(self, row: OrderRow) -> None:
        """Take note of a fill that the order book has told, and the feed has not."""
        self._note_fill(row)
        self.refresh()

    def on_tick(self, tick: Tick) -> None:
        """Value positions at the tick's price; ticks of other instruments pass by."""
        keys = self._by_instrument.get(tick.instrument)
        if keys is None or not isinstance(tick, LiteTick | ScripTick) or not tick.last_price:
            return
        self._take_price(tick.instrument, tick.last_price, keys)

    def price(self, instrument: str, last_price: float) -> None:
        """Value positions at a price that somebody else has, as if a tick had told it."""
        keys = self._by_instrument.get(instrument)
        if keys is not None:
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
                self._upkeep.ask()
            self._tell(())

    def _hear(self, update: OrderRow | PositionUpdate) -> None:
        if isinstance(update, OrderRow):
            self._note_fill(update)
        elif self._is_started:
            if self._reading.locked():
                self._updates_meanwhile.append(update)
            self._place(update)

    # --- trades -------------------------------------------------------------------------------

    def _note_fill(self, row: OrderRow) -> None:
        """Expect a position message for what an order message says was filled."""
        if isinstance(row, OrderUpdate) and "filled_quantity" in row.missing:
            if row.status is OrderStatus.COMPLETE:
                self.refresh()
            return
        quantity = row.filled_quantity - self._filled.get(row.number, 0)
        if quantity <= 0:
            return
        self._filled[row.number] = row.filled_quantity
        if not (row.segment and row.symbol and row.product and row.side):
            self.refresh()
            return
        bought, sold = (quantity, 0) if row.side == Side.BUY else (0, quantity)
        key = (row.segment, row.symbol, row.product)
        self._hear_of_trade(key, bought, sold)
        if not self._is_started:
            return
        if self._reading.locked():
            self._fills_meanwhile.append((key, bought, sold))
        self._expect(key, bought, sold)

    def _hear_of_trade(self, key: PositionKey, bought: int, sold: int) -> None:
        if self._heard_day != (today := _today()):
            self._heard.clear()
            self._heard_day = today
        heard = self._heard[key]
        heard[0] += bought
        heard[1] += sold

    def _expect(self, key: PositionKey, bought: int, sold: int) -> None:
        if not self._lacks_fills():
            self._lacking_since = asyncio.get_running_loop().time()
        before = self._traded.get(key, (0, 0))
        self._traded[key] = (before[0] + bought, before[1] + sold)
        self._upkeep.look()

    def _lacks_fills(self) -> bool:
        """Whether an order was filled by more than its position shows."""
        for key, (bought, sold) in self._traded.items():
            row = self._rows.get(key)
            if row is None or row.buy_quantity < bought or row.sell_quantity < sold:
                return True
        return False

    def _place(self, update: PositionUpdate) -> None:
        """Take over a position message, or see to a reading of the report."""
        key = self._key_of(update)
        if key is None:
            self.refresh()
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
        if None in _amounts(update):
            return None
        if update.symbol:
            return (update.segment, update.symbol, update.product)
        fitting = [
            key
            for key, row in self._rows.items()
            if (row.segment, row.product) == (update.segment, update.product)
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

    def _due_in(self) -> float | None:
        """Seconds until the report has to be read; None while it has nothing to tell."""
        read_at = self._upkeep.read_at
        due = math.inf
        if self._is_behind:
            due = read_at + self._patience
        if self._unlisted:
            due = min(due, read_at + self._patience * 2**self._tries)
        if self._lacks_fills():
            due = min(due, max(read_at, self._lacking_since) + self._patience)
        return None if due == math.inf else due - asyncio.get_running_loop().time()

    async def _read(self) -> None:
        async with self._reading:
            self._is_behind = False
            self._updates_meanwhile.clear()
            self._fills_meanwhile.clear()
            self._ticked_meanwhile.clear()
            try:
                rows, holdings = await self._report()
            except BaseException:
                self._is_behind = True
                raise
        self._read_at = asyncio.get_running_loop().time()
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
        for row in rows:
            key = (row.segment, row.symbol, row.product)
            known = before.get(key)
            # The server that answers may be behind the one that sends the messages.
            self._rows[key] = known if known and _is_ahead(known, row) else row
            self._by_instrument.setdefault(_instrument(row), []).append(key)

    def _take_prices(self, rows: list[PositionRow]) -> None:
        """The report's prices, but not those that a tick has overtaken."""
        prices = {_instrument(row): row.last_price for row in rows}
        for instrument, price in prices.items():
            if price and instrument not in self._ticked_meanwhile:
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
            position = value_position(row, self._holdings.get(row.token), price)
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


def _today() -> int:
    """Number of the day in India."""
    return int((time.time() + 19_800) // 86_400)


def _instrument(row: PositionRow) -> str:
    return f"{row.segment}|{row.token}"


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
    if update.carried_buy_quantity not in (None, row.carried_buy_quantity):
        return False
    if update.carried_sell_quantity not in (None, row.carried_sell_quantity):
        return False
    bought = update.buy_quantity - row.buy_quantity
    sold = update.sell_quantity - row.sell_quantity
    return min(bought, sold) >= 0 or max(bought, sold) <= 0


def _is_of_an_earlier_day(update: PositionUpdate, row: PositionRow) -> bool:
    return "" != _day(update) < _day(row)


def _updated(row: PositionRow, update: PositionUpdate) -> PositionRow | None:
    """The row after the update; None when that is late, or says nothing new."""
    assert update.buy_quantity is not None
    assert update.sell_quantity is not None
    assert update.buy_value is not None
    assert update.sell_value is not None
    traded = update.buy_quantity + update.sell_quantity
    if traded <= row.buy_quantity + row.sell_quantity or _is_of_an_earlier_day(update, row):
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
    )


def _is_ahead(known: PositionRow, reported: PositionRow) -> bool:
    """Whether the known row has trades of the same day that the reported one lacks."""
    return (
        _day(known) == _day(reported) != ""
        and known.buy_quantity >= reported.buy_quantity
        and known.sell_quantity >= reported.sell_quantity
        and _traded(known) != _traded(reported)
    )


def _amounts(update: PositionUpdate) -> tuple[object, ...]:
    return update.buy_quantity, update.sell_quantity, update.buy_value, update.sell_value


def _is_same(before: Position | None, now: Position) -> bool:
    """Whether nothing has changed but times and what only the report's row tells."""
    if before is None or _traded(before.row) != _traded(now.row):
        return False
    return msgspec.structs.replace(now, row=before.row) == before


def _traded(row: PositionRow) -> tuple[int, int]:
    return row.buy_quantity, row.sell_quantity


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = []
    for amount in amounts:
        if amount is None:
            return None
        known.append(amount)
    return math.fsum(known)
