"""The market feed's packets and frames, built from the engine's figures."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from neo_async.exchange.engine.indices import IndexSnapshot
from neo_async.exchange.engine.session_stats import MarketSnapshot, SessionStats
from neo_async.exchange.engine.types import Listing
from neo_async.exchange.feeds.topics import Subject, Topic
from neo_async.model.enums import Level, Segment
from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketState,
    MarketStatus,
    ScripTick,
)
from neo_async.wire.feed import (
    ACKNOWLEDGED,
    EXCHANGE_IDS,
    HEADER,
    MARKET_CLOSED,
    MARKET_OPENED,
    FeedEncoder,
    Stream,
)

FULL_ROWS: Final = 20
DEPTH_ROWS: Final = 5
_NS: Final = 1_000_000_000
_EMPTY_ROW: Final = DepthRow(0, 0.0, 0)
LEVELS: Final = {
    Stream.SCRIP: Level.SCRIP,
    Stream.DEPTH: Level.DEPTH,
    Stream.FULL_DEPTH: Level.FULL_DEPTH,
}
_STATUS_TEXTS: Final = {MarketState.OPEN: "OPEN", MarketState.CLOSED: "CLOSE"}
_OLD_STATUS_CODES: Final = {
    MarketState.OPEN: MARKET_OPENED,
    MarketState.CLOSED: MARKET_CLOSED,
}

_encode = msgspec.json.Encoder().encode


def listing_packet(encoder: FeedEncoder, topic: Topic, snapshot: MarketSnapshot) -> bytes:
    """Return a topic's packet; empty when a price is more than the wire has room for.

    That silences one listing and lets the others go on: four bytes and a divider of ten million
    end at 429 rupees.
    """
    try:
        if topic.stream is Stream.LITE:
            return encoder.lite(_lite_tick(topic.key, snapshot.listing, snapshot.stats))
        return encoder.scrip(_scrip_tick(topic.key, LEVELS[topic.stream], snapshot))
    except struct.error:
        return b""


def index_packet(encoder: FeedEncoder, snapshot: IndexSnapshot) -> bytes:
    """Return the packet of an index."""
    index, stats = snapshot.index, snapshot.stats
    tick = IndexTick(
        "",
        "",
        index.name,
        int(index.token),
        stats.last_price / 100,
        stats.last_trade_ns // _NS,
        stats.open / 100,
        stats.high / 100,
        stats.low / 100,
        index.close / 100,
        0.0,
        _percent(stats.last_price, index.close),
        stats.year_high / 100,
        stats.year_low / 100,
        2,
        1.0,
        0,
    )
    return encoder.index(index.segment, tick)


def status_packet(
    encoder: FeedEncoder, segment: Segment, state: MarketState, *, is_old: bool
) -> bytes:
    """Return the packet of a market's state, or the older bare header."""
    if is_old and state in _OLD_STATUS_CODES:
        code = _OLD_STATUS_CODES[state]
        return HEADER.pack(HEADER.size, code, EXCHANGE_IDS[segment], 0, 0, 0, 0)
    return encoder.status(MarketStatus(segment, state, _STATUS_TEXTS.get(state, ""), 0))


def auction_packet(
    encoder: FeedEncoder, tick: AuctionTick, level: Level, *, is_long: bool
) -> bytes:
    """Return the packet of a call auction, 33 or 48 bytes long."""
    packet = encoder.auction(tick, level)
    if is_long:
        return struct.pack("<H", 48) + packet[2:] + bytes(15)
    return packet


def auth_answer(code: int, exchanges: Mapping[str, tuple[int, int]]) -> str:
    """Return the answer to an accepted authentication: number and divider of each exchange."""
    return _encode(
        {
            "message_code": code,
            "id": "SFD_EMBEDDED_1",
            "format": "native_batch",
            "version": 1,
            "exchanges": {
                name: {"value": number, "divider": divider}
                for name, (number, divider) in exchanges.items()
            },
        }
    ).decode()


def acknowledgement(action: str, wanted: dict[str, tuple[Stream, Subject, str]]) -> str:
    """Return the answer to a subscription.

    It has both the map that the official SDK reads and the one that is documented.
    """
    return _encode(
        {
            "message_code": ACKNOWLEDGED,
            "message": "Subscribed" if action == "subscribe" else "Snapshot",
            "error_code": 0,
            "description": "SUBSCRIBED" if action == "subscribe" else "SNAPSHOT",
            "trading_symbols": {text: symbol for text, (_, _, symbol) in wanted.items()},
            "data": {
                text: {"cas_status": int(_has_auction(what)), "trading_symbols": symbol}
                for text, (_, what, symbol) in wanted.items()
            },
        }
    ).decode()


def refusal(code: int, text: str) -> str:
    """Return the answer to a request that is refused."""
    return _encode(
        {
            "message_code": ACKNOWLEDGED,
            "message": text,
            "error_code": code,
            "description": text,
            "trading_symbols": {},
            "data": {},
        }
    ).decode()


def _has_auction(what: Subject) -> bool:
    """Return whether it takes part in the closing auction, as shares and funds at the NSE do."""
    return isinstance(what, Listing) and what.segment is Segment.NSE_CM


def _percent(price: int, close: int) -> float:
    return (price - close) * 100 / close if close else 0.0


def _lite_tick(key: str, listing: Listing, stats: SessionStats) -> LiteTick:
    close = listing.base_price
    return LiteTick(
        key,
        "",
        stats.last_price / 100,
        stats.last_trade_ns // _NS,
        stats.last_quantity,
        close / 100,
        (stats.last_price - close) / 100,
        _percent(stats.last_price, close),
        listing.lot_size,
        2,
        1,
        0,
    )


def _scrip_tick(key: str, level: Level, snapshot: MarketSnapshot) -> ScripTick:
    listing, stats = snapshot.listing, snapshot.stats
    close = listing.base_price
    return ScripTick(
        key,
        "",
        level,
        stats.last_price / 100,
        stats.last_trade_ns // _NS,
        snapshot.changed_ns // _NS,
        stats.last_quantity,
        stats.open / 100,
        stats.high / 100,
        stats.low / 100,
        close / 100,
        stats.value / stats.volume / 100 if stats.volume else 0.0,
        stats.volume,
        stats.value / 100,
        snapshot.total_buy_quantity,
        snapshot.total_sell_quantity,
        stats.open_interest,
        (stats.last_price - close) / 100,
        _percent(stats.last_price, close),
        listing.upper_band / 100,
        listing.lower_band / 100,
        stats.year_high / 100,
        stats.year_low / 100,
        listing.lot_size,
        2,
        1,
        False,
        _rows(snapshot.bids, level),
        _rows(snapshot.asks, level),
        0,
    )


def _rows(levels: list[tuple[int, int, int]], level: Level) -> tuple[DepthRow, ...]:
    """Return rows best first; one or five a side are filled up with empty ones."""
    if level is Level.FULL_DEPTH:
        return tuple(DepthRow(quantity, price / 100, orders) for price, quantity, orders in levels)
    count = 1 if level is Level.SCRIP else DEPTH_ROWS
    rows = [DepthRow(quantity, price / 100, orders) for price, quantity, orders in levels[:count]]
    return tuple(rows + [_EMPTY_ROW] * (count - len(rows)))
