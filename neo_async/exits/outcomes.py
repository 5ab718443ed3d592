"""What answers, reports and days do to the state of an exit plan. No I/O, no clock, no await.

The invariants are those of `rules`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from neo_async.exits.price_rules import close_at_market
from neo_async.exits.rules import Timers, find
from neo_async.exits.state import (
    Aim,
    ExitOrder,
    ExitReason,
    ExitTerms,
    PlanState,
    PlanStatus,
    Unprotected,
)

MAX_REFUSALS = 3
"""Refusals of an exit order in a row after which the plan counts as unprotected."""

_RETRY_SECONDS = (0.5, 1.0, 2.0)
"""Times after the first requests in a row that had no effect, and after every one that was not
refused, such as one that was never sent."""

RETRY_SECONDS = 15.0
"""Time between two tries of an exit order that the broker keeps refusing."""


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
