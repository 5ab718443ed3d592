"""The order in which the engine applies a report: orders, requests in flight, subscribers."""

from __future__ import annotations

from typing import Any

from neo_async import (
    OrderStatus,
    OrderUpdate,
)
from tests.clients import PLACE, client_of, exchange_of
from tests.fake_servers import Reply, fault_proxy
from tests.risk.trading import BUY, MIS


async def test_subscribers_get_an_order_book_after_orders_and_requests_in_flight() -> None:
    lose = [True]

    def override(path: str, status: int, body: bytes) -> Reply | None:
        return Reply("gone", 504, "text/plain") if path == PLACE and lose and lose.pop() else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        engine, seen = neo._engine, []
        engine.on_book_applied(
            lambda rows, _: seen.append(
                (len(rows), len(engine.cache.own), len(engine.in_flight_requests))
            )
        )
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert seen == [(1, 1, 0)]
        assert engine.cache.own == {order.number}


async def test_subscribers_get_a_message_after_the_orders_in_any_order_of_subscription() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        seen: list[OrderStatus] = []
        fails: list[Any] = [lambda _: [].remove(1), lambda _: seen.append(order.status)]
        for listener in fails:
            neo._engine.updates.subscribe(listener)
        order = await neo.orders.place(*BUY, 10, **MIS)
        neo._engine.on_order_update(
            OrderUpdate(number=order.number, status_text="cancelled", updated_ns=1)
        )
        assert seen == [OrderStatus.CANCELLED]
