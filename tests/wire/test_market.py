from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.base.india import IST
from neo_async.errors import NeoError, ProtocolError, Rejected, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.indices import INDEX_NAMES, exact_index_name
from neo_async.model.market import (
    Candle,
    ChainRow,
    FutureQuote,
    Interval,
    OptionQuote,
    Quote,
    QuoteFilter,
)
from neo_async.model.ticks import DepthRow
from neo_async.wire.candles import (
    CandleJoiner,
    candle_instrument,
    candle_windows,
    candles_query,
    candles_within,
    read_candle_rows,
    read_candles,
)
from neo_async.wire.chains import (
    expiries_query,
    futures_query,
    options_query,
    read_expiries,
    read_futures,
    read_options,
)
from neo_async.wire.quotes import batches, match_quotes, quotes_path, read_quotes, wire_instrument

Documented = Callable[[str], Answer]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def answer(content: object, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


# --- what is asked ----------------------------------------------------------------------------


def test_bars_and_commas_stay_in_the_path_and_the_rest_is_encoded() -> None:
    instruments = ["nse_cm|1333", "nse_cm|Nifty 50", "nse_fo|M&M", "bse_cm|É"]
    path = quotes_path(instruments, QuoteFilter.YEAR_RANGE)
    assert path == "/nse_cm|1333,nse_cm|Nifty%2050,nse_fo|M%26M,bse_cm|%C3%89/52W"
    assert quotes_path(["nse_cm|1333"], QuoteFilter.ALL) == "/nse_cm|1333/all"


@given(st.lists(st.text(st.characters(exclude_characters="|,/"), min_size=1), min_size=1))
def test_any_token_comes_back_from_the_path_as_it_was(tokens: list[str]) -> None:
    tokens = [token.encode("utf-8", "replace").decode() for token in tokens]
    path = quotes_path([f"nse_cm|{token}" for token in tokens], QuoteFilter.LAST_PRICE)
    listed, kind = path.removeprefix("/").rsplit("/", 1)
    assert path.isascii()
    assert not set(path) & set(" \r\n?#")
    assert [unquote(name) for name in listed.split(",")] == [f"nse_cm|{token}" for token in tokens]
    assert kind == "ltp"


@pytest.mark.parametrize(
    "bad",
    [
        *("", "1333", "nse_cm|", "nse|1333", "NSE_CM|1333", "nse_cm|13,14", "nse_cm|1|2"),
        *("nse_cm|a/b", "nse_cm|a\r\nb", "nse_cm|\x00", "nse_cm| ", 1333, None, ["nse_cm|1333"]),
    ],
)
def test_a_malformed_instrument_is_refused_before_it_is_sent(bad: object) -> None:
    with pytest.raises(UsageError, match=r"must be segment\|token"):
        wire_instrument(bad)


def test_indices_go_out_under_the_exact_name() -> None:
    assert wire_instrument("nse_cm|NIFTY 50") == "nse_cm|Nifty 50"
    assert wire_instrument("nse_cm|nifty  bank") == "nse_cm|Nifty Bank"
    assert wire_instrument("nse_cm|26009") == "nse_cm|Nifty Bank"
    assert wire_instrument("nse_cm|India VIX") == "nse_cm|INDIA VIX"
    assert wire_instrument("bse_cm|sensex") == "bse_cm|SENSEX"
    # What is no index of that segment is left alone.
    assert wire_instrument("bse_cm|26009") == "bse_cm|26009"
    assert wire_instrument("nse_cm|1333") == "nse_cm|1333"
    for segment, names in INDEX_NAMES.items():
        for name in names:
            assert exact_index_name(segment, name) == name
            assert wire_instrument(f"{segment}|{name.upper()}") == f"{segment}|{name}"


def test_the_table_of_indices_is_that_of_the_documents() -> None:
    assert [len(names) for names in INDEX_NAMES.values()] == [51, 84]
    for names in INDEX_NAMES.values():
        assert len({name.casefold() for name in names}) == len(names)
        assert all(name == name.strip() and name for name in names)


@given(st.integers(0, 260))
def test_batches_are_as_few_as_allowed(count: int) -> None:
    names = [str(number) for number in range(count)]
    parts = batches(names)
    assert [name for part in parts for name in part] == names
    assert all(0 < len(part) <= 50 for part in parts)
    assert len(parts) == -(-count // 50)


def test_both_spellings_of_filters_are_taken() -> None:
    assert QuoteFilter("52w") is QuoteFilter("52W") is QuoteFilter.YEAR_RANGE
    assert QuoteFilter("market_depth") is QuoteFilter("depth") is QuoteFilter.DEPTH
    with pytest.raises(ValueError, match="greeks"):
        QuoteFilter("greeks")
    documented = "all 52W scrip_details circuit_limits ohlc oi depth ltp"
    assert {kind.value for kind in QuoteFilter} == set(documented.split())


def test_queries_have_the_names_of_the_documents() -> None:
    assert expiries_query(Segment.NSE_FO, "NIFTY", None) == {
        "exchange": "nse_fo",
        "underlying": "NIFTY",
    }
    assert expiries_query("mcx_fo", "GOLD", "fut")["instrument_type"] == "fut"
    assert options_query("nse_fo", "M&M", date(2026, 6, 23), 20) == {
        "exchange": "nse_fo",
        "underlying": "M&M",
        "instrument_type": "option",
        "expiry": "2026-06-23",
        "count": "20",
    }
    assert futures_query("bse_fo", "SENSEX", None) == {
        "exchange": "bse_fo",
        "underlying": "SENSEX",
        "instrument_type": "fut",
    }
    window = (date(2026, 8, 1), date(2026, 8, 20))
    assert candles_query("nse_cm|1333", Interval.MINUTES_5, window) == {
        "neosymbol": "nse_cm|1333",
        "fromdate": "2026-08-01",
        "todate": "2026-08-20",
        "interval": "5min",
    }


@pytest.mark.parametrize(
    "ask",
    [
        lambda: expiries_query("nse_cm", "NIFTY", None),
        lambda: expiries_query("cde_fo", "USDINR", None),
        lambda: expiries_query("nse_fo", "", None),
        lambda: expiries_query("nse_fo", "NIFTY\r\n", None),
        lambda: expiries_query("nse_fo", "NIFTY", "options"),
        lambda: options_query("nse_fo", "NIFTY", None, 25),
        lambda: options_query("nse_fo", "NIFTY", None, 0),
        lambda: options_query("nse_fo", "NIFTY", None, True),
        lambda: options_query("nse_fo", "NIFTY", datetime(2026, 6, 23), 40),
        lambda: futures_query("nse_fo", "NIFTY", "23/06/2026"),
        lambda: candle_instrument("mcx_fo|1"),
        lambda: candle_instrument("1333"),
        lambda: candle_windows(date(2026, 6, 23), date(2026, 6, 22), Interval.DAY),
        lambda: candle_windows(datetime(2026, 6, 1), date(2026, 6, 22), Interval.DAY),
    ],
)
def test_what_cannot_be_right_is_not_asked(ask: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        ask()


# --- quotes -----------------------------------------------------------------------------------


def test_the_documented_quote(documented: Documented) -> None:
    (quote,) = read_quotes(documented("quotes"))
    assert quote == Quote(
        instrument="nse_cm|1333",
        symbol="HDFCBANK-EQ",
        last_update_time=1782374657,
        last_price=801.6,
        last_quantity=550,
        open=798.5,
        high=804.45,
        low=796.0,
        close=793.2,
        change=8.4,
        change_percent=1.06,
        average_price=799.89,
        volume=30043533,
        total_buy_quantity=907335,
        total_sell_quantity=2883870,
        open_interest=0,
        lower_circuit=713.9,
        upper_circuit=872.5,
        year_high=2037.7,
        year_low=726.65,
        bids=(DepthRow(1733, 801.6, 4),),
        asks=(DepthRow(550, 801.65, 1),),
    )
    assert quote.updated == datetime(2026, 6, 25, 13, 34, 17, tzinfo=IST)


def test_an_index_has_neither_quantities_nor_bids_and_asks() -> None:
    zeros = {"price": "0.0000", "quantity": "0", "orders": "0"}
    (quote,) = read_quotes(
        answer(
            [
                {
                    "exchange_token": "SENSEX",
                    "display_symbol": "SENSEX-IN",
                    "exchange": "bse_cm",
                    "ltp": "79802.1000",
                    "ohlc": {"open": "79700.0", "high": "", "low": "NA", "close": "--"},
                    "depth": {"buy": [zeros] * 5, "sell": [zeros] * 5},
                }
            ]
        )
    )
    assert quote == Quote(
        instrument="bse_cm|SENSEX", symbol="SENSEX-IN", last_price=79802.1, open=79700.0
    )
    assert quote.updated is None


def test_numbers_come_with_and_without_quotes_and_nonsense_is_unknown() -> None:
    row = {"exchange": "nse_cm", "exchange_token": 1333, "lstup_time": 1782374657}
    (quote,) = read_quotes(answer([row | {"ltp": 801.6, "last_volume": 12.0, "open_int": "7.0"}]))
    assert (quote.instrument, quote.last_price) == ("nse_cm|1333", 801.6)
    assert (quote.volume, quote.open_interest) == (12, 7)
    for nonsense in ("", "NA", "--", "nan", "inf", "1e999", "12abc", "1,200", True, [], {}, None):
        row = {"exchange": "nse_cm", "exchange_token": "1", "lstup_time": nonsense}
        row |= {"ltp": nonsense, "last_volume": nonsense, "ohlc": nonsense, "depth": nonsense}
        assert read_quotes(answer([row])) == [Quote(instrument="nse_cm|1")]


def test_quotes_may_be_wrapped_and_rows_that_are_none_are_passed_over() -> None:
    row = {"exchange": "nse_cm", "exchange_token": "1", "ltp": "5"}
    expected = [Quote(instrument="nse_cm|1", last_price=5.0)]
    assert read_quotes(answer({"data": [row]})) == expected
    assert read_quotes(answer({"stat": "Ok", "stCode": 200, "data": [row]})) == expected
    assert read_quotes(answer([None, 3, "x", [], row])) == expected
    assert read_quotes(answer([])) == []
    assert read_quotes(answer({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"})) == []


def test_errors_in_place_of_quotes_are_raised(documented: Documented) -> None:
    with pytest.raises(Rejected, match="Invalid instrument/code") as caught:
        read_quotes(documented("instrument_unknown"))
    assert caught.value.code == 1009
    with pytest.raises(Rejected, match="upstream"):
        read_quotes(answer({"code": 400, "message": "Failed to call upstream quote API"}))
    with pytest.raises(Rejected, match="no way"):
        read_quotes(answer({"stat": "Not_Ok", "emsg": "no way", "stCode": 1, "data": []}))
    for body in (b"", b"<h1>", b"[{", b"3", b"null", b"{}", b"\xff\xfe"):
        with pytest.raises(ProtocolError):
            read_quotes(Answer(200, {}, body))


@given(JSON_VALUES)
def test_no_answer_breaks_the_readers(content: object) -> None:
    hostile = answer(content)
    readers: tuple[Callable[[], Any], ...] = (
        lambda: read_quotes(hostile),
        lambda: read_expiries(hostile),
        lambda: read_options(hostile, segment="nse_fo", underlying="X", expiry=None),
        lambda: read_futures(hostile, segment="nse_fo", underlying="X"),
        lambda: read_candles(read_candle_rows(hostile), []),
    )
    for read in readers:
        try:
            read()
        except NeoError:
            continue


@given(
    st.dictionaries(
        st.sampled_from(
            ["exchange", "exchange_token", "display_symbol", "lstup_time", "ltp", "last_volume"]
        ),
        JSON_VALUES,
    ),
    st.dictionaries(st.sampled_from(["buy", "sell", "open", "close"]), JSON_VALUES),
)
def test_whatever_stands_in_a_quote_it_is_typed(row: dict[str, Any], inner: dict[str, Any]) -> None:
    for content in (row, row | {"ohlc": inner, "depth": inner}):
        (quote,) = read_quotes(answer([content]))
        msgspec.convert(msgspec.structs.asdict(quote), Quote)  # raises when a type is wrong
        assert quote.updated is None or quote.updated.tzinfo is IST


def test_quotes_are_matched_whatever_their_order_and_number() -> None:
    asked = ["nse_cm|1333", "nse_cm|Nifty 50", "bse_cm|SENSEX", "nse_fo|9", "nse_cm|7", "bse_cm|7"]
    answered = [
        Quote(instrument="bse_cm|7", last_price=7.0),
        Quote(instrument="nse_cm|26000", last_price=50.0),
        Quote(instrument="bse_cm|Sensex", last_price=30.0),
        Quote(instrument="nse_cm|999", last_price=999.0),
        Quote(instrument="|7", last_price=77.0),  # of which segment, nobody knows
        Quote(instrument="|9", last_price=9.0),
        Quote(instrument="nse_cm|1333", last_price=1.0),
        Quote(instrument="nse_cm|1333", last_price=2.0),
    ]
    matched = match_quotes(asked, answered)
    prices = {name: quote.last_price for name, quote in matched.items()}
    assert prices == {
        "nse_cm|1333": 1.0,
        "nse_cm|Nifty 50": 50.0,
        "bse_cm|SENSEX": 30.0,
        "nse_fo|9": 9.0,
        "bse_cm|7": 7.0,
    }
    assert all(quote.instrument == name for name, quote in matched.items())


# --- expiries and chains ----------------------------------------------------------------------


def test_the_documented_expiries(documented: Documented) -> None:
    assert read_expiries(documented("expiries")) == [date(2026, 6, 25), date(2026, 7, 2)]


def test_expiries_are_ascending_and_each_there_once() -> None:
    listed = ["2026-07-02", "2026-06-25", "2026-07-02", " 2026-12-31 "]
    expected = [date(2026, 6, 25), date(2026, 7, 2), date(2026, 12, 31)]
    assert read_expiries(answer({"expiries": listed})) == expected
    assert read_expiries(answer({"data": {"expiries": []}})) == []
    for bad in ("2026-02-30", "soon", "", None, 20260625):
        with pytest.raises(ProtocolError, match="is not a date"):
            read_expiries(answer({"expiries": ["2026-06-25", bad]}))
    with pytest.raises(ProtocolError):
        read_expiries(answer({"expiries": "2026-06-25"}))


def test_an_unknown_underlying_is_told(documented: Documented) -> None:
    for read in (
        read_expiries,
        lambda body: read_options(body, segment="nse_fo", underlying="X", expiry=None),
        lambda body: read_futures(body, segment="nse_fo", underlying="X"),
    ):
        with pytest.raises(Rejected, match="Invalid instrument/code"):
            read(documented("instrument_unknown"))


def test_the_documented_option_chain(documented: Documented) -> None:
    chain = read_options(
        documented("option_chain"), segment="nse_fo", underlying="NIFTY", expiry=None
    )
    assert (chain.segment, chain.underlying, chain.expiry) == (
        "nse_fo",
        "NIFTY",
        date(2026, 6, 23),
    )
    assert (chain.lot_size, chain.multiplier) == (65, 1.0)
    call = OptionQuote(
        instrument="nse_fo|71472",
        symbol="NIFTY26JUN22250CE",
        moneyness="ATM",
        last_price=166.75,
        open=89.8,
        high=214.0,
        low=77.1,
        previous_close=99.7,
        close=None,
        volume=225431505,
        open_interest=10715645,
        previous_open_interest=13647630,
        open_interest_change=-2931985,
        open_interest_change_percent=-21.48,
    )
    assert chain.rows == list(chain) == [ChainRow(22250.0, call, None)]
    assert chain.rows[0].is_at_the_money


def test_calls_and_puts_meet_at_their_strikes() -> None:
    def option(strike: str, kind: str) -> dict[str, Any]:
        name = {"neoSymbol": f"nse_fo|{strike}{kind}", "strikePrice": strike, "optionType": kind}
        return {"instrument": name, "quote": {"ltp": strike}, "greeks": {"delta": 0.5}}

    content = {
        "common_data": {"expiryDt": None},
        "call": [option("200", "CE"), option("100", "CE"), option("102.5", "CE")],
        "put": [option("102.50", "PE"), option("300", "PE"), option("100", "PE")],
    }
    expiry = date(2026, 6, 23)
    chain = read_options(answer({"data": content}), segment="s", underlying="U", expiry=expiry)
    assert (chain.segment, chain.underlying, chain.expiry) == ("s", "U", expiry)
    assert [(row.strike, bool(row.call), bool(row.put)) for row in chain] == [
        (100.0, True, True),
        (102.5, True, True),
        (200.0, True, False),
        (300.0, False, True),
    ]
    columns = chain.columns
    assert columns["strike"] == [100.0, 102.5, 200.0, 300.0]
    assert columns["call_instrument"] == ["nse_fo|100CE", "nse_fo|102.5CE", "nse_fo|200CE", None]
    assert columns["put_last_price"] == [100.0, 102.5, None, 300.0]
    assert not any("greek" in name or "delta" in name for name in columns)


def test_an_option_without_a_strike_is_named() -> None:
    for identity in ({"neoSymbol": "nse_fo|1"}, {"strikePrice": "100"}, "nse_fo|1", None):
        content: Any = {"data": {"common_data": {}, "call": [{"instrument": identity}]}}
        with pytest.raises(ProtocolError, match="call 1 has no instrument and strike"):
            read_options(answer(content), segment="nse_fo", underlying="X", expiry=None)
        good = {"instrument": {"neoSymbol": "nse_fo|2", "strikePrice": "100"}}
        content["data"]["call"] += [good]
        chain = read_options(answer(content), segment="nse_fo", underlying="X", expiry=None)
        assert [row.strike for row in chain] == [100.0]
        (problem,) = chain.odd
        assert "call 1 has no instrument and strike" in problem
    for rows in ({}, "x", [None], [1]):
        content = {"data": {"common_data": {}, "call": rows}}
        with pytest.raises(ProtocolError):
            read_options(answer(content), segment="nse_fo", underlying="X", expiry=None)


def test_the_documented_futures_chain(documented: Documented) -> None:
    chain = read_futures(documented("futures_chain"), segment="nse_fo", underlying="NIFTY")
    future = FutureQuote(
        instrument="nse_fo|53001",
        symbol="NIFTY26JULFUT",
        expiry=date(2026, 7, 31),
        last_price=24485.2,
        open=24455.0,
        high=24512.0,
        low=24428.0,
        close=24485.2,
        previous_close=24322.1,
        volume=9852340,
        open_interest=13930930,
        previous_open_interest=13801200,
        open_interest_change=129730,
        open_interest_change_percent=0.94,
    )
    assert chain.rows == list(chain) == [future]
    assert (chain.underlying, chain.lot_size, len(chain)) == ("NIFTY", 65, 1)
    assert chain.columns["expiry"] == [date(2026, 7, 31)]


def test_futures_stand_in_the_order_of_their_expiries() -> None:
    expiries = ["29-SEP-2026", "junk", "28-Jul-2026", "2026-08-25"]
    rows = [
        {"inst": {"neoSymbol": f"nse_fo|{number}", "expiryDt": text}}
        for number, text in enumerate(expiries)
    ]
    chain = read_futures(answer({"data": {"fut": rows}}), segment="nse_fo", underlying="X")
    assert [row.expiry for row in chain] == [
        date(2026, 7, 28),
        date(2026, 8, 25),
        date(2026, 9, 29),
        None,
    ]


# --- windows ----------------------------------------------------------------------------------

SPANS = {
    "1min": 30,
    "3min": 30,
    "5min": 30,
    "10min": 60,
    "15min": 60,
    "30min": 90,
    "60min": 90,
    "D": 180,
    "W": 180,
}
"""Days that the documents allow."""


def test_every_interval_has_its_span() -> None:
    assert {interval.value for interval in Interval} == set(SPANS)


@given(
    st.dates(date(2000, 1, 1), date(2030, 1, 1)),
    st.integers(0, 3_000),
    st.sampled_from(list(Interval)),
)
def test_windows_cover_a_range_exactly(start: date, days: int, interval: Interval) -> None:
    end = start + timedelta(days=days)
    windows = candle_windows(start, end, interval)
    assert (windows[0][0], windows[-1][1]) == (start, end)
    for first, last in windows:
        assert first <= last
        # Within the span whether or not both ends count.
        assert (last - first).days + 1 <= SPANS[interval]
    for (_, last), (first, _) in pairwise(windows):
        assert first == last + timedelta(days=1)
        if interval is Interval.WEEK:
            assert first.weekday() == 0
    longest = SPANS[interval] - 6 * (interval is Interval.WEEK)
    assert len(windows) <= -(-(days + 1 + 6) // longest)


def test_windows_reach_the_ends_of_the_calendar() -> None:
    assert candle_windows(date.max, date.max, Interval.MINUTE) == [(date.max, date.max)]
    assert candle_windows(date.min, date.min, Interval.WEEK) == [(date.min, date.min)]


# --- candles ----------------------------------------------------------------------------------


def test_the_documented_candle(documented: Documented) -> None:
    rows = read_candles(read_candle_rows(documented("candles")), [])
    start = datetime(2026, 8, 20, 9, 15, tzinfo=IST)
    assert rows == [(start, 798.5, 799.2, 797.9, 798.8, 125000, 0)]
    joiner = CandleJoiner("nse_cm|1333", Interval.MINUTES_5)
    joiner.add(rows)
    candles = joiner.candles
    assert list(candles) == [candles[0]] == [Candle(start, 798.5, 799.2, 797.9, 798.8, 125000, 0)]
    assert repr(candles) == ("<Candles nse_cm|1333 5min: 1, 2026-08-20 09:15 to 2026-08-20 09:15>")


def test_refused_candles_are_told(documented: Documented) -> None:
    with pytest.raises(Rejected, match="Invalid interval value") as caught:
        read_candle_rows(documented("candles_refused"))
    assert caught.value.code == 400
    for content in (
        {"status": "success", "data": {}},
        {"status": "success"},
        {"status": "success", "data": {"candles": {}}},
        {"data": []},
        [],
    ):
        with pytest.raises(ProtocolError):
            read_candle_rows(answer(content))


def test_a_window_without_candles_is_empty() -> None:
    for content in (
        {"status": "success", "data": {"candles": []}},
        {"status": "success", "data": {"candles": None}},
        {"stat": "Not_Ok", "stCode": 5203, "errMsg": "No Data", "desc": "data not found"},
        {"status": "ERROR", "fault": {"code": 404, "message": "No data found"}},
    ):
        assert read_candle_rows(answer(content)) == []


def candle_rows(*rows: object) -> list[msgspec.Raw]:
    return read_candle_rows(answer({"status": "success", "data": {"candles": rows}}))


def test_times_are_ist_however_they_are_written() -> None:
    start = datetime(2026, 8, 20, 9, 15, tzinfo=IST)
    for text in (
        "2026-08-20T09:15:00+0530",
        "2026-08-20T09:15:00+05:30",
        "2026-08-20T03:45:00Z",
        "2026-08-20 09:15:00",
    ):
        ((time, *_),) = read_candles(candle_rows([text, 1, 1, 1, 1, 1, 1]), [])
        assert time == start
        assert time.tzinfo is IST
    ((day, *_),) = read_candles(candle_rows(["2026-08-20", 1, 1, 1, 1, 1, 1]), [])
    assert day == datetime(2026, 8, 20, tzinfo=IST)


def test_figures_of_a_candle_may_be_text_and_volume_may_be_missing() -> None:
    time = "2026-08-20T09:15:00+0530"
    text, short, odd = read_candles(
        candle_rows(
            [time, "1.5", "2.5", "0.5", "2.0", "10", "3"],
            [time, 1, 2, 1, 2],
            [time, 1, 2, 1, 2, "NA", None, "more"],
        ),
        [],
    )
    assert text[1:] == (1.5, 2.5, 0.5, 2.0, 10, 3)
    assert short[1:] == odd[1:] == (1.0, 2.0, 1.0, 2.0, None, None)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {},
        [],
        ["2026-08-20T09:15:00+0530", 1, 2, 3],
        ["2026-08-20T09:15:00+0530", 1, None, 3, 4, 5, 6],
        ["2026-08-20T09:15:00+0530", 1, "NaN", 3, 4, 5, 6],
        ["2026-08-20T09:15:00+0530", "inf", 2, 3, 4, 5, 6],
        ["20 August", 1, 2, 3, 4, 5, 6],
        [1e300, 1, 2, 3, 4, 5, 6],
        [-1, 1, 2, 3, 4, 5, 6],
        [True, 1, 2, 3, 4, 5, 6],
        ["2026-08-20T09:15:00+0530", 1, "1,039.35", 3, 4, 5, 6],
        ["0001-01-01T00:00:00+2359", 1, 2, 3, 4, 5, 6],
    ],
)
def test_what_is_no_candle_is_left_out_and_named(bad: object) -> None:
    good = ["2026-08-20T09:15:00+0530", 1, 2, 3, 4, 5, 6]
    odd: list[str] = []
    candles = read_candles(candle_rows(good, bad, good), odd)
    assert candles == read_candles(candle_rows(good, good), [])
    (problem,) = odd
    assert "is no candle" in problem


@pytest.mark.parametrize("time", [1787197500, 1787197500.0, 1787197500000])
def test_a_candle_may_be_dated_in_unix_seconds_or_milliseconds(time: float) -> None:
    ((start, *prices),) = read_candles(candle_rows([time, 1, 2, 3, 4, 5, 6]), [])
    assert start == datetime(2026, 8, 20, 9, 15, tzinfo=IST)
    assert prices == [1.0, 2.0, 3.0, 4.0, 5, 6]


def test_of_two_candles_of_one_time_the_first_counts() -> None:
    time = "2026-08-20T09:15:00+0530"
    rows = read_candles(candle_rows([time, 1, 1, 1, 1, 1, 1], [time, 2, 2, 2, 2, 2, 2]), [])
    day = date(2026, 8, 20)
    assert candles_within(rows, (day, day), Interval.MINUTE) == rows[:1]


def test_candles_in_json_that_only_a_lenient_parser_takes_are_read() -> None:
    row = b'["2026-08-20T09:15:00+0530",1,2,3,4,5,6]'
    for body in (
        b'\xef\xbb\xbf{"status":"success","data":{"candles":[' + row + b"]}}",
        b'{"status":null,"data":{"candles":[' + row + b',["2026-08-20T09:16:00+0530",NaN,2,3,4]]}}',
    ):
        odd: list[str] = []
        ((_, *prices),) = read_candles(read_candle_rows(Answer(200, {}, body)), odd)
        assert prices == [1.0, 2.0, 3.0, 4.0, 5, 6]


MORNING = datetime(2026, 8, 20, 9, 15, tzinfo=IST)


@given(
    st.sets(st.integers(0, 200), max_size=60),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_joining_loses_and_repeats_nothing(hours: set[int], days: int, random: Any) -> None:
    """Of windows whose answers overlap, repeat and mix up their candles."""
    first, last = MORNING.date(), MORNING.date() + timedelta(days=10)
    everything = [
        (MORNING + timedelta(hours=hour), 1.0, 1.0, 1.0, 1.0, hour, None) for hour in hours
    ]
    joiner = CandleJoiner("nse_cm|1", Interval.HOUR)
    start = first
    while start <= last:
        end = min(start + timedelta(days=days - 1), last)
        inside = [row for row in everything if start <= row[0].date() <= end]
        answered = inside + random.sample(everything, min(3, len(everything)))
        random.shuffle(answered)
        joiner.add(candles_within(answered, (start, end), Interval.HOUR))
        start = end + timedelta(days=1)
    candles = joiner.candles
    assert candles.time == sorted(row[0] for row in everything)
    assert candles.volume == sorted(hours)
    assert {len(column) for column in candles.columns.values()} == {len(hours)}


def test_a_week_dated_before_its_window_is_kept_and_not_repeated() -> None:
    def week(day: int, volume: int) -> Any:
        return (datetime(2026, 8, day, tzinfo=IST), 1.0, 1.0, 1.0, 1.0, volume, None)

    joiner = CandleJoiner("nse_cm|1", Interval.WEEK)
    for rows, window in (
        ([week(3, 1), week(10, 2)], (date(2026, 8, 5), date(2026, 8, 16))),
        ([week(10, 9), week(17, 3)], (date(2026, 8, 17), date(2026, 8, 20))),
    ):
        joiner.add(candles_within(rows, window, Interval.WEEK))
    assert [time.day for time in joiner.candles.time] == [3, 10, 17]
    assert joiner.candles.volume == [1, 2, 3]


# --- frames -----------------------------------------------------------------------------------


def some_candles(count: int) -> Any:
    joiner = CandleJoiner("nse_cm|1", Interval.MINUTE)
    rows: Any = [
        (MORNING + timedelta(minutes=n), 1.0 + n, 2.0 + n, 0.5, 1.5, n or None, None)
        for n in range(count)
    ]
    joiner.add(rows)
    return joiner.candles


@pytest.mark.parametrize("count", [0, 3])
def test_candles_become_a_pandas_frame(count: int) -> None:
    pytest.importorskip("pandas")
    frame = some_candles(count).to_pandas()
    assert list(frame.columns) == list(Candle.__struct_fields__)
    assert len(frame) == count
    assert str(frame["time"].dtype).endswith("Asia/Kolkata]")
    if count:
        assert frame["time"][0].isoformat() == "2026-08-20T09:15:00+05:30"
        assert frame["open"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("count", [0, 3])
def test_candles_become_a_polars_frame(count: int) -> None:
    polars = pytest.importorskip("polars")
    frame = some_candles(count).to_polars()
    assert frame.columns == list(Candle.__struct_fields__)
    assert frame.schema["time"] == polars.Datetime("us", "Asia/Kolkata")
    assert frame.schema["open_interest"] == polars.Int64
    if count:
        assert frame["time"].to_list()[0] == MORNING.astimezone(UTC)
        assert frame["volume"].to_list() == [None, 1, 2]


def test_chains_become_frames_of_pandas(documented: Documented) -> None:
    pytest.importorskip("pandas")
    options = read_options(
        documented("option_chain"), segment="nse_fo", underlying="NIFTY", expiry=None
    )
    futures = read_futures(documented("futures_chain"), segment="nse_fo", underlying="NIFTY")
    assert options.to_pandas()["call_last_price"].tolist() == [166.75]
    assert str(futures.to_pandas()["expiry"][0].date()) == "2026-07-31"


def test_types_of_polars_columns_do_not_depend_on_what_is_missing(documented: Documented) -> None:
    polars = pytest.importorskip("polars")
    options = read_options(
        documented("option_chain"), segment="nse_fo", underlying="NIFTY", expiry=None
    )
    futures = read_futures(documented("futures_chain"), segment="nse_fo", underlying="NIFTY")
    frame = options.to_polars()
    assert frame.columns == list(options.columns)
    assert frame.schema["put_volume"] == polars.Int64
    assert frame.schema["put_symbol"] == polars.String
    assert frame.schema["call_close"] == polars.Float64
    assert futures.to_polars().schema["expiry"] == polars.Date


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_without_the_library_the_error_says_what_to_install(
    library: str, monkeypatch: pytest.MonkeyPatch, documented: Documented
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    chain = read_futures(documented("futures_chain"), segment="nse_fo", underlying="NIFTY")
    with pytest.raises(UsageError, match=rf'pip install "neo-async\[{library}\]"'):
        getattr(chain, f"to_{library}")()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "1" * 101, "1\n", ""])
def test_a_text_that_cannot_be_sent_is_refused_before_anything_is(text: str) -> None:
    with pytest.raises(UsageError, match="must be segment"):
        wire_instrument(f"nse_cm|{text}")
    with pytest.raises(UsageError, match="underlying="):
        expiries_query(Segment.NSE_FO, text, None)
