"""The scrip master as files: what the exchange lists, and where clients download it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path, PurePosixPath

import msgspec

from neo_async.errors import ProtocolError, UsageError
from neo_async.exchange.engine.types import Listing
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster import parse_scripmaster
from neo_async.wire.scripmaster_writer import write_scripmaster

FOLDER = "/scripmaster/v1/prod"
"""File name without a segment's code, by which clients choose among the addresses."""


class Catalogue(msgspec.Struct, frozen=True):
    """Tradable instruments, and the scrip files that clients download."""

    listings: tuple[Listing, ...]
    files: Mapping[str, bytes]
    """Contents by file name, `nse_cm-v1.csv`."""

    def addresses(self, root: str, today: date) -> list[str]:
        folder = f"{root}{FOLDER}/{today.isoformat()}"
        return [
            f"{folder}/{'transformed-v1' if name.endswith('-v1.csv') else 'transformed'}/{name}"
            for name in self.files
        ]

    def file(self, path: str) -> bytes | None:
        """Return the file at a path of `addresses`, whatever day the path names."""
        return self.files.get(PurePosixPath(path).name)


class ScripFiles:
    """The catalogue of the day: our own files follow the market, with its new contracts and without
    those that have expired."""

    def __init__(self, catalogue: Catalogue, venue: Venue, *, is_fixed: bool) -> None:
        """`is_fixed` serves the broker's own files unchanged."""
        self._catalogue = catalogue
        self._venue = venue
        self._is_fixed = is_fixed

    def catalogue(self) -> Catalogue:
        if not self._is_fixed:
            listings = tuple(self._venue.now().tradable())
            if listings != self._catalogue.listings:
                self._catalogue = catalogue_of_listings(listings)
        return self._catalogue


def catalogue_of_listings(listings: Iterable[Listing]) -> Catalogue:
    listings = tuple(listings)
    by_segment: dict[Segment, list[Instrument]] = {}
    for listing in listings:
        by_segment.setdefault(listing.segment, []).append(_instrument_of(listing))
    return Catalogue(
        listings,
        {_file_name(segment): write_scripmaster(rows) for segment, rows in by_segment.items()},
    )


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


def _instrument_of(listing: Listing) -> Instrument:
    return Instrument(
        segment=listing.segment,
        token=listing.token,
        symbol=listing.symbol,
        name=listing.name,
        series=listing.series,
        kind=listing.kind,
        description=listing.description,
        isin=listing.isin,
        lot_size=listing.lot_size,
        tick_size=listing.tick / 100,
        expiry=listing.expiry,
        strike=listing.strike / 100 if listing.is_option else None,
        option_type=listing.option_type,
        freeze_quantity=listing.freeze_quantity or None,
        lower_band=listing.lower_band / 100,
        upper_band=listing.upper_band / 100,
    )


def _paise(rupees: float | None) -> int:
    return round((rupees or 0) * 100)
