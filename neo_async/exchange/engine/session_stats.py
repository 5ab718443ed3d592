"""What a listing did today: the figures of its touch line that no book holds.

Reckoned trade by trade. Open, high and low are 0 before the first trade.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from neo_async.exchange.engine.types import Listing

_YEAR_SPREAD: Final = (10, 45)
"""Percent by which the year's high and low lie beyond the previous close."""
_OPEN_LOTS: Final = (2_000, 40_000)
"""Contracts that are open in a derivative when the exchange begins."""
_OPENS, _CLOSES = 0, 1
_CROWD_SHARE: Final = 1_000
"""A trade among the crowd opens or closes at most one part in this many of what is open."""


class Day(msgspec.Struct):
    """Prices in paise, times in Unix ns."""

    last_price: int
    """The previous close before the first trade."""
    year_high: int
    year_low: int
    open_interest: int
    """0 in the cash segments."""
    previous_open_interest: int
    """When the day began."""
    open: int = 0
    high: int = 0
    low: int = 0
    volume: int = 0
    value: int = 0
    """Sum of price x quantity."""
    last_quantity: int = 0
    last_trade_ns: int = 0

    def trade(self, price: int, quantity: int, now_ns: int) -> None:
        """Take in a trade; one of quantity 0 moves the price and nothing else."""
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

    def change_interest(self, change: int) -> None:
        """Let a trade have opened, or closed, that many units."""
        self.open_interest = max(0, self.open_interest + change)

    def crowd_interest(self, quantity: int, lot_size: int) -> int:
        """What a trade among those who are no clients opens or closes: in one of four trades both
        sides do the one, in one of four the other. Drawn from what has traded before it."""
        drawn = ((self.volume + self.last_price) * 2_654_435_761 >> 16) & 3
        if drawn > _CLOSES:
            return 0
        changed = min(quantity, self.open_interest // _CROWD_SHARE // lot_size * lot_size)
        return changed if drawn == _OPENS else -changed


def first_interest(listing: Listing, seed: int) -> int:
    """What is open in a derivative when the exchange begins."""
    if listing.segment.is_cash:
        return 0
    rng = random.Random(f"{seed}|interest|{listing.segment.value}|{listing.token}")
    return rng.randint(*_OPEN_LOTS) * listing.lot_size


def new_day(listing: Listing, seed: int) -> Day:
    # A generator of its own, so that opening a day leaves the makers' draws alone.
    rng = random.Random(f"{seed}|day|{listing.segment.value}|{listing.token}")
    close, tick = listing.base_price, listing.tick
    above, below = (rng.uniform(*_YEAR_SPREAD) / 100 for _ in range(2))
    interest = first_interest(listing, seed)
    return Day(
        last_price=close,
        year_high=round(close * (1 + above)) // tick * tick,
        year_low=max(tick, round(close * (1 - below)) // tick * tick) if close else 0,
        open_interest=interest,
        previous_open_interest=interest,
    )


def following(day: Day) -> Day:
    """The day after: nothing has traded yet, and the last price is the previous close."""
    return Day(
        last_price=day.last_price,
        year_high=day.year_high,
        year_low=day.year_low,
        open_interest=day.open_interest,
        previous_open_interest=day.open_interest,
    )


class Picture(msgspec.Struct, frozen=True):
    """A listing as the feed and the quotes show it. Prices in paise, times in Unix ns."""

    listing: Listing
    day: Day
    """Live: the same object as the market's."""
    changed_ns: int
    """When a trade or the book last changed it."""
    bids: list[tuple[int, int, int]]
    """(price, visible quantity, orders), best first."""
    asks: list[tuple[int, int, int]]
    total_buy_quantity: int
    total_sell_quantity: int
