"""Bringing journal and order book together at login.

After a crash the journal has requests without an outcome: each becomes a request in flight, as if
its answer had been lost just now. The orders of the journal are registered again.

Every wait has a bound: a login that gets no order book fails after `BOOK_TIMEOUT_SECONDS`, and the
requests leave as all requests in flight do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from neo_async.base.india import midnight
from neo_async.base.logs import Log
from neo_async.errors import (
    LoginFailed,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
)
from neo_async.execution.expected_effect import effect_of_intent
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Intent, Outcome
from neo_async.execution.late_orders import WITHOUT_ORDER
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.orders import OrderRow, OrderTerms, is_order_number
from neo_async.transport.backoff import backoff
from neo_async.wire.orders import PlaceForm
from neo_async.wire.rules import placed_terms

REGISTERED_DAYS = 7
"""Age in days of the oldest orders that a login expects in today's book: after-market orders
wait over weekends and holidays."""
_HOUR_NS = 3600 * 1_000_000_000
_DAY_NS = 24 * _HOUR_NS

BOOK_TIMEOUT_SECONDS = 120.0
"""Time for which the order book is requested again and again at login."""
RETRY_BASE_SECONDS = 0.5
RETRY_CAP_SECONDS = 10.0
"""Bounds of the pause between two tries."""

CANNOT_ARRIVE_AFTER_SECONDS = 3600.0
"""Time after which a request of a process that has ended cannot reach the broker any more."""

_INTENTS_PER_TURN = 1000
"""Number of intents that are processed before other tasks have their turn."""


class ResolvedIntent(msgspec.Struct, frozen=True):
    """The outcome of an intent that a crash had left open."""

    intent: Intent
    outcome: Outcome
    order: Order | None
    """The order; None when the request had no effect, or its outcome stays unknown."""


class Reconciliation(msgspec.Struct, frozen=True):
    """The result of bringing journal and order book together at login."""

    orders: Sequence[Order] = ()
    """Orders of the journal that are in today's order book."""
    resolved_intents: Sequence[ResolvedIntent] = ()
    """Outcomes of the intents that had none."""


async def uncancelled(journal: Journal, now: float) -> list[Intent]:
    """Return the placements in the journal whose orders may be open at `now` (Unix seconds), newest
    first: those of today, and after-market orders of `REGISTERED_DAYS`. Raises JournalFailed."""
    amo_since_ns = int(now * 1e9) - REGISTERED_DAYS * _DAY_NS
    intents = await journal.uncancelled(midnight(now) * 10**9, amo_since_ns=amo_since_ns)
    return [intent for intent in intents if is_order_number(intent.order_number)]


def order_of(intent: Intent) -> Order:
    """Return the order of an accepted placement, as its form describes it. It is not registered in
    the cache: only a report shows whether it is open."""
    try:
        terms = placed_terms(msgspec.json.decode(intent.form, type=PlaceForm))
    # The number is enough for an ordinary cancel.
    except (msgspec.DecodeError, ValueError, ArithmeticError):
        terms = OrderTerms(
            segment=Segment.read(""),
            symbol="",
            side=Side.read(""),
            product=Product.read(""),
            order_type=OrderType.read(""),
            quantity=0,
        )
    return Order(intent.order_number, terms, client_tag=intent.client_tag, placed_ns=intent.at_ns)


async def reconcile(
    journal: Journal,
    in_flight: InFlightOrders,
    cache: OrderCache,
    read_book: Callable[[], Awaitable[list[OrderRow]]],
    *,
    clock: Callable[[], float],
) -> Reconciliation:
    """Register the orders of the journal, and resolve every intent that it has left open.

    Returns when each is resolved, at the latest when the last one expires. Raises LoginFailed when
    the order book cannot be read within `BOOK_TIMEOUT_SECONDS`.
    """
    now = clock()
    past_ns = int(now * 1e9) - REGISTERED_DAYS * _DAY_NS
    # An order that was placed just before midnight may have a number of the day after.
    since_ns = midnight(now) * 10**9 - _HOUR_NS
    intents = await journal.intents(since_ns, without_order_since_ns=past_ns)
    open_intents: list[Intent] = []
    tags: dict[str, str] = {}
    async for intent in _in_turns(intents):
        if intent.is_open:
            open_intents.append(intent)
        if intent.action == "place" and intent.order_number:
            cache.register_number(intent.order_number)
            if intent.client_tag:
                tags[intent.order_number] = intent.client_tag
        if intent.outcome in WITHOUT_ORDER and intent.client_tag:
            in_flight.watch_for(intent.client_tag, intent.id, intent.outcome)
    if not journal.has_intents:
        return Reconciliation()
    if open_intents:
        _announce(open_intents, in_flight.resolution_timeout, now, cache.log)
    rows = await _read_book_in_time(read_book, cache.log)
    numbers = {row.number for row in rows}
    if others := numbers - tags.keys():
        for intent in await journal.placed(others, past_ns):
            cache.register_number(intent.order_number)
            tags[intent.order_number] = intent.client_tag
    orders = [
        cache.register(row, client_tag=tags[row.number]) for row in rows if tags.get(row.number)
    ]
    requests = [(intent, _open(in_flight, intent, now)) for intent in open_intents]
    in_flight.apply_order_book(rows, -math.inf)
    resolved_intents = [
        await _resolved_intent(intent, request, in_flight) for intent, request in requests
    ]
    registered = {order.number: order for order in orders}
    registered |= {one.order.number: one.order for one in resolved_intents if one.order is not None}
    cache.log.info(
        "reconciled with the journal: %d orders registered, %d of %d open intents took effect",
        len(registered),
        sum(resolved_intent.outcome is Outcome.ACCEPTED for resolved_intent in resolved_intents),
        len(resolved_intents),
    )
    return Reconciliation(list(registered.values()), resolved_intents)


def _announce(intents: Sequence[Intent], resolution_timeout: float, now: float, log: Log) -> None:
    """Say what the login waits for before it does: it looks like a hang otherwise."""
    newest_ns = max(intent.at_ns for intent in intents)
    may_arrive = _age(newest_ns, now) <= CANNOT_ARRIVE_AFTER_SECONDS
    duration = f"up to {resolution_timeout:.0f} s" if may_arrive else "one reading of the book"
    log.warning(
        "the journal has %d order requests of an earlier process whose outcome is unknown: the "
        "login looks for their orders in the order book, which takes %s",
        len(intents),
        duration,
    )


def _age(at_ns: int, now: float) -> float:
    """Return the age in seconds of what happened at Unix nanoseconds `at_ns`."""
    return max(0.0, now - at_ns / 1e9)


def _open(in_flight: InFlightOrders, intent: Intent, now: float) -> InFlightRequest:
    """Put an intent in flight again. One that cannot arrive any more is ruled out by the first
    complete order book."""
    age = _age(intent.at_ns, now)
    request = in_flight.open(
        effect_of_intent(intent),
        intent=intent.id,
        sent_at=asyncio.get_running_loop().time() - age,
        sent_ns=min(intent.at_ns, int(now * 1e9)),
    )
    if age > CANNOT_ARRIVE_AFTER_SECONDS:
        request.deadline = -math.inf
    return request


async def _in_turns(intents: Sequence[Intent]) -> AsyncIterator[Intent]:
    """Yield all of them, with time for other tasks in between."""
    for position, intent in enumerate(intents, 1):
        yield intent
        if position % _INTENTS_PER_TURN == 0:
            await asyncio.sleep(0)


async def _read_book_in_time(
    read_book: Callable[[], Awaitable[list[OrderRow]]], log: Log
) -> list[OrderRow]:
    """Return the order book, requested again and again. Raises LoginFailed."""
    failures, last = 0, "no answer"
    try:
        async with asyncio.timeout(BOOK_TIMEOUT_SECONDS):
            while True:
                try:
                    return await read_book()
                except NotLoggedIn:
                    raise
                except NeoError as error:
                    failures, last = failures + 1, str(error)
                    delay = backoff(failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
                    log.warning(
                        "no order book to reconcile the journal with: %s; next try in %.1f s",
                        error,
                        delay,
                    )
                await asyncio.sleep(delay)
    except TimeoutError:
        raise LoginFailed(
            f"the login was given up: for {BOOK_TIMEOUT_SECONDS:g} s no order book could be read "
            f"to compare the journal with (last: {last}); the journal is as it was: log in again "
            "when the broker answers"
        ) from None


async def _resolved_intent(
    intent: Intent, request: InFlightRequest, in_flight: InFlightOrders
) -> ResolvedIntent:
    try:
        return ResolvedIntent(intent, Outcome.ACCEPTED, await request)
    except NotAccepted:
        return ResolvedIntent(intent, Outcome.NOT_ACCEPTED, None)
    except OrderAlreadyFinal:
        return ResolvedIntent(intent, Outcome.REJECTED, None)
    except OutcomeUnknown:
        if in_flight.is_closed:
            raise NotLoggedIn("logged out while the journal was being reconciled") from None
        return ResolvedIntent(intent, Outcome.UNRESOLVED, None)
