"""The list of instruments as it comes: CSV, gzipped or already inflated, in pieces of any size."""

from __future__ import annotations

import csv
import io
import logging
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from neo_async.errors import BODY_EXCERPT, ProtocolError
from neo_async.kite.model import Fund

log = logging.getLogger(__name__)

_GZIP: Final = b"\x1f\x8b"
_PIECE: Final = 16_384
"""Bytes of CSV that are read at once: about a millisecond."""
_REQUIRED: Final = frozenset(field.name for field in msgspec.structs.fields(Fund) if field.required)


class FundFileReader:
    """Feed it the pieces in their order, then call `finish`."""

    def __init__(self) -> None:
        self.funds: list[Fund] = []
        self.bad_row_count = 0
        """Rows that could not be read, and were left out."""
        self._columns: list[str] = []
        self._inflater: zlib._Decompress | None = None
        self._has_begun = False
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[None]:
        """Read what has come, in steps that hold the loop for about a millisecond each.

        Raises ProtocolError when it is no list of funds.
        """
        for plain in self._plain(piece):
            self._rest += plain
            end = self._rest.rfind(b"\n") + 1
            # A quoted name may hold a line end, so a record ends where no quote is open.
            if end and self._rest.count(b'"', 0, end) % 2 == 0:
                lines, self._rest = self._rest[:end], self._rest[end:]
                self._read(lines)
            yield

    def finish(self) -> None:
        """Raises ProtocolError when the list is cut off, or holds no fund that can be read."""
        if self._inflater is not None and not self._inflater.eof:
            raise ProtocolError("the list of funds is cut off: its gzip stream has no end")
        self._read(self._rest)
        if not self.funds:
            raise ProtocolError(
                f"the list of funds: none of {self.bad_row_count} rows could be read"
            )
        if self.bad_row_count:
            log.warning("the list of funds: %d rows left out", self.bad_row_count)

    def _plain(self, piece: bytes) -> Iterator[bytes]:
        """Inflated, in pieces that are soon read."""
        if not self._has_begun:
            piece, self._rest = self._rest + piece, b""
            if len(piece) < len(_GZIP):
                self._rest = piece
                return
            self._has_begun = True
            if piece.startswith(_GZIP):
                self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        if self._inflater is None:
            for start in range(0, len(piece), _PIECE):
                yield piece[start : start + _PIECE]
            return
        try:
            while piece:
                yield self._inflater.decompress(piece, _PIECE)
                piece = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise ProtocolError(f"the list of funds is no gzip file: {error}") from error

    def _read(self, lines: bytes) -> None:
        rows = csv.reader(io.StringIO(lines.decode("utf-8", "replace"), newline=""))
        for values in rows:
            if not values:
                continue
            if not self._columns:
                self._columns = _columns(values)
                continue
            try:
                self.funds.append(self._fund(values))
            except ValueError as error:
                self.bad_row_count += 1
                log.debug("the list of funds: %s in %r", error, values)

    def _fund(self, values: list[str]) -> Fund:
        """Raises ValueError, of which msgspec's errors are some."""
        fields: dict[str, str | None] = dict(zip(self._columns, values, strict=True))
        if not fields["last_price_date"]:
            fields["last_price_date"] = None
        return msgspec.convert(fields, Fund, strict=False)


def _columns(names: list[str]) -> list[str]:
    names = [name.strip().lstrip("\ufeff") for name in names]
    missing = sorted(_REQUIRED.difference(names))
    if missing:
        raise ProtocolError(
            f"the list of funds has no column {missing[0]!r}", body=",".join(names)[:BODY_EXCERPT]
        )
    return names
