"""Ticks of one level as columns of numpy arrays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.config import FeedTimings
from neo_async.errors import (
    UsageError,
)
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.model.enums import Level
from tests.clients import client_of, exchange_of
from tests.feed_servers import Login, Peer, feed_server, until
from tests.feeds.market_servers import (
    accept,
    lite,
    scrip,
    sending,
    serve,
    take_all,
)
from tests.simulation.virtual_time import in_virtual_time


@contextlib.asynccontextmanager
async def columns(
    *scripts: Callable[[Peer], Awaitable[None]], **settings: Any
) -> AsyncIterator[ColumnFeed]:
    async with feed_server(*scripts) as server:
        session: Any = Login(server)
        async with ColumnFeed(session, FeedTimings(), **settings) as feed:
            take_all(feed)
            await feed.until_live()
            yield feed


async def test_columns_hold_all_ticks_since_the_last_step() -> None:
    async with columns(sending(lite(1, 10.5), lite(2, 20.5) + scrip(3), lite(1, 11.0))) as feed:
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [1, 2, 1]
        assert table["last_price"].tolist() == [10.5, 20.5, 11.0]
        assert feed.lost == 0


async def test_a_consumer_of_columns_waits_for_ticks_and_ends_with_the_feed() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        for number in range(3):
            await asyncio.sleep(1)
            await peer.send(lite(number), scrip(number))
        await peer.linger()

    tokens: list[int] = []

    async def consume(feed: ColumnFeed) -> None:
        async for table in feed:
            tokens.extend(table["token"].tolist())

    async with columns(script) as feed:
        consumer = asyncio.create_task(consume(feed))
        await until(lambda: len(tokens) == 3, every=0.05)
        with pytest.raises(UsageError, match="two consumers"):
            await consume(feed)
        await feed.close()
        await consumer
        assert tokens == [0, 1, 2]


async def test_the_oldest_messages_are_dropped_when_columns_are_not_taken() -> None:
    big = b"".join(lite(9, 1.0) for _ in range(10))
    async with columns(sending(lite(1), lite(2), lite(3), big), bound=200) as feed:
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [9] * 10, "the newest is kept, whatever its size"
        assert feed.lost == 3


async def test_columns_of_a_level_that_has_none_are_refused() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        with pytest.raises(UsageError, match="lite"):
            ColumnFeed(session, FeedTimings(), level=3)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="FULL_DEPTH"):
            ColumnFeed(session, FeedTimings(), level=Level.FULL_DEPTH)


async def test_columns_hold_subscribed_instruments_only() -> None:
    async with columns(sending(lite(9001), lite(9002, 20.5) + lite(9001), lite(9002))) as feed:
        await feed.subscribe(["nse_cm|9002"], level=Level.LITE)
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [9002, 9002]
        assert feed.unasked == 2


KNOWN = "nse_cm|11536"


async def test_a_column_feed_subscribes_its_own_level_and_no_other() -> None:
    async with (
        exchange_of(market_makers=True) as exchange,
        client_of(exchange) as neo,
        neo.column_feed() as feed,
    ):
        await feed.subscribe([KNOWN])
        columns = await anext(aiter(feed))
        assert columns["token"].tolist() == [11536]
        for call in (feed.subscribe, feed.unsubscribe, feed.snapshot):
            with pytest.raises(UsageError, match="level=SCRIP: this column feed has level LITE"):
                await call([KNOWN], level=Level.SCRIP)


# --- without a connection -------------------------------------------------------------------------


async def test_a_column_feed_has_one_level_which_is_lite_unless_another_is_given() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        assert ColumnFeed(session, FeedTimings()).level is Level.LITE
        for level in (Level.LITE, Level.SCRIP, Level.DEPTH):
            feed = ColumnFeed(session, FeedTimings(), level=level)
            assert feed.level is level
            await feed.subscribe([KNOWN], level=level)
            assert feed.subscriptions == 1
            await feed.unsubscribe([KNOWN])
            assert feed.subscriptions == 0


@settings(max_examples=15, deadline=None)  # each example is a connection
@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=3), min_size=1, max_size=6))
@in_virtual_time
async def test_columns_hold_every_tick_of_the_level_in_the_order_of_arrival(
    batches: list[list[int]],
) -> None:
    messages = [b"".join(map(lite, batch)) for batch in batches]
    async with columns(sending(*messages)) as feed:
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [token for batch in batches for token in batch]
        assert (feed.lost, feed.unasked) == (0, 0)
