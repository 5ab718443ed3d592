"""When the order book is read for requests in flight."""

from __future__ import annotations

import asyncio

import pytest

from neo_async import OutcomeUnknown
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
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
