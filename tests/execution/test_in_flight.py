"""Requests in flight, on order books and histories that a test writes row by row."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from neo_async import NotAccepted, OrderAlreadyFinal, OutcomeUnknown
from neo_async.execution.expected_effect import ExpectedEffect, cancellation
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
from neo_async.execution.resolution import had_terms
from neo_async.model.orders import OrderRow
from neo_async.model.updates import OrderUpdate
from tests.execution.report_broker import (
    MIDNIGHT,
    RESOLUTION_TIMEOUT,
    Broker,
    errors_of,
    fastest,
    modification,
    placement,
    row,
    state,
)
from tests.simulation.virtual_time import now

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


async def test_an_order_that_the_broker_claims_to_have_and_shows_nowhere_stays_unknown() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement(), is_proven=True)
    with pytest.raises(OutcomeUnknown, match="neither the order book nor a history"):
        await request
    assert asyncio.get_running_loop().time() < RESOLUTION_TIMEOUT + 10
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


# --- costs --------------------------------------------------------------------------------------


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


# --- what cannot be read --------------------------------------------------------------------------


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
