"""A pool of warm connections to one server, handed out by kind of request, then by arrival.

Connections are opened at login and opened again when the server closes them. The one used last is
used next, so that the others grow idle together; under load the pool grows to its limit. How many
there may be, and who may use them, PoolPlanner decides.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from neo_async.base import logs
from neo_async.base.logs import Log, logger_of
from neo_async.config import PoolLimits
from neo_async.errors import NotSent
from neo_async.transport.backoff import backoff
from neo_async.transport.breaker import Breaker
from neo_async.transport.connection import Connection
from neo_async.transport.kinds import Kind
from neo_async.transport.pool_planner import PoolPlanner
from neo_async.transport.unread import TURNS

SHORT_LIFE_SECONDS: Final = 1.0
"""A connection lost sooner, and without a request, was not wanted by the server."""

MAX_TRIES: Final = 3
"""Connections that one request waits for, when each is lost before it can be used."""

_TIMER_TOLERANCE: Final = 0.001
"""Seconds by which a timer may be early."""

_Waiters: TypeAlias = "OrderedDict[asyncio.Future[Slot], tuple[float, float]]"
"""Requests that wait for a slot, by arrival: the loop time of their deadline, and their timeout."""


class Slot:
    """A connection's place in the pool, from when the connection stands until it is lost."""

    __slots__ = ("_pool", "connection", "opened_at")

    def __init__(self, pool: ConnectionPool, connection: Connection, opened_at: float) -> None:
        self._pool = pool
        self.connection = connection
        self.opened_at = opened_at
        """Loop time."""

    def claim(self) -> bool:
        """Return whether a request may be written to the connection in this moment.

        Bytes that came before the request are not its answer. While some wait to be read, the
        connection is put aside until the loop has read them. Then it is idle again, or closed if
        they were for a program to see.
        """
        connection = self.connection
        if not connection.is_usable:
            return False
        if not connection.has_unread():
            return True
        asyncio.get_running_loop().call_soon(self._read_unread, TURNS)
        return False

    def release(self) -> None:
        """Give the slot back unused."""
        if self.connection.is_usable:
            self._pool.on_idle(self.connection)

    def is_short_lived(self, now: float) -> bool:
        """Return whether a connection that is lost at loop time `now` was of no use."""
        return not self.connection.requests and now - self.opened_at < SHORT_LIFE_SECONDS

    def _read_unread(self, turns: int) -> None:
        """Give the loop so many turns to read what came on a connection put aside."""
        if not self.connection.is_usable:
            return
        if not self.connection.has_unread():
            self.release()
        elif turns > 0:
            asyncio.get_running_loop().call_soon(self._read_unread, turns - 1)
        else:
            self.connection.close()


class ConnectionPool:
    """Connections to one server: `open` before use, `close` after."""

    def __init__(
        self,
        host: str,
        port: int,
        limits: PoolLimits,
        *,
        connect_timeout: float,
        tls: ssl.SSLContext | None,
        breaker: Breaker,
        log: Log | None = None,
    ) -> None:
        """`tls` is None for plain HTTP."""
        self._log = log or logger_of(logs.TRANSPORT)
        self._host = host
        self._port = port
        self._server = f"{host}:{port}"
        self._tls = tls
        self._warm = limits.warm
        self.planner = PoolPlanner(limits)
        self._breaker = breaker
        self._connect_timeout = connect_timeout
        self._slots: dict[Connection, Slot] = {}
        """Slots of the connections that stand."""
        self.idle: list[Slot] = []
        """Slots without a request; the one used last is the last."""
        self._connecting: set[asyncio.Task[None]] = set()
        """Connections being opened. Each counts from before its first await, so that the limits
        hold meanwhile."""
        self._waiters: tuple[_Waiters, ...] = tuple(OrderedDict() for _ in Kind)
        self._waiting_cancels = self._waiters[Kind.CANCEL]
        self._by_kind = tuple(zip(Kind, self._waiters, strict=True))
        self._deadline: asyncio.TimerHandle | None = None
        """Ends the waits for a slot; left alone while waiters come and go."""
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._changed = asyncio.Event()
        """Set when connections were lost, or fewer are idle than the keeper keeps."""
        self._short_lives = 0
        """Connections in a row that were lost soon and unused."""
        self.opened = 0
        """Connections opened so far."""

    async def open(self) -> None:
        """Open the warm connections. Raises NotSent when not even one can be made."""
        tasks = [self._start_connecting() for _ in range(self._warm)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            await self.close()
            raise
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and not self._slots:
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
        for slot in self.idle:
            slot.connection.close()
        try:
            while self._slots:
                self._changed.clear()
                await self._changed.wait()
        finally:
            for connection in self._slots:
                connection.close()

    @property
    def busy(self) -> int:
        """Connections on which a request may be on its way."""
        return len(self._slots) - len(self.idle)

    @property
    def connecting(self) -> int:
        """Connections that are being opened."""
        return len(self._connecting)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return sum(map(len, self._waiters))

    # --- handing out --------------------------------------------------------------------------

    def may_take(self, kind: Kind) -> bool:
        """Return whether a request of this kind may use an idle connection."""
        return self.planner.may_take(kind, len(self.idle), len(self._slots))

    def take(self, kind: Kind, *, is_for_waiter: bool = False) -> Slot | None:
        """Take an idle slot to write to in this moment, or to hand to a request that wakes up later
        and claims it itself. None when there is none for this kind."""
        idle = self.idle
        while self.planner.may_take(kind, len(idle), len(self._slots)):
            slot = idle.pop()
            if slot.connection.is_usable if is_for_waiter else slot.claim():
                if len(idle) < self.planner.idle_for_cancels:
                    self._changed.set()  # the keeper replaces those left to cancels
                return slot
        return None

    async def wait(self, kind: Kind, until: float, timeout: float) -> Slot:
        """Wait for a slot to write to in this moment, opening a connection where the limits allow.

        `until` is the loop time at which `timeout` seconds are over. Raises NotSent.
        """
        for _ in range(MAX_TRIES):
            waiter = self._add_waiter(kind, until, timeout)
            try:
                slot = await waiter
            except BaseException:
                self._remove_waiter(kind, waiter)
                raise
            if slot.claim():
                return slot
        text = f"{self._server} closes connections as soon as they are open"
        self._breaker.failed(text, connected=True)
        raise NotSent(text)

    def drop_waiting(self, refusal: Callable[[Kind], BaseException | None]) -> None:
        """Fail the waiting requests of the kinds for which `refusal` returns an error, each with
        an error of its own."""
        for kind, queue in self._by_kind:
            while queue and (error := refusal(kind)) is not None:
                _fail(queue.popitem()[0], error)
        self._serve()

    def _add_waiter(self, kind: Kind, until: float, timeout: float) -> asyncio.Future[Slot]:
        if self._closing:
            raise NotSent("the order lane was closed")
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiters[kind][waiter] = (until, timeout)
        self._expire_at(until)
        self._open_missing()
        return waiter

    def _remove_waiter(self, kind: Kind, waiter: asyncio.Future[Slot]) -> None:
        """Forget a request that gave up. A slot that was handed to it in the same turn of the loop
        is for others."""
        self._waiters[kind].pop(waiter, None)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().release()

    def _serve(self) -> None:
        """Hand idle slots to the requests that wait, by kind, then by arrival."""
        for kind, queue in self._by_kind:
            while queue and (slot := self.take(kind, is_for_waiter=True)) is not None:
                waiter, _ = queue.popitem(last=False)
                if waiter.done():  # its caller has given up, and is about to leave
                    self.idle.append(slot)
                else:
                    waiter.set_result(slot)

    def _fail_next(self, error: BaseException) -> None:
        """Fail the request that would have been served next: no connection could be made for it."""
        for queue in self._waiters:
            while queue:
                waiter, _ = queue.popitem(last=False)
                if not waiter.done():
                    waiter.set_exception(error)
                    return

    def _expire_at(self, until: float) -> None:
        """See that `_expire` is called at that loop time, or earlier."""
        if self._deadline is not None:
            if self._deadline.when() <= until:
                return
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_at(until, self._expire)

    def _expire(self) -> None:
        """Fail the requests whose timeout is over."""
        self._deadline = None
        soon = asyncio.get_running_loop().time() + _TIMER_TOLERANCE
        next_at = math.inf
        for queue in self._waiters:
            for waiter, (until, timeout) in list(queue.items()):
                if until > soon:
                    next_at = min(next_at, until)
                    continue
                del queue[waiter]
                text = f"none of {len(self._slots)} connections to {self._server} became free"
                _fail(waiter, NotSent(f"{text} within {timeout:g} s"))
        if next_at < math.inf:
            self._expire_at(next_at)

    # --- what connections report --------------------------------------------------------------

    def on_idle(self, connection: Connection) -> None:
        """Note that a connection is ready for a request."""
        if self._closing:
            connection.close()
            return
        self.idle.append(self._slots[connection])
        self._serve()

    def on_lost(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        slot = self._slots.pop(connection, None)
        if slot is not None:
            is_short = slot.is_short_lived(asyncio.get_running_loop().time())
            self._short_lives = self._short_lives + 1 if is_short else 0
            if slot in self.idle:
                self.idle.remove(slot)
        self._changed.set()
        if not self._closing:
            self._open_missing()
            self._serve()  # the place that this one leaves may be what was missing

    # --- opening ------------------------------------------------------------------------------

    def _open_missing(self) -> None:
        """Open the connections that the waiting requests need."""
        cancels = len(self._waiting_cancels)
        if not self.planner.may_open(len(self._slots), len(self._connecting), cancels):
            return
        missing = self.planner.missing(
            idle=len(self.idle),
            open_=len(self._slots),
            connecting=len(self._connecting),
            cancels=cancels,
            others=self.waiting - cancels,
        )
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
            self._open_missing()  # a request may have come that counted on this one

    async def _connect(self) -> None:
        """Open one connection, and put it into an idle slot."""
        try:
            connection = await self._open_connection()
        except NotSent as error:
            self._breaker.failed(str(error), connected=False)
            raise
        self._breaker.connected()
        self.opened += 1
        self._slots[connection] = Slot(self, connection, asyncio.get_running_loop().time())
        self.on_idle(connection)

    async def _open_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, connection = await loop.create_connection(
                    lambda: Connection(loop, on_idle=self.on_idle, on_lost=self.on_lost),
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

    # --- keeping warm -------------------------------------------------------------------------

    async def _keep_warm(self) -> None:
        """Replace the connections that the server closes, for ever; pause where it refuses them, or
        accepts them and closes them at once."""
        failures, reason = 0, ""
        while True:
            if self._is_warm():
                self._changed.clear()
                await self._changed.wait()
                continue
            if failures or self._short_lives:
                if failures:
                    delay = self._breaker.wait(failures)
                else:
                    delay = backoff(self._short_lives, base=0.1, cap=10.0)
                    reason = f"{self._server} closes connections as soon as they are open"
                level = logging.WARNING if failures + self._short_lives == 1 else logging.DEBUG
                self._log.log(level, "order lane: %s; next try in %.1f s", reason, delay)
                await asyncio.sleep(delay)
                if self._is_warm():
                    continue
            task = self._start_connecting()
            await asyncio.wait([task])
            error = task.exception()
            failures, reason = (0, "") if error is None else (failures + 1, str(error))

    def _is_warm(self) -> bool:
        return self.planner.is_warm(
            idle=len(self.idle), open_=len(self._slots), connecting=len(self._connecting)
        )

    def __repr__(self) -> str:
        return (
            f"<ConnectionPool {self._server} {len(self.idle)} idle, {self.busy} busy, "
            f"{self.connecting} connecting, {self.waiting} waiting>"
        )


def _fail(waiter: asyncio.Future[Slot], error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)


def _keep_alive(connected: object) -> None:
    """Send small packets at once, and notice within half a minute that the other side is gone
    (a NAT that forgot the connection drops an order without an answer)."""
    sock = cast(socket.socket, connected)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS and Windows lack some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
