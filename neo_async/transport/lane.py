"""The order lane: a pool of warm connections to one server, for requests that must not be doubled.

Connections are opened at login and opened again when the server closes them. The one used last is
used next, so that the others grow idle together; under load the pool grows to its limit. The last
connections are reserved for cancels, and cancels open more than the limit where all are in use: no
request that hangs, not even another cancel, holds up what takes orders back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import time
from collections import OrderedDict, deque
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from neo_async import logs
from neo_async.config import PoolLimits
from neo_async.errors import AnswerLost, BreakerOpen, NotSent, UsageError
from neo_async.model.answer import Answer
from neo_async.transport.backoff import backoff
from neo_async.transport.breaker import GATEWAY_FAILURES, Breakers
from neo_async.transport.connection import Connection
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.meter import Meter
from neo_async.transport.unread import TURNS

log = logging.getLogger(logs.TRANSPORT)

ROUND_TRIPS_KEPT = 1000

SHORT_LIFE = 1.0
"""Seconds; a connection lost sooner, and without a request, was not wanted by the server."""

TRIES = 3
"""Connections that one request waits for, when each is lost before it can be used."""

_CANCEL: Final = Kind.CANCEL

_TICK = 0.001
"""Seconds by which a timer may be early."""

_Waiters: TypeAlias = OrderedDict[asyncio.Future[Connection], tuple[float, float]]
"""Requests that wait for a connection, by arrival: until when on the loop's clock, and how long."""


class HandOver(Protocol):
    """A request that knows whether its bytes were handed to a socket, and to which."""

    was_sent: bool
    connection: Connection | None


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
        breakers: Breakers | None = None,
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
        self._for_others = pool.maximum
        """Connections that may be in use before only cancels get another one."""
        self._most = pool.maximum + pool.reserved
        """Connections that are open at most, without those that only hanging cancels need."""
        self._kept = min(pool.reserved, pool.warm - 1)
        """Idle connections that are left to cancels, as long as another one can be opened."""
        self._for_cancels = self._most + pool.for_cancels
        """Connections that may be open where cancels need them."""
        self._meter = meter or Meter()
        self.breaker = (breakers or Breakers()).orders(self._server)
        self._connect_timeout = connect_timeout
        self._idle: list[Connection] = []
        self._open: dict[Connection, float] = {}  # when each was opened, on the loop's clock
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiters: tuple[_Waiters, ...] = tuple(OrderedDict() for _ in Kind)
        self._by_kind = tuple(zip(Kind, self._waiters, strict=True))
        self._deadline: asyncio.TimerHandle | None = None
        """Ends the waits for a connection; left alone while waiters come and go."""
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
        for queue in self._waiters:
            while queue:
                _fail(queue.popitem()[0], NotSent("the order lane was closed"))
        if self._deadline is not None:
            self._deadline.cancel()
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
        self, kind: Kind, data: Hidden[bytes], timeout: float, record: HandOver | None = None
    ) -> Answer:
        """Send one whole HTTP request as soon as the limiter and a connection allow.

        `timeout` counts from the moment in which the limiter does. Raises NotSent (BreakerOpen
        when the server is taken for gone), AnswerLost, or what `Limiter.acquire` does. `record` is
        marked when the bytes are handed to a socket: a caller that is cancelled learns from it
        whether the request may have arrived.
        """
        breaker = self.breaker
        if not breaker.is_closed:
            await self.check(kind)
        asked = time.perf_counter()
        is_probe = False
        # Where no connection is free, its start is put off at once.
        is_held = (
            len(self._idle) <= self._kept  # rules most out, and costs less
            and breaker.is_closed
            and not self._is_free_for(kind)
            and self._limiter.hold_now(kind)
        )
        if not is_held:
            at_once = self._limiter.start_now(kind)
            started = await self._limiter.acquire(kind) if at_once is None else at_once
            # It may have opened while this one queued.
            is_probe = not breaker.is_closed and self._admit(kind, started)
        admitted = time.perf_counter()
        try:
            connection = None if is_held else self._take_idle(kind)
            if connection is None:
                if not is_held:
                    self._limiter.hold(kind, started)
                connection, started, timeout = await self._wait_for_connection(kind, timeout)
            is_first = not connection.requests
            sent = time.perf_counter()
            if record is not None:
                record.was_sent = True
                record.connection = connection
            answer = await connection.request(data, timeout)
        except AnswerLost as error:
            self._meter.sent(kind, admitted - asked, sent - admitted)
            self._meter.lost(error)
            breaker.failed(str(error), connected=True)
            raise
        finally:
            if is_probe:
                breaker.probed()
        if is_first:
            self._limiter.answered_late(kind, started)
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
        """Raises BreakerOpen when the server is taken for gone: before a caller queues. Cancels
        are always let through."""
        if kind is not Kind.CANCEL and not self.breaker.is_closed:
            await asyncio.sleep(0)  # a caller that tries for ever must not hold up the loop
            self.breaker.check()

    def drop_refused(self) -> None:
        """Let those wait for a connection no longer that the limiter would refuse to start."""
        for kind, queue in self._by_kind:
            while queue and (error := self._limiter.state.refusal(kind)) is not None:
                _fail(queue.popitem()[0], error)
        self._serve()

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
        return sum(map(len, self._waiters))

    def __repr__(self) -> str:
        return (
            f"<Lane {self._server} {self.idle} idle, {self.busy} busy, "
            f"{self.connecting} connecting, {self.waiting} waiting>"
        )

    def _admit(self, kind: Kind, started: float) -> bool:
        try:
            return self.breaker.admit(is_urgent=kind is Kind.CANCEL)
        except BreakerOpen:
            self._limiter.give_back(kind, started)
            raise

    def _is_free_for(self, kind: Kind) -> bool:
        """Whether an idle connection may be taken: cancels may take any."""
        idle = len(self._idle)
        if kind is _CANCEL:
            return idle > 0
        return idle > self._kept and len(self._open) - idle < self._for_others

    def _take_idle(self, kind: Kind, *, for_later: bool = False) -> Connection | None:
        """A connection to write to in this moment, or to hand to a request that wakes up later and
        looks itself whether bytes have come on it."""
        idle = self._idle
        while self._is_free_for(kind):
            connection = idle.pop()
            if connection.is_usable and (for_later or self._has_nothing_unread(connection)):
                if len(idle) < self._kept:
                    self._changed.set()  # those left to cancels are replaced
                return connection
        return None

    def _has_nothing_unread(self, connection: Connection) -> bool:
        """Whether a request may be written to it in this moment. What came before the request is
        not its answer: while bytes wait to be read, the connection is put aside, until the loop
        has read them. Then it is idle again, or closed if they were for a program to see."""
        if not connection.has_unread():
            return True
        asyncio.get_running_loop().call_soon(self._look_again, connection, TURNS)
        return False

    def _look_again(self, connection: Connection, turns: int) -> None:
        if not connection.is_usable:
            return
        if not connection.has_unread():
            self._now_idle(connection)
        elif turns > 0:
            asyncio.get_running_loop().call_soon(self._look_again, connection, turns - 1)
        else:
            connection.close()

    async def _wait_for_connection(
        self, kind: Kind, timeout: float
    ) -> tuple[Connection, float, float]:
        """A connection to use in this very moment, opening one where the limit allows, the time of
        its start and what is left of the time. The start was put off (`Limiter.hold`) until now.

        It is counted when the connection is there: time spent on a handshake would let two requests
        arrive closer together than the limit allows.
        """
        limiter, loop = self._limiter, asyncio.get_running_loop()
        queue = self._waiters[kind]
        tries, until = 0, loop.time() + timeout
        while True:
            waiter: asyncio.Future[Connection] = loop.create_future()
            try:
                if self._closing:
                    raise NotSent("the order lane was closed")
                queue[waiter] = (until, timeout)
                self._end_waiting_at(until)
                self._grow()
                connection = await waiter
            except BaseException:
                queue.pop(waiter, None)
                self._pass_on(waiter)
                limiter.release(kind)
                raise
            if not (connection.is_usable and self._has_nothing_unread(connection)):
                tries += 1
                if tries == TRIES:
                    limiter.release(kind)
                    text = f"{self._server} closes connections as soon as they are open"
                    self.breaker.failed(text, connected=True)
                    raise NotSent(text)
                continue
            try:
                started = limiter.start_held(kind)
            except BaseException:
                self._now_idle(connection)
                raise
            if started is not None:
                return connection, started, max(0.0, until - loop.time())
            # Cancels or reads have taken the room meanwhile, or a pause began.
            self._now_idle(connection)
            started = await limiter.acquire(kind, first=True)
            until = loop.time() + timeout
            if (idle := self._take_idle(kind)) is not None:
                return idle, started, timeout
            limiter.hold(kind, started)

    def _pass_on(self, waiter: asyncio.Future[Connection]) -> None:
        """Its caller has given up: a connection that it was handed just now is for others."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            connection = waiter.result()
            if connection.is_usable:
                self._now_idle(connection)

    def _end_waiting_at(self, until: float) -> None:
        if self._deadline is not None:
            if self._deadline.when() <= until:
                return
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_at(until, self._end_waiting)

    def _end_waiting(self) -> None:
        """Fail those who have waited for their time."""
        self._deadline = None
        soon = asyncio.get_running_loop().time() + _TICK
        rest = math.inf
        for queue in self._waiters:
            for waiter, (until, timeout) in list(queue.items()):
                if until > soon:
                    rest = min(rest, until)
                    continue
                del queue[waiter]
                text = f"none of {len(self._open)} connections to {self._server} became free"
                _fail(waiter, NotSent(f"{text} within {timeout:g} s"))
        if rest < math.inf:
            self._end_waiting_at(rest)

    def _grow(self) -> None:
        """Open as many connections as are waited for, up to the limits."""
        size = len(self._open) + len(self._connecting)
        cancels = len(self._waiters[_CANCEL])
        if size >= (self._for_cancels if cancels else self._most):
            return
        others = self.waiting - cancels
        ready = len(self._idle) + len(self._connecting)
        missing = min(cancels - ready, self._for_cancels - size)
        for_others = min(others, ready + self._for_others - size - cancels)
        if for_others > 0:
            missing = cancels - ready + for_others + self._kept
        for _ in range(missing):
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
        if error is not None:
            self._fail_next(error)
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
        size = len(self._open) + len(self._connecting)
        ready = len(self._idle) + len(self._connecting)
        return size >= self._pool.warm and (ready >= self._kept or size >= self._most)

    def _now_idle(self, connection: Connection) -> None:
        if self._closing:
            connection.close()
            return
        self._idle.append(connection)
        self._serve()

    def _serve(self) -> None:
        """Hand idle connections to those who wait, by kind, then by arrival."""
        for kind, queue in self._by_kind:
            while queue and (connection := self._take_idle(kind, for_later=True)) is not None:
                waiter, _ = queue.popitem(last=False)
                if waiter.done():  # its caller has given up, and is about to leave
                    self._idle.append(connection)
                else:
                    waiter.set_result(connection)

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
            self._serve()  # the room that this one leaves may be what was missing

    def _fail_next(self, error: BaseException) -> None:
        """No connection could be made for the one that would have been served next."""
        for queue in self._waiters:
            while queue:
                waiter, _ = queue.popitem(last=False)
                if not waiter.done():
                    waiter.set_exception(error)
                    return


def _fail(waiter: asyncio.Future[Connection], error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)


def _keep_alive(connected: object) -> None:
    """Send small packets at once, and notice within half a minute that the other side is gone
    (a NAT that forgot the connection swallows an order without a word)."""
    sock = cast(socket.socket, connected)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS and Windows lack some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
