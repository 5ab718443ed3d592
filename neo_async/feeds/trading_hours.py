"""Trading hours: whether a segment is in session.

The hours of the week are known; holidays and special sessions are not. The feed's status messages
show when a segment has closed early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from neo_async.base.india import IST, in_india
from neo_async.model.ticks import MarketState, MarketStatus

_EQUITY_HOURS = (9 * 60 + 15, 15 * 60 + 30)
_HOURS: Mapping[str, tuple[int, int]] = {
    "mcx_fo": (9 * 60, 23 * 60 + 30),
    "cde_fo": (9 * 60, 17 * 60),
}
"""First minute of the day in India at which a segment trades, and the one at which it ends, where
they differ from those of equity."""


def is_trading_time(segments: Iterable[str], at: float) -> bool:
    """Return whether any of the segments trades at that time of the week, in Unix seconds. Holidays
    and special sessions are not known."""
    moment = in_india(at)
    return any(_is_session(segment, moment) for segment in segments)


def is_in_session(segment: str) -> bool:
    """Return whether a segment trades at this time of the week, by this machine's clock. Holidays
    and special sessions are not known."""
    return _is_session(segment, datetime.now(IST))


class MarketHours:
    """The trading hours of the week, corrected by the feed's status messages."""

    def __init__(self) -> None:
        self._closed_at: dict[str, datetime] = {}
        """Time in India at which each segment was last reported closed; absent once it was reported
        open."""

    def apply_status(self, status: MarketStatus) -> None:
        """Take note of a status message."""
        if status.code in (MarketState.CLOSED, MarketState.CLOSING_ENDED):
            self._closed_at[status.segment] = datetime.now(IST)
        else:
            self._closed_at.pop(status.segment, None)

    def is_open(self, segments: Iterable[str]) -> bool:
        """Return whether any of the segments trades now, as far as is known."""
        return any(is_in_session(each) and not self.is_closed_early(each) for each in segments)

    def is_closed_early(self, segment: str) -> bool:
        """Return whether the segment was reported closed during today's trading hours. A report
        from before they began, or of another day, does not concern the present session."""
        at = self._closed_at.get(segment)
        return at is not None and at.date() == datetime.now(IST).date() and _is_hour(segment, at)

    @property
    def closed(self) -> frozenset[str]:
        """Segments that were reported closed and not open since."""
        return frozenset(self._closed_at)


def _is_session(segment: str, at: datetime) -> bool:
    return at.weekday() < 5 and _is_hour(segment, at)


def _is_hour(segment: str, at: datetime) -> bool:
    start, end = _HOURS.get(segment, _EQUITY_HOURS)
    return start <= at.hour * 60 + at.minute < end
