"""Whether a report proves that an order request took effect: pure functions over rows of the order
book, messages of the order feed, and histories.

A placement is known by its client tag. The order book shows that tag until the order is modified
through another application: from then on the broker shows a mark of its own, and only the earlier
rows of the order's history still hold the tag. A modification is known by the terms that it was to
bring about; another one may have replaced them since, and then only the history has them.

A change is proven by a report from after the request only: what the order looked like before it
proves nothing, even where it looks as it was asked to. A field that a row lacks, or that cannot be
read in it, neither proves nor disproves anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from neo_async.execution.journal import Intent
from neo_async.execution.order_cache import Order
from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.india import in_india
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.wire.orders import CancelForm, ModifyForm, PlaceForm
from neo_async.wire.tags import without_suffix

Terms = Mapping[str, object]
"""Of an order by their names on it, as a modification was to make them."""


_OTHER_PRICE = "other price"
"""Among terms, the price that an order had before it was to become a market order. The broker makes
a limit of that, at a price of its own."""
_NOT_IN_HISTORY = ("disclosed_quantity",)
_WITHOUT_LIMIT = frozenset(kind for kind in OrderType if not kind.has_limit)

_CANCELLING = frozenset(
    {OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED, OrderStatus.CANCEL_PENDING}
)

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

CLOCKS_APART_NS = 2_000_000_000
"""Nanoseconds by which this machine's clock may be ahead of the broker's, at most, for a
modification of before a crash to be found in the history; and by which two reports of one state may
differ."""

CLOCKS_FAR_APART_NS = 30_000_000_000
"""Nanoseconds by which this machine's clock may be ahead of the broker's, at most, for an order to
be recognised that was entered after a request. With more, no TOTP code is accepted."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ExpectedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a request would have led to, as far as it can be seen from outside."""

    action: str
    """place, modify or cancel."""
    client_tag: str = ""
    """Of a placement."""
    number: str = ""
    """Of the order that is to be changed."""
    kind: tuple[str, str, str, str] = ("", "", "", "")
    """Segment, symbol, side and product of a placement: no modification changes them."""
    terms: Terms = {}
    """Of a modification: what it was to change; all of its form where the order as it was before is
    not known."""
    since_ns: int = 0
    """Unix nanoseconds, the broker's clock: reports of the order up to then are from before the
    request. For a modification the time of the newest report when it was sent."""
    was_final: bool = False
    """Whether the order was final already."""
    was_cancelling: bool = False
    """Whether the order was being cancelled already, by an earlier request."""
    is_from_journal: bool = False
    """Whether the order as it was before the request is not known: a crash lies between."""

    @property
    def mark(self) -> str:
        return f"tag {self.client_tag!r}" if self.client_tag else f"number {self.number!r}"


def placement(form: PlaceForm) -> ExpectedEffect:
    return ExpectedEffect(
        action="place", client_tag=form.ig or "", kind=(form.es, form.ts, form.tt, form.pc)
    )


def change(order: Order, form: ModifyForm | CancelForm) -> ExpectedEffect:
    """A modification or cancellation that is about to be sent."""
    if isinstance(form, CancelForm):
        return ExpectedEffect(
            action="cancel",
            number=order.number,
            was_final=order.is_final,
            was_cancelling=order.status in _CANCELLING,
        )
    return ExpectedEffect(
        action="modify",
        number=order.number,
        terms=_changed_terms(order, form),
        since_ns=order.updated_ns,
        was_final=order.is_final,
    )


def request_of(intent: Intent) -> ExpectedEffect:
    """The request of a line of the journal, as far as it can be known without the order as it was
    then. A form that cannot be read leaves a request that nothing proves."""
    since_ns = intent.at_ns - CLOCKS_APART_NS
    if intent.action == "place":
        try:
            return placement(msgspec.json.decode(intent.form, type=PlaceForm))
        except msgspec.ValidationError:
            return ExpectedEffect(action="place", client_tag=intent.client_tag)
    terms: Terms = {}
    if intent.action == "modify":
        try:
            terms = _terms(msgspec.json.decode(intent.form, type=ModifyForm))
        except (msgspec.DecodeError, ValueError):
            terms = {}
    return ExpectedEffect(
        action=intent.action,
        number=intent.order_number,
        terms=terms,
        since_ns=since_ns,
        is_from_journal=True,
    )


def could_be(expected: ExpectedEffect, rows: Iterable[OrderRow], since_ns: int) -> list[OrderRow]:
    """The rows of a book that may be a placement of `since_ns` (Unix nanoseconds, our clock) under
    another mark: of the same kind, and not entered before it by the broker's times. Where a row
    does not say these, it may be it."""
    limit_ns = max(0, since_ns - CLOCKS_FAR_APART_NS)
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


def _is_of_kind(row: OrderRow, kind: tuple[str, str, str, str]) -> bool:
    given = (row.segment, row.symbol, row.side, row.product)
    return given == kind or all(
        one in (wanted, "") for one, wanted in zip(given, kind, strict=True)
    )


def tags_in(history: Iterable[HistoryRow]) -> frozenset[str]:
    """Every mark that the order has ever had; "" stands for those that cannot be read."""
    return frozenset(
        "" if "gui_order_id" in row.missing else without_suffix(row.gui_order_id)
        for row in history
        if row.gui_order_id or "gui_order_id" in row.missing
    )


def is_behind(reported_ns: int, order: Order) -> bool:
    """Whether a report of that time is clearly older than the newest one of the order."""
    return 0 < reported_ns < order.updated_ns - CLOCKS_APART_NS


def proves_modification(expected: ExpectedEffect, report: Order | OrderRow) -> bool:
    """Whether a report shows that a modification took effect: from after the request, and with all
    that it was to change. Where the order as it was before is not known, only its history can."""
    if expected.was_final or expected.is_from_journal or not expected.terms:
        return False
    if 0 < report.updated_ns <= expected.since_ns:
        return False
    if report.status is OrderStatus.NOT_MODIFIED:
        return False
    return _agree(report, expected.terms) is True


def proves_cancellation(expected: ExpectedEffect, order: Order) -> bool:
    """Whether the order's state shows that a cancellation took effect. What an earlier one caused
    shows nothing."""
    if expected.was_final or order.status not in _CANCELLING:
        return False
    if expected.was_cancelling:
        return order.is_final
    return not (expected.is_from_journal and 0 < order.updated_ns <= expected.since_ns)


def had_terms(history: Iterable[HistoryRow], expected: ExpectedEffect) -> bool | None:
    """Whether the order was modified since the request, and then had the terms that it was to
    have; None when that depends on what cannot be read.

    What no history tells (the disclosed quantity) is left out. Rows without a time are taken for
    later ones, unless a crash lies between request and history.
    """
    # Histories come newest first; rows of one time stay in their order.
    rows = sorted(history, key=lambda row: row.updated_ns, reverse=True)[::-1]
    terms = {name: value for name, value in expected.terms.items() if name not in _NOT_IN_HISTORY}
    if expected.is_from_journal and not terms:
        return False
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
        agrees = _agree(row, terms)
        if agrees and is_modified and is_later and "status_text" not in row.missing:
            return True
        is_unclear |= agrees is not False
    return None if is_unclear else False


def _terms(form: ModifyForm) -> dict[str, object]:
    """All that a modification sets and reports show. The broker turns market orders into limits at
    a price of its own: of those, neither price nor type is known."""
    terms: dict[str, object] = {
        "quantity": int(form.qt),
        "validity": form.vd,
        "disclosed_quantity": int(form.dq),
        "trigger": float(form.tp),
    }
    if OrderType(form.pt).has_limit:
        terms |= {"order_type": form.pt, "price": float(form.pr)}
    return terms


def _changed_terms(before: Order, form: ModifyForm) -> Terms:
    """What of an order a modification is to change."""
    changed = {name: value for name, value in _terms(form).items() if _term(before, name) != value}
    if not OrderType(form.pt).has_limit and before.order_type != form.pt:
        price = _term(before, "price")
        if price or before.order_type in _WITHOUT_LIMIT:  # else it is not known
            changed[_OTHER_PRICE] = price
    return changed


def _agree(state: Order | OrderRow | HistoryRow, terms: Terms) -> bool | None:
    """Whether a state has these terms; None when those of them that can be read are right."""
    missing: Collection[str] = () if isinstance(state, Order) else state.missing
    is_known = True
    for name, value in terms.items():
        field = "price" if name == _OTHER_PRICE else name
        if field in missing:
            is_known = False
        elif (_term(state, field) == value) is (name == _OTHER_PRICE):
            return False
    return is_known or None


def _term(state: Order | OrderRow | HistoryRow, name: str) -> object:
    value = getattr(state, name)
    # Prices are whatever the caller gave, or None for none.
    return float(value or 0) if name in ("price", "trigger") else value
