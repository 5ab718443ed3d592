"""Wrong answers: the answer of another order, or a 429 to an order that was accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neo_async import (
    NotAccepted,
    Order,
    OrderAlreadyFinal,
    OrderStatus,
    OutcomeUnknown,
    RateLimited,
    Rejected,
)
from tests.fake_servers import Reply
from tests.order_broker import (
    BOOK,
    CANCEL,
    HISTORY,
    MODIFY,
    NOT_FOUND,
    PLACE,
    accepted,
    order_broker,
)
from tests.risk.trading import BUY, MIS

TOO_MANY = Reply({"stat": "Not_Ok", "errMsg": "Too many requests", "stCode": 429}, 429)


# --- answers of another order -----------------------------------------------------------------


async def test_an_answer_that_names_another_order_does_not_prove_a_cancel() -> None:
    async with order_broker(resolution_timeout=2.0) as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        other = await neo.orders.place(*BUY, 10, **MIS)
        broker.instead[CANCEL] = accepted(other.number)
        with pytest.raises(NotAccepted):
            await neo.orders.cancel(order)
        assert broker.open_numbers() == [order.number, other.number]


async def test_an_answer_that_names_another_order_does_not_prove_a_change() -> None:
    async with order_broker(resolution_timeout=2.0) as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        other = await neo.orders.place(*BUY, 10, **MIS)
        broker.script(MODIFY, accepted(other.number))
        rows = {"stat": "Ok", "stCode": 200, "data": [broker.rows[order.number]]}
        broker.script(HISTORY, Reply(rows))
        with pytest.raises(NotAccepted):
            await neo.orders.modify(order, price="38.50")
        assert float(order.price or 0) == 39.0


async def test_an_answer_that_names_an_earlier_order_is_not_taken_for_that_of_a_new_one() -> None:
    async with order_broker() as (broker, neo):
        first = await neo.orders.place(*BUY, 10, **MIS)
        broker.instead[PLACE] = accepted(first.number)
        broker.takes_placements_in_spite = True
        second = await neo.orders.place(*BUY, 20, **MIS)
        assert [first.number, second.number] == broker.open_numbers()
        assert broker.rows[second.number]["GuiOrdId"] == second.client_tag
        assert neo.orders.late_orders == []


async def test_a_connection_that_gave_the_answer_of_another_order_is_used_no_more() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        other = await neo.orders.place(*BUY, 10, **MIS)
        broker.refusal = lambda number: accepted(other.number)
        cancelling = asyncio.create_task(neo.orders.cancel(order))
        await asyncio.sleep(0.1)
        position = [path for _, path in broker.arrivals].index(CANCEL)
        for _ in range(3):
            await neo.orders.place(*BUY, 10, **MIS)
        assert broker.ports[position] not in broker.ports[position + 1 :]
        cancelling.cancel()


async def test_a_lost_order_that_the_book_shows_without_a_number_is_not_resolved() -> None:
    async with order_broker(resolution_timeout=5.0) as (broker, neo):
        broker.instead[PLACE] = Reply("", 504)
        broker.takes_placements_in_spite = True
        broker.shown = lambda row: (
            row if asyncio.get_running_loop().time() > 300 else row | {"nOrdNo": ""}
        )
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS)
        assert neo.orders.late_orders == []
        await asyncio.sleep(360)
        await neo.orders.book()
        assert [order.number for order in neo.orders.late_orders] == broker.open_numbers()


# --- orders that the broker does not find ------------------------------------------------------


async def test_an_order_that_the_broker_does_not_find_yet_is_not_reported_as_final() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.refusal = lambda number: NOT_FOUND
        with pytest.raises(Rejected, match="not found") as refused:
            await neo.orders.cancel(order)
        assert not isinstance(refused.value, OrderAlreadyFinal)
        assert not order.is_final
        broker.refusal = lambda number: None
        await neo.orders.cancel(order)
        assert broker.open_numbers() == []


async def test_an_order_that_is_known_to_be_final_is_reported_as_final_when_it_is_not_found() -> (
    None
):
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.rows[order.number]["ordSt"] = "cancelled"
        await neo.orders.book()
        broker.refusal = lambda number: NOT_FOUND
        with pytest.raises(OrderAlreadyFinal, match="not found"):
            await neo.orders.cancel(order)


# --- taken, and answered with 429 -------------------------------------------------------------


@pytest.mark.parametrize("shown_after", [3.0, 12.0, 25.0])
async def test_a_halt_waits_for_an_order_that_may_have_been_taken_in_spite_of_a_429(
    shown_after: float,
) -> None:
    async with order_broker() as (broker, neo):
        began = asyncio.get_running_loop().time()
        broker.instead[PLACE] = TOO_MANY._replace(headers={"Retry-After": "5"})
        broker.takes_placements_in_spite = True
        broker.shown = lambda row: (
            row if asyncio.get_running_loop().time() > began + shown_after else None
        )
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await asyncio.sleep(0.1)
        (order,) = await neo.halt()
        assert isinstance(order, Order)
        assert order.status is OrderStatus.CANCELLED
        assert broker.open_numbers() == []
        assert neo.orders.late_orders == [order]
        await asyncio.gather(placing, return_exceptions=True)


async def test_an_order_taken_in_spite_of_a_429_is_reported_although_no_feed_shows_it() -> None:
    async with order_broker() as (broker, neo):
        broker.instead[PLACE] = TOO_MANY._replace(headers={"Retry-After": "40"})
        broker.takes_placements_in_spite = True
        broker.shown = lambda row: row if asyncio.get_running_loop().time() > 15 else None
        reported: list[Any] = []
        neo.orders.on_late_order(reported.append)
        with pytest.raises(RateLimited):
            await neo.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(60)
        assert [order.number for order in reported] == broker.open_numbers()


async def test_no_book_is_read_any_more_for_a_429_when_its_resolution_timeout_is_over() -> None:
    async with order_broker(resolution_timeout=5.0) as (broker, neo):
        broker.instead[PLACE] = TOO_MANY._replace(headers={"Retry-After": "40"})
        with pytest.raises(RateLimited):
            await neo.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(120)
        assert neo._engine.is_quiet
        books = broker.count(BOOK)
        assert books
        await asyncio.sleep(600)
        assert broker.count(BOOK) == books
