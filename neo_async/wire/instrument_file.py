"""Read and write a scrip master in the package's own format on disk, in blocks.

    magic, header, block, block, …, each of the latter as length, CRC-32, MessagePack

The header has the number of blocks: first those of the fields that rows share, then those of rows.
Each is small enough to be read or written within a millisecond or two. Arrays are in the byte order
of the machine, which is part of the magic, as is the version: a file of another kind is replaced.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from datetime import date
from typing import Final

import msgspec

from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable
from neo_async.model.instruments import Rows, Shared, Texts
from neo_async.wire.lenient import UNREADABLE
from neo_async.wire.scripmaster import BadRow

_VERSION: Final = 1
_MAGIC: Final = f"neo-async instruments {_VERSION} {sys.byteorder}\n".encode()
_PREFIX: Final = struct.Struct("=II")

_SHARED_AT_ONCE: Final = 500
_ROWS_AT_ONCE: Final = 1_000


class BadFile(ValueError):
    """The file is of another kind or version, cut off or damaged."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    segment: Segment
    day: date
    """Date in India on which the broker's file was downloaded."""
    address: str
    """Address of the broker's file."""
    bad_rows: list[BadRow]
    bad_row_count: int
    rows: int = 0
    shared: int = 0


class _Block(msgspec.Struct, array_like=True):
    tokens: list[str]
    symbols: list[str]
    names: list[str]
    descriptions: bytes
    description_lengths: bytes
    isins: bytes
    isin_lengths: bytes
    shared: bytes
    strikes: bytes
    lower_bands: bytes
    upper_bands: bytes
    freeze_quantities: bytes


_HEADER = msgspec.msgpack.Decoder(Header)
_SHARED = msgspec.msgpack.Decoder(list[Shared])
_BLOCK = msgspec.msgpack.Decoder(_Block)
_encode = msgspec.msgpack.Encoder().encode


def write_blocks(header: Header, table: InstrumentTable) -> Iterator[bytes]:
    """Yield the file, piece by piece. The counts in the header are filled in from the table."""
    yield _MAGIC
    yield _framed(msgspec.structs.replace(header, rows=len(table), shared=len(table.shared)))
    for first in range(0, len(table.shared), _SHARED_AT_ONCE):
        yield _framed(table.shared[first : first + _SHARED_AT_ONCE])
    for first in range(0, len(table), _ROWS_AT_ONCE):
        rows = table.rows(first, first + _ROWS_AT_ONCE)
        yield _framed(
            _Block(
                list(rows.tokens),
                list(rows.symbols),
                list(rows.names),
                rows.descriptions.content,
                array("I", rows.descriptions.lengths).tobytes(),
                rows.isins.content,
                array("I", rows.isins.lengths).tobytes(),
                array("I", rows.shared).tobytes(),
                array("d", rows.strikes).tobytes(),
                array("d", rows.lower_bands).tobytes(),
                array("d", rows.upper_bands).tobytes(),
                array("q", rows.freeze_quantities).tobytes(),
            )
        )


class InstrumentFileReader:
    """Reads a file in steps: the `header` first, then the table by iterating over `blocks()`."""

    def __init__(self, content: bytes) -> None:
        """Read the header. Raises BadFile."""
        if not content.startswith(_MAGIC):
            raise BadFile("not a file of instruments of this version")
        self._content = memoryview(content)
        self._at = len(_MAGIC)
        try:
            self.header = _HEADER.decode(self._next())
        except UNREADABLE as error:
            raise BadFile(f"header: {error}") from error
        self.table = InstrumentTable()

    def blocks(self) -> Iterator[None]:
        """Fill the table, block by block. Raises BadFile."""
        try:
            while len(self.table.shared) < self.header.shared:
                for shared in _SHARED.decode(self._next()):
                    self.table.share(shared)
                yield
            while len(self.table) < self.header.rows:
                self.table.add(_rows(_BLOCK.decode(self._next())))
                yield
        except UNREADABLE as error:
            raise BadFile(f"after {len(self.table)} rows: {error}") from error

    def _next(self) -> memoryview:
        start = self._at + _PREFIX.size
        if start > len(self._content):
            raise BadFile("cut off")
        length, checksum = _PREFIX.unpack_from(self._content, self._at)
        self._at = start + length
        block = self._content[start : self._at]
        if len(block) != length or zlib.crc32(block) != checksum:
            raise BadFile("cut off or damaged")
        return block


def _rows(block: _Block) -> Rows:
    return Rows(
        block.tokens,
        block.symbols,
        block.names,
        Texts(block.descriptions, array("I", block.description_lengths)),
        Texts(block.isins, array("I", block.isin_lengths)),
        array("I", block.shared),
        array("d", block.strikes),
        array("d", block.lower_bands),
        array("d", block.upper_bands),
        array("q", block.freeze_quantities),
    )


def _framed(value: object) -> bytes:
    block = _encode(value)
    return _PREFIX.pack(len(block), zlib.crc32(block)) + block
