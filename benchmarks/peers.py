"""The peers of the order benchmark: each places the same regular limit order in its own way.

    python -m benchmarks.peers NAME [--core N]

serves one peer to `benchmarks.orders`: a JSON command a line on stdin, a JSON answer a line on
stdout. A process holds one peer, so that no peer's imports, threads or garbage disturb another.

Every peer reads the whole answer and takes the order number out of it, inside the measured time.
What is prepared beforehand differs, always in favour of the peers: the socket and tuned aiohttp
send bytes made once, default aiohttp and httpx encode a given dict, and only `neo_async` and
`kotakneoapi` build and check each order from its arguments. `neo_async` tags and tracks it too.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import selectors
import socket
import ssl
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from benchmarks.harness import percentile, pin

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
    """Where the server is, and the authority to trust; the latter empty over plain TCP."""

    url: str
    ca_file: str = ""

    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None


class Answer(msgspec.Struct, frozen=True):
    """The one field of the broker's answer that a caller needs."""

    number: str = msgspec.field(name="nOrdNo")


class NotPlaced(Exception):
    """A peer gave up on an order. It is counted, and no part of the peer's figures."""


class Lap(msgspec.Struct, frozen=True):
    """One round of one peer."""

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
    """One way of placing orders, logged in and connected once constructed."""

    @abstractmethod
    def place_in_turn(self, seconds: float) -> Lap:
        """Place one order after the other."""

    @abstractmethod
    def place_at_once(self, seconds: float) -> Lap:
        """Keep IN_FLIGHT orders on the way."""

    @abstractmethod
    def close(self) -> None: ...


# --- measuring --------------------------------------------------------------------------------


class Stopwatch:
    """Wall and processor time from its making to a lap."""

    def __init__(self, seconds: float) -> None:
        self._cpu = time.process_time()
        self._started = time.perf_counter()
        self.end = self._started + seconds

    def lap(
        self, numbers: list[str], nanoseconds: list[int] | None = None, *, failed: int = 0
    ) -> Lap:
        """Close the round: the orders it placed and, one at a time, how long each took."""
        seconds = time.perf_counter() - self._started
        cpu = time.process_time() - self._cpu
        _check(numbers)
        nanoseconds = sorted(nanoseconds or [0])
        return Lap(
            orders=len(numbers),
            failed=failed,
            seconds=seconds,
            cpu_us=cpu / len(numbers) * 1e6,
            median_us=percentile(nanoseconds, 0.5) / 1e3,
            p99_us=percentile(nanoseconds, 0.99) / 1e3,
        )


def _check(numbers: list[str]) -> None:
    """Every answer was an answer of its own: 15 digits that no other order got."""
    wrong = [number for number in numbers if len(number) != 15 or not number.isdigit()]
    if wrong:
        raise AssertionError(f"{wrong[0]!r} is no order number")
    if len(set(numbers)) != len(numbers):
        raise AssertionError("two orders were answered with the same number")


def _in_turn(place: Callable[[], str], seconds: float) -> Lap:
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
    return watch.lap(numbers, nanoseconds)


async def _in_turn_async(place: Callable[[], Awaitable[str]], seconds: float) -> Lap:
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
    return watch.lap(numbers, nanoseconds)


def _at_once_in_threads(pool: ThreadPoolExecutor, place: Callable[[], str], seconds: float) -> Lap:
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
    return watch.lap(numbers, failed=len(failures))


async def _at_once_async(place: Callable[[], Awaitable[str]], seconds: float) -> Lap:
    numbers: list[str] = []
    watch = Stopwatch(seconds)

    async def work() -> None:
        while time.perf_counter() < watch.end:
            numbers.append(await place())

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return watch.lap(numbers)


class ThreadedPeer(Peer):
    """A blocking client; many in flight are as many threads that share it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(IN_FLIGHT)

    @abstractmethod
    def place(self) -> str:
        """Place the order and return its number."""

    def place_in_turn(self, seconds: float) -> Lap:
        return _in_turn(self.place, seconds)

    def place_at_once(self, seconds: float) -> Lap:
        return _at_once_in_threads(self._pool, self.place, seconds)

    def close(self) -> None:
        self._pool.shutdown()


class AsyncPeer(Peer):
    """A coroutine client on a loop that turns only while the peer is measured."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)

    @abstractmethod
    async def place(self) -> str:
        """Place the order and return its number."""

    @abstractmethod
    async def disconnect(self) -> None: ...

    def place_in_turn(self, seconds: float) -> Lap:
        return self._runner.run(_in_turn_async(self.place, seconds))

    def place_at_once(self, seconds: float) -> Lap:
        return self._runner.run(_at_once_async(self.place, seconds))

    def close(self) -> None:
        self._runner.run(self.disconnect())
        self._runner.close()


# --- the peers --------------------------------------------------------------------------------


class Socket(Peer):
    """The limit: prepared bytes on blocking sockets, and nothing but `find` on what comes back.

    Many in flight: one thread, one selector, IN_FLIGHT sockets; no event loop.
    """

    def __init__(self, address: Address) -> None:
        self._sockets = [_connect(address) for _ in range(IN_FLIGHT)]
        head = [f"POST {PLACE_PATH} HTTP/1.1", f"Host: {urlsplit(address.url).netloc}"]
        head += [f"{name}: {value}" for name, value in HEADERS.items()]
        head += [f"Content-Length: {len(PREPARED_BODY)}", "", ""]
        self._request = "\r\n".join(head).encode() + PREPARED_BODY

    def place_in_turn(self, seconds: float) -> Lap:
        connection, request = self._sockets[0], self._request

        def place() -> str:
            connection.sendall(request)
            answer = connection.recv(65536)
            while not _is_complete(answer):
                answer += _more(connection)
            return _number_in(answer)

        return _in_turn(place, seconds)

    def place_at_once(self, seconds: float) -> Lap:
        numbers: list[str] = []
        request = self._request
        with selectors.DefaultSelector() as selector:
            for connection in self._sockets:
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, data=connection)
            watch = Stopwatch(seconds)
            for connection in self._sockets:
                connection.sendall(request)
            rests = dict.fromkeys(self._sockets, b"")
            waiting = len(self._sockets)
            while waiting:
                sending = time.perf_counter() < watch.end
                for key, _ in selector.select():
                    connection = key.data
                    try:
                        answer = rests[connection] + _more(connection)
                    except ssl.SSLWantReadError:
                        continue
                    if not _is_complete(answer):
                        rests[connection] = answer
                        continue
                    rests[connection] = b""
                    numbers.append(_number_in(answer))
                    if sending:
                        connection.sendall(request)
                    else:
                        waiting -= 1
            lap = watch.lap(numbers)
        for connection in self._sockets:
            connection.setblocking(True)
        return lap

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


def _connect(address: Address) -> socket.socket:
    parts = urlsplit(address.url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = address.tls()
    if context is None:
        return connection
    return context.wrap_socket(connection, server_hostname=parts.hostname)


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the server closed the connection")
    return received


def _is_complete(answer: bytes) -> bool:
    # The answer to a placement has exactly one closing brace, its last byte.
    return answer.endswith(b"}")


def _number_in(answer: bytes) -> str:
    start = answer.index(b'"nOrdNo":"') + 10
    return answer[start : answer.index(b'"', start)].decode()


class NeoAsync(AsyncPeer):
    """This library as its users have it: validation, client tag, tracking, deadlines; on uvloop.

    The limiter works, but is set so wide that it never waits. With a `durability` it keeps a
    journal of its orders.
    """

    def __init__(self, address: Address, durability: str = "") -> None:
        import uvloop

        from neo_async import Credentials, Endpoints, NeoClient, Product, RateLimits, Segment, Side
        from neo_async.config import Durability, PoolLimits

        super().__init__(uvloop.new_event_loop)
        self._folder = tempfile.TemporaryDirectory()
        self._arguments = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
        self._product = Product.CNC
        self._client = NeoClient(
            Credentials(
                consumer_key="consumer-key",
                mobile_number="+919999999999",
                ucc="ABC12",
                mpin="123456",
                totp_secret=TOTP_SECRET,
            ),
            endpoints=Endpoints(login=address.url, ca_file=address.ca_file),
            limits=RateLimits(orders=10**6, total=10**6),
            pool=PoolLimits(warm=IN_FLIGHT, maximum=IN_FLIGHT),
            journal=Path(self._folder.name, "orders.db") if durability else None,
            durability=Durability(durability or Durability.PROCESS),
        )
        self._runner.run(self._client.__aenter__())

    async def place(self) -> str:
        order = await self._client.orders.place(
            *self._arguments, price="39.35", product=self._product
        )
        return order.number

    async def disconnect(self) -> None:
        await self._client.__aexit__(None, None, None)
        self._folder.cleanup()


class TunedAiohttp(AsyncPeer):
    """aiohttp as its documentation and a day with a profiler would have it; on uvloop."""

    def __init__(self, address: Address) -> None:
        import uvloop
        from yarl import URL

        super().__init__(uvloop.new_event_loop)
        self._url = URL(address.url + PLACE_PATH)
        self._decode = msgspec.json.Decoder(Answer).decode
        self._runner.run(self._connect(address))

    async def _connect(self, address: Address) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=IN_FLIGHT, keepalive_timeout=600, ssl=address.tls() or True
            ),
            headers=HEADERS,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # Orders need a deadline; this is the one that neo_async has.
            timeout=aiohttp.ClientTimeout(total=10),
        )

    async def place(self) -> str:
        async with self._session.post(self._url, data=PREPARED_BODY) as response:
            return self._decode(await response.read()).number

    async def disconnect(self) -> None:
        await self._session.close()


class DefaultAiohttp(AsyncPeer):
    """aiohttp as in the first example of its documentation; on asyncio's own loop."""

    def __init__(self, address: Address) -> None:
        super().__init__(None)
        self._url = address.url + PLACE_PATH
        self._tls = address.tls() or True
        self._runner.run(self._connect())

    async def _connect(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(headers=HEADERS)

    async def place(self) -> str:
        form = {"jData": json.dumps(ORDER)}
        async with self._session.post(self._url, data=form, ssl=self._tls) as response:
            answer: dict[str, str] = await response.json()
        return answer["nOrdNo"]

    async def disconnect(self) -> None:
        await self._session.close()


class SyncHttpx(ThreadedPeer):
    """`httpx.Client`, kept open, with as many connections as there are threads."""

    def __init__(self, address: Address) -> None:
        import httpx

        super().__init__()
        self._url = address.url + PLACE_PATH
        self._client = httpx.Client(
            headers=HEADERS,
            verify=address.tls() or True,
            limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT),
        )

    def place(self) -> str:
        answer = self._client.post(self._url, data={"jData": json.dumps(ORDER)})
        return str(answer.json()["nOrdNo"])

    def close(self) -> None:
        super().close()
        self._client.close()


class KotakNeoApi(ThreadedPeer):
    """The official SDK, unmodified but for its base URLs, with its defaults but for its log file.

    Its pool keeps 10 of at most 20 connections; 64 of 64, which its constructor would allow, was
    measured and is no faster.
    """

    def __init__(self, address: Address) -> None:
        import pyotp
        from neo_api_client import NeoAPI  # type: ignore[attr-defined]
        from neo_api_client.utils import neo_utility

        super().__init__()
        for constant, path in (
            ("SESSION_PROD_BASE_URL", ""),
            ("PROD_BASE_URL", ""),
            ("CONFIG_SERVICE_URL_PROD", "/5config/config"),
        ):
            setattr(neo_utility, constant, address.url + path)
        self._api = NeoAPI(consumer_key="consumer-key")
        self._api.totp_login("+919999999999", "ABC12", pyotp.TOTP(TOTP_SECRET).now())
        self._api.totp_validate("123456")

    def place(self) -> str:
        answer = self._api.place_order(
            exchange_segment="nse_cm",
            product="CNC",
            price="39.35",
            order_type="L",
            quantity="10",
            validity="DAY",
            trading_symbol="ITBEES-EQ",
            transaction_type="B",
        )
        if "nOrdNo" not in answer:
            # Under 64 threads its pool now and then writes to a connection that it has closed.
            raise NotPlaced(str(answer))
        return str(answer["nOrdNo"])


PEERS: dict[str, Callable[[Address], Peer]] = {
    "socket": Socket,
    "neo_async": NeoAsync,
    "aiohttp_tuned": TunedAiohttp,
    "aiohttp_default": DefaultAiohttp,
    "httpx": SyncHttpx,
    "kotakneoapi": KotakNeoApi,
}
JOURNALLED: dict[str, Callable[[Address], Peer]] = {
    "journal": functools.partial(NeoAsync, durability="process"),
    "journal_power": functools.partial(NeoAsync, durability="power"),
}


# --- serving one peer -------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    peers = PEERS | JOURNALLED
    parser.add_argument("name", choices=peers)
    parser.add_argument("--core", type=int, help="keep the peer, with its threads, on this core")
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca-file", default="")
    arguments = parser.parse_args()
    pin(arguments.core)
    # What a peer prints must not mix with the answers: the SDK logs to stdout.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = peers[arguments.name](Address(arguments.url, arguments.ca_file))
    print(json.dumps({"event": "ready"}), file=answers, flush=True)
    measures = {"in_turn": peer.place_in_turn, "at_once": peer.place_at_once}
    for line in sys.stdin:
        command = json.loads(line)
        lap = measures[command["measure"]](command["seconds"])
        print(msgspec.json.encode(lap).decode(), file=answers, flush=True)
    peer.close()


if __name__ == "__main__":
    main()
