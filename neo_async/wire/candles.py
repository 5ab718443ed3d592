"""Candles over REST: the windows of a request, and the candles of its answers."""

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

from neo_async.errors import Rejected, UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.market import IST, Candles, Interval
from neo_async.wire.answers import failure, is_success, shown
from neo_async.wire.lenient import UNREADABLE, read_json
from neo_async.wire.quotes import wire_instrument
from neo_async.wire.values import LATEST, check_day, number_of, whole_of

Window: TypeAlias = tuple[date, date]
"""First and last day of one request."""

CandleValues: TypeAlias = tuple[datetime, float, float, float, float, int | None, int | None]
"""Start in IST, open, high, low, close, volume, open interest."""

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
"""Longest span of one request. Whether the broker counts both ends is not documented; we do."""


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
    open_, high, low, close = map(number_of, row[1:5])
    if time is None or open_ is None or high is None or low is None or close is None:
        return None
    volume, interest, *_ = (*map(whole_of, row[5:7]), None, None)
    return _CandleRow(time, open_, high, low, close, volume, interest)


def _candle_time(value: object) -> str | None:
    """The text of a time, which may be a number: Unix seconds, or milliseconds."""
    if isinstance(value, str):
        return value
    number = number_of(value)
    if number is not None and abs(number) >= _MILLISECONDS_FROM:
        number /= 1000
    if number is None or not 0 < number < LATEST:
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
