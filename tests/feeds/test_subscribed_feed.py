"""A connection to the market feed: the login, the subscriptions, and what comes over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from neo_async.config import FeedTimings
from neo_async.errors import (
    SessionEnded,
    TransportError,
    UsageError,
)
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.subscriptions import BUDGET
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.ticks import (
    LiteTick,
    PriceTick,
    Tick,
)
from neo_async.transport.websocket import Socket
from tests.feed_servers import Login, Peer, feed_server, until
from tests.feeds.market_servers import (
    ACCEPTED,
    CONNECTED,
    FALLBACK,
    answering,
    frames,
    lite,
    live,
    next_ticks,
    opened,
    sending,
    serve,
    status,
    subscribed,
)
from tests.simulation.virtual_time import in_virtual_time


async def test_the_first_frame_authenticates_the_session() -> None:
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
def test_other_answers_to_the_login_are_errors_and_the_feed_connects_again(
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
def test_secrets_that_a_server_repeats_are_in_no_log_and_no_reason(
    message: str, *, is_accepted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1, "neo_async")

    @in_virtual_time
    async def check() -> None:
        script = sending(message) if is_accepted else answering(message)
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


async def test_a_subscription_that_was_sent_is_not_sent_again() -> None:
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


async def test_subscriptions_made_while_disconnected_are_sent_with_the_connection() -> None:
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


def test_a_subscription_made_while_a_frame_waits_for_room_is_sent(
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
    script = sending(
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


async def test_the_text_of_a_refused_subscription_is_kept() -> None:
    refusal = '{"message_code":1109,"error_code":1,"description":"limit of 3000 exceeded"}'
    async with live(sending(refusal, lite(1))) as (_, feed):
        await next_ticks(feed, 1)
        assert list(feed.refusals) == ["limit of 3000 exceeded"]
        assert feed.is_live


async def test_unsubscriptions_made_while_disconnected_hold() -> None:
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


@pytest.mark.parametrize(
    "name",
    [
        "nse_cm|\ud800", "nse_cm|1\n2", "nse_cm|\x1b[2J", "nse_cm|" + "9" * 5000,
        "a" * 99 + "_b|1", "nse_cm|011536", "nse_cm|\u0661",
    ],
)  # fmt: skip
def test_an_instrument_name_that_cannot_be_sent_is_refused(name: str) -> None:
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
