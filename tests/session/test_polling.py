"""Reads that are repeated until there is an answer, and the poller of a report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from neo_async import AnswerLost, NeoError, NotLoggedIn, NotSent, ProtocolError, RateLimited
from neo_async.session.polling import (
    MAX_CONCURRENT_TRIES,
    URGENT_RETRY_SECONDS,
    Poller,
    retry_until_answered,
)

HANGS = 60.0
LOG = logging.getLogger(__name__)


def seconds() -> float:
    return asyncio.get_running_loop().time()


class Report:
    """Each try takes that long, and then fails or gives its number."""

    def __init__(self, *tries: tuple[float, NeoError | None]) -> None:
        self._tries: Iterator[tuple[float, NeoError | None]] = iter(tries)
        self.began: list[float] = []
        self.at_once = self.most_at_once = 0

    async def read(self) -> int:
        number = len(self.began)
        self.began.append(seconds())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            takes, error = next(self._tries, (HANGS, None))
            await asyncio.sleep(takes)
            if error is not None:
                raise error
            return number
        finally:
            self.at_once -= 1


async def test_a_read_that_is_answered_in_time_is_made_once() -> None:
    report = Report((URGENT_RETRY_SECONDS / 2, None))
    assert await retry_until_answered(report.read, LOG) == 0
    assert report.began == [0.0]


@pytest.mark.parametrize("error", [NotSent("gone"), AnswerLost("lost"), ProtocolError("garbage")])
async def test_a_read_that_fails_is_soon_made_again(error: NeoError) -> None:
    report = Report(*[(0.0, error)] * 20, (0.0, None))
    assert await retry_until_answered(report.read, LOG) == 20
    assert seconds() <= 20 * URGENT_RETRY_SECONDS


async def test_a_try_that_hangs_is_joined_by_another_and_a_late_answer_counts() -> None:
    report = Report((HANGS, None), (0.0, None))
    assert await retry_until_answered(report.read, LOG) == 1
    assert report.began == [0.0, URGENT_RETRY_SECONDS]
    report = Report((10.0, None))
    began = seconds()
    assert await retry_until_answered(report.read, LOG) == 0
    assert seconds() - began == pytest.approx(10.0)
    assert report.most_at_once == MAX_CONCURRENT_TRIES
    assert report.at_once == 0


async def test_a_failure_makes_room_while_all_others_hang() -> None:
    report = Report(
        *[(HANGS, None)] * (MAX_CONCURRENT_TRIES - 1), (5.0, AnswerLost("lost")), (0.0, None)
    )
    assert await retry_until_answered(report.read, LOG) == MAX_CONCURRENT_TRIES
    assert (
        seconds() <= (MAX_CONCURRENT_TRIES - 1) * URGENT_RETRY_SECONDS + 5.0 + URGENT_RETRY_SECONDS
    )


@pytest.mark.parametrize(
    "error", [NotLoggedIn("logged out"), RateLimited("the day is used up", retry_after=9999.0)]
)
async def test_an_error_that_another_try_would_meet_again_is_raised(error: NeoError) -> None:
    report = Report((HANGS, None), (0.0, error))
    with pytest.raises(type(error)):
        await retry_until_answered(report.read, LOG)
    assert (len(report.began), report.at_once) == (2, 0)


async def test_of_two_tries_that_end_in_one_moment_the_answer_counts() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for errors in ((NotLoggedIn("out"), None), (None, NotLoggedIn("out"))):
        report = Report((URGENT_RETRY_SECONDS, errors[0]), (0.0, errors[1]))
        assert await retry_until_answered(report.read, LOG) in (0, 1)
    assert complaints == []


async def test_a_poller_tries_again_and_logs_after_any_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception] = [KeyError("a fault of ours"), AnswerLost("lost")]
    reads: list[float] = []

    async def read() -> None:
        reads.append(seconds())
        if errors:
            raise errors.pop(0)

    poller = Poller("order book", read, lambda: None if poller.read_at > 0 else 0.0, LOG)
    poller.look()  # due, and not asked for
    await asyncio.sleep(30)
    assert len(reads) == 3
    assert poller.read_at == reads[-1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    await poller.close()
