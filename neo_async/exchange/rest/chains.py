"""Expiries, option chains and futures chains, by the underlying's name in the scrip master."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Final

from neo_async.exchange.engine.session_stats import SessionStats
from neo_async.exchange.engine.types import Listing, Refusal
from neo_async.model.enums import Segment

Row = dict[str, object]

_COUNT: Final = 40
_COUNT_STEP: Final = 10
_COUNT_TEXT: Final = re.compile(r"[0-9]{1,6}")
_SEGMENTS: Final = (Segment.NSE_FO, Segment.BSE_FO, Segment.MCX_FO)
_KINDS: Final = ("option", "fut")
_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)

StatsOf = Callable[[Listing], SessionStats]


def unknown_instrument() -> Refusal:
    return Refusal(1009, "Invalid instrument/code", http_status=200)


class Contracts:
    """The contracts listed on one underlying, in one segment."""

    def __init__(self, segment: str, underlying: str, listings: Sequence[Listing]) -> None:
        """Raises Refusal when there is nothing."""
        self.segment = segment
        self.underlying = underlying
        if segment not in _SEGMENTS or not listings:
            raise unknown_instrument()
        self.options = [listing for listing in listings if listing.is_option]
        self.futures = [listing for listing in listings if not listing.is_option]


def read_kind(query: Mapping[str, str]) -> str:
    """Return `option`, `fut`, or empty when the query names neither."""
    kind = query.get("instrument_type", "")
    if kind and kind not in _KINDS:
        raise unknown_instrument()
    return kind


def expiries_body(contracts: Contracts, kind: str) -> Row:
    wanted = {
        "option": contracts.options,
        "fut": contracts.futures,
        "": contracts.options + contracts.futures,
    }[kind]
    days = sorted({listing.expiry for listing in wanted if listing.expiry})
    if not days:
        raise unknown_instrument()
    return {
        "exchange": contracts.segment,
        "underlying": contracts.underlying,
        "expiries": [day.isoformat() for day in days],
    }


def read_expiry(query: Mapping[str, str]) -> date | None:
    text = query.get("expiry")
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise unknown_instrument() from None


def read_count(query: Mapping[str, str]) -> int:
    text = query.get("count") or str(_COUNT)
    if not _COUNT_TEXT.fullmatch(text) or not int(text) or int(text) % _COUNT_STEP:
        raise Refusal(400, f"count must be a multiple of {_COUNT_STEP}")
    return int(text)


def option_chain_body(
    contracts: Contracts, expiry: date | None, count: int, spot: int, stats_of: StatsOf
) -> Row:
    """Return the `count` strikes nearest to the underlying's price `spot` (0: unknown), of one
    expiry."""
    days = sorted({listing.expiry for listing in contracts.options if listing.expiry})
    if expiry is None and days:
        expiry = days[0]
    if expiry not in days:
        raise unknown_instrument()
    options = [listing for listing in contracts.options if listing.expiry == expiry]
    strikes = sorted({listing.strike for listing in options})
    spot = spot or strikes[len(strikes) // 2]
    money = min(strikes, key=lambda strike: abs(strike - spot))
    shown = set(sorted(strikes, key=lambda strike: (abs(strike - spot), strike))[:count])
    sides: dict[str, list[Row]] = {"CE": [], "PE": []}
    for listing in sorted(options, key=lambda listing: listing.strike):
        if listing.strike in shown:
            sides[listing.option_type].append(_option_row(listing, money, stats_of(listing)))
    return {
        "data": {
            "common_data": _common(contracts, options[0], expiry),
            "call": sides["CE"],
            "put": sides["PE"],
        }
    }


def futures_chain_body(contracts: Contracts, expiry: date | None, stats_of: StatsOf) -> Row:
    """Return every contract, or that of one expiry."""
    futures = sorted(
        (future for future in contracts.futures if expiry is None or future.expiry == expiry),
        key=lambda future: future.expiry or date.max,
    )
    if not futures:
        raise unknown_instrument()
    return {
        "data": {
            "common_data": _common(contracts, futures[0], expiry),
            "call": [],
            "put": [],
            "fut": [_future_row(future, stats_of(future)) for future in futures],
        }
    }


def _common(contracts: Contracts, listing: Listing, expiry: date | None) -> Row:
    return {
        "mktLot": str(listing.lot_size),
        "multiplier": "1",
        "unlSymbol": contracts.underlying,
        "exSeg": contracts.segment,
        "expiryDt": expiry.isoformat() if expiry else None,
    }


def _option_row(listing: Listing, money: int, stats: SessionStats) -> Row:
    """Return the figures of a contract: prices as text, the rest as numbers. `close` is fixed
    after the day."""
    return {
        "instrument": {
            "neoSymbol": f"{listing.segment.value}|{listing.token}",
            "symbol": listing.symbol,
            "optionType": listing.option_type,
            "strikePrice": f"{listing.strike / 100:.2f}".rstrip("0").rstrip("."),
            "moneyness": _moneyness(listing, money),
        },
        "quote": {
            "ltp": _four(stats.last_price),
            "open": _four(stats.open),
            "high": _four(stats.high),
            "low": _four(stats.low),
            "prevClose": _four(listing.base_price),
            "close": None,
            "volume": stats.volume,
        },
        "openInterest": {
            "current": stats.open_interest,
            "previous": stats.previous_open_interest,
            "change": stats.open_interest - stats.previous_open_interest,
            "changePct": round(_interest_percent(stats), 2),
        },
    }


def _moneyness(listing: Listing, money: int) -> str:
    if listing.strike == money:
        return "ATM"
    return "ITM" if (listing.strike < money) is (listing.option_type == "CE") else "OTM"


def _future_row(listing: Listing, stats: SessionStats) -> Row:
    """Return the row of a future; its values are text throughout."""
    expiry = listing.expiry
    return {
        "inst": {
            "neoSymbol": f"{listing.segment.value}|{listing.token}",
            "symbol": listing.symbol,
            "expiryDt": f"{expiry.day:02d}-{_MONTHS[expiry.month - 1]}-{expiry.year}"
            if expiry
            else "",
        },
        "quote": {
            "ltp": _two(stats.last_price),
            "o": _two(stats.open),
            "h": _two(stats.high),
            "l": _two(stats.low),
            "c": _two(stats.last_price),
            "pc": _two(listing.base_price),
            "vol": str(stats.volume),
        },
        "oi": {
            "cur": str(stats.open_interest),
            "prev": str(stats.previous_open_interest),
            "chg": str(stats.open_interest - stats.previous_open_interest),
            "chgPct": f"{_interest_percent(stats):.2f}",
        },
    }


def _interest_percent(stats: SessionStats) -> float:
    before = stats.previous_open_interest
    return 100 * (stats.open_interest - before) / before if before else 0.0


def _four(paise: int) -> str:
    return f"{paise / 100:.4f}"


def _two(paise: int) -> str:
    return f"{paise / 100:.2f}"
