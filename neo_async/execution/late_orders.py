"""Late orders: placements that were reported to have no order, and whose order appears after all.

The client tags of placements that were refused, not accepted or left unresolved are watched in
every later order book and message. Where a refusal is doubtful, as that of a 429 is, order books
are read for it until the order cannot appear any more. A second order under the tag of another one
is reported as well. Each is logged as an error and handed to the listeners, once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from neo_async.base.logs import Subject, log_order
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Outcome
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.resolution import is_late, second_orders

MAX_WATCHED_TAGS = 10_000
"""Number of client tags, at most, that are watched: those of the newest placements."""

WITHOUT_ORDER = {
    Outcome.NOT_ACCEPTED: "not accepted",
    Outcome.REJECTED: "refused",
    Outcome.NOT_SENT: "refused",
    Outcome.UNRESOLVED: "of unknown outcome",
}
"""Outcomes of placements that are reported to have no order, and the log's words for them."""


class _Watched(NamedTuple):
    """A placement that was reported to have no order."""

    intent: int | None
    """Id of the placement in the journal."""
    outcome: Outcome
    """Outcome that the caller of the placement was given."""


class LateOrders:
    """Watches the client tags of placements without an order, and reports orders under them."""

    def __init__(self, cache: OrderCache, journal: Journal | None) -> None:
        self._cache = cache
        self._log = cache.log
        self._journal = journal
        self.reported: list[Order] = []
        """Late orders and second orders so far, oldest first."""
        self._listeners: list[Callable[[Order], None]] = []
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        """Placements that were reported to have no order, by client tag."""
        self._doubtful: dict[str, float] = {}
        """Times of the loop from which on the orders of doubtfully refused placements cannot appear
        any more, by client tag."""
        self._second_orders: set[str] = set()
        """Numbers of orders that have the client tag of another own order."""

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every late order."""
        self._listeners.append(listener)

    def watch(self, client_tag: str, intent: int | None, outcome: Outcome) -> None:
        """Report an order that appears under the tag of a placement whose caller takes it to have
        none; `outcome`, one of `WITHOUT_ORDER`, is what the caller was given."""
        if len(self._watched) >= MAX_WATCHED_TAGS:
            self._watched.popitem(last=False)
        self._watched[client_tag] = _Watched(intent, outcome)

    def unwatch(self, client_tag: str) -> None:
        """End the watch for a tag whose placement is in flight again."""
        self._watched.pop(client_tag, None)

    def concerns(self, client_tag: str, number: str) -> bool:
        """Return whether an order with this tag and number may be a late or a second order."""
        if client_tag in self._watched:
            return True
        known = self._cache.tags.find(client_tag)
        if known is None or known.number == number or number in self._second_orders:
            return False
        # The tags that the broker makes itself have beginnings in common: only an own order's tag
        # was given to one placement.
        other = self._cache.get(number)
        return any(
            order is not None and order.client_tag == client_tag and order.number in self._cache.own
            for order in (known, other)
        )

    def apply(self, client_tag: str, order: Order) -> None:
        """Report the order of a tag if it is a late order."""
        watched = self._watched.get(client_tag)
        if watched is None:
            return
        was_refused = watched.outcome in (Outcome.REJECTED, Outcome.NOT_SENT)
        if not is_late(order, was_refused=was_refused):
            return
        del self._watched[client_tag]
        self._doubtful.pop(client_tag, None)
        order = register_own(self._cache, order, client_tag)
        log_order(
            self._log,
            logging.ERROR,
            Subject("place", client_tag, order.number),
            "late order: the placement was reported as %s, and the order exists; if it was placed "
            "again, there are two: %r",
            WITHOUT_ORDER[watched.outcome],
            order,
        )
        if self._journal is not None and watched.intent is not None:
            self._journal.end(watched.intent, Outcome.ACCEPTED, order_number=order.number)
        self._report(order)

    def apply_second_orders(self, client_tag: str, order: Order, orders: Sequence[Order]) -> None:
        """Report every order, of those under the client tag of `order`, that should not exist."""
        for other in second_orders(order, orders):
            if other.number in self._second_orders:
                continue
            self._second_orders.add(other.number)
            log_order(
                self._log,
                logging.ERROR,
                Subject("place", client_tag, other.number),
                "second order under the client tag of order %s, which was placed once: %r",
                order.number,
                other,
            )
            self._report(register_own(self._cache, other, client_tag))

    # --- doubtful refusals ------------------------------------------------------------------------

    def doubt(self, client_tag: str, until: float) -> None:
        """Take the refusal of a watched placement for doubtful up to `until`, a loop time."""
        self._doubtful[client_tag] = until

    @property
    def doubtful_until(self) -> float | None:
        """Time of the loop from which on no order of a doubtful refusal can appear any more; None
        without any, and after an order book that was requested later."""
        return max(self._doubtful.values(), default=None)

    def end_doubts(self, until: float) -> None:
        """Drop the doubtful refusals whose orders could not appear any more at `until`."""
        self._doubtful = {tag: end for tag, end in self._doubtful.items() if end > until}

    def _report(self, order: Order) -> None:
        self.reported.append(order)
        for listener in [*self._listeners]:
            try:
                listener(order)
            except Exception:
                self._log.exception("a listener of late orders failed on %r", order)


def register_own(cache: OrderCache, order: Order, client_tag: str) -> Order:
    """Register an order as placed here, under that tag."""
    cache.retag(order, client_tag)
    return cache.add(order)
