"""One request from the login gate to its outcome: what holds it back, what is sent again, and what
is known of it when its caller gives up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from neo_async import (
    Halted,
    NeoClient,
    NeoError,
    NotLoggedIn,
    NotSent,
    Order,
    OrderRequest,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    RateLimits,
    RiskLimits,
    Timeouts,
)
from neo_async.execution.expected_effect import cancellation, modification, placement
from neo_async.execution.journal import Journal
from neo_async.execution.sender import Request
from neo_async.transport.kinds import Kind
from neo_async.wire import endpoints
from neo_async.wire.rules import cancel_form, modify_form, place_form
from tests.clients import CANCEL, MODIFY, PLACE, client_of, exchange_of, paths
from tests.execution.feed_broker import TERMS, order_of
from tests.execution.proxied_exchange import proxied_exchange
from tests.fake_servers import Late, Reply, fault_proxy
from tests.risk.trading import BUY, MIS, open_orders_in, place_form_of, until, until_sent
from tests.simulation.virtual_time import now


async def test_a_request_of_which_no_byte_was_sent_is_sent_again_under_the_same_tag() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        hand_over, tries = neo._requests.order, []

        def failing(kind: Any, endpoint: Any, form: Any, *rest: Any) -> Any:
            tries.append(form.ig)
            if len(tries) <= 3:
                raise NotSent("cannot connect")
            return hand_over(kind, endpoint, form, *rest)

        neo._requests.order = failing  # type: ignore[method-assign]
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert tries == [order.client_tag] * 4
        (record,) = exchange.market.ledger
        assert record.number == order.number


def outcomes_in(journal: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(journal)) as file:
        rows = file.execute("SELECT outcome FROM intents WHERE action != 'cancel'").fetchall()
    return Counter(outcome for (outcome,) in rows)


def in_loop_time(neo: NeoClient) -> NeoClient:
    neo.limiter._clock = asyncio.get_running_loop().time
    return neo


async def test_a_cancel_goes_out_when_the_journal_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange, client_of(exchange, journal=path) as neo:
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(3)]
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await neo.orders.cancel(orders[0])
            await neo.halt()
            assert open_orders_in(exchange) == []
            await until(lambda: errors_about_cancels(caplog) == {order.number for order in orders})
            other.execute("ROLLBACK")


def errors_about_cancels(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Numbers of the orders whose cancels the journal says that it lacks."""
    return {
        record.order_number
        for record in caplog.records
        if record.name == "neo_async.execution.journal"
        and record.levelno == logging.ERROR
        and getattr(record, "action", "") == "cancel"
    }


async def test_a_cancel_is_in_the_journal_with_its_outcome(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange, client_of(exchange, journal=path) as neo:
        order = await neo.orders.place(*BUY, 10, **MIS)
        await neo.orders.cancel(order)
        with pytest.raises(NeoError):
            await neo.orders.cancel(order)
    with contextlib.closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT order_number, outcome FROM intents WHERE action = 'cancel' ORDER BY id"
        ).fetchall()
    assert rows == [(order.number, Outcome.ACCEPTED), (order.number, Outcome.REJECTED)]


async def test_a_login_holds_placements_and_changes_back_and_no_cancel() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order, other = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(2)]
        with neo._engine.held():
            placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
            changing = asyncio.create_task(neo.orders.modify(other, price="39.05"))
            await neo.orders.cancel(order)
            seen = await paths(exchange)
            assert (seen.count(PLACE), seen.count(MODIFY), seen.count(CANCEL)) == (2, 0, 1)
        await placing
        await changing


async def test_a_login_that_fails_refuses_the_orders_that_waited_for_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        left = Journal(path, ucc=exchange.credentials.ucc, clock=now)
        left.open()
        await left.begin("place", place_form_of("crashed0001"), client_tag="crashed0001")
        await left.close()
        neo = client_of(exchange, journal=path, risk=RiskLimits(max_order_quantity=100))

        async def strategy() -> list[Order | NeoError]:
            await until(lambda: neo.health().logged_in_since)
            return await neo.orders.place_many([OrderRequest(*BUY, 10, **MIS)] * 3)

        placing = asyncio.create_task(strategy())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await neo.login()
        # The next try must not let them out either.
        await asyncio.sleep(30)
        await neo.login()
        with pytest.raises(NotLoggedIn, match="the login failed for which new orders waited"):
            await placing
        assert (await paths(exchange)).count(PLACE) == 0
        await neo.logout()


async def test_a_login_that_fails_to_replace_another_one_lets_orders_go_on() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        login = asyncio.create_task(neo.login("000000"))
        await asyncio.sleep(0)
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        with pytest.raises(NeoError):
            await login
        assert isinstance(await placing, Order)


async def test_orders_wait_for_the_last_of_two_logins() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with neo._engine.held():
            with neo._engine.held():
                placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
                await asyncio.sleep(1)
            await asyncio.sleep(1)
            assert not placing.done()
        await placing


async def test_placements_cancelled_in_the_limiters_queue_were_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    limits = RateLimits(orders=5, total=10)  # four placements at once, one start for a cancel
    risk = RiskLimits(max_open_orders=30, max_orders_per_minute=24)
    async with exchange_of() as exchange:
        neo = in_loop_time(client_of(exchange, limits=limits, journal=path, risk=risk))
        async with neo:
            await asyncio.sleep(2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await neo.orders.place_many([OrderRequest(*BUY, 10, **MIS)] * 20)
            await asyncio.sleep(1)
            assert neo.health().unknown == ()
            assert len(exchange.market.ledger) == 4
            # They take up no room: 20 more are within both limits.
            results = await neo.orders.place_many([OrderRequest(*BUY, 10, **MIS)] * 20)
            assert {type(result) for result in results} == {Order}
    assert outcomes_in(path) == {Outcome.ACCEPTED: 24, Outcome.NOT_SENT: 16}


async def test_requests_cancelled_before_a_connection_is_free_were_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    pool = PoolLimits(warm=1, maximum=1)
    async with exchange_of() as exchange, client_of(exchange, journal=path, pool=pool) as neo:
        order = await neo.orders.place(*BUY, 10, **MIS)
        first = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        second = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        third = asyncio.create_task(neo.orders.modify(order, price="39.05"))
        await asyncio.sleep(0)
        second.cancel()
        third.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert neo.health().unknown == ()
        assert (await paths(exchange)).count(PLACE) == 2
    assert outcomes_in(path) == {Outcome.ACCEPTED: 2, Outcome.NOT_SENT: 2}


async def test_a_placement_cancelled_after_its_bytes_were_sent_is_resolved() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until_sent(neo)
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)
        assert len(neo.health().unknown) == 1
        await until(lambda: not neo.health().unknown)
        assert neo._engine.unknowns_resolved == {"accepted": 1}


async def test_a_placement_cancelled_after_a_429_may_have_become_an_order() -> None:
    overrides: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, timeouts=Timeouts(order=10.0)) as neo,
    ):
        overrides[PLACE] = Reply({"message": "too many"}, 429, headers={"Retry-After": "5"})
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until(lambda: neo.limiter.paused_for)
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)
        assert neo._engine.unknowns_opened == 1
        await until(lambda: neo._engine.unknowns_resolved == {"accepted": 1})


async def test_a_cancel_without_an_answer_leaves_the_client_quiet_and_a_placement_does_not() -> (
    None
):
    overrides: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        order = await neo.orders.place(*BUY, 10, **MIS)
        overrides[CANCEL] = Late(60.0, Reply(""))
        cancelling = asyncio.create_task(neo.orders.cancel(order))
        await until_sent(neo)
        assert neo._engine.is_quiet
        overrides[PLACE] = Late(60.0, Reply(""))
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await asyncio.sleep(0.1)
        assert not neo._engine.is_quiet
        for task in (cancelling, placing):
            task.cancel()
        await asyncio.gather(cancelling, placing, return_exceptions=True)
        assert not neo._engine.is_quiet
        await until(lambda: neo._engine.is_quiet)


# --- a request by itself ----------------------------------------------------------------------


def test_a_request_names_its_action_its_order_and_the_effect_that_it_is_to_have() -> None:
    order = order_of(number="11")
    after = msgspec.structs.replace(TERMS, quantity=20)
    place = place_form(TERMS, "own_1")
    placing = Request(Kind.PLACE, endpoints.PLACE, place, client_tag="own_1", terms=TERMS)
    changing = Request(
        Kind.MODIFY, endpoints.MODIFY, modify_form("11", after), order=order, terms=after
    )
    form = cancel_form(number="11", symbol=TERMS.symbol, amo=False)
    cancelling = Request(Kind.CANCEL, endpoints.CANCEL, form, order=order)
    assert [(each.action, each.number) for each in (placing, changing, cancelling)] == [
        ("place", ""),
        ("modify", "11"),
        ("cancel", "11"),
    ]
    assert placing.expected() == placement(place)
    assert changing.expected() == modification(order, after)
    assert cancelling.expected() == cancellation(order)
    assert str(placing.subject) == "place of tag 'own_1'"
    assert str(cancelling.subject) == f"cancel of order 11, tag '{order.client_tag}'"


# --- requests of which no byte was sent -------------------------------------------------------


async def test_a_request_of_which_no_byte_can_be_sent_ends_with_the_deadline_of_an_order(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.db"
    async with (
        exchange_of() as exchange,
        client_of(exchange, live_updates=False, journal=path, timeouts=Timeouts(order=2.0)) as neo,
    ):
        tries: list[float] = []

        def failing(*arguments: Any) -> Any:
            tries.append(asyncio.get_running_loop().time())
            raise NotSent("cannot connect")

        neo._requests.order = failing  # type: ignore[method-assign]
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotSent, match="cannot connect"):
            await neo.orders.place(*BUY, 10, **MIS)
        assert 1.0 < asyncio.get_running_loop().time() - began <= 2.0
        assert len(tries) > 3
        assert neo.health().unknown == ()
        assert exchange.market.ledger == []
    assert outcomes_in(path) == {Outcome.NOT_SENT: 1}


async def test_a_halt_ends_the_tries_of_a_placement_of_which_no_byte_was_sent() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        tries: list[float] = []

        def failing(*arguments: Any) -> Any:
            tries.append(asyncio.get_running_loop().time())
            raise NotSent("cannot connect")

        neo._requests.order = failing  # type: ignore[method-assign]
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await until(lambda: len(tries) >= 2)
        tried, began = len(tries), asyncio.get_running_loop().time()
        halting = asyncio.ensure_future(neo.halt())
        with pytest.raises(Halted):
            await placing
        assert asyncio.get_running_loop().time() - began < 0.01
        await halting
        assert len(tries) == tried


# --- the gate, and quiet ----------------------------------------------------------------------


async def test_a_halt_ends_the_wait_for_a_login() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with neo._engine.held():
            placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
            await asyncio.sleep(1)
            await neo.halt()
            with pytest.raises(Halted):
                await placing
        assert (await paths(exchange)).count(PLACE) == 0


async def test_a_client_is_quiet_when_a_lost_placement_cannot_arrive_any_more() -> None:
    async with proxied_exchange(resolution_timeout=5.0) as proxy:
        engine = proxy.neo._engine
        assert engine.is_quiet
        proxy.dropped.add(PLACE)
        with pytest.raises(OutcomeUnknown):
            await proxy.neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        assert not engine.is_quiet
        await asyncio.sleep(5.0)
        await until(lambda: engine.is_quiet)


async def test_the_outcome_of_each_request_is_counted() -> None:
    async with proxied_exchange() as proxy:
        neo = proxy.neo
        order = await neo.orders.place(*BUY, 10, **MIS)
        await neo.orders.modify(order, quantity=20)
        await neo.orders.cancel(order)
        with pytest.raises(NeoError):
            await neo.orders.cancel(order)
        proxy.overrides[PLACE] = Reply("busy", 503)
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        counted = neo.metrics().outcomes
        assert {action: {**counts} for action, counts in counted.items() if counts} == {
            "place": {"accepted": 1, "unknown": 1},
            "modify": {"accepted": 1},
            "cancel": {"accepted": 1, "rejected": 1},
        }
