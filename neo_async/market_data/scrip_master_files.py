"""Scrip masters: downloaded from the broker, and kept on disk for the day."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import TypeAlias

import msgspec

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.config import cache_directory
from neo_async.errors import ProtocolError, Rejected, ServerError
from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable
from neo_async.session.requests import SessionRequests
from neo_async.system import files
from neo_async.wire.endpoints import SCRIP_MASTERS
from neo_async.wire.instrument_file import BadFile, Header, InstrumentFileReader, write_blocks
from neo_async.wire.scripmaster import BadRow, ScripMasterReader, choose_file, read_file_list

Progress: TypeAlias = Callable[[Segment, int, int | None], None]
"""Called with the segment, the bytes read so far and, where the server sends it, the size of
the file."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a segment's instruments are from."""

    segment: Segment
    instruments: int
    bad_rows: tuple[BadRow, ...]
    """The first thousand rows that could not be read and were left out."""
    bad_row_count: int
    day: date
    """The day in India on which the file was downloaded."""
    address: str
    is_stale: bool
    """Whether the file is of an earlier day, because today's could not be downloaded."""


class ScripMaster(msgspec.Struct, frozen=True):
    """The instruments of a segment, and the file that they are from."""

    table: InstrumentTable
    loaded: Loaded
    day_number: int
    """The ordinal of `loaded.day`."""

    def is_complete_on(self, day_number: int) -> bool:
        """Return whether it has every instrument of a day: none of them is new since the file was
        written, or in a row that could not be read."""
        return self.day_number == day_number and not self.loaded.bad_row_count


class ScripMasterFiles:
    """The scrip masters of one server: at the broker, and in a directory of this machine."""

    def __init__(self, session: SessionRequests, directory: Path | None, server: str) -> None:
        self._session = session
        self._log = logger_of(logs.MARKET_DATA, session.ucc)
        self._directory = directory
        self._server = server

    async def download(
        self, segment: Segment, today: date, progress: Progress | None
    ) -> ScripMaster:
        """Return today's file of the broker. Raises Rejected when it has none for the segment, or
        what any call raises."""
        # An address is stored and may lead to another server: it must not contain secrets.
        scrub = self._session.secrets().scrub
        addresses = [
            scrub(address)
            for address in await self._session.read_open(SCRIP_MASTERS, read_file_list)
        ]
        address = choose_file(addresses, segment)
        if address is None:
            offered = ", ".join(address.rpartition("/")[2] for address in addresses) or "no file"
            raise Rejected(f"the broker has no scrip master of {segment} today; it has {offered}")
        reader = ScripMasterReader(today, segment)
        async with self._session.download(address) as file:
            if file.status != 200:
                kind = ServerError if file.status >= 500 else Rejected
                raise kind(f"no scrip master at {address}", status=file.status)
            done = 0
            async for piece in file.pieces:
                for _ in reader.feed_in_steps(piece):
                    await asyncio.sleep(0)
                done += len(piece)
                if progress is not None:
                    progress(segment, done, file.size)
        reader.finish()
        if not len(reader.table):
            raise ProtocolError(
                f"scrip master of {segment}: none of {reader.bad_row_count} rows could be read"
            )
        if reader.bad_row_count:
            first = reader.bad_rows[0]
            self._log.warning(
                "scrip master of %s: %d rows left out, the first in line %d: %s",
                segment,
                reader.bad_row_count,
                first.line,
                first.reason,
            )
        return _scrip_master(
            reader.table,
            Header(
                segment=segment,
                day=today,
                address=address,
                bad_rows=reader.bad_rows,
                bad_row_count=reader.bad_row_count,
            ),
        )

    async def read(self, segment: Segment) -> ScripMaster | None:
        """Return the file of the last day on which this segment was loaded; None when there is
        none."""
        path = self._path(segment)
        try:
            content = await asyncio.to_thread(files.read_private, path)
            if content is None:
                if await asyncio.to_thread(path.exists):
                    raise BadFile("is not its owner's alone")
                return None
            reader = InstrumentFileReader(content)
            if reader.header.segment is not segment:
                raise BadFile(f"holds {reader.header.segment}")
            for _ in reader.blocks():
                await asyncio.sleep(0)
        except (BadFile, OSError) as error:
            self._log.info("%s is read anew from the broker: %s: %s", segment, path, error)
            return None
        return _scrip_master(reader.table, reader.header)

    async def write(self, master: ScripMaster) -> None:
        """Keep a scrip master on disk; where that fails, a warning is logged."""
        loaded = master.loaded
        header = Header(
            segment=loaded.segment,
            day=loaded.day,
            address=loaded.address,
            bad_rows=list(loaded.bad_rows),
            bad_row_count=loaded.bad_row_count,
        )
        blocks = []
        for block in write_blocks(header, master.table):
            blocks.append(block)
            await asyncio.sleep(0)
        path = self._path(loaded.segment)
        try:
            await asyncio.to_thread(_replace, path, blocks)
        except OSError as error:
            # It is in memory for today; the next start has to download it again.
            self._log.warning("the scrip master of %s could not be kept: %s", loaded.segment, error)

    def _path(self, segment: Segment) -> Path:
        server = hashlib.sha256(self._server.encode()).hexdigest()[:12]
        directory = self._directory or cache_directory()
        return directory / f"instruments-{server}-{segment.value}.bin"


def _scrip_master(table: InstrumentTable, header: Header) -> ScripMaster:
    loaded = Loaded(
        segment=header.segment,
        instruments=len(table),
        bad_rows=tuple(header.bad_rows),
        bad_row_count=header.bad_row_count,
        day=header.day,
        address=header.address,
        is_stale=False,
    )
    return ScripMaster(table, loaded, header.day.toordinal())


def _replace(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file, and remove the old ones beside it. Raises OSError."""
    files.replace(path, blocks)
    files.remove_old(path.parent, "instruments-*.bin", ".instruments-*")
