"""The trading calendar: holidays, sessions, expiries and waiting."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import UsageError, calendar
from neo_async.base.india import IST
from neo_async.calendar import MARKETS, Calendar
from neo_async.model.enums import Segment
from tests.simulation.virtual_time import START, now

QUIET = Calendar(warns=False)
HOLIDAY = date(2026, 11, 24)
KNOWN_DAYS = st.dates(calendar.known_from, calendar.known_until - timedelta(days=10))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=IST)


def hours(segment: str, day: str) -> list[str]:
    """Return the sessions of a day as `09:15-15:30`."""
    found = QUIET.sessions(segment, date.fromisoformat(day))
    return [f"{each.open:%H:%M}-{each.close:%H:%M}" for each in found]


# --- the list ---------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", ["nse_cm", "bse_cm", "nse_fo", "bse_fo"])
@pytest.mark.parametrize(("year", "number"), [(2025, 14), (2026, 16)])
def test_shares_have_as_many_weekday_holidays_as_the_circulars_list(
    segment: str, year: int, number: int
) -> None:
    closed = [
        day
        for day in QUIET.holidays(segment, year)
        if day.weekday() < 5 and not QUIET.is_trading_day(segment, day)
    ]
    assert len(closed) == number


def test_trading_days_are_those_of_exchange_calendars() -> None:
    calendars = pytest.importorskip("exchange_calendars")  # of the extra `test`
    bombay = calendars.get_calendar("XBOM", start="2019-01-01", end="2026-12-31")
    theirs = {session.date() for session in bombay.sessions}
    weekdays = [day for day in days_of(2019, 2026) if day.weekday() < 5]
    listed = [day for day in weekdays if day >= calendar.known_from]
    for segment in ("nse_cm", "bse_cm", "nse_fo", "bse_fo"):
        ours = {day for day in listed if QUIET.is_trading_day(segment, day)}
        assert ours == theirs & set(listed)
    # Of years that are not listed, every holiday with a fixed date is one of theirs.
    closed = {day for day in weekdays if not QUIET.is_trading_day("nse_cm", day)}
    assert not closed & theirs


def days_of(first: int, last: int) -> list[date]:
    count = (date(last, 12, 31) - date(first, 1, 1)).days + 1
    return [date(first, 1, 1) + timedelta(days=number) for number in range(count)]


@pytest.mark.parametrize(
    ("segment", "day", "expected"),
    [
        ("nse_cm", "2026-11-23", ["09:15-15:30"]),
        ("nse_cm", "2026-11-22", []),
        ("nse_cm", "2026-11-24", []),
        ("cde_fo", "2026-11-24", []),
        ("mcx_fo", "2026-11-24", ["17:00-23:55"]),
        ("mcx_fo", "2026-05-01", ["17:00-23:30"]),
        ("mcx_fo", "2026-12-25", []),
        ("mcx_fo", "2026-01-01", ["09:00-17:00"]),
        ("mcx_fo", "2026-11-23", ["09:00-23:55"]),
        # New York's clock
        ("mcx_fo", "2026-03-06", ["09:00-23:55"]),
        ("mcx_fo", "2026-03-09", ["09:00-23:30"]),
        ("mcx_fo", "2026-10-30", ["09:00-23:30"]),
        ("mcx_fo", "2026-11-02", ["09:00-23:55"]),
        ("mcx_fo", "2025-03-07", ["09:00-23:55"]),
        ("mcx_fo", "2025-10-31", ["09:00-23:30"]),
        # closing auction
        ("nse_fo", "2026-07-31", ["09:15-15:30"]),
        ("nse_fo", "2026-08-03", ["09:15-15:40"]),
        ("bse_fo", "2026-12-04", ["09:15-15:40"]),
        ("bse_fo", "2026-12-07", ["09:15-15:45"]),
        # special sessions
        ("nse_cm", "2026-02-01", ["09:15-15:30"]),
        ("mcx_fo", "2026-02-01", ["09:00-17:00"]),
        ("cde_fo", "2026-02-01", []),
        ("bse_cm", "2025-02-01", ["09:15-15:30"]),
        ("nse_fo", "2025-10-21", ["13:45-14:45"]),
        ("mcx_fo", "2025-10-21", ["13:45-14:45"]),
        ("nse_cm", "2026-11-08", ["18:15-19:15"]),
        # what only banks keep
        ("nse_cm", "2026-04-01", ["09:15-15:30"]),
        ("cde_fo", "2026-04-01", []),
        ("mf", "2026-04-01", []),
        ("mf", "2026-11-24", []),
        ("mf", "2026-02-01", []),
        ("mf", "2026-01-01", ["09:00-15:00"]),
        ("mf", "2026-11-23", ["09:00-15:00"]),
    ],
)
def test_sessions_of_a_day(segment: str, day: str, expected: list[str]) -> None:
    assert hours(segment, day) == expected


def test_only_shares_have_a_pre_open() -> None:
    monday = date(2026, 11, 23)
    (shares,), (futures,) = (QUIET.sessions(each, monday) for each in ("nse_cm", "nse_fo"))
    assert (shares.pre_open, shares.open) == (at("2026-11-23 09:00"), at("2026-11-23 09:15"))
    assert futures.pre_open == futures.open


def test_muhurat_trading_makes_no_trading_day() -> None:
    diwali = date(2025, 10, 21)
    assert QUIET.is_open("nse_fo", at("2025-10-21 14:00"))
    assert not QUIET.is_trading_day("nse_fo", diwali)
    assert QUIET.adjusted_expiry("nse_fo", diwali) == date(2025, 10, 20)
    assert QUIET.next_open("nse_cm", at("2025-10-20 16:00")) == at("2025-10-21 13:45")


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "time", "is_open", "opens", "closes"),
    [
        ("nse_cm", "2026-11-23 09:14:59", False, "2026-11-23 09:15", "2026-11-23 15:30"),
        ("nse_cm", "2026-11-23 09:15", True, "2026-11-25 09:15", "2026-11-23 15:30"),
        ("nse_cm", "2026-11-23 15:30", False, "2026-11-25 09:15", "2026-11-25 15:30"),
        ("nse_cm", "2026-11-24 10:00", False, "2026-11-25 09:15", "2026-11-25 15:30"),
        ("mcx_fo", "2026-11-24 10:00", False, "2026-11-24 17:00", "2026-11-24 23:55"),
        ("mcx_fo", "2026-11-24 17:00", True, "2026-11-25 09:00", "2026-11-24 23:55"),
        ("cde_fo", "2026-03-31 12:00", False, "2026-04-02 09:00", "2026-04-02 17:00"),
    ],
)
def test_what_is_open_and_what_comes_next(
    segment: str, time: str, is_open: bool, opens: str, closes: str
) -> None:
    moment = at(time)
    for same in (moment, moment.astimezone(UTC), moment.timestamp()):
        assert QUIET.is_open(segment, same) is is_open
        assert QUIET.next_open(segment, same) == at(opens)
        assert QUIET.next_close(segment, same) == at(closes)


@given(st.sampled_from(MARKETS), KNOWN_DAYS, st.integers(0, 86_399))
def test_opens_and_closes_take_turns(segment: str, day: date, second: int) -> None:
    moment = datetime.combine(day, time(), IST) + timedelta(seconds=second)
    opens, closes = QUIET.next_open(segment, moment), QUIET.next_close(segment, moment)
    assert moment < opens
    assert moment < closes
    assert QUIET.is_open(segment, moment) is (closes < opens)
    assert QUIET.is_open(segment, opens)
    assert not QUIET.is_open(segment, closes)
    assert opens in [each.open for each in QUIET.sessions(segment, opens.date())]


@given(st.sampled_from(MARKETS), KNOWN_DAYS)
def test_trading_days_before_and_after_are_next_to_each_other(segment: str, day: date) -> None:
    after = QUIET.next_trading_day(segment, day)
    assert after > day
    assert QUIET.is_trading_day(segment, after)
    between = [day + timedelta(days=number) for number in range(1, (after - day).days)]
    assert not any(QUIET.is_trading_day(segment, each) for each in between)
    is_trading = QUIET.is_trading_day(segment, day)
    assert QUIET.previous_trading_day(segment, after) == QUIET.adjusted_expiry(segment, day)
    assert (QUIET.adjusted_expiry(segment, day) == day) is is_trading


@given(st.sampled_from(MARKETS), KNOWN_DAYS)
def test_sessions_are_in_order_and_of_their_day(segment: str, day: date) -> None:
    found = QUIET.sessions(segment, day)
    for each in found:
        assert each.pre_open <= each.open < each.close
        assert {each.pre_open.date(), each.close.date()} == {day}
    assert all(first.close <= second.pre_open for first, second in pairwise(found))
    assert bool(found) or not QUIET.is_trading_day(segment, day)


@pytest.mark.parametrize("segment", list(Segment))
def test_the_functions_of_the_module_are_those_of_one_calendar(segment: Segment) -> None:
    assert calendar.adjusted_expiry(segment, date(2026, 12, 25)) == date(2026, 12, 24)
    assert calendar.next_open(segment) > datetime.now(UTC)


# --- years that are not listed ----------------------------------------------------------------


def test_a_year_that_is_not_listed_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    unlisted = Calendar()
    assert not unlisted.is_trading_day("nse_cm", date(2027, 1, 26))
    assert not unlisted.is_trading_day("nse_cm", date(2027, 1, 30))
    assert unlisted.is_open("nse_cm", at("2027-03-22 10:00"))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("neo_async.calendar", logging.WARNING)
    assert "the holidays of 2027 are not in this release" in record.getMessage()
    unlisted.is_open("nse_cm", at("2028-03-22 10:00"))
    assert len(caplog.records) == 2
    assert QUIET.is_open("nse_cm", at("2027-03-22 10:00"))
    assert len(caplog.records) == 2
    assert unlisted.known_until == date(2026, 12, 31)


# --- changes ----------------------------------------------------------------------------------


def test_a_late_holiday_makes_another_calendar() -> None:
    day = date(2026, 12, 9)
    changed = QUIET.with_holiday(day, "Elections").with_session("mcx_fo", day, "17:00", "23:55")
    assert not changed.is_trading_day("nse_cm", day)
    assert changed.holidays("nse_cm", 2026)[day] == "Elections"
    assert changed.adjusted_expiry("nse_fo", day) == date(2026, 12, 8)
    assert changed.is_trading_day("mcx_fo", day)
    assert changed.next_open("mcx_fo", at("2026-12-09 09:30")) == at("2026-12-09 17:00")
    assert QUIET.is_trading_day("nse_cm", day)
    only = QUIET.with_holiday(day, segments=["bse_cm"])
    assert only.is_trading_day("nse_cm", day)
    assert not only.is_trading_day("bse_cm", day)


def test_a_calendar_without_any_session_says_so() -> None:
    closed = QUIET
    for number in range(400):
        closed = closed.with_holiday(date(2026, 1, 1) + timedelta(days=number), segments=["mf"])
    with pytest.raises(UsageError, match="mf has no session within a year of 2026-01-01 10:00"):
        closed.next_open("mf", at("2026-01-01 10:00"))
    with pytest.raises(UsageError, match="mf has no trading day within a year of 2026-01-01"):
        closed.next_trading_day("mf", date(2026, 1, 1))


# --- waiting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["15:15", time(15, 15), at("2026-11-23 15:15"), "15:15:00"])
async def test_until_waits_for_a_time_of_today(moment: Any) -> None:
    await Calendar(clock=now).until(moment)
    assert 0 <= now() - (START + 5.25 * 3600) < 0.001


@pytest.mark.parametrize("moment", ["09:59", at("2026-11-22 12:00"), "10:00"])
async def test_a_time_that_has_passed_is_not_waited_for(moment: Any) -> None:
    await Calendar(clock=now).until(moment)
    assert now() - START < 0.001


async def test_until_goes_by_a_clock_that_is_set_meanwhile() -> None:
    ahead = 0.0
    waiting = asyncio.create_task(Calendar(clock=lambda: now() + ahead).until("15:15"))
    await asyncio.sleep(60)
    ahead = 6 * 3600.0
    await asyncio.wait_for(waiting, 1.1)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (
            lambda: QUIET.is_open("nse", at("2026-11-23 10:00")),
            "segment='nse': must be one of nse_cm, bse_cm, nse_fo, bse_fo, cde_fo, mcx_fo, mf",
        ),
        (
            lambda: QUIET.is_open("nse_cm", datetime(2026, 11, 23, 10)),
            "at=datetime.datetime(2026, 11, 23, 10, 0): has no time zone",
        ),
        (
            lambda: QUIET.next_open("nse_cm", 1_795_408_200_000),
            "after=1795408200000: must be an aware datetime or Unix seconds",
        ),
        (lambda: QUIET.next_open("nse_cm", float("nan")), "after=nan: must be an aware datetime"),
        (
            lambda: QUIET.is_trading_day("nse_cm", at("2026-11-23 10:00")),
            "must be a date, such as date(2026, 11, 24)",
        ),
        (
            lambda: QUIET.sessions("nse_cm", "2026-11-24"),  # type: ignore[arg-type]
            "day='2026-11-24': must be a date",
        ),
        (
            lambda: QUIET.with_session("mcx_fo", HOLIDAY, "18:00", "17:00"),
            "closes='17:00': must be after it opens, 18:00",
        ),
        (
            lambda: QUIET.with_session("mcx_fo", HOLIDAY, "6 pm", "19:00"),
            "opens='6 pm': must be a time of day such as 15:15",
        ),
        (lambda: asyncio.run(QUIET.until("25:00")), "moment='25:00': must be a time of day"),
        (lambda: asyncio.run(QUIET.until("1515")), "moment='1515': must be a time of day"),
        (
            lambda: asyncio.run(QUIET.until(datetime(2026, 11, 23, 10))),
            "moment=datetime.datetime(2026, 11, 23, 10, 0): has no time zone",
        ),
        (
            lambda: asyncio.run(QUIET.until(time(10, tzinfo=UTC))),
            "must have no zone, a time of day is India's",
        ),
    ],
)
def test_what_is_no_market_day_or_time_is_refused(ask: Any, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        ask()
    assert text in str(raised.value)


@pytest.mark.parametrize("moment", [None, [], b"15:15", float("nan"), -1, True, date(2026, 11, 24)])
async def test_what_is_no_moment_is_not_waited_for(moment: Any) -> None:
    with pytest.raises(UsageError, match="moment="):
        await calendar.until(moment)


async def test_until_takes_the_moments_that_other_calls_take() -> None:
    at = calendar.INDIA.now() + 0.02
    await calendar.until(at)
    assert calendar.INDIA.now() >= at


@pytest.mark.parametrize("year", ["2026", 2026.0, None, 0, 10_000, True])
def test_what_is_no_year_has_no_holidays(year: Any) -> None:
    with pytest.raises(UsageError, match="year="):
        calendar.holidays("nse_cm", year)


def test_the_ends_of_the_calendar_are_usage_errors() -> None:
    assert calendar.Calendar().holidays("nse_cm", 9999)
    with pytest.raises(UsageError, match="no trading day"):
        calendar.next_trading_day("nse_cm", date.max)
    with pytest.raises(UsageError, match="no trading day"):
        calendar.previous_trading_day("nse_cm", date.min)


def test_a_market_is_read_in_any_case_as_everywhere() -> None:
    day = date(2026, 11, 24)
    assert calendar.sessions("MCX_FO", day) == calendar.sessions("mcx_fo", day)
    assert not calendar.is_trading_day("MF", day)
