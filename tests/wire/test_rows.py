from __future__ import annotations

import contextlib
import json
import math
import string
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neo_async.errors import NeoError, ProtocolError, Rejected, ServerError, SessionEnded
from neo_async.model.answer import Answer
from neo_async.model.enums import BrokerCode, Product, Segment, Side
from neo_async.model.numbers import Number, Whole
from neo_async.model.orders import HistoryRow, OrderRow, Trade
from neo_async.model.portfolio import Holding, PositionRow
from neo_async.wire.portfolio import read_holdings, read_positions
from neo_async.wire.reports import read_history, read_order_book, read_trades
from neo_async.wire.rows import RowReader, number, read_object


class Lot(msgspec.Struct, kw_only=True):
    """A row with one field of each kind."""

    number: str = msgspec.field(name="no")
    size: Whole = msgspec.field(name="sz", default=1)
    price: Number = msgspec.field(name="pr", default=0.0)
    last: Number | None = msgspec.field(name="ltp", default=None)
    note: str = msgspec.field(name="nt", default="")
    flag: bool | str = msgspec.field(name="fl", default="")
    needed: Whole = msgspec.field(name="nd", default=0)
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")


READER = RowReader(Lot, expected=frozenset({"needed"}))
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
        ({"status": "ERROR", "fault": {"code": 400, "message": "odd"}, "data": []}, 200, Rejected),
        ({"stat": "Ok", "fault": {"code": 400, "message": "odd"}, "data": []}, 200, Rejected),
        ({"status": "failure", "errMsg": "odd", "data": []}, 200, Rejected),
        ({"error": [{"code": "10020", "message": "odd"}], "data": []}, 200, Rejected),
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


def test_unknown_fields_are_ignored() -> None:
    assert read_one(brandNew={"deep": [1]}, sz="--") == Lot(number="7")


@pytest.mark.parametrize(
    ("row", "lot"),
    [
        (
            {"sz": "many"},
            Lot(number="8", missing={"size"}, odd=("sz='many' is not a whole number",)),
        ),
        ({"sz": 1.5}, Lot(number="8", missing={"size"}, odd=("sz=1.5 is not a whole number",))),
        (
            {"pr": "1,039.35", "sz": "3"},
            Lot(number="8", size=3, missing={"price"}, odd=("pr='1,039.35' is not a number",)),
        ),
        ({"pr": True}, Lot(number="8", missing={"price"}, odd=("pr=True is not a number",))),
        ({"pr": "+5"}, Lot(number="8", missing={"price"}, odd=("pr='+5' is not a number",))),
        ({"pr": "N/A"}, Lot(number="8", missing={"price"}, odd=("pr='N/A' is not a number",))),
        ({"ltp": "NaN"}, Lot(number="8", missing={"last"}, odd=("ltp='NaN' is not a number",))),
        ({"ltp": "-inf"}, Lot(number="8", missing={"last"}, odd=("ltp='-inf' is not a number",))),
        ({"ltp": []}, Lot(number="8", missing={"last"}, odd=("ltp=[] is not a number",))),
        ({"nt": ["x"]}, Lot(number="8", missing={"note"}, odd=('nt=["x"] is not text',))),
        ({"nd": None}, Lot(number="8", missing={"needed"})),
        ({"nd": "--"}, Lot(number="8")),
        ({"no": None, "sz": 4}, Lot(number="", size=4, missing={"number"})),
        ({"no": {}}, Lot(number="", missing={"number"}, odd=("no={} is not text",))),
    ],
)
def test_a_value_that_cannot_be_read_is_unknown_and_the_row_is_there(
    row: dict[str, object], lot: Lot
) -> None:
    rows = [{"no": "7"}, {"no": "8"} | row, {"no": "9", "pr": "2.5"}]
    assert READER.read(answer({"stat": "Ok", "data": rows})) == [
        Lot(number="7"),
        lot,
        Lot(number="9", price=2.5),
    ]


@pytest.mark.parametrize("row", ["row", None, 5, [], True])
def test_a_row_that_is_no_object_is_a_row_of_which_nothing_is_known(row: object) -> None:
    first, second = READER.read(answer({"stat": "Ok", "data": [row, {"no": "7"}]}))
    assert (first.number, "number" in first.missing) == ("", True)
    assert first.odd == (f"row 1 is no object: {row!r}",)
    assert second == Lot(number="7")


@pytest.mark.parametrize(
    ("body", "lot"),
    [
        (b'\xef\xbb\xbf{"data":[{"no":"7","sz":"2"}]}', Lot(number="7", size=2)),
        ('{"data":[{"no":"7"}]}'.encode("utf-16"), Lot(number="7")),
        (b'{"data":[{"no":"7","nt":"\xff"}]}', Lot(number="7", note="\ufffd")),
        (b'{"data":[{"no":"7","nt":"a\\ud800b"}]}', Lot(number="7", note="a\ufffdb")),
        (b'{"data":[{"no":"7","nt":"a\tb"}]}', Lot(number="7", note="a\tb")),
        (
            b'{"data":[{"no":"7","pr":NaN}]}',
            Lot(number="7", missing={"price"}, odd=("pr=nan is not a number",)),
        ),
    ],
)
def test_json_that_only_a_lenient_parser_takes_is_read(body: bytes, lot: Lot) -> None:
    assert READER.read(Answer(200, {}, body)) == [lot]


@pytest.mark.parametrize("digits", ["1" * 5000, "-" + "9" * 5000, "1e999999999", "9" * 20])
def test_a_number_beyond_any_machine_s_is_unknown(digits: str) -> None:
    for text in (digits, f'"{digits}"'):
        body = f'{{"data":[{{"no":"7","sz":{text},"pr":"2.5"}}]}}'.encode()
        (lot,) = READER.read(Answer(200, {}, body))
        assert (lot.size, lot.price, lot.missing) == (1, 2.5, {"size"})


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


@pytest.mark.parametrize(
    "content",
    [
        [],
        "text",
        None,
        {"stat": "Not_Ok", "stCode": 1003},
        {"status": "ERROR", "fault": {"code": 400, "message": "odd"}},
        {"fault": {"code": 400, "message": "odd"}},
        {"errMsg": "odd"},
        {"error": True, "message": "odd"},
        {"data": {"stat": "Not_Ok", "stCode": 1003}},
    ],
)
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
        if field.name in ("missing", "odd"):
            continue
        value: Any
        if field.type in (str, bool | str):
            value = draw(words)
            written[field.encode_name] = value
        elif is_text_type(field.type):
            assert issubclass(field.type, BrokerCode)
            text = draw(words | st.sampled_from(list(map(str, field.type))))
            value = field.type.read(text)
            written[field.encode_name] = text
        else:
            if draw(st.booleans()):
                written[field.encode_name] = draw(absent_spellings)
                if field.required:
                    written[field.encode_name] = value = 1
                else:
                    continue
            elif field.type in (Whole, Whole | None):
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


def test_codes_are_members_however_they_are_spelt_and_kept_where_no_enum_has_them() -> None:
    known = {"exSeg": "nse_cm", "trdSym": "TCS-EQ", "trnsTp": "B", "prod": "CNC"}
    spelt = {"exSeg": " NSE_CM", "trdSym": "TCS-EQ", "trnsTp": "BUY", "prod": "cnc"}
    unknown = {"exSeg": "ncd_co", "trdSym": "X", "trnsTp": "?", "prod": "PLUS"}
    bare = {"trdSym": "X", "exSeg": None}
    report = answer({"stat": "Ok", "data": [known, spelt, unknown, bare]})
    one, other, odd, nothing = (
        (row.segment, row.side, row.product) for row in RowReader(Trade).read(report)
    )
    assert one == other == (Segment.NSE_CM, Side.BUY, Product.CNC)
    assert [code.is_known for code in (*one, *other)] == [True] * 6
    assert list(map(str, odd)) == ["ncd_co", "?", "PLUS"]
    assert list(map(type, odd)) == [Segment, Side, Product]
    assert not any(nothing)
    assert not any(code.is_known for code in (*odd, *nothing))


def test_a_row_with_an_unknown_code_is_read_as_exactly_as_one_without() -> None:
    rows = [full_row(OrderRow) | {"exSeg": segment} for segment in ("nse_cm", "new_one")]
    one, other = RowReader(OrderRow).read(answer({"stat": "Ok", "data": rows}))
    assert msgspec.structs.replace(other, segment=Segment.NSE_CM) == one
    assert (other.missing, other.odd) == (frozenset(), ())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["1,039.35", "N/A", "+5", "NaN", "inf", "1e400", "9" * 30, "5.", " 7 "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
READERS = [
    read_order_book,
    read_history,
    read_trades,
    read_positions,
    read_holdings,
]
REPORTS: dict[Any, type[msgspec.Struct]] = {
    read_order_book: OrderRow,
    read_history: HistoryRow,
    read_trades: Trade,
    read_positions: PositionRow,
    read_holdings: Holding,
}


def is_text_type(type_: object) -> bool:
    return isinstance(type_, type) and issubclass(type_, str)


def full_row(row: type[msgspec.Struct]) -> dict[str, object]:
    """A row with a value in every field."""
    values: dict[str, object] = {}
    for place, field in enumerate(msgspec.structs.fields(row), start=1):
        if field.name not in ("missing", "odd"):
            is_text = field.type == bool | str or is_text_type(field.type)
            values[field.encode_name] = f"t{place}" if is_text else place
    return values


@pytest.mark.parametrize("read", REPORTS, ids=lambda read: read.__name__)
@given(data=st.data(), odd=json_values)
def test_whatever_stands_in_one_field_all_others_are_read(
    read: Any, data: st.DataObject, odd: object
) -> None:
    fields = [f for f in msgspec.structs.fields(REPORTS[read]) if f.name not in ("missing", "odd")]
    field = data.draw(st.sampled_from(fields))
    whole = full_row(REPORTS[read])
    rows = [whole, whole | {field.encode_name: odd}, whole]
    before, row, after = read(answer({"stat": "Ok", "data": rows}))
    (plain,) = read(answer({"stat": "Ok", "data": [whole]}))
    assert before == after == plain
    others = {f.name for f in fields} - {field.name}
    assert {n: getattr(row, n) for n in others} == {n: getattr(plain, n) for n in others}
    value = getattr(row, field.name)
    assert row.missing <= {field.name}
    assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("read", REPORTS, ids=lambda read: read.__name__)
@given(data=st.data())
def test_any_rows_are_as_many_rows(read: Any, data: st.DataObject) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(REPORTS[read])]
    row = st.dictionaries(st.sampled_from(names), json_values, max_size=6) | json_values
    hostile = data.draw(st.lists(row, max_size=3))
    report = answer({"stat": "Ok", "data": hostile})
    assert len(read(report)) == len(hostile)


@given(
    st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([200, 204, 307, 400, 403, 429, 500]),
)
@example(b'{"data":[{"exSeg":"nse_cm","trdSym":"X","buyAmt":1e400}]}', 200)
@example(b'{"stCode":"' + b"1" * 5000 + b'","data":[]}', 200)
def test_any_answer_is_rows_or_an_error_of_ours(body: bytes, status: int) -> None:
    for read in READERS:
        with contextlib.suppress(NeoError):
            assert isinstance(read(Answer(status, {}, body)), list)
