"""Readers of the exchange's feeds made of a plain aiohttp websocket and the wire's decoder."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from neo_async.exchange import Exchange
from neo_async.exchange.engine.types import NewOrder, OrderRecord
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.ticks import Tick
from neo_async.wire.feed import (
    Control,
    FeedDecoder,
    Stream,
    auth_frame,
    read_control,
    subscription_frame,
)
from tests.exchange.callers import Caller

T = TypeVar("T")

ITBEES = "nse_cm|19084"
TCS = "nse_cm|11536"
RELIANCE = "nse_cm|2885"


class MarketReader:
    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self.websocket = websocket
        self.decoder = FeedDecoder()

    async def send(self, frame: object) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.websocket.send_str(text)

    async def control(self) -> Control:
        return read_control(await self.websocket.receive_str(timeout=5))

    async def message(self) -> bytes:
        return await self.websocket.receive_bytes(timeout=5)

    async def ticks(self) -> list[Tick]:
        """Of the next message, which has to be a binary one."""
        return self.decoder.decode(await self.message(), 0)

    async def tick(self, kind: type[T]) -> T:
        """The only tick of the next message."""
        (tick,) = await self.ticks()
        assert isinstance(tick, kind)
        return tick

    async def authenticate(self, user: str, sid: str) -> Control:
        await self.send(auth_frame(user, sid, now_ms=1, now_iso="2026-11-23T04:30:00.000Z"))
        answer = await self.control()
        self.decoder.set_exchanges(answer)
        return answer

    async def ask(self, action: str, stream: Stream, *instruments: str) -> Control:
        """Subscribe or take a snapshot, and answer the acknowledgement."""
        await self.send(subscription_frame(action, stream, instruments))
        return await self.control()

    async def subscribe(self, stream: Stream, *instruments: str) -> list[Tick]:
        """Subscribe, and answer the first ticks."""
        await self.ask("subscribe", stream, *instruments)
        return await self.ticks()

    async def wait_for_outcome(self) -> None:
        """Wait until the server has read everything sent so far."""
        await self.send({"event": "nothing of the kind"})
        assert (await self.control()).error_code

    async def ending(self) -> int | None:
        """The code it is closed with, after whatever comes before."""
        async for _ in self.websocket:
            pass
        return self.websocket.close_code


@asynccontextmanager
async def unknown_reader(caller: Caller) -> AsyncIterator[MarketReader]:
    """Connected, but it has not said who it is."""
    async with caller.http.ws_connect(caller.exchange.feed_url) as websocket:
        yield MarketReader(websocket)


@asynccontextmanager
async def market_reader(caller: Caller) -> AsyncIterator[MarketReader]:
    async with unknown_reader(caller) as reader:
        await reader.authenticate(caller.login_data["ucc"], caller.login_data["sid"])
        yield reader


class OrderReader:
    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self.websocket = websocket

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = await self.websocket.receive_json(timeout=5)
        return frame

    async def data(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Of the next `count` frames of a kind."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            frame = await self.frame()
            if frame["type"] == kind:
                found.append(frame["data"])
        return found

    async def until(self, found: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All frames up to the one that is looked for."""
        frames = [await self.frame()]
        while not found(frames[-1]):
            frames.append(await self.frame())
        return frames

    async def states(self, last: str) -> list[str]:
        """Of the order frames, up to a state."""
        frames = await self.until(lambda frame: frame["data"].get("ordSt") == last)
        return [frame["data"]["ordSt"] for frame in frames if frame["type"] == "order"]


@asynccontextmanager
async def order_reader(caller: Caller, handshake: str = "") -> AsyncIterator[OrderReader]:
    """Connected and acknowledged."""
    async with caller.http.ws_connect(caller.exchange.realtime_url) as websocket:
        await websocket.send_str(handshake or raw_handshake(caller))
        assert await websocket.receive_json(timeout=5) == {
            "ak": "ok",
            "type": "cn",
            "task": "cn",
            "msg": "connected",
        }
        yield OrderReader(websocket)


def raw_handshake(caller: Caller) -> str:
    token, sid = caller.login_data["token"], caller.login_data["sid"]
    return f"{{type:cn,Authorization:{token},Sid:{sid},src:WEB}}"


def trade(exchange: Exchange, quantity: int, price: int, symbol: str = "ITBEES-EQ") -> None:
    """The two accounts trade with each other, at paise, and the feeds tell of it."""
    seller, buyer = exchange.accounts
    put(exchange, Side.SELL, quantity, price, account=seller.ucc, symbol=symbol)
    put(exchange, Side.BUY, quantity, price, account=buyer.ucc, symbol=symbol)
    exchange.tick()


def put(
    exchange: Exchange,
    side: Side,
    quantity: int,
    price: int,
    *,
    account: str = "",
    symbol: str = "ITBEES-EQ",
) -> OrderRecord:
    """An order that goes to the market without a request; of the first account, at paise."""
    order = NewOrder(
        segment=Segment.NSE_CM,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        order_type=OrderType.LIMIT,
        product=Product.MIS,
    )
    return exchange.market.place(account or exchange.credentials.ucc, order)
