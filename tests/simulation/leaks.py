"""Files, tasks and memory of a client after thousands of faulty requests.

The exchange is a process of its own. The requests are placements of an instrument that is not
listed, cancels of orders that soon are cancelled, and reads: the client need not remember any.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path

import aiohttp
import msgspec

from neo_async import (
    BreakerConfig,
    ConnectionSettings,
    Credentials,
    Endpoints,
    NeoClient,
    NeoError,
    Order,
    OrderSettings,
    Product,
    RateLimits,
    Segment,
    Side,
    Timeouts,
)
from neo_async.exchange import Faults, Uniform

ROOT = Path(__file__).resolve().parents[2]

FAULTS = Faults(
    lose_before=0.08,
    lose_after=0.08,
    hang_before=0.02,
    hang_after=0.02,
    error_before=0.08,
    error_after=0.08,
    malformed=0.08,
    truncated=0.08,
    drip=0.02,
    delay_before=0.1,
    close_idle=0.1,
    close_crossing=0.1,
    delay_seconds=Uniform(low=0.01, high=0.3),
    hang_seconds=1.0,
    drip_seconds=0.2,
)
"""Faults for two requests of three."""
AT_ONCE = 64
ORDERS = 20
WARM_UP = 2_000
RESOLUTION_TIMEOUT = 1.0
IDLE = 20.0
"""Seconds after which idle connections for reads are closed."""


class Usage(msgspec.Struct):
    """Files, tasks and memory of the idle client."""

    files: int
    tasks: int
    mib: float


class Leaks(msgspec.Struct):
    """Usage before and after a number of faulty requests."""

    requests: int
    before: Usage
    """Usage after a warm-up of equally faulty requests."""
    after: Usage
    in_flight: int
    """Requests that are still without an outcome."""
    seconds: float = 0.0


async def measure(requests: int) -> Leaks:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.exchange_server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    try:
        return await _measure(ready, requests)
    finally:
        process.stdin.close()
        await process.wait()


async def _measure(ready: dict[str, object], requests: int) -> Leaks:
    accounts = msgspec.convert(ready["accounts"], list[Credentials])
    began = asyncio.get_running_loop().time()
    async with NeoClient(
        accounts[0],
        endpoints=Endpoints(login=str(ready["login_url"])),
        limits=RateLimits(orders=10_000, total=10_000),
        timeouts=Timeouts(order=0.5, read=0.5),
        # Every request is to be sent.
        connections=ConnectionSettings(breaker=BreakerConfig(failures=10**6)),
        orders=OrderSettings(resolution_timeout=RESOLUTION_TIMEOUT),
    ) as neo:
        orders = [
            await neo.orders.place(
                Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="38.00", product=Product.CNC
            )
            for _ in range(ORDERS)
        ]
        await _send(neo, ready, orders, WARM_UP)
        before = await _usage(neo)
        await _send(neo, ready, orders, requests)
        after = await _usage(neo)
        in_flight = len(neo._engine.in_flight_requests)
    seconds = asyncio.get_running_loop().time() - began
    return Leaks(requests, before, after, in_flight, seconds)


async def _set_faults(ready: dict[str, object], faults: Faults) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{ready['admin_url']}/faults", data=msgspec.json.encode(faults)) as answer,
    ):
        answer.raise_for_status()


async def _send(
    neo: NeoClient, ready: dict[str, object], orders: list[Order], requests: int
) -> None:
    """Send that many requests while the faults are on."""
    await _set_faults(ready, FAULTS)
    numbers = iter(range(requests))

    async def work() -> None:
        for number in numbers:
            try:
                if number % 3 == 0:
                    await neo.orders.place(
                        Segment.NSE_CM,
                        "NOSUCH-EQ",
                        Side.BUY,
                        1,
                        price="1",
                        product=Product.CNC,
                        wait_for_outcome=False,
                    )
                elif number % 3 == 1:
                    await neo.orders.cancel(orders[number % len(orders)], wait_for_outcome=False)
                else:
                    await neo.orders.trades()
            except NeoError:
                pass

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await _set_faults(ready, Faults())


async def _usage(neo: NeoClient) -> Usage:
    """Return the usage once every outcome is known and idle connections are closed."""
    in_flight_requests = neo._engine.in_flight_requests
    for _ in range(600):
        if not in_flight_requests:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(IDLE)
    gc.collect()
    return Usage(len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), resident_mib())


def resident_mib() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
