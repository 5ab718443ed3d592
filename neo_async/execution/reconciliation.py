"""Bringing journal and order book together at login.

After a crash the journal holds requests without an outcome: each becomes an open question of the
settlement, as if its answer had been lost just now. The orders that it knows of are followed again.

Every wait has a bound: a login that gets no order book fails after `BOOK_PATIENCE` seconds, and the
questions end as all questions do.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from neo_async import logs
from neo_async.errors import (
    LoginFailed,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
)
from neo_async.execution.in_flight import InFlightOrders, InFlightRequest
from neo_async.execution.journal import Intent, Journal, Outcome, today_ns
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.resolution import request_of
from neo_async.model.orders import OrderRow, OrderTerms, is_order_number
from neo_async.transport.backoff import backoff
from neo_async.wire.orders import PlaceForm
from neo_async.wire.rules import placed_terms

log = logging.getLogger(logs.ORDERS)

REGISTERED_DAYS = 7
"""Age of the oldest orders that are looked for in today's book at login: after-market orders wait
over weekends and holidays."""
_HOUR_NS = 3600 * 1_000_000_000
_DAY_NS = 24 * _HOUR_NS

BOOK_PATIENCE = 120.0
"""Seconds for which the order book is asked for at login."""
RETRY_BASE = 0.5
RETRY_CAP = 10.0
"""Seconds between two tries."""

CANNOT_ARRIVE_AFTER = 3600.0
"""Seconds after which a request of a process that has ended cannot reach the broker any more."""

_AT_ONCE = 1000
"""Lines of the journal that are gone through before other tasks have their turn."""

_WITHOUT_ORDER = {
    Outcome.NOT_ACCEPTED: "not accepted",
    Outcome.REJECTED: "refused",
    Outcome.NOT_SENT: "refused",
    Outcome.UNRESOLVED: "of unknown outcome",
}
"""Outcomes of placements that are reported to have no order, and what their callers were told."""


class ResolvedIntent(msgspec.Struct, frozen=True):
    """What the reconciliation found out about an intent that a crash had left open."""

    intent: Intent
    outcome: Outcome
    order: Order | None
    """None when the request had no effect, or nobody can know."""


class Reconciliation(msgspec.Struct, frozen=True):
    """What the journal and the broker's book told together at login."""

    orders: Sequence[Order] = ()
    """Every order of the journal that is in today's book; followed from now on."""
    resolved_intents: Sequence[ResolvedIntent] = ()
    """One for every intent that had no outcome."""


async def uncancelled(journal: Journal, now: float) -> list[Intent]:
    """The placements in the journal whose orders may be open at `now` (Unix seconds), newest first:
    those of today, and after-market orders of `REGISTERED_DAYS`. Raises JournalFailed."""
    amo_since_ns = int(now * 1e9) - REGISTERED_DAYS * _DAY_NS
    intents = await journal.uncancelled(today_ns(now), amo_since_ns=amo_since_ns)
    return [intent for intent in intents if is_order_number(intent.order_number)]


def order_of(intent: Intent) -> Order:
    """The order of an accepted placement, as its form describes it. The tracker does not know it:
    only a report says whether it is open."""
    try:
        terms = placed_terms(msgspec.json.decode(intent.form, type=PlaceForm))
    # The number is enough for an ordinary cancel.
    except (msgspec.DecodeError, ValueError, ArithmeticError):
        terms = OrderTerms(segment="", symbol="", side="", product="", order_type="", quantity=0)
    return Order(intent.order_number, terms, client_tag=intent.client_tag, placed_ns=intent.at_ns)


async def reconcile(
    journal: Journal,
    in_flight: InFlightOrders,
    cache: OrderCache,
    read_book: Callable[[], Awaitable[list[OrderRow]]],
    *,
    clock: Callable[[], float],
) -> Reconciliation:
    """Adopt what the journal knows of, and find out about every intent that it has left open.

    Returns when that is done: as soon as each is found, or at the end of the resolution timeout.
    Raises LoginFailed when the order book cannot be read within `BOOK_PATIENCE` seconds.
    """
    now = clock()
    past_ns = int(now * 1e9) - REGISTERED_DAYS * _DAY_NS
    # An order that was placed just before midnight may have a number of the day after.
    intents = await journal.intents(today_ns(now) - _HOUR_NS, without_order_since_ns=past_ns)
    open_intents: list[Intent] = []
    tags: dict[str, str] = {}
    async for intent in _in_turns(intents):
        if intent.is_open:
            open_intents.append(intent)
        if intent.action == "place" and intent.order_number:
            cache.register_number(intent.order_number)
            if intent.client_tag:
                tags[intent.order_number] = intent.client_tag
        if intent.outcome in _WITHOUT_ORDER and intent.client_tag:
            said = _WITHOUT_ORDER[intent.outcome]
            in_flight.watch_for(intent.client_tag, intent.id, said=said)
    if not journal.has_intents:
        return Reconciliation()
    rows = await _read_book_in_time(read_book)
    numbers = {row.number for row in rows}
    if others := numbers - tags.keys():
        for intent in await journal.placed(others, past_ns):
            cache.register_number(intent.order_number)
            tags[intent.order_number] = intent.client_tag
    orders = [
        cache.register(row, client_tag=tags[row.number]) for row in rows if tags.get(row.number)
    ]
    asked = [(intent, _ask(in_flight, intent, now)) for intent in open_intents]
    in_flight.apply_order_book(rows, -math.inf)
    resolved_intents = [
        await _resolved_intent(intent, pending, in_flight) for intent, pending in asked
    ]
    registered = {order.number: order for order in orders}
    registered |= {one.order.number: one.order for one in resolved_intents if one.order is not None}
    log.info(
        "reconciled with the journal: %d orders adopted, %d of %d open intents took effect",
        len(registered),
        sum(resolved_intent.outcome is Outcome.ACCEPTED for resolved_intent in resolved_intents),
        len(resolved_intents),
    )
    return Reconciliation(list(registered.values()), resolved_intents)


def _ask(in_flight: InFlightOrders, intent: Intent, now: float) -> InFlightRequest:
    age = max(0.0, now - intent.at_ns / 1e9)
    pending = in_flight.open(
        request_of(intent),
        intent=intent.id,
        sent_at=asyncio.get_running_loop().time() - age,
        sent_ns=min(intent.at_ns, int(now * 1e9)),
    )
    if age > CANNOT_ARRIVE_AFTER:
        pending.proof_at = -math.inf
    return pending


async def _in_turns(intents: Sequence[Intent]) -> AsyncIterator[Intent]:
    """All of them, with time for other tasks in between."""
    for position, intent in enumerate(intents, 1):
        yield intent
        if position % _AT_ONCE == 0:
            await asyncio.sleep(0)


async def _read_book_in_time(
    read_book: Callable[[], Awaitable[list[OrderRow]]],
) -> list[OrderRow]:
    """The order book, asked for again and again. Raises LoginFailed at the end of the patience."""
    failures, last = 0, "no answer"
    try:
        async with asyncio.timeout(BOOK_PATIENCE):
            while True:
                try:
                    return await read_book()
                except NotLoggedIn:
                    raise
                except NeoError as error:
                    failures, last = failures + 1, str(error)
                    delay = backoff(failures, base=RETRY_BASE, cap=RETRY_CAP)
                    log.warning(
                        "no order book to reconcile the journal with: %s; next try in %.1f s",
                        error,
                        delay,
                    )
                await asyncio.sleep(delay)
    except TimeoutError:
        raise LoginFailed(
            f"the login was given up: for {BOOK_PATIENCE:g} s no order book could be read to "
            f"compare the journal with (last: {last}); the journal is as it was: log in again when "
            "the broker answers"
        ) from None


async def _resolved_intent(
    intent: Intent, pending: InFlightRequest, in_flight: InFlightOrders
) -> ResolvedIntent:
    try:
        return ResolvedIntent(intent, Outcome.ACCEPTED, await pending)
    except NotAccepted:
        return ResolvedIntent(intent, Outcome.NOT_ACCEPTED, None)
    except OrderAlreadyFinal:
        return ResolvedIntent(intent, Outcome.REJECTED, None)
    except OutcomeUnknown:
        if in_flight.is_closed:
            raise NotLoggedIn("logged out while the journal was being reconciled") from None
        return ResolvedIntent(intent, Outcome.UNRESOLVED, None)
