"""The order lane: a pool of warm connections to one server, for requests that must not be doubled.

Connections are opened at login and opened again when the server closes them. The one used last is
used next, so that the others grow idle together; under load the pool grows to its limit.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

from aiolimiter import AsyncLimiter

from neo_async.config import PoolLimits
from neo_async.errors import NotSent, UsageError
from neo_async.model.answer import Answer
from neo_async.transport.backoff import backoff
from neo_async.transport.connection import Connection
from neo_async.transport.limiter import Kind, Limiter

log = logging.getLogger(__name__)

ROUND_TRIPS_KEPT = 1000


class Lane:
    """A lane to one server: `open` before use, `close` after."""

    def __init__(
        self,
        url: str,
        limiter: Limiter,
        pool: PoolLimits,
        *,
        connect_timeout: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise UsageError(f"url={url!r}: has no host to connect to")
        secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self.host_header = parts.netloc.rpartition("@")[2]
        self._limiter = limiter
        self._pool = pool
        self._connect_timeout = connect_timeout
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiters: tuple[deque[asyncio.Future[Connection]], ...] = tuple(deque() for _ in Kind)
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._changed = asyncio.Event()
        # A server that accepts and closes at once must not be hammered.
        self._reopenings = AsyncLimiter(pool.maximum, 1.0)
        self.opened = 0
        """Connections opened so far."""
        self.round_trips: deque[tuple[Kind, float]] = deque(maxlen=ROUND_TRIPS_KEPT)
        """Seconds from the hand-over to the socket to the answer, oldest first."""

    async def open(self) -> None:
        """Open the warm connections. Raises NotSent when not even one can be made."""
        results = await asyncio.gather(
            *(self._connect() for _ in range(self._pool.warm)), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and not self._open:
            raise failures[0]
        self._keeper = asyncio.create_task(self._keep_warm(), name="order lane: keep warm")

    async def close(self) -> None:
        """Let requests in flight end (their deadlines bound that), then close everything."""
        self._closing = True
        tasks = [*self._connecting]
        if self._keeper is not None:
            tasks.append(self._keeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(NotSent("the order lane was closed"))
        for connection in self._idle:
            connection.close()
        while self._open:
            self._changed.clear()
            await self._changed.wait()

    async def request(self, kind: Kind, data: bytes, timeout: float) -> Answer:
        """Send one whole HTTP request as soon as the limiter and a connection allow.

        `timeout` counts from the hand-over to the socket. Raises NotSent or AnswerLost.
        """
        started = await self._limiter.acquire(kind)
        connection = self._take_idle()
        if connection is None:
            connection = await self._wait_for_connection(kind, started)
        sent = time.perf_counter()
        answer = await connection.request(data, timeout)
        self.round_trips.append((kind, time.perf_counter() - sent))
        return answer

    def __repr__(self) -> str:
        busy = len(self._open) - len(self._idle)
        waiting = sum(len(queue) for queue in self._waiters)
        return (
            f"<Lane {self._host}:{self._port} {len(self._idle)} idle, {busy} busy, "
            f"{len(self._connecting)} connecting, {waiting} waiting>"
        )

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _wait_for_connection(self, kind: Kind, started: float) -> Connection:
        """A connection to use in this very moment, opening one where the limit allows.

        The start is moved to the moment in which the connection is there: time spent on a
        handshake would let two requests arrive closer together than the limit allows.
        """
        while True:
            if self._closing:
                self._limiter.give_back(kind, started)
                raise NotSent("the order lane was closed")
            waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            self._waiters[kind].append(waiter)
            self._grow()
            try:
                connection = await waiter
            except BaseException:
                self._limiter.give_back(kind, started)
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._now_idle(waiter.result())
                raise
            restarted = self._limiter.restart(kind, started)
            if restarted is not None and connection.is_usable:
                return connection
            if connection.is_usable:
                self._now_idle(connection)
                self._limiter.give_back(kind, started)
                started = await self._limiter.acquire(kind)
                if (idle := self._take_idle()) is not None:
                    return idle
            elif restarted is not None:
                started = restarted

    def _grow(self) -> None:
        """Open as many connections as somebody waits for, up to the limit."""
        waiting = sum(1 for queue in self._waiters for waiter in queue if not waiter.done())
        size = len(self._open) + len(self._connecting)
        for _ in range(min(waiting - len(self._connecting), self._pool.maximum - size)):
            task = asyncio.create_task(self._connect_for_waiter(), name="order lane: connect")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect_for_waiter(self) -> None:
        try:
            await self._connect()
        except NotSent as error:
            waiter = self._next_waiter()
            if waiter is not None:
                waiter.set_exception(error)

    async def _connect(self) -> None:
        """Open one connection; it announces itself as idle."""
        loop = asyncio.get_running_loop()
        server = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, connection = await loop.create_connection(
                    lambda: Connection(loop, on_idle=self._now_idle, on_lost=self._now_lost),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as error:
            raise NotSent(
                f"no connection to {server} within {self._connect_timeout:g} s"
            ) from error
        except OSError as error:  # ssl.SSLError is one
            raise NotSent(f"cannot connect to {server}: {error}") from error
        _keep_alive(transport.get_extra_info("socket"))
        self.opened += 1
        self._open.add(connection)
        self._now_idle(connection)

    async def _keep_warm(self) -> None:
        """Replace the connections that the server closes, for ever."""
        failures = 0
        while True:
            if len(self._open) + len(self._connecting) >= self._pool.warm:
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._reopenings.acquire()
            try:
                await self._connect()
                failures = 0
            except NotSent as error:
                failures += 1
                delay = backoff(failures, base=0.1, cap=10.0)
                log.warning("order lane: %s; next try in %.1f s", error, delay)
                await asyncio.sleep(delay)

    def _now_idle(self, connection: Connection) -> None:
        if self._closing:
            connection.close()
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def _now_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._changed.set()
        if not self._closing:
            self._grow()

    def _next_waiter(self) -> asyncio.Future[Connection] | None:
        """The one to be served next: by kind, then by arrival."""
        for queue in self._waiters:
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    return waiter
        return None


def _keep_alive(connected: object) -> None:
    """Send small packets at once, and notice within half a minute that the other side is gone
    (a NAT that forgot the connection swallows an order without a word)."""
    sock = cast(socket.socket, connected)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS and Windows lack some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
