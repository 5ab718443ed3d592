"""Orders that the broker knows no more, though no clock here says that their day is over."""

from __future__ import annotations

import asyncio

import pytest

from neo_async import Order, OrderStatus, Product, RiskLimits, Segment, Side
from neo_async.exchange import Exchange, Hours, Rules
from tests.clients import client_of, exchange_of
from tests.fake_servers import Reply, fault_proxy

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY)
CNC = {"price": "39.00", "product": Product.CNC}
NO_DATA = {"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"}
NIGHT = 47.5 * 3600
"""Seconds until half past nine on the next trading day, the 25th."""


async def test_an_order_that_book_and_history_lack_after_the_session_ended_is_over() -> None:
    async with (
        exchange_of(rules=Rules(hours=Hours.EXCHANGE)) as exchange,
        client_of(exchange, risk=RiskLimits(max_open_orders=1)) as neo,
    ):
        order = await neo.orders.place(*BUY, 10, **CNC)
        await asyncio.sleep(1)
        exchange.feeds.stall()
        exchange.feeds.drop_connections()
        exchange.advance_clock(NIGHT)  # this client's clock stays where it is
        exchange.feeds.drop_connections()
        exchange.feeds.resume()
        assert await order.wait(timeout=150) is OrderStatus.EXPIRED
        assert "neither its order book nor" in order.reject_reason
        assert await neo.orders.place(*BUY, 10, **CNC)  # it holds no room any more


@pytest.mark.parametrize("ends", [False, True])
async def test_books_that_lack_an_order_prove_nothing_by_themselves(*, ends: bool) -> None:
    """Neither while the session goes on, nor where its history knows the order."""
    hides = False

    def override(path: str, status: int, body: bytes) -> Reply | None:
        hidden = path.endswith("/user/orders") or (not ends and path.endswith("/order/history"))
        return Reply(NO_DATA, 200) if hides and hidden else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        order = await neo.orders.place(*BUY, 10, **CNC)
        await asyncio.sleep(1)
        hides = True
        if ends:
            exchange.end_sessions()
        await asyncio.sleep(900)
        assert not order.is_final
        assert open_here(order, exchange)


def open_here(order: Order, exchange: Exchange) -> bool:
    return any(
        record.number == order.number and not record.status.is_final
        for record in exchange.market.ledger
    )
