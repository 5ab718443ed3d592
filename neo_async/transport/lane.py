"""The order lane: order requests to one server, each sent once.

A request waits for the rate limiter, then for a connection of the pool. Its start is counted in the
moment in which its bytes are written: at once where a connection is idle, and otherwise in the
moment in which one becomes free. Time spent on a handshake in between would let two requests arrive
closer together than the limit allows.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import get_running_loop
from collections import deque
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from neo_async.base.logs import Log
from neo_async.config import PoolLimits
from neo_async.errors import AnswerLost, BreakerOpen, UsageError
from neo_async.model.answer import Answer
from neo_async.transport.breaker import GATEWAY_FAILURES, Breakers
from neo_async.transport.connection import Connection
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.meter import Meter
from neo_async.transport.pool import ConnectionPool, HandOver, LaneRequest

ROUND_TRIPS_KEPT: Final = 1000


class Lane:
    """The lane to one server: `open` before use, `close` after."""

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
        log: Log | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise UsageError(f"url={url!r}: has no host to connect to")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        self._server = f"{parts.hostname}:{port}"
        self.host_header = parts.netloc.rpartition("@")[2]
        self._limiter = limiter
        self._meter = meter or Meter()
        self.breaker = (breakers or Breakers()).orders(self._server)
        self.pool = ConnectionPool(
            parts.hostname,
            port,
            pool,
            connect_timeout=connect_timeout,
            tls=(tls or ssl.create_default_context()) if secure else None,
            breaker=self.breaker,
            log=log,
            send=self._start_and_write,
        )
        self.round_trips: deque[tuple[Kind, float]] = deque(maxlen=ROUND_TRIPS_KEPT)
        """Seconds from the hand-over to the socket to the answer, by kind, oldest first."""

    async def open(self) -> None:
        """Open the warm connections. Raises NotSent when not even one can be made."""
        await self.pool.open()

    async def close(self) -> None:
        """Let requests in flight end (their deadlines bound that), then close everything.

        Cancelling it closes at once.
        """
        await self.pool.close()

    async def request(
        self, kind: Kind, data: Hidden[bytes], timeout: float, record: HandOver | None = None
    ) -> Answer:
        """Send one whole HTTP request as soon as the limiter and a connection allow.

        `timeout` counts from the start that the limiter grants. Raises NotSent (BreakerOpen when
        the server counts as unreachable), AnswerLost, or what `Limiter.acquire` raises. `record` is
        marked when the bytes are handed to a socket: a caller that is cancelled reads from it
        whether the request may have arrived.
        """
        breaker, pool, limiter = self.breaker, self.pool, self._limiter
        if not breaker.is_closed:
            await self.check(kind)
        called = perf_counter()
        loop = get_running_loop()
        request = LaneRequest(kind, data, timeout, record, loop.create_future())
        is_probe = False
        # Where no connection is free, its start is put off at once.
        if (
            len(pool.idle) <= pool.planner.idle_for_cancels  # rules most out, and costs less
            and breaker.is_closed
            and not pool.may_take(kind)
            and limiter.hold_now(kind)
        ):
            request.is_held = True
        else:
            started = limiter.start_now(kind)
            request.started = await limiter.acquire(kind) if started is None else started
            # The breaker may have opened while this one queued.
            is_probe = not breaker.is_closed and self._admit(kind, request.started)
        admitted = perf_counter()
        try:
            answer = None
            while answer is None:
                request.until = loop.time() + timeout
                if not request.is_held and (connection := pool.take(kind)) is not None:
                    self._write(request, connection)
                else:
                    self._wait(request)
                answer = await request.turn
                if answer is None:
                    # Cancels or reads have taken the room, or a pause began, when its turn came.
                    request.started = await limiter.acquire(kind, first=True)
                    request.turn = loop.create_future()
        except BaseException as error:
            self._abandon(request)
            if isinstance(error, AnswerLost):
                self._meter.sent(kind, admitted - called, request.sent - admitted)
                self._meter.lost(error)
                breaker.failed(str(error), connected=True)
            raise
        finally:
            if is_probe:
                breaker.probed()
        if request.is_first:
            limiter.answered_late(kind, request.started)
        self.round_trips.append((kind, perf_counter() - request.sent))
        self._meter.sent(kind, admitted - called, request.sent - admitted)
        if answer.status >= 500:
            self._meter.server_errors += 1
        if answer.status in GATEWAY_FAILURES:
            breaker.failed(f"answered with HTTP {answer.status}", connected=True)
        elif breaker.failures:
            breaker.answered()
        return answer

    def _write(self, request: LaneRequest, connection: Connection) -> None:
        """Hand a request whose start is counted to a connection that is free in this moment."""
        request.connection = connection
        request.is_first = not connection.requests
        request.sent = perf_counter()
        record = request.record
        if record is not None:
            record.was_sent = True
            record.connection = connection
        connection.send(request.data, request.turn, request.until, request.timeout)

    def _wait(self, request: LaneRequest) -> None:
        """Have a request sent when there is a connection for it."""
        if not request.is_held:
            self._limiter.hold(request.kind, request.started)
            request.is_held = True
        self.pool.wait(request)

    def _start_and_write(self, request: LaneRequest, connection: Connection) -> bool:
        """Send a request that has waited, now that a connection is free. Return False where it may
        not start now."""
        request.is_held = False
        try:
            started = self._limiter.start_held(request.kind)
            if started is not None:
                request.started = started
                self._write(request, connection)
                return True
        except Exception as error:  # trading is halted, or the quota of the day is used up
            request.turn.set_exception(error)
        else:
            request.turn.set_result(None)
        return False

    def _abandon(self, request: LaneRequest) -> None:
        """Take a request back that has failed, or whose caller has given up."""
        if request.is_held:
            self.pool.forget(request)
            self._limiter.release(request.kind)
        elif request.connection is not None:
            request.connection.give_up(request.turn)

    async def check(self, kind: Kind) -> None:
        """Raise BreakerOpen when the server counts as unreachable: before a caller queues. Cancels
        are always let through."""
        if kind is not Kind.CANCEL and not self.breaker.is_closed:
            await asyncio.sleep(0)  # a caller that tries for ever must not hold up the loop
            self.breaker.check()

    def drop_refused(self) -> None:
        """Fail the requests that wait for a connection and that the trading state refuses."""
        self.pool.drop_waiting(self._limiter.state.refusal)

    def _admit(self, kind: Kind, started: float) -> bool:
        """Return whether the request is a probe of an open breaker. Raises BreakerOpen."""
        try:
            return self.breaker.admit(is_urgent=kind is Kind.CANCEL)
        except BreakerOpen:
            self._limiter.give_back(kind, started)
            raise

    # --- counts for health and tests ----------------------------------------------------------

    @property
    def idle(self) -> int:
        """Connections without a request."""
        return len(self.pool.idle)

    @property
    def busy(self) -> int:
        """Connections on which a request may be on its way."""
        return self.pool.busy

    @property
    def is_busy(self) -> bool:
        """Whether a request may be on its way."""
        return self.pool.busy > 0

    @property
    def connecting(self) -> int:
        """Connections that are being opened."""
        return self.pool.connecting

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return self.pool.waiting

    @property
    def opened(self) -> int:
        """Connections opened so far."""
        return self.pool.opened

    def __repr__(self) -> str:
        return (
            f"<Lane {self._server} {self.idle} idle, {self.busy} busy, "
            f"{self.connecting} connecting, {self.waiting} waiting>"
        )
