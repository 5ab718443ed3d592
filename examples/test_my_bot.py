"""Tests of a small bot against an exchange in the process: pytest examples/test_my_bot.py

The fixtures `neo`, `exchange` and `clock` come with neo_async. Nothing else is needed.
"""

import asyncio
from decimal import Decimal

import pytest

from neo_async import NeoClient, Order, OrderStatus, Product, RiskLimits, Segment, Side, ValueLimit

SHARE = (Segment.NSE_CM, "ITBEES-EQ")
ITBEES = "19084"


async def buy_and_leave_before_the_close(neo: NeoClient, price: str) -> Order:
    """The bot: buys ten intraday, and sells them at 15:15 if it has got them."""
    bought = await neo.orders.place(*SHARE, Side.BUY, 10, price=price, product=Product.MIS)
    await neo.calendar.until("15:15")
    if bought.status is not OrderStatus.COMPLETE:
        return await neo.orders.cancel(bought)
    return await neo.orders.place(*SHARE, Side.SELL, 10, price="39", product=Product.MIS)


async def test_it_sells_what_it_has_bought(neo, exchange, clock):
    bot = asyncio.create_task(buy_and_leave_before_the_close(neo, "41"))
    await asyncio.sleep(1)
    clock.move_to(clock.now.replace(hour=15, minute=15))
    sold = await bot
    await sold.wait(OrderStatus.COMPLETE, timeout=5)
    (position,) = await neo.portfolio.positions()
    assert position.net_quantity == 0


async def test_it_cancels_what_it_has_not_bought(neo, exchange, clock):
    bot = asyncio.create_task(buy_and_leave_before_the_close(neo, "38"))
    await asyncio.sleep(1)
    clock.move_to(clock.now.replace(hour=15, minute=15))
    cancelled = await bot
    assert await cancelled.wait(timeout=5) is OrderStatus.CANCELLED


async def test_a_falling_price_fills_its_order(neo, exchange):
    order = await neo.orders.place(*SHARE, Side.BUY, 10, price="38", product=Product.MIS)
    exchange.market.print_price(Segment.NSE_CM, ITBEES, 37_90)  # in paise
    await order.wait(OrderStatus.COMPLETE, timeout=5)
    assert order.average_price <= Decimal(38)


class TestLimits:
    @pytest.fixture
    def neo_options(self):
        return {"risk": RiskLimits(max_order_notional=100)}

    async def test_a_large_order_is_not_sent(self, neo, exchange):
        with pytest.raises(ValueLimit):
            await neo.orders.place(*SHARE, Side.BUY, 10, price="39", product=Product.MIS)
        assert list(exchange.market.ledger) == []
