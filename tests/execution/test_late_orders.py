"""Placements that were reported to have no order, and second orders under one tag."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from neo_async import NotAccepted, Order, OutcomeUnknown
from neo_async.exchange import Faults
from tests.execution.proxied_exchange import BUY, CNC, proxied_exchange, seconds
from tests.execution.report_broker import (
    Broker,
    errors_of,
    placement,
    row,
)


async def test_an_order_that_appears_after_its_request_expired_is_reported() -> None:
    broker = Broker()
    broker.is_down = True
    reported: list[Any] = []
    broker.in_flight.on_late_order(reported.append)
    with pytest.raises(OutcomeUnknown):
        await broker.in_flight.open(placement())
    broker.is_down = False
    broker.rows = [row(gui_order_id="lost")]
    await broker.book()
    assert [order.number for order in reported] == [broker.rows[0].number]
    await broker.in_flight.close()


@pytest.mark.parametrize("by_feed", [False, True])
async def test_of_two_orders_under_one_tag_both_are_own_and_the_second_is_reported_once(
    by_feed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    reported: list[Any] = []
    broker.in_flight.on_late_order(reported.append)
    request = broker.in_flight.open(placement())
    first, second = row(1, gui_order_id="lost"), row(2, gui_order_id="lost")
    broker.rows = [second, first]
    if by_feed:
        broker.send_update(first)
        broker.send_update(second)
    order = await request
    for _ in range(3):
        await broker.book()
    assert order.number == first.number
    assert [other.number for other in reported] == [second.number]
    assert {order.number, second.number} <= set(broker.cache.orders)
    (error,) = errors_of(caplog)
    assert first.number in error
    assert second.number in error
    await broker.in_flight.close()


async def test_legs_and_rejected_second_orders_under_a_tag_are_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    request = broker.in_flight.open(placement())
    entry = row(1, gui_order_id="lost")
    broker.rows = [
        row(3, gui_order_id="lost", status_text="rejected"),
        row(2, gui_order_id="lost", parent_number=entry.number),
        entry,
    ]
    assert (await request).number == entry.number
    await broker.book()
    assert errors_of(caplog) == []
    await broker.in_flight.close()


async def test_tags_of_the_broker_that_begin_alike_are_no_common_tag(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    broker.cache.register(row(1, gui_order_id="1764835124-266187-X-ADMINAPI"))
    broker.cache.register(row(2, gui_order_id="ours"), client_tag="ours")
    broker.rows = [
        row(3, gui_order_id="1764835124-266189-X-ADMINAPI"),
        row(2, gui_order_id="1764835124-266188-X-ADMINAPI"),
        row(1, gui_order_id="1764835124-266187-X-ADMINAPI"),
    ]
    await broker.book()
    assert errors_of(caplog) == []
    assert broker.cache.own == {broker.rows[1].number}
    await broker.in_flight.close()


async def test_a_refused_placement_that_shows_as_rejected_is_no_late_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    broker.in_flight.watch_for("lost", None)
    broker.rows = [row(gui_order_id="lost", status_text="rejected")]
    await broker.book()
    assert errors_of(caplog) == []
    broker.rows = [row(2, gui_order_id="lost"), *broker.rows]
    await broker.book()
    (error,) = errors_of(caplog)
    assert "the placement was reported as refused" in error
    await broker.in_flight.close()


async def test_a_listener_that_raises_keeps_nothing_from_being_resolved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    reported: list[Any] = []

    def failing(order: Any) -> None:
        raise RuntimeError("the listener's own fault")

    broker.in_flight.on_late_order(failing)
    broker.in_flight.on_late_order(reported.append)
    for tag in ("one", "two"):
        broker.in_flight.watch_for(tag, None)
    request = broker.in_flight.open(placement())
    broker.rows = [row(number, gui_order_id=tag) for number, tag in enumerate(("one", "two"))]
    await broker.book()
    assert len(reported) == 2
    assert "a listener of late orders failed" in caplog.text
    broker.rows.append(row(3, gui_order_id="lost"))
    assert (await request).client_tag == "lost"
    await broker.in_flight.close()


@pytest.mark.parametrize("live_updates", [False, True])
async def test_an_order_that_appears_after_it_was_not_accepted_is_reported_and_logged(
    live_updates: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with proxied_exchange(
        resolution_timeout=5.0, live_updates=live_updates, journal=tmp_path / "orders.db"
    ) as proxy:
        reported: list[Order] = []
        orders = proxy.neo.orders
        orders.on_late_order(reported.append)
        proxy.exchange.faults.set(Faults(calls=("orders",), delay_before=1.0, delay_seconds=20.0))
        with pytest.raises(NotAccepted) as caught:
            await orders.place(*BUY, **CNC, tag="late")
        assert seconds() < 10
        await asyncio.sleep(15)
        (record,) = proxy.ledger
        if not live_updates:
            assert orders.late_orders == []
            await orders.book()
        await asyncio.sleep(1)
        (order,) = orders.late_orders
        assert reported == [order]
        assert (order.number, order.client_tag) == (record.number, caught.value.client_tag)
        (error,) = [entry for entry in caplog.records if entry.levelname == "ERROR"]
        assert record.client_tag in error.getMessage()
        assert record.number in error.getMessage()
