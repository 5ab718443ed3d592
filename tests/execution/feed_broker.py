"""A broker whose order feed and order book a test writes, and its order cache."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import msgspec

from neo_async import (
    Order,
    OrderRow,
    OrderType,
    Product,
    Segment,
    Side,
)
from neo_async.base import logs
from neo_async.execution.order import OrderChange
from neo_async.execution.order_book_poller import OrderBookPoller
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.order_log import OrderLog
from neo_async.model.answer import Answer
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.orders import OrderTerms
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.wire.order_feed import read_message

Wire = dict[str, Any]
"""A message or row in the fields of the wire."""

OK = {"stat": "Ok", "stCode": 200}
QUIET = 15.0
"""Seconds without a message about an open order after which the book is read."""
POLL = 0.5
"""Seconds between two readings of the book without a live feed."""
STAGES = ["put order req received", "validation pending", "open pending", "open"]
QUANTITY = 10
TERMS = OrderTerms(
    segment=Segment.NSE_CM,
    symbol="ITBEES-EQ",
    side=Side.BUY,
    product=Product.CNC,
    order_type=OrderType.LIMIT,
    quantity=QUANTITY,
    price=Decimal("39.00"),
)


def order_of(
    cache: OrderCache | None = None,
    *,
    number: str = "1",
    client_tag: str = "own_abc1230000",
    **terms: Any,
) -> Order:
    """An order as `place` makes it from the answer, registered."""
    cache = cache or OrderCache()
    order = Order(number, msgspec.structs.replace(TERMS, **terms), client_tag=client_tag)
    return cache.add(order)


def row(
    status: str, filled: int = 0, average: float = 0.0, *, at: int = 1, **facts: Any
) -> OrderRow:
    fields: dict[str, Any] = {
        "number": "1",
        "status_text": status,
        "quantity": QUANTITY,
        "filled_quantity": filled,
        "average_price": average,
        "updated_ns": at,
        "order_type": "L",
        "price": 39.0,
    }
    return OrderRow(**fields | facts)


def unread(status: str, *names: str, **facts: Any) -> OrderRow:
    """A row of an order book whose fields of these names cannot be read."""
    blank: dict[str, Any] = {
        name: type(value)() for name in names if (value := getattr(row(status), name)) is not None
    }
    return msgspec.structs.replace(row(status), missing=frozenset(names), **blank | facts)


class Feed:
    """An order feed whose states and messages a test sends."""

    def __init__(self) -> None:
        self.is_live = False
        self.starts = 0
        self._subscribers: list[Callable[[OrderRow | PositionUpdate], None]] = []
        self._event_listeners: list[Callable[[FeedEvent], None]] = []

    def start(self) -> None:
        self.starts += 1

    def subscribe(self, on_update: Callable[[OrderRow | PositionUpdate], None], /) -> None:
        self._subscribers.append(on_update)

    def on_event(self, listener: Callable[[FeedEvent], None], /) -> None:
        self._event_listeners.append(listener)

    def go(self, state: FeedState) -> None:
        self.is_live = state is FeedState.LIVE
        for listener in self._event_listeners:
            listener(FeedEvent(state, "", 0.0))

    def send(self, kind: str, data: Wire) -> None:
        update = read_message(json.dumps({"type": kind, "data": data}))
        assert isinstance(update, OrderUpdate | PositionUpdate)
        for on_update in self._subscribers:
            on_update(update)


def state(status: str, at: int, **facts: Any) -> Wire:
    """A complete row of an order, in the fields of the wire."""
    return {
        "nOrdNo": "1",
        "ordSt": status,
        "exSeg": "nse_cm",
        "trdSym": "ITBEES-EQ",
        "trnsTp": "B",
        "prcTp": "L",
        "prod": "CNC",
        "vldt": "DAY",
        "qty": 10,
        "fldQty": 0,
        "dscQty": 0,
        "prc": "39.00",
        "trgPrc": "0.00",
        "avgPrc": "0.00",
        "rejRsn": "--",
        "updRecvTm": at,
        "GuiOrdId": "own_abc1230000",
    } | facts


class FeedBroker:
    """An order cache between a feed and a book that takes `latency` seconds to read."""

    def __init__(self, *, latency: float = 0.0) -> None:
        self.feed = Feed()
        self.book: list[Wire] = []
        self.failures: list[Exception] = []
        self.reads: list[float] = []
        """Times of the loop at which the readings of the book began."""
        self.in_flight = self.most_in_flight = 0
        self._latency = latency
        self.day = ""
        self.missed_fills: list[tuple[str, float]] = []
        """Order numbers of the rows that were reported as missed fills, with the loop's times."""
        observer = OrderLog(logging.getLogger(logs.ORDERS), lambda order: False)
        self.use(OrderCache(quiet=QUIET, on_missed_fill=self._note_missed_fill, observer=observer))

    def use(self, cache: OrderCache) -> None:
        """Apply feed and book to this cache."""
        self.cache = cache
        self.poller = OrderBookPoller(cache, self._read, interval=POLL)
        self.feed.subscribe(cache.on_update)
        self.poller.attach(self.feed)

    def _note_missed_fill(self, row: OrderRow) -> None:
        self.missed_fills.append((row.number, asyncio.get_running_loop().time()))

    def order(self, **changes: Any) -> Order:
        """Register an order as `place` does when its answer arrives."""
        return order_of(self.cache, **changes)

    def send(self, status: str, at: int, **facts: Any) -> None:
        self.feed.send("order", state(status, at, **facts))

    async def __aenter__(self) -> FeedBroker:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.poller.close()

    async def _read(self) -> None:
        requested_at = asyncio.get_running_loop().time()
        self.reads.append(requested_at)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        rows = [dict(row) for row in self.book]  # as it stands when the request arrives
        try:
            await asyncio.sleep(self._latency)
            if self.failures:
                raise self.failures.pop(0)
            updates = [read_message(json.dumps({"type": "order", "data": row})) for row in rows]
        finally:
            self.in_flight -= 1
        self.cache.apply(
            [_as_book_row(update) for update in updates], requested_at=requested_at, day=self.day
        )


def _as_book_row(update: object) -> OrderRow:
    assert isinstance(update, OrderUpdate)
    return OrderRow(**{name: getattr(update, name) for name in OrderRow.__struct_fields__})


async def collect(changes: AsyncIterator[OrderChange], into: list[OrderChange]) -> None:
    async for change in changes:
        into.append(change)  # noqa: PERF401 - one by one, as they come


def book_of(count: int) -> Answer:
    rows = [
        state("open", 1, nOrdNo=f"261123{number:09d}", GuiOrdId=f"tag{number}")
        for number in range(count)
    ]
    return Answer(200, {"x": "y"}, msgspec.json.encode({**OK, "data": rows}))
