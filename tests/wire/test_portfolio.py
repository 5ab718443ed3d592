from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date

import pytest

from neo_async.errors import ProtocolError, Rejected, SessionEnded
from neo_async.model.answer import Answer
from neo_async.model.portfolio import Holding, OrderMargin, PositionRow
from neo_async.wire.portfolio import read_holdings, read_limits, read_margin, read_positions

Documented = Callable[[str], Answer]


def changed(answer: Answer, **fields: object) -> Answer:
    """The answer with these fields of its rows, or of itself, replaced; `...` removes one."""
    content = json.loads(answer.body)
    data = content.get("data", content)
    for row in data if isinstance(data, list) else [data]:
        for name, value in fields.items():
            if value is ...:
                row.pop(name, None)
            else:
                row[name] = value
    return Answer(answer.status, answer.headers, json.dumps(content).encode())


# --- positions --------------------------------------------------------------------------------


def test_the_documented_v2_position(documented: Documented) -> None:
    (row,) = read_positions(documented("positions_v2"))
    assert row == PositionRow(
        account="ABCXYZ61",
        board_lot=225,
        segment="nse_fo",
        buy_value=475200.0,
        buy_quantity=225,
        product="NRML",
        series="XX",
        token="61304",
        symbol="TCS26JULFUT",
        option_type="XX",
        kind="FUTSTK",
        name="TCS",
        square_off_flag="Y",
        open_flag="true",
        lot_size=225,
        time_text="2026/07/24 12:57:46",
        expiry_text="28 Jul, 2026",
        expiry_seconds="1785196800",
        updated_ns=1784878066658915084,
        last_price=2117.0,
    )
    assert row.expiry == date(2026, 7, 28)
    assert row.is_derivative


def test_the_documented_rows_of_the_older_path(documented: Documented) -> None:
    axis, itc = read_positions(documented("positions_quick"))
    assert axis == PositionRow(
        account="******",
        product="CNC",
        segment="nse_cm",
        symbol="AXISBANK-EQ",
        name="AXISBANK",
        quantity=9,
        buy_value=5862.9,
        buy_quantity=9,
        open_flag="true",
        square_off_flag="Y",
        time_text="2022/06/21 15:11:02",
    )
    assert (itc.symbol, itc.quantity, itc.buy_value) == ("ITC-EQ", 15, 4021.5)
    assert axis.last_price is None
    assert axis.expiry is None


@pytest.mark.parametrize("price", ["", "--", "NA", None, "n.a.", "2,117.00", ..., True])
def test_a_last_price_that_cannot_be_read_is_none(documented: Documented, price: object) -> None:
    (row,) = read_positions(changed(documented("positions_v2"), ltp=price))
    assert row.last_price is None
    assert row.buy_value == 475200.0


@pytest.mark.parametrize("blank", ["", "--", None, ...])
def test_blank_factors_and_carried_quantities_are_neutral(
    documented: Documented, blank: object
) -> None:
    names = ("multiplier", "genNum", "genDen", "prcNum", "prcDen", "precision", "cfBuyQty")
    (row,) = read_positions(changed(documented("positions_v2"), **dict.fromkeys(names, blank)))
    assert (row.factor, row.precision, row.carried_quantity) == (1.0, 2, 0)


def test_a_board_lot_may_be_text(documented: Documented) -> None:
    (row,) = read_positions(changed(documented("positions_v2"), brdLtQty="225"))
    assert row.board_lot == 225


@pytest.mark.parametrize("text", ["NA", "--", "0x10", "9" * 30])
def test_what_does_not_expire_has_no_expiry(documented: Documented, text: str) -> None:
    (row,) = read_positions(changed(documented("positions_v2"), exp=text))
    assert row.expiry is None


def test_an_amount_that_cannot_be_read_is_unknown_and_named(documented: Documented) -> None:
    (row,) = read_positions(changed(documented("positions_v2"), buyAmt="4752OO"))
    assert (row.missing, row.odd) == ({"buy_value"}, ("buyAmt='4752OO' is not a number",))
    assert row.buy_quantity == 225


@pytest.mark.parametrize(
    ("nothing", "missing"), [(None, {"buy_value"}), ("", set()), ("--", set())]
)
def test_null_for_a_traded_amount_is_unknown_and_a_dash_is_nothing(
    documented: Documented, nothing: object, missing: set[str]
) -> None:
    (row,) = read_positions(changed(documented("positions_v2"), buyAmt=nothing, brdLtQty=nothing))
    assert (row.missing, row.odd) == (missing, ())


# --- holdings ---------------------------------------------------------------------------------


def test_the_documented_holding(documented: Documented) -> None:
    (holding,) = read_holdings(documented("holdings"))
    assert holding == Holding(
        kind="Equity",
        sector="Others",
        instrument_token=18974,
        common_code="NIPPON_ETF_NIFTYIT",
        description="Nippon India ETF Nifty IT",
        quantity=45,
        average_price=38.7162,
        cost=1742.2293,
        closing_price=39.36,
        market_value=1771.2,
        scrip_id="",
        alternate_scrip="",
        unrealised=28.9707,
        square_off_gain=-5.6,
        delivery_gain=-7.074,
        subtotal=0.0,
        previous_last_price=0.0,
        subtype="ETF",
        status_text="ACTV",
        lot_size=1,
        expiry_text="",
        option_type="",
        strike=0.0,
        symbol="ITBEES",
        display_symbol="ITBEES",
        segment="nse_cm",
        series="EQ",
        token="19084",
        sellable_quantity=45,
        security_type="ETF",
        security_subtype="ETF",
        logo_url="https://www.kotaksecurities.com/stockit/stock_logos/74813.png",
        cmot_code="74813",
    )


def test_every_documented_key_of_a_holding_is_read(documented: Documented) -> None:
    (row,) = json.loads(documented("holdings").body)["data"]
    assert len(row) == 33
    assert len(set(Holding.__struct_fields__) - {"missing", "odd"}) == 33


SHORT_KEYS = {
    "displaySymbol",
    "averagePrice",
    "quantity",
    "exchangeSegment",
    "exchangeIdentifier",
    "holdingCost",
    "mktValue",
    "scripId",
    "instrumentToken",
    "instrumentType",
    "isAlternateScrip",
    "closingPrice",
    "symbol",
}
"""All that older servers send."""


def test_a_short_row_leaves_the_rest_unknown(documented: Documented) -> None:
    (full,) = json.loads(documented("holdings").body)["data"]
    dropped = {name: ... for name in full if name not in SHORT_KEYS}
    (holding,) = read_holdings(changed(documented("holdings"), **dropped))
    assert (holding.symbol, holding.token, holding.quantity) == ("ITBEES", "19084", 45)
    assert holding.average_price == 38.7162
    assert holding.sellable_quantity is None
    assert holding.unrealised is None
    assert holding.sector == ""


@pytest.mark.parametrize(
    ("spelling", "alternate"),
    [("", False), (False, False), ("false", False), (True, True), ("true", True), (None, False)],
)
def test_alternate_scrip_is_read_in_each_spelling(
    documented: Documented, spelling: object, alternate: bool
) -> None:
    (holding,) = read_holdings(changed(documented("holdings"), isAlternateScrip=spelling))
    assert holding.is_alternate_scrip is alternate


@pytest.mark.parametrize("body", [b'{"data":[]}', b'{"data":null}', b'{"stCode":5203}'])
def test_no_holdings_are_an_empty_list(body: bytes) -> None:
    assert read_holdings(Answer(200, {}, body)) == []


def test_an_ended_session_is_no_empty_portfolio(documented: Documented) -> None:
    with pytest.raises(SessionEnded):
        read_holdings(documented("session_invalid"))


# --- limits -----------------------------------------------------------------------------------


def test_the_documented_limits(documented: Documented) -> None:
    limits = read_limits(documented("limits"))
    assert limits.available == 19.409999999999997
    assert limits.collateral_value == 38.19
    assert limits.margin_used == 18.78
    assert limits.used_percent == 49.175177
    assert limits.collateral == 0.0
    assert limits.category == "CLIENT_SPECIAL"


def test_every_other_amount_of_the_limits_can_be_reached(documented: Documented) -> None:
    amounts = read_limits(documented("limits")).amounts
    assert amounts["MrgnScrpBsktNrmlPrsnt"] == 18.78
    assert amounts["CashUnRlsMtomPrsnt"] == -0.24
    assert amounts["Net"] == 19.409999999999997
    assert "SlbmVarElm" not in amounts  # blank
    assert "Category" not in amounts  # text


def test_an_amount_left_out_of_the_limits_is_none(documented: Documented) -> None:
    limits = read_limits(changed(documented("limits"), Collateral=..., MarginUsed=""))
    assert limits.collateral is None
    assert limits.margin_used is None


def test_an_object_without_what_is_available_is_no_limits(documented: Documented) -> None:
    with pytest.raises(ProtocolError, match="Net is missing"):
        read_limits(changed(documented("limits"), Net=...))


@pytest.mark.parametrize(
    ("net", "odd"),
    [
        ("", ()),
        (None, ()),
        ("plenty", ("Net='plenty' is not a number",)),
        ("1,039.35", ("Net='1,039.35' is not a number",)),
        ("NaN", ("Net='NaN' is not a number",)),
        ([], ("Net=[] is not a number",)),
    ],
)
def test_limits_of_which_one_amount_cannot_be_read_have_all_others(
    documented: Documented, net: object, odd: tuple[str, ...]
) -> None:
    limits = read_limits(changed(documented("limits"), Net=net))
    assert (limits.available, limits.odd) == (None, odd)
    assert limits.collateral_value == 38.19


@pytest.mark.parametrize("read", [read_limits, read_margin, read_positions, read_holdings])
def test_a_fault_keeps_the_broker_s_words(read: Callable[[Answer], object]) -> None:
    body = b'{"status":"ERROR","fault":{"code":400,"message":"Invalid segment"}}'
    with pytest.raises(Rejected, match="Invalid segment") as caught:
        read(Answer(200, {}, body))
    assert caught.value.code == 400


def test_an_ended_session_has_no_limits(documented: Documented) -> None:
    with pytest.raises(SessionEnded):
        read_limits(documented("session_invalid"))


# --- margin -----------------------------------------------------------------------------------


def test_the_documented_margin_that_is_short(documented: Documented) -> None:
    assert read_margin(documented("margin_short")) == OrderMargin(
        sufficient=False,
        available=10197.48,
        used=40.4,
        order=12500.0,
        required=12540.4,
        shortfall=2342.92,
    )


def test_the_documented_margin_that_is_enough(documented: Documented) -> None:
    assert read_margin(documented("margin_enough")) == OrderMargin(
        sufficient=True, available=38.19, used=18.78, order=15.5, required=34.28, shortfall=0.0
    )


@pytest.mark.parametrize(
    ("verdict", "sufficient"),
    [("OK", True), ("NOT_OK", False), ("Not_Ok", False), (79, True), (78, False), ("78", False)],
)
def test_the_verdict_on_margin_is_read_in_each_spelling(
    documented: Documented, verdict: object, sufficient: bool
) -> None:
    margin = read_margin(changed(documented("margin_short"), rmsVldtd=verdict))
    assert margin.sufficient is sufficient


@pytest.mark.parametrize("verdict", ["MAYBE", "", None, 1, ...])
def test_a_verdict_on_margin_is_never_guessed(documented: Documented, verdict: object) -> None:
    with pytest.raises(ProtocolError, match="rmsVldtd"):
        read_margin(changed(documented("margin_short"), rmsVldtd=verdict))


def test_an_amount_of_a_margin_that_cannot_be_read_is_unknown(documented: Documented) -> None:
    margin = read_margin(changed(documented("margin_short"), ordMrgn="", avlCash="1,0"))
    assert (margin.order, margin.available) == (None, None)
    assert margin.odd == ("avlCash='1,0' is not a number",)
    assert (margin.sufficient, margin.shortfall) == (False, 2342.92)
