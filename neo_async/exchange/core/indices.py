"""The indices: what a basket of the shares listed here makes of their prices.

An index starts at its previous close and moves as its members do, weighted. Members that are not
listed are left out and the others weigh more; an index without a single member does not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from neo_async.exchange.core.types import Listing
from neo_async.model.enums import Segment

if TYPE_CHECKING:
    from neo_async.exchange.core.market import Market


class Index(msgspec.Struct, frozen=True):
    segment: Segment
    token: str
    name: str
    close: int
    """Previous close in hundredths of a point."""
    weights: tuple[tuple[str, int], ...]
    """Trading symbol and weight of each member."""

    @property
    def symbol(self) -> str:
        """As acknowledgements spell it: `Nifty 50-IN`."""
        return f"{self.name}-IN"


INDICES: Final = (
    Index(
        Segment.NSE_CM,
        "26000",
        "Nifty 50",
        24_412_35,
        (
            ("HDFCBANK-EQ", 13),
            ("ICICIBANK-EQ", 9),
            ("RELIANCE-EQ", 9),
            ("INFY-EQ", 6),
            ("BHARTIARTL-EQ", 4),
            ("LT-EQ", 4),
            ("ITC-EQ", 4),
            ("TCS-EQ", 3),
            ("AXISBANK-EQ", 3),
            ("SBIN-EQ", 3),
        ),
    ),
    Index(
        Segment.NSE_CM,
        "26009",
        "Nifty Bank",
        55_180_70,
        (
            ("HDFCBANK-EQ", 28),
            ("ICICIBANK-EQ", 24),
            ("SBIN-EQ", 9),
            ("AXISBANK-EQ", 8),
            ("KOTAKBANK-EQ", 8),
            ("BANKBARODA-EQ", 3),
            ("PNB-EQ", 3),
        ),
    ),
    Index(
        Segment.BSE_CM,
        "1",
        "SENSEX",
        79_802_10,
        (("RELIANCE", 11), ("TCS", 5)),
    ),
)


class IndexPicture(msgspec.Struct, frozen=True, kw_only=True):
    """Hundredths of a point; the time in Unix ns, 0 while no member has traded."""

    index: Index
    value: int
    open: int
    high: int
    low: int
    year_high: int
    year_low: int
    last_trade_ns: int


class _Meter:
    """One index over its listed members, with the day's range of what was read from it."""

    def __init__(self, index: Index, members: dict[Listing, int]) -> None:
        self.index = index
        self.members = members
        self.total_weight = sum(members.values())
        self.high = 0
        self.low = 0

    def level(self, prices: list[int]) -> int:
        moves = sum(
            weight * price / listing.base_price
            for (listing, weight), price in zip(self.members.items(), prices, strict=True)
        )
        return round(self.index.close * moves / self.total_weight)


class IndexBoard:
    """The indices that this market can reckon."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._meters: dict[Index, _Meter] = {}
        self._by_text: dict[tuple[str, str], Index] = {}
        self._set_meters()
        for index in self._meters:
            for text in (index.token, index.name):
                self._by_text[index.segment.value, text.casefold()] = index

    def _set_meters(self) -> None:
        """For the day that the market is in."""
        self._day = self._market.days_begun
        for index in INDICES:
            listed = {self._market.listing(index.segment, symbol): w for symbol, w in index.weights}
            members = {
                listing: w for listing, w in listed.items() if listing and listing.base_price
            }
            if members:
                close = self._market.previous_close(index)
                self._meters[index] = _Meter(msgspec.structs.replace(index, close=close), members)

    def find(self, segment: str, text: str) -> Index | None:
        """By name, whatever its case, or by number."""
        return self._by_text.get((segment, text.casefold()))

    def members(self, index: Index) -> list[Listing]:
        return list(self._meters[index].members)

    def picture(self, index: Index) -> IndexPicture:
        """High and low are those of the values read so far, the opening value included."""
        if self._day != self._market.days_begun:
            self._set_meters()
        meter = self._meters[index]
        days = [self._market.day(listing) for listing in meter.members]
        value = meter.level([day.last_price for day in days])
        opened = meter.level(
            [
                day.open or listing.base_price
                for day, listing in zip(days, meter.members, strict=True)
            ]
        )
        meter.high = max(meter.high, value, opened)
        meter.low = min(meter.low or value, value, opened)
        return IndexPicture(
            index=meter.index,
            value=value,
            open=opened,
            high=meter.high,
            low=meter.low,
            year_high=max(meter.high, meter.index.close * 112 // 100),
            year_low=min(meter.low, meter.index.close * 86 // 100),
            last_trade_ns=max(day.last_trade_ns for day in days),
        )
