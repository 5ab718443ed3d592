"""When the order book is read for requests in flight."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from neo_async import OutcomeUnknown
from neo_async.execution.book_poller import (
    FIRST_READ_DELAY_SECONDS,
    MAX_READ_INTERVAL_AFTER_TIMEOUT_SECONDS,
    MAX_READ_INTERVAL_SECONDS,
    BookPoller,
)
from neo_async.execution.history_search import READ_TIMEOUT_SECONDS
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
from neo_async.model.orders import OrderRow
from tests.execution.report_broker import (
    Broker,
    placement,
    row,
)


async def test_no_book_is_read_any_more_when_the_last_request_has_left() -> None:
    broker = Broker()
    broker.cache.register_number("261123000000009")  # no book has it, so none is complete
    with pytest.raises(OutcomeUnknown, match="lacked orders that must be in it"):
        await broker.in_flight.open(placement())
    books = broker.books
    assert books < 60
    await asyncio.sleep(600)
    assert broker.books <= books + 1
    await broker.in_flight.close()


async def test_a_book_that_cannot_be_read_is_not_asked_for_when_nothing_needs_it() -> None:
    broker = Broker()
    broker.is_down = True
    with pytest.raises(OutcomeUnknown):
        await broker.in_flight.open(placement())
    broker.in_flight.watch_for("refused", None)
    broker.in_flight.on_update(row(gui_order_id="refused"))  # it is not in the cache
    await asyncio.sleep(2 * EXPIRY_SECONDS)
    books = broker.books
    await asyncio.sleep(3600)
    assert broker.books == books
    await broker.in_flight.close()


# --- the poller by itself -------------------------------------------------------------------------


class Poll:
    """A poller whose reads, and the end of whose resolution timeouts, a test sets."""

    def __init__(self, awaited_until: float | None = None) -> None:
        self.awaited_until = awaited_until
        self.reads: list[float] = []
        """Times of the loop at which the reads began."""
        self.hangs = False
        self.poller = BookPoller(
            self._read, lambda: self.awaited_until, logging.getLogger("neo_async.orders")
        )

    async def _read(self) -> list[OrderRow]:
        self.reads.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        return []

    @property
    def gaps(self) -> list[float]:
        """Seconds before each read, from the start of the loop's clock."""
        return [after - before for before, after in pairwise([0.0, *self.reads])]


async def test_reads_follow_a_lost_answer_at_growing_intervals_up_to_the_longest() -> None:
    poll = Poll(awaited_until=60.0)
    poll.poller.read_soon()
    await asyncio.sleep(20)
    first, longest = FIRST_READ_DELAY_SECONDS, MAX_READ_INTERVAL_SECONDS
    doubled = [first, 2 * first, 4 * first, 8 * first, 16 * first]
    assert poll.gaps == pytest.approx([*doubled, longest, longest])
    await poll.poller.close()


async def test_reads_become_rarer_once_every_resolution_timeout_is_over() -> None:
    poll = Poll(awaited_until=10.0)
    poll.poller.read_soon()
    await asyncio.sleep(200)
    late = [gap for at, gap in zip(poll.reads, poll.gaps, strict=True) if at > 60]
    assert late == pytest.approx([MAX_READ_INTERVAL_AFTER_TIMEOUT_SECONDS] * len(late))
    assert len(late) >= 3
    await poll.poller.close()


async def test_another_lost_answer_begins_with_short_intervals_again() -> None:
    poll = Poll(awaited_until=1000.0)
    poll.poller.read_soon()
    await asyncio.sleep(30)
    poll.reads.clear()
    poll.poller.read_soon()
    await asyncio.sleep(1)
    assert poll.reads == pytest.approx(
        [30 + FIRST_READ_DELAY_SECONDS, 30 + 3 * FIRST_READ_DELAY_SECONDS]
    )
    await poll.poller.close()


async def test_reports_that_prove_nothing_put_the_next_read_off_the_longer_the_more_they_are() -> (
    None
):
    for failures in range(12):
        poll = Poll(awaited_until=1000.0)
        began = asyncio.get_running_loop().time()
        poll.poller.read_again(failures)
        await asyncio.sleep(MAX_READ_INTERVAL_SECONDS + 0.1)
        wanted = min(MAX_READ_INTERVAL_SECONDS, FIRST_READ_DELAY_SECONDS * 2**failures)
        assert poll.reads[0] - began == pytest.approx(wanted)
        await poll.poller.close()


async def test_nothing_is_read_while_nothing_is_in_flight() -> None:
    poll = Poll()
    poll.poller.read_soon()
    poll.poller.read_now()
    await asyncio.sleep(600)
    assert poll.reads == []


async def test_a_book_that_is_needed_for_a_time_is_read_although_nothing_is_in_flight() -> None:
    poll = Poll()
    poll.poller.read_now(needed_for_seconds=5.0)
    await asyncio.sleep(4)
    poll.poller.read_now()
    await asyncio.sleep(2)
    poll.poller.read_now()
    await asyncio.sleep(60)
    assert poll.reads == [0.0, 4.0]


async def test_a_read_without_an_answer_is_given_up_logged_and_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    poll = Poll(awaited_until=1000.0)
    poll.hangs = True
    poll.poller.read_now()
    await asyncio.sleep(READ_TIMEOUT_SECONDS + 0.01)
    assert f"no answer that is a book for {READ_TIMEOUT_SECONDS:g} s" in caplog.text
    poll.hangs = False
    poll.reads.clear()
    await asyncio.sleep(2)
    assert poll.reads
    await poll.poller.close()


async def test_a_closed_poller_reads_no_more() -> None:
    poll = Poll(awaited_until=1000.0)
    poll.poller.read_soon()
    await poll.poller.close()
    await asyncio.sleep(60)
    assert poll.reads == []
