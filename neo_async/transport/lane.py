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
from typing import Protocol, cast
from urllib.parse import urlsplit

from neo_async.config import PoolLimits
from neo_async.errors import AnswerLost, CircuitOpen, NotSent, UsageError
from neo_async.model.answer import Answer
from neo_async.transport.backoff import backoff
from neo_async.transport.breaker import GATEWAY_FAILURES, Circuits
from neo_async.transport.connection import Connection
from neo_async.transport.limiter import Kind, Limiter
from neo_async.transport.meter import Meter

log = logging.getLogger(__name__)

ROUND_TRIPS_KEPT = 1000

SHORT_LIFE = 1.0
"""Seconds; a connection lost sooner, and without a request, was not wanted by the server."""

TRIES = 3
"""Connections that one request waits for, when each is lost before it can be used."""


class HandOver(Protocol):
    """A request that knows whether its bytes were handed to a socket."""

    was_sent: bool


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
        circuits: Circuits | None = None,
        meter: Meter | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise UsageError(f"url={url!r}: has no host to connect to")
        secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if secure else 80)
        self._server = f"{self._host}:{self._port}"
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self.host_header = parts.netloc.rpartition("@")[2]
        self._limiter = limiter
        self._pool = pool
        self._meter = meter or Meter()
        self.breaker = (circuits or Circuits()).orders(self._server)
        self._connect_timeout = connect_timeout
        self._idle: list[Connection] = []
        self._open: dict[Connection, float] = {}  # when each was opened, on the loop's clock
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiters: tuple[deque[asyncio.Future[Connection]], ...] = tuple(deque() for _ in Kind)
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._changed = asyncio.Event()
        self._short_lives = 0
        self.opened = 0
        """Connections opened so far."""
        self.round_trips: deque[tuple[Kind, float]] = deque(maxlen=ROUND_TRIPS_KEPT)
        """Seconds from the hand-over to the socket to the answer, oldest first."""

    async def open(self) -> None:
        """Open the warm connections. Raises NotSent when not even one can be made."""
        tasks = [self._start_connecting() for _ in range(self._pool.warm)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            await self.close()
            raise
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and not self._open:
            raise failures[0]
        self._keeper = asyncio.create_task(self._keep_warm(), name="order lane: keep warm")

    async def close(self) -> None:
        """Let requests in flight end (their deadlines bound that), then close everything.

        Cancelling it closes at once.
        """
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
        try:
            while self._open:
                self._changed.clear()
                await self._changed.wait()
        finally:
            for connection in self._open:
                connection.close()

    async def request(
        self, kind: Kind, data: bytes, timeout: float, record: HandOver | None = None
    ) -> Answer:
        """Send one whole HTTP request as soon as the limiter and a connection allow.

        `timeout` counts from the moment in which the limiter does. Raises NotSent (CircuitOpen
        when the server is taken for gone) or AnswerLost. `record` is marked when the bytes are
        handed to a socket: a caller that is cancelled learns from it whether they were.
        """
        breaker = self.breaker
        if not breaker.is_closed:
            await self.check(kind)
        asked = time.perf_counter()
        started = await self._limiter.acquire(kind)
        admitted = time.perf_counter()
        # It may have opened while this one queued.
        is_probe = not breaker.is_closed and self._admit(kind, started)
        try:
            connection = self._take_idle()
            if connection is None:
                connection, timeout = await self._wait_for_connection(kind, started, timeout)
            sent = time.perf_counter()
            if record is not None:
                record.was_sent = True
            answer = await connection.request(data, timeout)
        except AnswerLost as error:
            self._meter.sent(kind, admitted - asked, sent - admitted)
            self._meter.lost(error)
            breaker.failed(str(error), connected=True)
            raise
        finally:
            if is_probe:
                breaker.probed()
        self.round_trips.append((kind, time.perf_counter() - sent))
        self._meter.sent(kind, admitted - asked, sent - admitted)
        if answer.status >= 500:
            self._meter.server_errors += 1
        if answer.status in GATEWAY_FAILURES:
            breaker.failed(f"answered with HTTP {answer.status}", connected=True)
        elif breaker.failures:
            breaker.answered()
        return answer

    async def check(self, kind: Kind) -> None:
        """Raises CircuitOpen when the server is taken for gone: before a caller queues. Cancels
        are always let through."""
        if kind is not Kind.CANCEL and not self.breaker.is_closed:
            await asyncio.sleep(0)  # a caller that tries for ever must not hold up the loop
            self.breaker.check()

    def drop_refused(self) -> None:
        """Let those wait for a connection no longer that the limiter would refuse to start."""
        for kind in Kind:
            for waiter in self._waiters[kind]:
                if not waiter.done() and (error := self._limiter.refusal(kind)) is not None:
                    waiter.set_exception(error)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections on which a request may be on its way."""
        return len(self._open) - len(self._idle)

    @property
    def is_busy(self) -> bool:
        return self.busy > 0

    @property
    def connecting(self) -> int:
        return len(self._connecting)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return sum(not waiter.done() for queue in self._waiters for waiter in queue)

    def __repr__(self) -> str:
        return (
            f"<Lane {self._server} {self.idle} idle, {self.busy} busy, "
            f"{self.connecting} connecting, {self.waiting} waiting>"
        )

    def _admit(self, kind: Kind, started: float) -> bool:
        try:
            return self.breaker.admit(is_urgent=kind is Kind.CANCEL)
        except CircuitOpen:
            self._limiter.give_back(kind, started)
            raise

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _wait_for_connection(
        self, kind: Kind, started: float, timeout: float
    ) -> tuple[Connection, float]:
        """A connection to use in this very moment, opening one where the limit allows, and what is
        left of the time.

        The start is moved to the moment in which the connection is there: time spent on a
        handshake would let two requests arrive closer together than the limit allows.
        """
        loop = asyncio.get_running_loop()
        tries, until = 0, loop.time() + timeout
        while True:
            if self._closing:
                self._limiter.give_back(kind, started)
                raise NotSent("the order lane was closed")
            waiter: asyncio.Future[Connection] = loop.create_future()
            self._waiters[kind].append(waiter)
            self._grow()
            try:
                async with asyncio.timeout_at(until):
                    connection = await waiter
                restarted = self._limiter.restart(kind, started)
            except BaseException as error:
                self._limiter.give_back(kind, started)
                if (
                    waiter.done()
                    and not waiter.cancelled()
                    and waiter.exception() is None
                    and waiter.result().is_usable
                ):
                    self._now_idle(waiter.result())
                if isinstance(error, TimeoutError):
                    raise NotSent(
                        f"none of {len(self._open)} connections to {self._server} became free "
                        f"within {timeout:g} s"
                    ) from error
                raise
            if restarted is not None and connection.is_usable:
                return connection, max(0.0, until - loop.time())
            if connection.is_usable:
                self._now_idle(connection)
                self._limiter.give_back(kind, started)
                started = await self._limiter.acquire(kind)
                until = loop.time() + timeout
                if (idle := self._take_idle()) is not None:
                    return idle, timeout
            else:
                tries += 1
                if tries == TRIES:
                    self._limiter.give_back(kind, started if restarted is None else restarted)
                    text = f"{self._server} closes connections as soon as they are open"
                    self.breaker.failed(text, connected=True)
                    raise NotSent(text)
                if restarted is not None:
                    started = restarted

    def _grow(self) -> None:
        """Open as many connections as somebody waits for, up to the limit."""
        waiting = sum(1 for queue in self._waiters for waiter in queue if not waiter.done())
        size = len(self._open) + len(self._connecting)
        for _ in range(min(waiting - len(self._connecting), self._pool.maximum - size)):
            self._start_connecting()

    def _start_connecting(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._connect(), name="order lane: connect")
        self._connecting.add(task)
        task.add_done_callback(self._done_connecting)
        return task

    def _done_connecting(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        self._changed.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and (waiter := self._next_waiter()) is not None:
            waiter.set_exception(error)
        if not self._closing:
            self._grow()  # somebody may have come who still counted on this one

    async def _connect(self) -> None:
        """Open one connection; it announces itself as idle."""
        try:
            connection = await self._open_connection()
        except NotSent as error:
            self.breaker.failed(str(error), connected=False)
            raise
        self.breaker.connected()
        self.opened += 1
        self._open[connection] = asyncio.get_running_loop().time()
        self._now_idle(connection)

    async def _open_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
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
                f"no connection to {self._server} within {self._connect_timeout:g} s"
            ) from error
        except OSError as error:  # ssl.SSLError is one
            raise NotSent(f"cannot connect to {self._server}: {error}") from error
        if transport.is_closing():
            raise NotSent(f"{self._server} closed the connection as soon as it was open")
        _keep_alive(transport.get_extra_info("socket"))
        return connection

    async def _keep_warm(self) -> None:
        """Replace the connections that the server closes, for ever; but do not hammer a server
        that refuses them, or accepts them and closes them at once."""
        failures, reason = 0, ""
        while True:
            if self._is_warm():
                self._changed.clear()
                await self._changed.wait()
                continue
            if failures or self._short_lives:
                if failures:
                    delay = self.breaker.wait(failures)
                else:
                    delay = backoff(self._short_lives, base=0.1, cap=10.0)
                    reason = f"{self._server} closes connections as soon as they are open"
                level = logging.WARNING if failures + self._short_lives == 1 else logging.DEBUG
                log.log(level, "order lane: %s; next try in %.1f s", reason, delay)
                await asyncio.sleep(delay)
                if self._is_warm():
                    continue
            task = self._start_connecting()
            await asyncio.wait([task])
            error = task.exception()
            failures, reason = (0, "") if error is None else (failures + 1, str(error))

    def _is_warm(self) -> bool:
        return len(self._open) + len(self._connecting) >= self._pool.warm

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
        opened = self._open.pop(connection, None)
        if opened is not None:
            now = asyncio.get_running_loop().time()
            is_short = not connection.requests and now - opened < SHORT_LIFE
            self._short_lives = self._short_lives + 1 if is_short else 0
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
