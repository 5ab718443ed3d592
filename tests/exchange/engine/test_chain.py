"""The built-in derivatives: which are listed on a day, and how their prices hang together."""

from __future__ import annotations

import math
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.pricing import RATE, fair_value, option_value, years_left
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Segment
from tests.exchange.engine.test_snapshot import kept, revived
from tests.exchange.engine.trading import SECOND, START

MONDAY = date(2026, 11, 23)
LISTED = default_listings(MONDAY)
TCS = "11536"

days = st.dates(date(2026, 1, 1), date(2031, 12, 31))


def options(name: str, expiry: date | None = None) -> list[Listing]:
    return [
        listing
        for listing in LISTED
        if listing.name == name and listing.is_option and expiry in (None, listing.expiry)
    ]


def live_market() -> MatchingEngine:
    market = MatchingEngine(LISTED, seed=4, now_ns=START)
    market.open_account("ann", cash=10**12)
    return market


# --- which ----------------------------------------------------------------------------------------


def test_nifty_has_three_weekly_and_two_monthly_expiries() -> None:
    expiries = sorted({listing.expiry for listing in options("NIFTY")})
    assert expiries == [
        date(2026, 11, 23),
        date(2026, 12, 1),
        date(2026, 12, 8),
        date(2026, 12, 29),
    ]


def test_symbols_tell_monthly_from_weekly_contracts() -> None:
    symbols = {listing.symbol for listing in LISTED}
    assert {
        "NIFTY26NOVFUT",
        "NIFTY26DEC24500CE",
        "NIFTY26D0124500PE",
        "BANKNIFTY26NOV55200CE",
        "TCS26DEC2120PE",
        "SENSEX26DECFUT",
        "CRUDEOIL26DECFUT",
    } <= symbols


def test_other_months_have_their_rules() -> None:
    expiries = {listing.symbol: listing.expiry for listing in LISTED}
    assert expiries["SENSEX26DECFUT"] == date(2026, 12, 31)
    assert expiries["CRUDEOIL26DECFUT"] == date(2026, 12, 18)
    assert expiries["CRUDEOIL27JANFUT"] == date(2027, 1, 19)


@pytest.mark.parametrize(
    ("today", "expiries"),
    [
        (date(2026, 3, 2), [date(2026, 3, 2), date(2026, 3, 10), date(2026, 3, 17)]),
        (date(2026, 3, 3), [date(2026, 3, 10), date(2026, 3, 17), date(2026, 3, 24)]),
        (date(2026, 3, 30), [date(2026, 3, 30), date(2026, 4, 7), date(2026, 4, 13)]),
        (date(2026, 10, 19), [date(2026, 10, 19), date(2026, 10, 27), date(2026, 11, 3)]),
    ],
)
def test_an_expiry_on_a_holiday_moves_to_the_trading_day_before(
    today: date, expiries: list[date]
) -> None:
    listed = {
        listing.expiry
        for listing in default_listings(today)
        if listing.name == "NIFTY" and listing.is_option
    }
    assert sorted(filter(None, listed))[:3] == expiries


def test_a_monthly_expiry_that_has_moved_keeps_its_monthly_name() -> None:
    listed = {listing.symbol: listing.expiry for listing in default_listings(date(2026, 11, 23))}
    assert listed["NIFTY26NOVFUT"] == date(2026, 11, 23)
    assert listed["NIFTY27JANFUT"] == date(2027, 1, 25)


@given(days)
@settings(max_examples=60, deadline=None)
def test_on_any_day_there_is_a_whole_chain_and_nothing_expired(today) -> None:
    listed = default_listings(today)
    keys = {(listing.segment, listing.token) for listing in listed}
    assert len(keys) == len({(x.segment, x.symbol) for x in listed}) == len(listed)
    for listing in listed:
        assert listing.lower_band < listing.base_price < listing.upper_band
        assert int(listing.token) < 2**31
        if listing.expiry is not None:
            assert today <= listing.expiry <= today + timedelta(days=99)
            assert CALENDAR.is_trading_day(listing.segment, listing.expiry)
    nearest = min(x.expiry for x in listed if x.name == "NIFTY" and x.is_option and x.expiry)
    calls = [x for x in listed if (x.name, x.expiry, x.option_type) == ("NIFTY", nearest, "CE")]
    assert len(calls) >= 40


@given(days, st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_contract_keeps_its_token_from_day_to_day(today, later) -> None:
    first = {x.symbol: x.token for x in default_listings(today) if x.expiry}
    second = {
        x.symbol: x.token for x in default_listings(today + timedelta(days=later)) if x.expiry
    }
    for symbol in first.keys() & second.keys():
        assert first[symbol] == second[symbol]
    tokens = set(first.values()) & set(second.values())
    assert tokens == {first[symbol] for symbol in first.keys() & second.keys()}


# --- what they are worth --------------------------------------------------------------------------

forwards = st.floats(100_00, 100_000_00)
years = st.floats(0.0005, 1.0)
ladder = st.lists(st.floats(0.93, 1.07), min_size=2, max_size=10, unique=True).map(sorted)
volatilities = st.floats(0.1, 0.3)


@given(forwards, ladder, years, volatilities)
def test_calls_fall_and_puts_rise_with_the_strike(forward, rungs, left, volatility) -> None:
    strikes = [forward * rung for rung in rungs]
    calls = [option_value(forward, k, left, volatility, is_call=True) for k in strikes]
    puts = [option_value(forward, k, left, volatility, is_call=False) for k in strikes]
    slack = forward * 1e-9
    assert all(later <= earlier + slack for earlier, later in pairwise(calls))
    assert all(later >= earlier - slack for earlier, later in pairwise(puts))
    assert min(calls + puts) >= -slack


@given(forwards, st.floats(0.9, 1.1), years, volatilities)
def test_a_call_less_its_put_is_the_discounted_forward_less_the_strike(
    forward, rung, left, volatility
) -> None:
    strike = forward * rung
    call = option_value(forward, strike, left, volatility, is_call=True)
    put = option_value(forward, strike, left, volatility, is_call=False)
    discount = math.exp(-RATE * left)
    assert call - put == pytest.approx(discount * (forward - strike), abs=forward * 1e-9)


def test_an_expired_option_is_worth_what_it_pays() -> None:
    call, put = options("NIFTY", date(2026, 11, 23))[:2]
    later = START + 40 * 86_400 * SECOND
    spot = call.strike + 123_45
    assert years_left(date(2026, 11, 23), later) == 0
    assert fair_value(call, spot, later) == 123_45
    assert fair_value(put, spot, later) == 0


def test_time_takes_from_an_option_at_the_money() -> None:
    call = next(x for x in options("NIFTY", date(2026, 12, 29)) if x.strike == 24_400_00)
    values = [fair_value(call, 24_400_00, START + day * 86_400 * SECOND) for day in range(30)]
    assert values == sorted(values, reverse=True)


# --- what they trade at ---------------------------------------------------------------------------


def middle(market: MatchingEngine, listing: Listing) -> float:
    bids, asks = market.depth(listing)
    return (bids[0][0] + asks[0][0]) / 2


def test_quotes_lie_around_the_value_and_follow_the_share() -> None:
    market = live_market()
    share = market.listing_by_token(Segment.NSE_CM, TCS)
    future = market.listing(Segment.NSE_FO, "TCS26DECFUT")
    call = market.listing(Segment.NSE_FO, "TCS26DEC2120CE")
    put = market.listing(Segment.NSE_FO, "TCS26DEC2120PE")
    assert share
    assert future
    assert call
    assert put
    for price in (2117_00, 2150_00, 2080_00):
        market.print_price(share.segment, share.token, price)
        before = market.now_ns
        market.advance(before + SECOND)
        spot = market.last_price(share)
        for listing in (future, call, put):
            value = fair_value(listing, spot, market.now_ns)
            assert abs(middle(market, listing) - value) <= spot * 0.0005 + 2 * listing.tick


def test_the_whole_live_chain_keeps_parity_and_order() -> None:
    market = live_market()
    chain = options("NIFTY", date(2026, 12, 29))
    for listing in chain:
        market.watch(listing)
    market.advance(START + 5 * SECOND)
    prices = {(x.strike, x.option_type): middle(market, x) for x in chain}
    strikes = sorted({x.strike for x in chain})
    calls = [prices[strike, "CE"] for strike in strikes]
    puts = [prices[strike, "PE"] for strike in strikes]
    assert calls == sorted(calls, reverse=True)
    assert puts == sorted(puts)
    discount = math.exp(-RATE * years_left(date(2026, 12, 29), market.now_ns))
    forwards_seen = [
        strike + (call - put) / discount
        for strike, call, put in zip(strikes, calls, puts, strict=True)
    ]
    assert max(forwards_seen) - min(forwards_seen) <= 4 * 5


def test_a_price_from_outside_stays_beside_the_value() -> None:
    market = live_market()
    future = market.listing(Segment.NSE_FO, "TCS26DECFUT")
    assert future
    market.print_price(future.segment, future.token, 2200_00)
    market.advance(START + 2 * SECOND)
    assert abs(middle(market, future) - 2200_00) < 10_00


def test_a_listing_without_an_underlying_here_walks_by_itself() -> None:
    (crude,) = (x for x in LISTED if x.symbol == "CRUDEOIL26DECFUT")
    market = live_market()
    before = middle(market, crude)
    market.advance(START + 10 * SECOND)
    assert middle(market, crude) != before


def test_a_chain_goes_on_after_a_restart() -> None:
    market = live_market()
    for listing in options("NIFTY", date(2026, 11, 23))[:6]:
        market.watch(listing)
    market.advance(START + SECOND)
    again = revived(kept(market))
    for each in (market, again):
        each.advance(START + 5 * SECOND)
        each.last_price(options("BANKNIFTY")[0])
        each.advance(START + 9 * SECOND)
    assert kept(again) == kept(market)
