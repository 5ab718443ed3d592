"""What grows with a session's past: an order, a lost answer, a login, after much and after little.

    python -m benchmarks.growth [--json] [--rounds N] [--seconds S] [--quick] [--only CASE …]

Each case is measured in two processes, one with a large past and one with a small one, in
alternating rounds against the server of `benchmarks.orders`. The past is filled in by the calls
that a session makes for it, without the orders being sent; what is measured is sent. README.md
beside this file says what each case holds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sqlite3
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import uvloop

from benchmarks.harness import (
    Figure,
    Wanted,
    alternate,
    at_most,
    cores,
    machine,
    number,
    pin,
    print_json,
    print_machine,
    print_table,
    print_wanted,
    summarise,
)
from benchmarks.orders import Cores, Worker, on_core
from benchmarks.peers import IN_FLIGHT, TOTP_SECRET
from neo_async import (
    Credentials,
    Endpoints,
    NeoClient,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
)
from neo_async.config import BreakerConfig, PoolLimits
from neo_async.execution.journal import Journal
from neo_async.model.india import day_of
from neo_async.model.orders import OrderRow
from neo_async.transport.limiter import Kind

PACKAGES = ("uvloop", "httptools", "msgspec", "aiohttp")
RATIO = 1.2
"""Wanted at most, of large to small."""
HELD_MS = 10.0
"""Wanted at most, of the event loop in one piece."""

BEAT = 0.001
WATCHED = 2.0
"""Seconds after the loss of answers for which they are looked for here."""
UCC = "ABC12"
WIDE = RateLimits(orders=10**6, total=10**6)
FORM = (
    '{"am":"NO","dq":"0","es":"nse_cm","mp":"0","pc":"CNC","pr":"39.00","pt":"L","qt":"10",'
    '"rt":"DAY","tp":"0","ts":"ITBEES-EQ","tt":"B","pf":"N","ig":"abcd000001","os":"NEOTRADEAPI"}'
)


class Sample(msgspec.Struct, frozen=True):
    """One round of one case."""

    cost: float
    """Processor time in the case's unit."""
    held_ms: float
    """Longest time for which the event loop was held in one piece."""


class Scale(msgspec.Struct, frozen=True):
    """What one side of a case is measured with."""

    past: int
    """Orders, starts or rows of before."""
    pool: int = IN_FLIGHT
    """Connections, at most."""


class Case(ABC):
    """One thing to measure, in a process of its own, with one past."""

    unit = "µs an order"

    def __init__(self, url: str, scale: Scale, folder: Path) -> None:
        self.url = url
        self.past = scale.past
        self.client = self._client(scale, folder)

    def _client(self, scale: Scale, folder: Path) -> NeoClient:
        return client_of(self.url, PoolLimits(warm=min(2, scale.pool), maximum=scale.pool))

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
        """Fill the limiter's memory."""
        for _ in range(self.past):
            await self.client.limiter.acquire(Kind.PLACE)

    async def know_all(self) -> None:
        """Fill the memory of orders, all placed here and complete."""
        today = day_of(time.time())
        for count in range(self.past):
            self.client._cache.register(
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
        """Return the processor time of an order in µs, IN_FLIGHT on their way."""
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
    """One order in flight after a session of many."""

    async def prepare(self) -> None:
        await super().prepare()
        await self.start_all()
        await self.know_all()

    async def measure(self, seconds: float) -> float:
        placed = 0
        end = time.perf_counter() + seconds
        before = time.process_time()
        while time.perf_counter() < end:
            await self.place()
            placed += 1
        return (time.process_time() - before) / placed * 1e6


class Starts(Case):
    """Orders that have to wait for a connection, and so begin again in the limiter."""

    async def prepare(self) -> None:
        await super().prepare()
        await self.start_all()

    async def measure(self, seconds: float) -> float:
        return await self.in_flight(seconds)


class Pool(Case):
    """As many orders in flight as the small side has connections."""

    async def measure(self, seconds: float) -> float:
        return await self.in_flight(seconds)


class Lost(Case):
    """Answers that are lost all at once while many orders are known."""

    unit = "µs a lost answer"

    async def prepare(self) -> None:
        await super().prepare()
        await self.know_all()

    async def measure(self, seconds: float) -> float:
        await self.in_flight(0.1)  # opens all connections: the orders go out at once
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
    """A start with the journal of many settled orders of yesterday, on a login of before: another
    one would wait for the next TOTP code."""

    unit = "µs a start"

    def _client(self, scale: Scale, folder: Path) -> NeoClient:
        self._path = folder / "orders.db"
        return client_of(self.url, PoolLimits(), journal=self._path)

    async def prepare(self) -> None:
        first = client_of(self.url, PoolLimits())
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


def client_of(url: str, pool: PoolLimits, *, journal: Path | None = None) -> NeoClient:
    credentials = Credentials(
        consumer_key="consumer-key",
        mobile_number="+919999999999",
        ucc=UCC,
        mpin="123456",
        totp_secret=TOTP_SECRET,
    )
    return NeoClient(
        credentials,
        endpoints=Endpoints(login=url),
        limits=WIDE,
        pool=pool,
        breaker=BreakerConfig(failures=10**6),
        journal=journal,
        live_orders=False,
    )


CASES: dict[str, type[Case]] = {
    "session": Session,
    "starts": Starts,
    "pool": Pool,
    "lost": Lost,
    "login": Login,
}
DEFAULT_POOL = PoolLimits().maximum


def scales(*, quick: bool) -> dict[str, dict[str, Scale]]:
    """Large and small by case."""
    million, hundred, thousand = (2_000, 100, 200) if quick else (1_000_000, 100, 1_000)
    known = 1_000 if quick else 50_000
    return {
        "session": {"large": Scale(million), "small": Scale(hundred)},
        "starts": {"large": Scale(million, DEFAULT_POOL), "small": Scale(hundred, DEFAULT_POOL)},
        "pool": {"large": Scale(0, DEFAULT_POOL), "small": Scale(0)},
        "lost": {"large": Scale(known), "small": Scale(hundred)},
        "login": {"large": Scale(million), "small": Scale(thousand)},
    }


def title_of(name: str, sides: dict[str, Scale]) -> str:
    large, small = sides["large"], sides["small"]
    if name == "pool":
        return f"an order, {IN_FLIGHT} in flight, on {large.pool} connections and on {small.pool}"
    what = {
        "session": "an order after {} orders of the session and after {}",
        "starts": "an order that waits for a connection after {} starts and after {}",
        "lost": f"each of {IN_FLIGHT} lost answers with {{}} known orders and with {{}}",
        "login": "a start with {} rows in the journal and with {}",
    }[name]
    return what.format(f"{large.past:,}", f"{small.past:,}")


# --- the process that is measured -----------------------------------------------------------------


async def held_during(work: Awaitable[float]) -> Sample:
    """Measure a case, and how late a timer came meanwhile at most."""
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


def serve(case: type[Case], url: str, scale: Scale) -> None:
    """Answer each line of stdin, the length of a round in seconds, with a Sample."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):

        async def make() -> Case:
            made = case(url, scale, Path(folder))
            await made.prepare()
            return made

        made = runner.run(make())
        print("{}", flush=True)
        for line in sys.stdin:
            seconds = msgspec.json.decode(line)["seconds"]
            sample = runner.run(held_during(made.measure(seconds)))
            print(msgspec.json.encode(sample).decode(), flush=True)
        runner.run(made.client.logout())


# --- measuring ------------------------------------------------------------------------------------


class Grown(msgspec.Struct, frozen=True):
    """One case over the rounds."""

    title: str
    unit: str
    large: Figure
    small: Figure
    ratio: Figure
    """Of each round with the large past to the one with the small past beside it."""
    held_ms: Figure
    """With the large past."""
    held_small_ms: Figure


def measure_case(
    name: str, sides: dict[str, Scale], *, on: Cores, rounds: int, seconds: float
) -> Grown:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(
            Worker("benchmarks.server", *on_core(on.server), folder=folder)
        )
        workers = {
            side: stack.enter_context(
                Worker(
                    "benchmarks.growth",
                    *on_core(on.client),
                    f"--url={server.ready['url']}",
                    f"--case={name}",
                    f"--past={scale.past}",
                    f"--pool={scale.pool}",
                    folder=folder,
                )
            )
            for side, scale in sides.items()
        }

        def measure(side: str) -> Sample:
            return msgspec.convert(workers[side].ask(seconds=seconds), Sample)

        samples = alternate(list(sides), measure, rounds=rounds)
    large, small = samples["large"], samples["small"]
    return Grown(
        title=title_of(name, sides),
        unit=CASES[name].unit,
        large=summarise(sample.cost for sample in large),
        small=summarise(sample.cost for sample in small),
        ratio=summarise(one.cost / other.cost for one, other in zip(large, small, strict=True)),
        held_ms=summarise(sample.held_ms for sample in large),
        held_small_ms=summarise(sample.held_ms for sample in small),
    )


def wanted_of(grown: dict[str, Grown]) -> list[Wanted]:
    return [
        at_most(one.title, RATIO, one.ratio.median)
        if name != "login"  # it reads the placements of a week, beside the loop
        else at_most(f"{one.title}: loop held", HELD_MS, one.held_ms.median, "ms")
        for name, one in grown.items()
    ]


def print_growth(grown: dict[str, Grown]) -> None:
    print_table(
        "processor time after a large past and after a small one; the loop held in one piece, ms",
        ["", "unit", "large", "small", "ratio", "low – high", "wanted", "held", "held, small"],
        [
            [
                one.title,
                one.unit,
                number(one.large.median),
                number(one.small.median),
                f"{one.ratio.median:.2f}",
                f"{one.ratio.low:.2f} – {one.ratio.high:.2f}",
                f"≤ {RATIO:g}" if name != "login" else f"held ≤ {HELD_MS:g}",
                number(one.held_ms.median),
                number(one.held_small_ms.median),
            ]
            for name, one in grown.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds a case and past")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one round")
    parser.add_argument("--quick", action="store_true", help="small pasts, one short round")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    for internal in ("--url", "--case"):
        parser.add_argument(internal, default="", help=argparse.SUPPRESS)
    for internal in ("--past", "--pool", "--core"):
        parser.add_argument(internal, type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        pin(arguments.core)
        logging.disable(logging.CRITICAL)  # lost answers are logged, as they should be
        serve(CASES[arguments.case], arguments.url, Scale(arguments.past, arguments.pool))
        return
    rounds, seconds = (1, 0.05) if arguments.quick else (arguments.rounds, arguments.seconds)
    description = machine(PACKAGES)
    on = Cores(*cores())
    sides = scales(quick=arguments.quick)
    grown = {
        name: measure_case(name, sides[name], on=on, rounds=rounds, seconds=seconds)
        for name in arguments.only
    }
    wanted = wanted_of(grown)
    if arguments.json:
        print_json(
            {
                "benchmark": "growth",
                "machine": description,
                "settings": {
                    "rounds": rounds,
                    "seconds": seconds,
                    "quick": arguments.quick,
                    "in_flight": IN_FLIGHT,
                    "server_core": on.server,
                    "client_core": on.client,
                },
                "cases": grown,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(
        f"{rounds} alternating rounds of {seconds:g} s after one to warm up; "
        f"server on core {on.server}, clients on core {on.client}"
    )
    print_growth(grown)
    print_wanted(wanted)


if __name__ == "__main__":
    main()
