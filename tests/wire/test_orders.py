from __future__ import annotations

import msgspec
import pytest

from neo_async.errors import (
    InsufficientFunds,
    OrderAlreadyFinal,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
)
from neo_async.model.answer import Answer
from neo_async.wire.orders import read_accepted


@pytest.mark.parametrize(
    "body",
    [
        b'{"nOrdNo":"250720000007242","stat":"Ok","stCode":200}',
        b'{"tid":"server21_2816","nOrdNo":"250720000007242","stat":"ok"}',
        b'{"stCode":"200","stat":"OK","nOrdNo":"250720000007242","new":[{}]}',
    ],
)
def test_an_accepted_request_gives_the_order_number(body):
    assert read_accepted(Answer(200, {}, body)) == "250720000007242"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b'{"stat":"Not_Ok","emsg":"Insufficient balance.","stCode":1004}', InsufficientFunds),
        (
            200,
            b'{"stCode":1021,"errMsg":"order is completed","stat":"please provide valid order '
            b'number"}',
            OrderAlreadyFinal,
        ),
        (429, b"", RateLimited),
        (502, b"<html>", ServerError),
        (503, b'{"nOrdNo":"250720000007242","stat":"Ok","stCode":200}', ServerError),
        # Neither accepted nor refused: nothing may be concluded from these.
        (200, b"", ProtocolError),
        (200, b'{"nOrdNo":"2507200000', ProtocolError),
        (200, b'{"stat":"Ok","stCode":200}', ProtocolError),
        (200, b'{"nOrdNo":"","stat":"Ok"}', ProtocolError),
        (200, b'{"nOrdNo":250720000007242,"stat":"Ok"}', ProtocolError),
        (200, b'{"nOrdNo":"250720000007242"}', ProtocolError),
        (202, b'{"nOrdNo":"250720000007242","stat":"Ok"}', ProtocolError),
        (200, b"[]", ProtocolError),
    ],
)
def test_anything_else_raises_what_it_stands_for(status, body, error):
    with pytest.raises(error):
        read_accepted(Answer(status, {}, body))


def test_an_answer_that_names_an_order_and_no_error_refuses_nothing():
    def read(**fields):
        content = {"nOrdNo": "261123000000001", "stCode": 200, **fields}
        read_accepted(Answer(200, {}, msgspec.json.encode(content)))

    with pytest.raises(ProtocolError, match="names order 261123000000001, with stat='Success'"):
        read(stat="Success")
    with pytest.raises(Rejected, match="margin"):
        read(stat="Not_Ok", emsg="no margin", stCode=1041)
