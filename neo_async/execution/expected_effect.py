"""The effect that an order request is to have, as far as a report can show it.

A modification replaces the terms of an order by others: its effect is what differs between the two.
After a crash the terms before are not known, and the effect is all that the form in the journal
sets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.execution.terms_change import (
    CHANGEABLE,
    LIMIT_TERMS,
    WITHOUT_LIMIT,
    as_reported,
    rupees,
    shows_terms,
)
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import HistoryRow, OrderRow, OrderTerms
from neo_async.wire.orders import ModifyForm, PlaceForm
from neo_async.wire.rules import modified_terms

CLOCK_SKEW_NS = 2_000_000_000
"""Nanoseconds by which this machine's clock may be ahead of the broker's, at most, for a
modification of before a crash to be found in the history; and by which two reports of one state may
differ."""

CANCELLING = frozenset(
    {OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED, OrderStatus.CANCEL_PENDING}
)
"""States that a cancellation leads to."""


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
    terms: OrderTerms | None = None
    """Terms of the order after a modification; None for other requests, and where the form of a
    modification in the journal cannot be read."""
    terms_before: OrderTerms | None = None
    """Terms of the order before a modification; None for other requests, and after a crash."""
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
    def changed_terms(self) -> frozenset[str]:
        """Names of the terms by which reports can show a modification; empty for other requests."""
        if self.terms is None:
            return frozenset()
        names = [*_changed_names(self.terms_before, self.terms)]
        if _price_left(self.terms_before, self.terms) is not None:
            names.append("price")
        return frozenset(names)

    @property
    def identity(self) -> str:
        """The client tag or the order number, for messages."""
        return f"tag {self.client_tag!r}" if self.client_tag else f"number {self.number!r}"


def placement(form: PlaceForm) -> ExpectedEffect:
    """Return the effect of a placement."""
    return ExpectedEffect(
        action="place", client_tag=form.ig or "", kind=(form.es, form.ts, form.tt, form.pc)
    )


def modification(order: Order, terms: OrderTerms) -> ExpectedEffect:
    """Return the effect of a modification to these terms that is about to be sent."""
    return ExpectedEffect(
        action="modify",
        number=order.number,
        terms=terms,
        terms_before=order.terms,
        since_ns=order.updated_ns,
        was_final=order.is_final,
    )


def cancellation(order: Order) -> ExpectedEffect:
    """Return the effect of a cancellation that is about to be sent."""
    return ExpectedEffect(
        action="cancel",
        number=order.number,
        was_final=order.is_final,
        was_cancelling=order.status in CANCELLING,
    )


def effect_of_intent(intent: Intent) -> ExpectedEffect:
    """Return the effect of a request in the journal, as far as it can be known without the order as
    it was then. A form that cannot be read leaves a request that nothing proves."""
    since_ns = intent.at_ns - CLOCK_SKEW_NS
    if intent.action == "place":
        try:
            return placement(msgspec.json.decode(intent.form, type=PlaceForm))
        except (msgspec.DecodeError, ValueError):
            return ExpectedEffect(action="place", client_tag=intent.client_tag)
    terms = None
    if intent.action == "modify":
        with contextlib.suppress(msgspec.DecodeError, ValueError, ArithmeticError):
            terms = modified_terms(msgspec.json.decode(intent.form, type=ModifyForm))
    return ExpectedEffect(
        action=intent.action,
        number=intent.order_number,
        terms=terms,
        since_ns=since_ns,
        is_from_journal=True,
    )


def has_terms(
    state: Order | OrderRow | HistoryRow, before: OrderTerms | None, after: OrderTerms
) -> bool | None:
    """Return whether a state has the terms that a modification from `before` to `after` changes, or
    all that it sets where `before` is None; see `shows_terms`."""
    price_left = _price_left(before, after)
    return shows_terms(
        state,
        () if isinstance(state, Order) else state.missing,
        {name: getattr(after, name) for name in _changed_names(before, after)},
        order_type=after.order_type,
        prices_before=() if price_left is None else (price_left,),
    )


def _changed_names(before: OrderTerms | None, after: OrderTerms) -> Iterator[str]:
    """Yield the names of the terms that a modification changes and that reports then show."""
    is_unlimited = after.order_type in WITHOUT_LIMIT
    for name in CHANGEABLE:
        if is_unlimited and name in LIMIT_TERMS:
            continue
        wanted = as_reported(name, getattr(after, name))
        if before is None or as_reported(name, getattr(before, name)) != wanted:
            yield name


def _price_left(before: OrderTerms | None, after: OrderTerms) -> float | None:
    """Return the price that an order has only until it becomes a market order; None where it does
    not become one, or its price is not known."""
    if before is None or after.order_type not in WITHOUT_LIMIT:
        return None
    if before.order_type == after.order_type:
        return None
    price = rupees(before.price)
    return price if price or before.order_type in WITHOUT_LIMIT else None
