"""Requests in flight, and the index of all of them."""

from __future__ import annotations

from decimal import Decimal

from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.order_cache import OrderCache
from tests.execution.report_broker import (
    Broker,
    modification,
    row,
)


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
