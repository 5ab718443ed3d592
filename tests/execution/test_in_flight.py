"""Requests in flight, on order books and histories that a test writes row by row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from neo_async import NotAccepted, OrderAlreadyFinal, OutcomeUnknown
from neo_async.base.india import day_of
from neo_async.execution.expected_effect import ExpectedEffect, cancellation, has_terms
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import EXPIRY_SECONDS, InFlightRequest
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.resolution import MAX_HISTORIES, had_terms
from neo_async.model.enums import OrderType
from neo_async.model.orders import OrderRow
from neo_async.model.updates import OrderUpdate
from tests.execution.report_broker import (
    RESOLUTION_TIMEOUT,
    Broker,
    errors_of,
    modification,
    placement,
    row,
    state,
)
from tests.simulation.virtual_time import now

MIDNIGHT = 14 * 3600.0
"""Seconds from the start of the virtual clock, 10:00 in India."""


# --- every request leaves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected", [placement(), ExpectedEffect(action="cancel", number="261123000000001")]
)
async def test_a_request_ends_with_its_outcome_unknown_when_no_book_can_be_read(
    expected: ExpectedEffect, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    broker.is_down = True
    request = broker.in_flight.open(expected)
    freed: list[float] = []
    request.on_done(lambda: freed.append(now()))
    with pytest.raises(OutcomeUnknown, match="no order book could be read"):
        await request
    assert asyncio.get_running_loop().time() == pytest.approx(
        RESOLUTION_TIMEOUT + EXPIRY_SECONDS, abs=0.1
    )
    assert not broker.in_flight.in_flight_requests
    assert len(freed) == 1
    assert "outcome unresolved: nothing proved it within" in errors_of(caplog)[0]
    await broker.in_flight.close()


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


async def test_an_order_that_the_broker_claims_to_have_and_shows_nowhere_stays_unknown() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement(), is_proven=True)
    with pytest.raises(OutcomeUnknown, match="neither the order book nor a history"):
        await request
    assert asyncio.get_running_loop().time() < RESOLUTION_TIMEOUT + 10
    await broker.in_flight.close()


async def test_an_order_that_the_broker_claims_to_have_is_searched_in_histories() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement(), is_proven=True)
    other = row(gui_order_id="1764835124-266187-X-ADMINAPI")
    broker.rows = [other]
    broker.histories[other.number] = [state(other), state(other, gui_order_id="lost")]
    assert (await request).number == other.number
    await broker.in_flight.close()


@pytest.mark.parametrize("action", ["modify", "cancel"])
async def test_of_a_change_no_broker_can_claim_to_have_its_tag(action: str) -> None:
    broker = Broker()
    order = broker.cache.register(row())
    broker.rows = [row()]
    broker.histories[order.number] = [state(broker.rows[0])]
    # With 0, every report counts as one from after the request.
    expected = msgspec.structs.replace(
        modification(order, quantity=20) if action == "modify" else cancellation(order), since_ns=0
    )
    with pytest.raises(NotAccepted):
        await broker.in_flight.open(expected, is_proven=True)
    await broker.in_flight.close()


async def test_a_history_that_never_comes_does_not_keep_a_request_in_flight() -> None:
    broker = Broker()
    broker.histories_hang = True
    broker.rows = [row()]
    with pytest.raises(OutcomeUnknown, match="no history"):
        await broker.in_flight.open(placement())
    assert asyncio.get_running_loop().time() < RESOLUTION_TIMEOUT + EXPIRY_SECONDS + 1
    await broker.in_flight.close()
    assert {task.get_name() for task in asyncio.all_tasks()} <= {
        task.get_name() for task in [asyncio.current_task()] if task
    }


# --- reports of the right time -----------------------------------------------------------------


async def test_a_change_to_what_the_order_is_already_is_proven_by_its_history_only() -> None:
    for has_arrived in (False, True):
        broker = Broker()
        before = row()
        order = broker.cache.register(before)
        request = broker.in_flight.open(modification(order))
        await asyncio.sleep(1)
        broker.rows = [row()]
        states = [state(broker.rows[0]), state(before)]
        if has_arrived:
            states.insert(0, state(broker.rows[0], status_text="modified"))
        broker.histories[order.number] = states
        if has_arrived:
            assert await request is order
        else:
            with pytest.raises(NotAccepted):
                await request
        await broker.in_flight.close()


async def test_a_report_from_before_a_change_does_not_prove_it() -> None:
    broker = Broker()
    before = row(price=39.1)
    order = broker.cache.register(before)
    await asyncio.sleep(1)
    order.apply(row(price=39.0))
    expected = modification(order, price=Decimal("39.1"))
    request = broker.in_flight.open(expected)
    broker.send_update(before)  # late
    assert not request.is_done
    await asyncio.sleep(1)
    broker.send_update(row(price=39.1))
    assert await request is order
    await broker.in_flight.close()


async def test_a_message_without_the_terms_proves_nothing_of_them() -> None:
    broker = Broker()
    order = broker.cache.register(row(trigger=38.0))
    expected = modification(order, trigger=None)
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    at = int(now() * 1e9)
    broker.send_update(
        OrderUpdate(
            number=order.number,
            status_text="open",
            updated_ns=at,
            missing=frozenset(OrderRow.__struct_fields__) - {"number", "status_text", "updated_ns"},
        )
    )
    assert not request.is_done
    await broker.in_flight.close()


async def test_an_earlier_cancellation_that_is_under_way_proves_no_later_one() -> None:
    broker = Broker()
    order = broker.cache.register(row(status_text="cancel request"))
    expected = ExpectedEffect(action="cancel", number=order.number, was_cancelling=True)
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    broker.send_update(row(status_text="cancel request"))
    assert not request.is_done
    broker.send_update(row(status_text="complete", filled_quantity=10))
    with pytest.raises(OrderAlreadyFinal, match="too late to cancel"):
        await request
    await broker.in_flight.close()


async def test_after_a_crash_an_order_cancelled_before_the_request_was_final_already() -> None:
    for updated_s, error in ((-60, OrderAlreadyFinal), (1, None)):
        broker = Broker()
        broker.rows = [
            row(status_text="cancelled", updated_ns=int((now() + updated_s) * 1e9)),
        ]
        expected = ExpectedEffect(
            action="cancel",
            number=broker.rows[0].number,
            since_ns=int(now() * 1e9),
            is_from_journal=True,
        )
        request = broker.in_flight.open(expected)
        if error is None:
            assert (await request).number == broker.rows[0].number
        else:
            with pytest.raises(error):
                await request
        await broker.in_flight.close()


async def test_a_book_that_is_behind_the_feed_rules_out_no_change() -> None:
    broker = Broker()
    old = row()
    order = broker.cache.register(old)
    await asyncio.sleep(10)
    order.apply(row())
    broker.rows = [old]
    broker.histories[order.number] = [state(old)]
    expected = modification(order, price=Decimal("39.1"))
    request = broker.in_flight.open(expected)
    await asyncio.sleep(RESOLUTION_TIMEOUT + 20)
    assert not request.is_done
    broker.rows = [row()]
    await asyncio.sleep(10)
    assert not request.is_done  # the history is behind as well
    broker.histories[order.number] = [state(broker.rows[0]), state(old)]
    with pytest.raises(NotAccepted):
        await request
    await broker.in_flight.close()


async def test_a_book_of_the_next_day_does_not_rule_out_an_order_of_the_day_before() -> None:
    broker = Broker()
    await asyncio.sleep(MIDNIGHT - RESOLUTION_TIMEOUT / 2)
    request = broker.in_flight.open(placement())
    with pytest.raises(OutcomeUnknown, match="of an earlier day"):
        await request
    await broker.in_flight.close()


async def test_orders_of_earlier_days_need_not_be_in_the_book_but_those_of_today() -> None:
    broker = Broker()
    own = [row(number) for number in range(1, 4)]
    for each in own:
        broker.cache.register(each, client_tag=f"own{each.number[-1]}")
    broker.cache.register_number("261122000000001")

    def is_complete(rows: list[OrderRow]) -> bool:
        return broker.in_flight._index.is_complete(rows, day_of(now()))

    assert is_complete(own)
    assert not is_complete(own[1:])
    assert is_complete(own)
    await asyncio.sleep(MIDNIGHT)
    tomorrows = msgspec.structs.replace(row(), number="261124000000001")
    assert is_complete([tomorrows])
    broker.cache.register(tomorrows, client_tag="new")
    assert is_complete([tomorrows])
    assert not is_complete([own[0]])
    assert is_complete([tomorrows, own[0]])


# --- histories ----------------------------------------------------------------------------------


async def test_no_history_is_read_of_orders_that_were_there_before_the_request() -> None:
    broker = Broker()
    seen = [row(number, updated_ns=0) for number in range(200)]
    broker.rows = seen
    await broker.book()
    await asyncio.sleep(60)
    entered = [row(number, time_text="23-Nov-2026 10:00:29") for number in range(200, 400)]
    updated = [row(number, updated_ns=int(now() - 31) * 10**9) for number in range(400, 600)]
    broker.rows = [*updated, *entered, *seen]
    with pytest.raises(NotAccepted):
        await broker.in_flight.open(placement())
    assert broker.histories_read == []
    await broker.in_flight.close()


async def test_where_too_many_orders_could_be_it_the_outcome_is_unknown() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement())
    broker.rows = [row(number) for number in range(500)]
    broker.histories = {each.number: [state(each)] for each in broker.rows}
    with pytest.raises(OutcomeUnknown, match="500 orders of the account could be it"):
        await request
    assert len(broker.histories_read) == MAX_HISTORIES
    assert RESOLUTION_TIMEOUT + 9 < asyncio.get_running_loop().time() < RESOLUTION_TIMEOUT + 15
    await broker.in_flight.close()


# --- costs --------------------------------------------------------------------------------------


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of three runs."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


async def test_lost_answers_cost_the_same_however_many_orders_are_known() -> None:
    costs = []
    for known in (100, 50_000):
        broker = Broker()
        for number in range(known):
            broker.cache.register(row(number, updated_ns=1, gui_order_id=f"tag{number}"))

        def lose_64(in_flight: InFlightOrders = broker.in_flight) -> None:
            for number in range(64):
                in_flight._reject_as_not_received(in_flight.open(placement(f"lost{number}")))

        costs.append(fastest(lose_64))
        await broker.in_flight.close()
    assert costs[1] < 3 * costs[0] + 0.005


async def test_a_book_is_gone_through_once_for_all_requests() -> None:
    costs = []
    for open_requests in (1, 500):
        broker = Broker()
        rows = [row(number, updated_ns=1, gui_order_id=f"tag{number}") for number in range(5_000)]
        for number in range(open_requests):
            broker.in_flight.open(placement(f"lost{number}"))
        costs.append(fastest(lambda: broker.in_flight.apply_order_book(rows, 0.0)))  # noqa: B023
        await broker.in_flight.close()
    assert costs[1] < 3 * costs[0] + 0.005


async def test_a_request_is_found_and_ended_whatever_else_is_in_flight() -> None:
    broker = Broker()
    in_flight = broker.in_flight
    cancel = ExpectedEffect(action="cancel", number="261123000000001")
    modify = modification(OrderCache().register(row()), price=Decimal("39.1"))
    in_flight_requests: list[InFlightRequest] = [
        in_flight.open(each) for each in (modify, cancel, modify)
    ]
    assert in_flight.find("cancel", number=cancel.number) is in_flight_requests[1]
    assert in_flight.find("modify", number=modify.number) is in_flight_requests[2]
    in_flight._reject_as_not_received(in_flight_requests[2])
    assert in_flight.find("modify", number=modify.number) is in_flight_requests[0]
    assert in_flight.find("place", client_tag="lost") is None
    assert [*in_flight.in_flight_requests] == in_flight_requests[:2]
    await in_flight.close()
    assert not in_flight.in_flight_requests


# --- what cannot be read --------------------------------------------------------------------------


async def test_a_row_without_a_number_that_may_be_the_order_proves_no_absence() -> None:
    for fields in (
        {"missing": frozenset({"number"})},
        {"missing": frozenset({"number", "symbol"}), "symbol": ""},
        {"missing": frozenset({"number"}), "gui_order_id": "lost"},
    ):
        broker = Broker()
        broker.rows = [msgspec.structs.replace(row(), number="", **fields)]
        with pytest.raises(OutcomeUnknown, match="an order without a number that could be it"):
            await broker.in_flight.open(placement())
        await broker.in_flight.close()


@pytest.mark.parametrize("fields", [{"symbol": "IDEA-EQ"}, {"updated_ns": 1}])
async def test_a_row_without_a_number_that_is_another_order_keeps_no_request_in_flight(
    fields: dict[str, Any],
) -> None:
    broker = Broker()
    odd = row(missing=frozenset({"number"}), **fields)
    broker.rows = [msgspec.structs.replace(odd, number="")]
    with pytest.raises(NotAccepted):
        await broker.in_flight.open(placement())
    await broker.in_flight.close()


async def test_a_tag_that_the_book_does_not_show_is_looked_for_in_the_history() -> None:
    broker = Broker()
    odd = row(missing=frozenset({"gui_order_id", "side"}), side="")
    broker.rows = [odd]
    broker.histories[odd.number] = [state(odd, gui_order_id="lost")]
    assert (await broker.in_flight.open(placement())).number == odd.number
    await broker.in_flight.close()


async def test_a_history_whose_tags_cannot_be_read_proves_no_absence() -> None:
    broker = Broker()
    odd = row()
    broker.rows = [odd]
    broker.histories[odd.number] = [state(odd, missing=frozenset({"gui_order_id"}))]
    with pytest.raises(OutcomeUnknown, match="has a tag that cannot be read"):
        await broker.in_flight.open(placement())
    request = broker.in_flight.open(placement("again"))
    broker.rows = [odd := row(2)]
    broker.histories[odd.number] = [state(odd, missing=frozenset({"gui_order_id"}))]
    await asyncio.sleep(RESOLUTION_TIMEOUT + 5)
    broker.histories[odd.number] = [state(odd, gui_order_id="again")]
    assert (await request).number == odd.number
    await broker.in_flight.close()


async def test_a_price_that_cannot_be_read_proves_no_change_to_a_market_order() -> None:
    broker = Broker()
    order = broker.cache.register(row())
    expected = modification(order, order_type=OrderType.MARKET, price=None)
    assert expected.terms is not None
    assert expected.changed_terms == {"price"}
    assert has_terms(row(price=39.0), order.terms, expected.terms) is False
    assert has_terms(row(price=39.05), order.terms, expected.terms) is True
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    broker.rows = [row(price=0.0, missing=frozenset({"price"}))]
    await broker.book()
    assert not request.is_done
    broker.rows = [row(price=40.0)]
    await broker.book()
    assert await request is order
    await broker.in_flight.close()


async def test_a_change_from_a_price_that_is_not_known_is_not_proven_by_any_price() -> None:
    broker = Broker()
    order = broker.cache.register(row(price=0.0, missing=frozenset({"price"})))
    expected = modification(order, order_type=OrderType.MARKET, price=None)
    assert expected.changed_terms == frozenset()
    await broker.in_flight.close()


@pytest.mark.parametrize("missing", ["price", "status_text", "updated_ns"])
async def test_a_history_that_lacks_what_a_change_would_show_neither_proves_nor_disproves_it(
    missing: str,
) -> None:
    broker = Broker()
    broker.cache.register(row())
    order = broker.cache.get(row().number)
    assert order is not None
    expected = modification(order, price=Decimal("39.1"))
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    broker.rows = [row(price=39.2)]
    modified = state(row(), status_text="modified", price=39.1)
    blank = {"price": 0.0, "status_text": "", "updated_ns": 0}[missing]
    odd = msgspec.structs.replace(modified, missing=frozenset({missing}), **{missing: blank})
    if missing == "updated_ns":
        expected = msgspec.structs.replace(expected, terms_before=None, is_from_journal=True)
        assert had_terms([odd], expected) is None
        assert had_terms([modified], expected) is True
    else:
        broker.histories[order.number] = [state(broker.rows[0]), odd]
        with pytest.raises(OutcomeUnknown, match="lacks what it would show"):
            await request
    await broker.in_flight.close()


async def test_a_change_that_the_exchange_refused_is_not_proven_by_the_terms_shown_with_that() -> (
    None
):
    broker = Broker()
    order = broker.cache.register(row())
    expected = modification(order, price=Decimal("39.1"))
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    changing = row(price=39.0, status_text="modify request")
    await asyncio.sleep(1)
    refused = row(price=39.1, status_text="not modified")
    broker.rows = [refused]
    broker.histories[order.number] = [state(refused), state(changing)]
    await broker.book()
    assert not request.is_done
    with pytest.raises(NotAccepted):
        await request
    await broker.in_flight.close()


async def test_a_cancel_that_the_exchange_refused_did_not_take_effect() -> None:
    broker = Broker()
    order = broker.cache.register(row())
    request = broker.in_flight.open(ExpectedEffect(action="cancel", number=order.number))
    await asyncio.sleep(1)
    broker.rows = [row(status_text="not cancelled")]
    with pytest.raises(NotAccepted):
        await request
    assert order.status.is_working
    await broker.in_flight.close()
