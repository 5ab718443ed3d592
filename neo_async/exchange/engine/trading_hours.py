"""When the market is open: sessions of a day in India, and the moments at which they change.

Hours as of 2026, without holidays and special sessions:

    cash segments        pre-open 09:00, open 09:15, close 15:30
    equity derivatives   open 09:15, close 15:30
    currency             open 09:00, close 17:00
    commodities          open 09:00, close 23:30

Intraday positions are squared off ten minutes before the close. A trading day begins at midnight,
Monday to Friday; until Monday's, the books show Friday.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from neo_async.model.enums import Segment

SECOND_NS: Final = 1_000_000_000
_DAY_SECONDS: Final = 86_400
_IST_SECONDS: Final = 19_800
_MONDAY: Final = 4
"""The first Monday after 1970-01-01, a Thursday, in days."""
_SQUARE_OFF_BEFORE: Final = 10


class Phase(StrEnum):
    CLOSED = "closed"
    PRE_OPEN = "pre-open"
    """Orders are taken, and wait for the open."""
    OPEN = "open"


class Turn(StrEnum):
    """What a moment brings, in the order in which they come when they fall together."""

    NEW_DAY = "new day"
    PRE_OPEN = "pre-open"
    OPEN = "open"
    SQUARE_OFF = "square-off"
    CLOSE = "close"


class Moment(NamedTuple):
    time_ns: int
    turn: Turn
    segments: tuple[Segment, ...]
    """That it concerns; none for a new day, which concerns all."""


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


class _Hours(NamedTuple):
    open: int
    """Minutes after midnight."""
    close: int
    pre_open: int
    """Same as `open` where there is none."""


_CASH: Final = _Hours(_minute("09:15"), _minute("15:30"), _minute("09:00"))
_EQUITY_DERIVATIVES: Final = _Hours(_minute("09:15"), _minute("15:30"), _minute("09:15"))

_HOURS: Final = {
    Segment.NSE_CM: _CASH,
    Segment.BSE_CM: _CASH,
    Segment.NSE_FO: _EQUITY_DERIVATIVES,
    Segment.BSE_FO: _EQUITY_DERIVATIVES,
    Segment.CDE_FO: _Hours(_minute("09:00"), _minute("17:00"), _minute("09:00")),
    Segment.MCX_FO: _Hours(_minute("09:00"), _minute("23:30"), _minute("09:00")),
}


def _timetable() -> list[tuple[int, Turn, tuple[Segment, ...]]]:
    """Of one trading day, by minute."""
    concerned: dict[tuple[int, Turn], list[Segment]] = {(0, Turn.NEW_DAY): []}
    for segment, hours in _HOURS.items():
        turns = [
            (hours.open, Turn.OPEN),
            (hours.close - _SQUARE_OFF_BEFORE, Turn.SQUARE_OFF),
            (hours.close, Turn.CLOSE),
        ]
        if hours.pre_open < hours.open:
            turns.append((hours.pre_open, Turn.PRE_OPEN))
        for turn in turns:
            concerned.setdefault(turn, []).append(segment)
    order = list(Turn)
    return [
        (minute, turn, tuple(segments))
        for (minute, turn), segments in sorted(
            concerned.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]


_TIMETABLE: Final = _timetable()


def indian_day(time_ns: int) -> int:
    """Days since 1970 in IST."""
    return (time_ns // SECOND_NS + _IST_SECONDS) // _DAY_SECONDS


def is_trading_day(day: int) -> bool:
    return (day - _MONDAY) % 7 < 5


def phase(segment: Segment, time_ns: int) -> Phase:
    if not is_trading_day(indian_day(time_ns)):
        return Phase.CLOSED
    minute = (time_ns // SECOND_NS + _IST_SECONDS) % _DAY_SECONDS // 60
    hours = _HOURS[segment]
    if hours.open <= minute < hours.close:
        return Phase.OPEN
    return Phase.PRE_OPEN if hours.pre_open <= minute < hours.open else Phase.CLOSED


def next_moment(after_ns: int) -> list[Moment]:
    """What comes next after a time: all that falls on the same minute, in order."""
    day = indian_day(after_ns)
    while True:
        if is_trading_day(day):
            midnight = day * _DAY_SECONDS - _IST_SECONDS
            coming = [
                Moment((midnight + minute * 60) * SECOND_NS, turn, segments)
                for minute, turn, segments in _TIMETABLE
            ]
            coming = [moment for moment in coming if moment.time_ns > after_ns]
            if coming:
                return [moment for moment in coming if moment.time_ns == coming[0].time_ns]
        day += 1
