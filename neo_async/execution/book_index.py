"""Order books, indexed for the requests in flight: the rows about one, the orders that a book
lacks, and the time at which an order was first in one."""

from __future__ import annotations

from collections.abc import Sequence

from neo_async.execution.in_flight_request import InFlightRequest, RequestIndex
from neo_async.execution.late_orders import LateOrders
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.resolution import BookCompleteness, candidates
from neo_async.model.orders import OrderRow
from neo_async.wire.tags import without_suffix


class BookIndex:
    """Indexes every order book by what the requests in flight and the late orders are about."""

    def __init__(self, cache: OrderCache, requests: RequestIndex, late_orders: LateOrders) -> None:
        self._cache = cache
        self._requests = requests
        self._late_orders = late_orders
        self._completeness = BookCompleteness()
        self.nameless: list[OrderRow] = []
        """Rows of the last book that have no order number: their histories cannot be read."""
        self._first_seen_at: dict[str, float] = {}
        """Times of the loop at which a book first showed an order, by order number."""

    def add(
        self, rows: list[OrderRow], now: float
    ) -> tuple[dict[str, OrderRow], dict[str, list[OrderRow]]]:
        """Return the rows of orders that are to be changed, by order number, and the rows whose
        tags are of concern, by tag. Every row is visited once, however much is in flight."""
        self._completeness.add(rows)
        changed: dict[str, OrderRow] = {}
        tagged: dict[str, list[OrderRow]] = {}
        changes, first_seen_at = self._requests.changes, self._first_seen_at
        self.nameless = [row for row in rows if not row.has_number]
        for row in self.nameless:
            # The order exists, but no number leads to it.
            for request in self._requests.placements.get(without_suffix(row.gui_order_id), ()):
                request.is_proven = True
        for row in rows:
            number = row.number
            first_seen_at.setdefault(number, now)
            if number in changes:
                changed[number] = row
            if row.gui_order_id and row.has_number:
                tag = without_suffix(row.gui_order_id)
                if self.concerns_tag(tag, number):
                    tagged.setdefault(tag, []).append(row)
        if len(first_seen_at) > 2 * len(rows) + 1000:
            self._first_seen_at = {row.number: first_seen_at[row.number] for row in rows}
        return changed, tagged

    def concerns_tag(self, tag: str, number: str) -> bool:
        """Return whether a placement in flight, or a late order, may have this tag."""
        return bool(tag) and (
            tag in self._requests.placements or self._late_orders.concerns(tag, number)
        )

    def is_complete(self, rows: Sequence[OrderRow], day: str) -> bool:
        """Return whether the book that was added last can prove that an order is not in it."""
        numbers = {row.number for row in rows}
        missing = self._completeness.missing(numbers, self._cache.own, day)
        if missing:
            self._cache.log.warning(
                "the order book lacks %d orders that must be in it, such as %s: it proves nothing",
                len(missing),
                min(missing),
            )
            return False
        return not self._completeness.is_first_empty

    def candidates(self, request: InFlightRequest, rows: Sequence[OrderRow]) -> list[OrderRow]:
        """Return the rows whose histories have to be searched for the tag of a placement."""
        return candidates(
            request.expected,
            rows,
            own=self._cache.own,
            first_seen_at=self._first_seen_at,
            sent_at=request.sent_at,
            sent_ns=request.sent_ns,
        )
