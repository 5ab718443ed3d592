"""The faults that the exchange has to offer, its manners under load, and how it closes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from neo_async.errors import UsageError
from neo_async.exchange import Faults, FeedSettings
from neo_async.exchange.feeds.topics import BACKLOG
from neo_async.model.enums import Segment, Side
from neo_async.model.ticks import LiteTick
from neo_async.wire.feed import Stream
from tests.exchange.callers import Caller, trading
from tests.exchange.feeds.readers import (
    ITBEES,
    TCS,
    MarketReader,
    OrderReader,
    market_reader,
    order_reader,
    put,
    trade,
)
from tests.simulation.virtual_time import now

AT_ONCE = FeedSettings(interval=0)


# --- silence ------------------------------------------------------------------------------------


async def test_stalled_feeds_say_nothing_and_then_only_what_is_new_of_prices() -> None:
    async with (
        trading(feeds=AT_ONCE) as caller,
        market_reader(caller) as market,
        order_reader(caller) as orders,
    ):
        await market.subscribe(Stream.LITE, ITBEES, TCS)
        caller.exchange.feeds.stall()
        for price in (39_10, 39_20, 39_30):
            trade(caller.exchange, 1, price)
            await asyncio.sleep(0)
        await assert_silent(market.websocket)
        await assert_silent(orders.websocket)
        caller.exchange.feeds.resume()
        assert (await market.tick(LiteTick)).last_price == 39.30
        # Not one order update is left out: four states and a fill of each sale.
        frames = await orders.data("order", 3 * 5)
        assert [frame["ordSt"] for frame in frames].count("complete") == 3


async def test_a_stall_can_end_by_itself() -> None:
    async with trading(clock=now) as caller, order_reader(caller) as reader:
        loop = asyncio.get_running_loop()
        caller.exchange.feeds.stall(1)
        caller.exchange.feeds.stall(4)  # counts from now, and the first does not end it
        began = loop.time()
        await caller.placed()
        await reader.frame()
        assert loop.time() - began == pytest.approx(4, abs=0.1)


async def test_a_stalled_feed_still_answers_pings() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        caller.exchange.feeds.stall()
        reader.websocket._autoping = False  # show pongs
        await reader.websocket.ping(b"there?")
        message = await reader.websocket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")


# --- broken connections -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feed", "market_goes", "orders_go"),
    [(None, True, True), ("market", True, False), ("orders", False, True)],
)
async def test_connections_break_without_a_word(
    feed: Any, market_goes: bool, orders_go: bool
) -> None:
    async with (
        trading() as caller,
        market_reader(caller) as market,
        order_reader(caller) as orders,
    ):
        caller.exchange.feeds.drop_connections(feed)
        for reader, goes in ((market, market_goes), (orders, orders_go)):
            if goes:
                message = await reader.websocket.receive(timeout=5)
                assert message.type is aiohttp.WSMsgType.CLOSED
                assert reader.websocket.close_code == 1006
        if not market_goes:
            await market.wait_for_outcome()
        if not orders_go:
            await caller.placed()
            await orders.states("open")


@pytest.mark.parametrize("harm", ["drop_connections", "send_garbage"])
async def test_a_feed_that_does_not_exist_is_an_error_and_harms_none(harm: str) -> None:
    async with trading() as caller, market_reader(caller) as market, order_reader(caller):
        with pytest.raises(UsageError, match=r"feed='order': must be 'market', 'orders', or None"):
            getattr(caller.exchange.feeds, harm)("order")
        await market.wait_for_outcome()


# --- rubbish ------------------------------------------------------------------------------------


async def test_garbage_goes_to_everyone_and_is_the_same_for_the_same_seed() -> None:
    assert await garbage(7) == await garbage(7) != await garbage(8)


async def garbage(seed: int) -> list[Any]:
    async with (
        trading(seed=seed) as caller,
        market_reader(caller) as market,
        order_reader(caller) as orders,
    ):
        caller.exchange.feeds.send_garbage()
        seen = [(await market.websocket.receive(timeout=5)).data for _ in range(2)]
        seen += [(await orders.websocket.receive(timeout=5)).data for _ in range(3)]
        await caller.placed()
        await orders.states("open")  # and all goes on
        return seen


async def test_garbage_can_be_for_one_feed() -> None:
    async with (
        trading() as caller,
        market_reader(caller) as market,
        order_reader(caller) as orders,
    ):
        caller.exchange.feeds.send_garbage("orders")
        await market.wait_for_outcome()
        caller.exchange.feeds.send_garbage("market")
        for _ in range(3):
            await orders.websocket.receive(timeout=5)
        await caller.placed()
        assert (await orders.frame())["type"] == "order"


async def test_batches_are_cut_short_as_often_as_asked_for() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES, TCS)
        caller.exchange.feeds.truncate_batches(2)
        sizes = []
        for price in (39_10, 39_20, 39_30):
            trade(caller.exchange, 1, price)
            sizes.append(len(await reader.message()))
        assert all(0 < size < 54 for size in sizes[:2])
        assert sizes[2] == 54


# --- mishaps of messages ------------------------------------------------------------------------


async def test_updates_can_come_twice() -> None:
    async with trading(faults=Faults(feed_repeat=1)) as caller, order_reader(caller) as reader:
        await caller.placed()
        frames = await reader.data("order", 8)
        assert frames[::2] == frames[1::2]
        assert frames[-1]["ordSt"] == "open"
        assert caller.exchange.faults.injected == {"feed_repeat": 4}


async def test_updates_can_come_late_behind_newer_ones() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        caller.exchange.faults.set(Faults(feed_late=1, feed_late_seconds=0))
        await caller.placed(pr="37.00")
        caller.exchange.feeds.notice()
        caller.exchange.faults.set(Faults())
        await caller.placed(pr="38.00")
        caller.exchange.tick()
        prices = [frame["prc"] for frame in await reader.data("order", 8)]
        assert prices == ["38.00"] * 4 + ["37.00"] * 4


async def test_late_updates_are_as_late_as_asked_for() -> None:
    late = Faults(feed_late=1, feed_late_seconds=3)
    async with trading(clock=now, faults=late) as caller, order_reader(caller) as reader:
        began = asyncio.get_running_loop().time()
        await caller.placed()
        assert (await reader.frame())["type"] == "order"
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.1, abs=0.2)


async def test_updates_can_change_places_with_the_next() -> None:
    async with trading(faults=Faults(feed_reorder=0.5)) as caller, order_reader(caller) as reader:
        await caller.placed()
        caller.exchange.tick()
        states = [frame["ordSt"] for frame in await reader.data("order", 4)]
        wanted = ["put order req received", "validation pending", "open pending", "open"]
        assert states != wanted
        assert sorted(states) == sorted(wanted)


async def test_an_update_that_overtakes_nothing_comes_with_the_next_tick() -> None:
    async with trading(faults=Faults(feed_reorder=1)) as caller, order_reader(caller) as reader:
        await caller.placed()
        caller.exchange.tick()
        assert [frame["ordSt"] for frame in await reader.data("order", 4)][-1] == "open"


async def test_updates_can_be_lost() -> None:
    async with trading(faults=Faults(feed_lose=1)) as caller, order_reader(caller) as reader:
        await caller.placed()
        caller.exchange.tick()
        caller.exchange.faults.set(Faults())
        number = await caller.placed()
        assert {frame["nOrdNo"] for frame in await reader.data("order", 4)} == {number}


async def test_the_same_seed_has_the_same_mishaps() -> None:
    assert await disturbed(3) == await disturbed(3) != await disturbed(4)


async def disturbed(seed: int) -> list[tuple[int, str]]:
    async with trading(seed=seed) as caller, order_reader(caller) as reader:
        caller.exchange.faults.set(
            Faults(
                feed_repeat=0.2,
                feed_late=0.2,
                feed_lose=0.2,
                feed_reorder=0.2,
                feed_late_seconds=0,
            )
        )
        for _ in range(5):
            await caller.placed()
            caller.exchange.tick()
        caller.exchange.faults.set(Faults())
        await caller.placed(pr="37.00")
        frames = await reader.until(
            lambda frame: frame["data"]["prc"] == "37.00" and frame["data"]["ordSt"] == "open"
        )
        return [(frame["data"]["updRecvTm"], frame["data"]["ordSt"]) for frame in frames]


async def test_prices_can_come_late_behind_newer_ones() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        caller.exchange.faults.set(Faults(feed_late=1, feed_late_seconds=0))
        trade(caller.exchange, 1, 39_10)
        await caller.exchange.feeds.market.flush()
        caller.exchange.faults.set(Faults())
        seller, buyer = caller.exchange.accounts
        put(caller.exchange, Side.SELL, 1, 39_20, account=seller.ucc)
        put(caller.exchange, Side.BUY, 1, 39_20, account=buyer.ucc)
        await caller.exchange.feeds.market.flush()
        caller.exchange.tick()
        assert await last_prices(reader, 2) == [39.20, 39.10]


@pytest.mark.parametrize(
    ("mishap", "wanted"),
    [
        ("feed_repeat", [39.10, 39.10, 39.20, 39.20]),
        ("feed_lose", []),
        ("feed_reorder", [39.10, 39.20]),
    ],
)
async def test_prices_can_be_repeated_lost_or_held_until_the_next_tick(
    mishap: str, wanted: list[float]
) -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        caller.exchange.faults.set(Faults(**{mishap: 1.0}))
        for price in (39_10, 39_20):
            trade(caller.exchange, 1, price)
            await caller.exchange.feeds.market.flush()
            caller.exchange.tick()
            await caller.exchange.feeds.market.until_sent()
        assert await last_prices(reader, len(wanted)) == wanted
        caller.exchange.faults.set(Faults())
        trade(caller.exchange, 1, 39_30)
        assert await last_prices(reader, 1) == [39.30]


async def last_prices(reader: MarketReader, count: int) -> list[float]:
    prices: list[float] = []
    while len(prices) < count:
        prices += [tick.last_price for tick in await reader.ticks() if isinstance(tick, LiteTick)]
    return prices


async def test_feeds_stall_by_chance_and_go_on() -> None:
    stalls = Faults(feed_stall=0.2, feed_stall_seconds=4)
    async with trading(clock=now, faults=stalls) as caller, order_reader(caller) as reader:
        await asyncio.sleep(60)
        assert 5 <= caller.exchange.faults.injected["feed_stall"] <= 60 / 4
        caller.exchange.faults.set(Faults())
        await caller.placed()
        assert (await reader.states("open"))[-1] == "open"


# --- readers that do not keep up ----------------------------------------------------------------


async def test_a_slow_reader_costs_bounded_memory_and_holds_nobody_up() -> None:
    async with (
        trading(feeds=AT_ONCE) as caller,
        market_reader(caller) as slow,
        market_reader(caller) as quick,
    ):
        feed = caller.exchange.feeds.market
        slow_line, _ = feed.connections
        transport = slow.websocket._conn.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        message = bytes(256 * 1024)
        for _ in range(2 * BACKLOG // len(message)):
            feed.publish(message)
            assert await quick.message() == message
        assert slow_line.dropped > 0
        assert sum(map(len, slow_line._queue)) <= BACKLOG
        await quick.subscribe(Stream.LITE, ITBEES)
        trade(caller.exchange, 1, 39_10)
        assert (await quick.tick(LiteTick)).last_price == 39.10
        transport.abort()  # type: ignore[union-attr]


async def test_of_each_instrument_and_level_a_slow_reader_finds_one_packet() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES, TCS)
        await reader.subscribe(Stream.DEPTH, ITBEES)
        (line,) = caller.exchange.feeds.market.connections
        caller.exchange.feeds.stall()
        for step in range(50):
            trade(caller.exchange, 1, 39_00 + step)
            trade(caller.exchange, 1, 2117_00 + 5 * step, symbol="TCS-EQ")
            await caller.exchange.feeds.market.flush()
        assert len(line._packets) == 3
        caller.exchange.feeds.resume()
        prices = [tick.last_price for tick in await reader.ticks()]  # type: ignore[union-attr]
        assert prices == [39.49, 39.49, 2119.45]


async def test_who_lets_too_many_order_updates_wait_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neo_async.exchange.feeds.order_feed.BACKLOG", 10)
    async with trading() as caller, order_reader(caller) as reader:
        caller.exchange.feeds.stall()
        for _ in range(3):
            await caller.placed()
        await ended(reader)
        assert reader.websocket.close_code == 1006


async def test_ready_made_messages_reach_all_who_have_authenticated() -> None:
    async with (
        trading() as caller,
        market_reader(caller) as one,
        market_reader(caller) as other,
        caller.http.ws_connect(caller.exchange.feed_url) as external,
    ):
        feed = caller.exchange.feeds.market
        feed.publish(b"as it is")
        await feed.until_sent()
        assert await one.message() == await other.message() == b"as it is"
        await assert_silent(external)


# --- nobody there -------------------------------------------------------------------------------


async def test_without_readers_events_are_dropped_with_every_tick() -> None:
    async with trading() as caller:
        await caller.placed()
        put(caller.exchange, Side.BUY, 1, 38_00)
        caller.exchange.tick()
        assert caller.exchange.market.take_events() == []
        caller.exchange.market.print_price(Segment.NSE_CM, "19084", 39_00)
        assert not caller.exchange.market.has_changes


# --- closing ------------------------------------------------------------------------------------


@pytest.mark.real_time("bounds a real duration")
async def test_closing_says_goodbye_to_everyone_at_once() -> None:
    async with aiohttp.ClientSession() as http:
        async with trading() as caller:
            caller = Caller(caller.exchange, http, caller.clock)
            await caller.log_in_again()
            markets, orders = [], []
            for _ in range(5):
                market = MarketReader(await http.ws_connect(caller.exchange.feed_url))
                await market.authenticate(caller.login_data["ucc"], caller.login_data["sid"])
                await market.subscribe(Stream.LITE, ITBEES)
                markets.append(market)
                websocket = await http.ws_connect(caller.exchange.realtime_url)
                orders.append(OrderReader(websocket))
            reading = [asyncio.create_task(ended(reader)) for reader in (*markets, *orders)]
            began = time.perf_counter()
        assert time.perf_counter() - began < 0.5
        await asyncio.gather(*reading)
        assert {reader.websocket.close_code for reader in (*markets, *orders)} == {1001}


@pytest.mark.real_time("bounds a real duration")
async def test_closing_does_not_wait_for_those_who_do_not_answer() -> None:
    async with aiohttp.ClientSession() as http:
        async with trading() as caller:
            caller = Caller(caller.exchange, http, caller.clock)
            await caller.log_in_again()
            silent = MarketReader(await http.ws_connect(caller.exchange.feed_url))
            await silent.authenticate(caller.login_data["ucc"], caller.login_data["sid"])
            caller.exchange.feeds.stall()
            began = time.perf_counter()
        assert time.perf_counter() - began < 2
        await silent.websocket.close()


async def test_readers_that_come_and_go_leave_nothing_behind() -> None:
    async with trading() as caller:
        feeds = caller.exchange.feeds
        before = asyncio.all_tasks()
        for _ in range(20):
            async with market_reader(caller) as market, order_reader(caller):
                await market.subscribe(Stream.DEPTH, ITBEES)
                lines = [*feeds.market.connections, *feeds.orders.connections]
            for line in lines:
                await line.closed.wait()
        assert not feeds.market.connections
        assert not feeds.orders.connections
        assert not feeds.orders._by_account
        await asyncio.sleep(0.01)  # the server's own tasks of the closed connections
        assert len(asyncio.all_tasks()) <= len(before) + 1


async def ended(reader: MarketReader | OrderReader) -> None:
    async with asyncio.timeout(5):
        async for _ in reader.websocket:
            pass


async def assert_silent(websocket: aiohttp.ClientWebSocketResponse) -> None:
    with pytest.raises(TimeoutError):
        await websocket.receive(timeout=0.05)
