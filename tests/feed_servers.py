"""Websocket servers that run a script of the test on each connection.

They do what the embedded exchange never would. Everything is over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import msgspec
from aiohttp import web

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.model.session import Session
from neo_async.transport.meter import Meter
from tests.fake_servers import accepted


class Gone(Exception):
    """The client has closed its end; ends a script that still waits for it."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, websocket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.received: list[str] = []
        """Every text the client has sent so far."""
        self.pings = 0
        """Number of pings that the client has sent."""
        self.pongs = 0
        self.answers_pings = True
        self.close_code: int | None = None
        """The code with which the client closed; None while it has not."""
        self._websocket = websocket
        self._transport = transport
        self._unread: asyncio.Queue[str | None] = asyncio.Queue()

    async def receive(self) -> str:
        """Return the next text of the client."""
        text = await self._unread.get()
        if text is None:
            self._unread.put_nowait(None)
            raise Gone
        return text

    async def linger(self) -> None:
        """Receive texts until the client closes."""
        while True:
            await self.receive()

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            if isinstance(message, str):
                await self._websocket.send_str(message)
            else:
                await self._websocket.send_bytes(message)

    async def ping(self) -> None:
        await self._websocket.ping(b"are you there?")

    async def close(self, code: int = 1000) -> None:
        await self._websocket.close(code=code)

    def drop(self) -> None:
        """Break the connection without a closing frame."""
        self._transport.abort()

    def deafen(self) -> None:
        """Take no more bytes from the network."""
        self._transport.pause_reading()

    async def read(self) -> None:
        async for message in self._websocket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.received.append(message.data)
                self._unread.put_nowait(message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                self.pings += 1
                if self.answers_pings:
                    with contextlib.suppress(ConnectionError):
                        await self._websocket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self.pongs += 1
        self.close_code = self._websocket.close_code
        self._unread.put_nowait(None)


Script = Callable[[Peer], Awaitable[None]]
"""A server's side of one connection; the connection is closed in good order at its end."""


class FeedServer:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.peers: list[Peer] = []
        """The peers of all connections so far."""
        self.refusals = 0
        """Requests answered with 503 while `is_refusing`."""
        self.is_refusing = False
        self.is_hanging = False
        """Takes connections, but never answers their request."""
        self.port = 0
        self._tls = tls
        self._end = asyncio.Event()
        self._scripts: list[Script] = []
        self._site: web.TCPSite | None = None
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/feed"

    def script(self, *scripts: Script) -> None:
        """One for each connection from now on; the last one stays."""
        self._scripts = list(scripts)

    @property
    def peer(self) -> Peer:
        """Of the newest connection."""
        return self.peers[-1]

    async def go_up(self) -> None:
        """Listen, on the same port each time."""
        self._site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True
        )
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def go_down(self) -> None:
        """Stop listening and break every connection."""
        assert self._site is not None
        await self._site.stop()
        for peer in self.peers:
            peer.drop()

    @contextlib.asynccontextmanager
    async def _up(self) -> AsyncIterator[FeedServer]:
        await self._runner.setup()
        try:
            await self.go_up()
            yield self
        finally:
            self._end.set()
            for peer in self.peers:
                peer.drop()
            await accepted()
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.is_refusing:
            self.refusals += 1
            return web.Response(status=503)
        if self.is_hanging:
            await self._end.wait()
            return web.Response(status=503)
        assert request.transport is not None
        transport = request.transport
        websocket = web.WebSocketResponse(timeout=0.1, autoping=False, compress=False)
        await websocket.prepare(request)
        peer = Peer(websocket, transport)
        self.peers.append(peer)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        reader = asyncio.create_task(peer.read())
        try:
            await script(peer)
        except (Gone, ConnectionError):
            pass
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            await websocket.close()
        return websocket


@contextlib.asynccontextmanager
async def feed_server(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FeedServer]:
    server = FeedServer(tls)
    server.script(*scripts)
    async with server._up():
        yield server


async def until(condition: Callable[[], object], *, every: float = 0.001) -> None:
    """Wait until something holds. Polls, since what is waited for has no event of its own."""
    async with asyncio.timeout(3000 * every):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(every)


def backoffs(*delays: float) -> tuple[list[int], Callable[..., float]]:
    """A replacement for `backoff` that returns these delays, then zeros, and the list of attempts
    that it was asked for."""
    attempts: list[int] = []
    left: Iterator[float] = iter(delays)

    def backoff(attempt: int, *, base: float, cap: float) -> float:
        attempts.append(attempt)
        return next(left, 0.0)

    return attempts, backoff


class Login:
    """Stands for the session manager where a test is about a feed."""

    def __init__(self, server: FeedServer) -> None:
        self.current = Session(
            token="the-token",
            sid="sid-0",
            base_url="http://127.0.0.1",
            feed_url=server.url,
            realtime_url=server.url,
            ucc="ABC12",
            data_center="E43",
        )
        self.tls: ssl.SSLContext | None = None
        self.meter = Meter()
        self.ucc = "ABC12"
        self.transport_log = logger_of(logs.TRANSPORT, self.ucc)
        self.renewals = 0
        """Number of times a new login was requested in place of the present one."""
        self.error: Exception | None = None
        self.next_url = server.url

    async def renew(self, ended: Session) -> None:
        if self.current is not ended:
            return
        self.renewals += 1
        if self.error is not None:
            raise self.error
        self.current = msgspec.structs.replace(
            ended,
            sid=f"sid-{self.renewals}",
            token=f"token-{self.renewals}",
            feed_url=self.next_url,
            realtime_url=self.next_url,
        )
