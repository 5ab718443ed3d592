"""The exchanges' trading hours: sessions of a day in India, and the events between them.

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

from neo_async.base.india import DAY_SECONDS, IST_SECONDS
from neo_async.model.enums import Segment

SECOND_NS: Final = 1_000_000_000
_MONDAY: Final = 4
"""The first Monday after 1970-01-01, a Thursday, in days since that date."""
_SQUARE_OFF_BEFORE: Final = 10
"""Minutes before the close at which intraday positions are squared off."""


class Phase(StrEnum):
    """The phase of a market at a time of day."""

    CLOSED = "closed"
    PRE_OPEN = "pre-open"
    """Orders are accepted, and wait for the open."""
    OPEN = "open"


class SessionEventKind(StrEnum):
    """The effect of a session event. Events of the same minute happen in this order."""

    NEW_DAY = "new day"
    PRE_OPEN = "pre-open"
    OPEN = "open"
    SQUARE_OFF = "square-off"
    CLOSE = "close"


class SessionEvent(NamedTuple):
    """A change of the session at a time."""

    time_ns: int
    kind: SessionEventKind
    segments: tuple[Segment, ...]
    """Segments that the event concerns; none for a new day, which concerns all."""


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


class _Hours(NamedTuple):
    """Minutes after midnight in India."""

    open: int
    close: int
    pre_open: int
    """Start of the pre-open session; the same as `open` where there is none."""


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


def _timetable() -> list[tuple[int, SessionEventKind, tuple[Segment, ...]]]:
    """Return the events of one trading day, by minute."""
    concerned: dict[tuple[int, SessionEventKind], list[Segment]] = {
        (0, SessionEventKind.NEW_DAY): []
    }
    for segment, hours in _HOURS.items():
        events = [
            (hours.open, SessionEventKind.OPEN),
            (hours.close - _SQUARE_OFF_BEFORE, SessionEventKind.SQUARE_OFF),
            (hours.close, SessionEventKind.CLOSE),
        ]
        if hours.pre_open < hours.open:
            events.append((hours.pre_open, SessionEventKind.PRE_OPEN))
        for event in events:
            concerned.setdefault(event, []).append(segment)
    order = list(SessionEventKind)
    return [
        (minute, kind, tuple(segments))
        for (minute, kind), segments in sorted(
            concerned.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]


_TIMETABLE: Final = _timetable()


def indian_day(time_ns: int) -> int:
    """Return the days since 1970 in India."""
    return (time_ns // SECOND_NS + IST_SECONDS) // DAY_SECONDS


def is_trading_day(day: int) -> bool:
    """Return whether a day, in days since 1970, is one from Monday to Friday."""
    return (day - _MONDAY) % 7 < 5


def phase(segment: Segment, time_ns: int) -> Phase:
    """Return what the market of a segment does at a time."""
    if not is_trading_day(indian_day(time_ns)):
        return Phase.CLOSED
    minute = (time_ns // SECOND_NS + IST_SECONDS) % DAY_SECONDS // 60
    hours = _HOURS[segment]
    if hours.open <= minute < hours.close:
        return Phase.OPEN
    return Phase.PRE_OPEN if hours.pre_open <= minute < hours.open else Phase.CLOSED


def next_session_events(after_ns: int) -> list[SessionEvent]:
    """Return the events of the first minute after a time that has any, in their order."""
    day = indian_day(after_ns)
    while True:
        if is_trading_day(day):
            midnight = day * DAY_SECONDS - IST_SECONDS
            coming = [
                SessionEvent((midnight + minute * 60) * SECOND_NS, kind, segments)
                for minute, kind, segments in _TIMETABLE
            ]
            coming = [event for event in coming if event.time_ns > after_ns]
            if coming:
                return [event for event in coming if event.time_ns == coming[0].time_ns]
        day += 1
