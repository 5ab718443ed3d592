"""What messages of the order feed leave open, and when the order book is read for it."""

from __future__ import annotations

import asyncio

import pytest

from neo_async import (
    OrderStatus,
)
from neo_async.execution.uncertainty import EXTERNAL_ORDERS, FILL_DETAILS_WAIT
from neo_async.model.feed_state import FeedState
from tests.execution.feed_broker import (
    QUIET,
    FeedBroker,
    state,
)


async def test_the_book_is_read_once_per_quiet_time_without_messages_about_an_open_order() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(10)
        broker.send("open", 2)
        assert broker.reads == [0.0]
        broker.book = [state("open", 3, fldQty=4, avgPrc="39.00")]
        await asyncio.sleep(QUIET + 1)
        assert broker.reads == [0.0, pytest.approx(10 + QUIET)]
        assert order.filled_quantity == 4
        await asyncio.sleep(QUIET)
        assert len(broker.reads) == 3


async def test_no_book_is_read_for_silence_without_open_orders() -> None:
    async with FeedBroker() as broker:
        broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("complete", 2, fldQty=10, avgPrc="39.00")
        await asyncio.sleep(10 * QUIET)
        assert broker.reads == [0.0]


async def test_messages_about_an_order_keep_the_book_from_being_read_for_it() -> None:
    async with FeedBroker() as broker:
        broker.order()
        broker.feed.go(FeedState.LIVE)
        for at in range(10):
            await asyncio.sleep(QUIET - 1)
            broker.send("open", at)
        assert broker.reads == [0.0]


async def test_messages_about_other_orders_do_not_put_off_the_reading_of_the_book() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        silent, reported = broker.order(), broker.order(number="2")
        broker.book = [
            state("complete", 9, fldQty=10, avgPrc="39.00"),
            state("open", 1, nOrdNo="2"),
        ]
        broker.reads.clear()
        for at in range(1, int(QUIET) + 2):
            broker.send("open", at, nOrdNo="2")
            broker.feed.send("position", {"actId": "A", "sym": "TCS", "exSeg": "nse_cm"})
            await asyncio.sleep(1)
        assert silent.status is OrderStatus.COMPLETE
        assert not reported.is_final


async def test_resting_orders_have_the_book_read_once_per_quiet_time() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.order()
        for number in range(2, 22):
            broker.order(number=str(number))
        broker.book = [state("open", 1, nOrdNo=str(number)) for number in range(1, 22)]
        await asyncio.sleep(0.1)
        broker.reads.clear()
        for second in range(3600):
            broker.send("open", second + 2, nOrdNo=str(2 + second % 20))
            await asyncio.sleep(1)
        assert len(broker.reads) <= 3600 / QUIET + 1


async def test_an_external_order_is_looked_up_however_many_messages_come_about_others() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.order()
        await asyncio.sleep(1)
        broker.feed.send("order", {"nOrdNo": "77", "ordSt": "open"})
        broker.book = [state("open", 2, nOrdNo="77"), state("open", 1)]
        for at in range(1, int(QUIET) + 2):
            await asyncio.sleep(1)
            broker.send("open", at)
        assert "77" in broker.cache.orders


async def test_the_book_is_read_for_a_final_order_whose_average_price_does_not_come() -> None:
    async with FeedBroker() as broker:
        order, other = broker.order(), broker.order(number="2")
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        broker.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        for at in range(8):  # the feed is not silent
            await asyncio.sleep(FILL_DETAILS_WAIT / 4)
            broker.send("open", at, nOrdNo="2")
        assert order.average_price == 39.1
        assert len(broker.reads) == 2
        assert not other.is_final


async def test_no_book_is_read_for_an_average_price_that_comes_in_time() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        await asyncio.sleep(FILL_DETAILS_WAIT / 2)
        broker.send("complete", 3, fldQty=10, avgPrc="39.10")
        await asyncio.sleep(60)
        assert (order.average_price, len(broker.reads)) == (39.1, 1)


async def test_a_completion_without_quantities_is_filled_in_from_the_book() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "complete"})
        assert order.is_final
        broker.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        await asyncio.sleep(2 * FILL_DETAILS_WAIT)
        assert (order.filled_quantity, order.average_price) == (10, 39.1)
        await asyncio.sleep(60)
        assert len(broker.reads) == 2


async def test_the_book_is_not_read_again_for_a_fill_without_price_that_it_confirms() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        broker.book = [state("complete", 3, fldQty=10)]
        await asyncio.sleep(60)
        assert (order.average_price, len(broker.reads)) == (0.0, 2)


async def test_an_external_order_with_incomplete_messages_is_registered_from_the_book() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        broker.feed.send("order", {"nOrdNo": "77", "ordSt": "open"})
        assert broker.cache.orders == {}
        broker.book = [state("open", 2, nOrdNo="77"), state("open", 2, nOrdNo="78")]
        await asyncio.sleep(QUIET + 1)
        assert list(broker.cache.orders) == ["77"]  # no message was about the other
        assert len(broker.reads) == 2


async def test_messages_about_orders_that_no_book_shows_are_dropped() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        for number in range(1, 2 * EXTERNAL_ORDERS + 1):
            for _ in range(3):
                broker.feed.send("order", {"nOrdNo": str(number), "ordSt": "open"})
        assert len(broker.cache._uncertainty.external) == EXTERNAL_ORDERS
        await asyncio.sleep(2 * QUIET + 1)
        assert len(broker.cache._uncertainty.external) == 0
        reads = len(broker.reads)
        await asyncio.sleep(10 * QUIET)
        assert len(broker.reads) == reads
