"""The kill switch: nothing new goes out from the moment of the call, and nothing stays open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    BreakerConfig,
    FeedTimings,
    Halted,
    NeoClient,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    Order,
    OrderRequest,
    OrderStatus,
    Outcome,
    PoolLimits,
    Product,
    RateLimits,
    RiskLimits,
    Segment,
    Timeouts,
    UsageError,
)
from neo_async.exchange import Exchange, Faults
from neo_async.execution.journal import Journal
from neo_async.risk.kill_switch import seconds_asleep
from neo_async.wire.orders import PlaceForm
from tests.clients import CANCEL, MODIFY, PLACE, client_of, exchange_of, paths
from tests.fake_servers import Cut, Late, Reply, fault_proxy
from tests.risk.test_engine import BUY, MIS, SYMBOL, TOKEN, trade, until
from tests.simulation.virtual_time import START, VirtualTimeLoop, in_virtual_time, now

BOOK = "/neo/quick/user/orders"


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def until_sent(neo: NeoClient) -> None:
    """Until the first bytes are out, and before any answer."""
    while not neo._session.is_sending:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)


def open_in(exchange: Exchange) -> list[str]:
    return [record.number for record in exchange.market.ledger if not record.status.is_final]


def final(results: list[Order | NeoError]) -> list[OrderStatus]:
    return [result.status for result in results if isinstance(result, Order)]


def limited_client_of(exchange: Exchange, **options: Any) -> NeoClient:
    """With a rate limit that counts the loop's own seconds."""
    neo = client_of(exchange, **options)
    neo.limiter._clock = asyncio.get_running_loop().time
    return neo


@contextlib.asynccontextmanager
async def desk(**options: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    async with exchange_of() as exchange, limited_client_of(exchange, **options) as neo:
        yield exchange, neo


def _form_of(client_tag: str) -> PlaceForm:
    return PlaceForm(
        am="NO", dq="0", es="nse_cm", mp="0", pc="MIS", pr="39.00", pt="L", qt="10", rt="DAY",
        tp="0", ts=SYMBOL, tt="B", pf="N", ig=client_tag, os="NEOTRADEAPI",
    )  # fmt: skip


# --- what it does -----------------------------------------------------------------------------


@pytest.mark.parametrize("live_orders", [True, False])
@in_virtual_time
async def test_what_is_open_is_cancelled_and_nothing_new_goes_out(live_orders: bool) -> None:
    async with desk(live_orders=live_orders) as (exchange, neo):
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        await trade(exchange, 3900)
        await neo.orders.book()
        orders += [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        heard: list[Halted] = []
        neo.on_halt(heard.append)
        assert neo.halted is None
        results = await neo.halt(reason="enough")
        assert final(results) == [OrderStatus.CANCELLED] * 3
        assert {result.number for result in results if isinstance(result, Order)} == {
            order.number for order in orders[3:]
        }
        assert open_in(exchange) == []
        assert neo.halted is heard[0]
        assert (neo.halted.reason, heard[1:]) == ("enough", [])
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


@in_virtual_time
async def test_orders_of_other_applications_are_cancelled_too_and_covered_ones_exited() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_orders=False) as other:
        await other.orders.place(*BUY, 10, **MIS)
        await other.orders.place(*BUY, 10, price="39", product=Product.CO, trigger="38")
        await asyncio.sleep(30)
        async with client_of(exchange, live_orders=False) as neo:
            results = await neo.halt()
            assert len(results) >= 2
            assert open_in(exchange) == []


@in_virtual_time
async def test_without_cancelling_orders_stay_and_can_be_cancelled_by_hand() -> None:
    async with desk() as (exchange, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert await neo.halt(cancel_open=False) == []
        assert open_in(exchange) == [order.number]
        await neo.orders.cancel(order)
        await order.wait(timeout=5)
        assert await neo.halt() == []
        assert neo.halted is not None
        assert neo.halted.reason == "halt() was called"


@in_virtual_time
async def test_it_needs_no_await_and_one_halt_is_enough() -> None:
    async with desk() as (exchange, neo):
        await neo.orders.place(*BUY, 10, **MIS)
        first = neo.halt(reason="first")
        with pytest.raises(Halted, match="first"):
            await neo.orders.place(*BUY, 10, **MIS)
        second = neo.halt(reason="second")
        assert await first == await second
        assert neo.halted is not None
        assert neo.halted.reason == "first"
        assert (await paths(exchange)).count(CANCEL) == 1


@in_virtual_time
async def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with desk() as (exchange, neo):
        await neo.orders.place(*BUY, 10, **MIS)

        def fail(halted: Halted) -> None:
            raise ZeroDivisionError

        neo.on_halt(fail)
        await neo.halt(reason="x")
        assert open_in(exchange) == []
        critical = [record for record in caplog.records if record.levelname == "CRITICAL"]
        assert [record.getMessage() for record in critical] == [str(neo.halted)]


# --- those on their way -----------------------------------------------------------------------


@in_virtual_time
async def test_those_who_wait_for_the_limiter_are_turned_away_and_cancels_go_first(
    tmp_path: Path,
) -> None:
    limits = RateLimits(orders=10, total=10)
    journal = tmp_path / "orders.db"
    async with desk(limits=limits, journal=journal) as (exchange, neo):
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
        assert len(final(await halting)) == placed
        assert seconds() < began + 3
        assert open_in(exchange) == []
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


@in_virtual_time
async def test_those_who_wait_for_a_connection_are_turned_away() -> None:
    async with desk(pool=PoolLimits(warm=1, maximum=1), live_orders=False) as (exchange, neo):
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await until_sent(neo)
        halting = neo.halt()
        results = await placing
        assert [type(result) for result in results] == [Order] + [Halted] * 4
        assert await halting == results[:1]
        assert (await paths(exchange)).count(PLACE) == 1


@in_virtual_time
async def test_those_who_wait_for_a_login_to_end_are_turned_away() -> None:
    async with desk() as (exchange, neo):
        with neo.orders.held():
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


@in_virtual_time
async def test_a_retry_ends_with_the_halt() -> None:
    async with desk(timeouts=Timeouts(connect=0.5)) as (exchange, neo):
        lane = neo._session.lane
        port, lane._port = lane._port, 1  # nobody listens there
        for connection in [*lane._open]:
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
        lane._port = port
        await neo.halt()
        assert (await paths(exchange)).count(PLACE) == 0


@pytest.mark.parametrize("lost", [Late(1.0, Reply("")), Cut(), Reply("busy", 503)])
@in_virtual_time
async def test_a_placement_whose_bytes_are_out_is_settled_and_cancelled(lost: Any) -> None:
    overrides: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
    ):
        overrides[PLACE] = lost
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        results = await neo.halt()
        order = await placing
        assert open_in(exchange) == []
        assert [record.number for record in exchange.market.ledger] == [order.number]
        assert results == [order]
        assert order.status is OrderStatus.CANCELLED


# --- when cancelling fails --------------------------------------------------------------------


@pytest.mark.parametrize("bad", [Reply("busy", 503), Cut(), Reply({"stCode": 1041}, 400)])
@in_virtual_time
async def test_cancelling_is_tried_until_it_works(bad: Any) -> None:
    overrides: dict[str, Any] = {}
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path), dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints, timeouts=Timeouts(order=2.0)) as neo,
    ):
        await neo.orders.place(*BUY, 10, **MIS)
        dropped.add(CANCEL)
        overrides.update({BOOK: bad})
        halting = neo.halt()
        impatient = asyncio.create_task(asyncio.wait_for(halting, 1.0))
        with pytest.raises(TimeoutError):
            await impatient
        await asyncio.sleep(20)
        assert len(open_in(exchange)) == 1
        dropped.clear()
        overrides.clear()
        results = await neo.halt()
        assert final(results) == [OrderStatus.CANCELLED]
        assert open_in(exchange) == []


@in_virtual_time
async def test_a_logout_ends_it_and_the_result_says_what_is_open(
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
        (nobody,) = await neo.halt()
        assert isinstance(nobody, NotLoggedIn)


@in_virtual_time
async def test_resuming_ends_it_too() -> None:
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


@in_virtual_time
async def test_an_order_that_appears_long_after_the_halt_was_done_is_cancelled_too() -> None:
    async with desk(resolution_timeout=2.0, timeouts=Timeouts(order=1.0)) as (exchange, neo):
        exchange.set_faults(Faults(delay_before=1.0, delay_seconds=20.0, calls=("orders",)))
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        assert await neo.halt() == []
        exchange.set_faults(Faults())
        with pytest.raises(NotAccepted):
            await placing
        await until(lambda: exchange.market.ledger)
        await until(lambda: not open_in(exchange))
        (order,) = neo.orders.late_orders
        assert order.status is OrderStatus.CANCELLED


# --- at any moment ----------------------------------------------------------------------------


@in_virtual_time
async def test_a_halt_before_the_login_is_taken_up_by_it() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        neo = client_of(exchange)
        (nobody,) = await neo.halt(reason="early")
        assert isinstance(nobody, NotLoggedIn)
        await asyncio.sleep(30)  # the next TOTP code
        async with neo:
            await until(lambda: not open_in(exchange))
            assert neo.halted is not None
            assert neo.halted.reason == "early"
            with pytest.raises(Halted, match="early"):
                await neo.orders.place(*BUY, 10, **MIS)
            await neo.halt()


@in_virtual_time
async def test_a_halt_during_the_login_waits_for_it_and_cancels() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(30)
        exchange.set_faults(Faults(delay_before=1.0, delay_seconds=1.0, calls=("logins",)))
        neo = client_of(exchange)
        login = asyncio.create_task(neo.login())
        await asyncio.sleep(0.5)
        results = await neo.halt()
        assert final(results) == [OrderStatus.CANCELLED]
        assert open_in(exchange) == []
        await login
        await neo.logout()


@in_virtual_time
async def test_a_halt_during_a_login_that_fails_is_taken_up_by_the_next_one() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        neo = client_of(exchange)
        exchange.set_faults(
            Faults(lose_before=1.0, delay_before=1.0, delay_seconds=1.0, calls=("logins",))
        )
        login = asyncio.create_task(neo.login())
        await asyncio.sleep(0.5)
        (nobody,) = await neo.halt()
        assert isinstance(nobody, NotLoggedIn)
        with pytest.raises(NeoError):
            await login
        exchange.set_faults(Faults())
        async with neo:
            await until(lambda: not open_in(exchange))


@in_virtual_time
async def test_a_halt_that_a_logout_has_ended_goes_on_after_the_next_login() -> None:
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
        assert len(open_in(exchange)) == 1
        dropped.clear()
        async with neo:
            await until(lambda: not open_in(exchange))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.real_time("a real thread sends the signal")
async def test_a_halt_in_a_handler_of_the_signal_module_begins_at_once() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_orders=False) as neo:
        await neo.orders.place(*BUY, 10, **MIS)
        before = signal.signal(signal.SIGUSR2, lambda *_: neo.halt(reason="SIGUSR2"))
        try:
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
            timer.start()
            began = seconds()
            await until(lambda: not open_in(exchange))
            assert seconds() - began < 2
            timer.join()
        finally:
            signal.signal(signal.SIGUSR2, before)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_login_that_fails_does_not_let_go_of_the_signals() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, totp="123123")
        neo.halt_on_signal(signal.SIGUSR1)
        with pytest.raises(NeoError):
            await neo.login()
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: neo.halted)
        await neo.logout()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


# --- over processes ---------------------------------------------------------------------------


@in_virtual_time
async def test_a_halt_outlives_the_process_until_it_is_resumed(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.halt(reason="enough")
        for _ in range(2):  # a supervisor starts it again and again
            await asyncio.sleep(30)
            neo = client_of(exchange, journal=journal)
            heard: list[Halted] = []
            neo.on_halt(heard.append)
            async with neo:
                assert [halted.reason for halted in heard] == ["enough"]
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


@in_virtual_time
async def test_a_halt_that_was_not_done_goes_on_in_the_next_process(tmp_path: Path) -> None:
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
            await until(lambda: not open_in(exchange))
            await neo.halt()


@pytest.mark.parametrize("cancel_open", [True, False])
@in_virtual_time
async def test_after_a_halt_that_is_done_a_restart_leaves_orders_of_the_app_alone(
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
            assert len(open_in(exchange)) == 1


@in_virtual_time
async def test_what_is_resumed_without_a_login_is_not_halted_by_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        neo = client_of(exchange, journal=journal)
        async with neo:
            await neo.halt()
        neo.resume_orders()
        await asyncio.sleep(30)
        async with neo:
            assert neo.halted is None
        # And the other way round.
        neo.halt(cancel_open=False, reason="between two logins")
        await asyncio.sleep(30)
        async with neo:
            pass
        await asyncio.sleep(30)
        async with client_of(exchange, journal=journal) as neo:
            assert neo.halted is not None
            assert neo.halted.reason == "between two logins"


@in_virtual_time
async def test_a_halt_while_the_login_reconciles_cancels_at_once_and_waits_for_what_is_found(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange) as before:
            await before.orders.place(*BUY, 10, **MIS)
        left = Journal(journal, ucc=exchange.credentials.ucc, clock=now)
        left.open()
        await left.begin("place", _form_of("crashed0001"), client_tag="crashed0001")
        await left.close()
        await asyncio.sleep(30)
        neo = client_of(exchange, journal=journal, resolution_timeout=20.0)
        login = asyncio.create_task(neo.login())
        await until(lambda: neo.health().logged_in_since)
        began = seconds()
        halting = asyncio.ensure_future(neo.halt())
        await until(lambda: not open_in(exchange))
        assert seconds() - began < 1
        # What the process before has sent arrives late.
        await asyncio.sleep(10)
        assert not halting.done()
        other = client_of(exchange)
        await other.resume(neo.session)
        other.orders._tags.make = lambda tag: "crashed0001"  # type: ignore[method-assign]
        await other.orders.place(*BUY, 10, **MIS)
        await other.logout()
        results = await halting
        assert OrderStatus.CANCELLED in final(results)
        assert open_in(exchange) == []
        await login
        await neo.logout()


# --- whatever is going on ---------------------------------------------------------------------


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
            limited_client_of(exchange, limits=limits, resolution_timeout=5.0) as neo,
        ):
            exchange.set_faults(Faults(**faults, calls=("orders",)))
            placed: list[Order] = []
            acting = [
                asyncio.create_task(act(neo, placed, action, after)) for action, after in orders
            ]
            await asyncio.sleep(at / 1000)
            results = await neo.halt()
            assert not [result for result in results if isinstance(result, NeoError)]
            assert open_in(exchange) == []
            arrived = len(await paths(exchange))
            await asyncio.gather(*acting)
            await asyncio.sleep(30)
            later = (await paths(exchange))[arrived:]
            assert PLACE not in later
            assert MODIFY not in later
            assert open_in(exchange) == []

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


# --- signals ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_signal_halts_and_is_let_go_at_the_logout() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as neo:
            neo.halt_on_signal(signal.SIGUSR1)
            await neo.orders.place(*BUY, 10, **MIS)
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: neo.halted)
            assert neo.halted is not None
            assert neo.halted.reason == "signal SIGUSR1"
            await until(lambda: not open_in(exchange))
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_signal_that_cannot_be_handled_is_refused() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with pytest.raises(UsageError, match="signal SIGKILL cannot be handled"):
            neo.halt_on_signal(signal.SIGKILL)


# --- the dead man's switch --------------------------------------------------------------------


def hold_up(seconds: float) -> None:
    """As a computation of that length would."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._virtual.now += seconds


@in_virtual_time
async def test_a_stalled_loop_halts() -> None:
    async with desk(risk=RiskLimits(loop_stall=2)) as (exchange, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        hold_up(1.9)
        await asyncio.sleep(10)
        assert neo.halted is None
        hold_up(2.5)
        await asyncio.sleep(1)
        assert neo.halted is not None
        assert "the event loop was held up for 2." in neo.halted.reason
        await order.wait(timeout=5)
        assert open_in(exchange) == []
        neo.resume_orders()
        await asyncio.sleep(5)
        await neo.orders.place(*BUY, 10, **MIS)


@in_virtual_time
async def test_the_first_order_after_a_stall_does_not_slip_through() -> None:
    limits = RateLimits(orders=3, total=5)
    async with desk(risk=RiskLimits(loop_stall=2), limits=limits) as (exchange, neo):
        await asyncio.sleep(2)
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await asyncio.sleep(0.1)
        hold_up(2.5)  # the limiter has room for two more by now
        with pytest.raises(Halted):
            await neo.orders.place(*BUY, 10, **MIS)
        results = await placing
        assert [type(result) for result in results] == [Order] * 2 + [Halted] * 3
        assert (await paths(exchange)).count(PLACE) == 2


@pytest.mark.parametrize("which", ["order", "market"])
@in_virtual_time
async def test_a_feed_that_is_down_too_long_halts(which: str) -> None:
    timings = FeedTimings(longest_wait=0.5)
    async with desk(risk=RiskLimits(feed_outage=3), live_orders=False, feed_timings=timings) as (
        exchange,
        neo,
    ):
        async with neo.market_feed() as feed:
            await feed.subscribe([f"nse_cm|{TOKEN}"])
            await neo.order_feed.until_live()
            await feed.until_live()
            await neo.orders.place(*BUY, 10, **MIS)
            down = feed if which == "market" else neo.order_feed
            address = down._connection._address
            down._connection._address = lambda: "ws://127.0.0.1:1"
            exchange.drop_connections()
            await asyncio.sleep(2)
            assert neo.halted is None
            await asyncio.sleep(2)
            assert neo.halted is not None
            assert neo.halted.reason.startswith(f"the {which} feed was down for 3.")
            await until(lambda: not open_in(exchange))
            # Resumed, it has as long as ever.
            neo.resume_orders()
            await asyncio.sleep(2)
            assert neo.halted is None
            down._connection._address = address
            await down.until_live()
            await asyncio.sleep(10)
            assert neo.halted is None
        # A feed that was closed is not down.
        await asyncio.sleep(10)
        assert neo.halted is None
        assert SYMBOL in {order.symbol for order in neo._cache.orders.values()}


@in_virtual_time
async def test_a_machine_that_was_suspended_counts_as_a_loop_that_was_held_up() -> None:
    asleep = 0.0
    async with desk(risk=RiskLimits(loop_stall=2), limits=RateLimits(orders=3, total=6)) as (
        _,
        neo,
    ):
        neo._dead_man._asleep = lambda: asleep
        await asyncio.sleep(2)
        placing = asyncio.create_task(neo.orders.place_many([OrderRequest(*BUY, 1, **MIS)] * 5))
        await asyncio.sleep(0.1)
        asleep = 3600.0  # the loop's own clock has stood still
        results = await placing
        assert [type(result) for result in results] == [Order] * 2 + [Halted] * 3
        assert neo.halted is not None
        assert "the event loop was held up for 3600." in neo.halted.reason
        neo.resume_orders()
        await asyncio.sleep(5)
        await neo.orders.place(*BUY, 10, **MIS)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs CLOCK_BOOTTIME")
def test_the_seconds_asleep_do_not_grow_while_the_machine_is_awake() -> None:
    before = seconds_asleep()
    time.sleep(0.05)
    # Other processes may have their turn between the two clocks that are read.
    assert min(abs(seconds_asleep() - before) for _ in range(5)) < 0.04


@pytest.mark.parametrize(
    ("at", "segments", "halts"),
    [
        ("Mon 10:00", None, True),
        ("Mon 16:00", None, True),  # other segments trade until 23:30
        ("Mon 16:00", {Segment.NSE_CM}, False),
        ("Mon 23:45", None, False),
        ("Tue 03:00", None, False),
        ("Sat 10:00", None, False),
    ],
)
@in_virtual_time
async def test_a_feed_that_is_down_outside_trading_hours_does_not_halt(
    at: str, segments: set[Segment] | None, halts: bool
) -> None:
    day, _, hour = at.partition(" ")
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].index(day)
    hours, minutes = map(int, hour.split(":"))
    start = START + days * 86_400 + (hours - 10) * 3600 + minutes * 60

    def clock() -> float:
        return start + seconds()

    limits = RiskLimits(feed_outage=3, segments=segments)
    async with (
        exchange_of(clock=clock) as exchange,
        client_of(exchange, clock=clock, risk=limits) as neo,
    ):
        await neo.order_feed.until_live()
        neo.order_feed._connection._address = lambda: "ws://127.0.0.1:1"
        exchange.drop_connections()
        await asyncio.sleep(60)
        assert (neo.halted is not None) is halts


@in_virtual_time
async def test_a_market_feed_is_down_when_its_own_market_is_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def market_open() -> bool:
        nonlocal answer
        if answer is None:
            raise ZeroDivisionError
        return answer

    answer: bool | None = False
    async with (
        desk(risk=RiskLimits(feed_outage=3)) as (exchange, neo),
        neo.market_feed(market_open=market_open) as feed,
    ):
        await neo.order_feed.until_live()
        await feed.until_live()
        feed._connection._address = lambda: "ws://127.0.0.1:1"
        exchange.drop_connections()
        await asyncio.sleep(30)
        assert neo.halted is None
        answer = None
        await asyncio.sleep(10)
        assert "the dead man's switch goes on after an error" in caplog.text
        answer = True
        await asyncio.sleep(10)
        assert neo.halted is not None


@in_virtual_time
async def test_without_the_settings_nothing_watches() -> None:
    async with desk() as (_, neo):
        hold_up(1000)
        await neo.orders.place(*BUY, 10, **MIS)
        assert neo.halted is None
        assert not [task for task in asyncio.all_tasks() if "dead man" in task.get_name()]


@in_virtual_time
async def test_a_logout_lets_go_of_everything() -> None:
    limits = RiskLimits(loop_stall=2, feed_outage=3, max_daily_loss=1000)
    async with desk(risk=limits) as (_, neo):
        await neo.halt()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if "dead man" in name or "risk" in name or "halt" in name}
