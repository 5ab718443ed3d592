"""Carries out one exit plan: applies reports and prices to its state, and sends what is due.

More than 500 lines, because reports, requests, their answers and the user's calls all meet in the
state of one plan; what is decided is in rules.py, outcomes.py and price_rules.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of, seconds_to_midnight
from neo_async.errors import (
    InvalidField,
    InvalidOrder,
    NeoError,
    OutcomeUnknown,
    Rejected,
    UsageError,
)
from neo_async.execution.order import Order
from neo_async.exits.checks import NewPrice, changed_terms, known_price
from neo_async.exits.outcomes import (
    apply_accepted,
    apply_cancel_accepted,
    apply_entry,
    apply_entry_cancel_accepted,
    apply_entry_cancel_refused,
    apply_exit,
    apply_position,
    apply_refused,
    apply_rejected,
    begin_day,
    end_of_last_day,
)
from neo_async.exits.plan import PlanChange, log_change
from neo_async.exits.price_rules import advance, apply_price, close_at_market
from neo_async.exits.requests import ExitRequests, exit_request, terms_of
from neo_async.exits.rules import (
    Action,
    CancelEntry,
    CancelExit,
    ChangeExit,
    PlaceExit,
    ReadPosition,
    Timers,
    begin,
    find,
    next_action,
    next_time,
)
from neo_async.exits.state import (
    Aim,
    ExitOrder,
    PlanState,
    PlanStatus,
)
from neo_async.model.enums import OrderStatus
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRow
from neo_async.wire.tags import entry_tag, exit_tag

log = logging.getLogger(logs.EXITS)

POSITION_RETRY_SECONDS = 1.0
"""Time between two readings of a position: two have to agree that it is smaller than expected."""
POSITION_LAG_SECONDS = 5.0
"""Time after a fill for which the positions report may not show it yet."""

BOOK_SECONDS = 2.0
"""Time between two order books that are asked for while an order may exist that no report shows."""
PROOFS = 2
"""Order books in a row that have to lack an order before it counts as never placed: many a broken
answer reads like an empty book."""

_TRIGGERED = (OrderStatus.OPEN, OrderStatus.COMPLETE)


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
        request_book: Callable[[], None],
        watching: Callable[[], contextlib.AbstractContextManager[None]],
        resolution_timeout: float,
        on_end: Callable[[PlanRunner], None],
    ) -> None:
        """`find_orders` returns orders by the caller's part of their client tag or by number,
        `read_position` the net quantity that this plan may close, `opens_in` the seconds until the
        market opens (0 while it is open). `write` has the state written to the journal before the
        next request is sent. `request_book` has the order book read; an order that was placed
        `resolution_timeout` seconds before a book was requested is in it. `watching` has the book
        read again and again while there is no order feed."""
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
        self._request_book = request_book
        self._watching = watching
        self._resolution_timeout = resolution_timeout
        self.is_entering = False
        """Whether the placement of the entry has no outcome yet."""
        self._unknown: dict[int, float] = {}
        """Steps whose orders may exist although no report has shown them (0 is the entry), with the
        time of the loop from which on a requested order book would show them."""
        self._lacking = 0
        """Order books in a row that have not shown them."""
        self._book_at = -math.inf
        """Time of the loop at which the next order book is asked for because of them."""
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

    def start(self) -> None:
        """Start the plan's task, unless it runs."""
        self._is_stopped = False
        if self._task is None:  # of a plan that ended while no process ran, it writes the end
            self._task = asyncio.create_task(
                self._run_to_the_end(), name=f"exit plan {self.state.id}"
            )

    async def stop(self) -> None:
        """Stop the task. Requests under way are left to finish; the plan goes on at `start`."""
        task, self._task = self._task, None
        self._is_stopped = True
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self.state.status.is_final:  # the task has not come to write it
            self._note_end()
        self._announce(is_running=False)

    @property
    def is_answering(self) -> bool:
        """Whether a request of the plan is under way, the placement of its entry included."""
        return bool(self._sending) or self.is_entering

    async def until_answered(self) -> None:
        """Wait until no request of the plan is under way any more."""
        while self._sending:
            await asyncio.wait({*self._sending})

    def wake(self) -> None:
        """Look at the plan's orders and at what is due."""
        self._wakeup.set()

    def on_price(self, price: Decimal) -> None:
        """Apply a price of the instrument."""
        apply_price(self.state, self.timers, price, self._now())
        self._wakeup.set()

    def on_other_fill(self, row: OrderRow) -> None:
        """Have the position read where an order outside the plan, for its position, has filled
        against it."""
        if row.side != self.state.terms.exit_side:
            return
        if row.filled_quantity > self._other_fills.get(row.number, 0):
            self._other_fills[row.number] = row.filled_quantity
            self.timers.must_read_position = True
            # The report of the position may not show this fill yet.
            self.timers.read_at = self._now() + POSITION_LAG_SECONDS
            self._wakeup.set()

    def on_book(self, requested_at: float) -> None:
        """Take note of an order book, which has been applied to the orders: an order that it should
        have shown was never placed."""
        self._wakeup.set()
        if not self._unknown:
            return
        self._apply_reports()
        due = [step for step, at in self._unknown.items() if at <= requested_at]
        self._lacking = self._lacking + 1 if due else 0
        if self._lacking < PROOFS:
            return
        for step in due:
            del self._unknown[step]
            if step:
                reason = "no order book shows the exit order whose answer was lost"
                apply_refused(self.state, self.timers, step, reason, self._now(), is_refusal=False)
            elif not self.entries:
                self.end("no order book shows the entry: it was not placed")

    def lose_entry(self) -> None:
        """Take note that the entry, or a part of it, may exist although no answer has said so."""
        self._unknown[0] = self._now() + self._resolution_timeout

    def take_up(self) -> None:
        """Go on with a plan after a login. What it had under way has an outcome by now; where there
        is no journal, it may have one later."""
        state = self.state
        self._apply_reports()
        if not self.entries and not state.is_entry_final and 0 not in self._unknown:
            self._take_up_without_entry()
        for order in state.exits:
            known = self._orders.get(order.step)
            if known is None and order.step in self._unknown:
                continue
            order.asked_quantity, order.asked_terms = 0, None
            order.is_under_way = False
            if known is None and not order.is_final:
                # It was not accepted, or it is of an earlier day and has expired.
                order.is_final = True
            elif known is not None and not known.is_final:
                order.quantity = known.quantity
                order.terms = terms_of(known)
        self.timers.must_read_position = True
        self.timers.is_reading_position = self.timers.is_cancelling_entry = False

    def _take_up_without_entry(self) -> None:
        """Go on although no report of today shows the entry."""
        state = self.state
        if state.day == date_of(self._clock()):
            self.end("the process ended before the entry was placed")
        elif state.entry_filled:
            state.is_entry_final = True
            state.status = PlanStatus.OPEN
        else:
            self.fail(
                f"its entry is of {state.day}, and what has filled of it since is not known: "
                "compare the position"
            )

    def end(self, reason: str) -> None:
        """End the plan at once. Its orders are left to a halt or a square-off that cancels them."""
        if self.state.status.is_final:
            return
        self._end(PlanStatus.CANCELLED, reason)

    def fail(self, reason: str) -> None:
        """End the plan because it cannot be carried out."""
        self._end(PlanStatus.FAILED, reason)

    def _end(self, status: PlanStatus, reason: str) -> None:
        self.state.status, self.state.reason = status, reason
        self._wakeup.set()
        if self._task is None:
            self._note_end()

    def _note_end(self) -> None:
        self._write(self.state)
        self._on_end(self)
        self._announce()

    # --- the user's requests ------------------------------------------------------------------

    async def change(self, *, stop: NewPrice, target: NewPrice, trail: NewPrice) -> None:
        """Change prices of the plan; see ExitPlan.change."""
        state = self.state
        if state.status.is_final:
            raise UsageError(f"plan {state.id} has ended: it is {state.status}")
        if state.is_closing:
            raise UsageError(f"plan {state.id} is closing at the market: its prices are past")
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
        """Close everything at the market, also where a `cancel` has begun."""
        self._cancels = False
        close_at_market(self.state, self.timers, self._now())
        self._wakeup.set()

    def cancel(self, *, leave_stop: bool, reason: str = "cancelled") -> None:
        """End the plan, and leave what is held as it is."""
        if self.state.status.is_final:
            return
        self._cancels, self._leaves_stop = True, leave_stop
        self.state.reason = reason
        self._wakeup.set()

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
        self._note_end()

    async def _run_to_the_end(self) -> None:
        """Run the plan. An error in here must not end it in silence."""
        try:
            await self._run()
        except Exception as error:
            log.exception("plan %s stops", self.state.id)
            self._task = None
            self.fail(f"an error of this client, {error!r}: its orders stay as they are")

    def _next(self) -> Action | None:
        """Apply what is known by now, and return the request that is due."""
        self._wakeup.clear()
        self._apply_reports()
        now = self._now()
        self._begin_day(now)
        self._wait_for_open(now)
        if self._unknown and now >= self._book_at:
            self._book_at = now + BOOK_SECONDS
            self._request_book()
        advance(self.state, self.timers, now)
        return self._cancelling() if self._cancels else next_action(self.state, self.timers, now)

    def _begin_day(self, now: float) -> None:
        """Where a new day has begun, have the plan go on at the open, or end with its last day."""
        state, today = self.state, date_of(self._clock())
        if state.status.is_final or state.day == today:
            return
        begin_day(state, self.timers, today, now + self._opens_in(state))
        if state.terms.until is not None and today > state.terms.until:
            end_of_last_day(state)
        self._write(state)

    def _wait_for_open(self, now: float) -> None:
        """After a refusal outside the market's hours, wait for the next open. Before one, the hours
        do not matter: an exchange for tests trades at any."""
        if self.timers.refusals:
            opens_in = self._opens_in(self.state)
            self.timers.closed_until = now + opens_in if opens_in else -math.inf

    async def _until_due(self) -> None:
        """Wait for a report, a price or an answer, or for the time at which something is due."""
        at = next_time(self.state, self.timers, self._now())
        if self._unknown:
            at = min(at, self._book_at)
        at = min(at, self._now() + seconds_to_midnight(self._clock()))
        has_orders = not self.state.is_entry_final or bool(self.state.open_exits)
        with (
            contextlib.suppress(TimeoutError),
            self._watching() if has_orders else contextlib.nullcontext(),
        ):
            async with asyncio.timeout_at(at):
                await self._wakeup.wait()

    def _cancelling(self) -> Action | None:
        """Return the next request of a plan that its user cancels, and end it when none is left."""
        state = self.state
        if not state.is_entry_final:
            if not self.timers.is_cancelling_entry and self._now() >= self.timers.cancel_at:
                return CancelEntry()
            return None
        for order in state.open_exits:
            if self._leaves_stop and order.terms.aim is Aim.STOP and order.number:
                continue
            if not order.was_cancelled and order.number and not order.is_under_way:
                return CancelExit(order.step) if self._now() >= self.timers.cancel_at else None
            return None
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
                if self._unknown.pop(known.step, None) is not None:
                    known.is_under_way = False
            self._apply_exit(known, order, now)
        if filled != (state.entry_filled, state.exits_filled):
            self._filled_at = now

    def _apply_exit(self, known: ExitOrder, order: Order, now: float) -> None:
        known.number = order.number
        if order.status is OrderStatus.REJECTED and not order.filled_quantity:
            apply_rejected(self.state, self.timers, known.step, order.reject_reason, now)
            return
        is_shown = not known.is_under_way and order.unreported_change is None
        if is_shown and order.quantity:
            known.quantity = order.quantity  # another program may have changed it
        is_stop = known.terms.aim is Aim.STOP and is_shown
        if is_stop and order.status is OrderStatus.TRIGGER_PENDING:
            known.is_resting = True
        apply_exit(
            self.state,
            self.timers,
            known.step,
            now,
            filled=order.filled_quantity,
            is_triggered=is_stop and known.is_resting and order.status in _TRIGGERED,
            is_final=order.is_final and not order.lacks_fills,
        )

    def _apply_entries(self) -> None:
        state = self.state
        is_searching = self.is_entering or 0 in self._unknown
        if not self.entries or is_searching:
            self.entries = self._find_orders(entry_tag(state.id), state.entry_numbers)
            if not self.entries:
                return
        if 0 in self._unknown and sum(one.quantity for one in self.entries) >= state.entry_quantity:
            del self._unknown[0]
            is_searching = self.is_entering
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
            is_final=not is_searching
            and all(entry.is_final and not entry.lacks_fills for entry in entries),
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
        except OutcomeUnknown as error:
            self._apply_unknown(action, error)
        except NeoError as error:
            self._apply_refusal(action, error)
        except Exception as error:
            log.exception("plan %s: %s", self.state.id, type(action).__name__)
            self._apply_unknown(action, error)
        finally:
            self._wakeup.set()

    async def _request(self, action: Action) -> None:
        state = self.state
        match action:
            case PlaceExit(step, quantity, terms):
                tag = exit_tag(state.id, step)
                order = await self._requests.place(exit_request(state.terms, quantity, terms, tag))
                self._orders[step] = order
                apply_accepted(state, self.timers, step, order.number)
            case ChangeExit(step, quantity, terms, is_trailing):
                await self._requests.change(
                    self._orders[step], quantity, terms, is_trailing=is_trailing
                )
                apply_accepted(state, self.timers, step)
            case CancelExit(step):
                await self._requests.cancel(self._orders[step])
                apply_cancel_accepted(state, self.timers, step, self._now())
            case CancelEntry():
                for entry in self.entries:
                    if not entry.is_final:
                        await self._requests.cancel(entry)
                apply_entry_cancel_accepted(self.timers, self._now())
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
                apply_refused(
                    self.state,
                    self.timers,
                    action.step,
                    str(error),
                    now,
                    is_refusal=isinstance(error, Rejected | InvalidField),
                )
        self._write(self.state)

    def _apply_unknown(self, action: Action, error: Exception) -> None:
        """No report has proved the outcome of a request in minutes, or a logout came before. A
        placement goes on counting as working until an order book shows it or lacks it; of a change,
        what the order shows counts."""
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
            case PlaceExit(step):
                self._unknown[step] = self._now() + self._resolution_timeout
            case ReadPosition():
                self.timers.is_reading_position = False
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
        log_change(self.state, last, change)
        future, self._changed = self._changed, None
        if future is not None and not future.done():
            future.set_result(is_running or self.state.status.is_final)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
