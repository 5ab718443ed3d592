"""Far ends for the order lane: raw sockets that answer, stall, lie or hang up as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trustme

AUTHORITY = trustme.CA()


def request(body: bytes = b"") -> bytes:
    """A whole request, as the lane is handed it."""
    return b"POST /order HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with its length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


class Peer:
    """The server's side of one connection."""

    def __init__(self, server: Server, reader: Any, writer: Any) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer
        self.requests = 0

    async def take(self) -> bytes:
        """The body of the next request. Raises EOFError when the client has closed."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            body: bytes = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error
        self.requests += 1
        self.server.arrivals.append((asyncio.get_running_loop().time(), body))
        return body

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def deafen(self) -> None:
        """Take no more bytes from the network."""
        self._writer.transport.pause_reading()

    def close(self) -> None:
        """An orderly end: what was sent arrives, then the end of the stream."""
        self._writer.close()

    def drop(self) -> None:
        """An end at once, without TLS's goodbye."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """An end without a word: TCP's RST."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    def __init__(self) -> None:
        self.url = ""
        self.peers: list[Peer] = []
        """Every connection ever accepted."""
        self.open: set[Peer] = set()
        self.arrivals: list[tuple[float, bytes]] = []
        """When (on the loop's clock) which request body arrived."""

    @property
    def most_recent(self) -> Peer:
        return self.peers[-1]


@contextlib.asynccontextmanager
async def serving(script: Script, *, tls: trustme.CA | None = None) -> AsyncIterator[Server]:
    """A server that runs `script` for each connection and closes it when that returns.

    With an authority it speaks TLS, with a certificate for 127.0.0.1 that the authority signed.
    Ends with every connection closed, whatever its script is waiting for.
    """
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(server, reader, writer)
        server.peers.append(peer)
        server.open.add(peer)
        try:
            with contextlib.suppress(EOFError, asyncio.CancelledError):
                await script(peer)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
        finally:
            server.open.discard(peer)
            tasks.discard(task)

    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.issue_cert("127.0.0.1").configure_cert(context)
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        for _ in range(3):  # connections that were accepted just now begin their scripts
            await asyncio.sleep(0)
        while tasks:
            for task in list(tasks):
                task.cancel()
            await asyncio.wait(list(tasks))


def trust(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts this authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


async def until(condition: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Wait for a condition, not for a time; fail when it does not come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds
            await asyncio.sleep(0.001)


async def echo(peer: Peer) -> None:
    """Answer every request with its own body, at once."""
    while True:
        peer.send(reply(await peer.take()))


async def never(peer: Peer) -> None:
    """Take requests and never answer."""
    while True:
        await peer.take()


def answering(*parts: bytes, keeps: bool = False) -> Script:
    """Send these bytes for the first request of the first connection, then hang up (or keep the
    connection). Everything after that is echoed, so that a test sees whether the client goes on."""

    async def script(peer: Peer) -> None:
        if len(peer.server.peers) > 1:
            await echo(peer)
        await peer.take()
        for part in parts:
            peer.send(part)
            await asyncio.sleep(0)
        if keeps:
            await echo(peer)

    return script
