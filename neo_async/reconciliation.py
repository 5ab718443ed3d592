"""Bringing journal and order book together at login.

After a crash the journal holds requests without an outcome: each becomes an open question of the
settlement, as if its answer had been lost just now. The orders that it knows of are followed again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from neo_async.errors import NeoError, NotAccepted, NotLoggedIn, OrderAlreadyFinal, OutcomeUnknown
from neo_async.evidence import request_of
from neo_async.journal import Intent, Journal, Outcome, today_ns
from neo_async.model.orders import OrderRow
from neo_async.settlement import Question, Settlement
from neo_async.tracking import Order, Tracker
from neo_async.transport.backoff import backoff

log = logging.getLogger(__name__)

ADOPTED_DAYS = 7
"""Age of the oldest orders that are looked for in today's book at login: after-market orders wait
over weekends and holidays."""
_DAY_NS = 86_400 * 1_000_000_000


class Finding(msgspec.Struct, frozen=True):
    """What the reconciliation found out about an intent that a crash had left open."""

    intent: Intent
    outcome: Outcome
    order: Order | None
    """None when the request had no effect, or nobody can know."""


class Reconciliation(msgspec.Struct, frozen=True):
    """What the journal and the broker's book told together at login."""

    orders: Sequence[Order] = ()
    """Every order of the journal that is in today's book; followed from now on."""
    findings: Sequence[Finding] = ()
    """One for every intent that had no outcome."""


async def reconcile(
    journal: Journal,
    settlement: Settlement,
    tracker: Tracker,
    read_book: Callable[[], Awaitable[list[OrderRow]]],
    *,
    clock: Callable[[], float],
) -> Reconciliation:
    """Adopt what the journal knows of, and find out about every intent that it has left open.

    Returns when that is done: as soon as each is found, or at the end of the horizon.
    """
    now = clock()
    today = today_ns(now)
    intents = await journal.intents(int(now * 1e9) - ADOPTED_DAYS * _DAY_NS)
    open_intents = [intent for intent in intents if intent.is_open]
    if not any(intent.is_open or intent.order_number for intent in intents):
        return Reconciliation()
    rows = await _read_until_it_works(read_book)
    for intent in intents:
        if intent.action == "place" and intent.order_number:
            tracker.claim(intent.order_number)
        if intent.outcome is Outcome.NOT_ACCEPTED and intent.client_tag:
            settlement.watch_for(intent.client_tag, intent.id)
    asked = [
        (intent, settlement.open(request_of(intent), intent=intent.id)) for intent in open_intents
    ]
    settlement.judge(rows, -math.inf)
    orders = _adopt(tracker, rows, intents)
    findings = []
    for intent, question in asked:
        if question.is_open and intent.at_ns < today:
            mark = question.sought.mark
            reason = f"{mark} is of an earlier day, and not in today's order book"
            settlement.lapse(question, reason)
        findings.append(await _finding(intent, question))
    adopted = {order.number: order for order in orders}
    adopted |= {one.order.number: one.order for one in findings if one.order is not None}
    log.info(
        "reconciled with the journal: %d orders adopted, %d of %d open intents took effect",
        len(adopted),
        sum(finding.outcome is Outcome.ACCEPTED for finding in findings),
        len(findings),
    )
    return Reconciliation(list(adopted.values()), findings)


async def _read_until_it_works(
    read_book: Callable[[], Awaitable[list[OrderRow]]],
) -> list[OrderRow]:
    failures = 0
    while True:
        try:
            return await read_book()
        except NotLoggedIn:
            raise
        except NeoError as error:
            failures += 1
            delay = backoff(failures, base=0.5, cap=10.0)
            log.warning(
                "no order book to reconcile the journal with: %s; next try in %.1f s", error, delay
            )
            await asyncio.sleep(delay)


def _adopt(tracker: Tracker, rows: list[OrderRow], intents: list[Intent]) -> list[Order]:
    tags = {each.order_number: each.client_tag for each in intents if each.client_tag}
    return [tracker.adopt(row, client_tag=tags[row.number]) for row in rows if row.number in tags]


async def _finding(intent: Intent, question: Question) -> Finding:
    try:
        return Finding(intent, Outcome.ACCEPTED, await question)
    except NotAccepted:
        return Finding(intent, Outcome.NOT_ACCEPTED, None)
    except OrderAlreadyFinal:
        return Finding(intent, Outcome.REJECTED, None)
    except OutcomeUnknown:
        return Finding(intent, Outcome.LAPSED, None)
