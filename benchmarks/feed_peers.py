"""The peers of the feed benchmark: each takes the same frames in its own way.

A round is a connection of its own: its clock runs from the moment of subscribing, when the server
begins to send, to the last tick at the consumer. Every consumer does the same with a tick: it
counts it and compares its time with that of the last one. The loops run on uvloop.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop

from benchmarks.client import UCC, client_of
from benchmarks.feed_server import LAST_TIME, LAST_TOKEN, Plan, instrument, instruments
from benchmarks.workers import Channel
from neo_async import Level, NeoClient, OrderSettings
from neo_async.feeds.buffers import Policy
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.subscriptions import BUDGET
from neo_async.model.ticks import LiteTick
from neo_async.wire.feed import LITE, ROW, SCRIP

LEVELS = {"lite": Level.LITE, "depth": Level.DEPTH}


class FeedSample(msgspec.Struct, frozen=True):
    """Figures of a round of one peer."""

    received: int
    """Ticks that reached the consumer."""
    lost: int
    """Ticks that the peer reports as conflated."""
    seconds: float
    cpu_us: float
    """Processor time of the peer's process for one tick that was sent."""


class Stopwatch:
    """Wall and processor time from `start` to `sample`."""

    def start(self) -> None:
        self._cpu = time.process_time()
        self._started = time.perf_counter()

    def sample(self, received: int, lost: int = 0) -> FeedSample:
        seconds = time.perf_counter() - self._started
        cpu = time.process_time() - self._cpu
        return FeedSample(received, lost, seconds, cpu / (received + lost) * 1e6)


class Peer(ABC):
    """A way of taking the feed."""

    def __init__(self, url: str, level: str) -> None:
        self.url = url
        self.level = level

    @abstractmethod
    async def round(self, plan: Plan) -> FeedSample:
        """Connect, subscribe, and take every tick of the plan."""


class NeoAsync(Peer):
    """`async for tick in neo.market_feed()`, with the default policy."""

    policy = Policy.CONFLATE

    async def round(self, plan: Plan) -> FeedSample:
        async with (
            client_of(self.url, orders=OrderSettings(live_updates=False)) as neo,
            self.feed(neo) as feed,
        ):
            await feed.until_live()
            watch = Stopwatch()
            watch.start()
            await feed.subscribe(instruments(plan.instruments), level=LEVELS[self.level])
            return watch.sample(await self.take(feed), feed.lost)

    def feed(self, neo: NeoClient) -> MarketFeed[Any]:
        return neo.market_feed(level=LEVELS[self.level], policy=self.policy)

    async def take(self, feed: MarketFeed[Any]) -> int:
        received = 0
        async for tick in feed:
            received += 1
            if tick.last_trade_time == LAST_TIME:  # type: ignore[union-attr]
                return received
        return received


class NeoAsyncBlock(NeoAsync):
    """`async for tick in neo.market_feed()`, with the policy that loses nothing."""

    policy = Policy.BLOCK


class NeoAsyncBatches(NeoAsync):
    """`async for ticks in feed.batches()`, losing nothing."""

    policy = Policy.BLOCK

    async def take(self, feed: MarketFeed[Any]) -> int:
        received = 0
        async for ticks in feed.batches():
            for tick in ticks:
                received += 1
                if tick.last_trade_time == LAST_TIME:  # type: ignore[union-attr]
                    return received
        return received


class NeoAsyncCallback(NeoAsync):
    """`neo.market_feed(on_tick=…)`."""

    def feed(self, neo: NeoClient) -> MarketFeed[Any]:
        self.received = 0
        self.ended = asyncio.Event()
        return neo.market_feed(level=LEVELS[self.level], on_tick=self.on_tick)

    def on_tick(self, tick: Any) -> None:
        self.received += 1
        if tick.last_trade_time == LAST_TIME:
            self.ended.set()

    async def take(self, feed: MarketFeed[Any]) -> int:
        await self.ended.wait()
        return self.received


class NeoAsyncColumns(Peer):
    """`neo.column_feed()`; the consumer computes the six columns of a touch line and sums one."""

    columns = (
        "token",
        "last_price",
        "close",
        "change_percent",
        "last_quantity",
        "last_trade_time",
    )

    async def round(self, plan: Plan) -> FeedSample:
        async with (
            client_of(self.url, orders=OrderSettings(live_updates=False)) as neo,
            neo.column_feed(level=LEVELS[self.level]) as feed,
        ):
            await feed.until_live()
            watch = Stopwatch()
            watch.start()
            await feed.subscribe(instruments(plan.instruments), level=LEVELS[self.level])
            received = await self.take(feed)
            if feed.lost:
                raise AssertionError(f"{feed.lost} messages were dropped")
            return watch.sample(received)

    async def take(self, feed: ColumnFeed) -> int:
        received = 0
        async for columns in feed:
            received += len(columns)
            values = {name: columns[name] for name in self.columns}
            if values["last_trade_time"][-1] == LAST_TIME:
                return received
        return received


class KotakNeoApi(Peer):
    """The official SDK's `SFeedWebSocket`, unmodified, with its logging off.

    On asyncio's own loop it takes a fifth longer.
    """

    def __init__(self, url: str, level: str) -> None:
        from neo_api_client.logger import NOLOG, setup_logging

        super().__init__(url, level)
        setup_logging(level=NOLOG, file_level=NOLOG)

    async def round(self, plan: Plan) -> FeedSample:
        from neo_api_client.websocket.feed.client import SFeedWebSocket
        from neo_api_client.websocket.feed.models import WsToken

        tokens = [WsToken(*name.split("|")) for name in instruments(plan.instruments)]
        url = self.url.replace("http", "ws", 1) + "/apifeed"
        received = 0
        async with SFeedWebSocket(user=UCC, auth="trade-sid", url=url) as feed:
            subscribe = {"lite": feed.subscribe_scrips_lite, "depth": feed.subscribe_depth}
            watch = Stopwatch()
            watch.start()
            await subscribe[self.level](tokens)
            async for message in feed:
                received += 1
                if message.last_trade_time == LAST_TIME:
                    break
            return watch.sample(received)


class BareLoop(Peer):
    """The limit: an aiohttp websocket and a loop that unpacks each packet into a tuple.

    Prices stay the integers of the wire, and packets are distinguished by their length only.
    """

    async def round(self, plan: Plan) -> FeedSample:
        import aiohttp

        take = {"lite": self.take_lite, "depth": self.take_depth}[self.level]
        url = self.url.replace("http", "ws", 1) + "/apifeed"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            await socket.send_str('{"user":"ABC12","auth":"trade-sid","format":"native_batch"}')
            await socket.receive_str()
            event = {"lite": "subscribeScripsLite", "depth": "subscribeDepth"}[self.level]
            names = ",".join(instruments(plan.instruments))
            watch = Stopwatch()
            watch.start()
            await socket.send_str(json.dumps({"event": event, "inputtoken": names}))
            await socket.receive_str()
            return watch.sample(await take(socket))

    async def take_lite(self, socket: Any) -> int:
        unpack = LITE.unpack_from
        received = 0
        async for message in socket:
            frame = message.data
            at, end = 0, len(frame)
            while at < end:
                fields = unpack(frame, at)
                at += fields[0]
                received += 1
                if fields[8] == LAST_TIME:
                    return received
        return received

    async def take_depth(self, socket: Any) -> int:
        unpack, rows_of, fixed = SCRIP.unpack_from, ROW.iter_unpack, SCRIP.size
        received = 0
        async for message in socket:
            frame = message.data
            at, end = 0, len(frame)
            while at < end:
                fields = unpack(frame, at)
                rows = [*rows_of(frame[at + fixed : at + fields[0]])]
                at += fields[0]
                received += 1
                if fields[11] == LAST_TIME and rows:
                    return received
        return received


class BareStructs(BareLoop):
    """The bare loop that makes the structs of `neo_async`, with prices in rupees: the limit for
    typed ticks."""

    async def take_lite(self, socket: Any) -> int:
        unpack, now = LITE.unpack_from, time.time_ns
        names = {int(name.partition("|")[2]): name for name in instruments(BUDGET)}
        names[LAST_TOKEN] = instrument(LAST_TOKEN)
        received = 0
        async for message in socket:
            frame = message.data
            at, end, received_ns = 0, len(frame), now()
            while at < end:
                (
                    size,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    token,
                    last_trade_time,
                    last_price,
                    last_quantity,
                    close,
                    change_percent,
                    change,
                    lot_size,
                    precision,
                    multiplier,
                ) = unpack(frame, at)
                tick = LiteTick(
                    names[token],
                    "",
                    last_price / 100,
                    last_trade_time,
                    last_quantity,
                    close / 100,
                    change / 100,
                    change_percent / 100,
                    lot_size,
                    precision,
                    multiplier,
                    received_ns,
                )
                at += size
                received += 1
                if tick.last_trade_time == LAST_TIME:
                    return received
        return received


PEERS: dict[str, Callable[[str, str], Peer]] = {
    "bare_loop": BareLoop,
    "bare_structs": BareStructs,
    "neo_async": NeoAsync,
    "neo_async_block": NeoAsyncBlock,
    "neo_async_batches": NeoAsyncBatches,
    "neo_async_callback": NeoAsyncCallback,
    "kotakneoapi": KotakNeoApi,
    "columns": NeoAsyncColumns,
}


def serve(channel: Channel, *, name: str, url: str, level: str) -> None:
    """Measure one peer at one level, one round for each plan."""
    peer = PEERS[name](url, level)
    channel.send({})
    for command in channel:
        channel.send(uvloop.run(peer.round(msgspec.convert(command, Plan))))
