"""Order books, indexed for the requests in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from neo_async import NotAccepted, OutcomeUnknown
from neo_async.base.india import day_of
from neo_async.model.orders import OrderRow
from tests.execution.report_broker import (
    MIDNIGHT,
    Broker,
    fastest,
    placement,
    row,
)
from tests.simulation.virtual_time import now


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
