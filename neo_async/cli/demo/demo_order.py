"""An order of the demo, and the states that it has been seen in."""

from __future__ import annotations

import time

from neo_async.errors import NeoError
from neo_async.execution.order import Order
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import OrderRequest

_SHORT = {
    OrderStatus.PUT_RECEIVED: "accepted",
    OrderStatus.VALIDATION_PENDING: "validating",
    OrderStatus.OPEN_PENDING: "pending",
    OrderStatus.TRIGGER_PENDING: "waits for trigger",
}
"""States whose names are too long for a table."""


class DemoOrder:
    """An order of the demo, from its request to its final state."""

    def __init__(self, request: OrderRequest) -> None:
        self.request = request
        self.order: Order | None = None
        self.error: NeoError | None = None
        self.trail = ["queued"]
        """States that were seen of it, oldest first."""
        self.changed_at = time.perf_counter()
        self._last: tuple[OrderStatus, int] | None = None

    @property
    def state(self) -> str:
        """Present state of the order."""
        return self.trail[-1] if self.order is None else _short(self.order.status)

    def note(self, text: str) -> None:
        """Add an event of the client's to the trail."""
        self.trail.append(text)
        self.changed_at = time.perf_counter()

    def update(self) -> None:
        """Add a state that was not seen before to the trail."""
        if self.order is None:
            return
        seen = (self.order.status, self.order.filled_quantity)
        if seen == self._last:
            return
        self._last = seen
        self.changed_at = time.perf_counter()
        text = _short(seen[0])
        if self.trail == ["queued"]:
            self.trail = [text]
        elif self.trail[-1] != text:
            self.trail.append(text)

    @property
    def filled(self) -> int:
        """Filled quantity."""
        return 0 if self.order is None else self.order.filled_quantity


def _short(status: OrderStatus) -> str:
    return _SHORT.get(status, status.value)
