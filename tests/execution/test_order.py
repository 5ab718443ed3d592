"""Orders moved by the feed: fast, but it loses, repeats and mixes up; the book puts that right."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    Order,
    OrderStatus,
    OrderType,
    Product,
    Segment,
    Side,
)
from neo_async.exchange import Faults
from neo_async.execution.order import OrderChange
from neo_async.model.feed_state import FeedState
from tests.clients import BOOK, client_of, exchange_of, paths
from tests.execution.feed_broker import (
    STAGES,
    FeedBroker,
    Wire,
    collect,
    state,
)
from tests.simulation.virtual_time import in_virtual_time


def agrees(order: Order, row: Wire) -> None:
    assert order.status.value == row["ordSt"]
    assert order.filled_quantity == row["fldQty"]
    if row["fldQty"]:
        assert order.average_price == float(row["avgPrc"])
    assert order.quantity == row["qty"]
    assert order.price == Decimal(row["prc"])
    assert order.reject_reason == row["rejRsn"].replace("--", "")


# --- whatever the feed does -------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn) -> list[Wire]:
    """The true states of one order, oldest first. Times may be shared, but only within a stage."""
    rows: list[Wire] = []
    at = 1_000
    facts: Wire = {"qty": 10, "prc": "39.00", "fldQty": 0, "avgPrc": "0.00"}

    def reach(status: str, **news: Any) -> None:
        nonlocal at
        at += draw(st.integers(1, 3))
        facts.update(news)
        rows.append(state(status, at, **facts))

    for status in STAGES[: draw(st.sampled_from([4, 4, 4, 4, 3, 2, 1]))]:
        reach(status)
    if rows[-1]["ordSt"] == "open":
        for filled in sorted(draw(st.sets(st.integers(1, 9), max_size=4))):
            if draw(st.booleans()):
                reach("modify validation pending")
                reach("modify pending")
                reach("open", qty=facts["qty"] + 5, prc=draw(st.sampled_from(["38.90", "39.10"])))
            reach("open", fldQty=filled, avgPrc=f"{39 + filled / 100:.2f}")
        end = draw(st.sampled_from(["open", "complete", "cancelled"]))
    else:
        end = draw(st.sampled_from([rows[-1]["ordSt"], "rejected"]))
    if end == "complete":
        reach(end, fldQty=facts["qty"], avgPrc="39.50")
    elif end == "rejected":
        reach(end, rejRsn="RMS:Margin Exceeds")
    elif end == "cancelled":
        reach(end)
    return rows


@st.composite
def frames_of(draw: st.DrawFn, row: Wire) -> list[Wire]:
    """What the feed makes of a state: perhaps first without the price, perhaps not all of it."""
    frames = [row]
    if row["fldQty"] and draw(st.booleans()):
        frames.insert(0, row | {"avgPrc": "0.00"})
    lost = draw(st.sampled_from([(), (), ("updRecvTm",), "five"]))
    if lost == "five":
        keys = ("nOrdNo", "ordSt")
        return [{key: frame[key] for key in keys} for frame in frames]
    dropped = draw(st.sets(st.sampled_from(sorted(row.keys() - {"nOrdNo"})), max_size=4))
    dropped |= set(lost)
    if draw(st.booleans()):
        dropped = set()
    return [{key: frame[key] for key in frame if key not in dropped} for frame in frames]


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[list[Wire], list[Wire], int]:
    """A life, its frames as they arrive, and when the answer to place does among them."""
    life = draw(lives())
    frames = [frame for row in life for frame in draw(frames_of(row))]
    kept = [frame for frame in frames if draw(st.integers(0, 4))]
    again = draw(st.lists(st.sampled_from(frames), max_size=4))
    arriving = draw(st.permutations(kept + again)) if draw(st.booleans()) else kept + again
    return (
        life,
        arriving,
        draw(st.sampled_from([0, 0, 1, 2, len(arriving)]).filter(lambda n: n <= len(arriving))),
    )


@settings(deadline=None)
@given(disturbed())
@in_virtual_time
async def test_however_messages_arrive_an_order_never_moves_back_and_ends_as_in_the_book(
    case: tuple[list[Wire], list[Wire], int],
) -> None:
    life, arriving, placed_after = case
    async with FeedBroker(latency=0.05) as broker:
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        order: Order | None = None
        changes: list[OrderChange] = []
        watch: asyncio.Task[None] | None = None
        seen = (0, 0, 0, False)
        for position, frame in enumerate([*arriving, {}]):
            if position == placed_after:
                order = broker.order()
                watch = asyncio.create_task(collect(order.changes(), changes))
                await asyncio.sleep(0)
            if frame:
                broker.feed.send("order", frame)
            if order is not None:
                stage = 4 if order.is_final else min(3, _stage_of(order))
                now = (order.filled_quantity, order.updated_ns, stage, order.is_final)
                assert all(after >= before for before, after in zip(seen, now, strict=True))
                seen = now
        assert order is not None
        assert watch is not None
        final_before = order.status if order.is_final else None
        broker.book = [life[-1]]
        broker.feed.go(FeedState.WAITING)
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(1)
        agrees(order, life[-1])
        assert final_before in (None, order.status)
        assert order.filled_quantity >= seen[0]
        if order.is_final:
            await watch
            if final_before is None:
                assert changes[-1].status is order.status
                assert changes[-1].filled_quantity == order.filled_quantity
        filled = [change.filled_quantity for change in changes]
        assert filled == sorted(filled)
        if not order.is_final:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


def _stage_of(order: Order) -> int:
    text = order.status.value
    return STAGES.index(text) if text in STAGES else 3


# --- what a message says ----------------------------------------------------------------------


async def test_what_a_message_leaves_out_stays_as_it_was() -> None:
    async with FeedBroker() as broker:
        order = broker.order(
            order_type=OrderType.SL, trigger=Decimal("38.90"), disclosed_quantity=4
        )
        broker.feed.go(FeedState.LIVE)
        broker.send("open", 5, fldQty=3, avgPrc="38.95", prcTp="SL", trgPrc="38.90", dscQty=4)
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "cancel pending", "hsUpTm": "x"})
        assert order.status is OrderStatus.CANCEL_PENDING
        assert (order.filled_quantity, order.average_price) == (3, 38.95)
        assert (order.order_type, order.price, order.trigger) == (
            OrderType.SL,
            Decimal("39.00"),
            Decimal("38.90"),
        )
        assert (order.quantity, order.disclosed_quantity, order.updated_ns) == (10, 4, 5)


async def test_a_price_of_zero_that_was_sent_takes_the_limit_away() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.feed.send(
            "order", {"nOrdNo": "1", "ordSt": "open", "prcTp": "MKT", "prc": "0", "updRecvTm": 3}
        )
        assert (order.order_type, order.price) == (OrderType.MARKET, None)


async def test_messages_without_a_time_move_an_order_forwards_only() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        for status in ("open pending", "validation pending", "open", "open pending"):
            broker.feed.send("order", {"nOrdNo": "1", "ordSt": status})
        assert [change.status.value for change in order.history[1:]] == ["open pending", "open"]
        # Nor does one with a time, when it may be older than a report without a time.
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "validation pending", "updRecvTm": 7})
        assert order.status is OrderStatus.OPEN


async def test_a_final_state_is_corrected_by_a_newer_report_and_by_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("cancelled", 5, fldQty=2, avgPrc="39.00")
        for status in ("open", "complete", "rejected"):
            broker.send(status, 4, fldQty=2, avgPrc="39.00")
            broker.feed.send("order", {"nOrdNo": "1", "ordSt": status})
        assert order.status is OrderStatus.CANCELLED
        assert broker.cache.open_orders == []
        assert caplog.records == []
        broker.send("complete", 6, fldQty=10, avgPrc="39.10")
        assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 10)
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "was final (cancelled, 2 filled)" in record.getMessage()
        broker.send("open", 7, fldQty=2, avgPrc="39.00")  # of what was filled nothing can be open
        broker.send("cancelled", 5, fldQty=2, avgPrc="39.00")
        assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 10)


async def test_an_order_that_a_correction_has_opened_is_open_until_a_newer_end() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("rejected", 5, rejRsn="RMS:Margin Exceeds")
        broker.send("open", 6)
        assert broker.cache.open_orders == [order]
        assert order.reject_reason == ""
        waiting = asyncio.create_task(order.wait())
        await asyncio.sleep(0)
        broker.send("rejected", 5, rejRsn="RMS:Margin Exceeds")  # the same message again
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "rejected"})
        broker.book = [state("rejected", 5)]  # and a book that has not caught up
        broker.poller.request()
        await asyncio.sleep(1)
        assert not waiting.done()
        broker.send("complete", 7, fldQty=10, avgPrc="39.00")
        assert await waiting is OrderStatus.COMPLETE
        assert broker.cache.open_orders == []


async def test_a_fill_without_a_time_corrects_a_cancellation() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("cancelled", 5, fldQty=2, avgPrc="39.00")
        broker.feed.send("order", {"nOrdNo": "1", "ordSt": "complete", "fldQty": 10})
        assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 10)


# --- changes and waiting ----------------------------------------------------------------------


async def test_changes_that_come_at_once_reach_every_consumer_one_by_one() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        taken: list[list[OrderChange]] = [[], []]
        watches = [asyncio.create_task(collect(order.changes(), into)) for into in taken]
        await asyncio.sleep(0.1)
        for at, status in enumerate(STAGES, start=1):
            broker.send(status, at)
        broker.send("open", 5, fldQty=4, avgPrc="39.00")
        broker.send("complete", 6, fldQty=10, avgPrc="39.20")
        await asyncio.gather(*watches)
        expected = [*((text, 0) for text in STAGES[1:]), ("open", 4), ("complete", 10)]
        for changes in taken:
            assert [(one.status.value, one.filled_quantity) for one in changes] == expected


async def test_changes_begin_at_the_call_and_end_at_once_on_a_final_order() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("open", 2)
        from_here = order.changes()
        broker.send("cancelled", 3)
        assert [change.status async for change in from_here] == [OrderStatus.CANCELLED]
        assert [change async for change in order.changes()] == []


async def test_a_price_that_came_with_the_end_is_among_the_changes() -> None:
    async with FeedBroker() as broker:
        order = broker.order()
        broker.feed.go(FeedState.LIVE)
        changes = order.changes()
        broker.send("complete", 3, fldQty=10)
        broker.send("complete", 4, fldQty=10, avgPrc="39.10")
        assert [change.average_price async for change in changes] == [0.0, 39.1]


# --- over sockets -----------------------------------------------------------------------------

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


async def _eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while True:
            reservations = condition()
            if reservations if isinstance(reservations, bool) else await reservations:
                return
            await asyncio.sleep(0.01)


async def test_an_order_moves_through_its_life_without_the_book_being_asked() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        await _eventually(lambda: _count(exchange, BOOK, 1))
        order = await neo.orders.place(*BUY, **CNC)
        changes = order.changes()
        await order.wait(OrderStatus.OPEN, timeout=5)
        exchange.market.print_price(Segment.NSE_CM, "19084", 3890)
        assert await order.wait(timeout=5) is OrderStatus.COMPLETE
        assert (order.filled_quantity, order.average_price) == (10, 39.0)
        last = [change async for change in changes][-1]
        assert (last.status, last.filled_quantity) == (OrderStatus.COMPLETE, 10)
        assert await _count(exchange, BOOK, 1)


async def test_a_lost_connection_costs_one_reading_of_the_book_and_no_news() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, **CNC)
        await order.wait(OrderStatus.OPEN, timeout=5)
        await _eventually(lambda: _count(exchange, BOOK, 1))
        exchange.feeds.drop_connections("orders")
        exchange.market.print_price(Segment.NSE_CM, "19084", 3890)
        assert await order.wait(timeout=5) is OrderStatus.COMPLETE
        await _eventually(lambda: neo.order_feed.reconnects == 1)
        await _eventually(lambda: _count(exchange, BOOK, 2))


async def test_lost_late_and_repeated_messages_do_not_matter_in_the_end() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        exchange.faults.set(Faults(feed_repeat=0.3, feed_late=0.3, feed_lose=0.4))
        orders = [await neo.orders.place(*BUY, **CNC) for _ in range(10)]
        await neo.orders.modify(orders[0], quantity=20, price="39.10")
        await neo.orders.cancel(orders[1])
        exchange.market.print_price(Segment.NSE_CM, "19084", 3890)
        exchange.feeds.drop_connections("orders")
        await asyncio.gather(*(order.wait(timeout=5) for order in orders))
        rows = {row.number: row for row in await neo.orders.book()}
        for order in orders:
            row = rows[order.number]
            assert order.status is row.status
            assert (order.filled_quantity, order.quantity) == (row.filled_quantity, row.quantity)
            assert (order.average_price, float(order.price or 0)) == (row.average_price, row.price)


async def test_a_listener_that_fails_does_not_end_the_reading_of_the_book(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        orders = [await neo.orders.place(*BUY, **CNC) for _ in range(2)]
        numbers: list[str] = []
        neo._engine.on_missed_fill(lambda _: [].remove(1))
        neo._engine.on_missed_fill(lambda row: numbers.append(row.number))
        exchange.market.print_price(Segment.NSE_CM, "19084", 3890)
        await neo.orders.book()
        assert sorted(numbers) == [order.number for order in orders]
        assert all(order.is_final for order in orders)
        assert f"a listener failed on OrderRow(number='{numbers[0]}'" in caplog.text


async def test_orders_placed_with_another_client_are_followed_too() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        app = client_of(exchange, live_updates=False)
        await app.resume(neo.session)
        placed = await app.orders.place(*BUY, **CNC)
        cache = neo._engine.cache
        await _eventually(lambda: placed.number in cache.orders)
        await app.orders.cancel(placed)
        order = cache.orders[placed.number]
        assert await order.wait(timeout=5) is OrderStatus.CANCELLED
        await app.logout()


async def _count(exchange: Any, path: str, times: int) -> bool:
    return (await paths(exchange)).count(path) == times
