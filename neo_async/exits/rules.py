"""The rules of an exit plan: which request is due next. No I/O, no clock, no await.

Reports, prices and answers are applied to a `PlanState` by the `apply_*` functions; `next_action`
says what is to be requested now. Invariants, each of them property-tested:

1. The units that working exit orders may still fill, with every request of unknown outcome counted
   as done, are never more than the units held. A plan cannot turn a position round.
2. A unit that is held has an exit order on its way as soon as a request may be sent. Growing fills
   change the quantity of the exit order that there is; another one is placed only above the freeze
   quantity.
3. An exit order has one request under way at most, and a step number is used once.
4. Where an exit order ended that the plan has not cancelled, or was refused, the position may be
   closed by another program or the broker at the same time: it is read before the next exit order
   is placed. The same holds for a position that was there before the plan, and on every new day.
5. A final plan requests nothing.
6. Once the market answers and the price goes through the stop, a plan ends.
"""

from __future__ import annotations

import math
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TypeAlias

import msgspec

from neo_async.exits.state import (
    Aim,
    ExitOrder,
    ExitReason,
    ExitTerms,
    PlanState,
    PlanStatus,
    PlanTerms,
    Resting,
    Unprotected,
)
from neo_async.model.enums import OrderType

JOIN_SECONDS = 0.2
"""Time for which growing fills of the entry are joined into one change of the exit's quantity."""

TRAIL_SECONDS = 1.0
"""Least time between two changes by which a stop trails the price."""

MAX_REFUSALS = 3
"""Refusals of an exit order in a row after which the plan counts as unprotected."""
_RETRY_SECONDS = (0.5, 1.0, 2.0)
"""Times after the first requests in a row that had no effect, and after every one that was not
refused, such as one that was never sent."""
CANCEL_SECONDS = 10.0
"""Time after which an order that the broker has taken a cancel for, and that is open still, is
cancelled again."""
RETRY_SECONDS = 15.0
"""Time between two tries of an exit order that the broker keeps refusing."""


class PlaceExit(msgspec.Struct, frozen=True):
    """Place an exit order of these terms."""

    step: int
    quantity: int
    terms: ExitTerms


class ChangeExit(msgspec.Struct, frozen=True):
    """Change an exit order to these terms. `quantity` is the new total, filled units included."""

    step: int
    quantity: int
    terms: ExitTerms
    is_trailing: bool = False
    """Whether the change only moves the stop with the price: it may wait for everything else."""


class CancelExit(msgspec.Struct, frozen=True):
    """Cancel an exit order, and wait until the order book proves with how many units filled."""

    step: int


class CancelEntry(msgspec.Struct, frozen=True):
    """Cancel what is open of the entry order."""


class ReadPosition(msgspec.Struct, frozen=True):
    """Read the position, and apply it with `apply_position`."""


Action: TypeAlias = PlaceExit | ChangeExit | CancelExit | CancelEntry | ReadPosition


class Timers(msgspec.Struct):
    """Times of the loop in seconds that only matter while the process lives."""

    grow_at: float = -math.inf
    """Time from which on the exit's quantity may grow again."""
    trail_at: float = -math.inf
    """Time from which on the stop may trail again."""
    chase_at: float = math.inf
    """Time at which a stop that has not filled, or a market price, is to be replaced by a new
    market price."""
    retry_at: float = -math.inf
    """Time from which on an exit order may be placed or changed again after a refusal."""
    cancel_at: float = -math.inf
    """The same for cancels, and for changes that only take units away: they are never put off for
    longer than two seconds."""
    refusals: int = 0
    """Refusals of exit orders in a row."""
    failures: int = 0
    """Requests in a row that had no effect, refusals and others."""
    is_cancelling_entry: bool = False
    entry_cancelled_at: float = math.inf
    """Time at which the broker took the cancel of the entry."""
    cancelled_at: dict[int, float] = {}
    """Times at which the broker took the cancels of exit orders, by step."""
    read_at: float = math.inf
    """Time at which the position has to be read once more: a report of it may lag behind."""
    must_read_position: bool = False
    """Whether the position has to be read before anything is placed."""
    is_reading_position: bool = False
    closed_until: float = -math.inf
    """Time at which the market opens again; nothing is requested before."""
    price: Decimal | None = None
    """Last price of the instrument."""


# --- what is due ------------------------------------------------------------------------------


def next_action(state: PlanState, timers: Timers, now: float) -> Action | None:
    """Return the request that is due at `now` (seconds of the loop), or None. `advance` comes
    before it."""
    if state.status.is_final or state.status is PlanStatus.WAITING:
        return None
    if now < max(timers.cancel_at, timers.closed_until):
        return None
    has_begun_to_exit = state.is_closing or state.exits_filled > 0 or state.closed_elsewhere > 0
    if has_begun_to_exit and not state.is_entry_final and not timers.is_cancelling_entry:
        return CancelEntry()
    excess = state.working - state.held
    if excess > 0:
        return _reduce(state, excess)
    if now < timers.retry_at:
        return None
    if timers.must_read_position:
        return None if timers.is_reading_position else ReadPosition()
    wanted = exit_terms(state)
    for order in state.open_exits:
        action = _change(state, order, wanted, timers, now)
        if action is not None:
            return action
    if excess < 0:
        return _cover(state, -excess, wanted, timers, now)
    return None


def next_time(state: PlanState, timers: Timers, now: float) -> float:
    """Return the time of the loop at which `next_action` may change by itself; inf for never."""
    if state.status.is_final:
        return math.inf
    times = (
        timers.grow_at,
        timers.trail_at,
        timers.chase_at,
        timers.retry_at,
        timers.cancel_at,
        timers.closed_until,
        timers.read_at,
        timers.entry_cancelled_at + CANCEL_SECONDS,
        *(at + CANCEL_SECONDS for at in timers.cancelled_at.values()),
    )
    return min((time for time in times if time > now), default=math.inf)


def exit_terms(state: PlanState) -> ExitTerms:
    """Return the terms that the exit orders of a plan ought to have now."""
    terms = state.terms
    match aim_of(state):
        case Aim.CLOSE:
            return ExitTerms(Aim.CLOSE, OrderType.MARKET, revision=state.revision)
        case Aim.TARGET:
            return ExitTerms(Aim.TARGET, OrderType.LIMIT, price=terms.target)
        case Aim.STOP:
            assert state.stop is not None
            limit = state.stop - terms.sign * terms.stop_limit
            return ExitTerms(Aim.STOP, OrderType.SL, price=limit, trigger=state.stop)


def aim_of(state: PlanState) -> Aim:
    """Return what the exit orders are to do now."""
    if state.is_closing:
        return Aim.CLOSE
    if state.stop is None:
        return Aim.TARGET
    if state.terms.target is None:
        return Aim.STOP
    return state.aim


def _reduce(state: PlanState, excess: int) -> Action | None:
    """Return the request that takes units away from exit orders which are not held any more."""
    for order in reversed(state.open_exits):
        if not order.working or order.was_cancelled:
            continue
        if order.is_under_way or not order.number:
            return None  # its answer decides
        if order.working <= excess:
            return CancelExit(order.step)
        return ChangeExit(order.step, order.quantity - excess, order.terms)
    return None


def _change(
    state: PlanState, order: ExitOrder, wanted: ExitTerms, timers: Timers, now: float
) -> Action | None:
    """Return the request that brings the terms of an exit order to those that are wanted."""
    if order.is_under_way or order.was_cancelled or not order.number:
        return None
    if order.is_triggered and wanted.aim is Aim.STOP:
        return None  # it is a limit order in the book: its trigger cannot be moved any more
    if order.terms == wanted:
        return None
    replaces = wanted.aim is Aim.CLOSE or order.terms.order_type is not wanted.order_type
    if replaces and not state.changes_type:
        return CancelExit(order.step)
    is_trailing = order.terms.aim is wanted.aim is Aim.STOP
    if is_trailing and now < timers.trail_at:
        return None
    return ChangeExit(order.step, order.quantity, wanted, is_trailing)


def _cover(
    state: PlanState, lacking: int, wanted: ExitTerms, timers: Timers, now: float
) -> Action | None:
    """Return the request that gives units without an exit order one."""
    for order in state.open_exits:
        room = state.terms.largest - order.quantity
        if room <= 0 or order.was_cancelled:
            continue
        if order.is_under_way or not order.number:
            return None  # its answer is waited for, rather than a second order placed
        if order.is_triggered and order.terms.aim is Aim.STOP:
            return None  # no stop is taken any more; `chase` closes at the market soon
        if now < timers.grow_at:
            return None
        return ChangeExit(order.step, order.quantity + min(room, lacking), order.terms)
    step = 1 + max((order.step for order in state.exits), default=0)
    return PlaceExit(step, min(lacking, state.terms.largest), wanted)


# --- requests and their answers ---------------------------------------------------------------


def begin(state: PlanState, timers: Timers, action: Action, now: float) -> None:
    """Note that a request is about to be sent. It is written to the journal before it is."""
    match action:
        case PlaceExit(step, quantity, terms):
            order = ExitOrder(step=step, quantity=quantity, terms=terms, is_under_way=True)
            state.exits.append(order)
            timers.grow_at = now + JOIN_SECONDS
            _note_terms(state, timers, terms, now)
        case ChangeExit(step, quantity, terms):
            order = find(state, step)
            order.is_under_way = True
            order.asked_quantity, order.asked_terms = quantity, terms
            timers.grow_at = now + JOIN_SECONDS
            _note_terms(state, timers, terms, now)
        case CancelExit(step):
            order = find(state, step)
            order.is_under_way = order.was_cancelled = True
        case CancelEntry():
            timers.is_cancelling_entry = True
        case ReadPosition():
            timers.is_reading_position = True


def _note_terms(state: PlanState, timers: Timers, terms: ExitTerms, now: float) -> None:
    if terms.aim is Aim.STOP:
        timers.trail_at = now + TRAIL_SECONDS
    elif terms.aim is Aim.CLOSE:
        timers.chase_at = now + state.terms.chase


def apply_accepted(state: PlanState, timers: Timers, step: int, number: str = "") -> None:
    """Apply that the broker took a placement (which has a number) or a change."""
    order = find(state, step)
    order.number = number or order.number
    order.is_under_way = False
    if order.asked_terms is not None:
        order.is_resting = order.is_resting and order.asked_terms.aim is order.terms.aim
        order.quantity, order.terms = order.asked_quantity, order.asked_terms
    order.asked_quantity, order.asked_terms = 0, None
    timers.refusals = timers.failures = 0
    state.reason = ""


def apply_cancel_accepted(state: PlanState, timers: Timers, step: int, now: float) -> None:
    """Apply that the broker took the cancel of an exit order. The order book proves it."""
    find(state, step).is_under_way = False
    timers.cancelled_at[step] = now


def apply_refused(
    state: PlanState,
    timers: Timers,
    step: int,
    reason: str,
    now: float,
    *,
    is_refusal: bool = True,
) -> None:
    """Apply that a request had no effect. `is_refusal` is whether the broker has refused it: what
    was never sent says nothing about the next request."""
    order = find(state, step)
    wanted, had = order.asked_terms, order.terms
    order.is_under_way = False
    order.asked_quantity, order.asked_terms = 0, None
    if order.is_final:
        return
    if not order.number:
        _finish(order)
    elif order.was_cancelled:
        order.was_cancelled = False
        is_refusal = False  # it is the stop that may be refused
    elif wanted is not None and is_refusal and _replaces(had, wanted):
        state.changes_type = False
        return
    _count_failure(state, timers, reason, now, is_refusal=is_refusal)


def _replaces(had: ExitTerms, wanted: ExitTerms) -> bool:
    """Return whether a change makes another kind of order, or asks for a new market price: what a
    broker may not do, so that the order is cancelled and another one placed."""
    return had.order_type is not wanted.order_type or had.aim is wanted.aim is Aim.CLOSE


def apply_exit(
    state: PlanState,
    timers: Timers,
    step: int,
    now: float,
    *,
    filled: int,
    is_triggered: bool = False,
    is_final: bool = False,
) -> None:
    """Apply a report of an exit order. Fills are never taken back."""
    order = find(state, step)
    order.filled = max(order.filled, filled)
    # What a report of the position has shown before may have been this fill.
    left = max(0, state.entry_filled - state.exits_filled)
    state.closed_elsewhere = min(state.closed_elsewhere, left)
    if is_triggered and not order.is_triggered:
        order.is_triggered = True
        if order.terms.aim is Aim.STOP:
            timers.chase_at = min(timers.chase_at, now + state.terms.chase)
    if is_final and not order.is_final:
        _finish(order)
        if order.filled < order.quantity and not order.was_cancelled:
            timers.must_read_position = True
        timers.cancelled_at.pop(step, None)
    _end_if_flat(state)


def _finish(order: ExitOrder) -> None:
    order.is_final = True
    order.is_under_way = False
    order.asked_quantity, order.asked_terms = 0, None


def apply_rejected(state: PlanState, timers: Timers, step: int, reason: str, now: float) -> None:
    """Apply that an exit order, which the broker had taken, was rejected later."""
    order = find(state, step)
    if not order.is_final:
        _finish(order)
        _count_failure(state, timers, reason, now, is_refusal=True)


def apply_entry_cancel_accepted(timers: Timers, now: float) -> None:
    """Apply that the broker took the cancel of the entry. The order book proves it."""
    timers.entry_cancelled_at = now


def apply_entry_cancel_refused(timers: Timers, now: float) -> None:
    """Apply that the cancel of the entry had no effect: it is asked for again, unless a report
    shows that the entry is final."""
    timers.is_cancelling_entry = False
    timers.cancel_at = now + _RETRY_SECONDS[0]


def _count_failure(
    state: PlanState, timers: Timers, reason: str, now: float, *, is_refusal: bool
) -> None:
    """Put off the next request, for longer the more of them had no effect. Where the broker keeps
    refusing a stop and units have none, the plan does what its user wants then."""
    state.reason = reason
    pause = _RETRY_SECONDS[min(timers.failures, len(_RETRY_SECONDS) - 1)]
    timers.failures += 1
    timers.retry_at = timers.cancel_at = now + pause
    if not is_refusal:
        return
    timers.must_read_position = True
    timers.refusals += 1
    if timers.refusals < MAX_REFUSALS:
        return
    timers.retry_at = now + RETRY_SECONDS
    if (
        state.terms.on_unprotected is Unprotected.EXIT
        and not state.is_closing
        and state.unprotected
    ):
        close_at_market(state, timers, now)


# --- reports and prices -----------------------------------------------------------------------


def apply_entry(
    state: PlanState, filled: int, *, average_price: Decimal | None = None, is_final: bool
) -> None:
    """Apply a report of the entry order. Fills are never taken back."""
    state.entry_filled = max(state.entry_filled, filled)
    if average_price:
        state.entry_price = average_price
    state.is_entry_final = is_final
    if state.status is PlanStatus.ENTERING and is_final:
        state.status = PlanStatus.OPEN
        if not state.entry_filled:
            state.status = PlanStatus.CANCELLED
    _end_if_flat(state)


def apply_price(state: PlanState, timers: Timers, price: Decimal, now: float) -> None:
    """Apply the last price of the instrument."""
    timers.price = price
    advance(state, timers, now)


def advance(state: PlanState, timers: Timers, now: float) -> None:
    """Apply what the last price and the time make due: the stop trails, the aim changes at target
    and stop, and what has not filled in time gets a new market price."""
    if state.status.is_final:
        return
    _ask_again(state, timers, now)
    if state.held <= 0:
        return
    price = timers.price
    if price is not None:
        _trail(state, price)
        if state.stop is not None and not state.terms.is_beyond(price, state.stop, strictly=True):
            _touch_stop(state, timers, now)
        else:
            _leave_stop(state, timers, price)
    if timers.chase_at <= now and not state.is_closing:
        close_at_market(state, timers, now)
    elif timers.chase_at <= now and timers.retry_at <= now:
        state.revision += 1
        timers.chase_at = now + state.terms.chase


def _ask_again(state: PlanState, timers: Timers, now: float) -> None:
    """Have a cancel repeated that the broker took and that has led to nothing, and a position read
    once more whose report may have lagged behind."""
    if timers.read_at <= now:
        timers.read_at = math.inf
        timers.must_read_position = True
    if timers.entry_cancelled_at + CANCEL_SECONDS <= now:
        timers.entry_cancelled_at = math.inf
        timers.is_cancelling_entry = False
    for step in [step for step, at in timers.cancelled_at.items() if at + CANCEL_SECONDS <= now]:
        del timers.cancelled_at[step]
        find(state, step).was_cancelled = False


def close_at_market(state: PlanState, timers: Timers, now: float) -> None:
    """Have everything closed at the market from now on."""
    if state.status.is_final:
        return
    state.is_closing = True
    state.revision += 1
    timers.chase_at = now + state.terms.chase
    timers.retry_at = timers.cancel_at = -math.inf
    timers.refusals = timers.failures = 0


def _trail(state: PlanState, price: Decimal) -> None:
    """Take over the most favourable price, and move the stop behind it."""
    terms = state.terms
    if state.best is not None and not terms.is_beyond(price, state.best, strictly=True):
        return
    state.best = price
    if terms.trail is None:
        return
    level = on_tick(price - terms.sign * terms.trail, terms, away=True)
    step = max(terms.trail_step or terms.tick, terms.tick)
    if state.stop is None or terms.sign * (level - state.stop) >= step:
        state.stop = level


def _touch_stop(state: PlanState, timers: Timers, now: float) -> None:
    """The price has reached the stop. A stop that rests is given `chase` seconds to fill; where
    none does, the position is closed at the market."""
    if state.is_closing:
        return
    if all(is_stop(order) for order in state.open_exits) and state.open_exits:
        timers.chase_at = min(timers.chase_at, now + state.terms.chase)
    else:
        close_at_market(state, timers, now)


def is_stop(order: ExitOrder) -> bool:
    """Return whether an exit order rests at the broker as a stop, and is not being changed into
    anything else."""
    asked = order.asked_terms
    is_kept = asked is None or asked.aim is Aim.STOP
    return bool(order.number) and order.terms.aim is Aim.STOP and is_kept


def _leave_stop(state: PlanState, timers: Timers, price: Decimal) -> None:
    """The price is not at the stop. Aim at the target once it is reached, and at the stop again
    when the price has fallen back half of the way between them."""
    if not state.is_closing and not any(order.is_triggered for order in state.open_exits):
        timers.chase_at = math.inf
    terms = state.terms
    if terms.target is None or state.stop is None:
        return
    if terms.resting is Resting.TARGET or terms.is_beyond(price, terms.target):
        state.aim = Aim.TARGET
    elif not terms.is_beyond(price, (terms.target + state.stop) / 2):
        state.aim = Aim.STOP


def apply_position(state: PlanState, timers: Timers, net: int) -> None:
    """Apply the net quantity of the position, read after every fill that is known here: what is
    missing of the units that the plan has not exited was closed elsewhere."""
    timers.must_read_position = timers.is_reading_position = False
    in_direction = max(0, state.terms.sign * net)
    state.closed_elsewhere = max(0, state.entry_filled - state.exits_filled - in_direction)
    _end_if_flat(state)


def _end_if_flat(state: PlanState) -> None:
    if state.status is not PlanStatus.OPEN or state.held > 0 or state.working > 0:
        return
    state.status = PlanStatus.EXITED
    state.reason = ""
    filled = [order for order in state.exits if order.filled]
    if state.closed_elsewhere or not filled:
        state.exited_by = ExitReason.ELSEWHERE
    else:
        state.exited_by = {
            Aim.STOP: ExitReason.STOP,
            Aim.TARGET: ExitReason.TARGET,
            Aim.CLOSE: ExitReason.CLOSED,
        }[filled[-1].terms.aim]


def begin_day(state: PlanState, timers: Timers, today: date, opens_at: float) -> None:
    """Begin a new day: the exit orders of the day before end with it, and the position is read
    before the plan goes on, not before its market is open at `opens_at`: at night it may be in no
    report."""
    state.day = today
    timers.must_read_position = True
    timers.closed_until = opens_at


def end_of_last_day(state: PlanState) -> None:
    """End a plan whose last day is over."""
    state.status = PlanStatus.CANCELLED
    left = f", and {state.held} units have no exit" if state.held > 0 else ""
    state.reason = f"its last day, {state.terms.until}, is over{left}"


def find(state: PlanState, step: int) -> ExitOrder:
    """Return the exit order of a step."""
    for order in state.exits:
        if order.step == step:
            return order
    raise KeyError(step)


def on_tick(price: Decimal, terms: PlanTerms, *, away: bool) -> Decimal:
    """Return a price on tick. With `away` it is rounded away from the market, against the
    position's side, so that a stop is never tighter than asked."""
    down = (terms.sign == 1) == away
    steps = (price / terms.tick).to_integral_value(ROUND_FLOOR if down else ROUND_CEILING)
    return steps * terms.tick
