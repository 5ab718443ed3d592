"""An instrument as the broker's scrip master describes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple, TypeAlias

import msgspec

from neo_async.model.enums import Segment


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """An instrument of the scrip master, typed and scaled. Prices are rupees."""

    segment: Segment
    token: str
    """Exchange token (`pSymbol`), unique in the segment."""
    symbol: str
    """Trading symbol (`pTrdSymbol`), as used in orders."""
    name: str
    """Symbol without series, or the underlying of a derivative."""
    description: str = ""
    isin: str = ""
    strike: float | None = None
    freeze_quantity: int | None = None
    """Largest quantity of one order; None when the exchange sets none."""
    lower_band: float | None = None
    upper_band: float | None = None
    series: str = ""
    kind: str = ""
    """`FUTIDX FUTSTK OPTIDX OPTSTK` …; empty in the cash segments."""
    lot_size: int = 1
    tick_size: float = 0.05
    """Step of prices in rupees; 0 for indices, which do not trade."""
    precision: int = 2
    """Decimals of a price."""
    multiplier: int = 1
    expiry: date | None = None
    """Expiry date in IST; None without one."""
    option_type: str = ""
    """`CE`, `PE`, or empty."""
    underlying_token: str = ""
    """Token of a derivative's underlying."""
    face_value: float | None = None
    price_numerator: float = 1.0
    """Numerator of the price fraction. An amount is quantity × price × multiplier × general
    fraction × price fraction, as in positions."""
    price_denominator: float = 1.0
    general_numerator: float = 1.0
    general_denominator: float = 1.0

    @property
    def key(self) -> str:
        """Segment and token, `nse_cm|2885`: the name of the instrument in quotes and feeds."""
        return f"{self.segment.value}|{self.token}"


InstrumentLike: TypeAlias = Instrument | str
"""An instrument, or text that names one: its key (`nse_cm|2885`, also with a colon), its trading
symbol (`nse_cm:RELIANCE-EQ`, or `RELIANCE-EQ` where only one loaded segment has it), its name where
only one fits (`RELIANCE`), or an index as the broker spells it (`nse_cm|Nifty 50`)."""


class Shared(NamedTuple):
    """Fields that many instruments have in common: the last ones of Instrument, in the same order,
    followed by its first."""

    series: str
    kind: str
    lot_size: int
    tick_size: float
    precision: int
    multiplier: int
    expiry: date | None
    option_type: str
    underlying_token: str
    face_value: float | None
    price_numerator: float
    price_denominator: float
    general_numerator: float
    general_denominator: float
    segment: Segment


class Texts(NamedTuple):
    """Many texts in one block of memory."""

    content: bytes
    """The texts in UTF-8, concatenated."""
    lengths: Sequence[int]
    """Length of each text in bytes."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Concatenate texts."""
        pieces = [text.encode() for text in texts]
        return cls(b"".join(pieces), [len(piece) for piece in pieces])


class Rows(NamedTuple):
    """Rows of an instrument table, by column."""

    tokens: Sequence[str]
    symbols: Sequence[str]
    names: Sequence[str]
    descriptions: Texts
    isins: Texts
    shared: Sequence[int]
    """Indexes into the table's list of Shared."""
    strikes: Sequence[float]
    """Strikes; NaN for none, as in the bands."""
    lower_bands: Sequence[float]
    upper_bands: Sequence[float]
    freeze_quantities: Sequence[int]
    """Freeze quantities; 0 for none."""


class StrikeRow(NamedTuple):
    """The call and the put of one strike; None where the exchange does not list it."""

    strike: float
    call: Instrument | None
    put: Instrument | None
