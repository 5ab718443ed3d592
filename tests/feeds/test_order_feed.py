"""The client's order feed against servers that follow a script, and against the exchange."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from neo_async import NeoClient, Product, Segment, Side, WrongMpin
from neo_async.config import FeedTimings
from neo_async.exchange import FeedSettings
from neo_async.exchange.tls import self_signed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.model.enums import OrderStatus
from neo_async.model.feed_state import FeedState
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.transport import websocket
from tests.clients import client_of, exchange_of
from tests.exchange_settings import exchange_with
from tests.feed_servers import FeedServer, Login, Peer, backoffs, feed_server, until
from tests.simulation.virtual_time import in_virtual_time

RAW = "{type:cn,Authorization:the-token,Sid:sid-0,src:WEB}"
JSON = '{"type":"cn","Authorization":"the-token","Sid":"sid-0","src":"WEB"}'
HEARTBEAT = "{type:hb}"

CONNECTED = '{"ak":"ok","type":"cn","task":"cn","msg":"connected"}'
REFUSED = '{"ak":"nk","type":"cn","task":"cn","msg":"Authentication Failed"}'
FAILED = '{"ak":"nk","type":"failed to connect","msg":"no such sid"}'
POSITION = '{"type":"position","data":{"sym":"ITBEES","exSeg":"nse_cm","flBuyQty":"1"}}'


def order(number: int) -> str:
    return json.dumps({"type": "order", "data": {"nOrdNo": str(number), "ordSt": "open"}})


async def serve(peer: Peer) -> None:
    """Accept, and stay."""
    await peer.receive()
    await peer.send(CONNECTED)
    await peer.linger()


def answering(*messages: str | bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answer the handshake with these and stay."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*messages)
        await peer.linger()

    return script


async def drop(peer: Peer) -> None:
    await peer.receive()
    peer.drop()


@contextlib.asynccontextmanager
async def opened(
    server: FeedServer, login: Login | None = None, **timings: float
) -> AsyncIterator[OrderFeed]:
    session: Any = login or Login(server)
    async with OrderFeed(session, FeedTimings(**timings)) as feed:
        yield feed


@contextlib.asynccontextmanager
async def live(
    *scripts: Callable[[Peer], Awaitable[None]], **timings: float
) -> AsyncIterator[tuple[FeedServer, OrderFeed]]:
    async with feed_server(*scripts) as server, opened(server, **timings) as feed:
        await feed.until_live()
        yield server, feed


def handshakes(server: FeedServer) -> list[str]:
    return [peer.received[0] for peer in server.peers]


# --- handshake --------------------------------------------------------------------------------


async def test_the_form_without_quotes_goes_first() -> None:
    async with live(serve) as (server, feed):
        assert handshakes(server) == [RAW]
        assert feed.is_live


@pytest.mark.parametrize(
    "first", [drop, Peer.linger, answering("{}"), answering("[[")], ids=lambda f: f.__name__
)
def test_json_goes_after_an_attempt_without_acknowledgement(first: Any) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(first, serve, handshake=5) as (server, feed):
            assert handshakes(server) == [RAW, JSON]
            assert feed.reconnects == 0

    check()


async def test_the_forms_take_turns_until_one_is_understood() -> None:
    async with live(drop, drop, drop, serve) as (server, _):
        assert handshakes(server) == [RAW, JSON, RAW, JSON]


@pytest.mark.parametrize(("scripts", "form"), [([serve], RAW), ([drop, serve], JSON)])
def test_the_form_that_worked_is_kept(
    scripts: list[Callable[[Peer], Awaitable[None]]], form: str
) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(*scripts) as (server, feed):
            for count in (1, 2):
                await asyncio.sleep(5)
                server.peer.drop()
                await until(lambda count=count: feed.reconnects == count, every=0.01)  # type: ignore[misc]
            assert handshakes(server)[-3:] == [form] * 3

    check()


async def test_a_form_that_worked_is_left_when_it_no_longer_does() -> None:
    async with live(serve, drop, serve) as (server, feed):
        server.peer.drop()
        await until(lambda: feed.reconnects == 1, every=0.01)
        assert handshakes(server) == [RAW, RAW, JSON]


@pytest.mark.parametrize("refusal", [REFUSED, FAILED])
def test_a_refusal_renews_the_login_once_and_keeps_the_form(refusal: str) -> None:
    @in_virtual_time
    async def check() -> None:
        async with feed_server(answering(refusal)) as old, feed_server(serve) as new:
            login = Login(old)
            login.next_url = new.url
            async with opened(old, login) as feed:
                await feed.until_live()
            assert login.renewals == 1
            assert handshakes(old) == [RAW]
            assert handshakes(new) == ["{type:cn,Authorization:token-1,Sid:sid-1,src:WEB}"]

    check()


def test_a_server_that_refuses_every_login_is_sent_few(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backoff = backoffs(*[20.0] * 100)
    monkeypatch.setattr(websocket, "backoff", backoff)

    @in_virtual_time
    async def check() -> None:
        async with feed_server(answering(REFUSED)) as server:
            login = Login(server)
            async with opened(server, login):
                await until(lambda: len(server.peers) == 20, every=1)
                assert login.renewals == 2

    check()


async def test_a_refusal_on_a_live_connection_ends_the_login() -> None:
    async with feed_server(answering(CONNECTED, REFUSED), serve) as server:
        login = Login(server)
        async with opened(server, login) as feed:
            await until(lambda: feed.reconnects == 1)
            assert login.renewals == 1


SAID = "the-token and sid-0"


@pytest.mark.parametrize(
    "messages",
    [
        [json.dumps({"ak": "nk", "type": "cn", "msg": SAID})],
        [CONNECTED, json.dumps({"ak": "nk", "type": "cn", "msg": SAID})],
        [SAID],
        [CONNECTED, SAID],
        [json.dumps({"type": "order", "data": {"x": SAID}})],
        [CONNECTED, json.dumps({"type": "order", "data": SAID})],
    ],
)
def test_secrets_that_a_server_repeats_are_in_no_log_and_no_reason(
    messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1, "neo_async")

    @in_virtual_time
    async def check() -> None:
        async with feed_server(answering(*messages)) as server:
            login = Login(server)
            login.error = WrongMpin("no")
            async with opened(server, login, longest_wait=0.1) as feed:
                events: list[str] = []
                feed.on_event(lambda event: events.append(event.reason))
                await asyncio.sleep(1)
                said = "".join([feed.reason, *events, caplog.text])
        assert "***" in said
        assert "the-token" not in said
        assert "sid-0" not in said

    check()


async def test_an_order_instead_of_the_acknowledgement_counts_as_one() -> None:
    taken: list[object] = []
    async with feed_server(answering('{"type":"news"}', HEARTBEAT, order(7))) as server:
        session: Any = Login(server)
        feed = OrderFeed(session, FeedTimings())
        feed.subscribe(taken.append)
        updates = feed.updates()
        async with feed:
            await feed.until_live()
            assert isinstance(taken[0], OrderUpdate)
            assert await anext(updates) == taken[0]


# --- keeping it alive -------------------------------------------------------------------------


async def test_heartbeats_go_out_on_time() -> None:
    async with live(serve) as (server, feed):
        await asyncio.sleep(300)
        beats = server.peer.received[1:]
        assert beats == [HEARTBEAT] * len(beats)
        assert len(beats) == pytest.approx(10, abs=2)
        assert server.peer.pings == pytest.approx(15, abs=3)
        assert (feed.reconnects, feed.stalls) == (0, 0), "a quiet account is no stall"


async def test_a_server_without_a_sign_of_life_is_lost() -> None:
    async def silent(peer: Peer) -> None:
        peer.answers_pings = False
        await serve(peer)

    async with live(silent, serve) as (server, feed):
        await until(lambda: feed.reconnects == 1, every=0.1)
        assert len(server.peers) == 2


async def test_a_consumer_that_does_not_take_its_updates_delays_no_heartbeat() -> None:
    async def busy(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED)
        for number in range(300):
            await peer.send(order(number))
            await asyncio.sleep(1)

    async with live(busy) as (server, feed):
        updates = feed.updates()
        await asyncio.sleep(295)
        assert len(server.peer.received) - 1 == pytest.approx(10, abs=2)
        numbers = []
        for _ in range(290):
            update = await anext(updates)
            assert isinstance(update, OrderUpdate)
            numbers.append(update.number)
        assert numbers == [str(number) for number in range(int(numbers[0]), int(numbers[0]) + 290)]


# --- updates ----------------------------------------------------------------------------------


async def test_every_consumer_gets_every_update_typed() -> None:
    junk = ["", "{", '{"type":"order"}', '{"type":"order","data":{}}', '{"ak":"ok","type":"hb"}',
            '{"type":"news","data":{"nOrdNo":"1"}}', b"\xff", "null", CONNECTED]  # fmt: skip

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED)
        await peer.receive()
        await peer.send(*junk, order(1), POSITION, order(2).encode())
        await peer.linger()

    def failing(update: object) -> None:
        raise LookupError("a mistake of the user's")

    async with live(script, heartbeat=1) as (_, feed):
        feed.subscribe(failing)
        first, second = feed.updates(), feed.updates()
        for updates in (first, second):
            order_1, position, order_2 = [await anext(updates) for _ in range(3)]
            assert isinstance(order_1, OrderUpdate)
            assert (order_1.number, order_1.status) == ("1", OrderStatus.OPEN)
            assert isinstance(position, PositionUpdate)
            assert (position.name, position.buy_quantity) == ("ITBEES", 1)
            assert isinstance(order_2, OrderUpdate)
            assert order_2.number == "2"
        assert feed.is_live
        assert feed.reconnects == 0


async def test_a_subscriber_gets_updates_until_it_is_unsubscribed() -> None:
    taken: list[object] = []
    async with live(serve) as (server, feed):
        feed.subscribe(taken.append)
        await server.peer.send(order(1))
        await until(lambda: len(taken) == 1)
        feed.unsubscribe(taken.append)
        updates = feed.updates()
        await server.peer.send(order(2))
        await anext(updates)
        assert len(taken) == 1


async def test_a_listener_that_raises_cancelled_error_ends_nothing() -> None:
    taken: list[object] = []
    ended = asyncio.get_running_loop().create_future()
    ended.cancel()
    async with live(serve) as (server, feed):
        feed.subscribe(lambda update: ended.result())
        feed.subscribe(taken.append)
        for _ in range(3):
            await server.peer.send(order(1))
        await until(lambda: len(taken) == 3)
        assert feed.is_live


async def test_a_login_that_the_broker_refuses_is_not_tried_before_the_program_logs_in() -> None:
    async with feed_server(answering(REFUSED)) as server:
        login = Login(server)
        login.error = WrongMpin("wrong MPIN")
        async with opened(server, login) as feed:
            await asyncio.sleep(3600)
            assert (len(server.peers), login.renewals) == (1, 1)
            assert "the broker refuses the login (wrong MPIN): log in again" in feed.reason
            server.script(serve)
            login.current = msgspec.structs.replace(login.current, sid="another")
            await until(lambda: feed.is_live, every=0.1)


async def test_updates_count_from_the_call_and_not_from_the_first_step() -> None:
    async with live(serve) as (server, feed):
        updates = feed.updates()
        await server.peer.send(order(1))
        await asyncio.sleep(1)
        update = await anext(updates)
        assert isinstance(update, OrderUpdate)
        assert update.number == "1"


async def test_the_consumer_goes_on_over_reconnects_and_ends_when_the_feed_is_closed() -> None:
    numbers: list[str] = []

    async def consume(feed: OrderFeed) -> None:
        async for update in feed.updates():
            assert isinstance(update, OrderUpdate)
            numbers.append(update.number)

    async def short(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED)
        await asyncio.sleep(2)
        await peer.send(order(len(server.peers)))

    async with feed_server(short) as server, opened(server) as feed:
        events: list[FeedState] = []
        feed.on_event(lambda event: events.append(event.state))
        consumers = [asyncio.create_task(consume(feed)) for _ in range(2)]
        await until(lambda: len(numbers) == 6, every=0.05)
        await feed.close()
        await asyncio.gather(*consumers)
        assert numbers == ["1", "1", "2", "2", "3", "3"]
        assert events[:4] == [
            FeedState.CONNECTING,
            FeedState.LIVE,
            FeedState.WAITING,
            FeedState.CONNECTING,
        ]
        assert events[-1] is FeedState.CLOSED


async def test_a_consumer_that_is_gone_collects_nothing() -> None:
    async with live(serve) as (_, feed):
        for _ in range(100):
            feed.updates()
        kept = feed.updates()
        gc.collect()
        assert [*feed._iterators] == [kept]


def test_a_long_life_of_reconnects_leaks_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)

    async def short(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED, order(1))
        if len(server.peers) % 2:
            peer.drop()

    server: FeedServer

    async def main() -> None:
        nonlocal server
        async with feed_server(serve, short) as server, opened(server) as feed:
            updates = feed.updates()
            await feed.until_live()
            await asyncio.sleep(0.05)
            tasks = len(asyncio.all_tasks())
            server.peer.drop()
            await until(lambda: feed.reconnects >= 200)
            server.script(serve)
            await until(lambda: feed.is_live and server.peer.received)
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == tasks
            for _ in range(100):
                await anext(updates)

    asyncio.run(main())


# --- with client and exchange -----------------------------------------------------------------

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)


async def test_an_order_is_reported_from_its_first_state_to_its_last() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        updates = neo.order_updates()
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, price="39.00", product=Product.CNC)
        await neo.orders.cancel(order)
        statuses = []
        async for update in updates:
            if isinstance(update, OrderUpdate) and update.number == order.number:
                statuses.append(update.status)
                if update.status is OrderStatus.CANCELLED:
                    break
        assert OrderStatus.OPEN in statuses


async def test_a_midnight_on_the_exchange_is_a_non_event() -> None:
    settings = FeedSettings(answers_heartbeat=True)
    async with exchange_of(feeds=settings) as exchange, client_of(exchange) as neo:
        updates = neo.order_updates()
        await neo.order_feed.until_live()
        exchange.feeds.send_garbage("orders")
        exchange.end_sessions()
        await until(lambda: neo.order_feed.reconnects == 1, every=0.05)
        exchange.feeds.drop_connections("orders")
        await until(lambda: neo.order_feed.reconnects == 2, every=0.05)
        placed = await neo.orders.place(*BUY, price="39.00", product=Product.CNC)
        async for update in updates:
            if isinstance(update, OrderUpdate) and update.number == placed.number:
                break


async def test_a_session_renewed_by_a_call_serves_the_feed_too() -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe(["nse_cm|2885"])
        await feed.until_live()
        await neo.order_feed.until_live()
        sid = neo.session.sid
        exchange.end_sessions()
        await neo.portfolio.limits()
        await until(lambda: feed.reconnects and neo.order_feed.reconnects, every=0.05)
        assert neo.session.sid != sid
        assert neo._session.renewals == 1
        assert feed.reconnects == neo.order_feed.reconnects == 1


async def test_without_live_updates_the_order_feed_is_opened_on_demand() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        await asyncio.sleep(5)
        assert neo.order_feed.state is FeedState.CLOSED
        updates = neo.order_updates()
        await neo.order_feed.until_live()
        await neo.logout()
        assert [update async for update in updates if isinstance(update, OrderUpdate)] == []


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_updates_come_over_tls_on_either_loop(
    loop_factory: Callable[[], Any], tmp_path: Path
) -> None:
    made: tuple[ssl.SSLContext, Path] = self_signed(tmp_path)

    async def main() -> None:
        async with (
            exchange_with(seed=7, tls=made[0], ca_file=made[1], limits=None) as exchange,
            NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
        ):
            updates = neo.order_updates()
            await neo.order_feed.until_live()
            exchange.feeds.drop_connections("orders")
            await until(lambda: neo.order_feed.reconnects == 1)
            placed = await neo.orders.place(*BUY, price="39.00", product=Product.CNC)
            async for update in updates:
                if isinstance(update, OrderUpdate) and update.number == placed.number:
                    break

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
