"""The client for everything that is not an order, against the same hostile answers."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from neo_async.config import RateLimits
from neo_async.errors import AnswerLost, NotSent, ProtocolError
from neo_async.model.answer import Answer
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.start import Start
from tests.transport.lanes import starts_of
from tests.transport.servers import (
    AUTHORITY,
    Peer,
    answering,
    echo,
    never,
    reply,
    serving,
    trust,
    until,
)

pytestmark = pytest.mark.usefixtures("loop_factory")


@asynccontextmanager
async def client(*, tls: bool = False) -> AsyncIterator[HttpClient]:
    http = HttpClient(connect_timeout=1.0, tls=trust(AUTHORITY) if tls else None)
    try:
        yield http
    finally:
        await http.close()


async def post(http: HttpClient, url: str, *, within: float = 5.0) -> Answer:
    return await http.request("POST", url, headers={"Auth": "x"}, body=b"body", timeout=within)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_an_answer_is_read_whole(tls):
    answer = reply(
        gzip.compress(b"content"), b"Content-Encoding: gzip", b"X-Name: v", status=b"503 Oops"
    )
    authority = AUTHORITY if tls else None
    async with serving(answering(answer), tls=authority) as server, client(tls=tls) as http:
        received = await post(http, server.url + "/path")
        assert (received.status, received.body) == (503, b"content")
        assert received.headers["x-name"] == "v"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        reply(b"content")[:-3],
        b"SSH-2.0\r\n",
        reply(b"none", b"Content-Encoding: gzip", b"Connection: close"),
    ],
    ids=["nothing", "cut off", "no HTTP", "no gzip"],
)
async def test_a_broken_answer_is_lost_and_the_client_goes_on(answer):
    async with serving(answering(answer)) as server, client() as http:
        with pytest.raises(AnswerLost, match=f"POST {server.url}/path"):
            await post(http, server.url + "/path?private=1")
        assert (await post(http, server.url)).body == b"body"


async def test_silence_is_lost_at_the_deadline_and_names_no_private_query():
    async with serving(never) as server, client() as http:
        with pytest.raises(AnswerLost, match=r"within 0\.05 s") as caught:
            await post(http, server.url + "/path?private=1", within=0.05)
        assert "private" not in str(caught.value)


async def test_nobody_listening_is_not_sent():
    async with serving(never) as server:
        url = server.url
    async with client() as http:
        with pytest.raises(NotSent, match=f"cannot connect to {url}"):
            await post(http, url)


async def test_a_certificate_of_an_unknown_authority_is_not_sent():
    async with serving(never, tls=AUTHORITY) as server, client() as http:
        with pytest.raises(NotSent, match="certificate"):
            await post(http, server.url)


async def test_a_redirect_is_an_answer_and_not_followed():
    async def script(peer: Peer) -> None:
        await peer.take()
        elsewhere = b"Location: " + peer.server.url.encode() + b"/elsewhere"
        peer.send(reply(b"", elsewhere, status=b"302 Found"))
        await peer.take()

    async with serving(script) as server, client() as http:
        assert (await post(http, server.url)).status == 302
        assert len(server.arrivals) == 1


async def test_closing_closes_every_connection():
    async with serving(answering(reply(b"1"), keeps=True)) as server:
        async with client() as http:
            await post(http, server.url)
            assert server.open
        await until(lambda: not server.open)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("answer", [b"", reply(b"content")[:-3]], ids=["nothing", "cut off"])
async def test_a_request_that_may_change_something_goes_out_once(method, answer):
    """aiohttp repeats PUT and DELETE when a connection breaks."""

    async def break_off_at_the_second(peer: Peer) -> None:
        peer.send(reply(await peer.take()))
        await peer.take()
        peer.send(answer)

    async with serving(break_off_at_the_second) as server, client() as http:
        await post(http, server.url)  # on a connection that is used again
        with pytest.raises(AnswerLost, match=r"was lost: [A-Z]\w+: "):
            await http.request(method, server.url, headers={}, timeout=5.0)
        assert len(server.arrivals) == 2


async def test_a_file_is_asked_for_with_headers_and_no_redirect_takes_them_elsewhere():
    moved = reply(b"", b"Location: /elsewhere", status=b"302 Found")
    async with serving(answering(moved)) as server, client() as http:
        path = server.url + "/file"
        async with http.download(path, timeout=5, between=5, headers={"Auth": "x"}) as file:
            assert (file.status, file.headers["location"]) == (302, "/elsewhere")
        assert len(server.arrivals) == 1


async def read(http: HttpClient, url: str, limiter: Limiter) -> Answer:
    start = await Start(limiter, Kind.READ).take()
    return await http.request("POST", url, headers={}, body=b"x", timeout=5.0, start=start)


async def test_a_read_counts_when_its_connection_is_there():
    """Whether the handshake is seen here or lies behind something that accepts at once."""

    async def slow_at_first(peer: Peer) -> None:
        await asyncio.sleep(0.1)
        await echo(peer)

    limiter = Limiter(RateLimits(orders=1, total=1), window=0.2)
    async with serving(slow_at_first) as server, client() as http:
        for _ in range(3):
            assert (await read(http, server.url, limiter)).body == b"x"
        times = [at for at, _ in server.arrivals]
        assert all(later - earlier >= 0.19 for earlier, later in pairwise(times))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_caller_that_gives_up_while_its_start_is_moved_leaves_the_connection_to_others(tls):
    limiter = Limiter(RateLimits(orders=1, total=1), window=30.0)
    authority = AUTHORITY if tls else None
    async with serving(echo, tls=authority) as server, client(tls=tls) as http:
        start = await Start(limiter, Kind.READ).take()
        limiter.pause(20.0)  # it cannot be moved, and waits with its connection in hand
        call = asyncio.create_task(
            http.request("POST", server.url, headers={}, body=b"1", timeout=5.0, start=start)
        )
        await until(lambda: server.open and limiter.waiting)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert not server.arrivals
        assert (limiter.waiting, limiter.starts) == (0, starts_of())
        assert (await post(http, server.url)).body == b"body"
        assert len(server.peers) == 1


async def longest_turn(work: Awaitable[object]) -> float:
    """Seconds for which the loop was held at once, at most, while the work was done."""
    longest, last = 0.0, time.perf_counter()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watcher = asyncio.ensure_future(watch())
    await work
    watcher.cancel()
    return longest


@pytest.mark.real_time("measures a real duration")
async def test_what_inflates_without_end_is_lost_and_holds_up_nothing():
    bomb = reply(gzip.compress(bytes(100_000_000), 1), b"Content-Encoding: gzip")
    async with serving(answering(bomb)) as server, client() as http:

        async def ask() -> None:
            with pytest.raises(AnswerLost, match="longer than 33554432 bytes"):
                await post(http, server.url)

        assert await longest_turn(ask()) < 0.1


@pytest.mark.parametrize("length", [b"Content-Length: 1000000", b"Connection: close"])
async def test_an_answer_is_read_up_to_its_limit(length):
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + bytes(1_000_000)
    for limit in (999_999, 1_000_000):
        async with serving(answering(answer)) as server, client() as http:
            ask = http.request("GET", server.url, headers={}, timeout=5, limit=limit)
            if limit == 1_000_000:
                assert len((await ask).body) == 1_000_000
                continue
            with pytest.raises(AnswerLost, match="longer than 999999 bytes"):
                await ask


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare deflate", "two members", "br"])
async def test_compressed_answers_are_inflated(encoding):
    text = b"content" * 50_000
    bare = zlib.compressobj(wbits=-15)
    content = {
        "gzip": gzip.compress(text),
        "deflate": zlib.compress(text),
        "bare deflate": bare.compress(text) + bare.flush(),
        "two members": gzip.compress(text[:9]) + gzip.compress(text[9:]),
        "br": b"?",
    }[encoding]
    name = {"bare deflate": "deflate", "two members": "gzip"}.get(encoding, encoding)
    answer = reply(content, b"Content-Encoding: " + name.encode())
    async with serving(answering(answer)) as server, client() as http:
        if encoding == "br":
            with pytest.raises(AnswerLost, match="encoding 'br' is not known"):
                await post(http, server.url)
        else:
            assert (await post(http, server.url)).body == text


@pytest.mark.parametrize("unasked", [reply(b"stale"), b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.real_time("holds up the loop in real time")
async def test_what_came_before_a_request_is_not_its_answer(tls, unasked):
    async def speak_unasked(peer: Peer) -> None:
        peer.send(reply(await peer.take()))
        if len(peer.server.peers) == 1:
            await asyncio.sleep(0.05)
            peer.send(unasked)
        peer.send(reply(await peer.take()))

    authority = AUTHORITY if tls else None
    async with serving(speak_unasked, tls=authority) as server, client(tls=tls) as http:
        await post(http, server.url)
        await asyncio.sleep(0.1)
        assert (await post(http, server.url)).body == b"body"
        assert len(server.peers) == 2


async def test_a_download_follows_redirects_only_to_where_it_might_have_gone_itself():
    async def lead_elsewhere(peer: Peer) -> None:
        while True:
            await peer.take()
            target = b"Location: http://broker.example/file"
            peer.send(reply(b"", target, status=b"302 Found"))

    async with serving(lead_elsewhere) as server, client() as http:
        with pytest.raises(ProtocolError, match=r"'http://broker\.example/file': would carry"):
            async with http.download(server.url, timeout=5, between=5):
                pass
    async with (
        serving(echo) as clear,
        serving(lead_to(lambda: clear.url), tls=AUTHORITY) as server,
        client(tls=True) as http,
    ):
        with pytest.raises(ProtocolError, match="must start with https://"):
            async with http.download(server.url, timeout=5, between=5):
                pass
        assert not clear.peers


async def test_a_download_follows_a_few_redirects():
    async with (
        serving(answering(reply(b"file"), keeps=True)) as far,
        serving(lead_to(lambda: far.url + "/a")) as server,
        client() as http,
        http.download(server.url, timeout=5, between=5) as file,
    ):
        assert b"".join([piece async for piece in file.pieces]) == b"file"
    async with (
        serving(lead_to(lambda: "/again")) as server,
        client() as http,
    ):
        with pytest.raises(ProtocolError, match="more than 5 redirects"):
            async with http.download(server.url, timeout=5, between=5):
                pass


def lead_to(where: Callable[[], str]) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        while True:
            await peer.take()
            peer.send(reply(b"", b"Location: " + where().encode(), status=b"302 Found"))

    return script
