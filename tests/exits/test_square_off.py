"""Positions closed at the market: never more than the net, whatever is on its way meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neo_async import NeoError, OrderStatus, OutcomeUnknown, Product, Side
from neo_async.errors import PositionOpen
from neo_async.exchange import Faults
from neo_async.exits.requests import ExitRequests
from tests.exits.test_plans import ITBEES, MIS, STOPS, entered, eventually, net, price, trading
from tests.exits.test_plans import working as working_orders


async def closed(exchange: Any, closing: Any, rupees: str = "39.00") -> Any:
    """Print trades at a price until a square-off is done, and return its results."""
    task = asyncio.ensure_future(closing)
    while not task.done():
        price(exchange, rupees)
        await asyncio.sleep(0.2)
    return await task


async def bought(exchange: Any, neo: Any) -> None:
    order = await neo.orders.place(*ITBEES, Side.BUY, 10, **MIS)
    price(exchange, "38.95")
    await order.wait(OrderStatus.COMPLETE, timeout=5)


async def test_two_square_offs_at_once_close_a_position_once() -> None:
    async with trading() as (exchange, neo):
        await bought(exchange, neo)
        both = asyncio.gather(neo.portfolio.square_off(), neo.portfolio.square_off())
        await closed(exchange, both)
        assert await net(neo) == 0
        sold = [one.filled_quantity for one in exchange.market.ledger if one.side is Side.SELL]
        assert sum(sold) == 10


async def test_a_fill_that_the_report_lacks_is_not_closed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with trading() as (exchange, neo):
        await bought(exchange, neo)
        loop = asyncio.get_running_loop()
        read, late_until = neo.portfolio.net_quantity, loop.time() + 3.0

        async def late(*key: str, **settings: Any) -> int:
            return 10 if loop.time() < late_until else await read(*key, **settings)

        closing = asyncio.ensure_future(neo.portfolio.square_off())
        sale = await neo.orders.place(*ITBEES, Side.SELL, 10, product=Product.MIS, price="38.95")
        price(exchange, "38.95")
        await sale.wait(OrderStatus.COMPLETE)
        monkeypatch.setattr(neo.portfolio, "net_quantity", late)
        await closed(exchange, closing)
        assert await net(neo) == 0
        sold = [one.filled_quantity for one in exchange.market.ledger if one.side is Side.SELL]
        assert sum(sold) == 10


async def test_the_exit_of_a_plan_that_is_on_its_way_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop that arrives after the cancels would turn the position round once it triggers."""
    place = ExitRequests.place

    async def slowly(self: ExitRequests, order: Any) -> Any:
        if order.trigger is not None:
            await asyncio.sleep(5)
        return await place(self, order)

    monkeypatch.setattr(ExitRequests, "place", slowly)
    async with trading() as (exchange, neo):
        plan = await neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS)
        price(exchange, "38.95")
        await eventually(lambda: plan.open_quantity == 10)
        (result,) = await closed(exchange, neo.portfolio.square_off())
        assert result.quantity == 10
        await asyncio.sleep(10)
        assert working_orders(exchange) == []
        assert await net(neo) == 0


async def test_a_report_that_is_not_answered_is_read_again() -> None:
    async with trading() as (exchange, neo):
        await entered(exchange, neo)
        exchange.faults.set(Faults(error_before=1.0, calls={"reads"}))
        closing = asyncio.ensure_future(neo.portfolio.square_off())
        await asyncio.sleep(5)
        assert not closing.done()
        exchange.faults.set(Faults())
        (result,) = await closed(exchange, closing)
        assert result.quantity == 10
        assert await net(neo) == 0


async def test_positions_that_cannot_be_read_in_time_are_an_error() -> None:
    async with trading() as (exchange, neo):
        await entered(exchange, neo)
        exchange.faults.set(Faults(error_before=1.0, calls={"reads"}))
        with pytest.raises(NeoError, match="no report of the positions for 3 s"):
            await neo.portfolio.square_off(timeout=3)
        exchange.faults.set(Faults())


async def test_an_order_whose_outcome_is_unknown_leaves_the_position_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with trading(resolution_timeout=60.0) as (exchange, neo):
        await bought(exchange, neo)
        exchange.faults.set(Faults(lose_before=1.0, calls={"orders"}))
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(
                *ITBEES,
                Side.SELL,
                10,
                product=Product.MIS,
                price="39.50",
                wait_for_outcome=False,
            )
        exchange.faults.set(Faults())
        (result,) = await neo.portfolio.square_off(timeout=5)
        assert isinstance(result, PositionOpen)
        assert result.net == 10
        assert "the outcome of an order is not known" in result.reason
        assert await net(neo) == 10
