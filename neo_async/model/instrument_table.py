"""A whole scrip master in memory: columns, ways to find a row, instruments built when asked for."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import accumulate, islice
from operator import sub
from typing import Any, Final, NamedTuple

from neo_async.model.instruments import Instrument, Rows, Shared, Texts

_NO_ROW: Final = -1
_NO_EXPIRY: Final = 0

_INDEX_PART: Final = 40_000
"""Texts in one dict. It grows for the last time at half of that, within a millisecond; to grow to a
hundred thousand, it would hold the loop for several."""


class Wanted(NamedTuple):
    """What a search asks of a row beside its name."""

    kind: str = ""
    """Start of its kind: `OPT`, `FUTIDX`; empty for any."""
    expiry: tuple[date, date] | None = None
    """First and last."""
    strike: tuple[float, float] | None = None
    """Lowest and highest."""
    option_type: str = ""


class InstrumentTable:
    """The instruments of one file, in its order.

    Kept as columns, 200,000 instruments in under 100 MB; an Instrument is built when it is first
    asked for. Rows are only ever added.
    """

    def __init__(self) -> None:
        self.shared: list[Shared] = []
        self._tails: list[tuple[Any, ...]] = []
        """Of each Shared, what an Instrument ends with."""
        self._expiry_of: list[int] = []
        """Of each Shared, as an ordinal."""
        self._tokens: list[str] = []
        self._symbols: list[str] = []
        self._names: list[str] = []
        self._descriptions = _Texts()
        self._isins = _Texts()
        self._shared_of = array("I")
        self._strikes = array("d")
        self._lower_bands = array("d")
        self._upper_bands = array("d")
        self._freeze_quantities = array("q")
        self._by_token = _Index()
        self._by_symbol = _Index()
        self._expiries: dict[str, list[int]] = {}
        """Every name, and its expiries; empty where there is none."""
        self._last: dict[str | tuple[str, int], int] = {}
        """The row that was added last with a name and, where it has one, expiry …"""
        self._before = array("i")
        """… and of each row the one before it with the same."""
        self._built: dict[int, Instrument] = {}
        self._name_lines = ""
        self._symbol_lines = ""

    # --- filling ------------------------------------------------------------------------------

    def share(self, shared: Shared) -> int:
        """Add what rows will have in common, and return its place."""
        self.shared.append(shared)
        self._tails.append(tuple(shared[:-1]))
        self._expiry_of.append(shared.expiry.toordinal() if shared.expiry else _NO_EXPIRY)
        return len(self.shared) - 1

    def add(self, rows: Rows) -> None:
        """Add rows, whose tokens must be new; of rows with one symbol, the first is found by it.

        Raises ValueError, and adds nothing, when the columns are not of one length or a row shares
        what is not there.
        """
        count = len(rows.tokens)
        descriptions, isins = rows.descriptions, rows.isins
        columns = (*rows[:3], descriptions.lengths, isins.lengths, *rows[5:])
        if any(len(column) != count for column in columns):
            raise ValueError("columns of different lengths")
        if any(sum(texts.lengths) != len(texts.content) for texts in (descriptions, isins)):
            raise ValueError("texts of other lengths")
        if count and max(rows.shared) >= len(self.shared):
            raise ValueError("a row shares what is not there")
        places = list(range(len(self._tokens), len(self._tokens) + count))
        self._by_token.add(rows.tokens, places)
        self._by_symbol.add(rows.symbols, places)
        self._tokens += rows.tokens
        self._symbols += rows.symbols
        self._descriptions.extend(rows.descriptions)
        self._isins.extend(rows.isins)
        self._shared_of.extend(rows.shared)
        self._strikes.extend(rows.strikes)
        self._lower_bands.extend(rows.lower_bands)
        self._upper_bands.extend(rows.upper_bands)
        self._freeze_quantities.extend(rows.freeze_quantities)
        self._link(rows.names, rows.shared, places)
        self._name_lines = self._symbol_lines = ""

    def _link(self, names: Sequence[str], shared: Sequence[int], rows: Sequence[int]) -> None:
        last, before, expiry_of, kept = self._last, self._before, self._expiry_of, self._names
        for name, place, row in zip(names, shared, rows, strict=True):
            expiry = expiry_of[place]
            key: str | tuple[str, int] = (name, expiry) if expiry else name
            earlier = last.get(key, _NO_ROW)
            if earlier == _NO_ROW:
                expiries = self._expiries.setdefault(name, [])
                if expiry:
                    expiries.append(expiry)
            else:
                name = kept[earlier]  # one object for equal names
            before.append(earlier)
            kept.append(name)
            last[key] = row

    # --- one instrument -----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Instrument]:
        """In the order of the file, built anew."""
        return map(self._build, range(len(self)))

    def has_token(self, token: str) -> bool:
        return self._by_token.get(token) is not None

    def by_token(self, token: str) -> Instrument | None:
        row = self._by_token.get(token)
        return None if row is None else self._built.get(row) or self._instrument(row)

    def by_symbol(self, symbol: str) -> Instrument | None:
        row = self._by_symbol.get(symbol)
        return None if row is None else self._built.get(row) or self._instrument(row)

    def by_symbol_if(self, symbol: str, wanted: Wanted) -> Instrument | None:
        row = self._by_symbol.get(symbol)
        return self._instrument(row) if row is not None and self._is_wanted(row, wanted) else None

    def _instrument(self, row: int) -> Instrument:
        instrument = self._built.get(row)
        if instrument is None:
            instrument = self._built[row] = self._build(row)
        return instrument

    def _build(self, row: int) -> Instrument:
        place = self._shared_of[row]
        strike, lower, upper = self._strikes[row], self._lower_bands[row], self._upper_bands[row]
        return Instrument(
            self.shared[place].segment,
            self._tokens[row],
            self._symbols[row],
            self._names[row],
            self._descriptions[row],
            self._isins[row],
            strike if strike == strike else None,  # NaN alone differs from itself
            self._freeze_quantities[row] or None,
            lower if lower == lower else None,
            upper if upper == upper else None,
            *self._tails[place],
        )

    # --- many ---------------------------------------------------------------------------------

    def names_like(self, text: str) -> list[str]:
        """The name that the text is, or else those that start with it."""
        if text in self._expiries:
            return [text]
        if not self._name_lines:
            self._name_lines = _lines(self._expiries)
        return list(_lines_from(self._name_lines, text))

    def expiries(self, name: str, kind: str = "") -> list[date]:
        """Those of a name's instruments whose kind starts so, ascending."""
        return [
            date.fromordinal(expiry)
            for expiry in sorted(self._expiries.get(name, ()))
            if any(self._kind(row).startswith(kind) for row in self._rows_like((name, expiry)))
        ]

    def select(self, name: str, wanted: Wanted) -> list[Instrument]:
        """Instruments of a name, by expiry, strike and option type."""
        rows = [row for row in self._rows_of(name, wanted) if self._is_wanted(row, wanted)]
        return self._in_order(rows)

    def mentioning(self, text: str, wanted: Wanted) -> list[Instrument]:
        """Instruments with a text anywhere in symbol or description."""
        if not self._symbol_lines:
            self._symbol_lines = _lines(self._symbols)
        symbols = _lines_with(self._symbol_lines, text)
        rows = {row for row in map(self._by_symbol.get, symbols) if row is not None}
        rows.update(self._descriptions.rows_with(text))
        return self._in_order([row for row in rows if self._is_wanted(row, wanted)])

    def _rows_of(self, name: str, wanted: Wanted) -> Iterator[int]:
        expiries = self._expiries.get(name, [])
        keys: list[str | tuple[str, int]]
        if wanted.expiry is None:
            keys = [name, *((name, expiry) for expiry in expiries)]
        else:
            first, last = (day.toordinal() for day in wanted.expiry)
            keys = [(name, expiry) for expiry in expiries if first <= expiry <= last]
        for key in keys:
            yield from self._rows_like(key)

    def _rows_like(self, key: str | tuple[str, int]) -> Iterator[int]:
        row = self._last.get(key, _NO_ROW)
        while row != _NO_ROW:
            yield row
            row = self._before[row]

    def _kind(self, row: int) -> str:
        return self.shared[self._shared_of[row]].kind

    def _is_wanted(self, row: int, wanted: Wanted) -> bool:
        if wanted.strike is not None:
            low, high = wanted.strike
            if not low <= self._strikes[row] <= high:
                return False
        shared = self.shared[self._shared_of[row]]
        if wanted.expiry is not None:
            first, last = wanted.expiry
            if shared.expiry is None or not first <= shared.expiry <= last:
                return False
        if wanted.option_type and shared.option_type != wanted.option_type:
            return False
        return shared.kind.startswith(wanted.kind)

    def _in_order(self, rows: Iterable[int]) -> list[Instrument]:
        def key(row: int) -> tuple[str, int, float, str, int]:
            place, strike = self._shared_of[row], self._strikes[row]
            option = self.shared[place].option_type
            is_option = not math.isnan(strike)
            return (
                self._names[row],
                self._expiry_of[place],
                strike if is_option else -1.0,
                option,
                row,
            )

        return [self._instrument(row) for row in sorted(rows, key=key)]

    # --- a copy -------------------------------------------------------------------------------

    def rows(self, start: int, stop: int) -> Rows:
        """Rows as they can be added to another table that shares the same."""
        return Rows(
            self._tokens[start:stop],
            self._symbols[start:stop],
            self._names[start:stop],
            self._descriptions.slice(start, stop),
            self._isins.slice(start, stop),
            self._shared_of[start:stop],
            self._strikes[start:stop],
            self._lower_bands[start:stop],
            self._upper_bands[start:stop],
            self._freeze_quantities[start:stop],
        )


class _Index:
    """Rows by a text of theirs; of several with one text, the first."""

    def __init__(self) -> None:
        self._parts: list[dict[str, int]] = [{}]

    def add(self, texts: Sequence[str], rows: Sequence[int]) -> None:
        if len(self._parts[-1]) + len(texts) > _INDEX_PART:
            self._parts.append({})
        deque(map(self._parts[-1].setdefault, texts, rows), maxlen=0)

    def get(self, text: str) -> int | None:
        for part in self._parts:
            row = part.get(text)
            if row is not None:
                return row
        return None


class _Texts:
    """Texts that are seldom asked for, in one piece of memory: as objects, each would take fifty
    bytes more."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("I", [0])

    def extend(self, texts: Texts) -> None:
        start = len(self._bytes)
        self._bytes += texts.content
        self._ends.extend(islice(accumulate(texts.lengths, initial=start), 1, None))

    def slice(self, start: int, stop: int) -> Texts:
        ends = self._ends[start : stop + 1]
        return Texts(bytes(self._bytes[ends[0] : ends[-1]]), list(map(sub, ends[1:], ends)))

    def __getitem__(self, row: int) -> str:
        start, end = self._ends[row], self._ends[row + 1]
        return self._bytes[start:end].decode() if end > start else ""

    def rows_with(self, part: str) -> Iterator[int]:
        """Rows whose text contains a part, ascending."""
        wanted = part.encode()
        at = self._bytes.find(wanted)
        while at >= 0:
            row = bisect_right(self._ends, at) - 1
            end = self._ends[row + 1]
            if at + len(wanted) <= end:
                yield row
                at = self._bytes.find(wanted, end)
            else:  # the end of one text and the start of the next
                at = self._bytes.find(wanted, at + 1)


def _lines(texts: Iterable[str]) -> str:
    """One piece of text, which is searched at the speed of memory."""
    return "\n".join(("", *texts, ""))


def _lines_from(lines: str, start: str) -> Iterator[str]:
    """The lines that start so."""
    at = lines.find(f"\n{start}")
    while at >= 0 and at + 1 < len(lines):
        end = lines.index("\n", at + 1)
        yield lines[at + 1 : end]
        at = lines.find(f"\n{start}", end)


def _lines_with(lines: str, part: str) -> Iterator[str]:
    """The lines that contain a part."""
    at = lines.find(part)
    while at >= 0:
        end = lines.find("\n", at)
        yield lines[lines.rindex("\n", 0, at) + 1 : end]
        at = lines.find(part, end)
