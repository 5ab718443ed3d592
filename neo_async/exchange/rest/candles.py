"""Candles: `GET /market-data/1.0/historical/details`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from itertools import groupby
from typing import Final, NamedTuple

from neo_async.exchange.history.synthetic import Candle
from neo_async.model.enums import Segment
from neo_async.model.market import Interval

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
"""Longest span of one request, both ends counted."""

_OPENING_MINUTE: Final = 9 * 60 + 15
"""Minute of the day from which longer candles are counted."""
_LENGTHS: Final[Mapping[Interval, int]] = {
    Interval.MINUTE: 1,
    Interval.MINUTES_3: 3,
    Interval.MINUTES_5: 5,
    Interval.MINUTES_10: 10,
    Interval.MINUTES_15: 15,
    Interval.MINUTES_30: 30,
    Interval.HOUR: 60,
}
"""Minutes."""

_SEGMENTS: Final = (Segment.NSE_CM, Segment.NSE_FO, Segment.BSE_CM, Segment.BSE_FO)

Row = list[object]
"""Time, open, high, low, close, volume, open interest."""


class CandlesRefused(Exception):
    """Carries the text of the broker's answer, which comes with code 400."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class CandleRequest(NamedTuple):
    segment: Segment
    token: str
    first: date
    last: date
    interval: Interval


def read_request(query: Mapping[str, str]) -> CandleRequest:
    """Read a request for candles. Raises CandlesRefused; the broker's words are known for an
    invalid interval only."""
    for name in ("neosymbol", "fromdate", "todate", "interval"):
        if not query.get(name):
            raise CandlesRefused(f"Missing required parameter '{name}'")
    try:
        interval = Interval(query["interval"])
    except ValueError:
        raise CandlesRefused("Invalid interval value") from None
    segment, _, token = query["neosymbol"].partition("|")
    if segment not in _SEGMENTS:
        raise CandlesRefused("Invalid neosymbol value")
    first, last = (_day(query[name]) for name in ("fromdate", "todate"))
    if last < first:
        raise CandlesRefused("fromdate must not be after todate")
    if (last - first).days >= _DAYS[interval]:
        raise CandlesRefused(
            f"Date range exceeds {_DAYS[interval]} days for interval {interval.value}"
        )
    return CandleRequest(Segment(segment), token, first, last, interval)


def _day(text: str) -> date:
    # Other ISO forms, such as 20260820, are none of the broker's.
    if len(text) == 10:
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise CandlesRefused("Invalid date value")


def candle_portions(
    request: CandleRequest,
    minutes_of: Callable[[date], Iterable[Candle]],
    whole_day: Callable[[date], Candle | None],
) -> Iterator[list[Row]]:
    """Yield the candles in ascending order, in portions; a candle without a trade is left out.

    A portion is of one day, or of one week when the candles are of days or weeks: to draw it takes
    about two milliseconds, which is why they come one by one.
    """
    days = (
        request.first + timedelta(days=number)
        for number in range((request.last - request.first).days + 1)
    )
    if request.interval in _LENGTHS:
        length = _LENGTHS[request.interval]
        for day in days:
            yield [_row(day, candle) for candle in _grouped(minutes_of(day), length)]
        return
    for monday, week in groupby(days, _monday):
        wholes = [(day, whole) for day in week if (whole := whole_day(day)) is not None]
        if request.interval is Interval.WEEK:
            joined = merged(whole for _, whole in wholes)
            wholes = [] if joined is None else [(monday, joined)]
        yield [_row(day, whole._replace(minute=0)) for day, whole in wholes]


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def merged(candles: Iterable[Candle]) -> Candle | None:
    """Merge consecutive candles into one."""
    whole: Candle | None = None
    for candle in candles:
        whole = candle if whole is None else _joined(whole, candle)
    return whole


def _grouped(minutes: Iterable[Candle], length: int) -> Iterator[Candle]:
    """Yield candles of so many minutes, counted from 09:15."""
    if length == 1:
        yield from minutes
        return
    group: Candle | None = None
    for candle in minutes:
        start = (candle.minute - _OPENING_MINUTE) // length * length + _OPENING_MINUTE
        start = max(0, start)
        if group is not None and group.minute == start:
            group = _joined(group, candle)
        else:
            if group is not None:
                yield group
            group = candle._replace(minute=start)
    if group is not None:
        yield group


def _joined(first: Candle, second: Candle) -> Candle:
    return Candle(
        first.minute,
        first.open,
        max(first.high, second.high),
        min(first.low, second.low),
        second.close,
        first.volume + second.volume,
        second.open_interest,
    )


def _row(day: date, candle: Candle) -> Row:
    hour, minute = divmod(candle.minute, 60)
    return [
        f"{day.isoformat()}T{hour:02d}:{minute:02d}:00+0530",
        candle.open / 100,
        candle.high / 100,
        candle.low / 100,
        candle.close / 100,
        candle.volume,
        candle.open_interest,
    ]
