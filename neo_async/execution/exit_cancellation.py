"""Cancels the orders that a client has placed when the program leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from neo_async.base.logs import Subject, log_order
from neo_async.config import OnExit
from neo_async.errors import NeoError, OrderAlreadyFinal
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.order import Order
from neo_async.system.program import is_stopping
from neo_async.wire.tags import is_exit

EXIT_SECONDS = 20.0
"""Seconds for which the exit waits for cancels and their confirmation. Service managers give a
program 30 s or more between SIGTERM and SIGKILL (systemd 90 s, Kubernetes 30 s)."""

_BOOK_SECONDS = 2.0
"""Seconds for which an exit by a signal waits for the order book."""
_LOOK_SECONDS = 0.5
"""Seconds between two readings of the order book, which shows what is still open."""
_REPEAT_SECONDS = 3.0
"""Seconds after which an order that is still open is cancelled once more."""


async def leave(engine: ExecutionEngine, on_exit: OnExit) -> None:
    """Do with the open orders of a client what is set for its end."""
    if not engine.is_logged_in:
        return
    if on_exit is not OnExit.LEAVE:
        await cancel_own_orders(engine)
        return
    if engine.open_own_orders and is_stopping():
        # The line that the program ends with must not count what was cancelled a moment ago.
        with contextlib.suppress(NeoError, TimeoutError):
            async with asyncio.timeout(_BOOK_SECONDS):
                await engine.read_order_book()
    if orders := engine.open_own_orders:
        engine.cache.log.info(
            "exit: by the last reports %d orders are open at the broker", len(orders)
        )


async def cancel_own_orders(engine: ExecutionEngine, *, timeout: float = EXIT_SECONDS) -> None:
    """Cancel the open orders that were placed here, and wait up to `timeout` seconds until each is
    reported as final; log the result. Orders of other applications are left alone.

    A placement whose outcome is unknown is waited for as well: its order is cancelled when it
    appears. Raises nothing but CancelledError.
    """
    canceller = _Canceller(engine)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await canceller.run()
    canceller.report(timeout)


class _Canceller:
    def __init__(self, engine: ExecutionEngine) -> None:
        self._engine = engine
        self._log = engine.cache.log
        self._seen: dict[str, Order] = {}
        """Orders that were open, by number."""
        self._due_at: dict[str, float] = {}
        """Times of the loop from which orders are cancelled once more, by number."""
        self._problems: dict[str, str] = {}
        """Why the last cancel of an order failed, by number."""

    async def run(self) -> None:
        """Cancel until nothing is open and nothing of this client can become an order."""
        while True:
            orders = self._open_orders()
            if not orders and not self._unknown_placements():
                return
            now = asyncio.get_running_loop().time()
            due = [order for order in orders if self._due_at.get(order.number, now) <= now]
            self._due_at |= dict.fromkeys((order.number for order in due), now + _REPEAT_SECONDS)
            await asyncio.gather(*map(self._cancel, due))
            self._engine.request_order_book()
            await asyncio.sleep(_LOOK_SECONDS)

    def report(self, timeout: float) -> None:
        """Log what was cancelled, and what may still be open."""
        left, unknown = self._open_orders(), self._unknown_placements()
        if not left and not unknown:
            if self._seen:
                self._log.info("exit: %d open orders were cancelled or filled", len(self._seen))
            return
        for order in left:
            problem = self._problems.get(order.number, "no report that it is cancelled")
            subject = Subject("cancel", order.client_tag, order.number)
            log_order(self._log, logging.ERROR, subject, "exit: it may still be open: %s", problem)
        self._log.error(
            "exit: after %.0f s %d of %d orders may still be open, and the outcome of %d "
            "placements is unknown",
            timeout,
            len(left),
            len(self._seen),
            unknown,
        )

    def _open_orders(self) -> list[Order]:
        orders = [order for order in self._engine.open_own_orders if not is_exit(order.client_tag)]
        self._seen |= {order.number: order for order in orders}
        return orders

    def _unknown_placements(self) -> int:
        requests = self._engine.in_flight_requests
        return sum(request.expected.action == "place" for request in requests)

    async def _cancel(self, order: Order) -> None:
        try:
            await self._engine.cancel(order, wait_for_outcome=False)
        except OrderAlreadyFinal:
            pass
        except NeoError as error:
            self._problems[order.number] = str(error)
        else:
            self._problems.pop(order.number, None)
