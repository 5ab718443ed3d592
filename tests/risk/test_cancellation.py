"""The cancelling of a halt: cancels are sent at once, whatever else hangs, and repeated until
nothing is open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    NeoClient,
    NeoError,
    NotAccepted,
    Order,
    OrderRequest,
    OrderStatus,
    PoolLimits,
    RateLimits,
    Timeouts,
)
from neo_async.exchange import Faults
from neo_async.execution.journal import Journal
from neo_async.execution.reconciliation import uncancelled
from neo_async.transport.kinds import Kind
from tests import clients
from tests.clients import WIDE, client_of, exchange_of, grouped, paths
from tests.fake_servers import CREDENTIALS, Cut, Late, Reply, fault_proxy
from tests.order_broker import (
    BOOK,
    CANCEL,
    NOT_FOUND,
    PLACE,
    OrderBroker,
    order_broker,
    serving_orders,
)
from tests.risk.trading import (
    BUY,
    MIS,
    client_in_loop_time,
    final_statuses,
    open_orders_in,
    seconds,
    trading,
    until,
    until_sent,
)
from tests.simulation.virtual_time import VirtualTimeLoop, now

# --- cancels that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [Reply("busy", 503), Cut(), Reply({"stCode": 1041}, 400)])
async def test_cancels_are_repeated_until_they_succeed(bad: Any) -> None:
    overrides: dict[str, Any] = {}
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path), dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints, timeouts=Timeouts(order=2.0)) as neo,
    ):
        await neo.orders.place(*BUY, 10, **MIS)
        dropped.add(clients.CANCEL)
        overrides.update({clients.BOOK: bad})
        halting = neo.halt()
        impatient = asyncio.create_task(asyncio.wait_for(halting, 1.0))
        with pytest.raises(TimeoutError):
            await impatient
        await asyncio.sleep(20)
        assert len(open_orders_in(exchange)) == 1
        dropped.clear()
        overrides.clear()
        results = await neo.halt()
        assert final_statuses(results) == [OrderStatus.CANCELLED]
        assert open_orders_in(exchange) == []


@pytest.mark.parametrize("lost", [Late(1.0, Reply("")), Cut(), Reply("busy", 503)])
async def test_a_placement_that_was_sent_is_resolved_and_cancelled(lost: Any) -> None:
    overrides: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        overrides[clients.PLACE] = lost
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        results = await neo.halt()
        order = await placing
        assert open_orders_in(exchange) == []
        assert [record.number for record in exchange.market.ledger] == [order.number]
        assert results == [order]
        assert order.status is OrderStatus.CANCELLED


async def test_a_late_order_is_cancelled_after_the_halt_was_done() -> None:
    async with trading(resolution_timeout=2.0, timeouts=Timeouts(order=1.0)) as (exchange, neo):
        exchange.faults.set(Faults(delay_before=1.0, delay_seconds=20.0, calls=("orders",)))
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        assert await neo.halt() == []
        exchange.faults.set(Faults())
        with pytest.raises(NotAccepted):
            await placing
        await until(lambda: exchange.market.ledger)
        await until(lambda: not open_orders_in(exchange))
        (order,) = neo.orders.late_orders
        assert order.status is OrderStatus.CANCELLED


async def test_an_order_that_appears_during_the_cancelling_is_cancelled_too() -> None:
    async with order_broker() as (broker, neo):
        first = await neo.orders.place(*BUY, 10, **MIS)
        broker.refusal = lambda number: NOT_FOUND if number == first.number else None
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(10)
        second = broker.add()
        await asyncio.sleep(10)
        assert broker.open_numbers() == [first.number]
        broker.refusal = lambda number: None
        results = await halting
        assert {result.number for result in results if isinstance(result, Order)} == {
            first.number,
            second,
        }


async def test_repeated_cancels_do_not_starve_the_reading_of_the_book() -> None:
    limits = RateLimits(orders=10, total=10)
    async with order_broker(limits=limits) as (broker, neo):
        numbers = [broker.add() for _ in range(60)]
        broker.refusal = lambda number: NOT_FOUND
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(60)
        assert broker.count(BOOK) >= 5
        broker.refusal = lambda number: None
        results = await halting
        assert {result.number for result in results if isinstance(result, Order)} == set(numbers)


async def test_an_error_in_a_listener_does_not_end_the_cancelling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)

        def fail(update: Any) -> None:
            raise ZeroDivisionError("the program's own")

        neo._engine.on_missed_fill(fail)
        broker.refusal = lambda number: NOT_FOUND
        broker.shown = lambda row: row | {"fldQty": 5, "avgPrc": "39.00"}
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(5)
        broker.refusal = lambda number: None
        assert await halting == [order]


async def test_a_cancel_that_hangs_does_not_delay_the_others() -> None:
    async with order_broker(timeouts=Timeouts(order=10.0)) as (broker, neo):
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        broker.seconds[CANCEL] = 60.0
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(1)
        broker.seconds[CANCEL] = 0.05
        late = [broker.add() for _ in range(3)]
        await asyncio.sleep(3)
        assert not set(late) & set(broker.open_numbers())
        results = await halting
        assert {order.number for order in orders} | set(late) == {
            result.number for result in results if isinstance(result, Order)
        }


# --- cancels go first -------------------------------------------------------------------------


async def test_listeners_are_called_once_the_first_cancels_are_sent() -> None:
    async with order_broker() as (_, neo):
        await neo.orders.place(*BUY, 10, **MIS)
        before = neo.limiter.starts[Kind.CANCEL]
        out: list[tuple[int, bool]] = []
        neo.on_halt(
            lambda halted: out.append(
                (neo.limiter.starts[Kind.CANCEL] - before, neo._session.is_sending)
            )
        )
        await neo.halt()
        assert out == [(1, True)]


async def test_cancels_arrive_at_once_whatever_hangs_and_the_halt_ends_on_proof_only(
    tmp_path: Path,
) -> None:
    """Placements hang, the journal is locked, reports answer 403, and there is no feed. The broker
    answers within 50 ms. The first of 20 cancels arrives within 20 ms, and the rest with it, as the
    rate limit allows. Virtual time passes only in waits; the work itself is measured in processor
    time."""
    # Connections for the placements that hang, and for cancels beside them.
    pool = PoolLimits(warm=4, maximum=64)
    limits = RateLimits(orders=50, total=50)
    path = tmp_path / "orders.db"
    async with order_broker(
        pool=pool, limits=limits, journal=path, resolution_timeout=2.0, timeouts=Timeouts(order=3.0)
    ) as (broker, neo):  # fmt: skip
        numbers = [(await neo.orders.place(*BUY, 10, **MIS)).number for _ in range(20)]
        broker.seconds[PLACE] = 60.0
        placing = asyncio.create_task(
            neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 20, wait_for_outcome=False)
        )
        await asyncio.sleep(1.2)
        broker.instead[BOOK] = Reply({"message": "Forbidden", "code": 9999}, 403)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            gc.collect()  # so that no collection falls into the 20 ms
            began, worked = seconds(), time.process_time()
            halting = asyncio.ensure_future(neo.halt())
            while not broker.count(CANCEL):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
            assert time.process_time() - worked < 0.02
            await asyncio.wait([halting], timeout=1)
            cancels = [at - began for at, path in broker.arrivals if path == CANCEL]
            assert len(cancels) == len(numbers)
            assert cancels[0] < 0.02
            assert cancels[-1] < 0.2
            times = [at for at, _ in broker.arrivals]
            pairs = zip(times, times[limits.total :], strict=False)
            assert all(later - earlier > 0.9 for earlier, later in pairs)
            assert not set(numbers) & set(broker.open_numbers())
            await asyncio.wait([halting], timeout=1)
            assert not halting.done()
            other.execute("ROLLBACK")
        assert not halting.done()
        del broker.instead[BOOK]
        mended = seconds()
        results = await asyncio.wait_for(halting, 30)
        assert any(at >= mended for at, path in broker.arrivals if path == BOOK)
        assert {result.number for result in results if isinstance(result, Order)} == set(numbers)
        await asyncio.gather(placing, return_exceptions=True)


async def test_the_first_cancel_arrives_at_once_with_the_default_settings(
    tmp_path: Path,
) -> None:
    """Placements hang on every connection that is not reserved for cancels, with the default pool
    and rate limit."""
    path = tmp_path / "orders.db"
    settings = {"pool": PoolLimits(), "limits": RateLimits(), "journal": path}
    async with order_broker(**settings, resolution_timeout=2.0, timeouts=Timeouts(order=30.0)) as (
        broker,
        neo,
    ):
        numbers = [(await neo.orders.place(*BUY, 10, **MIS)).number for _ in range(20)]
        broker.seconds[PLACE] = 60.0
        placing = asyncio.create_task(
            neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 40, wait_for_outcome=False)
        )
        await asyncio.sleep(6)
        assert neo._session.lane.busy == PoolLimits().maximum
        broker.instead[BOOK] = Reply({"message": "Forbidden", "code": 9999}, 403)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = seconds()
            halting = asyncio.ensure_future(neo.halt())
            await asyncio.sleep(3)
            cancels = [at - began for at, path in broker.arrivals if path == CANCEL]
            assert cancels[0] < 0.02
            assert len(cancels) >= len(numbers)
            assert not set(numbers) & set(broker.open_numbers())
            assert not halting.done()
            other.execute("ROLLBACK")
        times = [at for at, _ in broker.arrivals]
        pairs = zip(times, times[RateLimits().total :], strict=False)
        assert all(later - earlier > 0.9 for earlier, later in pairs)
        del broker.instead[BOOK]
        broker.seconds[PLACE] = 0.0
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)
        results = await asyncio.wait_for(halting, 200)
        assert set(numbers) <= {one.number for one in results if isinstance(one, Order)}


# --- orders of an earlier process -------------------------------------------------------------


@contextlib.asynccontextmanager
async def restarted(
    path: Path, orders: int, **options: Any
) -> AsyncIterator[tuple[OrderBroker, NeoClient, asyncio.Task[Any]]]:
    """A client that logs in after a crash of an earlier process, which had placed orders, while the
    order book hangs."""
    async with serving_orders() as broker:
        settings = grouped(
            {"live_updates": False, "limits": WIDE, "clock": now, "journal": path, **options}
        )

        def client() -> NeoClient:
            neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints, **settings)
            neo.limiter._clock = asyncio.get_running_loop().time
            return neo

        async with client() as before:
            for _ in range(orders):
                await before.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        broker.arrivals.clear()
        broker.seconds[BOOK] = 1000.0
        neo = client()
        login = asyncio.create_task(neo.login())
        try:
            yield broker, neo, login
        finally:
            login.cancel()
            await asyncio.wait([login])
            await neo.logout()


@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.parametrize("bad", [None, Reply({"message": "Forbidden", "code": 9999}, 403)])
async def test_orders_of_an_earlier_process_are_cancelled_while_no_book_can_be_read(
    tmp_path: Path, when: str, bad: Reply | None
) -> None:
    async with restarted(tmp_path / "orders.db", 3) as (broker, neo, login):
        if bad is not None:
            broker.instead[BOOK] = bad
            broker.seconds[BOOK] = 0.05
        if when == "before":
            halting = neo.halt()
        while not neo._session.is_open:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        if when == "during":
            await asyncio.sleep(5)
            halting = neo.halt()
        began = seconds()
        await asyncio.sleep(1)
        cancels = [at - began for at, path in broker.arrivals if path == CANCEL]
        assert len(cancels) == 3
        assert cancels[0] < 0.02
        assert broker.open_numbers() == []
        broker.instead.clear()
        broker.seconds[BOOK] = 0.05
        assert not asyncio.ensure_future(halting).done()
        await asyncio.wait_for(login, 60)
        results = await asyncio.wait_for(halting, 60)
        assert not [result for result in results if isinstance(result, NeoError)]
        assert broker.count(CANCEL) == 3


async def test_orders_of_an_earlier_process_that_the_book_shows_final_are_not_cancelled(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.db"
    limits = RateLimits(orders=10, total=10)
    async with restarted(path, 60, limits=limits) as (broker, neo, login):
        broker.seconds[BOOK] = 0.05
        _, *between, _ = broker.rows
        for number in between:
            broker.rows[number]["ordSt"] = "complete"
        broker.refusal = lambda number: (
            None if broker.rows[number]["ordSt"] == "open" else NOT_FOUND
        )
        results = await asyncio.wait_for(neo.halt(), 60)
        await login
        assert broker.open_numbers() == []
        # The first ten, and those that the book then shows open.
        assert broker.count(CANCEL) <= 15
        assert not [one for one in results if isinstance(one, NeoError)]
    journal = Journal(path, ucc=CREDENTIALS.ucc, clock=now)
    journal.open()
    remaining = await uncancelled(journal, now())
    await journal.close()
    # The broker has accepted the cancels of the first and the last order.
    assert [intent.order_number for intent in remaining] == between[::-1]


# --- every sequence of events -----------------------------------------------------------------


@given(
    orders=st.lists(
        st.tuples(st.sampled_from(["place", "many", "modify"]), st.integers(0, 300)),
        min_size=1,
        max_size=12,
    ),
    at=st.integers(0, 400),
    faults=st.fixed_dictionaries(
        {},
        optional={
            name: st.floats(0, 0.2)
            for name in ("lose_before", "lose_after", "error_after", "delay_before", "feed_lose")
        },
    ),
    rate=st.sampled_from([10, 10_000]),
)
@settings(max_examples=20, deadline=None)
def test_after_a_halt_nothing_is_open_and_nothing_arrives(
    orders: list[tuple[str, int]], at: int, faults: dict[str, float], rate: int
) -> None:
    async def act(neo: NeoClient, placed: list[Order], action: str, after: int) -> None:
        await asyncio.sleep(after / 1000)
        with contextlib.suppress(NeoError):
            if action == "place":
                placed.append(await neo.orders.place(*BUY, 1, **MIS))
            elif action == "many":
                results = await neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5)
                placed += [result for result in results if isinstance(result, Order)]
            elif placed:
                await neo.orders.modify(placed[0], price="38.95")

    async def run() -> None:
        limits = RateLimits(orders=rate, total=rate)
        async with (
            exchange_of() as exchange,
            client_in_loop_time(exchange, limits=limits, resolution_timeout=5.0) as neo,
        ):
            exchange.faults.set(Faults(**faults, calls=("orders",)))
            placed: list[Order] = []
            acting = [
                asyncio.create_task(act(neo, placed, action, after)) for action, after in orders
            ]
            await asyncio.sleep(at / 1000)
            results = await neo.halt()
            assert not [result for result in results if isinstance(result, NeoError)]
            assert open_orders_in(exchange) == []
            arrived = len(await paths(exchange))
            await asyncio.gather(*acting)
            await asyncio.sleep(30)
            later = (await paths(exchange))[arrived:]
            assert clients.PLACE not in later
            assert clients.MODIFY not in later
            assert open_orders_in(exchange) == []

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
