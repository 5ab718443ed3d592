"""A halt ends on evidence: a broker that refuses, forgets or hides orders does not end it, and none
keeps it at work for ever without a word."""

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

from neo_async import (
    Halted,
    NeoClient,
    NeoError,
    Order,
    OrderRequest,
    OrderStatus,
    PoolLimits,
    RateLimits,
    Timeouts,
)
from neo_async.execution.journal import Journal
from neo_async.execution.reconciliation import uncancelled
from neo_async.risk.kill_switch import GIVE_UP_SECONDS
from neo_async.transport.kinds import Kind
from tests.clients import WIDE
from tests.fake_servers import CREDENTIALS, Reply
from tests.order_broker import (
    BOOK,
    CANCEL,
    NOT_FOUND,
    PLACE,
    OrderBroker,
    order_broker,
    serving_orders,
)
from tests.risk.test_engine import BUY, MIS
from tests.simulation.virtual_time import in_virtual_time, now


def seconds() -> float:
    return asyncio.get_running_loop().time()


# --- evidence ---------------------------------------------------------------------------------


@in_virtual_time
async def test_an_order_that_the_broker_does_not_know_yet_is_cancelled_when_it_does() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        placed = seconds()
        broker.refusal = lambda number: NOT_FOUND if seconds() < placed + 4 else None
        broker.shown = lambda row: None if seconds() < placed + 4 else row
        assert await neo.halt() == [order]
        assert seconds() > placed + 4
        assert broker.open_numbers() == []
        assert order.status is OrderStatus.CANCELLED


@in_virtual_time
async def test_an_open_order_that_a_book_lacks_is_cancelled_although_another_one_is_final() -> None:
    # The young order was accepted; only its own cancel is refused as if it were final.
    async with order_broker() as (broker, neo):
        old = await neo.orders.place(*BUY, 10, **MIS)
        await neo.orders.cancel(old)
        young = await neo.orders.place(*BUY, 10, **MIS)
        placed = seconds()
        broker.refusal = lambda number: NOT_FOUND if seconds() < placed + 6 else None
        broker.shown = lambda row: (
            None if row["nOrdNo"] == young.number and seconds() < placed + 6 else row
        )
        results = await neo.halt()
        assert young in results
        assert broker.open_numbers() == []


@in_virtual_time
async def test_one_empty_book_does_not_prove_that_no_order_of_another_application_is_open() -> None:
    async with order_broker() as (broker, neo):
        number = broker.add()
        books = iter([None])
        broker.shown = lambda row: next(books, row)  # type: ignore[assignment,return-value,arg-type]
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == number
        assert broker.open_numbers() == []


@in_virtual_time
async def test_an_order_that_appears_while_the_halt_is_at_work_is_cancelled_too() -> None:
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


@in_virtual_time
async def test_a_state_that_is_not_known_does_not_keep_a_halt_at_work_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.refusal = lambda number: NOT_FOUND
        broker.shown = lambda row: row | {"ordSt": "squared off by rms"}
        (result,) = await asyncio.wait_for(neo.halt(), GIVE_UP_SECONDS + 30)
        assert isinstance(result, NeoError)
        assert order.number in str(result)
        assert "has the unknown status 'squared off by rms'" in str(result)
        assert "not found" in str(result)
    assert [r.levelname for r in caplog.records if r.getMessage() == f"halt: {result}"] == ["ERROR"]


@in_virtual_time
async def test_an_open_order_without_a_number_is_an_error_of_the_halt_and_not_cancelled_blindly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        unnamed = broker.add()
        broker.shown = lambda row: row | {"nOrdNo": ""} if row["nOrdNo"] == unnamed else row
        results = await asyncio.wait_for(neo.halt(), GIVE_UP_SECONDS + 60)
        assert results[0] is order
        assert "has no order number, and is 'open'" in str(results[1])
        assert broker.open_numbers() == [unnamed]
        assert broker.count(CANCEL) == 1
        assert "halt: not done after" in caplog.text


@pytest.mark.parametrize("takes_cancels", [True, False])
@in_virtual_time
async def test_an_order_that_no_book_ever_shows_does_not_keep_a_halt_at_work_for_ever(
    takes_cancels: bool,
) -> None:
    gone = Reply({"stat": "Not_Ok", "emsg": "order not found", "stCode": 1010})
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        taken = Reply({"nOrdNo": order.number, "stat": "Ok", "stCode": 200})
        broker.refusal = lambda number: taken if takes_cancels else gone
        broker.shown = lambda row: None
        began = seconds()
        (result,) = await neo.halt()
        assert GIVE_UP_SECONDS <= seconds() - began < GIVE_UP_SECONDS + 30
        assert isinstance(result, NeoError)
        assert "not in the order book" in str(result)
        # It is no proof: the next halt, and the next login, try again.
        broker.shown, broker.refusal = lambda row: row, lambda number: None
        assert await neo.halt() == [order]


@in_virtual_time
async def test_an_order_that_stands_in_the_book_is_cancelled_for_as_long_as_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.refusal = lambda number: Reply({"stat": "Not_Ok", "emsg": "no", "stCode": 1041})
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(10 * GIVE_UP_SECONDS)
        assert not halting.done()
        reminders = [r for r in caplog.records if "halt: not done after" in r.getMessage()]
        assert len(reminders) >= 10
        assert {r.levelname for r in reminders} == {"ERROR"}
        assert f"1 orders may be open, such as {order.number} (no (code 1041" in caplog.text
        broker.refusal = lambda number: None
        assert await halting == [order]


@in_virtual_time
async def test_reports_that_are_forbidden_are_no_evidence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.instead[BOOK] = Reply({"stat": "Not_Ok", "emsg": "not for you", "stCode": 9999}, 400)
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(300)
        assert broker.open_numbers() == []
        assert not halting.done()
        assert "not for you" in caplog.text
        del broker.instead[BOOK]
        assert await halting == [order]


@pytest.mark.parametrize("call", ["place", "modify"])
@in_virtual_time
async def test_an_error_from_the_core_does_not_keep_a_halt_at_work_for_ever(call: str) -> None:
    core = Reply({"stCode": 32, "stMsg": "error from core", "stat": "Not_Ok"})
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        broker.instead[PLACE] = core
        broker.script("/quick/order/vr/modify", core)
        with contextlib.suppress(NeoError):
            if call == "place":
                await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
            else:
                await neo.orders.modify(order, price="39.10", wait_for_outcome=False)
        began = seconds()
        assert await neo.halt() == [order]
        assert seconds() - began < 60  # the horizon, and a look


@in_virtual_time
async def test_reading_the_book_is_not_kept_waiting_by_cancels_that_are_repeated() -> None:
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


@in_virtual_time
async def test_an_open_order_without_a_number_is_an_error_of_the_halt_after_a_bounded_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        external = broker.add()
        broker.shown = lambda row: row if row["nOrdNo"] != external else row | {"nOrdNo": None}
        began = seconds()
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(1)
        assert order.is_final
        first, error = await halting
        assert GIVE_UP_SECONDS <= seconds() - began < GIVE_UP_SECONDS + 30
        assert first is order
        assert isinstance(error, NeoError)
        assert "has no order number" in str(error)
        assert "10 ITBEES-EQ cannot be cancelled from here" in str(error)
        assert "s: a row of the order book has no order number, and is 'open'" in caplog.text
        broker.shown = lambda row: row  # the next halt sees what it is
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == external
        assert broker.open_numbers() == []


@in_virtual_time
async def test_an_order_whose_number_is_shown_after_all_ends_the_halt() -> None:
    async with order_broker() as (broker, neo):
        external = broker.add()
        began = seconds()
        broker.shown = lambda row: row if seconds() > began + 10 else row | {"nOrdNo": {}}
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == external
        assert seconds() - began < 20


@in_virtual_time
async def test_an_error_of_the_program_in_a_listener_does_not_end_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)

        def fail(update: Any) -> None:
            raise ZeroDivisionError("the program's own")

        neo._cache.on_repair(fail)
        broker.refusal = lambda number: NOT_FOUND
        broker.shown = lambda row: row | {"fldQty": 5, "avgPrc": "39.00"}
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(5)
        broker.refusal = lambda number: None
        assert await halting == [order]


# --- what stands between a halt and the socket ------------------------------------------------


@in_virtual_time
async def test_a_cancel_that_hangs_keeps_no_other_order_open() -> None:
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


@in_virtual_time
async def test_listeners_are_called_when_the_first_cancels_are_out() -> None:
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


@in_virtual_time
async def test_cancels_arrive_at_once_whatever_hangs_and_the_halt_ends_on_evidence_only(
    tmp_path: Path,
) -> None:
    """Placements hang, the journal is locked, reports answer 403, and there is no feed. The broker
    answers within 50 ms; the first of 20 cancels arrives within 20, and the rest with it, as the
    speed limit has room for them. Time passes only where somebody waits; the work itself is counted
    in seconds of the processor."""
    # With room for the placements that hang, and for cancels beside them.
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
            gc.collect()  # not amid the 20 ms
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


@in_virtual_time
async def test_the_first_cancel_arrives_at_once_with_the_settings_that_nobody_changed(
    tmp_path: Path,
) -> None:
    """As above, with the pool and the speed limit of a client that was given none: placements hang
    on every connection that is not the cancels' own."""
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


@contextlib.asynccontextmanager
async def restarted(
    path: Path, orders: int, **options: Any
) -> AsyncIterator[tuple[OrderBroker, NeoClient, asyncio.Task[Any]]]:
    """A client that logs in after a crash of the process before, which had placed orders, while the
    order book hangs."""
    async with serving_orders() as broker:
        settings = {"live_orders": False, "limits": WIDE, "clock": now, "journal": path, **options}

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
@in_virtual_time
async def test_a_halt_at_a_login_cancels_the_orders_of_the_process_before_while_no_book_can_be_read(
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


@in_virtual_time
async def test_orders_of_the_process_before_that_it_cancelled_or_the_book_shows_are_left_alone(
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
        # Those of a first portion, and what the book then shows to be open.
        assert broker.count(CANCEL) <= 15
        assert not [one for one in results if isinstance(one, NeoError)]
    journal = Journal(path, ucc=CREDENTIALS.ucc, clock=now)
    journal.open()
    left = await uncancelled(journal, now())
    await journal.close()
    # The broker has accepted cancels of the others.
    assert [intent.order_number for intent in left] == between[::-1]


@in_virtual_time
async def test_a_listener_may_halt_and_resume_itself() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        again: list[Any] = []
        neo.on_halt(lambda halted: again.append(asyncio.ensure_future(neo.halt(reason="again"))))
        assert await neo.halt(reason="first") == [order]
        assert await again[0] == [order]
        assert broker.count(CANCEL) == 1
        assert neo.halted is not None
        assert neo.halted.reason == "first"
    async with order_broker() as (_, neo):
        neo.on_halt(lambda halted: neo.resume_orders())
        await neo.halt()
        assert neo.halted is None
        await neo.orders.place(*BUY, 10, **MIS)


@in_virtual_time
async def test_a_halt_after_a_resumed_one_begins_anew() -> None:
    async with order_broker() as (broker, neo):
        broker.seconds[BOOK] = 1.0
        first = asyncio.ensure_future(neo.halt(reason="first"))
        await asyncio.sleep(0.2)  # it waits for the book
        neo.resume_orders()
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert await neo.halt(reason="second") == [order]
        assert broker.open_numbers() == []
        assert [type(result) for result in await first] != [Order]
        with pytest.raises(Halted, match="second"):
            await neo.orders.place(*BUY, 10, **MIS)


@in_virtual_time
async def test_a_halt_that_cancels_may_follow_one_that_does_not() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        heard: list[Halted] = []
        neo.on_halt(heard.append)
        neo.halt(cancel_open=False, reason="reservation")
        assert [halted.reason for halted in heard] == ["reservation"]
        assert broker.count(CANCEL) == 0
        assert await neo.halt() == [order]
        assert await neo.halt(cancel_open=False) == []
        assert len(heard) == 1
