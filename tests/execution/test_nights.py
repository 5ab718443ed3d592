"""Requests on whose day the night falls before anything has proved what they led to.

A machine that sleeps stops the loop's clock while the calendar goes on: the request is a few
seconds old when it wakes up, and of yesterday.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from neo_async import (
    NeoClient,
    Order,
    OrderAlreadyFinal,
    OrderStatus,
    OutcomeUnknown,
    Product,
    Segment,
    Side,
    Timeouts,
)
from neo_async.exchange import Exchange, Hours, Rules
from tests.clients import CANCEL, MODIFY, PLACE, client_of, exchange_of
from tests.fake_servers import Late, Reply, fault_proxy
from tests.simulation.virtual_time import now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
NIGHT = 23.5 * 3600.0
"""Seconds from 10:00 on Monday to 9:30 on Tuesday."""
LATE = Late(60.0, Reply("late"))
"""Instead of an answer that comes in time."""


class Market:
    """An exchange and a client whose clocks a night moves while the loop's stands still."""

    exchange: Exchange
    neo: NeoClient

    def __init__(self) -> None:
        self._slept = 0.0
        self.late: set[str] = set()
        """Paths whose answers come after the client has given up."""
        self.slow: set[str] = set()
        """Paths whose answers take some seconds."""

    def clock(self) -> float:
        return now() + self._slept

    def override(self, path: str, status: int, body: bytes) -> Late | None:
        if path in self.slow:
            return Late(3.0, Reply(body, status))
        return LATE if path in self.late else None

    def sleep(self) -> None:
        self._slept += NIGHT
        self.exchange.tick()


@contextlib.asynccontextmanager
async def market_of() -> AsyncIterator[Market]:
    market = Market()
    rules = Rules(hours=Hours.EXCHANGE)
    async with (
        exchange_of(clock=market.clock, rules=rules) as market.exchange,
        fault_proxy(market.exchange, market.override) as endpoints,
        client_of(
            market.exchange,
            endpoints=endpoints,
            clock=market.clock,
            live_updates=False,
            timeouts=Timeouts(order=5.0),
        ) as market.neo,
    ):
        yield market


async def until_final(order: Order) -> OrderStatus:
    async with asyncio.timeout(120):
        return await order.wait()


async def test_a_placement_of_the_day_before_is_never_reported_as_not_accepted() -> None:
    async with market_of() as market:
        market.late.add(PLACE)
        placing = asyncio.create_task(market.neo.orders.place(*BUY, **CNC))
        await asyncio.sleep(1)
        assert len(market.exchange.market.ledger) == 1
        market.sleep()  # and only then is its answer given up
        with pytest.raises(OutcomeUnknown, match="of an earlier day"):
            await placing


async def test_a_placement_cancelled_after_midnight_is_never_reported_as_not_accepted() -> None:
    async with market_of() as market:
        market.late.add(PLACE)
        placing = asyncio.create_task(market.neo.orders.place(*BUY, **CNC))
        await asyncio.sleep(1)
        market.sleep()
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)
        (pending,) = market.neo._engine.in_flight_requests
        with pytest.raises(OutcomeUnknown, match="of an earlier day"):
            await pending


async def test_a_change_of_the_day_before_that_nothing_can_prove_ends_with_its_timeout() -> None:
    async with market_of() as market:
        order = await market.neo.orders.place(*BUY, **CNC)
        market.late.add(MODIFY)
        changing = asyncio.create_task(market.neo.orders.modify(order, price="38.90"))
        await asyncio.sleep(1)
        market.sleep()
        began = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown, match="of an earlier day"):
            await changing
        assert asyncio.get_running_loop().time() - began < 45


async def test_an_order_whose_answer_came_after_the_night_is_over_with_its_own_day() -> None:
    """No report has shown it: its placement was sent on the day before."""
    async with market_of() as market:
        orders = market.neo.orders
        market.slow.add(PLACE)
        placing = asyncio.create_task(orders.place(*BUY, **CNC))
        await asyncio.sleep(1)
        market.sleep()
        order = await placing
        assert order.number.startswith("261123")
        for _ in range(3):  # one empty book proves nothing
            await orders.book()
        assert order.status is OrderStatus.EXPIRED


@pytest.mark.parametrize("action", ["cancel", "modify"])
async def test_a_change_of_an_order_whose_day_was_over_came_too_late(action: str) -> None:
    """Its answer is lost, and no book of today has the order: that it is over is known."""
    async with market_of() as market:
        orders = market.neo.orders
        order = await orders.place(*BUY, **CNC)
        await asyncio.sleep(1)
        await orders.book()
        market.sleep()
        market.late |= {CANCEL, MODIFY}
        began = asyncio.get_running_loop().time()
        with pytest.raises(OrderAlreadyFinal, match="too late to"):
            await (
                orders.cancel(order) if action == "cancel" else orders.modify(order, price="38.90")
            )
        assert asyncio.get_running_loop().time() - began < 60
        assert await until_final(order) is OrderStatus.EXPIRED
