"""Ends orders that the broker no longer lists.

An order book that lacks an order proves nothing. But sessions end with the day, and the clocks of
both sides may disagree about that. An order is over when it was open before the broker ended the
session, no order book has had it for `ABSENT_FOR` seconds since, and it has no history.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from neo_async.errors import NeoError
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.model.orders import HistoryRow
from neo_async.session.requests import SessionRequests

ABSENT_FOR = 60.0
"""Seconds for which every order book has to lack an order before its history is read, which
shows whether the broker still has it; twice the time in which a placement may appear."""


class AbsentOrders:
    """Reads the histories of own open orders that order books have lacked for long."""

    def __init__(
        self,
        session: SessionRequests,
        cache: OrderCache,
        read_history: Callable[[Order], Coroutine[Any, Any, list[HistoryRow]]],
    ) -> None:
        self._session = session
        self._cache = cache
        self._read_history = read_history
        self._renewals = 0
        self._renewed_at = -math.inf
        """Time of the loop at which the first order book after the last renewal was requested."""
        self._task: asyncio.Task[None] | None = None

    def check(self, requested_at: float) -> None:
        """Look for such orders after a book was applied that was requested at that time of the
        loop."""
        if self._session.renewals != self._renewals:
            self._renewals, self._renewed_at = self._session.renewals, requested_at
        if self._task is not None and not self._task.done():
            return
        absent = [
            order
            for order in self._cache.absent_since(requested_at - ABSENT_FOR)
            if order.last_update_at < self._renewed_at
        ]
        if absent:
            self._task = asyncio.create_task(self._end(absent), name="absent orders")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _end(self, orders: Sequence[Order]) -> None:
        for order in orders:
            try:
                rows = await self._read_history(order)
            except NeoError as error:
                self._cache.log.warning(
                    "the history of order %s could not be read: %s", order.number, error
                )
                return
            if not rows:
                self._cache.end_absent(
                    order,
                    f"the broker has ended the session it was placed in, and for {ABSENT_FOR:g} s "
                    "neither its order book nor the order's history has known it",
                )
