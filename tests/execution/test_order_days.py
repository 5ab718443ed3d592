"""Orders of an earlier day end when a whole book of a later day lacks them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from neo_async import Order, OrderStatus, Validity
from neo_async.base.india import day_of
from neo_async.execution.order_days import LONGEST_CLOSURE
from neo_async.model.feed_state import FeedState
from neo_async.model.orders import HistoryRow, OrderRow
from tests.execution.feed_broker import FeedBroker, state
from tests.simulation.virtual_time import START

MONDAY = day_of(START)
DAY_SECONDS = 86_400.0
TUESDAY = day_of(START + DAY_SECONDS)
SATURDAY = day_of(START + 5 * DAY_SECONDS)
OWN = f"{MONDAY}000000001"
NUMBER_OF_TUESDAY = f"{TUESDAY}000000001"
MONDAY_NS = int(START * 1e9)
TUESDAY_NS = MONDAY_NS + int(DAY_SECONDS * 1e9)


def row(number: str, at: int, status: str = "open", **facts: Any) -> dict[str, Any]:
    return state(status, at, **{"nOrdNo": number, "exOrdId": "13"} | facts)


async def read(broker: FeedBroker, day: str, times: int = 1) -> None:
    broker.day = day
    for _ in range(times):
        await asyncio.sleep(0.1)
        broker.poller.request()
        await asyncio.sleep(0.1)


async def monday(broker: FeedBroker, **facts: Any) -> Order:
    """An order that rests on Monday, as feed and book say."""
    broker.feed.go(FeedState.LIVE)
    broker.cache.clock = lambda: START
    order = broker.order(number=OWN, **facts)
    status = "after market order req received" if order.amo else "open"
    broker.book = [row(OWN, MONDAY_NS, status, exOrdId="NA" if order.amo else "13")]
    broker.feed.send("order", broker.book[0])
    await read(broker, MONDAY)
    assert not order.is_final
    return order


async def test_two_empty_books_of_a_later_day_end_an_order_and_the_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        changes = order.changes()
        waiting = asyncio.create_task(order.wait())
        broker.book = []
        await read(broker, TUESDAY)
        assert not order.is_final
        await read(broker, TUESDAY)
        assert await waiting is OrderStatus.EXPIRED
        assert broker.cache.open_orders == []
        assert TUESDAY in order.reject_reason
        assert [change.status async for change in changes] == [OrderStatus.EXPIRED]
        warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert OWN in warnings[0].getMessage()


async def test_one_whole_book_with_orders_of_the_later_day_is_enough() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = [row(NUMBER_OF_TUESDAY, TUESDAY_NS)]
        await read(broker, TUESDAY)
        assert order.status is OrderStatus.EXPIRED


async def test_books_of_the_same_day_end_nothing() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = []
        await read(broker, MONDAY, times=20)
        broker.book = [row(f"{MONDAY}000000002", MONDAY_NS)]
        await read(broker, MONDAY, times=20)
        assert not order.is_final


async def test_a_book_that_lacks_an_own_order_of_its_day_ends_nothing() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        young = broker.order(number=NUMBER_OF_TUESDAY)
        broker.book = []
        await read(broker, TUESDAY, times=5)
        broker.book = [row(f"{TUESDAY}000000002", TUESDAY_NS)]
        await read(broker, TUESDAY, times=5)
        assert not order.is_final
        assert not young.is_final
        broker.book.append(row(NUMBER_OF_TUESDAY, TUESDAY_NS))
        await read(broker, TUESDAY)
        assert order.is_final
        assert not young.is_final


async def test_an_order_that_the_later_book_still_has_goes_on() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        await read(broker, TUESDAY, times=5)
        assert not order.is_final
        broker.book = [row(NUMBER_OF_TUESDAY, TUESDAY_NS)]
        await read(broker, TUESDAY)
        assert order.status is OrderStatus.EXPIRED


@pytest.mark.parametrize("facts", [{"amo": True}, {"validity": "GTC"}])
async def test_an_order_that_waits_for_a_session_outlives_nights_and_holidays(
    facts: dict[str, Any],
) -> None:
    async with FeedBroker() as broker:
        order = await monday(broker, **facts)
        if "validity" in facts:
            order.terms = msgspec.structs.replace(order.terms, validity="GTC")
        broker.book = []
        await read(broker, TUESDAY, times=3)
        # On a Saturday another after-market order was placed, and MCX traded in the evening.
        broker.book = [
            row(f"{SATURDAY}000000001", TUESDAY_NS, exOrdId="NA"),
            row(f"{SATURDAY}000000002", TUESDAY_NS, exSeg="mcx_fo"),
        ]
        await read(broker, SATURDAY, times=3)
        assert not order.is_final
        at = MONDAY_NS + int(7 * DAY_SECONDS * 1e9)
        day = day_of(at / 1e9)
        broker.book = [row(f"{day}000000001", at)]  # its segment trades, without it
        await read(broker, day)
        assert order.status is OrderStatus.EXPIRED


async def test_an_after_market_order_that_is_not_reported_again_ends_after_a_week() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker, amo=True)
        broker.book = []
        for days in range(1, LONGEST_CLOSURE + 1):
            assert not order.is_final
            await read(broker, day_of(START + days * DAY_SECONDS), times=2)
        assert order.status is OrderStatus.EXPIRED


async def test_an_after_market_order_that_was_released_ends_with_its_own_day() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker, amo=True)
        broker.book = [row(OWN, TUESDAY_NS, ordGenTp="AMO", exOrdId="13")]
        await read(broker, TUESDAY, times=2)
        broker.book = []
        await read(broker, TUESDAY, times=5)
        assert order.status is OrderStatus.OPEN
        await read(broker, day_of(START + 2 * DAY_SECONDS), times=2)
        assert order.status is OrderStatus.EXPIRED


async def test_a_report_after_all_is_believed_before_the_conclusion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = []
        await read(broker, TUESDAY, times=2)
        assert order.status is OrderStatus.EXPIRED
        broker.book = [row(OWN, MONDAY_NS + 5, "complete", fldQty=10, avgPrc="39.00")]
        await read(broker, TUESDAY)
        assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 10)
        assert caplog.records[-1].levelno == logging.ERROR


async def test_numbers_without_a_date_go_by_the_newest_report() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.cache.clock = lambda: START
        order = broker.order()
        broker.send("open", MONDAY_NS)
        broker.book = [state("open", MONDAY_NS)]
        await read(broker, MONDAY)
        broker.book = []
        await read(broker, MONDAY, times=3)
        assert not order.is_final
        await read(broker, TUESDAY, times=2)
        assert order.status is OrderStatus.EXPIRED
        assert order.validity is Validity.DAY


async def test_an_order_of_today_does_not_end_for_the_date_in_its_number() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.cache.clock = lambda: START + DAY_SECONDS
        order = broker.order(number=OWN)
        await read(broker, TUESDAY, times=5)
        assert not order.is_final


async def test_numbers_of_earlier_days_are_dropped() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.cache.register_number(f"{MONDAY}000000009")
        assert broker.cache.own == {OWN, f"{MONDAY}000000009"}
        broker.book = []
        await read(broker, TUESDAY, times=2)
        assert order.is_final
        await read(broker, SATURDAY)
        assert broker.cache.own == set()


async def test_a_late_message_of_its_day_does_not_open_an_order_again_that_is_over() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = []
        await read(broker, TUESDAY, times=2)
        broker.feed.send("order", row(OWN, MONDAY_NS + 10**9, fldQty=3, avgPrc="39.00"))
        assert order.status is OrderStatus.EXPIRED
        assert order.filled_quantity == 3
        broker.feed.send(
            "order", row(OWN, MONDAY_NS + 3 * 10**9, "cancelled", fldQty=3, avgPrc="39.00")
        )
        assert order.status is OrderStatus.CANCELLED
        broker.feed.send("order", row(OWN, MONDAY_NS + 2 * 10**9))
        assert order.is_final


async def test_an_order_that_is_open_again_after_its_day_ends_with_the_next_whole_book() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = []
        await read(broker, TUESDAY, times=2)
        assert order.status is OrderStatus.EXPIRED
        broker.book = [row(OWN, MONDAY_NS)]
        await read(broker, TUESDAY)
        assert order.status is OrderStatus.OPEN
        broker.book = [row(NUMBER_OF_TUESDAY, TUESDAY_NS)]
        await read(broker, TUESDAY)
        assert order.status is OrderStatus.EXPIRED


async def test_an_order_of_an_earlier_day_that_becomes_known_late_ends_with_its_day_too() -> None:
    async with FeedBroker() as broker:
        await monday(broker)
        broker.book = []
        await read(broker, TUESDAY, times=2)
        number = f"{MONDAY}000000002"
        broker.feed.send("order", row(number, MONDAY_NS))
        late = broker.cache.orders[number]
        assert late.status is OrderStatus.OPEN
        await read(broker, TUESDAY)
        assert late.status is OrderStatus.EXPIRED


@pytest.mark.parametrize("at", [MONDAY_NS + 10**9, 0])
async def test_a_history_corrects_the_end_of_an_order_that_was_concluded_to_be_over(
    at: int,
) -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        broker.book = []
        await read(broker, TUESDAY, times=2)
        states = [HistoryRow(number=OWN, status_text="open", updated_ns=MONDAY_NS)]
        broker.cache.take_history(OWN, states)
        assert order.status is OrderStatus.EXPIRED
        end = HistoryRow(
            number=OWN,
            status_text="complete",
            filled_quantity=order.quantity,
            average_price=39.0,
            updated_ns=at,
        )
        broker.cache.take_history(OWN, [end] if not at else [end, *states])
        assert order.status is OrderStatus.COMPLETE
        assert (order.filled_quantity, order.average_price) == (order.quantity, 39.0)


async def test_a_row_without_a_number_that_may_be_the_order_keeps_it_open() -> None:
    async with FeedBroker() as broker:
        order = await monday(broker)
        today = OrderRow(number=NUMBER_OF_TUESDAY, status_text="open", updated_ns=TUESDAY_NS)
        odd = OrderRow(
            number="",
            status_text="open",
            segment=order.segment,
            symbol=order.symbol,
            side=order.side,
            missing=frozenset({"number"}),
        )
        broker.cache.apply([today, odd], day=TUESDAY)
        assert not order.is_final
        other = msgspec.structs.replace(odd, symbol="IDEA-EQ")
        broker.cache.apply([today, other], day=TUESDAY)
        assert order.status is OrderStatus.EXPIRED
