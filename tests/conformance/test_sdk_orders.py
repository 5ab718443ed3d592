"""The official SDK places, changes, fills and cancels orders, and our client reads the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from neo_async import NeoClient, OrderStatus, OrderType, Product, Segment, Side
from neo_async.exchange import Exchange

Sdk = Any
Row = dict[str, Any]

# ITBEES closed at 39.40; its tick is a paisa.
TYPES = {
    # Order type: price, trigger, then the state and shown type of a DAY order and of an IOC one.
    "L": ("39.00", "0", ("open", "L"), ("cancelled", "L")),
    "MKT": ("0", "0", ("complete", "L"), ("complete", "L")),
    "SL": ("40.20", "40.10", ("trigger pending", "SL"), ("trigger pending", "SL")),
    "SL-M": ("0", "40.10", ("trigger pending", "SL-M"), ("trigger pending", "SL-M")),
}
ORDER = {
    "exchange_segment": "nse_cm",
    "product": "CNC",
    "price": "39.00",
    "order_type": "L",
    "quantity": "10",
    "validity": "DAY",
    "trading_symbol": "ITBEES-EQ",
    "transaction_type": "B",
}
_tags = (f"sdk{number}" for number in itertools.count())


def place(sdk: Sdk, **changes: str) -> str:
    """Place ORDER, or what is changed of it; the order number."""
    answer = sdk.place_order(**ORDER | changes)
    assert answer == {"nOrdNo": answer.get("nOrdNo"), "stat": "Ok", "stCode": 200}, answer
    number: str = answer["nOrdNo"]
    assert len(number) == 15
    assert number.startswith("261123")
    return number


def row_of(sdk: Sdk, number: str) -> Row:
    report = sdk.order_report(order_id=number)
    assert (report["stat"], report["stCode"]) == ("Ok", 200)
    (row,) = report["data"]
    assert row["nOrdNo"] == number
    row_: Row = row
    return row_


@pytest.mark.parametrize("order_type", TYPES)
@pytest.mark.parametrize("validity", ["DAY", "IOC"])
@pytest.mark.parametrize("product", ["CNC", "MIS", "NRML", "MTF"])
def test_every_type_validity_and_product_is_taken(
    sdk: Sdk,
    print_price: Callable[[str, str, float], None],
    order_type: str,
    validity: str,
    product: str,
) -> None:
    price, trigger, day, ioc = TYPES[order_type]
    tag = next(_tags)
    print_price("nse_cm", "19084", 39.4)
    number = place(
        sdk,
        order_type=order_type,
        validity=validity,
        product=product,
        price=price,
        trigger_price=trigger,
        tag=tag,
    )
    row = row_of(sdk, number)
    assert (row["ordSt"], row["prcTp"]) == (day if validity == "DAY" else ioc)
    assert row["stat"] == row["ordSt"]
    assert (row["vldt"], row["prod"], row["trnsTp"], row["qty"]) == (validity, product, "B", 10)
    assert (row["exSeg"], row["trdSym"], row["tok"]) == ("nse_cm", "ITBEES-EQ", "19084")
    assert row["GuiOrdId"].partition("-")[0] == tag
    assert float(row["trgPrc"]) == float(trigger)
    assert row["qty"] == row["fldQty"] + row["unFldSz"] + row["cnlQty"]
    if order_type == "MKT":
        # Limited to 2 % above the last price, filled at the best offer.
        assert (row["prc"], row["mktPro"], row["fldQty"]) == ("40.18", "2", 10)
        assert row["avgPrc"] == "39.41"
    if row["ordSt"] == "cancelled":
        assert (row["cnlQty"], row["fldQty"]) == (10, 0)


@pytest.mark.parametrize(
    ("segment", "symbol", "quantity", "price"),
    [
        ("bse_cm", "TCS", "3", "2100.05"),
        ("nse_fo", "TCS26DECFUT", "225", "2100.10"),
        ("nse_fo", "NIFTY26DEC24500CE", "130", "150.05"),
        ("bse_fo", "SENSEX26DECFUT", "20", "79000.05"),
        ("mcx_fo", "CRUDEOIL26DECFUT", "100", "5600"),
    ],
)
def test_every_segment_is_taken(
    sdk: Sdk, segment: str, symbol: str, quantity: str, price: str
) -> None:
    number = place(
        sdk,
        exchange_segment=segment,
        trading_symbol=symbol,
        quantity=quantity,
        price=price,
        product="NRML",
    )
    row = row_of(sdk, number)
    assert (row["exSeg"], row["trdSym"], row["qty"]) == (segment, symbol, int(quantity))
    assert (row["ordSt"], float(row["prc"])) == ("open", float(price))
    assert sdk.cancel_order(number)["stat"] == "Ok"


def test_the_spelled_out_side_is_taken(sdk: Sdk) -> None:
    number = place(sdk, transaction_type="Sell", price="44.00")
    assert row_of(sdk, number)["trnsTp"] == "S"


def test_an_after_market_order_is_queued_changed_and_cancelled(sdk: Sdk) -> None:
    number = place(sdk, amo="YES")
    row = row_of(sdk, number)
    assert (row["ordSt"], row["ordGenTp"]) == ("after market order req received", "AMO")
    assert sdk.modify_order(number, "39.10", "L", "20", "DAY", amo="YES")["nOrdNo"] == number
    row = row_of(sdk, number)
    assert (row["ordSt"], row["prc"], row["qty"]) == (
        "modify after market order req received",
        "39.10",
        20,
    )
    assert sdk.cancel_order(number, amo="YES")["nOrdNo"] == number
    assert row_of(sdk, number)["ordSt"] == "cancelled after market order"


def test_a_change_shows_in_book_and_history(sdk: Sdk) -> None:
    number = place(sdk, tag="changing", disclosed_quantity="5")
    assert row_of(sdk, number)["dscQty"] == 5

    answer = sdk.modify_order(
        number, price="39.20", order_type="L", quantity="30", validity="DAY", disclosed_quantity="0"
    )
    assert answer == {"nOrdNo": number, "stat": "Ok", "stCode": 200}

    row = row_of(sdk, number)
    assert (row["ordSt"], row["prc"], row["qty"], row["dscQty"]) == ("open", "39.20", 30, 0)
    assert row["reqId"] == "2"
    assert row["GuiOrdId"].endswith("-ADMINAPI")  # overwritten, as the broker does
    history = sdk.order_history(number)["data"]
    assert (history["stat"], history["stCode"]) == ("Ok", 200)
    assert [state["ordSt"] for state in history["data"]] == [
        "open",
        "modified",
        "modify pending",
        "modify validation pending",
        "open",
        "open pending",
        "validation pending",
        "put order req received",
    ]
    first, last = history["data"][-1], history["data"][0]
    assert (first["prc"], first["qty"], first["GuiOrdId"]) == ("39.00", 10, "changing")
    assert (last["prc"], last["qty"], last["nReqId"]) == ("39.20", 30, "2")
    times = [state["updRecvTm"] for state in history["data"]]
    assert times == sorted(times, reverse=True)


def test_a_limit_can_become_a_stop(
    sdk: Sdk, print_price: Callable[[str, str, float], None]
) -> None:
    number = place(sdk, trading_symbol="SBIN-EQ", price="960.00", product="MIS")
    sdk.modify_order(number, "980.00", "SL", "10", "DAY", trigger_price="978.00")
    row = row_of(sdk, number)
    assert (row["ordSt"], row["prcTp"], row["trgPrc"]) == ("trigger pending", "SL", "978.00")

    print_price("nse_cm", "3045", 979.0)
    row = row_of(sdk, number)
    assert (row["ordSt"], row["fldQty"]) == ("complete", 10)
    assert 979.0 < float(row["avgPrc"]) <= 980.0


def test_a_cancelled_order_is_final(sdk: Sdk) -> None:
    number = place(sdk, tag="leaving")
    assert sdk.cancel_order(number) == {"nOrdNo": number, "stat": "Ok", "stCode": 200}
    row = row_of(sdk, number)
    assert (row["ordSt"], row["cnlQty"], row["unFldSz"]) == ("cancelled", 10, 0)
    assert row["GuiOrdId"] == "leaving-1795415400"

    final = {
        "stCode": 1021,
        "errMsg": "order is completed",
        "stat": "please provide valid order number",
        "status_code": 400,  # written by the SDK itself, when it knows the code
    }
    assert sdk.cancel_order(number) == final
    assert sdk.modify_order(number, "39.10", "L", "10", "DAY") == final
    assert sdk.cancel_order("261123999999999") == final


def test_a_price_that_comes_fills_the_order_and_the_trade_book_tells(
    sdk: Sdk, print_price: Callable[[str, str, float], None]
) -> None:
    number = place(sdk, trading_symbol="WIPRO-EQ", price="242.50", quantity="40", tag="resting")
    assert row_of(sdk, number)["ordSt"] == "open"
    print_price("nse_cm", "3787", 242.0)

    row = row_of(sdk, number)
    assert (row["ordSt"], row["fldQty"], row["avgPrc"]) == ("complete", 40, "242.50")
    report = sdk.trade_report()
    assert (report["stat"], report["stCode"]) == ("ok", 200)
    (trade,) = [trade for trade in report["data"] if trade["nOrdNo"] == number]
    assert (trade["fldQty"], trade["avgPrc"], trade["flLeg"]) == (40, "242.50", 1)
    assert (trade["trdSym"], trade["trnsTp"], trade["prod"]) == ("WIPRO-EQ", "B", "CNC")
    assert (trade["flDt"], trade["flTm"]) == ("23-Nov-2026", "12:00:00")
    assert trade["GuiOrdId"] == "resting"
    assert trade["exOrdId"] == row["exOrdId"] != "NA"
    assert trade["tok"] == ""  # the broker's own rows lack it


def test_orders_of_the_sdk_trade_with_ours(
    sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]
) -> None:
    # Between the makers' quotes of 1412.45 and 1412.55, so that nobody else is in the way.
    number = place(sdk, trading_symbol="RELIANCE-EQ", price="1412.50", quantity="7", product="MIS")
    sale = ours(
        neo.orders.place(
            Segment.NSE_CM, "RELIANCE-EQ", Side.SELL, 5, price="1412.50", product=Product.CNC
        )
    )
    row = row_of(sdk, number)
    assert (row["ordSt"], row["fldQty"], row["unFldSz"]) == ("open", 5, 2)
    assert row["avgPrc"] == "1412.50"
    assert ours(sale.wait(timeout=5)) is OrderStatus.COMPLETE
    assert sale.average_price == 1412.5


def test_what_is_refused_is_refused_in_the_brokers_words(sdk: Sdk) -> None:
    def refusal(**changes: str) -> tuple[int, str]:
        answer = sdk.place_order(**ORDER | changes)
        assert answer["stat"] != "Ok"
        return answer["stCode"], answer["errMsg"]

    place(sdk, tag="once")
    assert refusal(tag="once") == (32, "error from core")
    assert refusal(trading_symbol="NOSUCH-EQ")[0] == 1007
    assert refusal(disclosed_quantity="11")[0] == 1009
    assert refusal(price="39.005") == (5202, "Error: Invalid Request")  # a part of a paisa
    assert refusal(price="0.0", order_type="MKT") == (5202, "Error: Invalid Request")
    assert refusal(
        exchange_segment="nse_fo", trading_symbol="TCS26DECFUT", product="NRML", quantity="10"
    ) == (1009, "please provide valid lotwise quantity")
    assert refusal(
        exchange_segment="nse_fo", trading_symbol="TCS26DECFUT", quantity="225", price="2100"
    ) == (1011, "please provide valid product")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"price": "50.00"}, "circuit limit"),
        ({"quantity": "4000000"}, "freeze quantity"),
        ({"transaction_type": "S", "price": "43.00", "quantity": "4000"}, "Check holdings"),
        ({"trading_symbol": "MARUTI-EQ", "price": "15920", "quantity": "500"}, "Margin Exceeds"),
    ],
)
def test_what_risk_management_finds_shows_as_rejected(
    sdk: Sdk, changes: dict[str, str], words: str
) -> None:
    row = row_of(sdk, place(sdk, **changes))
    assert row["ordSt"] == "rejected"
    assert words in row["rejRsn"]
    assert (row["fldQty"], row["exOrdId"]) == (0, "NA")


def test_an_empty_answer_for_an_unknown_order(sdk: Sdk) -> None:
    report = sdk.order_report(order_id="261123999999999")
    assert (report["stCode"], report["errMsg"]) == (5203, "No Data")
    assert sdk.order_history("261123999999999")["data"]["stCode"] == 5203


def test_both_clients_read_the_same_book(
    sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]
) -> None:
    placed = [
        place(sdk, tag=next(_tags), **changes)
        for changes in (
            {},
            {"validity": "IOC"},
            {"order_type": "SL", "price": "40.10", "trigger_price": "40.00"},
            {"order_type": "MKT", "price": "0"},
            {"transaction_type": "S", "quantity": "30000"},  # more than is held
        )
    ]
    sdk.cancel_order(placed[0])
    theirs = sdk.order_report()["data"]
    rows = ours(neo.orders.book())
    assert {*placed} <= {row.number for row in rows}
    assert [row.number for row in rows] == [row["nOrdNo"] for row in theirs]
    for row, raw in zip(rows, theirs, strict=True):
        assert row.status.value == raw["ordSt"]
        assert (row.segment, row.symbol, row.token) == (raw["exSeg"], raw["trdSym"], raw["tok"])
        assert (row.side, row.product, row.validity) == (raw["trnsTp"], raw["prod"], raw["vldt"])
        assert (row.quantity, row.filled_quantity) == (raw["qty"], raw["fldQty"])
        assert (row.pending_quantity, row.cancelled_quantity) == (raw["unFldSz"], raw["cnlQty"])
        assert (row.price, row.average_price) == (float(raw["prc"]), float(raw["avgPrc"]))
        assert (row.trigger, row.order_type) == (float(raw["trgPrc"]), raw["prcTp"])
        assert (row.gui_order_id, row.updated_ns) == (raw["GuiOrdId"], raw["updRecvTm"])
        assert row.reject_reason == ("" if raw["rejRsn"] == "--" else raw["rejRsn"].strip())


def test_both_clients_read_the_same_history_and_trades(
    sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]
) -> None:
    place(sdk, tag=next(_tags), order_type="MKT", price="0")
    trades = ours(neo.orders.trades())
    theirs = sdk.trade_report()["data"]
    assert trades
    assert [
        (trade.order_number, trade.trade_number, trade.quantity, trade.price, trade.gui_order_id)
        for trade in trades
    ] == [
        (raw["nOrdNo"], raw["flId"], raw["fldQty"], float(raw["avgPrc"]), raw["GuiOrdId"])
        for raw in theirs
    ]
    number = trades[0].order_number
    history = ours(neo.orders.history(number))
    assert [(state.status_text, state.filled_quantity, state.price) for state in history] == [
        (raw["ordSt"], raw["fldQty"], float(raw["prc"]))
        for raw in sdk.order_history(number)["data"]["data"]
    ]


def test_each_changes_and_cancels_what_the_other_placed(
    sdk: Sdk, neo: NeoClient, ours: Callable[..., Any], exchange: Exchange
) -> None:
    number = place(sdk)
    order = ours(neo.orders.modify(number, price="39.15"))
    assert (order.number, order.order_type) == (number, OrderType.LIMIT)
    assert row_of(sdk, number)["prc"] == "39.15"
    assert row_of(sdk, number)["qty"] == 10
    ours(neo.orders.cancel(number))
    assert row_of(sdk, number)["ordSt"] == "cancelled"

    order = ours(
        neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.05", product=Product.CNC, tag="our"
        )
    )
    assert row_of(sdk, order.number)["GuiOrdId"] == order.client_tag
    assert sdk.modify_order(order.number, "39.06", "L", "12", "DAY")["stat"] == "Ok"
    assert sdk.cancel_order(order.number)["stat"] == "Ok"
    assert ours(order.wait(timeout=5)) is OrderStatus.CANCELLED
    assert (order.quantity, order.price, order.tag) == (12, Decimal("39.06"), "our")
