"""Topics of the market feed, and the connections that subscribe them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from aiohttp import web

from neo_async.exchange.engine.types import Index, Listing
from neo_async.exchange.feeds.connections import ClientConnection, PauseSwitch
from neo_async.exchange.replay.recorded import RecordedInstrument
from neo_async.wire.feed import Stream, batches

MAX_MESSAGE: Final = (1 << 20) - 1
"""Bytes; the official SDK takes no larger message than 1 MiB."""
BACKLOG: Final = 8 << 20
"""Bytes of ready-made messages kept for a slow subscriber; older ones are dropped."""

Subject: TypeAlias = Listing | Index | RecordedInstrument


class Topic:
    """A kind of packet of one instrument."""

    __slots__ = ("connections", "index", "key", "listing", "packet", "stream")

    def __init__(self, key: str, stream: Stream, what: Subject) -> None:
        self.key = key
        """Name such as `nse_cm|11536`, with the number also where it was requested by name."""
        self.stream = stream
        self.listing = what if isinstance(what, Listing) else None
        self.index = what if isinstance(what, Index) else None
        self.connections: dict[MarketFeedConnection, None] = {}
        self.packet = b""
        """The newest one; empty before the first."""

    @property
    def is_recorded(self) -> bool:
        """Whether its packets come from a recording, not from the market."""
        return self.listing is None and self.index is None


class MarketFeedConnection(ClientConnection):
    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        pause_switch: PauseSwitch,
        truncate: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(websocket, transport, pause_switch)
        self.topics: dict[tuple[Stream, str], Topic] = {}
        self.dropped = 0
        """Ready-made messages that a slow reader has lost."""
        self._truncate = truncate
        self._packets: dict[object, bytes] = {}
        self._queued_bytes = 0

    def offer(self, key: object, packet: bytes) -> None:
        """Send a packet in the next message, in place of an older one with the same key."""
        if not self._packets:
            self._wake_writer()
        self._packets[key] = packet

    def withdraw(self, key: object) -> None:
        self._packets.pop(key, None)

    def enqueue(self, message: str | bytes) -> None:
        self._queued_bytes += len(message)
        while self._queued_bytes > BACKLOG and self._queue:
            self._queued_bytes -= len(self._queue.popleft())
            self.dropped += 1
        super().enqueue(message)

    def _pending(self) -> Iterator[str | bytes]:
        for message in super()._pending():
            self._queued_bytes -= len(message)
            yield message
        packets, self._packets = self._packets, {}
        for batch in batches(list(packets.values()), MAX_MESSAGE):
            yield self._truncate(batch)


def offer(news: tuple[Topic, bytes]) -> None:
    topic, packet = news
    for connection in topic.connections:
        connection.offer(topic, packet)


def offer_stray(news: tuple[Topic, bytes]) -> None:
    """Queue a packet behind the newest of the same instrument, not in its place."""
    topic, packet = news
    for connection in topic.connections:
        connection.offer((topic, "stray"), packet)


def key_of(what: Subject) -> str:
    return f"{what.segment}|{what.token}"
