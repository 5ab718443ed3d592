"""Nothing is left of connections once the client that made them is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
from yarl import URL

from neo_async.config import FeedTimings
from neo_async.transport.http import HttpClient
from neo_async.transport.websocket import ReconnectingSocket, Socket
from tests import feed_servers
from tests.feed_servers import feed_server
from tests.transport import servers
from tests.transport.servers import AUTHORITY, reply, serving, trust

pytestmark = [
    pytest.mark.usefixtures("loop_factory"),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at open files"),
]


def connections_to(url: str) -> int:
    """How many sockets of this process are connected to that server."""
    port = URL(url).port
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        if not link.is_socket():
            continue
        # A listening socket has no other end.
        with (
            socket.socket(fileno=os.dup(int(link.name))) as copy,
            contextlib.suppress(OSError),
        ):
            name = copy.getpeername()
            count += isinstance(name, tuple) and name[1] == port
    return count


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("headers", [(b"Connection: close",), ()], ids=["given up", "kept"])
async def test_an_http_client_waits_for_no_goodbye(headers, tls):
    async def answer_and_go_deaf(peer: servers.Peer) -> None:
        await peer.take()
        peer.deafen()
        peer.send(reply(b"1", *headers))
        try:
            await asyncio.Event().wait()
        finally:
            peer.drop()

    async with serving(answer_and_go_deaf, tls=AUTHORITY if tls else None) as server:
        http = HttpClient(connect_timeout=1.0, tls=trust(AUTHORITY))
        requests = (
            http.request("POST", server.url, headers={}, body=b"1", timeout=5) for _ in range(3)
        )
        await asyncio.gather(*requests)
        await http.close()
        assert connections_to(server.url) == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("is_deaf", [False, True], ids=["answering", "deaf"])
async def test_a_websocket_waits_for_no_goodbye(is_deaf, tls):
    async def script(peer: feed_servers.Peer) -> None:
        await peer.receive()
        if is_deaf:
            peer.deafen()
        await peer.send("1")
        await peer.linger()

    async def greet(socket: Socket) -> None:
        await socket.send("hello")
        await socket.receive()

    async def renew() -> None:
        raise AssertionError("nothing ends the session here")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    async with feed_server(script, tls=context if tls else None) as server:
        feed = ReconnectingSocket(
            "a feed",
            address=lambda: server.url,
            handshake=greet,
            handle=lambda _: None,
            renew=renew,
            expects_data=lambda: False,
            timings=FeedTimings(),
            tls=trust(AUTHORITY),
        )
        feed.start()
        await feed.until_live()
        assert connections_to(server.url) == 1
        await feed.close()
        assert connections_to(server.url) == 0
