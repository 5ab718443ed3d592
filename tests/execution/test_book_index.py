"""Order books, indexed for the requests in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import NotAccepted, OutcomeUnknown
from neo_async.base.india import day_of
from neo_async.execution.book_index import BookIndex
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.in_flight_request import InFlightRequest, RequestIndex
from neo_async.execution.journal_schema import Outcome
from neo_async.execution.late_orders import LateOrders
from neo_async.execution.order_cache import OrderCache
from neo_async.model.orders import OrderRow
from tests.execution.report_broker import (
    MIDNIGHT,
    Broker,
    fastest,
    placement,
    row,
)
from tests.simulation.virtual_time import START, in_virtual_time, now


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


# --- the index by itself --------------------------------------------------------------------------


class Index:
    """An index with what it reads: order cache, requests in flight and late orders."""

    def __init__(self) -> None:
        self.cache = OrderCache()
        self.requests = RequestIndex()
        self.late_orders = LateOrders(self.cache, None)
        self.index = BookIndex(self.cache, self.requests, self.late_orders)

    def open(self, expected: ExpectedEffect, sent_at: float = 0.0) -> InFlightRequest:
        request = InFlightRequest(
            expected, intent=None, is_proven=False, deadline=30.0, sent_at=sent_at,
            sent_ns=int(START * 1e9),
        )  # fmt: skip
        self.requests.add(request)
        return request


def cancel_of(number: str) -> ExpectedEffect:
    return ExpectedEffect(action="cancel", number=number)


ORDERS = st.integers(1, 6)


@given(
    shown=st.lists(ORDERS, unique=True),
    changed=st.sets(ORDERS),
    placed=st.sets(ORDERS),
    watched=st.sets(ORDERS),
)
@in_virtual_time
async def test_a_book_yields_exactly_the_rows_of_changed_orders_and_of_tags_in_flight_or_watched(
    shown: list[int], changed: set[int], placed: set[int], watched: set[int]
) -> None:
    index = Index()
    rows = [row(number, gui_order_id=f"tag{number}") for number in shown]
    for number in changed:
        index.open(cancel_of(row(number).number))
    for number in placed:
        index.open(placement(f"tag{number}"))
    for number in watched:
        index.late_orders.watch(f"tag{number}", None, Outcome.REJECTED)
    by_number, by_tag = index.index.add(rows, 0.0)
    assert by_number == {
        row(number).number: rows[shown.index(number)] for number in shown if number in changed
    }
    assert by_tag == {
        f"tag{number}": [rows[shown.index(number)]]
        for number in shown
        if number in placed | watched
    }


async def test_all_rows_under_one_tag_are_yielded_whatever_suffix_the_broker_adds() -> None:
    index = Index()
    index.open(placement("lost"))
    rows = [row(1, gui_order_id="lost"), row(2, gui_order_id="lost-17"), row(3, gui_order_id="")]
    assert index.index.add(rows, 0.0) == ({}, {"lost": rows[:2]})


async def test_a_row_without_a_number_proves_the_placement_of_its_tag_to_exist() -> None:
    index = Index()
    request, other = index.open(placement("lost")), index.open(placement("another"))
    odd = msgspec.structs.replace(
        row(), number="", gui_order_id="lost", missing=frozenset({"number"})
    )
    assert index.index.add([odd, row(2)], 0.0) == ({}, {})
    assert index.index.nameless == [odd]
    assert (request.is_proven, other.is_proven) == (True, False)
    index.index.add([row(2)], 1.0)
    assert index.index.nameless == []
    assert request.is_proven, "that the order exists stays known"


@given(seen_at=st.lists(st.floats(0, 100), min_size=1, max_size=5), sent_at=st.floats(0, 100))
@in_virtual_time
async def test_an_order_that_a_book_showed_before_the_request_is_no_candidate_for_it(
    seen_at: list[float], sent_at: float
) -> None:
    index = Index()
    request = index.open(placement(), sent_at)
    for at in sorted(seen_at):
        index.index.add([row()], at)  # only the first time counts
    found = index.index.candidates(request, [row()])
    assert [each.number for each in found] == ([row().number] if min(seen_at) >= sent_at else [])


async def test_an_own_order_is_no_candidate() -> None:
    index = Index()
    request = index.open(placement())
    index.cache.register(row(1), client_tag="own1")
    rows = [row(1), row(2)]
    index.index.add(rows, 0.0)
    assert index.index.candidates(request, rows) == rows[1:]


async def test_times_are_kept_of_the_orders_of_the_last_book_once_there_are_too_many() -> None:
    index = Index()
    index.index.add([row(number) for number in range(1500)], 1.0)
    index.index.add([row(0), row(2000)], 5.0)
    request = index.open(placement(), 3.0)
    found = index.index.candidates(request, [row(0), row(1), row(2000)])
    # Of order 1 it is not known any more that a book showed it before.
    assert [each.number for each in found] == [row(1).number, row(2000).number]
    assert len(index.index._first_seen_at) == 2
