"""Reconciliation of journal and order book at login, whatever the broker answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from neo_async import (
    LoginFailed,
    NeoClient,
    NotLoggedIn,
    Order,
    OrderStatus,
    Outcome,
    Product,
    RateLimited,
    Segment,
    Side,
)
from neo_async.exchange import Exchange
from neo_async.execution.journal import Journal
from neo_async.execution.reconciliation import BOOK_TIMEOUT_SECONDS
from neo_async.wire.rules import cancel_form, check_change, modify_form
from tests.clients import BOOK, PLACE, client_of, exchange_of
from tests.fake_servers import Reply, fault_proxy
from tests.simulation.virtual_time import now

SELL = (Segment.NSE_CM, "ITBEES-EQ", Side.SELL, 10)
AT_41: dict[str, Any] = {"price": "41.00", "product": Product.MIS}
RESOLUTION_TIMEOUT = 5.0
BUSY = Reply("busy", 503)


class Restart:
    """A bot that dies after it has written what it was about to send, and the one after it."""

    def __init__(self, exchange: Exchange, path: Path, endpoints: Any) -> None:
        self.exchange = exchange
        self.options: dict[str, Any] = {
            "journal": path,
            "resolution_timeout": RESOLUTION_TIMEOUT,
            "endpoints": endpoints,
            "live_updates": False,
        }
        self.journal = Journal(path, ucc=exchange.credentials.ucc, clock=now)

    async def place(self, count: int = 1) -> list[Order]:
        async with client_of(self.exchange, **self.options) as before:
            return [await before.orders.place(*SELL, **AT_41) for _ in range(count)]

    async def leave_modification(self, order: Order, **change: Any) -> None:
        """Write that it is about to be sent."""
        terms = msgspec.structs.replace(order.terms, **change)
        form = modify_form(order.number, check_change(terms))
        await self.journal.begin("modify", form, order_number=order.number)

    async def leave_cancellation(self, number: str) -> None:
        form = cancel_form(number=number, symbol="ITBEES-EQ", amo=False)
        await self.journal.begin("cancel", form, order_number=number)

    @contextlib.asynccontextmanager
    async def after(self) -> AsyncIterator[NeoClient]:
        """The bot that is started again, as soon as there is another TOTP code."""
        await asyncio.sleep(31)
        async with client_of(self.exchange, **self.options) as neo:
            yield neo


@contextlib.asynccontextmanager
async def restart_of(
    tmp_path: Path, overrides: dict[str, Any] | None = None
) -> AsyncIterator[Restart]:
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: (overrides or {}).get(path)) as endpoints,
    ):
        yield Restart(exchange, tmp_path / "orders.db", endpoints)


def outcomes_of(neo: NeoClient) -> list[Outcome]:
    return [resolved_intent.outcome for resolved_intent in neo.reconciliation.resolved_intents]


CHANGES: list[dict[str, Any]] = [
    {"order_type": "MKT", "price": None},
    {"disclosed_quantity": 5},
    {"validity": "IOC"},
    {"quantity": 20},
    {"price": "41.05"},
    {},
]


async def test_after_a_crash_no_change_that_never_arrived_is_reported_as_accepted(
    tmp_path: Path,
) -> None:
    async with restart_of(tmp_path) as restart:
        orders = await restart.place(len(CHANGES))
        await asyncio.sleep(10)
        restart.journal.open()
        for order, change in zip(orders, CHANGES, strict=True):
            await restart.leave_modification(order, **change)
        await restart.journal.close()
        async with restart.after() as neo:
            assert outcomes_of(neo) == [Outcome.NOT_ACCEPTED] * len(CHANGES)


async def test_after_a_crash_a_change_that_arrived_is_found_in_the_history(tmp_path: Path) -> None:
    async with restart_of(tmp_path) as restart:
        orders = await restart.place(len(CHANGES))
        await asyncio.sleep(10)
        restart.journal.open()
        for order, change in zip(orders, CHANGES, strict=True):
            if change.get("validity") != "IOC" and change.get("order_type") != "MKT":
                await restart.leave_modification(order, **change)
        await restart.journal.close()
        await asyncio.sleep(31)
        async with client_of(restart.exchange, live_updates=False) as elsewhere:
            for order, change in zip(orders, CHANGES, strict=True):
                await elsewhere.orders.modify(order.number, **change)
        async with restart.after() as neo:
            assert outcomes_of(neo) == [Outcome.ACCEPTED] * 4


async def test_after_a_crash_an_earlier_change_to_the_same_terms_proves_nothing(
    tmp_path: Path,
) -> None:
    async with restart_of(tmp_path) as restart:
        async with client_of(restart.exchange, **restart.options) as before:
            order = await before.orders.place(*SELL, **AT_41)
            await before.orders.modify(order, price="41.05")
            await asyncio.sleep(10)
        restart.journal.open()
        await restart.leave_modification(order, price="41.05")
        await restart.journal.close()
        async with restart.after() as neo:
            assert outcomes_of(neo) == [Outcome.NOT_ACCEPTED]


async def test_after_a_crash_a_cancel_of_what_was_cancelled_before_came_too_late(
    tmp_path: Path,
) -> None:
    async with restart_of(tmp_path) as restart:
        async with client_of(restart.exchange, **restart.options) as before:
            order = await before.orders.place(*SELL, **AT_41)
            await before.orders.cancel(order)
            await asyncio.sleep(10)
        restart.journal.open()
        await restart.leave_cancellation(order.number)
        await restart.journal.close()
        async with restart.after() as neo:
            assert outcomes_of(neo) == [Outcome.REJECTED]


async def test_a_login_that_gets_no_order_book_fails_in_time_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides: dict[str, Any] = {}
    async with restart_of(tmp_path, overrides) as restart:
        (order,) = await restart.place()
        restart.journal.open()
        await restart.leave_cancellation(order.number)
        await restart.journal.close()
        overrides[BOOK] = BUSY
        neo = client_of(restart.exchange, **restart.options)
        await asyncio.sleep(31)
        began = asyncio.get_running_loop().time()
        with pytest.raises(LoginFailed, match=r"no order book could be read .*503"):
            await neo.login()
        took = asyncio.get_running_loop().time() - began
        assert took == pytest.approx(BOOK_TIMEOUT_SECONDS, abs=15)
        warnings = [one for one in caplog.records if "no order book to reconcile" in one.message]
        assert {one.levelno for one in warnings} == {logging.WARNING}
        assert 5 < len(warnings) < 60
        with pytest.raises(NotLoggedIn):
            _ = neo.session
        overrides.clear()
        async with restart.after() as again:
            assert outcomes_of(again) == [Outcome.NOT_ACCEPTED]


async def test_a_login_that_is_cancelled_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    async with restart_of(tmp_path) as restart:
        (order,) = await restart.place()
        restart.journal.open()
        await restart.leave_cancellation(order.number)
        await restart.journal.close()
        await asyncio.sleep(31)
        neo = client_of(restart.exchange, **restart.options)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(RESOLUTION_TIMEOUT / 2):
                await neo.login()
        async with restart.after() as again:
            assert outcomes_of(again) == [Outcome.NOT_ACCEPTED]


async def test_a_logout_during_the_reconciliation_resolves_no_intent(tmp_path: Path) -> None:
    async with restart_of(tmp_path) as restart:
        (order,) = await restart.place()
        restart.journal.open()
        await restart.leave_cancellation(order.number)
        await restart.journal.close()
        await asyncio.sleep(31)
        neo = client_of(restart.exchange, **restart.options)
        beginning = asyncio.create_task(neo.login())
        await asyncio.sleep(RESOLUTION_TIMEOUT / 2)
        await neo._engine.close()
        with pytest.raises(NotLoggedIn, match="while the journal was being reconciled"):
            await beginning
        async with restart.after() as again:
            assert outcomes_of(again) == [Outcome.NOT_ACCEPTED]


async def test_a_request_that_cannot_arrive_any_more_keeps_no_login_waiting(tmp_path: Path) -> None:
    async with restart_of(tmp_path) as restart:
        (order,) = await restart.place()
        restart.journal.open()
        await restart.leave_cancellation(order.number)
        await restart.journal.close()
        await asyncio.sleep(3700)
        began = asyncio.get_running_loop().time()
        async with client_of(restart.exchange, **restart.options) as neo:
            assert outcomes_of(neo) == [Outcome.NOT_ACCEPTED]
            assert asyncio.get_running_loop().time() < began + 1


async def test_a_cancel_of_an_order_of_an_earlier_day_is_unresolved(tmp_path: Path) -> None:
    async with restart_of(tmp_path) as restart:
        restart.journal._clock = lambda: now() - 86_400
        restart.journal.open()
        await restart.leave_cancellation("261122000000001")
        await restart.journal.close()
        async with client_of(restart.exchange, **restart.options) as neo:
            assert outcomes_of(neo) == [Outcome.UNRESOLVED]
            assert asyncio.get_running_loop().time() < 2


async def test_a_refused_placement_is_watched_after_a_restart_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides: dict[str, Any] = {PLACE: Reply({"stCode": 429, "emsg": "Too many requests"}, 429)}
    async with restart_of(tmp_path, overrides) as restart:
        async with client_of(restart.exchange, **restart.options) as before:
            await before.orders.cancel_all()
            overrides[PLACE] = overrides[PLACE]._replace(headers={"Retry-After": "15"})
            with pytest.raises(RateLimited):
                await before.orders.place(*SELL, **AT_41)
        (record,) = restart.exchange.market.ledger
        await asyncio.sleep(20)
        async with restart.after() as neo:
            await neo.orders.book()
            (order,) = neo.orders.late_orders
            assert (order.number, order.client_tag) == (record.number, record.client_tag)
            assert order.status is OrderStatus.OPEN
            assert any("was reported not to exist" in one for one in neo.health().problems)
    assert "the placement was reported as refused" in caplog.text


async def test_a_login_logs_what_it_waits_for_before_it_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with restart_of(tmp_path) as restart:
        (order,) = await restart.place()
        restart.journal.open()
        await restart.leave_modification(order, price="41.05")
        await restart.leave_modification(order, price="41.10")
        await restart.journal.close()
        said: list[float] = []

        class Noted(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "outcome is unknown" in record.getMessage():
                    said.append(asyncio.get_running_loop().time())

        handler = Noted()
        logging.getLogger("neo_async.orders").addHandler(handler)
        try:
            async with restart.after() as neo:
                logged_in = asyncio.get_running_loop().time()
        finally:
            logging.getLogger("neo_async.orders").removeHandler(handler)
        assert outcomes_of(neo) == [Outcome.NOT_ACCEPTED] * 2
        assert logged_in - said[0] > RESOLUTION_TIMEOUT - 1
    (record,) = [one for one in caplog.records if "outcome is unknown" in one.getMessage()]
    assert record.levelno == logging.WARNING
    assert (
        "the journal has 2 order requests of an earlier process whose outcome is unknown: the "
        "login looks for their orders in the order book, which takes up to "
        f"{RESOLUTION_TIMEOUT:g} s"
    ) in record.getMessage()
