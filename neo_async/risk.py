"""Guard rails: what no order of this client may exceed, one function a rule.

Orders on their way are held against the limits like those that are open: a `Hold` takes up their
room from the check until the tracker knows the order, or it has failed.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
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
from neo_async.feeds import ColumnFeed, MarketFeed
from neo_async.instruments import Instruments
from neo_async.live import LivePositions
from neo_async.model.enums import OrderStatus, OrderType, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRow
from neo_async.settlement import Question
from neo_async.tracking import Order, Tracker
from neo_async.wire.orders import ModifyForm, PlaceForm

MINUTE = 60.0

PRICES_EVERY = 15.0
"""Seconds between two readings of the positions, for the prices of those that no feed tells."""
OLDEST_PRICES = 60.0
"""Seconds after which the loss of the day is not known by them any more."""

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
        """By the name that feeds know, `nse_cm|11536`."""
        for feed in self._feeds:
            if isinstance(feed, MarketFeed):
                price = feed.last_price(instrument)
                if price is not None:
                    return price
        return None

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


class Hold:
    """Room that a placement, or what a change adds, takes up while it is on its way."""

    __slots__ = (
        "_guard",
        "_is_ended",
        "answered_at",
        "before",
        "is_placement",
        "one_side",
        "quantity",
        "was_sent",
    )

    def __init__(
        self, guard: RiskGuard, one_side: OneSide, quantity: int, *, is_placement: bool
    ) -> None:
        self._guard = guard
        self._is_ended = False
        self.one_side = one_side
        self.quantity = quantity
        self.is_placement = is_placement
        self.was_sent = True
        """False once it is known that no byte of it left."""
        self.before = 0
        """Units of the order before a change that makes it smaller."""
        self.answered_at = math.inf
        """Time of the loop at which what became of that was known."""

    def end(self, question: Question | None = None) -> None:
        """Give the room back: the order is known, or has failed; with a question, when that is
        answered. Only the first call counts."""
        if self._is_ended:
            return
        self._is_ended = True
        if question is None:
            self._guard.release(self)
        else:
            question.on_answer(lambda: self._guard.release(self))


class RiskGuard:
    """Holds orders against the limits: `admit` and `admit_change` raise the RiskRefused of the
    limit that they would break."""

    def __init__(
        self,
        limits: RiskLimits,
        tracker: Tracker,
        live: LivePositions,
        prices: LastPrices,
        instruments: Instruments,
    ) -> None:
        self._limits = limits
        self._order_value = _amount(limits.order_value)
        self._day_loss = _amount(limits.day_loss)
        self._segments = None if limits.segments is None else frozenset(limits.segments)
        self._products = None if limits.products is None else frozenset(limits.products)
        self._tracker = tracker
        self._live = live
        self._prices = prices
        self._instruments = instruments
        self._placing = 0
        """Placements on their way."""
        self._held: Counter[OneSide] = Counter()
        """Units on their way."""
        self._shrinking: dict[str, Hold] = {}
        """Changes that make orders smaller, by order number. They are not believed before the book
        shows them: the exchange may refuse what the broker has taken."""
        self._pricing: asyncio.Task[None] | None = None
        self._placed: deque[float] = deque()
        """Times of the loop at which placements of the last minute were no longer on their way:
        that is no earlier than they arrived."""

    @property
    def needs_positions(self) -> bool:
        """Whether live positions have to be kept for it."""
        return self._limits.net_position is not None or self._limits.day_loss is not None

    @property
    def needs_orders(self) -> bool:
        """Whether every open order of the account has to be known to it."""
        return self._limits.open_orders is not None or self.needs_positions

    def admit(self, forms: Sequence[PlaceForm]) -> list[Hold]:
        """Check placements that go out together as a whole, and hold their room."""
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
        return [self._hold(one.one_side, one.quantity, is_placement=True) for one in asked]

    def admit_change(self, order: Order, form: ModifyForm) -> Hold:
        """Check what a change makes larger, dearer, or moves; and hold what it adds."""
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
            self._check_exposure({after.one_side: added})
        hold = self._hold(after.one_side, added, is_placement=False)
        if after.quantity < before.quantity and self._limits.net_position is not None:
            earlier = self._shrinking.get(order.number)
            hold.before = max(before.quantity, earlier.before if earlier else 0)
            self._shrinking[order.number] = hold
        return hold

    def release(self, hold: Hold) -> None:
        self._held[hold.one_side] -= hold.quantity
        if not self._held[hold.one_side]:
            del self._held[hold.one_side]
        if hold.is_placement:
            self._placing -= 1
            if hold.was_sent:
                self._placed.append(asyncio.get_running_loop().time())
        elif hold.before:
            hold.answered_at = asyncio.get_running_loop().time()
            self._tracker.reread()

    def see_book(self, rows: Sequence[OrderRow], began: float) -> None:
        """Take in a whole book that was asked for at that time of the loop."""
        if not self._shrinking:
            return
        for row in rows:
            hold = self._shrinking.get(row.number)
            if hold and began >= hold.answered_at and row.status not in _CHANGING:
                del self._shrinking[row.number]

    def start(self) -> None:
        """Keep what the limits need from now on; a second time changes nothing."""
        if self._day_loss is not None and self._pricing is None:
            self._pricing = asyncio.create_task(self._keep_prices(), name="risk: prices")

    async def close(self) -> None:
        task, self._pricing = self._pricing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_prices(self) -> None:
        """Have positions read anew now and then while no feed tells their prices or trades."""
        while True:
            await asyncio.sleep(PRICES_EVERY)
            if self._without_price() or not self._live.is_current:
                self._live.refresh()

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
        most = self._limits.order_quantity
        if most is not None and asked.quantity > most:
            raise QuantityLimit(
                most, asked.quantity, f"an order of {asked.quantity} units of {asked.symbol}"
            )

    def _check_value(self, asked: Asked) -> None:
        if self._order_value is None:
            return
        limit = self._limits.order_value
        price = self._dearest(asked)
        if price is None:
            raise ValueLimit(limit, None, _unpriced("the value of a market order", asked.symbol))
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
        most = self._limits.price_away_percent
        given = {"price": asked.price, "trigger": asked.trigger}
        if most is None or not any(given.values()):
            return
        last = self._prices.of_order(asked.segment, asked.symbol)
        if last is None:
            raise PriceLimit(most, None, _unpriced("the distance", asked.symbol))
        for name, price in given.items():
            away = abs(price - last) / last * 100
            if price and away > Decimal(str(most)):
                raise PriceLimit(
                    most,
                    away,
                    f"{name} {price} of {asked.symbol} is {away:.2f} % from its last price {last}",
                )

    # --- rules of all orders together ---------------------------------------------------------

    def _check_rate(self, count: int) -> None:
        most = self._limits.orders_per_minute
        since = asyncio.get_running_loop().time() - MINUTE
        while self._placed and self._placed[0] <= since:
            self._placed.popleft()
        within = len(self._placed) + self._placing + count
        if most is not None and within > most:
            raise OrderRateLimit(most, within, f"{within} orders within a minute")

    def _check_open_orders(self, count: int) -> None:
        most = self._limits.open_orders
        if most is None:
            return
        open_orders = len(self._tracker.open_orders) + self._placing + count
        if open_orders > most:
            raise OpenOrdersLimit(most, open_orders, f"{open_orders} orders would be open")

    def _check_exposure(self, wanted: Mapping[OneSide, int]) -> None:
        if not self.needs_positions:
            return
        nets = {one_side: self._worst_position(one_side, wanted[one_side]) for one_side in wanted}
        self._check_positions(nets)
        if any(net > 0 for net in nets.values()):  # else they can only close what is there
            self._check_loss()

    def _check_positions(self, nets: Mapping[OneSide, int]) -> None:
        most = self._limits.net_position
        if most is None:
            return
        if not self._live.is_started:
            raise PositionLimit(most, None, _UNREAD)
        for (_, symbol, side), net in nets.items():
            if net > most:
                raise PositionLimit(
                    most,
                    net,
                    f"{net} units of {symbol} {'bought' if side == Side.BUY else 'sold'} net, if "
                    "all that is open on that side is filled",
                )

    def _check_loss(self) -> None:
        if self._day_loss is None:
            return
        limit = self._limits.day_loss
        if not self._live.is_started:
            raise LossLimit(limit, None, _UNREAD)
        is_old = self._live.read_at < asyncio.get_running_loop().time() - OLDEST_PRICES
        if (unpriced := self._without_price()) and is_old:
            raise LossLimit(
                limit, None, _unpriced("the loss of the day", ", ".join(sorted(unpriced)))
            )
        if is_old and not self._live.is_current:
            raise LossLimit(limit, None, "the positions could not be read for more than a minute")
        total = self._live.total()
        if total.mtm_pnl is None:
            reasons = "; ".join(
                f"{symbol}: {reason}" for (_, symbol, _), reason in total.unknown_reasons.items()
            )
            raise LossLimit(limit, None, f"the loss of the day is not known ({reasons})")
        loss = -total.mtm_pnl
        if loss >= self._day_loss:
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

    def _worst_position(self, one_side: OneSide, quantity: int) -> int:
        """Net units on a side, if these and all that is open or on its way there were filled, and
        nothing on the other side."""
        segment, symbol, side = one_side
        least, most = self._live.net_range(segment, symbol)
        held = most if side == Side.BUY else -least
        pending = sum(
            self._pending(order)
            for order in self._tracker.open_orders
            if order.symbol == symbol and order.segment == segment and order.side == side
        )
        return held + pending + self._held[one_side] + quantity

    def _pending(self, order: Order) -> int:
        """Units that may still be filled."""
        shrinking = self._shrinking.get(order.number)
        quantity = max(order.quantity, shrinking.before) if shrinking else order.quantity
        return max(0, quantity - order.filled_quantity)

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

    def _hold(self, one_side: OneSide, quantity: int, *, is_placement: bool) -> Hold:
        self._held[one_side] += quantity
        self._placing += is_placement
        return Hold(self, one_side, quantity, is_placement=is_placement)


def _placement(form: PlaceForm) -> Asked:
    return Asked(
        form.es,
        form.ts,
        form.tt,
        form.pc,
        form.pt,
        int(form.qt),
        Decimal(form.pr),
        Decimal(form.tp),
    )


def _present(order: Order) -> Asked:
    return Asked(
        order.segment,
        order.symbol,
        order.side,
        order.product,
        order.order_type,
        order.quantity,
        Decimal(str(order.price or 0)),
        Decimal(str(order.trigger or 0)),
    )


def _changed(order: Order, form: ModifyForm) -> Asked:
    return msgspec.structs.replace(
        _present(order),
        order_type=form.pt,
        quantity=int(form.qt),
        price=Decimal(form.pr),
        trigger=Decimal(form.tp),
    )


def _factor_of(instrument: Instrument) -> Decimal:
    """As in positions, where a factor of zero counts as 1."""
    factor = Decimal(instrument.multiplier or 1)
    for above, below in (
        (instrument.general_numerator, instrument.general_denominator),
        (instrument.price_numerator, instrument.price_denominator),
    ):
        factor *= Decimal(repr(above or 1.0)) / Decimal(repr(below or 1.0))
    return factor


def _amount(rupees: object) -> Decimal | None:
    return None if rupees is None else Decimal(str(rupees))


def _unpriced(what: str, symbols: str) -> str:
    return (
        f"{what} is not known without the last price of {symbols}: subscribe it on a market feed "
        "of this client, and wait for a tick"
    )
