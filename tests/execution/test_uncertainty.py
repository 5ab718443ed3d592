"""What messages of the order feed leave open, and when the order book is read for it."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    OrderStatus,
)
from neo_async.execution.terms_change import CATCHING_UP
from neo_async.execution.uncertainty import (
    EXTERNAL_KEPT,
    EXTERNAL_ORDERS,
    FILL_DETAILS_WAIT,
    UPDATES_OF_AN_EXTERNAL_ORDER,
    Uncertainty,
)
from neo_async.model.feed_state import FeedState
from tests.execution.feed_broker import (
    QUIET,
    FeedBroker,
    order_of,
    row,
    state,
)
from tests.simulation.virtual_time import in_virtual_time


async def test_the_book_is_read_once_per_quiet_time_without_messages_about_an_open_order() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(10)
        broker.send("open", 2)
        assert broker.reads == [0.0]
        broker.book = [state("open", 3, fldQty=4, avgPrc="39.00")]
        await asyncio.sleep(QUIET + 1)
        assert broker.reads == [0.0, pytest.approx(10 + QUIET)]
        assert order.filled_quantity == 4
        await asyncio.sleep(QUIET)
        assert len(broker.reads) == 3


async def test_no_book_is_read_for_silence_without_open_orders() -> None:
    async with FeedBroker() as broker:
        broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("complete", 2, fldQty=10, avgPrc="39.00")
        await asyncio.sleep(10 * QUIET)
        assert broker.reads == [0.0]


async def test_messages_about_an_order_keep_the_book_from_being_read_for_it() -> None:
    async with FeedBroker() as broker:
        broker.order()
        broker.feed.go(FeedState.LIVE)
        for at in range(10):
            await asyncio.sleep(QUIET - 1)
            broker.send("open", at)
        assert broker.reads == [0.0]


async def test_messages_about_other_orders_do_not_put_off_the_reading_of_the_book() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        silent, reported = broker.order(), broker.order(number="2")
        broker.book = [
            state("complete", 9, fldQty=10, avgPrc="39.00"),
            state("open", 1, nOrdNo="2"),
        ]
        broker.reads.clear()
        for at in range(1, int(QUIET) + 2):
            broker.send("open", at, nOrdNo="2")
            broker.feed.send("position", {"actId": "A", "sym": "TCS", "exSeg": "nse_cm"})
            await asyncio.sleep(1)
        assert silent.status is OrderStatus.COMPLETE
        assert not reported.is_final


async def test_resting_orders_have_the_book_read_once_per_quiet_time() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.order()
        for number in range(2, 22):
            broker.order(number=str(number))
        broker.book = [state("open", 1, nOrdNo=str(number)) for number in range(1, 22)]
        await asyncio.sleep(0.1)
        broker.reads.clear()
        for second in range(3600):
            broker.send("open", second + 2, nOrdNo=str(2 + second % 20))
            await asyncio.sleep(1)
        assert len(broker.reads) <= 3600 / QUIET + 1


async def test_an_external_order_is_looked_up_however_many_messages_come_about_others() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.order()
        await asyncio.sleep(1)
        broker.feed.send("order", {"nOrdNo": "77", "ordSt": "open"})
        broker.book = [state("open", 2, nOrdNo="77"), state("open", 1)]
        for at in range(1, int(QUIET) + 2):
            await asyncio.sleep(1)
            broker.send("open", at)
        assert "77" in broker.cache.orders


async def test_the_book_is_read_for_a_final_order_whose_average_price_does_not_come() -> None:
    async with FeedBroker() as broker:
        order, other = broker.order(), broker.order(number="2")
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        broker.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        for at in range(8):  # the feed is not silent
            await asyncio.sleep(FILL_DETAILS_WAIT / 4)
            broker.send("open", at, nOrdNo="2")
        assert order.average_price == 39.1
        assert len(broker.reads) == 2
        assert not other.is_final


async def test_no_book_is_read_for_an_average_price_that_comes_in_time() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        await asyncio.sleep(FILL_DETAILS_WAIT / 2)
        broker.send("complete", 3, fldQty=10, avgPrc="39.10")
        await asyncio.sleep(60)
        assert (order.average_price, len(broker.reads)) == (39.1, 1)


async def test_a_completion_without_quantities_is_filled_in_from_the_book() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "complete"})
        assert order.is_final
        broker.book = [state("complete", 4, fldQty=10, avgPrc="39.10")]
        await asyncio.sleep(2 * FILL_DETAILS_WAIT)
        assert (order.filled_quantity, order.average_price) == (10, 39.1)
        await asyncio.sleep(60)
        assert len(broker.reads) == 2


async def test_the_book_is_not_read_again_for_a_fill_without_price_that_it_confirms() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        broker.send("complete", 3, fldQty=10)
        broker.book = [state("complete", 3, fldQty=10)]
        await asyncio.sleep(60)
        assert (order.average_price, len(broker.reads)) == (0.0, 2)


async def test_an_external_order_with_incomplete_messages_is_registered_from_the_book() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        broker.feed.send("order", {"nOrdNo": "77", "ordSt": "open"})
        assert broker.cache.orders == {}
        broker.book = [state("open", 2, nOrdNo="77"), state("open", 2, nOrdNo="78")]
        await asyncio.sleep(QUIET + 1)
        assert list(broker.cache.orders) == ["77"]  # no message was about the other
        assert len(broker.reads) == 2


async def test_messages_about_orders_that_no_book_shows_are_dropped() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        for number in range(1, 2 * EXTERNAL_ORDERS + 1):
            for _ in range(3):
                broker.feed.send("order", {"nOrdNo": str(number), "ordSt": "open"})
        assert len(broker.cache._uncertainty.external) == EXTERNAL_ORDERS
        await asyncio.sleep(2 * QUIET + 1)
        assert len(broker.cache._uncertainty.external) == 0
        reads = len(broker.reads)
        await asyncio.sleep(10 * QUIET)
        assert len(broker.reads) == reads


# --- doubts by themselves -------------------------------------------------------------------------


def following() -> Uncertainty:
    """Doubts of a client whose order feed is started now."""
    uncertainty = Uncertainty(quiet=QUIET)
    uncertainty.start_following()
    return uncertainty


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def test_no_book_is_due_before_the_feed_was_started() -> None:
    uncertainty = Uncertainty(quiet=QUIET)
    uncertainty.note_odd_fill(0.0)
    uncertainty.keep(row("open", number="77"))
    uncertainty.note_final(order_of(), is_confirmed=False)
    assert not uncertainty.is_followed
    assert uncertainty.due_at(-math.inf, 0.0) == math.inf
    uncertainty.start_following()
    await asyncio.sleep(3)
    uncertainty.start_following()  # a second time changes nothing
    assert uncertainty.due_at(-math.inf, 0.0) == FILL_DETAILS_WAIT


@given(read_at=st.floats(0, 100), updated_at=st.none() | st.floats(0, 100))
@in_virtual_time
async def test_a_book_is_due_a_quiet_time_after_the_last_reading_or_message(
    read_at: float, updated_at: float | None
) -> None:
    due_at = following().due_at(read_at, updated_at)
    assert due_at == (math.inf if updated_at is None else max(read_at, updated_at) + QUIET)


async def test_each_doubt_makes_a_book_due_and_each_reading_puts_it_off() -> None:
    doubtful = order_of()
    doubtful.apply(row("complete", 10, at=5))  # filled at no price
    changed = order_of()
    doubts = {
        "a fill without price": (
            lambda each: each.note_final(doubtful, is_confirmed=False), FILL_DETAILS_WAIT,
        ),
        "an odd fill": (lambda each: each.note_odd_fill(seconds()), FILL_DETAILS_WAIT),
        "an accepted change": (lambda each: each.await_report(changed), FILL_DETAILS_WAIT),
        "an external order": (lambda each: each.keep(row("open", number="77")), QUIET),
    }  # fmt: skip
    for name, (note, wait) in doubts.items():
        uncertainty = following()
        await asyncio.sleep(1)
        calls: list[str] = []
        uncertainty.on_more = lambda calls=calls, name=name: calls.append(name)
        assert uncertainty.due_at(0.0, None) == math.inf
        note(uncertainty)
        assert calls == [name]
        assert uncertainty.due_at(0.0, None) == seconds() + wait
        await asyncio.sleep(5)
        note(uncertainty)  # a doubt that is there already is no later one
        assert uncertainty.due_at(0.0, None) == seconds() - 5 + wait
        assert uncertainty.due_at(seconds(), None) == seconds() + wait


async def test_a_fill_that_is_complete_or_confirmed_leaves_no_doubt() -> None:
    uncertainty = following()
    order = order_of()
    order.apply(row("complete", 10, at=5))
    uncertainty.note_final(order, is_confirmed=False)
    uncertainty.note_final(order, is_confirmed=True)
    assert uncertainty.lacking == {}
    uncertainty.note_final(order, is_confirmed=False)
    order.apply(row("complete", 10, 39.0, at=6))
    uncertainty.note_final(order, is_confirmed=False)
    assert uncertainty.lacking == {}
    assert uncertainty.due_at(0.0, None) == math.inf


async def test_an_order_that_is_open_again_lacks_no_fill() -> None:
    uncertainty = following()
    order = order_of()
    order.apply(row("complete", 10, at=5))
    uncertainty.note_final(order, is_confirmed=False)
    uncertainty.note_open(order.number)
    assert uncertainty.lacking == {}


@given(odd_at=st.floats(0, 10), requested_at=st.floats(0, 10))
@in_virtual_time
async def test_a_book_clears_up_an_odd_fill_only_when_it_was_requested_after_it(
    odd_at: float, requested_at: float
) -> None:
    uncertainty = following()
    uncertainty.note_odd_fill(odd_at)
    uncertainty.clear_by_book(requested_at, 10.0)
    assert (uncertainty.due_at(0.0, None) == math.inf) is (requested_at >= odd_at)


async def test_messages_of_an_external_order_wait_for_the_answer_to_its_placement() -> None:
    uncertainty = following()
    updates = [row("open", at=at, number="77") for at in range(2 * UPDATES_OF_AN_EXTERNAL_ORDER)]
    for update in updates:
        uncertainty.keep(update)
    assert [*uncertainty.external["77"].updates] == updates[-UPDATES_OF_AN_EXTERNAL_ORDER:]
    uncertainty.clear_by_book(0.0, EXTERNAL_KEPT - 0.1)
    assert "77" in uncertainty.external
    uncertainty.clear_by_book(0.0, EXTERNAL_KEPT)
    assert uncertainty.external == {}


async def test_the_oldest_external_order_makes_room_for_a_newer_one() -> None:
    uncertainty = following()
    for number in range(EXTERNAL_ORDERS + 3):
        uncertainty.keep(row("open", number=str(number)))
    assert len(uncertainty.external) == EXTERNAL_ORDERS
    assert next(iter(uncertainty.external)) == "3"


async def test_an_accepted_change_is_in_doubt_until_a_report_or_a_book_long_after_it() -> None:
    uncertainty = following()
    order = order_of()
    change = order.begin_change(msgspec.structs.replace(order.terms, quantity=20))
    assert order.accept_change(change)
    uncertainty.await_report(order)
    uncertainty.note_report(order)
    uncertainty.clear_by_book(seconds() + CATCHING_UP - 0.1, seconds())
    assert uncertainty.unreported == {order.number: order}
    uncertainty.clear_by_book(seconds() + CATCHING_UP, seconds())
    assert uncertainty.unreported == {}
    uncertainty.await_report(order)
    order.apply(row("modified", at=9, quantity=20))
    uncertainty.note_report(order)
    assert uncertainty.unreported == {}
