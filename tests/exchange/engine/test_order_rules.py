"""What gets no order number, and what gets one and is rejected afterwards."""

from __future__ import annotations

from datetime import date

import pytest

from neo_async.errors import UsageError
from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Refusal, Rules
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment
from tests.exchange.engine.trading import (
    FUTURE,
    IOC,
    LISTINGS,
    SECOND,
    SHARE,
    START,
    UNTRADED_OPTION,
    buy,
    change,
    quiet_market,
    sell,
)

LISTED = default_listings(date(2026, 11, 23))
FUT = {"segment": Segment.NSE_FO, "symbol": FUTURE.symbol, "product": Product.NRML}
SL = {"order_type": OrderType.SL}


@pytest.mark.parametrize(
    ("order", "code", "text"),
    [
        (buy(1, 200_00, symbol="NOPE-EQ"), 1007, "NOPE-EQ"),
        (buy(1, 200_00, segment=Segment.BSE_CM), 1007, "bse_cm"),
        (buy(0, 200_00), 1009, "quantity"),
        (buy(-5, 200_00), 1009, "quantity"),
        (buy(75, 201_00, **FUT), 1009, "lotwise"),
        (buy(5, 200_00, disclosed_quantity=6), 1009, "disclosed"),
        (buy(5, 200_00, disclosed_quantity=-1), 1009, "disclosed"),
        (buy(50, 201_00, **{**FUT, "product": Product.CNC}), 1011, "product"),
        (buy(50, 201_00, **{**FUT, "product": Product.MTF}), 1011, "product"),
        (buy(5, order_type=OrderType.LIMIT), 5202, "Invalid Request"),
        (buy(5, -1), 5202, "Invalid Request"),
        (buy(5, 200_00, **SL), 5202, "Invalid Request"),
        (buy(5, 200_00, trigger=-1), 5202, "Invalid Request"),
        (buy(5, trigger=200_00, **SL), 5202, "Invalid Request"),
        (buy(5, order_type=OrderType.SL_M), 5202, "Invalid Request"),
        (buy(5, 200_00, product=Product.CO), 5202, "Invalid Request"),
        (buy(5, 200_00, product=Product.CO, trigger=190_00, validity=IOC), 5202, "Invalid"),
        (buy(5, 200_00, product=Product.CO, trigger=190_00, **SL), 5202, "Invalid Request"),
    ],
)
def test_malformed_orders_are_refused_and_leave_no_trace(order, code, text):
    market = quiet_market()
    with pytest.raises(Refusal) as refused:
        market.place("ann", order)
    assert refused.value.code == code
    assert refused.value.http_status == 400
    assert text in refused.value.text
    assert market.ledger == []
    assert market.take_events() == []


def test_commodities_know_no_ioc():
    market = MatchingEngine(LISTED, seed=1, now_ns=START)
    market.open_account("ann", cash=0)
    crude = {"segment": Segment.MCX_FO, "symbol": "CRUDEOIL26DECFUT", "product": Product.NRML}
    with pytest.raises(Refusal) as refused:
        market.place("ann", buy(100, 5_600_00, validity=IOC, **crude))
    assert refused.value.code == 5202


def test_a_repeated_tag_is_refused_and_counted_for_the_day_and_account():
    market = quiet_market()
    record = market.place("ann", buy(1, 199_00, tag="a1"))
    for arrivals in (2, 3):
        with pytest.raises(Refusal) as refused:
            market.place("ann", buy(1, 199_00, tag="a1"))
        assert (refused.value.code, refused.value.http_status) == (32, 200)
        assert refused.value.text == "error from core"
        assert record.arrivals == arrivals
    assert market.ledger == [record]

    market.place("bob", buy(1, 199_00, tag="a1"))
    market.advance(START + 86_400 * SECOND)
    market.place("ann", buy(1, 199_00, tag="a1"))

    assert [r.arrivals for r in market.ledger] == [3, 1, 1]


def test_a_refused_order_does_not_use_up_its_tag():
    market = quiet_market()
    with pytest.raises(Refusal):
        market.place("ann", buy(0, 199_00, tag="a1"))
    assert market.place("ann", buy(1, 199_00, tag="a1")).client_tag == "a1"


def test_a_cancelled_order_keeps_its_tag():
    market = quiet_market()
    record = market.place("ann", buy(1, 199_00, tag="a1"))
    market.cancel("ann", record.number)
    with pytest.raises(Refusal):
        market.place("ann", buy(1, 199_00, tag="a1"))


@pytest.mark.parametrize("end", ["complete", "cancelled", "rejected", "unknown", "another's"])
def test_what_is_final_or_unknown_cannot_be_changed(end):
    market = quiet_market()
    record = market.place("ann", buy(1, 230_00 if end == "rejected" else 200_00))
    caller = "bob" if end == "another's" else "ann"
    if end == "complete":
        market.place("bob", sell(1, 200_00))
    if end == "cancelled":
        market.cancel("ann", record.number)
    number = "261123999999999" if end == "unknown" else record.number

    for attempt in (
        lambda: market.cancel(caller, number),
        lambda: market.modify(caller, number, change(record, price=199_00)),
    ):
        with pytest.raises(Refusal) as refused:
            attempt()
        assert (refused.value.code, refused.value.http_status) == (1021, 200)
        assert refused.value.text == "order is completed"
        assert refused.value.stat == "please provide valid order number"


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"quantity": 4}, 1009),
        ({"quantity": 0}, 1009),
        ({"price": 0}, 5202),
        ({"order_type": OrderType.SL}, 5202),
        ({"disclosed_quantity": 11}, 1009),
    ],
)
def test_malformed_changes_are_refused_and_change_nothing(terms, code):
    market = quiet_market()
    market.place("bob", sell(4, 200_00))
    record = market.place("ann", buy(10, 200_00))
    rows = len(record.history)
    with pytest.raises(Refusal) as refused:
        market.modify("ann", record.number, change(record, **terms))
    assert refused.value.code == code
    assert len(record.history) == rows


RICH, POOR = 10_000_000_00, 1_000_00
CNC = {"product": Product.CNC}


@pytest.mark.parametrize(
    ("cash", "order", "reason"),
    [
        (RICH, buy(1, 200_01), "RMS:Rule: Check price is a multiple of tick 0.05"),
        (RICH, buy(1, 200_05, trigger=200_01, **SL), "multiple of tick"),
        (RICH, buy(1, 220_05), "RMS:Rule: Check circuit limit including square off order exceeds"),
        (RICH, sell(1, 179_95), "Check circuit limit"),
        (RICH, buy(1, trigger=225_00, order_type=OrderType.SL_M), "Check circuit limit"),
        (RICH, buy(1, 200_00, trigger=200_05, **SL), "Check trigger price"),
        (RICH, sell(1, 200_05, trigger=200_00, **SL), "Check trigger price"),
        (RICH, buy(1, 200_00, product=Product.CO, trigger=200_00), "Check trigger price"),
        (RICH, sell(1, 200_00, product=Product.CO, trigger=199_95), "Check trigger price"),
        (RICH, buy(5_001, 200_00), "Check freeze quantity 5000"),
        (RICH, sell(1, 200_00, **CNC), "Check holdings, 1 to sell and 0 free"),
        (RICH, sell(1, 200_00, product=Product.MTF), "Check holdings"),
        (
            POOR,
            buy(10, 200_00, **CNC),
            "RMS:Margin Exceeds,Cash Available:1000.00,Additional margin required:1000.00 "
            "for entity account-ann across exchange across segment across product ",
        ),
        (POOR, sell(26, 200_00), "Margin Exceeds"),
        (
            RICH,
            buy(50, segment=Segment.NSE_FO, symbol=UNTRADED_OPTION.symbol, product=Product.NRML),
            "Check last traded price",
        ),
    ],
)
def test_what_risk_management_rejects_has_a_number_and_a_reason(cash, order, reason):
    market = quiet_market(cash=cash)

    record = market.place("ann", order)

    assert [t.status for t in record.history] == [
        OrderStatus.PUT_RECEIVED,
        OrderStatus.VALIDATION_PENDING,
        OrderStatus.REJECTED,
    ]
    assert reason in record.reject_reason
    assert record.reject_reason.endswith("across product ")
    assert record.history[-1].reject_reason == record.reject_reason
    assert market.ledger == [record]
    assert market.funds("ann").margin_used == 0
    assert market.depth(SHARE) == ([], [])


@pytest.mark.parametrize("price", [180_00, 220_00])
def test_circuit_limits_are_allowed_prices(price):
    assert quiet_market().place("ann", buy(5_000, price)).status is OrderStatus.OPEN


def test_an_outside_price_needs_a_known_instrument_and_a_price():
    market = quiet_market()
    market.journal = []
    with pytest.raises(UsageError, match=r"nse_cm\|999: must be one that is listed here"):
        market.print_price(Segment.NSE_CM, "999", 100)
    with pytest.raises(UsageError, match=r"nse_cm\|1 at price=0: must be above 0"):
        market.print_price(SHARE.segment, SHARE.token, 0)
    assert market.journal == market.take_events() == []


def test_an_account_opens_once():
    market = quiet_market()
    with pytest.raises(ValueError, match="ann"):
        market.open_account("ann", cash=1)


# --- habits of the broker -------------------------------------------------------------------------


def market_under(rules: Rules) -> MatchingEngine:
    market = MatchingEngine(LISTINGS, seed=1, now_ns=START, market_makers=False, rules=rules)
    for name in ("ann", "bob"):
        market.open_account(name, cash=RICH)
    return market


def test_a_plain_market_order_trades_at_any_price_and_never_rests():
    market = market_under(Rules(protected_market_orders=False))
    market.place("bob", sell(4, 200_00))
    market.place("bob", sell(4, 215_00))
    assert market.order_margin("ann", buy(10)) == 10 * 220_00 // 5
    record = market.place("ann", buy(10))
    assert [fill.price for fill in record.fills] == [200_00, 215_00]
    assert (record.status, record.cancelled_quantity) == (OrderStatus.CANCELLED, 2)
    assert record.protection_percent == 0


def test_a_stop_loss_market_order_is_rejected_in_the_brokers_words_by_default():
    market = market_under(Rules())
    record = market.place("ann", buy(1, trigger=205_00, order_type=OrderType.SL_M))
    assert record.status is OrderStatus.REJECTED
    assert record.reject_reason == "Market order with Algo Id not allowed"
    assert market.place("ann", buy(1, 206_00, trigger=205_00, **SL)).status.is_working
