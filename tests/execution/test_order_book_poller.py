"""When the order book is read: for waits, after reconnects, and again after failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import pytest

from neo_async import (
    NotLoggedIn,
    OrderRow,
    OrderStatus,
    Product,
    Segment,
    ServerError,
    Side,
)
from neo_async.execution.order_book_poller import OrderBookPoller
from neo_async.execution.order_cache import OrderCache
from neo_async.model.feed_state import FeedState
from tests.clients import BOOK, client_of, exchange_of, paths
from tests.execution.feed_broker import (
    POLL,
    QUIET,
    FeedBroker,
    collect,
    order_of,
    row,
    state,
)


class Book:
    """An order book to be read, which says what the test has put into it."""

    def __init__(self, *answers: Iterable[OrderRow] | Exception) -> None:
        self.cache = OrderCache()
        self.poller = OrderBookPoller(self.cache, self.read, interval=0.5)
        self.order = order_of(self.cache)
        self._answers = list(answers)
        self.reads = 0

    async def read(self) -> None:
        self.reads += 1
        answer = self._answers.pop(0) if self._answers else []
        if isinstance(answer, Exception):
            raise answer
        self.cache.apply(list(answer))


async def test_a_wait_ends_with_the_status_that_was_waited_for() -> None:
    book = Book(
        [row("open", at=2)], [row("open", 4, 39.0, at=3)], [row("complete", 10, 39.0, at=4)]
    )
    assert await book.order.wait(OrderStatus.OPEN) is OrderStatus.OPEN
    assert (book.reads, asyncio.get_running_loop().time()) == (1, 0.0)
    assert await book.order.wait(OrderStatus.COMPLETE) is OrderStatus.COMPLETE
    assert (book.reads, asyncio.get_running_loop().time()) == (3, 1.0)
    await book.poller.close()


async def test_a_wait_ends_with_any_final_status() -> None:
    book = Book([row("rejected", at=2)])
    assert await book.order.wait(OrderStatus.COMPLETE) is OrderStatus.REJECTED
    assert await book.order.wait() is OrderStatus.REJECTED
    assert await book.order.wait(OrderStatus.COMPLETE, timeout=0) is OrderStatus.REJECTED
    await book.poller.close()


async def test_a_wait_and_the_reading_for_it_end_at_the_timeout() -> None:
    book = Book()
    with pytest.raises(TimeoutError):
        await book.order.wait(timeout=2.2)
    assert asyncio.get_running_loop().time() == pytest.approx(2.2)
    assert book.reads == 5
    await asyncio.sleep(60)
    assert book.reads == 5
    # The next to wait finds a reader again.
    with pytest.raises(TimeoutError):
        await book.order.wait(timeout=0.4)
    assert book.reads == 6
    await asyncio.sleep(1)


async def test_many_waiters_share_one_reader() -> None:
    book = Book([], [], [row("open", at=2)], [row("complete", 10, 39.0, at=3)])
    waits = [book.order.wait() for _ in range(20)]
    waits += [book.order.wait(OrderStatus.OPEN) for _ in range(20)]
    states = await asyncio.gather(*waits)
    assert states == [OrderStatus.COMPLETE] * 20 + [OrderStatus.OPEN] * 20
    assert book.reads == 4
    await book.poller.close()


async def test_a_book_that_cannot_be_read_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    book = Book(ServerError("busy", status=503), [row("complete", 10, 39.0, at=3)])
    assert await book.order.wait() is OrderStatus.COMPLETE
    assert "the order book could not be read: busy (HTTP 503)" in caplog.text
    await book.poller.close()


async def test_a_report_by_another_reader_ends_a_wait_at_once() -> None:
    book = Book()
    waiting = asyncio.create_task(book.order.wait())
    await asyncio.sleep(0.1)
    book.cache.apply([row("complete", 10, 39.0, at=3)])
    await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(0.1)
    await book.poller.close()


async def test_a_logout_ends_the_waits_for_an_order_over_sockets() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.00", product=Product.CNC
        )
        waiting = [asyncio.create_task(order.wait()) for _ in range(3)]
        await asyncio.sleep(1.2)
        assert (await paths(exchange)).count(BOOK) >= 1
        await neo.logout()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [NotLoggedIn] * 3


async def test_while_the_feed_is_live_waiting_reads_no_book() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(order.wait(OrderStatus.COMPLETE))
        await asyncio.sleep(QUIET - 1)
        assert len(broker.reads) == 1  # that of connecting
        broker.send("complete", 9, fldQty=10, avgPrc="39.00")
        assert await waiting is OrderStatus.COMPLETE


async def test_the_book_is_polled_when_the_feed_is_lost_during_a_wait() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        waiting = asyncio.create_task(order.wait())
        await asyncio.sleep(5)
        broker.feed.go(FeedState.WAITING)
        await asyncio.sleep(POLL / 2)
        before = len(broker.reads)
        broker.book = [state("complete", 9, fldQty=10, avgPrc="39.00")]
        assert await waiting is OrderStatus.COMPLETE
        assert len(broker.reads) == before + 1
        assert asyncio.get_running_loop().time() <= 5 + 2 * POLL


async def test_a_logout_ends_all_waits() -> None:
    broker = FeedBroker()
    order = broker.order()
    broker.feed.go(FeedState.LIVE)
    waiting = asyncio.create_task(order.wait())
    watching = asyncio.create_task(collect(order.changes(), []))
    await asyncio.sleep(1)
    await broker.poller.close()
    for task in (waiting, watching):
        with pytest.raises(NotLoggedIn, match="order 1"):
            await task


async def test_every_reconnect_leads_to_exactly_one_reading() -> None:
    async with FeedBroker(latency=0.1) as broker:
        order = broker.order()
        for times in range(1, 5):
            broker.book = [state("open", times, fldQty=times, avgPrc="39.00")]
            broker.feed.go(FeedState.LIVE)
            await asyncio.sleep(5)
            assert len(broker.reads) == times
            assert order.filled_quantity == times
            broker.feed.go(FeedState.WAITING)


async def test_reconnects_during_a_reading_are_one_more_and_never_two_at_once() -> None:
    async with FeedBroker(latency=1.0) as broker:
        order = broker.order()
        for _ in range(5):
            broker.feed.go(FeedState.LIVE)
            broker.feed.go(FeedState.WAITING)
            await asyncio.sleep(0.1)
        broker.feed.go(FeedState.LIVE)
        broker.book = [state("open", 3)]  # too late for the first reading
        await asyncio.sleep(10)
        assert broker.reads == [0.0, 1.0]
        assert broker.most_in_flight == 1
        assert order.status is OrderStatus.OPEN


async def test_a_reading_after_a_reconnect_that_fails_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.failures = [ServerError("busy", status=503)] * 3
        broker.book = [state("complete", 9, fldQty=10, avgPrc="39.00")]
        with caplog.at_level(logging.WARNING):
            broker.feed.go(FeedState.LIVE)
            await asyncio.sleep(10)
        assert order.status is OrderStatus.COMPLETE
        assert len(broker.reads) == 4
        assert caplog.text.count("the order book could not be read: busy (HTTP 503)") == 3


async def test_a_reading_that_was_due_and_failed_is_tried_again_soon() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        broker.failures = [ServerError("busy", status=503)] * 2
        broker.book = [state("complete", 9, fldQty=10, avgPrc="39.00")]
        await asyncio.sleep(QUIET + 2)
        assert order.status is OrderStatus.COMPLETE
