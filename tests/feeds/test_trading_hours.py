"""Whether a segment is in session, by the calendar and by what the feed reports."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from neo_async.base.india import IST
from neo_async.calendar import Calendar
from neo_async.model.ticks import (
    MarketState,
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
