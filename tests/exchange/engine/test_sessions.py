"""The course of a day: sessions, after-market orders, the close, and how the next one begins."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.index_board import IndexBoard
from neo_async.exchange.engine.indices import INDICES
from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.replay import replay
from neo_async.exchange.engine.trading_hours import CALENDAR, Phase, next_session_events, phase
from neo_async.exchange.engine.types import Holding, Hours, Refusal, Rules
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment
from tests.exchange.engine.test_contingent_orders import play, steps
from tests.exchange.engine.test_snapshot import kept, revived
from tests.exchange.engine.trading import BRACKET, CASH, FUTURE, OPTION, SHARE, buy, sell, states
from tests.exchange_settings import EVERY_ORDER

CNC = {"product": Product.CNC}
MTF = {"product": Product.MTF}
NRML = {"product": Product.NRML}
FUT = {"segment": FUTURE.segment, "symbol": FUTURE.symbol, **NRML}
KEPT = msgspec.structs.replace(EVERY_ORDER, hours=Hours.EXCHANGE)
LASTING = msgspec.structs.replace(FUTURE, expiry=date(2026, 12, 29))
ENDING = msgspec.structs.replace(OPTION, expiry=date(2026, 11, 23), symbol="ENDS", token="9")
TRADED = (SHARE, LASTING, ENDING)


def at(clock: str, day: int = 23) -> int:
    """Unix ns of a time in India in November 2026; the 23rd is a Monday."""
    moment = datetime.fromisoformat(f"2026-11-{day:02d}T{clock}+05:30")
    return int(moment.timestamp()) * 1_000_000_000


def market_at(
    clock: str, day: int = 23, *, market_makers: bool = False, rules: Rules = KEPT
) -> MatchingEngine:
    market = MatchingEngine(
        TRADED, seed=1, now_ns=at(clock, day), market_makers=market_makers, rules=rules
    )
    for name in ("ann", "bob"):
        stock = Holding(listing=SHARE, quantity=40, average_price=150_00.0, sellable_quantity=40)
        market.open_account(name, cash=CASH, holdings=[stock])
    return market


def trade(
    market: MatchingEngine, quantity: int = 10, price: int = 200_00, **fields: object
) -> None:
    """Ann buys from Bob."""
    market.place("bob", sell(quantity, price, **fields))
    market.place("ann", buy(quantity, price, **fields))


# --- the timetable --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "clock", "day", "expected"),
    [
        (Segment.NSE_CM, "08:59", 23, Phase.CLOSED),
        (Segment.NSE_CM, "09:00", 23, Phase.PRE_OPEN),
        (Segment.NSE_CM, "09:15", 23, Phase.OPEN),
        (Segment.NSE_CM, "15:29", 23, Phase.OPEN),
        (Segment.NSE_CM, "15:30", 23, Phase.CLOSED),
        (Segment.NSE_FO, "09:14", 23, Phase.CLOSED),
        (Segment.NSE_FO, "15:39", 23, Phase.OPEN),
        (Segment.NSE_FO, "15:40", 23, Phase.CLOSED),
        (Segment.MCX_FO, "23:54", 27, Phase.OPEN),
        (Segment.CDE_FO, "17:00", 23, Phase.CLOSED),
        (Segment.NSE_CM, "11:00", 21, Phase.CLOSED),
        (Segment.NSE_CM, "11:00", 24, Phase.CLOSED),
        (Segment.MCX_FO, "11:00", 24, Phase.CLOSED),
        (Segment.MCX_FO, "17:00", 24, Phase.OPEN),
        (Segment.NSE_CM, "11:00", 22, Phase.CLOSED),
    ],
)
def test_every_segment_keeps_its_hours_on_weekdays(segment, clock, day, expected) -> None:
    assert phase(CALENDAR, segment, at(clock, day)) is expected
    assert market_at(clock, day).phase(segment) is expected


def test_after_fridays_last_close_comes_mondays_new_day() -> None:
    (event,) = next_session_events(CALENDAR, at("23:55", 20))
    assert (event.time_ns, event.kind) == (at("00:00", 23), "new day")


@given(st.integers(at("00:00", 20), at("00:00", 29)))
def test_the_phases_between_two_moments_are_those_at_the_first(now_ns) -> None:
    coming = next_session_events(CALENDAR, now_ns)[0].time_ns
    for segment in Segment:
        assert phase(CALENDAR, segment, now_ns) is phase(CALENDAR, segment, coming - 1)


# --- orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock", "day"), [("08:00", 23), ("16:00", 23), ("11:00", 22)])
def test_a_closed_market_takes_after_market_orders_only(clock, day) -> None:
    market = market_at(clock, day)
    with pytest.raises(Refusal, match="1008: market closed"):
        market.place("ann", buy(10, 199_00))
    queued = market.place("ann", buy(10, 199_00, amo=True))
    assert queued.status is OrderStatus.AMO_RECEIVED


def test_an_open_market_takes_no_after_market_orders() -> None:
    with pytest.raises(Refusal, match="1008"):
        market_at("10:00").place("ann", buy(10, 199_00, amo=True))


def test_the_queue_is_released_at_the_open_in_order_of_acceptance() -> None:
    market = market_at("08:00")
    first = market.place("bob", sell(10, 200_00, amo=True))
    early = market.place("ann", buy(10, 200_00, amo=True))
    market.advance(at("09:05"))
    late = market.place("ann", buy(10, 200_00))
    assert late.status is OrderStatus.AMO_RECEIVED
    future = market.place("ann", buy(50, 200_00, amo=True, **FUT))
    market.advance(at("09:14"))
    assert (early.status, future.status) == (OrderStatus.AMO_RECEIVED,) * 2
    market.advance(at("09:15"))
    assert [first.status, early.status] == [OrderStatus.COMPLETE] * 2
    assert (late.status, future.status) == (OrderStatus.OPEN, OrderStatus.OPEN)


def test_always_open_markets_take_both_at_any_hour() -> None:
    market = market_at("03:00", 22, rules=EVERY_ORDER)
    assert market.place("ann", buy(10, 199_00)).status is OrderStatus.OPEN
    assert market.place("ann", buy(10, 199_00, amo=True)).status is OrderStatus.AMO_RECEIVED
    market.advance(at("03:00", 25))
    assert market.days_begun == 0


def test_makers_rest_while_the_market_is_closed() -> None:
    market = market_at("15:29", market_makers=True)
    market.watch(SHARE)
    market.advance(at("15:30"))
    market.take_events()
    assert market.depth(SHARE) == ([], [])
    last = market.last_price(SHARE)
    market.advance(at("09:14", 25))
    assert market.last_price(SHARE) == last
    market.advance(at("09:16", 25))
    assert all(market.depth(SHARE))
    assert market.last_price(SHARE) != last


# --- the close ------------------------------------------------------------------------------------


def test_orders_expire_at_the_close_of_their_segment() -> None:
    market = market_at("10:00")
    open_order = market.place("ann", buy(10, 190_00, **CNC))
    stop = market.place("ann", sell(5, 181_00, trigger=182_00, order_type=OrderType.SL, **CNC))
    market.advance(at("15:29"))
    assert not open_order.status.is_final
    market.advance(at("15:30"))
    assert states(open_order)[-1] == states(stop)[-1] == "cancelled"
    assert open_order.cancelled_quantity == 10
    assert market.funds("ann").available == CASH
    assert market.depth(SHARE) == ([], [])


def test_intraday_positions_are_squared_off_at_market_before_the_close() -> None:
    market = market_at("10:00")
    trade(market)
    resting = market.place("ann", buy(3, 190_00))
    market.place("bob", buy(10, 199_50, **NRML))
    market.place("bob", sell(10, 200_50, **NRML))
    market.advance(at("15:20"))
    closing = [record for record in market.ledger if record.source == "SQUAREOFF"]
    assert [(r.account, r.side.value, r.quantity) for r in closing] == [
        ("ann", "S", 10),
        ("bob", "B", 10),
    ]
    assert resting.status is OrderStatus.CANCELLED
    assert {p.bought - p.sold for p in market.positions("ann")} == {0}


def test_what_cannot_be_squared_off_is_settled_at_the_last_price() -> None:
    market = market_at("10:00")
    trade(market, price=200_00)
    market.print_price(SHARE.segment, SHARE.token, 210_00)
    market.advance(at("15:30"))
    (ann,), (bob,) = market.positions("ann"), market.positions("bob")
    assert (ann.bought, ann.sold, bob.bought, bob.sold) == (10, 10, 10, 10)
    gained = market.funds("ann").available - CASH
    assert gained == CASH - market.funds("bob").available


def test_brackets_are_exited_before_the_close() -> None:
    market = market_at("10:00")
    market.place("bob", sell(10, 200_00, **NRML))
    entry = market.place("ann", buy(10, 200_00, product=Product.BO, bracket=BRACKET))
    market.advance(at("15:31"))
    assert all(record.status.is_final for record in market.ledger if record.account == "ann")
    (position,) = market.positions("ann")
    assert (entry.filled_quantity, position.bought, position.sold) == (10, 10, 10)


def test_a_contract_is_settled_on_its_last_day_and_refused_afterwards() -> None:
    market = market_at("10:00")
    option = {"segment": ENDING.segment, "symbol": ENDING.symbol, **NRML}
    trade(market, 50, 8_00, **option)
    market.print_price(ENDING.segment, ENDING.token, 12_00)
    market.advance(at("16:00"))
    (position,) = market.positions("ann")
    assert (position.sold, position.sold_value) == (50, 50 * 12_00)
    market.advance(at("10:00", 25))
    with pytest.raises(Refusal, match="1010: contract expired"):
        market.place("ann", buy(50, 8_00, **option))


# --- the next day ---------------------------------------------------------------------------------


def test_bought_stock_becomes_a_holding_at_the_merged_average() -> None:
    market = market_at("10:00")
    trade(market, 10, 200_00, **CNC)
    assert market.holdings("ann")[0].quantity == 40
    market.advance(at("00:00", 25))
    (held,), (sold,) = market.holdings("ann"), market.holdings("bob")
    assert (held.quantity, held.sellable_quantity, held.average_price) == (50, 50, 160_00.0)
    assert (sold.quantity, sold.average_price) == (30, 150_00.0)
    assert market.funds("ann").cash == market.funds("ann").available == CASH - 2_000_00
    assert market.funds("bob").available == CASH + 2_000_00
    assert market.positions("ann") == []


def test_stock_sold_out_is_no_holding_any_more() -> None:
    market = market_at("10:00")
    trade(market, 40, 200_00, **CNC)
    market.advance(at("00:00", 25))
    assert market.holdings("bob") == []


@pytest.mark.parametrize("fields", [NRML, MTF, FUT])
def test_open_positions_are_carried_at_the_close(fields) -> None:
    market = market_at("10:00")
    listing = LASTING if fields is FUT else SHARE
    seller = NRML if fields is MTF else fields
    market.place("bob", sell(50, 200_00, **seller))
    market.place("ann", buy(50, 200_00, **fields))
    before = market.funds("ann")
    market.print_price(listing.segment, listing.token, 205_00)
    market.advance(at("10:00", 25))
    (position,) = market.positions("ann")
    assert (position.carried_buy_quantity, position.carried_buy_value) == (50, 50 * 205_00)
    assert (position.buy_quantity, position.buy_value) == (0, 0)
    (short,) = market.positions("bob")
    assert (short.carried_sell_quantity, short.carried_sell_value) == (50, 50 * 205_00)
    assert market.funds("ann").cash == before.cash + 50 * 5_00

    market.place("bob", buy(50, 206_00, **seller))
    market.place("ann", sell(50, 206_00, **fields))
    assert market.funds("ann").margin_used == 0
    assert market.funds("ann").available == CASH + 50 * 6_00
    assert market.funds("bob").available == CASH - 50 * 6_00


def test_a_new_day_has_empty_books_new_numbers_and_new_bands() -> None:
    market = market_at("10:00")
    trade(market, **NRML)
    market.print_price(SHARE.segment, SHARE.token, 210_00)
    ledger = len(market.ledger)
    market.advance(at("10:00", 25))
    assert (market.orders("ann"), market.fills("ann")) == ([], [])
    assert len(market.ledger) == ledger
    listing = market.listing(SHARE.segment, SHARE.symbol)
    assert listing is not None
    assert (listing.base_price, listing.lower_band, listing.upper_band) == (210_00, 189_00, 231_00)
    day = market.session_stats(listing)
    assert (day.open, day.volume, day.last_price) == (0, 0, 210_00)
    record = market.place("ann", buy(10, 230_00))
    assert record.status is OrderStatus.OPEN
    assert record.number.startswith("261125")
    assert market.orders("ann") == [record]


def test_an_order_queued_on_sunday_is_in_mondays_book() -> None:
    market = market_at("12:00", 22)
    queued = market.place("ann", buy(10, 199_00, amo=True))
    market.advance(at("09:20"))
    assert market.orders("ann") == [queued]
    assert queued.status is OrderStatus.OPEN


def test_a_day_can_be_ended_by_hand_at_any_hour() -> None:
    market = market_at("11:00", rules=EVERY_ORDER)
    trade(market, **CNC)
    queued = market.place("ann", buy(5, 199_00, amo=True))
    working = market.place("ann", buy(5, 198_00))
    market.end_day()
    assert working.status is OrderStatus.CANCELLED
    assert queued.status is OrderStatus.OPEN
    assert market.holdings("ann")[0].quantity == 50
    assert market.place("ann", buy(5, 199_00)).status is OrderStatus.OPEN


def test_an_index_goes_on_from_its_close_also_after_a_restart() -> None:
    listed = default_listings(date(2026, 11, 23))
    market = MatchingEngine(listed, seed=1, now_ns=at("10:00"), market_makers=False, rules=KEPT)
    board = IndexBoard(market)
    nifty = INDICES[0]
    for member in board.members(nifty):
        market.print_price(member.segment, member.token, member.base_price * 102 // 100)
    value = board.snapshot(nifty).stats.last_price
    market.advance(at("10:00", 25))
    for each in (board, IndexBoard(revived(kept(market)))):
        market_snapshot = each.snapshot(nifty)
        assert (
            market_snapshot.index.close
            == market_snapshot.stats.last_price
            == pytest.approx(value, abs=2)
        )


# --- properties -----------------------------------------------------------------------------------


def through_days(market: MatchingEngine, todo) -> None:
    """The steps, with a jump to the next day's opening now and then."""
    for number, step in enumerate(todo):
        if number % 9 == 8:
            opening = datetime.fromtimestamp(market.now_ns / 1e9, UTC) + timedelta(days=1)
            market.advance(at("09:30", opening.day))
        with suppress(Refusal):  # the market may have closed
            play(market, [step])


@given(steps, st.booleans())
@settings(max_examples=80, deadline=None)
def test_days_conserve_money_and_stock(todo, by_the_clock) -> None:
    market = market_at("10:00", 23, rules=KEPT if by_the_clock else EVERY_ORDER)
    todo = [step for step in todo if step[0] != "print"]
    if by_the_clock:
        through_days(market, todo)
    else:
        for step in todo:
            play(market, [step])
            if step[0] == "advance":
                market.end_day()
    market.end_day()
    market.end_day()
    accounts = ("ann", "bob")
    # What is settled by force is settled at one price for both sides.
    assert sum(market.funds(name).cash for name in accounts) == 2 * CASH
    assert sum(h.quantity for name in accounts for h in market.holdings(name)) == 80
    assert all(record.status.is_final for record in market.ledger)
    for name in accounts:
        assert market.positions(name) == []
        assert market.funds(name).available == market.funds(name).cash


@given(steps, st.booleans())
@settings(max_examples=40, deadline=None)
def test_days_are_replayed_and_restored_to_the_byte(todo, market_makers) -> None:
    market = market_at("10:00", market_makers=market_makers)
    market.journal = []
    half = len(todo) // 2
    through_days(market, todo[:half])
    content = kept(market)
    journal_then = len(market.journal)
    through_days(market, todo[half:])

    again = MatchingEngine(
        TRADED, seed=1, now_ns=at("10:00"), market_makers=market_makers, rules=KEPT
    )
    for name in ("ann", "bob"):
        stock = Holding(listing=SHARE, quantity=40, average_price=150_00.0, sellable_quantity=40)
        again.open_account(name, cash=CASH, holdings=[stock])
    resumed = revived(content)
    for each, entries in ((again, market.journal), (resumed, market.journal[journal_then:])):
        replay(each, entries)
        each.advance(market.now_ns, catch_up=False)
        assert kept(each) == kept(market)
