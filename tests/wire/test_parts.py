"""Long answers, read in parts."""

from __future__ import annotations

import pytest

from neo_async.model.answer import Answer
from neo_async.wire.parts import SHORT, in_parts
from neo_async.wire.reports import read_order_book
from tests.execution.feed_broker import book_of


def test_a_long_book_in_parts_is_the_same_book() -> None:
    whole = book_of(2000)
    assert len(whole.body) > SHORT
    parts = [*(in_parts(whole, 300) or ())]
    assert len(parts) == 7
    assert [row for part in parts for row in read_order_book(part)] == read_order_book(whole)


@pytest.mark.parametrize(
    "body",
    [
        b'{"stat":"Not_Ok","stCode":1005,"data":[' + b"{}," * 90_000 + b"{}]}",
        b'{"stat":"Ok","stCode":200,"fault":{"code":1},"data":[' + b"{}," * 90_000 + b"{}]}",
        b'{"stat":"Ok","stCode":200,"data":[' + b"{}," * 90_000,
        b"<html>" + b" " * SHORT,
        b"[" + b"{}," * 90_000 + b"{}]",
    ],
)
def test_an_answer_that_is_no_plain_list_of_rows_is_left_whole(body: bytes) -> None:
    answer = Answer(200, {}, body)
    assert in_parts(answer, 300) is None
