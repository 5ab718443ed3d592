"""What a client does with its open orders when the program leaves it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from neo_async import NeoError, OnExit, OrderStatus, OutcomeUnknown, Product, Segment, Side
from neo_async.execution.exit_cancellation import EXIT_SECONDS, cancel_own_orders, leave
from tests.clients import CANCEL, PLACE, client_of, exchange_of, paths
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


async def test_a_client_that_is_not_logged_in_has_nothing_to_cancel() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        await leave(neo._engine, OnExit.CANCEL)
        assert await paths(exchange) == []


async def test_orders_that_are_final_already_are_not_cancelled_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="neo_async.orders")
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        order = await neo.orders.place(*BUY, **CNC)
        await neo.orders.cancel(order)
        await neo.orders.book()
        caplog.clear()
        await cancel_own_orders(neo._engine)
        assert (await paths(exchange)).count(CANCEL) == 1
        assert "exit" not in caplog.text


async def test_the_number_of_cancelled_orders_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="neo_async.orders")
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        orders = [await neo.orders.place(*BUY, **CNC) for _ in range(3)]
        await cancel_own_orders(neo._engine)
        assert all(order.status is OrderStatus.CANCELLED for order in orders)
        assert "exit: 3 open orders were cancelled or filled" in caplog.text


async def test_a_refused_cancel_is_sent_again_until_the_order_is_final() -> None:
    refused = {CANCEL: Reply({"stCode": 1041, "errMsg": "not now", "stat": "Not_Ok"}, 400)}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *answer: None, refused=refused) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        order = await neo.orders.place(*BUY, **CNC)
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(5, refused.clear)
        await cancel_own_orders(neo._engine)
        assert order.status is OrderStatus.CANCELLED
        assert 5 < loop.time() - began < EXIT_SECONDS


async def test_the_order_of_a_placement_with_a_lost_answer_is_cancelled_when_it_appears() -> None:
    overrides: dict[str, Any] = {PLACE: Reply("busy", 503)}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        await cancel_own_orders(neo._engine)
        (record,) = exchange.market.ledger
        assert record.status.is_final


async def test_a_placement_of_unknown_outcome_is_logged_when_the_exit_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped={PLACE}) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        with pytest.raises(NeoError):
            await neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        await cancel_own_orders(neo._engine, timeout=4.0)
        assert (
            "after 4 s 0 of 0 orders may still be open, and the outcome of 1 placements is unknown"
            in caplog.text
        )
