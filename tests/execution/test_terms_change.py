"""Changes of one order at the same time, numbers that are looked up, and long books."""

from __future__ import annotations

import asyncio
import gc
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from neo_async import (
    InvalidOrder,
    NeoClient,
    OrderSettings,
    OrderStatus,
    OutcomeUnknown,
    Product,
    ProtocolError,
    RateLimits,
    Rejected,
    Segment,
    Side,
)
from neo_async.execution.order_cache import OrderCache
from neo_async.model.answer import Answer
from neo_async.model.feed_state import FeedState
from neo_async.wire.parts import SHORT, in_parts
from neo_async.wire.reports import read_order_book
from tests.clients import MODIFY, client_of, exchange_of, paths
from tests.execution.feed_broker import FeedBroker, order_of, row, state
from tests.fake_servers import CREDENTIALS, Late, Reply, fault_proxy, scripted_broker

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 100)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
PLACE_PATH = "/quick/order/rule/ms/place"
MODIFY_PATH = "/quick/order/vr/modify"
BOOK_PATH = "/quick/user/orders"
QUANTITY_OF_ROWS = 10
OK = {"stat": "Ok", "stCode": 200}


async def test_changes_of_one_order_at_once_do_not_undo_each_other() -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange, limits=RateLimits(orders=1, total=10)) as neo,
    ):
        order = await neo.orders.place(*BUY, **CNC)
        await asyncio.gather(
            neo.orders.modify(order, quantity=10),
            neo.orders.modify(order, price="38.90"),
            neo.orders.modify(order.number, disclosed_quantity=5),
        )
        (record,) = exchange.market.ledger
        assert (record.quantity, record.price, record.disclosed_quantity) == (10, 3890, 5)
        assert (order.quantity, order.price) == (10, Decimal("38.90"))


async def test_a_cancel_does_not_wait_for_a_change_of_its_order() -> None:
    async with scripted_broker() as broker:
        broker.script(PLACE_PATH, Reply({"nOrdNo": "261123000000001", **OK}))
        broker.script(MODIFY_PATH, Late(8.0, Reply({"nOrdNo": "261123000000001", **OK})))
        broker.script("/quick/order/cancel", Reply({"nOrdNo": "261123000000001", **OK}))
        broker.script(BOOK_PATH, Reply({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"}))
        async with NeoClient(
            CREDENTIALS,
            endpoints=broker.endpoints,
            totp="123456",
            orders=OrderSettings(live_updates=False),
        ) as neo:
            order = await neo.orders.place(*BUY, **CNC)
            changing = [
                asyncio.create_task(neo.orders.modify(order, price=price))
                for price in ("38.90", "38.80")
            ]
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            await neo.orders.cancel(order)
            assert asyncio.get_running_loop().time() - began < 1
            with pytest.raises(InvalidOrder):  # nor does the check of what is malformed
                await neo.orders.modify(order, quantity=0)
            assert asyncio.get_running_loop().time() - began < 1
            for task in changing:
                task.cancel()
            await asyncio.gather(*changing, return_exceptions=True)


async def test_a_change_waits_for_a_lost_one_only_where_it_leaves_out_what_that_was_to_change() -> (
    None
):
    lose = [True]

    def override(path: str, status: int, body: bytes) -> Reply | None:
        if path == MODIFY and lose and lose.pop():
            return Reply("gone", 504, "text/plain")
        return None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        order = await neo.orders.place(*BUY, **CNC)
        with pytest.raises(OutcomeUnknown):
            await neo.orders.modify(order, quantity=10, wait_for_outcome=False)
        await neo.orders.modify(order, quantity=20)
        assert exchange.market.ledger[0].quantity == 20
        lose.append(True)
        with pytest.raises(OutcomeUnknown):
            await neo.orders.modify(order, quantity=10, wait_for_outcome=False)
        await neo.orders.modify(order, price="38.90")
        (record,) = exchange.market.ledger
        assert (record.quantity, record.price) == (10, 3890)
        assert (await paths(exchange)).count(MODIFY) == 4


@pytest.mark.parametrize("others", [["261123000000002"], []])
async def test_only_the_row_of_a_number_is_taken_for_it(others: list[str]) -> None:
    async with scripted_broker() as broker:
        rows = [state("open", 1, nOrdNo=number) for number in others]
        broker.script(f"{BOOK_PATH}/261123000000001", Reply({**OK, "data": rows}))
        broker.script("/quick/order/history", Reply({**OK, "data": rows}))
        async with NeoClient(
            CREDENTIALS,
            endpoints=broker.endpoints,
            totp="123456",
            orders=OrderSettings(live_updates=False),
        ) as neo:
            with pytest.raises(Rejected, match="261123000000001"):
                await neo.orders.cancel("261123000000001")
            assert "/quick/order/cancel" not in broker.paths()
            assert await neo.orders.history("261123000000001") == []


async def test_the_row_of_a_number_is_found_among_others() -> None:
    async with scripted_broker() as broker:
        numbers = ["261123000000002", "261123000000001"]
        rows = [state("open", 1, nOrdNo=number) for number in numbers]
        broker.script(f"{BOOK_PATH}/261123000000001", Reply({**OK, "data": rows}))
        broker.script("/quick/order/cancel", Reply({"nOrdNo": "261123000000001", **OK}))
        async with NeoClient(
            CREDENTIALS,
            endpoints=broker.endpoints,
            totp="123456",
            orders=OrderSettings(live_updates=False),
        ) as neo:
            assert (await neo.orders.cancel("261123000000001")).number == "261123000000001"
            (body,) = [body for path, _, body in broker.requests if path == "/quick/order/cancel"]
            assert b"261123000000001" in body


async def test_a_row_without_a_number_does_not_keep_the_others_from_being_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted_broker() as broker:
        rows = [state("open", 1, nOrdNo=""), state("open", 1, nOrdNo="261123000000001")]
        broker.script(BOOK_PATH, Reply({**OK, "data": rows}))
        broker.script("/quick/order/cancel", Reply({"nOrdNo": "261123000000001", **OK}))
        async with NeoClient(
            CREDENTIALS,
            endpoints=broker.endpoints,
            totp="123456",
            orders=OrderSettings(live_updates=False),
        ) as neo:
            cancelled, nameless = await neo.orders.cancel_all(symbol="ITBEES-EQ")
        assert not isinstance(cancelled, Exception)
        assert cancelled.number == "261123000000001"
        assert isinstance(nameless, ProtocolError)
        assert "no order number" in caplog.text


# --- many orders ------------------------------------------------------------------------------


def test_an_order_is_found_by_its_tag_whatever_happens_to_it() -> None:
    cache = OrderCache(kept=2)
    order = order_of(cache, client_tag="own_abc1230000")
    assert cache.by_tag("own_abc1230000") is order
    assert cache.by_tag("own_abc1230000-17") is order
    assert cache.by_tag("") is None
    cache.retag(order, "own_abc1230001")
    assert cache.by_tag("own_abc1230000") is None
    assert cache.by_tag("own_abc1230001") is order
    second = order_of(cache, number="2", client_tag="own_abc1230001")
    assert cache.by_tag("own_abc1230001") is order
    cache.retag(second, "own_abc1230002")
    assert cache.by_tag("own_abc1230001") is order
    cache.apply([row("complete", QUANTITY_OF_ROWS, 39.0)])
    for number in ("3", "4", "5"):
        order_of(cache, number=number, client_tag=f"other{number}")
        cache.apply([row("complete", QUANTITY_OF_ROWS, 39.0, number=number)])
    assert cache.by_tag("own_abc1230001") is None


async def test_final_orders_leave_the_memory_and_held_objects_stay_right() -> None:
    async with FeedBroker() as broker:
        cache = OrderCache(kept=5)
        broker.use(cache)
        broker.feed.go(FeedState.LIVE)
        held = broker.order()
        broker.send("cancelled", 5)
        for number in range(2, 30):
            broker.order(number=str(number), client_tag=f"tag{number}")
            broker.send("complete", 5, nOrdNo=str(number), fldQty=10, avgPrc="39.00")
        gc.collect()
        resting = broker.order(number="99", client_tag="tag99")
        assert len(cache.orders) == 5 + 1
        assert cache.get("2") is None
        assert cache.get("1") is held
        # What comes late of those that are forgotten makes no order of them.
        broker.send("open", 3, nOrdNo="2")
        assert cache.open_orders == [resting]
        # A correction reaches the object that the program holds, and the order is open again.
        broker.send("open", 6)
        assert held.status is OrderStatus.OPEN
        assert cache.open_orders == [resting, held]
        assert cache.orders["1"] is held
        assert cache.by_tag(held.client_tag) is held
        broker.send("complete", 7, fldQty=10, avgPrc="39.00")
        assert cache.open_orders == [resting]
        # A book that still shows an unregistered order as open counts for a search for it.
        cache.register(row("open", number="3", at=9))
        assert [order.number for order in cache.open_orders] == ["99", "3"]


def test_final_orders_beyond_the_number_that_is_kept_are_dropped() -> None:
    cache = OrderCache(kept=100)
    for number in range(3000):
        order_of(cache, number=str(number), client_tag=f"tag{number}")
        cache.apply([row("complete", QUANTITY_OF_ROWS, 39.0, number=str(number))])
    gc.collect()
    assert len(cache.orders) == len(cache._by_tag) == len(cache._final) == 100
    assert len(cache._held_elsewhere) == 0


def book_of(count: int) -> Answer:
    rows = [
        state("open", 1, nOrdNo=f"261123{number:09d}", GuiOrdId=f"tag{number}")
        for number in range(count)
    ]
    return Answer(200, {"x": "y"}, msgspec.json.encode({**OK, "data": rows}))


def test_a_long_book_in_parts_is_the_same_book() -> None:
    whole = book_of(2000)
    assert len(whole.body) > SHORT
    parts = [*(in_parts(whole, 300) or ())]
    assert len(parts) == 7
    assert [row for part in parts for row in read_order_book(part)] == read_order_book(whole)


@pytest.mark.parametrize(
    "body",
    [
        b'{"stat":"Not_Ok","stCode":1005,"data":[' + b"{}," * 90_000 + b"{}]}",
        b'{"stat":"Ok","stCode":200,"fault":{"code":1},"data":[' + b"{}," * 90_000 + b"{}]}",
        b'{"stat":"Ok","stCode":200,"data":[' + b"{}," * 90_000,
        b"<html>" + b" " * SHORT,
        b"[" + b"{}," * 90_000 + b"{}]",
    ],
)
def test_an_answer_that_is_no_plain_list_of_rows_is_left_whole(body: bytes) -> None:
    answer = Answer(200, {}, body)
    assert in_parts(answer, 300) is None


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


async def test_news_that_comes_between_two_slices_is_not_undone() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        cache = broker.cache
        answer = book_of(1000)
        last = broker.order(number="261123000000999")
        applying = asyncio.create_task(cache.apply_in_slices(read_order_book(answer)))
        await asyncio.sleep(0)
        broker.send("complete", 2, nOrdNo=last.number, fldQty=10, avgPrc="39.00")
        await applying
        assert (last.status, last.filled_quantity) == (OrderStatus.COMPLETE, 10)
