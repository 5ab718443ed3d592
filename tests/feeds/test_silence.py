"""Silence that looks healthy is noticed: subscriptions without acknowledgement, feeds of which
nothing can come."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from neo_async.config import FeedTimings
from neo_async.errors import (
    UsageError,
)
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.model.enums import Level
from tests.clients import client_of, exchange_of
from tests.feed_servers import Login, Peer, feed_server, until
from tests.feeds.market_servers import (
    accept,
    lite,
    live,
    opened,
    serve,
)

KNOWN, UNKNOWN = "nse_cm|11536", "nse_cm|999999"
WARNING = "no acknowledgement in 5 s of"


async def test_a_feed_that_cannot_have_ticks_is_not_iterated() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        for feed in (MarketFeed[Any](session, FeedTimings()), ColumnFeed(session, FeedTimings())):
            with pytest.raises(UsageError, match="is not open"):
                await anext(aiter(feed))
        async with opened(server, on_tick=print) as feed:
            with pytest.raises(UsageError, match="calls on_tick"):
                await anext(aiter(feed))
            with pytest.raises(UsageError, match="calls on_tick"):
                await anext(feed.batches())


@pytest.mark.parametrize(("level", "other"), [(Level.LITE, Level.DEPTH), (Level.DEPTH, Level.LITE)])
async def test_a_feed_takes_only_levels_whose_ticks_it_yields(level: Level, other: Level) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        async with neo.market_feed(level=level) as feed:
            with pytest.raises(UsageError, match=rf"level={other.name}: this feed has level"):
                await feed.subscribe([KNOWN], level=other)
            assert feed.subscriptions == 0
            await feed.subscribe([KNOWN])
            async for tick in feed:
                assert tick.level == level
                break
        async with neo.market_feed(level=None) as feed:
            await feed.subscribe([KNOWN], level=level)
            await feed.subscribe([KNOWN], level=other)
            await feed.subscribe([KNOWN])
            await until(lambda: all(feed.latest(KNOWN, level=each) for each in (level, other)))


async def test_ticks_of_another_type_are_dropped_and_counted() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.receive()
        await peer.send(lite(11536))
        await peer.linger()

    async with live(script, level=Level.DEPTH) as (_, feed):
        await feed.subscribe([KNOWN])
        await until(lambda: feed.unasked == 1)
        assert (feed.pending, feed.latest(KNOWN)) == (0, None)


def acknowledging(*names: str) -> Any:
    """Accept, and acknowledge these names of every request."""

    async def script(peer: Peer) -> None:
        await accept(peer)
        while True:
            frame = json.loads(await peer.receive())
            asked = [name for name in frame.get("inputtoken", "").split(",") if name in names]
            ack = {"message_code": 1109, "trading_symbols": dict.fromkeys(asked, "X-EQ")}
            await peer.send(json.dumps(ack))

    return script


async def test_an_unknown_instrument_is_named_until_it_is_unsubscribed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        for feed in (neo.market_feed(), neo.column_feed(level=Level.SCRIP)):
            caplog.clear()
            async with feed:
                await feed.until_live()
                await feed.subscribe([KNOWN, UNKNOWN])
                await asyncio.sleep(4.9)
                assert neo.health().ok
                await asyncio.sleep(0.2)
                assert feed.unacknowledged == (f"{UNKNOWN} (SCRIP)",)
                (problem,) = neo.health().problems
                assert problem == f"the market feed has no acknowledgement of {UNKNOWN} (SCRIP)"
                assert f"{WARNING} {UNKNOWN} (SCRIP)" in caplog.text
                assert KNOWN not in caplog.text
                await feed.unsubscribe([UNKNOWN])
                assert neo.health().ok
            assert neo.health().ok


async def test_an_unknown_instrument_is_logged_once_and_stays_a_problem_over_reconnects(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo, neo.market_feed() as feed:
        await feed.subscribe([KNOWN, UNKNOWN])
        await asyncio.sleep(6)
        exchange.feeds.drop_connections("market")
        await until(lambda: feed.reconnects == 1)
        await asyncio.sleep(6)
        assert feed.unacknowledged == (f"{UNKNOWN} (SCRIP)",)
        assert caplog.text.count(WARNING) == 1


async def test_a_subscription_that_a_new_connection_does_not_acknowledge_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scripts = (acknowledging(KNOWN), acknowledging(), acknowledging(KNOWN))
    async with live(*scripts, level=Level.SCRIP) as (server, feed):
        await feed.subscribe([KNOWN])
        await asyncio.sleep(6)
        assert feed.unacknowledged == ()
        server.peer.drop()
        await asyncio.sleep(6)
        assert feed.unacknowledged == (f"{KNOWN} (SCRIP)",)
        assert KNOWN in caplog.text
        server.peer.drop()
        await asyncio.sleep(6)
        assert feed.unacknowledged == ()


async def test_a_tick_counts_as_an_acknowledgement(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.receive()
        await peer.send(lite(1))
        await peer.linger()

    async with live(script) as (_, feed):
        await feed.subscribe(["nse_cm|1", "nse_cm|2"], level=Level.LITE)
        await asyncio.sleep(6)
        assert feed.unacknowledged == ("nse_cm|2 (LITE)",)
        assert "nse_cm|1" not in caplog.text


async def test_a_long_list_of_unacknowledged_names_is_shortened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with live(serve) as (_, feed):
        await feed.subscribe([f"nse_cm|{token}" for token in range(1, 1001)])
        await asyncio.sleep(6)
        assert len(feed.unacknowledged) == 1000
        assert "and 992 more" in caplog.text


@pytest.mark.parametrize("has_index", [False, True])
async def test_iterating_without_a_subscription_is_logged(
    caplog: pytest.LogCaptureFixture, has_index: bool
) -> None:
    async with live(acknowledging("nse_cm|Nifty 50")) as (_, feed):
        if has_index:
            await feed.subscribe_indices(["nse_cm|Nifty 50"])
        consumer = asyncio.create_task(anext(aiter(feed)))
        await asyncio.sleep(6)
        assert "no instrument is subscribed" in caplog.text
        assert ("indices()" in caplog.text) is has_index
        consumer.cancel()
