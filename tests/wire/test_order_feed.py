from __future__ import annotations

import json
from decimal import (
    Clamped,
    Context,
    Decimal,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Rounded,
    Subnormal,
    localcontext,
)
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import ProtocolError
from neo_async.model.enums import OrderStatus
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.wire.order_feed import (
    HEARTBEAT,
    Connected,
    Refused,
    handshake_text,
    read_message,
)

ORDER = """{"type":"order","data":{"nOrdNo":"260216000308219","ordSt":"complete","avgPrc":"35.88",
"qty":1,"fldQty":1,"unFldSz":0,"sym":"ITBEES","trnsTp":"B","prcTp":"MKT","prod":"NRML",
"exSeg":"nse_cm","trdSym":"ITBEES-EQ","tok":"14428","ordDtTm":"16-Feb-2026 12:29:31",
"updRecvTm":1739688571000000000,"boeSec":1739688571,"exCfmTm":"16-Feb-2026 12:29:32",
"exOrdId":"1100000049435826"}}"""

POSITION = """{"type":"position","data":{"actId":"XP6M4","sym":"ITBEES","exSeg":"nse_cm",
"prod":"NRML","flBuyQty":"1","flSellQty":"0","buyAmt":"35.88","sellAmt":"0.00","posFlg":"true",
"sqrFlg":"true","lotSz":"1","multiplier":"1","hsUpTm":"2026/02/16 12:29:31"}}"""


def order_of(**data: Any) -> OrderUpdate:
    message = read_message(json.dumps({"type": "order", "data": {"nOrdNo": "7", **data}}))
    assert isinstance(message, OrderUpdate)
    return message


def position_of(**data: Any) -> PositionUpdate:
    message = read_message(json.dumps({"type": "position", "data": data}))
    assert isinstance(message, PositionUpdate)
    return message


# --- handshake and heartbeat ------------------------------------------------------------------


def test_the_handshake_goes_out_without_quotes_or_blanks_in_the_documented_order() -> None:
    text = handshake_text("aaa.bbb.ccc", "12-34", as_json=False)
    assert text == "{type:cn,Authorization:aaa.bbb.ccc,Sid:12-34,src:WEB}"


def test_the_other_form_of_the_handshake_is_json() -> None:
    text = handshake_text("aaa.bbb.ccc", "12-34", as_json=True)
    assert json.loads(text) == {
        "type": "cn",
        "Authorization": "aaa.bbb.ccc",
        "Sid": "12-34",
        "src": "WEB",
    }


# --- control messages -------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_acknowledgement_means_connected(as_bytes: bool) -> None:
    text = '{"ak":"ok","type":"cn","task":"cn","msg":"connected"}'
    assert read_message(text.encode() if as_bytes else text) == Connected("connected")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"ak":"nk","type":"cn","task":"cn","msg":"Authentication Failed"}',
            "Authentication Failed",
        ),
        ('{"ak":"nk","type":"failed to connect","msg":"no such sid"}', "no such sid"),
        ('{"ak":"nk","type":"cn"}', ""),
    ],
)
def test_a_refusal_keeps_its_words(text: str, reason: str) -> None:
    assert read_message(text) == Refused(reason)


@pytest.mark.parametrize(
    "text",
    [
        '{"ak":"ok","type":"hb"}',
        '{"ak":"nk","type":"hb"}',
        '{"type":"news","data":{}}',
        "{}",
        "[]",
        "1",
        "null",
        HEARTBEAT,
    ],
)
def test_frames_that_are_not_known_are_passed_over(text: str) -> None:
    assert read_message(text) is None


# --- orders -----------------------------------------------------------------------------------


def test_the_documented_order_message_is_read() -> None:
    update = read_message(ORDER)
    assert isinstance(update, OrderUpdate)
    assert update.number == "260216000308219"
    assert update.exchange_number == "1100000049435826"
    assert update.status is OrderStatus.COMPLETE
    assert (update.quantity, update.filled_quantity, update.pending_quantity) == (1, 1, 0)
    assert update.average_price == 35.88
    assert (update.segment, update.symbol, update.token) == ("nse_cm", "ITBEES-EQ", "14428")
    assert (update.side, update.order_type, update.product) == ("B", "MKT", "NRML")
    assert update.updated_ns == 1739688571000000000
    assert {"price", "trigger", "disclosed_quantity"} <= update.missing
    assert not {"quantity", "filled_quantity", "average_price", "status_text"} & update.missing


def test_a_message_of_five_fields_says_what_it_does_not_know() -> None:
    update = order_of(ordSt="open", ordValDt="NA", strategyCode="NA", hsUpTm="2024/01/22 14:28:01")
    assert update.status is OrderStatus.OPEN
    assert {"quantity", "filled_quantity", "price", "order_type", "updated_ns"} <= update.missing
    assert not {"number", "status_text"} & update.missing


def test_numbers_are_read_from_text_and_text_from_numbers() -> None:
    update = order_of(nOrdNo=260216000308219, qty="10", fldQty=3.0, avgPrc=35.5, tok=14428)
    assert update.number == "260216000308219"
    assert (update.quantity, update.filled_quantity) == (10, 3)
    assert (update.average_price, update.token) == (35.5, "14428")


@pytest.mark.parametrize("value", ["", "NA", "--", "-", "- ", "XX", "null", None, "ten", "NaN", []])
def test_a_number_that_is_none_counts_as_missing(value: object) -> None:
    update = order_of(qty=value, prc=value, ordSt="open")
    assert {"quantity", "price"} <= update.missing
    assert update.status is OrderStatus.OPEN


def test_a_price_of_zero_that_was_sent_is_not_missing() -> None:
    update = order_of(prc="0.00")
    assert update.price == 0.0
    assert "price" not in update.missing


def test_this_feeds_own_spelling_of_a_limit_order_is_understood() -> None:
    assert order_of(prcTp="LMT").order_type == "L"


# --- positions --------------------------------------------------------------------------------


def test_the_documented_position_message_is_read_exactly() -> None:
    update = read_message(POSITION)
    assert isinstance(update, PositionUpdate)
    assert (update.account, update.name, update.segment) == ("XP6M4", "ITBEES", "nse_cm")
    assert (update.product, update.time_text) == ("NRML", "2026/02/16 12:29:31")
    assert (update.buy_quantity, update.sell_quantity) == (1, 0)
    assert (update.buy_value, update.sell_value) == (Decimal("35.88"), Decimal("0.00"))
    assert (update.symbol, update.token, update.carried_buy_quantity) == ("", "", None)


def test_more_of_a_position_is_taken_where_the_server_sends_it() -> None:
    update = position_of(trdSym="ITBEES-EQ", tok=19084, cfBuyQty="45", updRecvTm="17")
    assert (update.symbol, update.token) == ("ITBEES-EQ", "19084")
    assert (update.carried_buy_quantity, update.updated_ns) == (45, 17)


@pytest.mark.parametrize("value", ["", "--", None, "Infinity", "much"])
def test_an_amount_that_is_none_is_not_zero(value: object) -> None:
    update = position_of(buyAmt=value, flBuyQty=value)
    assert update.buy_value is None
    assert update.buy_quantity is None


@given(paise=st.integers(0, 10**15), as_text=st.booleans())
def test_amounts_lose_no_paisa(paise: int, as_text: bool) -> None:
    text = f"{paise // 100}.{paise % 100:02d}"
    if as_text:
        message = POSITION.replace('"35.88"', f'"{text}"')
    else:
        message = POSITION.replace('"35.88"', text)
    update = read_message(message)
    assert isinstance(update, PositionUpdate)
    assert update.buy_value == Decimal(text)


# --- what is not readable ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        b"\xff\xfe",
        "\ud800",
        "[" * 5000,
        '{"type":"order"}',
        '{"type":"order","data":[]}',
        '{"type":"order","data":{"ordSt":"open"}}',
        '{"type":"order","data":{"nOrdNo":{"a":1}}}',
        '{"type":"position","data":"x"}',
    ],
)
def test_what_cannot_be_read_at_all_is_a_protocol_error(text: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        read_message(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
WIRE_NAMES = st.sampled_from(
    ["nOrdNo", "ordSt", "qty", "fldQty", "avgPrc", "prcTp", "missing", "flBuyQty", "buyAmt", "sym"]
)


@given(
    kind=st.sampled_from(["order", "position", "cn", "hb"]) | JSON,
    data=st.dictionaries(WIRE_NAMES, JSON, max_size=8) | JSON,
)
def test_any_json_is_read_or_refused_as_a_protocol_error(kind: object, data: object) -> None:
    try:
        message = read_message(json.dumps({"type": kind, "ak": data, "data": data}))
    except ProtocolError:
        return
    assert message is None or isinstance(message, OrderUpdate | PositionUpdate)


@given(st.binary() | st.text())
def test_any_bytes_are_read_or_refused_as_a_protocol_error(raw: bytes | str) -> None:
    try:
        read_message(raw)
    except ProtocolError:
        return


# --- the program's own settings ---------------------------------------------------------------

ALL_SIGNALS = [Inexact, Rounded, FloatOperation, InvalidOperation, Subnormal, Clamped]


@pytest.mark.parametrize(
    "context",
    [Context(prec=2), Context(prec=1, traps=ALL_SIGNALS), Context(prec=28, traps=[])],
)
@pytest.mark.parametrize("value", ["123456789.05", 123456789.05, "NaN", "sNaN", "1e999", "many"])
def test_no_decimal_context_of_the_program_changes_an_amount(
    context: Context, value: object
) -> None:
    plain = position_of(sym="ITBEES", buyAmt=value, sellAmt="1.10")
    with localcontext(context):
        update = position_of(sym="ITBEES", buyAmt=value, sellAmt="1.10")
        assert update == plain
    assert update.sell_value == Decimal("1.10")
    known = Decimal("123456789.05") if "5" in str(value) else None
    assert update.buy_value == known


def test_an_update_says_what_of_it_could_not_be_read() -> None:
    update = order_of(fldQty="1,000", avgPrc="NaN", qty=10, ordSt="open")
    assert {"filled_quantity", "average_price"} <= update.missing
    assert update.odd == (
        "fldQty='1,000' is not a whole number",
        "avgPrc='NaN' is not a number",
    )
    assert (update.quantity, update.status) == (10, OrderStatus.OPEN)
