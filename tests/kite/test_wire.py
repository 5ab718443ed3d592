"""What Kite's answers mean: envelopes, error types, rows that are not quite as documented."""

from __future__ import annotations

import contextlib
import decimal
import json
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    InsufficientFunds,
    NeoError,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    SessionEnded,
)
from neo_async.base.india import IST
from neo_async.kite.wire import (
    check_success,
    read_holding,
    read_list,
    read_login,
    read_order,
    read_order_id,
    read_sip,
    read_sip_id,
)
from neo_async.model.answer import Answer
from tests.kite.fake_kite import PAYLOADS


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(error_type: str | None, status: int, message: str = "no") -> Answer:
    return answer(
        {"status": "error", "message": message, "data": None, "error_type": error_type}, status
    )


def raised_by(answer: Answer) -> NeoError:
    with pytest.raises(NeoError) as caught:
        read_order_id(answer)
    return caught.value


@pytest.mark.parametrize(
    ("error_type", "status", "kind"),
    [
        ("TokenException", 403, SessionEnded),
        ("PermissionException", 403, Rejected),
        ("InputException", 400, Rejected),
        ("OrderException", 400, Rejected),
        ("OrderException", 500, Rejected),
        ("HoldingException", 400, Rejected),
        ("UserException", 400, Rejected),
        ("MarginException", 400, InsufficientFunds),
        ("NetworkException", 503, ServerError),
        ("NetworkException", 400, ServerError),
        ("DataException", 502, ServerError),
        ("GeneralException", 500, ServerError),
        ("GeneralException", 404, Rejected),
        ("NewException", 500, ServerError),
        ("NewException", 400, Rejected),
        (None, 400, Rejected),
        (None, 403, SessionEnded),
        (None, 503, ServerError),
    ],
)
def test_error_types_are_exceptions_that_keep_them(
    error_type: str | None, status: int, kind: type[Rejected]
) -> None:
    raised = raised_by(error(error_type, status, "what Kite says"))
    assert type(raised) is kind
    assert isinstance(raised, kind)
    assert (raised.text, raised.status) == ("what Kite says", status)
    if error_type is not None:
        assert raised.code == error_type
        assert str(raised) == f"what Kite says (code {error_type}, HTTP {status})"


def test_too_many_requests_tell_how_long_to_wait() -> None:
    refusal = error("NetworkException", 429, "Too many requests")
    raised = raised_by(Answer(429, {"retry-after": "2"}, refusal.body))
    assert isinstance(raised, RateLimited)
    assert (raised.retry_after, raised.text) == (2.0, "Too many requests")
    assert isinstance(raised_by(answer(b"<html>slow down</html>", 429)), RateLimited)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 200, ProtocolError),
        (b"<html>", 200, ProtocolError),
        (b'{"status":"success","data":{"order_id"', 200, ProtocolError),
        (b'{"status":"success"}', 200, ProtocolError),
        (b'{"status":"success","data":null}', 200, ProtocolError),
        (b'{"status":"success","data":[]}', 200, ProtocolError),
        (b'{"status":"success","data":{}}', 200, ProtocolError),
        (b"[]", 200, ProtocolError),
        (b"moved", 302, ProtocolError),
        (b"<html>", 403, ProtocolError),
        (b"<html>", 502, ServerError),
        (b"", 500, ServerError),
        (b"[" * 100_000, 200, ProtocolError),
    ],
)
def test_what_is_no_answer_of_kites_is_never_taken_for_a_refusal(
    body: bytes, status: int, kind: type[NeoError]
) -> None:
    assert type(raised_by(answer(body, status))) is kind


def test_an_error_is_one_with_status_200_too() -> None:
    assert isinstance(raised_by(error("InputException", 200)), Rejected)
    body = {"data": {"order_id": "1"}, "error_type": "TokenException", "message": "m"}
    assert isinstance(raised_by(answer(body)), SessionEnded)


def test_success_needs_no_status() -> None:
    assert read_list(answer({"data": []})) == []
    assert read_order_id(answer({"data": {"order_id": "7"}})) == "7"


def test_a_changed_sip_may_call_its_id_an_orders() -> None:
    assert read_sip_id(answer({"data": {"order_id": "7"}})) == "7"


def test_an_errors_body_shows_no_token() -> None:
    body = {"data": {"access_token": "geheim", "public_token": "geheim", "user_id": None}}
    with pytest.raises(ProtocolError) as caught:
        read_login(answer(body))
    assert "geheim" not in str(caught.value) + caught.value.body
    cut = b'{"status":"success","data":{"access_token":"geheim","refr'
    assert "geheim" not in str(raised_by(answer(cut)))


# --- rows -----------------------------------------------------------------------------------------


def sample(name: str, **changes: object) -> Any:
    import msgspec

    fields = json.loads((PAYLOADS / name).read_bytes())["data"]
    fields = (fields[0] if isinstance(fields, list) else fields) | changes
    return msgspec.Raw(json.dumps(fields).encode())


def test_unknown_fields_are_ignored_and_unknown_statuses_kept() -> None:
    order = read_order(sample("order.json", status="PROCESSING", something={"new": [1]}))
    assert (order.status, order.is_final) == ("PROCESSING", False)
    assert read_order(sample("order.json", status=None)).status is None
    assert read_sip(sample("sip.json", status="DORMANT")).status == "DORMANT"


def test_whole_numbers_and_numbers_as_text_are_numbers() -> None:
    order = read_order(sample("order.json", quantity=0, amount="5000"))
    assert (order.quantity, order.amount) == (0.0, 5000.0)


def test_days_and_times_in_each_others_form() -> None:
    order = read_order(
        sample("order.json", order_timestamp="2021-06-29", exchange_timestamp="2021-06-30 09:00:01")
    )
    assert order.order_timestamp == datetime(2021, 6, 29, tzinfo=IST)
    assert order.exchange_timestamp == date(2021, 6, 30)
    order = read_order(sample("order.json", last_price_date="", order_timestamp=""))
    assert (order.last_price_date, order.order_timestamp) == (None, None)


def test_a_cancelled_sip_has_no_next_instalment() -> None:
    assert read_sip(sample("sip.json", next_instalment=None)).next_instalment is None
    assert read_sip(sample("sip.json", next_instalment="")).next_instalment is None


def test_a_gain_that_kite_sends_is_kites() -> None:
    assert read_holding(sample("holdings.json", pnl=12.5)).pnl == 12.5


def test_a_row_without_an_id_says_so() -> None:
    with pytest.raises(ProtocolError, match="order_id"):
        read_order(sample("order.json", order_id=None))
    with pytest.raises(ProtocolError, match="sip_id"):
        read_sip(sample("sip.json", sip_id=None))
    with pytest.raises(ProtocolError, match="tradingsymbol"):
        read_holding(sample("holdings.json", tradingsymbol=None))


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("amount", "a lot", None),
        ("amount", None, None),
        ("amount", "1,00,000.50", 100_000.5),
        ("amount", "5000.0", 5000.0),
        ("amount", True, None),
        ("amount", [], None),
        ("order_timestamp", "yesterday", None),
        ("order_timestamp", 1625000000, None),
        ("exchange_timestamp", "30-06-2021", None),
        ("tag", 77, "77"),
        ("folio", 1.5, "1.5"),
        ("fund", {"a": 1}, ""),
        ("placed_by", None, ""),
    ],
)
def test_an_odd_value_spoils_its_own_field_only(field: str, value: object, known: object) -> None:
    whole, odd = (
        read_order(sample("order.json")),
        read_order(sample("order.json", **{field: value})),
    )
    assert getattr(odd, field) == known
    assert odd == msgspec.structs.replace(whole, **{field: known})


def test_a_number_beyond_any_range_spoils_its_own_field_only() -> None:
    (row,) = read_list(answer(b'{"data":[{"order_id":"1","amount":1e9999999999,"quantity":2}]}'))
    assert (read_order(row).amount, read_order(row).quantity) == (None, 2.0)


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("instalments", "many", None),
        ("instalments", 12.0, 12),
        ("instalments", 12.5, None),
        ("completed_instalments", "x", 0),
        ("instalment_amount", None, None),
        ("next_instalment", 20210512, None),
        ("step_up", "5%", {}),
        ("step_up", {"05-05": "ten"}, {}),
        ("step_up", {"05-05": "10"}, {"05-05": 10.0}),
    ],
)
def test_an_odd_value_of_a_sip_spoils_its_own_field_only(
    field: str, value: object, known: object
) -> None:
    odd = read_sip(sample("sip.json", **{field: value}))
    assert getattr(odd, field) == known


@pytest.mark.parametrize("price", ["average_price", "last_price"])
@pytest.mark.parametrize("unknown", [0, 0.0, None, "", "NA", -1])
@pytest.mark.parametrize("sent", [0, None, 32457.93])
def test_a_holding_of_unknown_cost_or_nav_has_no_gain(
    price: str, unknown: object, sent: object
) -> None:
    holding = read_holding(sample("holdings.json", **{price: unknown, "pnl": sent}))
    assert (holding.pnl, getattr(holding, price)) == (None, None)
    name = {"average_price": "average price", "last_price": "NAV"}[price]
    assert holding.unknown_reason == f"Kite does not report the {name}"
    assert (holding.value is None) is (price == "last_price")


def test_a_gain_is_exact_to_the_paisa_in_any_decimal_context() -> None:
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)):
        changes = {"average_price": 0.1, "last_price": 1234.565, "quantity": 3, "pnl": 0}
        holding = read_holding(sample("holdings.json", **changes))
    assert (holding.pnl, holding.value, holding.unknown_reason) == (3703.40, 3703.70, "")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data":[' + b'{"a":' * 100_000,
        b'{"data":[{"order_id":' + b"[" * 500 + b"]" * 500 + b"}]}",
        b'{"status":"success","data":[{"order_id":"1","amount":' + b"9" * 5000 + b"}]}",
        b'{"status":"success","data":[{"order_id":"\xff"}]}',
        b'{"status":"success","data":[7]}',
        b'{"status":"success","data":[null]}',
        b'{"status":"success","data":{"a":1}}',
    ],
)
def test_whatever_comes_is_read_or_is_an_error_of_our_own(body: bytes) -> None:
    for read in (read_order, read_sip, read_holding):
        with pytest.raises(NeoError):
            [read(row) for row in read_list(Answer(200, {}, body))]
    for read_answer in (read_login, read_order_id, check_success):
        with contextlib.suppress(NeoError):
            read_answer(Answer(200, {}, body))


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    for body in (noise, b'{"data":[{"order_id":"1","amount":%b}]}' % noise):
        with contextlib.suppress(NeoError):
            for row in read_list(Answer(200, {}, body)):
                read_order(row)
