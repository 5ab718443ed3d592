"""What a client does with its open orders when the program leaves it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from neo_async import OnExit, OrderStatus, Product, Segment, Side
from tests.clients import CANCEL, client_of, exchange_of
from tests.fake_servers import Reply, fault_proxy

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


@pytest.mark.parametrize("live", [True, False])
async def test_cancel_cancels_the_orders_of_this_client_also_after_an_error(live: bool) -> None:
    async with exchange_of() as exchange, client_of(exchange) as other:
        theirs = await other.orders.place(*BUY, **CNC)
        orders = []
        neo = client_of(exchange, live_updates=live, on_exit="cancel")

        async def trade() -> None:
            async with neo:
                orders.extend([await neo.orders.place(*BUY, **CNC) for _ in range(3)])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await trade()
        assert [order.status for order in orders] == [OrderStatus.CANCELLED] * 3
        await other.orders.book()
        assert not theirs.is_final
    assert not neo.health().logged_in_since


async def test_leave_leaves_open_orders_and_logs_how_many(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="neo_async.orders")
    async with exchange_of() as exchange:
        async with client_of(exchange, on_exit=OnExit.LEAVE) as neo:
            order = await neo.orders.place(*BUY, **CNC)
        assert not order.is_final
    expected = "exit: by the last reports 1 orders are open at the broker"
    assert f"{exchange.credentials.ucc}: {expected}" in caplog.messages


async def test_orders_that_cannot_be_cancelled_in_time_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = {CANCEL: Reply({"stCode": 1041, "errMsg": "not now", "stat": "Not_Ok"}, 400)}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *answer: None, refused=refused) as endpoints,
    ):
        loop = asyncio.get_running_loop()
        async with client_of(exchange, endpoints=endpoints, on_exit="cancel") as neo:
            order = await neo.orders.place(*BUY, **CNC)
            began = loop.time()
        assert 20.0 <= loop.time() - began < 25.0
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert any(order.number in text and "not now" in text for text in errors)
    assert "after 20 s 1 of 1 orders may still be open" in errors[-1]
