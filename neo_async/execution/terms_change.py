"""A modification from the moment it is sent until a report shows its effect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.orders import OrderRow

if TYPE_CHECKING:
    from neo_async.execution.order import Order

CATCHING_UP = 5.0
"""Seconds after which an order book shows an accepted change, unless the exchange refused it."""

_CHANGING = frozenset({OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING})
_VALUES_KEPT = 32
"""Earlier values of one term that reports may still show."""


class TermsChange:
    """A modification on its way, or accepted by the broker and not seen in any report yet.

    What was accepted holds until a report from after it: one that shows the new terms, one that
    says that the exchange refused them, or an order book that was asked for `CATCHING_UP` seconds
    after the acceptance. A report that shows other terms may be from before the change.
    """

    __slots__ = (
        "_earlier",
        "_earlier_values",
        "_is_chained",
        "_reject_reason",
        "_since_ns",
        "accepted_at",
        "is_reported",
        "terms",
    )

    def __init__(self, order: Order, terms: Mapping[str, object], earlier: TermsChange | None):
        """`terms` are all terms after the change; `earlier` is one that is not over."""
        self.terms = {
            name: value
            for name, value in terms.items()
            if _comparable(name, value) != _comparable(name, getattr(order, name))
        }
        """Those that change, by their names on the order."""
        self._earlier_values = {
            name: {_comparable(name, getattr(order, name))} for name in (*self.terms, "price")
        }
        """What reports from before the change may show."""
        self._earlier = earlier
        self._is_chained = self.earlier is not None
        """Whether an earlier change had not been reported when this one was sent: then a refusal
        may be of that."""
        self._since_ns = order.updated_ns
        self._reject_reason = order.reject_reason
        self.accepted_at: float | None = None
        """Time of the loop."""
        self.is_reported = not self.terms
        """Whether reports show the order as it is after the change."""

    @property
    def earlier(self) -> TermsChange | None:
        """The accepted change before this one, while it is not reported."""
        return None if self._earlier is None or self._earlier.is_reported else self._earlier

    @property
    def largest_quantity(self) -> int:
        """Units that the order may have by this change, or had before it; 0 when it changes
        none."""
        values = {*self._earlier_values.get("quantity", ()), self.terms.get("quantity", 0)}
        if self._earlier is not None:
            values.add(self._earlier.largest_quantity)
        return max((value for value in values if isinstance(value, int)), default=0)

    def accept(self, now: float) -> None:
        self.accepted_at = now
        earlier, self._earlier = self.earlier, None
        if earlier is None or self.is_reported:
            return
        self.terms = earlier.terms | self.terms
        for name, values in earlier._earlier_values.items():
            mine = self._earlier_values.setdefault(name, set())
            if len(mine) <= _VALUES_KEPT:
                mine.update(values)

    def held(self) -> Mapping[str, object]:
        """Terms that the order keeps whatever an undecided report shows."""
        if self.accepted_at is not None:
            return {} if self.is_reported else self.terms
        return {} if self.earlier is None else self.earlier.terms

    def observe(self, row: OrderRow, missing: frozenset[str], requested_at: float) -> None:
        """Find out whether a report is from after the change. `requested_at` is the time of the
        loop at which a book was requested, minus infinity for a message of the feed."""
        if self.accepted_at is None and self.earlier is not None:
            self.earlier.observe(row, missing, requested_at)
        if self.is_reported or row.status in _CHANGING:
            return
        since = math.inf if self.accepted_at is None else self.accepted_at
        self.is_reported = (
            requested_at >= since + CATCHING_UP
            or (self._agrees(row, missing) and (requested_at >= since or self._is_distinct()))
            or self._is_refused(row)
        )

    def _agrees(self, row: OrderRow, missing: frozenset[str]) -> bool:
        if not missing.isdisjoint(self.terms):
            return False
        kind = self.terms.get("order_type")
        is_unlimited = kind in (OrderType.MARKET, OrderType.SL_M)
        for name, value in self.terms.items():
            if is_unlimited and name in ("order_type", "price"):
                continue  # the broker makes a limit of it, at a price of its own
            if _comparable(name, getattr(row, name)) != _comparable(name, value):
                return False
        if not is_unlimited or row.order_type == kind:
            return True
        if "price" in missing:
            return False
        return _comparable("price", row.price) not in self._earlier_values["price"]

    def _is_distinct(self) -> bool:
        """Whether no report from before the change can show the same terms."""
        return any(
            _comparable(name, value) not in self._earlier_values[name]
            and len(self._earlier_values[name]) <= _VALUES_KEPT
            for name, value in self.terms.items()
        )

    def _is_refused(self, row: OrderRow) -> bool:
        """Whether the report says that the exchange or the risk system has refused the change."""
        if self._is_chained or row.updated_ns <= self._since_ns:
            return False
        if row.status is OrderStatus.NOT_MODIFIED:
            return True
        return bool(row.reject_reason) and row.reject_reason != self._reject_reason


def _comparable(name: str, value: object) -> object:
    """Return a term in the one form in which a caller's value and the broker's can be compared."""
    return float(str(value or 0)) if name in ("price", "trigger") else value
