"""Whether a report proves the outcome of an order request: pure functions, without I/O or clock.

A report is a row of the order book, a message of the order feed, or the history of an order. The
rules here decide what it proves; `in_flight` reads the reports and acts on the proof. These
invariants hold, and tests/execution/test_resolution.py has a property test of each:

 1. Positive proof only: a request took effect only when a report shows its effect. That is the
    client tag of a placement, the changed terms of a modification, or the state that a cancellation
    leads to.
 2. A report from before the request proves nothing, nor does the effect of an earlier request, even
    where it looks like the effect of this one.
 3. A field that a report lacks, or that cannot be read in it, neither proves nor disproves.
 4. A request is ruled out only by a complete order book that was requested after its resolution
    timeout (or while its order was final: what reaches a final order is refused), together with the
    histories of the orders whose tag was overwritten, and of the order that was to be modified.
 5. An order book is complete only when it has every own order of its day. An empty one is complete
    only when the one before was empty as well: many a broken answer reads like an empty order book.
 6. An order book rules out no request of an earlier day.
 7. A request that is being resubmitted is not ruled out, whatever the order book shows.
 8. A placement that the broker claims to have is never reported as not received: when nothing shows
    it, its outcome stays unknown.
 9. An order under the client tag of a placement that was reported to have none is a late order; so
    is a second order under the tag of another one. Only an order that the broker rejected after it
    refused the placement, a leg, and a second order that was rejected are none.

A placement is recognised by its client tag. The order book shows that tag until the order is
modified through another application: from then on the broker shows a tag of its own, and only the
earlier rows of the order's history still have ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import NamedTuple

from neo_async.base.india import in_india
from neo_async.execution.expected_effect import (
    CANCELLING,
    CLOCK_SKEW_NS,
    ExpectedEffect,
    has_terms,
)
from neo_async.execution.order import Order
from neo_async.execution.order_days import last_day_of
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.wire.tags import without_suffix

MAX_CLOCK_SKEW_NS = 30_000_000_000
"""Nanoseconds by which this machine's clock may be ahead of the broker's, at most, for an order to
be recognised that was entered after a request. With more, no TOTP code is accepted."""

MAX_HISTORIES = 50
"""Number of histories of other orders, at most, that are read for one placement. Where more orders
could be it, its outcome stays unknown."""

_MODIFYING = frozenset(
    {
        OrderStatus.MODIFY_VALIDATION_PENDING,
        OrderStatus.MODIFY_PENDING,
        OrderStatus.MODIFIED,
        OrderStatus.AMO_MODIFY_RECEIVED,
    }
)
_NOT_MODIFIED = frozenset(
    {
        OrderStatus.MODIFY_VALIDATION_PENDING,
        OrderStatus.MODIFY_PENDING,
        OrderStatus.NOT_MODIFIED,
    }
)
"""States in which an order does not have the terms of its last modification, whatever it shows."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Proof(Enum):
    """The outcome of a request that a report proves."""

    NONE = auto()
    """The report proves nothing: the request stays in flight."""
    TOOK_EFFECT = auto()
    TOO_LATE = auto()
    """The order was final when the change reached it."""
    NOT_RECEIVED = auto()
    """The request had no effect, and cannot have one any more."""
    IMPOSSIBLE = auto()
    """No later report can prove an outcome: it stays unknown."""
    BY_HISTORY = auto()
    """The order book rules the request out as far as it can: histories have to prove the rest."""


class Resolution(NamedTuple):
    """A proof, and what else belongs to it."""

    proof: Proof
    reason: str = ""
    """Why nothing is proven, or why nothing can be."""
    number: str = ""
    """Number of the order that a placement became, where the tags of histories show it."""


# --- requests to change an order, by reports of it ------------------------------------------------


def proof_by_report(expected: ExpectedEffect, order: Order, report: Order | OrderRow) -> Proof:
    """Return what a report of an order proves about a request to change it; the report has been
    applied to `order`."""
    if expected.action == "modify":
        return Proof.TOOK_EFFECT if proves_modification(expected, report) else Proof.NONE
    if proves_cancellation(expected, order):
        return Proof.TOOK_EFFECT
    return Proof.TOO_LATE if order.is_final else Proof.NONE


def proves_modification(expected: ExpectedEffect, report: Order | OrderRow) -> bool:
    """Return whether a report shows that a modification took effect: it is from after the request,
    and has all terms that were to change. Where the order as it was before is not known, only the
    history can show it."""
    if expected.terms is None or expected.was_final or expected.is_from_journal:
        return False
    if 0 < report.updated_ns <= expected.since_ns:
        return False
    if report.status is OrderStatus.NOT_MODIFIED:
        return False
    if not has_terms(report, expected.terms_before, expected.terms):
        return False
    # Where nothing changes, a report from before the modification has its terms as well.
    return bool(expected.changed_terms)


def proves_cancellation(expected: ExpectedEffect, order: Order) -> bool:
    """Return whether the order's state shows that a cancellation took effect. The effect of an
    earlier one shows nothing."""
    if expected.was_final or order.status not in CANCELLING:
        return False
    if expected.was_cancelling:
        return order.is_final
    return not (expected.is_from_journal and 0 < order.updated_ns <= expected.since_ns)


# --- ruling a request out, by an order book -------------------------------------------------------


class BookCompleteness:
    """Whether order books can prove that an order is not in them (invariant 5).

    It keeps what the books so far have shown, so that a book need not be compared with all own
    orders again while it lacks the same ones of other days.
    """

    def __init__(self) -> None:
        self._empty_books = 0
        self._day = ""
        self._of_other_days: frozenset[str] = frozenset()
        """Own orders of other days than `_day`, which its book need not have."""

    def add(self, rows: Sequence[OrderRow]) -> None:
        """Count a book that was read."""
        self._empty_books = 0 if rows else self._empty_books + 1

    @property
    def is_first_empty(self) -> bool:
        """Whether the book that was added last is empty, and the one before was not."""
        return self._empty_books == 1

    def missing(
        self, numbers: AbstractSet[str], own: AbstractSet[str], day: str
    ) -> AbstractSet[str]:
        """Return the own orders that a book of `day` with these order numbers must have and has
        not."""
        lacks = len(own) - len(own & numbers)
        is_known = self._day == day and lacks == len(self._of_other_days)
        # The cache drops own orders of earlier days: one that is missing must not take their place
        # in the count.
        if is_known and self._of_other_days <= own and not self._of_other_days & numbers:
            return frozenset()
        lacking = own - numbers
        self._day = day
        self._of_other_days = frozenset(number for number in lacking if not number.startswith(day))
        return lacking - self._of_other_days


def can_be_ruled_out(
    order: Order | None, *, requested_at: float, timeout_at: float, is_being_resubmitted: bool
) -> bool:
    """Return whether a request cannot have an effect any more that a book lacks which was requested
    at `requested_at` (invariants 4 and 7). `order` is the one that it was to change."""
    if is_being_resubmitted:
        return False
    return requested_at >= timeout_at or (order is not None and order.is_final)


def proof_by_absence(
    expected: ExpectedEffect,
    order: Order | None,
    row: OrderRow | None,
    *,
    sent_day: str,
    sent_ns: int,
    book_day: str,
    is_complete: bool,
    nameless: Sequence[OrderRow],
) -> Resolution:
    """Return what a book proves about a request that can be ruled out, and whose effect it does not
    show.

    `order` and `row` are the order that was to be changed, as it is known and in the book;
    `nameless` are the rows of the book without an order number.
    """
    if not is_complete:
        return Resolution(
            Proof.NONE, "the order book was empty, or lacked orders that must be in it"
        )
    if row is None and sent_day != book_day:
        return Resolution(
            Proof.IMPOSSIBLE,
            f"{expected.identity} is of an earlier day, and not in today's order book",
        )
    if row is None and not expected.client_tag:
        if order is not None and order.is_final and last_day_of(order, sent_day) < sent_day:
            return Resolution(Proof.TOO_LATE)
        return Resolution(Proof.NONE, f"the order book lacks order {expected.number}")
    if expected.client_tag and could_be(expected, nameless, sent_ns):
        return Resolution(
            Proof.NONE, "the order book has an order without a number that could be it"
        )
    if row is not None and order is not None and is_behind(row.updated_ns, order):
        return Resolution(
            Proof.NONE, f"the order book is behind the feed with order {expected.number}"
        )
    return Resolution(Proof.BY_HISTORY)


def when_ruled_out(expected: ExpectedEffect, *, is_proven: bool) -> Resolution:
    """Return the outcome of a request that neither order book nor histories show (invariant 8).
    `is_proven` means that the broker claims to have the order."""
    if not is_proven:
        return Resolution(Proof.NOT_RECEIVED)
    return Resolution(
        Proof.IMPOSSIBLE,
        f"the broker claims to have an order with {expected.identity}, but neither the order book "
        "nor a history shows one",
    )


def is_behind(reported_ns: int, order: Order) -> bool:
    """Return whether a report of that time is clearly older than the newest one of the order."""
    return 0 < reported_ns < order.updated_ns - CLOCK_SKEW_NS


# --- placements, by the tags in histories ---------------------------------------------------------


def could_be(expected: ExpectedEffect, rows: Iterable[OrderRow], since_ns: int) -> list[OrderRow]:
    """Return the rows of a book that may be a placement of `since_ns` (Unix nanoseconds, our clock)
    whose tag was overwritten: they are of the same kind, and were not entered before it by the
    broker's times. A row that lacks these may be it."""
    limit_ns = max(0, since_ns - MAX_CLOCK_SKEW_NS)
    limit = in_india(limit_ns // 10**9)
    day = f"{limit.day:02}-{_MONTHS[limit.month - 1]}-{limit.year} "
    earliest = day + f"{limit:%H:%M:%S}"
    return [
        row
        for row in rows
        if _is_of_kind(row, expected.kind)
        and not 0 < row.updated_ns < limit_ns
        and not (row.time_text.startswith(day) and row.time_text < earliest)
    ]


def candidates(
    expected: ExpectedEffect,
    rows: Iterable[OrderRow],
    *,
    own: AbstractSet[str],
    first_seen_at: Mapping[str, float],
    sent_at: float,
    sent_ns: int,
) -> list[OrderRow]:
    """Return the rows of a book whose histories have to be searched for the tag of a placement.
    What a book showed before the request was sent is another order."""
    return [
        row
        for row in could_be(expected, rows, sent_ns)
        if row.number not in own and first_seen_at.get(row.number, sent_at) >= sent_at
    ]


def tags_in(history: Iterable[HistoryRow]) -> frozenset[str]:
    """Return every tag that an order has ever had; "" stands for those that cannot be read."""
    return frozenset(
        "" if "gui_order_id" in row.missing else without_suffix(row.gui_order_id)
        for row in history
        if row.gui_order_id or "gui_order_id" in row.missing
    )


def proof_by_tags(
    expected: ExpectedEffect,
    tags: Sequence[tuple[str, Collection[str]]],
    *,
    candidate_count: int,
) -> Resolution:
    """Return what the tags in the histories of orders, each with its order's number, prove about a
    placement. `candidate_count` is the number of orders that could be it."""
    for number, its_tags in tags:
        if expected.client_tag in its_tags:
            return Resolution(Proof.TOOK_EFFECT, number=number)
    for number, its_tags in tags:
        if "" in its_tags:
            return Resolution(
                Proof.NONE, f"the history of order {number} has a tag that cannot be read"
            )
    if len(tags) < candidate_count:
        return Resolution(
            Proof.IMPOSSIBLE,
            f"{candidate_count} orders of the account could be it under another tag, and it is "
            f"none of the {len(tags)} whose histories were read",
        )
    return Resolution(Proof.NOT_RECEIVED)


def _is_of_kind(row: OrderRow, kind: tuple[str, str, str, str]) -> bool:
    given = (row.segment, row.symbol, row.side, row.product)
    return given == kind or all(
        one in (wanted, "") for one, wanted in zip(given, kind, strict=True)
    )


# --- changes, by the history of the order ---------------------------------------------------------


def needs_history(expected: ExpectedEffect) -> bool:
    """Return whether the history of the order can show the effect of a change that the book does
    not show: another modification may have replaced its terms."""
    return expected.action == "modify" and not expected.was_final


def proof_by_history(
    expected: ExpectedEffect, order: Order | None, history: Sequence[HistoryRow]
) -> Resolution:
    """Return what the history of an order proves about a change whose effect the book does not
    show; the history may be empty where `needs_history` is False."""
    had: bool | None = False
    if needs_history(expected):
        newest = max(row.updated_ns for row in history)
        if order is not None and is_behind(newest, order):
            return Resolution(
                Proof.NONE, f"the history of order {order.number} lacks its newest state"
            )
        had = had_terms(history, expected)
        if had is None:
            return Resolution(
                Proof.NONE, f"the history of order {expected.number} lacks what it would show"
            )
    if order is None:
        return Resolution(Proof.NOT_RECEIVED)
    if had:
        return Resolution(Proof.TOOK_EFFECT)
    return Resolution(Proof.TOO_LATE if order.is_final else Proof.NOT_RECEIVED)


def had_terms(history: Iterable[HistoryRow], expected: ExpectedEffect) -> bool | None:
    """Return whether the order was modified since the request, and then had the terms that it was
    to have; None when that depends on what cannot be read.

    Rows without a time are taken for later ones, unless a crash lies between request and history.
    """
    if expected.terms is None:
        return False
    # Histories come newest first; rows of one time stay in their order.
    rows = sorted(history, key=lambda row: row.updated_ns, reverse=True)[::-1]
    is_modified = may_be_modified = is_unclear = False
    for row in rows:
        is_later = row.updated_ns > expected.since_ns or (
            not row.updated_ns and not expected.is_from_journal
        )
        if not is_later and "updated_ns" not in row.missing:
            continue
        is_modified |= is_later and row.status in _MODIFYING
        may_be_modified |= row.status in _MODIFYING or "status_text" in row.missing
        if not may_be_modified or row.status in _NOT_MODIFIED:
            continue
        agrees = has_terms(row, expected.terms_before, expected.terms)
        if agrees and is_modified and is_later and "status_text" not in row.missing:
            return True
        is_unclear |= agrees is not False
    return None if is_unclear else False


# --- late orders, and second orders under one tag (invariant 9) -----------------------------------


def without_legs(rows: Iterable[OrderRow], known: str | None) -> list[OrderRow]:
    """Return the rows under one client tag, oldest first, without the legs of an order among them.
    `known` is the number of the order that is known to have the tag; rows come newest first."""
    newest_first = [*rows]
    parents = {row.number for row in newest_first} | ({known} if known is not None else set())
    return [
        row
        for row in reversed(newest_first)
        if row.parent_number == row.number or row.parent_number not in parents
    ]


def placed_order(orders: Sequence[Order], own: AbstractSet[str]) -> Order:
    """Return the order, of those under one client tag, that the placement became: the one that is
    known to be own, or the oldest that was not rejected."""
    for order in orders:
        if order.number in own:
            return order
    for order in orders:
        if order.status is not OrderStatus.REJECTED:
            return order
    return orders[0]


def is_late(order: Order, *, was_refused: bool) -> bool:
    """Return whether an order is late under the tag of a placement that was reported to have none.
    `was_refused` means that the broker refused the placement; a rejected order agrees with that."""
    return not (was_refused and order.status is OrderStatus.REJECTED)


def second_orders(order: Order, orders: Iterable[Order]) -> list[Order]:
    """Return the orders under the client tag of `order` that should not exist. That the broker
    rejected a second one is as it should be."""
    return [
        other for other in orders if other is not order and other.status is not OrderStatus.REJECTED
    ]
