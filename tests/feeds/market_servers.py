"""Market feeds against servers that follow a script, and the frames that both sides send."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from neo_async.config import FeedTimings
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.model.enums import Level
from neo_async.model.ticks import (
    DepthRow,
    IndexTick,
    LiteTick,
    MarketStatus,
    PriceTick,
    ScripTick,
    Tick,
)
from neo_async.wire.feed import FeedEncoder
from tests.feed_servers import FeedServer, Login, Peer, feed_server

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


def sending(*messages: str | bytes) -> Callable[[Peer], Awaitable[None]]:
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
