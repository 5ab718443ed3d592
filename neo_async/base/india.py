"""India's clock, by which the broker counts its days: UTC+5:30, without daylight saving.

Times are Unix seconds unless the name has another unit.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Final

IST: Final = timezone(timedelta(hours=5, minutes=30), "IST")
IST_SECONDS: Final = 19_800
"""Seconds by which India's clock is ahead of UTC."""
TIME_ZONE: Final = "Asia/Kolkata"
"""Name of India's time zone in the IANA database."""
DAY_SECONDS: Final = 86_400


def in_india(time: float) -> datetime:
    """Return that time by India's clock."""
    return datetime.fromtimestamp(time, IST)


def date_of(time: float) -> date:
    """Return the date in India at that time."""
    return in_india(time).date()


def day_number(time: float) -> int:
    """Return the number of days in India since 1970 at that time."""
    return int((time + IST_SECONDS) // DAY_SECONDS)


def second_of_day(time: float) -> float:
    """Return the seconds since the last midnight in India."""
    return (time + IST_SECONDS) % DAY_SECONDS


def midnight(time: float) -> int:
    """Return the Unix seconds of the last midnight in India."""
    return day_number(time) * DAY_SECONDS - IST_SECONDS


def seconds_to_midnight(time: float) -> float:
    """Return the seconds until the next midnight in India."""
    return DAY_SECONDS - second_of_day(time)


def day_of(time: float) -> str:
    """Return the day in India at that time in the form with which order numbers begin, `261123`."""
    return in_india(time).strftime("%y%m%d")


def begin_of(day: str) -> int:
    """Return the Unix nanoseconds at which a day, in the form of `day_of`, begins in India."""
    begin = datetime.strptime(day, "%y%m%d").replace(tzinfo=IST)
    return int(begin.timestamp()) * 10**9
