"""Fair value of a derivative, given the price of its underlying.

Futures carry interest: forward = spot x exp(rate x years). Options are valued on that forward by
Black's formula (1976), with a volatility that depends on the strike alone: a shallow smile around
the forward, fixed for ever. One rate and one smile for calls and puts give put-call parity, and
prices that fall (calls) or rise (puts) with the strike. Years count to 15:30 IST of the expiry.

There are no dividends, and volatility never moves.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

from neo_async.exchange.engine.types import Listing

RATE: Final = 0.065
"""Interest a year, continuously compounded."""

_VOLATILITY: Final = {"NIFTY": 0.125, "BANKNIFTY": 0.14, "SENSEX": 0.125}
_SHARE_VOLATILITY: Final = 0.24
_SKEW: Final = -0.25
"""Change of volatility per unit of ln(strike / forward): puts below the money are dearer."""
_CURVATURE: Final = 1.5

_YEAR_NS: Final = 365 * 86_400 * 1_000_000_000
_EXPIRES_AT_NS: Final = 10 * 3_600 * 1_000_000_000
"""Nanoseconds from midnight UTC of the expiry date to 15:30 IST."""


def years_left(expiry: date, now_ns: int) -> float:
    """Return the years until a contract expires; 0 afterwards."""
    return max(_expires_ns(expiry) - now_ns, 0) / _YEAR_NS


def fair_value(listing: Listing, spot: float, now_ns: int) -> float:
    """Return the value of a future or an option, in the units of `spot`; strikes are paise."""
    if listing.expiry is None:
        return spot
    years = years_left(listing.expiry, now_ns)
    forward = spot * math.exp(RATE * years)
    if not listing.is_option:
        return forward
    volatility = _VOLATILITY.get(listing.name, _SHARE_VOLATILITY)
    return option_value(
        forward, listing.strike, years, volatility, is_call=listing.option_type == "CE"
    )


def option_value(
    forward: float, strike: float, years: float, volatility: float, *, is_call: bool
) -> float:
    """Return the value of an option; `volatility` is that at the money."""
    moneyness = math.log(strike / forward)
    spread = (volatility + _SKEW * moneyness + _CURVATURE * moneyness**2) * math.sqrt(years)
    if spread <= 0:
        return max(forward - strike if is_call else strike - forward, 0.0)
    d1 = spread / 2 - moneyness / spread
    call = forward * _normal(d1) - strike * _normal(d1 - spread)
    discount = math.exp(-RATE * years)
    return discount * (call if is_call else call - forward + strike)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


@lru_cache(maxsize=64)
def _expires_ns(expiry: date) -> int:
    midnight = datetime(expiry.year, expiry.month, expiry.day, tzinfo=UTC)
    return int(midnight.timestamp()) * 1_000_000_000 + _EXPIRES_AT_NS
