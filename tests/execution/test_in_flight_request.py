"""Requests in flight, and the index of all of them."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import NotAccepted, Order, OutcomeUnknown
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.in_flight_request import EXPIRY_SECONDS, InFlightRequest, RequestIndex
from neo_async.execution.order_cache import OrderCache
from tests.execution.report_broker import (
    RESOLUTION_TIMEOUT,
    Broker,
    modification,
    placement,
    row,
)
from tests.simulation.virtual_time import START, in_virtual_time


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


# --- one request ----------------------------------------------------------------------------------


def request_of(expected: ExpectedEffect) -> InFlightRequest:
    return InFlightRequest(
        expected,
        intent=None,
        is_proven=False,
        deadline=RESOLUTION_TIMEOUT,
        sent_at=0.0,
        sent_ns=int(START * 1e9),
    )


def order() -> Order:
    return OrderCache().register(row())


async def test_a_request_expires_a_fixed_time_after_its_resolution_timeout() -> None:
    request = request_of(placement())
    assert request.expires_at == RESOLUTION_TIMEOUT + EXPIRY_SECONDS
    request.restart_timeout(100.0)
    assert (request.deadline, request.expires_at) == (100.0, 100.0 + EXPIRY_SECONDS)
    assert request.day == "261123"


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_the_end_of_a_request_is_given_to_all_callers_and_stops_its_timer(
    *, is_accepted: bool
) -> None:
    request = request_of(placement())
    fired: list[bool] = []
    request.timer = asyncio.get_running_loop().call_later(1, fired.append, True)
    waits = [asyncio.create_task(request.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    result = order() if is_accepted else request.unknown("it expired")
    request.end(result)
    assert await asyncio.gather(*waits) == [True] * 3
    for _ in range(2):
        if isinstance(result, Order):
            assert await request is result
        else:
            with pytest.raises(OutcomeUnknown, match="it expired"):
                await request
    await asyncio.sleep(2)
    assert fired == []


async def test_the_errors_of_a_request_name_it() -> None:
    place = request_of(placement("lost"))
    cancel = request_of(ExpectedEffect(action="cancel", number="261123000000001"))
    refused = place.not_accepted(30.0)
    assert isinstance(refused, NotAccepted)
    assert refused.client_tag == "lost"
    assert "30" in str(refused)
    unknown = cancel.unknown("no order book could be read")
    assert unknown.order_number == "261123000000001"
    assert "no order book could be read" in str(unknown)


# --- the index ------------------------------------------------------------------------------------

EXPECTED = [
    *(placement(tag) for tag in ("a", "b")),
    *(
        ExpectedEffect(action=action, number=number)
        for action in ("modify", "cancel")
        for number in ("1", "2")
    ),
]


@given(st.lists(st.tuples(st.sampled_from(EXPECTED), st.integers(0, 9)), max_size=15))
@in_virtual_time
async def test_the_index_finds_the_newest_request_of_an_action_whatever_was_added_and_removed(
    steps: list[tuple[ExpectedEffect, int]],
) -> None:
    """Each step adds a request; a small number then removes that one of those in flight."""
    index = RequestIndex()
    in_flight: list[InFlightRequest] = []
    for expected, removed in steps:
        in_flight.append(request_of(expected))
        index.add(in_flight[-1])
        if removed < len(in_flight):
            index.remove(in_flight.pop(removed))
        assert [*index.all] == in_flight
        for each in EXPECTED:
            same = [one for one in in_flight if one.expected == each]
            found = index.find(each.action, each.client_tag, each.number)
            assert found is (same[-1] if same else None)
        tags = {one.expected.client_tag for one in in_flight} - {""}
        numbers = {one.expected.number for one in in_flight} - {""}
        # Without empty entries, which would count as requests in flight.
        assert (set(index.placements), set(index.changes)) == (tags, numbers)
    index.clear()
    assert (index.all, index.placements, index.changes) == ({}, {}, {})
