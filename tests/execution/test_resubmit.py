"""The opt-in second send under the same client tag."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neo_async import OutcomeUnknown, Timeouts
from neo_async.exchange import Faults
from neo_async.execution.resubmit import resubmit
from tests.clients import PLACE
from tests.execution.proxied_exchange import BUY, CNC, RESOLUTION_TIMEOUT, proxied_exchange, seconds
from tests.execution.report_broker import Broker, placement, row
from tests.fake_servers import Cut


async def test_an_order_that_was_found_is_not_resubmitted() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement())
    sent: list[str] = []

    async def again() -> Any:
        await asyncio.sleep(100)  # in the queue of the limiter
        sent.append("again")

    resubmit(broker.in_flight, request, again)
    await asyncio.sleep(1)
    broker.send_update(row(gui_order_id="lost"))
    assert (await request).client_tag == "lost"
    await asyncio.sleep(200)
    assert sent == []
    await broker.in_flight.close()


async def test_a_resubmission_that_never_starts_does_not_keep_a_request_in_flight() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement())
    resubmit(broker.in_flight, request, asyncio.Event().wait)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown):
        await request
    await broker.in_flight.close()


async def test_a_resubmission_that_is_refused_as_a_duplicate_proves_the_first_send() -> None:
    async with proxied_exchange(resubmit_unacknowledged=True) as proxy:
        answers = iter([Cut()])
        proxy.overrides[PLACE] = lambda: next(answers, None)
        order = await proxy.neo.orders.place(*BUY, **CNC)
        (record,) = proxy.ledger
        assert (record.number, record.arrivals) == (order.number, 2)
        assert await proxy.sent(PLACE) == 2


async def test_a_resubmission_becomes_the_order_when_the_first_send_did_not_arrive() -> None:
    async with proxied_exchange(resubmit_unacknowledged=True) as proxy:
        neo = proxy.neo
        proxy.dropped.add(PLACE)
        placing = asyncio.create_task(neo.orders.place(*BUY, **CNC))
        await asyncio.sleep(1)
        proxy.dropped.clear()
        order = await placing
        (record,) = proxy.ledger
        assert (record.number, record.arrivals, record.client_tag) == (
            order.number,
            1,
            order.client_tag,
        )
        assert seconds() < RESOLUTION_TIMEOUT


async def test_no_placement_is_ruled_out_while_it_is_being_resubmitted() -> None:
    async with proxied_exchange(
        resubmit_unacknowledged=True, timeouts=Timeouts(order=10.0), resolution_timeout=5.0
    ) as proxy:
        proxy.dropped.add(PLACE)
        placing = asyncio.create_task(proxy.neo.orders.place(*BUY, **CNC))
        await asyncio.sleep(1.0)
        proxy.dropped.clear()
        # The next one arrives when the resolution timeout of those before it is over.
        proxy.exchange.faults.set(Faults(delay_before=1.0, delay_seconds=8.0, calls=("orders",)))
        order = await placing
        (record,) = proxy.ledger
        assert record.number == order.number
        assert proxy.neo.orders.late_orders == []
