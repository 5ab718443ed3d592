"""What no reader of the broker's bytes does, whatever they are: raise an error of another's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import NeoError, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import OrderStatus, parse_status
from neo_async.wire.candles import read_candle_rows, read_candles
from neo_async.wire.chains import read_expiries, read_futures, read_options
from neo_async.wire.feed import read_control
from neo_async.wire.forms import decode_form
from neo_async.wire.instrument_file import BadFile, InstrumentFileReader
from neo_async.wire.login import read_login
from neo_async.wire.order_feed import read_message
from neo_async.wire.orders import read_accepted
from neo_async.wire.portfolio import read_holdings, read_limits, read_margin, read_positions
from neo_async.wire.quotes import read_quotes
from neo_async.wire.recording import FILE_HEADER, read_recording
from neo_async.wire.reports import read_history, read_order_book, read_trades
from neo_async.wire.scripmaster import parse_scripmaster, read_file_list

READERS: dict[str, Callable[[bytes], object]] = {
    reader.__name__: lambda body, reader=reader: reader(Answer(200, {}, body))  # type: ignore[misc]
    for reader in (
        read_accepted,
        read_expiries,
        read_file_list,
        read_history,
        read_holdings,
        read_limits,
        read_login,
        read_margin,
        read_order_book,
        read_positions,
        read_quotes,
        read_trades,
    )
} | {
    "read_candles": lambda body: read_candles(read_candle_rows(Answer(200, {}, body)), []),
    "read_options": lambda body: read_options(
        Answer(200, {}, body), segment="nse_fo", underlying="NIFTY", expiry=None
    ),
    "read_futures": lambda body: read_futures(
        Answer(200, {}, body), segment="nse_fo", underlying="NIFTY"
    ),
    "read_control": read_control,
    "read_message": read_message,
    "decode_form": lambda body: decode_form(b"jData=" + body, dict),
    "parse_scripmaster": lambda body: parse_scripmaster(body, date(2026, 11, 23)),
}
LONG = b"1" * 5000
HOSTILE = {
    "nothing": b"",
    "nested deeply": b'{"data":' + b"[" * 100_000,
    "a list nested deeply": b"[" * 100_000,
    "a code of 5000 digits": b'{"stCode":"' + LONG + b'","data":[],"Net":"1"}',
    "a number of 5000 digits": b'{"stCode":' + LONG + b',"data":[],"Net":' + LONG + b"}",
    "a float of 5000 digits": b'{"data":[{"a":1.' + LONG + b'}],"Net":1e' + LONG + b"}",
    "a year of 12 digits": b'{"stat":"Ok","expiries":["31-JUL-999999999999"]}',
    "a year of 5000 digits": b'{"stat":"Ok","expiries":["31-JUL-' + LONG + b'"]}',
    "a field of 200 kB": b'"' + b"x" * 200_000 + b'"\n',
    "half a surrogate pair": b'{"data":[{"nOrdNo":"\\ud800"}],"type":"order"}',
    "no UTF-8": b'{"stat":"\xff\xfe"}',
    "gzip that is none": b"\x1f\x8b\x08\xff\xff\xff",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_reader_raises_its_own_error(read: Callable[[bytes], object], body: bytes) -> None:
    with contextlib.suppress(NeoError):
        read(body)


NAMES = (
    "data stat stCode fault error status type Net candles call fut quote instrument expiries "
    "filesPaths exchanges nse_cm ohlc divider trading_symbols message_code nOrdNo message rmsVldtd"
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_no_bytes_whatever_leave_a_reader_by_another_error(body: bytes) -> None:
    for read in READERS.values():
        with contextlib.suppress(NeoError):
            read(body)


@pytest.mark.parametrize("length", range(len(FILE_HEADER)))
def test_a_recording_that_ends_in_its_header_is_damaged_or_none(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "cut.feed"
    for header in (FILE_HEADER[:length], FILE_HEADER[:length] + b"\xff"):
        path.write_bytes(header)
        try:
            reading = read_recording(path)
        except UsageError:
            continue
        else:
            assert (list(reading), reading.damage) == ([], "the file is cut off in its header")


@given(st.binary(max_size=80))
def test_a_kept_file_of_instruments_is_read_or_bad(content: bytes) -> None:
    try:
        for _ in InstrumentFileReader(content).blocks():
            pass
    except BadFile:
        pass


FAULT = b'{"status":"ERROR","fault":{"code":400,"message":"Invalid segment"}}'
NO_CALLS = {"read_control", "read_message", "decode_form", "parse_scripmaster"}


@pytest.mark.parametrize("name", sorted(READERS.keys() - NO_CALLS))
def test_a_fault_behind_a_200_keeps_its_words_on_every_call(name: str) -> None:
    with pytest.raises(NeoError, match="Invalid segment") as caught:
        READERS[name](FAULT)
    assert getattr(caught.value, "code", None) == 400


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("not modified", OrderStatus.NOT_MODIFIED),
        ("NOT MODIFIED", OrderStatus.NOT_MODIFIED),
        ("not_modified", OrderStatus.NOT_MODIFIED),
        ("not cancelled", OrderStatus.NOT_CANCELLED),
        (" Not  Cancelled ", OrderStatus.NOT_CANCELLED),
        ("not canceled", OrderStatus.NOT_CANCELLED),
    ],
)
def test_an_order_whose_change_was_refused_stands_at_the_exchange(
    text: str, status: OrderStatus
) -> None:
    assert parse_status(text) is status
    assert (status.is_working, status.is_final) == (True, False)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("AMO REQ RECEIVED", OrderStatus.AMO_RECEIVED),
        ("modify amo req received", OrderStatus.AMO_MODIFY_RECEIVED),
        ("cancelled amo", OrderStatus.AMO_CANCELLED),
        ("traded", OrderStatus.COMPLETE),
        ("gone fishing", OrderStatus.UNKNOWN),
        ("", OrderStatus.UNKNOWN),
    ],
)
def test_a_state_is_known_by_every_spelling_of_it(text: str, status: OrderStatus) -> None:
    assert parse_status(text) is status
