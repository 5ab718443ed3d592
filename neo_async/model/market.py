"""Market data from requests: quotes, chains and candles.

Prices are rupees; quantities and open interest are units, never lots. None means that the broker
sent no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from neo_async.base.india import IST, TIME_ZONE
from neo_async.errors import UsageError
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.ticks import DepthRow

if TYPE_CHECKING:
    import pandas
    import polars

Columns = Mapping[str, list[Any]]


class QuoteFilter(StrEnum):
    """The figures of a quote to request. The broker may send more than these."""

    ALL = "all"
    LAST_PRICE = "ltp"
    OHLC = "ohlc"
    DEPTH = "depth"
    OPEN_INTEREST = "oi"
    CIRCUIT_LIMITS = "circuit_limits"
    YEAR_RANGE = "52W"
    SCRIP_DETAILS = "scrip_details"
    """Last price, volume, average and change."""

    @classmethod
    def _missing_(cls, value: object) -> QuoteFilter | None:
        # Spellings of the official SDK's documents.
        return {"52w": cls.YEAR_RANGE, "market_depth": cls.DEPTH}.get(str(value))


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The present quote of an instrument or index. Figures that the filter left out are None or
    empty; an index has neither quantities nor bids and asks."""

    instrument: str
    """The instrument as requested: `nse_cm|1333`, or `nse_cm|Nifty 50`."""
    symbol: str = ""
    """Trading symbol; the one of an index ends in `-IN`."""
    last_update_time: int | None = None
    """Unix seconds of the last change."""
    last_price: float | None = None
    last_quantity: int | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    """Previous close."""
    change: float | None = None
    """Change since the previous close, in rupees."""
    change_percent: float | None = None
    average_price: float | None = None
    volume: int | None = None
    """Units traded today."""
    total_buy_quantity: int | None = None
    total_sell_quantity: int | None = None
    open_interest: int | None = None
    lower_circuit: float | None = None
    upper_circuit: float | None = None
    year_high: float | None = None
    year_low: float | None = None
    bids: tuple[DepthRow, ...] = ()
    """Bids, best first; levels without quantity are left out."""
    asks: tuple[DepthRow, ...] = ()
    """Offers, best first; levels without quantity are left out."""

    @property
    def updated(self) -> datetime | None:
        """`last_update_time` in IST."""
        if not self.last_update_time:
            return None
        return datetime.fromtimestamp(self.last_update_time, IST)


class Quotes(dict[str, Quote]):
    """Quotes by instrument, in the spelling and the order of the request; those of an Instrument by
    its key, or by the Instrument itself."""

    def __init__(self, quotes: Mapping[str, Quote], missing: Mapping[str, str]) -> None:
        super().__init__(quotes)
        self.missing: Mapping[str, str] = missing
        """Instruments that got no quote, and why."""

    def __getitem__(self, instrument: InstrumentLike) -> Quote:
        return super().__getitem__(
            instrument.key if isinstance(instrument, Instrument) else instrument
        )

    def __repr__(self) -> str:
        return f"<Quotes {len(self)} of {len(self) + len(self.missing)} instruments>"


# --- chains -----------------------------------------------------------------------------------


class OptionQuote(msgspec.Struct, frozen=True, kw_only=True):
    """An option of a chain."""

    instrument: str
    """Segment and token: `nse_fo|71472`."""
    symbol: str
    moneyness: str = ""
    """Moneyness: `ITM`, `ATM` or `OTM`."""
    last_price: float | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    previous_close: float | None = None
    close: float | None = None
    """Close of the day; None until it is published."""
    volume: int | None = None
    open_interest: int | None = None
    previous_open_interest: int | None = None
    open_interest_change: int | None = None
    open_interest_change_percent: float | None = None


class ChainRow(msgspec.Struct, frozen=True):
    """The call and the put of one strike; None where it is not listed."""

    strike: float
    call: OptionQuote | None = None
    put: OptionQuote | None = None

    @property
    def is_at_the_money(self) -> bool:
        """Whether the broker marks an option of the strike as at the money."""
        options = (self.call, self.put)
        return any(option is not None and option.moneyness == "ATM" for option in options)


class OptionChain(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one underlying and expiry, by strike, lowest first."""

    segment: str
    underlying: str
    expiry: date | None
    lot_size: int | None = None
    multiplier: float | None = None
    rows: list[ChainRow]
    odd: tuple[str, ...] = ()
    """Options without a readable instrument or strike; the rows do not contain them."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ChainRow]:
        return iter(self.rows)

    @property
    def columns(self) -> Columns:
        """The chain by column: `strike`, and each figure as `call_last_price`, `put_volume` …"""
        table: dict[str, list[Any]] = {"strike": [row.strike for row in self.rows]}
        for side in ("call", "put"):
            options = [getattr(row, side) for row in self.rows]
            for name in OptionQuote.__struct_fields__:
                table[f"{side}_{name}"] = [getattr(option, name, None) for option in options]
        return table

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame. Raises UsageError when pandas is not installed."""
        return _pandas_frame(self.columns)

    def to_polars(self) -> polars.DataFrame:
        """Return a DataFrame. Raises UsageError when polars is not installed."""
        return _polars_frame(self.columns, _types(OptionQuote))


class FutureQuote(msgspec.Struct, frozen=True, kw_only=True):
    """A contract of a futures chain."""

    instrument: str
    symbol: str
    expiry: date | None
    last_price: float | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    previous_close: float | None = None
    close: float | None = None
    volume: int | None = None
    open_interest: int | None = None
    previous_open_interest: int | None = None
    open_interest_change: int | None = None
    open_interest_change_percent: float | None = None


class FuturesChain(msgspec.Struct, frozen=True, kw_only=True):
    """Futures of one underlying, nearest expiry first."""

    segment: str
    underlying: str
    lot_size: int | None = None
    multiplier: float | None = None
    rows: list[FutureQuote]
    odd: tuple[str, ...] = ()
    """Contracts without a readable instrument; the rows do not contain them."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[FutureQuote]:
        return iter(self.rows)

    @property
    def columns(self) -> Columns:
        """The chain by column."""
        names = FutureQuote.__struct_fields__
        return {name: [getattr(row, name) for row in self.rows] for name in names}

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame. Raises UsageError when pandas is not installed."""
        return _pandas_frame(self.columns)

    def to_polars(self) -> polars.DataFrame:
        """Return a DataFrame. Raises UsageError when polars is not installed."""
        return _polars_frame(self.columns, _types(FutureQuote))


# --- candles ----------------------------------------------------------------------------------


class Interval(StrEnum):
    """Time span of a candle."""

    MINUTE = "1min"
    MINUTES_3 = "3min"
    MINUTES_5 = "5min"
    MINUTES_10 = "10min"
    MINUTES_15 = "15min"
    MINUTES_30 = "30min"
    HOUR = "60min"
    DAY = "D"
    WEEK = "W"


class Candle(msgspec.Struct, frozen=True, gc=False):
    """Prices, volume and open interest of one interval."""

    time: datetime
    """Start of the candle in IST."""
    open: float
    high: float
    low: float
    close: float
    volume: int | None
    open_interest: int | None
    """Open interest; the broker documents it as not reliable yet."""


class Candles(msgspec.Struct, frozen=True, kw_only=True):
    """Candles of one instrument as columns, oldest first. Of two candles with one time, the first
    that the broker sent is kept."""

    instrument: str
    interval: Interval
    time: list[datetime]
    """Starts of the candles in IST."""
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[int | None]
    open_interest: list[int | None]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, position: int) -> Candle:
        return Candle(*(column[position] for column in self.columns.values()))

    def __iter__(self) -> Iterator[Candle]:
        return map(Candle, *self.columns.values())

    @property
    def columns(self) -> Columns:
        """The columns by name; the lists are not copied."""
        return {name: getattr(self, name) for name in Candle.__struct_fields__}

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame. Raises UsageError when pandas is not installed."""
        return _pandas_frame(self.columns)

    def to_polars(self) -> polars.DataFrame:
        """Return a DataFrame. Raises UsageError when polars is not installed."""
        return _polars_frame(self.columns, _types(Candle))

    def __repr__(self) -> str:
        span = f", {self.time[0]:%F %R} to {self.time[-1]:%F %R}" if self.time else ""
        return f"<Candles {self.instrument} {self.interval}: {len(self)}{span}>"


# --- frames -----------------------------------------------------------------------------------


def _pandas_frame(columns: Columns) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError:
        raise UsageError('to_pandas() needs pandas: pip install "neo-async[pandas]"') from None
    frame = pandas.DataFrame(dict(columns))
    if "time" in frame:
        frame["time"] = pandas.to_datetime(frame["time"], utc=True).dt.tz_convert(TIME_ZONE)
    if "expiry" in frame:
        frame["expiry"] = pandas.to_datetime(frame["expiry"])
    return frame


def _polars_frame(columns: Columns, types: Mapping[str, type]) -> polars.DataFrame:
    """Return a DataFrame. `types` gives the types of columns that may hold nothing but None."""
    try:
        import polars
    except ImportError:
        raise UsageError('to_polars() needs polars: pip install "neo-async[polars]"') from None
    known = {int: polars.Int64, float: polars.Float64, str: polars.String, date: polars.Date}
    series = []
    for name, values in columns.items():
        field = name.removeprefix("call_").removeprefix("put_")
        if field == "time":
            stamps = [round(time.timestamp()) for time in values]
            seconds = polars.Series(name, stamps, dtype=polars.Int64)
            times = (seconds * 1_000_000).cast(polars.Datetime("us", "UTC"))
            series.append(times.dt.convert_time_zone(TIME_ZONE))
        else:
            dtype = known[types.get(field, float)]
            series.append(polars.Series(name, values, dtype=dtype))
    return polars.DataFrame(series)


def _types(row: type[msgspec.Struct]) -> dict[str, type]:
    """Return the type of each field of a row, without None."""
    types = {}
    for field in msgspec.structs.fields(row):
        parts = getattr(field.type, "__args__", (field.type,))
        types[field.name] = next(part for part in parts if part is not type(None))
    return types
