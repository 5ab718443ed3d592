"""Market price protection: the broker's published grid of bands for market orders.

The grid leaves open what happens on its edges and how a limit is rounded. Here the next band
begins on the edge, and a limit is rounded towards the last price but stays a tick away from it.
"""

from __future__ import annotations

from typing import Final

from neo_async.exchange.engine.types import Listing
from neo_async.model import protection
from neo_async.model.enums import Side

_BUY: Final = Side.BUY


def protection_percent(listing: Listing, last_price: int) -> float:
    """Return the band in percent; 0.0 for an option below one rupee, whose band is absolute."""
    return protection.protection_percent(last_price, is_option=listing.is_option)


def protected_limit(listing: Listing, side: Side, last_price: int) -> int:
    """Return the limit of a market order: above the last price to buy, below it to sell."""
    tick = listing.tick
    band = protection.protection_band(last_price, is_option=listing.is_option)
    if side is _BUY:
        limit = max((last_price + band) // tick * tick, (last_price // tick + 1) * tick)
        return min(limit, listing.upper_band)
    limit = min(-((band - last_price) // tick) * tick, (-(-last_price // tick) - 1) * tick)
    return max(limit, listing.lower_band, tick)
