"""The retry loop: which errors it repeats, how often, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from neo_async.errors import NeoError, NotSent, Rejected
from neo_async.transport.retry import retry
from tests.simulation.virtual_time import in_virtual_time


class Call:
    """Fails as often as it has errors, then returns the number of its calls."""

    def __init__(self, *errors: NeoError) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def __call__(self) -> int:
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return len(self.times)


def is_not_sent(error: NeoError) -> bool:
    return isinstance(error, NotSent)


@in_virtual_time
async def test_the_first_result_is_returned_and_every_retry_reported() -> None:
    call, reported = Call(NotSent("a"), NotSent("b")), []
    assert await retry(call, is_not_sent, base=0.1, cap=1.0, on_retry=reported.append) == 3
    assert [str(error) for error in reported] == ["a", "b"]
    assert 0 < call.times[-1] <= 0.3


@in_virtual_time
async def test_any_other_error_is_raised_at_once() -> None:
    call = Call(NotSent("a"), Rejected("no"))
    with pytest.raises(Rejected):
        await retry(call, is_not_sent, base=0.1, cap=1.0)
    assert len(call.times) == 2


@in_virtual_time
async def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    call = Call(*(NotSent(name) for name in "abcd"))
    with pytest.raises(NotSent, match="c"):
        await retry(call, is_not_sent, base=0.1, cap=1.0, attempts=3)
    assert len(call.times) == 3


@in_virtual_time
async def test_no_call_begins_after_the_time_allowed() -> None:
    call = Call(*(NotSent("a") for _ in range(10_000)))
    with pytest.raises(NotSent):
        await retry(call, is_not_sent, base=0.1, cap=0.5, within=10.0)
    assert 9.0 < call.times[-1] < 10.0
