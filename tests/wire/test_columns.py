"""Columns of arrays against the decoder of single packets: both must read the same."""

from __future__ import annotations

import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.errors import UsageError
from neo_async.model.enums import Level
from neo_async.model.ticks import LiteTick, ScripTick, Tick
from neo_async.wire.columns import ColumnDecoder, Columns
from neo_async.wire.feed import (
    AUCTION,
    AUCTION_PACKET,
    HEADER,
    INDEX,
    INDEX_PACKET,
    LITE,
    PICTURE,
    ROW,
    SCRIP,
    STATUS,
    STATUS_PACKET,
    FeedDecoder,
    read_control,
)

LEVELS = [Level.LITE, Level.SCRIP, Level.DEPTH]
ROWS = {Level.LITE: 0, Level.SCRIP: 1, Level.DEPTH: 5}

i32, u32 = st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)
i64, u8 = st.integers(-(2**63), 2**63 - 1), st.integers(0, 255)
finite = st.floats(allow_nan=False, allow_infinity=False)
exchanges = st.integers(-128, 127) | st.sampled_from([1, 2, 3])


def lite_body(draw: st.DrawFn) -> list[Any]:
    kinds = [u32, i64, u32, i64, u32, i32, i32, u32, u8, u32]
    return [draw(kind) for kind in kinds]


@st.composite
def lites(draw: st.DrawFn) -> bytes:
    padding = draw(st.sampled_from([0, 0, 0, 6]))
    head = [LITE.size + padding, PICTURE, draw(exchanges), Level.LITE, 0, draw(u8), 0]
    return LITE.pack(*head, *lite_body(draw)) + bytes(padding)


@st.composite
def scrips(draw: st.DrawFn, level: Level) -> bytes:
    """Mostly as they are sent; some with fewer or more rows than usual, and counts that lie."""
    usual = draw(st.booleans())
    rows = 2 * ROWS[level] if usual else draw(st.integers(0, 12))
    counts = [ROWS[level]] * 2 if usual else [draw(st.integers(0, 12)), draw(u32)]
    body: list[Any] = [draw(u32), *[draw(i64) for _ in range(5)], *[draw(u32) for _ in range(5)]]
    body += [draw(i64), draw(u32), draw(u32), *counts, draw(st.integers(-(2**15), 2**15 - 1))]
    body += [draw(i32), draw(u32), draw(finite), draw(i32), *[draw(u32) for _ in range(5)]]
    body += [draw(u8), draw(u32)]
    size = SCRIP.size + rows * ROW.size
    head = [size, PICTURE, draw(exchanges), level, draw(st.sampled_from([0, 1])), draw(u8), 0]
    tail = [ROW.pack(draw(i64), draw(i32), draw(i32)) for _ in range(rows)]
    return SCRIP.pack(*head, *body) + b"".join(tail)


def others() -> st.SearchStrategy[bytes]:
    """Packets that belong in no table."""
    return st.sampled_from(
        [
            HEADER.pack(HEADER.size, 6511, 1, 0, 0, 0, 0),
            struct.pack("<HHbBBBB", INDEX_PACKET.size, INDEX, 1, 1, 0, 0, 0)
            + bytes(INDEX_PACKET.size - HEADER.size),
            struct.pack("<HHbBBBB", STATUS_PACKET.size, STATUS, 1, 1, 0, 0, 0)
            + bytes(STATUS_PACKET.size - HEADER.size),
            struct.pack("<HHbBBBB", AUCTION_PACKET.size, AUCTION, 1, 4, 0, 0, 0) + b"\x01" * 24,
            struct.pack("<HHbBBBB", 20, PICTURE, 1, Level.LITE, 0, 0, 0) + bytes(11),
            struct.pack("<HHbBBBB", 20, PICTURE, 1, Level.DEPTH, 0, 0, 0) + bytes(11),
        ]
    )


def packets(level: Level) -> st.SearchStrategy[bytes]:
    return lites() if level is Level.LITE else scrips(level)


@st.composite
def feeds(draw: st.DrawFn, level: Level) -> list[bytes]:
    """Messages of one or several levels, some cut somewhere."""
    other = draw(st.sampled_from([each for each in LEVELS if each is not level]))
    mixed = packets(level) | packets(other) | others()
    kind = draw(st.sampled_from([packets(level), mixed]))
    messages = [b"".join(each) for each in draw(st.lists(st.lists(kind, max_size=4), max_size=4))]
    if messages and draw(st.booleans()):
        last = messages.pop()
        at = draw(st.integers(0, len(last)))
        messages += draw(st.sampled_from([[last[:at]], [last[:at], last[at:]]]))
    return messages


def decoder() -> FeedDecoder:
    decoder = FeedDecoder()
    decoder.set_exchanges(
        read_control(
            '{"message_code":1117,"exchanges":{"nse_cm":{"value":1,"divider":100},'
            '"cde_fo":{"value":3,"divider":10000000},"nse_com":{"value":-4,"divider":10000}}}'
        )
    )
    return decoder


def ticks_of(messages: list[bytes], single: FeedDecoder, level: Level) -> list[Tick]:
    return [
        tick
        for message in messages
        for tick in single.decode(message, 0)
        if isinstance(tick, LiteTick | ScripTick) and tick.level == level
    ]


LITE_NAMES = ["last_trade_time", "last_price", "last_quantity", "close", "change_percent",
              "change", "lot_size", "precision", "multiplier"]  # fmt: skip
SCRIP_NAMES = [*LITE_NAMES, "total_buy_quantity", "total_sell_quantity", "volume",
               "last_update_time", "open", "high", "low", "average_price", "open_interest",
               "value", "upper_circuit", "lower_circuit", "year_high", "year_low"]  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_columns_hold_what_the_decoder_of_single_packets_reads(
    level: Level, data: st.DataObject
) -> None:
    messages = data.draw(feeds(level))
    single = decoder()
    ticks = ticks_of(messages, single, level)
    columns = ColumnDecoder(level).decode(messages, single.dividers)
    assert len(columns) == len(ticks)
    for name in LITE_NAMES if level is Level.LITE else SCRIP_NAMES:
        assert columns[name].tolist() == [getattr(tick, name) for tick in ticks]
    for side in ("bid", "ask") if level is not Level.LITE else ():
        for field in ("price", "quantity", "orders"):
            for row, tick in zip(columns[f"{side}_{field}"].tolist(), ticks, strict=True):
                held = [getattr(each, field) for each in getattr(tick, f"{side}s")][: ROWS[level]]
                assert row == held + [0] * (ROWS[level] - len(held))


def columns_of(level: Level, *messages: bytes) -> Columns:
    return ColumnDecoder(level).decode(messages, {1: 100})


EXAMPLE = bytes.fromhex(
    "3600281c0101000700102d00008026b46800000000"
    "40e20100320000000000000090dc010077000000b005000001000000"
    "0201000000"
)


def test_the_brokers_own_example_is_read() -> None:
    columns = columns_of(Level.LITE, EXAMPLE, EXAMPLE + EXAMPLE)
    assert len(columns) == 3
    assert columns["token"].tolist() == [11536] * 3
    assert columns["last_price"].tolist() == [1234.56] * 3
    assert columns["close"].tolist() == [1220.0] * 3
    assert columns["change_percent"].tolist() == [1.19] * 3
    assert columns["last_trade_time"].tolist() == [1756636800] * 3
    assert columns["last_price"].dtype == np.float64


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_makes_empty_columns(level: Level) -> None:
    for columns in (columns_of(level), columns_of(level, b""), columns_of(level, b"\x36")):
        assert len(columns) == 0
        assert all(len(columns[name]) == 0 for name in columns.names)


@pytest.mark.parametrize("level", LEVELS)
def test_every_name_is_a_column(level: Level) -> None:
    columns = columns_of(level)
    assert len(columns.names) == len(set(columns.names))
    for name in columns.names:
        wanted = (0, ROWS[level]) if name.startswith(("bid_", "ask_")) else (0,)
        if name in ("bid_count", "ask_count"):
            wanted = (0,)
        assert columns[name].shape == wanted


def test_a_column_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"'price': must be one of .*last_price"):
        columns_of(Level.LITE)["price"]
    with pytest.raises(UsageError, match="no bids and asks"):
        columns_of(Level.LITE)["bid_price"]
    with pytest.raises(UsageError, match="'rows': must be one of"):
        columns_of(Level.DEPTH)["rows"]


def test_an_exchange_without_a_divider_has_the_usual_one() -> None:
    foreign = EXAMPLE[:4] + b"\xf7" + EXAMPLE[5:]
    assert columns_of(Level.LITE, foreign)["last_price"].tolist() == [1234.56]
    columns = ColumnDecoder(Level.LITE).decode([foreign], {-9: 10_000})
    assert columns["last_price"].tolist() == [12.3456]


def test_full_depth_has_no_columns() -> None:
    with pytest.raises(UsageError, match="FULL_DEPTH"):
        ColumnDecoder(Level.FULL_DEPTH)


def test_without_numpy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(UsageError, match=r"neo-async\[numpy\]"):
        ColumnDecoder(Level.LITE)
