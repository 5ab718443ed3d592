from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.market_maker import MarketMaker
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Event, Printed
from neo_async.model.enums import OrderStatus, OrderType, Side
from tests.exchange.engine.trading import CASH, LISTINGS, SECOND, SHARE, START, buy, sell

LISTED = default_listings(date(2026, 11, 23))

NARROW = msgspec.structs.replace(SHARE, lower_band=199_90, upper_band=200_10)


listings = st.just(NARROW) | st.sampled_from(LISTED)


@given(st.integers(), listings, st.integers(20, 150))
@settings(max_examples=50)
def test_quotes_stay_two_sided_uncrossed_and_inside_the_bands(seed, listing, turns):
    maker = MarketMaker(listing, seed)
    for _ in range(turns):
        maker.walk()
        quotes = maker.quotes()
        bids = [price for side, price, _ in quotes if side is Side.BUY]
        asks = [price for side, price, _ in quotes if side is Side.SELL]
        assert bids
        assert asks
        assert max(bids) < maker.reference < min(asks)
        assert all(listing.lower_band <= price <= listing.upper_band for price in bids + asks)
        assert all(price % listing.tick == 0 for price in bids + asks)
        assert all(size > 0 and size % listing.lot_size == 0 for _, _, size in quotes)


@pytest.mark.parametrize("price", [1, 500_00])
def test_a_reference_beyond_the_bands_leaves_room_for_both_sides(price):
    maker = MarketMaker(SHARE, 1)
    maker.move_to(price)
    assert {side for side, _, _ in maker.quotes()} == {Side.BUY, Side.SELL}


def test_bands_without_room_get_no_quotes():
    shut = msgspec.structs.replace(SHARE, lower_band=200_00, upper_band=200_05)
    assert MarketMaker(shut, 1).quotes() == []


def live_market(seed: int = 7) -> MatchingEngine:
    market = MatchingEngine(LISTINGS, seed=seed, now_ns=START)
    market.open_account("ann", cash=CASH)
    return market


def prints(events: list[Event]) -> list[Printed]:
    return [event for event in events if isinstance(event, Printed)]


def test_prices_print_and_move_once_a_listing_is_touched():
    market = live_market()
    market.advance(START + 5 * SECOND)
    assert prints(market.take_events()) == []

    market.last_price(SHARE)
    market.advance(START + 15 * SECOND)

    trades = prints(market.take_events())
    assert {trade.listing for trade in trades} == {SHARE}
    assert len({trade.price for trade in trades}) > 1
    assert market.last_price(SHARE) == trades[-1].price


def test_resting_orders_near_the_touch_fill_as_time_passes():
    market = live_market()
    bids, asks = market.depth(SHARE)
    bid = market.place("ann", buy(10, bids[0][0]))
    ask = market.place("ann", sell(10, asks[0][0]))

    market.advance(START + 10 * SECOND)

    assert (bid.status, ask.status) == (OrderStatus.COMPLETE, OrderStatus.COMPLETE)


def test_a_market_order_meets_the_quotes_at_once():
    record = live_market().place("ann", buy(10))
    assert record.status is OrderStatus.COMPLETE


def test_many_small_steps_of_the_clock_equal_one_large_one():
    def trade(steps: list[int]) -> tuple[object, ...]:
        market = live_market()
        market.place("ann", buy(50, 199_80))
        for step in steps:
            market.advance(START + step * SECOND // 100)
        return market.fills("ann"), market.depth(SHARE), market.take_events()

    assert trade([1000]) == trade([13, 26, 100, 500, 501, 777, 1000])


def test_a_long_pause_costs_no_more_than_the_bounded_catch_up():
    market = live_market()
    market.last_price(SHARE)
    market.advance(START + 365 * 86_400 * SECOND)
    assert len(prints(market.take_events())) < 200


def test_each_turn_replaces_the_quotes_of_the_one_before():
    market = live_market()
    market.last_price(SHARE)
    market.advance(START + 10 * SECOND)
    for side in market.depth(SHARE, 100):
        assert [orders for _, _, orders in side] == [1] * 5


def test_stops_are_triggered_by_what_prints_as_time_passes():
    market = live_market()
    stop = market.place("ann", buy(5, 202_00, trigger=200_10, order_type=OrderType.SL))
    market.advance(START + 5 * SECOND)
    for second in range(6, 60):
        market.advance(START + second * SECOND)
    assert stop.status is OrderStatus.COMPLETE


def test_a_listing_with_a_working_order_stays_awake():
    market = live_market()
    market.place("ann", buy(10, 185_00))
    for second in range(1, 120):
        market.advance(START + second * SECOND)
    market.take_events()
    market.advance(START + 130 * SECOND)
    assert prints(market.take_events())


def test_an_untouched_listing_goes_quiet_and_wakes_again():
    market = live_market()
    market.last_price(SHARE)
    for second in range(1, 120):
        market.advance(START + second * SECOND)
    market.take_events()
    market.advance(START + 130 * SECOND)
    assert market.take_events() == []

    market.depth(SHARE)

    assert market.take_events()


def test_listings_do_not_influence_each_other():
    alone, busy = live_market(), live_market()
    for market, symbols in ((alone, LISTINGS[:1]), (busy, LISTINGS[:3])):
        for listing in symbols:
            market.last_price(listing)
        market.advance(START + 10 * SECOND)
    assert alone.depth(SHARE) == busy.depth(SHARE)


def test_an_outside_price_moves_the_quotes():
    market = live_market()
    market.print_price(SHARE.segment, SHARE.token, 210_00)
    bids, asks = market.depth(SHARE)
    assert (bids[0][0], asks[0][0]) == (209_95, 210_05)
    assert market.last_price(SHARE) == 210_00
