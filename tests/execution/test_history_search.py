"""Histories, read for what the order book does not show."""

from __future__ import annotations

import asyncio

import pytest

from neo_async import (
    NotAccepted,
    OutcomeUnknown,
)
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
from neo_async.execution.resolution import MAX_HISTORIES
from tests.clients import MODIFY, PLACE, client_of
from tests.execution.proxied_exchange import (
    BUSY,
    BUY,
    CNC,
    HISTORY,
    proxied_exchange,
    seconds,
)
from tests.execution.report_broker import (
    RESOLUTION_TIMEOUT,
    Broker,
    placement,
    row,
    state,
)
from tests.fake_servers import Late, Reply


async def test_an_order_that_the_broker_claims_to_have_is_searched_in_histories() -> None:
    broker = Broker()
    request = broker.in_flight.open(placement(), is_proven=True)
    other = row(gui_order_id="1764835124-266187-X-ADMINAPI")
    broker.rows = [other]
    broker.histories[other.number] = [state(other), state(other, gui_order_id="lost")]
    assert (await request).number == other.number
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


async def test_a_history_that_hangs_keeps_no_other_outcome_back() -> None:
    async with proxied_exchange() as proxy:
        order = await proxy.neo.orders.place(*BUY, **CNC)
        proxy.dropped.update({MODIFY, PLACE})
        proxy.overrides[HISTORY] = Late(60.0, BUSY)
        modifying = asyncio.create_task(proxy.neo.orders.modify(order, price="39.10"))
        with pytest.raises(NotAccepted):
            await proxy.neo.orders.place(*BUY, **CNC)
        assert seconds() < RESOLUTION_TIMEOUT + 1.0
        await asyncio.sleep(5)
        assert not modifying.done()
        del proxy.overrides[HISTORY]
        with pytest.raises(NotAccepted):
            await modifying
        assert seconds() < RESOLUTION_TIMEOUT + 5.0 + 4.0


async def test_a_history_is_requested_once_however_many_search_for_their_tag_in_it() -> None:
    async with proxied_exchange(resolution_timeout=60.0) as proxy:
        proxy.dropped.add(PLACE)
        placing = [asyncio.create_task(proxy.neo.orders.place(*BUY, **CNC)) for _ in range(5)]
        await asyncio.sleep(31)  # until there is a code for another login
        async with client_of(proxy.exchange, live_updates=False) as other:
            for _ in range(2):
                await other.orders.place(*BUY, **CNC)
        outcomes = await asyncio.gather(*placing, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotAccepted] * 5
        assert await proxy.sent(HISTORY) == 2


async def test_an_empty_history_is_read_again() -> None:
    async with proxied_exchange() as proxy:
        order = await proxy.neo.orders.place(*BUY, **CNC)
        histories = iter([Reply("[]"), BUSY])
        proxy.overrides.update({MODIFY: BUSY, HISTORY: lambda: next(histories, None)})
        first = asyncio.create_task(proxy.neo.orders.modify(order, price="39.10"))
        await asyncio.sleep(0.1)
        del proxy.overrides[MODIFY]
        await proxy.neo.orders.modify(order, price="39.20")
        assert await first is order
