"""The calendar of mutual funds: market days, the batch, and the days of SIPs.

SIP orders are made at 01:30 and the batch runs at 13:30, both in India and on the days on which
mutual funds trade.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from neo_async.base.india import IST
from neo_async.calendar import MUTUAL_FUNDS, Calendar
from neo_async.exchange.funds.types import Frequency

_ONE_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(days=7)
_QUARTER: Final = timedelta(days=91)
"""Thirteen weeks: the document's sample goes from 2020-11-20 to 2021-02-19."""


class FundEventKind(StrEnum):
    SIPS = "sips"
    BATCH = "batch"


_EVENTS: Final = (
    (FundEventKind.SIPS, time(1, 30, tzinfo=IST)),
    (FundEventKind.BATCH, time(13, 30, tzinfo=IST)),
)


class FundEvent(NamedTuple):
    time_s: int
    turn: FundEventKind
    day: date


def day_of(time_s: float) -> date:
    return datetime.fromtimestamp(time_s, IST).date()


class MarketDays:
    """The days on which mutual funds trade."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar

    def market_day_from(self, day: date) -> date:
        """Return the day, or the first market day after it."""
        return self._calendar.next_trading_day(MUTUAL_FUNDS, day - _ONE_DAY)

    def market_day_before(self, day: date) -> date:
        """Return the last market day before a day."""
        return self._calendar.previous_trading_day(MUTUAL_FUNDS, day)

    def next_event(self, after_s: int) -> FundEvent:
        """Return the next event after a time."""
        day = self.market_day_from(day_of(after_s))
        while True:
            for turn, clock in _EVENTS:
                time_s = int(datetime.combine(day, clock).astimezone(UTC).timestamp())
                if time_s > after_s:
                    return FundEvent(time_s, turn, day)
            day = self.market_day_from(day + _ONE_DAY)


def next_due(frequency: Frequency, instalment_day: int, after: date) -> date:
    """Return the day of the next instalment after a day, by the calendar."""
    if frequency is Frequency.WEEKLY:
        return after + _WEEK
    if frequency is Frequency.QUARTERLY:
        return after + _QUARTER
    due = _in_month(after, instalment_day)
    if due <= after:
        next_month = after.replace(day=1) + timedelta(days=31)
        due = _in_month(next_month, instalment_day)
    return due


def step_ups(days: Collection[str], after: date, until: date) -> list[str]:
    """Return the step-up days (day and month, `05-05`) after a day, until another one, in order."""
    found = []
    for text in days:
        day, month = int(text[:2]), int(text[3:])
        for year in range(after.year, until.year + 1):
            if day > calendar.monthrange(year, month)[1]:
                continue
            when = date(year, month, day)
            if after < when <= until:
                found.append((when, text))
    return [text for _, text in sorted(found)]


def _in_month(day: date, wanted: int) -> date:
    return day.replace(day=min(wanted, calendar.monthrange(day.year, day.month)[1]))
