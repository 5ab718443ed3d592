"""The fake server of the order benchmark: answers every placement at once.

It parses just enough HTTP/1.1 to find where a request ends, so that the clients and not the server
are measured. `GET /lose/N` makes it close the connections of the next N placements without an
answer. `GET /count` returns the number of placements and the processor time of the server; the
benchmark checks its clients' counts against the former, and shows the latter.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import trustme
import uvloop

from benchmarks.workers import Channel

PLACE = b"POST /quick/order/rule/ms/place"
FIRST_ORDER = 261121000000001
"""`YYMMDD` of the trading day and a nine-digit sequence, as the broker numbers orders."""

_HEAD = (
    "HTTP/1.1 {status}\r\n"
    "Date: Sat, 21 Nov 2026 04:30:00 GMT\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
    "Content-Length: {length}\r\n"
    "Connection: keep-alive\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "\r\n"
)
_NO_DATA = b'{"stCode":5203,"errMsg":"No Data","desc":"data not found","stat":"Not_Ok"}'


def _answer(body: bytes, status: str = "200 OK") -> bytes:
    return _HEAD.format(status=status, length=len(body)).encode() + body


def json_answer(content: object) -> bytes:
    return _answer(json.dumps(content).encode())


_PLACED = _answer(b'{"nOrdNo":"%d","stat":"Ok","stCode":200}' % FIRST_ORDER)
_BEFORE_NUMBER, _AFTER_NUMBER = _PLACED.split(b"%d" % FIRST_ORDER)


class Server:
    """The state that all connections share: the server's address, and its counts."""

    def __init__(self) -> None:
        self.url = ""
        self.tls: ssl.SSLContext | None = None
        self.ca_file = ""
        self.orders = 0
        self.lost = 0
        """Number of next placements whose connections are closed without an answer."""
        self._numbers = itertools.count(FIRST_ORDER)

    def answer_place(self) -> bytes:
        self.orders += 1
        return b"%b%d%b" % (_BEFORE_NUMBER, next(self._numbers), _AFTER_NUMBER)

    def answer_other(self, method: bytes, path: bytes) -> bytes:
        """Answer logins, the config service, empty books and counters, outside measured rounds."""
        if path.startswith(b"/login/1.0/tradeApiLogin"):
            return _answer(self._login("View"))
        if path.startswith(b"/login/1.0/tradeApiValidate"):
            return _answer(self._login("Trade"))
        if path.startswith(b"/5config/config"):
            return _answer(b'{"data":{"configs":{}}}')
        if path.startswith((b"/quick/", b"/portfolio/")):
            return _answer(_NO_DATA)
        if path.startswith(b"/lose/"):
            self.lost = int(path[6:])
            return json_answer({"lost": self.lost})
        if path == b"/count":
            return json_answer({"orders": self.orders, "cpu_seconds": time.process_time()})
        missing = {"code": "404", "type": "Status report", "message": "Not Found"}
        return _answer(json.dumps(missing).encode(), "404 Not Found")

    def _login(self, kind: str) -> bytes:
        websocket = self.url.replace("http", "ws", 1)
        data = {
            "token": f"{kind.lower()}-token",
            "sid": f"{kind.lower()}-sid",
            "rid": "benchmark",
            "baseUrl": self.url,
            "feedUrl": f"{websocket}/apifeed",
            "rtUrl": f"{websocket}/realtime",
            "ucc": "ABC12",
            "dataCenter": "E43",
            "kType": kind,
            "status": "success",
        }
        return json.dumps({"data": data}).encode()


class Connection(asyncio.Protocol):
    """A client's connection: splits the stream into requests, and answers each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's class, so an assertion would fail.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        while data:
            end = _end_of_request(data)
            if end is None:
                break
            if data.startswith(PLACE):
                if self._server.lost:
                    self._server.lost -= 1
                    self._transport.close()
                    return
                self._transport.write(self._server.answer_place())
            else:
                method, path, _ = data.split(b" ", 2)
                self._transport.write(self._server.answer_other(method, path))
            data = data[end:]
        self._rest = data


def _end_of_request(data: bytes) -> int | None:
    """Return the index just past the first request in `data`; None while it is incomplete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    # Header names are case-insensitive, and the clients do differ.
    head = data[:head_end].lower()
    field = head.find(b"\r\ncontent-length:")
    length = int(head[field + 17 :].split(b"\r\n", 1)[0]) if field >= 0 else 0
    end = head_end + 4 + length
    return end if end <= len(data) else None


def _certificates(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server context of a self-made authority, and the file with that authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return context, ca_file


async def listen(channel: Channel, connect: Callable[[], Connection], server: Server) -> None:
    """Serve connections on a free port until the worker ends. TLS if the server has a context."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(connect, "127.0.0.1", 0, ssl=server.tls, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if server.tls else 'http'}://127.0.0.1:{port}"
    channel.send({"url": server.url, "ca_file": server.ca_file})
    await loop.run_in_executor(None, channel.wait_for_end)
    listener.close()


def serve(channel: Channel, *, tls_folder: str = "") -> None:
    """Serve the benchmark. With a folder, serve TLS, and write the authority to that folder."""
    server = Server()
    if tls_folder:
        server.tls, ca_file = _certificates(Path(tls_folder))
        server.ca_file = str(ca_file)
    uvloop.run(listen(channel, lambda: Connection(server), server))
