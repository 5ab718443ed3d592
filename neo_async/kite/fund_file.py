"""Read the list of funds: CSV, gzipped or not, in pieces of any size."""

from __future__ import annotations

import csv
import io
import logging
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from typing import Final, TypeVar

import msgspec

from neo_async.base import logs
from neo_async.errors import BODY_EXCERPT, ProtocolError
from neo_async.kite.model import Fund
from neo_async.kite.wire import read_number

T = TypeVar("T")

log = logging.getLogger(logs.KITE)

_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_PIECE: Final = 16_384
"""Bytes of CSV that are read in one step: about a millisecond."""
_LONGEST: Final = 32 * 1024 * 1024
"""Largest list in bytes, compressed and inflated; Kite's has some megabytes."""
_LONGEST_ROW: Final = 65_536
_REQUIRED: Final = frozenset(field.name for field in msgspec.structs.fields(Fund) if field.required)
_NUMBERS: Final = tuple(field.name for field in msgspec.structs.fields(Fund) if field.type is float)


class FundFileReader:
    """Reads a list of funds: `feed` it the pieces in their order, then call `finish`."""

    def __init__(self) -> None:
        self.funds: list[Fund] = []
        self.bad_row_count = 0
        """Number of unreadable rows, which were left out."""
        self._columns: list[str] = []
        self._inflater: zlib._Decompress | None = None
        self._has_begun = False
        self._rest = b""
        self._came = 0
        self._inflated = 0
        self._odd_values = 0
        """Number of unreadable values in rows that were kept."""

    def feed(self, piece: bytes) -> Iterator[None]:
        """Read a piece, in steps of about a millisecond each.

        Raises ProtocolError when it is not a list of funds, or is too long.
        """
        self._came += len(piece)
        for plain in self._plain(piece):
            self._inflated += len(plain)
            if max(self._came, self._inflated) > _LONGEST:
                raise ProtocolError(f"the list of funds has more than {_LONGEST:,} bytes")
            self._rest += plain
            end = self._rest.rfind(b"\n") + 1
            # A quoted name may contain a line end, so a record ends where no quote is open. A quote
            # that stays open for too long is not a quote: `Fund 12" and more`.
            is_whole = self._rest.count(b'"', 0, end) % 2 == 0
            if end and (is_whole or len(self._rest) > _LONGEST_ROW):
                lines, self._rest = self._rest[:end], self._rest[end:]
                self._read(lines)
            elif len(self._rest) > _LONGEST_ROW:
                raise ProtocolError(
                    f"the list of funds: a row has more than {_LONGEST_ROW:,} bytes"
                )
            yield

    def finish(self) -> None:
        """Return the funds. Raises ProtocolError when the list is cut off, or has no readable
        fund."""
        if self._inflater is not None and not self._inflater.eof:
            raise ProtocolError("the list of funds is cut off: its gzip stream has no end")
        before = self.bad_row_count + self._odd_values
        self._read(self._rest)
        if self.funds and self.bad_row_count + self._odd_values > before:
            raise ProtocolError("the list of funds is cut off in its last row")
        if not self.funds:
            raise ProtocolError(
                f"the list of funds: none of {self.bad_row_count} rows could be read"
            )
        if self.bad_row_count:
            log.warning("the list of funds: %d rows left out", self.bad_row_count)

    def _plain(self, piece: bytes) -> Iterator[bytes]:
        """Yield the inflated content in small pieces."""
        if not self._has_begun:
            piece, self._rest = self._rest + piece, b""
            if len(piece) < len(_BOM):
                self._rest = piece
                return
            self._has_begun = True
            if piece.startswith(_GZIP):
                self._inflater = _new_inflater()
        if self._inflater is None:
            for start in range(0, len(piece), _PIECE):
                yield piece[start : start + _PIECE]
            return
        try:
            yield from self._inflate(piece)
        except zlib.error as error:
            raise ProtocolError(f"the list of funds is no gzip file: {error}") from error

    def _inflate(self, piece: bytes) -> Iterator[bytes]:
        """Yield the inflated content of a piece. A file may have several gzip members, and padding
        zeros."""
        assert self._inflater is not None
        is_more = bool(piece)
        while is_more:
            if self._inflater.eof:
                piece = piece.lstrip(b"\0")
                if not piece:
                    return
                self._inflater = _new_inflater()
            plain = self._inflater.decompress(piece, _PIECE)
            yield plain
            inflater = self._inflater
            piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            # A full piece may be followed by more, even when all input has been consumed.
            is_more = bool(piece) or (len(plain) == _PIECE and not inflater.eof)

    def _read(self, lines: bytes) -> None:
        if not self._columns:
            lines = lines.removeprefix(_BOM)
        rows = csv.reader(io.StringIO(lines.decode("utf-8", "replace"), newline=""))
        try:
            for values in rows:
                if values:
                    self._read_row([value.strip() for value in values])
        except csv.Error as error:
            raise ProtocolError(f"the list of funds is no CSV: {error}") from error

    def _read_row(self, values: list[str]) -> None:
        if not any(values):
            return
        if not self._columns:
            self._columns = _columns(values)
            return
        try:
            self.funds.append(self._fund(values))
        except ValueError as error:
            # A quote that is never closed takes the lines that follow into its row.
            self.bad_row_count += 1 + sum(value.count("\n") for value in values)
            log.debug("the list of funds: %s in %r", error, values)

    def _fund(self, values: list[str]) -> Fund:
        """Return the fund of a row. Raises ValueError, or msgspec's subclasses of it."""
        while len(values) > len(self._columns) and not values[-1]:
            del values[-1]
        fields: dict[str, object] = dict(zip(self._columns, values, strict=True))
        for name in _NUMBERS:
            fields[name] = read_number(fields[name])
        price = self._value(fields, "last_price", read_number)
        fields["last_price"] = price or None  # the list has 0 for a NAV that is not known
        fields["last_price_date"] = self._value(fields, "last_price_date", date.fromisoformat)
        return msgspec.convert(fields, Fund, strict=False)

    def _value(self, fields: dict[str, object], name: str, read: Callable[[str], T]) -> T | None:
        """Return the value of an optional field: None when it is empty or unreadable."""
        text = str(fields.get(name) or "")
        try:
            return read(text) if text else None
        except ValueError as error:
            self._odd_values += 1
            log.debug("the list of funds: %s is taken as unknown: %s", name, error)
            return None


def _new_inflater() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


def _columns(names: list[str]) -> list[str]:
    names = [name.lower() for name in names]
    while names and not names[-1]:  # lines may end in a comma
        del names[-1]
    missing = sorted(_REQUIRED.difference(names))
    if missing:
        raise ProtocolError(
            f"the list of funds has no column {missing[0]!r}", body=",".join(names)[:BODY_EXCERPT]
        )
    return names
