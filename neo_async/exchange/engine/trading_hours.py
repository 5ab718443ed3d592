"""The exchanges' trading hours: phases of a segment, and the events between them.

The calendar has the sessions. Intraday positions are squared off ten minutes before the close. A
day with a session in any segment begins at midnight; until Monday's, the books show Friday.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from neo_async.base.india import DAY_SECONDS, IST_SECONDS
from neo_async.calendar import Calendar
from neo_async.model.enums import Segment

SECOND_NS: Final = 1_000_000_000
_SQUARE_OFF_BEFORE: Final = 600
"""Seconds before the close at which intraday positions are squared off."""
CALENDAR: Final = Calendar(warns=False)
"""The calendar of an exchange unless it is given another one. Its future is made up anyway, so it
warns of no year."""


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


def indian_day(time_ns: int) -> int:
    """Return the days since 1970 in India."""
    return (time_ns // SECOND_NS + IST_SECONDS) // DAY_SECONDS


def phase(calendar: Calendar, segment: Segment, time_ns: int) -> Phase:
    """Return what the market of a segment does at a time."""
    second = time_ns // SECOND_NS
    for times in calendar.session_times(segment, indian_day(time_ns)):
        if times.open <= second < times.close:
            return Phase.OPEN
        if times.pre_open <= second < times.open:
            return Phase.PRE_OPEN
    return Phase.CLOSED


def next_session_events(calendar: Calendar, after_ns: int) -> list[SessionEvent]:
    """Return the events of the first minute after a time that has any, in their order."""
    day = indian_day(after_ns)
    while True:
        coming = [event for event in _events_of(calendar, day) if event.time_ns > after_ns]
        if coming:
            return [event for event in coming if event.time_ns == coming[0].time_ns]
        day += 1


def _events_of(calendar: Calendar, day: int) -> list[SessionEvent]:
    """Return the events of a day, in their order; none where nothing trades."""
    concerned: dict[tuple[int, SessionEventKind], list[Segment]] = {}
    for segment in Segment:
        for times in calendar.session_times(segment, day):
            events = [
                (times.open, SessionEventKind.OPEN),
                (times.close - _SQUARE_OFF_BEFORE, SessionEventKind.SQUARE_OFF),
                (times.close, SessionEventKind.CLOSE),
            ]
            if times.pre_open < times.open:
                events.append((times.pre_open, SessionEventKind.PRE_OPEN))
            for event in events:
                concerned.setdefault(event, []).append(segment)
    if concerned:
        concerned[day * DAY_SECONDS - IST_SECONDS, SessionEventKind.NEW_DAY] = []
    order = list(SessionEventKind)
    return [
        SessionEvent(second * SECOND_NS, kind, tuple(segments))
        for (second, kind), segments in sorted(
            concerned.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]
