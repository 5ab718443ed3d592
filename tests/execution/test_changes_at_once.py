"""Changes of one order at the same time, and orders that are named by their numbers."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from neo_async import (
    InvalidOrder,
    NeoClient,
    OrderSettings,
    OutcomeUnknown,
    Product,
    ProtocolError,
    RateLimits,
    Rejected,
    Segment,
    Side,
)
from tests.clients import MODIFY, client_of, exchange_of, paths
from tests.execution.feed_broker import OK, state
from tests.fake_servers import CREDENTIALS, Late, Reply, fault_proxy, scripted_broker

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 100)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
PLACE_PATH = "/quick/order/rule/ms/place"
MODIFY_PATH = "/quick/order/vr/modify"
BOOK_PATH = "/quick/user/orders"


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
