"""What all feeds share: the renewal of the login, and reconnects."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from typing import Any

import msgspec
import pytest

from neo_async import NotLoggedIn
from neo_async.config import FeedTimings
from neo_async.errors import (
    LoginFailed,
    SessionEnded,
    TransportError,
    WrongMpin,
    WrongTotp,
)
from neo_async.feeds.market_feed import MarketFeed
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedState
from neo_async.model.ticks import PriceTick
from neo_async.transport import websocket
from tests.clients import client_of, exchange_of
from tests.feed_servers import FeedServer, Login, Peer, backoffs, feed_server, until
from tests.feeds.market_servers import (
    REFUSED,
    accept,
    answering,
    frames,
    lite,
    next_ticks,
    opened,
    serve,
    subscribed,
)
from tests.simulation.virtual_time import in_virtual_time


async def test_a_refused_login_is_renewed_once_and_used_at_its_new_address() -> None:
    async with feed_server(answering(REFUSED)) as old, feed_server(serve) as new:
        login = Login(old)
        login.next_url = new.url
        async with opened(old, login) as feed:
            await feed.until_live()
        assert login.renewals == 1
        assert len(old.peers) == 1
        assert json.loads(new.peer.received[0])["auth"] == "sid-1"


def test_a_server_that_refuses_every_login_is_sent_few(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts, backoff = backoffs(*[20.0] * 100)
    monkeypatch.setattr(websocket, "backoff", backoff)

    @in_virtual_time
    async def check() -> None:
        async with feed_server(answering(REFUSED)) as server:
            login = Login(server)
            async with opened(server, login) as feed:
                await until(lambda: len(server.peers) == 40, every=1)
                # 39 waits of 20 s are 13 minutes; a login is granted every 5.
                assert login.renewals == 3
                server.script(serve)
                await feed.until_live()

    check()
    assert attempts == list(range(1, 40))


async def test_a_login_that_ends_after_it_was_accepted_is_renewed_each_time() -> None:
    async def midnight(peer: Peer) -> None:
        await accept(peer)
        await asyncio.sleep(5)
        await peer.send(REFUSED)
        await peer.linger()

    async with feed_server(midnight, midnight, midnight, serve) as server:
        login = Login(server)
        async with opened(server, login) as feed:
            await until(lambda: feed.reconnects == 3, every=0.1)
        assert login.renewals == 3


async def test_a_login_that_cannot_be_made_is_tried_again_soon() -> None:
    async with feed_server(answering(REFUSED)) as server:
        login = Login(server)
        login.error = SessionEnded("the broker cannot be reached")
        async with opened(server, login, timings={"longest_wait": 5}) as feed:
            await until(lambda: login.renewals >= 10, every=0.5)
            login.error = None
            await until(lambda: login.current.sid != "sid-0", every=0.5)
            server.script(serve)
            await feed.until_live()


async def test_a_login_renewed_elsewhere_serves_the_next_connection() -> None:
    async with feed_server(serve) as server:
        login = Login(server)
        async with opened(server, login) as feed:
            await feed.until_live()
            await login.renew(login.current)
            server.script(answering(REFUSED), serve)
            server.peer.drop()
            await until(lambda: feed.reconnects == 1, every=0.01)
            assert login.renewals == 2, "the one made here was refused, the one elsewhere was not"


@pytest.mark.parametrize("error", [WrongMpin("wrong MPIN"), WrongTotp("no"), LoginFailed("no")])
def test_a_login_that_the_broker_refuses_is_not_tried_before_the_program_logs_in(
    error: LoginFailed,
) -> None:
    @in_virtual_time
    async def check() -> None:
        async with feed_server(answering(REFUSED)) as server:
            login = Login(server)
            login.error = error
            async with opened(server, login) as feed:
                with pytest.raises(TransportError, match="the broker refuses the login"):
                    await feed.until_live()
                await asyncio.sleep(3600)
                assert (len(server.peers), login.renewals) == (1, 1)
                assert feed.state == "waiting"
                assert str(error) in feed.reason
                assert feed.refusal == feed.reason
                server.script(serve)
                login.current = msgspec.structs.replace(login.current, sid="another")
                await until(lambda: feed.is_live, every=0.1)
                assert feed.refusal == ""

    check()


def test_a_long_life_of_reconnects_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)
    tokens = [f"nse_cm|{token}" for token in range(20)]

    async def main() -> None:
        nonlocal server

        async def short(peer: Peer) -> None:
            await accept(peer)
            events = {json.loads(await peer.receive())["event"] for _ in range(3)}
            assert events == {"subscribeScripsLite", "subscribeDepth", "subscribeExchange"}
            await peer.send(lite(1, float(len(server.peers))))
            if len(server.peers) % 2:
                peer.drop()

        async def things() -> tuple[int, int]:
            await asyncio.sleep(0.05)
            gc.collect()
            return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

        async with feed_server(serve) as server, opened(server) as feed:
            await feed.until_live()
            await feed.subscribe(tokens, level=Level.LITE)
            await feed.subscribe(tokens, level=Level.DEPTH)
            await feed.subscribe_status()
            await until(lambda: len(frames(server.peer)) == 3)
            desired, before = subscribed(server.peer), await things()
            server.script(short)
            server.peer.drop()
            await until(lambda: feed.reconnects >= 200)
            server.script(serve)
            await until(lambda: feed.is_live and len(frames(server.peer)) == 3)
            await until(lambda: subscribed(server.peer) == desired)
            assert await things() == before
            assert all(len(frames(peer)) == 3 for peer in server.peers)
            assert feed.subscriptions == 40

    server: FeedServer
    asyncio.run(main())


async def test_logging_out_closes_the_feeds() -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange, live_updates=False) as neo,
    ):
        assert neo.order_feed.state is FeedState.CLOSED
        feed, table = neo.market_feed(level=None), neo.column_feed()
        await feed.__aenter__()
        await table.__aenter__()
        await feed.until_live()
        await table.until_live()
        waiting = asyncio.create_task(next_ticks(feed, 1))
        await neo.logout()
        assert feed.state is table.state is FeedState.CLOSED
        assert await waiting == []
        with pytest.raises(NotLoggedIn):
            _ = neo.session


# --- state --------------------------------------------------------------------------------------


async def test_a_feed_shows_its_state_from_before_the_first_connection_to_the_close() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        feed = MarketFeed[PriceTick](session, FeedTimings())
        assert (feed.name, feed.state, feed.is_live) == ("market feed", FeedState.CLOSED, False)
        assert (feed.reconnects, feed.stalls, feed.last_gap) == (0, 0, None)
        assert (feed.reason, feed.refusal, feed.last_message_at) == ("", "", 0.0)
        async with feed:
            await feed.until_live()
            assert (feed.state, feed.is_live) == (FeedState.LIVE, True)
            assert repr(feed) == "<MarketFeed live, 0 reconnects>"
        assert (feed.state, feed.is_live) == (FeedState.CLOSED, False)


async def test_a_wait_until_a_feed_is_live_ends_when_the_feed_is_closed() -> None:
    async with feed_server(answering()) as server, opened(server) as feed:
        waiting = asyncio.create_task(feed.until_live())
        await asyncio.sleep(1)
        await feed.close()
        with pytest.raises(TransportError, match="closed"):
            await waiting


async def test_the_time_between_two_logins_for_a_feed_is_set_by_between_logins() -> None:
    async with feed_server(answering(REFUSED)) as server:
        login = Login(server)
        timings = {"between_logins": 60.0, "longest_wait": 5.0}
        async with opened(server, login, timings=timings) as feed:
            await until(lambda: login.renewals == 2, every=0.5)
            assert 60 <= asyncio.get_running_loop().time() < 60 + 2 * 5.0
            assert not feed.is_live
