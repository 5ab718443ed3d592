"""The log of what happens to orders: one line for each fill, cancellation, rejection and change.

A line is written when an order changes, and a second report of the same changes nothing: what the
order feed and the order book both report is logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from neo_async.base.logs import Log, Subject, log_order
from neo_async.execution.order import Order, OrderChange
from neo_async.execution.reports import is_at_exchange
from neo_async.model.enums import OrderStatus, Side
from neo_async.model.orders import OrderRow, OrderTerms

_CANCELLED = (OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED)
_REFUSALS = {
    OrderStatus.NOT_MODIFIED: "change refused",
    OrderStatus.NOT_CANCELLED: "cancel refused",
}
_TERMS = ("quantity", "price", "trigger", "order_type", "validity", "disclosed_quantity")
"""Terms that a modification may change, in the order in which a line names them."""


class _Event(NamedTuple):
    """Something that happened to an order: the first word of the line, and the rest of it."""

    action: str
    text: str
    fill_quantity: int = 0


class OrderLog:
    """Writes the log of the orders of one account, own and external; it is their observer."""

    def __init__(self, log: Log, is_external: Callable[[Order], bool]) -> None:
        """`is_external` returns whether another application has placed an order."""
        self._log = log
        self._is_external = is_external

    def state_changed(self, order: Order) -> None:
        """Log what the newest entry of an order's history adds to the one before."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        before, now = order.history[-2:]
        for event in _events(order, before, now):
            self._write(order, logging.INFO, event)

    def terms_changed(self, order: Order, before: OrderTerms) -> None:
        """Log a modification, also one by another application or by the broker itself, which turns
        market orders into limits."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        changes = [
            f"{name.replace('_', ' ')} {_readable(old)} -> {_readable(new)}"
            for name in _TERMS
            if (old := getattr(before, name)) != (new := getattr(order.terms, name))
        ]
        if changes:
            self._write(order, logging.INFO, _Event("modification", ", ".join(changes)))

    def status_unknown(self, order: Order, row: OrderRow) -> None:
        """Log a status that has no name here, in the broker's words."""
        self._write(order, logging.WARNING, _Event("report", f"unknown status {row.status_text!r}"))

    def was_not_final(self, order: Order, row: OrderRow) -> None:
        """Log that a report corrects the final state that the order has still."""
        text = (
            f"the order was final ({order.status_text}, {order.filled_quantity} filled), and the "
            f"broker now reports {row.status_text!r}, {row.filled_quantity} filled"
        )
        self._write(order, logging.ERROR, _Event("report", text))

    def _write(self, order: Order, level: int, event: _Event) -> None:
        is_external = self._is_external(order)
        fields = {
            "segment": order.segment,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": order.quantity,
            "filled": order.filled_quantity,
            "fill_quantity": event.fill_quantity,
            "price": None if order.price is None else float(order.price),
            "average_price": order.average_price,
            "product": order.product,
            "status": order.status_text,
            "reason": order.reject_reason,
            "external": is_external,
        }
        subject = Subject(event.action, order.client_tag, order.number)
        text = f"external order, {event.text}" if is_external else event.text
        log_order(self._log, level, subject, "%s", text, fields=fields)


def _events(order: Order, before: OrderChange, now: OrderChange) -> list[_Event]:
    """Return what happened between two entries of an order's history, in the order to log it."""
    fills = []
    filled = now.filled_quantity - before.filled_quantity
    if filled > 0:
        fills.append(_Event("fill", _fill_text(order, filled, now), filled))
    elif now.average_price != before.average_price and now.filled_quantity:
        text = f"average price {_rupees(now.average_price)}, {_progress(order)}"
        fills.append(_Event("fill price", text))
    if now.status is before.status:
        return fills
    statuses = _status_events(order, before.status, now.status)
    # One report may show a fill together with the opening before it, or with the end after it.
    return fills + statuses if now.status.is_final else statuses + fills


def _status_events(order: Order, before: OrderStatus, status: OrderStatus) -> list[_Event]:
    reason = f": {order.reject_reason}" if order.reject_reason else ""
    if status in _CANCELLED:
        return [_Event("cancellation", f"{_terms_text(order)}, {_progress(order)}{reason}")]
    if status is OrderStatus.REJECTED:
        return [_Event("rejection", f"{_terms_text(order)}{reason}")]
    if status is OrderStatus.EXPIRED and not order.is_presumed_over:
        return [_Event("expiry", f"{_terms_text(order)}, {_progress(order)}{reason}")]
    if status in _REFUSALS:
        return [_Event("report", f"{_REFUSALS[status]}{reason}")]
    is_new = is_at_exchange(status) and not is_at_exchange(before)
    if status.is_working and (is_new or before is OrderStatus.TRIGGER_PENDING):
        return [_Event("report", f"{order.status_text}, {_terms_text(order)}")]
    return []


def _fill_text(order: Order, quantity: int, now: OrderChange) -> str:
    # A fill is first reported without a price.
    average = f", average price {_rupees(now.average_price)}" if now.average_price else ""
    return f"{_side(order)} {quantity} {order.symbol}{average}, {_progress(order)}"


def _progress(order: Order) -> str:
    return f"{order.filled_quantity} of {order.quantity} filled"


def _terms_text(order: Order) -> str:
    price = "" if order.price is None else f" at {order.price}"
    trigger = "" if order.trigger is None else f" trigger {order.trigger}"
    return f"{_side(order)} {order.quantity} {order.symbol}{price}{trigger}"


def _side(order: Order) -> str:
    return order.side.name if isinstance(order.side, Side) else order.side


def _readable(value: object) -> str:
    return "none" if value is None else str(value)


def _rupees(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
