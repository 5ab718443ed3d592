"""When segments trade."""

from __future__ import annotations

from collections.abc import (
    Iterable,
    Mapping,
)
from datetime import datetime

from neo_async.model.india import IST, in_india

_EQUITY_HOURS = (9 * 60 + 15, 15 * 60 + 30)
_HOURS: Mapping[str, tuple[int, int]] = {
    "mcx_fo": (9 * 60, 23 * 60 + 30),
    "cde_fo": (9 * 60, 17 * 60),
}
"""Minutes of the day in IST between which a segment trades."""


def is_trading_time(segments: Iterable[str], at: float) -> bool:
    """Whether any of the segments trades at that time of the week, in Unix seconds. Holidays and
    special sessions are not known."""
    moment = in_india(at)
    return any(_is_session(segment, moment) for segment in segments)


def is_in_session(segment: str) -> bool:
    """Whether a segment trades at this time of the week, by this machine's clock. Holidays and
    special sessions are not known."""
    return _is_session(segment, datetime.now(IST))


def _is_session(segment: str, at: datetime) -> bool:
    return at.weekday() < 5 and is_hour(segment, at)


def is_hour(segment: str, at: datetime) -> bool:
    start, end = _HOURS.get(segment, _EQUITY_HOURS)
    return start <= at.hour * 60 + at.minute < end
