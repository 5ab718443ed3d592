"""Guard rails: what no order of this client may exceed, one function a rule.

Orders on their way are held against the limits like those that are open: a `ExposureReservation`
takes up their room from the check until the tracker knows the order, or it has failed. While the
order feed is down, the order book and the positions are read every few seconds; a limit whose facts
are older than `OLDEST_FACTS`, or cannot be read, refuses.
"""

from __future__ import annotations

import asyncio
import decimal
import math
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec

from neo_async.config import RiskLimits
from neo_async.errors import (
    LossLimit,
    OpenOrdersLimit,
    OrderRateLimit,
    PositionLimit,
    PriceLimit,
    ProductNotAllowed,
    QuantityLimit,
    SegmentNotAllowed,
    ValueLimit,
)
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.order import Order
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.trading_hours import is_in_session
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import OrderStatus, OrderType, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.numbers import EXACT
from neo_async.model.orders import OrderRow
from neo_async.portfolio.coverage import Coverage
from neo_async.portfolio.live_positions import LivePositions
from neo_async.portfolio.position_rows import is_finite, position_key, side_of
from neo_async.wire.orders import ModifyForm, PlaceForm

MINUTE = 60.0

_PERCENT = Decimal("0.0001")
"""Digits of a percentage that are shown."""

READ_EVERY = 60.0
"""Seconds between two readings of the order book, and of the positions, while the order feed is
live: a message of another application's order may be lost."""
READ_EVERY_WITHOUT_FEED = 5.0
"""The same while the order feed is down, or nothing was read since it is back."""
PRICES_EVERY = 15.0
"""Seconds between two readings of the positions, for the prices of those that no feed tells."""

OLDEST_FACTS = 30.0
"""Seconds after which the open orders and the positions of the account are not known any more,
while the order feed is down and the reports cannot be read."""
CHANGE_LAG = 10.0
"""Seconds for which the order book may show an order as it was before an accepted change."""
OLDEST_PRICES = 60.0
"""Seconds after which the loss of the day is not known by the report's prices any more."""
OLDEST_TICK = 120.0
"""Seconds after which a tick is no last price any more while its segment trades. Outside of that
the last tick is the last price, however old it is."""

_UNREAD = "the positions are not being kept: await neo.portfolio.live.start() first"

SCALED_SEGMENTS = (Segment.CDE_FO, Segment.MCX_FO)
"""Where a unit is worth more than its price, by a factor that only the scrip master tells."""

_STOPS = (OrderType.SL, OrderType.SL_M)
_CHANGING = (OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING)

OneSide: TypeAlias = tuple[str, str, str]
"""Segment, trading symbol, side."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """An order as the rules see it. Prices are rupees, 0 where there is none."""

    segment: str
    symbol: str
    side: str
    product: str
    order_type: str
    quantity: int
    price: Decimal
    trigger: Decimal

    @property
    def own_price(self) -> Decimal:
        """By which it is to trade; 0 for a market order."""
        return max(self.price, self.trigger) if self.order_type in _STOPS else self.price

    @property
    def one_side(self) -> OneSide:
        return self.segment, self.symbol, self.side


class LastPrices:
    """What the client's own market feeds know, asked when it is needed."""

    def __init__(
        self, feeds: Collection[MarketFeed | ColumnFeed], instruments: Instruments
    ) -> None:
        self._feeds = feeds
        self._instruments = instruments
        self._names: dict[tuple[str, str], str] = {}
        """By segment and trading symbol, of what no scrip master was loaded for."""

    def of_order(self, segment: str, symbol: str) -> Decimal | None:
        name = self._name(segment, symbol)
        price = None if name is None else self.of(name)
        return None if price is None else Decimal(repr(price))

    def of(self, instrument: str) -> float | None:
        """The last price by the name that feeds know, `nse_cm|11536`; None when there is no tick,
        or only one that is older than `OLDEST_TICK` while its segment trades."""
        found = self._newest(instrument)
        return None if found is None or self._is_old(instrument, found[1]) else found[0]

    def lacking(self, segment: str, symbol: str) -> str:
        """Why there is no last price, and what to do about it."""
        name = self._name(segment, symbol)
        found = None if name is None else self._newest(name)
        if found is None:
            return _unpriced(symbol)
        return (
            f"without a newer last price of {symbol}: its last tick is {found[1]:.0f} s old, and "
            f"{OLDEST_TICK:.0f} s are the most while the market is open: await "
            f"feed.snapshot([{name!r}])"
        )

    def _newest(self, instrument: str) -> tuple[float, float] | None:
        """Price and age in seconds of the newest tick over all feeds."""
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

    def _is_old(self, instrument: str, age: float) -> bool:
        return age > OLDEST_TICK and is_in_session(instrument.partition("|")[0])

    def _name(self, segment: str, symbol: str) -> str | None:
        instrument = self._instruments.find(segment, symbol)
        if instrument is not None:
            return f"{segment}|{instrument.token}"
        known = self._names.get((segment, symbol))
        if known is not None:
            return known
        for feed in self._feeds:
            for name, acknowledged in feed.symbols.items():
                if acknowledged == symbol and name.partition("|")[0] == segment:
                    self._names[segment, symbol] = name
                    return name
        return None


class ExposureReservation:
    """Room that a placement, or an order that is being changed, takes up meanwhile."""

    __slots__ = (
        "_guard",
        "_is_ended",
        "answered_at",
        "one_side",
        "order_number",
        "quantity",
        "wanted",
        "was_sent",
    )

    def __init__(
        self, guard: RiskGuard, one_side: OneSide, quantity: int, *, order_number: str = ""
    ) -> None:
        self._guard = guard
        self._is_ended = False
        self.one_side = one_side
        self.quantity = quantity
        """Units of the placement; of a change, the largest quantity that the order may have."""
        self.order_number = order_number
        """Of the order that is changed; empty for a placement."""
        self.wanted = quantity
        """Units that the order is to have."""
        self.was_sent = True
        """False once it is known that no byte of it left."""
        self.answered_at = math.inf
        """Time of the loop at which the outcome of a change was known."""

    def end(self, pending: InFlightRequest | None = None) -> None:
        """Give the room back: the order is known, or has failed; with a question, when that is
        answered. Only the first call counts."""
        if self._is_ended:
            return
        self._is_ended = True
        if pending is None:
            self._guard.release(self)
        else:
            pending.on_resolved(lambda: self._guard.release(self))


class RiskGuard:
    """Holds orders against the limits: `admit` and `admit_change` raise the RiskRefused of the
    limit that they would break."""

    def __init__(
        self,
        limits: RiskLimits,
        engine: ExecutionEngine,
        live: LivePositions,
        prices: LastPrices,
        instruments: Instruments,
    ) -> None:
        """The guard follows the order feed and the order books of `engine`, whose order feed must
        not have been started."""
        self._limits = limits
        self._order_value = _amount(limits.max_order_notional)
        self._day_loss = _amount(limits.max_daily_loss)
        self._segments = None if limits.segments is None else frozenset(limits.segments)
        self._products = None if limits.products is None else frozenset(limits.products)
        self._engine = engine
        self._cache = engine.cache
        self._live = live
        self._prices = prices
        self._instruments = instruments
        self._placing = 0
        """Placements on their way."""
        self._reserved: Counter[OneSide] = Counter()
        """Units on their way."""
        self._changing: dict[str, list[ExposureReservation]] = {}
        """Changes of quantities, by order number. Until the book shows them, an order may have the
        larger one: the exchange may refuse what the broker has taken, and the feed be late."""
        self._nameless: OrderRow | None = None
        """An open order of the last book that has no number: it is not among the known ones."""
        self._orders = Coverage()
        """Of the open orders of the account."""
        self._orders.attach(engine.updates)
        engine.registers_open_orders = self.needs_orders
        engine.on_book_applied(self.see_book)
        self._keeping: asyncio.Task[None] | None = None
        self._placed: deque[float] = deque()
        """Times of the loop at which placements of the last minute were no longer on their way:
        that is no earlier than they arrived."""

    @property
    def needs_positions(self) -> bool:
        """Whether live positions have to be kept for it."""
        return self._limits.max_net_position is not None or self._limits.max_daily_loss is not None

    @property
    def needs_orders(self) -> bool:
        """Whether every open order of the account has to be known to it."""
        return self._limits.max_open_orders is not None or self.needs_positions

    def admit(self, forms: Sequence[PlaceForm]) -> list[ExposureReservation]:
        """Check placements that go out together as a whole, and hold their room."""
        with decimal.localcontext(EXACT):
            asked = [_placement(form) for form in forms]
            wanted: Counter[OneSide] = Counter()
            for one in asked:
                self._check_segment(one)
                self._check_product(one)
                self._check_quantity(one)
                self._check_value(one)
                self._check_price(one)
                wanted[one.one_side] += one.quantity
            self._check_rate(len(asked))
            self._check_open_orders(len(asked))
            self._check_exposure(wanted)
        return [self._hold_placement(one) for one in asked]

    def admit_change(self, order: Order, form: ModifyForm) -> ExposureReservation:
        """Check what a change makes larger, dearer, or moves; and hold the larger quantity."""
        with decimal.localcontext(EXACT):
            before, after = _present(order), _changed(order, form)
            added = max(0, after.quantity - before.quantity)
            is_dearer = after.own_price > before.own_price or after.order_type != before.order_type
            if added:
                self._check_quantity(after)
            if added or is_dearer:
                self._check_value(after)
            if (after.price, after.trigger) != (before.price, before.trigger):
                self._check_price(after)
            if added:
                self._check_exposure({after.one_side: self._added_to(order, after.quantity)})
        return self._hold_change(order, before, after)

    def release(self, reservation: ExposureReservation) -> None:
        now = asyncio.get_running_loop().time()
        if not reservation.order_number:
            self._reserved[reservation.one_side] -= reservation.quantity
            if not self._reserved[reservation.one_side]:
                del self._reserved[reservation.one_side]
            self._placing -= 1
            if reservation.was_sent and self._limits.max_orders_per_minute is not None:
                self._placed.append(now)
            return
        reservation.answered_at = now
        if reservation not in self._changing.get(reservation.order_number, ()):
            return
        if reservation.was_sent:
            self._engine.request_order_book()
        else:
            self._forget_change(reservation)

    def see_book(self, rows: Sequence[OrderRow], began: float) -> None:
        """Take in a whole book that was asked for at that time of the loop."""
        self._orders.take_report(began)
        self._nameless = next(
            (row for row in rows if not (row.has_number or row.status.is_final)), None
        )
        if self.needs_positions:
            self._live.on_order_book(rows)
        if not self._changing:
            return
        by_number = {row.number: row for row in rows if row.number in self._changing}
        for reservation in [
            reservation for reservations in self._changing.values() for reservation in reservations
        ]:
            if self._is_shown(reservation, by_number.get(reservation.order_number), began):
                self._forget_change(reservation)

    def _is_shown(
        self, reservation: ExposureReservation, row: OrderRow | None, began: float
    ) -> bool:
        """Whether a book that was asked for at that time tells the outcome of a change."""
        if began < reservation.answered_at:
            return False
        if row is None:
            order = self._cache.get(reservation.order_number)
            return order is None or order.is_final
        if row.status in _CHANGING:
            return False
        if "quantity" in row.missing and not row.status.is_final:
            return False
        # A smaller quantity may be the one from before: a book is seconds behind at times.
        is_late = began < reservation.answered_at + CHANGE_LAG
        is_new = row.quantity == reservation.wanted or row.quantity >= reservation.quantity
        return row.status.is_final or is_new or not is_late

    def _forget_change(self, reservation: ExposureReservation) -> None:
        reservations = self._changing[reservation.order_number]
        reservations.remove(reservation)
        if not reservations:
            del self._changing[reservation.order_number]

    @property
    def problems(self) -> Iterator[str]:
        """Why limits refuse whatever they are asked, in words."""
        if self._keeping is None:
            return
        if self.needs_orders and (reason := self._unknown_orders()):
            yield f"limits refuse orders: {reason}"
        if self.needs_positions and (reason := self._unknown_positions()):
            yield f"limits refuse orders: {reason}"

    def start(self) -> None:
        """Keep what the limits need from now on; a second time changes nothing."""
        if self.needs_orders and self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_current(), name="risk: reports")

    async def close(self) -> None:
        task, self._keeping = self._keeping, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_current(self) -> None:
        """Have the book and the positions read now and then, and often while no feed reports what
        happens in the account, or what positions are worth."""
        while True:
            await asyncio.sleep(READ_EVERY_WITHOUT_FEED)
            now = asyncio.get_running_loop().time()
            every = READ_EVERY if self._orders.is_complete else READ_EVERY_WITHOUT_FEED
            if self._changing or now - self._orders.requested_at >= every:
                self._engine.request_order_book()
            if self.needs_positions and now - self._live.read_at >= self._positions_every():
                self._live.refresh()

    def _positions_every(self) -> float:
        """Seconds after which the positions have to be read again."""
        if self._live.age:
            return READ_EVERY_WITHOUT_FEED
        if self._day_loss is not None and self._without_price():
            return PRICES_EVERY
        return READ_EVERY

    # --- rules of one order -------------------------------------------------------------------

    def _check_segment(self, asked: Asked) -> None:
        if self._segments is not None and asked.segment not in self._segments:
            raise SegmentNotAllowed(
                self._segments, asked.segment, f"{asked.segment} is not among them"
            )

    def _check_product(self, asked: Asked) -> None:
        if self._products is not None and asked.product not in self._products:
            raise ProductNotAllowed(
                self._products, asked.product, f"{asked.product} is not among them"
            )

    def _check_quantity(self, asked: Asked) -> None:
        most = self._limits.max_order_quantity
        if most is not None and asked.quantity > most:
            raise QuantityLimit(
                most, asked.quantity, f"an order of {asked.quantity} units of {asked.symbol}"
            )

    def _check_value(self, asked: Asked) -> None:
        if self._order_value is None:
            return
        limit = self._limits.max_order_notional
        price = self._dearest(asked)
        if price is None:
            lacking = self._prices.lacking(asked.segment, asked.symbol)
            raise ValueLimit(limit, None, f"the value of a market order is not known {lacking}")
        factor = self._factor(asked)
        if factor is None:
            raise ValueLimit(
                limit,
                None,
                f"how many rupees a unit of {asked.symbol} stands for is not known: await "
                f"instruments.load({str(asked.segment)!r}) first",
            )
        value = asked.quantity * price * factor
        if value > self._order_value:
            raise ValueLimit(
                limit,
                value,
                f"an order of {asked.quantity} units of {asked.symbol} is worth {value:.2f} rupees",
            )

    def _check_price(self, asked: Asked) -> None:
        most = self._limits.max_price_deviation_pct
        given = {"price": asked.price, "trigger": asked.trigger}
        if most is None or not any(given.values()):
            return
        last = self._prices.of_order(asked.segment, asked.symbol)
        if last is None:
            lacking = self._prices.lacking(asked.segment, asked.symbol)
            raise PriceLimit(most, None, f"the distance is not known {lacking}")
        for name, price in given.items():
            away = 100 * abs(price - last)
            if price and away > Decimal(str(most)) * last:
                away = EXACT.quantize(away / last, _PERCENT)
                raise PriceLimit(
                    most,
                    away,
                    f"{name} {price} of {asked.symbol} is {away:.2f} % from its last price {last}",
                )

    # --- rules of all orders together ---------------------------------------------------------

    def _check_rate(self, count: int) -> None:
        most = self._limits.max_orders_per_minute
        since = asyncio.get_running_loop().time() - MINUTE
        while self._placed and self._placed[0] <= since:
            self._placed.popleft()
        within = len(self._placed) + self._placing + count
        if most is not None and within > most:
            raise OrderRateLimit(most, within, f"{within} orders within a minute")

    def _check_open_orders(self, count: int) -> None:
        most = self._limits.max_open_orders
        if most is None:
            return
        if reason := self._unknown_orders():
            raise OpenOrdersLimit(most, None, reason)
        open_orders = self._cache.open_count + self._placing + count
        if open_orders > most:
            raise OpenOrdersLimit(most, open_orders, f"{open_orders} orders would be open")

    def _check_exposure(self, wanted: Mapping[OneSide, int]) -> None:
        if not self.needs_positions:
            return
        worst = {one_side: self._worst_position(one_side, wanted[one_side]) for one_side in wanted}
        self._check_positions(worst)
        # What can only close what is there goes on, whatever was lost.
        if any(net is None or net > 0 for net in worst.values()):
            self._check_loss()

    def _check_positions(self, worst: Mapping[OneSide, int | None]) -> None:
        most = self._limits.max_net_position
        if most is None:
            return
        if not self._live.is_started:
            raise PositionLimit(most, None, _UNREAD)
        if reason := self._unknown_positions() or self._unknown_orders():
            raise PositionLimit(most, None, reason)
        for one_side, net in worst.items():
            _, symbol, side = one_side
            if net is None:
                raise PositionLimit(most, None, self._unknown_quantity(one_side))
            if net > most:
                raise PositionLimit(
                    most,
                    net,
                    f"{net} units of {symbol} {'bought' if side == Side.BUY else 'sold'} net, if "
                    "all that is open on that side is filled",
                )

    def _unknown_orders(self) -> str:
        """Why the open orders of the account are not known; empty when they are."""
        if (row := self._nameless) is not None:
            return (
                "the order book has an open order without a number, which cannot be followed: "
                f"{row.side} {row.quantity} {row.symbol}"
            )
        age = self._orders.age(asyncio.get_running_loop().time())
        return "" if age <= OLDEST_FACTS else _out_of_date("the open orders", "order book", age)

    def _unknown_positions(self) -> str:
        """Why the positions of the account are not known; empty when they are."""
        age = self._live.age
        return "" if age <= OLDEST_FACTS else _out_of_date("the positions", "report of them", age)

    def _unknown_quantity(self, one_side: OneSide) -> str:
        """Why the units held and open on a side are not known."""
        for order in self._open_on(one_side):
            if self._pending(order) is None:
                return f"the quantity of the open order {order.number} is {order.quantity!r}"
        return (
            f"a quantity of the positions in {one_side[1]} cannot be read, or the instrument of a "
            "position that may be in it, or a fill does not say what it is of, or how much"
        )

    def _check_loss(self) -> None:
        if self._day_loss is None:
            return
        limit = self._limits.max_daily_loss
        if not self._live.is_started:
            raise LossLimit(limit, None, _UNREAD)
        is_old = self._live.read_at < asyncio.get_running_loop().time() - OLDEST_PRICES
        if (unpriced := self._without_price()) and is_old:
            lacking = _unpriced(", ".join(sorted(unpriced)))
            raise LossLimit(limit, None, f"the loss of the day is not known {lacking}")
        if is_old and not self._live.is_current:
            raise LossLimit(limit, None, "the positions could not be read for more than a minute")
        total = self._live.total()
        if total.mtm_pnl is None:
            reasons = "; ".join(
                f"{symbol}: {reason}" for (_, symbol, _), reason in total.unknown_reasons.items()
            )
            raise LossLimit(limit, None, f"the loss of the day is not known ({reasons})")
        loss = -total.mtm_pnl
        if Decimal(repr(loss)) >= self._day_loss:
            raise LossLimit(limit, loss, f"a loss of {loss:.2f} rupees today")

    # --- what they are held against -----------------------------------------------------------

    def _dearest(self, asked: Asked) -> Decimal | None:
        """The price to reckon with, in rupees; None when it is not known."""
        price = asked.own_price
        if price and asked.side == Side.BUY:
            return price
        last = self._prices.of_order(asked.segment, asked.symbol)
        # A sale gets what the market pays, however low its limit.
        return max(price, last or price) or None

    def _factor(self, asked: Asked) -> Decimal | None:
        """Rupees of value per rupee of price and unit; None when it is not known."""
        instrument = self._instruments.find(asked.segment, asked.symbol)
        if instrument is not None:
            return _factor_of(instrument)
        return None if asked.segment in SCALED_SEGMENTS else Decimal(1)

    def _worst_position(self, one_side: OneSide, quantity: int) -> int | None:
        """Net units on a side, if these and all that is open or on its way there were filled, and
        nothing on the other side. None when nobody knows, as a quantity cannot be read."""
        segment, symbol, side = one_side
        held = self._live.net_range(segment, symbol)
        if held is None:
            return None
        total = held[1] if side == Side.BUY else -held[0]
        for order in self._open_on(one_side):
            pending = self._pending(order)
            if pending is None:
                return None
            total += pending
        return total + self._reserved[one_side] + quantity

    def _open_on(self, one_side: OneSide) -> Iterator[Order]:
        """Open orders on a side, with those that do not say where or on which side they are."""
        segment, symbol, side = one_side
        for order in self._cache.open_in(symbol):
            known_segment = position_key(order.segment, "", "")[0]
            if known_segment in (segment, "") and side_of(order.side) in (side, None):
                yield order

    def _pending(self, order: Order) -> int | None:
        """Units that may still be filled; None when the quantity of the order cannot be read."""
        quantity = order.quantity
        if not is_finite(quantity) or quantity <= 0:
            return None
        quantity = max(quantity, self._largest(order))
        filled = order.filled_quantity if is_finite(order.filled_quantity) else 0
        return max(0, quantity - filled)

    def _added_to(self, order: Order, quantity: int) -> int:
        """Units that an order would have beyond those that are counted of it already."""
        return max(0, quantity - max(_quantity(order), self._largest(order)))

    def _largest(self, order: Order) -> int:
        """The largest quantity that the changes under way may give or leave an order."""
        reservations = self._changing.get(order.number, ())
        return max((reservation.quantity for reservation in reservations), default=0)

    def _without_price(self) -> list[str]:
        """Open positions whose prices no feed tells; the others get theirs."""
        without = []
        for instrument in self._live.instruments:
            price = self._prices.of(instrument)
            if price is None:
                without.append(instrument)
            else:
                self._live.price(instrument, price)
        return without

    def _hold_placement(self, asked: Asked) -> ExposureReservation:
        self._reserved[asked.one_side] += asked.quantity
        self._placing += 1
        return ExposureReservation(self, asked.one_side, asked.quantity)

    def _hold_change(self, order: Order, before: Asked, after: Asked) -> ExposureReservation:
        largest = max(before.quantity, after.quantity)
        reservation = ExposureReservation(self, after.one_side, largest, order_number=order.number)
        reservation.wanted = after.quantity
        is_moved = order.number in self._changing or after.quantity != before.quantity
        if is_moved and self._limits.max_net_position is not None:
            self._changing.setdefault(order.number, []).append(reservation)
        return reservation


def _placement(form: PlaceForm) -> Asked:
    segment, symbol, _ = position_key(form.es, form.ts, "")
    return Asked(
        segment,
        symbol,
        form.tt,
        form.pc,
        form.pt,
        int(form.qt),
        Decimal(form.pr),
        Decimal(form.tp),
    )


def _present(order: Order) -> Asked:
    """The order as it stands. What cannot be read of it is 0, so that any change is checked as one
    that makes the order larger and dearer."""
    segment, symbol, _ = position_key(order.segment, order.symbol, "")
    return Asked(
        segment,
        symbol,
        side_of(order.side) or order.side,
        order.product,
        order.order_type,
        _quantity(order),
        _rupees(order.price),
        _rupees(order.trigger),
    )


def _quantity(order: Order) -> int:
    return order.quantity if is_finite(order.quantity) else 0


def _rupees(price: object) -> Decimal:
    """A price as the caller or the broker gave it; 0 when there is none, or none can be read."""
    try:
        amount = Decimal(str(price or 0))
    except decimal.InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() else Decimal(0)


def _changed(order: Order, form: ModifyForm) -> Asked:
    return msgspec.structs.replace(
        _present(order),
        order_type=form.pt,
        quantity=int(form.qt),
        price=Decimal(form.pr),
        trigger=Decimal(form.tp),
    )


def _factor_of(instrument: Instrument) -> Decimal | None:
    """As in positions, where a factor of zero counts as 1; None when a part is no finite number
    above 0."""
    parts = (
        instrument.multiplier or 1,
        instrument.general_numerator or 1.0,
        instrument.price_numerator or 1.0,
        instrument.general_denominator or 1.0,
        instrument.price_denominator or 1.0,
    )
    if not all(is_finite(part) and part > 0 for part in parts):
        return None
    multiplier, general, price, general_below, price_below = (Decimal(repr(part)) for part in parts)
    return multiplier * (general / general_below) * (price / price_below)


def _amount(rupees: object) -> Decimal | None:
    return None if rupees is None else Decimal(str(rupees))


def _unpriced(symbols: str) -> str:
    return (
        f"without the last price of {symbols}: subscribe it on a market feed of this client, and "
        "wait for a tick"
    )


def _out_of_date(what: str, report: str, age: float) -> str:
    when = "have never been read" if math.isinf(age) else f"were last known {age:.0f} s ago"
    return (
        f"{what} of the account {when}: the order feed is down or was just now, and the {report} "
        "could not be read since"
    )
