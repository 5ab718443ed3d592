"""Market-feed messages as numpy arrays. Only this module needs numpy.

All packets of a level have one size, so that a burst is one structured array over the received
bytes. A column is computed when it is first read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from neo_async.errors import UsageError
from neo_async.model.enums import Level
from neo_async.wire.feed import (
    AUCTION,
    DEFAULT_DIVIDER,
    HEADER,
    INDEX,
    LITE,
    MARKET_CLOSED,
    MARKET_OPENED,
    PICTURE,
    ROW,
    SCRIP,
    STATUS,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEADER_FIELDS: Final = [
    ("length", "<u2"),
    ("code", "<u2"),
    ("exchange", "i1"),
    ("level", "u1"),
    ("auction", "u1"),
    ("sequence", "u1"),
    ("bitmask", "u1"),
    ("token", "<u4"),
]
_LITE_FIELDS: Final = [
    ("last_trade_time", "<i8"),
    ("last_price", "<u4"),
    ("last_quantity", "<i8"),
    ("close", "<u4"),
    ("change_percent", "<i4"),
    ("change", "<i4"),
    ("lot_size", "<u4"),
    ("precision", "u1"),
    ("multiplier", "<u4"),
]
_SCRIP_FIELDS: Final = [
    ("total_buy_quantity", "<i8"),
    ("total_sell_quantity", "<i8"),
    ("volume", "<i8"),
    ("last_trade_time", "<i8"),
    ("last_update_time", "<i8"),
    ("open", "<u4"),
    ("close", "<u4"),
    ("high", "<u4"),
    ("low", "<u4"),
    ("last_price", "<u4"),
    ("last_quantity", "<i8"),
    ("average_price", "<u4"),
    ("indicative_close", "<u4"),
    ("bid_count", "<u4"),
    ("ask_count", "<u4"),
    ("trading_status", "<i2"),
    ("change_percent", "<i4"),
    ("open_interest", "<u4"),
    ("value", "<f8"),
    ("change", "<i4"),
    ("upper_circuit", "<u4"),
    ("lower_circuit", "<u4"),
    ("year_high", "<u4"),
    ("year_low", "<u4"),
    ("lot_size", "<u4"),
    ("precision", "u1"),
    ("multiplier", "<u4"),
]
_ROW_FIELDS: Final = [("quantity", "<i8"), ("price", "<i4"), ("orders", "<i4")]

_PRICES: Final = frozenset(
    {
        "average_price",
        "change",
        "close",
        "high",
        "indicative_close",
        "last_price",
        "low",
        "lower_circuit",
        "open",
        "upper_circuit",
        "value",
        "year_high",
        "year_low",
    }
)
_ROWS: Final[Mapping[Level, int]] = {Level.SCRIP: 1, Level.DEPTH: 5}
"""Price levels per side, by subscription level. Full depth has no fixed number."""

_OTHER_KINDS: Final = frozenset({AUCTION, INDEX, MARKET_CLOSED, MARKET_OPENED, STATUS})
"""Packet codes that give the kind of a packet; for all others, the level gives it."""

_COUNTS: Final = struct.Struct("<II")
_COUNTS_AT: Final = 89
"""Offset in a depth packet of the numbers of bids and asks."""


class Columns:
    """Ticks of one level in the order of their arrival.

    `columns["last_price"]` is a float64 array in rupees; quantities and times are integers.
    `bid_price`, `bid_quantity`, `bid_orders` and the same for asks are two-dimensional, by tick and
    by price level, best first, with zeros where the book ends. `packets` is the structured array of
    the bytes.
    """

    def __init__(
        self, packets: NDArray[Any], dividers: NDArray[np.float64], unasked: int = 0
    ) -> None:
        self.packets = packets
        self.unasked = unasked
        """Number of packets dropped because their instruments were not subscribed."""
        self._dividers = dividers

    def __len__(self) -> int:
        return len(self.packets)

    def __getitem__(self, name: str) -> NDArray[Any]:
        side, _, field = name.partition("_")
        if side in ("bid", "ask") and field in ("price", "quantity", "orders"):
            return self._side(side, field)
        if name not in self.names:
            raise UsageError(f"column {name!r}: must be one of {', '.join(self.names)}")
        column = self.packets[name]
        if name in _PRICES:
            return column / self._divider()
        if name == "last_update_time":
            return column.clip(0)  # negative means never
        return column / 100 if name == "change_percent" else column

    @property
    def names(self) -> tuple[str, ...]:
        plain = tuple(name for name in self.packets.dtype.names or () if name != "rows")
        if "rows" not in (self.packets.dtype.names or ()):
            return plain
        fields = ("price", "quantity", "orders")
        return plain + tuple(f"{side}_{field}" for side in ("bid", "ask") for field in fields)

    def _side(self, side: str, field: str) -> NDArray[Any]:
        if "rows" not in (self.packets.dtype.names or ()):
            raise UsageError(f"column '{side}_{field}': this level has no bids and asks")
        rows = self.packets["rows"][field]
        half = rows.shape[1] // 2
        chosen = rows[:, :half] if side == "bid" else rows[:, half:]
        return chosen / self._divider()[:, None] if field == "price" else chosen

    def _divider(self) -> NDArray[np.float64]:
        # exchange is a signed byte; as an index it must not be.
        divider: NDArray[np.float64] = self._dividers[self.packets["exchange"].view("u1")]
        return divider


class ColumnDecoder:
    """Decodes messages into the columns of one level, and skips packets of other kinds."""

    def __init__(self, level: Level) -> None:
        """Raise UsageError when numpy is not installed, or the level has no fixed layout."""
        try:
            import numpy
        except ImportError:
            raise UsageError('columns need numpy: pip install "neo-async[numpy]"') from None
        self._numpy = numpy
        self._level = level
        fields: list[Any] = [*_HEADER_FIELDS]
        if level is Level.LITE:
            fields += _LITE_FIELDS
        elif level in _ROWS:
            rows = 2 * _ROWS[level]
            fields += [*_SCRIP_FIELDS, ("rows", _ROW_FIELDS, (rows,))]
        else:
            raise UsageError(f"level={level.name}: columns exist for LITE, SCRIP and DEPTH")
        self._dtype = numpy.dtype(fields)
        self._size = self._dtype.itemsize
        assert self._size in (LITE.size, SCRIP.size + 2 * _ROWS.get(level, 0) * ROW.size)
        self._rows = _ROWS.get(level, 0)
        self._fixed = SCRIP.size if self._rows else LITE.size

    def decode(
        self,
        messages: Sequence[bytes],
        dividers: Mapping[int, int],
        asked: NDArray[np.int64] | None = None,
    ) -> Columns:
        """Decode the packets of the decoder's level, in their order. `asked` holds the keys of the
        subscribed instruments, ascending, as returned by `FeedDecoder.asked_keys`; None decodes
        all."""
        table = self._numpy.full(256, float(DEFAULT_DIVIDER))
        for exchange, divider in dividers.items():
            table[exchange & 0xFF] = divider
        packets = None
        # Each by itself: a cut message must not be completed by the one behind it.
        if all(len(message) % self._size == 0 for message in messages):
            packets = self._numpy.frombuffer(b"".join(messages), self._dtype)
            if not self._are_ours(packets):
                packets = None
        if packets is None:
            picked = b"".join(self._pick(message) for message in messages)
            packets = self._numpy.frombuffer(picked, self._dtype)
        ours = packets if asked is None else self._only(packets, asked)
        return Columns(ours, table, len(packets) - len(ours))

    def keys(self, keys: Sequence[int]) -> NDArray[np.int64]:
        """Return keys of instruments in the form that `decode` takes."""
        return self._numpy.array(keys, self._numpy.int64)

    def _only(self, packets: NDArray[Any], asked: NDArray[np.int64]) -> NDArray[Any]:
        """Return the packets of subscribed instruments."""
        if not len(asked):
            return packets[:0]
        keys = packets["exchange"].view("u1").astype(self._numpy.int64) << 32 | packets["token"]
        places = self._numpy.searchsorted(asked, keys).clip(max=len(asked) - 1)
        ours = asked[places] == keys
        return packets if ours.all() else packets[ours]

    def _are_ours(self, packets: NDArray[Any]) -> bool:
        ours = bool(
            (packets["length"] == self._size).all()
            and (packets["code"] == PICTURE).all()
            and (packets["level"] == self._level).all()
        )
        if self._level is not Level.DEPTH:
            return ours
        return (
            ours
            and bool((packets["bid_count"] == self._rows).all())
            and bool((packets["ask_count"] == self._rows).all())
        )

    def _pick(self, message: bytes) -> bytes:
        """Return the packets of the decoder's level from a message with several kinds."""
        found = []
        at, end = 0, len(message)
        while at + HEADER.size <= end:
            size = int.from_bytes(message[at : at + 2], "little")
            if size < HEADER.size or at + size > end:
                break
            code = int.from_bytes(message[at + 2 : at + 4], "little")
            is_ours = message[at + 5] == self._level and code not in _OTHER_KINDS
            if is_ours and size >= self._fixed:
                found.append(self._fitted(message[at : at + size]))
            at += size
        return b"".join(found)

    def _fitted(self, packet: bytes) -> bytes:
        """Return a packet with exactly as many price levels as the layout: cut, or filled with
        zeros."""
        if not self._rows:
            return packet[: self._fixed]
        bids = asks = 1
        if self._level is not Level.SCRIP:  # one bid and one ask there, whatever the counts are
            bids, asks = _COUNTS.unpack_from(packet, _COUNTS_AT)
        whole = (len(packet) - self._fixed) // ROW.size
        bids = min(bids, whole)
        asks = min(asks, whole - bids)
        side = self._rows * ROW.size
        ends = [self._fixed + count * ROW.size for count in (0, bids, bids + asks)]
        return packet[: self._fixed] + b"".join(
            packet[start:end][:side].ljust(side, b"\0") for start, end in pairwise(ends)
        )
