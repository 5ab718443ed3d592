"""A scrip master in memory: columns, indexes, and instruments that are built on first use."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import accumulate, chain, islice
from operator import sub
from typing import Any, Final, NamedTuple

from neo_async.model.instruments import Instrument, Rows, Shared, Texts

_NO_ROW: Final = -1
_NO_EXPIRY: Final = 0

_INDEX_PART: Final = 40_000
"""Texts in one dict. Its last resize, at half of that, takes below a millisecond; a dict of a
hundred thousand would block the event loop for several."""

_TUPLE: Final = 1_000
"""Number of texts in one tuple."""


class Wanted(NamedTuple):
    """Conditions of a search, beside the name."""

    kind: str = ""
    """Prefix of the kind: `OPT`, `FUTIDX`; empty for any."""
    expiry: tuple[date, date] | None = None
    """First and last expiry; None for any."""
    strike: tuple[float, float] | None = None
    """Lowest and highest strike; None for any."""
    option_type: str = ""


class InstrumentTable:
    """The instruments of one scrip master, in its order.

    As columns, 200,000 instruments take under 100 MB; an Instrument is built on first use. Rows are
    only ever added.
    """

    def __init__(self) -> None:
        self.shared: list[Shared] = []
        self._tails: list[tuple[Any, ...]] = []
        """The last fields of an Instrument, by index of its Shared."""
        self._expiry_of: list[int] = []
        """The expiry as an ordinal, by index of its Shared."""
        self._tokens = _Strings()
        self._symbols = _Strings()
        self._names = _Strings()
        """Names by row; only the first row with a name has it, the others have an empty text."""
        self._descriptions = _Texts()
        self._isins = _Texts()
        self._shared_of = array("I")
        self._strikes = array("d")
        self._lower_bands = array("d")
        self._upper_bands = array("d")
        self._freeze_quantities = array("q")
        self._by_token = _Index()
        self._by_symbol = _Index()
        self._by_name = _Index()
        self._first = array("i")
        """First row with the same name, by row."""
        self._next = array("i")
        """Next row with the same name, by row; -1 for the last one."""
        self._last = array("i")
        """Last row with the same name, by first row."""
        self._ladders: dict[str, dict[int, list[int]]] = {}
        """Sorted rows by name and expiry; built when a name is first searched."""
        self._built: dict[int, Instrument] = {}
        self._name_lines = ""
        self._symbol_lines: list[str] = []
        """Symbols of each thousand rows as one text, for searches in all of them."""

    # --- filling ------------------------------------------------------------------------------

    def share(self, shared: Shared) -> int:
        """Add fields that rows share, and return their index."""
        self.shared.append(shared)
        self._tails.append(tuple(shared[:-1]))
        self._expiry_of.append(shared.expiry.toordinal() if shared.expiry else _NO_EXPIRY)
        return len(self.shared) - 1

    def add(self, rows: Rows) -> None:
        """Add rows with new tokens. Of several rows with one symbol, lookups return the first.

        Raises ValueError, and adds nothing, when the columns differ in length or a row refers to a
        Shared that does not exist.
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
        self._tokens.extend(rows.tokens)
        self._symbols.extend(rows.symbols)
        self._descriptions.extend(rows.descriptions)
        self._isins.extend(rows.isins)
        self._shared_of.extend(rows.shared)
        self._strikes.extend(rows.strikes)
        self._lower_bands.extend(rows.lower_bands)
        self._upper_bands.extend(rows.upper_bands)
        self._freeze_quantities.extend(rows.freeze_quantities)
        self._add_names(rows.names, places)
        self._symbol_lines += map(_lines, self._symbols.full(len(self._symbol_lines)))
        self._name_lines = ""
        self._ladders.clear()

    def _add_names(self, names: Sequence[str], rows: Sequence[int]) -> None:
        firsts = self._by_name.add(names, rows)
        self._first.extend(firsts)
        self._next.extend([_NO_ROW] * len(rows))
        self._last.extend(rows)
        kept, following, last = list(names), self._next, self._last
        for place, (row, first) in enumerate(zip(rows, firsts, strict=True)):
            if row != first:
                kept[place] = ""
                following[last[first]] = row
                last[first] = row
        self._names.extend(kept)

    def _name(self, row: int) -> str:
        return self._names[self._first[row]]

    # --- one instrument -----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Instrument]:
        """Yield every instrument in the order of the file, without caching it."""
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
        # The columns are read directly: a method call for each would take as long as all the rest.
        place = self._shared_of[row]
        strike, lower, upper = self._strikes[row], self._lower_bands[row], self._upper_bands[row]
        part, rest = divmod(row, _TUPLE)
        name_part, name_rest = divmod(self._first[row], _TUPLE)
        return Instrument(
            self.shared[place].segment,
            self._tokens.parts[part][rest],
            self._symbols.parts[part][rest],
            self._names.parts[name_part][name_rest],
            self._descriptions[row],
            self._isins[row],
            strike if strike == strike else None,  # NaN alone differs from itself
            self._freeze_quantities[row] or None,
            lower if lower == lower else None,
            upper if upper == upper else None,
            *self._tails[place],
        )

    def without_expiry(self, name: str) -> list[Instrument]:
        """Return the instruments of a name that are no contracts: shares, bonds, indices."""
        return [self._instrument(row) for row in self._ladder(name).get(_NO_EXPIRY, ())]

    # --- many ---------------------------------------------------------------------------------

    def has_name(self, name: str) -> bool:
        return self._by_name.get(name) is not None

    def symbols_of(self, name: str) -> Iterator[str]:
        """Yield the symbols of every instrument of a name, in the order of the file."""
        return map(self._symbols.__getitem__, self._rows_of(name))

    def names_starting(self, text: str, most: int) -> list[str]:
        """Return some names that start with a text, at most so many."""
        return list(islice(self._names_from(text), most))

    def names_like(self, text: str) -> list[str]:
        """Return the name that equals the text, or else the names that start with it."""
        if self._by_name.get(text) is not None:
            return [text]
        return list(self._names_from(text))

    def _names_from(self, text: str) -> Iterator[str]:
        if not self._name_lines:
            self._name_lines = _lines(self._by_name)
        return _lines_from(self._name_lines, text)

    def expiries(self, name: str, kind: str = "") -> list[date]:
        """Return the expiries of a name's instruments with this prefix of the kind, ascending."""
        return [
            date.fromordinal(expiry)
            for expiry, rows in self._ladder(name).items()
            if expiry != _NO_EXPIRY and any(self._kind(row).startswith(kind) for row in rows)
        ]

    def select(self, name: str, wanted: Wanted) -> list[Instrument]:
        """Return the wanted instruments of a name, by expiry, strike and option type."""
        first, last = _NO_EXPIRY, date.max.toordinal()
        if wanted.expiry is not None:
            first, last = (day.toordinal() for day in wanted.expiry)
        return [
            self._instrument(row)
            for expiry, rows in self._ladder(name).items()
            if first <= expiry <= last
            for row in self._between(rows, wanted.strike)
            if self._is_wanted(row, wanted)
        ]

    def mentioning(self, text: str, wanted: Wanted) -> list[Instrument]:
        """Return the wanted instruments with a text anywhere in symbol or description."""
        lines = (*self._symbol_lines, _lines(self._symbols.parts[-1]))
        symbols = (symbol for part in lines for symbol in _lines_with(part, text))
        rows = {row for row in map(self._by_symbol.get, symbols) if row is not None}
        rows.update(self._descriptions.rows_with(text))
        found = [row for row in rows if self._is_wanted(row, wanted)]
        found.sort(key=lambda row: (self._name(row), *self._rung(row)))
        return [self._instrument(row) for row in found]

    def _ladder(self, name: str) -> dict[int, list[int]]:
        """Return the rows of a name by ascending expiry, and within one by strike and type."""
        ladder = self._ladders.get(name)
        if ladder is None:
            ladder = {}
            for row in sorted(self._rows_of(name), key=self._rung):
                ladder.setdefault(self._expiry_of[self._shared_of[row]], []).append(row)
            if ladder:
                self._ladders[name] = ladder
        return ladder

    def _between(self, rows: list[int], strikes: tuple[float, float] | None) -> list[int]:
        """Return the rows whose strike is in the range."""
        if strikes is None:
            return rows
        low, high = strikes
        start = bisect_left(rows, low, key=self._strike)
        return rows[start : bisect_right(rows, high, lo=start, key=self._strike)]

    def _strike(self, row: int) -> float:
        """Return the strike of a row; -1 for none, so that futures come before options."""
        strike = self._strikes[row]
        return -1.0 if math.isnan(strike) else strike

    def _rows_of(self, name: str) -> Iterator[int]:
        for first in self._by_name.all(name):
            row = first
            while row != _NO_ROW:
                yield row
                row = self._next[row]

    def _rung(self, row: int) -> tuple[int, float, str, int]:
        place = self._shared_of[row]
        return self._expiry_of[place], self._strike(row), self.shared[place].option_type, row

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

    # --- a copy -------------------------------------------------------------------------------

    def rows(self, start: int, stop: int) -> Rows:
        """Return rows in the form that `add` takes, for a table with the same Shared."""
        return Rows(
            self._tokens.slice(start, stop),
            self._symbols.slice(start, stop),
            [self._names[first] for first in self._first[start:stop]],
            self._descriptions.slice(start, stop),
            self._isins.slice(start, stop),
            self._shared_of[start:stop],
            self._strikes[start:stop],
            self._lower_bands[start:stop],
            self._upper_bands[start:stop],
            self._freeze_quantities[start:stop],
        )


class _Index:
    """An index from a text to a row, in several dicts. Each dict keeps the first row of a text."""

    def __init__(self) -> None:
        self._parts: list[dict[str, int]] = [{}]

    def add(self, texts: Sequence[str], rows: Sequence[int]) -> list[int]:
        """Add texts, and return the indexed row of each: its own, or an earlier one."""
        if len(self._parts[-1]) + len(texts) > _INDEX_PART:
            self._parts.append({})
        return list(map(self._parts[-1].setdefault, texts, rows))

    def get(self, text: str) -> int | None:
        for part in self._parts:
            row = part.get(text)
            if row is not None:
                return row
        return None

    def all(self, text: str) -> list[int]:
        return [part[text] for part in self._parts if text in part]

    def __iter__(self) -> Iterator[str]:
        """Yield every text once."""
        return iter(dict.fromkeys(chain.from_iterable(self._parts)))


class _Strings:
    """A column of texts that are read often.

    They are in tuples, which the garbage collector stops tracking when they hold nothing but texts.
    Lists of a hundred thousand texts would cost each full collection, and so the event loop,
    milliseconds.
    """

    def __init__(self) -> None:
        self._rest: list[str] = []
        self.parts: list[Sequence[str]] = [self._rest]
        """Parts of a thousand texts each; the last one has the rest."""

    def __len__(self) -> int:
        return (len(self.parts) - 1) * _TUPLE + len(self._rest)

    def __getitem__(self, row: int) -> str:
        part, rest = divmod(row, _TUPLE)
        return self.parts[part][rest]

    def full(self, start: int) -> list[Sequence[str]]:
        """Return the full parts from `start` on."""
        return self.parts[start:-1]

    def extend(self, texts: Iterable[str]) -> None:
        self._rest += texts
        while len(self._rest) >= _TUPLE:
            self.parts.insert(-1, tuple(self._rest[:_TUPLE]))
            del self._rest[:_TUPLE]

    def slice(self, start: int, stop: int) -> list[str]:
        return [self[row] for row in range(start, min(stop, len(self)))]


class _Texts:
    """A column of texts that are seldom read, in one block of memory: as objects, each would take
    fifty bytes more."""

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
        ends = self._ends
        start, end = ends[row], ends[row + 1]
        return self._bytes[start:end].decode() if end > start else ""

    def rows_with(self, part: str) -> Iterator[int]:
        """Yield the rows whose text contains a part, ascending."""
        wanted = part.encode()
        at = self._bytes.find(wanted)
        while at >= 0:
            row = bisect_right(self._ends, at) - 1
            end = self._ends[row + 1]
            if at + len(wanted) <= end:
                yield row
                at = self._bytes.find(wanted, end)
            else:  # found across the end of one text and the start of the next
                at = self._bytes.find(wanted, at + 1)


def _lines(texts: Iterable[str]) -> str:
    """Join texts by line ends, so that one `find` searches them all at the speed of memory."""
    return "\n".join(("", *texts, ""))


def _lines_from(lines: str, start: str) -> Iterator[str]:
    """Yield the lines that start with a text."""
    at = lines.find(f"\n{start}")
    while at >= 0 and at + 1 < len(lines):
        end = lines.index("\n", at + 1)
        yield lines[at + 1 : end]
        at = lines.find(f"\n{start}", end)


def _lines_with(lines: str, part: str) -> Iterator[str]:
    """Yield the lines that contain a part."""
    at = lines.find(part)
    while at >= 0:
        end = lines.find("\n", at)
        yield lines[lines.rindex("\n", 0, at) + 1 : end]
        at = lines.find(part, end)
