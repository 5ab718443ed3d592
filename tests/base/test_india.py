"""India's clock, against the standard library's own time zone arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from neo_async.base.india import (
    IST,
    IST_SECONDS,
    begin_of,
    date_of,
    day_number,
    day_of,
    in_india,
    midnight,
    second_of_day,
)

TIMES = st.integers(0, 4_000_000_000)
EPOCH = datetime(1970, 1, 1).date()


def test_the_offset_is_the_same_in_both_forms() -> None:
    assert IST.utcoffset(None) == timedelta(seconds=IST_SECONDS)


def test_the_day_begins_at_half_past_six_in_the_evening_utc() -> None:
    moment = datetime(2026, 11, 22, 18, 30, tzinfo=UTC).timestamp()
    assert day_of(moment) == "261123"
    assert day_of(moment - 1) == "261122"
    assert second_of_day(moment) == 0
    assert midnight(moment) == midnight(moment + 86_399) == moment
    assert begin_of("261123") == moment * 10**9


@given(TIMES)
def test_date_number_and_midnight_of_a_time_agree(time: int) -> None:
    at = in_india(time)
    assert at == datetime.fromtimestamp(time, UTC)
    assert date_of(time) == at.date()
    assert day_number(time) == (at.date() - EPOCH).days
    assert in_india(midnight(time)) == at.replace(hour=0, minute=0, second=0)
    assert midnight(time) + second_of_day(time) == time
    if at.year < 2069:  # two digits of a year mean 1969 to 2068
        assert begin_of(day_of(time)) == midnight(time) * 10**9
