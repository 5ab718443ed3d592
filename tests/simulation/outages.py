"""An exchange that is away for 5 s, under a bot that places orders at the rate limit.

The exchange is a process with a state file. It is killed and started again on the same port, or
stopped and continued (its sockets stay open meanwhile, without answers). The bot attempts more
orders than the limit allows, all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.limiter import most_in_a_second
from neo_async import (
    Credentials,
    Endpoints,
    NeoClient,
    NeoError,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
)
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter

ROOT = Path(__file__).resolve().parents[2]
LIMITS = RateLimits()
AT_LIMIT = LIMITS.orders - 1
"""Orders in a second that count as the full rate: the limiter's margin and one read of the order
book use the rest."""
AT_ONCE = 40
OUTAGE = 5.0
BEFORE = 5.0
AFTER = 8.0
TOTP_STEP = 30.0


class Outage(msgspec.Struct):
    """One outage, and the bot's rate of orders around it."""

    kind: str
    """`killed` or `stopped`."""
    recovery: float
    """Seconds from the server's return to the beginning of the first second at the limit."""
    most_in_a_second: int
    """Most order requests that the limiter started within any second."""
    before: float
    """Orders a second before the outage."""
    after: float
    """Orders a second after the recovery."""
    unknown: int
    """Callers that got OutcomeUnknown."""
    lost: int
    """Orders that only the ledger or only a caller has."""


class _Server:
    """The exchange, as a process that can be killed, stopped and started again."""

    def __init__(self, folder: str) -> None:
        self._state = Path(folder, "exchange.db")
        self._port = 0
        self._process: asyncio.subprocess.Process
        self.ready: dict[str, object] = {}

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "neo_async", "exchange", "--port", str(self._port)),
            *("--state", str(self._state), "--seed", "1"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.ready = json.loads(await self._process.stdout.readline())
        self._port = int(str(self.ready["login_url"]).rpartition(":")[2])

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    def send(self, sign: signal.Signals) -> None:
        os.kill(self._process.pid, sign)

    async def admin(self, name: str) -> list[dict[str, object]]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.ready['admin_url']}/{name}") as answer,
        ):
            content: list[dict[str, object]] = await answer.json()
            return content


class _Starts:
    """Records when the limiter started order requests, without those that it took back."""

    def __init__(self, limiter: Limiter) -> None:
        self.times: list[float] = []
        remember, forget = limiter._remember, limiter._forget

        def remembering(kind: Kind, started: float) -> None:
            remember(kind, started)
            if kind is not Kind.READ:
                self.times.append(started)

        def forgetting(kind: Kind, started: float) -> None:
            forget(kind, started)
            if kind is not Kind.READ:
                self.times.remove(started)

        limiter._remember = remembering  # type: ignore[method-assign]
        limiter._forget = forgetting  # type: ignore[method-assign]


class _Bot:
    """Places more orders than the limit allows, and records when each was accepted."""

    def __init__(self, neo: NeoClient) -> None:
        self._neo = neo
        self.accepted: list[float] = []
        self.numbers: set[str] = set()
        self.unknown = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._place()) for _ in range(AT_ONCE)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _place(self) -> None:
        while True:
            try:
                order = await self._neo.orders.place(
                    Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, price="38.00", product=Product.CNC
                )
            except OutcomeUnknown:
                self.unknown += 1
            except NeoError:
                await asyncio.sleep(0.1)
            else:
                self.accepted.append(time.time())
                self.numbers.add(order.number)


async def measure(kind: str) -> Outage:
    """Measure one outage, `killed` or `stopped`."""
    with tempfile.TemporaryDirectory() as folder:
        server = _Server(folder)
        await server.start()
        accounts = msgspec.convert(server.ready["accounts"], list[Credentials])
        endpoints = Endpoints(login=str(server.ready["login_url"]))
        async with NeoClient(accounts[0], endpoints=endpoints, limits=LIMITS) as neo:
            logged_in = time.time()
            starts = _Starts(neo.limiter)
            bot = _Bot(neo)
            bot.start()
            await asyncio.sleep(BEFORE)
            if kind == "killed":
                # The restarted exchange needs a new login, and each TOTP code works once. That wait
                # is not measured here, so the outage ends in a later TOTP step.
                step_ends = (logged_in // TOTP_STEP + 1) * TOTP_STEP
                await asyncio.sleep(max(0.0, step_ends - OUTAGE - time.time() + 1.0))
            went = time.time()
            if kind == "killed":
                await server.kill()
                await asyncio.sleep(OUTAGE)
                await server.start()
            else:
                server.send(signal.SIGSTOP)
                await asyncio.sleep(OUTAGE)
                server.send(signal.SIGCONT)
            back = time.time()
            await asyncio.sleep(AFTER)
            until = time.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    while neo._engine.in_flight_requests:  # noqa: ASYNC110 - has no event
                        await asyncio.sleep(0.1)
            await bot.stop()
            ledger = await server.admin("ledger")
        await server.kill()
    recovered = _recovered(bot.accepted, back)
    return Outage(
        kind=kind,
        recovery=recovered - back,
        most_in_a_second=most_in_a_second(sorted(starts.times)),
        before=_rate(bot.accepted, went - BEFORE + 1, went),
        after=_rate(bot.accepted, recovered, until),
        unknown=bot.unknown,
        lost=len({str(one["number"]) for one in ledger} ^ bot.numbers),
    )


def _rate(times: Sequence[float], begin: float, end: float) -> float:
    return sum(begin <= at < end for at in times) / (end - begin) if end > begin else 0.0


def _recovered(accepted: Sequence[float], back: float) -> float:
    """Return when the first second at the full rate began."""
    later = [at for at in accepted if at >= back]
    for first, begin in enumerate(later):
        if sum(begin <= at < begin + 1 for at in later[first:]) >= AT_LIMIT:
            return begin
    return float("inf")
