from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.exchange.engine.protection import protected_limit, protection_percent
from neo_async.model.enums import Side
from tests.exchange.engine.trading import OPTION, SHARE

WIDE = {"lower_band": 1, "upper_band": 100_000_00}
SHARES = msgspec.structs.replace(SHARE, **WIDE)
OPTIONS = msgspec.structs.replace(OPTION, **WIDE)


@pytest.mark.parametrize(
    ("last", "percent", "buy", "sell"),
    [
        (50_00, 2.0, 51_00, 49_00),
        (99_95, 2.0, 101_90, 98_00),
        (100_00, 1.0, 101_00, 99_00),
        (499_95, 1.0, 504_90, 495_00),
        (500_00, 0.5, 502_50, 497_50),
        (2117_00, 0.5, 2127_55, 2106_45),
        # Two percent are less than a tick: one tick is the least.
        (1_00, 2.0, 1_05, 95),
    ],
)
def test_the_grid_of_shares_and_futures(last, percent, buy, sell):
    assert protection_percent(SHARES, last) == percent
    assert protected_limit(SHARES, Side.BUY, last) == buy
    assert protected_limit(SHARES, Side.SELL, last) == sell


@pytest.mark.parametrize(
    ("last", "percent", "buy", "sell"),
    [
        (95, 0.0, 1_05, 85),
        (1_00, 10.0, 1_10, 90),
        (4_95, 10.0, 5_40, 4_50),
        (5_00, 5.0, 5_25, 4_75),
        (9_95, 5.0, 10_40, 9_50),
        (10_00, 3.0, 10_30, 9_70),
        (99_95, 3.0, 102_90, 97_00),
        (100_00, 2.0, 102_00, 98_00),
        (500_00, 1.0, 505_00, 495_00),
    ],
)
def test_the_grid_of_options(last, percent, buy, sell):
    assert protection_percent(OPTIONS, last) == percent
    assert protected_limit(OPTIONS, Side.BUY, last) == buy
    assert protected_limit(OPTIONS, Side.SELL, last) == sell


def test_circuit_limits_bound_the_limit():
    assert protected_limit(SHARE, Side.BUY, SHARE.upper_band) == SHARE.upper_band
    assert protected_limit(SHARE, Side.SELL, SHARE.lower_band) == SHARE.lower_band


@given(st.integers(1, 40_000), st.sampled_from([1, 5, 10]), st.booleans())
def test_a_limit_is_on_tick_beyond_the_last_price_and_inside_the_band(ticks, tick, is_option):
    listing = msgspec.structs.replace(OPTIONS if is_option else SHARES, tick=tick)
    last = (ticks + 1) * tick
    percent = protection_percent(listing, last)
    band = last * percent / 100 if percent else 10

    buy = protected_limit(listing, Side.BUY, last)
    sell = protected_limit(listing, Side.SELL, last)

    assert buy % tick == sell % tick == 0
    assert last + tick <= buy <= last + max(band, tick)
    assert last - tick >= sell >= last - max(band, tick)
