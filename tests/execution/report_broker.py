"""A broker whose order books, histories and feed messages a test writes row by row."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from neo_async import Side
from neo_async.errors import ServerError
from neo_async.execution import expected_effect
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.model.orders import HistoryRow, OrderRow
from tests.simulation.virtual_time import now

RESOLUTION_TIMEOUT = 30.0
MIDNIGHT = 14 * 3600.0
"""Midnight in seconds from the start of the virtual clock, 10:00 in India."""


def row(number: int = 1, **fields: Any) -> OrderRow:
    """An open order to buy, updated at the present moment, unless the fields say otherwise."""
    defaults: dict[str, Any] = {
        "number": f"261123{number:09}",
        "status_text": "open",
        "segment": "nse_cm",
        "symbol": "ITBEES-EQ",
        "side": Side.BUY,
        "order_type": "L",
        "product": "CNC",
        "validity": "DAY",
        "quantity": 10,
        "price": 39.0,
    }
    if "updated_ns" not in fields:
        defaults["updated_ns"] = int(now() * 1e9)
    return OrderRow(**{**defaults, **fields})


def state(of: OrderRow, **fields: Any) -> HistoryRow:
    names = ("number", "status_text", "order_type", "validity", "quantity", "price", "updated_ns")
    same = {name: getattr(of, name) for name in (*names, "gui_order_id")}
    return HistoryRow(**{**same, **fields})


def placement(tag: str = "lost") -> ExpectedEffect:
    return ExpectedEffect(action="place", client_tag=tag, kind=("nse_cm", "ITBEES-EQ", "B", "CNC"))


def modification(order: Order, **terms: Any) -> ExpectedEffect:
    """A modification of an order as it is, to these terms."""
    return expected_effect.modification(order, msgspec.structs.replace(order.terms, **terms))


class Broker:
    """A broker whose order book and histories a test writes."""

    def __init__(self, *, resolution_timeout: float = RESOLUTION_TIMEOUT) -> None:
        self.rows: list[OrderRow] = []
        self.histories: dict[str, list[HistoryRow]] = {}
        self.histories_read: list[str] = []
        """Order numbers of the histories that were read."""
        self.books = 0
        self.is_down = False
        self.histories_hang = False
        self.cache = OrderCache()
        self.in_flight = InFlightOrders(
            self.cache,
            self.book,
            self.history,
            journal=None,
            resolution_timeout=resolution_timeout,
            clock=now,
        )

    async def book(self) -> list[OrderRow]:
        self.books += 1
        began = asyncio.get_running_loop().time()
        if self.is_down:
            raise ServerError("down")
        self.cache.apply(self.rows)
        self.in_flight.apply_order_book(self.rows, began)
        return self.rows

    async def history(self, number: str) -> list[HistoryRow]:
        self.histories_read.append(number)
        if self.histories_hang:
            await asyncio.Event().wait()
        return self.histories[number]

    def send_update(self, update: OrderRow) -> None:
        """A message of the order feed."""
        self.cache.on_update(update)
        self.in_flight.on_update(update)


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR]


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of three runs."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)
