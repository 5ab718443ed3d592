"""Requests whose answers were lost: they are never sent again, and never stay unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    NotAccepted,
    OpenOrdersLimit,
    Order,
    OrderAlreadyFinal,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    RiskLimits,
    Segment,
    UsageError,
    Validity,
)
from neo_async.exchange.engine.types import Change
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
from tests.clients import CANCEL, MODIFY, PLACE
from tests.execution.proxied_exchange import (
    BOOK,
    BUSY,
    BUY,
    CNC,
    RESOLUTION_TIMEOUT,
    proxied_exchange,
    seconds,
)
from tests.fake_servers import Cut, Late, Reply
from tests.simulation.virtual_time import VirtualTimeLoop

EMPTY = Reply({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"})


LOST = [BUSY, Reply(""), Reply('{"nOrdNo":"26'), Cut(), Cut(b'{"nOr'), Late(60.0, Reply("late"))]


@pytest.mark.parametrize("lost", LOST)
async def test_a_lost_answer_is_resolved_and_nothing_is_sent_again(lost: Any) -> None:
    async with proxied_exchange() as proxy:
        orders = proxy.neo.orders
        proxy.overrides.update({PLACE: lost, MODIFY: lost, CANCEL: lost})
        order = await orders.place(*BUY, **CNC, tag="mine")
        (record,) = proxy.ledger
        assert (order.number, order.client_tag, order.tag) == (
            record.number,
            record.client_tag,
            "mine",
        )
        assert await orders.modify(order, price="39.10", quantity=20) is order
        assert (order.price, order.quantity, record.price) == (Decimal("39.10"), 20, 3910)
        assert await orders.cancel(order) is order
        assert order.status is record.status is OrderStatus.CANCELLED
        assert seconds() < 3 * (2.0 + 1.0)
        assert [await proxy.sent(path) for path in (PLACE, MODIFY, CANCEL)] == [1, 1, 1]
        assert record.arrivals == 1


async def test_an_order_that_appears_late_is_waited_for() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides.update({PLACE: BUSY, BOOK: lambda: EMPTY if seconds() < 4 else None})
        order = await proxy.neo.orders.place(*BUY, **CNC)
        assert order.number == proxy.ledger[0].number
        assert 4 <= seconds() < 10


async def test_a_placement_that_no_report_shows_by_the_end_of_its_timeout_was_not_accepted() -> (
    None
):
    async with proxied_exchange() as proxy:
        neo = proxy.neo
        proxy.dropped.add(PLACE)
        with pytest.raises(NotAccepted, match="no trace") as caught:
            await neo.orders.place(*BUY, **CNC, tag="gone")
        assert caught.value.client_tag.startswith("gone_")
        assert RESOLUTION_TIMEOUT <= seconds() < RESOLUTION_TIMEOUT + 1
        assert proxy.ledger == []


@pytest.mark.parametrize("path", [MODIFY, CANCEL])
async def test_a_change_that_never_arrived_was_not_accepted(path: str) -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        neo = proxy.neo
        proxy.dropped.add(path)
        order = await neo.orders.place(*BUY, **CNC)
        call = neo.orders.cancel(order)
        if path == MODIFY:
            call.close()
            call = neo.orders.modify(order, price="39.10")
        with pytest.raises(NotAccepted, match=order.number):
            await call
        (record,) = proxy.ledger
        assert (record.status, record.price, order.price) == (OrderStatus.OPEN, 3900, 39.0)


async def test_a_cancel_that_never_arrived_and_a_fill_are_distinguished() -> None:
    async with proxied_exchange() as proxy:
        neo = proxy.neo
        proxy.dropped.add(CANCEL)
        order = await neo.orders.place(*BUY, **CNC)
        cancelling = asyncio.create_task(neo.orders.cancel(order))
        await asyncio.sleep(3)
        proxy.exchange.market.print_price(Segment.NSE_CM, "19084", 3890)
        with pytest.raises(OrderAlreadyFinal, match="too late to cancel"):
            await cancelling
        assert order.status is OrderStatus.COMPLETE


async def test_an_unreadable_book_proves_nothing() -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        proxy.overrides.update({PLACE: BUSY, BOOK: BUSY})
        with pytest.raises(OutcomeUnknown) as caught:
            await proxy.neo.orders.place(*BUY, **CNC)
        assert seconds() >= 5.0
        del proxy.overrides[BOOK]
        order = await caught.value.outcome()
        assert order.number == proxy.ledger[0].number


async def test_books_that_hang_do_not_keep_a_caller_waiting() -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        books = iter([Late(60.0, BUSY)] * 3)
        proxy.overrides.update({BOOK: lambda: next(books, None) if seconds() > 4 else BUSY})
        proxy.dropped.add(PLACE)
        with pytest.raises(NotAccepted):
            await proxy.neo.orders.place(*BUY, **CNC)
        assert 5.0 <= seconds() < 5.0 + 3.0


async def test_a_caller_that_does_not_wait_gets_the_outcome_later() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides[PLACE] = BUSY
        with pytest.raises(OutcomeUnknown) as caught:
            await proxy.neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        assert seconds() < 0.1
        first, second = await asyncio.gather(caught.value.outcome(), caught.value.outcome())
        assert first is second
        assert first.number == proxy.ledger[0].number


async def test_the_order_of_a_cancelled_call_is_found_nevertheless() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides[PLACE] = Late(1.0, Reply(""))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(proxy.neo.orders.place(*BUY, **CNC, tag="left"), 0.5)
        await asyncio.sleep(5)
        (order,) = proxy.neo._engine.cache.orders.values()
        assert (order.number, order.tag) == (proxy.ledger[0].number, "left")
        assert not proxy.neo._engine.in_flight_requests


async def test_the_feed_reports_before_any_book_is_read() -> None:
    async with proxied_exchange(live_updates=True) as proxy:
        await proxy.neo.order_feed.until_live()
        proxy.overrides.update({PLACE: Reply(""), BOOK: BUSY})
        order = await proxy.neo.orders.place(*BUY, **CNC)
        assert order.number == proxy.ledger[0].number


async def test_a_logout_ends_the_search_for_an_order_with_its_outcome_unknown() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides.update({PLACE: BUSY, BOOK: BUSY})
        placing = asyncio.create_task(proxy.neo.orders.place(*BUY, **CNC))
        with pytest.raises(OutcomeUnknown) as caught:
            await proxy.neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        await proxy.neo.logout()
        for ending in (caught.value.outcome(), placing):
            with pytest.raises(OutcomeUnknown, match="logged out before") as ended:
                await ending
            assert not isinstance(ended.value, UsageError)
        assert len(proxy.ledger) == 2


async def test_an_answer_that_is_lost_during_the_logout_leaves_the_outcome_unknown() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides[PLACE] = Late(1.0, Reply("late"))
        placing = asyncio.create_task(proxy.neo.orders.place(*BUY, **CNC))
        await asyncio.sleep(0.5)
        await proxy.neo._engine.close()
        with pytest.raises(OutcomeUnknown, match="logged out before"):
            await placing
        assert len(proxy.ledger) == 1


# --- what the book does not show --------------------------------------------------------------


async def test_a_modification_that_another_one_has_replaced_is_found_in_the_history() -> None:
    async with proxied_exchange() as proxy:
        order = await proxy.neo.orders.place(*BUY, **CNC)
        proxy.overrides.update({MODIFY: BUSY, BOOK: lambda: BUSY if seconds() < 2 else None})
        first = asyncio.create_task(proxy.neo.orders.modify(order, price="39.10"))
        await asyncio.sleep(0.1)
        del proxy.overrides[MODIFY]
        await proxy.neo.orders.modify(order, price="39.20")
        assert await first is order
        assert (proxy.ledger[0].request_id, proxy.ledger[0].price) == (3, 3920)


async def test_a_modification_that_never_arrived_is_in_no_history() -> None:
    async with proxied_exchange() as proxy:
        order = await proxy.neo.orders.place(*BUY, **CNC)
        await proxy.neo.orders.modify(order, price="39.10")
        await proxy.neo.orders.book()
        proxy.dropped.add(MODIFY)
        back = asyncio.create_task(proxy.neo.orders.modify(order, price="39.00"))
        await asyncio.sleep(0.1)
        proxy.dropped.clear()
        await proxy.neo.orders.modify(order, quantity=20)
        with pytest.raises(NotAccepted):
            await back
        assert (proxy.ledger[0].price, proxy.ledger[0].quantity) == (3910, 20)


@pytest.mark.parametrize("path", [MODIFY, CANCEL])
async def test_a_lost_change_to_a_final_order_came_too_late(path: str) -> None:
    async with proxied_exchange() as proxy:
        order = await proxy.neo.orders.place(*BUY, **CNC)
        await proxy.neo.orders.cancel(order)
        await proxy.neo.orders.book()
        proxy.overrides[path] = Cut()
        call = proxy.neo.orders.cancel(order)
        if path == MODIFY:
            call.close()
            call = proxy.neo.orders.modify(order, price="39.10")
        with pytest.raises(OrderAlreadyFinal, match="too late"):
            await call
        assert seconds() < 3


async def test_an_order_modified_elsewhere_before_it_was_found_is_known_by_its_history() -> None:
    async with proxied_exchange() as proxy:
        proxy.overrides.update({PLACE: BUSY, BOOK: BUSY})
        placing = asyncio.create_task(proxy.neo.orders.place(*BUY, **CNC, tag="mine"))
        await asyncio.sleep(1)
        (record,) = proxy.ledger
        change = Change(
            quantity=20,
            order_type=OrderType.LIMIT,
            validity=Validity.DAY,
            price=3910,
            trigger=0,
            disclosed_quantity=0,
        )
        proxy.exchange.market.modify(record.account, record.number, change)
        assert "mine" not in record.gui_order_id
        proxy.overrides.clear()
        order = await placing
        assert (order.number, order.tag, order.quantity) == (record.number, "mine", 20)


@pytest.mark.parametrize("broken", ["[]", '{"result":[]}', '{"data":null,"stat":null}'])
async def test_a_book_that_lacks_a_known_order_proves_nothing(broken: str) -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        await proxy.neo.orders.place(*BUY, **CNC)
        proxy.overrides.update({PLACE: Cut(), BOOK: Reply(broken)})
        with pytest.raises(OutcomeUnknown) as caught:
            await proxy.neo.orders.place(*BUY, **CNC)
        del proxy.overrides[BOOK]
        order = await caught.value.outcome()
        assert order.number == proxy.ledger[1].number


async def test_one_empty_book_rules_nothing_out() -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        books = iter([Reply("[]")])
        proxy.overrides.update(
            {PLACE: Cut(), BOOK: lambda: BUSY if seconds() < 5 else next(books, None)}
        )
        order = await proxy.neo.orders.place(*BUY, **CNC)
        assert order.number == proxy.ledger[0].number


CORE = Reply({"stCode": 32, "stMsg": "error from core", "stat": "Not_Ok"})


@pytest.mark.parametrize("path", [PLACE, MODIFY, CANCEL])
async def test_an_error_from_the_core_ends_in_time_and_holds_up_nothing(path: str) -> None:
    async with proxied_exchange(risk=RiskLimits(max_open_orders=2)) as proxy:
        orders = proxy.neo.orders
        order = await orders.place(*BUY, **CNC)
        proxy.refused[path] = CORE
        call = {
            PLACE: lambda: orders.place(*BUY, **CNC),
            MODIFY: lambda: orders.modify(order, price="39.10"),
            CANCEL: lambda: orders.cancel(order),
        }[path]
        with pytest.raises(OutcomeUnknown if path == PLACE else NotAccepted):
            await call()
        assert RESOLUTION_TIMEOUT <= seconds() < RESOLUTION_TIMEOUT + 5
        assert proxy.neo.health().unknown == ()
        proxy.refused.clear()
        books = await proxy.sent(BOOK)
        await asyncio.sleep(120)
        assert await proxy.sent(BOOK) <= books + 12  # of an order that is open
        await orders.place(*BUY, **CNC)
        await asyncio.wait_for(proxy.neo.halt(), 10)
        assert all(record.status.is_final for record in proxy.ledger)


async def test_room_in_the_limits_is_given_back_when_an_outcome_stays_unknown() -> None:
    async with proxied_exchange(
        resolution_timeout=5.0, risk=RiskLimits(max_open_orders=1)
    ) as proxy:
        proxy.dropped.add(PLACE)
        proxy.overrides[BOOK] = BUSY
        with pytest.raises(OutcomeUnknown):
            await proxy.neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        with pytest.raises(OpenOrdersLimit):
            await proxy.neo.orders.place(*BUY, **CNC)
        await asyncio.sleep(5.0 + EXPIRY_SECONDS)
        proxy.overrides.clear()
        proxy.dropped.clear()
        await asyncio.sleep(20)
        await proxy.neo.orders.place(*BUY, **CNC)


# --- programs of faults -----------------------------------------------------------------------

FAULTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "busy": lambda: BUSY,
    "cut": lambda: Cut(),
    "garbage": lambda: Reply("<html>"),
    "late": lambda: Late(5.0, Reply("")),
}


@given(
    programme=st.lists(
        st.tuples(st.sampled_from(["place", "modify", "cancel"]), st.sampled_from(sorted(FAULTS))),
        min_size=1,
        max_size=8,
    ),
    hidden=st.floats(0, 8),
)
@settings(max_examples=15, deadline=None)
def test_whatever_goes_wrong_client_and_exchange_agree(
    programme: list[tuple[str, str]], hidden: float
) -> None:
    async def run() -> None:
        async with proxied_exchange() as proxy:
            orders: list[Order] = []
            placed = 0
            for action, fault in programme:
                path = {"place": PLACE, "modify": MODIFY, "cancel": CANCEL}[action]
                proxy.overrides.clear()
                until = seconds() + hidden
                proxy.overrides[path] = FAULTS[fault]
                proxy.overrides[BOOK] = lambda until=until: BUSY if seconds() < until else None
                if action == "place":
                    placed += 1
                    orders.append(await proxy.neo.orders.place(*BUY, **CNC))
                elif orders:
                    order = orders[-1]
                    (record,) = (each for each in proxy.ledger if each.number == order.number)
                    was_final = record.status.is_final
                    try:
                        if action == "modify":
                            await proxy.neo.orders.modify(order, quantity=order.quantity + 1)
                        else:
                            await proxy.neo.orders.cancel(order)
                    except OrderAlreadyFinal:
                        assert was_final
                    else:
                        # Of two requests to cancel, no report shows which one did it.
                        is_as_asked = action == "cancel" and order.status is OrderStatus.CANCELLED
                        assert not was_final or is_as_asked
            proxy.overrides.clear()
            await proxy.neo.orders.book()
            assert [record.arrivals for record in proxy.ledger] == [1] * placed
            by_number = {order.number: order for order in orders}
            assert set(by_number) == {record.number for record in proxy.ledger}
            for record in proxy.ledger:
                order = by_number[record.number]
                assert (order.client_tag, order.quantity, order.status) == (
                    record.client_tag,
                    record.quantity,
                    record.status,
                )

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
