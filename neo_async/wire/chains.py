"""Option and futures chains over REST: the query of a request, and the rows of its answer.

Chains have some numbers in strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from neo_async.errors import ProtocolError, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.market import ChainRow, FutureQuote, FuturesChain, OptionChain, OptionQuote
from neo_async.wire.answers import failure, shown
from neo_async.wire.rows import check_row_count, read_object
from neo_async.wire.values import check_day, date_of, number_of, object_of, text_of, whole_of

CHAIN_STEP: Final = 10
"""The broker accepts only multiples of this as the `count` of a chain."""

_WITH_CHAINS: Final = (Segment.NSE_FO, Segment.BSE_FO, Segment.MCX_FO)

# Without control characters, and without halves of surrogate pairs, which no UTF-8 can carry.
_UNDERLYING: Final = re.compile(
    r"[^\s\x00-\x1f\x7f\ud800-\udfff]"
    r"(?:[^\x00-\x1f\x7f\ud800-\udfff]{0,98}[^\s\x00-\x1f\x7f\ud800-\udfff])?"
)


def expiries_query(segment: Segment | str, underlying: str, kind: str | None) -> dict[str, str]:
    """Return the query for the expiries of an underlying. Raises UsageError when a field breaks a
    rule."""
    query = _underlying_query(segment, underlying)
    if kind is not None:
        if kind not in ("option", "fut"):
            raise UsageError(f"kind={kind!r}: must be 'option' or 'fut'")
        query["instrument_type"] = kind
    return query


def options_query(
    segment: Segment | str, underlying: str, expiry: date | None, count: int
) -> dict[str, str]:
    """Return the query for an option chain. Raises UsageError when a field breaks a rule."""
    if type(count) is not int or count <= 0 or count % CHAIN_STEP:
        raise UsageError(f"count={count!r}: must be a multiple of {CHAIN_STEP} above 0")
    query = _underlying_query(segment, underlying) | {"instrument_type": "option"}
    return query | _expiry_query(expiry) | {"count": str(count)}


def futures_query(segment: Segment | str, underlying: str, expiry: date | None) -> dict[str, str]:
    """Return the query for a futures chain. Raises UsageError when a field breaks a rule."""
    query = _underlying_query(segment, underlying) | {"instrument_type": "fut"}
    return query | _expiry_query(expiry)


def _underlying_query(segment: Segment | str, underlying: str) -> dict[str, str]:
    if segment not in _WITH_CHAINS:
        codes = ", ".join(_WITH_CHAINS)
        raise UsageError(f"segment={str(segment)!r}: must be one of {codes}")
    if not isinstance(underlying, str) or not _UNDERLYING.fullmatch(underlying):
        raise UsageError(f"underlying={underlying!r}: must be a name such as 'NIFTY'")
    return {"exchange": str(segment), "underlying": underlying}


def _expiry_query(expiry: date | None) -> dict[str, str]:
    if expiry is None:
        return {}
    return {"expiry": check_day("expiry", expiry).isoformat()}


def read_expiries(answer: Answer) -> list[date]:
    """Return the expiries of `GET /market-data/1.0/watchlist/expiries`, ascending.

    Raises ProtocolError for a text that is not a date.
    """
    listed = read_object(answer).get("expiries")
    if not isinstance(listed, list):
        raise failure(answer)
    days = set()
    for text in listed:
        day = date_of(text)
        if day is None:
            raise ProtocolError(
                f"expiry {shown(text)} is not a date such as 2026-06-25",
                status=answer.status,
            )
        days.add(day)
    return sorted(days)


def read_options(
    answer: Answer, *, segment: str, underlying: str, expiry: date | None
) -> OptionChain:
    """Return the options of `GET /market-data/1.0/watchlist/option-chain`.

    An option without instrument or strike is left out, and described in the chain's `odd`. Raises
    ProtocolError when no option is left.
    """
    content, common = _chain(answer, ("call", "put"))
    sides: dict[str, dict[float, OptionQuote]] = {"call": {}, "put": {}}
    odd = []
    for side, options in sides.items():
        for number, row in enumerate(_rows(content.get(side), answer), start=1):
            identity = object_of(row.get("instrument") or row.get("inst"))
            strike = number_of(identity.get("strikePrice"))
            instrument = text_of(identity.get("neoSymbol"))
            if strike is None or not instrument:
                odd.append(f"{side} {number} has no instrument and strike: {shown(identity)}")
                continue
            option = OptionQuote(
                instrument=instrument,
                symbol=text_of(identity.get("symbol")),
                moneyness=text_of(identity.get("moneyness")),
                **_figures(row),
            )
            options.setdefault(strike, option)
    calls, puts = sides.values()
    _check_some(odd, [*calls, *puts], answer)
    return OptionChain(
        segment=text_of(common.get("exSeg")) or segment,
        underlying=text_of(common.get("unlSymbol")) or underlying,
        expiry=date_of(common.get("expiryDt")) or expiry,
        lot_size=whole_of(common.get("mktLot")),
        multiplier=number_of(common.get("multiplier")),
        rows=[
            ChainRow(strike, calls.get(strike), puts.get(strike))
            for strike in sorted(calls.keys() | puts.keys())
        ],
        odd=tuple(odd),
    )


def read_futures(answer: Answer, *, segment: str, underlying: str) -> FuturesChain:
    """Return the futures of `GET /market-data/1.0/watchlist/option-chain`.

    A contract without instrument is left out, and described in the chain's `odd`. Raises
    ProtocolError when no contract is left.
    """
    content, common = _chain(answer, ("fut",))
    futures = []
    odd = []
    for number, row in enumerate(_rows(content.get("fut"), answer), start=1):
        identity = object_of(row.get("inst") or row.get("instrument"))
        instrument = text_of(identity.get("neoSymbol"))
        if not instrument:
            odd.append(f"future {number} has no instrument: {shown(identity)}")
            continue
        futures.append(
            FutureQuote(
                instrument=instrument,
                symbol=text_of(identity.get("symbol")),
                expiry=date_of(identity.get("expiryDt")),
                **_figures(row),
            )
        )
    _check_some(odd, futures, answer)
    return FuturesChain(
        segment=text_of(common.get("exSeg")) or segment,
        underlying=text_of(common.get("unlSymbol")) or underlying,
        lot_size=whole_of(common.get("mktLot")),
        multiplier=number_of(common.get("multiplier")),
        rows=sorted(futures, key=lambda future: future.expiry or date.max),
        odd=tuple(odd),
    )


def _check_some(odd: list[str], read: Sequence[object], answer: Answer) -> None:
    """Raise ProtocolError when every contract was left out."""
    if odd and not read:
        raise ProtocolError(f"the chain cannot be read: {odd[0]}", status=answer.status)


def _chain(
    answer: Answer, parts: tuple[str, ...]
) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return the object of the chain, and the object with the fields that its contracts share."""
    content = read_object(answer)
    if "common_data" not in content and not any(part in content for part in parts):
        raise failure(answer)
    return content, object_of(content.get("common_data"))


def _rows(rows: object, answer: Answer) -> Iterator[Mapping[str, object]]:
    if rows is None:
        return
    if not isinstance(rows, list):
        raise ProtocolError("the chain is not a list of objects", status=answer.status)
    check_row_count(rows, answer)
    yield from map(object_of, rows)


def _figures(row: Mapping[str, object]) -> dict[str, Any]:
    """Return prices and open interest of a contract. Options have long field names, futures short
    ones."""
    quote = object_of(row.get("quote"))
    interest = object_of(row.get("openInterest") or row.get("oi"))
    return {
        "last_price": number_of(quote.get("ltp")),
        "open": number_of(quote.get("open", quote.get("o"))),
        "high": number_of(quote.get("high", quote.get("h"))),
        "low": number_of(quote.get("low", quote.get("l"))),
        "previous_close": number_of(quote.get("prevClose", quote.get("pc"))),
        "close": number_of(quote.get("close", quote.get("c"))),
        "volume": whole_of(quote.get("volume", quote.get("vol"))),
        "open_interest": whole_of(interest.get("current", interest.get("cur"))),
        "previous_open_interest": whole_of(interest.get("previous", interest.get("prev"))),
        "open_interest_change": whole_of(interest.get("change", interest.get("chg"))),
        "open_interest_change_percent": number_of(
            interest.get("changePct", interest.get("chgPct"))
        ),
    }
