"""A halt ends on proof: a broker that refuses cancels, or loses or hides orders, does not end it,
and a halt that cannot end says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from neo_async import NeoError, Order, OrderStatus
from neo_async.errors import NotSent, Rejected
from neo_async.execution.order_cache import OrderCache
from neo_async.model.orders import OrderRow
from neo_async.risk.cancellation_proof import CancelAttempts, CancellationProof
from neo_async.risk.kill_switch import GIVE_UP_SECONDS
from tests import clients
from tests.fake_servers import Reply
from tests.order_broker import BOOK, CANCEL, NOT_FOUND, PLACE, order_broker
from tests.risk.trading import BUY, MIS, OPEN, seconds, with_reports
from tests.simulation.virtual_time import START

# --- rules ------------------------------------------------------------------------------------


TODAY = "261123"
LOG = logging.getLogger(__name__)


def row(number: int, status: str = "open", **fields: Any) -> OrderRow:
    return OrderRow(number=f"{TODAY}{number:09}", status_text=status, **fields)


def proof_of(attempts: dict[str, CancelAttempts] | None = None) -> CancellationProof:
    cache = OrderCache()
    cache.clock = lambda: START
    return CancellationProof(cache, attempts or {}, LOG, give_up_after=100.0, clock=lambda: START)


def decide(proof: CancellationProof, rows: list[OrderRow], now: float) -> tuple[bool, bool]:
    """Apply an order book that was requested when nothing could arrive; return whether the halt is
    done, and whether it is over."""
    proof._cache.apply(rows)
    proof.apply_order_book(rows, now)
    proof.add_targets(proof.open_orders())
    proof.conclude(now)
    return proof.is_done, proof.is_over


def test_rule_1_only_a_complete_book_without_open_orders_is_a_proof() -> None:
    proof = proof_of()
    assert decide(proof, [row(1)], 0.0) == (False, False)
    assert decide(proof, [row(1, "cancelled")], 1.0) == (True, True)
    assert [getattr(order, "number", None) for order in proof.results(None)] == [row(1).number]


def test_rule_2_a_book_that_lacks_an_order_placed_here_today_proves_nothing() -> None:
    proof = proof_of()
    proof._cache.register_number(row(1).number)
    proof._cache.register_number("251123000000001")  # a year ago
    assert decide(proof, [row(2, "complete")], 0.0) == (False, False)
    assert "lacks 1 orders that were placed today" in str(proof.book_problem)
    assert decide(proof, [row(1, "complete")], 1.0) == (True, True)
    assert proof.results(None) == []


def test_rule_2_a_book_counts_as_hopeless_when_it_was_incomplete_for_the_whole_time() -> None:
    proof = proof_of()
    proof._cache.register_number(row(1).number)
    assert decide(proof, [row(2, "complete")], 0.0) == (False, False)
    assert decide(proof, [row(2, "complete")], 99.0) == (False, False)
    assert decide(proof, [row(2, "complete")], 100.0) == (False, True)
    (error,) = proof.results(None)
    assert error is proof.book_problem


def test_rule_2_an_empty_book_counts_from_the_second_one_in_a_row() -> None:
    proof = proof_of()
    assert decide(proof, [], 0.0) == (False, False)
    assert decide(proof, [row(1)], 1.0) == (False, False)
    assert decide(proof, [row(1, "cancelled")], 2.0) == (True, True)
    proof = proof_of()
    assert decide(proof, [], 0.0) == (False, False)
    assert decide(proof, [], 1.0) == (True, True)


def test_rule_3_a_refused_cancel_proves_nothing() -> None:
    refused = CancelAttempts(problem=Rejected("order not found"), is_answered=True)
    proof = proof_of({row(1).number: refused})
    assert decide(proof, [row(1)], 0.0) == (False, False)
    assert decide(proof, [row(1)], 1000.0) == (False, False)
    assert proof.results(None) == [refused.problem]


@pytest.mark.parametrize("is_answered", [True, False])
def test_rule_4_an_order_in_an_unknown_status_is_given_up_once_its_cancels_are_answered(
    is_answered: bool,
) -> None:
    problem = None if is_answered else NotSent("no connection")
    attempts = {row(1).number: CancelAttempts(problem=problem, is_answered=is_answered)}
    proof = proof_of(attempts)
    decide(proof, [row(1)], 0.0)
    decide(proof, [row(1, "squared off by rms")], 10.0)
    assert decide(proof, [row(1, "squared off by rms")], 109.0) == (False, False)
    assert decide(proof, [row(1, "squared off by rms")], 110.0) == (is_answered, is_answered)
    (result,) = proof.results(None)
    if is_answered:
        assert "has the unknown status 'squared off by rms'" in str(result)
        assert "for 100 s (last answer: accepted); it may be open" in str(result)
    else:
        assert result is problem


def test_rule_4_an_order_that_is_accounted_for_again_is_no_longer_given_up() -> None:
    proof = proof_of({row(1).number: CancelAttempts(is_answered=True)})
    decide(proof, [row(1)], 0.0)
    decide(proof, [row(2, "complete")], 10.0)
    assert decide(proof, [row(2, "complete")], 110.0) == (True, True)
    (error,) = proof.results(None)
    assert "and not in the order book" in str(error)
    assert proof.open_orders() == {}
    proof.apply_order_book([row(1)], 111.0)
    assert list(proof.open_orders()) == [row(1).number]


# --- halts ------------------------------------------------------------------------------------


async def test_an_order_that_the_broker_registers_late_is_cancelled_then() -> None:
    async with order_broker() as (broker, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        placed = seconds()
        broker.refusal = lambda number: NOT_FOUND if seconds() < placed + 4 else None
        broker.shown = lambda row: None if seconds() < placed + 4 else row
        assert await neo.halt() == [order]
        assert seconds() > placed + 4
        assert broker.open_numbers() == []
        assert order.status is OrderStatus.CANCELLED


async def test_an_open_order_that_the_book_lacks_is_cancelled_beside_a_final_one() -> None:
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


async def test_one_empty_book_does_not_prove_that_no_order_of_another_application_is_open() -> None:
    async with order_broker() as (broker, neo):
        number = broker.add()
        books = iter([None])
        broker.shown = lambda row: next(books, row)  # type: ignore[assignment,return-value,arg-type]
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == number
        assert broker.open_numbers() == []


async def test_an_order_in_an_unknown_status_is_given_up(
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
    assert [
        r.levelname for r in caplog.records if r.getMessage().endswith(f": halt: {result}")
    ] == ["ERROR"]


async def test_an_open_order_without_a_number_is_an_error_and_no_cancel_is_sent(
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
async def test_an_order_that_no_book_shows_is_given_up(
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
        # Giving up is no proof: the next halt, and the next login, cancel again.
        broker.shown, broker.refusal = lambda row: row, lambda number: None
        assert await neo.halt() == [order]


async def test_an_order_is_cancelled_for_as_long_as_the_book_shows_it_open(
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


async def test_an_order_book_that_is_refused_proves_nothing(
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
async def test_an_unknown_outcome_does_not_keep_a_halt_from_ending(call: str) -> None:
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
        assert seconds() - began < 60  # the resolution timeout and one reading of the book


async def test_an_open_order_without_a_number_ends_the_halt_with_an_error_in_time(
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
        broker.shown = lambda row: row  # the next halt reads its number
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == external
        assert broker.open_numbers() == []


async def test_an_order_whose_number_is_shown_later_is_cancelled() -> None:
    async with order_broker() as (broker, neo):
        external = broker.add()
        began = seconds()
        broker.shown = lambda row: row if seconds() > began + 10 else row | {"nOrdNo": {}}
        (result,) = await neo.halt()
        assert isinstance(result, Order)
        assert result.number == external
        assert seconds() - began < 20


async def test_a_halt_is_not_done_while_an_open_order_has_no_number() -> None:
    reports = {clients.BOOK: [{**OPEN, "nOrdNo": None}]}
    async with with_reports(reports) as neo:
        halting = neo.halt(reason="test")
        await asyncio.sleep(8)
        assert not halting.done()
        reports[clients.BOOK] = [{**OPEN, "ordSt": "cancelled"}]
        assert await asyncio.wait_for(halting, 30) == []
        assert neo._engine.cache.open_orders == []
