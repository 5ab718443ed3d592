from __future__ import annotations

import contextlib
import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neo_async.errors import NeoError, ProtocolError, Rejected, ServerError, SessionEnded
from neo_async.model.answer import Answer
from neo_async.model.orders import HistoryRow, OrderRow, Trade
from neo_async.model.portfolio import Holding, PositionRow
from neo_async.wire.rows import RowReader, number, read_object


class Lot(msgspec.Struct, kw_only=True):
    """A row with one field of each kind."""

    number: str = msgspec.field(name="no")
    size: int = msgspec.field(name="sz", default=1)
    price: float = msgspec.field(name="pr", default=0.0)
    last: float | None = msgspec.field(name="ltp", default=None)
    note: str = msgspec.field(name="nt", default="")
    flag: bool | str = msgspec.field(name="fl", default="")


READER = RowReader(Lot, optional=frozenset({"ltp"}))
ABSENT = ["", "NA", "--", "-", "- ", "XX", "null", "na", None]


def answer(content: object, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


def read_one(**fields: object) -> Lot:
    (lot,) = READER.read(answer({"stat": "Ok", "stCode": 200, "data": [{"no": "7", **fields}]}))
    return lot


# --- envelopes --------------------------------------------------------------------------------

ROW = {"no": "7", "sz": "2"}


@pytest.mark.parametrize(
    "content",
    [
        {"stat": "Ok", "stCode": 200, "data": [ROW]},
        {"stat": "ok", "stCode": "200", "data": [ROW]},
        {"stat": "OK", "data": [ROW]},
        {"data": [ROW]},
        {"stat": None, "stCode": None, "data": [ROW]},
        {"data": {"stat": "Ok", "stCode": 200, "data": [ROW]}},
        {"stat": "Ok", "data": {"data": [ROW]}},
        [ROW],
    ],
)
def test_every_envelope_of_a_success_is_opened(content: object) -> None:
    assert READER.read(answer(content)) == [Lot(number="7", size=2)]


@pytest.mark.parametrize(
    "content",
    [
        {"stCode": 5203, "errMsg": "No Data", "desc": "data not found", "stat": "Not_Ok"},
        {"stCode": "5203", "stat": "not_ok"},
        {"data": {"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"}},
        {"stat": "Ok", "stCode": 200, "data": None},
        {"stat": "Ok", "stCode": 200, "data": []},
        {"data": None},
        {"data": []},
        [],
    ],
)
def test_an_empty_book_is_an_empty_list(content: object) -> None:
    assert READER.read(answer(content)) == []


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        ({"stat": "Not_Ok", "emsg": "Invalid session", "stCode": 1003}, 200, SessionEnded),
        ({"stat": "Not_Ok", "errMsg": "odd", "stCode": 9, "data": [ROW]}, 200, Rejected),
        ({"errMsg": "odd", "stCode": 9, "data": [ROW]}, 200, Rejected),
        ({"stat": "Ok", "stCode": 1003, "errMsg": "Invalid session"}, 200, SessionEnded),
        ({"data": {"Code": 401, "Message": "Unauthorised"}}, 200, NeoError),
        ({"data": {"stat": "Not_Ok", "stCode": 1003}}, 200, SessionEnded),
        ({"stat": "Ok", "data": [ROW]}, 502, ServerError),
        ({"stat": "Ok", "data": None}, 503, ServerError),
        ({"stCode": 5203, "stat": "Not_Ok"}, 500, ServerError),
        ({"stat": "Ok", "stCode": 200}, 200, ProtocolError),
        ({"stat": "Ok", "data": "none"}, 200, ProtocolError),
        ({}, 200, ProtocolError),
        (None, 200, ProtocolError),
        ("gone", 200, ProtocolError),
    ],
)
def test_what_is_no_success_is_never_an_empty_book(
    content: object, status: int, error: type[NeoError]
) -> None:
    with pytest.raises(error):
        READER.read(answer(content, status))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b'{"stat":"Ok","data":[{"no":"7"',
        b'{"data":[{"no":"\xff"}]}',
        b'{"data":' + b"[" * 100_000,
    ],
)
def test_bytes_that_cannot_be_parsed_are_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        READER.read(Answer(200, {}, body))


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ABSENT)
def test_an_absent_number_is_its_default(absent: str | None) -> None:
    assert read_one(sz=absent, pr=absent, ltp=absent) == Lot(number="7")


@pytest.mark.parametrize("text", [text for text in ABSENT if text is not None])
def test_text_is_kept_even_where_it_means_absent(text: str) -> None:
    lot = read_one(nt=text, fl=text, sz="--")
    assert lot.note == text
    assert lot.flag == text


def test_null_text_is_its_default() -> None:
    assert read_one(nt=None, fl=None) == Lot(number="7")


@pytest.mark.parametrize("size", [25, "25", "25.00", 25.0, " 25 "])
def test_a_whole_number_is_read_from_number_and_text(size: object) -> None:
    assert read_one(sz=size).size == 25


@pytest.mark.parametrize(
    ("note", "text"), [(5, "5"), (2.5, "2.5"), (True, "true"), (False, "false")]
)
def test_text_is_read_from_number_and_boolean(note: object, text: str) -> None:
    assert read_one(nt=note).note == text


@pytest.mark.parametrize("flag", [True, False, "false", ""])
def test_a_field_of_two_types_keeps_either(flag: bool | str) -> None:
    assert read_one(fl=flag, sz="--").flag == flag


@pytest.mark.parametrize("garbage", ["abc", [], {}, True])
def test_an_optional_number_that_cannot_be_read_is_missing(garbage: object) -> None:
    assert read_one(ltp=garbage, pr="2.5") == Lot(number="7", price=2.5)


def test_unknown_fields_are_ignored() -> None:
    assert read_one(brandNew={"deep": [1]}, sz="--") == Lot(number="7")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"no": "8", "sz": "many"}, "row 2: sz='many' is not a whole number"),
        ({"no": "8", "sz": 1.5}, "row 2: sz=1.5 is not a whole number"),
        ({"no": "8", "pr": "1,234.50"}, "row 2: pr='1,234.50' is not a number"),
        ({"no": "8", "pr": True}, "row 2: pr=True is not a number"),
        ({"no": "8", "nt": ["x"]}, r"row 2: nt=\['x'\] is not text"),
        ({"sz": "1"}, "row 2: .*required field `no`"),
        ({"no": None}, "row 2: .*required field `no`"),
        ("row", "row 2 is no object: 'row'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: object, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        READER.read(answer({"stat": "Ok", "data": [{"no": "7"}, row]}))


# --- objects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"stat": "Ok", "stCode": 200, "Net": "10.5"},
        {"stat": "ok", "Net": 10.5},
        {"data": {"stat": "Ok", "stCode": 200, "Net": " 10.5 "}},
    ],
)
def test_an_object_is_found_at_the_root_or_below_data(content: object) -> None:
    assert number(read_object(answer(content)), "Net") == 10.5


@pytest.mark.parametrize("content", [[], "text", None, {"stat": "Not_Ok", "stCode": 1003}])
def test_what_is_no_object_of_a_success_raises(content: object) -> None:
    with pytest.raises(NeoError):
        read_object(answer(content))


@pytest.mark.parametrize("absent", ABSENT)
def test_an_absent_number_of_an_object_is_none(absent: str | None) -> None:
    assert number({"Net": absent}, "Net") is None
    assert number({}, "Net") is None


def test_a_number_of_an_object_that_is_none_is_named() -> None:
    with pytest.raises(ProtocolError, match="Net='plenty' is not a number"):
        number({"Net": "plenty"}, "Net")


# --- properties -------------------------------------------------------------------------------

words = st.text(string.ascii_letters + string.digits + " -&", max_size=12)
absent_spellings = st.sampled_from(ABSENT)


def spelt_number(value: float) -> st.SearchStrategy[object]:
    """The ways in which a number may be written."""
    return st.sampled_from([value, str(value), f" {value} "])


@st.composite
def rows(draw: st.DrawFn, row: type[msgspec.Struct]) -> tuple[dict[str, object], msgspec.Struct]:
    """A row as the broker could write it, and what it says."""
    written: dict[str, object] = {"neverSeenBefore": draw(words)}
    said: dict[str, Any] = {}
    for field in msgspec.structs.fields(row):
        value: Any
        if field.type in (str, bool | str):
            value = draw(words)
            written[field.encode_name] = value
        else:
            if draw(st.booleans()):
                written[field.encode_name] = draw(absent_spellings)
                if field.required:
                    written[field.encode_name] = value = 1
                else:
                    continue
            elif field.type in (int, int | None):
                value = draw(st.integers(-(2**63), 2**63 - 1))
                written[field.encode_name] = draw(spelt_number(value))
            else:
                value = draw(st.floats(-1e12, 1e12, allow_subnormal=False))
                written[field.encode_name] = draw(spelt_number(value))
        said[field.name] = value
    return written, row(**said)


@pytest.mark.parametrize("row", [OrderRow, HistoryRow, Trade, PositionRow, Holding])
@given(data=st.data())
def test_values_survive_whatever_is_absent_around_them(
    row: type[msgspec.Struct], data: st.DataObject
) -> None:
    pairs = data.draw(st.lists(rows(row), max_size=3))
    report = {"stat": "ok", "stCode": 200, "data": [written for written, _ in pairs]}
    assert RowReader(row).read(answer(report)) == [said for _, said in pairs]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
POSITIONS = RowReader(PositionRow)
WIRE_NAMES = [field.encode_name for field in msgspec.structs.fields(PositionRow)]


@given(st.lists(st.dictionaries(st.sampled_from(WIRE_NAMES), json_values, max_size=6), max_size=3))
def test_any_row_is_read_or_named_in_a_protocol_error(hostile: list[dict[str, object]]) -> None:
    report = answer({"stat": "Ok", "data": hostile})
    # What json writes need not be JSON: NaN and Infinity are not.
    with contextlib.suppress(ProtocolError):
        assert len(POSITIONS.read(report)) == len(hostile)


@given(
    st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([200, 204, 400, 403, 429, 500]),
)
@example(b'{"data":[{"exSeg":"nse_cm","trdSym":"X","buyAmt":1e400}]}', 200)
def test_any_answer_is_rows_or_an_error_of_ours(body: bytes, status: int) -> None:
    with contextlib.suppress(NeoError):
        assert isinstance(POSITIONS.read(Answer(status, {}, body)), list)
