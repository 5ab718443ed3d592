"""The order lane: order requests to one server, each sent once.

A request waits for the rate limiter, then for a connection of the pool. The start that the limiter
grants is counted at the moment in which the bytes are written.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import Final, Protocol
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
from neo_async.transport.pool import ConnectionPool, Slot

ROUND_TRIPS_KEPT: Final = 1000


class HandOver(Protocol):
    """A request on which the lane marks that its bytes were handed to a socket, and to which."""

    was_sent: bool
    connection: Connection | None


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
        called = time.perf_counter()
        is_probe = False
        # Where no connection is free, its start is put off at once.
        is_held = (
            len(pool.idle) <= pool.planner.idle_for_cancels  # rules most out, and costs less
            and breaker.is_closed
            and not pool.may_take(kind)
            and limiter.hold_now(kind)
        )
        if not is_held:
            at_once = limiter.start_now(kind)
            started = await limiter.acquire(kind) if at_once is None else at_once
            # The breaker may have opened while this one queued.
            is_probe = not breaker.is_closed and self._admit(kind, started)
        admitted = time.perf_counter()
        try:
            slot = None if is_held else pool.take(kind)
            if slot is None:
                if not is_held:
                    limiter.hold(kind, started)
                slot, started, timeout = await self._wait_for_slot(kind, timeout)
            connection = slot.connection
            is_first = not connection.requests
            sent = time.perf_counter()
            if record is not None:
                record.was_sent = True
                record.connection = connection
            answer = await connection.request(data, timeout)
        except AnswerLost as error:
            self._meter.sent(kind, admitted - called, sent - admitted)
            self._meter.lost(error)
            breaker.failed(str(error), connected=True)
            raise
        finally:
            if is_probe:
                breaker.probed()
        if is_first:
            limiter.answered_late(kind, started)
        self.round_trips.append((kind, time.perf_counter() - sent))
        self._meter.sent(kind, admitted - called, sent - admitted)
        if answer.status >= 500:
            self._meter.server_errors += 1
        if answer.status in GATEWAY_FAILURES:
            breaker.failed(f"answered with HTTP {answer.status}", connected=True)
        elif breaker.failures:
            breaker.answered()
        return answer

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

    async def _wait_for_slot(self, kind: Kind, timeout: float) -> tuple[Slot, float, float]:
        """Return a slot to write to in this moment, the time of the start, and the rest of
        `timeout`. The start was put off before (`Limiter.hold`).

        It is counted when the connection is there: time spent on a handshake would let two requests
        arrive closer together than the limit allows.
        """
        limiter, pool, loop = self._limiter, self.pool, asyncio.get_running_loop()
        while True:
            until = loop.time() + timeout
            try:
                slot = await pool.wait(kind, until, timeout)
            except BaseException:
                limiter.release(kind)
                raise
            started = self._start_held(kind, slot)
            if started is not None:
                return slot, started, max(0.0, until - loop.time())
            # Cancels or reads have taken the room meanwhile, or a pause began.
            started = await limiter.acquire(kind, first=True)
            taken = pool.take(kind)
            if taken is not None:
                return taken, started, timeout
            limiter.hold(kind, started)

    def _start_held(self, kind: Kind, slot: Slot) -> float | None:
        """Make the start that was put off. The slot goes back where that cannot be."""
        started = None
        try:
            started = self._limiter.start_held(kind)
        finally:
            if started is None:
                slot.release()
        return started

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
