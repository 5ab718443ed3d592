"""Stock indices, calculated from the trades of their members.

An index starts at its previous close and moves with every trade in a member, by the member's
weight (INDIA VIX against it). Members that are not listed are left out and the others weigh more;
an index without a single listed member does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import mul
from typing import Final, TypeAlias

import msgspec

from neo_async.exchange.engine.session_stats import SessionStats, next_session
from neo_async.exchange.engine.types import Index, Listing
from neo_async.model.enums import Segment

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
        underlying="NIFTY",
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
        underlying="BANKNIFTY",
    ),
    Index(
        Segment.NSE_CM,
        "26037",
        "Nifty Fin Service",
        26_402_15,
        (("HDFCBANK-EQ", 35), ("ICICIBANK-EQ", 23), ("BAJFINANCE-EQ", 7), ("SBIN-EQ", 7)),
        underlying="FINNIFTY",
    ),
    Index(
        Segment.NSE_CM,
        "26074",
        "NIFTY MID SELECT",
        13_051_40,
        (("SUZLON-EQ", 5), ("YESBANK-EQ", 4), ("IDFCFIRSTB-EQ", 4), ("SAIL-EQ", 2)),
        underlying="MIDCPNIFTY",
    ),
    Index(
        Segment.NSE_CM,
        "26013",
        "Nifty Next 50",
        66_810_55,
        (("TATAPOWER-EQ", 4), ("BPCL-EQ", 4), ("IOC-EQ", 4), ("GAIL-EQ", 3), ("CANBK-EQ", 3)),
    ),
    Index(
        Segment.NSE_CM,
        "26008",
        "Nifty IT",
        36_120_90,
        (("INFY-EQ", 28), ("TCS-EQ", 22), ("HCLTECH-EQ", 11), ("TECHM-EQ", 10), ("WIPRO-EQ", 7)),
    ),
    Index(
        Segment.NSE_CM,
        "26017",
        "INDIA VIX",
        13_42,
        (("HDFCBANK-EQ", 13), ("ICICIBANK-EQ", 9), ("RELIANCE-EQ", 9)),
        aliases=("India VIX",),
        elasticity=-5,
    ),
    Index(
        Segment.BSE_CM,
        "1",
        "SENSEX",
        79_802_10,
        (
            ("HDFCBANK", 15),
            ("ICICIBANK", 11),
            ("RELIANCE", 11),
            ("INFY", 6),
            ("BHARTIARTL", 6),
            ("TCS", 5),
            ("LT", 5),
            ("ITC", 4),
            ("AXISBANK", 4),
            ("SBIN", 4),
        ),
        underlying="SENSEX",
    ),
    Index(
        Segment.BSE_CM,
        "12",
        "BANKEX",
        61_930_25,
        (("HDFCBANK", 30), ("ICICIBANK", 26), ("SBIN", 10), ("AXISBANK", 9), ("KOTAKBANK", 8)),
        underlying="BANKEX",
    ),
)
"""The indices that exchanges and the broker's lists name, with the spelling of the broker."""


_YEAR_HIGH_PERCENT: Final = 112
_YEAR_LOW_PERCENT: Final = 86
"""The year's range of an index at its listing, in percent of the previous close."""

Key: TypeAlias = tuple[Segment, str]
"""Segment and token."""


def basket(index: Index, by_symbol: Mapping[Key, Listing]) -> dict[Listing, int]:
    """Return the members of an index that are listed and have a price, with their weights."""
    listed = {by_symbol.get((index.segment, symbol)): weight for symbol, weight in index.weights}
    return {member: weight for member, weight in listed.items() if member and member.base_price}


class IndexSnapshot(msgspec.Struct, frozen=True):
    """An index as the feed and the quotes show it."""

    index: Index
    """The index, with the previous close of the day."""
    stats: SessionStats
    """Figures in hundredths of a point, without volume; the market's own object, kept current."""


class LiveIndex:
    """An index over its listed members, moved by each of their trades."""

    def __init__(
        self, index: Index, members: dict[Listing, int], stats: SessionStats | None = None
    ) -> None:
        """`index` has the previous close of the day."""
        self.stats = stats or SessionStats(
            last_price=index.close,
            year_high=index.close * _YEAR_HIGH_PERCENT // 100,
            year_low=index.close * _YEAR_LOW_PERCENT // 100,
            open_interest=0,
            previous_open_interest=0,
        )
        self._set_members(index, members)

    def _set_members(self, index: Index, members: dict[Listing, int]) -> None:
        self.index = index
        self.members = list(members)
        total = sum(members.values())
        self._shares = [weight / member.base_price / total for member, weight in members.items()]
        self.prices = [member.base_price for member in self.members]
        """Last prices, in the order of the members."""

    def update(self, position: int, price: int, now_ns: int) -> bool:
        """Apply a trade of the member at that position; return whether it moves the index."""
        self.prices[position] = price
        ratio = sum(map(mul, self._shares, self.prices))
        if self.index.elasticity != 1:
            ratio **= self.index.elasticity
        value = round(self.index.close * ratio)
        if value == self.stats.last_price and self.stats.open:
            return False
        self.stats.trade(value, 0, now_ns)
        return True

    def begin_session(self, relisted: Mapping[Key, Listing]) -> None:
        """Start from the value reached, over members at their new base prices."""
        weights = dict(self.index.weights)
        members = [relisted[member.segment, member.token] for member in self.members]
        index = msgspec.structs.replace(self.index, close=self.stats.last_price)
        self._set_members(index, {member: weights[member.symbol] for member in members})
        self.stats = next_session(self.stats)


class LiveIndices:
    """The indices that have a member among the listings."""

    def __init__(
        self,
        by_symbol: Mapping[Key, Listing],
        closes: Mapping[str, int],
        stats: Mapping[str, SessionStats] | None = None,
    ) -> None:
        """`closes` and `stats` are those of indices that exist already, by `nse_cm|26000`."""
        stats = stats or {}
        self.by_key: dict[str, LiveIndex] = {}
        self._memberships: dict[Key, list[tuple[LiveIndex, int]]] = {}
        for index in INDICES:
            members = basket(index, by_symbol)
            if members:
                close = closes.get(index.key, index.close)
                live_index = LiveIndex(
                    msgspec.structs.replace(index, close=close), members, stats.get(index.key)
                )
                self.by_key[index.key] = live_index
                for position, member in enumerate(members):
                    key = (member.segment, member.token)
                    self._memberships.setdefault(key, []).append((live_index, position))

    def of(self, key: Key) -> list[tuple[LiveIndex, int]]:
        """Return the indices that a listing is a member of, and its position in each."""
        return self._memberships.get(key, [])
