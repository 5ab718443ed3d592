"""Quotes: `GET /script-details/1.0/quotes/neosymbol/<instruments>[/<filter>]`.

Every value is text, inside `ohlc` and `depth` too. The broker does not tabulate which keys a filter
brings; ours are in `_KEYS`.
"""

from __future__ import annotations

from typing import Final

from neo_async.exchange.engine.indices import IndexSnapshot
from neo_async.exchange.engine.session_stats import MarketSnapshot
from neo_async.exchange.engine.types import Refusal

Row = dict[str, object]

MOST: Final = 50
"""Instruments of one request."""

_ALWAYS: Final = ("exchange_token", "display_symbol", "exchange", "lstup_time")
_KEYS: Final[dict[str, tuple[str, ...] | None]] = {
    "all": None,
    "ltp": ("ltp",),
    "ohlc": ("ohlc",),
    "oi": ("open_int",),
    "52w": ("year_high", "year_low"),
    "circuit_limits": ("low_price_range", "high_price_range"),
    "depth": ("depth",),
    "market_depth": ("depth",),
    "scrip_details": (
        "ltp",
        "last_traded_quantity",
        "total_buy",
        "total_sell",
        "last_volume",
        "avg_cost",
        "change",
        "per_change",
    ),
}
"""Keys of each filter, by its name in lower case; None stands for every key."""

_LEVELS: Final = 5
_NO_LEVEL: Final = {"price": "0.0000", "quantity": "0", "orders": "0"}
_NS: Final = 1_000_000_000


def read_query(tail: str) -> tuple[list[str], str]:
    """Return the instruments and the filter of what follows the endpoint's path.

    How the broker refuses more than it allows, or another filter, is not documented.
    """
    listed, _, kind = tail.partition("/")
    instruments = [name for name in listed.split(",") if name]
    kind = (kind.strip("/") or "all").casefold()
    if kind not in _KEYS:
        raise Refusal(400, f"invalid quote type {kind!r}")
    if len(instruments) > MOST:
        raise Refusal(400, f"{len(instruments)} instruments: at most {MOST} are allowed")
    return instruments, kind


def filtered(row: Row, kind: str) -> Row:
    keys = _KEYS[kind]
    if keys is None:
        return row
    return {key: row[key] for key in (*_ALWAYS, *keys) if key in row}


def quote_row(snapshot: MarketSnapshot) -> Row:
    """Return a quote with every key. Before the first trade of the day, figures of trades are 0."""
    listing, stats = snapshot.listing, snapshot.stats
    change = stats.last_price - listing.base_price
    average = stats.value / stats.volume if stats.volume else 0.0
    return {
        "exchange_token": listing.token,
        "display_symbol": listing.symbol,
        "exchange": listing.segment.value,
        "lstup_time": str(snapshot.changed_ns // _NS),
        "ltp": _four(stats.last_price),
        "last_traded_quantity": str(stats.last_quantity),
        "total_buy": str(snapshot.total_buy_quantity),
        "total_sell": str(snapshot.total_sell_quantity),
        "last_volume": str(stats.volume),
        "avg_cost": _four(round(average)),
        "open_int": str(stats.open_interest),
        "change": _four(change),
        "per_change": f"{_percent(change, listing.base_price):.4f}",
        "low_price_range": _four(listing.lower_band),
        "high_price_range": _four(listing.upper_band),
        "year_high": _short(stats.year_high),
        "year_low": _short(stats.year_low),
        "ohlc": _ohlc(stats.open, stats.high, stats.low, listing.base_price),
        "depth": {"buy": _levels(snapshot.bids), "sell": _levels(snapshot.asks)},
    }


def index_row(snapshot: IndexSnapshot, name: str, now_ns: int) -> Row:
    """Return the quote of an index under the requested name or number. It has no average, open
    interest or circuit limits."""
    index, stats = snapshot.index, snapshot.stats
    change = stats.last_price - index.close
    empty = [_NO_LEVEL] * _LEVELS
    return {
        "exchange_token": name,
        "display_symbol": index.symbol,
        "exchange": index.segment.value,
        "lstup_time": str((stats.last_trade_ns or now_ns) // _NS),
        "ltp": _four(stats.last_price),
        "last_traded_quantity": "0",
        "total_buy": "0",
        "total_sell": "0",
        "last_volume": "0",
        "change": _four(change),
        "per_change": f"{_percent(change, index.close):.4f}",
        "year_high": _short(stats.year_high),
        "year_low": _short(stats.year_low),
        "ohlc": _ohlc(stats.open, stats.high, stats.low, index.close),
        "depth": {"buy": empty, "sell": empty},
    }


def _ohlc(opened: int, high: int, low: int, close: int) -> Row:
    """Return the day's prices as text. `close` is the previous close."""
    return {"open": _four(opened), "high": _four(high), "low": _four(low), "close": _four(close)}


def _levels(levels: list[tuple[int, int, int]]) -> list[dict[str, str]]:
    shown = [
        {"price": _four(price), "quantity": str(quantity), "orders": str(orders)}
        for price, quantity, orders in levels[:_LEVELS]
    ]
    return shown + [_NO_LEVEL] * (_LEVELS - len(shown))


def _percent(change: int, base: int) -> float:
    return round(100 * change / base, 2) if base else 0.0


def _four(paise: int) -> str:
    return f"{paise / 100:.4f}"


def _short(paise: int) -> str:
    """Return rupees without trailing zeros: `726.65`, `2037.7`."""
    return f"{paise / 100:g}" if abs(paise) < 100_000_00 else f"{paise / 100:.2f}"
