"""The peers of the order benchmark: each places the same regular limit order in its own way.

Every peer reads the whole answer and takes the order number out of it, inside the measured time.
What is prepared beforehand differs, always in favour of the other peers: the socket and tuned
aiohttp send bytes made once, default aiohttp and httpx encode a given dict, and only `neo_async`
and `kotakneoapi` build and check each order from its arguments. `neo_async` also tags it and keeps
it in its order cache.
"""

from __future__ import annotations

import functools
import json
import selectors
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.placing import (
    HEADERS,
    IN_FLIGHT,
    ORDER,
    PLACE_PATH,
    PREPARED_BODY,
    TOTP_SECRET,
    Address,
    Answer,
    AsyncPeer,
    NotPlaced,
    Peer,
    Sample,
    Stopwatch,
    ThreadedPeer,
    in_turn,
)
from benchmarks.workers import Channel


class Socket(Peer):
    """The limit: prepared bytes on blocking sockets, and only `index` on the answer.

    Many in flight: one thread, one selector, IN_FLIGHT sockets; no event loop.
    """

    def __init__(self, address: Address) -> None:
        self._sockets = [_connect(address) for _ in range(IN_FLIGHT)]
        head = [f"POST {PLACE_PATH} HTTP/1.1", f"Host: {urlsplit(address.url).netloc}"]
        head += [f"{name}: {value}" for name, value in HEADERS.items()]
        head += [f"Content-Length: {len(PREPARED_BODY)}", "", ""]
        self._request = "\r\n".join(head).encode() + PREPARED_BODY

    def place_in_turn(self, seconds: float) -> Sample:
        connection, request = self._sockets[0], self._request

        def place() -> str:
            connection.sendall(request)
            answer = connection.recv(65536)
            while not _is_complete(answer):
                answer += _more(connection)
            return _number_in(answer)

        return in_turn(place, seconds)

    def place_at_once(self, seconds: float) -> Sample:
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
            sample = watch.sample(numbers)
        for connection in self._sockets:
            connection.setblocking(True)
        return sample

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
    """This library as its users run it: validation, client tag, order cache, deadlines; on uvloop.

    The limiter works, but is set so wide that it never waits. With a `durability` it keeps a
    journal of its orders.
    """

    def __init__(self, address: Address, durability: str = "") -> None:
        import uvloop

        from benchmarks.client import client_of
        from neo_async import Product, Segment, Side
        from neo_async.config import (
            ConnectionSettings,
            Durability,
            OrderSettings,
            PoolLimits,
        )

        super().__init__(uvloop.new_event_loop)
        self._folder = tempfile.TemporaryDirectory()
        self._arguments = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
        self._product = Product.CNC
        self._client = client_of(
            address.url,
            ca_file=address.ca_file,
            connections=ConnectionSettings(pool=PoolLimits(warm=IN_FLIGHT, maximum=IN_FLIGHT)),
            journal=Path(self._folder.name, "orders.db") if durability else None,
            orders=OrderSettings(durability=Durability(durability or Durability.PROCESS)),
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
    """aiohttp tuned by its documentation and a profiler; on uvloop."""

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


def serve(channel: Channel, *, name: str, url: str, ca_file: str) -> None:
    """Measure one peer, one round for each command."""
    peer = (PEERS | JOURNALLED)[name](Address(url, ca_file))
    channel.send({})
    measures = {"in_turn": peer.place_in_turn, "at_once": peer.place_at_once}
    for command in channel:
        channel.send(measures[command["measure"]](command["seconds"]))
    peer.close()
