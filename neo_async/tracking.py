"""Orders as they live: one object an order, moved by whatever the broker reports of it.

What moves them are messages of the order feed and rows of the order book, alike. The feed is fast
but may lose, repeat and mix up; the book is slow and right. So the book is read once after every
reconnect and whenever the feed leaves something open, and while there is no feed, it is polled.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol, TypeVar

import msgspec

from neo_async.errors import NotLoggedIn
from neo_async.logs import Subject, tell
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import OrderRow, Price
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.transport.websocket import FeedEvent, FeedState
from neo_async.upkeep import Upkeep
from neo_async.wire.tags import own_tag, without_suffix

log = logging.getLogger(__name__)

E = TypeVar("E", bound=StrEnum)

SETTLING = 1.0
"""Seconds granted to the feed for the details of a fill (the price comes after the quantity)
before the book is asked for them."""

STRANGERS = 1000
"""Orders that are not known, of which updates are kept."""
UPDATES_OF_A_STRANGER = 32

_NOTHING: frozenset[str] = frozenset()
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

_EARLY_STAGES = {
    OrderStatus.PUT_RECEIVED: 0,
    OrderStatus.AMO_RECEIVED: 0,
    OrderStatus.AMO_MODIFY_RECEIVED: 0,
    OrderStatus.VALIDATION_PENDING: 1,
    OrderStatus.OPEN_PENDING: 2,
}
_WORKING_STAGE = 3


class OrderSource(Protocol):
    """What the order feed is to those who follow it."""

    @property
    def is_live(self) -> bool: ...

    def start(self) -> None: ...

    def listen(self, listener: Callable[[OrderRow | PositionUpdate], None], /) -> None: ...

    def on_event(self, listener: Callable[[FeedEvent], None], /) -> None: ...


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
        "_is_priced",
        "_is_timed",
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
        """Limit in rupees; None when the order has none. As the caller gave it, until the broker
        reports it: a float from then on."""
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
        self._is_priced = False
        self._is_timed = True
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

    def changes(self) -> AsyncIterator[OrderChange]:
        """Every change from now on, each once and in order; ends with what made the order final
        (and with its fill price, if that has come meanwhile)."""
        return self._changes_since(len(self.history))

    async def _changes_since(self, seen: int) -> AsyncIterator[OrderChange]:
        while True:
            while seen < len(self.history):
                seen += 1
                yield self.history[seen - 1]
            if self.is_final:
                return
            await self._tracker.until_changed(self)

    @property
    def lacks_fills(self) -> bool:
        """Whether it is final, but has more fills than the broker has told in full."""
        if not self.status.is_final:
            return False
        if self.status is OrderStatus.COMPLETE and self.filled_quantity < self.quantity:
            return True
        return self.filled_quantity > 0 and not self._is_priced

    def apply(self, row: OrderRow) -> bool:
        """Take over what a row or an update reports, as far as it is news. Returns whether
        anything moved."""
        before = (self.status, self.filled_quantity, self.average_price, self.reject_reason)
        missing = _missing(row)
        # A report without a time (0) may be of any: it is taken as one of now, and only forwards.
        is_late = 0 < row.updated_ns < self.updated_ns
        self._take_status(row, is_late=is_late)
        self._take_fills(row, missing, is_late=is_late)
        if not is_late:
            self.updated_ns = row.updated_ns or self.updated_ns
            self._take_terms(row, missing)
        if before == (self.status, self.filled_quantity, self.average_price, self.reject_reason):
            return False
        self.history.append(
            OrderChange(
                self.status,
                self.filled_quantity,
                self.average_price,
                self.reject_reason,
                row.updated_ns or self.updated_ns,
            )
        )
        self.wake()
        return True

    async def until_next_change(self) -> None:
        """Wait for the next `apply` that moves something, or for `wake`."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def __repr__(self) -> str:
        limit = "" if self.price is None else f" @ {_rupees(self.price)}"
        side = self.side.name if isinstance(self.side, Side) else self.side
        return (
            f"<Order {self.number} {side} {self.quantity} {self.symbol}{limit} "
            f"{self.order_type} {self.product}: {self.status_text}, "
            f"{self.filled_quantity} filled>"
        )

    def _take_status(self, row: OrderRow, *, is_late: bool) -> None:
        status = row.status
        if self.status.is_final:
            if status is self.status:
                self.reject_reason = self.reject_reason or row.reject_reason
            return
        if not row.status_text:
            return
        # Of two reports with times the newer is right; without them, an order only goes forwards.
        is_newer = row.updated_ns > self.updated_ns and self._is_timed
        is_ahead = not is_late and _stage(status) >= _stage(self.status)
        if not (status.is_final or is_newer or is_ahead):
            return
        self._is_timed = row.updated_ns > 0
        if status is OrderStatus.UNKNOWN and row.status_text != self.status_text:
            subject = Subject("report", self.client_tag, self.number)
            tell(log, logging.WARNING, subject, "an unknown state: %r", row.status_text)
        self.status = status
        self.status_text = row.status_text
        self.reject_reason = row.reject_reason

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

    def _take_terms(self, row: OrderRow, missing: frozenset[str]) -> None:
        """Quantity and prices as they now stand: a modification may have changed them, and the
        broker turns market orders into limits."""
        if row.exchange_number and (row.exchange_number != "NA" or not self.exchange_number):
            self.exchange_number = row.exchange_number
        self.quantity = row.quantity or self.quantity
        if row.validity:
            self.validity = _known(Validity, row.validity)
        if row.order_type:
            self.order_type = _known(OrderType, row.order_type)
        elif not missing:
            return  # a row that is no order's whole description: its zeros say nothing
        if "price" not in missing:
            self.price = row.price or None
        if "trigger" not in missing:
            self.trigger = row.trigger or None
        if "disclosed_quantity" not in missing:
            self.disclosed_quantity = row.disclosed_quantity


class Tracker:
    """Knows the orders of this account by number and moves them by whatever is reported of them.

    `refresh_with` gives it the way to read the order book, which hands every book it reads to
    `apply`; `follow` gives it the order feed.
    """

    def __init__(self, *, interval: float = 0.5, quiet: float = 15.0) -> None:
        """The book is read every `interval` seconds while somebody waits for an order and there is
        no live feed; and when the feed has been silent for `quiet` seconds while orders are open.
        """
        self._orders: dict[str, Order] = {}
        self._tagged: dict[str, Order] = {}
        """The first order that was seen with each client tag."""
        self._own: set[str] = set()
        self._open: dict[str, Order] = {}
        self._lacking: dict[str, Order] = {}
        """Final, with details of fills to come."""
        self._lacking_since = 0.0
        self._strangers: dict[str, deque[OrderRow]] = {}
        """Updates of orders that are not known, or not yet: they may outrun the answer to place."""
        self._strangers_at_last_reading: frozenset[str] = frozenset()
        self._interval = interval
        self.quiet = quiet
        self._feed: OrderSource | None = None
        self._heard_at: float | None = None
        """Time of the loop; None before the feed was started."""
        self._refresh: Callable[[], Awaitable[object]] | None = None
        self._waiting = 0
        self._dismissals = 0
        self._repair_listeners: list[Callable[[OrderRow], None]] = []
        self._upkeep = Upkeep("order book", self._read, self._due_in)

    @property
    def orders(self) -> Mapping[str, Order]:
        """Every known order by number: placed here, or seen in the feed."""
        return MappingProxyType(self._orders)

    @property
    def open_orders(self) -> list[Order]:
        """Those that are not final, as far as is known."""
        return list(self._open.values())

    def refresh_with(self, refresh: Callable[[], Awaitable[object]]) -> None:
        self._refresh = refresh

    def follow(self, feed: OrderSource) -> None:
        """Let the feed move the orders from now on. Called once, before it is started."""
        self._feed = feed
        feed.listen(self._hear)
        feed.on_event(self._feed_changed)

    def on_repair(self, listener: Callable[[OrderRow], None]) -> None:
        """Call `listener` with every row of the book that tells of a fill which the feed had not
        told."""
        self._repair_listeners.append(listener)

    def add(self, order: Order) -> Order:
        """Know an order placed here from now on. Returns the one to use: the feed may have been
        faster than the answer that `order` was made from."""
        self._own.add(order.number)
        return self._know(order)

    @property
    def own(self) -> AbstractSet[str]:
        """Numbers of the orders that are known to have been placed here, also those of which
        nothing else is known."""
        return self._own

    def claim(self, number: str) -> None:
        """Know that an order was placed here."""
        self._own.add(number)

    def _know(self, order: Order) -> Order:
        known = self._orders.get(order.number)
        if known is not None:
            known.client_tag = order.client_tag
            self._index(known)
            return known
        self._orders[order.number] = order
        self._index(order)
        for row in self._strangers.pop(order.number, ()):
            order.apply(row)
        self._sort_in(order)
        return order

    def get(self, number: str) -> Order | None:
        return self._orders.get(number)

    def by_tag(self, client_tag: str) -> Order | None:
        """The order that carries `client_tag`, also with the suffix of a cancel; None when no
        such order is known."""
        return self._tagged.get(client_tag)

    def adopt(self, row: OrderRow, *, client_tag: str = "") -> Order:
        """The order of a row of the book: the one known already, or a new one made from the row."""
        if client_tag:
            self._own.add(row.number)
        order = self._orders.get(row.number)
        if order is None:
            order = self._know(
                Order(
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
            )
        elif client_tag:
            order.client_tag = client_tag
            self._index(order)
        order.apply(row)
        self._sort_in(order)
        return order

    def _index(self, order: Order) -> None:
        if order.client_tag:
            self._tagged.setdefault(without_suffix(order.client_tag), order)

    def apply(self, rows: list[OrderRow], *, adopts_open: bool = False) -> None:
        """Move every known order to what the book says of it; with `adopts_open`, know those of its
        open orders that were not known."""
        repairs = []
        for row in rows:
            order = self._orders.get(row.number)
            filled = order.filled_quantity if order is not None else 0
            if order is not None:
                order.apply(row)
            elif row.number in self._strangers or (adopts_open and not row.status.is_final):
                order = self.adopt(row)
            if order is not None:
                self._sort_in(order, is_confirmed=row.status.is_final)
                if order.filled_quantity > filled:
                    repairs.append(row)
        self._forget_strangers()
        for row in repairs:
            for listener in self._repair_listeners:
                listener(row)

    async def until_changed(self, order: Order) -> None:
        """Wait for a change of the order, reading the book meanwhile if there is no feed.

        Raises NotLoggedIn when nothing can change it any more here.
        """
        dismissals, seen = self._dismissals, len(order.history)
        self._waiting += 1
        try:
            self._upkeep.look()
            await order.until_next_change()
        finally:
            self._waiting -= 1
        if self._dismissals != dismissals and len(order.history) == seen:
            raise NotLoggedIn(f"logged out while order {order.number} was waited for")

    def reread(self) -> None:
        """Have the book read, beginning no earlier than now."""
        self._upkeep.ask()

    async def close(self) -> None:
        await self._upkeep.close()
        self._dismiss_waiters()

    def _dismiss_waiters(self) -> None:
        self._dismissals += 1
        for order in self._orders.values():
            order.wake()

    # --- the feed -----------------------------------------------------------------------------

    def _feed_changed(self, event: FeedEvent) -> None:
        if self._heard_at is None:
            self._heard_at = asyncio.get_running_loop().time()
        if event.state is FeedState.LIVE:
            self._upkeep.ask()
        elif self._waiting:
            self._upkeep.look()

    def _hear(self, update: OrderRow | PositionUpdate) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(update, PositionUpdate):
            return
        order = self._orders.get(update.number)
        if order is not None:
            order.apply(update)
            self._sort_in(order)
        elif _missing(update).isdisjoint(_TERMS):
            # Placed elsewhere, or the answer to its placement is still under way.
            self.adopt(update)
        else:
            self._keep(update)

    def _keep(self, update: OrderRow) -> None:
        updates = self._strangers.get(update.number)
        if updates is None:
            if len(self._strangers) >= STRANGERS:
                del self._strangers[next(iter(self._strangers))]
            updates = self._strangers[update.number] = deque(maxlen=UPDATES_OF_A_STRANGER)
            self._upkeep.look()
        updates.append(update)

    def _forget_strangers(self) -> None:
        """Those that were there at the last reading too: no answer to place takes that long, and
        the book does not describe them."""
        for number in self._strangers_at_last_reading:
            self._strangers.pop(number, None)
        self._strangers_at_last_reading = frozenset(self._strangers)

    # --- the book -----------------------------------------------------------------------------

    def _sort_in(self, order: Order, *, is_confirmed: bool = False) -> None:
        """Remember whether something is still to come of the order. Nothing is, once the book
        confirms that it is final."""
        number = order.number
        if order.is_final:
            self._open.pop(number, None)
            if is_confirmed or not order.lacks_fills:
                self._lacking.pop(number, None)
            elif self._heard_at is not None and number not in self._lacking:
                self._lacking[number] = order
                self._lacking_since = asyncio.get_running_loop().time()
                self._upkeep.look()
        elif number not in self._open:
            self._open[number] = order
            if self._heard_at is not None:
                self._upkeep.look()

    def _due_in(self) -> float | None:
        """Seconds until the book has to be read; None while it has nothing to tell."""
        read_at = self._upkeep.read_at
        due = math.inf
        if self._waiting and not (self._feed is not None and self._feed.is_live):
            due = read_at + self._interval
        if self._heard_at is not None:
            if self._open or self._strangers:
                due = min(due, max(read_at, self._heard_at) + self.quiet)
            if self._lacking:
                due = min(due, max(read_at, self._lacking_since) + SETTLING)
        return None if due == math.inf else due - asyncio.get_running_loop().time()

    async def _read(self) -> None:
        assert self._refresh is not None
        try:
            await self._refresh()
        except NotLoggedIn:
            self._dismiss_waiters()


def _missing(row: OrderRow) -> frozenset[str]:
    return row.missing if isinstance(row, OrderUpdate) else _NOTHING


def _rupees(price: Price) -> str:
    """What a caller gave as given; the broker's with two decimals, or four where it needs them."""
    return f"{price:.4f}".removesuffix("00") if isinstance(price, float) else str(price)


def _known(vocabulary: type[E], code: str) -> E | str:
    try:
        return vocabulary(code)
    except ValueError:
        return code


def _stage(status: OrderStatus) -> int:
    """How far an order has come: a status of an earlier stage is never a later one."""
    if status.is_final:
        return _WORKING_STAGE + 1
    return _EARLY_STAGES.get(status, _WORKING_STAGE)
