"""What tells whether an order request took effect: pure functions over books and histories.

A placement is known by its client tag. The order book shows that tag until the order is modified
through another application: from then on the broker shows a mark of its own, and only the earlier
rows of the order's history still hold the tag. A modification is known by the terms that it was to
bring about; another one may have replaced them since, and then only the history has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from neo_async.journal import Intent
from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.tracking import Order
from neo_async.wire.orders import CancelForm, ModifyForm, PlaceForm
from neo_async.wire.tags import matches, without_suffix

Terms = Mapping[str, object]
"""Of an order by their names on it, as a modification was to make them."""

_IST = timedelta(hours=5, minutes=30)

_OTHER_PRICE = "other price"
"""Among terms, the price that an order had before it was to become a market order. The broker makes
a limit of that, at a price of its own."""
_NOT_IN_HISTORY = ("disclosed_quantity",)

_MODIFYING = frozenset(
    {
        OrderStatus.MODIFY_VALIDATION_PENDING,
        OrderStatus.MODIFY_PENDING,
        OrderStatus.MODIFIED,
        OrderStatus.AMO_MODIFY_RECEIVED,
    }
)
_NOT_MODIFIED_YET = frozenset({OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING})

CLOCKS_APART_NS = 2_000_000_000
"""That this machine's clock may be ahead of the broker's, at most, for a modification of before a
crash to be found in the history."""


class Sought(msgspec.Struct, frozen=True, kw_only=True):
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
    """Of a modification."""
    since_ns: int = 0
    """Time of the newest report of the order when the modification was sent; the broker's clock."""
    was_final: bool = False
    """Whether the order was final already."""

    @property
    def mark(self) -> str:
        return f"tag {self.client_tag!r}" if self.client_tag else f"number {self.number!r}"

    def is_in(self, row: OrderRow) -> bool:
        """Whether a row of the book, or an update, is of the order concerned."""
        if self.client_tag:
            return matches(row.gui_order_id, self.client_tag)
        return row.number == self.number


def placement(form: PlaceForm) -> Sought:
    return Sought(
        action="place", client_tag=form.ig or "", kind=(form.es, form.ts, form.tt, form.pc)
    )


def change(order: Order, form: ModifyForm | CancelForm) -> Sought:
    """A modification or cancellation that is about to be sent."""
    if isinstance(form, CancelForm):
        return Sought(action="cancel", number=order.number, was_final=order.is_final)
    return Sought(
        action="modify",
        number=order.number,
        terms=_changed_terms(order, form),
        since_ns=order.updated_ns,
        was_final=order.is_final,
    )


def request_of(intent: Intent) -> Sought:
    """The request of a line of the journal, as far as it can be known without the order as it was
    then."""
    if intent.action == "place":
        try:
            return placement(msgspec.json.decode(intent.form, type=PlaceForm))
        except msgspec.ValidationError:
            return Sought(action="place", client_tag=intent.client_tag)
    if intent.action == "cancel":
        return Sought(action="cancel", number=intent.order_number)
    form = msgspec.json.decode(intent.form, type=ModifyForm)
    terms: dict[str, object] = {"quantity": int(form.qt), "trigger": float(form.tp)}
    if OrderType(form.pt).has_limit:
        terms["price"] = float(form.pr)
    return Sought(
        action="modify",
        number=intent.order_number,
        terms=terms,
        since_ns=intent.at_ns - CLOCKS_APART_NS,
    )


def number_prefix(now: float) -> str:
    """What the numbers of a day's orders begin with: its date in India, `261123`."""
    return (datetime.fromtimestamp(now, UTC) + _IST).strftime("%y%m%d")


def could_be(sought: Sought, row: OrderRow) -> bool:
    """Whether an order of the book may be the placement under another mark."""
    return (row.segment, row.symbol, row.side, row.product) == sought.kind


def tags_in(history: Iterable[HistoryRow]) -> frozenset[str]:
    """Every mark that the order has ever had."""
    return frozenset(without_suffix(row.gui_order_id) for row in history)


def has_terms(order: Order, terms: Terms) -> bool:
    return _agree(order, terms)


def had_terms(history: Iterable[HistoryRow], sought: Sought) -> bool:
    """Whether the order went through a state with these terms since the request, newest row first.

    What no history tells (the disclosed quantity) is left out; if nothing remains, it tells
    nothing.
    """
    terms = {name: value for name, value in sought.terms.items() if name not in _NOT_IN_HISTORY}
    if not terms:
        return False
    is_modified = False
    for row in sorted(history, key=lambda row: row.updated_ns):
        is_modified |= row.status in _MODIFYING
        if (
            is_modified
            and row.updated_ns > sought.since_ns
            and row.status not in _NOT_MODIFIED_YET
            and _agree(row, terms)
        ):
            return True
    return False


def _changed_terms(before: Order, form: ModifyForm) -> Terms:
    """What of an order a modification is to change."""
    terms: dict[str, object] = {
        "quantity": int(form.qt),
        "validity": form.vd,
        "disclosed_quantity": int(form.dq),
        "trigger": float(form.tp),
    }
    if OrderType(form.pt).has_limit:
        terms |= {"order_type": form.pt, "price": float(form.pr)}
    changed = {name: value for name, value in terms.items() if _term(before, name) != value}
    if not OrderType(form.pt).has_limit and before.order_type != form.pt:
        changed[_OTHER_PRICE] = _term(before, "price")
    return changed


def _agree(state: Order | HistoryRow, terms: Terms) -> bool:
    return all(
        _term(state, "price") != value if name == _OTHER_PRICE else _term(state, name) == value
        for name, value in terms.items()
    )


def _term(state: Order | HistoryRow, name: str) -> object:
    value = getattr(state, name)
    # Prices are whatever the caller gave, or None for none.
    return float(value or 0) if name in ("price", "trigger") else value
