"""The order cache: the orders of the account by number and client tag.

Messages of the order feed and rows of the order book move an order alike. Messages are fast but may
be lost, repeated and mixed up; the book is slow and right.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from weakref import WeakValueDictionary

from neo_async.base import logs
from neo_async.base.india import begin_of
from neo_async.base.logs import Log, Subject, log_order, logger_of
from neo_async.errors import ProtocolError
from neo_async.execution.order import Order, OrderObserver, OrderWaiters
from neo_async.execution.order_days import OrderDays, date_in
from neo_async.execution.reports import as_order_row, in_slices, reported_terms
from neo_async.execution.tag_index import TagIndex
from neo_async.execution.terms_change import TermsChange
from neo_async.execution.uncertainty import Uncertainty
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.model.updates import OrderUpdate, PositionUpdate

FINAL_ORDERS_KEPT = 10_000
"""Number of final orders that stay in memory; those that became final first are forgotten first."""

_TERMS = frozenset(
    {
        "segment",
        "symbol",
        "side",
        "quantity",
        "product",
        "order_type",
        "price",
        "trigger",
        "validity",
    }
)
"""Fields without which an update does not describe an order."""
_LONG_AGO = -math.inf


class OrderCache:
    """The orders of this account by number and tag, moved by every report of them.

    Reports come in by `on_update`, message by message, and by `apply`, a whole order book at a
    time. `book_due_at` returns when a book has to be read for what the messages have left open.

    Orders that are final leave the memory, oldest first, when there are more than `kept` of them.
    An order object that the program still holds is kept up to date nevertheless.
    """

    def __init__(
        self,
        *,
        quiet: float = 15.0,
        kept: int = FINAL_ORDERS_KEPT,
        clock: Callable[[], float] = time.time,
        on_missed_fill: Callable[[OrderRow], None] | None = None,
        log: Log | None = None,
        observer: OrderObserver | None = None,
    ) -> None:
        """A book is due when no message has come about an open order for `quiet` seconds. `clock`
        gives Unix seconds. `on_missed_fill` is called with every row of a book that shows a fill
        which no message has reported. `observer` receives every change of an order."""
        self.log = log or logger_of(logs.ORDERS)
        self.observer = observer
        self.clock = clock
        """Unix time, by which orders belong to a day."""
        self._on_missed_fill = on_missed_fill
        self._orders: dict[str, Order] = {}
        """Registered orders in memory, by number."""
        self.tags = TagIndex()
        """The same by client tag."""
        self._own: set[str] = set()
        self._open: OrderedDict[str, Order] = OrderedDict()
        """Open orders by number; the one whose last message is oldest comes first."""
        self._open_by_symbol: dict[str, dict[str, Order]] = {}
        """Open orders by symbol, in capitals and without blanks around, and by number."""
        self._kept = kept
        self._final: deque[str] = deque()
        """Numbers of final orders, in the order in which they became final."""
        self._forgotten: set[str] = set()
        """Numbers of today's orders that have left the memory."""
        self._has_forgotten = False
        self._held_elsewhere: WeakValueDictionary[str, Order] = WeakValueDictionary()
        """Forgotten orders whose objects the program still holds, by number."""
        self._uncertainty = Uncertainty(quiet=quiet)
        self._days = OrderDays()
        self.waiters = OrderWaiters(lambda: self._uncertainty.on_more())
        """The tasks that wait for these orders."""
        self._absent_since: dict[str, float] = {}
        """Times of the loop since which every book has lacked an open own order, by number."""

    @property
    def orders(self) -> Mapping[str, Order]:
        """Registered orders by number, own and external: every open one, and those that became
        final last."""
        return MappingProxyType(self._orders)

    @property
    def open_orders(self) -> list[Order]:
        """Registered orders that are not final."""
        return list(self._open.values())

    @property
    def open_count(self) -> int:
        """Number of registered orders that are not final."""
        return len(self._open)

    def open_in(self, symbol: str) -> Iterator[Order]:
        """Yield the open orders of a symbol in capitals, and those whose symbol is not known."""
        for one in (symbol, "") if symbol else ("",):
            yield from self._open_by_symbol.get(one, {}).values()

    def on_uncertainty(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `book_due_at` may have become earlier, or an order is waited
        for. There is one listener: the poller of the order book."""
        self._uncertainty.on_more = listener

    def add(self, order: Order) -> Order:
        """Register an order that was placed here. Return the one to use: the feed may have been
        faster than the answer that `order` was made from."""
        self._own.add(order.number)
        return self._register_order(order)

    @property
    def own(self) -> AbstractSet[str]:
        """Numbers of the orders that were placed here, also those of which nothing else is known.
        Orders of earlier days are left out once they are final."""
        return self._own

    def is_another_order(self, number: str, client_tag: str) -> bool:
        """Return whether a number is that of an order placed here under another client tag."""
        if number not in self._own:
            return False
        order = self.get(number)
        return order is not None and order.client_tag != client_tag

    def register_number(self, number: str) -> None:
        """Register the number of an order that was placed here."""
        self._own.add(number)

    def _register_order(self, order: Order) -> Order:
        number = order.number
        registered = self.get(number)
        if registered is not None:
            self.retag(registered, order.client_tag)
            return registered
        order.placed_ns = order.placed_ns or int(self.clock() * 1e9)
        order.waiters, order.observer = self.waiters, self.observer
        self._orders[number] = order
        self.tags.add(order)
        order.registered_at = order.last_update_at = _now()
        if (external := self._uncertainty.external.pop(number, None)) is not None:
            for row in external.updates:
                order.apply(row)
        if not order.status.is_final:
            self._add_open(order)
            return order
        self._final.append(number)
        self._forget_old()
        self._reindex(order)
        return order

    def get(self, number: str) -> Order | None:
        """Return the registered order of that number."""
        order = self._orders.get(number)
        if order is None and self._has_forgotten:
            return self._held_elsewhere.get(number)
        return order

    def find(self, client_tag: str, number: str) -> Order | None:
        """Return the registered order with this client tag, or with this number where the tag is
        empty."""
        return self.tags.find(client_tag) if client_tag else self.get(number)

    def retag(self, order: Order, client_tag: str) -> None:
        """Give an order another client tag: the one that it carries at the broker."""
        before, order.client_tag = order.client_tag, client_tag
        if before != client_tag and self._orders.get(order.number) is order:
            self.tags.remove(order, before)
            self.tags.add(order)

    def register(
        self, row: OrderRow, *, client_tag: str = "", requested_at: float = -math.inf
    ) -> Order:
        """Return the order of a row of the order book: the one that is registered, or a new one
        made from the row.

        Raises ProtocolError for a row that names no order.
        """
        if not row.has_number:
            raise ProtocolError(f"a row of the order book has no order number: {row}")
        if client_tag:
            self._own.add(row.number)
        order = self.get(row.number)
        is_new = order is None
        if order is None:
            order = self._register_order(
                Order(row.number, reported_terms(row), client_tag=client_tag or row.gui_order_id)
            )
        elif client_tag:
            self.retag(order, client_tag)
        order.apply(row, requested_at=requested_at)
        self._reindex(order)
        if is_new and order.filled_quantity and not isinstance(row, OrderUpdate):
            self._report_missed_fills([row])
        return order

    def take_history(self, number: str, rows: Sequence[HistoryRow]) -> None:
        """Apply the history of an order that counts as expired because its day is over: it shows
        how the order ended."""
        order = self.get(number)
        if order is None or not order.is_presumed_over:
            return
        newest = max(rows, key=lambda row: row.updated_ns, default=None)
        if newest is not None and newest.status.is_final:
            self._apply_rows(
                [as_order_row(number, newest)], registers_open=False, requested_at=_LONG_AGO
            )

    def apply(
        self,
        rows: Sequence[OrderRow],
        *,
        registers_open: bool = False,
        requested_at: float = -math.inf,
        day: str = "",
    ) -> None:
        """Apply a complete order book to the registered orders. With `registers_open`, register
        every open order in it.

        `requested_at` is the time of the loop at which the book was requested, and `day` the day in
        India on which that was, as `day_of` writes it.
        """
        self._apply_rows(rows, registers_open=registers_open, requested_at=requested_at)
        self._end_book(rows, requested_at=requested_at, day=day)

    async def apply_in_slices(
        self,
        rows: Sequence[OrderRow],
        *,
        registers_open: bool = False,
        requested_at: float = -math.inf,
        day: str = "",
    ) -> None:
        """Apply a complete order book as `apply` does, in parts: other tasks get their turn in
        between."""
        async for part in in_slices(rows):
            self._apply_rows(part, registers_open=registers_open, requested_at=requested_at)
        self._end_book(rows, requested_at=requested_at, day=day)

    def accept_change(self, order: Order, change: TermsChange) -> None:
        """Apply a modification that the broker has accepted, and have the book read when no report
        shows it in time."""
        if order.accept_change(change):
            self._uncertainty.await_report(order)

    def has_odd_fill(self, row: OrderRow) -> bool:
        """Return whether a report contradicts its order; see `Order.has_odd_fill`. Of an order that
        is not registered, only the row itself can show it."""
        order = self._orders.get(row.number)
        return row.contradicts_itself if order is None else order.has_odd_fill(row)

    # --- the feed -----------------------------------------------------------------------------

    def start_following(self) -> None:
        """Take into account that the order feed has been started; a second time changes nothing."""
        self._uncertainty.start_following()

    def on_update(self, update: OrderRow | PositionUpdate) -> None:
        """Apply a message of the order feed."""
        self.start_following()
        if isinstance(update, PositionUpdate):
            return
        order = self._orders.get(update.number)
        if order is None and self._has_forgotten:
            order = self.get(update.number)
        if order is not None:
            order.last_update_at = asyncio.get_running_loop().time()
            order.apply(update)
            if order.has_odd_fill(update):
                self._uncertainty.note_odd_fill(order.last_update_at)
            self._reindex(order, is_update=True)
        elif update.number in self._forgotten:
            pass  # a repeated message of an order that is long final
        elif update.missing.isdisjoint(_TERMS):
            # Placed elsewhere, or the answer to its placement is still under way.
            self.register(update)
        else:
            self._uncertainty.keep(update)

    # --- the book -----------------------------------------------------------------------------

    def _apply_rows(
        self, rows: Sequence[OrderRow], *, registers_open: bool, requested_at: float
    ) -> None:
        missed_fills = []
        for row in rows:
            order = self._orders.get(row.number)
            if order is None and self._has_forgotten:
                order = self.get(row.number)
            if order is not None:
                filled = order.filled_quantity
                order.apply(row, requested_at=requested_at)
                if order.filled_quantity > filled:
                    missed_fills.append(row)
            elif row.number in self._uncertainty.external or (
                registers_open and row.has_number and not row.status.is_final
            ):
                order = self.register(row, requested_at=requested_at)
            if order is not None:
                self._reindex(order, is_confirmed=row.status.is_final)
        self._report_missed_fills(missed_fills)

    def _report_missed_fills(self, rows: Iterable[OrderRow]) -> None:
        if self._on_missed_fill is not None:
            for row in rows:
                self._on_missed_fill(row)

    def _end_book(self, rows: Sequence[OrderRow], *, requested_at: float, day: str) -> None:
        """Draw the conclusions from a complete book, after its rows have been applied."""
        self._note_absent(rows, requested_at)
        if day:
            if day > self._days.today:
                self._begin_day(day)
            self._days.count_book(rows, is_later=requested_at >= self._uncertainty.book_at)
            if self._days.has_carried and day == self._days.today:
                self._end_expired(rows, requested_at)
        self._uncertainty.clear_by_book(requested_at, _now())

    def _reindex(
        self, order: Order, *, is_confirmed: bool = False, is_update: bool = False
    ) -> None:
        """Note whether an order is open, and which reports of it are still to come: none, once the
        book confirms that it is final."""
        number = order.number
        self._uncertainty.note_report(order)
        if order.is_final:
            if (was_open := self._open.pop(number, None)) is not None:
                symbol = _folded(was_open.symbol)
                alike = self._open_by_symbol[symbol]
                del alike[number]
                if not alike:
                    del self._open_by_symbol[symbol]
                self._final.append(number)
                self._forget_old()
            self._uncertainty.note_final(order, is_confirmed=is_confirmed)
        elif number not in self._open:
            if self._orders.get(number) is not order:
                self._remember(order)
            self._add_open(order)
        elif is_update:
            self._open.move_to_end(number)

    def _add_open(self, order: Order) -> None:
        number = order.number
        self._open[number] = order
        self._open_by_symbol.setdefault(_folded(order.terms.symbol), {})[number] = order
        self._days.add_open(order)
        self._uncertainty.note_open(number)

    def _forget_old(self) -> None:
        """Forget the order that became final first when there are too many."""
        if len(self._final) <= self._kept:
            return
        number = self._final.popleft()
        order = self._orders.get(number)
        if order is None or not order.is_final:
            return  # it is forgotten already, or a correction has made it open again
        if number in self._uncertainty.lacking:
            self._final.append(number)
            return
        del self._orders[number]
        self.tags.remove(order, order.client_tag)
        self._forgotten.add(number)
        self._has_forgotten = True
        self._held_elsewhere[number] = order

    def _remember(self, order: Order) -> None:
        """Put an order into memory again that was final and is open by a correction."""
        self._orders[order.number] = order
        self._forgotten.discard(order.number)
        self._held_elsewhere.pop(order.number, None)
        self.tags.add(order)

    # --- days ---------------------------------------------------------------------------------

    def _begin_day(self, day: str) -> None:
        """Note the orders of earlier days that are open, and drop the numbers of those that are
        over."""
        is_next = bool(self._days.today)
        self._days.begin(day, self._open)
        for numbers in (self._own, self._forgotten) if is_next else ():
            numbers.intersection_update(
                [one for one in numbers if one[:6] >= day or one in self._open]
            )

    def _note_absent(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        """Note which open own orders a book lacks that was requested after their last update."""
        if any(not row.has_number for row in rows):
            return
        numbers = {row.number for row in rows}
        before = self._absent_since
        self._absent_since = {
            number: before.get(number, requested_at)
            for number, order in self._open.items()
            if number not in numbers and number in self._own and order.last_update_at < requested_at
        }

    def absent_since(self, moment: float) -> list[Order]:
        """Return the open own orders that every book requested since `moment`, a time of the loop,
        has lacked, and some before that."""
        return [
            self._orders[number] for number, since in self._absent_since.items() if since < moment
        ]

    def end_absent(self, order: Order, reason: str) -> None:
        """Expire an order that the broker no longer lists. A later report may correct it."""
        if order.is_final:
            return
        order.expire(reason, int(self.clock() * 1e9))
        subject = Subject("report", order.client_tag, order.number)
        log_order(self.log, logging.ERROR, subject, "expired: %s", reason)
        self._reindex(order, is_confirmed=True)

    def _end_expired(self, rows: Sequence[OrderRow], requested_at: float) -> None:
        """End the orders of earlier days that a complete book of today lacks."""
        lacking = self._days.lacking(rows)
        if not lacking or not self._is_whole({row.number for row in rows}, requested_at):
            return
        today = self._days.today
        for order in self._days.expired(lacking, rows):
            order.expire(
                f"it is not in the order book of a later day ({today}); no report has shown how it "
                "ended",
                begin_of(today),
            )
            subject = Subject("report", order.client_tag, order.number)
            log_order(self.log, logging.WARNING, subject, "expired: %s", order.reject_reason)
            self._reindex(order, is_confirmed=True)
        self._days.drop_final()

    def _is_whole(self, numbers: AbstractSet[str], requested_at: float) -> bool:
        """Return whether a book of today can prove that an order is not in it: it has every order
        of today that was placed here before it was requested, and an empty one is the second."""
        if not numbers and not self._days.is_empty_book_proof:
            return False
        for number in self._own:
            if number in numbers or date_in(number) != self._days.today:
                continue
            order = self.get(number)
            if order is None or order.registered_at < requested_at:
                return False
        return True

    def book_due_at(self, read_at: float) -> float:
        """Return the time of the loop at which the order book has to be read, when its last reading
        ended at `read_at`; inf while no order needs it."""
        updated_at = next(iter(self._open.values())).last_update_at if self._open else None
        return self._uncertainty.due_at(read_at, updated_at)


def _now() -> float:
    """Return the time of the running loop; minus infinity where there is none."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return -math.inf


def _folded(symbol: str) -> str:
    return symbol.strip().upper()
