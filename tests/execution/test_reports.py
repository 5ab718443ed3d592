"""What a row of a report shows of an order."""

from __future__ import annotations

import asyncio
import time

from neo_async.execution.order_cache import OrderCache
from neo_async.wire.reports import read_order_book
from tests.execution.feed_broker import (
    QUANTITY,
    TERMS,
    book_of,
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


async def test_a_book_of_ten_thousand_rows_lets_other_tasks_run() -> None:
    cache = OrderCache()
    rows = read_order_book(book_of(10_000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await cache.apply_in_slices(
        rows, registers_open=True, requested_at=time.monotonic(), day="261123"
    )
    counting.cancel()
    assert len(cache.open_orders) == 10_000
    assert turns >= 10_000 // 250 - 1
