"""Cash, margin and stock: what orders block, what fills move, what nobody can create."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.listings import bands, default_listings
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Holding, NewOrder, Refusal
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity
from tests.exchange.engine.trading import (
    BRACKET,
    CASH,
    FUTURE,
    LISTINGS,
    OPTION,
    SECOND,
    SHARE,
    START,
    buy,
    change,
    new,
    quiet_market,
    sell,
)

LISTED = default_listings(date(2026, 11, 23))
CNC = {"product": Product.CNC}


def derivative(listing, product: Product = Product.NRML) -> dict[str, object]:
    return {"segment": listing.segment, "symbol": listing.symbol, "product": product}


@pytest.mark.parametrize(
    ("order", "margin"),
    [
        (buy(10, 200_00, product=Product.CNC), 2_000_00),
        (buy(10, 200_00, product=Product.MTF), 1_000_00),
        (buy(10, 200_00, product=Product.NRML), 2_000_00),
        (buy(10, 200_00), 400_00),
        (sell(10, 200_00), 400_00),
        (buy(10, 200_00, product=Product.CO, trigger=190_00), 400_00),
        (buy(10, 200_00, product=Product.BO, bracket=BRACKET), 400_00),
        (buy(50, 200_00, **derivative(FUTURE)), 1_500_00),
        (sell(50, 200_00, **derivative(FUTURE, Product.MIS)), 1_500_00),
        (buy(50, 8_00, **derivative(OPTION)), 400_00),
        (sell(50, 8_00, **derivative(OPTION)), 1_500_00),
        # A market order counts at its protected limit, a stop-loss market at its trigger's.
        (buy(10), 404_00),
        (buy(10, trigger=210_00, order_type=OrderType.SL_M), 424_20),
    ],
)
def test_a_working_order_blocks_its_margin_until_it_is_cancelled(order, margin):
    market = quiet_market()
    assert market.order_margin("ann", order) == margin

    record = market.place("ann", order)
    assert market.funds("ann").margin_used == margin
    assert market.funds("ann").available == CASH - margin

    market.cancel("ann", record.number)
    assert market.funds("ann").available == CASH


def test_margin_follows_a_modification():
    market = quiet_market()
    record = market.place("ann", buy(10, 200_00, **CNC))
    market.modify("ann", record.number, change(record, quantity=20, price=199_00))
    assert market.funds("ann").margin_used == 20 * 199_00


def test_a_modification_beyond_the_funds_fails_and_a_smaller_one_passes():
    market = quiet_market(cash=2_000_00)
    record = market.place("ann", buy(10, 200_00, **CNC))

    market.modify("ann", record.number, change(record, quantity=11))
    assert "Margin Exceeds" in record.reject_reason
    assert market.funds("ann").margin_used == 2_000_00

    market.modify("ann", record.number, change(record, quantity=9))
    assert (record.quantity, record.reject_reason) == (9, "")


def test_a_failed_modification_blocks_what_was_blocked_before():
    market = quiet_market(cash=2_000_00)
    record = market.place("ann", buy(10, 200_00, **CNC))
    market.modify("ann", record.number, change(record, quantity=20, price=199_00))
    assert market.funds("ann").margin_used == 2_000_00
    market.cancel("ann", record.number)
    assert market.funds("ann").available == 2_000_00


def test_an_overdrawn_account_may_still_close_and_shrink():
    market = quiet_market(cash=3_015_00 + 360_00)
    working = market.place("ann", sell(100, 201_00, **derivative(FUTURE)))
    market.place("bob", buy(10, 220_00))
    market.place("ann", sell(10, 180_00))
    assert market.funds("ann").available == -80_00

    assert market.place("ann", buy(10, 200_00)).status is OrderStatus.OPEN
    market.modify("ann", working.number, change(working, quantity=50))
    assert working.quantity == 50


def test_a_better_price_gives_back_the_difference():
    market = quiet_market(stock=10)
    market.place("bob", sell(10, 199_00, **CNC))
    market.place("ann", buy(10, 201_00, **CNC))
    assert market.funds("ann").available == CASH - 1_990_00
    assert market.funds("bob").available == CASH + 1_990_00


def test_closing_needs_no_margin_and_realises_the_difference():
    market = quiet_market("ann", "bob", cash=400_00)
    market.place("bob", sell(10, 200_00))
    market.place("ann", buy(10, 200_00))
    assert market.funds("ann").available == 0

    closing = market.place("ann", sell(10, 210_00))
    assert closing.status is OrderStatus.OPEN
    market.place("bob", buy(10, 210_00))

    ann, bob = market.funds("ann"), market.funds("bob")
    assert (ann.realised, ann.margin_used, ann.available) == (100_00, 0, 500_00)
    assert (bob.realised, bob.margin_used, bob.available) == (-100_00, 0, 300_00)


def test_an_order_that_turns_a_position_needs_margin_for_the_excess():
    market = quiet_market("ann", "bob")
    market.place("bob", sell(10, 200_00))
    market.place("ann", buy(10, 200_00))
    assert market.order_margin("ann", sell(25, 200_00)) == 15 * 40_00
    assert market.order_margin("ann", sell(10, 200_00)) == 0


def test_delivery_sells_only_what_is_held_or_bought_today_and_not_on_sale():
    market = quiet_market(stock=10)
    first = market.place("ann", sell(6, 210_00, **CNC))
    assert market.holdings("ann")[0].sellable_quantity == 4
    assert market.place("ann", sell(5, 210_00, **CNC)).status is OrderStatus.REJECTED
    assert market.place("ann", sell(4, 210_00, **CNC)).status is OrderStatus.OPEN

    market.cancel("ann", first.number)
    market.place("bob", sell(3, 200_00, **CNC))
    market.place("ann", buy(3, 200_00, **CNC))

    assert market.place("ann", sell(10, 210_00, **CNC)).status is OrderStatus.REJECTED
    assert market.place("ann", sell(9, 210_00, **CNC)).status is OrderStatus.OPEN


def test_holdings_settle_later_but_cannot_be_sold_twice():
    market = quiet_market(stock=10)
    market.place("bob", buy(10, 200_00))
    market.place("ann", sell(10, 200_00, **CNC))
    (holding,) = market.holdings("ann")
    assert (holding.quantity, holding.sellable_quantity) == (10, 0)
    assert market.place("ann", sell(1, 200_00, **CNC)).status is OrderStatus.REJECTED


def test_the_callers_holdings_stay_the_callers():
    held = Holding(listing=SHARE, quantity=5, average_price=1.0, sellable_quantity=5)
    market = MatchingEngine(LISTINGS, seed=1, now_ns=START, market_makers=False)
    market.open_account("ann", cash=CASH, holdings=[held])
    market.place("ann", sell(5, 210_00, **CNC))
    assert held.sellable_quantity == 5


def test_positions_are_kept_apart_by_product():
    market = quiet_market(stock=10)
    market.place("bob", sell(10, 200_00))
    market.place("ann", buy(4, 200_00, **CNC))
    market.place("ann", buy(6, 200_00))
    assert {p.product: p.buy_quantity for p in market.positions("ann")} == {
        Product.CNC: 4,
        Product.MIS: 6,
    }


# --- properties -----------------------------------------------------------------------------------

NAMES = ("ann", "bob", "eve")
prices = st.integers(-3, 3).map(lambda ticks: 200_00 + ticks * 5)


@st.composite
def orders(draw: st.DrawFn) -> NewOrder:
    kind = draw(st.sampled_from(list(OrderType)))
    side = draw(st.sampled_from(list(Side)))
    trigger = draw(prices) if kind.has_trigger else 0
    beyond = draw(st.integers(0, 4)) * 5 * (1 if side is Side.BUY else -1)
    price = (trigger + beyond if trigger else draw(prices)) if kind.has_limit else 0
    quantity = draw(st.integers(1, 40))
    return new(
        side,
        quantity,
        price,
        order_type=kind,
        trigger=trigger,
        product=draw(st.sampled_from([Product.MIS, Product.CNC, Product.NRML, Product.MTF])),
        validity=draw(st.sampled_from([Validity.DAY, Validity.DAY, Validity.IOC])),
        disclosed_quantity=draw(st.sampled_from([0, 0, 1])) * quantity // 2,
        amo=draw(st.integers(0, 9)) == 9,
    )


placements = st.tuples(st.just("place"), st.sampled_from(NAMES), orders())
commands = st.lists(
    st.one_of(
        # Thrice, so that most sequences have something to fill, change and cancel.
        placements,
        placements,
        placements,
        st.tuples(st.just("modify"), st.integers(0, 99), st.integers(1, 50), prices),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
        st.tuples(st.just("print"), prices),
        st.tuples(st.just("advance"), st.integers(1, 2 * SECOND)),
        st.tuples(st.just("release")),
    ),
    min_size=12,
    max_size=40,
)


def run(market: MatchingEngine, steps) -> None:
    for step in steps:
        match step:
            case ("place", account, order):
                market.place(account, order)
            case ("modify", index, quantity, price) if market.ledger:
                record = market.ledger[index % len(market.ledger)]
                terms = {"quantity": quantity, "disclosed_quantity": 0}
                if record.order_type.has_limit:
                    terms["price"] = price
                # What is final, or would fall below what is filled, is refused.
                with suppress(Refusal):
                    market.modify(record.account, record.number, change(record, **terms))
            case ("cancel", index) if market.ledger:
                record = market.ledger[index % len(market.ledger)]
                if not record.status.is_final:
                    market.cancel(record.account, record.number)
            case ("print", price):
                market.print_price(SHARE.segment, SHARE.token, price)
            case ("advance", nanoseconds):
                market.advance(market.now_ns + nanoseconds)
            case ("release",):
                market.release_amo()


def market_with_stock(*, market_makers: bool) -> MatchingEngine:
    market = MatchingEngine(LISTINGS, seed=3, now_ns=START, market_makers=market_makers)
    for name in NAMES:
        stock = Holding(listing=SHARE, quantity=60, average_price=1.0, sellable_quantity=60)
        market.open_account(name, cash=8_000_00, holdings=[stock])
    return market


@given(commands, st.booleans())
@settings(max_examples=150, deadline=None)
def test_orders_add_up_whatever_happens(steps, market_makers):
    market = market_with_stock(market_makers=market_makers)
    run(market, steps)
    for record in market.ledger:
        assert record.filled_quantity == sum(fill.quantity for fill in record.fills)
        assert record.filled_value == sum(fill.quantity * fill.price for fill in record.fills)
        assert record.pending_quantity >= 0
        if record.status in (OrderStatus.COMPLETE, OrderStatus.CANCELLED):
            assert record.pending_quantity == 0
        times = [transition.time_ns for transition in record.history]
        assert times == sorted(set(times))
    bids, asks = market.depth(SHARE, 100)
    if bids and asks:
        assert bids[0][0] < asks[0][0]


@given(commands)
@settings(max_examples=150, deadline=None)
def test_what_one_account_pays_another_gets(steps):
    """Outside prices fill against nobody, so they are left out; makers are absent."""
    market = market_with_stock(market_makers=False)
    run(market, [step for step in steps if step[0] != "print"])
    positions = [position for name in NAMES for position in market.positions(name)]
    assert sum(p.buy_quantity for p in positions) == sum(p.sell_quantity for p in positions)
    assert sum(p.buy_value for p in positions) == sum(p.sell_value for p in positions)
    bought = {f.trade_number: f.price for n in NAMES for f in market.fills(n) if f.side is Side.BUY}
    sold = {f.trade_number: f.price for n in NAMES for f in market.fills(n) if f.side is Side.SELL}
    assert bought == sold


@given(commands, st.booleans())
@settings(max_examples=100, deadline=None)
def test_cancelling_everything_releases_everything_that_orders_blocked(steps, market_makers):
    market = market_with_stock(market_makers=market_makers)
    run(market, steps)
    for record in market.ledger:
        if not record.status.is_final:
            market.cancel(record.account, record.number)
    for name in NAMES:
        positions = {position.product: position for position in market.positions(name)}
        margin_positions = [positions.get(p) for p in (Product.MIS, Product.NRML, Product.MTF)]
        if all(p is None or p.buy_quantity == p.sell_quantity for p in margin_positions):
            moved = sum(p.sell_value - p.buy_value for p in positions.values())
            assert market.funds(name).available == 8_000_00 + moved
        delivered = positions.get(Product.CNC)
        sold = delivered.sell_quantity - delivered.buy_quantity if delivered else 0
        assert market.holdings(name)[0].sellable_quantity == min(60, 60 - sold)
        assert sold <= 60


@given(commands, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_same_seed_and_commands_give_the_same_market(steps, seed):
    def outcome() -> tuple[object, ...]:
        market = MatchingEngine(LISTINGS, seed=seed, now_ns=START)
        for name in NAMES:
            market.open_account(name, cash=8_000_00)
        run(market, steps)
        return (
            market.ledger,
            [market.fills(name) for name in NAMES],
            [market.funds(name) for name in NAMES],
            market.depth(SHARE),
            market.take_events(),
        )

    assert outcome() == outcome()


# --- the built-in listings ------------------------------------------------------------------------


def test_the_default_listings_are_distinct_and_consistent():
    assert len({(x.segment, x.token) for x in LISTED}) == len(LISTED) > 50
    assert len({(x.segment, x.symbol) for x in LISTED}) == len(LISTED)
    for listing in LISTED:
        assert listing.lower_band < listing.base_price < listing.upper_band
        prices_on_tick = (listing.base_price, listing.lower_band, listing.upper_band)
        assert all(price % listing.tick == 0 for price in prices_on_tick), listing.symbol
        assert (listing.expiry is None) == listing.segment.is_cash
        assert listing.is_option == bool(listing.strike)
        assert not listing.freeze_quantity or listing.freeze_quantity >= listing.lot_size


def test_well_known_instruments_are_listed():
    tokens = {x.symbol: x.token for x in LISTED if x.segment is Segment.NSE_CM}
    wanted = ("ITBEES-EQ", "TCS-EQ", "RELIANCE-EQ", "HDFCBANK-EQ", "IDEA-EQ")
    assert [tokens[symbol] for symbol in wanted] == ["19084", "11536", "2885", "1333", "14366"]


def test_bands_lie_on_ticks_inside_the_distance():
    assert bands(39_41, 20, 5) == (31_55, 47_25)
