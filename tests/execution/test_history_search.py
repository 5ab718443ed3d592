"""Histories, read for what the order book does not show."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    NotAccepted,
    OutcomeUnknown,
)
from neo_async.errors import TransportError
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.history_search import (
    HISTORY_INTERVAL_SECONDS,
    MAX_CONCURRENT_HISTORIES,
    READ_TIMEOUT_SECONDS,
    HistorySearch,
)
from neo_async.execution.in_flight_request import EXPIRY_SECONDS
from neo_async.execution.resolution import MAX_HISTORIES, Proof
from neo_async.model.orders import HistoryRow, OrderRow
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
from tests.simulation.virtual_time import in_virtual_time


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


# --- the search by itself -------------------------------------------------------------------------


class Histories:
    """Histories that a test writes, and the search that reads them, each in `latency` seconds."""

    def __init__(self, *, latency: float = 0.0) -> None:
        self.rows: dict[str, list[HistoryRow]] = {}
        self.reads: list[tuple[float, str]] = []
        """Times of the loop at which the reads began, and order numbers."""
        self.under_way: Counter[str] = Counter()
        """Number of reads under way by order number."""
        self.most_under_way = 0
        """Highest number of orders whose histories were being read at once."""
        self._latency = latency
        self.search = HistorySearch(self._read, logging.getLogger("neo_async.orders"))

    async def _read(self, number: str) -> list[HistoryRow]:
        self.reads.append((asyncio.get_running_loop().time(), number))
        self.under_way[number] += 1
        self.most_under_way = max(self.most_under_way, len(+self.under_way))
        try:
            await asyncio.sleep(self._latency)
        finally:
            self.under_way[number] -= 1
        return self.rows[number]

    def tag(self, order: OrderRow, *tags: str) -> None:
        """Give an order a history with these tags."""
        self.rows[order.number] = [state(order, gui_order_id=tag) for tag in tags]


@given(
    histories=st.lists(st.sets(st.sampled_from(["lost", "theirs", "another"])), max_size=6),
    is_one_unread=st.booleans(),
)
@in_virtual_time
async def test_a_placement_is_found_by_its_tag_and_ruled_out_by_all_histories(
    histories: list[set[str]], is_one_unread: bool
) -> None:
    source = Histories()
    rows = [row(number) for number in range(len(histories))]
    for order, its_tags in zip(rows, histories, strict=True):
        source.tag(order, *(its_tags or {"theirs"}))
    if is_one_unread and rows:
        source.rows[rows[0].number].append(state(rows[0], missing=frozenset({"gui_order_id"})))
    resolution = await source.search.by_tags(placement("lost"), rows)
    holders = [order.number for order, tags in zip(rows, histories, strict=True) if "lost" in tags]
    if holders:
        assert (resolution.proof, resolution.number) == (Proof.TOOK_EFFECT, holders[0])
    else:
        assert resolution.proof is (Proof.NONE if is_one_unread and rows else Proof.NOT_RECEIVED)
    await source.search.close()


async def test_histories_are_read_at_half_of_the_published_rate_and_few_at_a_time() -> None:
    source = Histories(latency=10.0)
    rows = [row(number) for number in range(20)]
    for order in rows:
        source.tag(order, "theirs")
    await source.search.by_tags(placement(), rows)
    first: dict[str, float] = {}
    for at, number in source.reads:
        first.setdefault(number, at)
    gaps = [after - before for before, after in pairwise(sorted(first.values()))]
    assert min(gaps) >= HISTORY_INTERVAL_SECONDS - 1e-6
    assert source.most_under_way == MAX_CONCURRENT_HISTORIES
    await source.search.close()


async def test_only_the_oldest_orders_are_searched_where_there_are_too_many() -> None:
    source = Histories()
    rows = [row(number) for number in range(MAX_HISTORIES + 5)]  # newest first
    for order in rows:
        source.tag(order, "theirs")
    resolution = await source.search.by_tags(placement(), rows)
    assert {number for _, number in source.reads} == {order.number for order in rows[5:]}
    assert resolution.proof is Proof.IMPOSSIBLE
    await source.search.close()


async def test_tags_are_read_once_and_again_where_they_could_not_be_read() -> None:
    source = Histories()
    source.tag(row(1), "theirs")
    source.rows[row(2).number] = [state(row(2), missing=frozenset({"gui_order_id"}))]
    for _ in range(2):
        resolution = await source.search.by_tags(placement(), [row(1), row(2)])
        assert resolution.proof is Proof.NONE
    assert sorted(number for _, number in source.reads) == [
        row(1).number, row(2).number, row(2).number,
    ]  # fmt: skip
    await source.search.close()


async def test_a_cancelled_search_leaves_the_tags_to_the_others() -> None:
    source = Histories(latency=0.5)
    source.tag(row(), "lost")
    first = asyncio.create_task(source.search.by_tags(placement("another"), [row()]))
    second = asyncio.create_task(source.search.by_tags(placement("lost"), [row()]))
    await asyncio.sleep(0.2)
    first.cancel()
    assert (await second).number == row().number
    assert len(source.reads) == 1
    await source.search.close()


async def test_a_history_that_cannot_be_read_is_an_error_in_time_and_read_again_by_the_next() -> (
    None
):
    source = Histories()
    source.rows[row().number] = []  # one without a state is no history
    with pytest.raises(TransportError, match=f"{row().number} could not be read for 60 s"):
        await source.search.by_tags(placement(), [row()])
    assert asyncio.get_running_loop().time() == pytest.approx(READ_TIMEOUT_SECONDS, abs=0.5)
    source.tag(row(), "lost")
    assert (await source.search.by_tags(placement(), [row()])).proof is Proof.TOOK_EFFECT
    await source.search.close()


@pytest.mark.parametrize(
    "expected",
    [
        ExpectedEffect(action="cancel", number="261123000000001"),
        ExpectedEffect(action="modify", number="261123000000001", was_final=True),
    ],
)
async def test_no_history_is_read_where_none_can_show_the_effect(expected: ExpectedEffect) -> None:
    source = Histories()
    assert (await source.search.by_terms(expected, None)).proof is Proof.NOT_RECEIVED
    assert source.reads == []


async def test_cleared_tags_are_read_again_and_a_closed_search_reads_no_more() -> None:
    source = Histories(latency=0.5)
    source.tag(row(), "theirs")
    await source.search.by_tags(placement(), [row()])
    source.search.clear()
    await source.search.by_tags(placement(), [row()])
    assert len(source.reads) == 2
    source.search.clear()
    searching = asyncio.create_task(source.search.by_tags(placement(), [row()]))
    await asyncio.sleep(0.3)
    await source.search.close()
    assert not +source.under_way
    with pytest.raises(asyncio.CancelledError):
        await searching
