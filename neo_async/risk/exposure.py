"""Worst-case exposure: what is held, what is open, and what requests under way may add to it.

A pre-trade check reserves the units of its order before the request is sent, because the order
cache has the order only once the broker has answered. Without the reservation, two orders that are
checked one after the other would both be checked against the exposure before the first of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

import msgspec

from neo_async.calendar import Calendar
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.trading_hours import is_trading_time
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import OrderStatus, OrderType, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRow, OrderTerms
from neo_async.model.ticks import PriceTick
from neo_async.portfolio.live_positions import LivePositions
from neo_async.portfolio.position_rows import is_finite, position_key, side_of

RATE_WINDOW_SECONDS = 60.0
"""Length of the window in which placements are counted for `max_orders_per_minute`."""

CHANGE_LAG_SECONDS = 10.0
"""Seconds for which the order book may show an order as it was before an accepted change."""

MAX_TICK_AGE_SECONDS = 120.0
"""Age above which a tick does not give a last price while its segment trades. Outside of trading
hours the last tick gives it at any age."""

SCALED_SEGMENTS = (Segment.CDE_FO, Segment.MCX_FO)
"""Segments in which a unit is worth more than its price, by a multiplier that only the scrip master
has."""

_STOP_ORDERS = (OrderType.SL, OrderType.SL_M)
_NO_PRICE = Decimal(0)
_CHANGING = (OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING)

InstrumentSide: TypeAlias = tuple[str, str, str]
"""Segment, trading symbol and side: the key by which exposure is added up."""


def limit_price(terms: OrderTerms) -> Decimal:
    """Return the rupees at which an order is to trade: the higher of limit and trigger for a stop
    order, 0 for a market order."""
    price = terms.price or _NO_PRICE
    return max(price, terms.trigger or _NO_PRICE) if terms.order_type in _STOP_ORDERS else price


def instrument_side(terms: OrderTerms) -> InstrumentSide:
    """Return the key of the exposure that an order adds to, by terms `in_one_spelling`."""
    return terms.segment, terms.symbol, terms.side


def in_one_spelling(terms: OrderTerms) -> OrderTerms:
    """Return the terms with segment, symbol and side as positions and scrip masters spell them.
    Reports of another application's order may differ in case and in blanks around; the terms of a
    placement never do, because they were checked."""
    segment, symbol, _ = position_key(terms.segment, terms.symbol, "")
    side = side_of(terms.side) or terms.side
    if (segment, symbol, side) == instrument_side(terms):
        return terms
    return msgspec.structs.replace(terms, segment=Segment.read(segment), symbol=symbol, side=side)


class ReferencePrices:
    """Prices by which orders are valued: last prices from this client's own market feeds, and
    contract multipliers from its scrip masters."""

    def __init__(
        self,
        feeds: Collection[MarketFeed[PriceTick] | ColumnFeed],
        instruments: Instruments,
        calendar: Calendar,
    ) -> None:
        self._feeds = feeds
        self._instruments = instruments
        self._calendar = calendar
        self._names: dict[tuple[str, str], str] = {}
        """Feed names by segment and trading symbol, of instruments without a scrip master."""

    def reference_price(self, terms: OrderTerms) -> Decimal | None:
        """Return the rupees at which a unit of an order counts; None when they are unknown."""
        price = limit_price(terms)
        if price and terms.side == Side.BUY:
            return price
        # A sale is filled at the market's price, however low its limit is.
        last_price = self.last_price(terms.segment, terms.symbol)
        return max(price, last_price or price) or None

    def contract_multiplier(self, segment: str, symbol: str) -> Decimal | None:
        """Return the rupees of notional per rupee of price and unit; None when unknown."""
        instrument = self._instruments.find(segment, symbol)
        if instrument is not None:
            return _contract_multiplier(instrument)
        return None if segment in SCALED_SEGMENTS else Decimal(1)

    def last_price(self, segment: str, symbol: str) -> Decimal | None:
        """Return the last price of a trading symbol in rupees; None when it is unknown."""
        name = self._feed_name(segment, symbol)
        price = None if name is None else self.last_tick_price(name)
        return None if price is None else Decimal(repr(price))

    def last_tick_price(self, instrument: str) -> float | None:
        """Return the last price by an instrument's name on the feed, `nse_cm|11536`; None when
        there is no tick, or only one older than `MAX_TICK_AGE_SECONDS` while its segment trades."""
        newest = self._newest_tick(instrument)
        return None if newest is None or self._is_too_old(instrument, newest[1]) else newest[0]

    def why_unknown(self, segment: str, symbol: str) -> str:
        """Return why there is no last price, as the end of a sentence that names the remedy."""
        name = self._feed_name(segment, symbol)
        newest = None if name is None else self._newest_tick(name)
        if newest is None:
            return without_last_price(symbol)
        return (
            f"without a newer last price of {symbol}: its last tick is {newest[1]:.0f} s old, and "
            f"{MAX_TICK_AGE_SECONDS:.0f} s are the most while the market is open: await "
            f"feed.snapshot([{name!r}])"
        )

    def _newest_tick(self, instrument: str) -> tuple[float, float] | None:
        """Return price and age in seconds of the newest tick over all feeds."""
        newest = max(
            (
                (tick.received_ns, tick.last_price)
                for feed in self._feeds
                if isinstance(feed, MarketFeed) and (tick := feed.last_tick(instrument)) is not None
            ),
            default=None,
        )
        if newest is None:
            return None
        return newest[1], (time.time_ns() - newest[0]) / 1e9

    def _is_too_old(self, instrument: str, age: float) -> bool:
        segment = instrument.partition("|")[0]
        return age > MAX_TICK_AGE_SECONDS and is_trading_time(self._calendar, [segment])

    def _feed_name(self, segment: str, symbol: str) -> str | None:
        instrument = self._instruments.find(segment, symbol)
        if instrument is not None:
            return f"{segment}|{instrument.token}"
        known_name = self._names.get((segment, symbol))
        if known_name is not None:
            return known_name
        for feed in self._feeds:
            for name, acknowledged in feed.symbols.items():
                if acknowledged == symbol and name.partition("|")[0] == segment:
                    self._names[segment, symbol] = name
                    return name
        return None


class ExposureReservation:
    """Units that a placement, or a change of an order, may add until its outcome is known."""

    __slots__ = (
        "_is_ended",
        "_reservations",
        "answered_at",
        "instrument_side",
        "new_quantity",
        "order_number",
        "quantity",
        "was_sent",
    )

    def __init__(
        self,
        reservations: Reservations,
        instrument_side: InstrumentSide,
        quantity: int,
        *,
        order_number: str = "",
        new_quantity: int = 0,
    ) -> None:
        self._reservations = reservations
        self._is_ended = False
        self.instrument_side = instrument_side
        self.quantity = quantity
        """Units of the placement; of a change, the largest quantity that the order may have."""
        self.order_number = order_number
        """Number of the order that is changed; empty for a placement."""
        self.new_quantity = new_quantity
        """Units of the order after the change; 0 for a placement."""
        self.was_sent = True
        """False once it is certain that no byte of the request left."""
        self.answered_at = math.inf
        """Time of the loop at which the outcome of the request was known."""

    def end(self, pending: InFlightRequest | None = None) -> None:
        """Release the units: the order is in the cache, or the request has failed. With a request
        in flight, release them when that is resolved. Only the first call counts."""
        if self._is_ended:
            return
        self._is_ended = True
        if pending is None:
            self._reservations.release(self)
        else:
            pending.on_done(lambda: self._reservations.release(self))


class Reservations:
    """The reservations of this client: placements and changes whose outcome is not known yet."""

    def __init__(self, engine: ExecutionEngine, *, keeps_changes: bool) -> None:
        """`keeps_changes` reserves the quantities of changes, which only a limit of the net
        position needs."""
        self._engine = engine
        self._keeps_changes = keeps_changes
        self.placing = 0
        """Number of placements under way."""
        self.units: Counter[InstrumentSide] = Counter()
        """Units of placements under way."""
        self.changes: dict[str, list[ExposureReservation]] = {}
        """Changes of quantities, by order number. Each stays until the order book shows its effect:
        the exchange may refuse what the broker has accepted, and the feed may be late, so that
        until then the order may have either quantity."""
        self._arrived_at: deque[float] = deque()
        """Times of the loop at which placements of the last minute were no longer under way. No
        placement can have arrived at the broker later than that."""

    def reserve_placement(self, terms: OrderTerms) -> ExposureReservation:
        """Reserve the units of a placement that passed its checks."""
        key = instrument_side(terms)
        self.units[key] += terms.quantity
        self.placing += 1
        return ExposureReservation(self, key, terms.quantity)

    def reserve_change(
        self, order_number: str, before: OrderTerms, after: OrderTerms
    ) -> ExposureReservation:
        """Reserve the larger quantity of an order that is changed."""
        reservation = ExposureReservation(
            self,
            instrument_side(after),
            max(before.quantity, after.quantity),
            order_number=order_number,
            new_quantity=after.quantity,
        )
        # A change that leaves the quantity as it is may follow one that has not taken effect yet.
        changes_quantity = order_number in self.changes or after.quantity != before.quantity
        if changes_quantity and self._keeps_changes:
            self.changes.setdefault(order_number, []).append(reservation)
        return reservation

    def release(self, reservation: ExposureReservation) -> None:
        """End a reservation whose outcome is known."""
        now = asyncio.get_running_loop().time()
        if not reservation.order_number:
            self._release_placement(reservation, now)
            return
        reservation.answered_at = now
        if reservation not in self.changes.get(reservation.order_number, ()):
            return
        if reservation.was_sent:
            self._engine.request_order_book()
        else:
            self._drop_change(reservation)

    def placements_within_minute(self, now: float) -> int:
        """Return how many placements arrived at the broker within the last minute, or may still."""
        self._drop_old_arrivals(now)
        return len(self._arrived_at) + self.placing

    def on_order_book(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        """Release the changes whose effect a complete order book shows. `requested_at` is the time
        of the loop at which the book was requested."""
        if not self.changes:
            return
        by_number = {row.number: row for row in rows if row.number in self.changes}
        for reservation in [each for same_order in self.changes.values() for each in same_order]:
            row = by_number.get(reservation.order_number)
            if self._is_shown(reservation, row, requested_at):
                self._drop_change(reservation)

    def largest_quantity(self, order_number: str) -> int:
        """Return the largest quantity that changes under way may give an order; 0 without any."""
        reservations = self.changes.get(order_number)
        if not reservations:
            return 0
        return max(reservation.quantity for reservation in reservations)

    def _release_placement(self, reservation: ExposureReservation, now: float) -> None:
        key = reservation.instrument_side
        self.units[key] -= reservation.quantity
        if not self.units[key]:
            del self.units[key]
        self.placing -= 1
        if reservation.was_sent:
            self._drop_old_arrivals(now)
            self._arrived_at.append(now)

    def _drop_old_arrivals(self, now: float) -> None:
        while self._arrived_at and self._arrived_at[0] <= now - RATE_WINDOW_SECONDS:
            self._arrived_at.popleft()

    def _is_shown(
        self, reservation: ExposureReservation, row: OrderRow | None, requested_at: float
    ) -> bool:
        """Return whether a book requested at that time shows the outcome of a change."""
        if requested_at < reservation.answered_at:
            return False
        if row is None:
            order = self._engine.cache.get(reservation.order_number)
            return order is None or order.is_final
        if row.status in _CHANGING:
            return False
        if "quantity" in row.missing and not row.status.is_final:
            return False
        # A smaller quantity may be the one before the change: a book is seconds behind at times.
        may_lag = requested_at < reservation.answered_at + CHANGE_LAG_SECONDS
        is_new = row.quantity == reservation.new_quantity or row.quantity >= reservation.quantity
        return row.status.is_final or is_new or not may_lag

    def _drop_change(self, reservation: ExposureReservation) -> None:
        reservations = self.changes[reservation.order_number]
        reservations.remove(reservation)
        if not reservations:
            del self.changes[reservation.order_number]


class WorstCaseExposure:
    """Net positions of the account, if every order that is open or under way on one side of an
    instrument were filled, and none on the other side."""

    def __init__(self, cache: OrderCache, live: LivePositions, reservations: Reservations) -> None:
        self._cache = cache
        self._live = live
        self._reservations = reservations

    def net_position(self, key: InstrumentSide, quantity: int) -> int | None:
        """Return the worst-case net units in the direction of a side, with `quantity` more units on
        it. None when a quantity of the account cannot be read.

        Costs time in proportion to the open orders of the instrument. A sum kept per key would miss
        changes: orders are changed by reports, by answers and by lookups of their history, and the
        order cache announces none of those.
        """
        segment, symbol, side = key
        held = self._live.net_range(segment, symbol)
        if held is None:
            return None
        total = held[1] if side == Side.BUY else -held[0]
        for order in self._open_orders(key):
            units = self._open_units(order)
            if units is None:
                return None
            total += units
        return total + self._reservations.units[key] + quantity

    def added_units(self, order: Order, quantity: int) -> int:
        """Return the units that a change to `quantity` adds to those that already count."""
        counted = max(order.quantity, self._reservations.largest_quantity(order.number))
        return max(0, quantity - counted)

    def why_unknown(self, key: InstrumentSide) -> str:
        """Return why `net_position` is None."""
        for order in self._open_orders(key):
            if self._open_units(order) is None:
                return f"the quantity of the open order {order.number} is {order.quantity!r}"
        return (
            f"a quantity of the positions in {key[1]} cannot be read, or the instrument of a "
            "position that may be in it, or a fill without its instrument or quantity was reported"
        )

    def _open_orders(self, key: InstrumentSide) -> Iterator[Order]:
        """Yield the open orders that may be on a side of an instrument: an order without a readable
        segment, symbol or side may be on any."""
        segment, symbol, side = key
        for order in self._cache.open_in(symbol):
            in_segment = order.segment == segment or (
                position_key(order.segment, "", "")[0] in (segment, "")
            )
            if in_segment and (order.side == side or side_of(order.side) in (side, None)):
                yield order

    def _open_units(self, order: Order) -> int | None:
        """Return the units that may still be filled; None when the quantity cannot be read."""
        quantity = order.quantity
        if not is_finite(quantity) or quantity <= 0:
            return None
        quantity = max(quantity, self._reservations.largest_quantity(order.number))
        filled = order.filled_quantity if is_finite(order.filled_quantity) else 0
        return max(0, quantity - filled)


def without_last_price(symbols: str) -> str:
    """Return the end of a sentence that names which last price is missing and how to get it."""
    return (
        f"without the last price of {symbols}: subscribe it on a market feed of this client, and "
        "wait for a tick"
    )


def _contract_multiplier(instrument: Instrument) -> Decimal | None:
    """Return the multiplier as positions use it, where a factor of zero counts as 1; None when a
    factor is no finite number above 0."""
    return _product_of_factors(
        instrument.multiplier or 1,
        instrument.general_numerator or 1.0,
        instrument.price_numerator or 1.0,
        instrument.general_denominator or 1.0,
        instrument.price_denominator or 1.0,
    )


@lru_cache(maxsize=1024)  # few factors differ from 1, and every order with a limit needs them
def _product_of_factors(*factors: float) -> Decimal | None:
    if not all(is_finite(factor) and factor > 0 for factor in factors):
        return None
    multiplier, general, price, general_divisor, price_divisor = (
        Decimal(repr(factor)) for factor in factors
    )
    return multiplier * (general / general_divisor) * (price / price_divisor)
