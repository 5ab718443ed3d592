"""Measurement of a peer of the order benchmark: one order after the other, and many in flight."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import msgspec

from benchmarks.harness import percentile

IN_FLIGHT = 64
PLACE_PATH = "/quick/order/rule/ms/place"
TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

ORDER = {
    "am": "NO",
    "dq": "0",
    "es": "nse_cm",
    "mp": "0",
    "pc": "CNC",
    "pf": "N",
    "pr": "39.35",
    "pt": "L",
    "qt": "10",
    "rt": "DAY",
    "tp": "0",
    "ts": "ITBEES-EQ",
    "tt": "B",
    "ig": "benchmark",
    "os": "NEOTRADEAPI",
}
HEADERS = {
    "Authorization": "consumer-key",
    "Sid": "trade-sid",
    "Auth": "trade-token",
    "neo-fin-key": "neotradeapi",
    "accept": "application/json",
    "Content-Type": "application/x-www-form-urlencoded",
}
PREPARED_BODY = f"jData={quote(json.dumps(ORDER, separators=(',', ':')))}".encode()


class Address(msgspec.Struct, frozen=True):
    """The server's URL, and the file of the authority to trust, which is empty over plain TCP."""

    url: str
    ca_file: str = ""

    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None


class Answer(msgspec.Struct, frozen=True):
    """The field of the broker's answer that a caller needs: the order number."""

    number: str = msgspec.field(name="nOrdNo")


class NotPlaced(Exception):
    """A peer gave up on an order. The order is counted, and is not part of the peer's figures."""


class Sample(msgspec.Struct, frozen=True):
    """Figures of a round of one peer."""

    orders: int
    failed: int
    """Orders that the peer gave up on."""
    seconds: float
    cpu_us: float
    """Processor time of the peer's process for one order, all threads together."""
    median_us: float = 0.0
    """Time of one order; 0 when many were in flight."""
    p99_us: float = 0.0


class Peer(ABC):
    """A way of placing orders, logged in and connected once constructed."""

    @abstractmethod
    def place_in_turn(self, seconds: float) -> Sample:
        """Place one order after the other."""

    @abstractmethod
    def place_at_once(self, seconds: float) -> Sample:
        """Keep IN_FLIGHT orders in flight."""

    @abstractmethod
    def close(self) -> None: ...


# --- measuring --------------------------------------------------------------------------------


class Stopwatch:
    """Wall and processor time of one round, from construction to `sample`."""

    def __init__(self, seconds: float) -> None:
        self._cpu = time.process_time()
        self._started = time.perf_counter()
        self.end = self._started + seconds

    def sample(
        self, numbers: list[str], nanoseconds: list[int] | None = None, *, failed: int = 0
    ) -> Sample:
        """End the round, with the numbers of its orders and, one in flight, the time of each."""
        seconds = time.perf_counter() - self._started
        cpu = time.process_time() - self._cpu
        _check(numbers)
        nanoseconds = sorted(nanoseconds or [0])
        return Sample(
            orders=len(numbers),
            failed=failed,
            seconds=seconds,
            cpu_us=cpu / len(numbers) * 1e6,
            median_us=percentile(nanoseconds, 0.5) / 1e3,
            p99_us=percentile(nanoseconds, 0.99) / 1e3,
        )


def _check(numbers: list[str]) -> None:
    """Raise unless every order number has 15 digits and is unique."""
    wrong = [number for number in numbers if len(number) != 15 or not number.isdigit()]
    if wrong:
        raise AssertionError(f"{wrong[0]!r} is no order number")
    if len(set(numbers)) != len(numbers):
        raise AssertionError("two orders were answered with the same number")


def in_turn(place: Callable[[], str], seconds: float) -> Sample:
    clock = time.perf_counter_ns
    numbers: list[str] = []
    nanoseconds: list[int] = []
    watch = Stopwatch(seconds)
    before = clock()
    end = watch.end * 1e9
    while before < end:
        numbers.append(place())
        now = clock()
        nanoseconds.append(now - before)
        before = now
    return watch.sample(numbers, nanoseconds)


async def _in_turn_async(place: Callable[[], Awaitable[str]], seconds: float) -> Sample:
    clock = time.perf_counter_ns
    numbers: list[str] = []
    nanoseconds: list[int] = []
    watch = Stopwatch(seconds)
    before = clock()
    end = watch.end * 1e9
    while before < end:
        numbers.append(await place())
        now = clock()
        nanoseconds.append(now - before)
        before = now
    return watch.sample(numbers, nanoseconds)


def _at_once_in_threads(
    pool: ThreadPoolExecutor, place: Callable[[], str], seconds: float
) -> Sample:
    numbers: list[str] = []
    failures: list[NotPlaced] = []
    watch = Stopwatch(seconds)

    def work() -> None:
        while time.perf_counter() < watch.end:
            try:
                numbers.append(place())
            except NotPlaced as failure:
                failures.append(failure)

    for future in [pool.submit(work) for _ in range(IN_FLIGHT)]:
        future.result()
    return watch.sample(numbers, failed=len(failures))


async def _at_once_async(place: Callable[[], Awaitable[str]], seconds: float) -> Sample:
    numbers: list[str] = []
    watch = Stopwatch(seconds)

    async def work() -> None:
        while time.perf_counter() < watch.end:
            numbers.append(await place())

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return watch.sample(numbers)


class ThreadedPeer(Peer):
    """A blocking client; for many orders in flight, as many threads share it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(IN_FLIGHT)

    @abstractmethod
    def place(self) -> str:
        """Place the order and return its number."""

    def place_in_turn(self, seconds: float) -> Sample:
        return in_turn(self.place, seconds)

    def place_at_once(self, seconds: float) -> Sample:
        return _at_once_in_threads(self._pool, self.place, seconds)

    def close(self) -> None:
        self._pool.shutdown()


class AsyncPeer(Peer):
    """A coroutine client on a loop that runs only while the peer is measured."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)

    @abstractmethod
    async def place(self) -> str:
        """Place the order and return its number."""

    @abstractmethod
    async def disconnect(self) -> None: ...

    def place_in_turn(self, seconds: float) -> Sample:
        return self._runner.run(_in_turn_async(self.place, seconds))

    def place_at_once(self, seconds: float) -> Sample:
        return self._runner.run(_at_once_async(self.place, seconds))

    def close(self) -> None:
        self._runner.run(self.disconnect())
        self._runner.close()
