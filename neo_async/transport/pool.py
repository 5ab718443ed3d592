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
from typing import Final, Protocol, TypeAlias, cast

import msgspec

from neo_async.base import logs
from neo_async.base.logs import Log, logger_of
from neo_async.config import PoolLimits
from neo_async.errors import NotSent
from neo_async.model.answer import Answer
from neo_async.transport.backoff import backoff
from neo_async.transport.breaker import Breaker
from neo_async.transport.connection import TIMER_TOLERANCE, Connection
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.pool_planner import PoolPlanner
from neo_async.transport.unread import TURNS

SHORT_LIFE_SECONDS: Final = 1.0
"""A connection lost sooner, and without a request, was not wanted by the server."""

MAX_SHORT_LIVES: Final = 3
"""Such connections in a row after which requests do not wait for another one."""


class LaneRequest(msgspec.Struct, eq=False):
    """A request on the order lane, from its start to its answer."""

    kind: Kind
    data: Hidden[bytes]
    timeout: float
    """Seconds from its start until the answer counts as lost."""
    record: HandOver | None
    """Marked when the bytes are handed to a socket."""
    turn: asyncio.Future[Answer | None]
    """Gets the answer, or the error; None when it has to wait for its start once more."""
    until: float = 0.0
    """Loop time at which the timeout is over."""
    is_held: bool = False
    """Whether its start is put off, for want of a connection."""
    started: float = 0.0
    """Time of its start on the limiter's clock."""
    sent: float = 0.0
    """Time of the hand-over to the socket by `time.perf_counter`."""
    connection: Connection | None = None
    """The connection to which it was handed; None before."""
    is_first: bool = False
    """Whether it is the first one on its connection."""


class HandOver(Protocol):
    """A caller's record of a request, on which the lane marks that its bytes were handed to a
    socket, and to which."""

    was_sent: bool
    connection: Connection | None


_Queue: TypeAlias = "OrderedDict[LaneRequest, None]"


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
        send: Callable[[LaneRequest, Connection], bool],
        log: Log | None = None,
    ) -> None:
        """`tls` is None for plain HTTP. `send` writes a request that has waited to a connection
        that is free in this moment; it returns False when it has not."""
        self._log = log or logger_of(logs.TRANSPORT)
        self._host = host
        self._port = port
        self._server = f"{host}:{port}"
        self._tls = tls
        self._warm = limits.warm
        self.planner = PoolPlanner(limits)
        self._breaker = breaker
        self._connect_timeout = connect_timeout
        self._send = send
        self.connections: dict[Connection, None] = {}
        """Connections that stand, oldest first."""
        self.idle: list[Connection] = []
        """Those of them without a request; the one used last is the last."""
        self._connecting: set[asyncio.Task[None]] = set()
        """Connections being opened. Each counts from before its first await, so that the limits
        hold meanwhile."""
        self._queues: tuple[OrderedDict[LaneRequest, None], ...] = tuple(
            OrderedDict() for _ in Kind
        )
        """Requests that wait for a connection, by kind, then by arrival."""
        self._waiting_cancels = self._queues[Kind.CANCEL]
        self._deadline: asyncio.TimerHandle | None = None
        """Ends the waits for a connection; left alone while requests come and go."""
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
        if failures and not self.connections:
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
        for queue in self._queues:
            while queue:
                _fail(queue.popitem()[0], NotSent("the order lane was closed"))
        if self._deadline is not None:
            self._deadline.cancel()
        for connection in self.idle:
            connection.close()
        try:
            while self.connections:
                self._changed.clear()
                await self._changed.wait()
        finally:
            for connection in self.connections:
                connection.close()

    @property
    def busy(self) -> int:
        """Connections on which a request may be on its way."""
        return len(self.connections) - len(self.idle)

    @property
    def connecting(self) -> int:
        """Connections that are being opened."""
        return len(self._connecting)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return sum(map(len, self._queues))

    # --- handing out --------------------------------------------------------------------------

    def may_take(self, kind: Kind) -> bool:
        """Return whether a request of this kind may use an idle connection."""
        return self.planner.may_take(kind, len(self.idle), len(self.connections))

    def take(self, kind: Kind) -> Connection | None:
        """Take an idle connection, for a request of this kind that is written in this moment; None
        when there is none for it."""
        idle = self.idle
        while self.planner.may_take(kind, len(idle), len(self.connections)):
            connection = idle.pop()
            if connection.is_clear():
                if len(idle) < self.planner.idle_for_cancels:
                    self._changed.set()  # the keeper replaces those left to cancels
                return connection
            if connection.is_usable:
                asyncio.get_running_loop().call_soon(self._look, connection, TURNS)
        return None

    def wait(self, request: LaneRequest) -> None:
        """Have a request sent, or its `turn` failed, as soon as there is a connection for it: it is
        opened where the limits allow. Raises NotSent when the pool was closed."""
        if self._closing:
            raise NotSent("the order lane was closed")
        self._queues[request.kind][request] = None
        self._expire_at(request.until)
        self._open_missing()

    def forget(self, request: LaneRequest) -> None:
        """Let a request wait no longer."""
        self._queues[request.kind].pop(request, None)

    def drop_waiting(self, refusal: Callable[[Kind], BaseException | None]) -> None:
        """Fail the waiting requests of the kinds for which `refusal` returns an error, each with
        an error of its own."""
        for kind, queue in zip(Kind, self._queues, strict=True):
            while queue and (error := refusal(kind)) is not None:
                _fail(queue.popitem()[0], error)
        self._serve()

    def _serve(self) -> None:
        """Send the requests that wait, by kind, then by arrival, on idle connections."""
        for queue in self._queues:
            while queue:
                request = next(iter(queue))
                if request.turn.done():  # its caller has given up, and is about to leave
                    del queue[request]
                    continue
                connection = self.take(request.kind)
                if connection is None:
                    break
                del queue[request]
                if not self._send(request, connection):
                    self.idle.append(connection)

    def _look(self, connection: Connection, turns: int) -> None:
        """Use a connection once nothing is unread on it. It is put aside until the loop has read
        that, for so many turns: what is still unread then is for a program to see, and no
        program is waiting."""
        if connection.is_clear():
            self.on_idle(connection)
        elif connection.is_usable and turns > 0:
            asyncio.get_running_loop().call_soon(self._look, connection, turns - 1)
        else:
            connection.close()

    def _fail_next(self, error: BaseException) -> None:
        """Fail the request that would have been served next: no connection could be made for it."""
        for queue in self._queues:
            while queue:
                request, _ = queue.popitem(last=False)
                if not request.turn.done():
                    request.turn.set_exception(error)
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
        soon = asyncio.get_running_loop().time() + TIMER_TOLERANCE
        next_at = math.inf
        for queue in self._queues:
            for request in [*queue]:
                if request.until > soon:
                    next_at = min(next_at, request.until)
                    continue
                del queue[request]
                text = f"none of {len(self.connections)} connections to {self._server} became free"
                _fail(request, NotSent(f"{text} within {request.timeout:g} s"))
        if next_at < math.inf:
            self._expire_at(next_at)

    # --- what connections report --------------------------------------------------------------

    def on_idle(self, connection: Connection) -> None:
        """Use a connection that is ready for a request."""
        if self._closing:
            connection.close()
            return
        self.idle.append(connection)
        if not any(self._queues):
            return
        if self._connecting:
            # Handshakes make a turn of the loop long. A server in this process, such as the
            # simulator, would read after all of them what is counted as sent now.
            asyncio.get_running_loop().call_soon(self._serve)
        else:
            self._serve()

    def on_lost(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        if connection in self.connections:
            del self.connections[connection]
            age = asyncio.get_running_loop().time() - connection.opened_at
            is_short = not connection.requests and age < SHORT_LIFE_SECONDS
            self._short_lives = self._short_lives + 1 if is_short else 0
            if connection in self.idle:
                self.idle.remove(connection)
            if self._short_lives >= MAX_SHORT_LIVES and any(self._queues):
                text = f"{self._server} closes connections as soon as they are open"
                self._breaker.failed(text, connected=True)
                self._fail_next(NotSent(text))
        self._changed.set()
        if not self._closing:
            self._open_missing()
            self._serve()  # the place that this one leaves may be what was missing

    # --- opening ------------------------------------------------------------------------------

    def _open_missing(self) -> None:
        """Open the connections that the waiting requests need."""
        cancels = len(self._waiting_cancels)
        if not self.planner.may_open(len(self.connections), len(self._connecting), cancels):
            return
        missing = self.planner.missing(
            idle=len(self.idle),
            open_=len(self.connections),
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
        """Open one connection, and use it."""
        try:
            connection = await self._open_connection()
        except NotSent as error:
            self._breaker.failed(str(error), connected=False)
            raise
        self._breaker.connected()
        self.opened += 1
        self.connections[connection] = None
        self._look(connection, TURNS)

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
        # The loop reads first what came with the connection, such as its end: a request that waits
        # for it is written in the moment in which it counts as idle.
        await asyncio.sleep(0)
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
            idle=len(self.idle), open_=len(self.connections), connecting=len(self._connecting)
        )

    def __repr__(self) -> str:
        return (
            f"<ConnectionPool {self._server} {len(self.idle)} idle, {self.busy} busy, "
            f"{self.connecting} connecting, {self.waiting} waiting>"
        )


def _fail(request: LaneRequest, error: BaseException) -> None:
    if not request.turn.done():
        request.turn.set_exception(error)


def _keep_alive(connected: object) -> None:
    """Send small packets at once, and notice within half a minute that the other side is gone
    (a NAT that forgot the connection drops an order without an answer)."""
    sock = cast(socket.socket, connected)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS and Windows lack some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
