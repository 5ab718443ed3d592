"""Decompression of answers in small pieces: a short compressed body that inflates to gigabytes
costs neither memory nor long turns of the event loop."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

PIECE: Final = 65_536
"""Bytes that are inflated at once at most."""

_ANY_HEADER: Final = zlib.MAX_WBITS | 32
_NO_HEADER: Final = -zlib.MAX_WBITS


class Inflater:
    """Decompresses one Content-Encoding: gzip (of any number of members), deflate, or none."""

    def __init__(self, encoding: str) -> None:
        """Raises ValueError when the encoding is none of these."""
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            # A longer word, or one with digits, may repeat a secret that was sent.
            name = f" {encoding!r}" if re.fullmatch("[a-z]{1,7}", encoding) else ""
            raise ValueError(f"its encoding{name} is not known")
        self._is_plain = encoding in ("", "identity")
        self._is_deflate = encoding == "deflate"
        self._inflater: zlib._Decompress | None = None
        """Decompressor of the current gzip member; None before the first byte, and between two
        members."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the content of the next bytes, in pieces of 64 KiB at most where it was
        compressed.

        Raises ValueError when it cannot be inflated.
        """
        if self._is_plain:
            yield data
            return
        try:
            while data:
                if self._inflater is None:
                    # Some servers send deflate without the header that belongs to it.
                    is_bare = self._is_deflate and data[0] & 0x0F != 8
                    self._inflater = zlib.decompressobj(_NO_HEADER if is_bare else _ANY_HEADER)
                piece = self._inflater.decompress(data, PIECE)
                if self._inflater.eof:
                    data, self._inflater = self._inflater.unused_data, None
                else:
                    data = self._inflater.unconsumed_tail
                if piece:
                    yield piece
            while self._inflater is not None and (piece := self._inflater.decompress(b"", PIECE)):
                yield piece
        except zlib.error as error:
            raise ValueError(f"it cannot be inflated: {error}") from None

    def finish(self) -> None:
        """Raise ValueError when the compressed content is cut off."""
        if self._inflater is not None:
            raise ValueError("it cannot be inflated: its compressed content is cut off")


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a whole body, inflated. Raises ValueError when it cannot be inflated, or is longer
    than `limit` bytes."""
    inflater = Inflater(encoding)
    pieces: list[bytes] = []
    size = 0
    for piece in inflater.feed(body):
        size += len(piece)
        if size > limit:
            raise ValueError(f"it is longer than {limit} bytes")
        pieces.append(piece)
    inflater.finish()
    return b"".join(pieces)
