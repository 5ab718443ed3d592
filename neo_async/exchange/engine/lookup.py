"""Look-up of a listing by whatever name people use for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from neo_async.errors import UsageError
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Segment

_NEAREST: Final = 3


def find_listing(market: MatchingEngine, instrument: str) -> Listing:
    """Return the listing of an instrument, given as symbol (`RELIANCE-EQ`), as name of a share
    (`RELIANCE`), or as either of them or a token behind its segment (`nse_cm|2885`,
    `nse_cm:RELIANCE-EQ`).

    Raises UsageError, which names the nearest symbols, for one that is not listed, and for one that
    is listed in several segments.
    """
    text = instrument.strip()
    segment, separator, rest = text.replace(":", "|", 1).partition("|")
    if separator:
        if segment not in frozenset(Segment):
            known = ", ".join(market.segments)
            raise UsageError(f"instrument {instrument!r}: its segment must be one of {known}")
        segments: Iterable[Segment] = (Segment(segment),)
        text = rest
    else:
        segments = market.segments
    listings = [each for each in market.tradable() if each.segment in segments]
    wanted = text.casefold()
    found = [
        each
        for each in listings
        if each.symbol.casefold() == wanted
        or (separator and each.token == text)
        or (each.segment.is_cash and each.name.casefold() == wanted)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"instrument {instrument!r}: name one of {_named(found)}")
    close = difflib.get_close_matches(
        text.upper(), {each.symbol: None for each in listings}, n=_NEAREST, cutoff=0.5
    )
    near = [each for symbol in close for each in listings if each.symbol == symbol]
    hint = f"; the nearest are {_named(near)}" if near else ""
    raise UsageError(f"instrument {instrument!r}: is not listed here{hint}")


def _named(listings: Iterable[Listing]) -> str:
    return ", ".join(f"{each.segment}:{each.symbol}" for each in listings)
