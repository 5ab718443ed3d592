"""The websocket that stays open, over real sockets; mostly in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
import uvloop

from neo_async.config import FeedTimings
from neo_async.errors import ProtocolError, SessionEnded, TransportError, UsageError
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.transport import websocket
from neo_async.transport.websocket import ReconnectingSocket, Socket
from tests.fake_servers import tcp_server
from tests.feed_servers import FeedServer, Peer, backoffs, feed_server, until
from tests.simulation.virtual_time import in_virtual_time

CONNECTING, LIVE, WAITING, CLOSED = FeedState


class Client:
    """A reconnecting socket, and what became of it."""

    def __init__(
        self,
        address: Callable[[], str],
        *,
        handle: Callable[[bytes | str], Awaitable[None] | None] | None = None,
        prove: Callable[[Socket], Awaitable[None]] | None = None,
        expects_data: Callable[[], bool] = lambda: False,
        tls: ssl.SSLContext | None = None,
        heartbeat_text: str = "",
        **timings: float,
    ) -> None:
        self.messages: list[bytes | str] = []
        self.events: list[FeedEvent] = []
        self.at: list[float] = []
        """Time of the loop at each event."""
        self.renewals = 0
        self.renewal_error: Exception | None = None
        self.socket = ReconnectingSocket(
            "a feed",
            address=address,
            handshake=prove or _greet,
            handle=handle or self.messages.append,
            renew=self._renew,
            expects_data=expects_data,
            timings=FeedTimings(**timings),
            tls=tls,
            heartbeat_text=heartbeat_text,
        )
        self.socket.on_event(self._note)

    @property
    def states(self) -> list[FeedState]:
        return [event.state for event in self.events]

    @property
    def reasons(self) -> list[str]:
        """Why it was lost, each time."""
        return [event.reason for event in self.events if event.state is WAITING]

    def times(self, state: FeedState) -> list[float]:
        return [at for at, event in zip(self.at, self.events, strict=True) if event.state is state]

    def _note(self, event: FeedEvent) -> None:
        self.events.append(event)
        self.at.append(asyncio.get_running_loop().time())

    async def _renew(self) -> None:
        self.renewals += 1
        if self.renewal_error is not None:
            raise self.renewal_error


async def _greet(socket: Socket) -> None:
    await socket.send("hello")
    assert await socket.receive() == "welcome"


async def welcome(peer: Peer) -> None:
    """Accept, and stay."""
    await peer.receive()
    await peer.send("welcome")
    await peer.linger()


def then(*steps: Callable[[Peer], Any]) -> Callable[[Peer], Awaitable[None]]:
    """Accept, and take these steps."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("welcome")
        for step in steps:
            done = step(peer)
            if done is not None:
                await done

    return script


@contextlib.asynccontextmanager
async def connected(server: FeedServer, **settings: Any) -> AsyncIterator[Client]:
    """A client that is live, closed at the end."""
    async with started(server, **settings) as client:
        await client.socket.until_live()
        yield client


@contextlib.asynccontextmanager
async def started(server: FeedServer, **settings: Any) -> AsyncIterator[Client]:
    client = Client(lambda: server.url, **settings)
    client.socket.start()
    try:
        yield client
    finally:
        await client.socket.close()


# --- one connection ---------------------------------------------------------------------------


async def test_messages_of_both_kinds_arrive_in_their_order() -> None:
    async with feed_server(then(lambda p: p.send(b"1", "2", b"", b"4"), Peer.linger)) as server:
        async with connected(server) as client:
            await until(lambda: len(client.messages) == 4)
            assert client.messages == [b"1", "2", b"", b"4"]
            assert server.peer.received == ["hello"]
            assert client.socket.last_message_at == pytest.approx(
                asyncio.get_running_loop().time(), abs=0.1
            )
        assert client.states == [CONNECTING, LIVE, CLOSED]
        assert (client.socket.reconnects, client.socket.last_gap) == (0, None)


async def test_what_the_client_sends_arrives() -> None:
    async with feed_server(welcome) as server, connected(server) as client:
        assert await client.socket.send("a wish")
        await until(lambda: server.peer.received == ["hello", "a wish"])


async def test_nothing_is_sent_without_a_connection() -> None:
    client = Client(lambda: "ws://127.0.0.1:1/")
    assert not await client.socket.send("a wish")


async def test_pings_of_the_server_are_answered() -> None:
    async with feed_server(then(Peer.ping, Peer.linger)) as server, connected(server):
        await until(lambda: server.peer.pongs == 1)


async def test_starting_twice_opens_one_connection() -> None:
    async with feed_server(welcome) as server, connected(server) as client:
        client.socket.start()
        await asyncio.sleep(1)
        assert len(server.peers) == 1


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tls_is_spoken_on_either_loop(loop_factory: Callable[[], Any]) -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)

    async def main() -> None:
        drop = then(lambda p: p.send(b"1"), lambda p: until(lambda: client.messages), Peer.drop)
        stay = then(lambda p: p.send(b"2"), Peer.linger)
        async with feed_server(drop, stay, tls=theirs) as server:
            nonlocal client
            client = Client(lambda: server.url, tls=ours)
            client.socket.start()
            await until(lambda: client.messages == [b"1", b"2"])
            await client.socket.close()
            distrustful = Client(lambda: server.url)
            distrustful.socket.start()
            await until(lambda: distrustful.reasons)
            await distrustful.socket.close()
            assert "certificate" in distrustful.reasons[0]

    client = Client(lambda: "")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


# --- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda peer: peer.close(4000), "code 4000"),
        (lambda peer: peer.drop(), "code 1006"),
    ],
    ids=["closed", "dropped"],
)
def test_a_lost_connection_is_made_anew_at_once(end: Callable[[Peer], Any], reason: str) -> None:
    @in_virtual_time
    async def check() -> None:
        async with (
            feed_server(then(lambda _: asyncio.sleep(5), end), welcome) as server,
            connected(server) as client,
        ):
            await until(lambda: client.socket.reconnects == 1, every=0.01)
            assert client.states == [CONNECTING, LIVE, WAITING, CONNECTING, LIVE]
            assert reason in client.reasons[0]
            assert client.socket.last_gap is not None
            assert client.socket.last_gap < 0.1
            assert client.socket.is_live

    check()


async def test_a_server_that_is_away_is_tried_ever_more_rarely() -> None:
    # Full jitter makes every wait a draw from a range that grows to its cap.
    async with feed_server(welcome) as server:
        async with connected(server, longest_wait=8) as client:
            await asyncio.sleep(5)
            await server.go_down()
            await until(lambda: len(client.reasons) > 40, every=1)
            await server.go_up()
            await until(lambda: client.socket.is_live, every=0.1)
            assert client.socket.reconnects == 1
            gap = client.times(LIVE)[1] - client.times(WAITING)[0]
            assert client.socket.last_gap == pytest.approx(gap, abs=0.3)
        tries = client.times(CONNECTING)[1:]
        waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
        caps = [0.5, 1, 2, 4, *[8] * len(waits)]
        assert all(0 <= wait <= cap + 0.1 for wait, cap in zip(waits, caps, strict=False))
        assert max(waits) > 4


def test_each_failure_in_a_row_lengthens_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts, backoff = backoffs(1, 2, 3)
    monkeypatch.setattr(websocket, "backoff", backoff)

    @in_virtual_time
    async def check() -> None:
        async with feed_server(welcome) as server:
            server.is_refusing = True
            async with started(server) as client:
                await until(lambda: server.refusals == 4, every=0.01)
                server.is_refusing = False
                await client.socket.until_live()
                assert "503" in client.reasons[0]
        tries = client.times(CONNECTING)
        assert [later - tries[0] for later in tries[:5]] == pytest.approx([0, 0, 1, 3, 6], abs=0.1)
        assert attempts == [1, 2, 3]

    check()


def test_a_connection_that_is_lost_as_soon_as_it_is_live_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)

    @in_virtual_time
    async def check() -> None:
        short, long = then(), then(lambda _: asyncio.sleep(1.5))
        async with (
            feed_server(short, short, short, long, short, short, welcome) as server,
            connected(server) as client,
        ):
            await until(lambda: client.socket.reconnects == 6, every=0.01)

    check()
    assert attempts == [1, 2, 1, 2]


async def test_an_unanswered_request_is_given_up() -> None:
    async with feed_server(welcome) as server:
        server.is_hanging = True
        async with started(server, connect=3) as client:
            await until(lambda: client.reasons, every=0.1)
            server.is_hanging = False
            await client.socket.until_live()
            assert client.times(WAITING)[0] == pytest.approx(3, abs=0.2)
            assert "3" in client.reasons[0]


async def test_an_unanswered_handshake_is_given_up() -> None:
    async with (
        feed_server(Peer.linger, welcome) as server,
        started(server, handshake=3) as client,
    ):
        await client.socket.until_live()
        assert client.times(WAITING)[0] == pytest.approx(3, abs=0.2)
        assert "3" in client.reasons[0]
        assert client.socket.reconnects == 0, "it was never live before"


async def test_an_error_of_the_handshake_or_of_the_handler_leads_to_another_try() -> None:
    async def prove(socket: Socket) -> None:
        await _greet(socket)
        if len(server.peers) == 1:
            raise ProtocolError("not the dialect I know")

    def handle(message: bytes | str) -> None:
        if len(server.peers) == 2:
            raise LookupError("a mistake of ours")
        client.messages.append(message)

    async with feed_server(then(lambda p: p.send(b"1"), Peer.linger)) as server:
        client = Client(lambda: server.url, prove=prove, handle=handle)
        client.socket.start()
        await until(lambda: client.messages)
        assert client.reasons == ["not the dialect I know", "LookupError('a mistake of ours')"]
        await client.socket.close()


async def test_listeners_that_fail_end_nothing() -> None:
    def listener(event: FeedEvent) -> None:
        raise LookupError(event.state)

    async with feed_server(then(), welcome) as server:
        client = Client(lambda: server.url)
        client.socket.on_event(listener)
        client.socket.start()
        await until(lambda: client.socket.reconnects == 1, every=0.01)
        await client.socket.close()
    assert client.states == [CONNECTING, LIVE, WAITING, CONNECTING, LIVE, CLOSED]


# --- silence ----------------------------------------------------------------------------------


async def test_a_server_that_answers_no_pings_is_lost() -> None:
    async def mute(peer: Peer) -> None:
        peer.answers_pings = False
        await welcome(peer)

    async with (
        feed_server(mute, welcome) as server,
        connected(server, ping=4, pong=2) as client,
    ):
        live_at = client.at[-1]
        await until(lambda: client.socket.reconnects == 1, every=0.1)
        assert client.times(WAITING)[0] - live_at == pytest.approx(6, abs=1.5)
        assert "no sign of life" in client.reasons[0]
        await asyncio.sleep(60)
        assert client.socket.reconnects == 1, "pongs are signs enough"
        assert server.peer.pings == pytest.approx(15, abs=1)


async def test_messages_are_signs_of_life() -> None:
    async def talkative(peer: Peer) -> None:
        peer.answers_pings = False
        await then()(peer)
        while True:
            await peer.send(b"1")
            await asyncio.sleep(1)

    async with feed_server(talkative) as server, connected(server, ping=4, pong=2) as client:
        await asyncio.sleep(60)
        assert client.socket.is_live
        assert client.reasons == []


async def test_silence_is_a_loss_when_data_is_expected() -> None:
    expected = False
    async with (
        feed_server(welcome) as server,
        connected(server, silence=10, expects_data=lambda: expected) as client,
    ):
        await asyncio.sleep(100)
        assert client.reasons == [], "nothing was expected"
        expected = True
        await until(lambda: client.reasons, every=0.1)
        assert "nothing received for" in client.reasons[0]
        assert client.socket.stalls == 1
        await client.socket.until_live()
        assert client.socket.reconnects == 1


async def test_the_patience_with_silence_doubles_as_long_as_reconnecting_does_not_help() -> None:
    silent = then(lambda p: p.send(b"a snapshot"), Peer.linger)

    async def lively(peer: Peer) -> None:
        await then()(peer)
        for _ in range(20):
            await peer.send(b"1")
            await asyncio.sleep(1)
        await peer.linger()

    async with (
        feed_server(silent, silent, silent, lively, silent) as server,
        connected(server, silence=10, expects_data=lambda: True) as client,
    ):
        await until(lambda: client.socket.stalls == 5, every=0.5)
        ups, downs = client.times(LIVE), client.times(WAITING)
        lives = [down - up for up, down in zip(ups, downs, strict=False)]
        # The fourth had its last message after 19 s.
        assert lives[:5] == pytest.approx([10, 20, 40, 19 + 10, 20], abs=3)


async def test_the_patience_with_silence_has_an_end() -> None:
    async with (
        feed_server(welcome) as server,
        connected(server, silence=300, expects_data=lambda: True) as client,
    ):
        await until(lambda: client.socket.stalls == 5, every=10)
        ups, downs = client.times(LIVE), client.times(WAITING)
        lives = [down - up for up, down in zip(ups, downs, strict=False)]
        assert lives == pytest.approx([300, 600, 1200, 1200, 1200], abs=80)


async def test_a_session_begins_with_the_first_patience_and_with_no_silence_behind_it() -> None:
    expected = True
    async with (
        feed_server(welcome) as server,
        connected(server, silence=10, expects_data=lambda: expected) as client,
    ):
        await until(lambda: client.socket.stalls == 4, every=0.5)
        expected = False  # the market closes
        await asyncio.sleep(50_000)
        assert client.socket.stalls == 4
        expected = True
        began = asyncio.get_running_loop().time()
        await until(lambda: client.socket.stalls == 5, every=0.5)
        assert client.times(WAITING)[4] - began == pytest.approx(10, abs=4)


async def test_losses_of_other_kinds_do_not_lengthen_the_patience_with_silence() -> None:
    dropped = then(lambda _: asyncio.sleep(2))
    async with (
        feed_server(*[dropped] * 5, welcome) as server,
        connected(server, silence=10, expects_data=lambda: True) as client,
    ):
        await until(lambda: client.socket.stalls == 1, every=0.1)
        assert client.times(WAITING)[5] - client.times(LIVE)[5] == pytest.approx(10, abs=3)


async def test_a_handler_that_takes_its_time_holds_the_server_up_but_no_heartbeat() -> None:
    released = asyncio.Event()
    taken: list[bytes | str] = []

    def handle(message: bytes | str) -> Awaitable[Any]:
        taken.append(message)
        return released.wait()

    async with (
        feed_server(then(lambda p: p.send(b"1", b"2"), Peer.linger)) as server,
        connected(
            server,
            handle=handle,
            expects_data=lambda: True,
            heartbeat_text="alive",
            silence=10,
            ping=4,
            pong=2,
            heartbeat=5,
        ) as client,
    ):
        await asyncio.sleep(100)
        assert taken == [b"1"]
        assert client.reasons == []
        assert server.peer.received[1:] == ["alive"] * len(server.peer.received[1:])
        assert len(server.peer.received) - 1 == pytest.approx(20, abs=2)
        assert server.peer.pings == pytest.approx(25, abs=5)
        released.set()
        await asyncio.sleep(5)
        assert taken == [b"1", b"2"]
        assert client.reasons == [], "it could not hear while it was held up"


async def test_a_server_that_no_longer_reads_is_lost_too() -> None:
    deaf = then(Peer.deafen, lambda _: asyncio.sleep(10_000))
    async with (
        feed_server(deaf, welcome) as server,
        connected(server, ping=4, pong=2) as client,
    ):

        async def shout() -> None:
            while await client.socket.send("x" * 1_000_000):
                pass

        shouting = asyncio.create_task(shout())
        await until(lambda: client.socket.reconnects == 1, every=0.1)
        await shouting


# --- ended sessions ---------------------------------------------------------------------------


async def _prove(socket: Socket) -> None:
    await socket.send("who I am")
    if await socket.receive() != "welcome":
        raise SessionEnded("Auth failed", code=1120)


async def _refuse(peer: Peer) -> None:
    await peer.receive()
    await peer.send("go away")


def test_connections_that_keep_dying_young_are_made_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)

    @in_virtual_time
    async def check() -> None:
        young, old = then(lambda _: asyncio.sleep(1.1)), then(lambda _: asyncio.sleep(11))
        async with (
            feed_server(*[young] * 7, old, *[young] * 3, old, young, welcome) as server,
            connected(server) as client,
        ):
            await until(lambda: client.socket.reconnects == 13, every=0.1)

    check()
    # Three are tried again at once, and so is one that has lived for ten seconds.
    assert attempts == [1, 2, 3, 4]


async def test_a_login_that_is_refused_ends_the_waiting_for_the_connection() -> None:
    async with feed_server(then(lambda p: p.send(b"ended"))) as server:
        client = Client(lambda: server.url, handle=_end)

        async def refused() -> None:
            client.socket.refuse("the MPIN is wrong")
            await asyncio.sleep(3600)

        client.socket._renew = refused
        client.socket.start()
        await until(lambda: client.socket.refusal, every=0.01)
        with pytest.raises(TransportError, match="cannot be live: the MPIN is wrong"):
            await client.socket.until_live()
        assert (client.socket.state, client.socket.reason) == (WAITING, "the MPIN is wrong")
        assert len(server.peers) == 1
        await client.socket.close()
        assert client.socket.refusal == ""


def _end(message: bytes | str) -> None:
    raise SessionEnded("over")


async def test_a_server_that_goes_on_sending_after_our_close_delays_no_next_try() -> None:
    async def talkative(peer: Peer) -> None:
        await peer.receive()
        peer.deafen()  # it does not answer our close
        await peer.send("no")
        for number in range(1000):
            await asyncio.sleep(0.05)
            await peer.send(str(number))

    async def refused(socket: Socket) -> None:
        await socket.send("hello")
        if await socket.receive() == "no":
            raise SessionEnded("refused")

    async with feed_server(talkative, welcome) as server, started(server, prove=refused) as client:
        await asyncio.wait_for(client.socket.until_live(), 2)
        assert client.reasons == ["refused"]
        assert client.renewals == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_a_feed_is_not_followed(status: int) -> None:
    """The login that goes over it would go to another server, maybe in clear text."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}?private\r\n"
        writer.write(lines.encode() + b"Content-Length: 0\r\n\r\n")
        await writer.drain()

    async with feed_server(welcome) as elsewhere, tcp_server(handle) as address:
        client = Client(lambda: f"ws://{address}/feed")
        client.socket.start()
        await until(lambda: client.reasons)
        await client.socket.close()
        reason = f"the server redirects to '{elsewhere.url}'; redirections are not followed"
        assert client.reasons[0] == reason
        assert elsewhere.peers == []


async def test_an_ended_session_is_renewed_before_the_next_try() -> None:
    async with (
        feed_server(_refuse, welcome) as server,
        connected(server, prove=_prove) as client,
    ):
        assert client.renewals == 1
        assert "Auth failed" in client.reasons[0]


@pytest.mark.parametrize("error", [TransportError("no network"), LookupError("a mistake")])
def test_a_renewal_that_fails_is_no_end(error: Exception) -> None:
    @in_virtual_time
    async def check() -> None:
        async with feed_server(_refuse, welcome) as server:
            client = Client(lambda: server.url, prove=_prove)
            client.renewal_error = error
            client.socket.start()
            await client.socket.until_live()
            await client.socket.close()
            assert client.renewals == 1

    check()


async def test_a_session_may_end_on_a_live_connection() -> None:
    def handle(message: bytes | str) -> None:
        raise SessionEnded("midnight")

    async with (
        feed_server(then(lambda p: p.send("bye"), Peer.linger), welcome) as server,
        started(server, handle=handle) as client,
    ):
        await until(lambda: client.socket.reconnects == 1)
        assert client.renewals == 1
        assert "midnight" in client.reasons[0]


# --- closing ----------------------------------------------------------------------------------


async def test_closing_says_goodbye() -> None:
    async with feed_server(welcome) as server:
        async with connected(server):
            pass
        await until(lambda: server.peer.close_code == 1000)


@pytest.mark.parametrize("moment", ["opening", "handshake", "live", "held up", "waiting"])
def test_closing_works_at_any_moment(moment: str) -> None:
    @in_virtual_time
    async def check() -> None:
        forever = asyncio.Event()
        async with feed_server(then(lambda p: p.send(b"1"), Peer.linger)) as server:
            server.is_hanging = moment == "opening"
            server.is_refusing = moment == "waiting"
            if moment == "handshake":
                server.script(Peer.linger)
            async with started(
                server, handle=(lambda _: forever.wait()) if moment == "held up" else None
            ) as client:
                await asyncio.sleep(0.3)
            assert client.states[-1] is CLOSED
            assert not client.socket.is_live
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    check()


async def test_it_can_be_started_again_after_closing() -> None:
    async with (
        feed_server(welcome) as server,
        connected(server) as client,
    ):
        await client.socket.close()
        client.socket.start()
        await client.socket.until_live()
        assert client.socket.reconnects == 0, "closing is no loss"
        assert len(server.peers) == 2


async def test_nobody_waits_for_a_feed_that_is_closed() -> None:
    async with feed_server(Peer.linger) as server:
        async with started(server) as client:
            waiting = asyncio.create_task(client.socket.until_live())
            await asyncio.sleep(1)
        with pytest.raises(TransportError, match="closed"):
            await waiting
        with pytest.raises(UsageError, match="not started"):
            await client.socket.until_live()


# --- endurance --------------------------------------------------------------------------------


def test_reconnecting_leaks_neither_tasks_nor_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)

    async def ending(peer: Peer) -> None:
        await then(lambda p: p.send(b"1"))(peer)
        if len(server.peers) % 2:
            peer.drop()

    def open_things() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    server: FeedServer

    async def main() -> None:
        nonlocal server
        async with feed_server(welcome, ending) as server, connected(server) as client:
            before = open_things()
            server.peer.drop()
            await until(lambda: client.socket.reconnects >= 200)
            server.script(welcome)
            await until(lambda: client.socket.is_live and server.peer.received)
            # A drop that both ends have noticed leaves a turn or two of tidying up.
            await until(lambda: open_things() == before)
            assert len(client.messages) > 100

    asyncio.run(main())
