"""The right names that are nearest to a wrong one: `ITBEES` is a name, `ITBEES-EQ` its symbol.

Every step is a look-up of few texts in the indexes of a scrip master, not a comparison with each of
its rows, so that it takes a few milliseconds in the largest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from neo_async.model.instrument_table import InstrumentTable
from neo_async.model.instruments import Instrument

_MOST: Final = 3
"""Most names that are suggested."""
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&-"
_LONGEST: Final = 20
"""Longest name that is corrected by one letter, in characters."""
_SHORTEST_START: Final = 3
"""Fewest characters that a name must have in common with the text."""

_SHARES: Final = ("EQ", "BE", "BZ", "SM", "ST", "SZ")
"""Series of shares and funds at NSE, in which a company or fund has one instrument."""
_BLOCK_DEALS: Final = "BL"
"""Series of the block deal window, which takes no ordinary orders."""


def did_you_mean(text: str, tables: Iterable[InstrumentTable]) -> str:
    """Return `did you mean ITBEES-EQ (token 19084)?`; empty when no name is near."""
    found = nearest_instruments(text, tables)
    if not found:
        return ""
    named = [f"{one.symbol} (token {one.token})" for one in found]
    return f"did you mean {_either(named)}?"


def nearest_instruments(text: str, tables: Iterable[InstrumentTable]) -> list[Instrument]:
    """Return the instruments whose symbol or name is nearest to a text, the nearest first."""
    plain = text.strip().upper()
    edits = list(_edits(plain.partition("-")[0]))
    tables = list(tables)
    for nearer in (_of_this_name, _one_letter_off, _contracts_of_the_same_start, _of_a_near_start):
        found = {one.key: one for table in tables for one in nearer(table, plain, edits)}
        if found:
            return list(found.values())[:_MOST]
    return []


def nearest_underlyings(text: str, tables: Iterable[InstrumentTable]) -> list[str]:
    """Return the underlyings of contracts whose name is nearest to a text."""
    plain = text.strip().upper()
    tables = list(tables)
    found = {
        name: None
        for name in (plain, *_edits(plain))
        for table in tables
        if table.has_name(name) and table.expiries(name)
    }
    if not found:
        starts = (name for table in tables for name in table.names_like(plain[:_SHORTEST_START]))
        found = dict.fromkeys(
            name for name in starts if any(table.expiries(name) for table in tables)
        )
    return list(found)[:_MOST]


def ordinary(instruments: Iterable[Instrument]) -> list[Instrument]:
    """Return those that an order by the name alone may mean: the share, where a company has bonds
    as well, and nothing of the block deal window."""
    kept = [one for one in instruments if one.series != _BLOCK_DEALS]
    return [one for one in kept if one.series in _SHARES] or kept


def _of_this_name(table: InstrumentTable, text: str, edits: Sequence[str]) -> Iterator[Instrument]:
    yield from ordinary(table.without_expiry(text))
    if "-" in text:  # a share in another series: `RELIANCE-BE`
        yield from ordinary(table.without_expiry(text.rpartition("-")[0]))


def _one_letter_off(
    table: InstrumentTable, text: str, edits: Sequence[str]
) -> Iterator[Instrument]:
    _, separator, series = text.partition("-")
    for edited in edits:
        if table.has_name(edited):
            one = table.by_symbol(f"{edited}{separator}{series}")
            yield from ordinary(table.without_expiry(edited)) if one is None else [one]


def _contracts_of_the_same_start(
    table: InstrumentTable, text: str, edits: Sequence[str]
) -> Iterator[Instrument]:
    """Yield contracts of the underlying with which a text begins, those first that have most of
    the text in common: `NIFTY26DEC24500CE` for `NIFTY26DEC24525CE`."""
    if not any(map(str.isdigit, text)):
        return
    starts = (text[:length] for length in range(len(text) - 1, 1, -1))
    name = next((start for start in starts if table.has_name(start)), None)
    if name is None:
        return

    symbols = list(table.symbols_of(name))
    for length in range(len(text), len(name), -1):
        near = [symbol for symbol in symbols if symbol.startswith(text[:length])]
        if near:
            near.sort(key=lambda symbol: (symbol[-2:] != text[-2:], symbol))
            contracts = filter(None, map(table.by_symbol, near[:_MOST]))
            yield from (one for one in contracts if one.expiry is not None)
            return


def _of_a_near_start(
    table: InstrumentTable, text: str, edits: Sequence[str]
) -> Iterator[Instrument]:
    """Yield instruments whose names have the longest start in common with the text."""
    stem = text.partition("-")[0]
    low, high = _SHORTEST_START - 1, len(stem)
    while low < high:  # a longer start is never found where a shorter one is not
        middle = (low + high + 1) // 2
        if table.names_starting(stem[:middle], 1):
            low = middle
        else:
            high = middle - 1
    # Less than half of the text in common is no likeness.
    if low < max(_SHORTEST_START, (len(stem) + 1) // 2):
        return
    for name in sorted(table.names_like(stem[:low]), key=lambda one: (len(one), one))[:_MOST]:
        yield from ordinary(table.without_expiry(name))


def _edits(text: str) -> Iterator[str]:
    """Yield every text that differs by one letter: one too many, two swapped, one wrong, one
    missing."""
    if not 1 < len(text) <= _LONGEST:
        return
    cuts = [(text[:place], text[place:]) for place in range(len(text) + 1)]
    yield from (left + right[1:] for left, right in cuts if right)
    yield from (left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1)
    yield from (left + one + right for left, right in cuts for one in _LETTERS)
    yield from (left + one + right[1:] for left, right in cuts if right for one in _LETTERS)


def _either(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
