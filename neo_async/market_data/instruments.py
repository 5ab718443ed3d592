"""Instruments: the scrip masters of the day, looked up and searched.

Nothing is loaded by itself. Lookups never wait and never send a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from neo_async import files
from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.base.logs import logger_of
from neo_async.config import cache_directory
from neo_async.errors import NeoError, ProtocolError, Rejected, ServerError, UsageError
from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable, Wanted
from neo_async.model.instruments import Instrument, StrikeRow
from neo_async.session.requests import SessionRequests
from neo_async.wire.endpoints import SCRIP_MASTERS
from neo_async.wire.instrument_file import BadFile, Header, InstrumentFileReader, write_blocks
from neo_async.wire.scripmaster import BadRow, ScripMasterReader, choose_file, read_file_list

Progress: TypeAlias = Callable[[Segment, int, int | None], None]
"""Called with the segment, the bytes read so far and, where the server sends it, the size of
the file."""

ExpiryFilter: TypeAlias = date | tuple[date, date] | None
StrikeFilter: TypeAlias = float | tuple[float, float] | None


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


class _Entry(msgspec.Struct, frozen=True):
    table: InstrumentTable
    loaded: Loaded
    day_number: int
    """The ordinal of `loaded.day`."""


class Instruments:
    """The instruments of the segments that were loaded, `neo.instruments`.

    await neo.instruments.load(Segment.NSE_FO)
    neo.instruments[Segment.NSE_FO, "NIFTY26JUN22250CE"].lot_size
    neo.instruments.search("NIFTY", option="CE", expiry=day, strike=(24000, 25000))

    Orders in a segment that is loaded are checked against it before they are sent.
    """

    def __init__(
        self,
        session: SessionRequests,
        *,
        directory: Path | None = None,
        server: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Files are kept in `directory`, those of one `server` apart from another's. `clock` gives
        Unix seconds, by which the day is known."""
        self._session = session
        self._log = logger_of(logs.MARKET_DATA, session.ucc)
        self._directory = directory
        self._server = server
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._locks: dict[Segment, asyncio.Lock] = {}

    # --- loading ------------------------------------------------------------------------------

    async def load(
        self, *segments: Segment, refresh: bool = False, progress: Progress | None = None
    ) -> list[Loaded]:
        """Load the instruments of some segments for the day: from memory, from disk, or
        from the broker, whichever has today's first. `refresh` reads from the broker in any case.

        When the broker's file cannot be downloaded, that of an earlier day is used, with a warning
        and `is_stale`; but not with `refresh`. Without such a file, and with `refresh`, this raises
        Rejected when the broker has none for the segment, or what any call raises. Needs no
        login.
        """
        if not segments:
            raise UsageError("load() needs a segment, such as Segment.NSE_FO")
        wanted = list(dict.fromkeys(map(_segment, segments)))
        return [await self._load(segment, refresh, progress) for segment in wanted]

    @property
    def loaded(self) -> Mapping[Segment, Loaded]:
        """The files that are loaded, by segment."""
        return MappingProxyType(
            {entry.loaded.segment: entry.loaded for entry in self._entries.values()}
        )

    async def _load(self, segment: Segment, refresh: bool, progress: Progress | None) -> Loaded:
        async with self._locks.setdefault(segment, asyncio.Lock()):
            today = self._today()
            entry = self._entries.get(segment)
            if not refresh:
                if entry is None:
                    entry = await self._read(segment)
                if entry is not None and entry.loaded.day == today:
                    return self._keep(segment, entry)
            try:
                new = await self._download(segment, today, progress)
            except NeoError as error:
                if entry is None or refresh:
                    raise
                self._log.warning(
                    "no scrip master of %s for today: %s; going on with that of %s",
                    segment,
                    error,
                    entry.loaded.day,
                )
                stale = msgspec.structs.replace(entry.loaded, is_stale=True)
                return self._keep(segment, msgspec.structs.replace(entry, loaded=stale))
            await self._write(new)
            return self._keep(segment, new)

    def _keep(self, segment: Segment, entry: _Entry) -> Loaded:
        self._entries[segment] = entry
        return entry.loaded

    async def _download(self, segment: Segment, today: date, progress: Progress | None) -> _Entry:
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
        return _entry(
            reader.table,
            Header(
                segment=segment,
                day=today,
                address=address,
                bad_rows=reader.bad_rows,
                bad_row_count=reader.bad_row_count,
            ),
        )

    # --- the disk -----------------------------------------------------------------------------

    async def _read(self, segment: Segment) -> _Entry | None:
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
        return _entry(reader.table, reader.header)

    async def _write(self, entry: _Entry) -> None:
        loaded = entry.loaded
        header = Header(
            segment=loaded.segment,
            day=loaded.day,
            address=loaded.address,
            bad_rows=list(loaded.bad_rows),
            bad_row_count=loaded.bad_row_count,
        )
        blocks = []
        for block in write_blocks(header, entry.table):
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

    # --- one instrument -----------------------------------------------------------------------

    def get(self, segment: Segment, symbol: str) -> Instrument | None:
        """Return the instrument of a trading symbol; None when the segment has none. Raises
        UsageError when the segment is not loaded."""
        return self._table(segment).by_symbol(symbol)

    def by_token(self, segment: Segment, token: str) -> Instrument | None:
        """Return the instrument of an exchange token; None when the segment has none. Raises
        UsageError when the segment is not loaded."""
        return self._table(segment).by_token(token)

    def __getitem__(self, key: tuple[Segment, str]) -> Instrument:
        """Return the instrument of a segment and trading symbol. Raises UsageError when there is
        none."""
        segment, symbol = key
        instrument = self.get(segment, symbol)
        if instrument is None:
            day = self._entries[segment].loaded.day
            raise UsageError(f"{segment} of {day} has no trading symbol {symbol!r}")
        return instrument

    def find(self, segment: str, symbol: str) -> Instrument | None:
        """Return the instrument of a trading symbol; None when there is none, or the segment is
        not loaded."""
        entry = self._entries.get(segment)
        return None if entry is None else entry.table.by_symbol(symbol)

    def is_of_today(self, segment: str) -> bool:
        """Return whether the loaded file is of today: yesterday's price bands do not hold."""
        entry = self._entries.get(segment)
        return entry is not None and entry.day_number == self._today().toordinal()

    # --- many ---------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        *,
        segment: Segment | None = None,
        kind: str | None = None,
        expiry: ExpiryFilter = None,
        strike: StrikeFilter = None,
        option: str | None = None,
    ) -> list[Instrument]:
        """Return the instruments of a name that pass the other filters, in the order of expiry,
        strike, option type.

        `name` is a name (`NIFTY`: the underlying, or the symbol without series) or a trading
        symbol. Where no instrument has it, it is the start of names, or else any part of symbols
        and descriptions. `kind` is the start of a kind (`OPT`, `FUTIDX`), `expiry` a date or the
        first and the last, `strike` a price or the lowest and the highest, `option` `CE` or `PE`.

        Raises UsageError when nothing, or not `segment`, is loaded.
        """
        wanted = _wanted(kind, expiry, strike, option)
        tables = self._tables(segment)
        for text in dict.fromkeys((name.strip(), name.strip().upper())):
            found = [
                instrument
                for table, names in _named(tables, text)
                for full_name in names
                for instrument in table.select(full_name, wanted)
            ]
            found += _with_symbol(tables, text, wanted, found)
            if found or not text:
                return found
        part = name.strip().upper()
        return [row for table in tables for row in table.mentioning(part, wanted)]

    def expiries(self, name: str, *, segment: Segment | None = None, kind: str = "") -> list[date]:
        """Return the expiries of an underlying, ascending. `kind` is as in `search`."""
        days: set[date] = set()
        for table in self._tables(segment):
            days.update(table.expiries(name, kind))
        return sorted(days)

    def nearest_expiry(
        self, name: str, *, on: date | None = None, segment: Segment | None = None, kind: str = ""
    ) -> date:
        """Return the first expiry on a day (today unless given) or after it. Raises UsageError when
        there is none."""
        day = self._today() if on is None else on
        for expiry in self.expiries(name, segment=segment, kind=kind):
            if expiry >= day:
                return expiry
        raise UsageError(f"{name!r} has no expiry on {day} or later in what is loaded")

    def at_the_money(
        self, name: str, expiry: date, price: float, *, segment: Segment | None = None
    ) -> float:
        """Return the strike nearest to a price of the underlying; the lower of two."""
        return _nearest(self._strikes(name, expiry, segment), price).strike

    def chain(
        self,
        name: str,
        expiry: date,
        *,
        around: float,
        count: int = 10,
        segment: Segment | None = None,
    ) -> list[StrikeRow]:
        """Return the strike nearest to a price and those next to it, `count` in all where there are
        so many, ascending, with their calls and puts."""
        if count < 1:
            raise UsageError(f"count={count}: must be at least 1")
        strikes = self._strikes(name, expiry, segment)
        place = strikes.index(_nearest(strikes, around))
        first = max(0, min(place - (count - 1) // 2, len(strikes) - count))
        return strikes[first : first + count]

    def _strikes(self, name: str, expiry: date, segment: Segment | None) -> list[StrikeRow]:
        wanted = Wanted(expiry=(expiry, expiry))
        rows: dict[float, dict[str, Instrument]] = {}
        found: set[Segment] = set()
        for table in self._tables(segment):
            for instrument in table.select(name, wanted):
                if instrument.strike is not None:
                    found.add(instrument.segment)
                    rows.setdefault(instrument.strike, {})[instrument.option_type] = instrument
        if not rows:
            raise UsageError(f"no options of {name!r} that expire on {expiry} in what is loaded")
        if len(found) > 1:
            names = " and ".join(sorted(found))
            raise UsageError(f"{name!r} has options in {names}: choose one with segment=…")
        return [
            StrikeRow(strike, options.get("CE"), options.get("PE"))
            for strike, options in sorted(rows.items())
        ]

    def _table(self, segment: Segment) -> InstrumentTable:
        entry = self._entries.get(segment)
        if entry is None:
            raise UsageError(f"{segment} is not loaded: await instruments.load(…) first")
        return entry.table

    def _tables(self, segment: Segment | None) -> list[InstrumentTable]:
        if segment is not None:
            return [self._table(_segment(segment))]
        if not self._entries:
            raise UsageError("no segment is loaded: await instruments.load(…) first")
        return [entry.table for entry in self._entries.values()]

    def _today(self) -> date:
        return date_of(self._clock())

    def __repr__(self) -> str:
        parts = (
            f"{segment} {entry.loaded.instruments}{' stale' if entry.loaded.is_stale else ''}"
            for segment, entry in self._entries.items()
        )
        return f"<Instruments {', '.join(parts) or 'none loaded'}>"


def _entry(table: InstrumentTable, header: Header) -> _Entry:
    loaded = Loaded(
        segment=header.segment,
        instruments=len(table),
        bad_rows=tuple(header.bad_rows),
        bad_row_count=header.bad_row_count,
        day=header.day,
        address=header.address,
        is_stale=False,
    )
    return _Entry(table, loaded, header.day.toordinal())


# --- searching --------------------------------------------------------------------------------


def _named(
    tables: Iterable[InstrumentTable], text: str
) -> Iterator[tuple[InstrumentTable, list[str]]]:
    """Return the name itself where any table has it, else the names that start with it."""
    found = [(table, table.names_like(text)) for table in tables]
    if any(names == [text] for _, names in found):
        found = [(table, names) for table, names in found if names == [text]]
    return iter(found)


def _with_symbol(
    tables: Iterable[InstrumentTable], text: str, wanted: Wanted, found: list[Instrument]
) -> list[Instrument]:
    rows = (table.by_symbol_if(text, wanted) for table in tables)
    return [row for row in rows if row is not None and row not in found]


def _wanted(
    kind: str | None, expiry: ExpiryFilter, strike: StrikeFilter, option: str | None
) -> Wanted:
    if option not in (None, "CE", "PE"):
        raise UsageError(f"option={option!r}: must be CE or PE")
    dates = expiry if isinstance(expiry, tuple) or expiry is None else (expiry, expiry)
    prices = strike if isinstance(strike, tuple) or strike is None else (strike, strike)
    return Wanted((kind or "").upper(), dates, prices, option or "")


def _nearest(strikes: list[StrikeRow], price: float) -> StrikeRow:
    # `min` takes the first of equals, which is the lower one.
    return min(strikes, key=lambda row: abs(row.strike - price))


def _segment(segment: Segment | str) -> Segment:
    try:
        return Segment(str(segment))
    except ValueError:
        codes = ", ".join(member.value for member in Segment)
        raise UsageError(f"segment={segment!r}: must be one of {codes}") from None


# --- files ------------------------------------------------------------------------------------


def _replace(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file, and remove the old ones beside it. Raises OSError."""
    files.replace(path, blocks)
    files.remove_old(path.parent, "instruments-*.bin", ".instruments-*")
