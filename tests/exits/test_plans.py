"""Exit plans of a client, against the exchange over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from neo_async import (
    InvalidOrder,
    NeoClient,
    OrderRequest,
    OrderStatus,
    OrderType,
    Product,
    Segment,
    Side,
)
from neo_async.exchange import Behaviour, Exchange, Faults, Hours, Rules
from neo_async.exits.state import ExitReason, PlanStatus
from neo_async.exits.trigger import TriggerStatus
from tests.clients import client_of, exchange_of
from tests.simulation.virtual_time import now

D = Decimal
ITBEES = (Segment.NSE_CM, "ITBEES-EQ")
MIS: dict[str, Any] = {"product": Product.MIS, "price": "39.00"}
STOPS: dict[str, Any] = {"stop": "38.50", "target": "40.00"}


def price(exchange: Exchange, rupees: str) -> None:
    """Print a trade at a price: resting orders that it crosses fill."""
    exchange.market.print_price(Segment.NSE_CM, "19084", int(D(rupees) * 100))


@contextlib.asynccontextmanager
async def trading(**settings: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    """Run an exchange without market makers, and a client that has the scrip master."""
    async with exchange_of() as exchange, client_of(exchange, **settings) as neo:
        await neo.instruments.load(Segment.NSE_CM)
        price(exchange, "39.20")
        yield exchange, neo


async def trades(exchange: Exchange, rupees: str, plan: Any, *, seconds: float = 30.0) -> None:
    """Print trades at a price until a plan is final: without market makers, nothing else fills an
    order that rests."""
    async with asyncio.timeout(seconds):
        while not plan.is_final:
            price(exchange, rupees)
            await asyncio.sleep(0.1)


async def eventually(condition: Any, *, seconds: float = 10.0) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it may be anything
            await asyncio.sleep(0.01)


def working(exchange: Exchange) -> list[tuple[str, str, int]]:
    """Return side, type and open quantity of the orders that are open at the exchange."""
    return [
        (str(record.side), str(record.order_type), record.quantity - record.filled_quantity)
        for record in exchange.market.ledger
        if not record.status.is_final
    ]


async def net(neo: NeoClient) -> int:
    return await neo.portfolio.net_quantity("nse_cm", "ITBEES-EQ", "MIS")


async def entered(exchange: Exchange, neo: NeoClient, quantity: int = 10, **settings: Any) -> Any:
    """Return a plan whose entry has filled and whose stop rests."""
    plan = await neo.exits.bracket(*ITBEES, Side.BUY, quantity, **{**MIS, **STOPS, **settings})
    price(exchange, "38.95")
    await eventually(lambda: plan.state is PlanStatus.OPEN and not plan.unprotected)
    return plan


async def test_a_bracket_is_exited_at_its_target() -> None:
    async with trading() as (exchange, neo):
        plan = await neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS)
        assert (plan.state, plan.open_quantity, plan.exits) == (PlanStatus.ENTERING, 0, [])
        assert plan.entry.number
        price(exchange, "38.95")
        await plan.wait(PlanStatus.OPEN, timeout=5)
        await eventually(lambda: not plan.unprotected)
        (stop,) = plan.exits
        assert (stop.order_type, stop.trigger, stop.quantity) == (OrderType.SL, D("38.50"), 10)
        await trades(exchange, "40.10", plan)
        assert plan.state is PlanStatus.EXITED
        assert plan.exited_by is ExitReason.TARGET
        assert await net(neo) == 0
        assert len(plan.exits) == 1


async def test_a_bracket_is_exited_at_its_stop() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        await trades(exchange, "38.45", plan)
        assert plan.state is PlanStatus.EXITED
        assert plan.exited_by is ExitReason.STOP
        assert await net(neo) == 0


async def test_a_whipsaw_through_both_prices_leaves_the_position_flat() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        for rupees in ("40.10", "38.40", "40.20", "38.30"):
            price(exchange, rupees)
        await trades(exchange, "38.30", plan)
        assert await net(neo) == 0
        assert sum(order.filled_quantity for order in plan.exits) == 10


async def test_changes_are_yielded_until_the_plan_is_final() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)

        async def collect() -> list[Any]:
            return [change async for change in plan.changes()]

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        await trades(exchange, "40.10", plan)
        changes = await asyncio.wait_for(collecting, 5)
        assert changes[0].status is PlanStatus.OPEN
        assert (changes[-1].status, changes[-1].open_quantity) == (PlanStatus.EXITED, 0)


async def test_a_plan_is_changed_closed_and_cancelled() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        await plan.change(stop="38.70", target=None)
        await eventually(lambda: plan.exits[0].trigger == D("38.70"))
        assert plan.target is None
        with pytest.raises(InvalidOrder, match=r"stop='39\.50': must be below the price"):
            await plan.change(stop="39.50")
        await plan.cancel(leave_stop=True)
        assert plan.state is PlanStatus.CANCELLED
        assert not plan.exits[0].is_final
        assert await net(neo) == 10
        (position,) = await neo.portfolio.positions()
        await neo.orders.cancel(plan.exits[0])
        again = await neo.exits.protect(position, stop="38.60")
        await eventually(lambda: not again.unprotected)
        price(exchange, "39.00")
        seller = asyncio.create_task(again.exit_now())
        await asyncio.sleep(0.5)
        price(exchange, "39.00")
        await asyncio.wait_for(seller, 30)
        assert (again.state, again.exited_by) == (PlanStatus.EXITED, ExitReason.CLOSED)
        assert await net(neo) == 0


async def test_a_plan_goes_on_after_a_restart(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.instruments.load(Segment.NSE_CM)
            price(exchange, "39.20")
            plan = await entered(exchange, neo)
            name = plan.id
        async with client_of(exchange, journal=journal) as neo:
            (plan,) = neo.exits.plans
            assert (plan.id, plan.state, plan.open_quantity) == (name, PlanStatus.OPEN, 10)
            await eventually(lambda: not plan.unprotected)
            assert len(working(exchange)) == 1
            await trades(exchange, "40.10", plan)
            assert plan.state is PlanStatus.EXITED
        async with client_of(exchange, journal=journal) as neo:
            assert neo.exits.plans == []


async def test_a_position_closed_by_hand_ends_the_plan() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        sale = await neo.orders.place(*ITBEES, Side.SELL, 10, product=Product.MIS, price="39.00")
        price(exchange, "39.05")
        await sale.wait(OrderStatus.COMPLETE, timeout=5)
        assert await plan.wait(timeout=10) is PlanStatus.EXITED
        assert plan.exited_by is ExitReason.ELSEWHERE
        assert working(exchange) == []


async def test_a_position_is_squared_off_and_its_plan_ends() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        closing = asyncio.create_task(neo.portfolio.square_off(symbol="ITBEES-EQ"))
        for _ in range(20):
            await asyncio.sleep(0.2)
            price(exchange, "39.00")
            if closing.done():
                break
        (result,) = await closing
        assert result.quantity == 10
        assert await net(neo) == 0
        assert plan.state is PlanStatus.CANCELLED
        assert working(exchange) == []


async def test_a_halt_keeps_the_stops_where_it_is_told_to() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        await neo.orders.place(*ITBEES, Side.BUY, 5, product=Product.MIS, price="38.60")
        await asyncio.wait_for(neo.halt(keep_stops=True), 30)
        assert working(exchange) == [("S", "SL", 10)]
        await trades(exchange, "40.10", plan)
        assert plan.exited_by is ExitReason.TARGET


async def test_a_halt_that_squares_off_leaves_nothing() -> None:
    async with trading() as (exchange, neo):
        await entered(exchange, neo)
        halting = asyncio.ensure_future(neo.halt(square_off=True))
        for _ in range(20):
            await asyncio.sleep(0.2)
            price(exchange, "39.00")
            if halting.done():
                break
        await halting
        assert await net(neo) == 0
        assert working(exchange) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": "39.10"}, r"stop='39\.10': must be below the price 39\.00 of a long position"),
        ({"target": "38.90"}, r"target='38\.90': must be above the price 39\.00"),
        ({"target": "38.40"}, r"target='38\.40': must be above the stop 38\.50"),
        ({"trail": "0"}, r"trail='0': must be above 0"),
        ({"stop": "38.503"}, r"stop='38\.503': ITBEES-EQ has prices in steps of 0\.01"),
        ({"stop": None, "target": None}, r"stop=None: a plan needs a target, a stop or a trail"),
        ({"product": Product.BO}, r"product='BO': a plan places ordinary orders"),
        ({"chase": 0}, r"chase=0: must be seconds"),
        ({"resting": "both"}, r"resting='both': must be one of stop, target"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    changes: dict[str, Any], message: str
) -> None:
    async with trading() as (exchange, neo):
        with pytest.raises(InvalidOrder, match=message):
            await neo.exits.bracket(*ITBEES, Side.BUY, 10, **{**MIS, **STOPS, **changes})
        assert list(exchange.market.ledger) == []
        assert neo.exits.plans == []


async def test_the_scrip_master_is_needed() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with pytest.raises(InvalidOrder, match=r"await neo\.instruments\.load\('nse_cm'\)"):
            await neo.exits.bracket(*ITBEES, Side.BUY, 10, **MIS, **STOPS)


# --- triggers ---------------------------------------------------------------------------------

BUY = OrderRequest(*ITBEES, Side.BUY, 10, product=Product.MIS, price="40.60")


async def test_a_trigger_places_its_order_once_when_the_price_is_reached() -> None:
    async with trading() as (exchange, neo):
        trigger = await neo.exits.when("nse_cm|19084", above="40.50", place=BUY)
        await asyncio.sleep(1)
        assert (trigger.status, working(exchange)) == (TriggerStatus.WAITING, [])
        for rupees in ("40.50", "40.55", "40.45", "40.60"):
            price(exchange, rupees)
            await asyncio.sleep(0.05)
        assert await trigger.wait(timeout=5) is TriggerStatus.PLACED
        assert len(exchange.market.ledger) == 1
        assert trigger.order is not None
        assert neo.exits.triggers == []


@pytest.mark.parametrize("until", ["2026-12-31", datetime(2026, 12, 31), date(2026, 11, 22)])
async def test_the_last_day_of_a_trigger_is_a_date_that_is_not_over(until: Any) -> None:
    async with trading() as (_, neo):
        with pytest.raises(InvalidOrder, match="until"):
            await neo.exits.when("nse_cm|19084", above="40.50", place=BUY, until=until)
        assert neo.exits.triggers == []


async def test_a_trigger_waits_over_a_restart_and_can_be_cancelled(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            price(exchange, "39.20")
            await neo.exits.when("nse_cm|19084", above="40.50", place=BUY)
            await neo.exits.when("nse_cm|19084", below="38.00", place=BUY)
        async with client_of(exchange, journal=journal) as neo:
            above, below = neo.exits.triggers
            below.cancel()
            price(exchange, "40.70")
            assert await above.wait(timeout=5) is TriggerStatus.PLACED
        async with client_of(exchange, journal=journal) as neo:
            assert neo.exits.triggers == []
            assert len(exchange.market.ledger) == 1


async def test_a_trigger_that_could_not_place_its_order_is_refused() -> None:
    async with trading() as (_, neo):
        for changes, message in (
            ({"above": "40", "below": "39"}, "give either above or below"),
            ({"above": None}, "give either above or below"),
            ({"above": "zero"}, "above='zero'"),
            ({"above": "40.5", "until": date(2020, 1, 1)}, "is over"),
            ({"above": "40.5", "place": msgspec.structs.replace(BUY, quantity=0)}, "quantity=0"),
        ):
            with pytest.raises(InvalidOrder, match=message):
                await neo.exits.when("nse_cm|19084", **{"place": BUY, **changes})


# --- the day ----------------------------------------------------------------------------------


async def test_the_brokers_square_off_ends_a_plan_and_leaves_the_position_flat() -> None:
    jump = 0.0

    def clock() -> float:
        return now() + jump

    hours = Behaviour(rules=Rules(hours=Hours.EXCHANGE))
    async with (
        exchange_of(clock=clock, behaviour=hours, market_makers=True) as exchange,
        client_of(exchange, clock=clock) as neo,
    ):
        await neo.instruments.load(Segment.NSE_CM)
        price(exchange, "39.20")
        plan = await neo.exits.bracket(
            *ITBEES, Side.BUY, 10, product=Product.MIS, order_type=OrderType.MARKET, stop="38.50"
        )
        await eventually(lambda: plan.state is PlanStatus.OPEN and not plan.unprotected)
        jump = 5.4 * 3600  # 15:24: the broker has closed what is intraday
        exchange.tick()
        assert await plan.wait(timeout=60) is PlanStatus.EXITED
        assert plan.exited_by is ExitReason.ELSEWHERE
        assert await net(neo) == 0
        assert working(exchange) == []


# --- the client -------------------------------------------------------------------------------


async def test_the_end_of_a_program_can_square_off() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange, on_exit="square_off") as neo:
            await neo.instruments.load(Segment.NSE_CM)
            price(exchange, "39.20")
            await entered(exchange, neo)
            await neo.orders.place(*ITBEES, Side.BUY, 5, product=Product.MIS, price="38.60")
            moving = asyncio.create_task(_keep_trading(exchange, "39.00"))
        moving.cancel()
        assert working(exchange) == []
        bought = sum(one.filled_quantity for one in exchange.market.ledger if one.side is Side.BUY)
        sold = sum(one.filled_quantity for one in exchange.market.ledger if one.side is Side.SELL)
        assert (bought, sold) == (10, 10)


async def test_the_end_of_a_program_that_cancels_leaves_the_stops() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange, on_exit="cancel") as neo:
            await neo.instruments.load(Segment.NSE_CM)
            price(exchange, "39.20")
            await entered(exchange, neo)
            await neo.orders.place(*ITBEES, Side.BUY, 5, product=Product.MIS, price="38.60")
        assert working(exchange) == [("S", "SL", 10)]


async def _keep_trading(exchange: Exchange, rupees: str) -> None:
    while True:
        await asyncio.sleep(0.2)
        price(exchange, rupees)


async def test_health_says_what_has_no_exit() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        assert neo.health().ok, neo.health()
        exchange.faults.set(Faults(error_before=1.0, calls={"orders"}))
        exchange.market.cancel(exchange.accounts[0].ucc, plan.exits[0].number)
        await eventually(lambda: plan.unprotected == 10 and plan.reason, seconds=60)
        (problem,) = [one for one in neo.health().problems if plan.id in one]
        assert problem.startswith("10 of ITBEES-EQ have no exit")
        exchange.faults.set(Faults())
        await eventually(lambda: not plan.unprotected, seconds=60)
        assert neo.health().ok


def test_a_client_without_plans_imports_nothing_of_them() -> None:
    code = (
        "import sys, neo_async; neo_async.NeoClient; "
        "print([name for name in sys.modules if name.startswith('neo_async.exits')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# --- instruments by any name ----------------------------------------------------------------------


NAMES = ["nse_cm|19084", "nse_cm:ITBEES-EQ", "ITBEES-EQ", "ITBEES"]


@pytest.mark.parametrize("name", NAMES)
async def test_plans_take_an_instrument_by_any_name(name: str) -> None:
    async with trading() as (_, neo):
        terms: dict[str, Any] = {"product": "mis", "price": "39.00", "stop": "38.50"}
        by_name = await neo.exits.bracket(name, "buy", 10, **terms, target="40.00")
        cover = await neo.exits.cover(neo.instruments.resolve(name), "buy", 10, **terms)
        for plan in (by_name, cover):
            assert (plan.segment, plan.symbol) == ("nse_cm", "ITBEES-EQ")
        order = {"instrument": name, "side": "buy", "quantity": 1, "product": "CNC", "price": "39"}
        trigger = await neo.exits.when(name, above="45", place=order)
        assert trigger.instrument == "nse_cm|19084"
        trigger.cancel()


async def test_a_wrong_name_sends_nothing() -> None:
    async with trading() as (exchange, neo):
        terms: dict[str, Any] = {"product": "MIS", "price": "39.00", "stop": "38.50"}
        with pytest.raises(InvalidOrder, match="instrument='ITBES-EQ': no such symbol"):
            await neo.exits.bracket("ITBES-EQ", "buy", 10, **terms)
        with pytest.raises(InvalidOrder, match="instrument='ITBES-EQ': no such symbol"):
            await neo.exits.protect("ITBES-EQ", stop="38.50")
        with pytest.raises(InvalidOrder, match="stands alone"):
            await neo.portfolio.square_off(instrument="ITBEES", symbol="ITBEES-EQ")
        with pytest.raises(InvalidOrder, match="'ITBEES': is a name: did you mean ITBEES-EQ"):
            await neo.portfolio.square_off(symbol="itbees")
        assert exchange.market.ledger == []


async def test_the_open_position_in_an_instrument_is_protected() -> None:
    async with trading() as (exchange, neo):
        with pytest.raises(InvalidOrder, match="'ITBEES-EQ': has no open position"):
            await neo.exits.protect("ITBEES", stop="38.50")
        order = await neo.orders.place("ITBEES", "buy", 10, **MIS)
        price(exchange, "38.95")
        await order.wait()
        with pytest.raises(InvalidOrder, match="has no open position of CNC"):
            await neo.exits.protect("ITBEES", product="CNC", stop="38.50")
        plan = await neo.exits.protect("nse_cm|19084", stop="38.50")
        assert (plan.state, plan.open_quantity) == (PlanStatus.OPEN, 10)
        carried = await neo.orders.place("ITBEES", "buy", 5, product="CNC", price="39.00")
        price(exchange, "38.95")
        await carried.wait()
        with pytest.raises(InvalidOrder, match=r"ITBEES-EQ is open in (CNC and MIS|MIS and CNC)"):
            await neo.exits.protect("ITBEES", stop="38.50")
        second = await neo.exits.protect("ITBEES", product="cnc", stop="38.50")
        assert second.open_quantity == 5


async def test_one_instrument_is_squared_off() -> None:
    async with trading() as (exchange, neo):
        order = await neo.orders.place("ITBEES", "buy", 10, **MIS)
        price(exchange, "38.95")
        await order.wait()
        assert await neo.portfolio.square_off(instrument="TCS", product="MIS") == []
        closing = asyncio.create_task(neo.portfolio.square_off(instrument="ITBEES", segment=None))
        async with asyncio.timeout(20):
            while not closing.done():
                price(exchange, "38.95")
                await asyncio.sleep(0.1)
        (result,) = closing.result()
        assert (result.symbol, result.quantity) == ("ITBEES-EQ", 10)
        assert await net(neo) == 0


async def test_delivery_stock_that_cannot_be_named_is_reported() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        results = await neo.portfolio.square_off(holdings=True)
        assert results
        assert all("are not sold" in str(result) for result in results)
        assert exchange.market.ledger == []


async def test_an_exit_that_filled_while_no_process_ran_ends_the_plan_in_the_journal(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=journal) as neo:
            await neo.instruments.load(Segment.NSE_CM)
            price(exchange, "39.20")
            await entered(exchange, neo)
        for _ in range(3):
            price(exchange, "38.40")
        async with client_of(exchange, journal=journal) as neo:
            (plan,) = neo.exits.plans
            await plan.wait(timeout=10)
            assert plan.exited_by is ExitReason.STOP
        async with client_of(exchange, journal=journal) as neo:
            assert neo.exits.plans == []


async def test_a_halt_right_before_the_logout_ends_the_plan_in_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "orders.db"
    async with trading(journal=journal) as (exchange, neo):
        plan = await entered(exchange, neo)
        neo.exits.end(reason="halted")
        await neo.logout()
        assert plan.state is PlanStatus.CANCELLED
        await neo.login()
        assert neo.exits.plans == []


# --- what other processes have left -----------------------------------------------------------


async def test_a_position_that_an_order_closes_already_gets_no_second_exit() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        await plan.cancel(leave_stop=True)
        (position,) = await neo.portfolio.positions()
        with pytest.raises(InvalidOrder, match=rf"order {plan.exits[0].number} closes this posit"):
            await neo.exits.protect(position, stop="38.60")
        assert len(working(exchange)) == 1


async def test_a_square_off_cancels_the_exits_of_a_position_that_is_flat() -> None:
    async with trading() as (exchange, neo):
        plan = await entered(exchange, neo)
        await plan.cancel(leave_stop=True)
        sale = await neo.orders.place(*ITBEES, Side.SELL, 10, product=Product.MIS, price="39.00")
        price(exchange, "39.05")
        await sale.wait(OrderStatus.COMPLETE, timeout=5)
        assert await neo.portfolio.square_off() == []
        await eventually(lambda: working(exchange) == [])
