"""What a row of a report shows of an order."""

from __future__ import annotations

from neo_async.execution.order_cache import OrderCache
from tests.execution.feed_broker import (
    QUANTITY,
    TERMS,
    order_of,
    unread,
)


def test_an_open_order_whose_quantity_cannot_be_read_has_none() -> None:
    cache = OrderCache()
    facts = {"number": "9", "quantity": 0, "filled_quantity": 3, "pending_quantity": 0}
    order = cache.register(unread("open", "quantity", **facts))
    assert (order.quantity, order.filled_quantity, order.pending_quantity) == (0, 3, 0)
    parts = facts | {"number": "10", "pending_quantity": 7}
    assert cache.register(unread("open", "quantity", **parts)).quantity == QUANTITY
    unknown = parts | {"number": "11", "filled_quantity": 0}
    assert cache.register(unread("open", "quantity", "filled_quantity", **unknown)).quantity == 0


def test_terms_that_a_book_cannot_be_read_for_stay_as_they_were() -> None:
    order = order_of()
    order.apply(unread("open", "quantity", "price", "order_type"))
    assert order.terms == TERMS
