"""A plan at work over real sockets: lost answers, late reports, callers that give up, and days."""

from __future__ import annotations

import asyncio
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    NeoClient,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    Product,
    Segment,
    Side,
    UsageError,
)
from neo_async.exchange import Behaviour, Exchange, Faults, Hours, Rules
from neo_async.exchange.engine.types import NewOrder
from neo_async.exits.exits import Exits
from neo_async.exits.state import ExitReason, PlanStatus
from tests.clients import client_of, exchange_of
from tests.exits.test_plans import (
    ITBEES,
    MIS,
    STOPS,
    D,
    entered,
    eventually,
    net,
    price,
    trades,
    trading,
    working,
)
from tests.simulation.virtual_time import now

DAYS = 2 * 86_400.0  # the next day is a holiday
HOURS = Behaviour(rules=Rules(hours=Hours.EXCHANGE))


def fill(exchange: Exchange, side: Side, quantity: int, rupees: str) -> None:
    """Let another account trade with what rests at a price."""
    exchange.market.place(
        exchange.accounts[1].ucc,
        NewOrder(
            segment=Segment.NSE_CM,
            symbol="ITBEES-EQ",
            side=side,
            quantity=quantity,
            order_type=OrderType.LIMIT,
            product=Product.MIS,
            price=int(D(rupees) * 100),
        ),
    )


async def test_long_and_short_plans_on_one_instrument_do_not_end_each_other() -> None:
    async with trading() as (exchange, neo):
        long = await entered(exchange, neo)
        short = await neo.exits.bracket(
            *ITBEES, Side.SELL, 10, product=Product.MIS, price="38.95", stop="40.50"
        )
        price(exchange, "39.00")
        await eventually(lambda: short.state is PlanStatus.OPEN and not short.unprotected)
        assert await net(neo) == 0
        for plan in (long, short):  # as after a restart, or a refused request
            plan._runner.timers.must_read_position = True
            plan._runner.wake()
        await asyncio.sleep(20)
        assert (long.open_quantity, short.open_quantity) == (10, 10)
        assert sorted(working(exchange)) == [("B", "SL", 10), ("S", "SL", 10)]


async def test_a_position_that_was_closed_before_it_is_protected_gets_no_stop() -> None:
    async with trading() as (exchange, neo):
        order = await neo.orders.place(*ITBEES, Side.BUY, 10, **MIS)
        price(exchange, "38.95")
        await order.wait(OrderStatus.COMPLETE)
        (position,) = await neo.portfolio.positions()
        sale = await neo.orders.place(*ITBEES, Side.SELL, 10, product=Product.MIS, price="38.95")
        price(exchange, "39.00")
        await sale.wait(OrderStatus.COMPLETE)
        for held in (position, order):
            plan = await neo.exits.protect(held, stop="38.50")
            assert await plan.wait(timeout=30) is PlanStatus.EXITED
            assert plan.exited_by is ExitReason.ELSEWHERE
        assert working(exchange) == []
        assert len(exchange.market.ledger) == 2


async def test_an_order_is_protected_over_a_restart_that_misses_its_fill(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.instruments.load("nse_cm")
            price(exchange, "39.20")
            order = await neo.orders.place(*ITBEES, Side.BUY, 10, **MIS)
            await neo.exits.protect(order, stop="38.50")
        price(exchange, "38.95")
        async with client_of(exchange, journal=journal) as neo:
            (plan,) = neo.exits.plans
            await eventually(lambda: plan.open_quantity == 10 and not plan.unprotected)
            assert working(exchange) == [("S", "SL", 10)]


async def test_a_target_that_becomes_a_stop_again_is_no_triggered_stop() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        exchange.faults.set(Faults(feed_late=1.0))
        listing = exchange.market.listing("nse_cm", "ITBEES-EQ")
        assert listing is not None
        plan._runner.on_price(D("40.00"))
        await eventually(lambda: plan.exits[0].order_type is OrderType.LIMIT)
        plan._runner.on_price(D("39.10"))
        await eventually(lambda: plan.exits[0].order_type is OrderType.SL)
        await asyncio.sleep(30)
        assert plan.state is PlanStatus.OPEN
        assert working(exchange) == [("S", "SL", 10)]


async def test_the_units_that_filled_at_the_target_do_not_trigger_the_stop() -> None:
    async with exchange_of(accounts=2) as exchange, client_of(exchange) as neo:
        await neo.instruments.load("nse_cm")
        price(exchange, "39.20")
        plan = await entered(exchange, neo)
        plan._runner.on_price(D("40.00"))
        await eventually(lambda: plan.exits[0].order_type is OrderType.LIMIT)
        fill(exchange, Side.BUY, 3, "40.00")
        await eventually(lambda: plan.open_quantity == 7)
        price(exchange, "39.10")
        await eventually(lambda: plan.exits[0].order_type is OrderType.SL)
        await asyncio.sleep(30)
        assert working(exchange) == [("S", "SL", 7)]
        assert plan.state is PlanStatus.OPEN


async def test_a_late_positions_report_does_not_hide_a_close_by_hand() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        runner: Any = plan._runner
        read, late_until = runner._read_position, asyncio.get_running_loop().time() + 3.0

        async def late(state: Any) -> int:
            shown = await read(state)
            return 10 if asyncio.get_running_loop().time() < late_until else shown

        runner._read_position = late
        await neo.orders.place(*ITBEES, Side.SELL, 10, product=Product.MIS, price="39.00")
        price(exchange, "39.05")
        assert await plan.wait(timeout=30) is PlanStatus.EXITED
        assert working(exchange) == []


@pytest.mark.parametrize("turns", range(12))
async def test_a_caller_that_gives_up_leaves_no_plan_that_never_ends(turns: int) -> None:
    async with trading(resolution_timeout=2.0) as (exchange, neo):
        calling = asyncio.create_task(neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS))
        for _ in range(turns * 2):
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
        await asyncio.sleep(20)
        placed = len(exchange.market.ledger)
        for plan in neo.exits.plans:
            if placed:
                assert plan.state is PlanStatus.ENTERING
                price(exchange, "38.95")
                await eventually(lambda plan=plan: plan.open_quantity and not plan.unprotected)
            else:
                assert plan.state is PlanStatus.CANCELLED
        assert neo.exits.plans or not placed


async def test_an_entry_whose_answer_is_lost_has_its_stop_before_the_outcome_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = Exits._place_entry

    async def slowly(self: Exits, *arguments: Any) -> Any:
        orders = await placed(self, *arguments)
        await asyncio.sleep(30)
        return orders

    monkeypatch.setattr(Exits, "_place_entry", slowly)
    async with trading() as (exchange, neo):
        calling = asyncio.create_task(neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS))
        await eventually(lambda: len(exchange.market.ledger) == 1)
        price(exchange, "38.95")
        await eventually(lambda: working(exchange) == [("S", "SL", 10)], seconds=2)
        plan = await calling
        assert plan.state in (PlanStatus.ENTERING, PlanStatus.OPEN)


async def test_an_exit_that_no_order_book_shows_is_placed_again() -> None:
    async with trading(resolution_timeout=1.0) as (exchange, neo):
        plan = await neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS)
        requests: Any = plan._runner._requests
        place = requests.place

        async def unknown(order: Any) -> Any:
            plan._runner._requests.place = place
            raise OutcomeUnknown("place", "x", "no order book could be read")

        requests.place = unknown
        price(exchange, "38.95")
        await eventually(lambda: plan.open_quantity == 10)
        assert plan.unprotected == 10
        await eventually(lambda: not plan.unprotected, seconds=30)
        assert working(exchange) == [("S", "SL", 10)]


async def test_closing_wins_over_a_cancel_that_has_begun() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        cancelling = asyncio.create_task(plan.cancel())
        await asyncio.sleep(0)
        closing = asyncio.create_task(plan.exit_now())
        await trades(exchange, "39.00", plan)
        await asyncio.gather(cancelling, closing)
        assert (plan.state, plan.exited_by) == (PlanStatus.EXITED, ExitReason.CLOSED)
        assert await net(neo) == 0
        await plan.exit_now()
        assert not plan._runner.state.reason


async def test_prices_of_a_plan_that_closes_or_has_ended_cannot_be_changed() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        closing = asyncio.create_task(plan.exit_now())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="is closing at the market"):
            await plan.change(stop="38.40")
        await trades(exchange, "39.00", plan)
        await closing
        with pytest.raises(UsageError, match="has ended: it is exited"):
            await plan.change(stop="38.40")


async def test_only_refusals_of_the_broker_close_a_plan_that_is_to_exit_then() -> None:
    async with trading() as (exchange, neo):
        plan = await neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS, on_unprotected="exit")
        exchange.faults.set(Faults(throttle=1.0, calls={"orders"}))
        price(exchange, "38.95")
        await eventually(lambda: plan.open_quantity == 10)
        await asyncio.sleep(20)
        assert plan.unprotected == 10
        exchange.faults.set(Faults())
        await eventually(lambda: not plan.unprotected, seconds=30)
        assert working(exchange) == [("S", "SL", 10)]


async def test_an_error_in_a_plan_fails_it_aloud(caplog: pytest.LogCaptureFixture) -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        plan._runner.timers.price = "no price"
        plan._runner.wake()
        assert await plan.wait(timeout=5) is PlanStatus.FAILED
        assert "an error of this client" in plan.reason
        assert "stops" in caplog.text
        assert neo.exits.plans[0].is_final


# --- days -----------------------------------------------------------------------------------------


class Days:
    """A clock of both sides that a test moves on by whole days."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return now() + self.passed


async def _carried(exchange: Exchange, neo: NeoClient, **settings: Any) -> Any:
    await neo.instruments.load("nse_cm")
    price(exchange, "39.20")
    return await entered(exchange, neo, product=Product.CNC, **settings)


async def test_a_plan_of_cnc_stands_up_again_on_the_next_day(tmp_path: Path) -> None:
    clock = Days()
    async with exchange_of(clock=clock, behaviour=HOURS) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await _carried(exchange, neo)
        clock.passed = DAYS
        exchange.tick()
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            (plan,) = neo.exits.plans
            await eventually(lambda: not plan.unprotected, seconds=30)
            assert working(exchange) == [("S", "SL", 10)]
            await trades(exchange, "38.45", plan)
            assert plan.state is PlanStatus.EXITED


async def test_a_plan_ends_after_its_last_day_and_says_what_is_left(tmp_path: Path) -> None:
    clock = Days()
    today = date(2026, 11, 23)
    async with exchange_of(clock=clock, behaviour=HOURS) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await _carried(exchange, neo, until=today)
        clock.passed = DAYS
        exchange.tick()
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            (plan,) = neo.exits.plans
            assert await plan.wait(timeout=30) is PlanStatus.CANCELLED
            assert plan.reason == "its last day, 2026-11-23, is over, and 10 units have no exit"
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            assert neo.exits.plans == []


async def test_what_an_entry_filled_until_the_close_is_exited_on_the_next_day(
    tmp_path: Path,
) -> None:
    clock = Days()
    async with exchange_of(clock=clock, behaviour=HOURS, accounts=2) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            price(exchange, "39.20")
            plan = await neo.exits.bracket(
                *ITBEES, Side.BUY, 10, **{**MIS, **STOPS, "product": Product.CNC}
            )
            fill(exchange, Side.SELL, 4, "39.00")
            await eventually(lambda: plan.open_quantity == 4 and not plan.unprotected)
        clock.passed = DAYS
        exchange.tick()
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            (plan,) = neo.exits.plans
            assert plan.state is PlanStatus.OPEN
            await eventually(lambda: not plan.unprotected, seconds=30)
            assert working(exchange) == [("S", "SL", 4)]


async def test_an_entry_of_an_earlier_day_whose_fills_are_not_known_fails_the_plan(
    tmp_path: Path,
) -> None:
    clock = Days()
    async with exchange_of(clock=clock, behaviour=HOURS) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            price(exchange, "39.20")
            await neo.exits.bracket(*ITBEES, Side.BUY, 10, **{**MIS, **STOPS, "product": "CNC"})
        clock.passed = DAYS
        exchange.tick()
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            (plan,) = neo.exits.plans
            await plan.wait(timeout=600)
            assert plan.state in (PlanStatus.FAILED, PlanStatus.CANCELLED)
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            assert neo.exits.plans == []


async def test_a_crash_while_an_entry_of_an_earlier_day_was_placed_fails_the_plan(
    tmp_path: Path,
) -> None:
    """The broker may have taken the entry: nothing that it lists today shows that."""
    clock = Days()
    async with exchange_of(clock=clock, behaviour=HOURS) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            price(exchange, "39.20")
            exchange.faults.set(Faults(calls=("orders",), hang_after=1.0))
            entering = asyncio.create_task(
                neo.exits.bracket(*ITBEES, Side.BUY, 10, **{**MIS, **STOPS, "product": "CNC"})
            )
            await eventually(lambda: exchange.market.ledger)
            for end in ("", "-wal"):  # the journal as a crash leaves it
                shutil.copy(tmp_path / f"a.db{end}", tmp_path / f"b.db{end}")
            exchange.faults.set(Faults())
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
        clock.passed = DAYS
        exchange.tick()
        async with client_of(exchange, clock=clock, journal=tmp_path / "b.db") as neo:
            (plan,) = neo.exits.plans
            await plan.wait(timeout=600)
            assert plan.state is PlanStatus.FAILED
            assert "its entry is of 2026-11-23" in plan.reason


async def test_a_plan_stands_up_at_the_next_open_of_a_client_that_stays_logged_in() -> None:
    clock = Days()
    async with (
        exchange_of(clock=clock, behaviour=HOURS) as exchange,
        client_of(exchange, clock=clock) as neo,
    ):
        plan = await _carried(exchange, neo)
        clock.passed = 0.6 * 86_400  # 00:24 on the holiday
        exchange.tick()
        await asyncio.sleep(120)
        assert (plan.state, plan.unprotected) == (PlanStatus.OPEN, 10)
        assert any(plan.id in problem for problem in neo.health().problems)
        clock.passed = DAYS
        exchange.tick()
        price(exchange, "38.95")
        plan._runner.timers.closed_until = 0.0  # the loop's clock has not passed the night
        await eventually(lambda: not plan.unprotected, seconds=60)
        assert working(exchange) == [("S", "SL", 10)]


async def test_a_gap_over_the_stop_at_the_open_is_closed_at_the_market(tmp_path: Path) -> None:
    clock = Days()
    async with exchange_of(clock=clock, behaviour=HOURS) as exchange:
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await _carried(exchange, neo)
        clock.passed = DAYS
        exchange.tick()
        price(exchange, "37.00")
        async with client_of(exchange, clock=clock, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            (plan,) = neo.exits.plans
            await trades(exchange, "37.00", plan, seconds=60)
            assert (plan.state, plan.exited_by) == (PlanStatus.EXITED, ExitReason.CLOSED)


async def test_a_broker_that_changes_no_types_gets_cancels_and_new_orders() -> None:
    fixed = Behaviour(rules=Rules(type_changes=False))
    async with exchange_of(behaviour=fixed) as exchange, client_of(exchange) as neo:
        await neo.instruments.load("nse_cm")
        price(exchange, "39.20")
        plan = await entered(exchange, neo)
        closing = asyncio.create_task(plan.exit_now())
        await eventually(lambda: ("S", "L", 10) in working(exchange), seconds=20)
        first = [record.number for record in exchange.market.ledger if not record.status.is_final]
        price(exchange, "37.50")  # the first market price is out of reach now
        await eventually(
            lambda: (
                any(
                    record.number not in first and not record.status.is_final
                    for record in exchange.market.ledger
                )
                or plan.is_final
            ),
            seconds=20,
        )
        await trades(exchange, "37.50", plan)
        await closing
        assert (plan.state, plan.exited_by) == (PlanStatus.EXITED, ExitReason.CLOSED)
        assert await net(neo) == 0


async def test_plans_that_wait_for_the_order_book_are_a_problem(tmp_path: Path) -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=tmp_path / "a.db") as neo:
            await neo.instruments.load("nse_cm")
            price(exchange, "39.20")
            await entered(exchange, neo)
        client = client_of(exchange, journal=tmp_path / "a.db")
        book: Any = client.exits._book
        go_on = book._try_to_go_on

        async def unread() -> bool:
            return False

        book._try_to_go_on = unread
        async with client as neo:
            assert any("wait for the order book" in one for one in neo.health().problems)
            book._try_to_go_on = go_on
            (plan,) = neo.exits.plans
            await eventually(lambda: plan.exits, seconds=10)
            await asyncio.sleep(1)
            assert not any("wait for the order book" in one for one in neo.health().problems)
