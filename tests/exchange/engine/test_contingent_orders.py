"""Cover and bracket orders: their exits, how those cancel each other, and how a stop follows."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Bracket, OrderRecord, Refusal, Rules
from neo_async.model.enums import OffsetKind, OrderStatus, OrderType, Product, Side, Validity
from tests.exchange.engine.trading import (
    BRACKET,
    CASH,
    LISTINGS,
    SECOND,
    SHARE,
    START,
    buy,
    change,
    new,
    quiet_market,
    sell,
    states,
)
from tests.exchange_settings import EVERY_ORDER

BO = {"product": Product.BO, "bracket": BRACKET}
CO = {"product": Product.CO}
TICKS = OffsetKind.TICKS
BIRTH = ["put order req received", "validation pending", "open pending"]


def trade_at(market: MatchingEngine, price: int) -> None:
    market.print_price(SHARE.segment, SHARE.token, price)


def legs(market: MatchingEngine, entry: OrderRecord) -> list[OrderRecord]:
    return [record for record in market.ledger if record.parent_number == entry.number]


def bracketed(
    quantity: int = 10, *, bracket: Bracket = BRACKET
) -> tuple[MatchingEngine, OrderRecord]:
    """Ann has bought at 200.00: her target stands at 205.00, her stop at 197.00."""
    market = quiet_market()
    market.place("bob", sell(quantity, 200_00))
    entry = market.place("ann", buy(quantity, 200_00, **{**BO, "bracket": bracket}))
    return market, entry


# --- birth ----------------------------------------------------------------------------------------


def test_an_entry_has_no_legs_before_it_fills() -> None:
    market = quiet_market()
    entry = market.place("ann", buy(10, 199_00, **BO))
    assert legs(market, entry) == []
    assert market.cancel("ann", entry.number).status is OrderStatus.CANCELLED


def test_the_first_fill_brings_a_target_and_a_stop_to_life() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    assert (target.order_type, target.price, target.status) == (
        OrderType.LIMIT,
        205_00,
        OrderStatus.OPEN,
    )
    # The stop's limit lies one protection band (1 %) beyond its trigger.
    assert (stop.order_type, stop.trigger, stop.price) == (OrderType.SL, 197_00, 195_05)
    assert stop.status is OrderStatus.TRIGGER_PENDING
    assert {leg.side for leg in (stop, target)} == {Side.SELL}
    assert {leg.quantity for leg in (stop, target)} == {10}
    assert {leg.product for leg in (stop, target)} == {Product.BO}
    assert len({entry.number, stop.number, target.number}) == 3
    assert states(target) == [*BIRTH, "open"]
    assert states(stop) == [*BIRTH, "trigger pending"]
    assert (target.arrivals, target.client_tag) == (0, "")


@pytest.mark.parametrize(
    ("bracket", "target", "trigger"),
    [
        (Bracket(target=5_00, stop=3_00), 195_00, 203_00),
        (Bracket(target=20, stop=10, target_kind=TICKS, stop_kind=TICKS), 199_00, 200_50),
        (Bracket(target=20, stop=1_00, target_kind=TICKS), 199_00, 201_00),
    ],
)
def test_distances_count_from_the_fill_in_rupees_or_ticks(bracket, target, trigger) -> None:
    market = quiet_market()
    market.place("bob", buy(10, 200_00))
    entry = market.place("ann", sell(10, 199_50, **{**BO, "bracket": bracket}))
    stop, goal = legs(market, entry)
    assert (goal.side, goal.price, stop.trigger) == (Side.BUY, target, trigger)


def test_a_cover_order_has_a_stop_at_its_own_trigger_and_no_target() -> None:
    market = quiet_market()
    market.place("bob", sell(10, 200_00))
    entry = market.place("ann", buy(10, product=Product.CO, trigger=196_00))
    (stop,) = legs(market, entry)
    assert (stop.order_type, stop.trigger, stop.quantity) == (OrderType.SL, 196_00, 10)
    assert entry.status is OrderStatus.COMPLETE


def test_legs_grow_with_the_fills_of_their_entry() -> None:
    market = quiet_market()
    entry = market.place("ann", buy(10, 200_00, **BO))
    market.place("bob", sell(4, 200_00))
    assert [leg.quantity for leg in legs(market, entry)] == [4, 4]
    market.place("bob", sell(6, 200_00))
    assert [leg.quantity for leg in legs(market, entry)] == [10, 10]
    assert market.depth(SHARE)[1] == [(205_00, 10, 1)]


def test_legs_stay_when_the_rest_of_the_entry_is_cancelled() -> None:
    market = quiet_market()
    entry = market.place("ann", buy(10, 200_00, **BO))
    market.place("bob", sell(4, 200_00))
    market.cancel("ann", entry.number)
    assert [leg.pending_quantity for leg in legs(market, entry)] == [4, 4]


def test_exits_are_held_inside_the_circuit_limits() -> None:
    """A better fill than the limit moves the exits towards the limits of the day."""
    market = quiet_market()
    market.place("bob", sell(10, 181_00))
    entry = market.place("ann", buy(10, 190_00, **BO))
    stop, _ = legs(market, entry)
    assert (entry.fills[0].price, stop.trigger, stop.price) == (181_00, 180_00, 180_00)


# --- one cancels the other ------------------------------------------------------------------------


def test_a_filled_target_cancels_the_stop() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.place("bob", buy(10, 205_00))
    assert (target.status, stop.status) == (OrderStatus.COMPLETE, OrderStatus.CANCELLED)
    assert market.funds("ann").available == CASH + 10 * 5_00


def test_a_partly_filled_target_reduces_the_stop() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.place("bob", buy(4, 205_00))
    assert (target.filled_quantity, target.pending_quantity) == (4, 6)
    assert (stop.quantity, stop.status) == (6, OrderStatus.TRIGGER_PENDING)


def test_a_triggered_stop_cancels_the_target_and_sells() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.place("bob", buy(10, 196_50))
    trade_at(market, 197_00)
    assert (stop.status, target.status) == (OrderStatus.COMPLETE, OrderStatus.CANCELLED)
    assert stop.fills[0].price == 196_50
    assert market.funds("ann").available == CASH - 10 * 3_50


def test_a_triggered_stop_that_meets_nobody_never_shares_the_book_with_its_target() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    trade_at(market, 196_00)
    assert (stop.status, target.status) == (OrderStatus.OPEN, OrderStatus.CANCELLED)
    market.place("bob", buy(30, 210_00))
    assert sum(leg.filled_quantity for leg in (stop, target)) == 10


def test_the_first_exit_cancels_the_rest_of_the_entry() -> None:
    market = quiet_market()
    entry = market.place("ann", buy(10, 200_00, **BO))
    market.place("bob", sell(4, 200_00))
    market.place("bob", buy(1, 205_00))
    assert (entry.status, entry.cancelled_quantity) == (OrderStatus.CANCELLED, 6)
    assert [leg.pending_quantity for leg in legs(market, entry)] == [3, 3]


# --- trailing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trail", "prints", "trigger"),
    [
        (0, [202_00], 197_00),
        (1_00, [200_95], 197_00),
        (1_00, [201_00], 198_00),
        (1_00, [203_55], 200_00),
        (1_00, [203_55, 201_00], 200_00),
        (1_02, [202_00], 199_00),
        (2, [200_05], 197_05),
    ],
)
def test_a_trailing_stop_follows_in_whole_steps_and_never_back(trail, prints, trigger) -> None:
    market, entry = bracketed(bracket=Bracket(target=15_00, stop=3_00, trail=trail))
    stop = legs(market, entry)[0]
    for price in prints:
        trade_at(market, price)
    assert stop.trigger == trigger
    assert stop.status is OrderStatus.TRIGGER_PENDING
    assert stop.price < stop.trigger


def test_a_trailed_stop_fires_at_its_new_trigger() -> None:
    market, entry = bracketed(bracket=Bracket(target=15_00, stop=3_00, trail=1_00))
    stop = legs(market, entry)[0]
    trade_at(market, 204_00)
    market.place("bob", buy(10, 200_50))
    trade_at(market, 201_00)
    assert (stop.status, stop.fills[0].price) == (OrderStatus.COMPLETE, 200_50)


def test_the_stop_of_a_short_entry_follows_downwards() -> None:
    market = quiet_market()
    market.place("bob", buy(10, 200_00))
    bracket = Bracket(target=100, stop=60, trail=20, target_kind=TICKS, stop_kind=TICKS)
    entry = market.place("ann", sell(10, 200_00, **{**BO, "bracket": bracket}))
    stop = legs(market, entry)[0]
    trade_at(market, 198_00)
    assert (stop.trigger, stop.side) == (201_00, Side.BUY)


# --- the owner's hand -----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["entry", "stop", "target"])
def test_an_exit_squares_off_whoever_is_named(which) -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.place("bob", buy(10, 199_80))
    named = {"entry": entry, "stop": stop, "target": target}[which]
    assert market.exit("ann", named.number) is named
    assert (stop.status, target.status) == (OrderStatus.COMPLETE, OrderStatus.CANCELLED)
    assert market.funds("ann").margin_used == 0
    with pytest.raises(Refusal, match="1021"):
        market.exit("ann", named.number)


def test_cancelling_a_leg_exits_the_bracket() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.place("bob", buy(10, 199_80))
    market.cancel("ann", target.number)
    assert (stop.status, target.status) == (OrderStatus.COMPLETE, OrderStatus.CANCELLED)


def test_an_exit_that_meets_nobody_rests_and_is_brought_up_to_date_by_the_next() -> None:
    market, entry = bracketed()
    stop = legs(market, entry)[0]
    market.exit("ann", entry.number)
    assert (stop.status, stop.order_type, stop.price) == (OrderStatus.OPEN, OrderType.LIMIT, 198_00)
    market.place("bob", buy(1, 195_00))
    trade_at(market, 196_00)
    market.exit("ann", entry.number)
    assert stop.price == 194_05
    assert stop.filled_quantity == 1


def test_an_exit_of_an_unfilled_entry_cancels_it() -> None:
    market = quiet_market()
    entry = market.place("ann", buy(10, 199_00, product=Product.CO, trigger=190_00))
    assert market.exit("ann", entry.number).status is OrderStatus.CANCELLED


def test_a_leg_takes_a_new_price_and_keeps_its_quantity_and_kind() -> None:
    market, entry = bracketed()
    stop, target = legs(market, entry)
    market.modify("ann", target.number, change(target, price=207_00))
    market.modify("ann", stop.number, change(stop, trigger=198_00, price=197_50))
    assert (target.price, stop.trigger, stop.price) == (207_00, 198_00, 197_50)
    for terms in (
        {"quantity": 5},
        {"order_type": OrderType.MARKET, "price": 0},
        {"validity": Validity.IOC},
    ):
        with pytest.raises(Refusal):
            market.modify("ann", target.number, change(target, **terms))


def test_legs_block_nothing_that_the_position_does_not() -> None:
    market, _ = bracketed()
    assert market.funds("ann").margin_used == 10 * 200_00 // 5


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        buy(10, 200_00, product=Product.BO),
        buy(10, 200_00, product=Product.MIS, bracket=BRACKET),
        buy(10, 200_00, product=Product.BO, bracket=Bracket(target=0, stop=1_00)),
        buy(10, 200_00, product=Product.BO, bracket=Bracket(target=1_00, stop=0)),
        buy(10, 200_00, product=Product.BO, bracket=Bracket(target=1, stop=1, trail=-1)),
        buy(10, 200_00, product=Product.BO, bracket=BRACKET, validity=Validity.IOC),
        buy(10, trigger=200_00, order_type=OrderType.SL_M, **BO),
    ],
)
def test_a_bracket_needs_its_distances_and_nothing_else_has_them(order) -> None:
    with pytest.raises(Refusal, match="5202"):
        quiet_market().place("ann", order)


@pytest.mark.parametrize(
    ("bracket", "reason"),
    [
        (Bracket(target=20_05, stop=1_00), "circuit limit including square off"),
        (Bracket(target=1_00, stop=20_05), "circuit limit including square off"),
        (Bracket(target=1_01, stop=1_00), "multiple of tick"),
        (Bracket(target=1_00, stop=1_01), "multiple of tick"),
    ],
)
def test_exits_beyond_the_circuit_limits_or_off_tick_reject_the_entry(bracket, reason) -> None:
    record = quiet_market().place("ann", buy(10, 200_00, product=Product.BO, bracket=bracket))
    assert reason in record.reject_reason


@pytest.mark.parametrize("order", [buy(1, 200_00, **BO), buy(1, 200_00, trigger=190_00, **CO)])
def test_covered_orders_are_refused_by_default_and_accepted_by_the_older_rules(order) -> None:
    def market_under(rules: Rules) -> MatchingEngine:
        market = MatchingEngine(LISTINGS, seed=1, now_ns=START, market_makers=False, rules=rules)
        market.open_account("ann", cash=CASH)
        return market

    assert market_under(Rules.before_2026()).place("ann", order).status.is_working
    market = market_under(Rules())
    with pytest.raises(Refusal, match="BO/CO OrderType not allowed for TRADEAPI"):
        market.place("ann", order)


# --- properties -----------------------------------------------------------------------------------

prices = st.integers(-12, 12).map(lambda ticks: 200_00 + ticks * 5)
sides = st.sampled_from(list(Side))
covered = st.builds(
    lambda side, quantity, price, target, stop, trail: new(
        side,
        quantity,
        price,
        product=Product.BO,
        bracket=Bracket(target=target, stop=stop, trail=trail, target_kind=TICKS, stop_kind=TICKS),
    ),
    sides,
    st.integers(1, 30),
    prices,
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 3),
) | st.builds(
    lambda side, quantity, price, away: new(
        side,
        quantity,
        price,
        product=Product.CO,
        trigger=price - (5 * away if side is Side.BUY else -5 * away),
    ),
    sides,
    st.integers(1, 30),
    prices,
    st.integers(1, 12),
)
plain = st.builds(
    lambda side, quantity, price: new(side, quantity, price), sides, st.integers(1, 40), prices
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.sampled_from(["ann", "bob"]), covered | plain),
        st.tuples(st.just("place"), st.sampled_from(["ann", "bob"]), covered | plain),
        st.tuples(st.sampled_from(["exit", "cancel"]), st.integers(0, 99)),
        st.tuples(st.just("modify"), st.integers(0, 99), prices),
        st.tuples(st.just("print"), prices),
        st.tuples(st.just("advance"), st.integers(1, 3)),
    ),
    min_size=10,
    max_size=40,
)


def play(market: MatchingEngine, todo) -> None:
    for step in todo:
        match step:
            case ("place", account, order):
                market.place(account, order)
            case ("exit" | "cancel" as verb, index) if market.ledger:
                record = market.ledger[index % len(market.ledger)]
                with suppress(Refusal):
                    getattr(market, verb)(record.account, record.number)
            case ("modify", index, price) if market.ledger:
                record = market.ledger[index % len(market.ledger)]
                terms = {"price": price} if record.order_type.has_limit else {}
                with suppress(Refusal):
                    market.modify(record.account, record.number, change(record, **terms))
            case ("print", price):
                market.print_price(SHARE.segment, SHARE.token, price)
            case ("advance", seconds):
                market.advance(market.now_ns + seconds * SECOND)


@given(steps, st.booleans())
@settings(max_examples=250, deadline=None)
def test_legs_never_close_more_than_their_entry_opened(todo, market_makers) -> None:
    market = MatchingEngine(
        LISTINGS, seed=5, now_ns=START, market_makers=market_makers, rules=EVERY_ORDER
    )
    for name in ("ann", "bob"):
        market.open_account(name, cash=CASH)
    play(market, todo)
    for entry in market.ledger:
        if entry.parent_number:
            continue
        contingent_orders = legs(market, entry)
        closed = sum(leg.filled_quantity for leg in contingent_orders)
        assert closed <= entry.filled_quantity
        if entry.product in (Product.CO, Product.BO):
            assert bool(contingent_orders) == bool(entry.filled_quantity)
            working = [leg for leg in contingent_orders if not leg.status.is_final]
            # Whatever is open stays covered, by each of the legs in full.
            assert {leg.pending_quantity for leg in working} <= {entry.filled_quantity - closed}
            assert bool(working) == (entry.filled_quantity > closed)
            assert sum(leg.status is OrderStatus.OPEN for leg in working) <= 1


@given(steps)
@settings(max_examples=100, deadline=None)
def test_exiting_everything_leaves_no_margin_behind(todo) -> None:
    market = quiet_market()
    play(market, todo)
    for record in list(market.ledger):
        if not record.status.is_final:
            with suppress(Refusal):
                market.exit(record.account, record.number)
    deep = {"segment": SHARE.segment, "product": Product.NRML}
    market.open_account("sea", cash=10**15)
    for _ in range(3):
        market.place("sea", buy(5_000, 180_00, **deep))
        market.place("sea", sell(5_000, 220_00, **deep))
        for record in list(market.ledger):
            if record.account != "sea" and not record.status.is_final:
                market.exit(record.account, record.number)
    for name in ("ann", "bob"):
        positions = market.positions(name)
        if all(p.buy_quantity == p.sell_quantity for p in positions):
            assert market.funds(name).margin_used == 0
            gained = sum(p.sell_value - p.buy_value for p in positions)
            assert market.funds(name).available == CASH + gained
