"""`neo.exits`: brackets, covers, stops for positions, and price triggers, kept by the client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Unpack, overload

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.calendar import Calendar
from neo_async.errors import InvalidOrder, NeoError, OutcomeUnknown, ServerError
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.execution.order import Order
from neo_async.execution.order_arguments import (
    named_instrument,
    order_of,
    request_of,
    selection,
)
from neo_async.exits.checks import (
    ExitOptions,
    ExitSettings,
    check_last_day,
    check_product,
    known_price,
    plan_terms,
)
from neo_async.exits.plan import ExitPlan
from neo_async.exits.plan_book import PlanBook, key_of
from neo_async.exits.prices import PlanPrices
from neo_async.exits.requests import ExitRequests
from neo_async.exits.runner import PlanRunner
from neo_async.exits.square_off import TIMEOUT_SECONDS as SQUARE_OFF_SECONDS
from neo_async.exits.square_off import PositionCloser, Selection
from neo_async.exits.state import Aim, PlanState, PlanStatus, PlanTerms, Resting
from neo_async.exits.trigger import PriceTrigger, TriggerState
from neo_async.feeds.market_feed import MarketFeed
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.market import Market
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.orders import OrderRequest, Price
from neo_async.model.portfolio import Position, PositionKey, SquaredOff
from neo_async.model.ticks import LiteTick
from neo_async.orders import Orders
from neo_async.portfolio.portfolio import Portfolio
from neo_async.portfolio.position_rows import position_key
from neo_async.wire.numbers import price_text
from neo_async.wire.rules import read_member, read_product
from neo_async.wire.tags import entry_tag

log = logging.getLogger(logs.EXITS)


class Exits:
    """Plans that exit positions: bracket, cover, stop and target for what is held, and triggers.

    The broker takes no cover and bracket orders from the API, and has no triggers that outlive a
    day. So the client keeps them: at most one order works for each unit that has to be exited. The
    stop rests at the broker; when the price reaches the target, that order is changed into the
    target. A position cannot be turned round, and a client that dies leaves a stop.

    With a journal, plans go on after a restart. Plans need the scrip master of their segment
    (`neo.instruments.load`), and raise InvalidOrder without it. The keywords of the exits are those
    of ExitSettings.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        orders: Orders,
        market: Market,
        portfolio: Portfolio,
        instruments: Instruments,
        *,
        new_feed: Callable[[Callable[[LiteTick], None]], MarketFeed[LiteTick]],
        journal: Journal | None,
        calendar: Calendar,
        clock: Callable[[], float] = time.time,
    ) -> None:
        requests = ExitRequests(engine, orders)
        self._orders = orders
        self._market = market
        self._portfolio = portfolio
        self._instruments = instruments
        self._clock = clock
        self._closer = PositionCloser(engine, requests, portfolio, instruments)
        self._book = PlanBook(
            engine,
            orders,
            requests,
            PlanPrices(new_feed, market.quotes, calendar.is_open),
            portfolio,
            instruments,
            journal=journal,
            calendar=calendar,
            clock=clock,
        )

    @property
    def plans(self) -> list[ExitPlan]:
        """Plans of this client, oldest first: those that are not final, those of the process before
        that the login has taken up, and those that have ended since the login."""
        return list(self._book.plans.values())

    @property
    def triggers(self) -> list[PriceTrigger]:
        """Price triggers that have not placed their order yet."""
        return list(self._book.triggers.values())

    @property
    def problems(self) -> list[str]:
        """Descriptions of what is wrong with the plans, for `health()`."""
        return self._book.problems

    async def start(self, plans: Iterable[str]) -> None:
        """Go on with the plans after a login; see PlanBook.start."""
        await self._book.start(plans)

    async def close(self) -> None:
        """Stop the tasks of all plans: they go on after the next login. Orders stay as they are."""
        await self._book.close()

    def end(self, *, reason: str) -> None:
        """End every plan at once, and leave its orders to the halt that cancels them."""
        for runner in self._book.runners:
            runner.end(reason)

    # --- plans --------------------------------------------------------------------------------

    @overload
    async def bracket(
        self,
        segment: Segment | str,
        symbol: str,
        side: Side | str,
        quantity: int,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan: ...

    @overload
    async def bracket(
        self,
        instrument: InstrumentLike,
        side: Side | str,
        quantity: int,
        /,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan: ...

    async def bracket(
        self,
        segment: Any,
        symbol: Any,
        side: Any = None,
        quantity: Any = None,
        *,
        product: Product | str,
        price: Price | None = None,
        order_type: OrderType | str = OrderType.LIMIT,
        trigger: Price | None = None,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan:
        """Place an entry, and exit what fills of it by target or stop. Return the plan when the
        broker has taken the entry.

        The instrument is a segment and a trading symbol, or one argument: an Instrument, or a name
        that the loaded scrip masters have, as for `neo.orders.place`. Prices are rupees and not
        distances. Quantities above the freeze quantity are sliced. Raises InvalidOrder before
        anything is sent, and what `neo.orders.place` raises for the entry. After OutcomeUnknown the
        plan goes on, and exits the entry if it took effect.
        """
        terms_given = {
            "product": product,
            "price": price,
            "order_type": order_type,
            "trigger": trigger,
        }
        entry = order_of(self._instruments, segment, symbol, side, quantity, terms_given)
        check_product(read_product(product))
        terms = self._orders.placement(entry, is_sliced=True).terms
        assert terms is not None
        plan = await self._plan_terms(
            segment=terms.segment,
            symbol=terms.symbol,
            side=terms.side,
            product=terms.product,
            price=terms.price,
            exits=exits,
        )
        return await self._enter(entry, plan)

    @overload
    async def cover(
        self,
        segment: Segment | str,
        symbol: str,
        side: Side | str,
        quantity: int,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan: ...

    @overload
    async def cover(
        self,
        instrument: InstrumentLike,
        side: Side | str,
        quantity: int,
        /,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan: ...

    async def cover(
        self, segment: Any, symbol: Any, side: Any = None, quantity: Any = None, **terms: Any
    ) -> ExitPlan:
        """Place an entry with a stop: a `bracket` that needs no target, with the same arguments.
        Raises InvalidOrder without `stop` and `trail`."""
        if terms.get("stop") is None and terms.get("trail") is None:
            raise InvalidOrder("stop", None, "a cover order needs a stop, or a trail")
        return await self.bracket(segment, symbol, side, quantity, **terms)

    async def protect(
        self,
        held: Position | Order | InstrumentLike,
        *,
        product: Product | str | None = None,
        **exits: Unpack[ExitOptions],
    ) -> ExitPlan:
        """Exit a position, or what fills of an order, by target or stop, whichever comes first.

        An instrument, by any name that the loaded scrip masters have, means the one position that
        is open in it; where several products are open, `product` says which. Raises InvalidOrder
        for a position that is flat, or that another plan exits already.
        """
        if isinstance(held, Instrument | str):
            held = await self.open_position(held, product=product)
        elif product is not None and read_product(product) != held.product:
            raise InvalidOrder("product", product, f"is not that of what is held: {held.product}")
        quantity = held.quantity if isinstance(held, Order) else held.net_quantity
        if not quantity:
            known = "is flat" if quantity == 0 else "has a quantity that is not known"
            raise InvalidOrder("held", held.symbol, known)
        if isinstance(held, Order) and held.is_final and not held.filled_quantity:
            raise InvalidOrder("held", held.number, "the order is final, and nothing filled of it")
        side = held.side if isinstance(held, Order) else Side.BUY if quantity > 0 else Side.SELL
        terms = await self._plan_terms(
            segment=held.segment,
            symbol=held.symbol,
            side=side,
            product=held.product,
            price=None,
            exits=exits,
        )
        for other in self._book.of(key_of(terms)):
            raise InvalidOrder(
                "held",
                held.symbol,
                f"plan {other.state.id} exits this position already: change() or cancel() it",
            )
        if not isinstance(held, Order):
            for order in await self._closer.closing_orders(key_of(terms), terms.exit_side):
                raise InvalidOrder(
                    "held",
                    held.symbol,
                    f"order {order.number} closes this position as well, {order.pending_quantity} "
                    "units: cancel it first, or both would fill",
                )
        state = self._new_state(terms, abs(quantity))
        if isinstance(held, Order):
            state.entry_numbers = [held.number]
        else:
            state.entry_filled = abs(quantity)
            state.is_entry_final = True
            state.status = PlanStatus.OPEN
        runner = self._book.add(state)
        runner.entries = [held] if isinstance(held, Order) else []
        # What is held may have been closed since the report that shows it.
        is_there = not isinstance(held, Order) or held.filled_quantity > 0
        runner.timers.must_read_position = is_there
        self._book.start_plan(runner)
        return self._book.plans[state.id]

    async def open_position(
        self, instrument: InstrumentLike, *, product: Product | str | None = None
    ) -> Position:
        """Return the one open position in an instrument, or of its `product`. Raises InvalidOrder
        where there is none, and where positions of several products are open."""
        listed = named_instrument(self._instruments, instrument)
        product = None if product is None else read_product(product)
        which = Selection(listed.segment, listed.symbol, product)
        found = [
            one
            for one in await self._portfolio.positions(quotes=False)
            if one.net_quantity != 0
            and which.includes(position_key(one.segment, one.symbol, one.product))
        ]
        if len(found) == 1:
            return found[0]
        of = "" if product is None else f" of {product}"
        if not found:
            raise InvalidOrder("held", listed.symbol, f"has no open position{of}")
        products = " and ".join(str(one.product) for one in found)
        raise InvalidOrder("product", None, f"{listed.symbol} is open in {products}: choose one")

    async def when(
        self,
        instrument: InstrumentLike,
        *,
        place: OrderRequest | Mapping[str, Any],
        above: Price | None = None,
        below: Price | None = None,
        until: date | None = None,
    ) -> PriceTrigger:
        """Place an order once when the last price of an instrument is at `above` or higher, or at
        `below` or lower; until the end of a day, where `until` is given.

        The instrument that is watched may be another one than that of the order, or an index. The
        order is an OrderRequest or a dict, as for `neo.orders.place_many`. Raises InvalidOrder for
        an order that could not be placed now.
        """
        name = self._instruments.key(instrument)
        order = request_of(place, self._instruments)
        if order.bracket is not None:
            raise InvalidOrder("place.bracket", order.bracket, "a trigger places ordinary orders")
        terms = self._orders.placement(order).terms
        assert terms is not None
        if (above is None) == (below is None):
            raise InvalidOrder("above", above, "give either above or below")
        check_last_day(until, date_of(self._clock()))
        trigger = self._book.add_trigger(
            TriggerState(
                id=self._book.new_id(),
                instrument=name,
                above=None if above is None else Decimal(price_text("above", above)),
                below=None if below is None else Decimal(price_text("below", below)),
                order=terms,
                until=until,
            )
        )
        self._book.start_trigger(trigger)
        return trigger

    async def square_off(
        self,
        *,
        segment: Segment | str | None = None,
        symbol: str | None = None,
        instrument: InstrumentLike | None = None,
        product: Product | str | None = None,
        holdings: bool = False,
        timeout: float = SQUARE_OFF_SECONDS,
    ) -> list[SquaredOff | NeoError]:
        """Close positions at the market; see Portfolio.square_off."""
        chosen, symbol = selection(
            self._instruments, segment=segment, symbol=symbol, instrument=instrument
        )
        which = Selection(chosen, symbol, None if product is None else read_product(product))
        try:
            async with asyncio.timeout(timeout):
                positions, problems = await self._closer.find(which, holdings=holdings)
        except TimeoutError:
            raise ServerError(f"no report of the positions for {timeout:g} s") from None
        if symbol is not None and not positions and not problems:
            self._instruments.resolver.check_symbol_anywhere(symbol)
        ended: dict[PositionKey, list[PlanRunner]] = {}
        for position in positions:
            ended[position.key] = [*self._book.of(position.key)]
            for runner in ended[position.key]:
                runner.end("squared off")

        def is_answering(key: PositionKey) -> bool:
            return any(runner.is_answering for runner in ended[key])

        closed = await self._closer.close(positions, holdings, timeout, is_answering)
        try:
            async with asyncio.timeout(SQUARE_OFF_SECONDS):
                problems += await self._closer.cancel_exits_of_flat_positions(which, ended.keys())
        except TimeoutError:
            problems.append(ServerError(f"no order book for {SQUARE_OFF_SECONDS:g} s"))
        return [*problems, *closed]

    # --- starting a plan ----------------------------------------------------------------------

    async def _plan_terms(
        self,
        *,
        segment: str,
        symbol: str,
        side: str,
        product: str,
        price: Decimal | None,
        exits: ExitOptions,
    ) -> PlanTerms:
        """Return the checked terms of a plan. Where the entry has no limit, its exits are compared
        with the last price."""
        instrument = self._instruments.find(segment, symbol)
        if price is None and instrument is not None:
            price = await self._last_price(instrument)
        return plan_terms(
            instrument,
            read_member("segment", segment, Segment),
            symbol,
            read_member("side", side, Side),
            read_member("product", product, Product),
            ExitSettings(**exits),
            price=price,
            today=date_of(self._clock()),
        )

    async def _last_price(self, instrument: Instrument) -> Decimal | None:
        name = instrument.key
        try:
            quotes = await self._market.quotes([name])
        except NeoError as error:
            log.warning("no quote of %s to compare the plan with: %s", name, error)
            return None
        quote = quotes.get(name)
        return None if quote is None else known_price(quote.last_price)

    def _new_state(self, terms: PlanTerms, quantity: int) -> PlanState:
        rests_target = terms.resting is Resting.TARGET or terms.stop is None
        return PlanState(
            id=self._book.new_id(),
            terms=terms,
            day=date_of(self._clock()),
            entry_quantity=quantity,
            stop=terms.stop,
            aim=Aim.TARGET if rests_target else Aim.STOP,
        )

    async def _enter(self, entry: OrderRequest, terms: PlanTerms) -> ExitPlan:
        """Place the entry of a plan. The plan is in the journal before, and goes on unless it is
        certain that nothing was placed."""
        state = self._new_state(terms, entry.quantity)
        runner = self._book.add(state)
        runner.is_entering = True
        self._book.start_plan(runner)
        try:
            runner.entries = await self._place_entry(entry, state)
        except NeoError as error:
            if isinstance(error, OutcomeUnknown):
                runner.lose_entry()
            else:
                runner.fail(str(error))
            raise
        except BaseException:  # the caller gave up: the entry may have been sent
            runner.lose_entry()
            raise
        finally:
            runner.is_entering = False
            runner.wake()
        return self._book.plans[state.id]

    async def _place_entry(self, entry: OrderRequest, state: PlanState) -> list[Order]:
        """Place the entry, in slices where it needs them. Raises the error of the first one where
        none was placed, and OutcomeUnknown where one may have been."""
        results = await self._orders.place_sliced(
            msgspec.structs.replace(entry, tag=entry_tag(state.id))
        )
        orders = [result for result in results if isinstance(result, Order)]
        errors = [result for result in results if isinstance(result, NeoError)]
        errors.sort(key=lambda error: not isinstance(error, OutcomeUnknown))
        for error in errors[:1]:
            if not orders or isinstance(error, OutcomeUnknown):
                raise error
            state.reason = f"only {len(orders)} of {len(results)} entry orders: {error}"
        return orders
