"""Doubts that messages of the order feed leave open: the reasons to read the order book.

There are five: no message has come about an open order for a while, a final order lacks the
details of its fills, no report has shown an accepted change, a message was about an order that is
not registered, or it contradicts what is known of its order.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import msgspec

from neo_async.execution.order import Order
from neo_async.execution.terms_change import CATCHING_UP
from neo_async.model.orders import OrderRow

FILL_DETAILS_WAIT = 1.0
"""Seconds granted to the feed for the details of a fill (the price comes after the quantity)
before the book is read for them."""

EXTERNAL_ORDERS = 1000
"""Number of unregistered orders whose updates are kept."""
UPDATES_OF_AN_EXTERNAL_ORDER = 32
EXTERNAL_KEPT = 20.0
"""Seconds for which the updates of an unregistered order wait for the answer to its placement."""


class ExternalOrder(msgspec.Struct):
    """The updates of an order that is not registered."""

    since: float
    """Time of the loop at which the first of them came."""
    updates: deque[OrderRow]


class Uncertainty:
    """Doubts that only an order book can clear up, and when one has to be read for them."""

    def __init__(self, *, quiet: float) -> None:
        """A book is due when no message has come about an open order for `quiet` seconds."""
        self.quiet = quiet
        self.on_more: Callable[[], None] = _nothing
        """Called whenever `due_at` may have become earlier."""
        self.lacking: dict[str, Order] = {}
        """Final orders that lack the details of their fills, by number."""
        self.unreported: dict[str, Order] = {}
        """Orders with an accepted change that no report has shown, by number."""
        self.external: dict[str, ExternalOrder] = {}
        """Updates of orders that are not registered, or not yet: they may outrun the answer to the
        placement. By order number, oldest first."""
        self._followed_since: float | None = None
        """Time of the loop at which the order feed was started; None before."""
        self._lacking_since = 0.0
        self._unreported_since = 0.0
        self._external_since = 0.0
        self._odd_since = math.inf
        """Time of the loop since which only the order book can show what is filled of an order;
        inf when messages have shown it of all."""
        self._book_at = -math.inf
        """Time of the loop at which the last complete book had been applied."""

    @property
    def is_followed(self) -> bool:
        """Whether the order feed has been started. Before that no message can leave anything
        open."""
        return self._followed_since is not None

    def start_following(self) -> None:
        """Take into account that the order feed has been started; a second time changes nothing."""
        if self._followed_since is None:
            self._followed_since = asyncio.get_running_loop().time()

    def note_open(self, number: str) -> None:
        """Take into account that an order has become open."""
        self.lacking.pop(number, None)
        if self._followed_since is not None:
            self.on_more()

    def note_odd_fill(self, at: float) -> None:
        """Take into account a message that reports more filled than can be, at that time of the
        loop."""
        if self._odd_since == math.inf:
            self._odd_since = at
            self.on_more()

    def note_final(self, order: Order, *, is_confirmed: bool) -> None:
        """Take into account that an order is final. Its fills are complete once a book confirms
        that, whatever they lack."""
        number = order.number
        if is_confirmed or not order.lacks_fills:
            self.lacking.pop(number, None)
        elif self.is_followed and number not in self.lacking:
            self.lacking[number] = order
            self._lacking_since = asyncio.get_running_loop().time()
            self.on_more()

    def note_report(self, order: Order) -> None:
        """Take into account that a report of an order has been applied."""
        if self.unreported and order.unreported_change is None:
            self.unreported.pop(order.number, None)

    def await_report(self, order: Order) -> None:
        """Have the book read when no report shows an order's accepted change in time."""
        if not self.unreported:
            self._unreported_since = asyncio.get_running_loop().time()
        self.unreported[order.number] = order
        if self.is_followed:
            self.on_more()

    def keep(self, update: OrderRow) -> None:
        """Keep the update of an order that is not registered."""
        external = self.external.get(update.number)
        if external is None:
            now = asyncio.get_running_loop().time()
            if not self.external:
                self._external_since = now
            elif len(self.external) >= EXTERNAL_ORDERS:
                del self.external[next(iter(self.external))]
            external = ExternalOrder(now, deque(maxlen=UPDATES_OF_AN_EXTERNAL_ORDER))
            self.external[update.number] = external
            self.on_more()
        external.updates.append(update)

    def clear_by_book(self, requested_at: float, now: float) -> None:
        """Forget what a complete book has cleared up that was requested at that time of the loop
        and has been applied now."""
        if requested_at >= self._odd_since:
            self._odd_since = math.inf
        # No answer to a placement can come any more for them, and the book does not describe them.
        while self.external:
            number = next(iter(self.external))
            if self.external[number].since > now - EXTERNAL_KEPT:
                break
            del self.external[number]
        for number, order in [*self.unreported.items()]:
            change = order.unreported_change
            # What the book does not show by now is looked for no oftener than anything else.
            if change is None or requested_at >= (change.accepted_at or 0.0) + CATCHING_UP:
                del self.unreported[number]
        self._book_at = max(self._book_at, now)

    @property
    def book_at(self) -> float:
        """Time of the loop at which the last complete book had been applied."""
        return self._book_at

    def due_at(self, read_at: float, updated_at: float | None) -> float:
        """Return the time of the loop at which the order book has to be read; inf while nothing
        needs it. Its last reading ended at `read_at`, and `updated_at` is the time of the oldest
        last message about an open order, None while none is open."""
        if self._followed_since is None:
            return math.inf
        due = math.inf
        book_at = max(read_at, self._book_at)
        if updated_at is not None:
            due = min(due, max(book_at, updated_at, self._followed_since) + self.quiet)
        if self.external:
            due = min(due, max(book_at, self._external_since) + self.quiet)
        if self.lacking:
            due = min(due, max(read_at, self._lacking_since) + FILL_DETAILS_WAIT)
        if self.unreported:
            due = min(due, max(read_at, self._unreported_since) + FILL_DETAILS_WAIT)
        if self._odd_since < math.inf:
            due = min(due, max(read_at, self._odd_since) + FILL_DETAILS_WAIT)
        return due


def _nothing() -> None:
    """Do nothing: the listener where no order book is polled."""
