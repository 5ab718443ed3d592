"""The days of orders: an order ends when a complete order book of a later day lacks it.

The exchanges cancel what is open at the close, and the order book is of one day. After-market
orders, and those that are to rest for several days, wait for the next session: they are over when
their segment has traded without them, or after `LONGEST_CLOSURE` days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from neo_async.base.india import day_of
from neo_async.execution.order import Order
from neo_async.model.enums import OrderStatus, Validity
from neo_async.model.orders import OrderRow

LONGEST_CLOSURE = 7
"""Days for which the exchanges stay closed at most, weekends and holidays in a row."""

_AWAITS_SESSION = frozenset({OrderStatus.AMO_RECEIVED, OrderStatus.AMO_MODIFY_RECEIVED})
_ENDS_WITH_DAY = frozenset({"", Validity.DAY, Validity.IOC})
_NO_EXCHANGE_NUMBER = frozenset({"", "NA", "--", "0"})
_DATED_NUMBER = 12
"""Digits that an order number has at least when it begins with the date."""


class OrderDays:
    """The day of the newest order book, and the open orders of earlier days."""

    def __init__(self) -> None:
        self.today = ""
        """Day of the newest order book that was read; empty before the first."""
        self._empty_books = 0
        """Number of empty books of that day in a row, each requested after the one before had been
        applied."""
        self._carried: dict[str, Order] = {}
        """Orders that were open when that day began, by number."""

    def begin(self, day: str, open_orders: Mapping[str, Order]) -> None:
        """Take note of a new day, and of the orders that are open as it begins."""
        self.today = day
        self._empty_books = 0
        self._carried = {
            number: order for number, order in open_orders.items() if date_in(number) != day
        }

    def add_open(self, order: Order) -> None:
        """Take note of an order that has become open."""
        if self.today and date_in(order.number) != self.today:
            self._carried[order.number] = order

    def count_book(self, rows: Sequence[OrderRow], *, is_later: bool) -> None:
        """Count empty books. `is_later` is whether this one was requested after the one before
        had been applied."""
        if rows:
            self._empty_books = 0
        elif is_later:
            self._empty_books += 1

    @property
    def has_carried(self) -> bool:
        """Whether there are open orders of earlier days."""
        return bool(self._carried)

    @property
    def is_empty_book_proof(self) -> bool:
        """Whether an empty book proves that there is no order. Many a broken answer reads like an
        empty book, so it takes two of them."""
        return self._empty_books >= 2

    def lacking(self, rows: Sequence[OrderRow]) -> list[Order]:
        """Return the orders of earlier days that are in none of the rows of a book."""
        numbers = {row.number for row in rows}
        nameless = [row for row in rows if not row.has_number]
        return [
            order
            for number, order in self._carried.items()
            if number not in numbers and not any(_may_be(row, order) for row in nameless)
        ]

    def expired(self, lacking: Iterable[Order], rows: Sequence[OrderRow]) -> list[Order]:
        """Return those of the orders that a complete book of today lacks which are over."""
        trading = {
            row.segment
            for row in rows
            if row.exchange_number not in _NO_EXCHANGE_NUMBER
            and row.updated_ns
            and day_of(row.updated_ns / 1e9) == self.today
        }
        expired = []
        for order in lacking:
            last_day = last_day_of(order, self.today)
            if order.is_final or last_day >= self.today:
                continue
            is_waiting = awaits_session(order) and order.segment not in trading
            if is_waiting and _days_between(last_day, self.today) < LONGEST_CLOSURE:
                continue
            expired.append(order)
        return expired

    def drop_final(self) -> None:
        """Forget the orders of earlier days that are final."""
        self._carried = {
            number: order for number, order in self._carried.items() if not order.is_final
        }


def date_in(number: str) -> str:
    """Return the day that an order number begins with; empty when it does not begin with one."""
    if len(number) < _DATED_NUMBER or not (number.isascii() and number.isdigit()):
        return ""
    month, day = number[2:4], number[4:6]
    return number[:6] if "01" <= month <= "12" and "01" <= day <= "31" else ""


def last_day_of(order: Order, today: str) -> str:
    """Return the last day on which an order is known to have been placed or to have moved."""
    # The day on which the order was registered here is no evidence where reports have a time.
    days = [date_in(order.number), day_of((order.updated_ns or order.placed_ns) / 1e9)]
    # A day that has not come yet is of another clock, or no date at all.
    return max((day for day in days if day <= today), default=today)


def awaits_session(order: Order) -> bool:
    """Return whether an order outlives the day on which it was placed."""
    return (
        order.status in _AWAITS_SESSION
        or (order.amo and order.exchange_number in _NO_EXCHANGE_NUMBER)
        or order.validity not in _ENDS_WITH_DAY
    )


def _may_be(row: OrderRow, order: Order) -> bool:
    """Return whether a row that names no order may be this one."""
    return all(
        getattr(row, name) in (getattr(order, name), "") for name in ("segment", "symbol", "side")
    )


def _days_between(first: str, last: str) -> int:
    form = "%y%m%d"
    return (datetime.strptime(last, form) - datetime.strptime(first, form)).days  # noqa: DTZ007
