"""Whether an order book proves that a halt is done: rules without I/O.

1. Only a complete order book proves it, and only if it was requested when no request of this client
   could arrive at the broker any more. An order that arrives later is in no book before it.
2. An order book is complete when it holds every order that was placed here today and has no open
   order without a number, which could not be cancelled. Since a broken response often reads like an
   empty book, an empty book counts only from the second one in a row.
3. A refused cancel proves nothing. The broker refuses the cancel of an order that it has not
   registered yet in the same words as that of an order that is final.
4. An order is given up, with an error, when the broker has answered its cancels and no book has
   accounted for it for a given time: the book lacks it, or shows an unknown status. An order that
   the book shows open in a known status is never given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from neo_async.base.india import day_of
from neo_async.base.logs import Log
from neo_async.errors import NeoError, ProtocolError, Rejected, UsageError
from neo_async.execution.engine import nameless_error
from neo_async.execution.journal_schema import CancelScope
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import OrderRow
from neo_async.wire.tags import is_exit


class CancelAttempts(msgspec.Struct):
    """The cancels that a halt has sent for one order."""

    due_at: float = -math.inf
    """Time of the loop before which the order is not cancelled again."""
    failures: int = 0
    """Failed cancels since the last accepted one."""
    problem: NeoError | None = None
    """Error of the last cancel; None when the broker accepted it."""
    is_answered: bool = False
    """Whether the broker has accepted or refused a cancel."""


class CancellationProof:
    """State of proof of a halt: which orders may be open, and whether it is done."""

    def __init__(
        self,
        cache: OrderCache,
        attempts: Mapping[str, CancelAttempts],
        log: Log,
        *,
        scope: CancelScope = CancelScope.ALL,
        give_up_after: float,
        clock: Callable[[], float],
    ) -> None:
        """`attempts` are the cancels by order number, kept up to date by the caller.
        `give_up_after` is the time in seconds of rule 4, and `clock` gives Unix seconds."""
        self._cache = cache
        self._attempts = attempts
        self._scope = scope
        self._log = log
        self._give_up_after = give_up_after
        self._clock = clock
        self.is_done = False
        """Whether it is proved that no order is open, except those that were given up."""
        self.is_over = False
        """Whether another order book cannot add anything."""
        self.book_problem: NeoError | None = None
        """Why the newest order book proves nothing."""
        self._targets: dict[str, Order] = {}
        """Orders that were open at some time since the halt."""
        self._shown_open: dict[str, Order] = {}
        """Orders that the newest order book shows as not final."""
        self._is_complete = False
        """Whether the newest order book is complete."""
        self._empty_books = 0
        """Order books in a row without a row."""
        self._incomplete_since: float | None = None
        """Time of the loop since which every order book was incomplete."""
        self._unaccounted_since: dict[str, float] = {}
        """Times of the loop since which no order book has accounted for an order."""
        self._given_up: dict[str, NeoError] = {}
        """Errors of the orders that were given up, by number."""

    def open_orders(self) -> dict[str, Order]:
        """Return the orders that may be open, by number, except those that were given up and those
        that the halt leaves."""
        # The book may show an order open that the cache has as final by a newer message, or by a
        # wrong one: both count.
        known = {order.number: order for order in self._cache.open_orders} | self._shown_open
        leaves_exits = self._scope is CancelScope.ALL_BUT_EXITS
        return {
            number: order
            for number, order in known.items()
            if number not in self._given_up and not (leaves_exits and is_exit(order.client_tag))
        }

    def add_targets(self, orders: Mapping[str, Order]) -> None:
        """Record orders that are open, for the result of the halt."""
        for number, order in orders.items():
            self._targets.setdefault(number, order)

    def apply_order_book(self, rows: Sequence[OrderRow], now: float) -> bool:
        """Apply the rows of a whole order book, which the order cache has applied already. Return
        whether it shows open orders that are not among the targets yet."""
        self._shown_open = {
            row.number: self._cache.register(row)
            for row in rows
            if row.has_number and not row.status.is_final
        }
        in_known_status = {row.number for row in rows if row.status is not OrderStatus.UNKNOWN}
        self._give_up_unaccounted(in_known_status & self._shown_open.keys(), now)
        self._is_complete = self._check_complete(rows, now)
        return any(number not in self._targets for number in self.open_orders())

    def conclude(self, now: float) -> None:
        """Decide by the newest order book whether the halt is done. To be called only when no
        request of this client could arrive any more when that book was requested (rule 1)."""
        if self.open_orders():
            return
        self.is_done = self._is_complete
        since = self._incomplete_since
        is_hopeless = since is not None and now >= since + self._give_up_after
        self.is_over = self._is_complete or is_hopeless

    def results(self, book_error: NeoError | None) -> list[Order | NeoError]:
        """Return every order that was open: the Order when it is final, or the error for which it
        may be open. `book_error` is why the order book could not be read."""
        results: list[Order | NeoError] = [self._result(order) for order in self._targets.values()]
        has_error = any(isinstance(result, NeoError) for result in results)
        if not self.is_done and (self.book_problem is not None or not has_error):
            results.append(
                book_error
                or self.book_problem
                or UsageError("the halt was ended before it was done")
            )
        return results

    def open_reasons(self) -> Iterator[str]:
        """Yield why nothing is proved yet, in words."""
        if still_open := self.open_orders():
            first = next(iter(still_open))
            problem = self._last_problem(first)
            why = "" if problem is None else f" ({problem})"
            yield f"{len(still_open)} orders may be open, such as {first}{why}"

    def _result(self, order: Order) -> Order | NeoError:
        number = order.number
        if number in self._given_up:
            return self._given_up[number]
        if order.is_final and number not in self._shown_open:
            return order
        return self._last_problem(number) or UsageError(
            f"order {number} is {order.status_text}: the halt was ended before the order was final"
        )

    def _last_problem(self, number: str) -> NeoError | None:
        attempts = self._attempts.get(number)
        return None if attempts is None else attempts.problem

    def _give_up_unaccounted(self, accounted: Collection[str], now: float) -> None:
        """Apply rule 4. `accounted` are the numbers that the book shows open in a known status."""
        for number, order in self._targets.items():
            is_final = order.is_final and number not in self._shown_open
            attempts = self._attempts.get(number)
            is_answered = attempts is not None and attempts.is_answered
            if number in accounted or is_final or not is_answered:
                self._unaccounted_since.pop(number, None)
                self._given_up.pop(number, None)
                continue
            since = self._unaccounted_since.setdefault(number, now)
            if now >= since + self._give_up_after and number not in self._given_up:
                error = self._given_up[number] = self._unaccounted_error(order, now - since)
                self._log.error("halt: %s", error)

    def _unaccounted_error(self, order: Order, seconds: float) -> NeoError:
        if order.number in self._shown_open:
            state = f"has the unknown status {order.status_text!r}"
        else:
            state = f"is {order.status_text!r} here, and not in the order book"
        answer = self._last_problem(order.number) or "accepted"
        return Rejected(
            f"order {order.number} {state}: its cancels have had no visible effect for "
            f"{seconds:.0f} s (last answer: {answer}); it may be open"
        )

    def _check_complete(self, rows: Sequence[OrderRow], now: float) -> bool:
        """Return whether an order book is complete (rule 2)."""
        self._empty_books = 0 if rows else self._empty_books + 1
        problem = self._completeness_problem(rows)
        self.book_problem = problem
        if problem is None:
            self._incomplete_since = None
            return self._empty_books != 1
        if self._incomplete_since is None:
            self._incomplete_since = now
        return False

    def _completeness_problem(self, rows: Sequence[OrderRow]) -> NeoError | None:
        for row in rows:
            if not (row.has_number or row.status.is_final):
                return nameless_error(row)
        missing = self._missing_own_orders(row.number for row in rows)
        if not missing:
            return None
        return ProtocolError(
            f"the order book lacks {len(missing)} orders that were placed today, such as "
            f"{missing[0]}: it does not prove that nothing is open"
        )

    def _missing_own_orders(self, shown: Iterable[str]) -> list[str]:
        """Return the numbers of orders placed here today that a book lacks. An order that was given
        up is not missing: it is in the result already."""
        numbers = set(shown)
        today = day_of(self._clock())
        return [
            number
            for number in self._cache.own
            if number[:6] == today and number not in numbers and number not in self._given_up
        ]
