from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from neo_async.exchange.engine.index_board import IndexBoard
from neo_async.exchange.engine.indices import INDICES
from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.market_maker import TURN_NS
from neo_async.exchange.engine.market_makers import IDLE
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.session_stats import first_session
from neo_async.exchange.engine.types import IndexMoved
from neo_async.model.enums import Product, Segment
from tests.exchange.engine.trading import (
    FUTURE,
    LISTINGS,
    SECOND,
    SHARE,
    START,
    UNTRADED_OPTION,
    buy,
    quiet_market,
    sell,
)

trades = st.lists(
    st.tuples(st.integers(3600, 4400).map(lambda ticks: 5 * ticks), st.integers(1, 100)), min_size=1
)

LISTED = default_listings(date(2026, 11, 23))


def default_market(*, market_makers: bool = False) -> MatchingEngine:
    return MatchingEngine(LISTED, seed=1, now_ns=START, market_makers=market_makers)


# --- figures of the day ---------------------------------------------------------------------------


@given(trades)
def test_a_day_sums_up_its_trades(prices_and_quantities: list[tuple[int, int]]) -> None:
    market = quiet_market()
    for second, (price, quantity) in enumerate(prices_and_quantities, 1):
        market.advance(START + second * SECOND)
        market.place("ann", sell(quantity, price))
        market.place("bob", buy(quantity, price))
    day = market.session_stats(SHARE)
    prices = [price for price, _ in prices_and_quantities]
    assert (day.open, day.last_price) == (prices[0], prices[-1])
    assert (day.high, day.low) == (max(prices), min(prices))
    assert day.volume == sum(quantity for _, quantity in prices_and_quantities)
    assert day.value == sum(price * quantity for price, quantity in prices_and_quantities)
    assert day.last_quantity == prices_and_quantities[-1][1]
    assert day.last_trade_ns == START + len(prices) * SECOND
    assert day.year_low <= day.low <= day.high <= day.year_high


def test_before_the_first_trade_there_is_only_the_close() -> None:
    day = quiet_market().session_stats(SHARE)
    assert day.last_price == SHARE.base_price
    assert (day.open, day.high, day.low, day.volume, day.last_trade_ns) == (0, 0, 0, 0, 0)


def test_a_price_from_outside_moves_the_price_and_no_volume() -> None:
    market = quiet_market()
    market.print_price(Segment.NSE_CM, SHARE.token, 210_00)
    day = market.session_stats(SHARE)
    assert (day.last_price, day.high, day.volume, day.last_quantity) == (210_00, 210_00, 0, 0)
    assert day.last_trade_ns == START


def test_year_and_open_interest_depend_on_seed_and_listing_only() -> None:
    assert first_session(FUTURE, 1) == first_session(FUTURE, 1) != first_session(FUTURE, 2)
    assert first_session(FUTURE, 1).open_interest % FUTURE.lot_size == 0
    assert first_session(SHARE, 1).open_interest == 0
    untraded = first_session(UNTRADED_OPTION, 1)
    assert (untraded.last_price, untraded.year_low) == (0, 0)


def test_a_picture_counts_all_that_rests_beyond_the_levels_it_shows() -> None:
    market = quiet_market()
    for step in range(8):
        market.place("ann", buy(10, 190_00 - 5 * step))
    market.place("ann", sell(7, 210_00))
    market_snapshot = market.market_snapshot(SHARE, 5)
    assert len(market_snapshot.bids) == 5
    assert (market_snapshot.total_buy_quantity, market_snapshot.total_sell_quantity) == (80, 7)


# --- watching -------------------------------------------------------------------------------------


def test_every_command_that_touches_a_book_is_a_change_to_whoever_watches() -> None:
    market = quiet_market()
    market.watch(SHARE)
    assert not market.has_changes
    for command in (
        lambda: market.place("ann", buy(10, 190_00)),
        lambda: market.place("bob", sell(4, 190_00)),
        lambda: market.cancel("ann", market.ledger[0].number),
        lambda: market.print_price(Segment.NSE_CM, SHARE.token, 205_00),
    ):
        market.advance(market.now_ns + SECOND)
        command()
        assert market.take_changes() == [SHARE]
        assert market.take_changes() == []
        assert market.market_snapshot(SHARE).changed_ns == market.now_ns


def test_what_nobody_watches_is_no_news() -> None:
    market = quiet_market()
    market.watch(SHARE)
    market.watch(SHARE)
    market.place("ann", buy(10, 190_00))
    market.unwatch(SHARE)
    assert market.has_changes
    market.unwatch(SHARE)
    assert not market.has_changes
    market.place("ann", buy(10, 190_00))
    market.place("ann", buy(50, 190_00, segment=Segment.NSE_FO, symbol=FUTURE.symbol))
    assert not market.has_changes


def test_a_watched_listing_never_goes_quiet() -> None:
    market = MatchingEngine(LISTINGS, seed=1, now_ns=START)
    market.watch(SHARE)
    market.last_price(FUTURE)
    for _ in range(2 * IDLE):
        market.advance(market.now_ns + TURN_NS)
        assert market.take_changes() == [SHARE]
    before = market.market_snapshot(SHARE).stats.volume
    market.unwatch(SHARE)
    for _ in range(2 * IDLE):
        market.advance(market.now_ns + TURN_NS)
    assert not market.has_changes
    assert not market._parts.market_makers.active
    assert before > 0


def test_watching_does_not_change_what_happens() -> None:
    def played(watch: bool) -> list[object]:
        market = MatchingEngine(LISTINGS, seed=5, now_ns=START)
        market.open_account("ann", cash=10_000_000_00)
        market.place("ann", buy(100, 190_00))
        if watch:
            market.watch(SHARE)
        for _ in range(IDLE // 2):
            market.advance(market.now_ns + TURN_NS)
        return [*market.depth(SHARE), market.session_stats(SHARE)]

    assert played(watch=True) == played(watch=False)


# --- open interest --------------------------------------------------------------------------------

FUT = {"segment": FUTURE.segment, "symbol": FUTURE.symbol}
deals = st.lists(
    st.tuples(
        st.permutations(["ann", "bob", "cas"]),
        st.sampled_from([Product.NRML, Product.MIS]),
        st.integers(1, 5),
    ),
    max_size=12,
)


@given(deals)
def test_what_is_open_among_clients_is_what_they_are_long(deals) -> None:
    market = quiet_market("ann", "bob", "cas", cash=10**12)
    for (buyer, seller, _), product, lots in deals:
        market.place(seller, sell(50 * lots, 201_00, product=product, **FUT))
        market.place(buyer, buy(50 * lots, 201_00, product=product, **FUT))
    day = market.session_stats(FUTURE)
    held = [p.bought - p.sold for name in ("ann", "bob", "cas") for p in market.positions(name)]
    assert day.open_interest - day.previous_open_interest == sum(max(0, net) for net in held)


def test_who_trades_with_himself_opens_nothing() -> None:
    market = quiet_market()
    market.place("ann", sell(50, 201_00, product=Product.NRML, **FUT))
    market.place("ann", buy(50, 201_00, product=Product.NRML, **FUT))
    day = market.session_stats(FUTURE)
    assert (day.volume, day.open_interest) == (50, day.previous_open_interest)


def test_the_crowd_opens_and_closes_with_a_client() -> None:
    market = quiet_market()
    before = market.session_stats(FUTURE).open_interest
    market.place("ann", buy(100, 201_00, product=Product.NRML, **FUT))
    market.print_price(FUTURE.segment, FUTURE.token, 201_00)
    assert market.session_stats(FUTURE).open_interest == before + 100
    market.place("ann", sell(50, 201_00, product=Product.NRML, **FUT))
    market.print_price(FUTURE.segment, FUTURE.token, 201_00)
    assert market.session_stats(FUTURE).open_interest == before + 50
    market.end_day()
    day = market.session_stats(FUTURE)
    assert (day.previous_open_interest, day.open_interest) == (before + 50, before + 50)


def test_shares_have_no_open_interest() -> None:
    market = quiet_market()
    market.place("ann", sell(50, 201_00))
    market.place("bob", buy(50, 201_00))
    assert market.session_stats(SHARE).open_interest == 0


# --- indices --------------------------------------------------------------------------------------


def test_an_index_is_its_members_moves_by_weight() -> None:
    market = default_market()
    board = IndexBoard(market)
    nifty = board.find("nse_cm", "nifty 50")
    assert nifty is not None
    weights = dict(nifty.weights)
    for listing in board.members(nifty):
        market.print_price(listing.segment, listing.token, listing.base_price * 101 // 100)
    market_snapshot = board.snapshot(nifty)
    assert abs(market_snapshot.stats.last_price / nifty.close - 1.01) < 1e-4
    assert len(weights) == len(board.members(nifty))


def test_an_index_opens_where_its_members_did() -> None:
    market = default_market()
    board = IndexBoard(market)
    sensex = board.find("bse_cm", "SENSEX")
    assert sensex is not None
    tcs = market.listing(Segment.BSE_CM, "TCS")
    assert tcs is not None
    market.print_price(Segment.BSE_CM, tcs.token, tcs.base_price * 104 // 100)
    market.print_price(Segment.BSE_CM, tcs.token, tcs.base_price)
    market_snapshot = board.snapshot(sensex)
    assert market_snapshot.stats.last_price == sensex.close
    assert market_snapshot.stats.open == market_snapshot.stats.high > sensex.close
    assert market_snapshot.stats.low == sensex.close


def test_an_index_tells_each_time_that_a_member_moves_it() -> None:
    market = default_market()
    hdfc = market.listing(Segment.NSE_CM, "HDFCBANK-EQ")
    assert hdfc is not None
    market.take_events()
    for price in (hdfc.base_price, 8_00_00, 8_00_00, 7_99_00):
        market.print_price(Segment.NSE_CM, hdfc.token, price)
    moved = [event for event in market.take_events() if isinstance(event, IndexMoved)]
    nifty = [event.value for event in moved if event.index.token == "26000"]
    assert len(nifty) == 3  # the first, and each other value
    assert nifty[0] == 24_412_35
    assert nifty[1] > nifty[2] > nifty[0]


def test_members_that_are_not_listed_are_left_out_and_without_any_there_is_no_index() -> None:
    some = [listing for listing in LISTED if listing.symbol in ("TCS-EQ", "SBIN-EQ")]
    board = IndexBoard(MatchingEngine(some, seed=1, now_ns=START, market_makers=False))
    nifty = board.find("nse_cm", "26000")
    assert nifty is not None
    assert {listing.symbol for listing in board.members(nifty)} == {"TCS-EQ", "SBIN-EQ"}
    assert board.snapshot(nifty).stats.last_price == nifty.close
    assert board.find("bse_cm", "SENSEX") is None
    assert board.find("nse_cm", "Nifty 500") is None


def test_every_member_of_an_index_is_listed_by_default() -> None:
    market = default_market()
    for index in INDICES:
        assert all(market.listing(index.segment, symbol) for symbol, _ in index.weights)
