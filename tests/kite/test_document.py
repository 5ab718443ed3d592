"""Every endpoint of Kite's document, answered with the document's own samples."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from neo_async import Side
from neo_async.base.india import IST
from neo_async.kite import Frequency, FundOrderStatus, KiteMutualFunds, SipStatus
from tests.fake_servers import Reply
from tests.kite.fake_kite import ACCESS_TOKEN, API_KEY, ISIN, PAYLOADS, scripted_kite

ORDER = "3bb085d1-5038-450e-a807-6543fef6c9ae"
SIP = "986124545877922"
Call = Callable[[KiteMutualFunds], Awaitable[Any]]


def test_the_samples_are_those_of_eleven_endpoints() -> None:
    assert len([path for path in PAYLOADS.iterdir() if path.suffix in (".json", ".csv")]) == 11


CHANGES: list[tuple[str, str, str, Call, dict[str, str], str]] = [
    (
        "POST",
        "/mf/orders",
        "order_placed.json",
        lambda kite: kite.place_order(ISIN, Side.BUY, amount=1000, tag="a1"),
        {"tradingsymbol": ISIN, "transaction_type": "BUY", "amount": "1000", "tag": "a1"},
        ORDER,
    ),
    (
        "POST",
        "/mf/orders",
        "order_placed.json",
        lambda kite: kite.place_order(ISIN, Side.SELL, quantity="0.500", tag="a1"),
        {"tradingsymbol": ISIN, "transaction_type": "SELL", "quantity": "0.500", "tag": "a1"},
        ORDER,
    ),
    (
        "DELETE",
        "/mf/orders/123456",
        "order_cancelled.json",
        lambda kite: kite.cancel_order("123456"),
        {},
        ORDER,
    ),
    (
        "POST",
        "/mf/sips",
        "sip_placed.json",
        lambda kite: kite.place_sip(
            ISIN, 1000, frequency="monthly", instalment_day=1, initial_amount=5000, tag="a1"
        ),
        {
            "tradingsymbol": ISIN,
            "frequency": "monthly",
            "instalment_day": "1",
            "instalments": "-1",
            "initial_amount": "5000",
            "amount": "1000",
            "tag": "a1",
        },
        SIP,
    ),
    (
        "PUT",
        "/mf/sips/1234",
        "sip_modified.json",
        lambda kite: kite.modify_sip(
            "1234",
            frequency=Frequency.MONTHLY,
            instalments=10,
            amount=1000,
            status=SipStatus.PAUSED,
            instalment_day=1,
        ),
        {
            "frequency": "monthly",
            "instalments": "10",
            "amount": "1000",
            "status": "paused",
            "instalment_day": "1",
        },
        SIP,
    ),
    (
        "DELETE",
        "/mf/sips/123456",
        "sip_cancelled.json",
        lambda kite: kite.cancel_sip("123456"),
        {},
        SIP,
    ),
]


@pytest.mark.parametrize(("method", "path", "sample", "call", "form", "number"), CHANGES)
async def test_changes_go_out_as_documented_and_give_the_id(
    method: str,
    path: str,
    sample: str,
    call: Call,
    form: dict[str, str],
    number: str,
    tmp_path: Path,
) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample(method, path, sample)
        assert await call(kite) == number
        (asked,) = fake_kite.asked
        assert (asked.method, asked.path, asked.form) == (method, path, form)
        assert asked.headers["x-kite-version"] == "3"
        assert asked.headers["authorization"] == f"token {API_KEY}:{ACCESS_TOKEN}"
        if form:
            assert asked.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_the_list_of_orders(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/orders", "orders.json")
        orders = await kite.orders()
    assert [order.status for order in orders] == [
        "REJECTED", "REJECTED", "OPEN", "REJECTED", "OPEN"
    ]  # fmt: skip
    first, second, third, *_ = orders
    assert first.order_id == "271989e0-a64e-4cf3-b4e4-afb8f38dd203"
    assert first.tradingsymbol == "INF179K01VY8"
    assert first.fund == "HDFC Balanced Advantage Fund - Direct Plan"
    assert first.status is not None
    assert FundOrderStatus(first.status) is FundOrderStatus.REJECTED
    assert first.status_message == "AMC SIP: Insufficient balance."
    assert first.order_timestamp == datetime(2021, 6, 30, 8, 33, 7, tzinfo=IST)
    assert first.exchange_timestamp == date(2021, 6, 30)
    assert (first.exchange_order_id, first.settlement_id) == ("254657127", "2122061")
    assert (first.amount, first.quantity, first.average_price) == (1000.0, 0.0, 0.0)
    assert (first.last_price, first.last_price_date) == (30.68, date(2021, 6, 29))
    assert (first.variety, first.purchase_type, first.placed_by) == ("amc_sip", "FRESH", "ZV8062")
    assert (first.folio, first.tag, first.price) == (None, None, None)
    assert (second.tag, second.exchange_timestamp) == ("coinandroidsip", None)
    assert (second.exchange_order_id, second.settlement_id) == (None, None)
    assert [order.is_final for order in orders] == [True, True, False, True, False]
    assert third.status_message == "Insufficient fund. 1/5"


async def test_one_order(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/orders/123123", "order.json")
        order = await kite.order("123123")
    assert order.order_id == "2b6ad4b7-c84e-4c76-b459-f3a8994184f1"
    assert (order.status, order.is_final, order.transaction_type) == ("OPEN", False, "BUY")
    assert order.order_timestamp == datetime(2021, 6, 29, 12, 20, 28, tzinfo=IST)
    assert (order.amount, order.quantity) == (5000.0, 0.0)


async def test_the_list_of_sips_which_has_no_status(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/sips", "sips.json")
        sips = await kite.sips()
    assert [sip.sip_type for sip in sips] == ["sip", "sip", "amc_sip", "amc_sip", "sip"]
    first, _, third, fourth, last = sips
    assert (first.sip_id, first.status) == ("892741486820670", SipStatus.ACTIVE)
    assert (first.tradingsymbol, first.dividend_type) == ("INF209K01VD7", "idcw")
    assert first.created == first.last_instalment == datetime(2021, 5, 5, 5, 56, 27, tzinfo=IST)
    assert first.next_instalment == date(2021, 5, 12)
    assert (first.instalment_amount, first.frequency) == (500.0, Frequency.WEEKLY)
    assert (first.instalments, first.pending_instalments, first.completed_instalments) == (
        -1,
        -1,
        0,
    )
    assert (first.step_up, first.tag, first.sip_reg_num) == ({"05-05": 10}, "coiniossip", None)
    assert first.transaction_type == "BUY"
    assert (third.instalments, third.pending_instalments) == (9999, 9998)
    assert (third.sip_reg_num, third.instalment_day, third.step_up) == ("15158182", 10, {})
    assert fourth.instalment_day == 30
    assert (last.frequency, last.next_instalment) == ("quarterly", date(2021, 2, 19))
    assert last.fund_source is None


async def test_one_sip(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/sips/1234", "sip.json")
        sip = await kite.sip("1234")
    assert (sip.sip_id, sip.fund_source) == ("181635213661372", "pool")
    assert sip.created == datetime(2022, 2, 15, 13, 39, 44, tzinfo=IST)
    assert (sip.instalment_amount, sip.step_up) == (5000.0, {"15-02": 10})


async def test_holdings_with_the_gain_that_kite_leaves_at_0(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/holdings", "holdings.json")
        first, second, third = await kite.holdings()
    assert (first.folio, first.tradingsymbol) == ("3108290884", "INF205K01NT8")
    assert first.fund == "INVESCO INDIA TAX PLAN - DIRECT PLAN"
    assert (first.quantity, first.average_price, first.last_price) == (382.488, 78.43, 84.86)
    assert (first.last_price_date, first.pledged_quantity) == (None, 0.0)
    assert [first.pnl, second.pnl, third.pnl] == [2459.4, 276.67, -4002.38]


@pytest.mark.parametrize("form", ["as it is", "Content-Encoding", "a .gz file"])
async def test_instruments_gzipped_by_encoding_or_by_content(form: str, tmp_path: Path) -> None:
    plain = (PAYLOADS / "instruments.csv").read_bytes()
    body = plain if form == "as it is" else gzip.compress(plain)
    headers = {"Content-Encoding": "gzip"} if form == "Content-Encoding" else {}
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.script("GET", "/mf/instruments", Reply(body, 200, "text/csv", headers))
        funds = await kite.instruments()
        assert fake_kite.asked[0].headers["authorization"] == f"token {API_KEY}:{ACCESS_TOKEN}"
    assert [fund.tradingsymbol for fund in funds] == [
        "INF846K01DP8", "INF846K01EW2", "INF174K01LS2", "INF174K01336"
    ]  # fmt: skip
    fund = funds["INF846K01EW2"]
    assert (fund.amc, fund.name) == (
        "AXISMUTUALFUND_MF",
        "Axis Long Term Equity Fund - Direct Growth",
    )
    assert (fund.purchase_allowed, fund.redemption_allowed) == (True, True)
    assert (fund.minimum_purchase_amount, fund.purchase_amount_multiplier) == (500.0, 500.0)
    assert fund.minimum_additional_purchase_amount == 500.0
    assert (fund.minimum_redemption_quantity, fund.redemption_quantity_multiplier) == (1.0, 0.001)
    assert (fund.dividend_type, fund.scheme_type, fund.plan) == ("growth", "elss", "direct")
    assert (fund.settlement_type, fund.last_price) == ("T3", 33.0425)
    assert fund.last_price_date == date(2016, 11, 11)


@pytest.mark.parametrize(
    ("sample", "structs"),
    [("orders.json", "FundOrder"), ("order.json", "FundOrder"), ("sips.json", "Sip"),
     ("sip.json", "Sip"), ("holdings.json", "FundHolding")],
)  # fmt: skip
def test_there_is_a_field_for_every_key_of_the_samples(sample: str, structs: str) -> None:
    import neo_async.kite

    fields = set(getattr(neo_async.kite, structs).__struct_fields__)
    data = json.loads((PAYLOADS / sample).read_bytes())["data"]
    for row in data if isinstance(data, list) else [data]:
        assert set(row) <= fields
