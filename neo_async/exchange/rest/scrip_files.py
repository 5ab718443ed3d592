"""The scrip master as files: what the exchange lists, and where clients download it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from neo_async.errors import ProtocolError, UsageError
from neo_async.exchange.engine.types import Index, Listing
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster import parse_scripmaster
from neo_async.wire.scripmaster_writer import scripmaster_lines

FOLDER = "/scripmaster/v1/prod"
"""File name without a segment's code, by which clients choose among the addresses."""


_NAMES: Final = {
    "cde_fo.csv": Segment.CDE_FO,
    "mcx_fo.csv": Segment.MCX_FO,
    "nse_fo.csv": Segment.NSE_FO,
    "bse_fo.csv": Segment.BSE_FO,
    "nse_com.csv": None,
    "bse_cm-v1.csv": Segment.BSE_CM,
    "nse_cm-v1.csv": Segment.NSE_CM,
}
"""The broker's seven files, in its order, by their segment; commodities of NSE are none of those
that can be traded."""

_ROWS_AT_ONCE: Final = 50
"""Rows that are written between two turns of the loop: about half a millisecond."""


class Catalogue(msgspec.Struct, frozen=True):
    """Tradable instruments, and the broker's own files of them where the exchange has any."""

    listings: tuple[Listing, ...]
    files: Mapping[str, bytes] = {}
    """Contents by file name, `nse_cm-v1.csv`, which are served as they are. Without any, files are
    written from what is listed."""


class ScripFiles:
    """The files that clients download: the broker's own, or ours, which follow the market with its
    new contracts and without those that have expired."""

    def __init__(self, catalogue: Catalogue, venue: Venue) -> None:
        self._files = catalogue.files
        self._venue = venue

    def addresses(self, root: str, today: date) -> list[str]:
        folder = f"{root}{FOLDER}/{today.isoformat()}"
        return [
            f"{folder}/{'transformed-v1' if name.endswith('-v1.csv') else 'transformed'}/{name}"
            for name in self._files or _NAMES
        ]

    async def file(self, path: str) -> bytes | None:
        """Return the file at a path of `addresses`, whatever day the path names; None if there is
        none. Other tasks have their turn while it is written."""
        name = PurePosixPath(path).name
        if self._files or name not in _NAMES:
            return self._files.get(name)
        segment = _NAMES[name]
        is_cash = segment is not None and segment.is_cash
        rows = list(self._rows(segment)) if segment is not None else []
        lines = []
        for number, line in enumerate(scripmaster_lines(rows, is_cash=is_cash)):
            lines.append(line)
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return "".join(lines).encode()

    def _rows(self, segment: Segment) -> Iterator[Instrument]:
        """Yield what is listed in a segment, and the indices of its file."""
        market = self._venue.now()
        for live_index in market.live_indices:
            index = live_index.index
            if index.segment is segment and index.underlying:
                yield _index_instrument(index)
        for listing in market.tradable():
            if listing.segment is segment:
                yield _instrument_of(listing)


def catalogue_of_files(paths: Iterable[Path], today: date) -> Catalogue:
    """Read the broker's own files, which are then served as they are. Blocks while it reads.

    Raises UsageError, which names the file, for one that cannot be read or has no instrument that
    could trade.
    """
    listings: list[Listing] = []
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            content = path.read_bytes()
            instruments = parse_scripmaster(content, today).instruments
        except OSError as error:
            raise UsageError(f"scripmaster {path}: {error.strerror}") from error
        except ProtocolError as error:
            raise UsageError(f"scripmaster {path}: {error}") from error
        tradable = [row for row in instruments if _is_tradable(row)]
        if not tradable:
            raise UsageError(f"scripmaster {path}: no row that could trade in {len(content)} bytes")
        listings += map(_listing_of, tradable)
        files[_file_name(tradable[0].segment)] = content
    return Catalogue(tuple(listings), files)


def _file_name(segment: Segment) -> str:
    return f"{segment.value}{'-v1' if segment.is_cash else ''}.csv"


def _is_tradable(row: Instrument) -> bool:
    """Return whether an instrument can be traded. Indices have no tick; without a band there is no
    price to start from."""
    return row.tick_size > 0 and bool(row.lower_band and row.upper_band)


def _listing_of(row: Instrument) -> Listing:
    tick = max(1, _paise(row.tick_size))
    lower, upper = _paise(row.lower_band), _paise(row.upper_band)
    return Listing(
        segment=row.segment,
        token=row.token,
        symbol=row.symbol,
        name=row.name,
        series=row.series,
        description=row.description,
        isin=row.isin,
        lot_size=row.lot_size,
        tick=tick,
        # The file has no close; the band is drawn around it.
        base_price=max(tick, (lower + upper) // 2 // tick * tick),
        lower_band=lower,
        upper_band=upper,
        freeze_quantity=row.freeze_quantity or 0,
        kind=row.kind,
        expiry=row.expiry,
        strike=_paise(row.strike),
        option_type=row.option_type,
    )


def _index_instrument(index: Index) -> Instrument:
    """Return the row of an index, as the broker's cash files have it."""
    return Instrument(
        segment=index.segment,
        token=index.token,
        symbol=index.underlying,
        name=index.underlying,
        description=index.underlying,
        tick_size=0.0,
    )


def _instrument_of(listing: Listing) -> Instrument:
    return Instrument(
        segment=listing.segment,
        token=listing.token,
        symbol=listing.symbol,
        name=listing.name,
        series=listing.series,
        kind=listing.kind,
        # The broker's files describe shares only.
        description=listing.description if listing.segment.is_cash else "",
        isin=listing.isin,
        lot_size=listing.lot_size,
        tick_size=listing.tick / 100,
        expiry=listing.expiry,
        strike=listing.strike / 100 if listing.is_option else None,
        option_type=listing.option_type,
        underlying_token=listing.underlying.partition("|")[2],
        freeze_quantity=listing.freeze_quantity or None,
        lower_band=listing.lower_band / 100,
        upper_band=listing.upper_band / 100,
    )


def _paise(rupees: float | None) -> int:
    return round((rupees or 0) * 100)
