"""The dead man's switch: a stalled loop, a suspended machine and a feed that is down for too long
halt the client."""

from __future__ import annotations

import asyncio
import time

import pytest

from neo_async import FeedTimings, Halted, Order, OrderRequest, RateLimits, RiskLimits, Segment
from neo_async.risk.watchdog import suspended_seconds
from tests.clients import PLACE, client_of, exchange_of, paths
from tests.risk.trading import (
    BUY,
    MIS,
    SYMBOL,
    TOKEN,
    open_orders_in,
    seconds,
    trading,
    until,
)
from tests.simulation.virtual_time import START, VirtualTimeLoop

# --- stalls -----------------------------------------------------------------------------------


def stall_loop(seconds: float) -> None:
    """Advance the clock as a computation of that length does."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._virtual.now += seconds


async def test_a_stalled_loop_halts() -> None:
    async with trading(risk=RiskLimits(loop_stall=2)) as (exchange, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        stall_loop(1.9)
        await asyncio.sleep(10)
        assert neo.halted is None
        stall_loop(2.5)
        await asyncio.sleep(1)
        assert neo.halted is not None
        assert "the event loop stalled for 2." in neo.halted.reason
        await order.wait(timeout=5)
        assert open_orders_in(exchange) == []
        neo.resume_orders()
        await asyncio.sleep(5)
        await neo.orders.place(*BUY, 10, **MIS)


async def test_the_first_order_after_a_stall_is_refused() -> None:
    limits = RateLimits(orders=3, total=5)
    async with trading(risk=RiskLimits(loop_stall=2), limits=limits) as (exchange, neo):
        await asyncio.sleep(2)
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await asyncio.sleep(0.1)
        stall_loop(2.5)  # by now the rate limit allows two more
        with pytest.raises(Halted):
            await neo.orders.place(*BUY, 10, **MIS)
        results = await placing
        assert [type(result) for result in results] == [Order] * 2 + [Halted] * 3
        assert (await paths(exchange)).count(PLACE) == 2


async def test_a_suspended_machine_counts_as_a_stalled_loop() -> None:
    asleep = 0.0
    async with trading(risk=RiskLimits(loop_stall=2), limits=RateLimits(orders=3, total=6)) as (
        _,
        neo,
    ):
        neo._life_cycle.watchdog._suspended = lambda: asleep
        await asyncio.sleep(2)
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await asyncio.sleep(0.1)
        asleep = 3600.0  # the loop's clock does not count it
        results = await placing
        assert [type(result) for result in results] == [Order] * 2 + [Halted] * 3
        assert neo.halted is not None
        assert "the event loop stalled for 3600." in neo.halted.reason
        neo.resume_orders()
        await asyncio.sleep(5)
        await neo.orders.place(*BUY, 10, **MIS)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs CLOCK_BOOTTIME")
def test_the_suspended_seconds_do_not_grow_while_the_machine_is_awake() -> None:
    before = suspended_seconds()
    time.sleep(0.05)
    # The process may be preempted between the readings of the two clocks.
    assert min(abs(suspended_seconds() - before) for _ in range(5)) < 0.04


# --- feeds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["order", "market"])
async def test_a_feed_that_is_down_too_long_halts(which: str) -> None:
    timings = FeedTimings(longest_wait=0.5)
    async with trading(
        risk=RiskLimits(feed_outage=3), live_updates=False, feed_timings=timings
    ) as (
        exchange,
        neo,
    ):
        async with neo.market_feed(level=None) as feed:
            await feed.subscribe([f"nse_cm|{TOKEN}"])
            await neo.order_feed.until_live()
            await feed.until_live()
            await neo.orders.place(*BUY, 10, **MIS)
            down = feed if which == "market" else neo.order_feed
            address = down._connection._address
            down._connection._address = lambda: "ws://127.0.0.1:1"
            exchange.feeds.drop_connections()
            await asyncio.sleep(2)
            assert neo.halted is None
            await asyncio.sleep(2)
            assert neo.halted is not None
            assert neo.halted.reason.startswith(f"the {which} feed was down for 3.")
            await until(lambda: not open_orders_in(exchange))
            # After the resume, the feed has the whole time again.
            neo.resume_orders()
            await asyncio.sleep(2)
            assert neo.halted is None
            down._connection._address = address
            await down.until_live()
            await asyncio.sleep(10)
            assert neo.halted is None
        # A feed that was closed is not down.
        await asyncio.sleep(10)
        assert neo.halted is None
        assert SYMBOL in {order.symbol for order in neo._engine.cache.orders.values()}


@pytest.mark.parametrize(
    ("at", "segments", "halts"),
    [
        ("Mon 10:00", None, True),
        ("Mon 16:00", None, True),  # other segments trade until 23:55
        ("Mon 16:00", {Segment.NSE_CM}, False),
        ("Mon 23:56", None, False),
        ("Tue 03:00", None, False),
        ("Tue 10:00", None, False),  # a holiday
        ("Tue 18:00", {Segment.NSE_CM}, False),
        ("Tue 18:00", {Segment.MCX_FO}, True),  # with an evening session
        ("Sat 10:00", None, False),
    ],
)
async def test_a_feed_that_is_down_outside_trading_hours_does_not_halt(
    at: str, segments: set[Segment] | None, halts: bool
) -> None:
    day, _, hour = at.partition(" ")
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].index(day)
    hours, minutes = map(int, hour.split(":"))
    start = START + days * 86_400 + (hours - 10) * 3600 + minutes * 60

    def clock() -> float:
        return start + seconds()

    limits = RiskLimits(feed_outage=3, segments=segments)
    async with (
        exchange_of(clock=clock) as exchange,
        client_of(exchange, clock=clock, risk=limits) as neo,
    ):
        await neo.order_feed.until_live()
        neo.order_feed._connection._address = lambda: "ws://127.0.0.1:1"
        exchange.feeds.drop_connections()
        await asyncio.sleep(60)
        assert (neo.halted is not None) is halts


async def test_a_market_feed_with_market_open_counts_by_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def market_open() -> bool:
        nonlocal answer
        if answer is None:
            raise ZeroDivisionError
        return answer

    answer: bool | None = False
    async with (
        trading(risk=RiskLimits(feed_outage=3)) as (exchange, neo),
        neo.market_feed(level=None, market_open=market_open) as feed,
    ):
        await neo.order_feed.until_live()
        await feed.until_live()
        feed._connection._address = lambda: "ws://127.0.0.1:1"
        exchange.feeds.drop_connections()
        await asyncio.sleep(30)
        assert neo.halted is None
        answer = None
        await asyncio.sleep(10)
        assert "the dead man's switch continues after an error" in caplog.text
        answer = True
        await asyncio.sleep(10)
        assert neo.halted is not None


async def test_without_the_limits_nothing_is_watched() -> None:
    async with trading() as (_, neo):
        stall_loop(1000)
        await neo.orders.place(*BUY, 10, **MIS)
        assert neo.halted is None
        assert not [task for task in asyncio.all_tasks() if "dead man" in task.get_name()]
