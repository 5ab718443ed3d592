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
    Desk,
    state,
)


async def test_silence_with_an_open_order_leads_to_one_reading_per_silence() -> None:
    async with Desk() as desk:
        order = desk.order()
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(10)
        desk.say("open", 2)
        assert desk.reads == [0.0]
        desk.book = [state("open", 3, fldQty=4, avgPrc="39.00")]
        await asyncio.sleep(QUIET + 1)
        assert desk.reads == [0.0, pytest.approx(10 + QUIET)]
        assert order.filled_quantity == 4
        await asyncio.sleep(QUIET)
        assert len(desk.reads) == 3


async def test_silence_without_open_orders_means_nothing() -> None:
    async with Desk() as desk:
        desk.order()
        desk.feed.go(FeedState.LIVE)
        desk.say("complete", 2, fldQty=10, avgPrc="39.00")
        await asyncio.sleep(10 * QUIET)
        assert desk.reads == [0.0]


async def test_messages_about_an_order_keep_the_book_from_being_read_for_it() -> None:
    async with Desk() as desk:
        desk.order()
        desk.feed.go(FeedState.LIVE)
        for at in range(10):
            await asyncio.sleep(QUIET - 1)
            desk.say("open", at)
        assert desk.reads == [0.0]


async def test_messages_about_other_orders_are_no_news_of_this_one() -> None:
    async with Desk() as desk:
        desk.feed.go(FeedState.LIVE)
        mute, loud = desk.order(), desk.order(number="2")
        desk.book = [state("complete", 9, fldQty=10, avgPrc="39.00"), state("open", 1, nOrdNo="2")]
        desk.reads.clear()
        for at in range(1, int(QUIET) + 2):
            desk.say("open", at, nOrdNo="2")
            desk.feed.say("position", {"actId": "A", "sym": "TCS", "exSeg": "nse_cm"})
            await asyncio.sleep(1)
        assert mute.status is OrderStatus.COMPLETE
        assert not loud.is_final


async def test_an_order_that_rests_for_an_hour_has_the_book_read_once_per_quiet_time() -> None:
    async with Desk() as desk:
        desk.feed.go(FeedState.LIVE)
        desk.order()
        for number in range(2, 22):
            desk.order(number=str(number))
        desk.book = [state("open", 1, nOrdNo=str(number)) for number in range(1, 22)]
        await asyncio.sleep(0.1)
        desk.reads.clear()
        for second in range(3600):
            desk.say("open", second + 2, nOrdNo=str(2 + second % 20))
            await asyncio.sleep(1)
        assert len(desk.reads) <= 3600 / QUIET + 1


async def test_an_unknown_order_is_looked_up_however_much_is_heard_of_others() -> None:
    async with Desk() as desk:
        desk.feed.go(FeedState.LIVE)
        desk.order()
        await asyncio.sleep(1)
        desk.feed.say("order", {"nOrdNo": "77", "ordSt": "open"})
        desk.book = [state("open", 2, nOrdNo="77"), state("open", 1)]
        for at in range(1, int(QUIET) + 2):
            await asyncio.sleep(1)
            desk.say("open", at)
        assert "77" in desk.cache.orders


async def test_a_fill_whose_price_stays_out_is_asked_for_once_the_order_is_done() -> None:
    async with Desk() as desk:
        order, other = desk.order(), desk.order(number="2")
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        desk.say("complete", 3, fldQty=10)
        desk.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        for at in range(8):  # the feed is not silent
            await asyncio.sleep(FILL_DETAILS_WAIT / 4)
            desk.say("open", at, nOrdNo="2")
        assert order.average_price == 39.1
        assert len(desk.reads) == 2
        assert not other.is_final


async def test_a_price_that_comes_in_time_needs_no_book() -> None:
    async with Desk() as desk:
        order = desk.order()
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        desk.say("complete", 3, fldQty=10)
        await asyncio.sleep(FILL_DETAILS_WAIT / 2)
        desk.say("complete", 3, fldQty=10, avgPrc="39.10")
        await asyncio.sleep(60)
        assert (order.average_price, len(desk.reads)) == (39.1, 1)


async def test_a_completion_without_quantities_is_completed_by_the_book() -> None:
    async with Desk() as desk:
        order = desk.order()
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        desk.feed.say("order", {"nOrdNo": "1", "ordSt": "complete"})
        assert order.is_final
        desk.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        await asyncio.sleep(2 * FILL_DETAILS_WAIT)
        assert (order.filled_quantity, order.average_price) == (10, 39.1)
        await asyncio.sleep(60)
        assert len(desk.reads) == 2


async def test_what_the_book_confirms_is_not_asked_for_again() -> None:
    async with Desk() as desk:
        order = desk.order()
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        desk.say("complete", 3, fldQty=10)
        desk.book = [state("complete", 3, fldQty=10)]
        await asyncio.sleep(60)
        assert (order.average_price, len(desk.reads)) == (0.0, 2)


async def test_an_order_of_which_the_feed_says_little_is_adopted_from_the_book() -> None:
    async with Desk() as desk:
        desk.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        desk.feed.say("order", {"nOrdNo": "77", "ordSt": "open"})
        assert desk.cache.orders == {}
        desk.book = [state("open", 2, nOrdNo="77"), state("open", 2, nOrdNo="78")]
        await asyncio.sleep(QUIET + 1)
        assert list(desk.cache.orders) == ["77"]  # nobody has asked about the other
        assert len(desk.reads) == 2


async def test_strangers_whom_nobody_knows_are_forgotten() -> None:
    async with Desk() as desk:
        desk.feed.go(FeedState.LIVE)
        for number in range(1, 2 * EXTERNAL_ORDERS + 1):
            for _ in range(3):
                desk.feed.say("order", {"nOrdNo": str(number), "ordSt": "open"})
        assert len(desk.cache._uncertainty.external) == EXTERNAL_ORDERS
        await asyncio.sleep(2 * QUIET + 1)
        assert len(desk.cache._uncertainty.external) == 0
        reads = len(desk.reads)
        await asyncio.sleep(10 * QUIET)
        assert len(desk.reads) == reads
