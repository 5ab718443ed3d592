"""Fake servers that fail in ways the embedded exchange does not.

A `Scripted` broker accepts every login, and answers other paths with the replies of the test. The
fault proxy stands between client and exchange, and replaces answers after the exchange has acted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web

from neo_async.config import Credentials, Endpoints
from neo_async.exchange import Exchange

LOGIN = "/login/1.0/tradeApiLogin"
VALIDATE = "/login/1.0/tradeApiValidate"
BASE = "/a/path"

TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.dG9rZW4"
SID = "5f1d7a44-1111-4222-8333-944455566677"

CREDENTIALS = Credentials(
    consumer_key="2c1f0f2e-aaaa-4bbb-8ccc-0123456789ab",
    mobile_number="+919876543210",
    ucc="ABC12",
    mpin="070809",
    totp_secret="JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
)


class Reply(NamedTuple):
    body: bytes | str | dict[str, Any]
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Cut(NamedTuple):
    """Close the connection instead of answering; `body` goes out before, promised to be longer."""

    body: bytes = b""


class Late(NamedTuple):
    """Answer only after so many seconds."""

    seconds: float
    reply: Reply


Answer = Reply | Cut | Late


class Scripted:
    """A server with a list of answers for each path; the last answer of a list is repeated."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Path, headers by lower-case name, and body of every request but those for websockets."""
        self.answers: dict[str, list[Answer]] = {
            LOGIN: [Reply({"data": {"token": TOKEN, "sid": SID, "status": "success"}})],
        }

    def script(self, path: str, *answers: Answer) -> None:
        """Set the answers of a path; `/quick/…` and `/portfolio/…` are relative to the base URL."""
        self.answers[path] = list(answers)

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(login=self.url)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix(BASE)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "upgrade" not in headers:
            self.requests.append((path, headers, await request.read()))
        script = self.answers.get(path, [Reply("<h1>not here</h1>", 404, "text/html")])
        answer = script.pop(0) if len(script) > 1 else script[0]
        return await respond(request, answer)


@contextlib.asynccontextmanager
async def scripted_broker() -> AsyncIterator[Scripted]:
    broker = Scripted()
    async with serving(broker.handle) as url:
        broker.url = url
        broker.script(
            VALIDATE,
            Reply(
                {"data": {"token": TOKEN, "sid": SID, "status": "success", "baseUrl": url + BASE}}
            ),
        )
        yield broker


Override = Callable[[str, int, bytes], Answer | None]
"""Returns the answer to send instead of the exchange's path, status and body; None keeps those."""


@contextlib.asynccontextmanager
async def fault_proxy(
    exchange: Exchange,
    override: Override,
    *,
    dropped: Collection[str] = (),
    refused: Mapping[str, Answer] | None = None,
) -> AsyncIterator[Endpoints]:
    """Yield endpoints of a proxy of the exchange that may replace each answer. A request to a path
    in `dropped` never reaches the exchange, and its connection is closed; one to a path in
    `refused` does not reach it either, and gets that answer."""
    async with aiohttp.ClientSession() as upstream:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            if request.path in dropped:
                return await respond(request, Cut())
            if refused and request.path in refused:
                return await respond(request, refused[request.path])
            async with upstream.request(
                request.method,
                exchange.login_url + request.path,
                headers=request.headers,
                data=body,
            ) as answer:
                content = await answer.read()
                instead = override(request.path, answer.status, content)
            return await respond(request, instead or Reply(content, answer.status))

        async with serving(handle) as url:
            yield Endpoints(login=url, base=f"{url}/neo")


async def respond(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send the scripted answer."""
    if isinstance(answer, Late):
        await asyncio.sleep(answer.seconds)
        answer = answer.reply
    if isinstance(answer, Cut):
        return await _cut(request, answer)
    return web.Response(
        body=_bytes(answer.body),
        status=answer.status,
        headers={"Content-Type": answer.content_type, **answer.headers},
    )


async def _cut(request: web.BaseRequest, cut: Cut) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(cut.body) + 100)})
    if cut.body:
        await response.prepare(request)
        await response.write(cut.body)
    assert request.transport is not None
    request.transport.close()
    return response


@contextlib.asynccontextmanager
async def serving(
    handle: Callable[[web.BaseRequest], Any],
) -> AsyncIterator[str]:
    """Yield the address of a server with this handler."""
    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await accepted()
        await runner.cleanup()


def _bytes(body: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(body, dict):
        return msgspec.json.encode(body)
    return body.encode() if isinstance(body, str) else body


@contextlib.asynccontextmanager
async def tcp_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Yield the address of a server on a free port, as "127.0.0.1:port". Each connection is closed
    when `handle` returns, and at the latest when the server ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await handle(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            tasks.discard(task)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await accepted()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def accepted() -> None:
    """Let the loop finish the connections that it is accepting, before a server is closed.

    CPython loses the socket of a connection that is accepted in the turn before its server closes:
    the transport is half made, nothing closes it, and the collector reports it in a later test.
    """
    for _ in range(3):  # the listening socket is seen, the task begins, the transport is made
        await asyncio.sleep(0)
