"""The contingent orders of one cover or bracket order: their prices, and how a stop trails.

With the first fill of an entry two orders are created that cancel each other (OCO): a target (for
bracket orders only) and a stop, both for the quantity that the entry has filled. Their prices count
from the price of that fill:

    target   a limit, the bracket's target distance beyond the fill
    stop     for a bracket, its stop distance behind the fill; for a cover order, the entry's own
             trigger; the limit of the stop lies one protection band beyond the trigger

The stop no longer covers what the target has filled. As soon as one of them trades or the stop is
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

COVERED_PRODUCTS: Final = (Product.CO, Product.BO)
"""Products whose orders come with contingent orders."""


class OcoGroup(msgspec.Struct, kw_only=True):
    """An entry and its contingent orders, by their numbers. Prices in paise."""

    entry: str
    stop: str
    target: str = ""
    """Number of the target; empty for a cover order."""
    base: int
    """Price of the entry's first fill."""
    first_trigger: int
    """Trigger of the stop before it trailed."""
    step: int
    """Step by which the stop trails; 0 for a fixed stop."""

    def trigger_at(self, price: int, sign: int) -> int:
        """Return the trigger that follows from a trade at `price`; `sign` is 1 for a bought entry,
        -1 for a sold one."""
        gained = max((price - self.base) * sign, 0)
        return self.first_trigger + sign * (gained // self.step * self.step)


def exit_prices(entry: OrderRecord, base: int) -> tuple[int, int]:
    """Return target price and stop trigger of an entry filled at `base`, before `within_bands`.

    The target is 0 for a cover order.
    """
    if entry.bracket is None:
        return 0, entry.trigger
    sign = 1 if entry.side is Side.BUY else -1
    tick = entry.listing.tick
    target = base + sign * entry.bracket.target_distance(tick)
    return target, base - sign * entry.bracket.stop_distance(tick)


def within_bands(listing: Listing, price: int) -> int:
    """Return the price, or the circuit limit that it lies beyond."""
    return max(listing.lower_band, listing.tick, min(listing.upper_band, price))
