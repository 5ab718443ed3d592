"""An instrument as the broker's scrip master describes it."""

from __future__ import annotations

from datetime import date

import msgspec

from neo_async.model.enums import Segment


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the scrip master, typed and scaled. Money is rupees."""

    segment: Segment
    token: str
    """Exchange token (`pSymbol`), unique in the segment."""
    symbol: str
    """Trading symbol (`pTrdSymbol`), the one that orders carry."""
    name: str
    """Symbol without series, or the underlying of a derivative."""
    series: str = ""
    kind: str = ""
    """`FUTIDX FUTSTK OPTIDX OPTSTK` …; empty in the cash segments."""
    description: str = ""
    isin: str = ""
    lot_size: int = 1
    tick_size: float = 0.05
    precision: int = 2
    multiplier: int = 1
    expiry: date | None = None
    """Date in IST."""
    strike: float | None = None
    option_type: str = ""
    """`CE`, `PE`, or empty."""
    freeze_quantity: int | None = None
    """Largest quantity of one order; None when the exchange sets none."""
    lower_band: float | None = None
    upper_band: float | None = None
