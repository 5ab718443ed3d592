"""The effect that an order request is to have, as far as a report can show it.

It is taken from the form that is sent, and from the order as it is before. After a crash the order
as it was is not known, and the effect is taken from the form in the journal alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.wire.orders import CancelForm, ModifyForm, PlaceForm

Terms = Mapping[str, object]
"""Terms of an order by the names of its attributes, as a modification is to make them."""

CLOCK_SKEW_NS = 2_000_000_000
"""Nanoseconds by which this machine's clock may be ahead of the broker's, at most, for a
modification of before a crash to be found in the history; and by which two reports of one state may
differ."""

CANCELLING = frozenset(
    {OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED, OrderStatus.CANCEL_PENDING}
)
"""States that a cancellation leads to."""

_OTHER_PRICE = "other price"
"""Name, among terms, of the price that an order had before it was to become a market order. The
broker makes a limit of a market order, at a price of its own: any other price shows the change."""
_WITHOUT_LIMIT = frozenset(kind for kind in OrderType if not kind.has_limit)


class ExpectedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """The effect that a request is to have, as far as it can be seen from outside."""

    action: str
    """place, modify or cancel."""
    client_tag: str = ""
    """Client tag of a placement; empty for a change."""
    number: str = ""
    """Number of the order that is to be changed; empty for a placement."""
    kind: tuple[str, str, str, str] = ("", "", "", "")
    """Segment, symbol, side and product of a placement: no modification changes them."""
    terms: Terms = {}
    """Terms that a modification changes; all of its form where the order as it was before is not
    known."""
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
    def identity(self) -> str:
        """The client tag or the order number, for messages."""
        return f"tag {self.client_tag!r}" if self.client_tag else f"number {self.number!r}"


def placement(form: PlaceForm) -> ExpectedEffect:
    """Return the effect of a placement."""
    return ExpectedEffect(
        action="place", client_tag=form.ig or "", kind=(form.es, form.ts, form.tt, form.pc)
    )


def change(order: Order, form: ModifyForm | CancelForm) -> ExpectedEffect:
    """Return the effect of a modification or cancellation that is about to be sent."""
    if isinstance(form, CancelForm):
        return ExpectedEffect(
            action="cancel",
            number=order.number,
            was_final=order.is_final,
            was_cancelling=order.status in CANCELLING,
        )
    return ExpectedEffect(
        action="modify",
        number=order.number,
        terms=_changed_terms(order, form),
        since_ns=order.updated_ns,
        was_final=order.is_final,
    )


def effect_of_intent(intent: Intent) -> ExpectedEffect:
    """Return the effect of a request in the journal, as far as it can be known without the order as
    it was then. A form that cannot be read leaves a request that nothing proves."""
    since_ns = intent.at_ns - CLOCK_SKEW_NS
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


def has_terms(state: Order | OrderRow | HistoryRow, terms: Terms) -> bool | None:
    """Return whether a state has these terms; None when those of them that can be read are right,
    and others cannot be read."""
    missing: Collection[str] = () if isinstance(state, Order) else state.missing
    is_known = True
    for name, value in terms.items():
        field = "price" if name == _OTHER_PRICE else name
        if field in missing:
            is_known = False
        elif (_term(state, field) == value) is (name == _OTHER_PRICE):
            return False
    return is_known or None


def _terms(form: ModifyForm) -> dict[str, object]:
    """Return all that a modification sets and reports show. The broker turns market orders into
    limits at a price of its own: of those, neither price nor type is known."""
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
    """Return the terms of an order that a modification is to change."""
    changed = {name: value for name, value in _terms(form).items() if _term(before, name) != value}
    if not OrderType(form.pt).has_limit and before.order_type != form.pt:
        price = _term(before, "price")
        if price or before.order_type in _WITHOUT_LIMIT:  # else it is not known
            changed[_OTHER_PRICE] = price
    return changed


def _term(state: Order | OrderRow | HistoryRow, name: str) -> object:
    value = getattr(state, name)
    # Prices are whatever the caller gave, or None for none.
    return float(value or 0) if name in ("price", "trigger") else value
