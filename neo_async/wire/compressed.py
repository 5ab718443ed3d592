"""Inflate files that may be gzipped, whatever their headers claim."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from neo_async.errors import ProtocolError

_GZIP: Final = b"\x1f\x8b"
_PIECE: Final = 32_768
"""Largest piece that is yielded, in bytes."""


class Inflater:
    """Inflates gzip of any number of members, and passes everything else through."""

    def __init__(self, what: str) -> None:
        """Use `what` as the name of the file in errors."""
        self._what = what
        self._begin = b""
        """The first byte of the file, until the second has come."""
        self._is_gzip: bool | None = None
        self._inflater: zlib._Decompress | None = None
        """Inflater of the present member; None between two members."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the content of the next piece of the file, in pieces of 32 KiB at most.

        Raises ProtocolError for gzip that cannot be inflated.
        """
        if self._is_gzip is None:
            piece = self._begin + piece
            if len(piece) < len(_GZIP):
                self._begin = piece
                return
            self._begin = b""
            self._is_gzip = piece.startswith(_GZIP)
        if not self._is_gzip:
            for start in range(0, len(piece), _PIECE):
                yield piece[start : start + _PIECE]
            return
        try:
            while piece:
                if self._inflater is None:
                    piece = piece.lstrip(b"\0")  # padding may follow the last member
                    if not piece:
                        return
                    self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
                plain = self._inflater.decompress(piece, _PIECE)
                if self._inflater.eof:
                    piece, self._inflater = self._inflater.unused_data, None
                else:
                    piece = self._inflater.unconsumed_tail
                yield plain
        except zlib.error as error:
            raise ProtocolError(f"{self._what} cannot be inflated: {error}") from error

    def finish(self) -> bytes:
        """Return the rest of the content. Raises ProtocolError when the file is cut off."""
        if self._inflater is not None:
            raise ProtocolError(f"{self._what} is cut off: its gzip stream has no end")
        rest, self._begin = self._begin, b""
        return rest
