"""The trading calendar: sessions and holidays of NSE, BSE, MCX and the mutual-fund batch.

    from neo_async import calendar

    calendar.is_open("nse_cm")                        # now
    calendar.next_open("mcx_fo")                      # with its evening sessions on holidays
    calendar.adjusted_expiry("nse_fo", date(2026, 11, 24))      # the 23rd: the 24th is a holiday
    await calendar.until("15:15")                     # India's clock

The functions of this module are those of one `Calendar`, which nothing can change. Make another for
a holiday that was declared late, and hand it to the client: `NeoClient(..., calendar=...)`.

A market is a segment (`nse_cm`, `bse_cm`, `nse_fo`, `bse_fo`, `cde_fo`, `mcx_fo`) or `mf`, mutual
funds. Times are aware datetimes, or Unix seconds. Regular hours, by India's clock:

    nse_cm, bse_cm   pre-open 09:00, 09:15 to 15:30
    nse_fo, bse_fo   09:15 to 15:30; to 15:40 from 3 August 2026, to 15:45 from 7 December 2026
    cde_fo           09:00 to 17:00
    mcx_fo           09:00 to 23:30, to 23:55 while New York has winter time
    mf               09:00 to 15:00 on days on which shares and banks settle

The later closes of derivatives follow from the closing auction of the shares that they are on
(SEBI, circulars of 16 January and 15 October 2026). That auction, agricultural commodities and
contracts that stop earlier on their last day are not distinguished.
"""

from __future__ import annotations

import asyncio
import logging
import time as time_module
from calendar import isleap
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import msgspec

from neo_async.base import logs
from neo_async.base.india import DAY_SECONDS, IST, IST_SECONDS, in_india
from neo_async.errors import UsageError
from neo_async.model.enums import Segment
from neo_async.model.holidays import (
    CLOSED,
    EVENING,
    KNOWN_FROM,
    KNOWN_UNTIL,
    MORNING,
    OPEN,
    holiday_on,
)

log = logging.getLogger(logs.CALENDAR)

MUTUAL_FUNDS: Final = "mf"
"""The market of mutual funds, whose batch runs once on each of its trading days."""
MARKETS: Final = (*(segment.value for segment in Segment), MUTUAL_FUNDS)
"""Markets that the calendar knows."""

Moment: TypeAlias = datetime | float
"""A time: an aware datetime, or Unix seconds."""

_ONE_DAY: Final = timedelta(days=1)
_EPOCH: Final = date(1970, 1, 1)
_LONGEST_CLOSURE: Final = 366
"""Days after which no session is taken to mean that there never is one."""
_LONGEST_SLEEP: Final = 1.0
"""Seconds between two looks at the clock: a machine that was suspended, or whose clock was set, is
late by no more than that."""
_LATEST: Final = 4_102_444_800.0
"""2100-01-01: a number beyond it is no Unix seconds, but milliseconds or nanoseconds."""

_CASH: Final = frozenset({Segment.NSE_CM, Segment.BSE_CM})
_PRE_OPEN_SECONDS: Final = 900
"""Seconds before the open from which orders in shares are taken."""
_COMMODITY_EVENING: Final = "17:00"
_DERIVATIVES_CLOSE: Final = ((date(2026, 12, 7), "15:45"), (date(2026, 8, 3), "15:40"))
"""First days of later closes of equity derivatives, the newest first."""


class Session(msgspec.Struct, frozen=True):
    """One session of a market. Datetimes by India's clock."""

    open: datetime
    close: datetime
    """First moment at which nothing trades any more."""
    pre_open: datetime
    """Time from which orders are taken that wait for the open; the open itself where there is no
    pre-open session."""


class SessionTimes(NamedTuple):
    """One session in Unix seconds."""

    pre_open: int
    open: int
    close: int


class Calendar:
    """Sessions and holidays of the Indian exchanges; it cannot be changed.

    Late-declared holidays and special sessions make another one:

        calendar = Calendar().with_holiday(date(2026, 12, 9), "Elections")
        calendar = calendar.with_session("mcx_fo", date(2026, 12, 9), "17:00", "23:55")
    """

    def __init__(
        self, *, clock: Callable[[], float] = time_module.time, warns: bool = True
    ) -> None:
        """`clock` gives the Unix seconds of now. With `warns`, the first answer about a year whose
        holidays are not published yet is logged as a warning."""
        self._clock = clock
        self._warns = warns
        self._warned: set[int] = set()
        """Years for which the log has the warning."""
        self._changed: Mapping[tuple[str, date], tuple[str, str]] = MappingProxyType({})
        """Hours in the form of the holiday list, and the reason, by market and day."""
        self._times: dict[tuple[str, int], tuple[SessionTimes, ...]] = {}
        """Sessions by market and day, in days since 1970, as far as they were asked for."""

    @property
    def known_from(self) -> date:
        """First day of the years whose holidays are listed."""
        return KNOWN_FROM

    @property
    def known_until(self) -> date:
        """Last day of the years whose holidays are listed. Of later ones only weekends and the
        holidays with a fixed date are known; the exchanges publish a year in its December before.
        """
        return KNOWN_UNTIL

    def now(self) -> float:
        """Return the Unix seconds of now, by the calendar's clock."""
        return self._clock()

    # --- days ---------------------------------------------------------------------------------

    def is_trading_day(self, segment: str, day: date) -> bool:
        """Return whether a market trades on a day, be it in the evening only.

        Muhurat trading is held on a holiday, which it does not make a trading day: no contract
        expires on it, and nothing is settled.
        """
        return _is_trading(self._hours(_market(segment), _day(day))[0])

    def next_trading_day(self, segment: str, day: date) -> date:
        """Return the first trading day of a market after a day."""
        return self._step(segment, day, _ONE_DAY)

    def previous_trading_day(self, segment: str, day: date) -> date:
        """Return the last trading day of a market before a day."""
        return self._step(segment, day, -_ONE_DAY)

    def adjusted_expiry(self, segment: str, day: date) -> date:
        """Return the day on which a contract expires whose rule names `day`: the day itself, or
        the trading day before it if that is a holiday."""
        return day if self.is_trading_day(segment, day) else self.previous_trading_day(segment, day)

    def holidays(self, segment: str, year: int) -> dict[date, str]:
        """Return the names of the weekdays of a year on which a market has not its regular hours,
        by day. `sessions` returns what it has instead."""
        market = _market(segment)
        if type(year) is not int or not date.min.year <= year <= date.max.year:
            raise UsageError(f"year={year!r}: must be a year, such as 2026")
        first = date(year, 1, 1)
        days = (first + timedelta(days=number) for number in range(365 + isleap(year)))
        return {
            day: name
            for day in days
            if day.weekday() < 5
            for hours, name in [self._hours(market, day)]
            if hours != OPEN
        }

    # --- sessions -----------------------------------------------------------------------------

    def sessions(self, segment: str, day: date) -> tuple[Session, ...]:
        """Return the sessions of a market on a day, earliest first; none on a closed day."""
        return tuple(
            Session(in_india(times.open), in_india(times.close), in_india(times.pre_open))
            for times in self.session_times(_market(segment), (_day(day) - _EPOCH).days)
        )

    def is_open(self, segment: str, at: Moment | None = None) -> bool:
        """Return whether a market trades at a time, now unless given. Pre-open is not open."""
        market, seconds = _market(segment), self._seconds("at", at)
        day = int((seconds + IST_SECONDS) // DAY_SECONDS)
        return any(times.open <= seconds < times.close for times in self.session_times(market, day))

    def next_open(self, segment: str, after: Moment | None = None) -> datetime:
        """Return the first open of a market after a time, now unless given. While the market is
        open, that is the one of its next session."""
        return self._next(segment, after, lambda times: times.open)

    def next_close(self, segment: str, after: Moment | None = None) -> datetime:
        """Return the first close of a market after a time, now unless given."""
        return self._next(segment, after, lambda times: times.close)

    async def until(self, moment: str | time | Moment) -> None:
        """Wait until a time of today by India's clock (`"15:15"`, `"09:14:58"`, `time(15, 15)`), or
        until a moment: an aware datetime, or Unix seconds. One that has passed is not waited for.

            await calendar.until(calendar.next_open("nse_cm"))
        """
        target = self._target(moment)
        while (left := target - self._clock()) > 0:  # noqa: ASYNC110 - time comes by itself
            await asyncio.sleep(min(left, _LONGEST_SLEEP))

    def session_times(self, market: str, day: int) -> tuple[SessionTimes, ...]:
        """Return the sessions of a market on a day, in days since 1970: `sessions` without checks,
        for callers that ask often."""
        times = self._times.get((market, day))
        if times is None:
            on = _EPOCH + timedelta(days=day)
            times = _session_times(market, on, self._hours(market, on)[0])
            self._times[market, day] = times
        return times

    # --- changes ------------------------------------------------------------------------------

    def with_holiday(
        self, day: date, name: str = "declared late", segments: Iterable[str] = MARKETS
    ) -> Calendar:
        """Return a calendar on which the day is a holiday of the markets, of all unless given."""
        day = _day(day)
        return self._with({(_market(each), day): (CLOSED, name) for each in segments})

    def with_session(
        self, segment: str, day: date, opens: str, closes: str, name: str = "special session"
    ) -> Calendar:
        """Return a calendar on which a day is a trading day of a market with one session, from
        `opens` to `closes`, such as "17:00" and "23:55"."""
        first, last = _time_of_day("opens", opens), _time_of_day("closes", closes)
        if last <= first:
            raise UsageError(f"closes={closes!r}: must be after it opens, {opens}")
        hours = f"{first:%H:%M}-{last:%H:%M}"
        return self._with({(_market(segment), _day(day)): (hours, name)})

    def with_clock(self, clock: Callable[[], float]) -> Calendar:
        """Return this calendar on another clock, which gives Unix seconds."""
        return self._with({}, clock)

    def _with(
        self,
        changes: Mapping[tuple[str, date], tuple[str, str]],
        clock: Callable[[], float] | None = None,
    ) -> Calendar:
        calendar = Calendar(clock=clock or self._clock, warns=self._warns)
        calendar._changed = MappingProxyType({**self._changed, **changes})
        return calendar

    # --- inner workings -----------------------------------------------------------------------

    def _hours(self, market: str, day: date) -> tuple[str, str]:
        """Return the hours of a market on a day in the form of the holiday list, and why."""
        self._warn_if_unknown(day)
        if changed := self._changed.get((market, day)):
            return changed
        holiday = holiday_on(day)
        if holiday is None:
            return (OPEN, "") if day.weekday() < 5 else (CLOSED, "weekend")
        if market == MUTUAL_FUNDS:
            is_settling = holiday.equity == holiday.currency == OPEN and day.weekday() < 5
            return OPEN if is_settling else CLOSED, holiday.name
        if market == Segment.CDE_FO:
            return holiday.currency, holiday.name
        return (holiday.commodity if market == Segment.MCX_FO else holiday.equity), holiday.name

    def _step(self, segment: str, day: date, step: timedelta) -> date:
        market = _market(segment)
        found = _day(day)
        for _ in range(_LONGEST_CLOSURE):
            if found in (date.min, date.max):
                break
            found += step
            if _is_trading(self._hours(market, found)[0]):
                return found
        raise UsageError(f"{market} has no trading day within a year of {day}")

    def _next(
        self, segment: str, after: Moment | None, end: Callable[[SessionTimes], int]
    ) -> datetime:
        market, seconds = _market(segment), self._seconds("after", after)
        first = int((seconds + IST_SECONDS) // DAY_SECONDS)
        for day in range(first, first + _LONGEST_CLOSURE):
            for times in self.session_times(market, day):
                if end(times) > seconds:
                    return in_india(end(times))
        raise UsageError(f"{market} has no session within a year of {in_india(seconds)}")

    def _target(self, moment: str | time | Moment) -> float:
        """Return the Unix seconds of a time to wait for."""
        if isinstance(moment, datetime | int | float):
            return self._seconds("moment", moment)
        if isinstance(moment, str):
            moment = _time_of_day("moment", moment)
        if not isinstance(moment, time):
            raise UsageError(f"moment={moment!r}: must be a time of day such as 15:15, or a moment")
        if moment.tzinfo is not None:
            raise UsageError(f"moment={moment!r}: must have no zone, a time of day is India's")
        return datetime.combine(in_india(self._clock()).date(), moment, IST).timestamp()

    def _seconds(self, name: str, at: Moment | None) -> float:
        """Return a time in Unix seconds; that of the clock for None."""
        if at is None:
            return self._clock()
        if isinstance(at, datetime):
            if at.tzinfo is None:
                raise UsageError(
                    f"{name}={at!r}: has no time zone, so it is no moment; for India's clock, "
                    "datetime(..., tzinfo=neo_async.calendar.IST)"
                )
            return at.timestamp()
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= _LATEST:
            raise UsageError(f"{name}={at!r}: must be an aware datetime or Unix seconds")
        return at

    def _warn_if_unknown(self, day: date) -> None:
        if not self._warns or KNOWN_FROM <= day <= KNOWN_UNTIL or day.year in self._warned:
            return
        self._warned.add(day.year)
        log.warning(
            "the holidays of %d are not in this release, which knows those of %d to %d: only its "
            "weekends and the holidays with a fixed date count",
            day.year,
            KNOWN_FROM.year,
            KNOWN_UNTIL.year,
        )


def _market(segment: str) -> str:
    if isinstance(segment, str) and segment not in MARKETS:
        segment = segment.lower()
    if segment not in MARKETS:
        raise UsageError(f"segment={segment!r}: must be one of {', '.join(MARKETS)}")
    return str(segment)


def _day(day: date) -> date:
    if isinstance(day, datetime) or not isinstance(day, date):
        raise UsageError(f"day={day!r}: must be a date, such as date(2026, 11, 24)")
    return day


def _time_of_day(name: str, text: str) -> time:
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None or ":" not in text:
        raise UsageError(f"{name}={text!r}: must be a time of day such as 15:15")
    return moment


def _is_trading(hours: str) -> bool:
    """Return whether hours in the form of the holiday list make a trading day."""
    return hours != CLOSED and not hours.startswith("(")


def _session_times(market: str, day: date, hours: str) -> tuple[SessionTimes, ...]:
    if hours == CLOSED:
        return ()
    first, last = _regular_hours(market, day)
    if hours == MORNING:
        last = _COMMODITY_EVENING
    elif hours == EVENING:
        first = _COMMODITY_EVENING
    elif hours != OPEN:
        first, _, last = hours.strip("()").partition("-")
    midnight = (day - _EPOCH).days * DAY_SECONDS - IST_SECONDS
    opening = midnight + _seconds_of(first)
    pre_open = opening - _PRE_OPEN_SECONDS if market in _CASH else opening
    return (SessionTimes(pre_open, opening, midnight + _seconds_of(last)),)


def _regular_hours(market: str, day: date) -> tuple[str, str]:
    match market:
        case Segment.MCX_FO:
            return "09:00", "23:30" if _is_summer_in_new_york(day) else "23:55"
        case Segment.CDE_FO:
            return "09:00", "17:00"
        case Segment.NSE_FO | Segment.BSE_FO:
            closes = (close for since, close in _DERIVATIVES_CLOSE if day >= since)
            return "09:15", next(closes, "15:30")
        case Segment.NSE_CM | Segment.BSE_CM:
            return "09:15", "15:30"
        case _:
            return "09:00", "15:00"


def _is_summer_in_new_york(day: date) -> bool:
    """Return whether New York has daylight saving time on the evening of a day in India: from the
    second Sunday of March to the first of November."""
    second_sunday = 14 - date(day.year, 3, 14).isoweekday() % 7
    first_sunday = 7 - date(day.year, 11, 7).isoweekday() % 7
    return date(day.year, 3, second_sunday) <= day < date(day.year, 11, first_sunday)


def _seconds_of(clock: str) -> int:
    return int(clock[:2]) * 3600 + int(clock[3:]) * 60


INDIA: Final = Calendar()
"""The calendar of this module's functions, on this machine's clock."""

known_from = INDIA.known_from
known_until = INDIA.known_until
is_trading_day = INDIA.is_trading_day
next_trading_day = INDIA.next_trading_day
previous_trading_day = INDIA.previous_trading_day
adjusted_expiry = INDIA.adjusted_expiry
holidays = INDIA.holidays
sessions = INDIA.sessions
is_open = INDIA.is_open
next_open = INDIA.next_open
next_close = INDIA.next_close
until = INDIA.until
