"""The fake server of the feed benchmark: logins and orders as in `server.py`, and websockets.

Frames are made beforehand, so that the clients and not the server are measured. A subscription
starts the plan that was last set:

    GET /plan?level=lite&instruments=1000&per_frame=50&frames=20000&pace=0

sends that many frames, `pace` of them a second or, at 0, as fast as the client takes them, and then
a frame with one packet whose instrument and time no other packet has. `GET /drop` cuts every feed
connection. `GET /feeds` returns the subscriptions of the newest connection.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec
import uvloop

from benchmarks.server import Connection, Server, json_answer, listen
from benchmarks.workers import Channel
from neo_async.model.enums import Level
from neo_async.model.ticks import DepthRow, LiteTick, ScripTick
from neo_async.wire.feed import FeedEncoder

FIRST_TOKEN = 1000
LAST_TOKEN = FIRST_TOKEN
"""Token of the last packet; clients must subscribe it, or their feeds drop it."""
LAST_TIME = 1
"""Last trade time of the last packet."""

WRITE_BYTES = 128 * 1024
"""Bytes of one write when the plan has no pace."""

_HANDSHAKE = (
    "HTTP/1.1 101 Switching Protocols\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Accept: {accept}\r\n"
    "\r\n"
)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10

_ACCEPTED = json.dumps(
    {
        "message_code": 1117,
        "message": "Authentication successful",
        "format": "native_batch",
        "exchanges": {"nse_cm": {"divider": 100, "value": 1}},
    }
).encode()


class Plan(msgspec.Struct, frozen=True):
    """The frames that a subscription starts."""

    level: str = "lite"
    instruments: int = 1000
    per_frame: int = 50
    frames: int = 0
    pace: int = 0
    """Frames a second; 0 is as fast as the client takes them."""


def instrument(token: int) -> str:
    return f"nse_cm|{token}"


def instruments(count: int) -> list[str]:
    return [instrument(FIRST_TOKEN + index) for index in range(count)]


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + payload


def packet(level: str, token: int, *, last_trade_time: int = 1_756_636_800) -> bytes:
    """Return one packet of an instrument, with prices of its own."""
    price = 100 + token % 900 + 0.35
    if level == "lite":
        lite = LiteTick(
            instrument=instrument(token),
            symbol="",
            last_price=price,
            last_trade_time=last_trade_time,
            last_quantity=50 + token % 100,
            close=price - 1.25,
            change=1.25,
            change_percent=0.42,
            lot_size=1,
            precision=2,
            multiplier=1,
            received_ns=0,
        )
        return FeedEncoder().lite(lite)
    depth = ScripTick(
        instrument=instrument(token),
        symbol="",
        level=Level.DEPTH,
        last_price=price,
        last_trade_time=last_trade_time,
        last_update_time=last_trade_time,
        last_quantity=50 + token % 100,
        open=price - 2,
        high=price + 3,
        low=price - 4,
        close=price - 1.25,
        average_price=price - 0.4,
        volume=1_234_567 + token,
        value=7_501_250.0,
        total_buy_quantity=321_000,
        total_sell_quantity=298_000,
        open_interest=0,
        change=1.25,
        change_percent=0.42,
        upper_circuit=price * 1.1,
        lower_circuit=price * 0.9,
        year_high=price * 1.4,
        year_low=price * 0.6,
        lot_size=1,
        precision=2,
        multiplier=1,
        is_auction=False,
        bids=tuple(DepthRow(100 + row, price - 0.05 * row, 3 + row) for row in range(5)),
        asks=tuple(DepthRow(120 + row, price + 0.05 * row, 4 + row) for row in range(1, 6)),
        received_ns=0,
    )
    return FeedEncoder().scrip(depth)


@lru_cache(maxsize=4)
def frames_of(level: str, count: int, per_frame: int) -> tuple[bytes, ...]:
    """Return websocket frames with one packet of every instrument."""
    packets = [packet(level, FIRST_TOKEN + index) for index in range(count)]
    return tuple(
        websocket_frame(_BINARY, b"".join(packets[at : at + per_frame]))
        for at in range(0, count, per_frame)
    )


class FeedServer(Server):
    """The state that all connections share: the plan, and the open feeds, newest last."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.feeds: list[FeedConnection] = []

    def answer_other(self, method: bytes, path: bytes) -> bytes:
        target, _, query = path.decode().partition("?")
        if target == "/plan":
            self.plan = msgspec.convert(dict(parse_qsl(query)), Plan, strict=False)
            frames_of(self.plan.level, self.plan.instruments, self.plan.per_frame)
            return json_answer({"ok": True})
        if target == "/drop":
            for feed in [*self.feeds]:
                feed.abort()
            return json_answer({"ok": True})
        if target == "/feeds":
            newest = self.feeds[-1] if self.feeds else None
            return json_answer(
                {
                    "open": len(self.feeds),
                    "subscribed": len(newest.subscribed) if newest else 0,
                    "subscribe_frames": newest.subscribe_frames if newest else 0,
                }
            )
        return super().answer_other(method, path)


class FeedConnection(Connection):
    """A connection that speaks HTTP until the client upgrades it to one of the two feeds."""

    def __init__(self, server: FeedServer) -> None:
        super().__init__(server)
        self._feeds = server
        self._is_websocket = False
        self._is_authenticated = False
        self._received = b""
        self._writable = asyncio.Event()
        self._writable.set()
        self._sender: asyncio.Task[None] | None = None
        self.subscribed: set[str] = set()
        self.subscribe_frames = 0

    def data_received(self, data: bytes) -> None:
        if not self._is_websocket:
            if not data.startswith((b"GET /apifeed", b"GET /realtime")):
                super().data_received(data)
                return
            self._upgrade(data)
            return
        self._received += data
        for opcode, payload in self._client_frames():
            if opcode == _TEXT:
                self._take(payload)
            elif opcode == _PING:
                self._send(_PONG, payload)
            elif opcode == _CLOSE:
                self._send(_CLOSE, payload)
                self._transport.close()

    def _upgrade(self, request: bytes) -> None:
        # Every client here sends this small request in one piece.
        name = request.lower().index(b"sec-websocket-key:")
        key = request[name + 18 :].split(b"\r\n", 1)[0].strip()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        self._transport.write(_HANDSHAKE.format(accept=accept).encode())
        self._is_websocket = True
        if request.startswith(b"GET /apifeed"):
            self._feeds.feeds.append(self)

    def _client_frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of every complete frame received; clients always mask theirs."""
        while len(data := self._received) >= 6:
            size, at = data[1] & 0x7F, 2
            if size == 126:
                size, at = int.from_bytes(data[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(data[2:10], "big"), 10
            end = at + 4 + size
            if len(data) < end:
                return
            mask = (data[at : at + 4] * (size // 4 + 1))[:size]
            unmasked = int.from_bytes(data[at + 4 : end], "big") ^ int.from_bytes(mask, "big")
            self._received = data[end:]
            yield data[0] & 0x0F, unmasked.to_bytes(size, "big")

    def _take(self, text: bytes) -> None:
        if text.startswith(b"{type:"):  # the order feed's greeting and heartbeats
            self._send(_TEXT, b'{"ak":"ok","type":"cn","task":"cn","msg":"connected"}')
            return
        if not self._is_authenticated:
            self._is_authenticated = True
            self._send(_TEXT, _ACCEPTED)
            return
        request = json.loads(text)
        if not request["event"].startswith("subscribe"):
            return
        names = request["inputtoken"].split(",")
        self.subscribed.update(names)
        self.subscribe_frames += 1
        symbols = {name: f"S{name.partition('|')[2]}-EQ" for name in names}
        self._send(_TEXT, json.dumps({"message_code": 1109, "trading_symbols": symbols}).encode())
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._carry_out(self._feeds.plan))

    async def _carry_out(self, plan: Plan) -> None:
        frames = frames_of(plan.level, plan.instruments, plan.per_frame)
        if plan.pace:
            await self._send_paced(frames, plan)
        else:
            await self._send_at_once(frames, plan.frames)
        self._send(_BINARY, packet(plan.level, LAST_TOKEN, last_trade_time=LAST_TIME))

    async def _send_at_once(self, frames: tuple[bytes, ...], count: int) -> None:
        endless = itertools.cycle(frames)
        together = max(1, WRITE_BYTES // len(frames[0]))
        while count:
            batch = min(together, count)
            self._transport.write(b"".join(itertools.islice(endless, batch)))
            count -= batch
            await self._writable.wait()

    async def _send_paced(self, frames: tuple[bytes, ...], plan: Plan) -> None:
        started = time.perf_counter()
        sent = 0
        while sent < plan.frames:
            due = min(plan.frames, int((time.perf_counter() - started) * plan.pace) + 1)
            for index in range(sent, due):
                self._transport.write(frames[index % len(frames)])
            sent = max(sent, due)
            await self._writable.wait()
            await asyncio.sleep(max(0.0, started + sent / plan.pace - time.perf_counter()))

    def _send(self, opcode: int, payload: bytes) -> None:
        self._transport.write(websocket_frame(opcode, payload))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._feeds.feeds:
            self._feeds.feeds.remove(self)
        if self._sender is not None:
            self._sender.cancel()


def serve(channel: Channel) -> None:
    """Serve the benchmark until the worker ends."""
    server = FeedServer()
    uvloop.run(listen(channel, lambda: FeedConnection(server), server))
