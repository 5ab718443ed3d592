"""The exits of cover and bracket orders: at which prices they stand, and how a stop follows.

With the first fill of an entry two orders come to life, a target (bracket orders only) and a stop,
both for what the entry has filled. They count from the price of that fill:

    target   a limit that many paise or ticks beyond it
    stop     for a bracket that many behind it, for a cover order the entry's own trigger; its
             limit lies one protection band beyond the trigger

What the target fills, the stop no longer covers. As soon as one of them trades or the stop is
triggered, the rest of the entry is cancelled, and a triggered stop cancels the target: the two
never rest in the book at the same time, so they cannot close more than was opened.

A trailing stop moves by whole steps, as often as the price has gained one since the first fill,
and never back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from neo_async.exchange.engine.types import Listing, OrderRecord
from neo_async.model.enums import Product, Side

COVERED: Final = (Product.CO, Product.BO)
"""Products whose orders come with exits."""


class Legs(msgspec.Struct, kw_only=True):
    """The exits of one entry. Prices in paise."""

    entry: str
    """Numbers of the orders."""
    stop: str
    target: str = ""
    """Empty for a cover order."""
    base: int
    """Price of the entry's first fill."""
    first_trigger: int
    step: int
    """Of the trailing; 0: the stop stays."""

    def trigger_at(self, price: int, sign: int) -> int:
        """Where the stop belongs once `price` has traded; `sign` is 1 for a bought entry."""
        gained = max((price - self.base) * sign, 0)
        return self.first_trigger + sign * (gained // self.step * self.step)


def target_and_trigger(entry: OrderRecord, base: int) -> tuple[int, int]:
    """Prices of the exits of an entry filled at `base`, not yet held inside the bands.

    The target is 0 for a cover order.
    """
    if entry.bracket is None:
        return 0, entry.trigger
    sign = 1 if entry.side is Side.BUY else -1
    tick = entry.listing.tick
    target = base + sign * entry.bracket.target_distance(tick)
    return target, base - sign * entry.bracket.stop_distance(tick)


def inside(listing: Listing, price: int) -> int:
    """The nearest price on the near side of the circuit limits."""
    return max(listing.lower_band, listing.tick, min(listing.upper_band, price))
