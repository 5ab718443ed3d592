"""Market price protection: the broker's published grid of bands for market orders.

The grid leaves open what happens on its edges and how a limit is rounded. Here the next band
begins on the edge, and a limit is rounded towards the last price but stays a tick away from it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Side

# Last prices, in paise, at which the next band begins; and the bands in percent.
_SHARES_AND_FUTURES: Final = ((100_00, 500_00), (2.0, 1.0, 0.5))
_OPTIONS: Final = ((5_00, 10_00, 100_00, 500_00), (10.0, 5.0, 3.0, 2.0, 1.0))

_BUY: Final = Side.BUY

_CHEAP_OPTION: Final = 1_00
_CHEAP_OPTION_BAND: Final = 10
"""Options below one rupee have a band of ten paise, not a percentage."""


def protection_percent(listing: Listing, last_price: int) -> float:
    """Return the band in percent; 0.0 for an option below one rupee, whose band is absolute."""
    if listing.is_option and last_price < _CHEAP_OPTION:
        return 0.0
    bounds, percents = _OPTIONS if listing.is_option else _SHARES_AND_FUTURES
    return percents[bisect_right(bounds, last_price)]


def protected_limit(listing: Listing, side: Side, last_price: int) -> int:
    """Return the limit of a market order: above the last price to buy, below it to sell."""
    percent = protection_percent(listing, last_price)
    tick = listing.tick
    # Tenths of a percent keep the arithmetic in integers.
    band = last_price * round(percent * 10) // 1000 if percent else _CHEAP_OPTION_BAND
    if side is _BUY:
        limit = max((last_price + band) // tick * tick, (last_price // tick + 1) * tick)
        return min(limit, listing.upper_band)
    limit = min(-((band - last_price) // tick) * tick, (-(-last_price // tick) - 1) * tick)
    return max(limit, listing.lower_band, tick)
