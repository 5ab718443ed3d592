"""An outcome with many waiters: one result for all, also when one of them is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from neo_async.transport.pending import Pending
from tests.simulation.virtual_time import in_virtual_time


def pending(within: float = 10.0) -> Pending[str]:
    return Pending(deadline=asyncio.get_running_loop().time() + within)


async def value_of(outcome: Pending[str]) -> str:
    return await outcome


@in_virtual_time
async def test_every_waiter_gets_the_result_even_if_another_is_cancelled() -> None:
    outcome = pending()
    first, second = (asyncio.create_task(value_of(outcome)) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    outcome.resolve("42")
    assert await second == "42"
    assert await outcome == "42"
    assert first.cancelled()


@in_virtual_time
async def test_every_waiter_gets_the_error() -> None:
    outcome = pending()
    outcome.fail(ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await outcome
    assert outcome.is_done


@in_virtual_time
async def test_wait_ends_at_the_deadline_and_the_patience() -> None:
    outcome = pending(within=10.0)
    assert not await outcome.wait(5.0)
    assert asyncio.get_running_loop().time() == pytest.approx(15.0)


@in_virtual_time
async def test_wait_follows_a_deadline_that_moves() -> None:
    outcome = pending(within=10.0)
    waiting = asyncio.create_task(outcome.wait())
    await asyncio.sleep(5)
    outcome.deadline += 20
    asyncio.get_running_loop().call_later(20, outcome.resolve, "late")
    assert await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(25.0)


@in_virtual_time
async def test_listeners_are_called_after_a_result_and_after_an_error() -> None:
    calls: list[str] = []
    good, bad = pending(), pending()
    good.on_done(lambda: calls.append("good"))
    bad.on_done(lambda: calls.append("bad"))
    good.resolve("42")
    bad.fail(ValueError())
    await asyncio.sleep(0)
    assert calls == ["good", "bad"]
