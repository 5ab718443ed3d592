"""The market feed beside orders, under a slow consumer, and over lost connections.

A part of `python -m benchmarks.feed`, in a process of its own. One client runs all scenes, on
uvloop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import uvloop

from benchmarks.client import client_of
from benchmarks.feed_peers import LEVELS
from benchmarks.feed_server import Plan, instruments
from benchmarks.harness import percentile, resident_bytes
from benchmarks.workers import Channel
from neo_async import NeoClient, OrderSettings, Product, Segment, Side
from neo_async.config import FeedTimings
from neo_async.model.ticks import Tick

SAMPLE_EVERY = 0.05
"""Seconds between two samples of the memory."""
SLOW = 0.001
"""Seconds for which the slow consumer sleeps on each tick."""


class Latency(msgspec.Struct, frozen=True):
    """Figures of a round of orders, one at a time."""

    orders: int
    median_us: float
    p99_us: float
    ticks_a_second: float
    """Ticks a second that reached a consumer in the same loop meanwhile."""


class Memory(msgspec.Struct, frozen=True):
    """Memory and counts of a feed under a slow consumer."""

    samples: list[tuple[int, float]]
    """Ticks so far, and MiB of the process at that moment."""
    decoded: int
    received: int
    conflated: int
    most_pending: int
    seconds: float


class Reconnects(msgspec.Struct, frozen=True):
    """Figures of reconnects, with a value for each loss of the connection."""

    milliseconds: list[float]
    """Time from the request to cut the connection until the first tick of the next one."""
    subscribed: list[int]
    """Instruments that the next connection subscribed."""
    subscribe_frames: list[int]
    """Frames that the next connection subscribed them with."""


async def latency(neo: NeoClient, plan: Plan, *, seconds: float, orders: int) -> Latency:
    """Place orders at a steady rate; a plan without frames means without ticks."""
    if not plan.frames:
        return await _place_at_pace(neo, seconds, orders, lambda: 0)
    async with neo.market_feed(level=LEVELS[plan.level]) as feed:
        await feed.subscribe(instruments(plan.instruments), level=LEVELS[plan.level])
        received = 0
        flowing = asyncio.Event()

        async def consume() -> None:
            nonlocal received
            async for _ in feed:
                received += 1
                flowing.set()

        consumer = asyncio.create_task(consume())
        await flowing.wait()
        result = await _place_at_pace(neo, seconds, orders, lambda: received)
    await consumer
    return result


async def _place_at_pace(
    neo: NeoClient, seconds: float, orders: int, received: Callable[[], int]
) -> Latency:
    clock = time.perf_counter
    times: list[float] = []
    before, started = received(), clock()
    for index in range(int(seconds * orders)):
        await asyncio.sleep(max(0.0, started + index / orders - clock()))
        sent = clock()
        await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.35", product=Product.CNC
        )
        times.append(clock() - sent)
    elapsed = clock() - started
    times.sort()
    return Latency(
        orders=len(times),
        median_us=percentile(times, 0.5) * 1e6,
        p99_us=percentile(times, 0.99) * 1e6,
        ticks_a_second=(received() - before) / elapsed,
    )


async def memory(neo: NeoClient, plan: Plan) -> Memory:
    """Receive the whole plan with a consumer that sleeps on every tick."""
    total = plan.frames * plan.per_frame
    samples: list[tuple[int, float]] = []
    received = most_pending = 0
    started = time.perf_counter()
    async with neo.market_feed(level=LEVELS[plan.level]) as feed:

        async def consume() -> None:
            nonlocal received
            async for _ in feed:
                received += 1
                await asyncio.sleep(SLOW)

        consumer = asyncio.create_task(consume())
        await feed.subscribe(instruments(plan.instruments), level=LEVELS[plan.level])
        while feed.ticks < total:
            await asyncio.sleep(SAMPLE_EVERY)
            samples.append((feed.ticks, resident_bytes() / (1 << 20)))
            most_pending = max(most_pending, feed.pending)
        seconds = time.perf_counter() - started
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        return Memory(samples, feed.ticks, received, feed.lost, most_pending, seconds)


async def reconnects(neo: NeoClient, plan: Plan, url: str, *, drops: int) -> Reconnects:
    """Lose the connection that many times, each time after it was stable."""
    milliseconds: list[float] = []
    subscribed: list[int] = []
    frames: list[int] = []
    arrived = asyncio.Event()
    awaited = 0

    def on_tick(_: Tick) -> None:
        if feed.reconnects >= awaited:
            arrived.set()

    async with (
        aiohttp.ClientSession() as http,
        neo.market_feed(level=LEVELS[plan.level], on_tick=on_tick) as feed,
    ):
        await feed.until_live()
        await feed.subscribe(instruments(plan.instruments), level=LEVELS[plan.level])
        await arrived.wait()
        for _ in range(drops):
            await asyncio.sleep(FeedTimings().stable * 1.1)
            awaited = feed.reconnects + 1
            arrived.clear()
            cut = time.perf_counter()
            async with http.get(f"{url}/drop"):
                await arrived.wait()
            milliseconds.append((time.perf_counter() - cut) * 1e3)
            async with http.get(f"{url}/feeds") as answer:
                known = await answer.json()
            subscribed.append(known["subscribed"])
            frames.append(known["subscribe_frames"])
    return Reconnects(milliseconds, subscribed, frames)


async def _run(neo: NeoClient, url: str, command: dict[str, Any]) -> msgspec.Struct:
    plan = msgspec.convert(command["plan"], Plan)
    if command["scene"] == "latency":
        return await latency(neo, plan, seconds=command["seconds"], orders=command["orders"])
    if command["scene"] == "memory":
        return await memory(neo, plan)
    return await reconnects(neo, plan, url, drops=command["drops"])


def serve(channel: Channel, *, url: str) -> None:
    """Run one scene for each command."""
    neo = client_of(url, orders=OrderSettings(live_updates=False))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(neo.login())
        channel.send({})
        for command in channel:
            channel.send(runner.run(_run(neo, url, command)))
        runner.run(neo.logout())
