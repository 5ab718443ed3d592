"""The rate limiter on a real clock: how exactly it keeps its limit, and the cost of a free pass.

A part of `python -m benchmarks.orders`, in a process of its own; it takes 11 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import uvloop

from benchmarks.harness import summarise
from benchmarks.workers import Channel
from neo_async.config import RateLimits
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter

SECONDS = 10
"""Time over which the sustained rate is taken."""
PASSES = 20_000
BATCHES = 9


async def starts_under_backlog(limits: RateLimits, seconds: int) -> list[float]:
    """Return the start time of each placement, of more than the limit allows in `seconds`."""
    limiter = Limiter(limits)
    starts: list[float] = []

    async def place() -> None:
        await limiter.acquire(Kind.PLACE)
        starts.append(time.monotonic())

    await asyncio.gather(*(place() for _ in range(limits.orders * (seconds + 1))))
    return starts


def most_in_a_second(starts: Sequence[float]) -> int:
    """Return the number of starts in the fullest window of one second, wherever it begins."""
    most = first = 0
    for last, start in enumerate(starts):
        while start - starts[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def sustained_rate(starts: Sequence[float], burst: int) -> float:
    """Return starts a second after the opening burst, which an idle limiter allows at once."""
    return (len(starts) - burst) / (starts[-1] - starts[burst - 1])


async def free_pass_us() -> float:
    """Return the microseconds of one `acquire` that need not wait: the median of the batches."""
    limiter = Limiter(RateLimits(orders=10**6, total=10**6))
    batches = []
    for _ in range(BATCHES):
        before = time.perf_counter()
        for _ in range(PASSES):
            await limiter.acquire(Kind.PLACE)
        batches.append((time.perf_counter() - before) / PASSES * 1e6)
    return summarise(batches).median


async def measure() -> dict[str, float]:
    limits = RateLimits()
    free_us = await free_pass_us()
    starts = await starts_under_backlog(limits, SECONDS)
    return {
        "limit": limits.orders,
        "most_in_a_second": most_in_a_second(starts),
        "sustained": sustained_rate(starts, burst=limits.orders),
        "free_us": free_us,
    }


def serve(channel: Channel) -> None:
    """Measure, and send the figures."""
    channel.send(uvloop.run(measure()))
