"""The states that orders walk through, and what changes and fills do to them."""

from __future__ import annotations

import pytest

from neo_async.exchange.engine.types import OrderChanged, Printed
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment
from tests.exchange.engine.trading import (
    BRACKET,
    FUTURE,
    IOC,
    OPTION,
    SECOND,
    SHARE,
    START,
    buy,
    change,
    quiet_market,
    sell,
    states,
)

ENTRY = ["put order req received", "validation pending", "open pending"]
SL = {"order_type": OrderType.SL}
SL_M = {"order_type": OrderType.SL_M}


def trade_at(market, price: int) -> None:
    market.print_price(SHARE.segment, SHARE.token, price)


@pytest.mark.parametrize(
    ("order", "path"),
    [
        (buy(10, 199_00), ["open"]),
        (buy(10, 200_50), ["open", "complete"]),
        (buy(10), ["open", "complete"]),
        (buy(150, 200_50), ["open", "open"]),
        (buy(10, 200_50, validity=IOC), ["open", "complete"]),
        (buy(10, 199_00, validity=IOC), ["open", "cancelled"]),
        (buy(150, validity=IOC), ["open", "open", "cancelled"]),
        (buy(10, 206_00, trigger=205_00, **SL), ["trigger pending"]),
        (buy(10, 206_00, trigger=199_00, **SL), ["trigger pending", "open", "complete"]),
        (buy(10, trigger=205_00, **SL_M), ["trigger pending"]),
        (buy(10, trigger=199_00, **SL_M), ["trigger pending", "open", "complete"]),
        (buy(10, 199_00, product=Product.NRML), ["open"]),
        (buy(10, 199_00, product=Product.CNC), ["open"]),
        (buy(10, 199_00, product=Product.MTF), ["open"]),
        (buy(10, 199_00, product=Product.BO, bracket=BRACKET), ["open"]),
        (buy(10, 199_00, product=Product.CO, trigger=195_00), ["open"]),
        (buy(10, product=Product.CO, trigger=195_00), ["open", "complete"]),
    ],
)
def test_each_kind_of_order_walks_its_states(order, path):
    market = quiet_market()
    market.place("bob", sell(100, 200_50))

    record = market.place("ann", order)

    assert states(record) == ENTRY + path
    assert record.status.value == path[-1]


def test_history_rows_have_rising_times_and_an_event_each():
    market = quiet_market()
    market.place("bob", sell(4, 200_00))
    market.place("bob", sell(4, 200_05))
    market.take_events()

    record = market.place("ann", buy(20, 200_05))
    market.advance(START + 3)
    market.modify("ann", record.number, change(record, price=200_00))
    market.cancel("ann", record.number)

    times = [transition.time_ns for transition in record.history]
    assert times == sorted(set(times))
    events = [e for e in market.take_events() if isinstance(e, OrderChanged)]
    steps = [e.step for e in events if e.record is record]
    assert [row for step in steps for row in step.rows()] == record.history
    assert record.updated_ns == times[-1]


def test_numbers_tell_the_indian_day_and_the_exchange_number_comes_with_open():
    market = quiet_market()
    record = market.place("ann", buy(1, 199_00))
    assert record.number == "261123000000001"
    assert [t.exchange_number for t in record.history] == ["NA"] * 3 + ["1100000000000001"]
    assert record.exchange_ns == record.history[-1].time_ns

    market.advance(START + 14 * 3600 * SECOND)
    assert market.place("ann", buy(1, 199_00)).number == "261124000000002"


def test_a_market_order_becomes_a_protected_limit_and_may_rest():
    record = quiet_market().place("ann", buy(10))
    assert (record.order_type, record.price, record.status) == (
        OrderType.LIMIT,
        202_00,
        OrderStatus.OPEN,
    )
    assert record.protection_percent == 1.0


def test_trades_happen_at_the_price_that_was_there_first():
    market = quiet_market()
    market.place("bob", sell(10, 199_00))

    record = market.place("ann", buy(10, 201_00))

    assert [fill.price for fill in record.fills] == [199_00]
    assert market.last_price(SHARE) == 199_00
    printed = [event for event in market.take_events() if isinstance(event, Printed)]
    assert printed == [Printed(SHARE, 199_00, 10, START)]


def test_fills_are_counted_numbered_and_averaged():
    market = quiet_market()
    market.place("bob", sell(10, 199_00))
    market.place("bob", sell(30, 200_00))

    record = market.place("ann", buy(50, 200_00))

    assert [(fill.leg, fill.quantity) for fill in record.fills] == [(1, 10), (2, 30)]
    assert int(record.fills[0].trade_number) < int(record.fills[1].trade_number)
    assert (record.filled_quantity, record.pending_quantity) == (40, 10)
    assert record.average_price == 199_75.0
    assert market.fills("ann") == record.fills[::-1]
    assert {fill.trade_number for fill in market.fills("bob")} == {
        fill.trade_number for fill in record.fills
    }


def test_positions_are_reported_as_they_stood_after_each_fill():
    market = quiet_market()
    market.place("bob", sell(10, 199_00))
    market.place("bob", sell(30, 200_00))
    market.take_events()

    market.place("ann", buy(50, 200_00))

    changes = [e for e in market.take_events() if isinstance(e, OrderChanged) and e.position]
    bought = [e.position.buy_quantity for e in changes if e.record.account == "ann"]
    assert bought == [10, 40]


# --- cancel ---------------------------------------------------------------------------------------


def test_cancelling_keeps_what_was_filled_and_marks_the_tag():
    market = quiet_market()
    market.place("bob", sell(4, 200_00))
    record = market.place("ann", buy(10, 200_00, tag="a17"))

    market.cancel("ann", record.number)

    assert states(record)[-2:] == ["cancel pending", "cancelled"]
    assert (record.filled_quantity, record.cancelled_quantity, record.pending_quantity) == (4, 6, 0)
    assert record.gui_order_id == f"a17-{START // SECOND}"
    assert record.history[-3].gui_order_id == "a17"
    assert market.depth(SHARE) == ([], [])


def test_a_cancelled_stop_never_fires():
    market = quiet_market()
    record = market.place("ann", buy(10, 206_00, trigger=205_00, **SL))
    market.cancel("ann", record.number)
    trade_at(market, 205_50)
    assert record.status is OrderStatus.CANCELLED


# --- stops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "short_of", "reaching"),
    [
        (buy(10, 206_00, trigger=205_00, **SL), 204_95, 205_00),
        (sell(10, 194_00, trigger=195_00, **SL), 195_05, 195_00),
        (buy(10, trigger=205_00, **SL_M), 204_95, 207_00),
        (sell(10, trigger=195_00, **SL_M), 195_05, 190_00),
    ],
)
def test_a_stop_waits_for_its_trigger_then_works_as_a_limit(order, short_of, reaching):
    market = quiet_market()
    record = market.place("ann", order)
    trade_at(market, short_of)
    assert record.status is OrderStatus.TRIGGER_PENDING

    trade_at(market, reaching)

    assert states(record)[-2:] == ["trigger pending", "open"]
    ((price, quantity, _),) = market.depth(SHARE)[0] or market.depth(SHARE)[1]
    assert (price, quantity) == (record.price, 10)


def test_a_triggered_stop_market_order_is_limited_from_the_price_that_triggered_it():
    market = quiet_market()
    record = market.place("ann", sell(10, trigger=195_00, **SL_M))
    trade_at(market, 190_00)
    assert (record.order_type, record.price) == (OrderType.SL_M, 188_10)


def test_stops_set_each_other_off_nearest_trigger_first():
    market = quiet_market()
    for price in (203_00, 205_00, 207_00):
        market.place("bob", sell(10, price))
    far = market.place("ann", buy(10, 207_00, trigger=204_00, **SL))
    near = market.place("ann", buy(10, 205_00, trigger=202_50, **SL))

    market.place("ann", buy(10, 203_00))

    assert [(f.order_number, f.price) for f in market.fills("ann")][:2] == [
        (far.number, 207_00),
        (near.number, 205_00),
    ]


# --- modify ---------------------------------------------------------------------------------------


def test_a_modification_is_written_into_the_history():
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00, tag="a17"))

    market.modify("ann", record.number, change(record, price=199_50))

    assert states(record) == [
        *ENTRY,
        "open",
        "modify validation pending",
        "modify pending",
        "modified",
        "open",
    ]
    assert (record.price, record.request_id, record.client_tag) == (199_50, 2, "a17")
    assert record.gui_order_id == f"{START // SECOND}-000001-ann-ADMINAPI"
    assert [t.request_id for t in record.history] == [1] * 6 + [2] * 2
    assert {t.gui_order_id for t in record.history[:6]} == {"a17"}
    market.cancel("ann", record.number)
    assert record.gui_order_id == f"a17-{START // SECOND}"


def test_a_modification_that_crosses_trades_at_once():
    market = quiet_market()
    market.place("bob", sell(10, 200_00))
    record = market.place("ann", buy(10, 199_00))
    market.modify("ann", record.number, change(record, price=200_00))
    assert states(record)[-2:] == ["modified", "complete"]


@pytest.mark.parametrize(
    ("terms", "keeps"),
    [
        ({"quantity": 5}, True),
        ({}, True),
        ({"quantity": 11}, False),
        ({"price": 200_05}, False),
        ({"disclosed_quantity": 5}, False),
    ],
)
def test_only_a_lower_quantity_keeps_the_place_in_the_queue(terms, keeps):
    market = quiet_market("ann", "bob", "eve")
    first = market.place("ann", sell(10, 200_00))
    second = market.place("bob", sell(10, 200_00))

    market.modify("ann", first.number, change(first, **terms))
    market.place("eve", buy(1, 201_00))

    assert (first.filled_quantity, second.filled_quantity) == ((1, 0) if keeps else (0, 1))


def test_a_new_quantity_is_a_total():
    market = quiet_market()
    market.place("bob", sell(4, 200_00))
    record = market.place("ann", buy(10, 200_00))

    market.modify("ann", record.number, change(record, quantity=6))

    assert (record.filled_quantity, record.pending_quantity) == (4, 2)
    assert market.depth(SHARE)[0] == [(200_00, 2, 1)]


def test_an_order_can_change_its_kind():
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00))

    market.modify(
        "ann", record.number, change(record, price=206_00, trigger=205_00, order_type=OrderType.SL)
    )
    assert states(record)[-2:] == ["modified", "trigger pending"]
    assert market.depth(SHARE) == ([], [])

    market.modify("ann", record.number, change(record, order_type=OrderType.MARKET, price=0))
    assert (record.order_type, record.price) == (OrderType.LIMIT, 202_00)
    assert record.status is OrderStatus.OPEN

    market.modify("ann", record.number, change(record, validity=IOC))
    assert record.status is OrderStatus.CANCELLED


def test_a_moved_trigger_replaces_the_old_one():
    market = quiet_market()
    record = market.place("ann", buy(10, 206_00, trigger=204_00, **SL))
    market.modify("ann", record.number, change(record, trigger=205_00))
    trade_at(market, 204_50)
    assert record.status is OrderStatus.TRIGGER_PENDING
    trade_at(market, 205_00)
    assert record.status is OrderStatus.OPEN


def test_a_triggered_stop_stays_triggered_when_modified():
    market = quiet_market()
    record = market.place("ann", buy(10, 206_00, trigger=204_00, **SL))
    trade_at(market, 204_00)

    market.modify("ann", record.number, change(record, price=205_00))

    assert states(record)[-2:] == ["modified", "open"]


def test_a_refused_modification_leaves_the_order_as_it_was():
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00))

    market.modify("ann", record.number, change(record, price=230_00))

    assert states(record)[-2:] == ["modify validation pending", "open"]
    assert "circuit limit" in record.history[-1].reject_reason
    assert (record.price, record.request_id) == (199_00, 1)
    assert market.depth(SHARE)[0] == [(199_00, 10, 1)]


# --- after-market orders --------------------------------------------------------------------------


def test_an_after_market_order_waits_for_its_release():
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00, amo=True))
    assert states(record) == ["after market order req received"]
    assert market.depth(SHARE) == ([], [])
    assert market.funds("ann").margin_used == 0

    market.modify("ann", record.number, change(record, price=198_00))
    market.release_amo()

    assert states(record)[1:] == ["modify after market order req received", *ENTRY, "open"]
    assert market.depth(SHARE)[0] == [(198_00, 10, 1)]


def test_a_cancelled_after_market_order_is_not_released():
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00, amo=True))
    market.cancel("ann", record.number)
    market.release_amo()
    assert record.status is OrderStatus.AMO_CANCELLED
    assert record.cancelled_quantity == 10


# --- the rest -------------------------------------------------------------------------------------


def test_an_outside_price_fills_what_it_reaches_and_nothing_else():
    market = quiet_market()
    above = market.place("ann", buy(10, 199_05))
    at = market.place("ann", buy(10, 199_00))
    below = market.place("ann", buy(10, 198_95))
    ask = market.place("bob", sell(10, 200_00))

    trade_at(market, 199_00)

    assert [order.status for order in (above, at, below, ask)] == [
        OrderStatus.COMPLETE,
        OrderStatus.COMPLETE,
        OrderStatus.OPEN,
        OrderStatus.OPEN,
    ]
    assert [fill.price for fill in market.fills("ann")] == [199_00, 199_05]
    assert market.last_price(SHARE) == 199_00


def test_disclosed_quantity_hides_the_rest():
    market = quiet_market()
    market.place("ann", sell(100, 200_00, disclosed_quantity=20))
    assert market.depth(SHARE)[1] == [(200_00, 20, 1)]
    assert market.place("bob", buy(100, 200_00)).status is OrderStatus.COMPLETE


def test_an_account_may_trade_with_itself():
    market = quiet_market()
    market.place("ann", sell(10, 200_00))
    assert market.place("ann", buy(10, 200_00)).status is OrderStatus.COMPLETE
    (position,) = market.positions("ann")
    assert (position.buy_quantity, position.sell_quantity) == (10, 10)


def test_derivatives_trade_beside_shares():
    market = quiet_market()
    future = {"segment": Segment.NSE_FO, "symbol": FUTURE.symbol, "product": Product.NRML}
    market.place("bob", sell(50, 201_00, **future))
    assert market.place("ann", buy(50, **future)).status is OrderStatus.COMPLETE
    assert market.depth(SHARE) == ([], [])
    assert market.last_price(OPTION) == OPTION.base_price


def test_reports_are_newest_first_and_private():
    market = quiet_market()
    first, second = market.place("ann", buy(1, 199_00)), market.place("ann", buy(1, 198_00))
    other = market.place("bob", buy(1, 197_00))
    assert market.orders("ann") == [second, first]
    assert market.order("ann", first.number) is first
    assert market.order("ann", other.number) is None
    assert market.ledger == [first, second, other]
