"""Instruments: the scrip masters of the day, looked up and searched.

Nothing is loaded by itself. Lookups never wait and never send a request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.base.logs import logger_of
from neo_async.errors import NeoError, UsageError
from neo_async.market_data.nearest_names import did_you_mean
from neo_async.market_data.option_selection import ExpiryChoice, choose_expiry, choose_option
from neo_async.market_data.resolver import InstrumentResolver
from neo_async.market_data.scrip_master_files import (
    Loaded,
    Progress,
    ScripMaster,
    ScripMasterFiles,
)
from neo_async.market_data.searching import ExpiryFilter, StrikeFilter, search_tables, wanted_by
from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable, Wanted
from neo_async.model.instruments import Instrument, InstrumentLike, StrikeRow
from neo_async.model.spellings import member_of
from neo_async.session.requests import SessionRequests
from neo_async.wire.values import check_day


class Instruments:
    """The instruments of the segments that were loaded, `neo.instruments`.

    await neo.instruments.load(Segment.NSE_CM, Segment.NSE_FO)
    neo.instruments.resolve("nse_cm:RELIANCE-EQ").lot_size
    neo.instruments.search("NIFTY 01DEC 24500 CE")
    neo.instruments.option("NIFTY", "CE", spot=24_412.35, expiry="this week", strikes_out=2)

    What is found can be given to every call that takes an instrument. Orders in a segment that is
    loaded are checked against it before they are sent.
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
        self._log = logger_of(logs.MARKET_DATA, session.ucc)
        self._files = ScripMasterFiles(session, directory, server)
        self._clock = clock
        self._masters: dict[str, ScripMaster] = {}
        self._locks: dict[Segment, asyncio.Lock] = {}
        self.resolver = InstrumentResolver(self._masters, lambda: self._today().toordinal())
        """Reads the names of instruments for the client's other services."""

    # --- loading ------------------------------------------------------------------------------

    async def load(
        self, *segments: Segment | str, refresh: bool = False, progress: Progress | None = None
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

    async def load_kept(self, *segments: Segment | str) -> list[Loaded]:
        """Load today's instruments of some segments where they are in memory or on disk, and return
        what is loaded then. Sends no request."""
        found = []
        for segment in dict.fromkeys(map(_segment, segments)):
            async with self._locks.setdefault(segment, asyncio.Lock()):
                master = self._masters.get(segment) or await self._files.read(segment)
                if master is not None and master.loaded.day == self._today():
                    found.append(self._keep(segment, master))
        return found

    @property
    def loaded(self) -> Mapping[Segment, Loaded]:
        """The files that are loaded, by segment."""
        return MappingProxyType(
            {master.loaded.segment: master.loaded for master in self._masters.values()}
        )

    async def _load(self, segment: Segment, refresh: bool, progress: Progress | None) -> Loaded:
        async with self._locks.setdefault(segment, asyncio.Lock()):
            today = self._today()
            master = self._masters.get(segment)
            if not refresh:
                if master is None:
                    master = await self._files.read(segment)
                if master is not None and master.loaded.day == today:
                    return self._keep(segment, master)
            try:
                new = await self._files.download(segment, today, progress)
            except NeoError as error:
                if master is None or refresh:
                    raise
                self._log.warning(
                    "no scrip master of %s for today: %s; going on with that of %s",
                    segment,
                    error,
                    master.loaded.day,
                )
                stale = msgspec.structs.replace(master.loaded, is_stale=True)
                return self._keep(segment, msgspec.structs.replace(master, loaded=stale))
            await self._files.write(new)
            return self._keep(segment, new)

    def _keep(self, segment: Segment, master: ScripMaster) -> Loaded:
        self._masters[segment] = master
        return master.loaded

    # --- one instrument -----------------------------------------------------------------------

    def resolve(self, name: InstrumentLike) -> Instrument:
        """Return the instrument that a name means: a key (`nse_cm|2885`), a trading symbol
        (`nse_cm:RELIANCE-EQ`, or `RELIANCE-EQ` where one loaded segment has it), a name that only
        one instrument has (`RELIANCE`), an index that is in the scrip master (`Nifty 50`), or a
        contract in words of which there is one (`NIFTY 01DEC 24500 CE`).

        Raises UsageError when nothing has the name, with the nearest names; when several have, with
        the candidates; and where the scrip master is not loaded.
        """
        return self.resolver.instrument(name)

    def key(self, name: InstrumentLike) -> str:
        """Return the key of an instrument, `nse_cm|2885`, or of an index, `nse_cm|Nifty 50`. A key
        is returned as it is, and needs no scrip master; other names are as for `resolve`."""
        return self.resolver.key(name)

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
            day = self._masters[segment].loaded.day
            raise UsageError(f"{segment} of {day} has no trading symbol {symbol!r}")
        return instrument

    def find(self, segment: str, symbol: str) -> Instrument | None:
        """Return the instrument of a trading symbol; None when there is none, or the segment is
        not loaded."""
        master = self._masters.get(segment)
        return None if master is None else master.table.by_symbol(symbol)

    def is_of_today(self, segment: str) -> bool:
        """Return whether the loaded file is of today: yesterday's price bands do not hold."""
        master = self._masters.get(segment)
        return master is not None and master.day_number == self._today().toordinal()

    # --- many ---------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        *,
        segment: Segment | str | None = None,
        kind: str | None = None,
        expiry: ExpiryFilter = None,
        strike: StrikeFilter = None,
        option: str | None = None,
    ) -> list[Instrument]:
        """Return the instruments of a name that pass the other filters, in the order of expiry,
        strike, option type.

        `name` is a name (`NIFTY`: the underlying, or the symbol without series), a trading symbol,
        or a contract in words (`NIFTY 24500 CE`, `NIFTY 01DEC 24500 CE`, `NIFTY DEC FUT`). Where no
        instrument has it, it is the start of names, the shortest first, or else any part of symbols
        and descriptions, those that start with it first. `kind` is the start of a kind (`OPT`,
        `FUTIDX`), `expiry` a date (or `2026-12-08`) or the first and the last, `strike` a price or
        the lowest and the highest, `option` `CE` or `PE`.

        Raises UsageError when nothing, or not `segment`, is loaded.
        """
        wanted = wanted_by(kind, expiry, strike, option)
        return search_tables(self._tables(segment), name, wanted)

    def did_you_mean(self, name: str) -> str:
        """Return `did you mean ITBEES-EQ (token 19084)?` with the symbols that are nearest to a
        wrong name in what is loaded; empty when there are none."""
        return did_you_mean(name, self._tables(None))

    def expiries(
        self, name: str, *, segment: Segment | str | None = None, kind: str = ""
    ) -> list[date]:
        """Return the expiries of an underlying, ascending. `kind` is as in `search`."""
        days: set[date] = set()
        for table in self._tables(segment):
            days.update(table.expiries(name, kind))
        return sorted(days)

    def nearest_expiry(
        self,
        name: str,
        *,
        on: date | str | None = None,
        segment: Segment | str | None = None,
        kind: str = "",
    ) -> date:
        """Return the first expiry on a day (today unless given) or after it. Raises UsageError when
        there is none."""
        day = self._today() if on is None else check_day("on", on)
        for expiry in self.expiries(name, segment=segment, kind=kind):
            if expiry >= day:
                return expiry
        raise UsageError(f"{name!r} has no expiry on {day} or later in what is loaded")

    def at_the_money(
        self, name: str, expiry: date | str, price: float, *, segment: Segment | str | None = None
    ) -> float:
        """Return the strike nearest to a price of the underlying; the lower of two."""
        return _nearest(self._strikes(name, expiry, segment), price).strike

    def chain(
        self,
        name: str,
        expiry: date | str,
        *,
        around: float,
        count: int = 10,
        segment: Segment | str | None = None,
    ) -> list[StrikeRow]:
        """Return the strike nearest to a price and those next to it, `count` in all where there are
        so many, ascending, with their calls and puts."""
        if count < 1:
            raise UsageError(f"count={count}: must be at least 1")
        strikes = self._strikes(name, expiry, segment)
        place = strikes.index(_nearest(strikes, around))
        first = max(0, min(place - (count - 1) // 2, len(strikes) - count))
        return strikes[first : first + count]

    def option(
        self,
        underlying: InstrumentLike,
        option: str,
        *,
        spot: float,
        expiry: ExpiryChoice = 0,
        strikes_out: int = 0,
        segment: Segment | str | None = None,
    ) -> Instrument:
        """Return the option that is `strikes_out` strikes out of the money, at the money unless
        given, and in the money where it is negative. `neo.market.option` reads the price itself.

        `option` is `CE` or `PE`, `spot` the price of the underlying in rupees. `expiry` is 0 for
        the nearest, 1 for the one after it; a date; or `this week`, `next week`, `this month`,
        `next month`: the last expiry of that calendar week or month.

        Raises UsageError where there is no such expiry or strike, and where the segment of the
        contracts is not loaded.
        """
        wanted = wanted_by("OPT", None, None, option)
        where, name = self.resolver.underlying(_segment_or_none(segment), underlying)
        if not (isinstance(spot, int | float) and 0 < spot < math.inf):
            raise UsageError(f"spot={spot!r}: must be the price of the underlying in rupees")
        if type(strikes_out) is not int:
            raise UsageError(f"strikes_out={strikes_out!r}: must be a whole number of strikes")
        listed = self.expiries(name, segment=where, kind=wanted.kind)
        day = choose_expiry(name, listed, expiry, self._today())
        rows = self._strikes(name, day, where)
        return choose_option(rows, wanted.option_type, spot, strikes_out)

    def contracts(
        self, underlying: InstrumentLike, segment: Segment | str | None = None
    ) -> list[Instrument]:
        """Return every contract of an underlying by expiry and strike. Raises UsageError when the
        segment is not loaded or has none."""
        where, name = self.resolver.underlying(_segment_or_none(segment), underlying)
        found = [one for one in self._table(where).select(name, Wanted()) if one.expiry]
        if not found:
            raise UsageError(f"underlying={name!r}: {where} has no contracts of it")
        return found

    def _strikes(
        self, name: str, expiry: date | str, segment: Segment | str | None
    ) -> list[StrikeRow]:
        day = check_day("expiry", expiry)
        wanted = Wanted(expiry=(day, day))
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
        master = self._masters.get(segment)
        if master is None:
            raise UsageError(f"{segment} is not loaded: await instruments.load(…) first")
        return master.table

    def _tables(self, segment: Segment | str | None) -> list[InstrumentTable]:
        if segment is not None:
            return [self._table(_segment(segment))]
        if not self._masters:
            raise UsageError("no segment is loaded: await instruments.load(…) first")
        return [master.table for master in self._masters.values()]

    def _today(self) -> date:
        return date_of(self._clock())

    def __repr__(self) -> str:
        parts = (
            f"{segment} {master.loaded.instruments}{' stale' if master.loaded.is_stale else ''}"
            for segment, master in self._masters.items()
        )
        return f"<Instruments {', '.join(parts) or 'none loaded'}>"


def _nearest(strikes: list[StrikeRow], price: float) -> StrikeRow:
    # `min` takes the first of equals, which is the lower one.
    return min(strikes, key=lambda row: abs(row.strike - price))


def _segment(segment: Segment | str) -> Segment:
    try:
        return member_of(Segment, segment)
    except ValueError as error:
        raise UsageError(f"segment={segment!r}: {error}") from None


def _segment_or_none(segment: Segment | str | None) -> Segment | None:
    return None if segment is None else _segment(segment)
