"""A modification from the moment it is sent until a report shows its effect, and what counts as
showing it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Protocol

from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.orders import HistoryRow, OrderRow, OrderTerms

CATCHING_UP = 5.0
"""Seconds after which an order book shows an accepted change, unless the exchange refused it."""

_CHANGING = frozenset({OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING})
_VALUES_KEPT = 32
"""Earlier values of one term that reports may still show."""

CHANGEABLE = ("order_type", "quantity", "price", "trigger", "validity", "disclosed_quantity")
"""Terms that a modification can change."""
LIMIT_TERMS = ("order_type", "price")
WITHOUT_LIMIT = frozenset(kind for kind in OrderType if not kind.has_limit)


class _State(Protocol):
    """An order, or a report of one."""

    @property
    def order_type(self) -> str: ...
    @property
    def price(self) -> Decimal | float | None: ...


def shows_terms(
    state: _State,
    missing: Collection[str],
    wanted: Mapping[str, object],
    *,
    order_type: str,
    prices_before: Collection[float],
) -> bool | None:
    """Return whether a state of an order shows the terms that a modification changes, by their
    names. Return None when those of them that can be read are right, and others cannot be read:
    `missing` has their names. A history has no disclosed quantity: it is left out there.

    `order_type` is that of the order after the change. The broker gives a market order a limit at a
    price of its own, so that neither price nor type is known of it: what shows that a limit order
    has become one is its type, or any price that is not among `prices_before`, in rupees.
    """
    is_unlimited = order_type in WITHOUT_LIMIT
    is_known = True
    for name, value in wanted.items():
        if is_unlimited and name in LIMIT_TERMS:
            continue
        if name == "disclosed_quantity" and isinstance(state, HistoryRow):
            continue
        if name in missing:
            is_known = False
        elif as_reported(name, getattr(state, name)) != as_reported(name, value):
            return False
    if is_unlimited and prices_before and state.order_type != order_type:
        if "price" in missing:
            is_known = False
        elif rupees(state.price) in prices_before:
            return False
    return is_known or None


def as_reported(name: str, value: Any) -> object:
    """Return the value of a term as reports have it."""
    return rupees(value) if name in ("price", "trigger") else value


def rupees(price: Decimal | float | None) -> float:
    """Return a price as reports have it: the nearest float, 0 for none."""
    return float(price or 0)


class TermsChange:
    """A modification on its way, or accepted by the broker and not seen in any report yet.

    Accepted terms hold until a report from after the acceptance: one that shows them, one that
    shows that the exchange refused them, or an order book that was requested `CATCHING_UP` seconds
    after it. A report that shows other terms may be from before the change.
    """

    __slots__ = (
        "_earlier",
        "_earlier_values",
        "_is_chained",
        "_order_type",
        "_reject_reason",
        "_since_ns",
        "accepted_at",
        "changes",
        "is_reported",
    )

    def __init__(
        self,
        before: OrderTerms,
        after: OrderTerms,
        earlier: TermsChange | None = None,
        *,
        since_ns: int = 0,
        reject_reason: str = "",
    ) -> None:
        """`earlier` is a change that is not over. `since_ns` is the time of the newest report of
        the order, in Unix nanoseconds by the broker's clock, and `reject_reason` the reason that it
        showed."""
        self.changes: Mapping[str, object] = {
            name: getattr(after, name)
            for name in CHANGEABLE
            if getattr(after, name) != getattr(before, name)
        }
        """The terms that change, by their names."""
        self._order_type = after.order_type
        self._earlier_values = {name: {getattr(before, name)} for name in (*self.changes, "price")}
        """Values that reports from before the change may show, by the names of the terms."""
        self._earlier = earlier
        self._is_chained = self.earlier is not None
        """Whether an earlier change had not been reported when this one was sent: then a refusal
        may be of that."""
        self._since_ns = since_ns
        self._reject_reason = reject_reason
        self.accepted_at: float | None = None
        """Time of the loop at which the broker accepted it; None before."""
        self.is_reported = not self.changes
        """Whether reports show the order as it is after the change."""

    @property
    def earlier(self) -> TermsChange | None:
        """The accepted change before this one; None once it is reported."""
        return None if self._earlier is None or self._earlier.is_reported else self._earlier

    @property
    def largest_quantity(self) -> int:
        """Largest quantity that the order may have by this change, or had before it; 0 when it does
        not change the quantity."""
        values = {*self._earlier_values.get("quantity", ()), self.changes.get("quantity", 0)}
        if self._earlier is not None:
            values.add(self._earlier.largest_quantity)
        return max((value for value in values if isinstance(value, int)), default=0)

    def accept(self, now: float) -> None:
        """Take into account that the broker has accepted it, at that time of the loop."""
        self.accepted_at = now
        earlier, self._earlier = self.earlier, None
        if earlier is None or self.is_reported:
            return
        self.changes = {**earlier.changes, **self.changes}
        for name, values in earlier._earlier_values.items():
            mine = self._earlier_values.setdefault(name, set())
            if len(mine) <= _VALUES_KEPT:
                mine.update(values)

    def held(self) -> Mapping[str, object]:
        """Return the terms that the order keeps whatever an undecided report shows."""
        if self.accepted_at is not None:
            return {} if self.is_reported else self.changes
        return {} if self.earlier is None else self.earlier.changes

    def observe(self, row: OrderRow, missing: frozenset[str], requested_at: float) -> None:
        """Determine whether a report is from after the change. `requested_at` is the time of the
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
        is_converted = "order_type" in self.changes
        return bool(
            shows_terms(
                row,
                missing,
                self.changes,
                order_type=self._order_type,
                prices_before=(
                    {rupees(price) for price in self._earlier_values["price"]}
                    if is_converted
                    else ()
                ),
            )
        )

    def _is_distinct(self) -> bool:
        """Return whether no report from before the change can show the same terms."""
        return any(
            value not in self._earlier_values[name]
            and len(self._earlier_values[name]) <= _VALUES_KEPT
            for name, value in self.changes.items()
        )

    def _is_refused(self, row: OrderRow) -> bool:
        """Return whether a report shows that the exchange or the risk system refused the change."""
        if self._is_chained or row.updated_ns <= self._since_ns:
            return False
        if row.status is OrderStatus.NOT_MODIFIED:
            return True
        return bool(row.reject_reason) and row.reject_reason != self._reject_reason
