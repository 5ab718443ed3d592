"""Searching scrip masters: by name, by symbol, by a contract in words, by any part of a text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TypeAlias

from neo_async.errors import UsageError
from neo_async.market_data.contract_query import read_contract
from neo_async.model.enums import Segment
from neo_async.model.indices import index_number
from neo_async.model.instrument_table import InstrumentTable, Wanted
from neo_async.model.instruments import Instrument
from neo_async.wire.values import check_day

ExpiryFilter: TypeAlias = date | str | tuple[date | str, date | str] | None
StrikeFilter: TypeAlias = float | tuple[float, float] | None


def search_tables(tables: list[InstrumentTable], name: str, wanted: Wanted) -> list[Instrument]:
    """Return the wanted instruments of a name, or of the nearest meaning that it has."""
    text = name.strip()
    for spelling in dict.fromkeys((text, text.upper())):
        found = _of_name(tables, spelling, wanted)
        found += _with_symbol(tables, spelling, wanted, found)
        if found or not text:
            return found
    return (
        _of_contract(tables, text, wanted)
        or _of_index(tables, text, wanted)
        or _mentioning(tables, text.upper(), wanted)
    )


def wanted_by(
    kind: str | None, expiry: ExpiryFilter, strike: StrikeFilter, option: str | None
) -> Wanted:
    """Return the conditions of a search. Raises UsageError for one that cannot be."""
    option_type = option.strip().upper() if isinstance(option, str) else option
    if option_type not in (None, "CE", "PE"):
        raise UsageError(f"option={option!r}: must be CE or PE")
    ends = expiry if isinstance(expiry, tuple) or expiry is None else (expiry, expiry)
    days = None if ends is None else (check_day("expiry", ends[0]), check_day("expiry", ends[1]))
    prices = strike if isinstance(strike, tuple) or strike is None else (strike, strike)
    return Wanted((kind or "").upper(), days, prices, option_type or "")


def _of_name(tables: list[InstrumentTable], text: str, wanted: Wanted) -> list[Instrument]:
    """Return the instruments of the name itself where any table has it, else of the names that
    start with it, the shortest name first."""
    named = [(table, full_name) for table in tables for full_name in table.names_like(text)]
    if any(full_name == text for _, full_name in named):
        named = [(table, full_name) for table, full_name in named if full_name == text]
    elif text:
        named.sort(key=lambda pair: (len(pair[1]), pair[1]))
    return [one for table, full_name in named for one in table.select(full_name, wanted)]


def _with_symbol(
    tables: Iterable[InstrumentTable], text: str, wanted: Wanted, found: list[Instrument]
) -> list[Instrument]:
    rows = (table.by_symbol_if(text, wanted) for table in tables)
    return [row for row in rows if row is not None and row not in found]


def _of_contract(tables: list[InstrumentTable], text: str, wanted: Wanted) -> list[Instrument]:
    """Return the instruments that a contract in words means; the other filters hold as well."""
    query = read_contract(text)
    if query is None:
        return []
    if query.strike is not None and wanted.strike is None:
        wanted = wanted._replace(strike=(query.strike, query.strike))
    return [
        one
        for one in _of_name(tables, query.name, wanted)
        if query.has_expiry(one)
        and query.strike in (None, one.strike)
        and one.kind.startswith(query.kind)
        and query.option_type in ("", one.option_type)
    ]


def _of_index(tables: list[InstrumentTable], text: str, wanted: Wanted) -> list[Instrument]:
    """Return an index by the broker's name of it, `Nifty 50`."""
    number = index_number(Segment.NSE_CM, text)
    found = (table.by_token(number) for table in tables if number is not None)
    return [
        one
        for one in found
        if one is not None and one.segment is Segment.NSE_CM and wanted == Wanted()
    ]


def _mentioning(tables: list[InstrumentTable], part: str, wanted: Wanted) -> list[Instrument]:
    """Return the instruments with a text, or with all of its words, in symbol or description:
    first those in which it begins a word."""
    found = [one for table in tables for one in table.mentioning(part, wanted)]
    if not found and len(words := part.split()) > 1:
        longest = max(words, key=len)
        found = [
            one
            for table in tables
            for one in table.mentioning(longest, wanted)
            if all(word in f"{one.symbol} {one.description.upper()}" for word in words)
        ]
    # Sorting is stable: within a rank, the order is that of the names.
    return sorted(found, key=lambda one: _rank(one, part))


def _rank(one: Instrument, part: str) -> int:
    if one.symbol.startswith(part):
        return 0
    return 1 if f" {part}" in f" {one.description.upper()}" else 2
