"""Packets of a level made from recorded packets of a higher one."""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from typing import Final, TypeVar

from neo_async.base import logs
from neo_async.exchange.replay.recorded import Recorded, RecordedInstrument
from neo_async.model.enums import Level
from neo_async.wire.feed import LITE, PICTURE, ROW, SCRIP, Stream

T = TypeVar("T")

log = logging.getLogger(logs.EXCHANGE)

BY_DEPTH: Final = (Stream.LITE, Stream.SCRIP, Stream.DEPTH, Stream.FULL_DEPTH)
"""The levels, each of which has all that is in those before it."""

_ROWS: Final = {Stream.SCRIP: 1, Stream.DEPTH: 5}
"""Rows of bids, and as many of asks."""
_LEVELS: Final = {Stream.SCRIP: Level.SCRIP, Stream.DEPTH: Level.DEPTH}
_COUNTS: Final = struct.Struct("<II")
_COUNTS_AT: Final = 89
"""Offset in a packet of the numbers of bids and asks."""


def above(stream: Stream) -> tuple[Stream, ...]:
    """Return the streams whose packets have all that a packet of this one has, nearest first."""
    return BY_DEPTH[BY_DEPTH.index(stream) + 1 :] if stream in BY_DEPTH else ()


class RecordedPackets:
    """The newest recorded packet of each instrument and level, which serves the levels below it
    where they were not recorded."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._newest: dict[tuple[Stream, str], bytes] = {}

    def keep(self, stream: Stream, name: str, packet: bytes) -> None:
        """Take over a packet that is played, of a level or an index."""
        self._newest[stream, name] = packet

    def newest(self, stream: Stream, name: str) -> bytes:
        """Return the newest packet for a stream; empty before the first."""
        source = self.source_of(stream, name)
        packet = b"" if source is None else self._newest.get((source, name), b"")
        return packet_at(stream, packet) if packet and source is not stream else packet

    def source_of(self, stream: Stream, name: str) -> Stream | None:
        """Return the recorded level from which the packets of a stream are made: its own, or the
        nearest above it; None when there is none."""
        instrument = self._recorded.find(name)
        for each in (stream, *above(stream)):
            if (each, name) in self._newest or (instrument and each in instrument.streams):
                return each
        return None

    def served(
        self, wanted: Mapping[str, tuple[Stream, T, str]]
    ) -> dict[str, tuple[Stream, T, str]]:
        """Return the subjects of a request, with their streams and symbols, that are acknowledged:
        without those recorded at a lower level only, of which there may never be a packet."""
        return {
            text: (stream, what, symbol)
            for text, (stream, what, symbol) in wanted.items()
            if not isinstance(what, RecordedInstrument)
            or what.is_index
            or self._has_source(stream, f"{what.segment}|{what.token}")
        }

    def _has_source(self, stream: Stream, name: str) -> bool:
        """Return whether a stream can have packets, and log where it cannot."""
        if self.source_of(stream, name) is not None:
            return True
        log.warning(
            "replay: %s is not recorded at level %s or a higher one: it gets no ticks there",
            name,
            stream.name,
        )
        return False


def packet_at(stream: Stream, packet: bytes) -> bytes:
    """Return a packet of a higher level as one of that stream; empty when it is too short."""
    if len(packet) < SCRIP.size:
        return b""
    return _lite(packet) if stream is Stream.LITE else _scrip(stream, packet)


def _lite(packet: bytes) -> bytes:
    fields = SCRIP.unpack_from(packet)
    exchange, auction, sequence, bitmask, token = fields[2], *fields[4:8]
    trade_time, close, price, quantity = fields[11], fields[14], fields[17], fields[18]
    percent, change, lot_size, precision, multiplier = fields[24], fields[27], *fields[32:35]
    return LITE.pack(
        LITE.size, PICTURE, exchange, Level.LITE, auction, sequence, bitmask, token, trade_time,
        price, quantity, close, percent, change, lot_size, precision, multiplier,
    )  # fmt: skip


def _scrip(stream: Stream, packet: bytes) -> bytes:
    count = _ROWS[stream]
    bids, asks = _COUNTS.unpack_from(packet, _COUNTS_AT)
    if packet[5] == Level.SCRIP:
        bids = asks = 1
    whole = (len(packet) - SCRIP.size) // ROW.size
    bids = min(bids, whole)
    asks = min(asks, whole - bids)
    first, middle = SCRIP.size, SCRIP.size + bids * ROW.size
    side = count * ROW.size
    rows = [
        packet[start:end][:side].ljust(side, b"\0")
        for start, end in ((first, middle), (middle, middle + asks * ROW.size))
    ]
    head = bytearray(packet[: SCRIP.size])
    struct.pack_into("<H", head, 0, SCRIP.size + 2 * side)
    head[5] = _LEVELS[stream]
    _COUNTS.pack_into(head, _COUNTS_AT, count, count)
    return bytes(head) + rows[0] + rows[1]
