"""The session's figures of one instrument: last price, range, volume and open interest.

Updated with every trade. Open, high and low are 0 before the first trade.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from neo_async.exchange.engine.types import Listing

_YEAR_SPREAD: Final = (10, 45)
"""Percent by which the year's high and low lie beyond the previous close."""
_OPEN_LOTS: Final = (2_000, 40_000)
"""Bounds of the open interest with which a derivative is listed, in lots."""
_OPENS, _CLOSES = 0, 1
_BACKGROUND_SHARE: Final = 1_000
"""A background trade changes the open interest by at most one part in this many."""


class SessionStats(msgspec.Struct):
    """Figures of one session. Prices in paise, times in Unix ns."""

    last_price: int
    """Price of the last trade; the previous close before the first."""
    year_high: int
    year_low: int
    open_interest: int
    """Open interest in units; 0 in the cash segments."""
    previous_open_interest: int
    """Open interest when the session began."""
    open: int = 0
    high: int = 0
    low: int = 0
    volume: int = 0
    value: int = 0
    """Sum of price x quantity."""
    last_quantity: int = 0
    last_trade_ns: int = 0

    def trade(self, price: int, quantity: int, now_ns: int) -> None:
        """Apply a trade; one of quantity 0 moves the price and nothing else."""
        self.last_price = price
        self.last_trade_ns = now_ns
        if not self.open:
            self.open = self.high = self.low = price
            self.year_high = max(self.year_high, price)
            self.year_low = min(self.year_low, price)
        elif price > self.high:
            self.high = price
            self.year_high = max(self.year_high, price)
        elif price < self.low:
            self.low = price
            self.year_low = min(self.year_low, price)
        if quantity:
            self.last_quantity = quantity
            self.volume += quantity
            self.value += quantity * price

    def change_open_interest(self, change: int) -> None:
        """Add the units that a trade has opened; closed ones are negative."""
        self.open_interest = max(0, self.open_interest + change)

    def background_open_interest_change(self, quantity: int, lot_size: int) -> int:
        """Return by how much a trade between two market makers changes the open interest.

        One trade in four opens on both sides, one in four closes on both, the others change
        nothing. Drawn from the volume and price before the trade, so that a replay agrees.
        """
        drawn = ((self.volume + self.last_price) * 2_654_435_761 >> 16) & 3
        if drawn > _CLOSES:
            return 0
        changed = min(quantity, self.open_interest // _BACKGROUND_SHARE // lot_size * lot_size)
        return changed if drawn == _OPENS else -changed


def initial_open_interest(listing: Listing, seed: int) -> int:
    """Return the open interest with which a derivative is listed."""
    if listing.segment.is_cash:
        return 0
    rng = random.Random(f"{seed}|interest|{listing.segment.value}|{listing.token}")
    return rng.randint(*_OPEN_LOTS) * listing.lot_size


def first_session(listing: Listing, seed: int) -> SessionStats:
    """Return the figures of an instrument before its first trade here."""
    # A generator of its own, so that a first session leaves the market makers' draws alone.
    rng = random.Random(f"{seed}|day|{listing.segment.value}|{listing.token}")
    close, tick = listing.base_price, listing.tick
    above, below = (rng.uniform(*_YEAR_SPREAD) / 100 for _ in range(2))
    interest = initial_open_interest(listing, seed)
    return SessionStats(
        last_price=close,
        year_high=round(close * (1 + above)) // tick * tick,
        year_low=max(tick, round(close * (1 - below)) // tick * tick) if close else 0,
        open_interest=interest,
        previous_open_interest=interest,
    )


def next_session(stats: SessionStats) -> SessionStats:
    """Return the figures of the session after: the last price is then the previous close."""
    return SessionStats(
        last_price=stats.last_price,
        year_high=stats.year_high,
        year_low=stats.year_low,
        open_interest=stats.open_interest,
        previous_open_interest=stats.open_interest,
    )


class MarketSnapshot(msgspec.Struct, frozen=True):
    """A listing as the feed and the quotes show it. Prices in paise, times in Unix ns."""

    listing: Listing
    stats: SessionStats
    """Figures of the session; the market's own object, kept current."""
    changed_ns: int
    """Time at which a trade or the book last changed it."""
    bids: list[tuple[int, int, int]]
    """Bids as (price, visible quantity, orders), best first."""
    asks: list[tuple[int, int, int]]
    total_buy_quantity: int
    total_sell_quantity: int
