"""A websocket that reconnects by itself, for ever, and reports every change of its state.

It carries bytes and text; what they mean is up to the handshake and the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp

from neo_async.base import logs
from neo_async.base.logs import Log, logger_of
from neo_async.config import FeedTimings
from neo_async.errors import NeoError, SessionEnded, TransportError, UsageError
from neo_async.model.address import shown_address
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.transport.backoff import backoff
from neo_async.transport.connector import Connector
from neo_async.transport.http import connect_problem
from neo_async.transport.meter import Meter

MAX_MESSAGE = 16 << 20
"""Bytes of the largest message accepted; the broker's are below one MiB."""

LONGEST_PATIENCE = 900.0
"""Seconds of silence beyond which the limit is no longer doubled."""

LONG_LIFE_FACTOR = 10
"""Multiple of `FeedTimings.stable` for which a connection has to live to end a series of
short-lived ones."""

SHORT_LIVES = 3
"""Connections in a row that were stable, but not for long, after each of which the next try is made
at once. After more of them it waits."""

MAX_PINGS_A_SECOND = 100
"""Pings of the server within a second; more of them are a flood."""

TURN_SECONDS = 0.005
"""Time for which messages that have come already are handled before other tasks run."""

CLOSE_TIMEOUT = 0.2
"""Seconds for which a server may take to answer a close frame."""


class Socket:
    """An open connection. Every failure is a TransportError."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, patience: float) -> None:
        """`patience` is the number of seconds to wait for a server that does not read."""
        self._websocket = websocket
        self._patience = patience
        self.last_sign = _now()
        """Loop time of the last frame of the server, pongs included."""
        self._turn_ends = 0.0
        """Loop time after which the rest of the event loop has to run."""
        self._pings = 0
        self._pings_since = 0.0

    async def send(self, text: str) -> None:
        async with self._sending():
            await self._websocket.send_str(text)

    async def ping(self) -> None:
        async with self._sending():
            await self._websocket.ping()

    async def receive(self) -> bytes | str:
        """Return the next message."""
        while True:
            message = await self._websocket.receive()
            now = self.last_sign = _now()
            if now > self._turn_ends:
                # receive() returns without a turn of the loop while messages wait, so that a burst
                # would keep everything else from running.
                await asyncio.sleep(0)
                self._turn_ends = _now() + TURN_SECONDS
            kind = message.type
            if kind is aiohttp.WSMsgType.BINARY or kind is aiohttp.WSMsgType.TEXT:
                content: bytes | str = message.data
                return content
            if kind is aiohttp.WSMsgType.PING:
                self._count_ping(now)
                async with self._sending():
                    await self._websocket.pong(message.data)
            elif kind is aiohttp.WSMsgType.ERROR:
                raise TransportError(f"the connection broke: {_problem(message.data)}")
            elif kind is not aiohttp.WSMsgType.PONG:
                code = self._websocket.close_code
                raise TransportError(f"the server closed the connection (code {code})")

    def _count_ping(self, now: float) -> None:
        if now - self._pings_since > 1.0:
            self._pings, self._pings_since = 0, now
        self._pings += 1
        if self._pings > MAX_PINGS_A_SECOND:
            raise TransportError(f"the server sends more than {MAX_PINGS_A_SECOND} pings a second")

    @contextlib.asynccontextmanager
    async def _sending(self) -> AsyncIterator[None]:
        try:
            async with _deadline(self._patience, "room to send"):
                yield
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise TransportError(f"the websocket cannot send: {error}") from error


class ReconnectingSocket:
    """Keeps one websocket open from `start` to `close`.

    `handshake` authenticates and subscribes, on every new connection. `handle` takes every message;
    what it returns is awaited before the next is read, which is how a slow consumer applies
    backpressure. SessionEnded from either leads to `renew` and another try; any other error to
    another try after a growing, jittered pause. The first try is at once, also when a stable
    connection is lost, unless connections keep being lost soon after they were made. `renew` calls
    `refuse` when no login can be made.

    A connection on which no frame comes for `ping + pong` seconds is lost. So is one on which pongs
    come but no data for `silence` seconds while `expects_data()`; that limit doubles with every
    reconnect after which no data came either, since the market may just be quiet.
    """

    def __init__(
        self,
        name: str,
        *,
        address: Callable[[], str],
        handshake: Callable[[Socket], Awaitable[None]],
        handle: Callable[[bytes | str], Awaitable[None] | None],
        renew: Callable[[], Awaitable[None]],
        expects_data: Callable[[], bool],
        timings: FeedTimings,
        tls: ssl.SSLContext | None = None,
        heartbeat_text: str = "",
        meter: Meter | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self._log = log or logger_of(logs.TRANSPORT)
        self._address = address
        self._handshake = handshake
        self._handle = handle
        self._renew = renew
        self._expects_data = expects_data
        self._timings = timings
        self._tls = tls
        self._heartbeat_text = heartbeat_text
        self._meter = meter or Meter()
        self._listeners: list[Callable[[FeedEvent], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._socket: Socket | None = None
        self._turned = asyncio.Event()
        """Set while the feed is live, and once it is closed."""
        self._live_since: float | None = None
        self._lost_at: float | None = None
        self._short_lives = 0
        """Stable connections in a row that did not live long."""
        self._fruitless = 0
        """Connections in a row that stalled before data came on them."""
        self._is_handling = False
        """Whether the consumer is awaited, and nothing is read."""
        self.state = FeedState.CLOSED
        self.reason = ""
        """Why the connection was lost last."""
        self.refusal = ""
        """Why no login can be made; empty unless the last one was refused."""
        self.last_message_at = 0.0
        """Loop time of the last message; 0 before the first."""
        self.reconnects = 0
        """Number of times that the feed was live again after a loss."""
        self.last_gap: float | None = None
        """Seconds from the last loss until the feed was live again; None before the first."""
        self.stalls = 0
        """Number of connections given up because no data came on them."""

    def on_event(self, listener: Callable[[FeedEvent], None]) -> None:
        """Call `listener` at every change of state."""
        self._listeners.append(listener)

    def start(self) -> None:
        if self._task is None:
            self._turned.clear()
            self._task = asyncio.create_task(self._stay_connected(), name=self.name)

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._live_since = self._lost_at = None
            self._fruitless = self._short_lives = 0
            self._enter(FeedState.CLOSED, "closed by the caller")
            self.refusal = ""
            self._turned.set()

    async def until_live(self) -> None:
        """Wait until the feed is live; return at once if it is.

        Raises UsageError when it was not started, and TransportError when it is closed meanwhile
        or the login is refused.
        """
        if self._task is None:
            raise UsageError(f"the {self.name} is not started: it will never be live")
        while not self.is_live:
            if self.refusal:
                raise TransportError(f"the {self.name} cannot be live: {self.refusal}")
            await self._turned.wait()
            if self.state is FeedState.CLOSED:
                raise TransportError(f"the {self.name} was closed before it was live")

    @property
    def is_live(self) -> bool:
        return self.state is FeedState.LIVE

    def refuse(self, reason: str) -> None:
        """Note that no login can be made, and why. Called while `renew` is awaited."""
        self.refusal = reason
        self._enter(FeedState.WAITING, reason)
        self._turned.set()
        self._turned.clear()  # `until_live` checks the state now, and waits for the next change

    async def send(self, text: str) -> bool:
        """Send on the live connection. Return False when there is none or it broke: then the
        handshake of the next one has to send the same."""
        if self._socket is None:
            return False
        try:
            await self._socket.send(text)
        except TransportError:
            return False
        return True

    # ------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        async with aiohttp.ClientSession(
            connector=Connector(tls=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_unredirected,),
        ) as http:
            failures = 0
            while True:
                ended = False
                try:
                    await self._serve_one_connection(http)
                except SessionEnded as error:
                    reason, ended = str(error), True
                except (NeoError, aiohttp.ClientError, OSError) as error:
                    reason = _reason(error)
                except Exception as error:
                    # A bug here or in a listener. A feed that ended for it would be worse.
                    self._log.exception("%s failed unexpectedly", self.name)
                    reason = repr(error)
                if self._task is not asyncio.current_task():
                    # close() came as the connection broke, and the task group raised that error
                    # in place of the cancellation.
                    return
                failures = self._failures_after(failures)
                self._mark_lost()
                # The first try is at once: most losses are one connection's, not the server's.
                delay = 0.0
                if failures > 1:
                    delay = backoff(failures - 1, base=0.5, cap=self._timings.longest_wait)
                self._log.info("%s lost: %s; next try in %.1f s", self.name, reason, delay)
                self._enter(FeedState.WAITING, reason)
                if ended:
                    await self._renew_session()
                await asyncio.sleep(delay)

    async def _serve_one_connection(self, http: aiohttp.ClientSession) -> None:
        """Connect, and handle messages until the connection fails; raise the reason."""
        self.refusal = ""
        self._enter(FeedState.CONNECTING, "")
        timings = self._timings
        async with _deadline(timings.connect, "connection"):
            websocket = await http.ws_connect(
                self._address(),
                autoping=False,
                max_msg_size=MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
            )
        try:
            socket = Socket(websocket, timings.pong)
            async with _deadline(timings.handshake, "answer to the handshake"):
                await self._handshake(socket)
            self._mark_live(socket)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(socket), name=f"{self.name}: reader")
                tasks.create_task(self._watch(socket), name=f"{self.name}: watchdog")
        except ExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._socket = None
            self._turned.clear()
            # aiohttp's own timeout begins anew with every message that comes meanwhile.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await websocket.close()

    async def _pump(self, socket: Socket) -> None:
        while True:
            message = await socket.receive()
            self.last_message_at = socket.last_sign
            handled = self._handle(message)
            if handled is not None:
                self._is_handling = True
                try:
                    await handled
                finally:
                    self._is_handling = False
                    socket.last_sign = self.last_message_at = _now()

    async def _watch(self, socket: Socket) -> None:
        """Send heartbeats; raise TransportError when the server seems gone, or no data comes."""
        timings = self._timings
        started = next_ping = next_heartbeat = expected_since = _now()
        tick = min(timings.ping, timings.silence, timings.heartbeat) / 4
        while True:
            await asyncio.sleep(tick)
            now = _now()
            if now >= next_ping:
                next_ping = now + timings.ping
                await socket.ping()
            if self._heartbeat_text and now >= next_heartbeat:
                next_heartbeat = now + timings.heartbeat
                await socket.send(self._heartbeat_text)
            if self._is_handling:
                continue  # nothing is read while the consumer is slow, so silence means nothing
            if now - socket.last_sign > timings.ping + timings.pong:
                raise TransportError(f"no sign of life for {now - socket.last_sign:.1f} s")
            if not self._expects_data():
                expected_since, self._fruitless = now, 0  # the next session begins anew
            quiet = now - max(started, self.last_message_at, expected_since)
            # The first messages are snapshots of the subscriptions: a feed without data sends
            # them, too.
            if self.last_message_at - started > timings.stable:
                self._fruitless = 0
            patience = timings.silence * 2**self._fruitless
            if quiet > patience:
                self.stalls += 1
                if patience <= LONGEST_PATIENCE:
                    self._fruitless += 1
                raise TransportError(f"nothing received for {quiet:.1f} s in an open market")

    async def _renew_session(self) -> None:
        try:
            await self._renew()
        except NeoError as error:
            self._log.warning("%s: the session could not be renewed: %s", self.name, error)
        except Exception:
            self._log.exception("%s: renewing the session failed unexpectedly", self.name)

    def _mark_live(self, socket: Socket) -> None:
        now = _now()
        self._socket = socket
        self._live_since = now
        if self._lost_at is not None:
            self.reconnects += 1
            self._meter.reconnected(self.name)
            self.last_gap = now - self._lost_at
            self._lost_at = None
            self._log.info("%s back after %.1f s", self.name, self.last_gap)
        self._turned.set()
        self._enter(FeedState.LIVE, "")

    def _mark_lost(self) -> None:
        if self._live_since is not None:
            self._lost_at = _now()
            self._live_since = None

    def _failures_after(self, failures: int) -> int:
        """Return the failures in a row, of which `failures` came before the connection lost now."""
        lived = 0.0 if self._live_since is None else _now() - self._live_since
        if lived < self._timings.stable:
            return failures + 1
        is_short = lived < LONG_LIFE_FACTOR * self._timings.stable
        self._short_lives = self._short_lives + 1 if is_short else 0
        # Each connection costs the server a login, and the client a read of the reports.
        return max(1, self._short_lives - SHORT_LIVES + 1)

    def _enter(self, state: FeedState, reason: str) -> None:
        self.state = state
        if state is FeedState.WAITING:
            self.reason = reason
        event = FeedEvent(state, reason, time.time())
        for listener in [*self._listeners]:
            try:
                listener(event)
            except (Exception, asyncio.CancelledError):  # the latter by a future of the listener
                self._log.exception("a listener of the %s failed on %r", self.name, event)


async def _unredirected(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Follow no redirect: the handshake carries the login, and aiohttp would follow one from wss to
    ws. Raises TransportError."""
    response = await handler(request)
    if 300 <= response.status < 400:
        target = shown_address(response.headers.get("Location", ""))
        response.close()
        raise TransportError(f"the server redirects to {target}; redirections are not followed")
    return response


@contextlib.asynccontextmanager
async def _deadline(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TransportError(f"no {what} within {seconds:g} s") from error


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {connect_problem(error)}"
    return str(error) or type(error).__name__


def _problem(error: object) -> str:
    """Return what is wrong with a message, as aiohttp describes it."""
    if isinstance(error, aiohttp.WebSocketError):
        if error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            return f"a message is longer than {MAX_MESSAGE} bytes"
        return str(error.args[-1])
    return repr(error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return SessionEnded if it is among the errors, else the first."""
    ended = group.subgroup(SessionEnded)
    return (ended or group).exceptions[0]
