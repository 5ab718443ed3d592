"""Market data over REST: what is asked, in which portions, and what the answers say.

Quotes come with every number in a string, chains with some, candles with none. A figure that is
missing or cannot be read is None: it is one of many, and the others are no less right for it.
"""

from __future__ import annotations

import math
import re
import reprlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from operator import itemgetter, lt
from typing import Any, Final, TypeAlias
from urllib.parse import quote as percent_encoded

import msgspec

from neo_async.errors import ProtocolError, Rejected, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.india import IST
from neo_async.model.indices import exact_index_name
from neo_async.model.market import (
    Candles,
    ChainRow,
    FutureQuote,
    FuturesChain,
    Interval,
    OptionChain,
    OptionQuote,
    Quote,
    QuoteFilter,
)
from neo_async.model.numbers import Number, Whole
from neo_async.model.ticks import DepthRow
from neo_async.wire.answers import failure, is_empty_book, is_success, shown
from neo_async.wire.lenient import UNREADABLE, read_json
from neo_async.wire.rows import check_row_count, read_object

Window: TypeAlias = tuple[date, date]
"""First and last day of one request."""

CandleValues: TypeAlias = tuple[datetime, float, float, float, float, int | None, int | None]
"""Start in IST, open, high, low, close, volume, open interest."""

UNKNOWN_INSTRUMENT: Final = 1009
"""Code of an answer to instruments of which the broker knows none."""

QUOTES_PER_CALL: Final = 50
CHAIN_STEP: Final = 10
"""`count` of a chain is a multiple of this."""

_DAYS: Final[Mapping[Interval, int]] = {
    Interval.MINUTE: 30,
    Interval.MINUTES_3: 30,
    Interval.MINUTES_5: 30,
    Interval.MINUTES_10: 60,
    Interval.MINUTES_15: 60,
    Interval.MINUTES_30: 90,
    Interval.HOUR: 90,
    Interval.DAY: 180,
    Interval.WEEK: 180,
}
"""Longest span of one request. Whether the broker counts both ends is not documented; we do."""

_SEGMENTS: Final = frozenset(Segment)
_WITH_CHAINS: Final = (Segment.NSE_FO, Segment.BSE_FO, Segment.MCX_FO)
_WITH_CANDLES: Final = (Segment.NSE_CM, Segment.NSE_FO, Segment.BSE_CM, Segment.BSE_FO)

# Without control characters, and without halves of surrogate pairs, which no UTF-8 can carry.
_TOKEN: Final = re.compile(
    r"[^|,/\x00-\x1f\x7f\ud800-\udfff]{0,99}[^|,/\s\x00-\x1f\x7f\ud800-\udfff]"
)
_UNDERLYING: Final = re.compile(
    r"[^\s\x00-\x1f\x7f\ud800-\udfff]"
    r"(?:[^\x00-\x1f\x7f\ud800-\udfff]{0,98}[^\s\x00-\x1f\x7f\ud800-\udfff])?"
)


# --- what is asked ----------------------------------------------------------------------------


def wire_instrument(instrument: object) -> str:
    """An instrument as the broker wants it: indices by their exact name.

    Raises UsageError when it is not `segment|token` of a known segment.
    """
    segment, _, token = instrument.partition("|") if isinstance(instrument, str) else ("", "", "")
    if segment not in _SEGMENTS or not _TOKEN.fullmatch(token):
        raise UsageError(
            f"instrument {instrument!r}: must be segment|token, such as 'nse_cm|1333', or "
            "segment|index, such as 'nse_cm|Nifty 50'"
        )
    return f"{segment}|{exact_index_name(segment, token) or token}"


def quotes_path(instruments: Iterable[str], filter: QuoteFilter) -> str:  # noqa: A002
    """What follows the endpoint's path. `|` and `,` stay as they are: the broker splits there."""
    listed = ",".join(percent_encoded(name, safe="|") for name in instruments)
    return f"/{listed}/{filter.value}"


def batches(instruments: Sequence[str]) -> list[list[str]]:
    """As few as the broker allows."""
    starts = range(0, len(instruments), QUOTES_PER_CALL)
    return [list(instruments[start : start + QUOTES_PER_CALL]) for start in starts]


def expiries_query(segment: Segment | str, underlying: str, kind: str | None) -> dict[str, str]:
    """Raises UsageError when a field breaks a rule."""
    query = _underlying_query(segment, underlying)
    if kind is not None:
        if kind not in ("option", "fut"):
            raise UsageError(f"kind={kind!r}: must be 'option' or 'fut'")
        query["instrument_type"] = kind
    return query


def options_query(
    segment: Segment | str, underlying: str, expiry: date | None, count: int
) -> dict[str, str]:
    """Raises UsageError when a field breaks a rule."""
    if type(count) is not int or count <= 0 or count % CHAIN_STEP:
        raise UsageError(f"count={count!r}: must be a multiple of {CHAIN_STEP} above 0")
    query = _underlying_query(segment, underlying) | {"instrument_type": "option"}
    return query | _expiry_query(expiry) | {"count": str(count)}


def futures_query(segment: Segment | str, underlying: str, expiry: date | None) -> dict[str, str]:
    """Raises UsageError when a field breaks a rule."""
    query = _underlying_query(segment, underlying) | {"instrument_type": "fut"}
    return query | _expiry_query(expiry)


def _underlying_query(segment: Segment | str, underlying: str) -> dict[str, str]:
    if segment not in _WITH_CHAINS:
        codes = ", ".join(_WITH_CHAINS)
        raise UsageError(f"segment={str(segment)!r}: must be one of {codes}")
    if not isinstance(underlying, str) or not _UNDERLYING.fullmatch(underlying):
        raise UsageError(f"underlying={underlying!r}: must be a name such as 'NIFTY'")
    return {"exchange": str(segment), "underlying": underlying}


def _expiry_query(expiry: date | None) -> dict[str, str]:
    if expiry is None:
        return {}
    return {"expiry": _day("expiry", expiry).isoformat()}


def candles_query(instrument: str, interval: Interval, window: Window) -> dict[str, str]:
    first, last = window
    return {
        "neosymbol": instrument,
        "fromdate": first.isoformat(),
        "todate": last.isoformat(),
        "interval": interval.value,
    }


def candle_instrument(instrument: object) -> str:
    """Raises UsageError when there are no candles of such an instrument."""
    name = wire_instrument(instrument)
    if name.partition("|")[0] not in _WITH_CANDLES:
        codes = ", ".join(_WITH_CANDLES)
        raise UsageError(f"instrument {instrument!r}: the broker has candles of {codes} only")
    return name


def candle_windows(start: date, end: date, interval: Interval) -> list[Window]:
    """Cut a range, both ends included, into spans that the broker allows.

    Weeks are cut between Sunday and Monday only: each half of a week cut elsewhere would come
    back as a week of its own. Raises UsageError when the range ends before it starts.
    """
    if _day("end", end) < _day("start", start):
        raise UsageError(f"end={end}: must not be before start={start}")
    windows = []
    span = timedelta(days=_DAYS[interval] - 1)
    first = start
    while end - first > span:
        last = first + span
        if interval is Interval.WEEK:
            last -= timedelta(days=(last.weekday() + 1) % 7)
        windows.append((first, last))
        first = last + timedelta(days=1)
    windows.append((first, end))
    return windows


def _day(field: str, value: date) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise UsageError(f"{field}={value!r}: must be a datetime.date, which counts in IST")
    return value


# --- quotes -----------------------------------------------------------------------------------


def read_quotes(answer: Answer) -> list[Quote]:
    """`GET /script-details/1.0/quotes/neosymbol/…`: every row that names an instrument."""
    content = _parse(answer)
    if isinstance(content, dict) and "data" in content:
        read_object(answer)  # raises when it says that it is no success
        content = content["data"]
    if not isinstance(content, list):
        if is_empty_book(answer):
            return []
        raise failure(answer)
    check_row_count(content, answer)
    return [_quote(row) for row in content if isinstance(row, dict)]


def match_quotes(asked: Sequence[str], quotes: Sequence[Quote]) -> dict[str, Quote]:
    """Quotes by the instrument that was asked; what was not asked is dropped.

    Rows come in any order, and not all of them as they were asked: an index may be called in
    another case or by its number, and the segment may be left out.
    """
    found = {_folded(quote.instrument): quote for quote in reversed(quotes)}
    tokens = Counter(_token(name) for name in asked)
    matched = {}
    for name in asked:
        quote = found.get(_folded(name))
        if quote is None and tokens[_token(name)] == 1:
            quote = found.get(f"|{_token(name)}")
        if quote is not None:
            matched[name] = msgspec.structs.replace(quote, instrument=name)
    return matched


def _folded(instrument: str) -> str:
    segment, _, token = instrument.casefold().partition("|")
    return f"{segment}|{exact_index_name(segment, token) or token}".casefold()


def _token(instrument: str) -> str:
    return _folded(instrument).partition("|")[2]


def _quote(row: Mapping[str, object]) -> Quote:
    ohlc = _object(row.get("ohlc"))
    depth = _object(row.get("depth"))
    return Quote(
        instrument=f"{_text(row.get('exchange'))}|{_text(row.get('exchange_token'))}",
        symbol=_text(row.get("display_symbol")),
        last_update_time=_time(row.get("lstup_time")),
        last_price=_number(row.get("ltp")),
        last_quantity=_whole(row.get("last_traded_quantity")),
        open=_number(ohlc.get("open")),
        high=_number(ohlc.get("high")),
        low=_number(ohlc.get("low")),
        close=_number(ohlc.get("close")),
        change=_number(row.get("change")),
        change_percent=_number(row.get("per_change")),
        average_price=_number(row.get("avg_cost")),
        volume=_whole(row.get("last_volume")),
        total_buy_quantity=_whole(row.get("total_buy")),
        total_sell_quantity=_whole(row.get("total_sell")),
        open_interest=_whole(row.get("open_int")),
        lower_circuit=_number(row.get("low_price_range")),
        upper_circuit=_number(row.get("high_price_range")),
        year_high=_number(row.get("year_high")),
        year_low=_number(row.get("year_low")),
        bids=_depth(depth.get("buy")),
        asks=_depth(depth.get("sell")),
    )


_MOST_LEVELS: Final = 200
"""Prices of one side of a book, of which the broker sends five."""


def _depth(rows: object) -> tuple[DepthRow, ...]:
    """Levels without quantity are how the broker fills up to five."""
    if not isinstance(rows, list):
        return ()
    levels = []
    for row in map(_object, rows[:_MOST_LEVELS]):
        price, quantity = _number(row.get("price")), _whole(row.get("quantity"))
        if price is not None and quantity:
            levels.append(DepthRow(quantity, price, _whole(row.get("orders")) or 0))
    return tuple(levels)


# --- expiries and chains ----------------------------------------------------------------------


def read_expiries(answer: Answer) -> list[date]:
    """`GET /market-data/1.0/watchlist/expiries`, ascending.

    Raises ProtocolError that names what is no date.
    """
    listed = read_object(answer).get("expiries")
    if not isinstance(listed, list):
        raise failure(answer)
    days = set()
    for text in listed:
        day = _date(text)
        if day is None:
            raise ProtocolError(
                f"expiry {shown(text)} is not a date such as 2026-06-25",
                status=answer.status,
            )
        days.add(day)
    return sorted(days)


def read_options(
    answer: Answer, *, segment: str, underlying: str, expiry: date | None
) -> OptionChain:
    """`GET /market-data/1.0/watchlist/option-chain` of options.

    An option without instrument or strike is left out, and named in the chain's `odd`. Raises
    ProtocolError when that leaves nothing.
    """
    content, common = _chain(answer, ("call", "put"))
    sides: dict[str, dict[float, OptionQuote]] = {"call": {}, "put": {}}
    odd = []
    for side, options in sides.items():
        for number, row in enumerate(_rows(content.get(side), answer), start=1):
            identity = _object(row.get("instrument") or row.get("inst"))
            strike = _number(identity.get("strikePrice"))
            instrument = _text(identity.get("neoSymbol"))
            if strike is None or not instrument:
                odd.append(f"{side} {number} has no instrument and strike: {shown(identity)}")
                continue
            option = OptionQuote(
                instrument=instrument,
                symbol=_text(identity.get("symbol")),
                moneyness=_text(identity.get("moneyness")),
                **_figures(row),
            )
            options.setdefault(strike, option)
    calls, puts = sides.values()
    _check_some(odd, [*calls, *puts], answer)
    return OptionChain(
        segment=_text(common.get("exSeg")) or segment,
        underlying=_text(common.get("unlSymbol")) or underlying,
        expiry=_date(common.get("expiryDt")) or expiry,
        lot_size=_whole(common.get("mktLot")),
        multiplier=_number(common.get("multiplier")),
        rows=[
            ChainRow(strike, calls.get(strike), puts.get(strike))
            for strike in sorted(calls.keys() | puts.keys())
        ],
        odd=tuple(odd),
    )


def read_futures(answer: Answer, *, segment: str, underlying: str) -> FuturesChain:
    """`GET /market-data/1.0/watchlist/option-chain` of futures.

    A contract without instrument is left out, and named in the chain's `odd`. Raises
    ProtocolError when that leaves nothing.
    """
    content, common = _chain(answer, ("fut",))
    futures = []
    odd = []
    for number, row in enumerate(_rows(content.get("fut"), answer), start=1):
        identity = _object(row.get("inst") or row.get("instrument"))
        instrument = _text(identity.get("neoSymbol"))
        if not instrument:
            odd.append(f"future {number} has no instrument: {shown(identity)}")
            continue
        futures.append(
            FutureQuote(
                instrument=instrument,
                symbol=_text(identity.get("symbol")),
                expiry=_date(identity.get("expiryDt")),
                **_figures(row),
            )
        )
    _check_some(odd, futures, answer)
    return FuturesChain(
        segment=_text(common.get("exSeg")) or segment,
        underlying=_text(common.get("unlSymbol")) or underlying,
        lot_size=_whole(common.get("mktLot")),
        multiplier=_number(common.get("multiplier")),
        rows=sorted(futures, key=lambda future: future.expiry or date.max),
        odd=tuple(odd),
    )


def _check_some(odd: list[str], read: Sequence[object], answer: Answer) -> None:
    if odd and not read:
        raise ProtocolError(f"the chain cannot be read: {odd[0]}", status=answer.status)


def _chain(
    answer: Answer, parts: tuple[str, ...]
) -> tuple[Mapping[str, object], Mapping[str, object]]:
    content = read_object(answer)
    if "common_data" not in content and not any(part in content for part in parts):
        raise failure(answer)
    return content, _object(content.get("common_data"))


def _rows(rows: object, answer: Answer) -> Iterator[Mapping[str, object]]:
    if rows is None:
        return
    if not isinstance(rows, list):
        raise ProtocolError("the chain is not a list of objects", status=answer.status)
    check_row_count(rows, answer)
    yield from map(_object, rows)


def _figures(row: Mapping[str, object]) -> dict[str, Any]:
    """Prices and open interest of a contract. Options have whole names, futures short ones."""
    quote = _object(row.get("quote"))
    interest = _object(row.get("openInterest") or row.get("oi"))
    return {
        "last_price": _number(quote.get("ltp")),
        "open": _number(quote.get("open", quote.get("o"))),
        "high": _number(quote.get("high", quote.get("h"))),
        "low": _number(quote.get("low", quote.get("l"))),
        "previous_close": _number(quote.get("prevClose", quote.get("pc"))),
        "close": _number(quote.get("close", quote.get("c"))),
        "volume": _whole(quote.get("volume", quote.get("vol"))),
        "open_interest": _whole(interest.get("current", interest.get("cur"))),
        "previous_open_interest": _whole(interest.get("previous", interest.get("prev"))),
        "open_interest_change": _whole(interest.get("change", interest.get("chg"))),
        "open_interest_change_percent": _number(interest.get("changePct", interest.get("chgPct"))),
    }


# --- candles ----------------------------------------------------------------------------------


class _CandleData(msgspec.Struct):
    candles: list[msgspec.Raw] | None


class _CandleAnswer(msgspec.Struct):
    data: _CandleData
    status: str = "success"


class _CandleRow(msgspec.Struct, array_like=True, gc=False):
    time: str
    open: float
    high: float
    low: float
    close: float
    volume: int | None = None
    open_interest: int | None = None


_CANDLE_ANSWER = msgspec.json.Decoder(_CandleAnswer, strict=False)
_NO_DATA = re.compile("no data|data not found", re.IGNORECASE)
_CANDLE_ROWS = msgspec.json.Decoder(list[_CandleRow], strict=False)


def read_candle_rows(answer: Answer) -> list[msgspec.Raw]:
    """`GET /market-data/1.0/historical/details`: the rows, not decoded yet, for they are many."""
    if 200 <= answer.status < 300:
        try:
            content = _CANDLE_ANSWER.decode(answer.body)
        except UNREADABLE:
            rows = _odd_candle_rows(answer)
            if rows is not None:
                return rows
        else:
            if content.status.strip().lower() in ("success", "ok"):
                return content.data.candles or []
    error = failure(answer)
    # How a window without a candle is answered is not documented; books say it in these words.
    if isinstance(error, Rejected) and _NO_DATA.search(error.text):
        return []
    raise error


def _odd_candle_rows(answer: Answer) -> list[msgspec.Raw] | None:
    """The rows of an answer that is not quite as documented; None when it has none."""
    try:
        content = read_json(answer.body)
    except UNREADABLE:
        return None
    data = content.get("data") if isinstance(content, dict) and is_success(content) else None
    rows = data.get("candles") if isinstance(data, dict) else None
    return [msgspec.Raw(_encoded(row)) for row in rows] if isinstance(rows, list) else None


def _encoded(row: object) -> bytes:
    try:
        return msgspec.json.encode(row)
    except UNREADABLE:  # a number beyond any
        return msgspec.json.encode(reprlib.repr(row))


def read_candles(rows: Sequence[msgspec.Raw], odd: list[str]) -> list[CandleValues]:
    """Decode rows. One that is no candle is left out, and what stood there is added to `odd`."""
    candles: Sequence[_CandleRow | None]
    try:
        candles = _CANDLE_ROWS.decode(b"[" + b",".join(rows) + b"]")
    except UNREADABLE:
        candles = [_candle_row(row) for row in rows]
    decoded = []
    for candle, row in zip(candles, rows, strict=True):
        if candle is not None:
            prices = (candle.open, candle.high, candle.low, candle.close)
            try:
                start = datetime.fromisoformat(candle.time)
                start = start.astimezone(IST) if start.tzinfo else start.replace(tzinfo=IST)
            except (ValueError, OverflowError):
                pass
            else:
                if math.isfinite(sum(prices)):
                    decoded.append((start, *prices, candle.volume, candle.open_interest))
                    continue
        text = bytes(row).decode("utf-8", "replace")
        odd.append(
            f"{shown(text)} is no candle: must be time, open, high, low, close, volume, "
            "open interest"
        )
    return decoded


def _candle_row(raw: msgspec.Raw) -> _CandleRow | None:
    """A row of which some figure is not as documented; None when it is no candle."""
    try:
        row = read_json(bytes(raw))
    except UNREADABLE:
        return None
    if not isinstance(row, list) or len(row) < 5:
        return None
    time = _candle_time(row[0])
    open_, high, low, close = map(_number, row[1:5])
    if time is None or open_ is None or high is None or low is None or close is None:
        return None
    volume, interest, *_ = (*map(_whole, row[5:7]), None, None)
    return _CandleRow(time, open_, high, low, close, volume, interest)


def _candle_time(value: object) -> str | None:
    """The text of a time, which may be a number: Unix seconds, or milliseconds."""
    if isinstance(value, str):
        return value
    number = _number(value)
    if number is not None and abs(number) >= _MILLISECONDS_FROM:
        number /= 1000
    if number is None or not 0 < number < _LATEST:
        return None
    return datetime.fromtimestamp(number, IST).isoformat()


_MILLISECONDS_FROM: Final = 10**11
"""As seconds, a time in the year 5138."""


def candles_within(
    rows: list[CandleValues], window: Window, interval: Interval
) -> list[CandleValues]:
    """What the answer for a window says about that window, ascending, no time twice.

    What lies outside belongs to another window; but a week may be dated before the first day. Of
    two candles of one time the first counts, whatever the other says.
    """
    times = [row[0] for row in rows]
    if not all(map(lt, times, times[1:])):
        rows = sorted({row[0]: row for row in reversed(rows)}.values())
        times = [row[0] for row in rows]
    if interval is Interval.WEEK:
        return rows
    first, last = window
    start = bisect_left(times, datetime.combine(first, time.min, IST))
    end = bisect_right(times, datetime.combine(last, time.max, IST))
    return rows[start:end]


class CandleJoiner:
    """Puts ascending candles together, portion after portion."""

    def __init__(self, instrument: str, interval: Interval) -> None:
        self.candles = Candles(
            instrument=instrument,
            interval=interval,
            time=[],
            open=[],
            high=[],
            low=[],
            close=[],
            volume=[],
            open_interest=[],
        )

    def add(self, rows: list[CandleValues]) -> None:
        """Take the next portion. What is not later than what is there already is a repetition."""
        times = self.candles.time
        if times:
            rows = rows[bisect_right(rows, times[-1], key=itemgetter(0)) :]
        for column, values in zip(
            self.candles.columns.values(), zip(*rows, strict=True), strict=False
        ):
            column.extend(values)


# --- values -----------------------------------------------------------------------------------


def _parse(answer: Answer) -> object:
    if not 200 <= answer.status < 300:
        raise failure(answer)
    try:
        return read_json(answer.body)
    except UNREADABLE as error:
        raise failure(answer) from error


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _number(value: object) -> float | None:
    if isinstance(value, str):
        value = value.strip()
    try:
        return msgspec.convert(value, Number, strict=False)
    except UNREADABLE:
        return None


def _whole(value: object) -> int | None:
    """Quantities come as `550`, now and then as `550.0`."""
    if isinstance(value, str):
        value = value.strip()
    try:
        return msgspec.convert(value, Whole, strict=False)
    except UNREADABLE:
        number = _number(value)
        if number is None or not number.is_integer() or abs(number) > _LARGEST_WHOLE:
            return None
        return int(number)


_LARGEST_WHOLE: Final = 2**53


_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)

_LATEST: Final = 253_402_300_799
"""Last second of the year 9999; nothing later is a time."""


def _time(value: object) -> int | None:
    seconds = _whole(value)
    return seconds if seconds is not None and 0 < seconds < _LATEST else None


def _date(value: object) -> date | None:
    """`2026-06-23`, or `31-JUL-2026` as futures have it."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        day, month, year = text.split("-")
        if month.isalpha():
            return date(int(year), _MONTHS.index(month.upper()) + 1, int(day))
        return date.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
