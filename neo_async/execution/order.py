"""An order: its terms, state, fills and history, moved by every report of it.

An Order does no I/O and holds no cache. Tasks that wait for it wait for an event of its own; a
registry counts them, so that the order book is polled for them while there is no order feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from decimal import Decimal
from typing import Protocol

import msgspec

from neo_async.errors import NotLoggedIn
from neo_async.execution.reports import shown_terms, stage_of
from neo_async.execution.terms_change import TermsChange
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import OrderRow, OrderTerms
from neo_async.model.updates import OrderUpdate
from neo_async.wire.tags import own_tag

_FILL = frozenset({"filled_quantity", "quantity"})
_LONG_AGO = -math.inf


class OrderChange(msgspec.Struct, frozen=True, gc=False):
    """The state of an order from a change on."""

    status: OrderStatus
    filled_quantity: int
    average_price: float
    reject_reason: str
    updated_ns: int
    """Unix nanoseconds of the change, by the broker's clock (by ours for the first entry)."""


class OrderObserver(Protocol):
    """Receives each change that reports show of an order, once."""

    def state_changed(self, order: Order) -> None:
        """`order.history` has one more entry."""

    def terms_changed(self, order: Order, before: OrderTerms) -> None:
        """The terms were `before` until now."""

    def status_unknown(self, order: Order, row: OrderRow) -> None:
        """A report shows a status that has no name here."""

    def was_not_final(self, order: Order, row: OrderRow) -> None:
        """A report corrects the final state that the order has still."""


class Order(msgspec.Struct, eq=False, weakref=True):
    """An order of this account, in the last state the broker reported.

    Updates may come twice, late or out of order: the filled quantity never falls, and of two
    reports the one with the broker's newer time counts. A final state is left only when a newer
    report of the broker corrects it, which is logged as an error.
    """

    number: str
    terms: OrderTerms
    """The terms as they stand: as placed, until a report or an accepted modification shows
    others."""
    client_tag: str = ""
    """The client tag that the order carries at the broker."""
    placed_ns: int = 0
    """Unix nanoseconds by the client's clock at which its placement was sent; where that is not
    known, at which a cache registered it."""
    exchange_number: str = ""
    status: OrderStatus = OrderStatus.PUT_RECEIVED
    status_text: str = OrderStatus.PUT_RECEIVED.value
    """The status in the broker's own words, also where it is UNKNOWN here."""
    filled_quantity: int = 0
    average_price: float = 0.0
    """Average price of the fills in rupees; 0 until a report has shown it."""
    reject_reason: str = ""
    updated_ns: int = 0
    """Unix nanoseconds of the newest report; 0 before the first."""
    registered_at: float = _LONG_AGO
    """Time of the loop at which a cache registered it."""
    last_update_at: float = _LONG_AGO
    """Time of the loop at which the last message of the order feed about it came, or at which it
    was registered."""
    waiters: OrderWaiters | None = None
    """The registry of the tasks that wait for it; None before a cache has registered it."""
    observer: OrderObserver | None = None
    _changed: asyncio.Event | None = None
    _change: TermsChange | None = None
    _is_priced: bool = False
    _status_ns: int = 0
    """Time of the report that gave the status: 0 for our own placing, -1 for one without."""
    _presumed_ns: int = 0
    """Beginning of the day (Unix nanoseconds) whose order book lacks the order, which therefore
    counts as expired; 0 when a report gave the status."""
    _corrected_ns: int = 0
    """Time of a final state that was corrected: what is no newer is outdated."""
    _history: list[OrderChange] | None = None
    """None until it is needed: most orders of a busy bot never need it."""

    def __post_init__(self) -> None:
        if self.terms.amo:
            self.status = OrderStatus.AMO_RECEIVED
            self.status_text = self.status.value

    @property
    def segment(self) -> Segment:
        return self.terms.segment

    @property
    def symbol(self) -> str:
        return self.terms.symbol

    @property
    def side(self) -> Side:
        return self.terms.side

    @property
    def product(self) -> Product:
        return self.terms.product

    @property
    def order_type(self) -> OrderType:
        return self.terms.order_type

    @property
    def quantity(self) -> int:
        """Units, in total; 0 when no report has shown it in a form that can be read."""
        return self.terms.quantity

    @property
    def price(self) -> Decimal | None:
        """Limit price in rupees; None when the order has none."""
        return self.terms.price

    @property
    def trigger(self) -> Decimal | None:
        """Trigger price in rupees; None when the order has none."""
        return self.terms.trigger

    @property
    def validity(self) -> Validity:
        return self.terms.validity

    @property
    def disclosed_quantity(self) -> int:
        """Units shown to the market; 0 shows all."""
        return self.terms.disclosed_quantity

    @property
    def amo(self) -> bool:
        """Whether it is an after-market order."""
        return self.terms.amo

    @property
    def history(self) -> list[OrderChange]:
        """States that reports have shown, oldest first; the first is that of the placement."""
        if self._history is None:
            first = OrderStatus.AMO_RECEIVED if self.amo else OrderStatus.PUT_RECEIVED
            self._history = [OrderChange(first, 0, 0.0, "", self.placed_ns)]
        return self._history

    @property
    def tag(self) -> str:
        """The caller's own part of the client tag."""
        return own_tag(self.client_tag)

    @property
    def pending_quantity(self) -> int:
        """Units that may still be filled; 0 also when the quantity is unknown."""
        return 0 if self.status.is_final else max(0, self.quantity - self.filled_quantity)

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    async def wait(self, *statuses: OrderStatus, timeout: float | None = None) -> OrderStatus:
        """Wait until the order is in one of `statuses`, or final (whatever they are: a rejected
        order will not complete any more). Return the status it is in.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.status not in statuses and not self.status.is_final:
                await self._until_changed()
        return self.status

    def changes(self) -> AsyncIterator[OrderChange]:
        """Yield every change from now on, each once and in order. The last one makes the order
        final, or is its fill price, where that has come meanwhile."""
        return self._changes_since(len(self.history))

    async def _changes_since(self, seen: int) -> AsyncIterator[OrderChange]:
        while True:
            while seen < len(self.history):
                seen += 1
                yield self.history[seen - 1]
            if self.is_final:
                return
            await self._until_changed()

    @property
    def lacks_fills(self) -> bool:
        """Whether the order is final, and reports have not shown all its fills or their price."""
        if not self.status.is_final:
            return False
        if self.status is OrderStatus.COMPLETE and self.filled_quantity < self.quantity:
            return True
        return self.filled_quantity > 0 and not self._is_priced

    def has_odd_fill(self, row: OrderRow) -> bool:
        """Return whether a report shows more filled than the order can have, as it is or as a
        change may make it: then neither its filled quantity nor its quantity can be relied on. The
        order book may show a quantity that another application has changed; a message must not."""
        if row.filled_quantity <= self.quantity:
            return row.contradicts_itself
        most = max(self.quantity, 0 if self._change is None else self._change.largest_quantity)
        if not (most and isinstance(row, OrderUpdate)):
            most = max(most, row.quantity)
        return row.contradicts_itself or 0 < most < row.filled_quantity

    def apply(self, row: OrderRow, *, requested_at: float = -math.inf) -> OrderChange | None:
        """Apply a row of an order book or an update, as far as it is news. Return the change of
        state, None when there is none. `requested_at` is the time of the loop at which a book was
        requested."""
        before = (self.status, self.filled_quantity, self.average_price, self.reject_reason)
        missing = row.missing
        # A report without a time (0) may be of any: it is taken as one of now, and only forwards.
        is_late = 0 < row.updated_ns < self.updated_ns
        if self.has_odd_fill(row):
            missing |= _FILL
        self._take_status(row, is_late=is_late, is_of_book=requested_at > -math.inf)
        self._take_fills(row, missing, is_late=is_late)
        if not is_late:
            self._take_terms(row, missing, requested_at)
            self.updated_ns = row.updated_ns or self.updated_ns
        if before == (self.status, self.filled_quantity, self.average_price, self.reject_reason):
            return None
        return self._note(row.updated_ns or self.updated_ns)

    def expire(self, reason: str, day_ns: int) -> None:
        """Count the order as expired because its day is over, without a report of how it ended.
        `day_ns` is the begin of the later day in Unix nanoseconds."""
        self._presumed_ns = day_ns
        self.status = OrderStatus.EXPIRED
        self.status_text = self.status.value
        self.reject_reason = reason
        self._change = None
        self._note(self.updated_ns)

    @property
    def is_presumed_over(self) -> bool:
        """Whether the order counts as expired only because the order book of a later day lacks
        it."""
        return self._presumed_ns > 0

    def begin_change(self, terms: OrderTerms) -> TermsChange:
        """Watch for reports of a modification to these terms that is about to be sent.
        `accept_change` or `drop_change` ends it."""
        self._change = TermsChange(
            self.terms,
            terms,
            self._change,
            since_ns=self.updated_ns,
            reject_reason=self.reject_reason,
        )
        return self._change

    def accept_change(self, change: TermsChange) -> bool:
        """Apply the terms of a modification that the broker has accepted, unless reports have shown
        already what it led to. Return whether a report of it is still to come."""
        if self._change is not change:
            return False
        if not change.changes:
            self._change = change.earlier
            return False
        change.accept(asyncio.get_running_loop().time())
        if change.is_reported or self.is_final:
            self._change = None
            return False
        self._change_terms(change.changes)
        return True

    def drop_change(self, change: TermsChange, *, is_known: bool) -> None:
        """End the watch for a modification that was not accepted. When its outcome is unknown
        (`is_known` is False), the terms come from reports alone."""
        if self._change is change:
            self._change = change.earlier if is_known else None

    @property
    def unreported_change(self) -> TermsChange | None:
        """The modification that was accepted, and that no report has shown yet."""
        change = self._change
        if change is not None and change.accepted_at is None:
            change = change.earlier
        return change

    def _note(self, updated_ns: int) -> OrderChange:
        """Add the present state to the history, and wake the tasks that wait for it."""
        change = OrderChange(
            self.status,
            self.filled_quantity,
            self.average_price,
            self.reject_reason,
            updated_ns,
        )
        self.history.append(change)
        self.wake()
        if self.observer is not None:
            self.observer.state_changed(self)
        return change

    def _change_terms(self, changes: Mapping[str, object]) -> None:
        before = self.terms
        self.terms = msgspec.structs.replace(before, **changes)
        if self.observer is not None:
            self.observer.terms_changed(self, before)

    async def _until_changed(self) -> None:
        """Wait for the next change. Raises NotLoggedIn when no report can change it any more."""
        if self.waiters is None:
            await self.until_next_change()
        else:
            await self.waiters.until_changed(self)

    async def until_next_change(self) -> None:
        """Wait for the next change of state, or for `wake`."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        """Wake the tasks that wait for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def __repr__(self) -> str:
        limit = "" if self.price is None else f" @ {self.price}"
        return (
            f"<Order {self.number} {self.side.name} {self.quantity} {self.symbol}{limit} "
            f"{self.order_type} {self.product}: {self.status_text}, "
            f"{self.filled_quantity} filled>"
        )

    def __rich_repr__(self) -> list[tuple[str, object]]:
        names = ("number", "terms", "client_tag", "status_text", "filled_quantity")
        return [(name, getattr(self, name)) for name in names]

    def _take_status(self, row: OrderRow, *, is_late: bool, is_of_book: bool) -> None:
        status = row.status
        if status is self.status and status.is_final:
            self._presumed_ns = 0
            if row.updated_ns:
                self._status_ns = max(self._status_ns, row.updated_ns)
            self.reject_reason = self.reject_reason or row.reject_reason
            return
        if not row.status_text:
            return
        # Of two reports with times the newer is right; without them, an order only goes forwards.
        is_newer = row.updated_ns > self._status_ns >= 0
        if self._presumed_ns:
            if not self._is_reported_by(row, is_of_book=is_of_book):
                return
            self._correct(row)
            self._presumed_ns = 0
        elif self.status.is_final:
            if not self._is_corrected_by(row, is_newer=is_newer, is_late=is_late):
                return
            self._correct(row)
            self._corrected_ns = max(self._corrected_ns, self._status_ns)
        elif status.is_final:
            if self._corrected_ns and row.updated_ns <= self._corrected_ns:
                return  # the final state that was corrected, once more
        elif not is_newer and (is_late or stage_of(status) < stage_of(self.status)):
            return
        self._status_ns = row.updated_ns or -1
        is_strange = status is OrderStatus.UNKNOWN and row.status_text != self.status_text
        if is_strange and self.observer is not None:
            self.observer.status_unknown(self, row)
        self.status = status
        self.status_text = row.status_text
        self.reject_reason = row.reject_reason

    def _is_reported_by(self, row: OrderRow, *, is_of_book: bool) -> bool:
        """Return whether a report shows the state of an order that counts as expired with its day.
        A late message of that day, when the order was open, does not."""
        if row.status.is_final:
            return not 0 < row.updated_ns <= self._corrected_ns
        return is_of_book or row.updated_ns >= self._presumed_ns

    def _is_corrected_by(self, row: OrderRow, *, is_newer: bool, is_late: bool) -> bool:
        """Return whether a report of another state corrects this final one."""
        if not row.status.is_final:
            # Fills are never taken back, so nothing can be open of what was filled in full.
            return is_newer and not 0 < self.quantity <= self.filled_quantity
        is_more = row.status is OrderStatus.COMPLETE and row.filled_quantity > self.filled_quantity
        return is_newer or (is_more and not is_late and not self.has_odd_fill(row))

    def _correct(self, row: OrderRow) -> None:
        if self.observer is not None:
            self.observer.was_not_final(self, row)

    def _take_fills(self, row: OrderRow, missing: frozenset[str], *, is_late: bool) -> None:
        filled = row.filled_quantity
        if "filled_quantity" in missing:
            if is_late or self._is_priced:
                return
            filled = self.filled_quantity
        is_more = filled > self.filled_quantity
        if is_more:
            self.filled_quantity = filled
            self._is_priced = False
        # A fill is first reported at 0: that is no price.
        if row.average_price > 0 and filled == self.filled_quantity:
            if is_more or not is_late or not self._is_priced:
                self.average_price = row.average_price
            self._is_priced = True

    def _take_terms(self, row: OrderRow, missing: frozenset[str], requested_at: float) -> None:
        """Take over the terms that a report shows: a modification may have changed them, and the
        broker turns market orders into limits."""
        if row.exchange_number and (row.exchange_number != "NA" or not self.exchange_number):
            self.exchange_number = row.exchange_number
        if not row.updated_ns and self.updated_ns and isinstance(row, OrderUpdate):
            return  # a message without a time may be older than what is known
        change = self._change
        terms = self.terms
        shown = shown_terms(row, missing)
        if change is not None:
            change.observe(row, missing, requested_at)
            shown |= change.held()
        if any(getattr(terms, name) != value for name, value in shown.items()):
            self._change_terms(shown)
        if change is not None and (
            self.is_final or (change.accepted_at is not None and change.is_reported)
        ):
            self._change = None


class OrderWaiters:
    """Counts the tasks that wait for the orders of one cache.

    It is true while there are any. `on_wait` is called whenever one begins to wait.
    """

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self._on_wait = on_wait
        self._waiting: Counter[Order] = Counter()
        self._watching = 0
        self._dismissals = 0

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._watching > 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count a task that looks at orders by itself whenever a report comes."""
        self._watching += 1
        try:
            self._on_wait()
            yield
        finally:
            self._watching -= 1

    async def until_changed(self, order: Order) -> None:
        """Wait for the next change of an order. Raises NotLoggedIn after `dismiss`."""
        dismissals, seen = self._dismissals, len(order.history)
        self._waiting[order] += 1
        try:
            self._on_wait()
            await order.until_next_change()
        finally:
            self._waiting[order] -= 1
            if not self._waiting[order]:
                del self._waiting[order]
        if self._dismissals != dismissals and len(order.history) == seen:
            raise NotLoggedIn(f"logged out while order {order.number} was waited for")

    def dismiss(self) -> None:
        """Make the waiting tasks raise NotLoggedIn: no report can change an order any more."""
        self._dismissals += 1
        for order in [*self._waiting]:
            order.wake()
