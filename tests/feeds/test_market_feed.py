"""The client's market feed against servers that follow a script, and against the exchange."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from neo_async import NeoClient
from neo_async.errors import (
    UsageError,
)
from neo_async.exchange import Exchange, FeedSettings
from neo_async.exchange.feeds.settings import AuthAnswer
from neo_async.exchange.tls import self_signed
from neo_async.feeds.buffers import Policy
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.subscriptions import BUDGET
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedState
from neo_async.model.ticks import (
    LiteTick,
    MarketState,
    ScripTick,
    Tick,
)
from neo_async.wire.feed import acknowledgement_frame
from tests.clients import client_of, exchange_of
from tests.exchange_settings import exchange_with
from tests.feed_servers import Peer, feed_server, until
from tests.feeds.market_servers import (
    accept,
    frames,
    index,
    lite,
    live,
    next_ticks,
    opened,
    scrip,
    sending,
    serve,
    status,
    subscribed,
    take_all,
)
from tests.simulation.virtual_time import in_virtual_time

# --- subscriptions ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Nifty 50", "26000"])
def test_an_index_comes_under_the_name_by_which_it_was_subscribed(name: str) -> None:
    ack = {"message_code": 1109, "trading_symbols": {f"nse_cm|{name}": "Nifty 50-IN"}}

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.receive()
        await peer.send(index(26000, "Nifty 50"), json.dumps(ack), index(26000, "Nifty 50"))
        await peer.linger()

    @in_virtual_time
    async def check() -> None:
        async with live(script, policy=Policy.BLOCK) as (_, feed):
            await feed.subscribe_indices([f"nse_cm|{name}"])
            values = feed.indices()
            first, second = [await anext(values) for _ in range(2)]
            assert first.instrument == second.instrument == f"nse_cm|{name}"
            assert (first.symbol, second.symbol) == ("", "Nifty 50-IN")
            assert second.change == pytest.approx(150)
            assert feed.latest_index(f"nse_cm|{name}") == second
            with pytest.raises(UsageError, match="latest_index"):
                feed.latest(f"nse_cm|{name}")

    check()


async def test_the_latest_tick_is_that_of_a_level_or_of_any() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        for message in (lite(1, 10.0), scrip(1, 11.0), scrip(1, 12.0, Level.DEPTH), lite(1, 13.0)):
            await peer.send(message)
            await asyncio.sleep(0.01)
        await peer.linger()

    async with live(script) as (_, feed):
        await until(lambda: feed.ticks == 4)
        prices = {level: feed.latest("nse_cm|1", level=level) for level in Level}
        assert {level: getattr(tick, "last_price", None) for level, tick in prices.items()} == {
            Level.LITE: 13.0,
            Level.SCRIP: 11.0,
            Level.DEPTH: 12.0,
            Level.FULL_DEPTH: None,
        }
        assert feed.latest("nse_cm|1") == prices[Level.LITE]
        assert feed.latest("nse_cm|1", level="depth") == prices[Level.DEPTH]
        assert feed.latest("nse_cm|2") is None


# --- reconnecting -----------------------------------------------------------------------------


async def test_all_subscriptions_are_sent_again_after_a_reconnect_and_the_consumer_goes_on() -> (
    None
):
    prices: list[float] = []

    async def consume(feed: MarketFeed) -> None:
        async for tick in feed:
            assert isinstance(tick, LiteTick)
            prices.append(tick.last_price)

    async def ticking(peer: Peer) -> None:
        await accept(peer)
        await peer.send(lite(500, float(len(server.peers))))
        await peer.linger()

    async with feed_server(ticking) as server, opened(server) as feed:
        events: list[FeedState] = []
        feed.on_event(lambda event: events.append(event.state))
        lives: list[int] = []
        feed.on_live(lambda: lives.append(len(server.peers)))
        await feed.until_live()
        consumer = asyncio.create_task(consume(feed))
        tokens = [f"nse_cm|{token}" for token in range(900)]
        await feed.subscribe(tokens, level=Level.LITE)
        await feed.subscribe(tokens, level=Level.SCRIP)
        await feed.subscribe_indices(["nse_cm|Nifty 50"])
        await feed.subscribe_status()
        await feed.unsubscribe(tokens[:400], level=Level.SCRIP)
        await feed.snapshot(["nse_cm|5000"])
        await until(lambda: len(frames(server.peer)) == 6)
        before = subscribed(server.peer)
        assert len(before["Scrips"]) == 500
        server.peer.drop()
        await until(lambda: feed.reconnects == 1)
        await until(lambda: len(frames(server.peer)) == 4)
        assert subscribed(server.peer) == before
        await feed.unsubscribe(tokens, level=Level.LITE)
        await server.peer.close(1001)
        await until(lambda: feed.reconnects == 2)
        await until(lambda: len(frames(server.peer)) == 3)
        del before["ScripsLite"]
        assert subscribed(server.peer) == before
        await until(lambda: prices == [1.0, 2.0, 3.0])
        assert events == [
            FeedState.CONNECTING,
            *[FeedState.LIVE, FeedState.WAITING, FeedState.CONNECTING] * 2,
            FeedState.LIVE,
        ]
        assert lives == [1, 2, 3]
        assert feed.last_gap is not None
        await feed.close()
        await consumer
        assert feed.state is FeedState.CLOSED


async def test_garbage_and_cut_batches_do_not_end_the_feed() -> None:
    garbage = [
        "", "{", "[]", "null", "\x00", '{"message_code":"x"}', b"", b"\x00", os.urandom(300),
        (lite(1) + scrip(2))[:-1], b"\xff\xff" + bytes(60),
    ]  # fmt: skip
    async with live(sending(*garbage, lite(3, 33.0))) as (_, feed):
        await until(lambda: feed.latest("nse_cm|3"))
        assert feed.latest("nse_cm|1"), "what came whole before the cut counts"
        assert feed.reconnects == 0
        assert feed.is_live


async def test_a_callback_or_listener_that_fails_ends_nothing() -> None:
    taken: list[str] = []

    def callback(tick: Tick) -> None:
        taken.append(tick.instrument)
        raise LookupError("a mistake of the user's")

    def listener(*_: object) -> None:
        raise LookupError("another one")

    async with (
        feed_server(sending(lite(1) + lite(2))) as server,
        opened(server, on_tick=callback) as feed,
    ):
        feed.on_event(listener)
        feed.on_live(listener)
        await until(lambda: len(taken) == 2)
        server.peer.drop()
        await until(lambda: len(taken) == 4)
        assert feed.reconnects == 1
        assert feed.pending == 0


async def test_a_callback_that_raises_cancelled_error_ends_nothing() -> None:
    ticks: list[Tick] = []
    ended = asyncio.get_running_loop().create_future()
    ended.cancel()

    def on_tick(tick: Tick) -> None:
        ticks.append(tick)
        ended.result()  # raises CancelledError

    async with live(sending(lite(1), lite(2), lite(3)), on_tick=on_tick) as (_, feed):
        await until(lambda: len(ticks) == 3)
        assert feed.is_live


async def test_the_last_price_is_that_of_the_newest_tick_of_any_level_that_has_one() -> None:
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|1"], level=Level.LITE)
        await server.peer.send(lite(1, 10.0))
        await until(lambda: feed.last_price("nse_cm|1") == 10.0)
        await server.peer.send(scrip(1, 11.0))  # as a snapshot is
        await until(lambda: feed.last_price("nse_cm|1") == 11.0)
        await server.peer.send(lite(1, 0.0), lite(2, 12.0))
        await until(lambda: feed.ticks == 4)
        assert feed.last_price("nse_cm|1") == 11.0
        assert feed.last_price("nse_cm|2") is None, "it is not subscribed"
        tick = feed.last_tick("nse_cm|1")
        assert isinstance(tick, ScripTick)
        feed._latest[Level.SCRIP]["nse_cm|1"] = msgspec.structs.replace(
            tick, last_price=float("inf")
        )
        assert feed.last_price("nse_cm|1") is None


# --- the consumer -----------------------------------------------------------------------------


async def test_breaking_off_an_iteration_and_iterating_again_loses_nothing() -> None:
    batch = b"".join(lite(token) for token in range(10))
    async with live(sending(batch)) as (_, feed):
        taken = [await next_ticks(feed, 3), await next_ticks(feed, 1)]
        assert feed.pending == 6
        async for ticks in feed.batches():
            taken.append(ticks)
            break
        names = [tick.instrument for ticks in taken for tick in ticks]
        assert names == [f"nse_cm|{token}" for token in range(10)]
        assert (feed.ticks, feed.lost, feed.pending) == (10, 0, 0)


async def test_a_consumer_whose_wait_timed_out_may_iterate_again() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await asyncio.sleep(10)
        await peer.send(lite(1))
        await peer.linger()

    async with live(script) as (_, feed):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await next_ticks(feed, 1)
        [tick] = await next_ticks(feed, 1)
        assert tick.instrument == "nse_cm|1"


async def test_two_consumers_are_an_error() -> None:
    async with live(serve) as (_, feed):
        first = asyncio.create_task(next_ticks(feed, 1))
        await asyncio.sleep(0.1)
        with pytest.raises(UsageError, match="two consumers"):
            await next_ticks(feed, 1)
        first.cancel()
        await asyncio.wait([first])


async def test_iteration_ends_after_what_was_pending_when_the_feed_closes() -> None:
    async with live(sending(lite(1), lite(2))) as (_, feed):
        await until(lambda: feed.pending == 2)
        await feed.close()
        assert [tick.instrument async for tick in feed] == ["nse_cm|1", "nse_cm|2"]
        assert [tick async for tick in feed] == []


async def test_a_waiting_consumer_is_released_when_the_feed_closes() -> None:
    async with live(serve) as (_, feed):
        waiting = asyncio.create_task(next_ticks(feed, 1))
        await asyncio.sleep(1)
        await feed.close()
        assert await waiting == []


async def test_with_policy_conflate_a_slow_consumer_gets_the_newest_tick_of_each() -> None:
    messages = [lite(token, float(turn)) for turn in range(1, 51) for token in (1, 2, 3)]
    async with live(sending(*messages, scrip(1, 99.0))) as (_, feed):
        await until(lambda: feed.ticks == 151)
        assert feed.pending == 4
        assert feed.lost == 147
        ticks = await next_ticks(feed, 4)
        assert [(tick.instrument, getattr(tick, "last_price", 0)) for tick in ticks] == [
            ("nse_cm|1", 50.0),
            ("nse_cm|2", 50.0),
            ("nse_cm|3", 50.0),
            ("nse_cm|1", 99.0),
        ]


async def test_with_policy_block_the_server_is_held_up_for_a_slow_consumer() -> None:
    async def flood(peer: Peer) -> None:
        await accept(peer)
        for number in range(100):
            await peer.send(lite(number))
        await peer.linger()

    async with live(
        flood,
        policy=Policy.BLOCK,
        bound=10,
        market_open=lambda: True,
        timings={"silence": 10, "ping": 4, "pong": 2},
    ) as (server, feed):
        await feed.subscribe(["nse_cm|1"])
        await asyncio.sleep(100)
        assert feed.pending == feed.ticks == 10
        assert feed.state is FeedState.LIVE
        assert (feed.stalls, feed.reconnects) == (0, 0)
        assert server.peer.pings > 20
        ticks = await next_ticks(feed, 100)
        assert [tick.instrument for tick in ticks] == [f"nse_cm|{n}" for n in range(100)]
        assert feed.lost == 0


async def test_with_policy_block_memory_stays_bounded_over_reconnects_without_a_consumer() -> None:
    async def flood(peer: Peer) -> None:
        await accept(peer)
        await peer.send(*[lite(number) for number in range(20)])
        await asyncio.sleep(2)
        peer.drop()

    async with live(flood, policy=Policy.BLOCK, bound=10, timings={"ping": 0.5}) as (_, feed):
        await until(lambda: feed.reconnects == 10, every=0.1)
        assert feed.pending == 10
        assert feed.lost + feed.pending == feed.ticks


async def test_with_policy_drop_oldest_the_oldest_ticks_are_dropped() -> None:
    messages = [lite(number) for number in range(25)]
    async with live(sending(*messages), policy=Policy.DROP_OLDEST, bound=10) as (_, feed):
        await until(lambda: feed.ticks == 25)
        assert (feed.pending, feed.lost) == (10, 15)
        ticks = await next_ticks(feed, 10)
        assert [tick.instrument for tick in ticks] == [f"nse_cm|{n}" for n in range(15, 25)]


# --- with client and exchange -----------------------------------------------------------------

TOKENS = ["nse_cm|11536", "nse_cm|2885"]


@contextlib.asynccontextmanager
async def trading(**settings: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    async with exchange_of(**settings) as exchange, client_of(exchange) as neo:
        yield exchange, neo


@pytest.mark.parametrize("answer", list(AuthAnswer))
def test_the_exchange_accepts_the_client(answer: AuthAnswer) -> None:
    @in_virtual_time
    async def check() -> None:
        async with (
            trading(feeds=FeedSettings(auth_answer=answer)) as (_, neo),
            neo.market_feed(level=None) as feed,
        ):
            await feed.subscribe(TOKENS, level=Level.LITE)
            await feed.subscribe(TOKENS, level=Level.DEPTH)
            await feed.subscribe_indices(["nse_cm|Nifty 50"])
            await feed.subscribe_status()
            await until(lambda: len(feed.symbols) == 3, every=0.05)
            assert feed.symbols["nse_cm|2885"] == "RELIANCE-EQ"
            await until(lambda: feed.latest_index("nse_cm|Nifty 50"), every=0.05)
            await until(lambda: feed.latest_status("nse_cm"), every=0.05)
            depth = feed.latest("nse_cm|11536", level=Level.DEPTH)
            assert isinstance(depth, ScripTick)
            assert len(depth.bids) == len(depth.asks) == 5

    check()


async def test_the_feed_survives_garbage_cut_batches_drops_and_ended_sessions() -> None:
    async with trading() as (exchange, neo), neo.market_feed(level=None) as feed:
        await feed.subscribe(TOKENS)
        take_all(feed)
        await until(lambda: feed.latest(TOKENS[1]), every=0.05)
        exchange.feeds.send_garbage("market")
        exchange.feeds.market.publish((lite(1) + lite(2))[:-1])
        await until(lambda: feed.latest("nse_cm|1"), every=0.05)
        exchange.feeds.truncate_batches()
        await feed.snapshot(TOKENS[:1])
        exchange.feeds.market.publish(lite(3))
        await until(lambda: feed.latest("nse_cm|3"), every=0.05)
        for harm in (lambda: exchange.feeds.drop_connections("market"), exchange.end_sessions):
            ticks, reconnects = feed.ticks, feed.reconnects
            harm()
            await until(lambda: feed.reconnects > reconnects, every=0.05)  # noqa: B023
            await until(lambda: feed.ticks > ticks, every=0.05)  # noqa: B023
        assert feed.subscriptions == 2


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_ticks_come_over_tls_on_either_loop(
    loop_factory: Callable[[], Any], tmp_path: Path
) -> None:
    context, authority = self_signed(tmp_path)

    async def main() -> None:
        async with (
            exchange_with(seed=7, tls=context, ca_file=authority, limits=None) as exchange,
            NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
            neo.market_feed(level=None) as feed,
        ):
            await feed.subscribe(TOKENS, level=Level.DEPTH)
            assert len(await next_ticks(feed, 2)) == 2
            exchange.feeds.drop_connections("market")
            await until(lambda: feed.reconnects == 1)
            assert len(await next_ticks(feed, 2)) == 2
            assert feed.last_gap is not None
            assert feed.last_gap < 0.25

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


# --- what was not asked for ---------------------------------------------------------------------


async def test_ticks_of_unsubscribed_instruments_are_dropped_and_counted_and_nothing_is_kept() -> (
    None
):
    unsubscribed = b"".join(lite(token) for token in range(20_000, 30_000))
    names = {f"nse_cm|{number}": "X" for number in range(20_000, 30_000)}
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|11536"], level=Level.LITE)
        await server.peer.send(
            unsubscribed + scrip(40_000) + index(50_000, "Other") + lite(11536, 7.0),
            acknowledgement_frame(names),
            unsubscribed,
            lite(11536, 8.0),
        )
        await until(lambda: feed.ticks == 2)
        ticks = await next_ticks(feed, 1)
        assert {tick.instrument for tick in ticks} == {"nse_cm|11536"}
        assert feed.unasked == 30_002
        assert feed.symbols == {}
        assert feed.latest("nse_cm|20000") is None
        assert sum(map(len, feed._decoder._listed.values())) <= 2


async def test_an_unsubscribed_market_status_is_no_tick_but_sets_the_feeds_trading_hours() -> None:
    async with live(sending(status(MarketState.CLOSED))) as (_, feed):
        await until(lambda: feed.unasked == 1)
        assert feed.ticks == 0
        assert feed.latest_status("nse_cm") is None
        assert "nse_cm" in feed._hours.closed


async def test_nothing_is_kept_of_an_unsubscribed_instrument() -> None:
    ack = acknowledgement_frame({"nse_cm|7000": "X-EQ", "nse_cm|7001": "Y-EQ"})
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|7000", "nse_cm|7001"])
        await feed.subscribe(["nse_cm|7001"], level=Level.LITE)
        await server.peer.send(ack, scrip(7000), scrip(7001))
        await until(lambda: feed.ticks == 2)
        await feed.unsubscribe(["nse_cm|7000", "nse_cm|7001"])
        assert feed.symbols == {"nse_cm|7001": "Y-EQ"}
        assert feed.latest("nse_cm|7000") is None
        assert feed.latest("nse_cm|7001") is not None
        await server.peer.send(scrip(7000), lite(7001))
        await until(lambda: feed.ticks == 3)
        assert feed.latest("nse_cm|7000") is None


async def test_ticks_of_a_snapshot_are_taken_and_only_of_the_newest_ones() -> None:
    async with live(serve) as (server, feed):
        await feed.snapshot(["nse_cm|9000"])
        await server.peer.send(scrip(9000))
        await until(lambda: feed.latest("nse_cm|9000"))
        await feed.snapshot([f"nse_cm|{token}" for token in range(10_000, 10_000 + BUDGET)])
        await server.peer.send(scrip(9000), scrip(10_000))
        await until(lambda: feed.latest("nse_cm|10000"))
        assert feed.latest("nse_cm|9000") is None


@pytest.mark.parametrize("name", ["NIFTY MIDCAP LIQUID FIFTEEN", "Nifty 50", "nifty 50"])
def test_an_index_is_found_by_its_name_whatever_the_packet_has_of_it(name: str) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(serve) as (server, feed):
            await feed.subscribe_indices([f"nse_cm|{name}"])
            await server.peer.send(index(26_000, name.upper()))
            tick = await anext(feed.indices())
            assert tick.instrument == f"nse_cm|{'Nifty 50' if name == 'nifty 50' else name}"
            assert feed.latest_index(f"nse_cm|{name}") == tick

    check()


@pytest.mark.parametrize("level", ["lite", "LITE", "scrip", "depth", 1])
async def test_a_feed_takes_its_level_as_text(level: Any) -> None:
    async with exchange_of(market_makers=True) as exchange, client_of(exchange) as neo:
        async with neo.market_feed(level=level) as feed:
            assert isinstance(feed.level, Level)
            await feed.subscribe(TOKENS)
            async with asyncio.timeout(5):
                tick = await anext(aiter(feed))
            assert isinstance(tick, LiteTick if feed.level is Level.LITE else ScripTick)
        with pytest.raises(UsageError, match="level='deep'"):
            neo.market_feed(level="deep")
        with pytest.raises(UsageError, match=r"policy='all'.*conflate"):
            neo.market_feed(policy="all")  # type: ignore[call-overload]


async def test_a_feed_is_started_and_closed_by_hand() -> None:
    async with exchange_of(market_makers=True) as exchange, client_of(exchange) as neo:
        for feed in (neo.market_feed(), neo.column_feed()):
            with pytest.raises(UsageError, match=r"feed.start\(\)"):
                await anext(aiter(feed))
            feed.start()
            feed.start()
            await feed.subscribe(TOKENS)
            async with asyncio.timeout(5):
                assert await anext(aiter(feed))
            await feed.close()
            assert feed.state is FeedState.CLOSED
