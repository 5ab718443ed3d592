"""One connection against hostile answers: each gives the right exception and leaves the lane
usable."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib

import pytest

from neo_async.errors import AnswerLost, NotSent
from neo_async.model.answer import Answer
from neo_async.transport.connection import MAX_BODY, MAX_HEADERS, Connection
from neo_async.transport.hidden import Hidden
from neo_async.transport.lane import Lane
from tests.transport.lanes import assert_usable, lane_to, send
from tests.transport.servers import (
    Peer,
    answering,
    echo,
    never,
    reply,
    request,
    until,
)

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"nOrdNo":"250720000007242","stat":"Ok","stCode":200}'


# --- answers that are fine, whatever they look like -------------------------------------------

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:20], BODY[20:]))
    + b"0\r\n\r\n"
)
GOOD = {
    "plain": reply(BODY),
    "with another content type": reply(BODY, b"Content-Type: text/html"),
    "chunked": CHUNKED,
    "chunked with a trailer": CHUNKED[:-2] + b"X-Trace: 7\r\n\r\n",
    "gzip": reply(gzip.compress(BODY), b"Content-Encoding: gzip"),
    "deflate": reply(zlib.compress(BODY), b"Content-Encoding: Deflate"),
    "identity": reply(BODY, b"Content-Encoding: identity"),
    "until the end of the stream": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "Connection: close": reply(BODY, b"Connection: close"),
    "HTTP/1.0": reply(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "after 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" + reply(BODY),
    "after two 1xx": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    + reply(BODY),
    "an error status": reply(BODY, status=b"503 Service Unavailable"),
    "an empty reason": reply(BODY, status=b"200 "),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD)
async def test_a_whole_answer_is_read(answer, tls):
    keeps = answer != GOOD["until the end of the stream"]
    async with lane_to(answering(answer, keeps=keeps), tls=tls) as (lane, _):
        received = await send(lane)
        assert received.body == BODY
        assert received.status == (503 if b" 503 " in answer else 200)
        await assert_usable(lane)


@pytest.mark.parametrize("name", ["plain", "chunked", "after two 1xx", "gzip"])
async def test_an_answer_is_read_byte_by_byte(name):
    answer = GOOD[name]
    pieces = (answer[i : i + 1] for i in range(len(answer)))
    async with lane_to(answering(*pieces, keeps=True)) as (lane, _):
        assert (await send(lane)).body == BODY


async def test_header_names_are_lower_case_and_an_empty_body_is_an_answer():
    script = answering(reply(b"", b"Retry-After: 2", status=b"429 Too Many Requests"))
    async with lane_to(script) as (lane, _):
        answer = await send(lane)
        assert (answer.status, answer.body) == (429, b"")
        assert answer.headers["retry-after"] == "2"
        assert dict(answer.headers) == {"content-length": "0", "retry-after": "2"}
        assert len(answer.headers) == 2


async def test_a_cut_off_body_of_the_promised_length_is_still_handed_up():
    # That it is no JSON is for others to find; the transport reads bytes.
    async with lane_to(answering(reply(BODY[:20]))) as (lane, _):
        assert (await send(lane)).body == BODY[:20]


# --- answers that are lost --------------------------------------------------------------------

BAD = {
    "closed before any byte": b"",
    "closed in the middle of the headers": reply(BODY)[:25],
    "closed in the middle of the body": reply(BODY)[:-10],
    "closed in the middle of a chunk": CHUNKED[:-12],
    "closed before the last chunk": CHUNKED[:-5],
    "only 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)),
    "gzip that is none": reply(b"not gzip", b"Content-Encoding: gzip"),
    "gzip cut off": reply(gzip.compress(BODY)[:-6], b"Content-Encoding: gzip"),
    "a bomb": reply(gzip.compress(bytes(MAX_BODY + 1)), b"Content-Encoding: gzip"),
    "an unknown encoding": reply(BODY, b"Content-Encoding: br"),
    "two lengths": reply(BODY, b"Content-Length: 5"),
    "a chunk size that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a giant body": reply(bytes(MAX_BODY + 1)),
    "a giant body in chunks of a byte": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * (MAX_BODY // 2),
    "too many headers": reply(BODY, *[b"a: b"] * (MAX_HEADERS + 1)),
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + reply(BODY),
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
async def test_a_broken_answer_is_lost_and_the_lane_goes_on(answer):
    async with lane_to(answering(answer)) as (lane, _):
        with pytest.raises(AnswerLost):
            await send(lane)
        await assert_usable(lane)


@pytest.mark.parametrize("name", ["closed before any byte", "closed in the middle of the body"])
async def test_a_broken_answer_over_tls_is_lost_and_the_lane_goes_on(name):
    async with lane_to(answering(BAD[name]), tls=True) as (lane, _):
        with pytest.raises(AnswerLost):
            await send(lane)
        await assert_usable(lane)


async def test_a_reset_is_no_end_of_an_answer():
    async def script(peer: Peer) -> None:
        await peer.take()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
        await asyncio.sleep(0.02)
        peer.reset()

    async with lane_to(script) as (lane, _):
        with pytest.raises(AnswerLost, match="in the middle of the answer"):
            await send(lane)


async def test_a_drip_slower_than_the_deadline_is_lost():
    async def script(peer: Peer) -> None:
        if len(peer.server.peers) > 1:
            await echo(peer)
        await peer.take()
        for byte in reply(BODY):
            peer.send(bytes([byte]))
            await asyncio.sleep(0.01)

    async with lane_to(script) as (lane, _):
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with pytest.raises(AnswerLost, match=r"no complete answer within 0\.1 s"):
            await send(lane, within=0.1)
        assert loop.time() - begin < 1.0
        await assert_usable(lane)


async def test_silence_is_lost_at_the_deadline():
    async with lane_to(never) as (lane, server):
        with pytest.raises(AnswerLost, match=r"no complete answer within 0\.05 s"):
            await send(lane, within=0.05)
        await until(lambda: len(server.peers) == 2)  # the silent one was closed and replaced


# --- bytes that nobody asked for --------------------------------------------------------------


async def test_an_answer_on_an_idle_connection_closes_it_and_is_never_taken_for_another():
    async with lane_to(echo) as (lane, server):
        peer = server.most_recent
        peer.send(reply(b"", b"Connection: close", status=b"408 Request Timeout"))
        await until(lambda: peer not in server.open)
        await assert_usable(lane)
        assert peer.requests == 0


@pytest.mark.parametrize("gap", [0.0, 0.02], ids=["together", "later"])
async def test_a_second_answer_to_one_request_is_never_taken_for_another(gap):
    async def script(peer: Peer) -> None:
        if len(peer.server.peers) > 1:
            await echo(peer)
        peer.send(reply(await peer.take()))
        await asyncio.sleep(gap)
        peer.send(reply(b"the second answer"))
        await peer.take()

    async with lane_to(script) as (lane, server):
        assert (await send(lane, b"mine")).body == b"mine"
        await until(lambda: server.peers[0] not in server.open)
        await assert_usable(lane)


@pytest.mark.parametrize("maximum", [1, 3])
async def test_the_late_answer_to_a_cancelled_request_reaches_nobody(maximum):
    async def slow(peer: Peer) -> None:
        while True:
            body = await peer.take()
            await asyncio.sleep(0.003)
            peer.send(reply(body))

    async with lane_to(slow, maximum=maximum) as (lane, _):

        async def caller(number: int) -> None:
            body = b"%d" % number
            async with asyncio.timeout(5 if number % 3 else 0.001 * (number % 7)):
                assert (await send(lane, body)).body == body

        results = await asyncio.gather(*(caller(n) for n in range(90)), return_exceptions=True)
        assert [r for r in results if r is not None and not isinstance(r, TimeoutError)] == []
        assert results.count(None) >= 60


async def test_the_late_answer_after_a_deadline_reaches_nobody():
    async def slow(peer: Peer) -> None:
        while True:
            body = await peer.take()
            await asyncio.sleep(0.01 if body.startswith(b"slow") else 0)
            peer.send(reply(body))

    async with lane_to(slow, maximum=2) as (lane, _):

        async def caller(number: int) -> None:
            if number % 4:
                assert (await send(lane, b"%d" % number)).body == b"%d" % number
            else:
                with pytest.raises((AnswerLost, NotSent)):  # NotSent: it waited for its turn
                    await send(lane, b"slow %d" % number, within=0.004)

        await asyncio.gather(*(caller(number) for number in range(80)))


async def test_cancelling_a_request_in_flight_closes_its_connection():
    async with lane_to(never) as (lane, server):
        task = asyncio.create_task(send(lane))
        await until(lambda: server.arrivals)
        peer = server.most_recent
        task.cancel()
        await until(lambda: peer not in server.open)
        assert task.cancelled()


async def in_flight(lane: Lane, *, within: float = 5.0) -> tuple[Connection, asyncio.Task[Answer]]:
    """A request that waits for its answer, and the connection that carries it."""
    task = asyncio.create_task(send(lane, b"first", within=within))
    connection = lane.pool.idle[-1]
    await until(lambda: not connection.is_usable)
    return connection, task


async def test_cancelling_after_the_answer_leaves_the_next_request_on_that_connection_alone():
    """The answer is there, but the connection is in somebody else's hands before the first caller
    wakes up, cancelled."""
    async with lane_to(never, maximum=1) as (lane, _):
        connection, first = await in_flight(lane)
        second = asyncio.create_task(send(lane, b"second"))
        connection.data_received(reply(b"to the first"))
        first.cancel()
        await until(lambda: connection.requests == 2)
        connection.data_received(reply(b"to the second"))
        async with asyncio.timeout(1):
            assert (await second).body == b"to the second"
        assert first.cancelled()


async def test_the_deadline_of_an_answered_request_never_strikes_the_next():
    async with lane_to(never, maximum=1) as (lane, _):
        connection, first = await in_flight(lane, within=0.05)
        second = asyncio.create_task(send(lane, b"second"))
        connection.data_received(reply(b"to the first"))
        assert (await first).body == b"to the first"
        await asyncio.sleep(0.1)  # past the deadline of the first
        connection.data_received(reply(b"to the second"))
        assert (await second).body == b"to the second"


async def test_every_request_keeps_its_own_deadline():
    async with lane_to(never, maximum=1) as (lane, _):
        connection, first = await in_flight(lane)
        second = asyncio.create_task(send(lane, b"second", within=0.05))
        connection.data_received(reply(b"to the first"))
        await first
        async with asyncio.timeout(1):
            with pytest.raises(AnswerLost):
                await second


async def test_a_second_answer_in_the_same_packet_is_not_that_of_the_request_that_waits():
    async with lane_to(never, maximum=1) as (lane, server):
        connection, first = await in_flight(lane)
        second = asyncio.create_task(send(lane, b"second"))
        await asyncio.sleep(0)
        connection.data_received(reply(b"to the first") + reply(b"stale"))
        assert (await first).body == b"to the first"
        assert not connection.is_usable
        await until(lambda: [body for _, body in server.arrivals][-1:] == [b"second"])
        next(iter(lane.pool.connections)).data_received(reply(b"to the second"))
        assert (await second).body == b"to the second"


async def test_a_request_that_cannot_be_written_when_its_turn_comes_waits_no_longer():
    async with lane_to(never, maximum=1) as (lane, _):
        connection, first = await in_flight(lane)
        second = asyncio.create_task(send(lane, b"second"))
        await asyncio.sleep(0)

        def fail(*_: object) -> None:
            raise RuntimeError("the transport is broken")

        lane._write = fail
        connection.data_received(reply(b"to the first"))
        async with asyncio.timeout(1):
            with pytest.raises(RuntimeError, match="broken"):
                await second
        await first


async def test_many_requests_share_one_timer_of_their_connection(monkeypatch):
    async with lane_to(echo, maximum=1) as (lane, _):
        loop, timers = asyncio.get_running_loop(), []
        set_timer = Connection._set_timer
        monkeypatch.setattr(
            Connection, "_set_timer", lambda self, at: (timers.append(at), set_timer(self, at))
        )
        for _ in range(20):
            await send(lane, within=5.0)
        assert len(timers) == 1
        await send(lane, within=1.0)  # a nearer deadline
        assert len(timers) == 2
        assert timers[1] < timers[0] < loop.time() + 5.1


async def test_a_request_for_a_closed_connection_is_not_sent():
    async with lane_to(echo) as (lane, _):
        connection = next(iter(lane.pool.connections))
        connection.close()
        with pytest.raises(NotSent):
            connection.send(Hidden(request()), asyncio.Future(), 1.0, 1.0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("unasked", [reply(b"stale"), b"HTTP/1.1 200 O"], ids=["whole", "begun"])
@pytest.mark.real_time("holds up the loop in real time")
async def test_what_came_before_a_request_is_not_its_answer(unasked, tls):
    """It lies in the socket, since the loop was busy when it came."""
    speak, spoken = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.take()
        peer.send(reply(b"first"))
        if len(peer.server.peers) == 1:
            await speak.wait()
            peer.send(unasked)
            spoken.set()
        peer.send(reply(await peer.take()))

    async with lane_to(script, tls=tls) as (lane, server):
        assert (await send(lane)).body == b"first"
        lane.pool._keeper.cancel()
        speak.set()
        # In the turn in which the bytes have arrived, and before the loop reads them.
        await spoken.wait()
        time.sleep(0.02)  # noqa: ASYNC251 - the loop is to be busy
        assert (await send(lane, b"second")).body == b"first"  # of the second connection
        assert len(server.peers) == 2


async def test_fresh_tls_connections_are_used_though_the_server_speaks_first():
    """A TLS server sends session tickets, which no program sees."""
    async with lane_to(echo, tls=True, warm=1, maximum=8) as (lane, server):
        for _ in range(5):
            answers = await asyncio.gather(*(send(lane, b"%d" % n) for n in range(30)))
            assert [answer.body for answer in answers] == [b"%d" % n for n in range(30)]
        assert len(server.peers) <= 8
