"""What a row of a report shows of an order."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import OrderRow, OrderStatus, OrderType, OrderUpdate
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.reports import (
    ROWS_AT_ONCE,
    as_order_row,
    in_slices,
    is_at_exchange,
    reported_terms,
    shown_terms,
    stage_of,
)
from neo_async.model.orders import HistoryRow
from neo_async.wire.reports import read_order_book
from tests.execution.feed_broker import (
    QUANTITY,
    STAGES,
    TERMS,
    book_of,
    order_of,
    row,
    unread,
)
from tests.simulation.virtual_time import in_virtual_time


def test_an_open_order_whose_quantity_cannot_be_read_has_none() -> None:
    cache = OrderCache()
    facts = {"number": "9", "quantity": 0, "filled_quantity": 3, "pending_quantity": 0}
    order = cache.register(unread("open", "quantity", **facts))
    assert (order.quantity, order.filled_quantity, order.pending_quantity) == (0, 3, 0)
    parts = facts | {"number": "10", "pending_quantity": 7}
    assert cache.register(unread("open", "quantity", **parts)).quantity == QUANTITY
    unknown = parts | {"number": "11", "filled_quantity": 0}
    assert cache.register(unread("open", "quantity", "filled_quantity", **unknown)).quantity == 0


def test_terms_that_a_book_cannot_be_read_for_stay_as_they_were() -> None:
    order = order_of()
    order.apply(unread("open", "quantity", "price", "order_type"))
    assert order.terms == TERMS


async def test_a_book_of_ten_thousand_rows_lets_other_tasks_run() -> None:
    cache = OrderCache()
    rows = read_order_book(book_of(10_000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await cache.apply_in_slices(
        rows, registers_open=True, requested_at=time.monotonic(), day="261123"
    )
    counting.cancel()
    assert len(cache.open_orders) == 10_000
    assert turns >= 10_000 // 250 - 1


# --- rows by themselves ---------------------------------------------------------------------------


@given(st.integers(0, 4 * ROWS_AT_ONCE))
@in_virtual_time
async def test_slices_are_the_rows_in_their_order_with_a_turn_of_the_loop_between_two(
    count: int,
) -> None:
    rows = [OrderRow(number=str(number)) for number in range(count)]
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    slices = [part async for part in in_slices(rows)]
    others.cancel()
    assert [each for part in slices for each in part] == rows
    assert all(0 < len(part) <= ROWS_AT_ONCE for part in slices)
    assert turns == max(0, len(slices) - 1)


def test_the_terms_of_an_external_order_are_those_that_its_row_shows() -> None:
    shown = row("open", segment="nse_cm", symbol="ITBEES-EQ", side="B", product="CNC",
                validity="DAY", trigger=38.5, disclosed_quantity=4)  # fmt: skip
    assert reported_terms(shown) == msgspec.structs.replace(
        TERMS, trigger=Decimal("38.50"), disclosed_quantity=4
    )
    assert not reported_terms(shown).amo
    assert reported_terms(msgspec.structs.replace(shown, generated_type="AMO")).amo


@pytest.mark.parametrize(
    ("status", "quantity", "filled", "pending", "missing", "expected"),
    [
        ("open", 10, 3, 7, (), 10),
        ("open", 0, 3, 7, (), 10),
        ("open", 0, 3, 0, (), 0),  # an open order has a pending quantity
        ("open", 0, 3, 7, ("filled_quantity",), 0),
        ("complete", 0, 10, 0, (), 10),
        ("complete", 0, 10, 0, ("pending_quantity",), 0),
        ("complete", 10, 10, 0, ("pending_quantity",), 10),
    ],
)
def test_the_quantity_of_an_order_is_shown_or_the_sum_of_its_parts_or_not_known(
    status: str, quantity: int, filled: int, pending: int, missing: tuple[str, ...], expected: int
) -> None:
    shown = row(status, filled, quantity=quantity, pending_quantity=pending,
                missing=frozenset(missing))  # fmt: skip
    assert reported_terms(shown).quantity == expected


TERM_FIELDS = ("quantity", "price", "trigger", "disclosed_quantity")


@given(st.sets(st.sampled_from(TERM_FIELDS)))
def test_a_report_shows_the_terms_that_are_not_missing(missing: set[str]) -> None:
    shown = shown_terms(row("open", trigger=38.5, disclosed_quantity=4), frozenset(missing))
    everything = {
        "quantity": 10, "price": Decimal("39.00"), "trigger": Decimal("38.50"),
        "disclosed_quantity": 4, "order_type": OrderType.LIMIT,
    }  # fmt: skip
    assert shown == {name: value for name, value in everything.items() if name not in missing}


def test_zeros_of_a_row_that_describes_no_order_are_no_terms_and_those_of_a_message_are() -> None:
    blank = OrderRow(number="1", status_text="open")
    assert shown_terms(blank, frozenset()) == {}
    message = OrderUpdate(number="1", status_text="open")
    assert shown_terms(message, frozenset()) == {
        "price": None, "trigger": None, "disclosed_quantity": 0,
    }  # fmt: skip


def test_a_state_of_a_history_shows_how_an_order_ended_and_no_terms() -> None:
    state = HistoryRow(
        number="other", status_text="complete", reject_text="none", filled_quantity=10,
        average_price=39.1, updated_ns=7, quantity=10, price=39.0,
        missing=frozenset({"trigger"}),
    )  # fmt: skip
    shown = as_order_row("1", state)
    assert (shown.number, shown.status, shown.reject_text) == ("1", OrderStatus.COMPLETE, "none")
    assert (shown.filled_quantity, shown.average_price, shown.updated_ns) == (10, 39.1, 7)
    assert shown.missing == {"trigger"}
    assert shown_terms(shown, shown.missing) == {}


@pytest.mark.parametrize("status", list(OrderStatus))
def test_every_final_status_is_of_the_last_stage_and_no_other_one_is(status: OrderStatus) -> None:
    last = max(map(stage_of, OrderStatus))
    assert (stage_of(status) == last) is status.is_final
    if status.is_final:
        assert is_at_exchange(status)


def test_an_order_goes_through_the_stages_in_the_order_of_the_broker() -> None:
    life = [*STAGES, "complete"]
    statuses = [row(text).status for text in life]
    stages = [stage_of(status) for status in statuses]
    assert stages == sorted(set(stages))
    assert [is_at_exchange(status) for status in statuses] == [False] * 3 + [True] * 2
