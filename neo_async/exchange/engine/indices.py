"""The indices: what a basket of the shares listed here makes of their prices.

An index starts at its previous close and moves as its members do, weighted, with every trade in one
of them. Members that are not listed are left out and the others weigh more; an index without a
single member does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import mul
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from neo_async.exchange.engine.session_stats import Day, following
from neo_async.exchange.engine.types import Index, Listing
from neo_async.model.enums import Segment

if TYPE_CHECKING:
    from neo_async.exchange.engine.matching_engine import Market


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


_YEAR_HIGH_PERCENT: Final = 112
_YEAR_LOW_PERCENT: Final = 86
"""Of the previous close, where the year's range of an index lies when it is first heard of."""

Key: TypeAlias = tuple[Segment, str]
"""Segment and token."""


def basket(index: Index, by_symbol: Mapping[Key, Listing]) -> dict[Listing, int]:
    """Those of its members that are listed and have a price, with their weights."""
    listed = {by_symbol.get((index.segment, symbol)): weight for symbol, weight in index.weights}
    return {member: weight for member, weight in listed.items() if member and member.base_price}


class IndexPicture(msgspec.Struct, frozen=True):
    index: Index
    """With the previous close of the day."""
    day: Day
    """Live: the same object as the market's. In hundredths of a point; nothing of it has a
    volume."""


class Meter:
    """One index over its listed members, moved by each of their trades."""

    def __init__(self, index: Index, members: dict[Listing, int], day: Day | None = None) -> None:
        """`index` has the previous close of the day."""
        self.day = day or Day(
            last_price=index.close,
            year_high=index.close * _YEAR_HIGH_PERCENT // 100,
            year_low=index.close * _YEAR_LOW_PERCENT // 100,
            open_interest=0,
            previous_open_interest=0,
        )
        self._set_terms(index, members)

    def _set_terms(self, index: Index, members: dict[Listing, int]) -> None:
        self.index = index
        self.members = list(members)
        total = sum(members.values())
        self._shares = [weight / member.base_price / total for member, weight in members.items()]
        self.prices = [member.base_price for member in self.members]
        """Last ones, in the order of the members."""

    def take(self, place: int, price: int, now_ns: int) -> bool:
        """Take in a trade of the member at that place; whether that moves the index."""
        self.prices[place] = price
        value = round(self.index.close * sum(map(mul, self._shares, self.prices)))
        if value == self.day.last_price and self.day.open:
            return False
        self.day.trade(value, 0, now_ns)
        return True

    def begin_day(self, relisted: Mapping[Key, Listing]) -> None:
        """Start from the value reached, over members at the closes they start from."""
        weights = dict(self.index.weights)
        members = [relisted[member.segment, member.token] for member in self.members]
        index = msgspec.structs.replace(self.index, close=self.day.last_price)
        self._set_terms(index, {member: weights[member.symbol] for member in members})
        self.day = following(self.day)


class Meters:
    """The indices that can be reckoned from what is listed."""

    def __init__(
        self,
        by_symbol: Mapping[Key, Listing],
        closes: Mapping[str, int],
        days: Mapping[str, Day] | None = None,
    ) -> None:
        """`closes` and `days` by `nse_cm|26000`, of indices that do not start afresh."""
        days = days or {}
        self.by_key: dict[str, Meter] = {}
        self._of: dict[Key, list[tuple[Meter, int]]] = {}
        for index in INDICES:
            members = basket(index, by_symbol)
            if members:
                close = closes.get(index.key, index.close)
                meter = Meter(
                    msgspec.structs.replace(index, close=close), members, days.get(index.key)
                )
                self.by_key[index.key] = meter
                for place, member in enumerate(members):
                    self._of.setdefault((member.segment, member.token), []).append((meter, place))

    def of(self, key: Key) -> list[tuple[Meter, int]]:
        """The indices that a listing is a member of, and its place in each."""
        return self._of.get(key, [])


class IndexBoard:
    """The indices of a market, for those who ask by name."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._by_text = {
            (meter.index.segment.value, text.casefold()): meter
            for meter in market.meters
            for text in (meter.index.token, meter.index.name)
        }

    def find(self, segment: str, text: str) -> Index | None:
        """By name, whatever its case, or by number."""
        meter = self._by_text.get((segment, text.casefold()))
        return meter.index if meter is not None else None

    def members(self, index: Index) -> list[Listing]:
        return self._meter(index).members

    def picture(self, index: Index) -> IndexPicture:
        """As of now: its members' makers are woken to tell."""
        meter = self._meter(index)
        for member in meter.members:
            self._market.day(member)
        return IndexPicture(meter.index, meter.day)

    def _meter(self, index: Index) -> Meter:
        return self._by_text[index.segment.value, index.token]
