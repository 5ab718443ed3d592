"""What prices and the time do to the state of an exit plan: its stop trails, it aims at its target
or its stop, and what does not fill gets a new market price. No I/O, no clock, no await."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from neo_async.exits.rules import CANCEL_SECONDS, Timers, find
from neo_async.exits.state import (
    Aim,
    ExitOrder,
    PlanState,
    PlanTerms,
    Resting,
)


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
    level = on_tick(price - terms.sign * terms.trail, terms)
    step = max(terms.trail_step or terms.tick, terms.tick)
    if state.stop is None or terms.sign * (level - state.stop) >= step:
        state.stop = level


def _touch_stop(state: PlanState, timers: Timers, now: float) -> None:
    """The price has reached the stop. A stop that rests is given `chase` seconds to fill; where
    none does, the position is closed at the market."""
    if state.is_closing:
        return
    if all(_is_stop(order) for order in state.open_exits) and state.open_exits:
        timers.chase_at = min(timers.chase_at, now + state.terms.chase)
    else:
        close_at_market(state, timers, now)


def _is_stop(order: ExitOrder) -> bool:
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


def on_tick(stop: Decimal, terms: PlanTerms) -> Decimal:
    """Return a stop on tick, rounded away from the market, so that it is never tighter than
    asked."""
    rounding = ROUND_FLOOR if terms.sign == 1 else ROUND_CEILING
    return (stop / terms.tick).to_integral_value(rounding) * terms.tick
