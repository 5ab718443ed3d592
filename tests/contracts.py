"""Tokens of built-in derivatives, as they are on the day at which the tests' clocks stand."""

from __future__ import annotations

from datetime import date

from neo_async.exchange.engine.listings import default_listings

_TOKENS = {listing.symbol: listing.token for listing in default_listings(date(2026, 11, 23))}

NIFTY_FUTURE = _TOKENS["NIFTY26DECFUT"]
NIFTY_CALL = _TOKENS["NIFTY26DEC24500CE"]
TCS_FUTURE = _TOKENS["TCS26DECFUT"]
