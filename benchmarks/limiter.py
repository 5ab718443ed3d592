"""How exactly the limiter keeps its limit on a real clock, and what a pass costs when it is free.

    python -m benchmarks.limiter [--core N]

takes 11 s and prints one JSON object. `benchmarks.orders` runs it as part of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

import uvloop

from benchmarks.harness import pin, summarise
from neo_async.config import RateLimits
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter

SECONDS = 10
"""Time over which the sustained rate is taken."""
PASSES = 20_000
BATCHES = 9


async def starts_under_backlog(limits: RateLimits, seconds: int) -> list[float]:
    """When each of more placements than fit into `seconds` was let go. Seconds, rising."""
    limiter = Limiter(limits)
    starts: list[float] = []

    async def place() -> None:
        await limiter.acquire(Kind.PLACE)
        starts.append(time.monotonic())

    await asyncio.gather(*(place() for _ in range(limits.orders * (seconds + 1))))
    return starts


def most_in_a_second(starts: Sequence[float]) -> int:
    """The fullest of all windows of one second, wherever it begins."""
    most = first = 0
    for last, start in enumerate(starts):
        while start - starts[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def sustained_rate(starts: Sequence[float], burst: int) -> float:
    """Starts a second after the opening burst, which an idle limiter gives away at once."""
    return (len(starts) - burst) / (starts[-1] - starts[burst - 1])


async def free_pass_us() -> float:
    """Microseconds of one `acquire` that need not wait: median of the batches."""
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter", description=__doc__)
    parser.add_argument("--core", type=int, help="measure on this core")
    pin(parser.parse_args().core)
    print(json.dumps(uvloop.run(measure())), flush=True)


if __name__ == "__main__":
    main()
