"""Our decoder and the official SDK's read the same from any message, sensible or not."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketStatus,
    ScripTick,
    Tick,
)
from neo_async.wire.feed import (
    AUCTION,
    AUCTION_PACKET,
    HEADER,
    INDEX,
    INDEX_PACKET,
    LITE,
    MARKET_CLOSED,
    MARKET_OPENED,
    PICTURE,
    ROW,
    SCRIP,
    STATUS,
    STATUS_PACKET,
    Control,
    FeedDecoder,
    read_control,
)

protocol = pytest.importorskip("neo_api_client.websocket.feed.protocol")

CODES = (AUCTION, STATUS, MARKET_OPENED, MARKET_CLOSED, INDEX, PICTURE)
LEVELS = (0, 1, 2, 3, 4, 8, 16, 255)
FIXED_SIZES = [
    each.size for each in (HEADER, LITE, SCRIP, INDEX_PACKET, STATUS_PACKET, AUCTION_PACKET)
]

SIZES = st.one_of(
    st.sampled_from(FIXED_SIZES),
    st.integers(0, 20).map(lambda rows: SCRIP.size + rows * ROW.size),
    st.integers(HEADER.size, 400),
)
_ROW_COUNTS = struct.Struct("<II")
_ROW_COUNTS_AT = 89


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Of a known or unknown kind, long enough for it or not, with anything in its fields."""
    size = draw(SIZES)
    packet = bytearray(draw(st.binary(min_size=size, max_size=size)))
    code = draw(st.sampled_from(CODES) | st.integers(0, 0xFFFF))
    exchange = draw(st.integers(0, 10) | st.integers(-128, 127))
    level = draw(st.sampled_from(LEVELS))
    HEADER.pack_into(packet, 0, size, code, exchange, level, draw(st.integers(0, 2)), 7, 0)
    if size >= SCRIP.size and draw(st.booleans()):
        counts = st.integers(0, 12)
        _ROW_COUNTS.pack_into(packet, _ROW_COUNTS_AT, draw(counts), draw(counts))
    return bytes(packet)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A batch, whole or cut, or with rubbish behind it."""
    message = b"".join(draw(st.lists(packets(), max_size=6)))
    if draw(st.booleans()):
        message = message[: draw(st.integers(0, len(message)))]
    return message + draw(st.binary(max_size=12))


EXCHANGES = st.dictionaries(
    st.sampled_from(sorted(protocol.EXCHANGE_ID_TO_NAME)),
    st.sampled_from([0, 1, 100, 10_000, 10_000_000]),
    min_size=1,
)


def auth_answer(dividers: dict[int, int]) -> Control:
    exchanges = {
        protocol.EXCHANGE_ID_TO_NAME[number]: {"value": int(number), "divider": divider}
        for number, divider in dividers.items()
    }
    return read_control(json.dumps({"message_code": 1117, "exchanges": exchanges}))


def theirs(message: bytes, dividers: dict[int, int]) -> list[Any]:
    read = []
    for packet in protocol.split_batch(message):
        try:
            decoded = protocol.decode_packet(packet, dividers)
        except struct.error:
            continue  # too short for its kind; the SDK's client goes on with the next one, too
        if decoded is not None:
            read.append(decoded)
    return read


@given(messages() | st.binary(max_size=600), EXCHANGES)
def test_both_read_the_same_from_the_same_bytes(message: bytes, dividers: dict[int, int]) -> None:
    decoder = FeedDecoder()
    decoder.set_exchanges(auth_answer(dividers))
    ours = decoder.decode(message, 0)
    assert [fields(tick) for tick in ours] == [
        their_fields(each) for each in theirs(message, dividers)
    ]


@given(st.lists(st.binary(min_size=45, max_size=45), min_size=1, max_size=8), st.integers(0, 11))
def test_both_read_the_same_from_a_message_of_mini_touch_lines(
    bodies: list[bytes], exchange: int
) -> None:
    message = b"".join(
        HEADER.pack(LITE.size, PICTURE, exchange, 1, 0, number, 0) + body
        for number, body in enumerate(bodies)
    )
    ours = FeedDecoder()
    ours.set_exchanges(auth_answer({1: 100}))
    assert [fields(tick) for tick in ours.decode(message, 0)] == [
        their_fields(each) for each in theirs(message, {1: 100})
    ]


# --- the same fields under one name -------------------------------------------------------------

Fields = dict[str, object]


def fields(tick: Tick) -> Fields:
    if isinstance(tick, MarketStatus):
        return {"segment": tick.segment, "code": tick.code}
    found: Fields = {
        name: same(getattr(tick, name))
        for name in tick.__struct_fields__
        if name not in ("symbol", "received_ns", "token")
    }
    if isinstance(tick, ScripTick):
        found["bids"], found["asks"] = list(tick.bids), list(tick.asks)
    return found


NAMES: dict[type[Tick], dict[str, str]] = {
    LiteTick: {
        "last_price": "last_traded_price",
        "last_trade_time": "last_trade_time",
        "last_quantity": "last_trade_qty",
        "close": "close_price",
        "change": "net_change",
        "change_percent": "net_change_percent",
        "lot_size": "market_lot",
        "precision": "precision",
        "multiplier": "multiplier",
    },
    ScripTick: {
        "level": "level",
        "last_price": "last_traded_price",
        "last_trade_time": "last_trade_time",
        "last_update_time": "last_update_time",
        "last_quantity": "last_trade_qty",
        "open": "open_price",
        "high": "high_price",
        "low": "low_price",
        "close": "close_price",
        "average_price": "average_trade_price",
        "volume": "volume_traded_today",
        "value": "total_traded_value",
        "total_buy_quantity": "total_buy_quantity",
        "total_sell_quantity": "total_sell_quantity",
        "open_interest": "open_interest",
        "change": "net_change",
        "change_percent": "net_change_percent",
        "upper_circuit": "upper_circuit_limit",
        "lower_circuit": "lower_circuit_limit",
        "year_high": "yearly_high",
        "year_low": "yearly_low",
        "lot_size": "market_lot",
        "precision": "precision",
        "multiplier": "multiplier",
        "is_auction": "auction",
    },
    IndexTick: {
        "name": "name",
        "last_price": "last_traded_price",
        "last_trade_time": "last_trade_time",
        "open": "open_price",
        "high": "high_price",
        "low": "low_price",
        "close": "close_price",
        "change": "change",
        "change_percent": "net_change_percent",
        "year_high": "yearly_high",
        "year_low": "yearly_low",
        "precision": "precision",
        "multiplier": "multiplier",
    },
    AuctionTick: {
        "reference_price": "ref_price",
        "imbalance_quantity": "imbalance_qty",
        "imbalance_at_market": "imbalance_qty_at_market",
    },
}
KINDS: dict[str, type[Tick]] = {
    "scrip": ScripTick,
    "scrip_lite": LiteTick,
    "index": IndexTick,
    "cas_change": AuctionTick,
}


def their_fields(message: Any) -> Fields:
    if message.type == "market_status":
        return {"segment": message.exchange_segment, "code": message.status_code}
    kind = KINDS[message.type]
    found: Fields = {ours: same(getattr(message, their)) for ours, their in NAMES[kind].items()}
    found["instrument"] = f"{message.exchange_segment}|{message.instrument_token}"
    if kind is ScripTick:
        for ours, rows in (("bids", message.buy), ("asks", message.sell)):
            found[ours] = [DepthRow(row.quantity, row.price, row.orders) for row in rows]
    return found


def same(value: object) -> object:
    """Not-a-number differs from itself; here two of them are the same."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value
