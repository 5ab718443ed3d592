"""The kill switch: from a halt on nothing new is sent, across logins and processes, until it is
resumed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    BreakerConfig,
    Halted,
    NeoError,
    NotLoggedIn,
    Order,
    OrderRequest,
    OrderStatus,
    Outcome,
    PoolLimits,
    Product,
    RateLimits,
    RiskLimits,
    Timeouts,
    UsageError,
)
from neo_async.exchange import Faults
from neo_async.execution.journal import Journal
from tests.clients import CANCEL, MODIFY, PLACE, client_of, exchange_of, paths
from tests.exchange_settings import EVERY_ORDER
from tests.fake_servers import fault_proxy
from tests.order_broker import BOOK, order_broker
from tests.order_broker import CANCEL as BROKER_CANCEL
from tests.risk.trading import (
    BUY,
    MIS,
    final_statuses,
    open_orders_in,
    place_form_of,
    seconds,
    trade,
    trading,
    until,
    until_sent,
)
from tests.simulation.virtual_time import now

# --- a halt -----------------------------------------------------------------------------------


@pytest.mark.parametrize("live_updates", [True, False])
async def test_open_orders_are_cancelled_and_nothing_new_is_sent(live_updates: bool) -> None:
    async with trading(live_updates=live_updates) as (exchange, neo):
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        await trade(exchange, 3900)
        await neo.orders.book()
        orders += [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        announced: list[Halted] = []
        neo.on_halt(announced.append)
        assert neo.halted is None
        results = await neo.halt(reason="enough")
        assert final_statuses(results) == [OrderStatus.CANCELLED] * 3
        assert {result.number for result in results if isinstance(result, Order)} == {
            order.number for order in orders[3:]
        }
        assert open_orders_in(exchange) == []
        assert neo.halted is announced[0]
        assert (neo.halted.reason, announced[1:]) == ("enough", [])
        for call in (
            neo.orders.place(*BUY, 10, **MIS),
            neo.orders.place_many([OrderRequest(*BUY, 10, **MIS)]),
            neo.orders.modify(orders[3], price="38.90"),
        ):
            with pytest.raises(Halted, match=r"halted since 10:00:0\d IST \(enough\): no order"):
                await call
        seen = await paths(exchange)
        assert (seen.count(PLACE), seen.count(MODIFY), seen.count(CANCEL)) == (6, 0, 3)
        neo.resume_orders()
        assert neo.halted is None
        order = await neo.orders.place(*BUY, 10, **MIS)
        await neo.orders.modify(order, price="38.90")


async def test_orders_of_other_applications_are_cancelled_too_and_covered_ones_exited() -> None:
    async with (
        exchange_of(rules=EVERY_ORDER) as exchange,
        client_of(exchange, live_updates=False) as other,
    ):
        await other.orders.place(*BUY, 10, **MIS)
        await other.orders.place(*BUY, 10, price="39", product=Product.CO, trigger="38")
        await asyncio.sleep(30)
        async with client_of(exchange, live_updates=False) as neo:
            results = await neo.halt()
            assert len(results) >= 2
            assert open_orders_in(exchange) == []


async def test_without_cancel_open_orders_stay_open_and_can_be_cancelled_by_hand() -> None:
    async with trading() as (exchange, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert await neo.halt(cancel_open=False) == []
        assert open_orders_in(exchange) == [order.number]
        await neo.orders.cancel(order)
        await order.wait(timeout=5)
        assert await neo.halt() == []
        assert neo.halted is not None
        assert neo.halted.reason == "halt() was called"


async def test_a_halt_needs_no_await_and_a_second_one_joins_it() -> None:
    async with trading() as (exchange, neo):
        await neo.orders.place(*BUY, 10, **MIS)
        first = neo.halt(reason="first")
        with pytest.raises(Halted, match="first"):
            await neo.orders.place(*BUY, 10, **MIS)
        second = neo.halt(reason="second")
        assert await first == await second
        assert neo.halted is not None
        assert neo.halted.reason == "first"
        assert (await paths(exchange)).count(CANCEL) == 1


async def test_an_error_in_a_listener_does_not_stop_a_halt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trading() as (exchange, neo):
        await neo.orders.place(*BUY, 10, **MIS)

        def fail(halted: Halted) -> None:
            raise ZeroDivisionError

        neo.on_halt(fail)
        await neo.halt(reason="x")
        assert open_orders_in(exchange) == []
        critical = [record for record in caplog.records if record.levelname == "CRITICAL"]
        assert [record.getMessage().partition(": ")[2] for record in critical] == [str(neo.halted)]


async def test_a_listener_may_halt_and_resume() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        again: list[Any] = []
        neo.on_halt(lambda halted: again.append(asyncio.ensure_future(neo.halt(reason="again"))))
        assert await neo.halt(reason="first") == [order]
        assert await again[0] == [order]
        assert broker.count(BROKER_CANCEL) == 1
        assert neo.halted is not None
        assert neo.halted.reason == "first"
    async with order_broker() as (_, neo):
        neo.on_halt(lambda halted: neo.resume_orders())
        await neo.halt()
        assert neo.halted is None
        await neo.orders.place(*BUY, 10, **MIS)


async def test_a_halt_after_a_resume_starts_over() -> None:
    async with order_broker() as (broker, neo):
        broker.seconds[BOOK] = 1.0
        first = asyncio.ensure_future(neo.halt(reason="first"))
        await asyncio.sleep(0.2)  # until it waits for the book
        neo.resume_orders()
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert await neo.halt(reason="second") == [order]
        assert broker.open_numbers() == []
        assert [type(result) for result in await first] != [Order]
        with pytest.raises(Halted, match="second"):
            await neo.orders.place(*BUY, 10, **MIS)


async def test_a_halt_with_cancels_may_follow_one_without() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        announced: list[Halted] = []
        neo.on_halt(announced.append)
        neo.halt(cancel_open=False, reason="pause")
        assert [halted.reason for halted in announced] == ["pause"]
        assert broker.count(BROKER_CANCEL) == 0
        assert await neo.halt() == [order]
        assert await neo.halt(cancel_open=False) == []
        assert len(announced) == 1


async def test_a_resume_ends_the_cancelling() -> None:
    dropped = {CANCEL}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints, breaker=BreakerConfig(failures=10**6)) as neo,
    ):
        await neo.orders.place(*BUY, 10, **MIS)
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(3)
        neo.resume_orders()
        assert [type(result) for result in await halting] != [Order]
        dropped.clear()
        await neo.orders.place(*BUY, 10, **MIS)


# --- requests that wait -----------------------------------------------------------------------


async def test_orders_that_wait_for_the_rate_limit_are_refused_and_cancels_go_first(
    tmp_path: Path,
) -> None:
    limits = RateLimits(orders=10, total=10)
    journal = tmp_path / "orders.db"
    async with trading(limits=limits, journal=journal) as (exchange, neo):
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 40))
        while neo.limiter.waiting < 30:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        began = seconds()
        halting = neo.halt(reason="too many")
        results = await placing
        assert seconds() == began
        placed = [type(result) for result in results].count(Order)
        assert [type(result) for result in results] == [Order] * placed + [Halted] * (40 - placed)
        assert 0 < placed <= 10
        assert len(final_statuses(await halting)) == placed
        assert seconds() < began + 3
        assert open_orders_in(exchange) == []
        assert (await paths(exchange)).count(PLACE) == placed
    with contextlib.closing(sqlite3.connect(journal)) as file:
        outcomes = file.execute(
            "SELECT outcome, count(*), max(reason) FROM intents WHERE action = 'place' "
            "GROUP BY outcome ORDER BY outcome"
        ).fetchall()
    assert [row[:2] for row in outcomes] == [
        (Outcome.ACCEPTED, placed),
        (Outcome.NOT_SENT, 40 - placed),
    ]
    assert "halted since" in outcomes[1][2]


async def test_orders_that_wait_for_a_connection_are_refused() -> None:
    async with trading(pool=PoolLimits(warm=1, maximum=1), live_updates=False) as (exchange, neo):
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await until_sent(neo)
        halting = neo.halt()
        results = await placing
        assert [type(result) for result in results] == [Order] + [Halted] * 4
        assert await halting == results[:1]
        assert (await paths(exchange)).count(PLACE) == 1


async def test_orders_that_wait_for_the_end_of_a_login_are_refused() -> None:
    async with trading() as (exchange, neo):
        with neo._engine.held():
            placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
            cancelling = asyncio.create_task(neo.orders.cancel("261123000000001"))
            await asyncio.sleep(1)
            neo.halt()
            with pytest.raises(Halted):
                await placing
            await asyncio.sleep(1)
        with pytest.raises(NeoError):
            await cancelling
        assert (await paths(exchange)).count(PLACE) == 0


async def test_a_halt_ends_the_retries_of_a_placement() -> None:
    async with trading(timeouts=Timeouts(connect=0.5)) as (exchange, neo):
        lane = neo._session.lane
        port, lane.pool._port = lane.pool._port, 1  # no server listens there
        for connection in [*lane.pool.connections]:
            connection.close()
        await asyncio.sleep(0)
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await asyncio.sleep(2)
        assert not placing.done()
        began = seconds()
        neo.halt()
        with pytest.raises(Halted):
            await placing
        assert seconds() == began
        lane.pool._port = port
        await neo.halt()
        assert (await paths(exchange)).count(PLACE) == 0


# --- logins -----------------------------------------------------------------------------------


async def test_a_logout_ends_the_cancelling_and_the_result_names_open_orders(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dropped = {CANCEL}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        order = await neo.orders.place(*BUY, 10, **MIS)
        halting = asyncio.ensure_future(neo.halt())
        await asyncio.sleep(3)
        await neo.logout()
        (result,) = await halting
        assert isinstance(result, NeoError)
        assert order.number in str(result)
        assert "halt: 1 orders were open, 1 of them may still be" in caplog.text
        with pytest.raises(Halted):  # a halt outlives a login
            await neo.orders.place(*BUY, 10, **MIS)
        (error,) = await neo.halt()
        assert isinstance(error, NotLoggedIn)


async def test_a_login_cancels_for_a_halt_before_it() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        neo = client_of(exchange)
        (error,) = await neo.halt(reason="early")
        assert isinstance(error, NotLoggedIn)
        await asyncio.sleep(30)  # the next TOTP code
        async with neo:
            await until(lambda: not open_orders_in(exchange))
            assert neo.halted is not None
            assert neo.halted.reason == "early"
            with pytest.raises(Halted, match="early"):
                await neo.orders.place(*BUY, 10, **MIS)
            await neo.halt()


async def test_a_halt_during_the_login_waits_for_it_and_cancels() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        exchange.faults.set(Faults(delay_before=1.0, delay_seconds=1.0, calls=("logins",)))
        neo = client_of(exchange)
        login = asyncio.create_task(neo.login())
        await asyncio.sleep(0.5)
        results = await neo.halt()
        assert final_statuses(results) == [OrderStatus.CANCELLED]
        assert open_orders_in(exchange) == []
        await login
        await neo.logout()


async def test_the_next_login_cancels_for_a_halt_during_a_failed_one() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        neo = client_of(exchange)
        exchange.faults.set(
            Faults(lose_before=1.0, delay_before=1.0, delay_seconds=1.0, calls=("logins",))
        )
        login = asyncio.create_task(neo.login())
        await asyncio.sleep(0.5)
        (error,) = await neo.halt()
        assert isinstance(error, NotLoggedIn)
        with pytest.raises(NeoError):
            await login
        exchange.faults.set(Faults())
        async with neo:
            await until(lambda: not open_orders_in(exchange))


async def test_the_next_login_continues_the_cancelling_that_a_logout_ended() -> None:
    dropped = {CANCEL}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
    ):
        neo = client_of(exchange, endpoints=endpoints)
        async with neo:
            await neo.orders.place(*BUY, 10, **MIS)
            neo.halt()
            await asyncio.sleep(3)
        assert len(open_orders_in(exchange)) == 1
        dropped.clear()
        async with neo:
            await until(lambda: not open_orders_in(exchange))


# --- processes --------------------------------------------------------------------------------


async def test_a_halt_outlives_the_process_until_a_resume(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.halt(reason="enough")
        for _ in range(2):  # a supervisor starts it again and again
            await asyncio.sleep(30)
            neo = client_of(exchange, journal=journal)
            announced: list[Halted] = []
            neo.on_halt(announced.append)
            async with neo:
                assert [halted.reason for halted in announced] == ["enough"]
                assert neo.health().halted == "enough"
                assert neo.halted is not None
                assert neo.halted.from_earlier_process
                with pytest.raises(
                    Halted,
                    match=r"halted since 2026-11-23 10:00:0\d IST by an earlier process "
                    r"\(enough\): "
                    r"no order is placed or changed until neo.resume_orders\(\) is called",
                ):
                    await neo.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        async with client_of(exchange, journal=journal) as neo:
            neo.resume_orders()
            await neo.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        async with client_of(exchange, journal=journal) as neo:
            assert neo.halted is None
            await neo.orders.place(*BUY, 10, **MIS)


async def test_the_next_process_continues_a_halt_that_was_not_done(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    dropped = {CANCEL}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
    ):
        async with client_of(exchange, endpoints=endpoints, journal=journal) as neo:
            await neo.orders.place(*BUY, 10, **MIS)
            neo.halt()
            await asyncio.sleep(3)
        dropped.clear()
        await asyncio.sleep(30)
        async with client_of(exchange, endpoints=endpoints, journal=journal) as neo:
            await until(lambda: not open_orders_in(exchange))
            await neo.halt()


@pytest.mark.parametrize("cancel_open", [True, False])
async def test_a_restart_after_a_halt_that_is_done_cancels_no_orders_of_other_applications(
    tmp_path: Path, cancel_open: bool
) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.halt(cancel_open=cancel_open)
        await asyncio.sleep(30)
        async with client_of(exchange) as app:
            await app.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        async with client_of(exchange, journal=journal) as neo:
            assert neo.halted is not None
            await asyncio.sleep(30)
            assert len(open_orders_in(exchange)) == 1


async def test_the_journal_does_not_undo_a_resume_without_a_login(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        neo = client_of(exchange, journal=journal)
        async with neo:
            await neo.halt()
        neo.resume_orders()
        await asyncio.sleep(30)
        async with neo:
            assert neo.halted is None
        # A halt without a login is recorded by the next one.
        neo.halt(cancel_open=False, reason="between two logins")
        await asyncio.sleep(30)
        async with neo:
            pass
        await asyncio.sleep(30)
        async with client_of(exchange, journal=journal) as neo:
            assert neo.halted is not None
            assert neo.halted.reason == "between two logins"


async def test_a_halt_during_reconciliation_cancels_at_once_and_waits_for_its_result(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        earlier = Journal(journal, ucc=exchange.credentials.ucc, clock=now)
        earlier.open()
        await earlier.begin("place", place_form_of("crashed0001"), client_tag="crashed0001")
        await earlier.close()
        await asyncio.sleep(30)
        neo = client_of(exchange, journal=journal, resolution_timeout=20.0)
        login = asyncio.create_task(neo.login())
        await until(lambda: neo.health().logged_in_since)
        began = seconds()
        halting = asyncio.ensure_future(neo.halt())
        await until(lambda: not open_orders_in(exchange))
        assert seconds() - began < 1
        # A placement of the earlier process arrives late.
        await asyncio.sleep(10)
        assert not halting.done()
        other = client_of(exchange)
        await other.resume(neo.session)
        other.orders._tags.make = lambda tag: "crashed0001"  # type: ignore[method-assign]
        await other.orders.place(*BUY, 10, **MIS)
        await other.logout()
        results = await halting
        assert OrderStatus.CANCELLED in final_statuses(results)
        assert open_orders_in(exchange) == []
        await login
        await neo.logout()


# --- signals ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_signal_halts_and_the_logout_removes_its_handler() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as neo:
            neo.halt_on_signal(signal.SIGUSR1)
            await neo.orders.place(*BUY, 10, **MIS)
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: neo.halted)
            assert neo.halted is not None
            assert neo.halted.reason == "signal SIGUSR1"
            await until(lambda: not open_orders_in(exchange))
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_signal_that_cannot_be_handled_is_refused() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with pytest.raises(UsageError, match="signal SIGKILL cannot be handled"):
            neo.halt_on_signal(signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.real_time("a real thread sends the signal")
async def test_a_halt_in_a_handler_of_the_signal_module_starts_at_once() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        await neo.orders.place(*BUY, 10, **MIS)
        before = signal.signal(signal.SIGUSR2, lambda *_: neo.halt(reason="SIGUSR2"))
        try:
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
            timer.start()
            began = seconds()
            await until(lambda: not open_orders_in(exchange))
            assert seconds() - began < 2
            timer.join()
        finally:
            signal.signal(signal.SIGUSR2, before)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_failed_login_keeps_the_signal_handlers() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, totp="123123")
        neo.halt_on_signal(signal.SIGUSR1)
        with pytest.raises(NeoError):
            await neo.login()
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: neo.halted)
        await neo.logout()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


async def test_a_logout_ends_every_task_of_risk() -> None:
    limits = RiskLimits(loop_stall=2, feed_outage=3, max_daily_loss=1000)
    async with trading(risk=limits) as (_, neo):
        await neo.halt()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if "dead man" in name or "risk" in name or "halt" in name}
