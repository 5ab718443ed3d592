"""Candles over REST: the windows of requests, and the candles of their answers."""

from __future__ import annotations

import math
import re
import reprlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from operator import itemgetter, lt
from typing import Final, TypeAlias

import msgspec

from neo_async.base.india import IST
from neo_async.errors import Rejected, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.market import Candles, Interval
from neo_async.wire.answers import failure, is_success, shown
from neo_async.wire.lenient import UNREADABLE, read_json
from neo_async.wire.quotes import wire_instrument
from neo_async.wire.values import LATEST, check_day, number_of, whole_of

Window: TypeAlias = tuple[date, date]
"""First and last day of one request."""

CandleValues: TypeAlias = tuple[datetime, float, float, float, float, int | None, int | None]
"""A candle: start in IST, open, high, low, close, volume, open interest."""

_WITH_CANDLES: Final = (Segment.NSE_CM, Segment.NSE_FO, Segment.BSE_CM, Segment.BSE_FO)

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
"""Longest window of one request, in days. Whether the broker counts both ends is not documented;
this client does."""


def candles_query(instrument: str, interval: Interval, window: Window) -> dict[str, str]:
    """Return the query for one window."""
    first, last = window
    return {
        "neosymbol": instrument,
        "fromdate": first.isoformat(),
        "todate": last.isoformat(),
        "interval": interval.value,
    }


def candle_instrument(instrument: object) -> str:
    """Return the instrument in the broker's notation. Raises UsageError when it cannot have
    candles."""
    name = wire_instrument(instrument)
    if name.partition("|")[0] not in _WITH_CANDLES:
        codes = ", ".join(_WITH_CANDLES)
        raise UsageError(f"instrument {instrument!r}: the broker has candles of {codes} only")
    return name


def candle_windows(start: date, end: date, interval: Interval) -> list[Window]:
    """Cut a range, both ends included, into windows that the broker allows.

    Weeks are cut between Sunday and Monday only: each half of a week cut elsewhere would come back
    as a week of its own. Raises UsageError when the range ends before it starts.
    """
    if check_day("end", end) < check_day("start", start):
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
    """Return the rows of `GET /market-data/1.0/historical/details`. They are many, so they are
    decoded later, in portions."""
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
    # The answer for a window without candles is not documented. Order books use this text.
    if isinstance(error, Rejected) and _NO_DATA.search(error.text):
        return []
    raise error


def _odd_candle_rows(answer: Answer) -> list[msgspec.Raw] | None:
    """Return the rows of an answer that is not quite as documented; None when it has none."""
    try:
        content = read_json(answer.body)
    except UNREADABLE:
        return None
    data = content.get("data") if isinstance(content, dict) and is_success(content) else None
    rows = data.get("candles") if isinstance(data, dict) else None
    return [msgspec.Raw(_encoded(row)) for row in rows] if isinstance(rows, list) else None


def _encoded(row: object) -> bytes:
    """Return the JSON of a row; of its text, when a number has no JSON."""
    try:
        return msgspec.json.encode(row)
    except UNREADABLE:  # a number beyond any
        return msgspec.json.encode(reprlib.repr(row))


def read_candles(rows: Sequence[msgspec.Raw], odd: list[str]) -> list[CandleValues]:
    """Decode rows. An unreadable row is left out, and described in `odd`."""
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
    """Return a row of which a value is not as documented; None when it is not a candle."""
    try:
        row = read_json(bytes(raw))
    except UNREADABLE:
        return None
    if not isinstance(row, list) or len(row) < 5:
        return None
    time = _candle_time(row[0])
    open_, high, low, close = map(number_of, row[1:5])
    if time is None or open_ is None or high is None or low is None or close is None:
        return None
    volume, interest, *_ = (*map(whole_of, row[5:7]), None, None)
    return _CandleRow(time, open_, high, low, close, volume, interest)


def _candle_time(value: object) -> str | None:
    """Return the text of a time, which may be a number: Unix seconds, or milliseconds."""
    if isinstance(value, str):
        return value
    number = number_of(value)
    if number is not None and abs(number) >= _MILLISECONDS_FROM:
        number /= 1000
    if number is None or not 0 < number < LATEST:
        return None
    return datetime.fromtimestamp(number, IST).isoformat()


_MILLISECONDS_FROM: Final = 10**11
"""Smallest number that is read as milliseconds: as seconds, it is a time in the year 5138."""


def candles_within(
    rows: list[CandleValues], window: Window, interval: Interval
) -> list[CandleValues]:
    """Return the candles of a window from the rows of its answer, ascending, each time once.

    Candles outside belong to another window; but a week may be dated before the first day. Of two
    candles with one time, the first is kept, whatever the other holds.
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
    """Joins ascending candles, portion by portion."""

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
        """Candles joined so far."""

    def add(self, rows: list[CandleValues]) -> None:
        """Append a portion. Candles that are not later than the last one are repetitions."""
        times = self.candles.time
        if times:
            rows = rows[bisect_right(rows, times[-1], key=itemgetter(0)) :]
        for column, values in zip(
            self.candles.columns.values(), zip(*rows, strict=True), strict=False
        ):
            column.extend(values)
