"""The client's market feed against servers that follow a script, and against the exchange."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from neo_async import NeoClient, NotLoggedIn
from neo_async.base.india import IST
from neo_async.calendar import Calendar
from neo_async.config import FeedTimings
from neo_async.errors import (
    LoginFailed,
    SessionEnded,
    TransportError,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.exchange import Exchange, FeedSettings
from neo_async.exchange.feeds.settings import AuthAnswer
from neo_async.exchange.tls import self_signed
from neo_async.feeds.buffers import Policy
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.subscriptions import BUDGET
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketState,
    MarketStatus,
    PriceTick,
    ScripTick,
    Tick,
)
from neo_async.transport import websocket
from neo_async.transport.websocket import Socket
from neo_async.wire.feed import FeedEncoder, acknowledgement_frame
from tests.clients import client_of, exchange_of
from tests.exchange_settings import exchange_with
from tests.feed_servers import FeedServer, Login, Peer, backoffs, feed_server, until
from tests.simulation.virtual_time import in_virtual_time

ENCODE = FeedEncoder()

ACCEPTED = json.dumps(
    {
        "message_code": 1117,
        "id": "SFD_CPROD_701",
        "format": "native_batch",
        "version": 1,
        "exchanges": {"nse_cm": {"value": 1, "divider": 100}},
    }
)
CONNECTED = ACCEPTED.replace("1117", "1119")
REFUSED = '{"message_code":1120,"message":"Auth failed: no such session"}'
FALLBACK = ACCEPTED.replace("native_batch", "native_fallback")


def lite(token: int, price: float = 10.0) -> bytes:
    return ENCODE.lite(
        LiteTick(f"nse_cm|{token}", "", price, 1_795_408_200, 1, price, 0.0, 0.0, 1, 2, 1, 0)
    )


def scrip(token: int, price: float = 10.0, level: Level = Level.SCRIP) -> bytes:
    rows = (DepthRow(1, price, 1),) * (1 if level is Level.SCRIP else 5)
    return ENCODE.scrip(
        ScripTick(
            f"nse_cm|{token}", "", level, price, 1, 1, 1, price, price, price, price, price, 1,
            1.0, 1, 1, 0, 0.0, 0.0, price, price, price, price, 1, 2, 1, False, rows, rows, 0,
        )
    )  # fmt: skip


def index(token: int, name: str) -> bytes:
    return ENCODE.index(
        "nse_cm",
        IndexTick("", "", name, token, 20050.0, 1, 1.0, 1.0, 1.0, 19900.0, 0.0, 0.0, 1.0, 1.0,
                  2, 1.0, 0),
    )  # fmt: skip


def status(code: int, segment: str = "nse_cm") -> bytes:
    return ENCODE.status(MarketStatus(segment, code, "", 0))


async def accept(peer: Peer) -> None:
    await peer.receive()
    await peer.send(ACCEPTED)


async def serve(peer: Peer) -> None:
    """Accept, and stay."""
    await accept(peer)
    await peer.linger()


def saying(*messages: str | bytes) -> Callable[[Peer], Awaitable[None]]:
    """Accept, send these and stay."""

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.send(*messages)
        await peer.linger()

    return script


def answering(*messages: str | bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answer the authentication with these and stay."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(*messages)
        await peer.linger()

    return script


def take_all(feed: MarketFeed[PriceTick] | ColumnFeed) -> None:
    """Let the feed take the ticks of the tokens below 3,000 as asked for: the scripts here send
    them without looking at subscriptions."""
    feed._decoder.ask(f"nse_cm|{token}" for token in range(3000))


@contextlib.asynccontextmanager
async def opened(
    server: FeedServer, login: Login | None = None, **settings: Any
) -> AsyncIterator[MarketFeed[PriceTick]]:
    timings = FeedTimings(**settings.pop("timings", {}))
    settings.setdefault("market_open", lambda: False)
    session: Any = login or Login(server)
    settings.setdefault("level", None)
    feed = MarketFeed[PriceTick](session, timings, **settings)
    take_all(feed)
    async with feed:
        yield feed


@contextlib.asynccontextmanager
async def live(
    *scripts: Callable[[Peer], Awaitable[None]], **settings: Any
) -> AsyncIterator[tuple[FeedServer, MarketFeed[PriceTick]]]:
    async with feed_server(*scripts) as server, opened(server, **settings) as feed:
        await feed.until_live()
        yield server, feed


def frames(peer: Peer) -> list[dict[str, Any]]:
    """What the client has sent after its authentication."""
    return [json.loads(text) for text in peer.received[1:]]


def subscribed(peer: Peer) -> dict[str, set[str]]:
    """What a server has subscribed after all frames of the client, by tail of the event."""
    found: dict[str, set[str]] = {}
    for frame in frames(peer):
        names = set(frame.get("inputtoken", "").split(","))
        for action in ("unsubscribe", "subscribe"):
            if frame["event"].startswith(action):
                held = found.setdefault(frame["event"].removeprefix(action), set())
                if action == "subscribe":
                    held |= names
                else:
                    held -= names
                break
    return {stream: names for stream, names in found.items() if names}


async def next_ticks(feed: MarketFeed[PriceTick], count: int) -> list[Tick]:
    ticks: list[Tick] = []
    async for tick in feed:
        ticks.append(tick)
        if len(ticks) == count:
            break
    return ticks


# --- authentication ---------------------------------------------------------------------------


async def test_the_first_frame_proves_who_we_are() -> None:
    async with live(serve) as (server, _):
        frame = json.loads(server.peer.received[0])
        moment = datetime.fromisoformat(frame["sdk_date"])
        assert int(moment.timestamp() * 1000) == pytest.approx(frame.pop("conn_req_time"), abs=1)
        assert frame.pop("sdk_date").endswith("Z")
        assert frame == {
            "user": "ABC12",
            "auth": "sid-0",
            "format": "native_batch",
            "source": "NEOTRADEAPI",
            "platform": "Web",
            "version": "1.2.3",
            "sdk_version": 2,
            "sessionValidation": False,
        }


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ([ACCEPTED], 0),
        ([CONNECTED, ACCEPTED], 0),
        ([CONNECTED], 2),
        ([lite(1), status(1), CONNECTED, lite(1), ACCEPTED], 0),
        (['{"message_code":7}', ACCEPTED], 0),
    ],
    ids=["1117", "1119 and 1117", "1119 only", "packets in between", "another code first"],
)
def test_the_server_accepts_in_several_ways(answers: list[str | bytes], seconds: float) -> None:
    @in_virtual_time
    async def check() -> None:
        began = asyncio.get_running_loop().time()
        async with live(answering(*answers)) as (_, feed):
            assert asyncio.get_running_loop().time() - began == pytest.approx(seconds, abs=0.2)
            assert feed.reconnects == 0

    check()


async def test_packets_after_1119_do_not_put_its_acceptance_off() -> None:
    async def chatter(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED)
        while True:
            await peer.send(status(1))
            await asyncio.sleep(0.5)

    began = asyncio.get_running_loop().time()
    async with live(chatter):
        assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.2)


async def test_dividers_are_taken_from_an_acceptance_that_comes_late() -> None:
    late = ACCEPTED.replace('"divider": 100', '"divider": 1000')

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(CONNECTED)
        await asyncio.sleep(3)
        await peer.send(late, lite(1, 10.0))
        await peer.linger()

    async with live(script) as (_, feed):
        [tick] = await next_ticks(feed, 1)
        assert isinstance(tick, LiteTick)
        assert tick.last_price == 1.0


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([FALLBACK], "native_fallback"),
        (["{"], "control frame"),
        ([], "no answer to the handshake within 4 s"),
        ([lite(1)], "no answer to the handshake within 4 s"),
    ],
)
def test_other_answers_are_errors_after_which_it_tries_again(
    answers: list[str | bytes], reason: str
) -> None:
    @in_virtual_time
    async def check() -> None:
        events: list[FeedEvent] = []
        async with (
            feed_server(answering(*answers), serve) as server,
            opened(server, timings={"handshake": 4}) as feed,
        ):
            feed.on_event(events.append)
            await feed.until_live()
        [lost] = [event for event in events if event.state is FeedState.WAITING]
        assert reason in lost.reason

    check()


async def test_a_refused_login_is_renewed_once_and_used_at_its_new_address() -> None:
    async with feed_server(answering(REFUSED)) as old, feed_server(serve) as new:
        login = Login(old)
        login.next_url = new.url
        async with opened(old, login) as feed:
            await feed.until_live()
        assert login.renewals == 1
        assert len(old.peers) == 1
        assert json.loads(new.peer.received[0])["auth"] == "sid-1"


def test_a_server_that_refuses_every_login_gets_few(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    "message",
    [
        '{"message_code":1120,"message":"sid-0"}',
        '{"message_code":1117,"format":"sid-0"}',
        '["sid-0"]',
        '{"auth":"sid-0"',
        '{"message_code":1113,"error_code":1,"description":"sid-0"}',
    ],
)
@pytest.mark.parametrize("is_accepted", [False, True])
def test_what_a_server_repeats_of_the_login_is_in_no_log_and_no_reason(
    message: str, *, is_accepted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1, "neo_async")

    @in_virtual_time
    async def check() -> None:
        script = saying(message) if is_accepted else answering(message)
        async with feed_server(script) as server:
            login = Login(server)
            login.error = SessionEnded("the broker cannot be reached")
            async with opened(server, login) as feed:
                events: list[str] = []
                feed.on_event(lambda event: events.append(event.reason))
                await asyncio.sleep(1)
                said = "".join([feed.reason, *events, *feed.refusals, caplog.text])
        assert "sid-0" not in said

    check()


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


# --- subscriptions ----------------------------------------------------------------------------

LEVELS = [
    (Level.LITE, "ScripsLite"),
    (Level.SCRIP, "Scrips"),
    (Level.DEPTH, "Depth"),
    (Level.FULL_DEPTH, "FullDepth"),
]


@pytest.mark.parametrize(("level", "tail"), LEVELS)
def test_frames_are_those_of_the_protocol(level: Level, tail: str) -> None:
    names = ["nse_cm|11536", "nse_fo|44498"]

    @in_virtual_time
    async def check() -> None:
        async with live(serve) as (server, feed):
            await feed.subscribe(names, level=level)
            await feed.unsubscribe(names, level=level)
            expected = [
                f'{{"event":"subscribe{tail}","inputtoken":"nse_cm|11536,nse_fo|44498",'
                '"ack_symbol":true}',
                f'{{"event":"unsubscribe{tail}","inputtoken":"nse_cm|11536,nse_fo|44498"}}',
            ]
            if level is Level.FULL_DEPTH:
                with pytest.raises(UsageError, match="snapshot"):
                    await feed.snapshot(names, level=level)
            else:
                await feed.snapshot(names, level=level)
                expected += [expected[0].replace("subscribe", "snapshot")]
            await until(lambda: len(server.peer.received) > len(expected))
            assert server.peer.received[1:] == expected
            assert feed.subscriptions == 0

    check()


async def test_frames_of_indices_and_of_the_market_status() -> None:
    async with live(serve) as (server, feed):
        await feed.subscribe_indices(["nse_cm|Nifty 50"])
        await feed.snapshot_indices(["nse_cm|26000"])
        await feed.unsubscribe_indices(["nse_cm|Nifty 50"])
        await feed.subscribe_status()
        await feed.subscribe_status()
        await feed.unsubscribe_status()
        await until(lambda: len(server.peer.received) == 6)
        assert server.peer.received[1:] == [
            '{"event":"subscribeIndices","inputtoken":"nse_cm|Nifty 50","ack_symbol":true}',
            '{"event":"snapshotIndices","inputtoken":"nse_cm|26000","ack_symbol":true}',
            '{"event":"unsubscribeIndices","inputtoken":"nse_cm|Nifty 50"}',
            '{"event":"subscribeExchange"}',
            '{"event":"unsubscribeExchange"}',
        ]


async def test_calls_made_together_share_a_frame() -> None:
    async with live(serve) as (server, feed):
        await asyncio.gather(
            *(feed.subscribe([f"nse_cm|{token}"], level=Level.LITE) for token in range(500)),
            *(feed.subscribe([f"nse_cm|{token}"], level=Level.DEPTH) for token in range(500)),
        )
        await until(lambda: len(server.peer.received) == 3)
        assert {stream: len(names) for stream, names in subscribed(server.peer).items()} == {
            "ScripsLite": 500,
            "Depth": 500,
        }


async def test_what_is_subscribed_already_is_not_said_again() -> None:
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|1", "nse_cm|1", "nse_cm|2"])
        await feed.subscribe(["nse_cm|2", "nse_cm|3"])
        await feed.unsubscribe(["nse_cm|9"])
        await feed.subscribe([])
        await feed.snapshot([])
        await feed.subscribe_status()
        await until(lambda: len(server.peer.received) == 4)
        assert [frame.get("inputtoken") for frame in frames(server.peer)] == [
            "nse_cm|1,nse_cm|2",
            "nse_cm|3",
            None,
        ]
        assert feed.subscriptions == 3


async def test_the_budget_is_checked_before_anything_is_sent() -> None:
    async with live(serve) as (server, feed):
        many = [f"nse_cm|{token}" for token in range(BUDGET - 1)]
        await feed.subscribe(many, level=Level.LITE)
        await feed.subscribe(many, level=Level.LITE)
        await feed.subscribe_status()
        with pytest.raises(UsageError, match=r"2 more subscriptions on 2999.*3000"):
            await feed.subscribe(["nse_cm|1", "nse_cm|2"], level=Level.DEPTH)
        with pytest.raises(UsageError, match="2 more"):
            await feed.subscribe_indices(["nse_cm|Nifty 50", "nse_cm|Nifty Bank"])
        assert feed.subscriptions == 2999
        await feed.subscribe(["nse_cm|1"], level=Level.DEPTH)
        assert feed.subscriptions == 3000
        await feed.unsubscribe(many[:10], level=Level.LITE)
        await feed.subscribe(many[:10], level=Level.SCRIP)
        await until(lambda: len(server.peer.received) == 6)
        assert {stream: len(names) for stream, names in subscribed(server.peer).items()} == {
            "ScripsLite": 2989,
            "Exchange": 1,
            "Depth": 1,
            "Scrips": 10,
        }


@pytest.mark.parametrize(
    "names",
    ["nse_cm|11536", ["11536"], ["nse_cm|"], ["NSE|1"], ["nse_cm|1,nse_cm|2"], ["nse_cm|1|2"], [7]],
)
def test_malformed_instruments_are_refused(names: Any) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(serve) as (server, feed):
            for call in (
                feed.subscribe,
                feed.unsubscribe,
                feed.snapshot,
                feed.subscribe_indices,
                feed.snapshot_indices,
            ):
                with pytest.raises(UsageError, match="instrument"):
                    await call(names)
            with pytest.raises(UsageError, match="lite"):
                await feed.subscribe(["nse_cm|1"], level=3)  # type: ignore[arg-type]
            assert feed.subscriptions == 0
            assert len(server.peer.received) == 1

    check()


async def test_wishes_made_while_disconnected_go_out_with_the_connection() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        feed = MarketFeed(session, FeedTimings())
        await feed.subscribe(["nse_cm|1", "nse_cm|2"])
        await feed.subscribe(["nse_cm|1"], level=Level.DEPTH)
        await feed.unsubscribe(["nse_cm|2"])
        with pytest.raises(TransportError, match="until_live"):
            await feed.snapshot(["nse_cm|1"])
        async with feed:
            await feed.until_live()
            await until(lambda: len(server.peer.received) == 3)
            assert subscribed(server.peer) == {"Scrips": {"nse_cm|1"}, "Depth": {"nse_cm|1"}}


def test_a_wish_made_while_a_frame_waits_for_room_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = asyncio.Event()
    send = Socket.send

    async def send_when_there_is_room(self: Socket, text: str) -> None:
        if "subscribe" in text:
            await room.wait()
        await send(self, text)

    @in_virtual_time
    async def check() -> None:
        monkeypatch.setattr(Socket, "send", send_when_there_is_room)
        async with live(serve) as (server, feed):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(feed.subscribe(["nse_cm|1"]))
                await asyncio.sleep(0.01)
                tasks.create_task(feed.subscribe(["nse_cm|2"]))
                await asyncio.sleep(0.01)
                room.set()
            await until(lambda: subscribed(server.peer) == {"Scrips": {"nse_cm|1", "nse_cm|2"}})

    check()


async def test_acknowledgements_of_either_shape_give_symbols() -> None:
    documented = {
        "message_code": 1109,
        "error_code": 0,
        "description": "SUBSCRIBED",
        "data": {"nse_cm|1333": {"cas_status": 1, "trading_symbols": "HDFCBANK-EQ"}},
    }
    sdk = {
        "message_code": 1109,
        "message": "Subscribed",
        "trading_symbols": {"nse_cm|2885": "RELIANCE-EQ"},
    }
    script = saying(
        lite(1333), json.dumps(documented), json.dumps(sdk), lite(1333), lite(2885), lite(7)
    )
    async with live(script) as (_, feed):
        ticks = [tick async for tick in _first(feed, 4)]
        assert [(tick.instrument, tick.symbol) for tick in ticks if isinstance(tick, LiteTick)] == [
            ("nse_cm|1333", ""),
            ("nse_cm|1333", "HDFCBANK-EQ"),
            ("nse_cm|2885", "RELIANCE-EQ"),
            ("nse_cm|7", ""),
        ]
        assert feed.symbols == {"nse_cm|1333": "HDFCBANK-EQ", "nse_cm|2885": "RELIANCE-EQ"}


async def _first(feed: MarketFeed[PriceTick], count: int) -> AsyncIterator[Tick]:
    async for tick in feed:
        yield tick
        count -= 1
        if not count:
            return


async def test_a_refused_subscription_is_kept_for_the_caller_to_see() -> None:
    refusal = '{"message_code":1109,"error_code":1,"description":"limit of 3000 exceeded"}'
    async with live(saying(refusal, lite(1))) as (_, feed):
        await next_ticks(feed, 1)
        assert list(feed.refusals) == ["limit of 3000 exceeded"]
        assert feed.is_live


@pytest.mark.parametrize("name", ["Nifty 50", "26000"])
def test_an_index_comes_under_the_name_by_which_it_was_subscribed(name: str) -> None:
    ack = {"message_code": 1109, "trading_symbols": {f"nse_cm|{name}": "Nifty 50-IN"}}

    async def script(peer: Peer) -> None:
        await accept(peer)
        await peer.receive()
        await peer.send(index(26000, "Nifty 50"), json.dumps(ack), index(26000, "Nifty 50"))
        await peer.linger()

    @in_virtual_time
    async def check() -> None:
        async with live(script, policy=Policy.BLOCK) as (_, feed):
            await feed.subscribe_indices([f"nse_cm|{name}"])
            values = feed.indices()
            first, second = [await anext(values) for _ in range(2)]
            assert first.instrument == second.instrument == f"nse_cm|{name}"
            assert (first.symbol, second.symbol) == ("", "Nifty 50-IN")
            assert second.change == pytest.approx(150)
            assert feed.latest_index(f"nse_cm|{name}") == second
            with pytest.raises(UsageError, match="latest_index"):
                feed.latest(f"nse_cm|{name}")

    check()


async def test_market_status_and_auctions_come_from_iterators_of_their_own() -> None:
    auction = ENCODE.auction(AuctionTick("nse_cm|11536", "", 1501.0, 2500, -1200, 0))
    nothing = ENCODE.auction(AuctionTick("nse_cm|11536", "", 0.0, 0, 0, 0))
    script = saying(status(MarketState.OPEN) + nothing + auction)
    async with feed_server(script) as server, opened(server) as feed:
        await feed.subscribe(["nse_cm|11536"])
        await feed.subscribe_status()
        first, second = await anext(feed.statuses()), await anext(feed.auctions())
        assert (first.segment, first.code) == ("nse_cm", MarketState.OPEN)
        assert (second.reference_price, second.imbalance_at_market) == (1501.0, -1200)
        assert feed.latest_status("nse_cm") == first
        assert feed.latest_auction("nse_cm|11536") == second
        assert feed.pending == 0


async def test_the_latest_tick_is_that_of_a_level_or_of_any() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        for message in (lite(1, 10.0), scrip(1, 11.0), scrip(1, 12.0, Level.DEPTH), lite(1, 13.0)):
            await peer.send(message)
            await asyncio.sleep(0.01)
        await peer.linger()

    async with live(script) as (_, feed):
        await until(lambda: feed.ticks == 4)
        prices = {level: feed.latest("nse_cm|1", level=level) for level in Level}
        assert {level: getattr(tick, "last_price", None) for level, tick in prices.items()} == {
            Level.LITE: 13.0,
            Level.SCRIP: 11.0,
            Level.DEPTH: 12.0,
            Level.FULL_DEPTH: None,
        }
        assert feed.latest("nse_cm|1") == prices[Level.LITE]
        assert feed.latest("nse_cm|1", level="depth") == prices[Level.DEPTH]
        assert feed.latest("nse_cm|2") is None


# --- reconnecting -----------------------------------------------------------------------------


async def test_all_subscriptions_come_back_in_a_frame_each_and_the_consumer_goes_on() -> None:
    prices: list[float] = []

    async def consume(feed: MarketFeed) -> None:
        async for tick in feed:
            assert isinstance(tick, LiteTick)
            prices.append(tick.last_price)

    async def ticking(peer: Peer) -> None:
        await accept(peer)
        await peer.send(lite(500, float(len(server.peers))))
        await peer.linger()

    async with feed_server(ticking) as server, opened(server) as feed:
        events: list[FeedState] = []
        feed.on_event(lambda event: events.append(event.state))
        lives: list[int] = []
        feed.on_live(lambda: lives.append(len(server.peers)))
        await feed.until_live()
        consumer = asyncio.create_task(consume(feed))
        tokens = [f"nse_cm|{token}" for token in range(900)]
        await feed.subscribe(tokens, level=Level.LITE)
        await feed.subscribe(tokens, level=Level.SCRIP)
        await feed.subscribe_indices(["nse_cm|Nifty 50"])
        await feed.subscribe_status()
        await feed.unsubscribe(tokens[:400], level=Level.SCRIP)
        await feed.snapshot(["nse_cm|5000"])
        await until(lambda: len(frames(server.peer)) == 6)
        before = subscribed(server.peer)
        assert len(before["Scrips"]) == 500
        server.peer.drop()
        await until(lambda: feed.reconnects == 1)
        await until(lambda: len(frames(server.peer)) == 4)
        assert subscribed(server.peer) == before
        await feed.unsubscribe(tokens, level=Level.LITE)
        await server.peer.close(1001)
        await until(lambda: feed.reconnects == 2)
        await until(lambda: len(frames(server.peer)) == 3)
        del before["ScripsLite"]
        assert subscribed(server.peer) == before
        await until(lambda: prices == [1.0, 2.0, 3.0])
        assert events == [
            FeedState.CONNECTING,
            *[FeedState.LIVE, FeedState.WAITING, FeedState.CONNECTING] * 2,
            FeedState.LIVE,
        ]
        assert lives == [1, 2, 3]
        assert feed.last_gap is not None
        await feed.close()
        await consumer
        assert feed.state is FeedState.CLOSED


async def test_what_is_unsubscribed_while_disconnected_stays_so() -> None:
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|1", "nse_cm|2"])
        server.is_refusing = True
        server.peer.drop()
        await until(lambda: server.refusals)
        await feed.unsubscribe(["nse_cm|1"])
        await feed.subscribe(["nse_cm|3"])
        server.is_refusing = False
        await until(lambda: feed.reconnects == 1, every=0.01)
        await until(lambda: subscribed(server.peer) == {"Scrips": {"nse_cm|2", "nse_cm|3"}})


async def test_garbage_and_cut_batches_do_not_end_the_feed() -> None:
    garbage = [
        "", "{", "[]", "null", "\x00", '{"message_code":"x"}', b"", b"\x00", os.urandom(300),
        (lite(1) + scrip(2))[:-1], b"\xff\xff" + bytes(60),
    ]  # fmt: skip
    async with live(saying(*garbage, lite(3, 33.0))) as (_, feed):
        await until(lambda: feed.latest("nse_cm|3"))
        assert feed.latest("nse_cm|1"), "what came whole before the cut counts"
        assert feed.reconnects == 0
        assert feed.is_live


async def test_a_callback_or_listener_that_fails_ends_nothing() -> None:
    taken: list[str] = []

    def callback(tick: Tick) -> None:
        taken.append(tick.instrument)
        raise LookupError("a mistake of the user's")

    def listener(*_: object) -> None:
        raise LookupError("another one")

    async with (
        feed_server(saying(lite(1) + lite(2))) as server,
        opened(server, on_tick=callback) as feed,
    ):
        feed.on_event(listener)
        feed.on_live(listener)
        await until(lambda: len(taken) == 2)
        server.peer.drop()
        await until(lambda: len(taken) == 4)
        assert feed.reconnects == 1
        assert feed.pending == 0


async def test_silence_in_an_open_market_is_a_stall_only_with_subscriptions() -> None:
    is_open = True
    async with live(serve, market_open=lambda: is_open, timings={"silence": 10}) as (_, feed):
        await feed.subscribe_status()
        await asyncio.sleep(60)
        assert feed.stalls == 0
        await feed.subscribe(["nse_cm|1"])
        await until(lambda: feed.reconnects == 1, every=0.1)
        assert feed.stalls == 1
        is_open = False
        await asyncio.sleep(600)
        assert feed.stalls == 1


MONDAY = datetime(2026, 11, 23, 11, 0, tzinfo=IST)


@pytest.mark.parametrize(
    ("moment", "names", "statuses", "expected"),
    [
        (MONDAY, ["nse_cm|1"], [], True),
        (MONDAY.replace(hour=9, minute=14), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=15, minute=30), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=23), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=23), ["nse_cm|1", "mcx_fo|1"], [], True),
        (MONDAY.replace(hour=16), ["cde_fo|1"], [], True),
        (MONDAY.replace(day=22), ["nse_cm|1"], [], False),
        (MONDAY.replace(day=24), ["nse_cm|1"], [], False),  # a holiday
        (MONDAY.replace(day=24), ["mcx_fo|1"], [], False),
        (MONDAY.replace(day=24, hour=18), ["mcx_fo|1"], [], True),
        (MONDAY, ["one_more|1"], [], True),  # a segment that the calendar does not know
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED)], False),
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED), status(MarketState.OPEN)], True),
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED, "nse_fo")], True),
        (MONDAY, [], [], False),
    ],
)
def test_the_market_is_open_by_the_clock_and_its_status_messages(
    moment: datetime,
    names: list[str],
    statuses: list[bytes],
    expected: bool,
) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(
            saying(*statuses),
            market_open=None,
            calendar=Calendar(clock=moment.timestamp),
            timings={"silence": 10, "ping": 3600},
        ) as (_, feed):
            await feed.subscribe_status()
            await feed.subscribe(names)
            await asyncio.sleep(15)
            assert (feed.stalls == 1) is expected

    check()


@pytest.mark.parametrize(
    ("reported_at", "moment", "expected"),
    [
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(day=25, hour=9, minute=30), True),
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(day=24, hour=9, minute=30), False),
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(hour=15, minute=29), False),
        (MONDAY.replace(hour=3), MONDAY.replace(hour=9, minute=30), True),
        (MONDAY.replace(hour=15, minute=31), MONDAY.replace(day=30, hour=15, minute=29), True),
        (MONDAY.replace(day=20, hour=11), MONDAY, True),
    ],
)
def test_a_segment_reported_closed_before_a_session_is_open_in_it(
    reported_at: datetime, moment: datetime, expected: bool
) -> None:
    @in_virtual_time
    async def check() -> None:
        present = reported_at
        async with live(
            saying(status(MarketState.CLOSED)),
            market_open=None,
            calendar=Calendar(clock=lambda: present.timestamp()),
            timings={"silence": 10, "ping": 3600},
        ) as (_, feed):
            await feed.subscribe(["nse_cm|1"])
            await until(lambda: feed._hours.closed)
            present = moment
            await asyncio.sleep(15)
            assert (feed.stalls == 1) is expected

    check()


async def test_a_market_open_that_fails_leaves_the_answer_to_the_clock(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def market_open() -> bool:
        raise ZeroDivisionError("mine")

    monday = Calendar(clock=MONDAY.timestamp)
    async with live(serve, market_open=market_open, calendar=monday, timings={"silence": 10}) as (
        _,
        feed,
    ):
        await feed.subscribe(["nse_cm|1"])
        await asyncio.sleep(5)
        assert feed.reconnects == 0
        await until(lambda: feed.stalls == 1, every=0.1)
        assert "market_open failed" in caplog.text


async def test_a_callback_that_raises_what_ends_tasks_ends_nothing() -> None:
    ticks: list[Tick] = []
    ended = asyncio.get_running_loop().create_future()
    ended.cancel()

    def on_tick(tick: Tick) -> None:
        ticks.append(tick)
        ended.result()  # raises CancelledError

    async with live(saying(lite(1), lite(2), lite(3)), on_tick=on_tick) as (_, feed):
        await until(lambda: len(ticks) == 3)
        assert feed.is_live


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


async def test_the_last_price_is_that_of_the_newest_tick_of_any_level_that_has_one() -> None:
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|1"], level=Level.LITE)
        await server.peer.send(lite(1, 10.0))
        await until(lambda: feed.last_price("nse_cm|1") == 10.0)
        await server.peer.send(scrip(1, 11.0))  # as a snapshot is
        await until(lambda: feed.last_price("nse_cm|1") == 11.0)
        await server.peer.send(lite(1, 0.0), lite(2, 12.0))
        await until(lambda: feed.ticks == 4)
        assert feed.last_price("nse_cm|1") == 11.0
        assert feed.last_price("nse_cm|2") is None, "it is not subscribed"
        tick = feed.last_tick("nse_cm|1")
        assert isinstance(tick, ScripTick)
        feed._latest[Level.SCRIP]["nse_cm|1"] = msgspec.structs.replace(
            tick, last_price=float("inf")
        )
        assert feed.last_price("nse_cm|1") is None


def test_a_long_life_of_reconnects_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backoff = backoffs()
    monkeypatch.setattr(websocket, "backoff", backoff)
    tokens = [f"nse_cm|{token}" for token in range(20)]

    async def main() -> None:
        nonlocal server

        async def short(peer: Peer) -> None:
            await accept(peer)
            heard = {json.loads(await peer.receive())["event"] for _ in range(3)}
            assert heard == {"subscribeScripsLite", "subscribeDepth", "subscribeExchange"}
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
            wished, before = subscribed(server.peer), await things()
            server.script(short)
            server.peer.drop()
            await until(lambda: feed.reconnects >= 200)
            server.script(serve)
            await until(lambda: feed.is_live and len(frames(server.peer)) == 3)
            await until(lambda: subscribed(server.peer) == wished)
            assert await things() == before
            assert all(len(frames(peer)) == 3 for peer in server.peers)
            assert feed.subscriptions == 40

    server: FeedServer
    asyncio.run(main())


# --- the consumer -----------------------------------------------------------------------------


async def test_breaking_off_and_iterating_again_loses_nothing() -> None:
    batch = b"".join(lite(token) for token in range(10))
    async with live(saying(batch)) as (_, feed):
        taken = [await next_ticks(feed, 3), await next_ticks(feed, 1)]
        assert feed.pending == 6
        async for ticks in feed.batches():
            taken.append(ticks)
            break
        names = [tick.instrument for ticks in taken for tick in ticks]
        assert names == [f"nse_cm|{token}" for token in range(10)]
        assert (feed.ticks, feed.lost, feed.pending) == (10, 0, 0)


async def test_a_consumer_that_gives_up_waiting_may_come_back() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        await asyncio.sleep(10)
        await peer.send(lite(1))
        await peer.linger()

    async with live(script) as (_, feed):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await next_ticks(feed, 1)
        [tick] = await next_ticks(feed, 1)
        assert tick.instrument == "nse_cm|1"


async def test_two_consumers_are_an_error() -> None:
    async with live(serve) as (_, feed):
        first = asyncio.create_task(next_ticks(feed, 1))
        await asyncio.sleep(0.1)
        with pytest.raises(UsageError, match="two consumers"):
            await next_ticks(feed, 1)
        first.cancel()
        await asyncio.wait([first])


async def test_iteration_ends_after_what_was_pending_when_the_feed_closes() -> None:
    async with live(saying(lite(1), lite(2))) as (_, feed):
        await until(lambda: feed.pending == 2)
        await feed.close()
        assert [tick.instrument async for tick in feed] == ["nse_cm|1", "nse_cm|2"]
        assert [tick async for tick in feed] == []


async def test_a_waiting_consumer_is_released_when_the_feed_closes() -> None:
    async with live(serve) as (_, feed):
        waiting = asyncio.create_task(next_ticks(feed, 1))
        await asyncio.sleep(1)
        await feed.close()
        assert await waiting == []


async def test_a_slow_consumer_finds_the_newest_of_each() -> None:
    messages = [lite(token, float(turn)) for turn in range(1, 51) for token in (1, 2, 3)]
    async with live(saying(*messages, scrip(1, 99.0))) as (_, feed):
        await until(lambda: feed.ticks == 151)
        assert feed.pending == 4
        assert feed.lost == 147
        ticks = await next_ticks(feed, 4)
        assert [(tick.instrument, getattr(tick, "last_price", 0)) for tick in ticks] == [
            ("nse_cm|1", 50.0),
            ("nse_cm|2", 50.0),
            ("nse_cm|3", 50.0),
            ("nse_cm|1", 99.0),
        ]


async def test_the_server_is_held_up_for_a_consumer_that_wants_everything() -> None:
    async def flood(peer: Peer) -> None:
        await accept(peer)
        for number in range(100):
            await peer.send(lite(number))
        await peer.linger()

    async with live(
        flood,
        policy=Policy.BLOCK,
        bound=10,
        market_open=lambda: True,
        timings={"silence": 10, "ping": 4, "pong": 2},
    ) as (server, feed):
        await feed.subscribe(["nse_cm|1"])
        await asyncio.sleep(100)
        assert feed.pending == feed.ticks == 10
        assert feed.state is FeedState.LIVE
        assert (feed.stalls, feed.reconnects) == (0, 0)
        assert server.peer.pings > 20
        ticks = await next_ticks(feed, 100)
        assert [tick.instrument for tick in ticks] == [f"nse_cm|{n}" for n in range(100)]
        assert feed.lost == 0


async def test_a_consumer_that_never_comes_back_costs_no_memory_however_often_it_reconnects() -> (
    None
):
    async def flood(peer: Peer) -> None:
        await accept(peer)
        await peer.send(*[lite(number) for number in range(20)])
        await asyncio.sleep(2)
        peer.drop()

    async with live(flood, policy=Policy.BLOCK, bound=10, timings={"ping": 0.5}) as (_, feed):
        await until(lambda: feed.reconnects == 10, every=0.1)
        assert feed.pending == 10
        assert feed.lost + feed.pending == feed.ticks


async def test_the_oldest_are_dropped_where_that_is_wanted() -> None:
    messages = [lite(number) for number in range(25)]
    async with live(saying(*messages), policy=Policy.DROP_OLDEST, bound=10) as (_, feed):
        await until(lambda: feed.ticks == 25)
        assert (feed.pending, feed.lost) == (10, 15)
        ticks = await next_ticks(feed, 10)
        assert [tick.instrument for tick in ticks] == [f"nse_cm|{n}" for n in range(15, 25)]


# --- columns ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def columns(
    *scripts: Callable[[Peer], Awaitable[None]], **settings: Any
) -> AsyncIterator[ColumnFeed]:
    async with feed_server(*scripts) as server:
        session: Any = Login(server)
        async with ColumnFeed(session, FeedTimings(), **settings) as feed:
            take_all(feed)
            await feed.until_live()
            yield feed


async def test_columns_hold_all_that_has_come_since_the_last_step() -> None:
    async with columns(saying(lite(1, 10.5), lite(2, 20.5) + scrip(3), lite(1, 11.0))) as feed:
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [1, 2, 1]
        assert table["last_price"].tolist() == [10.5, 20.5, 11.0]
        assert feed.lost == 0


async def test_a_consumer_of_columns_waits_and_is_released() -> None:
    async def script(peer: Peer) -> None:
        await accept(peer)
        for number in range(3):
            await asyncio.sleep(1)
            await peer.send(lite(number), scrip(number))
        await peer.linger()

    tokens: list[int] = []

    async def consume(feed: ColumnFeed) -> None:
        async for table in feed:
            tokens.extend(table["token"].tolist())

    async with columns(script) as feed:
        consumer = asyncio.create_task(consume(feed))
        await until(lambda: len(tokens) == 3, every=0.05)
        with pytest.raises(UsageError, match="two consumers"):
            await consume(feed)
        await feed.close()
        await consumer
        assert tokens == [0, 1, 2]


async def test_the_oldest_messages_are_dropped_when_columns_are_not_taken() -> None:
    big = b"".join(lite(9, 1.0) for _ in range(10))
    async with columns(saying(lite(1), lite(2), lite(3), big), bound=200) as feed:
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [9] * 10, "the newest is kept, whatever its size"
        assert feed.lost == 3


async def test_columns_of_a_level_that_has_none_are_refused() -> None:
    async with feed_server(serve) as server:
        session: Any = Login(server)
        with pytest.raises(UsageError, match="lite"):
            ColumnFeed(session, FeedTimings(), level=3)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="FULL_DEPTH"):
            ColumnFeed(session, FeedTimings(), level=Level.FULL_DEPTH)


# --- with client and exchange -----------------------------------------------------------------

TOKENS = ["nse_cm|11536", "nse_cm|2885"]


@contextlib.asynccontextmanager
async def trading(**settings: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    async with exchange_of(**settings) as exchange, client_of(exchange) as neo:
        yield exchange, neo


@pytest.mark.parametrize("answer", list(AuthAnswer))
def test_the_exchange_accepts_the_client(answer: AuthAnswer) -> None:
    @in_virtual_time
    async def check() -> None:
        async with (
            trading(feeds=FeedSettings(auth_answer=answer)) as (_, neo),
            neo.market_feed(level=None) as feed,
        ):
            await feed.subscribe(TOKENS, level=Level.LITE)
            await feed.subscribe(TOKENS, level=Level.DEPTH)
            await feed.subscribe_indices(["nse_cm|Nifty 50"])
            await feed.subscribe_status()
            await until(lambda: len(feed.symbols) == 3, every=0.05)
            assert feed.symbols["nse_cm|2885"] == "RELIANCE-EQ"
            await until(lambda: feed.latest_index("nse_cm|Nifty 50"), every=0.05)
            await until(lambda: feed.latest_status("nse_cm"), every=0.05)
            depth = feed.latest("nse_cm|11536", level=Level.DEPTH)
            assert isinstance(depth, ScripTick)
            assert len(depth.bids) == len(depth.asks) == 5

    check()


async def test_bad_days_of_the_exchange_are_survived() -> None:
    async with trading() as (exchange, neo), neo.market_feed(level=None) as feed:
        await feed.subscribe(TOKENS)
        take_all(feed)
        await until(lambda: feed.latest(TOKENS[1]), every=0.05)
        exchange.feeds.send_garbage("market")
        exchange.feeds.market.publish((lite(1) + lite(2))[:-1])
        await until(lambda: feed.latest("nse_cm|1"), every=0.05)
        exchange.feeds.truncate_batches()
        await feed.snapshot(TOKENS[:1])
        exchange.feeds.market.publish(lite(3))
        await until(lambda: feed.latest("nse_cm|3"), every=0.05)
        for harm in (lambda: exchange.feeds.drop_connections("market"), exchange.end_sessions):
            ticks, reconnects = feed.ticks, feed.reconnects
            harm()
            await until(lambda: feed.reconnects > reconnects, every=0.05)  # noqa: B023
            await until(lambda: feed.ticks > ticks, every=0.05)  # noqa: B023
        assert feed.subscriptions == 2


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


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_ticks_come_over_tls_on_either_loop(
    loop_factory: Callable[[], Any], tmp_path: Path
) -> None:
    context, authority = self_signed(tmp_path)

    async def main() -> None:
        async with (
            exchange_with(seed=7, tls=context, ca_file=authority, limits=None) as exchange,
            NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
            neo.market_feed(level=None) as feed,
        ):
            await feed.subscribe(TOKENS, level=Level.DEPTH)
            assert len(await next_ticks(feed, 2)) == 2
            exchange.feeds.drop_connections("market")
            await until(lambda: feed.reconnects == 1)
            assert len(await next_ticks(feed, 2)) == 2
            assert feed.last_gap is not None
            assert feed.last_gap < 0.25

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


# --- what was not asked for ---------------------------------------------------------------------


async def test_ticks_of_what_is_not_subscribed_are_dropped_and_counted_and_nothing_is_kept() -> (
    None
):
    strange = b"".join(lite(token) for token in range(20_000, 30_000))
    names = {f"nse_cm|{number}": "X" for number in range(20_000, 30_000)}
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|11536"], level=Level.LITE)
        await server.peer.send(
            strange + scrip(40_000) + index(50_000, "Other") + lite(11536, 7.0),
            acknowledgement_frame(names),
            strange,
            lite(11536, 8.0),
        )
        await until(lambda: feed.ticks == 2)
        ticks = await next_ticks(feed, 1)
        assert {tick.instrument for tick in ticks} == {"nse_cm|11536"}
        assert feed.unasked == 30_002
        assert feed.symbols == {}
        assert feed.latest("nse_cm|20000") is None
        assert sum(map(len, feed._decoder._listed.values())) <= 2


async def test_a_status_that_was_not_asked_for_is_no_tick_but_counts_for_the_feed() -> None:
    async with live(saying(status(MarketState.CLOSED))) as (_, feed):
        await until(lambda: feed.unasked == 1)
        assert feed.ticks == 0
        assert feed.latest_status("nse_cm") is None
        assert "nse_cm" in feed._hours.closed


async def test_what_is_unsubscribed_is_forgotten() -> None:
    ack = acknowledgement_frame({"nse_cm|7000": "X-EQ", "nse_cm|7001": "Y-EQ"})
    async with live(serve) as (server, feed):
        await feed.subscribe(["nse_cm|7000", "nse_cm|7001"])
        await feed.subscribe(["nse_cm|7001"], level=Level.LITE)
        await server.peer.send(ack, scrip(7000), scrip(7001))
        await until(lambda: feed.ticks == 2)
        await feed.unsubscribe(["nse_cm|7000", "nse_cm|7001"])
        assert feed.symbols == {"nse_cm|7001": "Y-EQ"}
        assert feed.latest("nse_cm|7000") is None
        assert feed.latest("nse_cm|7001") is not None
        await server.peer.send(scrip(7000), lite(7001))
        await until(lambda: feed.ticks == 3)
        assert feed.latest("nse_cm|7000") is None


async def test_ticks_of_a_snapshot_are_taken_and_only_of_the_newest_ones() -> None:
    async with live(serve) as (server, feed):
        await feed.snapshot(["nse_cm|9000"])
        await server.peer.send(scrip(9000))
        await until(lambda: feed.latest("nse_cm|9000"))
        await feed.snapshot([f"nse_cm|{token}" for token in range(10_000, 10_000 + BUDGET)])
        await server.peer.send(scrip(9000), scrip(10_000))
        await until(lambda: feed.latest("nse_cm|10000"))
        assert feed.latest("nse_cm|9000") is None


@pytest.mark.parametrize("name", ["NIFTY MIDCAP LIQUID FIFTEEN", "Nifty 50", "nifty 50"])
def test_an_index_is_found_by_its_name_whatever_the_packet_has_of_it(name: str) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(serve) as (server, feed):
            await feed.subscribe_indices([f"nse_cm|{name}"])
            await server.peer.send(index(26_000, name.upper()))
            tick = await anext(feed.indices())
            assert tick.instrument == f"nse_cm|{'Nifty 50' if name == 'nifty 50' else name}"
            assert feed.latest_index(f"nse_cm|{name}") == tick

    check()


async def test_columns_have_only_what_is_subscribed() -> None:
    async with columns(saying(lite(9001), lite(9002, 20.5) + lite(9001), lite(9002))) as feed:
        await feed.subscribe(["nse_cm|9002"], level=Level.LITE)
        await asyncio.sleep(1)
        await feed.close()
        [table] = [table async for table in feed]
        assert table["token"].tolist() == [9002, 9002]
        assert feed.unasked == 2


@pytest.mark.parametrize(
    "name",
    [
        "nse_cm|\ud800", "nse_cm|1\n2", "nse_cm|\x1b[2J", "nse_cm|" + "9" * 5000,
        "a" * 99 + "_b|1", "nse_cm|011536", "nse_cm|\u0661",
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_sent_is_refused_before_it_is_kept(name: str) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(serve) as (server, feed):
            for call in (feed.subscribe, feed.subscribe_indices, feed.snapshot, feed.unsubscribe):
                with pytest.raises(UsageError, match="instrument"):
                    await call([name])
            assert feed.subscriptions == 0
            await feed.subscribe(["nse_cm|11536"])
            server.peer.drop()
            await until(lambda: feed.reconnects == 1)

    check()


@pytest.mark.parametrize("level", ["lite", "LITE", "scrip", "depth", 1])
async def test_a_feed_takes_its_level_as_text(level: Any) -> None:
    async with exchange_of(market_makers=True) as exchange, client_of(exchange) as neo:
        async with neo.market_feed(level=level) as feed:
            assert isinstance(feed.level, Level)
            await feed.subscribe(TOKENS)
            async with asyncio.timeout(5):
                tick = await anext(aiter(feed))
            assert isinstance(tick, LiteTick if feed.level is Level.LITE else ScripTick)
        with pytest.raises(UsageError, match="level='deep'"):
            neo.market_feed(level="deep")
        with pytest.raises(UsageError, match=r"policy='all'.*conflate"):
            neo.market_feed(policy="all")  # type: ignore[call-overload]


async def test_a_feed_is_started_and_closed_by_hand() -> None:
    async with exchange_of(market_makers=True) as exchange, client_of(exchange) as neo:
        for feed in (neo.market_feed(), neo.column_feed()):
            with pytest.raises(UsageError, match=r"feed.start\(\)"):
                await anext(aiter(feed))
            feed.start()
            feed.start()
            await feed.subscribe(TOKENS)
            async with asyncio.timeout(5):
                assert await anext(aiter(feed))
            await feed.close()
            assert feed.state is FeedState.CLOSED
