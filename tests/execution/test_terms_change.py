"""Terms that the broker has accepted hold until a report from after the change."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import Order, OrderType
from neo_async.execution.terms_change import CATCHING_UP, TermsChange
from neo_async.execution.uncertainty import FILL_DETAILS_WAIT
from neo_async.model.feed_state import FeedState
from tests.execution.feed_broker import FeedBroker, state
from tests.simulation.virtual_time import in_virtual_time


def change_of(order: Order, **terms: Any) -> TermsChange:
    """As `modify` begins it before it sends."""
    return order.begin_change(msgspec.structs.replace(order.terms, **terms))


def accepted(broker: FeedBroker, order: Order, **terms: Any) -> None:
    broker.cache.accept_change(order, change_of(order, **terms))


async def test_a_message_from_before_an_accepted_change_does_not_undo_it() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        accepted(broker, order, quantity=90, price=Decimal("39.40"))
        broker.send("open", 5, qty=10, fldQty=4, avgPrc="39.00")
        assert (order.quantity, order.price, order.filled_quantity) == (90, Decimal("39.40"), 4)
        broker.send("modified", 6, qty=90, prc="39.40", fldQty=4, avgPrc="39.00")
        assert (order.quantity, order.price) == (90, Decimal("39.40"))
        broker.send("open", 7, qty=50, prc="39.40")  # changed elsewhere, after ours
        assert order.quantity == 50


async def test_what_the_change_did_not_touch_follows_the_reports() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        accepted(broker, order, quantity=90)
        broker.send("open", 5, qty=10, prc="38.50")
        assert (order.quantity, order.price) == (90, Decimal("38.50"))


async def test_a_refusal_counts_whether_it_comes_before_the_acceptance_or_after_it() -> None:
    for comes_first in (True, False):
        for refusal in ({"rejRsn": "RMS:Margin Exceeds"}, {"ordSt": "not modified"}):
            async with FeedBroker() as broker:
                broker.feed.go(FeedState.LIVE)
                order = broker.order()
                broker.send("open", 4)
                change = change_of(order, quantity=90)
                broker.send("modify validation pending", 5)
                if comes_first:
                    broker.feed.send("order", state("open", 6) | refusal)
                broker.cache.accept_change(order, change)
                if not comes_first:
                    assert order.quantity == 90
                    broker.feed.send("order", state("open", 6) | refusal)
                assert order.quantity == 10
                assert order.unreported_change is None


async def test_what_reports_show_of_a_change_before_its_acceptance_counts() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        change = change_of(order, quantity=90)
        broker.send("modified", 5, qty=90)
        broker.send("open", 6, qty=70)  # changed once more, elsewhere
        broker.cache.accept_change(order, change)
        assert order.quantity == 70


async def test_an_old_reason_does_not_pass_for_a_refusal() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        broker.send("open", 4, rejRsn="RMS:Margin Exceeds")
        accepted(broker, order, quantity=90)
        broker.send("open", 5, fldQty=1, avgPrc="39.00", rejRsn="RMS:Margin Exceeds")
        assert order.quantity == 90


async def test_a_change_that_no_report_shows_is_looked_up_and_believed_refused_in_the_end() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        broker.send("open", 4)
        broker.book = [state("open", 4)]
        await asyncio.sleep(1)
        broker.reads.clear()
        accepted(broker, order, quantity=90)
        await asyncio.sleep(FILL_DETAILS_WAIT + 0.1)
        assert len(broker.reads) == 1
        assert order.quantity == 90  # the broker may not have caught up
        await asyncio.sleep(CATCHING_UP + FILL_DETAILS_WAIT)
        assert order.quantity == 10
        broker.reads.clear()
        await asyncio.sleep(10)
        assert broker.reads == []


async def test_a_change_that_is_reported_in_time_needs_no_book() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        await asyncio.sleep(1)
        broker.reads.clear()
        accepted(broker, order, quantity=90)
        broker.send("modified", 5, qty=90)
        await asyncio.sleep(2 * FILL_DETAILS_WAIT)
        assert broker.reads == []


async def test_a_change_back_is_not_shown_by_a_report_from_before_both() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        accepted(broker, order, quantity=5)
        accepted(broker, order, quantity=10)
        broker.send("open", 4)  # of before both
        broker.send("modified", 5, qty=5)  # of the first
        assert order.quantity == 10
        broker.book = [state("open", 6)]
        await asyncio.sleep(2 * FILL_DETAILS_WAIT)
        broker.send("open", 7, qty=8)
        assert order.quantity == 8


async def test_a_change_to_market_is_shown_by_the_limit_that_the_broker_makes_of_it() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        broker.send("open", 4)
        accepted(broker, order, order_type=OrderType.MARKET, price=None)
        broker.send("open", 5, fldQty=1, avgPrc="39.00")
        assert (order.order_type, order.price) == (OrderType.MARKET, None)
        broker.send("modified", 6, prc="40.18")
        assert (order.order_type, order.price) == (OrderType.LIMIT, Decimal("40.18"))


async def test_a_change_that_was_not_accepted_leaves_the_one_before_it_in_force() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order()
        accepted(broker, order, quantity=90)
        change = change_of(order, price=Decimal("39.40"))
        order.drop_change(change, is_known=True)
        broker.send("open", 5)
        assert (order.quantity, order.price) == (90, 39)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
@in_virtual_time
async def test_however_late_the_messages_are_the_last_accepted_quantity_stands(
    quantities: list[int], data: st.DataObject
) -> None:
    """The broker does every change at once; its messages come in order, each any time later."""
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order(quantity=2)
        messages = [state("open", 1, qty=2)]
        for at, quantity in enumerate(quantities, start=2):
            for _ in range(data.draw(st.integers(0, len(messages)))):
                broker.feed.send("order", messages.pop(0))
            accepted(broker, order, quantity=quantity)
            assert order.quantity == quantity
            messages.append(state("modified", 10 * at, qty=quantity))
            broker.book = [state("modified", 10 * at, qty=quantity)]
        for message in messages:
            broker.feed.send("order", message)
            assert order.quantity == quantities[-1]
        await asyncio.sleep(CATCHING_UP + 2 * FILL_DETAILS_WAIT)
        assert order.quantity == quantities[-1]
        assert order.unreported_change is None


async def test_a_changed_market_order_is_reported_whatever_its_price_is() -> None:
    """The broker gives a market order a limit at a price of its own, which is no term of it."""
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        order = broker.order(order_type=OrderType.MARKET, price=None)
        broker.send("open", 4, prcTp="MKT", prc="39.40")
        assert order.price == Decimal("39.40")
        accepted(broker, order, quantity=90, price=None)
        broker.send("open", 5, prcTp="MKT", prc="39.40", qty=10)  # from before the change
        assert order.quantity == 90
        assert order.unreported_change is not None
        broker.send("modified", 6, prcTp="MKT", prc="39.40", qty=90)
        assert order.unreported_change is None
