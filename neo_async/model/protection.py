"""Market price protection: the broker's published grid of bands for market orders.

A market order gets a limit one band beyond the last price. Prices here are paise.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

# Last prices, in paise, at which the next band begins; and the bands in percent.
_SHARES_AND_FUTURES: Final = ((100_00, 500_00), (2.0, 1.0, 0.5))
_OPTIONS: Final = ((5_00, 10_00, 100_00, 500_00), (10.0, 5.0, 3.0, 2.0, 1.0))

CHEAP_OPTION: Final = 1_00
CHEAP_OPTION_BAND: Final = 10
"""Options below one rupee have a band of ten paise, not a percentage."""


def protection_percent(last_price: int, *, is_option: bool) -> float:
    """Return the band in percent; 0.0 for an option below one rupee, whose band is absolute."""
    if is_option and last_price < CHEAP_OPTION:
        return 0.0
    bounds, percents = _OPTIONS if is_option else _SHARES_AND_FUTURES
    return percents[bisect_right(bounds, last_price)]


def protection_band(last_price: int, *, is_option: bool) -> int:
    """Return the band in paise, rounded down."""
    percent = protection_percent(last_price, is_option=is_option)
    # Tenths of a percent keep the arithmetic in integers.
    return last_price * round(percent * 10) // 1000 if percent else CHEAP_OPTION_BAND
