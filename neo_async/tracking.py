"""Orders as they live: one object an order, moved by whatever the broker reports of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

import msgspec

from neo_async.errors import NeoError
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import OrderRow, Price
from neo_async.wire.tags import matches, own_tag

log = logging.getLogger(__name__)

E = TypeVar("E", bound=StrEnum)


class OrderChange(msgspec.Struct, frozen=True, gc=False):
    """What an order looked like from some moment on."""

    status: OrderStatus
    filled_quantity: int
    average_price: float
    reject_reason: str
    updated_ns: int
    """Unix nanoseconds, the broker's clock (ours for the first entry)."""


class Order:
    """An order of this account, in the last state the broker reported.

    Updates may come twice, late or out of order: the filled quantity never falls, and a final
    state is never left.
    """

    __slots__ = (
        "_changed",
        "_history",
        "_placed_ns",
        "_tracker",
        "amo",
        "average_price",
        "client_tag",
        "disclosed_quantity",
        "exchange_number",
        "filled_quantity",
        "number",
        "order_type",
        "price",
        "product",
        "quantity",
        "reject_reason",
        "segment",
        "side",
        "status",
        "status_text",
        "symbol",
        "trigger",
        "updated_ns",
        "validity",
    )

    def __init__(
        self,
        tracker: Tracker,
        *,
        number: str,
        client_tag: str,
        segment: Segment | str,
        symbol: str,
        side: Side | str,
        quantity: int,
        product: Product | str,
        order_type: OrderType | str,
        price: Price | None,
        trigger: Price | None,
        validity: Validity | str,
        disclosed_quantity: int,
        amo: bool,
    ) -> None:
        self._tracker = tracker
        self._changed: asyncio.Event | None = None
        self.number = number
        self.client_tag = client_tag
        """The mark that this order carries at the broker."""
        self.segment = segment
        """Like side, product, type and validity a member of its enum, or text where another
        application placed the order with a code that is none of ours."""
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        """Units, in total."""
        self.product = product
        self.order_type = order_type
        self.price = price
        """Limit in rupees; None when the order has none."""
        self.trigger = trigger
        self.validity = validity
        self.disclosed_quantity = disclosed_quantity
        self.amo = amo
        self.exchange_number = ""
        self.status = OrderStatus.AMO_RECEIVED if amo else OrderStatus.PUT_RECEIVED
        self.status_text: str = self.status.value
        """The broker's own words; tells what an UNKNOWN status is."""
        self.filled_quantity = 0
        self.average_price = 0.0
        """Rupees, of what is filled; 0 until the broker has said it."""
        self.reject_reason = ""
        self.updated_ns = 0
        """Unix nanoseconds of the newest report; 0 when there was none yet."""
        self._placed_ns = time.time_ns()
        # Most orders of a busy bot are never asked for it, and lists cost the collector.
        self._history: list[OrderChange] | None = None

    @property
    def history(self) -> list[OrderChange]:
        """Every state seen, oldest first; the first is that of our own placing it."""
        if self._history is None:
            first = OrderStatus.AMO_RECEIVED if self.amo else OrderStatus.PUT_RECEIVED
            self._history = [OrderChange(first, 0, 0.0, "", self._placed_ns)]
        return self._history

    @property
    def tag(self) -> str:
        """The tag that the caller gave."""
        return own_tag(self.client_tag)

    @property
    def pending_quantity(self) -> int:
        """Units that may still be filled."""
        return 0 if self.status.is_final else self.quantity - self.filled_quantity

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    async def wait(self, *statuses: OrderStatus, timeout: float | None = None) -> OrderStatus:
        """Wait until the order is in one of `statuses`, or final (whatever they are: a rejected
        order will not complete any more). Returns the status it is in.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.status not in statuses and not self.status.is_final:
                await self._tracker.until_changed(self)
        return self.status

    def apply(self, row: OrderRow) -> bool:
        """Take over what a row reports, as far as it is news. Returns whether anything moved."""
        before = (self.status, self.filled_quantity, self.average_price)
        is_newer = row.updated_ns >= self.updated_ns
        status = row.status
        if not self.status.is_final and (is_newer or status.is_final):
            if status is OrderStatus.UNKNOWN and row.status_text != self.status_text:
                log.warning("order %s is in an unknown state: %r", self.number, row.status_text)
            self.status = status
            self.status_text = row.status_text
            self.reject_reason = row.reject_reason
        if is_newer:
            self.updated_ns = row.updated_ns
            self.exchange_number = row.exchange_number
            self._take_terms(row)
        if row.average_price and row.filled_quantity >= self.filled_quantity:
            self.average_price = row.average_price
        self.filled_quantity = max(self.filled_quantity, row.filled_quantity)
        if before == (self.status, self.filled_quantity, self.average_price):
            return False
        self.history.append(
            OrderChange(
                self.status,
                self.filled_quantity,
                self.average_price,
                self.reject_reason,
                row.updated_ns,
            )
        )
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        return True

    async def until_next_change(self) -> None:
        """Wait for the next `apply` that moves something."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def __repr__(self) -> str:
        limit = "" if self.price is None else f" @ {self.price}"
        side = self.side.name if isinstance(self.side, Side) else self.side
        return (
            f"<Order {self.number} {side} {self.quantity} {self.symbol}{limit} "
            f"{self.order_type} {self.product}: {self.status_text}, "
            f"{self.filled_quantity} filled>"
        )

    def _take_terms(self, row: OrderRow) -> None:
        """Quantity and prices as they now stand: a modification may have changed them, and the
        broker turns market orders into limits."""
        if row.quantity:
            self.quantity = row.quantity
        if not row.order_type:
            return
        self.order_type = _known(OrderType, row.order_type)
        self.price = row.price or None
        self.trigger = row.trigger or None
        self.disclosed_quantity = row.disclosed_quantity


class Tracker:
    """Knows the orders of this account by number and moves them by the rows that arrive.

    `refresh` reads the order book and hands it to `apply`; it is called every `interval` seconds
    while somebody waits for an order.
    """

    def __init__(self, *, interval: float = 0.5) -> None:
        self._orders: dict[str, Order] = {}
        self._interval = interval
        self._refresh: Callable[[], Awaitable[object]] | None = None
        self._waiting = 0
        self._poll: asyncio.Task[None] | None = None

    def refresh_with(self, refresh: Callable[[], Awaitable[object]]) -> None:
        self._refresh = refresh

    def add(self, order: Order) -> None:
        self._orders[order.number] = order

    def get(self, number: str) -> Order | None:
        return self._orders.get(number)

    def adopt(self, row: OrderRow, *, client_tag: str = "") -> Order:
        """The order of a row of the book: the one known already, or a new one made from the row."""
        order = self._orders.get(row.number)
        if order is None:
            order = Order(
                self,
                number=row.number,
                client_tag=client_tag or row.gui_order_id,
                segment=_known(Segment, row.segment),
                symbol=row.symbol,
                side=_known(Side, row.side),
                quantity=row.quantity,
                product=_known(Product, row.product),
                order_type=_known(OrderType, row.order_type),
                price=row.price or None,
                trigger=row.trigger or None,
                validity=_known(Validity, row.validity),
                disclosed_quantity=row.disclosed_quantity,
                amo=row.generated_type == "AMO",
            )
            self.add(order)
        order.apply(row)
        return order

    def apply(self, rows: list[OrderRow]) -> None:
        """Move every known order to what the book says of it."""
        for row in rows:
            order = self._orders.get(row.number)
            if order is not None:
                order.apply(row)

    async def until_changed(self, order: Order) -> None:
        """Wait for a change of the order, reading the book meanwhile."""
        if self._poll is None:
            self._poll = asyncio.create_task(self._keep_reading(), name="order book reader")
        self._waiting += 1
        try:
            await order.until_next_change()
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    async def _keep_reading(self) -> None:
        """Read the book now and every `interval` seconds, as long as somebody waits."""
        assert self._refresh is not None
        try:
            while True:
                try:
                    await self._refresh()
                except NeoError as error:
                    log.warning("the order book could not be read: %s", error)
                await asyncio.sleep(self._interval)
                if not self._waiting:
                    return
        finally:
            self._poll = None


def _known(vocabulary: type[E], code: str) -> E | str:
    try:
        return vocabulary(code)
    except ValueError:
        return code


def find_by_tag(rows: list[OrderRow], client_tag: str) -> OrderRow | None:
    """The row of the order that carries this client tag."""
    return next((row for row in rows if matches(row.gui_order_id, client_tag)), None)
