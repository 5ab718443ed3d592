"""The messages of the market feed. Prices are rupees, times Unix seconds, quantities units.

Every kind has an `instrument` and a `level`: of two ticks that agree in both, the newer replaces
the older. Kinds that are not subscribed at a level have a level below 1.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, TypeAlias

import msgspec

from neo_async.model.enums import Level


class LiteTick(msgspec.Struct, frozen=True, gc=False):
    """The mini touch line (`Level.LITE`): last price, close and change."""

    level: ClassVar[int] = Level.LITE

    instrument: str
    """Segment and exchange token, as subscribed: `nse_cm|11536`."""
    symbol: str
    """Trading symbol; empty until the server has sent it."""
    last_price: float
    last_trade_time: int
    last_quantity: int
    close: float
    """Previous close."""
    change: float
    """Change since the previous close, in rupees."""
    change_percent: float
    lot_size: int
    precision: int
    """Decimals of a price."""
    multiplier: int
    received_ns: int
    """Unix nanoseconds at which the client received the frame."""


class DepthRow(msgspec.Struct, frozen=True, gc=False):
    """A price level of a book."""

    quantity: int
    price: float
    orders: int


class ScripTick(msgspec.Struct, frozen=True, gc=False):
    """Prices and volume of the day, with the best bid and ask (`Level.SCRIP`), five of each
    (`Level.DEPTH`) or more (`Level.FULL_DEPTH`)."""

    instrument: str
    symbol: str
    level: int
    last_price: float
    last_trade_time: int
    """Time of the last trade; 0 when there was none."""
    last_update_time: int
    last_quantity: int
    open: float
    high: float
    low: float
    close: float
    """Previous close."""
    average_price: float
    volume: int
    """Units traded today; its steps include trades that a conflated feed left out."""
    value: float
    """Traded value of the day; 0 when the broker sent no number."""
    total_buy_quantity: int
    total_sell_quantity: int
    open_interest: int
    change: float
    change_percent: float
    upper_circuit: float
    lower_circuit: float
    year_high: float
    year_low: float
    lot_size: int
    precision: int
    multiplier: int
    is_auction: bool
    bids: tuple[DepthRow, ...]
    """Bids, best first."""
    asks: tuple[DepthRow, ...]
    """Offers, best first."""
    received_ns: int


class IndexTick(msgspec.Struct, frozen=True, gc=False):
    """Value of an index, with the ranges of its day and year."""

    level: ClassVar[int] = 0

    instrument: str
    """The index as subscribed: `nse_cm|Nifty 50` or `nse_cm|26000`."""
    symbol: str
    name: str
    """Name of the index: `Nifty 50`."""
    token: int
    last_price: float
    """Value of the index."""
    last_trade_time: int
    open: float
    high: float
    low: float
    close: float
    change: float
    change_percent: float
    year_high: float
    year_low: float
    precision: int
    multiplier: float
    received_ns: int


class MarketState(IntEnum):
    """State of a segment: the `status_code` of a market status message."""

    OPEN = 1
    CLOSED = 2
    PREOPEN_ENDING = 3
    PREOPEN_ENDED = 4
    AUCTION_CHANGED = 5
    CLOSING_STARTED = 6
    CLOSING_ENDED = 7
    CLOSED_FOR_AUCTION = 8
    PRICE_BAND_REVISED = 9
    AUCTION_STARTED = 10
    MARKET_ORDERS_RESTRICTED = 11
    AUCTION_ENDED = 12


class MarketStatus(msgspec.Struct, frozen=True, gc=False):
    """A change of state of a whole segment: it opens, closes, or begins an auction."""

    level: ClassVar[int] = -1

    segment: str
    code: int
    """A `MarketState`, or an undocumented number."""
    text: str
    received_ns: int

    @property
    def instrument(self) -> str:
        """The segment, as the subject of the message."""
        return self.segment


class AuctionTick(msgspec.Struct, frozen=True, gc=False):
    """Reference price and imbalance of the closing call auction."""

    level: ClassVar[int] = -2

    instrument: str
    symbol: str
    reference_price: float
    imbalance_quantity: int
    """Positive when more is bid than offered."""
    imbalance_at_market: int
    received_ns: int


PriceTick: TypeAlias = LiteTick | ScripTick
"""A tick with the price of an instrument, at whatever level it is subscribed."""

Tick: TypeAlias = PriceTick | IndexTick | MarketStatus | AuctionTick
