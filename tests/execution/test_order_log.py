"""What the log says of an order's life: each thing once, with its fields, and readable alone."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from neo_async import NeoClient, Order, OrderStatus, OrderType, Product, Segment, Side
from neo_async.exchange import Exchange
from tests.clients import PLACE, client_of, exchange_of
from tests.fake_servers import Late, Reply, fault_proxy

ITBEES = (Segment.NSE_CM, "ITBEES-EQ")
CNC: dict[str, Any] = {"product": Product.CNC}


class Lines(logging.Handler):
    """The lines about orders at INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def about(self, order: Order | str) -> list[Any]:
        number = order if isinstance(order, str) else order.number
        return [one for one in self.records if getattr(one, "order_number", "") == number]

    def texts(self, order: Order) -> list[str]:
        subject = f" of order {order.number}, tag {order.client_tag!r}"
        return [
            one.getMessage().removeprefix(f"{one.ucc}: ").replace(subject, "")
            for one in self.about(order)
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    log, handler = logging.getLogger("neo_async.orders"), Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


async def settled(neo: NeoClient) -> None:
    """Let the feed's messages come, and have the order book confirm them."""
    await asyncio.sleep(1.0)
    await neo.orders.book()
    await neo.orders.book()


async def sold_to(exchange: Exchange, quantity: int, price: str) -> None:
    """Have another account sell, which fills what rests at that price."""
    other = exchange.accounts[1]
    async with client_of(exchange, credentials=other, live_updates=False) as seller:
        await seller.orders.place(*ITBEES, Side.SELL, quantity, price=price, product=Product.MIS)


async def test_each_partial_fill_is_one_line_whichever_report_shows_it(lines: Lines) -> None:
    async with exchange_of(accounts=2) as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*ITBEES, Side.BUY, 10, price="39.00", **CNC, tag="mine")
        await settled(neo)
        await sold_to(exchange, 4, "39.00")
        await settled(neo)
        await sold_to(exchange, 6, "39.00")
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await settled(neo)
        assert lines.texts(order) == [
            "report: open, BUY 10 ITBEES-EQ at 39.00",
            "fill: BUY 4 ITBEES-EQ, average price 39, 4 of 10 filled",
            "fill: BUY 6 ITBEES-EQ, average price 39, 10 of 10 filled",
        ]
        first = lines.about(order)[1]
        assert (first.ucc, first.levelno) == (exchange.credentials.ucc, logging.INFO)
        expected = {
            "client_tag": order.client_tag,
            "symbol": "ITBEES-EQ",
            "side": "B",
            "quantity": 10,
            "filled": 4,
            "fill_quantity": 4,
            "price": 39.0,
            "average_price": 39.0,
            "reason": "",
            "external": False,
        }
        assert {name: getattr(first, name) for name in expected} == expected


async def test_without_a_feed_the_book_gives_the_same_lines(lines: Lines) -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        order = await neo.orders.place(*ITBEES, Side.BUY, 10, price="39.00", **CNC)
        await sold_to(exchange, 4, "39.00")
        await settled(neo)
        await neo.orders.cancel(order)
        await settled(neo)
        assert lines.texts(order) == [
            "report: open, BUY 10 ITBEES-EQ at 39.00",
            "fill: BUY 4 ITBEES-EQ, average price 39, 4 of 10 filled",
            "cancellation: BUY 10 ITBEES-EQ at 39.00, 4 of 10 filled",
        ]
        assert lines.about(order)[-1].status == "cancelled"


async def test_a_refusal_after_the_placement_is_a_line_with_its_reason(lines: Lines) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*ITBEES, Side.BUY, 2_000_000, price="39.00", **CNC)
        assert await order.wait(timeout=5) is OrderStatus.REJECTED
        await settled(neo)
        (text,) = lines.texts(order)
        assert text == f"rejection: BUY 2000000 ITBEES-EQ at 39.00: {order.reject_reason}"
        (record,) = lines.about(order)
        assert (record.status, record.reason) == ("rejected", order.reject_reason)
        assert record.reason


async def test_a_change_is_a_line_with_what_it_changed(lines: Lines) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*ITBEES, Side.BUY, 10, price="39.00", **CNC)
        await settled(neo)
        await neo.orders.modify(order, price="39.05", quantity=12)
        await settled(neo)
        await neo.orders.cancel(order)
        await settled(neo)
        assert lines.texts(order) == [
            "report: open, BUY 10 ITBEES-EQ at 39.00",
            "modification: quantity 10 -> 12, price 39.00 -> 39.05",
            "cancellation: BUY 12 ITBEES-EQ at 39.05, 0 of 12 filled",
        ]


async def test_a_market_order_shows_the_limit_that_the_broker_gave_it(lines: Lines) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*ITBEES, Side.BUY, 5, order_type=OrderType.MARKET, **CNC)
        await settled(neo)
        change = next(text for text in lines.texts(order) if text.startswith("modification: "))
        assert change.startswith("modification: price none -> ")
        assert "order type MKT -> L" in change


async def test_orders_of_other_applications_are_marked_and_own_ones_are_not(lines: Lines) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        async with client_of(exchange, live_updates=False) as other:
            theirs = await other.orders.place(*ITBEES, Side.BUY, 5, price="39.00", **CNC)
            await asyncio.sleep(1.0)
            await other.orders.cancel(theirs)
        own = await neo.orders.place(*ITBEES, Side.BUY, 5, price="39.00", **CNC)
        await settled(neo)
    # Both clients have one account and one log: the second knows the order as its own.
    marked = [one for one in lines.about(theirs) if one.external]
    assert [one.action for one in marked] == ["report", "cancellation"]
    assert "external order, " in marked[-1].getMessage()
    assert not any(one.external for one in lines.about(own))
    assert lines.about(own)


async def test_an_order_whose_report_comes_before_its_answer_is_no_external_one(
    lines: Lines,
) -> None:
    def slow(path: str, status: int, body: bytes) -> Late | None:
        return Late(2.0, Reply(body)) if path == PLACE else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, slow) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        await neo.order_feed.until_live()
        placing = asyncio.create_task(
            neo.orders.place(*ITBEES, Side.BUY, 5, price="39.00", **CNC, tag="mine")
        )
        await asyncio.sleep(1.0)
        assert not placing.done()
        (early,) = [one for one in lines.records if "report of" in one.getMessage()]
        assert early.external is False
        order = await placing
        assert early.order_number == order.number


async def test_the_lines_of_two_accounts_can_be_distinguished(lines: Lines) -> None:
    async with exchange_of(accounts=2) as exchange:
        one, two = exchange.accounts[:2]
        async with client_of(exchange) as first, client_of(exchange, credentials=two) as second:
            for neo in (first, second):
                await neo.order_feed.until_live()
                await neo.orders.place(
                    *ITBEES, Side.BUY, 5, price="39.00", product=Product.MIS, tag="same"
                )
                await settled(neo)
        assert {record.ucc for record in lines.records} == {one.ucc, two.ucc}
        for record in lines.records:
            assert record.getMessage().startswith(f"{record.ucc}: ")


async def test_nothing_is_made_for_a_log_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        "neo_async.execution.order_log.log_order", lambda *args, **kwargs: made.append("line")
    )
    monkeypatch.setattr(
        "neo_async.execution.order_log._events", lambda *args: made.append("events") or []
    )
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*ITBEES, Side.BUY, 10, price="39.00", **CNC)
        await neo.orders.modify(order, price="39.05")
        await neo.orders.cancel(order)
        await settled(neo)
    assert order.is_final
    assert made == []


async def test_a_formatter_of_json_finds_every_field() -> None:
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), structlog.stdlib.add_log_level],
            processor=structlog.processors.JSONRenderer(),
        )
    )
    log = logging.getLogger("neo_async")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with exchange_of() as exchange, client_of(exchange) as neo:
            await neo.order_feed.until_live()
            await neo.orders.place(*ITBEES, Side.BUY, 2_000_000, price="39.00", **CNC, tag="mine")
            await settled(neo)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = [one for one in lines if one.get("action") == "rejection"]
    assert line["ucc"] == exchange.credentials.ucc
    assert (line["symbol"], line["side"], line["price"]) == ("ITBEES-EQ", "B", 39.0)
    assert line["reason"]
    assert line["level"] == "info"
