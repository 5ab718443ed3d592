"""Connections of clients to the feeds: the login, and what waits to be sent.

Each connection is written to by a task of its own, so that publishing only queues: a slow reader,
or one that has gone, delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from aiohttp import WSMsgType, web

from neo_async.exchange.rest.logins import Login

CLOSE_TIMEOUT = 0.5
"""Seconds for a client to take part in the closing handshake."""
AUTH_TIMEOUT = 10.0
"""Seconds for a client to authenticate."""

GOING_AWAY = 1001
POLICY = 1008

_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class PauseSwitch:
    """Pauses both feeds while their sockets stay open."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._timer: asyncio.TimerHandle | None = None

    def pause(self, seconds: float | None) -> None:
        self._stop_timer()
        self._open.clear()
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        """Let the feeds send again."""
        self._stop_timer()
        self._open.set()

    @property
    def is_paused(self) -> bool:
        return not self._open.is_set()

    async def wait_until_resumed(self) -> None:
        while not self._open.is_set():
            await self._open.wait()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ClientConnection:
    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        pause_switch: PauseSwitch,
    ) -> None:
        self.login: Login | None = None
        """Login of the client; None before it has authenticated."""
        self._websocket = websocket
        self._transport = transport
        self._pause_switch = pause_switch
        self._queue: deque[str | bytes] = deque()
        self._wake = asyncio.Event()
        self._closing_frame: tuple[int, bytes] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.idle = asyncio.Event()
        """Set while nothing waits to be sent."""
        self.closed = asyncio.Event()

    async def receive(self) -> str | None:
        """Return the client's next message; None when it has gone."""
        while True:
            message = await self._websocket.receive()
            if message.type is WSMsgType.TEXT:
                return str(message.data)
            if message.type is WSMsgType.BINARY:
                return bytes(message.data).decode("utf-8", "replace")
            if message.type in _ENDS:
                return None

    async def receive_first(self) -> str | None:
        """Return the first message; None if none comes in time, or the client has gone."""
        try:
            async with asyncio.timeout(AUTH_TIMEOUT):
                return await self.receive()
        except TimeoutError:
            return None

    async def send(self, text: str) -> None:
        """Send at once, ahead of what is queued. Waits while the client does not read."""
        await self._pause_switch.wait_until_resumed()
        with contextlib.suppress(ConnectionError):
            await self._websocket.send_str(text)

    def enqueue(self, message: str | bytes) -> None:
        self._queue.append(message)
        self._wake_writer()

    async def write(self) -> None:
        """Send what is queued until the connection is closed."""
        try:
            while self._closing_frame is None:
                if not self._wake.is_set():
                    self.idle.set()
                await self._wake.wait()
                await self._pause_switch.wait_until_resumed()
                self._wake.clear()
                for message in self._pending():
                    await self._pause_switch.wait_until_resumed()
                    if isinstance(message, str):
                        await self._websocket.send_str(message)
                    else:
                        await self._websocket.send_bytes(message)
            code, reason = self._closing_frame
            await self._websocket.close(code=code, message=reason)
        except ConnectionError:
            pass  # gone meanwhile; the reading side notices, and ends the line

    def close_soon(self, code: int, reason: str) -> None:
        """Close soon: by the closing handshake when the client takes part, else without it."""
        self._closing_frame = (code, reason.encode())
        self._wake.set()
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """Break the connection without a close frame."""
        self._transport.abort()

    async def end(self, writer: asyncio.Task[None], code: int = 1000) -> None:
        """End writer and socket once the client is done."""
        # Cancelled in the middle of the closing handshake, it would not read the client's part.
        await asyncio.wait([writer], timeout=0 if self._closing_frame is None else CLOSE_TIMEOUT)
        writer.cancel()
        await asyncio.wait([writer])
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._websocket.close(code=code)
        except TimeoutError:
            self._transport.abort()
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self.idle.set()
            self.closed.set()

    def _wake_writer(self) -> None:
        self.idle.clear()
        self._wake.set()

    def _pending(self) -> Iterator[str | bytes]:
        while self._queue:
            yield self._queue.popleft()
