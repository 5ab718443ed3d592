"""The clock and the loop for tests of programs that trade."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

import pytest

from neo_async import UsageError
from neo_async.base.india import IST
from neo_async.testing import Clock, VirtualTimeLoop


async def test_a_clock_passes_with_the_loop_and_is_moved() -> None:
    clock, moved = Clock(), []
    clock.on_move(lambda: moved.append(clock.now))
    begin = clock.now
    await asyncio.sleep(90)
    assert clock.now - begin == timedelta(seconds=90)
    clock.advance(30)
    assert clock.now - begin == timedelta(minutes=2)
    clock.move_to(datetime(2026, 11, 23, 15, 15, tzinfo=IST))
    assert moved == [begin + timedelta(minutes=2), clock.now]
    assert clock.now.isoformat() == "2026-11-23T15:15:00+05:30"


def test_a_clock_stands_still_between_two_runs() -> None:
    clock = Clock(datetime(2026, 12, 1, 9, tzinfo=IST))

    async def wait() -> float:
        clock()
        await asyncio.sleep(5)
        return clock()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        after = runner.run(wait())
        assert clock() == after == pytest.approx(clock._began + 5)


async def test_a_clock_does_not_go_back() -> None:
    clock = Clock()
    with pytest.raises(UsageError, match="seconds=-1: must not be below 0"):
        clock.advance(-1)
    with pytest.raises(UsageError, match="must not be before 2026-11-23 10:00"):
        clock.move_to(datetime(2026, 11, 23, 9, tzinfo=IST))
    with pytest.raises(UsageError, match="has no time zone"):
        clock.move_to(datetime(2026, 11, 24))


def test_a_wait_for_what_can_never_happen_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    begin = time.monotonic()
    with (
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
        pytest.raises(RuntimeError, match="waits for what can never happen"),
    ):
        runner.run(wait())
    assert time.monotonic() - begin < 30
