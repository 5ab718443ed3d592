"""The cases of the growth benchmark, each in a process of its own with one past."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path

import msgspec
import uvloop

from benchmarks.client import UCC, client_of
from benchmarks.placing import IN_FLIGHT
from benchmarks.workers import Channel
from neo_async import NeoClient, OrderSettings, OutcomeUnknown, Product, Segment, Side
from neo_async.base.india import day_of
from neo_async.config import BreakerConfig, ConnectionSettings, PoolLimits
from neo_async.execution.journal import Journal
from neo_async.model.orders import OrderRow
from neo_async.transport.kinds import Kind

BEAT = 0.001
"""Seconds of the timer that shows how long the loop is held."""
WATCHED = 2.0
"""Seconds after the loss of answers that are part of the measurement."""
FORM = (
    '{"am":"NO","dq":"0","es":"nse_cm","mp":"0","pc":"CNC","pr":"39.00","pt":"L","qt":"10",'
    '"rt":"DAY","tp":"0","ts":"ITBEES-EQ","tt":"B","pf":"N","ig":"abcd000001","os":"NEOTRADEAPI"}'
)


class Sample(msgspec.Struct, frozen=True):
    """Figures of a round of one case."""

    cost: float
    """Processor time in the unit of the case."""
    held_ms: float
    """Longest time for which the event loop was held in one piece."""


class Scale(msgspec.Struct, frozen=True):
    """The size of the past, on one side of a case."""

    past: int
    """Number of earlier orders, starts or rows."""
    pool: int = IN_FLIGHT
    """Maximum of connections."""


class Case(ABC):
    """A measurement in a process of its own, with one past."""

    unit = "µs an order"

    def __init__(self, url: str, scale: Scale, folder: Path) -> None:
        self.url = url
        self.past = scale.past
        self.client = self._client(scale, folder)

    def _client(self, scale: Scale, folder: Path) -> NeoClient:
        return case_client(self.url, PoolLimits(warm=min(2, scale.pool), maximum=scale.pool))

    async def prepare(self) -> None:
        """Log in, and fill in the past."""
        await self.client.login()

    @abstractmethod
    async def measure(self, seconds: float) -> float:
        """Return what the case costs."""

    async def place(self) -> str:
        order = await self.client.orders.place(
            Segment.NSE_CM,
            "ITBEES-EQ",
            Side.BUY,
            10,
            price="39.35",
            product=Product.CNC,
            wait_for_outcome=False,
        )
        return order.number

    async def start_all(self) -> None:
        """Make the limiter remember the starts of the past."""
        for _ in range(self.past):
            await self.client.limiter.acquire(Kind.PLACE)

    async def register_all(self) -> None:
        """Fill the order cache with orders of this client, all complete."""
        today = day_of(time.time())
        for count in range(self.past):
            self.client._engine.cache.register(
                OrderRow(
                    number=f"{today}{count:09d}",
                    status_text="complete",
                    segment="nse_cm",
                    symbol="ITBEES-EQ",
                    side="B",
                    order_type="L",
                    product="CNC",
                    validity="DAY",
                    quantity=10,
                    filled_quantity=10,
                    price=39.0,
                    average_price=39.0,
                    updated_ns=time.time_ns(),
                    gui_order_id=f"abcd{count:08d}",
                ),
                client_tag=f"abcd{count:08d}",
            )

    async def in_flight(self, seconds: float) -> float:
        """Return the processor time of an order in µs, with IN_FLIGHT of them in flight."""
        placed = 0
        end = time.perf_counter() + seconds

        async def work() -> None:
            nonlocal placed
            while time.perf_counter() < end:
                await self.place()
                placed += 1

        before = time.process_time()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return (time.process_time() - before) / placed * 1e6


class Session(Case):
    """A case with one order in flight after a session of many."""

    async def prepare(self) -> None:
        await super().prepare()
        await self.start_all()
        await self.register_all()

    async def measure(self, seconds: float) -> float:
        placed = 0
        end = time.perf_counter() + seconds
        before = time.process_time()
        while time.perf_counter() < end:
            await self.place()
            placed += 1
        return (time.process_time() - before) / placed * 1e6


class Starts(Case):
    """Orders that wait for a connection, so that their start in the limiter moves."""

    async def prepare(self) -> None:
        await super().prepare()
        await self.start_all()

    async def measure(self, seconds: float) -> float:
        return await self.in_flight(seconds)


class Pool(Case):
    """A case with as many orders in flight as the small side has connections."""

    async def measure(self, seconds: float) -> float:
        return await self.in_flight(seconds)


class Lost(Case):
    """Answers that are lost at once while the order cache holds many orders."""

    unit = "µs a lost answer"

    async def prepare(self) -> None:
        await super().prepare()
        await self.register_all()

    async def measure(self, seconds: float) -> float:
        await self.in_flight(0.1)  # opens all connections: the orders are sent at once
        await asyncio.to_thread(self._lose)
        before = time.process_time()
        results = await asyncio.gather(
            *(self.place() for _ in range(IN_FLIGHT)), return_exceptions=True
        )
        await asyncio.sleep(WATCHED * min(1.0, seconds))
        cost = (time.process_time() - before) / IN_FLIGHT * 1e6
        wrong = [result for result in results if not isinstance(result, OutcomeUnknown)]
        if wrong:
            raise AssertionError(f"{len(wrong)} answers were not lost: {wrong[0]!r}")
        return cost

    def _lose(self) -> None:
        with urllib.request.urlopen(f"{self.url}/lose/{IN_FLIGHT}") as answer:
            answer.read()


class Login(Case):
    """A start with a journal of many complete orders of yesterday. It resumes an earlier login,
    since another one would wait for the next TOTP code."""

    unit = "µs a start"

    def _client(self, scale: Scale, folder: Path) -> NeoClient:
        self._path = folder / "orders.db"
        return case_client(self.url, PoolLimits(), journal=self._path)

    async def prepare(self) -> None:
        first = case_client(self.url, PoolLimits())
        self._session = await first.login()
        await first.logout()
        journal = Journal(self._path, ucc=UCC)
        journal.open()
        await journal.close()
        yesterday = time.time_ns() - 86_400 * 10**9
        with closing(sqlite3.connect(self._path)) as file, file:
            file.executemany(
                "INSERT INTO intents VALUES (?, ?, ?, 'place', ?, ?, ?, 'accepted', ?, '')",
                (
                    (n, yesterday, UCC, f"abcd{n:08d}", f"261123{n:09d}", FORM, yesterday)
                    for n in range(1, self.past + 1)
                ),
            )

    async def measure(self, seconds: float) -> float:
        before = time.process_time()
        await self.client.resume(self._session)
        cost = (time.process_time() - before) * 1e6
        await self.client.logout()
        return cost


CASES: dict[str, type[Case]] = {
    "session": Session,
    "starts": Starts,
    "pool": Pool,
    "lost": Lost,
    "login": Login,
}


def case_client(url: str, pool: PoolLimits, *, journal: Path | None = None) -> NeoClient:
    """Return a client whose breaker never opens: answers are lost on purpose."""
    return client_of(
        url,
        connections=ConnectionSettings(pool=pool, breaker=BreakerConfig(failures=10**6)),
        journal=journal,
        orders=OrderSettings(live_updates=False),
    )


async def held_during(work: Awaitable[float]) -> Sample:
    """Measure a case, and how late a timer came at most meanwhile."""
    held = 0.0

    async def beat() -> None:
        nonlocal held
        while True:
            before = time.perf_counter()
            await asyncio.sleep(BEAT)
            held = max(held, time.perf_counter() - before - BEAT)

    beating = asyncio.ensure_future(beat())
    cost = await work
    await asyncio.sleep(2 * BEAT)
    beating.cancel()
    return Sample(cost, held * 1e3)


def serve(channel: Channel, *, case: str, url: str, scale: dict[str, int]) -> None:
    """Measure one case with one past, one round for each command."""
    logging.disable(logging.CRITICAL)  # lost answers are logged, as they should be
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):

        async def make() -> Case:
            made = CASES[case](url, msgspec.convert(scale, Scale), Path(folder))
            await made.prepare()
            return made

        made = runner.run(make())
        channel.send({})
        for command in channel:
            channel.send(runner.run(held_during(made.measure(command["seconds"]))))
        runner.run(made.client.logout())
