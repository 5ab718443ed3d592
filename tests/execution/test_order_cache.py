"""Orders as they live: reports come late, twice and in any order; a state never moves back."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    OrderRow,
    OrderStatus,
    OrderType,
    Product,
    ProtocolError,
    Segment,
    Side,
    Validity,
)
from neo_async.base import logs
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.order_log import OrderLog
from neo_async.model.feed_state import FeedState
from neo_async.model.orders import exact_price
from neo_async.model.updates import OrderUpdate
from neo_async.wire.reports import read_order_book
from tests.execution.feed_broker import (
    QUANTITY,
    QUIET,
    STAGES,
    FeedBroker,
    book_of,
    order_of,
    row,
    state,
    unread,
)


@st.composite
def lives(draw: st.DrawFn) -> list[OrderRow]:
    """What a broker reports of one order, oldest first."""
    texts = ["put order req received", "validation pending", "open pending"]
    end = draw(st.sampled_from(["open", "complete", "cancelled", "rejected"]))
    rows = [(text, 0, 0.0) for text in texts]
    if end == "rejected":
        rows.append((end, 0, 0.0))
    else:
        rows.append(("open", 0, 0.0))
        steps = draw(st.lists(st.integers(1, QUANTITY - 1), max_size=4, unique=True))
        filled = sorted(steps)
        for quantity in filled:
            if draw(st.booleans()):  # the price comes later than the quantity
                rows.append(("open", quantity, 0.0))
            rows.append(("open", quantity, 39.0 + quantity / 100))
        if end == "complete":
            rows += [("complete", QUANTITY, 0.0), ("complete", QUANTITY, 39.5)]
        elif end == "cancelled":
            last = filled[-1] if filled else 0
            rows.append(("cancelled", last, 39.0 + last / 100 if last else 0.0))
    return [row(*facts, at=at) for at, facts in enumerate(rows, start=1)]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[OrderRow], list[OrderRow]]:
    """A life, and its rows as they arrive: all of them, shuffled, some more than once."""
    life = draw(lives())
    again = draw(st.lists(st.sampled_from(life), max_size=5))
    return life, draw(st.permutations(life + again))


@given(deliveries())
def test_however_reports_arrive_the_end_is_the_same_and_nothing_moves_back(
    delivery: tuple[list[OrderRow], list[OrderRow]],
) -> None:
    life, arriving = delivery
    in_order, order = order_of(), order_of()
    for one in life:
        in_order.apply(one)
    seen: list[tuple[OrderStatus, int, int]] = []
    for one in arriving:
        order.apply(one)
        seen.append((order.status, order.filled_quantity, order.updated_ns))
    for before, after in itertools.pairwise(seen):
        assert after[1] >= before[1]
        assert after[2] >= before[2]
        assert not before[0].is_final or after[0] is before[0]
    assert (order.status, order.filled_quantity) == (in_order.status, in_order.filled_quantity)
    assert order.status.value == life[-1].status_text
    if life[-1].average_price:
        assert order.average_price == life[-1].average_price
    assert [change.filled_quantity for change in order.history] == sorted(
        change.filled_quantity for change in order.history
    )


@given(lives())
def test_the_same_report_again_is_no_news(life: list[OrderRow]) -> None:
    order = order_of()
    for one in life:
        order.apply(one)
        length = len(order.history)
        assert not order.apply(one)
        assert len(order.history) == length


def test_every_state_is_kept_with_its_time() -> None:
    order = order_of()
    order.apply(row("open", at=5))
    order.apply(row("open", 4, 39.0, at=6))
    order.apply(row("complete", 10, 39.1, at=9))
    first, *others = order.history
    assert (first.status, first.filled_quantity) == (OrderStatus.PUT_RECEIVED, 0)
    assert [
        (change.status.value, change.filled_quantity, change.updated_ns) for change in others
    ] == [("open", 0, 5), ("open", 4, 6), ("complete", 10, 9)]
    assert order.pending_quantity == 0


def test_a_price_that_comes_after_the_fill_is_taken_and_not_lost() -> None:
    order = order_of()
    order.apply(row("complete", 10, 0.0, at=3))
    assert (order.filled_quantity, order.average_price) == (10, 0.0)
    assert order.apply(row("complete", 10, 39.2, at=4))
    assert not order.apply(row("complete", 10, 0.0, at=4))
    assert order.average_price == 39.2


def test_terms_follow_the_newest_report_only() -> None:
    order = order_of()
    order.apply(row("open", at=7, quantity=30, price=39.4, disclosed_quantity=5))
    order.apply(row("open", at=6))
    assert (order.quantity, order.price, order.disclosed_quantity) == (30, Decimal("39.40"), 5)


def test_a_market_order_shows_the_limit_that_the_broker_gave_it() -> None:
    order = order_of(order_type=OrderType.MARKET, price=None)
    order.apply(row("open", at=2, price=40.18))
    assert (order.order_type, order.price) == (OrderType.LIMIT, Decimal("40.18"))


def test_a_rejection_carries_its_reason() -> None:
    order = order_of()
    order.apply(row("rejected", reject_text="RMS:Margin Exceeds "))
    assert (order.reject_reason, order.is_final) == ("RMS:Margin Exceeds", True)


def test_an_unknown_status_is_logged_once_with_the_brokers_text_and_is_not_final(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = OrderLog(logging.getLogger(logs.ORDERS), lambda order: False)
    order = order_of(OrderCache(observer=log))
    order.apply(row("open", 4, 39.0, at=2))
    order.apply(row("frozen by surveillance", 4, 39.0, at=3))
    order.apply(row("frozen by surveillance", 4, 39.0, at=4))
    assert (order.status, order.status_text) == (OrderStatus.UNKNOWN, "frozen by surveillance")
    assert (order.is_final, order.pending_quantity) == (False, 6)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "'frozen by surveillance'" in warnings[0].getMessage()
    order.apply(row("complete", 10, 39.0, at=5))
    assert order.status is OrderStatus.COMPLETE


def test_a_row_of_an_external_order_is_registered_as_an_order() -> None:
    cache = OrderCache()
    external = row(
        "trigger pending",
        at=8,
        number="77",
        segment=Segment.NSE_FO,
        symbol="NIFTY26DECFUT",
        side=Side.SELL,
        product=Product.NRML,
        validity=Validity.DAY,
        order_type=OrderType.SL,
        trigger=24_000.0,
        price=23_990.0,
        gui_order_id="grid_abc1230007",
        generated_type="AMO",
    )
    order = cache.register(external)
    assert cache.get("77") is cache.register(external) is order
    assert (order.segment, order.side, order.product) == (Segment.NSE_FO, Side.SELL, Product.NRML)
    assert (order.status, order.trigger, order.tag) == (
        OrderStatus.TRIGGER_PENDING,
        24_000,
        "grid",
    )
    assert order.amo
    assert "77 SELL 10 NIFTY26DECFUT @ 23990.00 SL NRML: trigger pending" in repr(order)
    odd = cache.register(msgspec.structs.replace(external, number="78", side=Side.read("?")))
    assert "78 ? 10" in repr(odd)


# --- what is shown, and what cannot be read ---------------------------------------------------


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        (Decimal("39.5"), "@ 39.5 "),
        (39.5, "@ 39.50 "),
        (83.1025, "@ 83.1025 "),
        (Decimal(39), "@ 39 "),
    ],
)
def test_prices_of_the_broker_are_shown_as_rupees(price: Decimal | float, shown: str) -> None:
    order = order_of()
    if isinstance(price, float):
        order.apply(row("open", price=price))
        assert order.price == Decimal(str(price))
    else:
        order = order_of(price=price)
    assert shown in repr(order)


@given(st.integers(1, 10**12))
def test_a_reported_price_equals_the_same_price_as_text(ten_thousandths: int) -> None:
    price = Decimal(ten_thousandths) / 10_000
    reported = exact_price(float(price))
    assert reported == price
    assert len(str(reported).partition(".")[2]) in (2, 3, 4)


def test_a_row_without_a_number_makes_no_order() -> None:
    cache = OrderCache()
    nameless = unread("open", "number")
    cache.apply([nameless, nameless], registers_open=True)
    assert not cache.orders
    with pytest.raises(ProtocolError, match="no order number"):
        cache.register(nameless)


def test_the_fill_of_an_order_registered_as_filled_is_reported_as_missed_once() -> None:
    missed: list[str] = []
    cache = OrderCache(on_missed_fill=lambda each: missed.append(each.number))
    cache.register(row("complete", QUANTITY, 39.0, at=2))
    cache.register(row("complete", QUANTITY, 39.0, at=2))
    assert missed == [row("open").number]


@pytest.mark.parametrize(("changed", "most"), [(None, 10), (4, 10), (15, 15)])
def test_no_message_fills_more_than_the_order_has_or_a_change_under_way_gives_it(
    changed: int | None, most: int
) -> None:
    def after(filled: int, quantity: int) -> int:
        order = order_of(quantity=10)
        if changed is not None:
            order.begin_change(msgspec.structs.replace(order.terms, quantity=changed))
        fields = {name: getattr(row("open"), name) for name in OrderRow.__struct_fields__}
        order.apply(OrderUpdate(**fields | {"filled_quantity": filled, "quantity": quantity}))
        return order.filled_quantity

    for quantity in (0, most, 10**12):
        assert after(most, quantity) == most
        assert after(most + 1, quantity) == 0
        assert after(10**12, quantity) == 0


async def test_a_fill_that_only_the_book_shows_is_reported_as_missed() -> None:
    async with FeedBroker() as broker:
        broker.order()
        broker.feed.go(FeedState.LIVE)
        broker.send("open", 2, fldQty=2, avgPrc="39.00")
        await asyncio.sleep(1)
        assert broker.missed_fills == []
        broker.book = [state("open", 3, fldQty=4, avgPrc="39.00")]
        await asyncio.sleep(2 * QUIET + 1)
        assert broker.missed_fills == [("1", pytest.approx(QUIET))]


async def test_messages_that_arrive_before_the_answer_to_the_placement_are_applied() -> None:
    for partial in (False, True):
        async with FeedBroker() as broker:
            broker.feed.go(FeedState.LIVE)
            for at, status in enumerate([*STAGES, "complete"], start=1):
                row = state(status, at)
                if status == "complete":
                    row |= {"fldQty": 10, "avgPrc": "39.00"}
                if partial:
                    del row["prc"], row["trnsTp"]
                broker.feed.send("order", row)
            order = broker.order(client_tag="other_xyz")
            assert broker.cache.get("1") is order
            assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 10)
            assert (order.average_price, order.tag) == (39.0, "other")
            assert await order.wait() is OrderStatus.COMPLETE
            assert (order.side, order.price) == (Side.BUY, 39)
            assert broker.cache.orders == {"1": order}


async def test_an_external_order_is_registered_from_the_feed() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        broker.send("open", 2, nOrdNo="77", trnsTp="S", vldt="GTC", fldQty=3, avgPrc="39.10")
        order = broker.cache.orders["77"]
        assert (order.side, order.validity, order.status) == (Side.SELL, "GTC", OrderStatus.OPEN)
        assert (order.filled_quantity, order.average_price, order.price) == (3, 39.1, 39)
        waiting = asyncio.create_task(order.wait())
        await asyncio.sleep(0)
        broker.send("cancelled", 3, nOrdNo="77", fldQty=3, avgPrc="39.10")
        assert await waiting is OrderStatus.CANCELLED


def test_an_order_is_found_by_its_tag_after_retagging_and_until_it_is_dropped() -> None:
    cache = OrderCache(kept=2)
    order = order_of(cache, client_tag="own_abc1230000")
    assert cache.tags.find("own_abc1230000") is order
    assert cache.tags.find("own_abc1230000-17") is order
    assert cache.tags.find("") is None
    cache.retag(order, "own_abc1230001")
    assert cache.tags.find("own_abc1230000") is None
    assert cache.tags.find("own_abc1230001") is order
    second = order_of(cache, number="2", client_tag="own_abc1230001")
    assert cache.tags.find("own_abc1230001") is order
    cache.retag(second, "own_abc1230002")
    assert cache.tags.find("own_abc1230001") is order
    cache.apply([row("complete", QUANTITY, 39.0)])
    for number in ("3", "4", "5"):
        order_of(cache, number=number, client_tag=f"other{number}")
        cache.apply([row("complete", QUANTITY, 39.0, number=number)])
    assert cache.tags.find("own_abc1230001") is None


async def test_final_orders_leave_the_memory_and_held_objects_stay_right() -> None:
    async with FeedBroker() as broker:
        cache = OrderCache(kept=5)
        broker.use(cache)
        broker.feed.go(FeedState.LIVE)
        held = broker.order()
        broker.send("cancelled", 5)
        for number in range(2, 30):
            broker.order(number=str(number), client_tag=f"tag{number}_x")
            broker.send("complete", 5, nOrdNo=str(number), fldQty=10, avgPrc="39.00")
        gc.collect()
        resting = broker.order(number="99", client_tag="tag99")
        assert len(cache.orders) == 5 + 1
        assert cache.get("2") is None
        assert cache.get("1") is held
        # What comes late of those that are forgotten makes no order of them.
        broker.send("open", 3, nOrdNo="2")
        assert cache.open_orders == [resting]
        # A correction reaches the object that the program holds, and the order is open again.
        broker.send("open", 6)
        assert held.status is OrderStatus.OPEN
        assert cache.open_orders == [resting, held]
        assert cache.orders["1"] is held
        assert cache.tags.find(held.client_tag) is held
        broker.send("complete", 7, fldQty=10, avgPrc="39.00")
        assert cache.open_orders == [resting]
        # A book that still shows an unregistered order as open counts for a search for it.
        cache.register(row("open", number="3", at=9))
        assert [order.number for order in cache.open_orders] == ["99", "3"]


def test_final_orders_beyond_the_number_that_is_kept_are_dropped() -> None:
    cache = OrderCache(kept=100)
    for number in range(3000):
        order_of(cache, number=str(number), client_tag=f"tag{number}_x")
        cache.apply([row("complete", QUANTITY, 39.0, number=str(number))])
    gc.collect()
    assert len(cache.orders) == len(cache._final) == 100
    assert len(cache.tags._by_tag) == len(list(cache.tags.own_tags)) == 100
    assert len(cache._held_elsewhere) == 0


async def test_a_message_between_two_slices_of_a_book_is_not_undone() -> None:
    async with FeedBroker() as broker:
        broker.feed.go(FeedState.LIVE)
        cache = broker.cache
        answer = book_of(1000)
        last = broker.order(number="261123000000999")
        applying = asyncio.create_task(cache.apply_in_slices(read_order_book(answer)))
        await asyncio.sleep(0)
        broker.send("complete", 2, nOrdNo=last.number, fldQty=10, avgPrc="39.00")
        await applying
        assert (last.status, last.filled_quantity) == (OrderStatus.COMPLETE, 10)
