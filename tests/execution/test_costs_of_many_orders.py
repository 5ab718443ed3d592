"""What an order costs does not depend on how many others there are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from neo_async import Product, RiskLimits, Segment, Side
from neo_async.model.orders import OrderRow
from neo_async.risk.cancellation import MAX_CONCURRENT_CANCELS
from tests.clients import client_of, exchange_of
from tests.order_broker import CANCEL, order_broker

BUY: Any = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1)
MIS: dict[str, Any] = {"price": "39.00", "product": Product.MIS}


def open_order(number: int, symbol: str) -> OrderRow:
    return OrderRow(
        number=f"261123{number:09}",
        status_text="open",
        segment="nse_cm",
        symbol=symbol,
        side="B",
        quantity=10,
    )


async def test_limits_do_not_go_through_the_open_orders_of_other_instruments() -> None:
    risk = RiskLimits(max_net_position=10**6, max_open_orders=10**6)
    async with exchange_of() as exchange, client_of(exchange, risk=risk) as neo:
        seconds = []
        for count in (0, 20_000):
            for number in range(count):
                neo._engine.cache.register(open_order(number + 1, f"S{number % 500}-EQ"))
            assert neo._guard is not None
            began = time.perf_counter()
            for _ in range(50):
                neo._guard._check_max_open_orders(1)
                neo._guard._exposure.net_position(("nse_cm", "ITBEES-EQ", "B"), 1)
            seconds.append(time.perf_counter() - began)
        assert seconds[1] < 20 * seconds[0] + 0.01


async def test_a_halt_with_thousands_of_open_orders_cancels_them_some_at_a_time() -> None:
    async with order_broker() as (broker, neo):
        numbers = [broker.add() for _ in range(2 * MAX_CONCURRENT_CANCELS + 7)]
        halting = neo.halt(reason="test")
        while not broker.count(CANCEL):
            await asyncio.sleep(0.01)
            under_way = [task for task in asyncio.all_tasks() if "cancel" in task.get_name()]
            assert len(under_way) <= MAX_CONCURRENT_CANCELS
        results = await halting
        assert sorted(getattr(order, "number", "") for order in results) == numbers
        assert broker.open_numbers() == []
