"""Whether a segment is in session, by the calendar and by what the feed reports."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.base.india import IST
from neo_async.calendar import Calendar
from neo_async.feeds.trading_hours import MarketHours, is_trading_time
from neo_async.model.ticks import (
    MarketState,
    MarketStatus,
)
from tests.feed_servers import until
from tests.feeds.market_servers import (
    live,
    sending,
    serve,
    status,
)
from tests.simulation.virtual_time import in_virtual_time

MONDAY = datetime(2026, 11, 23, 11, 0, tzinfo=IST)


@pytest.mark.parametrize(
    ("moment", "names", "statuses", "expected"),
    [
        (MONDAY, ["nse_cm|1"], [], True),
        (MONDAY.replace(hour=9, minute=14), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=15, minute=30), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=23), ["nse_cm|1"], [], False),
        (MONDAY.replace(hour=23), ["nse_cm|1", "mcx_fo|1"], [], True),
        (MONDAY.replace(hour=16), ["cde_fo|1"], [], True),
        (MONDAY.replace(day=22), ["nse_cm|1"], [], False),
        (MONDAY.replace(day=24), ["nse_cm|1"], [], False),  # a holiday
        (MONDAY.replace(day=24), ["mcx_fo|1"], [], False),
        (MONDAY.replace(day=24, hour=18), ["mcx_fo|1"], [], True),
        (MONDAY, ["one_more|1"], [], True),  # a segment that the calendar does not know
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED)], False),
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED), status(MarketState.OPEN)], True),
        (MONDAY, ["nse_cm|1"], [status(MarketState.CLOSED, "nse_fo")], True),
        (MONDAY, [], [], False),
    ],
)
def test_the_market_is_open_by_the_clock_and_its_status_messages(
    moment: datetime,
    names: list[str],
    statuses: list[bytes],
    expected: bool,
) -> None:
    @in_virtual_time
    async def check() -> None:
        async with live(
            sending(*statuses),
            market_open=None,
            calendar=Calendar(clock=moment.timestamp),
            timings={"silence": 10, "ping": 3600},
        ) as (_, feed):
            await feed.subscribe_status()
            await feed.subscribe(names)
            await asyncio.sleep(15)
            assert (feed.stalls == 1) is expected

    check()


@pytest.mark.parametrize(
    ("reported_at", "moment", "expected"),
    [
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(day=25, hour=9, minute=30), True),
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(day=24, hour=9, minute=30), False),
        (MONDAY.replace(hour=15, minute=29), MONDAY.replace(hour=15, minute=29), False),
        (MONDAY.replace(hour=3), MONDAY.replace(hour=9, minute=30), True),
        (MONDAY.replace(hour=15, minute=31), MONDAY.replace(day=30, hour=15, minute=29), True),
        (MONDAY.replace(day=20, hour=11), MONDAY, True),
    ],
)
def test_a_segment_reported_closed_before_a_session_is_open_in_it(
    reported_at: datetime, moment: datetime, expected: bool
) -> None:
    @in_virtual_time
    async def check() -> None:
        present = reported_at
        async with live(
            sending(status(MarketState.CLOSED)),
            market_open=None,
            calendar=Calendar(clock=lambda: present.timestamp()),
            timings={"silence": 10, "ping": 3600},
        ) as (_, feed):
            await feed.subscribe(["nse_cm|1"])
            await until(lambda: feed._hours.closed)
            present = moment
            await asyncio.sleep(15)
            assert (feed.stalls == 1) is expected

    check()


async def test_a_market_open_that_fails_leaves_the_answer_to_the_clock(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def market_open() -> bool:
        raise ZeroDivisionError("mine")

    monday = Calendar(clock=MONDAY.timestamp)
    async with live(serve, market_open=market_open, calendar=monday, timings={"silence": 10}) as (
        _,
        feed,
    ):
        await feed.subscribe(["nse_cm|1"])
        await asyncio.sleep(5)
        assert feed.reconnects == 0
        await until(lambda: feed.stalls == 1, every=0.1)
        assert "market_open failed" in caplog.text


# --- the hours by themselves ----------------------------------------------------------------------


def reported(code: int, segment: str = "nse_cm") -> MarketStatus:
    return MarketStatus(segment, code, "", 0)


@pytest.mark.parametrize(
    ("moment", "segments", "expected"),
    [
        (MONDAY, ["nse_cm"], True),
        (MONDAY.replace(hour=23), ["nse_cm"], False),
        (MONDAY.replace(hour=23), ["nse_cm", "mcx_fo"], True),
        (MONDAY.replace(day=22), ["nse_cm", "mcx_fo"], False),
        (MONDAY, ["one_more"], True),
        (MONDAY.replace(hour=23), ["one_more"], False),  # an unknown segment has the shares' hours
        (MONDAY, [], False),
    ],
)
def test_any_segment_that_trades_makes_it_trading_time(
    moment: datetime, segments: list[str], expected: bool
) -> None:
    calendar = Calendar(clock=moment.timestamp)
    assert is_trading_time(calendar, segments) is expected
    assert MarketHours(calendar).is_open(segments) is expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["nse_cm", "nse_fo", "bse_cm"]), st.sampled_from(MarketState)),
        max_size=10,
    )
)
def test_in_trading_hours_the_last_status_of_each_segment_decides(
    statuses: list[tuple[str, MarketState]],
) -> None:
    hours = MarketHours(Calendar(clock=MONDAY.timestamp))
    for segment, code in statuses:
        hours.apply_status(reported(code, segment))
    last = dict(statuses)
    closing = (MarketState.CLOSED, MarketState.CLOSING_ENDED)
    closed = {segment for segment, code in last.items() if code in closing}
    assert hours.closed == closed
    for segment in ("nse_cm", "nse_fo", "bse_cm", "bse_fo"):
        assert hours.is_open([segment]) is (segment not in closed)
    assert hours.is_open(["nse_cm", "nse_fo", "bse_cm"]) is (len(closed) < 3)


def test_outside_of_trading_hours_no_status_opens_a_segment() -> None:
    hours = MarketHours(Calendar(clock=MONDAY.replace(hour=23).timestamp))
    hours.apply_status(reported(MarketState.OPEN))
    assert not hours.is_open(["nse_cm"])


def test_a_closing_counts_until_the_next_session_of_its_segment() -> None:
    present = MONDAY
    hours = MarketHours(Calendar(clock=lambda: present.timestamp()))
    hours.apply_status(reported(MarketState.CLOSED))
    hours.apply_status(reported(MarketState.CLOSED, "mcx_fo"))
    present = MONDAY.replace(hour=15)
    assert not hours.is_open(["nse_cm"])
    present = MONDAY.replace(day=24, hour=18)  # a holiday of shares, and an evening of commodities
    assert not hours.is_open(["nse_cm"])
    assert hours.is_open(["mcx_fo"])
    present = MONDAY.replace(day=25)
    assert hours.is_open(["nse_cm"])
