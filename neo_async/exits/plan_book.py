"""The plans and triggers of a client that have not ended: from the journal into their tasks, and
each report to the plan that it concerns."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from neo_async.base import logs
from neo_async.calendar import Calendar
from neo_async.errors import NeoError
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.execution.order import Order
from neo_async.exits.plan import ExitPlan
from neo_async.exits.prices import STALE_SECONDS, PlanPrices
from neo_async.exits.requests import ExitRequests
from neo_async.exits.runner import PlanRunner
from neo_async.exits.state import PlanState, PlanTerms
from neo_async.exits.trigger import PriceTrigger, TriggerState
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import Product, Segment
from neo_async.model.orders import OrderRequest, OrderRow
from neo_async.model.portfolio import PositionKey
from neo_async.model.updates import PositionUpdate
from neo_async.orders import Orders
from neo_async.portfolio.portfolio import Portfolio
from neo_async.portfolio.position_rows import position_key
from neo_async.wire.tags import PLAN_ID_LENGTH, own_tag, step_of, without_suffix

log = logging.getLogger(logs.EXITS)

UNPROTECTED_SECONDS = 2.0
"""Time for which units may lack an exit order before that is a problem: a stop is on its way."""
BOOK_RETRY_SECONDS = 1.0
"""Time between two tries to read the order book from which plans go on after a login."""

_decoder = msgspec.json.Decoder(PlanState | TriggerState)
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class PlanBook:
    """Keeps the plans and triggers that have not ended, and runs them between login and logout."""

    def __init__(
        self,
        engine: ExecutionEngine,
        orders: Orders,
        requests: ExitRequests,
        prices: PlanPrices,
        portfolio: Portfolio,
        instruments: Instruments,
        *,
        journal: Journal | None,
        calendar: Calendar,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._orders = orders
        self._requests = requests
        self._prices = prices
        self._portfolio = portfolio
        self._instruments = instruments
        self._journal = journal
        self._calendar = calendar
        self._clock = clock
        self.plans: dict[str, ExitPlan] = {}
        """Plans that have not ended, and those that have since the login, by id."""
        self.triggers: dict[str, PriceTrigger] = {}
        """Triggers that wait, by id."""
        self._runners: dict[str, PlanRunner] = {}
        """Plans that have not ended, by id."""
        self._by_key: dict[PositionKey, list[PlanRunner]] = {}
        """The same by their position: an order book has many rows of other orders."""
        self._symbols: set[str] = set()
        """The symbols of these positions."""
        self._going_on: asyncio.Task[None] | None = None
        """The task that starts the plans after a login, until it has done so."""
        self._is_listening = False

    @property
    def runners(self) -> list[PlanRunner]:
        """The plans that have not ended."""
        return list(self._runners.values())

    def of(self, key: PositionKey) -> Iterator[PlanRunner]:
        """Yield the plans of one position that have not ended."""
        return iter([*self._by_key.get(key, ())])

    @property
    def problems(self) -> list[str]:
        """Descriptions of what is wrong with the plans, for `health()`."""
        problems = [problem for runner in self.runners for problem in self._problems(runner)]
        if self._going_on is not None and not self._going_on.done():
            problems.append("exit plans wait for the order book: nothing carries them out")
        return problems

    def _problems(self, runner: PlanRunner) -> Iterator[str]:
        state, terms = runner.state, runner.state.terms
        if state.unprotected and (state.reason or runner.seconds_unprotected > UNPROTECTED_SECONDS):
            why = f": {state.reason}" if state.reason else ""
            yield f"{state.unprotected} of {terms.symbol} have no exit (plan {state.id}){why}"
        age = self._prices.age(terms.instrument)
        if age >= STALE_SECONDS and state.held > 0 and self._calendar.is_open(terms.segment):
            yield f"the price of {terms.symbol} is {age:.0f} s old (plan {state.id})"

    # --- plans and triggers -------------------------------------------------------------------

    def new_id(self) -> str:
        """Return an id that no plan of the account has: an order of today may carry it."""
        used = {found[0] for tag in self._engine.cache.tags.own_tags if (found := step_of(tag))}
        while True:
            plan = "".join(secrets.choice(_ALPHABET) for _ in range(PLAN_ID_LENGTH))
            if plan not in used and plan not in self.plans and plan not in self.triggers:
                return plan

    def add(self, state: PlanState) -> PlanRunner:
        """Add a plan, and have it written to the journal. `start_plan` has it carried out."""
        terms = state.terms
        runner = self._runners[state.id] = PlanRunner(
            state,
            requests=self._requests,
            find_orders=self._find_orders,
            instrument=lambda: self._instruments.find(terms.segment, terms.symbol),
            read_position=self._closable,
            write=self._write,
            clock=self._clock,
            opens_in=self._opens_in,
            request_book=self._engine.request_order_book,
            watching=self._engine.cache.waiters.watching,
            resolution_timeout=self._engine.resolution_timeout,
            on_end=self._on_plan_end,
        )
        self._by_key.setdefault(key_of(terms), []).append(runner)
        self._note_symbols()
        self.plans[state.id] = ExitPlan(runner)
        self._write(state)
        if self._journal is None:
            log.warning(
                "plan %s of %s ends with this process: NeoClient(journal=...) keeps plans over "
                "restarts",
                state.id,
                terms.symbol,
            )
        return runner

    def start_plan(self, runner: PlanRunner) -> None:
        """Have a plan carried out."""
        self._listen()
        self._prices.watch(runner.state.terms.instrument, runner.on_price)
        runner.start()

    def add_trigger(self, state: TriggerState) -> PriceTrigger:
        """Add a trigger, and have it written to the journal."""
        segment = state.order.segment
        trigger = self.triggers[state.id] = PriceTrigger(
            state,
            opens_in=lambda: self._seconds_to_open(segment),
            place=self._place,
            find_orders=self._find_orders,
            write=self._write,
            clock=self._clock,
            on_end=self._on_trigger_end,
        )
        self._write(state)
        return trigger

    async def _place(self, order: OrderRequest) -> Order:
        """Place the order of a trigger; raise what the placement met."""
        (result,) = await self._orders.place_many([order])
        if isinstance(result, NeoError):
            raise result
        return result

    def start_trigger(self, trigger: PriceTrigger) -> None:
        """Have a trigger wait for its price."""
        self._listen()
        self._prices.watch(trigger.instrument, trigger.on_price)
        trigger.start()

    def _on_plan_end(self, runner: PlanRunner) -> None:
        if self._runners.pop(runner.state.id, None) is not None:
            key = key_of(runner.state.terms)
            self._by_key[key].remove(runner)
            if not self._by_key[key]:
                del self._by_key[key]
            self._note_symbols()
        self._prices.ignore(runner.state.terms.instrument, runner.on_price)

    def _note_symbols(self) -> None:
        self._symbols = {symbol for _, symbol, _ in self._by_key}

    def _on_trigger_end(self, trigger: PriceTrigger) -> None:
        self.triggers.pop(trigger.id, None)
        self._prices.ignore(trigger.instrument, trigger.on_price)

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
                self._load(_decoder.decode(text))
            except (msgspec.MsgspecError, ValueError) as error:
                log.error("a plan in the journal cannot be read: %s: %.200s", error, text)
        if not await self._try_to_go_on():
            self._going_on = asyncio.create_task(self._go_on(), name="exit plans after a login")

    def _load(self, state: PlanState | TriggerState) -> None:
        """Add a plan or a trigger of the process before."""
        if state.id in self._runners or state.id in self.triggers:
            return
        log.warning("plan %s of the process before goes on: %s", state.id, state.status)
        if isinstance(state, TriggerState):
            self.add_trigger(state)
        else:
            self.add(state)

    async def _go_on(self) -> None:
        is_done = False
        while not is_done:
            await asyncio.sleep(BOOK_RETRY_SECONDS)
            is_done = await self._try_to_go_on()

    async def _try_to_go_on(self) -> bool:
        """Bring the plans together with the order book, and start them. Return False when the book
        cannot be read."""
        try:
            rows = await self._engine.read_order_book()
        except NeoError as error:
            log.warning("exit plans wait for the order book: %s", error)
            return False
        numbers = {one for runner in self.runners for one in runner.state.entry_numbers}
        for row in rows:
            if self._plan_in(row.gui_order_id) is not None or row.number in numbers:
                tag = without_suffix(row.gui_order_id)
                self._engine.cache.register(row, client_tag=tag)
        for runner in self.runners:
            await runner.until_answered()  # of the login before
            runner.take_up()
            self.start_plan(runner)
        for trigger in [*self.triggers.values()]:
            trigger.take_up()
            self.start_trigger(trigger)
        return True

    def _plan_in(self, gui_order_id: str) -> PlanRunner | PriceTrigger | None:
        """Return the plan or trigger whose id is in a client tag."""
        found = step_of(own_tag(without_suffix(gui_order_id)))
        if found is None:
            return None
        return self._runners.get(found[0]) or self.triggers.get(found[0])

    async def close(self) -> None:
        """Stop the tasks of all plans: they go on after the next login. Orders stay as they are."""
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        for runner in self.runners:
            await runner.stop()
        for trigger in [*self.triggers.values()]:
            await trigger.stop()
        await self._prices.close()
        self.plans = {name: plan for name, plan in self.plans.items() if name in self._runners}

    # --- reports ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Subscribe the reports, once there is a plan."""
        if self._is_listening:
            return
        self._is_listening = True
        self._engine.updates.subscribe(self._on_update)
        self._engine.on_book_applied(self._on_book)
        self._engine.on_late_order(self._on_late_order)
        self._engine.updates.start()

    def _on_update(self, update: OrderRow | PositionUpdate) -> None:
        if isinstance(update, OrderRow) and update.symbol.strip().upper() in self._symbols:
            self._apply(update)

    def _on_book(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        if not self._runners:
            return
        # A book of the day has thousands of rows, and few symbols.
        spellings = {row.symbol for row in rows}
        ours = {symbol for symbol in spellings if symbol.strip().upper() in self._symbols}
        for row in rows:
            if row.symbol in ours:
                self._apply(row)
        for runner in self.runners:
            runner.on_book(requested_at)

    def _apply(self, row: OrderRow) -> None:
        """Wake the plan of an order, and have the position read where an order that is in no plan
        has filled against one."""
        plan = self._plan_in(row.gui_order_id)
        if plan is not None:  # also while the answer to its placement is still under way
            if isinstance(plan, PlanRunner):
                plan.wake()
            return
        key = position_key(row.segment, row.symbol, row.product)
        others = [*self.of(key)]
        for runner in others:
            if row.number in runner.state.entry_numbers:
                runner.wake()
                return
        if row.filled_quantity:
            for runner in others:
                runner.on_other_fill(row)

    def _on_late_order(self, order: Order) -> None:
        plan = self._plan_in(order.client_tag)
        if isinstance(plan, PlanRunner):
            plan.wake()
        elif plan is None and (found := step_of(own_tag(order.client_tag))) is not None:
            log.error("plan %s has ended, and nothing exits its late order %r", found[0], order)

    def _find_orders(self, tag: str, numbers: Iterable[str]) -> list[Order]:
        """Return the registered orders with these numbers, and those whose client tag has the
        caller's part `tag`."""
        cache = self._engine.cache
        known = {number: order for number in numbers if (order := cache.get(number))}
        return list((known | {one.number: one for one in cache.tags.with_own_tag(tag)}).values())

    async def _closable(self, state: PlanState) -> int:
        """Return the net quantity of a plan's position that no other plan exits."""
        terms = state.terms
        key = key_of(terms)
        holding = terms.instrument if terms.product is Product.CNC else ""
        net = await self._portfolio.net_quantity(*key, holding=holding)
        others = (runner.state for runner in self.of(key) if runner.state is not state)
        return net - sum(other.terms.sign * max(0, other.held) for other in others)

    def _opens_in(self, state: PlanState) -> float:
        return self._seconds_to_open(state.terms.segment)

    def _seconds_to_open(self, segment: Segment) -> float:
        """Return the seconds until the market of a segment opens; 0 while it is open."""
        if self._calendar.is_open(segment):
            return 0.0
        return self._calendar.next_open(segment).timestamp() - self._clock()


def key_of(terms: PlanTerms) -> PositionKey:
    """Return the key of a plan's position."""
    return position_key(terms.segment, terms.symbol, terms.product)
