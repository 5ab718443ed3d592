"""The execution engine: sends each order request once, and applies every report in one order.

Reports reach it at two entry points, `on_order_update` and `on_order_book`. Each applies a report
to the order cache first, then to the requests in flight, which look orders up there, and then hands
it to the subscribers, such as positions and risk limits. Polling the order book is a task of the
engine as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

from neo_async.base import logs
from neo_async.base.india import day_of
from neo_async.base.logs import Log, Subject, log_order, logger_of
from neo_async.errors import (
    NeoError,
    NotSent,
    OutcomeUnknown,
    ProtocolError,
)
from neo_async.execution.absent_orders import AbsentOrders
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.execution.order_book_poller import OrderBookPoller
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.order_log import OrderLog
from neo_async.execution.reconciliation import Reconciliation, reconcile, uncancelled
from neo_async.execution.reports import in_slices
from neo_async.execution.resubmit import resubmit
from neo_async.execution.sender import PATIENCE, OrderSender, Request
from neo_async.feeds.order_feed import OrderSource
from neo_async.model.answer import Answer
from neo_async.model.enums import Product
from neo_async.model.feed_state import FeedEvent
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.model.updates import PositionUpdate
from neo_async.session.requests import SessionRequests
from neo_async.transport.kinds import Kind
from neo_async.wire.endpoints import (
    CANCEL,
    EXIT_BRACKET,
    EXIT_COVER,
    HISTORY,
    ORDER_BOOK,
    PLACE,
    Endpoint,
)
from neo_async.wire.orders import HistoryForm, read_placed
from neo_async.wire.parts import in_parts
from neo_async.wire.reports import read_history, read_order_book
from neo_async.wire.rules import cancel_form, check_number
from neo_async.wire.tags import TagMaker

T = TypeVar("T")

UpdateListener: TypeAlias = Callable[[OrderRow | PositionUpdate], None]
BookListener: TypeAlias = Callable[[Sequence[OrderRow], float], None]
FillListener: TypeAlias = Callable[[OrderRow], None]

QUIET = 15.0
"""Seconds without a message about an open order after which the order book is read."""

_ROWS_OF_A_PART = 500
"""Rows of a long order book that are decoded before other tasks get their turn."""


class AppliedUpdates:
    """The order feed as subscribers see it: they get each update once it has been applied to the
    orders and to the requests in flight."""

    def __init__(self, feed: OrderSource | None, log: Log) -> None:
        self._feed = feed
        self._log = log
        self._listeners: list[UpdateListener] = []

    @property
    def is_live(self) -> bool:
        """Whether the order feed is live."""
        return self._feed is not None and self._feed.is_live

    def start(self) -> None:
        """Connect the order feed, unless it is connected."""
        if self._feed is not None:
            self._feed.start()

    def subscribe(self, listener: UpdateListener, /) -> None:
        """Call `listener` with every update."""
        self._listeners.append(listener)

    def on_event(self, listener: Callable[[FeedEvent], None], /) -> None:
        """Call `listener` with every change of the order feed's state."""
        if self._feed is not None:
            self._feed.on_event(listener)

    def publish(self, update: OrderRow | PositionUpdate) -> None:
        """Hand an update to the listeners."""
        for listener in [*self._listeners]:
            _call(listener, update, self._log)


class ExecutionEngine:
    """Sends order requests, and keeps the orders of the account current by every report.

    It owns the order cache, the requests in flight and the poller of the order book.
    """

    def __init__(
        self,
        session: SessionRequests,
        *,
        order_feed: OrderSource | None = None,
        journal: Journal | None = None,
        quiet: float = QUIET,
        resolution_timeout: float = 30.0,
        resubmit_unacknowledged: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`order_feed` must not have been started. The book is read when no message has come about
        an open order for `quiet` seconds. See NeoClient for the other settings."""
        self._session = session
        self._state = session.trading_state
        self._journal = journal
        self._resubmits_unacknowledged = resubmit_unacknowledged
        self._clock = clock
        log = logger_of(logs.ORDERS, session.ucc)
        self.tags = TagMaker()
        """Makes the client tags of the orders that are placed here."""
        self.cache = OrderCache(
            quiet=quiet,
            clock=clock,
            on_missed_fill=self._on_missed_fill,
            log=log,
            observer=OrderLog(log, self._is_external),
        )
        """The orders of the account, own and external."""
        self.updates = AppliedUpdates(order_feed, log)
        """The updates of the order feed, each once it has been applied here."""
        self.registers_open_orders = False
        """Whether every open order of an order book is registered, also those placed elsewhere."""
        self._in_flight = InFlightOrders(
            self.cache,
            self.read_order_book,
            self.history,
            journal=journal,
            resolution_timeout=resolution_timeout,
            clock=clock,
        )
        self._sender = OrderSender(session, self.cache, self._in_flight, journal)
        self._poller = OrderBookPoller(self.cache, self.read_order_book)
        self._absent = AbsentOrders(session, self.cache, self.history)
        self._book_listeners: list[BookListener] = []
        self._fill_listeners: list[FillListener] = []
        self._modifying: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Locks of the orders that are being modified, by number."""
        if order_feed is not None:
            order_feed.subscribe(self.on_order_update)
            self._poller.attach(order_feed)

    # --- reports ------------------------------------------------------------------------------

    def on_order_update(self, update: OrderRow | PositionUpdate) -> None:
        """Apply a message of the order feed: to the orders, then to the requests in flight; and
        hand it to the subscribers."""
        _call(self.cache.on_update, update, self.cache.log)
        _call(self._in_flight.on_update, update, self.cache.log)
        self.updates.publish(update)

    async def on_order_book(
        self, rows: list[OrderRow], requested_at: float, requested_on: str
    ) -> None:
        """Apply a complete order book: to the orders, then to the requests in flight; and hand it
        to the subscribers. It was requested at that time of the loop, on that day as `day_of`
        writes it."""
        await self.cache.apply_in_slices(
            rows,
            registers_open=self.registers_open_orders,
            requested_at=requested_at,
            day=requested_on,
        )
        self._in_flight.apply_order_book(rows, requested_at)
        for listener in [*self._book_listeners]:
            listener(rows, requested_at)
        self._absent.check(requested_at)

    def on_book_applied(self, listener: BookListener) -> None:
        """Call `listener` with the rows of every complete order book once it has been applied, and
        with the time of the loop at which the book was requested."""
        self._book_listeners.append(listener)

    def on_missed_fill(self, listener: FillListener) -> None:
        """Call `listener` with every row of an order book that shows a fill which no message has
        reported."""
        self._fill_listeners.append(listener)

    def _is_external(self, order: Order) -> bool:
        # The first report of an order may be faster than the answer to its placement.
        return order.number not in self.cache.own and not self.tags.has_made(order.client_tag)

    def _on_missed_fill(self, row: OrderRow) -> None:
        for listener in [*self._fill_listeners]:
            _call(listener, row, self.cache.log)

    async def read_order_book(self) -> list[OrderRow]:
        """Read the order book, apply it, and return its rows, newest first."""
        requested_at = asyncio.get_running_loop().time()
        requested_on = day_of(self._clock())
        rows = await self._read_rows()
        await self.on_order_book(rows, requested_at, requested_on)
        return rows

    def request_order_book(self) -> None:
        """Have the order book read, beginning no earlier than now."""
        self._poller.request()

    async def history(self, order: Order | str) -> list[HistoryRow]:
        """Return every state that an order went through, newest first."""
        number = order if isinstance(order, str) else order.number
        check_number(number)
        rows = await self._session.read(HISTORY, read_history, form=HistoryForm(number))
        rows = [row for row in rows if row.number in ("", number)]
        self.cache.take_history(number, rows)
        return rows

    async def _read_rows(self) -> list[OrderRow]:
        """Return the rows of the order book. A long one is decoded in parts, so that it does not
        hold up the event loop."""
        book = await self._session.read(ORDER_BOOK, _rows_or_parts)
        if isinstance(book, list):
            return book
        rows: list[OrderRow] = []
        for part in book:
            await asyncio.sleep(0)
            rows.extend(read_order_book(part))
        return rows

    # --- requests -----------------------------------------------------------------------------

    async def pass_gate(self, kind: Kind) -> None:
        """Wait while placements and changes are held back by a login. Raises Halted, and
        NotLoggedIn when the login has failed."""
        await self._sender.pass_gate(kind)

    def check_trading_state(self, kind: Kind) -> None:
        """Raise Halted when a request of this kind may not start now."""
        if self._state.is_checked:
            self._state.check(kind)

    async def place(self, request: Request, *, wait_for_outcome: bool) -> Order:
        """Send a placement and return its order."""
        try:
            number = await self._sender.send(request)
        except OutcomeUnknown as unknown:
            if self._resubmits_unacknowledged:
                self._resubmit(unknown, request)
            return await self.resolved_order(unknown, wait_for_outcome=wait_for_outcome)
        return self._add_placed(request, number, request.sent_ns)

    def _add_placed(self, request: Request, number: str, sent_ns: int) -> Order:
        assert request.terms is not None
        order = Order(number, request.terms, client_tag=request.client_tag, placed_ns=sent_ns)
        return self.cache.add(order)

    def _resubmit(self, unknown: OutcomeUnknown, request: Request) -> None:
        """Send a placement again under the same tag: it can become an order only once."""
        pending = unknown.resolution
        assert isinstance(pending, InFlightRequest)

        async def send() -> Order:
            sent_ns = int(self._clock() * 1e9)
            number = await self._session.order(Kind.PLACE, PLACE, request.form, read_placed)
            return self._add_placed(request, number, sent_ns)

        resubmit(self._in_flight, pending, send)

    async def modify(self, request: Request) -> None:
        """Send a modification. Raises OutcomeUnknown without waiting for the outcome."""
        order, terms = request.order, request.terms
        assert order is not None
        assert terms is not None
        change = order.begin_change(terms)
        is_known = False
        try:
            await self._sender.send(request)
        except OutcomeUnknown:
            raise
        except NeoError:
            is_known = True
            raise
        else:
            self.cache.accept_change(order, change)
        finally:
            if change.accepted_at is None:
                order.drop_change(change, is_known=is_known or not request.was_sent)

    def modification_lock(self, order: Order) -> asyncio.Lock:
        """Return the lock that a modification holds from before it is checked until its answer."""
        lock = self._modifying.get(order.number)
        if lock is None:
            lock = self._modifying[order.number] = asyncio.Lock()
        return lock

    async def until_terms_known(self, order: Order, given: Set[str]) -> None:
        """Wait for the outcome of modifications in flight, as far as they are to change terms that
        are not among `given`, the names of those that are set anew. Raises NotSent when it cannot
        be resolved."""
        while pending := self._in_flight.find("modify", number=order.number):
            lacking = sorted(pending.expected.changed_terms - given)
            if not lacking:
                return
            if not await self._in_flight.wait(pending, patience=PATIENCE):
                raise NotSent(
                    f"whether an earlier change of order {order.number} took effect is not known: "
                    f"modify() has to be given {' and '.join(lacking)} too"
                )

    async def cancel(self, order: Order, *, wait_for_outcome: bool = True) -> Order:
        """Send a cancel; a cover or bracket order is exited. Raises OrderAlreadyFinal when it is
        too late, and Rejected for other refusals."""
        form = cancel_form(number=order.number, symbol=order.symbol, amo=order.amo)
        request = Request(Kind.CANCEL, _cancel_endpoint(order.product), form, order=order)
        try:
            await self._sender.send(request)
        except OutcomeUnknown as unknown:
            return await self.resolved_order(unknown, wait_for_outcome=wait_for_outcome)
        return order

    async def resolved_order(self, unknown: OutcomeUnknown, *, wait_for_outcome: bool) -> Order:
        """Return the order of a request in flight; see OrderSender.resolved_order."""
        return await self._sender.resolved_order(unknown, wait_for_outcome=wait_for_outcome)

    async def register_open(self, rows: Sequence[OrderRow]) -> AsyncIterator[Order]:
        """Register the orders of rows that are not final, and yield those that are still open."""
        async for part in in_slices(rows):
            for row in part:
                if not row.has_number:
                    subject = Subject("report", row.gui_order_id, "")
                    log_order(self.cache.log, logging.ERROR, subject, "%s", nameless_error(row))
                    continue
                order = self.cache.register(row)
                if not order.is_final:
                    yield order

    # --- requests in flight -------------------------------------------------------------------

    @property
    def in_flight_requests(self) -> Collection[InFlightRequest]:
        """Requests whose outcome is being resolved."""
        return self._in_flight.in_flight_requests

    def find_in_flight(
        self, action: str, *, client_tag: str = "", number: str = ""
    ) -> InFlightRequest | None:
        """Return the newest request in flight for a client tag or an order number."""
        return self._in_flight.find(action, client_tag=client_tag, number=number)

    @property
    def unknowns_opened(self) -> int:
        """Number of requests whose outcome was unknown, so far."""
        return self._in_flight.opened

    @property
    def unknowns_resolved(self) -> Mapping[str, int]:
        """Number of those that are resolved, by outcome."""
        return dict(self._in_flight.resolved)

    @property
    def late_orders(self) -> Sequence[Order]:
        """Orders that appeared although their placement had raised an error; see Orders."""
        return self._in_flight.late_orders

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every late order; see Orders."""
        self._in_flight.on_late_order(listener)

    @property
    def resolution_timeout(self) -> float:
        """Seconds after the loss of an answer in which an order may still appear."""
        return self._in_flight.resolution_timeout

    @property
    def is_quiet(self) -> bool:
        """Whether no placement or change of this client can arrive at the broker any more."""
        return self._sender.is_quiet

    # --- the session --------------------------------------------------------------------------

    @property
    def ucc(self) -> str:
        """Client code of the account."""
        return self._session.ucc

    @property
    def open_own_orders(self) -> list[Order]:
        """Open orders that were placed here, as far as is known."""
        return [order for order in self.cache.open_orders if order.number in self.cache.own]

    @property
    def is_logged_in(self) -> bool:
        """Whether there is a login to send orders with."""
        return self._session.is_open

    @property
    def is_throttled(self) -> bool:
        """Whether a request waits for the speed limit."""
        return self._session.is_throttled

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold new orders back around a login."""
        self._in_flight.reopen()
        with self._sender.held():
            yield

    async def uncancelled(self) -> list[Intent]:
        """Return the placements in the journal whose orders may be open; see `reconciliation`."""
        assert self._journal is not None
        return await uncancelled(self._journal, self._clock())

    async def reconcile(self) -> Reconciliation:
        """Bring journal and order book together after a login; see Reconciliation."""
        assert self._journal is not None
        return await reconcile(
            self._journal,
            self._in_flight,
            self.cache,
            self.read_order_book,
            clock=self._clock,
        )

    async def close(self) -> None:
        """Stop resolving requests in flight and reading the order book."""
        await self._absent.close()
        await self._in_flight.close()
        await self._poller.close()


def _call(listener: Callable[[T], None], report: T, log: Log) -> None:
    """Call a listener; its errors are logged, and do not keep a report from the others."""
    try:
        listener(report)
    except (Exception, asyncio.CancelledError):  # the latter from a future of its own
        log.exception("a listener failed on %r", report)


def nameless_error(row: OrderRow) -> ProtocolError:
    """Return the error of an order that the order book shows without an order number."""
    instead = f" (but {row.number!r})" if row.number else ""
    return ProtocolError(
        f"a row of the order book has no order number{instead}, and is {row.status_text!r}: "
        f"{row.side} {row.quantity} {row.symbol} cannot be cancelled from here"
    )


def _rows_or_parts(answer: Answer) -> list[OrderRow] | Iterator[Answer]:
    """Return the rows of an order book, or a long one in parts. Raises what `read_order_book`
    raises."""
    parts = in_parts(answer, _ROWS_OF_A_PART)
    return read_order_book(answer) if parts is None else parts


def _cancel_endpoint(product: str) -> Endpoint:
    if product is Product.CO:
        return EXIT_COVER
    return EXIT_BRACKET if product is Product.BO else CANCEL
