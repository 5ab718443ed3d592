"""Quotes, expiries, chains and candles of the exchange, read by the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

pytest.importorskip("neo_api_client")

Sdk = Any

INSTRUMENTS = [
    {"instrument_token": "1333", "exchange_segment": "nse_cm"},
    {"instrument_token": "Nifty 50", "exchange_segment": "nse_cm"},
    {"instrument_token": "0", "exchange_segment": "nse_cm"},
]


@pytest.fixture(scope="module")
def sdk(new_sdk: Callable[[], Sdk]) -> Sdk:
    """Not logged in: market data needs none. Its base URL is then the one of our fixture."""
    return new_sdk()


def test_quotes_come_as_the_array_that_the_sdk_hands_on(sdk: Sdk) -> None:
    share, index = sdk.quotes(instrument_tokens=INSTRUMENTS, quote_type="all")
    assert (share["exchange_token"], share["display_symbol"]) == ("1333", "HDFCBANK-EQ")
    assert (index["exchange_token"], index["display_symbol"]) == ("Nifty 50", "Nifty 50-IN")
    assert len(share["depth"]["buy"]) == len(share["depth"]["sell"]) == 5


@pytest.mark.parametrize(
    ("quote_type", "key"),
    [
        ("ltp", "ltp"),
        ("ohlc", "ohlc"),
        ("oi", "open_int"),
        ("52W", "year_high"),
        ("circuit_limits", "high_price_range"),
        ("depth", "depth"),
        ("scrip_details", "per_change"),
    ],
)
def test_the_sdk_may_ask_for_every_filter(sdk: Sdk, quote_type: str, key: str) -> None:
    (row,) = sdk.quotes(instrument_tokens=INSTRUMENTS[:1], quote_type=quote_type)
    assert key in row


def test_unknown_instruments_are_refused_in_the_brokers_words(sdk: Sdk) -> None:
    answer = sdk.quotes(instrument_tokens=INSTRUMENTS[2:], quote_type="ltp")
    assert (answer["stat"], answer["stCode"]) == ("Not_Ok", 1009)


def test_expiries_lead_to_chains(sdk: Sdk) -> None:
    told = sdk.expiries(exchange="nse_fo", underlying="NIFTY", instrument_type="option")
    assert told["expiries"] == sorted(told["expiries"])
    chain = sdk.option_chain(exchange="nse_fo", underlying="NIFTY", expiry=told["expiries"][0])
    content = chain["data"]
    assert content["common_data"]["expiryDt"] == told["expiries"][0]
    assert content["call"]
    assert content["put"]
    futures = sdk.option_chain(exchange="nse_fo", underlying="NIFTY", instrument_type="fut")
    assert futures["data"]["fut"][0]["inst"]["neoSymbol"].startswith("nse_fo|")


def test_candles_of_a_past_day_fill_its_session(sdk: Sdk) -> None:
    day = date(2026, 11, 20).isoformat()
    answer = sdk.historical_data(
        neosymbol="nse_cm|1333", from_date=day, to_date=day, interval="5min"
    )
    assert answer["status"] == "success"
    assert len(answer["data"]["candles"]) == 75


def test_a_wrong_interval_is_refused_in_the_brokers_words(sdk: Sdk) -> None:
    day = date(2026, 11, 20).isoformat()
    answer = sdk.historical_data(
        neosymbol="nse_cm|1333", from_date=day, to_date=day, interval="7min"
    )
    assert "Invalid interval" in str(answer)
