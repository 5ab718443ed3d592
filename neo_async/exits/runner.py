"""Carries out one exit plan: applies reports and prices to its state, and sends what is due."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal

import msgspec

from neo_async.base import logs
from neo_async.errors import InvalidOrder, NeoError, NotLoggedIn, OutcomeUnknown, UsageError
from neo_async.execution.order import Order
from neo_async.exits.checks import changed_terms, known_price
from neo_async.exits.plan import PlanChange
from neo_async.exits.requests import ExitRequests
from neo_async.exits.rules import (
    Action,
    CancelEntry,
    CancelExit,
    ChangeExit,
    PlaceExit,
    ReadPosition,
    Timers,
    advance,
    apply_accepted,
    apply_entry,
    apply_entry_cancel_refused,
    apply_exit,
    apply_position,
    apply_price,
    apply_refused,
    apply_rejected,
    begin,
    close_at_market,
    find,
    next_action,
    next_time,
)
from neo_async.exits.state import (
    Aim,
    ExitOrder,
    ExitTerms,
    PlanState,
    PlanStatus,
    PlanTerms,
)
from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRequest, OrderRow, Price
from neo_async.wire.tags import entry_tag, exit_tag

log = logging.getLogger(logs.EXITS)

POSITION_RETRY_SECONDS = 1.0
"""Time between two readings of a position: two have to agree that it is smaller than expected."""
POSITION_LAG_SECONDS = 5.0
"""Time after a fill for which the positions report may not show it yet."""

_TRIGGERED = (OrderStatus.OPEN, OrderStatus.COMPLETE)
Price_ = Price | None | msgspec.UnsetType


class PlanRunner:
    """One plan at work, in a task of its own from `start` to `stop`.

    The decisions are those of `rules`; this class only applies what arrives and sends what is due.
    """

    def __init__(
        self,
        state: PlanState,
        *,
        requests: ExitRequests,
        find_orders: Callable[[str, Iterable[str]], list[Order]],
        instrument: Callable[[], Instrument | None],
        read_position: Callable[[PlanState], Awaitable[int]],
        write: Callable[[PlanState], None],
        clock: Callable[[], float],
        opens_in: Callable[[PlanState], float],
        on_end: Callable[[PlanRunner], None],
    ) -> None:
        """`find_orders` returns orders by the caller's part of their client tag or by number,
        `read_position` the net quantity that this plan may close, `opens_in` the seconds until the
        market opens (0 while it is open). `write` has the state written to the journal before the
        next request is sent."""
        self.state = state
        self.timers = Timers()
        self.entries: list[Order] = []
        """The entry orders that the broker has taken."""
        self._orders: dict[int, Order] = {}
        """Exit orders by step."""
        self._requests = requests
        self._find_orders = find_orders
        self._instrument = instrument
        self._read_position = read_position
        self._write = write
        self._clock = clock
        self._opens_in = opens_in
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._wakeup = asyncio.Event()
        self._changed: asyncio.Future[bool] | None = None
        self._cancels = self._leaves_stop = False
        self._is_stopped = False
        """Whether a logout has stopped the task."""
        self._filled_at = -math.inf
        """Time of the loop of the newest fill of the plan's orders."""
        self._bare_since: float | None = None
        """Time of the loop since which units are without an exit order; None while none is."""
        self._other_fills: dict[str, int] = {}
        """Filled quantities of orders outside the plan that close its position, by number."""
        self._last: PlanChange | None = None

    # --- life ---------------------------------------------------------------------------------

    @property
    def exits(self) -> list[Order]:
        """The exit orders that the broker has taken, oldest first."""
        return [self._orders[step] for step in sorted(self._orders)]

    @property
    def numbers(self) -> set[str]:
        """Numbers of the orders of this plan."""
        return {order.number for order in self.state.exits} | {*self.state.entry_numbers}

    def start(self) -> None:
        """Start the plan's task, unless it runs."""
        self._is_stopped = False
        if self._task is None:  # of a plan that ended while no process ran, it writes the end
            self._task = asyncio.create_task(self._run(), name=f"exit plan {self.state.id}")

    async def stop(self) -> None:
        """Stop the task. Requests under way are left to finish; the plan goes on at `start`."""
        task, self._task = self._task, None
        self._is_stopped = True
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self.state.status.is_final:  # the task has not come to write it
            self._finish()
        self._announce(is_running=False)

    def wake(self) -> None:
        """Look at the plan's orders and at what is due."""
        self._wakeup.set()

    def on_price(self, price: Decimal) -> None:
        """Apply a price of the instrument."""
        apply_price(self.state, self.timers, price, self._now())
        self._wakeup.set()

    def on_other_fill(self, row: OrderRow) -> None:
        """Have the position read where an order outside the plan has filled against it."""
        terms = self.state.terms
        if (row.segment, row.symbol, row.product) != (terms.segment, terms.symbol, terms.product):
            return
        if row.side != terms.exit_side:
            return
        if row.filled_quantity > self._other_fills.get(row.number, 0):
            self._other_fills[row.number] = row.filled_quantity
            self.timers.must_read_position = True
            self._wakeup.set()

    def take_up(self) -> None:
        """Go on with a plan of the process before: what it had under way has an outcome by now."""
        state = self.state
        self._apply_reports()
        if not self.entries and not state.is_entry_final:
            self.end("the process ended before the entry was placed")
            return
        for order in state.exits:
            order.asked_quantity, order.asked_terms = 0, None
            order.is_under_way = False
            known = self._orders.get(order.step)
            if known is None and not order.is_final:
                # It was not accepted, or it is of an earlier day and has expired.
                order.is_final = True
            elif known is not None and not known.is_final:
                order.quantity = known.quantity
                order.terms = terms_of(known)
        self.timers.must_read_position = True

    def end(self, reason: str) -> None:
        """End the plan at once. Its orders are left to a halt or a square-off that cancels them."""
        if self.state.status.is_final:
            return
        self.state.status = PlanStatus.CANCELLED
        self.state.reason = reason
        self._wakeup.set()

    def fail(self, reason: str) -> None:
        """End the plan because its entry was refused."""
        self.state.status = PlanStatus.FAILED
        self.state.reason = reason
        self._finish()

    # --- the user's requests ------------------------------------------------------------------

    async def change(self, *, stop: Price_, target: Price_, trail: Price_) -> None:
        """Change prices of the plan; see ExitPlan.change."""
        self._check_open()
        state = self.state
        instrument = self._instrument()
        if instrument is None:
            raise InvalidOrder("symbol", state.terms.symbol, "its scrip master is not loaded")
        state.terms = changed_terms(
            state, self.timers.price, instrument, stop=stop, target=target, trail=trail
        )
        if stop is not msgspec.UNSET or state.terms.stop is None:
            state.stop = state.terms.stop
        self._write(state)
        self._wakeup.set()

    def exit_now(self) -> None:
        """Close everything at the market."""
        close_at_market(self.state, self.timers, self._now())
        self._wakeup.set()

    def cancel(self, *, leave_stop: bool, reason: str = "cancelled") -> None:
        """End the plan, and leave what is held as it is."""
        if self.state.status.is_final:
            return
        self._cancels, self._leaves_stop = True, leave_stop
        self.state.reason = reason
        self._wakeup.set()

    def _check_open(self) -> None:
        if self.state.status.is_final:
            raise UsageError(f"plan {self.state.id} has ended: it is {self.state.status}")

    # --- the task -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while (action := self._next()) is not None or not self.state.status.is_final:
            self._announce()
            if action is None:
                await self._until_due()
                continue
            begin(self.state, self.timers, action, self._now())
            self._write(self.state)
            self._send(action)
        self._task = None
        self._finish()
        self._announce()

    def _finish(self) -> None:
        """Have the end of the plan written."""
        self._write(self.state)
        self._on_end(self)

    def _next(self) -> Action | None:
        """Apply what is known by now, and return the request that is due."""
        self._wakeup.clear()
        self._apply_reports()
        now = self._now()
        self._wait_for_open(now)
        advance(self.state, self.timers, now)
        return self._cancelling() if self._cancels else next_action(self.state, self.timers, now)

    def _wait_for_open(self, now: float) -> None:
        """After a refusal outside the market's hours, wait for the next open. Before one, the hours
        do not matter: an exchange for tests trades at any."""
        if self.timers.refusals:
            opens_in = self._opens_in(self.state)
            self.timers.closed_until = now + opens_in if opens_in else -math.inf

    async def _until_due(self) -> None:
        """Wait for a report, a price or an answer, or for the time at which something is due."""
        at = next_time(self.state, self.timers, self._now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if at == math.inf else at):
                await self._wakeup.wait()

    def _cancelling(self) -> Action | None:
        """Return the next request of a plan that its user cancels, and end it when none is left."""
        state = self.state
        if not state.is_entry_final:
            if not self.timers.is_cancelling_entry and self._now() >= self.timers.retry_at:
                return CancelEntry()
            return None
        for order in state.open_exits:
            if self._leaves_stop and order.terms.aim is Aim.STOP and order.number:
                continue
            if not order.was_cancelled and order.number and not order.is_under_way:
                return CancelExit(order.step) if self._now() >= self.timers.retry_at else None
            return None
        state.keeps_stop = bool(state.open_exits)
        state.status = PlanStatus.CANCELLED
        return None

    # --- reports ------------------------------------------------------------------------------

    def _apply_reports(self) -> None:
        """Apply the present state of the plan's orders."""
        state, now = self.state, self._now()
        filled = (state.entry_filled, state.exits_filled)
        if not state.is_entry_final:
            self._apply_entries()
        for known in state.exits:
            if known.is_final:
                continue
            order = self._orders.get(known.step)
            if order is None:
                numbers = [known.number] if known.number else []
                found = self._find_orders(exit_tag(state.id, known.step), numbers)
                if not found:
                    continue
                order = self._orders[known.step] = found[0]
            self._apply_exit(known, order, now)
        if filled != (state.entry_filled, state.exits_filled):
            self._filled_at = now

    def _apply_exit(self, known: ExitOrder, order: Order, now: float) -> None:
        known.number = order.number
        if order.status is OrderStatus.REJECTED and not order.filled_quantity:
            apply_rejected(self.state, self.timers, known.step, order.reject_reason, now)
            return
        apply_exit(
            self.state,
            self.timers,
            known.step,
            now,
            filled=order.filled_quantity,
            is_triggered=known.terms.aim is Aim.STOP
            and not known.is_under_way
            and order.trigger is not None
            and (order.status in _TRIGGERED or order.filled_quantity > 0),
            is_final=order.is_final and not order.lacks_fills,
        )

    def _apply_entries(self) -> None:
        state = self.state
        if not self.entries:
            self.entries = self._find_orders(entry_tag(state.id), state.entry_numbers)
            if not self.entries:
                return
        entries = self.entries
        state.entry_numbers = [entry.number for entry in entries]
        filled = sum(entry.filled_quantity for entry in entries)
        value = sum(entry.average_price * entry.filled_quantity for entry in entries)
        rejected = [entry for entry in entries if entry.status is OrderStatus.REJECTED]
        if rejected:
            state.reason = f"the entry was rejected: {rejected[0].reject_reason}"
        apply_entry(
            state,
            filled,
            average_price=known_price(value / filled) if filled else None,
            is_final=all(entry.is_final and not entry.lacks_fills for entry in entries),
        )
        if rejected and state.status is PlanStatus.CANCELLED:
            state.status = PlanStatus.FAILED

    # --- requests -----------------------------------------------------------------------------

    def _send(self, action: Action) -> None:
        task = asyncio.create_task(self._perform(action), name=f"exit plan {self.state.id}")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _perform(self, action: Action) -> None:
        """Carry out one request, and apply its answer."""
        try:
            await self._request(action)
        except NotLoggedIn as error:
            log.warning("plan %s waits for the next login: %s", self.state.id, error)
            self._apply_refusal(action, error)
        except OutcomeUnknown as error:
            self._apply_unknown(action, error)
        except NeoError as error:
            self._apply_refusal(action, error)
        finally:
            self._wakeup.set()

    async def _request(self, action: Action) -> None:
        state = self.state
        match action:
            case PlaceExit(step, quantity, terms):
                tag = exit_tag(state.id, step)
                order = await self._requests.place(_request(state.terms, quantity, terms, tag))
                self._orders[step] = order
                apply_accepted(state, self.timers, step, order.number)
            case ChangeExit(step, quantity, terms, is_trailing):
                await self._requests.change(
                    self._orders[step], quantity, terms, is_trailing=is_trailing
                )
                apply_accepted(state, self.timers, step)
            case CancelExit(step):
                await self._requests.cancel(self._orders[step])
                find(state, step).is_under_way = False
            case CancelEntry():
                for entry in self.entries:
                    if not entry.is_final:
                        await self._requests.cancel(entry)
            case ReadPosition():
                apply_position(state, self.timers, await self._position())
        self._write(state)

    def _apply_refusal(self, action: Action, error: NeoError) -> None:
        now = self._now()
        log.warning("plan %s: %s failed: %s", self.state.id, type(action).__name__, error)
        match action:
            case CancelEntry():
                apply_entry_cancel_refused(self.timers, now)
            case ReadPosition():
                self.timers.is_reading_position = False
                self.timers.retry_at = now + POSITION_RETRY_SECONDS
            case _:
                apply_refused(self.state, self.timers, action.step, str(error), now)
        self._write(self.state)

    def _apply_unknown(self, action: Action, error: OutcomeUnknown) -> None:
        """No report has proved the outcome of a request in minutes. A placement goes on counting as
        working; of a change, what the order shows counts."""
        log.error("plan %s: %s", self.state.id, error)
        self.state.reason = str(error)
        match action:
            case CancelEntry():
                apply_entry_cancel_refused(self.timers, self._now())
            case ChangeExit(step):
                order = find(self.state, step)
                shown = self._orders[step]
                order.asked_quantity, order.asked_terms = 0, None
                order.quantity, order.terms = shown.quantity, terms_of(shown)
                order.is_under_way = False
            case CancelExit(step):
                order = find(self.state, step)
                order.is_under_way = order.was_cancelled = False
        self._write(self.state)

    async def _position(self) -> int:
        """Return the net quantity of the position. A report that shows less than is held may be
        older than the last fill: it has to be shown twice, and when reports have had the time to
        catch up."""
        sign = self.state.terms.sign
        net = await self._read_position(self.state)
        while sign * net < self.state.held:
            await asyncio.sleep(POSITION_RETRY_SECONDS)
            self._apply_reports()
            net = await self._read_position(self.state)
            if self._now() >= self._filled_at + POSITION_LAG_SECONDS:
                break
        return net

    @property
    def seconds_unprotected(self) -> float:
        """Seconds for which units have been without an exit order."""
        return 0.0 if self._bare_since is None else self._now() - self._bare_since

    # --- changes ------------------------------------------------------------------------------

    def snapshot(self) -> PlanChange:
        """Return the present state."""
        return PlanChange.of(self.state, at=self._clock())

    async def until_changed(self) -> bool:
        """Wait for the next change. Return False when the plan's task has stopped."""
        if self._is_stopped or self.state.status.is_final:
            return self.state.status.is_final
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._changed)

    def _announce(self, *, is_running: bool = True) -> None:
        """Log a change of the state, and wake those who wait for it."""
        if not self.state.unprotected:
            self._bare_since = None
        elif self._bare_since is None:
            self._bare_since = self._now()
        change = self.snapshot()
        last, self._last = self._last, change
        if last is not None and msgspec.structs.replace(change, at=last.at) == last and is_running:
            return
        _log_change(self.state, last, change)
        future, self._changed = self._changed, None
        if future is not None and not future.done():
            future.set_result(is_running or self.state.status.is_final)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _log_change(state: PlanState, last: PlanChange | None, change: PlanChange) -> None:
    bare = change.unprotected > 0 and bool(change.reason)
    if last is not None and (last.status, last.open_quantity, last.reason) == (
        change.status,
        change.open_quantity,
        change.reason,
    ):
        return
    log.log(
        logging.WARNING if bare or change.status is PlanStatus.FAILED else logging.INFO,
        "plan %s of %s: %s%s, %d of %d entered, %d open, %d without an exit order%s",
        state.id,
        state.terms.symbol,
        change.status,
        f" by {change.exited_by}" if change.exited_by else "",
        change.entered,
        state.entry_quantity,
        change.open_quantity,
        change.unprotected,
        f" ({change.reason})" if change.reason else "",
    )


def _request(plan: PlanTerms, quantity: int, terms: ExitTerms, tag: str) -> OrderRequest:
    return OrderRequest(
        segment=plan.segment,
        symbol=plan.symbol,
        side=plan.exit_side,
        quantity=quantity,
        product=plan.product,
        order_type=terms.order_type,
        price=terms.price,
        trigger=terms.trigger,
        tag=tag,
    )


def terms_of(order: Order) -> ExitTerms:
    """Return the terms of an exit order as the order shows them."""
    if order.order_type == OrderType.SL:
        return ExitTerms(Aim.STOP, OrderType.SL, price=order.price, trigger=order.trigger)
    if order.order_type == OrderType.LIMIT and order.trigger is None:
        return ExitTerms(Aim.TARGET, OrderType.LIMIT, price=order.price)
    return ExitTerms(Aim.CLOSE, OrderType.MARKET)
