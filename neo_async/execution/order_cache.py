"""Orders as they live: one object an order, moved by whatever the broker reports of it.

What moves them are messages of the order feed and rows of the order book, alike. The feed is fast
but may lose, repeat and mix up; the book is slow and right. So the book is read once after every
reconnect, whenever the feed leaves something open, and when the feed has said nothing of an open
order for a while, whatever it says of others. While there is no feed, the book is polled.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from neo_async import logs
from neo_async.errors import NotLoggedIn, ProtocolError
from neo_async.feeds.order_feed import OrderSource
from neo_async.logs import Subject, log_order
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.india import begin_of, day_of
from neo_async.model.orders import HistoryRow, OrderRow, Price
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.session.polling import Poller
from neo_async.wire.tags import own_tag, without_suffix

log = logging.getLogger(logs.ORDERS)

E = TypeVar("E", bound=StrEnum)

SETTLING = 1.0
"""Seconds granted to the feed for the details of a fill (the price comes after the quantity)
before the book is asked for them."""

CATCHING_UP = 5.0
"""Seconds after which an order book shows an accepted change, unless the exchange refused it."""

EXTERNAL_ORDERS = 1000
"""Orders that are not known, of which updates are kept."""
UPDATES_OF_AN_EXTERNAL_ORDER = 32
EXTERNAL_KEPT = 20.0
"""Seconds for which the updates of an unknown order wait for the answer to its placement."""

FINAL_ORDERS_KEPT = 10_000
"""Final orders that stay in memory; the ones that became final first are forgotten first."""

ROWS_AT_ONCE = 250
"""Rows of an order book that are applied before other tasks get their turn."""

LONGEST_CLOSURE = 7
"""Days for which the exchanges stay closed at most, weekends and holidays in a row."""

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

_CHANGING = frozenset({OrderStatus.MODIFY_VALIDATION_PENDING, OrderStatus.MODIFY_PENDING})
_VALUES_KEPT = 32
"""Earlier values of one term that reports may still show."""

_FILL = frozenset({"filled_quantity", "quantity"})
_PARTS = frozenset({"filled_quantity", "pending_quantity"})
_OF_HISTORY = ("status_text", "reject_text", "filled_quantity", "average_price", "updated_ns")
"""What a history tells of an order's end."""

_AWAITS_SESSION = frozenset({OrderStatus.AMO_RECEIVED, OrderStatus.AMO_MODIFY_RECEIVED})
_ENDS_WITH_DAY = frozenset({"", Validity.DAY, Validity.IOC})
_NO_EXCHANGE_NUMBER = frozenset({"", "NA", "--", "0"})
_DATED_NUMBER = 12
"""Digits that an order number has at least when it begins with the date."""
_LONG_AGO = -math.inf


class OrderChange(msgspec.Struct, frozen=True, gc=False):
    """What an order looked like from some moment on."""

    status: OrderStatus
    filled_quantity: int
    average_price: float
    reject_reason: str
    updated_ns: int
    """Unix nanoseconds, the broker's clock (ours for the first entry)."""


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

    def observe(self, row: OrderRow, missing: frozenset[str], asked_at: float) -> None:
        """Find out whether a report is from after the change. `asked_at` is the time of the loop
        at which a book was asked for, minus infinity for a message of the feed."""
        if self.accepted_at is None and self.earlier is not None:
            self.earlier.observe(row, missing, asked_at)
        if self.is_reported or row.status in _CHANGING:
            return
        since = math.inf if self.accepted_at is None else self.accepted_at
        self.is_reported = (
            asked_at >= since + CATCHING_UP
            or (self._agrees(row, missing) and (asked_at >= since or self._is_distinct()))
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


class Order:
    """An order of this account, in the last state the broker reported.

    Updates may come twice, late or out of order: the filled quantity never falls, and of two
    reports the one with the broker's newer time counts. A final state is left only when a newer
    report of the broker corrects it, which is logged as an error.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_change",
        "_changed",
        "_client_tag",
        "_corrected_ns",
        "_history",
        "_is_priced",
        "_presumed_ns",
        "_status_ns",
        "amo",
        "average_price",
        "disclosed_quantity",
        "exchange_number",
        "filled_quantity",
        "heard_at",
        "known_at",
        "number",
        "order_type",
        "placed_ns",
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
        cache: OrderCache,
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
        placed_ns: int = 0,
    ) -> None:
        self._cache = cache
        self._changed: asyncio.Event | None = None
        self._change: TermsChange | None = None
        self.number = number
        self._client_tag = client_tag
        self.segment = segment
        """Like side, product, type and validity a member of its enum, or text where another
        application placed the order with a code that is none of ours."""
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        """Units, in total; 0 when no report has said it in a form that can be read."""
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
        self._status_ns = 0
        """Time of the report that gave the status: 0 for our own placing, -1 for one without."""
        self._presumed_ns = 0
        """Begin of the day (Unix nanoseconds) whose order book lacks the order, which was therefore
        taken for over; 0 when a report gave the status."""
        self._corrected_ns = 0
        """Time of a final state that was corrected: what is no newer is outdated."""
        self.known_at = self.heard_at = _LONG_AGO
        """Times of the loop at which the order became known, and the feed last told of it."""
        self.reject_reason = ""
        self.updated_ns = 0
        """Unix nanoseconds of the newest report; 0 when there was none yet."""
        self.placed_ns = placed_ns or int(cache.clock() * 1e9)
        """Unix nanoseconds by the client's clock, at which its placement was sent; where that is
        not known, at which the order became known here."""
        # Most orders of a busy bot are never asked for it, and lists cost the collector.
        self._history: list[OrderChange] | None = None

    @property
    def client_tag(self) -> str:
        """The mark that this order carries at the broker."""
        return self._client_tag

    @client_tag.setter
    def client_tag(self, client_tag: str) -> None:
        before, self._client_tag = self._client_tag, client_tag
        if before != client_tag:
            self._cache.retag(self, before)

    @property
    def history(self) -> list[OrderChange]:
        """Every state seen, oldest first; the first is that of our own placing it."""
        if self._history is None:
            first = OrderStatus.AMO_RECEIVED if self.amo else OrderStatus.PUT_RECEIVED
            self._history = [OrderChange(first, 0, 0.0, "", self.placed_ns)]
        return self._history

    @property
    def tag(self) -> str:
        """The tag that the caller gave."""
        return own_tag(self.client_tag)

    @property
    def pending_quantity(self) -> int:
        """Units that may still be filled; 0 also when the quantity is not known."""
        return 0 if self.status.is_final else max(0, self.quantity - self.filled_quantity)

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
                await self._cache.until_changed(self)
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
            await self._cache.until_changed(self)

    @property
    def lacks_fills(self) -> bool:
        """Whether it is final, but has more fills than the broker has told in full."""
        if not self.status.is_final:
            return False
        if self.status is OrderStatus.COMPLETE and self.filled_quantity < self.quantity:
            return True
        return self.filled_quantity > 0 and not self._is_priced

    def has_odd_fill(self, row: OrderRow) -> bool:
        """Whether a report says that more is filled than the order can have, as it is or as a
        change may make it: then neither that number nor its quantity can be relied on. The order
        book may show a quantity that another application has changed; a message must not."""
        if row.filled_quantity <= self.quantity:
            return row.contradicts_itself
        most = max(self.quantity, 0 if self._change is None else self._change.largest_quantity)
        if not (most and isinstance(row, OrderUpdate)):
            most = max(most, row.quantity)
        return row.contradicts_itself or 0 < most < row.filled_quantity

    def apply(self, row: OrderRow, *, asked_at: float = -math.inf) -> bool:
        """Take over what a row or an update reports, as far as it is news. Returns whether
        anything moved. `asked_at` is the time of the loop at which a book was asked for."""
        before = (self.status, self.filled_quantity, self.average_price, self.reject_reason)
        missing = row.missing
        # A report without a time (0) may be of any: it is taken as one of now, and only forwards.
        is_late = 0 < row.updated_ns < self.updated_ns
        if self.has_odd_fill(row):
            missing |= _FILL
        self._take_status(row, is_late=is_late, is_of_book=asked_at > -math.inf)
        self._take_fills(row, missing, is_late=is_late)
        if not is_late:
            self._take_terms(row, missing, asked_at)
            self.updated_ns = row.updated_ns or self.updated_ns
        if before == (self.status, self.filled_quantity, self.average_price, self.reject_reason):
            return False
        self._note(row.updated_ns or self.updated_ns)
        return True

    def expire(self, reason: str, day_ns: int) -> None:
        """Take the order for ended because its day is over, without a report of how it ended.
        `day_ns` is the begin of the day that has come since, in Unix nanoseconds."""
        self._presumed_ns = day_ns
        self.status = OrderStatus.EXPIRED
        self.status_text = self.status.value
        self.reject_reason = reason
        self._change = None
        self._note(self.updated_ns)

    @property
    def is_presumed_over(self) -> bool:
        """Whether it counts as expired only because the order book of a later day lacks it."""
        return self._presumed_ns > 0

    def begin_change(self, terms: Mapping[str, object]) -> TermsChange:
        """Watch for reports of a modification that is about to be sent. `terms` are all terms of
        the order after it; `accept_change` or `drop_change` ends it."""
        self._change = TermsChange(self, terms, self._change)
        return self._change

    def accept_change(self, change: TermsChange) -> None:
        """Take over the terms of a modification that the broker has accepted, unless reports have
        shown already what it led to."""
        if self._change is not change:
            return
        if not change.terms:
            self._change = change.earlier
            return
        change.accept(asyncio.get_running_loop().time())
        if change.is_reported or self.is_final:
            self._change = None
            return
        for name, value in change.terms.items():
            setattr(self, name, value)
        self._cache.await_report(self)

    def drop_change(self, change: TermsChange, *, is_known: bool) -> None:
        """End the watch for a modification that was not accepted. When it is not known what came
        of it (`is_known` is False), reports alone say what the terms are."""
        if self._change is change:
            self._change = change.earlier if is_known else None

    @property
    def unreported_change(self) -> TermsChange | None:
        """The modification that was accepted, and that no report has shown yet."""
        change = self._change
        if change is not None and change.accepted_at is None:
            change = change.earlier
        return change

    def _note(self, updated_ns: int) -> None:
        self.history.append(
            OrderChange(
                self.status,
                self.filled_quantity,
                self.average_price,
                self.reject_reason,
                updated_ns,
            )
        )
        self.wake()

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
            self._tell_correction(row)
            self._presumed_ns = 0
        elif self.status.is_final:
            if not self._is_corrected_by(row, is_newer=is_newer, is_late=is_late):
                return
            self._tell_correction(row)
            self._corrected_ns = max(self._corrected_ns, self._status_ns)
        elif status.is_final:
            if self._corrected_ns and row.updated_ns <= self._corrected_ns:
                return  # the final state that was corrected, once more
        elif not is_newer and (is_late or _stage(status) < _stage(self.status)):
            return
        self._status_ns = row.updated_ns or -1
        if status is OrderStatus.UNKNOWN and row.status_text != self.status_text:
            subject = Subject("report", self.client_tag, self.number)
            log_order(log, logging.WARNING, subject, "an unknown state: %r", row.status_text)
        self.status = status
        self.status_text = row.status_text
        self.reject_reason = row.reject_reason

    def _is_reported_by(self, row: OrderRow, *, is_of_book: bool) -> bool:
        """Whether a report says how the order stands that was taken for over with its day. A late
        message of that day, when it was open, does not."""
        if row.status.is_final:
            return not 0 < row.updated_ns <= self._corrected_ns
        return is_of_book or row.updated_ns >= self._presumed_ns

    def _is_corrected_by(self, row: OrderRow, *, is_newer: bool, is_late: bool) -> bool:
        """Whether a report of another state than this final one says what is right now."""
        if not row.status.is_final:
            # Fills are never taken back, so nothing can be open of what was filled in full.
            return is_newer and not 0 < self.quantity <= self.filled_quantity
        is_more = row.status is OrderStatus.COMPLETE and row.filled_quantity > self.filled_quantity
        return is_newer or (is_more and not is_late and not self.has_odd_fill(row))

    def _tell_correction(self, row: OrderRow) -> None:
        log_order(
            log,
            logging.ERROR,
            Subject("report", self.client_tag, self.number),
            "the order was final (%s, %d filled), and the broker now reports %r, %d filled",
            self.status_text,
            self.filled_quantity,
            row.status_text,
            row.filled_quantity,
        )

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

    def _take_terms(self, row: OrderRow, missing: frozenset[str], asked_at: float) -> None:
        """Quantity and prices as they now stand: a modification may have changed them, and the
        broker turns market orders into limits."""
        if row.exchange_number and (row.exchange_number != "NA" or not self.exchange_number):
            self.exchange_number = row.exchange_number
        if not row.updated_ns and self.updated_ns and isinstance(row, OrderUpdate):
            return  # a message without a time may be older than what is known
        change = self._change
        if change is not None:
            change.observe(row, missing, asked_at)
        if row.quantity > 0 and "quantity" not in missing:
            self.quantity = row.quantity
        if row.validity:
            self.validity = _known(Validity, row.validity)
        if row.order_type:
            self.order_type = _known(OrderType, row.order_type)
        # A row that is no order's whole description says nothing with its zeros.
        if row.order_type or isinstance(row, OrderUpdate):
            if "price" not in missing:
                self.price = row.price or None
            if "trigger" not in missing:
                self.trigger = row.trigger or None
            if "disclosed_quantity" not in missing:
                self.disclosed_quantity = row.disclosed_quantity
        if change is not None:
            self._keep_accepted_terms(change)

    def _keep_accepted_terms(self, change: TermsChange) -> None:
        for name, value in change.held().items():
            setattr(self, name, value)
        if self.is_final or (change.accepted_at is not None and change.is_reported):
            self._change = None


class OrderCache:
    """Knows the orders of this account by number and moves them by whatever is reported of them.

    `refresh_with` gives it the way to read the order book, which hands every book it reads to
    `apply`; `follow` gives it the order feed.

    Orders that are final leave the memory, oldest first, when there are more than `kept` of them.
    An order object that the program still holds is kept up to date nevertheless.
    """

    def __init__(
        self, *, interval: float = 0.5, quiet: float = 15.0, kept: int = FINAL_ORDERS_KEPT
    ) -> None:
        """The book is read every `interval` seconds while somebody waits for an order and there is
        no live feed; and when the feed has said nothing of an open order for `quiet` seconds.
        """
        self.clock: Callable[[], float] = time.time
        """Unix time, by which orders belong to a day."""
        self._orders: dict[str, Order] = {}
        self._by_tag: dict[str, Order] = {}
        """By client tag, as placed: without what the broker appends."""
        self._own: set[str] = set()
        self._open: OrderedDict[str, Order] = OrderedDict()
        """The order of which the feed has said nothing for longest comes first."""
        self._open_by_symbol: dict[str, dict[str, Order]] = {}
        """The same by symbol, in capitals and without blanks around."""
        self._kept = kept
        self._final: deque[str] = deque()
        """Numbers in the order in which the orders became final."""
        self._forgotten: set[str] = set()
        """Numbers of today's orders that have left the memory."""
        self._has_forgotten = False
        self._held_elsewhere: WeakValueDictionary[str, Order] = WeakValueDictionary()
        """Those of them whose objects the program still holds."""
        self._lacking: dict[str, Order] = {}
        """Final, with details of fills to come."""
        self._lacking_since = 0.0
        self._changed: dict[str, Order] = {}
        """With an accepted change that no report has shown."""
        self._changed_since = 0.0
        self._external: dict[str, ExternalOrder] = {}
        """Updates of orders that are not known, or not yet: they may outrun the answer to place."""
        self._external_since = 0.0
        self._interval = interval
        self.quiet = quiet
        self._feed: OrderSource | None = None
        self._followed_since: float | None = None
        """Time of the loop at which the feed was started; None before."""
        self._refresh: Callable[[], Awaitable[object]] | None = None
        self._waiting: Counter[Order] = Counter()
        self._dismissals = 0
        self._repair_listeners: list[Callable[[OrderRow], None]] = []
        self._poller = Poller("order book", self._read, self._due_in)
        self._book_at = -math.inf
        """Time of the loop at which the last whole book had been applied."""
        self._day = ""
        """Of the newest book that was read."""
        self._empty_books = 0
        """Of that day, one after the other, each asked for after the one before had come."""
        self._carried: dict[str, Order] = {}
        """Orders that were open when that day began."""
        self._odd_since = math.inf
        """Time of the loop since which only the order book can say what is filled of an order; inf
        when messages have said it of all."""
        self._absent_since: dict[str, float] = {}
        """Open own orders that every book since then has lacked: time of the loop by number."""

    @property
    def orders(self) -> Mapping[str, Order]:
        """Known orders by number, placed here or seen in the feed: every open one, and those that
        became final last."""
        return MappingProxyType(self._orders)

    @property
    def open_orders(self) -> list[Order]:
        """Those that are not final, as far as is known."""
        return list(self._open.values())

    @property
    def open_count(self) -> int:
        """How many those are."""
        return len(self._open)

    def open_in(self, symbol: str) -> Iterator[Order]:
        """Those of a symbol in capitals, and those whose symbol is not known."""
        for one in (symbol, "") if symbol else ("",):
            yield from self._open_by_symbol.get(one, {}).values()

    def refresh_with(self, refresh: Callable[[], Awaitable[object]]) -> None:
        self._refresh = refresh

    def follow(self, feed: OrderSource) -> None:
        """Let the feed move the orders from now on. Called once, before it is started."""
        self._feed = feed
        feed.subscribe(self._hear)
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
        nothing else is known. Those of earlier days are left out once they are final."""
        return self._own

    def register_number(self, number: str) -> None:
        """Know that an order was placed here."""
        self._own.add(number)

    def _know(self, order: Order) -> Order:
        number = order.number
        known = self.get(number)
        if known is not None:
            known.client_tag = order.client_tag
            return known
        self._orders[number] = order
        self._index(order)
        order.known_at = order.heard_at = _now()
        if (external := self._external.pop(number, None)) is not None:
            for row in external.updates:
                order.apply(row)
        if order.is_final:
            self._final.append(number)
            self._forget_old()
        self._reindex(order)
        return order

    def get(self, number: str) -> Order | None:
        """The known order of that number."""
        order = self._orders.get(number)
        if order is None and self._has_forgotten:
            return self._held_elsewhere.get(number)
        return order

    def by_tag(self, client_tag: str) -> Order | None:
        """The known order that carries this client tag, with or without the suffix of a cancel;
        of several the one that was known first."""
        return self._by_tag.get(without_suffix(client_tag))

    def retag(self, order: Order, before: str) -> None:
        """Take note that an order carries another client tag than `before`."""
        if self._orders.get(order.number) is order:
            self._unindex(order, before)
            self._index(order)

    def _index(self, order: Order) -> None:
        tag = order.client_tag
        if tag:
            self._by_tag.setdefault(without_suffix(tag) if "-" in tag else tag, order)

    def _unindex(self, order: Order, client_tag: str) -> None:
        tag = without_suffix(client_tag)
        if self._by_tag.get(tag) is order:
            del self._by_tag[tag]

    def register(
        self, row: OrderRow, *, client_tag: str = "", asked_at: float = -math.inf
    ) -> Order:
        """The order of a row of the book: the one known already, or a new one made from the row.

        Raises ProtocolError for a row that names no order.
        """
        if not row.has_number:
            raise ProtocolError(f"a row of the order book has no order number: {row}")
        if client_tag:
            self._own.add(row.number)
        order = self.get(row.number)
        is_new = order is None
        if order is None:
            order = self._know(
                Order(
                    self,
                    number=row.number,
                    client_tag=client_tag or row.gui_order_id,
                    segment=_known(Segment, row.segment),
                    symbol=row.symbol,
                    side=_known(Side, row.side),
                    quantity=_quantity_of(row),
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
        order.apply(row, asked_at=asked_at)
        self._reindex(order)
        if is_new and order.filled_quantity and not isinstance(row, OrderUpdate):
            self._tell_repairs([row])
        return order

    def take_history(self, number: str, rows: Sequence[HistoryRow]) -> None:
        """Learn how an order ended that was taken for over with its day, from its history."""
        order = self.get(number)
        if order is None or not order.is_presumed_over:
            return
        newest = max(rows, key=lambda row: row.updated_ns, default=None)
        if newest is not None and newest.status.is_final:
            self._apply_rows([_as_order_row(number, newest)], adopts_open=False, asked_at=_LONG_AGO)

    def apply(
        self,
        rows: Sequence[OrderRow],
        *,
        adopts_open: bool = False,
        asked_at: float = -math.inf,
        day: str = "",
    ) -> None:
        """Move every known order to what a whole book says of it; with `adopts_open`, know those of
        its open orders that were not known.

        `asked_at` is the time of the loop at which the book was asked for, and `day` the day in
        India on which that was, as `day_of` writes it.
        """
        self._apply_rows(rows, adopts_open=adopts_open, asked_at=asked_at)
        self._end_book(rows, asked_at=asked_at, day=day)

    async def apply_in_slices(
        self,
        rows: Sequence[OrderRow],
        *,
        adopts_open: bool = False,
        asked_at: float = -math.inf,
        day: str = "",
    ) -> None:
        """As `apply`, but other tasks get their turn in between."""
        async for part in in_slices(rows):
            self._apply_rows(part, adopts_open=adopts_open, asked_at=asked_at)
        self._end_book(rows, asked_at=asked_at, day=day)

    async def until_changed(self, order: Order) -> None:
        """Wait for a change of the order, reading the book meanwhile if there is no feed.

        Raises NotLoggedIn when nothing can change it any more here.
        """
        dismissals, seen = self._dismissals, len(order.history)
        self._waiting[order] += 1
        try:
            self._poller.look()
            await order.until_next_change()
        finally:
            self._waiting[order] -= 1
            if not self._waiting[order]:
                del self._waiting[order]
        if self._dismissals != dismissals and len(order.history) == seen:
            raise NotLoggedIn(f"logged out while order {order.number} was waited for")

    def await_report(self, order: Order) -> None:
        """Have the book read when no report shows an order's accepted change in time."""
        if not self._changed:
            self._changed_since = asyncio.get_running_loop().time()
        self._changed[order.number] = order
        if self._followed_since is not None:
            self._poller.look()

    def has_odd_fill(self, row: OrderRow) -> bool:
        """See `Order.has_odd_fill`; of an order that is not known only the row itself says it."""
        order = self._orders.get(row.number)
        return row.contradicts_itself if order is None else order.has_odd_fill(row)

    def reread(self) -> None:
        """Have the book read, beginning no earlier than now."""
        self._poller.ask()

    async def close(self) -> None:
        await self._poller.close()
        self._dismiss_waiters()

    def _dismiss_waiters(self) -> None:
        self._dismissals += 1
        for order in [*self._waiting]:
            order.wake()

    # --- the feed -----------------------------------------------------------------------------

    def _feed_changed(self, event: FeedEvent) -> None:
        self._note_feed()
        if event.state is FeedState.LIVE:
            self._poller.ask()
        elif self._waiting:
            self._poller.look()

    def _note_feed(self) -> None:
        if self._followed_since is None:
            self._followed_since = asyncio.get_running_loop().time()

    def _hear(self, update: OrderRow | PositionUpdate) -> None:
        self._note_feed()
        if isinstance(update, PositionUpdate):
            return
        order = self._orders.get(update.number)
        if order is None and self._has_forgotten:
            order = self.get(update.number)
        if order is not None:
            order.heard_at = asyncio.get_running_loop().time()
            order.apply(update)
            if order.has_odd_fill(update) and self._odd_since == math.inf:
                self._odd_since = order.heard_at
                self._poller.look()
            self._reindex(order, is_news=True)
        elif update.number in self._forgotten:
            pass  # a repeated message of an order that is long final
        elif update.missing.isdisjoint(_TERMS):
            # Placed elsewhere, or the answer to its placement is still under way.
            self.register(update)
        else:
            self._keep(update)

    def _keep(self, update: OrderRow) -> None:
        external = self._external.get(update.number)
        if external is None:
            now = asyncio.get_running_loop().time()
            if not self._external:
                self._external_since = now
            elif len(self._external) >= EXTERNAL_ORDERS:
                del self._external[next(iter(self._external))]
            external = ExternalOrder(now, deque(maxlen=UPDATES_OF_AN_EXTERNAL_ORDER))
            self._external[update.number] = external
            self._poller.look()
        external.updates.append(update)

    def _forget_external(self) -> None:
        """Forget those for which no answer to a placement can come any more, and which the book
        does not describe."""
        until = _now() - EXTERNAL_KEPT
        while self._external:
            number = next(iter(self._external))
            if self._external[number].since > until:
                break
            del self._external[number]

    # --- the book -----------------------------------------------------------------------------

    def _apply_rows(self, rows: Sequence[OrderRow], *, adopts_open: bool, asked_at: float) -> None:
        repairs = []
        for row in rows:
            order = self._orders.get(row.number)
            if order is None and self._has_forgotten:
                order = self.get(row.number)
            if order is not None:
                filled = order.filled_quantity
                order.apply(row, asked_at=asked_at)
                if order.filled_quantity > filled:
                    repairs.append(row)
            elif row.number in self._external or (
                adopts_open and row.has_number and not row.status.is_final
            ):
                order = self.register(row, asked_at=asked_at)
            if order is not None:
                self._reindex(order, is_confirmed=row.status.is_final)
        self._tell_repairs(repairs)

    def _tell_repairs(self, rows: Iterable[OrderRow]) -> None:
        """Hand rows to the listeners that tell of fills which the feed had not told."""
        for row in rows:
            for listener in [*self._repair_listeners]:
                try:
                    listener(row)
                except Exception:
                    log.exception("a listener failed on the fill of order %s", row.number)

    def _end_book(self, rows: Sequence[OrderRow], *, asked_at: float, day: str) -> None:
        """Draw the conclusions from a whole book."""
        if asked_at >= self._odd_since:
            self._odd_since = math.inf
        self._forget_external()
        self._note_absent(rows, asked_at)
        for number, order in [*self._changed.items()]:
            change = order.unreported_change
            # What the book does not show by now is looked for no oftener than anything else.
            if change is None or asked_at >= (change.accepted_at or 0.0) + CATCHING_UP:
                del self._changed[number]
        if day:
            if day > self._day:
                self._begin_day(day)
            if rows:
                self._empty_books = 0
            elif asked_at >= self._book_at:
                self._empty_books += 1
            if self._carried and day == self._day:
                self._end_expired(rows, asked_at)
        self._book_at = max(self._book_at, _now())

    def _reindex(self, order: Order, *, is_confirmed: bool = False, is_news: bool = False) -> None:
        """Remember whether something is still to come of the order. Nothing is, once the book
        confirms that it is final."""
        number = order.number
        if self._changed and number in self._changed and order.unreported_change is None:
            del self._changed[number]
        if order.is_final:
            if (known := self._open.pop(number, None)) is not None:
                symbol = _folded(known.symbol)
                alike = self._open_by_symbol[symbol]
                del alike[number]
                if not alike:
                    del self._open_by_symbol[symbol]
                self._final.append(number)
                self._forget_old()
            if is_confirmed or not order.lacks_fills:
                self._lacking.pop(number, None)
            elif self._followed_since is not None and number not in self._lacking:
                self._lacking[number] = order
                self._lacking_since = asyncio.get_running_loop().time()
                self._poller.look()
        elif number not in self._open:
            self._open[number] = order
            self._open_by_symbol.setdefault(_folded(order.symbol), {})[number] = order
            if self._day and _date_in(number) != self._day:
                self._carried[number] = order
            if self._lacking:
                self._lacking.pop(number, None)
            if self._orders.get(number) is not order:
                self._remember(order)
            if self._followed_since is not None:
                self._poller.look()
        elif is_news:
            self._open.move_to_end(number)

    def _forget_old(self) -> None:
        """Let the oldest final order leave the memory when there are too many."""
        if len(self._final) <= self._kept:
            return
        number = self._final.popleft()
        order = self._orders.get(number)
        if order is None or not order.is_final:
            return  # it is forgotten already, or a correction has made it open again
        if number in self._lacking:
            self._final.append(number)
            return
        del self._orders[number]
        self._unindex(order, order.client_tag)
        self._forgotten.add(number)
        self._has_forgotten = True
        self._held_elsewhere[number] = order

    def _remember(self, order: Order) -> None:
        """Know an order again that was final and is open by a correction."""
        self._orders[order.number] = order
        self._forgotten.discard(order.number)
        self._held_elsewhere.pop(order.number, None)
        self._index(order)

    # --- days ---------------------------------------------------------------------------------

    def _begin_day(self, day: str) -> None:
        """Take note of the orders of earlier days that count as open, and drop the numbers of
        those that are over."""
        is_next, self._day = bool(self._day), day
        self._empty_books = 0
        self._carried = {
            number: order for number, order in self._open.items() if _date_in(number) != day
        }
        for numbers in (self._own, self._forgotten) if is_next else ():
            numbers.intersection_update(
                [one for one in numbers if one[:6] >= day or one in self._open]
            )

    def _note_absent(self, rows: Sequence[OrderRow], asked_at: float) -> None:
        """Note which open own orders a book lacks that was asked for after all news of them."""
        if any(not row.has_number for row in rows):
            return
        numbers = {row.number for row in rows}
        before = self._absent_since
        self._absent_since = {
            number: before.get(number, asked_at)
            for number, order in self._open.items()
            if number not in numbers and number in self._own and order.heard_at < asked_at
        }

    def absent_since(self, moment: float) -> list[Order]:
        """Open own orders that every book asked for since `moment`, a time of the loop, has lacked,
        and some before that."""
        return [
            self._orders[number] for number, since in self._absent_since.items() if since < moment
        ]

    def end_absent(self, order: Order, reason: str) -> None:
        """Take an order for over that the broker knows no more, until a report shows it."""
        if order.is_final:
            return
        order.expire(reason, int(self.clock() * 1e9))
        subject = Subject("report", order.client_tag, order.number)
        log_order(log, logging.ERROR, subject, "expired: %s", reason)
        self._reindex(order, is_confirmed=True)

    def _end_expired(self, rows: Sequence[OrderRow], asked_at: float) -> None:
        """End the orders of earlier days that a whole book of today lacks.

        The exchanges cancel what is open at the close, and the order book is of one day. After-
        market orders, and those that are to rest for several days, wait for the next session: they
        are over when their segment has traded without them, or after `LONGEST_CLOSURE` days.
        """
        numbers = {row.number for row in rows}
        nameless = [row for row in rows if not row.has_number]
        lacking = [
            order
            for number, order in self._carried.items()
            if number not in numbers and not any(_may_be(row, order) for row in nameless)
        ]
        if not lacking or not self._is_whole(numbers, asked_at):
            return
        trading = {
            row.segment
            for row in rows
            if row.exchange_number not in _NO_EXCHANGE_NUMBER
            and row.updated_ns
            and day_of(row.updated_ns / 1e9) == self._day
        }
        for order in lacking:
            last_day = last_day_of(order, self._day)
            if order.is_final or last_day >= self._day:
                continue
            if (
                _awaits_session(order)
                and order.segment not in trading
                and _days_between(last_day, self._day) < LONGEST_CLOSURE
            ):
                continue
            self._expire(order)
        self._carried = {
            number: order for number, order in self._carried.items() if not order.is_final
        }

    def _expire(self, order: Order) -> None:
        order.expire(
            f"it is not in the order book of a later day ({self._day}); no report has said how it "
            "ended",
            begin_of(self._day),
        )
        subject = Subject("report", order.client_tag, order.number)
        log_order(log, logging.WARNING, subject, "expired: %s", order.reject_reason)
        self._reindex(order, is_confirmed=True)

    def _is_whole(self, numbers: AbstractSet[str], asked_at: float) -> bool:
        """Whether a book of today can show that something is not in it: it has every order of
        today that was placed here before it was asked for. Since many a broken answer reads like
        an empty book, it takes two of those."""
        if not numbers and self._empty_books < 2:
            return False
        for number in self._own:
            if number in numbers or _date_in(number) != self._day:
                continue
            order = self.get(number)
            if order is None or order.known_at < asked_at:
                return False
        return True

    def _due_in(self) -> float | None:
        """Seconds until the book has to be read; None while it has nothing to tell."""
        read_at = self._poller.read_at
        due = math.inf
        if self._waiting and not (self._feed is not None and self._feed.is_live):
            due = read_at + self._interval
        if self._followed_since is not None:
            book_at = max(read_at, self._book_at)
            if self._open:
                silent_since = next(iter(self._open.values())).heard_at
                silent_since = max(book_at, silent_since, self._followed_since)
                due = min(due, silent_since + self.quiet)
            if self._external:
                due = min(due, max(book_at, self._external_since) + self.quiet)
            if self._lacking:
                due = min(due, max(read_at, self._lacking_since) + SETTLING)
            if self._changed:
                due = min(due, max(read_at, self._changed_since) + SETTLING)
            if self._odd_since < math.inf:
                due = min(due, max(read_at, self._odd_since) + SETTLING)
        return None if due == math.inf else due - asyncio.get_running_loop().time()

    async def _read(self) -> None:
        assert self._refresh is not None
        try:
            await self._refresh()
        except NotLoggedIn:
            self._dismiss_waiters()


class ExternalOrder(msgspec.Struct):
    """Updates of an order that is not known."""

    since: float
    """Time of the loop at which the first of them came."""
    updates: deque[OrderRow]


async def in_slices(rows: Sequence[OrderRow]) -> AsyncIterator[Sequence[OrderRow]]:
    """The rows in parts of `ROWS_AT_ONCE`, with a turn of the event loop between two of them."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        yield rows[start : start + ROWS_AT_ONCE]


def _now() -> float:
    """Time of the running loop; long ago where there is none."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return -math.inf


def _folded(symbol: str) -> str:
    return symbol.strip().upper()


def _comparable(name: str, value: object) -> object:
    """A term in the one form in which a caller's value and the broker's can be compared."""
    return float(str(value or 0)) if name in ("price", "trigger") else value


def _date_in(number: str) -> str:
    """The day that an order number begins with; empty when it does not begin with one."""
    if len(number) < _DATED_NUMBER or not (number.isascii() and number.isdigit()):
        return ""
    month, day = number[2:4], number[4:6]
    return number[:6] if "01" <= month <= "12" and "01" <= day <= "31" else ""


def last_day_of(order: Order, today: str) -> str:
    """The last day on which an order is known to have been placed or to have moved."""
    # When the order became known here says nothing where reports have a time.
    days = [_date_in(order.number), day_of((order.updated_ns or order.placed_ns) / 1e9)]
    # A day that has not come yet is of another clock, or no date at all.
    return max((day for day in days if day <= today), default=today)


def _awaits_session(order: Order) -> bool:
    """Whether an order outlives the day on which it was placed."""
    return (
        order.status in _AWAITS_SESSION
        or (order.amo and order.exchange_number in _NO_EXCHANGE_NUMBER)
        or order.validity not in _ENDS_WITH_DAY
    )


def _may_be(row: OrderRow, order: Order) -> bool:
    """Whether a row that names no order may be this one."""
    return all(
        getattr(row, name) in (getattr(order, name), "") for name in ("segment", "symbol", "side")
    )


def _days_between(first: str, last: str) -> int:
    form = "%y%m%d"
    return (datetime.strptime(last, form) - datetime.strptime(first, form)).days  # noqa: DTZ007


def _quantity_of(row: OrderRow) -> int:
    """The units of an order that was not known: as the row has them, or the sum of their parts; 0
    when neither can be read."""
    if row.quantity > 0:
        return row.quantity
    # Of an open order something is pending: 0 is no answer there.
    is_told = row.missing.isdisjoint(_PARTS) and (row.pending_quantity or row.status.is_final)
    return row.filled_quantity + row.pending_quantity if is_told else 0


def _as_order_row(number: str, state: HistoryRow) -> OrderRow:
    """A state of an order's history as the order book would show it."""
    fields = {name: getattr(state, name) for name in _OF_HISTORY}
    return OrderRow(**fields | {"number": number, "missing": state.missing})


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
