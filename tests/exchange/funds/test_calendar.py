"""Market days, the batch, and the days of SIPs."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from neo_async.base.india import IST
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.funds.calendar import FundEventKind, MarketDays, next_due, step_ups
from neo_async.exchange.funds.types import Frequency


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=IST).timestamp())


@pytest.mark.parametrize(
    ("after", "when", "turn"),
    [
        ("2026-11-23 00:00", "2026-11-23 01:30", FundEventKind.SIPS),
        ("2026-11-23 01:30", "2026-11-23 13:30", FundEventKind.BATCH),
        ("2026-11-23 13:29:59", "2026-11-23 13:30", FundEventKind.BATCH),
        ("2026-11-23 13:30", "2026-11-25 01:30", FundEventKind.SIPS),  # a holiday between
        ("2026-11-20 13:30", "2026-11-23 01:30", FundEventKind.SIPS),  # a Friday
        ("2026-11-21 12:00", "2026-11-23 01:30", FundEventKind.SIPS),
        ("2026-11-25 13:30", "2026-11-27 01:30", FundEventKind.SIPS),  # before one more
    ],
)
def test_what_comes_next(after: str, when: str, turn: FundEventKind) -> None:
    event = MarketDays(CALENDAR.with_holiday(date(2026, 11, 26))).next_event(at(after))
    assert (event.time_s, event.turn) == (at(when), turn)
    assert event.day == date.fromisoformat(when[:10])


@pytest.mark.parametrize(
    ("frequency", "day", "after", "due"),
    [
        # The first two and the last are of the document's samples, to the market day.
        (Frequency.WEEKLY, 0, "2021-05-05", "2021-05-12"),
        (Frequency.QUARTERLY, 0, "2020-11-20", "2021-02-19"),
        (Frequency.MONTHLY, 5, "2021-05-04", "2021-05-05"),
        (Frequency.MONTHLY, 5, "2021-05-05", "2021-06-05"),
        (Frequency.MONTHLY, 1, "2021-12-31", "2022-01-01"),
        (Frequency.MONTHLY, 25, "2021-01-30", "2021-02-25"),
        (Frequency.MONTHLY, 10, "2021-06-10", "2021-07-10"),
    ],
)
def test_instalments_come_by_the_calendar(
    frequency: Frequency, day: int, after: str, due: str
) -> None:
    found = next_due(frequency, day, date.fromisoformat(after))
    assert found == date.fromisoformat(due)


def test_a_day_without_market_becomes_the_next_with_one() -> None:
    calendar = MarketDays(CALENDAR.with_holiday(date(2021, 7, 12)))
    assert MarketDays(CALENDAR).market_day_from(date(2021, 7, 10)) == date(2021, 7, 12)
    assert calendar.market_day_from(date(2021, 7, 10)) == date(2021, 7, 13)
    assert calendar.market_day_before(date(2021, 7, 13)) == date(2021, 7, 9)


def test_step_ups_come_once_a_year_on_their_day() -> None:
    days = ["05-05", "29-02"]
    assert step_ups(days, date(2021, 5, 5), date(2022, 5, 4)) == []
    assert step_ups(days, date(2021, 5, 5), date(2022, 5, 5)) == ["05-05"]
    assert step_ups(days, date(2023, 5, 4), date(2024, 5, 5)) == ["05-05", "29-02", "05-05"]
