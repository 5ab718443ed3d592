"""Reads rows of reports: the terms of an order that a row shows, and order books in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from neo_async.model.enums import OrderStatus
from neo_async.model.orders import HistoryRow, OrderRow, OrderTerms, exact_price
from neo_async.model.updates import OrderUpdate

ROWS_AT_ONCE = 250
"""Rows of an order book that are applied before other tasks get their turn."""

_EARLY_STAGES = {
    OrderStatus.PUT_RECEIVED: 0,
    OrderStatus.AMO_RECEIVED: 0,
    OrderStatus.AMO_MODIFY_RECEIVED: 0,
    OrderStatus.VALIDATION_PENDING: 1,
    OrderStatus.OPEN_PENDING: 2,
}
_WORKING_STAGE = 3

_PARTS = frozenset({"filled_quantity", "pending_quantity"})
_OF_HISTORY = ("status_text", "reject_text", "filled_quantity", "average_price", "updated_ns")
"""Fields of a history's row that show how an order ended."""


async def in_slices(rows: Sequence[OrderRow]) -> AsyncIterator[Sequence[OrderRow]]:
    """Yield the rows in parts of `ROWS_AT_ONCE`, with a turn of the event loop between two."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        yield rows[start : start + ROWS_AT_ONCE]


def reported_terms(row: OrderRow) -> OrderTerms:
    """Return the terms of an order that only a report describes."""
    return OrderTerms(
        segment=row.segment,
        symbol=row.symbol,
        side=row.side,
        product=row.product,
        order_type=row.order_type,
        quantity=_quantity_of(row),
        price=exact_price(row.price),
        trigger=exact_price(row.trigger),
        validity=row.validity,
        disclosed_quantity=row.disclosed_quantity,
        amo=row.generated_type == "AMO",
    )


def _quantity_of(row: OrderRow) -> int:
    """Return the quantity of an order as the row has it, or the sum of its parts; 0 when neither
    can be read."""
    if row.quantity > 0:
        return row.quantity
    # An open order has a pending quantity: 0 means nothing there.
    is_known = row.missing.isdisjoint(_PARTS) and (row.pending_quantity or row.status.is_final)
    return row.filled_quantity + row.pending_quantity if is_known else 0


def shown_terms(row: OrderRow, missing: frozenset[str]) -> dict[str, object]:
    """Return the terms that a report shows and that may change during an order's life."""
    shown: dict[str, object] = {}
    if row.quantity > 0 and "quantity" not in missing:
        shown["quantity"] = row.quantity
    if row.validity:
        shown["validity"] = row.validity
    if row.order_type:
        shown["order_type"] = row.order_type
    # A row that is no order's whole description means nothing by its zeros.
    if row.order_type or isinstance(row, OrderUpdate):
        if "price" not in missing:
            shown["price"] = exact_price(row.price)
        if "trigger" not in missing:
            shown["trigger"] = exact_price(row.trigger)
        if "disclosed_quantity" not in missing:
            shown["disclosed_quantity"] = row.disclosed_quantity
    return shown


def as_order_row(number: str, state: HistoryRow) -> OrderRow:
    """Return a state of an order's history as the order book would show it."""
    fields = {name: getattr(state, name) for name in _OF_HISTORY}
    return OrderRow(**fields | {"number": number, "missing": state.missing})


def stage_of(status: OrderStatus) -> int:
    """Return the stage of a status: a later status of an order is never of an earlier stage."""
    if status.is_final:
        return _WORKING_STAGE + 1
    return _EARLY_STAGES.get(status, _WORKING_STAGE)


def is_at_exchange(status: OrderStatus) -> bool:
    """Return whether the broker has passed the order on to the exchange, or it is final."""
    return stage_of(status) >= _WORKING_STAGE
