"""Pre-trade checks: the limits that no order of this client may exceed, one function a limit.

An order that passes reserves its exposure (see exposure.py) until the order cache has it or it has
failed, so that orders under way count like open ones. While the order feed is down, the order book
and the positions are read every few seconds. A limit whose facts are older than
`MAX_REPORT_AGE_SECONDS`, or cannot be read, refuses every order.
"""

from __future__ import annotations

import asyncio
import decimal
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

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
from neo_async.execution.order import Order
from neo_async.model.enums import Side
from neo_async.model.numbers import EXACT
from neo_async.model.orders import OrderRow, OrderTerms
from neo_async.portfolio.coverage import Coverage
from neo_async.portfolio.live_positions import LivePositions
from neo_async.risk.exposure import (
    ExposureReservation,
    InstrumentSide,
    ReferencePrices,
    Reservations,
    WorstCaseExposure,
    in_one_spelling,
    instrument_side,
    limit_price,
    without_last_price,
)

REPORT_INTERVAL_SECONDS = 60.0
"""Seconds between two readings of the order book, and of the positions, while the order feed is
live: the message about another application's order may be lost."""
REPORT_INTERVAL_WITHOUT_FEED_SECONDS = 5.0
"""Seconds between two such readings while the order feed is down, or while no reading has followed
its last reconnect."""
PRICE_INTERVAL_SECONDS = 15.0
"""Seconds between two readings of the positions, for the prices of those without a market feed."""

_EARLY_SECONDS = 1.0
"""Seconds by which a report is read early: it was requested, or had come, a moment after the round
that asked for it, and would otherwise be too young for the next round."""

MAX_REPORT_AGE_SECONDS = 30.0
"""Age above which the open orders and the positions of the account count as unknown, while the
order feed is down and the reports cannot be read."""
MAX_REPORT_PRICE_AGE_SECONDS = 60.0
"""Age above which the prices of the positions report do not give the loss of the day."""

_PERCENT = Decimal("0.0001")
"""Precision of a percentage in an error."""

_NOT_STARTED = "live positions are not started: await neo.portfolio.live.start() first"

_WorstCases: TypeAlias = Mapping[InstrumentSide, int | None]
"""Worst-case net units of the account after the order; None when they are unknown."""


class RiskEngine:
    """Checks orders against RiskLimits. `admit` and `admit_change` raise the RiskRefused of the
    first limit that would be exceeded."""

    def __init__(
        self,
        limits: RiskLimits,
        engine: ExecutionEngine,
        live: LivePositions,
        prices: ReferencePrices,
    ) -> None:
        """The risk engine subscribes to the order feed and the order books of `engine`, whose order
        feed must not have been started."""
        self._limits = limits
        self._max_order_notional = _amount(limits.max_order_notional)
        self._max_daily_loss = _amount(limits.max_daily_loss)
        self._segments = None if limits.segments is None else frozenset(limits.segments)
        self._products = None if limits.products is None else frozenset(limits.products)
        self._engine = engine
        self._cache = engine.cache
        self._live = live
        self._prices = prices
        self._reservations = Reservations(engine, keeps_changes=limits.max_net_position is not None)
        self._exposure = WorstCaseExposure(engine.cache, live, self._reservations)
        self._open_orders = Coverage()
        """Coverage of the account's open orders by what is known of them."""
        self._open_orders.attach(engine.updates)
        self._unnumbered: OrderRow | None = None
        """An open order of the newest order book without a number: the order cache lacks it."""
        engine.registers_open_orders = self.needs_orders
        engine.on_book_applied(self.on_order_book)
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def needs_positions(self) -> bool:
        """Whether a limit needs live positions."""
        return self._limits.max_net_position is not None or self._limits.max_daily_loss is not None

    @property
    def needs_orders(self) -> bool:
        """Whether a limit needs every open order of the account."""
        return self._limits.max_open_orders is not None or self.needs_positions

    def admit(self, placements: Sequence[OrderTerms]) -> list[ExposureReservation]:
        """Check placements that are sent together, as a whole, and reserve their exposure. Their
        terms are those that `check_order` returned."""
        with decimal.localcontext(EXACT):
            added: Counter[InstrumentSide] = Counter()
            for terms in placements:
                self._check_segments(terms)
                self._check_products(terms)
                self._check_max_order_quantity(terms)
                self._check_max_order_notional(terms)
                self._check_max_price_deviation(terms)
                added[instrument_side(terms)] += terms.quantity
            self._check_max_orders_per_minute(len(placements))
            self._check_max_open_orders(len(placements))
            if self.needs_positions:
                worst_cases = self._worst_cases(added)
                self._check_max_net_position(worst_cases)
                self._check_max_daily_loss(worst_cases)
        return [self._reservations.reserve_placement(terms) for terms in placements]

    def admit_change(self, order: Order, terms: OrderTerms) -> ExposureReservation:
        """Check what a change to these terms increases, and its new prices; reserve the larger
        quantity. A quantity or price that no report has shown counts as 0, so that every change of
        it is checked as an increase."""
        with decimal.localcontext(EXACT):
            before, after = order.terms, in_one_spelling(terms)
            is_larger = after.quantity > before.quantity
            may_cost_more = (
                limit_price(after) > limit_price(before) or after.order_type != before.order_type
            )
            if is_larger:
                self._check_max_order_quantity(after)
            if is_larger or may_cost_more:
                self._check_max_order_notional(after)
            if (after.price, after.trigger) != (before.price, before.trigger):
                self._check_max_price_deviation(after)
            if is_larger and self.needs_positions:
                added = self._exposure.added_units(order, after.quantity)
                worst_cases = self._worst_cases({instrument_side(after): added})
                self._check_max_net_position(worst_cases)
                self._check_max_daily_loss(worst_cases)
        return self._reservations.reserve_change(order.number, before, after)

    def on_order_book(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        """Apply a complete order book. `requested_at` is the time of the loop at which it was
        requested."""
        self._open_orders.take_report(requested_at)
        self._unnumbered = next(
            (row for row in rows if not (row.has_number or row.status.is_final)), None
        )
        if self.needs_positions:
            self._live.on_order_book(rows)
        self._reservations.on_order_book(rows, requested_at)

    @property
    def problems(self) -> Iterator[str]:
        """Reasons for which limits refuse every order, as sentences."""
        if self._refreshing is None:
            return
        if self.needs_orders and (reason := self._why_orders_unknown()):
            yield f"limits refuse orders: {reason}"
        if self.needs_positions and (reason := self._why_positions_unknown()):
            yield f"limits refuse orders: {reason}"

    def start(self) -> None:
        """Keep orders, positions and prices up to date from now on. A second call does nothing."""
        if self.needs_orders and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="risk: reports")

    async def close(self) -> None:
        """Stop reading reports."""
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _refresh(self) -> None:
        """Have the order book and the positions read at intervals, which are short while no feed
        reports the account's orders or the prices of its positions."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_WITHOUT_FEED_SECONDS)
            due_at = asyncio.get_running_loop().time() + _EARLY_SECONDS
            interval = (
                REPORT_INTERVAL_SECONDS
                if self._open_orders.is_complete
                else REPORT_INTERVAL_WITHOUT_FEED_SECONDS
            )
            if self._reservations.changes or due_at - self._open_orders.requested_at >= interval:
                self._engine.request_order_book()
            if self.needs_positions and due_at - self._live.read_at >= self._positions_interval():
                self._live.refresh()

    def _positions_interval(self) -> float:
        """Return the seconds after which the positions have to be read again."""
        if self._live.age:
            return REPORT_INTERVAL_WITHOUT_FEED_SECONDS
        if self._max_daily_loss is not None and self._instruments_without_tick():
            return PRICE_INTERVAL_SECONDS
        return REPORT_INTERVAL_SECONDS

    # --- limits of one order ------------------------------------------------------------------

    def _check_segments(self, terms: OrderTerms) -> None:
        if self._segments is not None and terms.segment not in self._segments:
            segment = str(terms.segment)
            raise SegmentNotAllowed(self._segments, segment, f"{segment} is not among them")

    def _check_products(self, terms: OrderTerms) -> None:
        if self._products is not None and terms.product not in self._products:
            raise ProductNotAllowed(
                self._products, terms.product, f"{terms.product} is not among them"
            )

    def _check_max_order_quantity(self, terms: OrderTerms) -> None:
        limit = self._limits.max_order_quantity
        if limit is not None and terms.quantity > limit:
            raise QuantityLimit(
                limit, terms.quantity, f"an order of {terms.quantity} units of {terms.symbol}"
            )

    def _check_max_order_notional(self, terms: OrderTerms) -> None:
        if self._max_order_notional is None:
            return
        limit = self._limits.max_order_notional
        price = self._prices.reference_price(terms)
        if price is None:
            why = self._prices.why_unknown(terms.segment, terms.symbol)
            raise ValueLimit(limit, None, f"the value of a market order is not known {why}")
        multiplier = self._prices.contract_multiplier(terms.segment, terms.symbol)
        if multiplier is None:
            raise ValueLimit(
                limit,
                None,
                f"the contract multiplier of {terms.symbol} is not known: await "
                f"instruments.load({str(terms.segment)!r}) first",
            )
        notional = terms.quantity * price * multiplier
        if notional > self._max_order_notional:
            raise ValueLimit(
                limit,
                notional,
                f"an order of {terms.quantity} units of {terms.symbol} is worth {notional:.2f} "
                "rupees",
            )

    def _check_max_price_deviation(self, terms: OrderTerms) -> None:
        limit = self._limits.max_price_deviation_pct
        if limit is None or not (terms.price or terms.trigger):
            return
        last_price = self._prices.last_price(terms.segment, terms.symbol)
        if last_price is None:
            why = self._prices.why_unknown(terms.segment, terms.symbol)
            raise PriceLimit(limit, None, f"the price deviation is not known {why}")
        for name, price in (("price", terms.price), ("trigger", terms.trigger)):
            if not price:
                continue
            deviation = 100 * abs(price - last_price)
            if deviation > Decimal(str(limit)) * last_price:
                deviation = EXACT.quantize(deviation / last_price, _PERCENT)
                raise PriceLimit(
                    limit,
                    deviation,
                    f"{name} {price} of {terms.symbol} is {deviation:.2f} % from its last price "
                    f"{last_price}",
                )

    # --- limits of the account ----------------------------------------------------------------

    def _check_max_orders_per_minute(self, count: int) -> None:
        limit = self._limits.max_orders_per_minute
        if limit is None:
            return
        now = asyncio.get_running_loop().time()
        orders = self._reservations.placements_within_minute(now) + count
        if orders > limit:
            raise OrderRateLimit(limit, orders, f"{orders} orders within a minute")

    def _check_max_open_orders(self, count: int) -> None:
        limit = self._limits.max_open_orders
        if limit is None:
            return
        if reason := self._why_orders_unknown():
            raise OpenOrdersLimit(limit, None, reason)
        open_orders = self._cache.open_count + self._reservations.placing + count
        if open_orders > limit:
            raise OpenOrdersLimit(limit, open_orders, f"{open_orders} orders would be open")

    def _check_max_net_position(self, worst_cases: _WorstCases) -> None:
        limit = self._limits.max_net_position
        if limit is None:
            return
        if not self._live.is_started:
            raise PositionLimit(limit, None, _NOT_STARTED)
        if reason := self._why_positions_unknown() or self._why_orders_unknown():
            raise PositionLimit(limit, None, reason)
        for key, units in worst_cases.items():
            if units is None:
                raise PositionLimit(limit, None, self._exposure.why_unknown(key))
            if units > limit:
                _, symbol, side = key
                raise PositionLimit(
                    limit,
                    units,
                    f"{units} units of {symbol} {'bought' if side == Side.BUY else 'sold'} net, if "
                    "every open order on that side is filled",
                )

    def _check_max_daily_loss(self, worst_cases: _WorstCases) -> None:
        if self._max_daily_loss is None:
            return
        # An order that can only close a position passes, whatever the loss is.
        if all(units is not None and units <= 0 for units in worst_cases.values()):
            return
        limit = self._limits.max_daily_loss
        if not self._live.is_started:
            raise LossLimit(limit, None, _NOT_STARTED)
        if reason := self._why_prices_unknown():
            raise LossLimit(limit, None, reason)
        total = self._live.total()
        if total.mtm_pnl is None:
            reasons = "; ".join(
                f"{symbol}: {reason}" for (_, symbol, _), reason in total.unknown_reasons.items()
            )
            raise LossLimit(limit, None, f"the loss of the day is not known ({reasons})")
        loss = -total.mtm_pnl
        if Decimal(repr(loss)) >= self._max_daily_loss:
            raise LossLimit(limit, loss, f"a loss of {loss:.2f} rupees today")

    # --- facts that the limits need -----------------------------------------------------------

    def _worst_cases(self, added: Mapping[InstrumentSide, int]) -> _WorstCases:
        return {key: self._exposure.net_position(key, units) for key, units in added.items()}

    def _why_orders_unknown(self) -> str:
        """Return why the open orders of the account are unknown; empty when they are known."""
        if (row := self._unnumbered) is not None:
            return (
                "the order book has an open order without a number, which cannot be followed: "
                f"{row.side} {row.quantity} {row.symbol}"
            )
        age = self._open_orders.age(asyncio.get_running_loop().time())
        if age <= MAX_REPORT_AGE_SECONDS:
            return ""
        return _out_of_date("the open orders", "the order book", age)

    def _why_positions_unknown(self) -> str:
        """Return why the positions of the account are unknown; empty when they are known."""
        age = self._live.age
        if age <= MAX_REPORT_AGE_SECONDS:
            return ""
        return _out_of_date("the positions", "the positions report", age)

    def _why_prices_unknown(self) -> str:
        """Return why the open positions cannot be valued; empty when they can."""
        # Evaluated in any case: it applies the newest ticks to the positions.
        without_tick = self._instruments_without_tick()
        oldest = asyncio.get_running_loop().time() - MAX_REPORT_PRICE_AGE_SECONDS
        if self._live.read_at >= oldest:
            return ""
        if without_tick:
            why = without_last_price(", ".join(sorted(without_tick)))
            return f"the loss of the day is not known {why}"
        if not self._live.is_current:
            return "the positions could not be read for more than a minute"
        return ""

    def _instruments_without_tick(self) -> list[str]:
        """Apply the newest ticks to the open positions. Return the instruments that have none."""
        without_tick = []
        for instrument in self._live.instruments:
            price = self._prices.last_tick_price(instrument)
            if price is None:
                without_tick.append(instrument)
            else:
                self._live.price(instrument, price)
        return without_tick


def _amount(rupees: object) -> Decimal | None:
    return None if rupees is None else Decimal(str(rupees))


def _out_of_date(what: str, report: str, age: float) -> str:
    when = "have never been read" if math.isinf(age) else f"were last known {age:.0f} s ago"
    return (
        f"{what} of the account {when}: the order feed is down or was down until just now, and "
        f"{report} could not be read since"
    )
