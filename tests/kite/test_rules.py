"""What is refused before anything is sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import InvalidOrder, Side
from neo_async.kite import Fund
from neo_async.kite.rules import (
    check_id,
    check_instalment,
    check_purchase,
    check_redemption,
    check_sip,
    is_below_redemption,
    new_tag,
    order_form,
    sip_change_form,
    sip_form,
)
from neo_async.model.isin import check_digit

ISIN = "INF174K01LS2"
FUND = Fund(
    tradingsymbol=ISIN,
    amc="KOTAKMAHINDRAMF",
    name="Kotak Fund",
    purchase_allowed=True,
    redemption_allowed=True,
    minimum_purchase_amount=5000.0,
    purchase_amount_multiplier=0.01,
    minimum_additional_purchase_amount=1000.0,
    minimum_redemption_quantity=1.0,
    redemption_quantity_multiplier=0.001,
    dividend_type="growth",
    scheme_type="equity",
    plan="direct",
    settlement_type="T3",
    last_price=20.0,
)


def fund(**changes: Any) -> Fund:
    import msgspec

    return msgspec.structs.replace(FUND, **changes)


def buy(**changes: Any) -> dict[str, str]:
    fields = {"isin": ISIN, "side": Side.BUY, "amount": 5000, "quantity": None, "tag": "a"}
    return order_form(*(fields | changes).values())


def sip(**changes: Any) -> dict[str, str]:
    fields = {
        "isin": ISIN,
        "amount": 1000,
        "frequency": "weekly",
        "instalments": -1,
        "instalment_day": None,
        "initial_amount": None,
        "tag": "a",
    }
    return sip_form(*(fields | changes).values())


def change(**changes: Any) -> dict[str, str]:
    names = ("amount", "frequency", "instalments", "instalment_day", "status")
    return sip_change_form(*(dict.fromkeys(names) | changes).values())


@pytest.mark.parametrize(
    ("isin", "rule"),
    [
        ("INF174K01LS1", "check digit is 2"),
        ("INF174K0ILS2", "check digit"),
        ("INE174K01LS2", "must be a fund's ISIN"),
        ("inf174k01ls2", "must be a fund's ISIN"),
        ("INF174K01LS", "must be a fund's ISIN"),
        ("INF174K01LS22", "must be a fund's ISIN"),
        ("INF174K01LS2\n", "must be a fund's ISIN"),
        ("", "must be a fund's ISIN"),
        (None, "must be a fund's ISIN"),
    ],
)
def test_an_isin_is_one(isin: Any, rule: str) -> None:
    with pytest.raises(InvalidOrder, match=rule) as caught:
        buy(isin=isin)
    assert (caught.value.field, caught.value.value) == ("tradingsymbol", isin)
    with pytest.raises(InvalidOrder, match=rule):
        sip(isin=isin)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "5000.001"}, "amount"),
        ({"amount": float("nan")}, "amount"),
        ({"amount": "five"}, "amount"),
        ({"amount": True}, "amount"),
        ({"quantity": 1}, "quantity"),
        ({"side": Side.SELL}, "amount"),
        ({"side": Side.SELL, "amount": None}, "quantity"),
        ({"side": Side.SELL, "amount": None, "quantity": "0.0001"}, "quantity"),
        ({"side": Side.SELL, "amount": None, "quantity": 0.1 + 0.2}, "quantity"),
        ({"side": "buy"}, "side"),
        ({"side": None}, "side"),
        ({"tag": "ninechars"}, "tag"),
        ({"tag": "a-b"}, "tag"),
        ({"tag": "ä"}, "tag"),
        ({"tag": ""}, "tag"),
    ],
)
def test_an_order_that_breaks_a_rule_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOrder) as caught:
        buy(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("given", "sent"),
    [(5000, "5000"), (5000.0, "5000"), ("5000.50", "5000.50"), (Decimal("1e3"), "1000"),
     (0.07, "0.07"), (1999.99, "1999.99"), ("1000.500", "1000.500")],
)  # fmt: skip
def test_amounts_go_out_as_exact_text(given: Any, sent: str) -> None:
    assert buy(amount=given)["amount"] == sent


def test_sides_by_kites_names_and_ours() -> None:
    assert buy(side="BUY") == buy(side=Side.BUY)
    form = buy(side="SELL", amount=None, quantity=382.488)
    assert (form["transaction_type"], form["quantity"]) == ("SELL", "382.488")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"frequency": "daily"}, "frequency"),
        ({"frequency": "monthly"}, "instalment_day"),
        ({"frequency": "monthly", "instalment_day": 30}, "instalment_day"),
        ({"frequency": "monthly", "instalment_day": "5"}, "instalment_day"),
        ({"frequency": "monthly", "instalment_day": True}, "instalment_day"),
        ({"instalment_day": 5}, "instalment_day"),
        ({"instalments": 0}, "instalments"),
        ({"instalments": -2}, "instalments"),
        ({"instalments": 1.0}, "instalments"),
        ({"amount": 0}, "amount"),
        ({"initial_amount": "0.001"}, "initial_amount"),
        ({"tag": "too long!"}, "tag"),
    ],
)
def test_a_sip_that_breaks_a_rule_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOrder) as caught:
        sip(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize("day", [1, 5, 10, 15, 20, 25])
def test_every_instalment_day_of_a_monthly_sip(day: int) -> None:
    assert sip(frequency="monthly", instalment_day=day)["instalment_day"] == str(day)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "changes"),
        ({"status": "cancelled"}, "status"),
        ({"status": "stopped"}, "status"),
        ({"frequency": "weekly", "instalment_day": 5}, "instalment_day"),
        ({"instalment_day": 2}, "instalment_day"),
        ({"amount": "x"}, "amount"),
    ],
)
def test_a_change_that_breaks_a_rule_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOrder) as caught:
        change(**changes)
    assert caught.value.field == field


def test_a_status_may_be_written_as_kite_reports_it() -> None:
    assert change(status="PAUSED") == change(status="paused") == {"status": "paused"}
    assert change(instalment_day=5) == {"instalment_day": "5"}


@pytest.mark.parametrize("number", ["", "1/2", "..", "a b", "1?x=1", None, "x" * 65, "1\n"])
def test_an_id_cannot_change_the_path(number: Any) -> None:
    with pytest.raises(InvalidOrder, match="order_id"):
        check_id("order_id", number)


def test_generated_tags_are_tags_and_different() -> None:
    tags = {new_tag() for _ in range(1000)}
    assert len(tags) == 1000
    assert all(buy(tag=tag)["tag"] == tag for tag in tags)


# --- what the list of funds knows -----------------------------------------------------------------


@pytest.mark.parametrize("amount", ["1000", "1000.01", "4999.99", "1000000"])
def test_multiples_are_reckoned_in_decimals(amount: str) -> None:
    check_purchase(FUND, amount)


@pytest.mark.parametrize(
    ("changes", "amount", "rule"),
    [
        ({}, "999.99", "at least 1000"),
        ({"minimum_purchase_amount": 500.0}, "499", "at least 500"),
        (
            {"minimum_purchase_amount": 1e7, "minimum_additional_purchase_amount": 1e7},
            "499",
            "at least 10000000 for",
        ),
        ({"purchase_amount_multiplier": 500.0}, "5200", "multiple of 500"),
        ({"purchase_amount_multiplier": 1.0}, "5000.5", "multiple of 1"),
        ({"purchase_allowed": False}, "5000", "cannot be purchased"),
        ({"dividend_type": "reinvestment"}, "5000", "does not support"),
    ],
)
def test_a_purchase_that_the_fund_does_not_take(
    changes: dict[str, Any], amount: str, rule: str
) -> None:
    with pytest.raises(InvalidOrder, match=rule):
        check_purchase(fund(**changes), amount)
    if "dividend_type" not in changes:
        with pytest.raises(InvalidOrder):
            check_sip(fund(**changes), {"amount": amount})


def test_a_sip_that_goes_on_may_change_in_a_closed_fund() -> None:
    closed = fund(purchase_allowed=False)
    check_instalment(closed, "1000")
    with pytest.raises(InvalidOrder, match="at least 1000"):
        check_instalment(closed, "999")


def test_the_initial_amount_has_the_first_purchases_minimum() -> None:
    check_sip(FUND, {"amount": "1000", "initial_amount": "5000"})
    with pytest.raises(InvalidOrder, match="initial_amount='4999'"):
        check_sip(FUND, {"amount": "1000", "initial_amount": "4999"})


def test_less_than_the_minimum_is_sold_only_as_a_whole() -> None:
    assert is_below_redemption(FUND, "0.999")
    assert not is_below_redemption(FUND, "1.000")
    check_redemption(FUND, "0.334", 0.334)
    with pytest.raises(InvalidOrder, match=r"all of the 0\.334 held"):
        check_redemption(FUND, "0.3", 0.334)
    with pytest.raises(InvalidOrder, match="at least 1 units"):
        check_redemption(FUND, "0.3", 0.0)


def test_a_redemption_that_the_fund_does_not_take() -> None:
    with pytest.raises(InvalidOrder, match=r"multiple of 0\.1"):
        check_redemption(fund(redemption_quantity_multiplier=0.1), "1.05", None)
    with pytest.raises(InvalidOrder, match="cannot be redeemed"):
        check_redemption(fund(redemption_allowed=False), "1", None)


@given(st.integers(1_000, 10**9))
def test_every_number_of_thousandths_is_a_multiple_of_one(thousandths: int) -> None:
    check_redemption(FUND, str(Decimal(thousandths) / 1000), None)


@given(st.from_regex(r"[A-Z]{2}[A-Z0-9]{9}", fullmatch=True), st.integers(0, 10))
def test_a_check_digit_tells_every_single_misspelling(body: str, place: int) -> None:
    for other in "0123456789":
        if body[place].isdigit() and other != body[place]:
            assert check_digit(body[:place] + other + body[place + 1 :]) != check_digit(body)
