"""Whether a segment is in session, by the calendar and the feed's status messages."""

from __future__ import annotations

from collections.abc import Iterable

from neo_async.calendar import MARKETS, Calendar
from neo_async.model.enums import Segment
from neo_async.model.ticks import MarketState, MarketStatus


def is_trading_time(calendar: Calendar, segments: Iterable[str]) -> bool:
    """Return whether any of the segments trades now, by the calendar."""
    return any(calendar.is_open(_market_of(segment)) for segment in segments)


class MarketHours:
    """The sessions of the calendar, corrected by the feed's status messages."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._closed_at: dict[str, float] = {}
        """Unix seconds at which each segment was last reported closed; absent once it was reported
        open."""

    def apply_status(self, status: MarketStatus) -> None:
        """Take note of a status message."""
        if status.code in (MarketState.CLOSED, MarketState.CLOSING_ENDED):
            self._closed_at[status.segment] = self._calendar.now()
        else:
            self._closed_at.pop(status.segment, None)

    def is_open(self, segments: Iterable[str]) -> bool:
        """Return whether any of the segments trades now, as far as is known."""
        return any(
            is_trading_time(self._calendar, [each]) and not self._is_reported_closed(each)
            for each in segments
        )

    def _is_reported_closed(self, segment: str) -> bool:
        """Return whether the segment was reported closed, and has not opened since."""
        at = self._closed_at.get(segment)
        if at is None:
            return False
        return self._calendar.next_open(_market_of(segment), at).timestamp() > self._calendar.now()

    @property
    def closed(self) -> frozenset[str]:
        """Segments that were reported closed and not open since."""
        return frozenset(self._closed_at)


def _market_of(segment: str) -> str:
    """Return the market whose hours a segment has; those of shares where it is not known, for feeds
    and order books may name others."""
    return segment if segment in MARKETS else Segment.NSE_CM
