from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import (
    BODY_EXCERPT,
    BrokerError,
    DuplicateTag,
    InsufficientFunds,
    NeoError,
    OrderAlreadyFinal,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    SessionEnded,
    StaticIpRefused,
)
from neo_async.model.answer import Answer
from neo_async.wire.answers import failure, is_empty_book, retry_after
from neo_async.wire.orders import read_accepted, read_placed
from neo_async.wire.reports import read_order_book


def answer(content: object, status: int = 200, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Answer(status, headers, body)


# --- the shapes -------------------------------------------------------------------------------

WRONG_URL = "Invalid URL. Please verify the 'baseUrl' in the Login Validate API response"

# Numbered as in the list of error bodies: status, body, what it is read as, text, code.
SHAPES = {
    "1 emsg": (
        200,
        {"stat": "Not_Ok", "emsg": "Invalid session", "stCode": 1003},
        (SessionEnded, "Invalid session", 1003),
    ),
    "2 errMsg": (
        200,
        {"stCode": 100008, "errMsg": "unauthorized", "stat": "Not_Ok"},
        (StaticIpRefused, "unauthorized", 100008),
    ),
    "3 with desc": (
        200,
        {"stCode": 5203, "errMsg": "No Data", "desc": "data not found", "stat": "Not_Ok"},
        (Rejected, "No Data", 5203),
    ),
    "3 desc alone": (
        200,
        {"stCode": 5203, "desc": "data not found", "stat": "Not_Ok"},
        (Rejected, "data not found", 5203),
    ),
    "4 prose in stat": (
        200,
        {
            "stCode": 1021,
            "errMsg": "order is completed",
            "stat": "please provide valid order number",
        },
        (OrderAlreadyFinal, "order is completed", 1021),
    ),
    "4 prose alone": (
        200,
        {"stCode": 1009, "stat": "please provide valid quantity"},
        (Rejected, "please provide valid quantity", 1009),
    ),
    "5 login, code as text": (
        401,
        {"status": "error", "message": "Invalid MPIN.", "errorCode": "424242"},
        (SessionEnded, "Invalid MPIN.", 424242),
    ),
    "6 login, HTTP 200": (
        200,
        {"stCode": 401, "errMsg": "Invalid MPIN", "status": "failure"},
        (Rejected, "Invalid MPIN", 401),
    ),
    "7 array of errors": (
        400,
        {"error": [{"code": "400", "message": "Missing required field 'Ucc'"}]},
        (Rejected, "Missing required field 'Ucc'", 400),
    ),
    "7 array with stat": (
        200,
        {
            "stat": "Not_Ok",
            "error": [{"code": "10020", "message": "Authentication Failed"}],
            "tid": "x",
        },
        (Rejected, "Authentication Failed", 10020),
    ),
    "8 fault": (
        400,
        {"status": "ERROR", "fault": {"code": 400, "message": "Invalid interval value"}},
        (Rejected, "Invalid interval value", 400),
    ),
    "9 code and message": (
        400,
        {"code": 400, "message": "Failed to call upstream quote API"},
        (Rejected, "Failed to call upstream quote API", 400),
    ),
    "10 wrong base URL": (
        403,
        {
            "error": True,
            "message": WRONG_URL,
        },
        (
            Rejected,
            WRONG_URL,
            None,
        ),
    ),
    "11 gateway report": (
        404,
        {"code": "404", "type": "Status report", "message": "Not Found", "description": "…"},
        (Rejected, "Not Found", 404),
    ),
    "12 message only": (400, {"message": "no"}, (Rejected, "no", None)),
    "13 stMsg": (
        200,
        {"stCode": 32, "stMsg": "error from core", "stat": "Not_Ok"},
        (DuplicateTag, "error from core", 32),
    ),
    "13 prose in stat": (
        200,
        {
            "stCode": 32,
            "errMsg": "error from core",
            "stat": "Put Order Response : Client OrderID already exists Data: 0",
        },
        (DuplicateTag, "error from core", 32),
    ),
    "14 data with Code": (
        200,
        {"data": {"Code": 1004, "Message": "Insufficient balance."}},
        (InsufficientFunds, "Insufficient balance.", 1004),
    ),
    "15 HTML": (
        502,
        b"<html>Bad Gateway</html>",
        (ServerError, "the broker's server failed without a reason", None),
    ),
    "15 empty": (504, b"", (ServerError, "the broker's server failed without a reason", None)),
    "nothing but a status": (400, {}, (Rejected, "refused with HTTP 400", None)),
    "words without a code and a status of error": (
        500,
        {"errMsg": "down"},
        (ServerError, "down", None),
    ),
}


@pytest.mark.parametrize(("status", "body", "expected"), SHAPES.values(), ids=SHAPES)
def test_every_shape_of_an_error_is_read(status, body, expected):
    error = failure(answer(body, status))
    assert isinstance(error, BrokerError)
    assert (type(error), error.text, error.code) == expected
    assert error.status == status


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"", "the answer is empty"),
        (200, b"<html></html>", "the answer is not JSON"),
        (200, b'{"stat":"Not_Ok","emsg":"Inv', "the answer is not JSON"),
        (404, b"nothing here", "the answer is not JSON"),
        (302, b"", "the answer is empty"),
        (200, b"\xff\xfe", "the answer is not JSON"),
        (200, b"[" * 100_000, "the answer is not JSON"),
        (200, b"[]", "the answer has an unexpected shape"),
        (200, b'"Ok"', "the answer has an unexpected shape"),
        (200, b"{}", "the answer has an unexpected shape"),
        (200, b'{"stat":"Ok","stCode":200}', "the answer has an unexpected shape"),
        (200, b'{"stat":"Ok","stCode":1000}', "the answer has an unexpected shape"),
    ],
)
def test_what_is_no_answer_of_the_broker_breaks_the_protocol(status, body, problem):
    error = failure(answer(body, status))
    assert isinstance(error, ProtocolError)
    assert (error.problem, error.status) == (problem, status)


# --- the codes --------------------------------------------------------------------------------

CODES = [
    (32, "error from core", DuplicateTag),
    (400, "invalid request", Rejected),
    (401, "Invalid MPIN", Rejected),
    (404, "not found", Rejected),
    (429, "Too many requests", RateLimited),
    (429, "Invalid UCC", Rejected),
    (500, "internal", ServerError),
    (503, "service unavailable", ServerError),
    (1002, "invalid input parameters", Rejected),
    (1003, "Invalid session", SessionEnded),
    (1004, "Insufficient balance.", InsufficientFunds),
    (1005, "internal error", ServerError),
    (1006, "Order cannot be modified as it is already executed.", OrderAlreadyFinal),
    (1006, "Order already cancelled or not found.", Rejected),
    (1006, "invalid exchange", Rejected),
    (1007, "body invalid", Rejected),
    (1008, "market closed", Rejected),
    (1009, "please provide valid quantity", Rejected),
    (1010, "quantity not allowed", Rejected),
    (1011, "please provide valid product", Rejected),
    (1017, "algo order not allowed", Rejected),
    (1021, "order is completed", OrderAlreadyFinal),
    (1031, "invalid LtpOrAtp for BO", Rejected),
    (1037, "session ip doesnt match with reqest ip", StaticIpRefused),
    (1113, "Bracket orders with trailing stoploss are not supported currently", Rejected),
    (5202, "Error: Invalid Request", Rejected),
    (5203, "No Data", Rejected),
    (5204, "Put Order Response : Client OrderID already exists", DuplicateTag),
    (5204, "Cancel Order Response : Bad Input", Rejected),
    (10020, "Authentication Failed", Rejected),
    (10300, "validation", Rejected),
    (91400, "only for orders placed through the API", Rejected),
    (100008, "unauthorized", StaticIpRefused),
    (100010, "invalid session token", SessionEnded),
    (100021, "invalid  access type", Rejected),
    (100022, "invalid session token", SessionEnded),
    (7654321, "never seen", Rejected),
]


@pytest.mark.parametrize("spelling", [int, str], ids=["number", "text"])
@pytest.mark.parametrize(("code", "text", "kind"), CODES)
def test_every_code_has_its_meaning(code, text, kind, spelling):
    error = failure(answer({"stat": "Not_Ok", "errMsg": text, "stCode": spelling(code)}))
    assert type(error) is kind
    assert (error.text, error.code) == (text, code)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, SessionEnded),
        (403, SessionEnded),
        (404, Rejected),
        (408, ServerError),
        (422, Rejected),
        (424, ServerError),
        (429, RateLimited),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
    ],
)
def test_the_status_decides_where_no_code_does(status, kind):
    assert type(failure(answer({"message": "because"}, status))) is kind


def test_a_known_code_wins_over_the_status():
    ended = {"errMsg": "Invalid session", "stCode": 1003}
    assert type(failure(answer(ended, 500))) is SessionEnded
    assert type(failure(answer({"errMsg": "unauthorized", "stCode": 100008}, 403))) is (
        StaticIpRefused
    )
    assert type(failure(answer({"errMsg": "invalid  access type", "stCode": 100021}, 401))) is (
        Rejected
    )


@pytest.mark.parametrize("status", [401, 403])
def test_not_authorised_without_json_is_an_ended_session(status):
    assert type(failure(answer(b"<html>Forbidden</html>", status))) is SessionEnded


def test_an_empty_book_is_told_by_its_code():
    assert is_empty_book(answer({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"}))
    assert is_empty_book(answer({"stCode": "5203", "stat": "Not_Ok"}))
    assert not is_empty_book(answer({"stCode": 1003, "stat": "Not_Ok"}))
    assert not is_empty_book(answer(b""))


# --- anything at all --------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "message", "Code", "Message", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
NAMES = "stat stCode errMsg emsg stMsg message errorCode fault error code data desc status nOrdNo"
bodies = st.dictionaries(st.sampled_from(NAMES.split()), values, max_size=6)
headers = st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=40))
statuses = st.sampled_from([200, 201, 302, 400, 401, 403, 404, 408, 424, 429, 500, 502])


@given(statuses | st.integers(100, 999), headers, st.binary() | bodies.map(msgspec.json.encode))
def test_no_answer_whatever_makes_the_reading_fail(status, names, body):
    error = failure(Answer(status, names, body))
    assert isinstance(error, NeoError)
    assert str(error)


@pytest.mark.parametrize("code", ["²", "٣", "9" * 5000, "", " ", "-1", "1e3", 1.5, None, True, []])
def test_a_code_that_is_no_number_is_no_code(code):
    error = failure(answer({"errMsg": "words", "stCode": code}))
    assert (type(error), error.text, error.code) == (Rejected, "words", None)


def test_a_redirection_is_an_error_that_names_where_to():
    error = failure(answer(b"", 307, location="https://other.example/quick/user/orders?sid=hush"))
    assert isinstance(error, ProtocolError)
    assert "moved to 'https://other.example/quick/user/orders'" in str(error)
    assert error.status == 307
    assert "hush" not in str(error)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_error_in_json_with_a_byte_order_mark_keeps_its_words(encoding):
    text = '{"stat":"Not_Ok","emsg":"Invalid session","stCode":1003}'
    error = failure(answer(text.encode(encoding)))
    assert (type(error), error.text, error.code) == (SessionEnded, "Invalid session", 1003)


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["token", "sid", "Auth", "auth", "access_token", "kId", "mpin", "totp", "searchAPIKey", "SID"],
)
@pytest.mark.parametrize("gap", ["", " ", "\n\t"])
def test_credentials_are_cut_from_the_body(name, gap):
    body = f'{{"errMsg":"no","{name}"{gap}:{gap}"hush-hush","stCode":1}}'.encode()
    error = failure(answer(body))
    assert "hush" not in error.body
    assert '"***"' in error.body


def test_a_secret_that_reaches_beyond_the_excerpt_is_cut_too():
    body = b'{"pad":"' + b"x" * (BODY_EXCERPT - 30) + b'","token":"' + b"hush" * 1000
    error = failure(answer(body))
    assert isinstance(error, ProtocolError)
    assert "hush" not in error.body + str(error)
    assert len(error.body) <= BODY_EXCERPT


# --- Retry-After ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 09:15:07 GMT"}, None),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 09:15:07 GMT",
                "date": "Sat, 21 Nov 2026 09:15:00 GMT",
            },
            7.0,
        ),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 09:15:00 GMT",
                "date": "Sat, 21 Nov 2026 09:15:07 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Sat, 21 Nov 2026 09:15:07 GMT", "date": "today"}, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(names, seconds):
    assert retry_after(names) == seconds


def test_a_date_counts_from_the_clock_that_is_given():
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=58.0) == 42.0


@given(headers)
def test_no_header_whatever_makes_retry_after_fail(names):
    seconds = retry_after(names)
    assert seconds is None or 0.0 <= seconds < float("inf")


def test_a_429_carries_what_the_server_asked_for():
    error = failure(answer({"emsg": "Too many requests"}, 429, **{"retry-after": "1"}))
    assert isinstance(error, RateLimited)
    assert (error.text, error.retry_after, error.code) == ("Too many requests", 1.0, 429)
    silent = failure(answer(b"", 429))
    assert isinstance(silent, RateLimited)
    assert (silent.text, silent.retry_after) == ("too many requests", None)


@pytest.mark.parametrize(
    "content",
    [
        {"message": "Internal server error"},
        {"message": "Internal server error", "status": 500},
        {"timestamp": "2026-11-23", "error": "Internal Server Error", "message": "no"},
        {"stat": "Ok", "message": "queued"},
        {"stat": "Ok", "errMsg": "queued"},
        {"stat": "Success", "message": "done"},
        {"stat": "pending"},
        {"stCode": 200, "message": "accepted for processing"},
        {"desc": "try later"},
        {"data": {"Message": "timeout"}},
    ],
)
def test_words_without_a_mark_of_an_error_are_no_refusal(content: dict[str, object]) -> None:
    error = failure(answer(content))
    assert type(error) is ProtocolError
    for read in (read_accepted, read_placed, read_order_book):
        with pytest.raises(ProtocolError):
            read(answer(content))


@pytest.mark.parametrize(
    "content",
    [
        {"stat": "Not_Ok", "message": "no margin"},
        {"stat": "Not_Ok", "emsg": "no margin"},
        {"errMsg": "no margin"},
        {"stMsg": "no margin"},
        {"status": "error", "message": "no margin"},
        {"status": "failure", "errMsg": "no margin"},
        {"error": True, "message": "no margin"},
        {"error": [{"message": "no margin"}]},
        {"fault": {"message": "no margin"}},
        {"stCode": 1041, "stat": "no margin"},
        {"code": "404", "message": "no margin"},
    ],
)
def test_an_error_in_any_form_of_the_broker_is_a_refusal_whatever_it_lacks(
    content: dict[str, object],
) -> None:
    error = failure(answer(content))
    assert isinstance(error, Rejected)
    assert error.text == "no margin"
