"""Read and write recordings of a feed: the messages of the server, with their times of arrival.

    header   "NEOFEED\\n", version u16
    block    stored size u32, unpacked size u32, Unix ns of its first record i64, crc u32,
             then so many bytes of zlib
    record   inside a block: ns since the record before i64, content size and kind u32, content

Little-endian. Each block can be read alone, and its checksum covers all of it, so that a damaged
file is readable up to the damage. Only messages of the server are recorded. At the start and after
every gap are its answer to the login, with the dividers, and one acknowledgement with all trading
symbols known by then.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from neo_async.errors import UsageError
from neo_async.system import files

BLOCK_BYTES: Final = 48 << 10
"""Size at which a block is full, in unpacked bytes."""
MAX_BLOCK: Final = 48 << 20
"""Largest block in bytes: a full one whose last frame is as large as a frame can be."""

_MAGIC: Final = b"NEOFEED\n"
_VERSION: Final = 1
_FILE: Final = struct.Struct("<8sH")
_BLOCK: Final = struct.Struct("<IIqI")
_COVERED: Final = struct.Struct("<IIq")
"""The part of a block's header that the checksum covers, before the content."""
_RECORD: Final = struct.Struct("<qI")

_BINARY: Final = 0
_TEXT: Final = 1
_GAP: Final = 2

_COMPRESSION: Final = 1
"""zlib level. Higher levels hardly shrink ticks further, and take several times as long."""

FILE_HEADER: Final = _FILE.pack(_MAGIC, _VERSION)


class Frame(msgspec.Struct, frozen=True, gc=False):
    received_ns: int
    """Unix nanoseconds of arrival; they go back when the clock was set back."""
    content: bytes | str | None
    """A binary or text message; None where frames are missing, because the connection was lost or
    the disk was too slow."""


class BlockBuilder:
    """Collects frames for a block. Adding one only copies its bytes."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._first_ns = 0
        self._last_ns = 0

    @property
    def size(self) -> int:
        """Unpacked bytes so far."""
        return len(self._records)

    def add(self, received_ns: int, content: bytes | str | None) -> None:
        records = self._records
        if not records:
            self._first_ns = self._last_ns = received_ns
        kind = _BINARY
        if content.__class__ is not bytes:
            kind = _GAP if content is None else _TEXT
            content = content.encode() if isinstance(content, str) else content or b""
        records += _RECORD.pack(received_ns - self._last_ns, len(content) << 2 | kind)
        records += content
        self._last_ns = received_ns

    def take(self) -> tuple[int, bytearray]:
        """Return the start time and the records of the block, for `encode_block`, and begin another
        one."""
        records, self._records = self._records, bytearray()
        return self._first_ns, records


def encode_block(first_ns: int, records: bytes | bytearray) -> bytes:
    """Return a block in the form of the file, from the result of `BlockBuilder.take`."""
    stored = zlib.compress(records, _COMPRESSION)
    covered = _COVERED.pack(len(stored), len(records), first_ns)
    return covered + struct.pack("<I", zlib.crc32(stored, zlib.crc32(covered))) + stored


class RecordingReader:
    """The frames of a recording, oldest first, with one block in memory at a time.

    Every iteration begins at the start. It ends with the file, or before the first block that is
    cut off or damaged, which is then described in `damage`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage = ""
        """Description of the damage that ended the last iteration; empty if it reached the end."""
        with _opened(self.path) as file:
            header = file.read(_FILE.size)
        if header != FILE_HEADER[: len(header)]:
            if header.startswith(_MAGIC) and len(header) < _FILE.size:
                raise UsageError(f"{self.path} is no recording: it ends in its header, {header!r}")
            if header.startswith(_MAGIC):
                raise UsageError(
                    f"{self.path} is a recording of version {_FILE.unpack(header)[1]}: "
                    f"this release reads version {_VERSION}"
                )
            raise UsageError(
                f"{self.path} is no recording of a market feed: it begins with {header!r}"
            )

    def __iter__(self) -> Iterator[Frame]:
        self.damage = ""
        with _opened(self.path) as file:
            if len(file.read(_FILE.size)) < _FILE.size:
                self.damage = "the file is cut off in its header"
                return
            while True:
                start = file.tell()
                try:
                    frames = _read_block(file)
                except _Broken as broken:
                    self.damage = f"the block at byte {start} {broken}"
                    return
                if frames is None:
                    return
                yield from frames

    def __repr__(self) -> str:
        return f"<RecordingReader {self.path}{f', {self.damage}' if self.damage else ''}>"


def read_recording(path: str | os.PathLike[str]) -> RecordingReader:
    """Open a recording, to be iterated over.

    Raises UsageError when there is no such file, or it is not a recording of a known version.
    """
    return RecordingReader(path)


class _Broken(Exception):
    """A block is damaged."""


def _opened(path: Path) -> BinaryIO:
    try:
        return files.open_regular(path)
    except OSError as error:
        raise UsageError(f"cannot read the recording {path}: {error.strerror}") from error
    except ValueError as error:  # a name with a zero byte, or half of a character
        raise UsageError(f"cannot read the recording {str(path)!r}: {error}") from error


def _read_block(file: BinaryIO) -> list[Frame] | None:
    """Return the next block; None at the end of the file."""
    header = file.read(_BLOCK.size)
    if not header:
        return None
    if len(header) < _BLOCK.size:
        raise _Broken("is cut off in its header")
    stored_size, size, first_ns, crc = _BLOCK.unpack(header)
    if max(stored_size, size) > MAX_BLOCK:
        raise _Broken(f"has a size of {max(stored_size, size)} bytes; the largest is {MAX_BLOCK}")
    stored = file.read(stored_size)
    if len(stored) < stored_size:
        raise _Broken(f"is cut off after {len(stored)} of {stored_size} bytes")
    if zlib.crc32(stored, zlib.crc32(header[: _COVERED.size])) != crc:
        raise _Broken("does not match its checksum")
    unpacker = zlib.decompressobj()
    try:
        records = unpacker.decompress(stored, size + 1)
    except zlib.error as error:
        raise _Broken(f"does not unpack: {error}") from None
    if len(records) != size:
        raise _Broken(f"does not unpack to the {size} bytes it promises")
    return list(_records(records, first_ns))


def _records(records: bytes, now_ns: int) -> Iterator[Frame]:
    at = 0
    while at < len(records):
        if at + _RECORD.size > len(records):
            raise _Broken("ends in the midst of a record")
        delta, size_and_kind = _RECORD.unpack_from(records, at)
        at += _RECORD.size
        size, kind = size_and_kind >> 2, size_and_kind & 3
        if at + size > len(records):
            raise _Broken("ends in the midst of a record")
        now_ns += delta
        yield Frame(now_ns, _content(kind, records[at : at + size]))
        at += size


def _content(kind: int, content: bytes) -> bytes | str | None:
    if kind == _BINARY:
        return content
    if kind == _GAP:
        return None
    if kind != _TEXT:
        raise _Broken(f"has a record of unknown kind {kind}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _Broken("has a text that is not UTF-8") from None
