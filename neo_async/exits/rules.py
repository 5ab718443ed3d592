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
from decimal import Decimal
from typing import TypeAlias

import msgspec

from neo_async.exits.state import (
    Aim,
    ExitOrder,
    ExitTerms,
    PlanState,
)
from neo_async.model.enums import OrderType

JOIN_SECONDS = 0.2
"""Time for which growing fills of the entry are joined into one change of the exit's quantity."""

TRAIL_SECONDS = 1.0
"""Least time between two changes by which a stop trails the price."""

CANCEL_SECONDS = 10.0
"""Time after which an order that the broker has taken a cancel for, and that is open still, is
cancelled again."""


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
    if state.status.is_final:
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


def find(state: PlanState, step: int) -> ExitOrder:
    """Return the exit order of a step."""
    for order in state.exits:
        if order.step == step:
            return order
    raise KeyError(step)
