"""`neo.exits`: brackets, covers, stops for positions, and price triggers, kept by the client."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.calendar import Calendar
from neo_async.errors import (
    InvalidOrder,
    NeoError,
    OutcomeUnknown,
)
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.execution.order import Order
from neo_async.exits.checks import (
    ExitSettings,
    check_product,
    known_price,
    member,
    plan_terms,
)
from neo_async.exits.plan import ExitPlan
from neo_async.exits.prices import STALE_SECONDS, PlanPrices
from neo_async.exits.requests import ExitRequests
from neo_async.exits.runner import PlanRunner
from neo_async.exits.square_off import TIMEOUT_SECONDS as SQUARE_OFF_SECONDS
from neo_async.exits.square_off import PositionCloser, Selection
from neo_async.exits.state import (
    Aim,
    PlanState,
    PlanStatus,
    PlanTerms,
    Resting,
    Unprotected,
)
from neo_async.exits.trigger import PriceTrigger, TriggerState, WaitingOrder
from neo_async.feeds.market_feed import MarketFeed
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.market import Market
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRequest, OrderRow, Price
from neo_async.model.portfolio import Position, PositionKey, SquaredOff
from neo_async.model.ticks import Tick
from neo_async.model.updates import PositionUpdate
from neo_async.orders import Orders
from neo_async.portfolio.portfolio import Portfolio
from neo_async.portfolio.position_rows import position_key
from neo_async.wire.numbers import price_text
from neo_async.wire.quotes import wire_instrument
from neo_async.wire.tags import PLAN_ID_LENGTH, entry_tag, own_tag, step_of, without_suffix

log = logging.getLogger(logs.EXITS)

UNPROTECTED_SECONDS = 2.0
"""Time for which units may lack an exit order before that is a problem: a stop is on its way."""
BOOK_RETRY_SECONDS = 1.0
"""Time between two tries to read the order book from which plans go on after a login."""

_decoder = msgspec.json.Decoder(PlanState | TriggerState)
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Exits:
    """Plans that exit positions: bracket, cover, stop and target for what is held, and triggers.

    The broker takes no cover and bracket orders from the API, and has no triggers that outlive a
    day. So the client keeps them: at most one order works for each unit that has to be exited. The
    stop rests at the broker; when the price reaches the target, that order is changed into the
    target. A position cannot be turned round, and a client that dies leaves a stop.

    With a journal, plans go on after a restart. Plans need the scrip master of their segment
    (`neo.instruments.load`), and raise InvalidOrder without it.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        orders: Orders,
        market: Market,
        portfolio: Portfolio,
        instruments: Instruments,
        *,
        new_feed: Callable[[Callable[[Tick], None]], MarketFeed],
        journal: Journal | None,
        calendar: Calendar,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._orders = orders
        self._requests = ExitRequests(engine, orders)
        self._prices = PlanPrices(new_feed, market.quotes, calendar.is_open)
        self._closer = PositionCloser(engine, self._requests, portfolio, instruments)
        self._market = market
        self._portfolio = portfolio
        self._instruments = instruments
        self._journal = journal
        self._calendar = calendar
        self._clock = clock
        self._runners: dict[str, PlanRunner] = {}
        """Plans that are not final, by id."""
        self._plans: dict[str, ExitPlan] = {}
        """Plans since the login, by id, and those that were taken up."""
        self._triggers: dict[str, PriceTrigger] = {}
        """Triggers that wait, by id."""
        self._going_on: asyncio.Task[None] | None = None
        """The task that starts the plans after a login, until it has done so."""
        self._is_listening = False

    @property
    def problems(self) -> list[str]:
        """Descriptions of what is wrong with the plans, for `health()`."""
        return [problem for runner in self._runners.values() for problem in self._problems(runner)]

    def _problems(self, runner: PlanRunner) -> Iterable[str]:
        state, terms = runner.state, runner.state.terms
        if state.unprotected and (state.reason or runner.seconds_unprotected > UNPROTECTED_SECONDS):
            why = f": {state.reason}" if state.reason else ""
            yield f"{state.unprotected} of {terms.symbol} have no exit (plan {state.id}){why}"
        age = self._prices.age(terms.instrument)
        if age >= STALE_SECONDS and state.held > 0 and self._calendar.is_open(terms.segment):
            yield f"the price of {terms.symbol} is {age:.0f} s old (plan {state.id})"

    # --- plans --------------------------------------------------------------------------------

    @property
    def plans(self) -> list[ExitPlan]:
        """Plans of this client, oldest first: those that are not final, those of the process before
        that the login has taken up, and those that have ended since the login."""
        return list(self._plans.values())

    async def bracket(
        self,
        segment: Segment,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        price: Price | None = None,
        order_type: OrderType = OrderType.LIMIT,
        trigger: Price | None = None,
        target: Price | None = None,
        stop: Price | None = None,
        trail: Price | None = None,
        trail_step: Price | None = None,
        stop_limit: Price | None = None,
        chase: float = 2.0,
        resting: Resting = Resting.STOP,
        on_unprotected: Unprotected = Unprotected.TELL,
        until: date | None = None,
    ) -> ExitPlan:
        """Place an entry, and exit what fills of it by target or stop. Returns when the broker has
        taken the entry.

        Prices are rupees and not distances; see ExitSettings for those of the exits. Quantities
        above the freeze quantity are sliced. Raises InvalidOrder before anything is sent, and what
        `neo.orders.place` raises for the entry. After OutcomeUnknown the plan goes on, and exits
        the entry if it took effect.
        """
        settings = ExitSettings(
            target=target,
            stop=stop,
            trail=trail,
            trail_step=trail_step,
            stop_limit=stop_limit,
            chase=chase,
            resting=resting,
            on_unprotected=on_unprotected,
            until=until,
        )
        entry = OrderRequest(
            segment=segment,
            symbol=symbol,
            side=side,
            quantity=quantity,
            product=product,
            price=price,
            order_type=order_type,
            trigger=trigger,
        )
        return await self._enter(entry, settings)

    async def cover(
        self,
        segment: Segment,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        stop: Price,
        price: Price | None = None,
        order_type: OrderType = OrderType.LIMIT,
        trigger: Price | None = None,
        trail: Price | None = None,
        stop_limit: Price | None = None,
        on_unprotected: Unprotected = Unprotected.TELL,
    ) -> ExitPlan:
        """Place an entry with a stop; as `bracket` without a target."""
        return await self.bracket(
            segment,
            symbol,
            side,
            quantity,
            product=product,
            price=price,
            order_type=order_type,
            trigger=trigger,
            stop=stop,
            trail=trail,
            stop_limit=stop_limit,
            on_unprotected=on_unprotected,
        )

    async def protect(
        self,
        held: Position | Order,
        *,
        target: Price | None = None,
        stop: Price | None = None,
        trail: Price | None = None,
        trail_step: Price | None = None,
        stop_limit: Price | None = None,
        chase: float = 2.0,
        resting: Resting = Resting.STOP,
        on_unprotected: Unprotected = Unprotected.TELL,
        until: date | None = None,
    ) -> ExitPlan:
        """Exit a position, or what fills of an order, by target or stop, whichever comes first.

        Raises InvalidOrder for a position that is flat or whose instrument another plan exits
        already.
        """
        settings = ExitSettings(
            target=target,
            stop=stop,
            trail=trail,
            trail_step=trail_step,
            stop_limit=stop_limit,
            chase=chase,
            resting=resting,
            on_unprotected=on_unprotected,
            until=until,
        )
        if isinstance(held, Order):
            return await self._protect_order(held, settings)
        return await self._protect_position(held, settings)

    async def when(
        self,
        instrument: str | Instrument,
        *,
        place: OrderRequest,
        above: Price | None = None,
        below: Price | None = None,
        until: date | None = None,
    ) -> PriceTrigger:
        """Place an order once when the last price of an instrument is at `above` or higher, or at
        `below` or lower; until the end of a day, where `until` is given.

        The instrument that is watched may be another one than that of the order. Raises
        InvalidOrder for an order that could not be placed now.
        """
        name = instrument if isinstance(instrument, str) else _name_of(instrument)
        wire_instrument(name)
        terms = self._orders.placement(place).terms
        assert terms is not None
        if place.bracket is not None:
            raise InvalidOrder("place.bracket", place.bracket, "a trigger places ordinary orders")
        if (above is None) == (below is None):
            raise InvalidOrder("above", above, "give either above or below")
        if until is not None and until < date_of(self._clock()):
            raise InvalidOrder("until", until, "is over")
        state = TriggerState(
            id=self._new_id(),
            instrument=name,
            above=None if above is None else Decimal(price_text("above", above)),
            below=None if below is None else Decimal(price_text("below", below)),
            order=WaitingOrder.of(terms),
            until=until,
        )
        trigger = self._add_trigger(state)
        self._write(state)
        self._start_trigger(trigger)
        return trigger

    @property
    def triggers(self) -> list[PriceTrigger]:
        """Price triggers that have not placed their order yet."""
        return list(self._triggers.values())

    # --- starting a plan ----------------------------------------------------------------------

    async def _enter(self, entry: OrderRequest, settings: ExitSettings) -> ExitPlan:
        check_product(entry.product)
        instrument = self._instrument(entry.segment, entry.symbol)
        checked = self._orders.placement(entry, is_sliced=True).terms
        assert checked is not None
        product = Product(checked.product)
        reference = checked.price
        if reference is None and instrument is not None:
            reference = await self._last_price(instrument)
        terms = plan_terms(
            instrument,
            Segment(checked.segment),
            checked.symbol,
            Side(checked.side),
            product,
            settings,
            price=reference,
        )
        state = self._new_state(terms, entry.quantity)
        runner = self._add(state)
        tagged = msgspec.structs.replace(entry, tag=entry_tag(state.id))
        is_failed = False
        try:
            placed = await self._orders.place_sliced(tagged)
            errors = [one for one in placed if isinstance(one, NeoError)]
            runner.entries = [one for one in placed if isinstance(one, Order)]
            if errors and not runner.entries and not isinstance(errors[0], OutcomeUnknown):
                is_failed = True
                runner.fail(str(errors[0]))
            if errors and not runner.entries:
                raise errors[0]
        except NeoError as error:
            if not isinstance(error, OutcomeUnknown):
                is_failed = True
                runner.fail(str(error))
            raise
        finally:
            if not is_failed:
                self._start(runner)
        return self._plans[state.id]

    async def _protect_order(self, order: Order, settings: ExitSettings) -> ExitPlan:
        if order.is_final and not order.filled_quantity:
            raise InvalidOrder("held", order.number, "the order is final, and nothing filled of it")
        instrument = self._instrument(order.segment, order.symbol)
        reference = known_price(order.average_price) or order.price
        if instrument is not None:
            reference = await self._last_price(instrument) or reference
        terms = plan_terms(
            instrument,
            member("segment", order.segment, Segment),
            order.symbol,
            member("side", order.side, Side),
            member("product", order.product, Product),
            settings,
            price=reference,
        )
        self._check_alone(terms)
        state = self._new_state(terms, order.quantity)
        state.entry_numbers = [order.number]
        runner = self._add(state)
        runner.entries = [order]
        self._start(runner)
        return self._plans[state.id]

    async def _protect_position(self, position: Position, settings: ExitSettings) -> ExitPlan:
        net = position.net_quantity
        if not net:
            what = "the position is flat" if net == 0 else "its quantity is not known"
            raise InvalidOrder("held", position.symbol, what)
        instrument = self._instrument(position.segment, position.symbol)
        reference = known_price(position.last_price)
        if reference is None and instrument is not None:
            reference = await self._last_price(instrument)
        terms = plan_terms(
            instrument,
            member("segment", position.segment, Segment),
            position.symbol,
            Side.BUY if net > 0 else Side.SELL,
            member("product", position.product, Product),
            settings,
            price=reference,
        )
        self._check_alone(terms)
        state = self._new_state(terms, abs(net))
        state.entry_filled = abs(net)
        state.is_entry_final = True
        state.status = PlanStatus.OPEN
        self._start(self._add(state))
        return self._plans[state.id]

    def _check_alone(self, terms: PlanTerms) -> None:
        for runner in self._runners.values():
            other = runner.state.terms
            if (other.segment, other.symbol, other.product) == (
                terms.segment,
                terms.symbol,
                terms.product,
            ):
                raise InvalidOrder(
                    "held",
                    terms.symbol,
                    f"plan {runner.state.id} exits this position already: change() or cancel() it",
                )

    def _instrument(self, segment: str, symbol: str) -> Instrument | None:
        return self._instruments.find(segment, symbol)

    async def _last_price(self, instrument: Instrument) -> Decimal | None:
        name = f"{instrument.segment}|{instrument.token}"
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
            id=self._new_id(),
            terms=terms,
            entry_quantity=quantity,
            stop=terms.stop,
            aim=Aim.TARGET if rests_target else Aim.STOP,
        )

    def _new_id(self) -> str:
        """Return an id that no plan of the account has: an order of today may carry it."""
        used = {found[0] for tag in self._engine.cache.tags if (found := step_of(own_tag(tag)))}
        while True:
            plan = "".join(secrets.choice(_ALPHABET) for _ in range(PLAN_ID_LENGTH))
            if plan not in used and plan not in self._plans:
                return plan

    def _add(self, state: PlanState) -> PlanRunner:
        runner = PlanRunner(
            state,
            requests=self._requests,
            find_orders=self._find_orders,
            instrument=lambda: self._instrument(state.terms.segment, state.terms.symbol),
            read_position=self._closable,
            write=self._write,
            clock=self._clock,
            opens_in=self._opens_in,
            on_end=self._on_end,
        )
        self._runners[state.id] = runner
        self._plans[state.id] = ExitPlan(runner)
        self._write(state)
        if self._journal is None:
            log.warning(
                "plan %s of %s ends with this process: NeoClient(journal=...) keeps plans over "
                "restarts",
                state.id,
                state.terms.symbol,
            )
        return runner

    def _start(self, runner: PlanRunner) -> None:
        if not self._is_listening:
            self._is_listening = True
            self._engine.updates.subscribe(self._on_update)
            self._engine.on_book_applied(self._on_book)
            self._engine.on_late_order(self._on_late_order)
            self._engine.updates.start()
        self._prices.watch(runner.state.terms.instrument, runner.on_price)
        runner.start()

    def _add_trigger(self, state: TriggerState) -> PriceTrigger:
        trigger = self._triggers[state.id] = PriceTrigger(
            state,
            place=self._orders.place_request,
            find_orders=self._find_orders,
            write=self._write,
            clock=self._clock,
            on_end=self._on_trigger_end,
        )
        return trigger

    def _start_trigger(self, trigger: PriceTrigger) -> None:
        self._prices.watch(trigger.instrument, trigger.on_price)
        trigger.start()

    def _on_trigger_end(self, trigger: PriceTrigger) -> None:
        self._triggers.pop(trigger.id, None)
        self._prices.ignore(trigger.instrument, trigger.on_price)

    def _on_end(self, runner: PlanRunner) -> None:
        self._runners.pop(runner.state.id, None)
        self._prices.ignore(runner.state.terms.instrument, runner.on_price)

    def _write(self, state: PlanState | TriggerState) -> None:
        if self._journal is not None:
            self._journal.write_plan(
                state.id, msgspec.json.encode(state).decode(), is_final=state.status.is_final
            )

    # --- login and logout ---------------------------------------------------------------------

    async def start(self, plans: Iterable[str]) -> None:
        """Go on with the plans after a login: those of this client, and those of the process before
        as the journal holds them. Open intents of the journal have been resolved."""
        for text in plans:
            try:
                state = _decoder.decode(text)
            except (msgspec.MsgspecError, ValueError) as error:
                log.error("a plan in the journal cannot be read: %s: %.200s", error, text)
                continue
            self._load(state)
        if not await self._try_to_go_on():
            self._going_on = asyncio.create_task(self._go_on(), name="exit plans after a login")

    async def _go_on(self) -> None:
        while not await self._try_to_go_on():
            await asyncio.sleep(BOOK_RETRY_SECONDS)

    async def _try_to_go_on(self) -> bool:
        """Bring the plans together with the order book, and start them. Return False when the book
        cannot be read."""
        try:
            rows = await self._engine.read_order_book()
        except NeoError as error:
            log.warning("exit plans wait for the order book: %s", error)
            return False
        for row in rows:
            tag = without_suffix(row.gui_order_id)
            found = step_of(own_tag(tag))
            if found is not None and (found[0] in self._runners or found[0] in self._triggers):
                self._engine.cache.register(row, client_tag=tag)
        for runner in [*self._runners.values()]:
            runner.take_up()
            self._start(runner)
        for trigger in [*self._triggers.values()]:
            trigger.take_up()
            self._start_trigger(trigger)
        return True

    def _load(self, state: PlanState | TriggerState) -> None:
        """Add a plan or a trigger of the process before."""
        if state.id in self._runners or state.id in self._triggers:
            return
        log.warning("plan %s of the process before goes on: %s", state.id, state.status)
        if isinstance(state, TriggerState):
            self._add_trigger(state)
        else:
            self._add(state)

    async def close(self) -> None:
        """Stop the tasks of all plans: they go on after the next login. Orders stay as they are."""
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        for runner in [*self._runners.values()]:
            await runner.stop()
        for trigger in [*self._triggers.values()]:
            await trigger.stop()
        await self._prices.close()
        self._plans = {name: plan for name, plan in self._plans.items() if name in self._runners}

    def end(self, *, reason: str) -> None:
        """End every plan at once, and leave its orders to the halt that cancels them."""
        for runner in [*self._runners.values()]:
            runner.end(reason)

    async def square_off(
        self,
        *,
        segment: Segment | None = None,
        symbol: str | None = None,
        product: Product | None = None,
        holdings: bool = False,
        timeout: float = SQUARE_OFF_SECONDS,
    ) -> list[SquaredOff | NeoError]:
        """Close positions at the market; see Portfolio.square_off."""
        which = Selection(segment, symbol, product)
        positions, problems = await self._closer.find(which, holdings=holdings)
        keys = {position.key for position in positions}
        for runner in [*self._runners.values()]:
            if _key_of(runner.state.terms) in keys:
                runner.end("squared off")
        return [*problems, *await self._closer.close(positions, holdings, timeout)]

    # --- reports ------------------------------------------------------------------------------

    def _find_orders(self, tag: str, numbers: Iterable[str]) -> list[Order]:
        """Return the registered orders with these numbers, and those whose client tag begins with
        the caller's part `tag`."""
        known = {number: order for number in numbers if (order := self._engine.cache.get(number))}
        for order in self._engine.cache.orders.values():
            if own_tag(order.client_tag) == tag:
                known[order.number] = order
        return list(known.values())

    def _on_update(self, update: OrderRow | PositionUpdate) -> None:
        if isinstance(update, OrderRow):
            self._look_at(update)

    def _on_book(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        for row in rows:
            self._look_at(row)
        for runner in self._runners.values():
            runner.wake()

    def _look_at(self, row: OrderRow) -> None:
        """Wake the plan of an order, and have the position read where an order that is in no plan
        has filled against one."""
        for runner in self._runners.values():
            if row.number in runner.numbers:
                runner.wake()
                return
        if not row.filled_quantity:
            return
        for runner in self._runners.values():
            runner.on_other_fill(row)

    def _on_late_order(self, order: Order) -> None:
        found = step_of(own_tag(order.client_tag))
        if found is not None and (runner := self._runners.get(found[0])) is not None:
            runner.wake()

    async def _closable(self, state: PlanState) -> int:
        """Return the net quantity of a plan's position that no other plan exits."""
        terms = state.terms
        key = (terms.segment, terms.symbol, terms.product)
        holding = terms.instrument if terms.product is Product.CNC else ""
        net = await self._portfolio.net_quantity(*key, holding=holding)
        for runner in self._runners.values():
            other = runner.state
            same = (other.terms.segment, other.terms.symbol, other.terms.product) == key
            if same and other.id != state.id and other.terms.side is terms.side:
                net -= terms.sign * max(0, other.held)
        return net

    def _opens_in(self, state: PlanState) -> float:
        """Return the seconds until the plan's market opens; 0 while it is open."""
        if self._calendar.is_open(state.terms.segment):
            return 0.0
        return self._calendar.next_open(state.terms.segment).timestamp() - self._clock()


def _name_of(instrument: Instrument) -> str:
    return f"{instrument.segment}|{instrument.token}"


def _key_of(terms: PlanTerms) -> PositionKey:
    return position_key(terms.segment, terms.symbol, terms.product)
