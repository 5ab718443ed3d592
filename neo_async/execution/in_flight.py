"""Order requests in flight: their answers were lost, and no report has proven their outcome yet.

Every order book that is read and every message of the order feed is applied to them. What a report
proves is decided in `resolution`, and acted on here: the request took effect, is ruled out, or
stays in flight. Order books are read for as long as something is in flight (`book_poller`), and
histories where the order book cannot show the effect (`history_search`).

Every request leaves: with a proven outcome, or `EXPIRY_SECONDS` after the end of its resolution
timeout with OutcomeUnknown, and an error in the log. A logout ends it with OutcomeUnknown at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from neo_async.base.india import day_of
from neo_async.base.logs import Subject, log_order
from neo_async.errors import NeoError, OrderAlreadyFinal, ProtocolError
from neo_async.execution.book_index import BookIndex
from neo_async.execution.book_poller import BookPoller
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.history_search import HistorySearch
from neo_async.execution.in_flight_request import EXPIRY_SECONDS, InFlightRequest, RequestIndex
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Outcome
from neo_async.execution.late_orders import LateOrders, register_own
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.resolution import (
    Proof,
    Resolution,
    can_be_ruled_out,
    placed_order,
    proof_by_absence,
    proof_by_report,
    when_ruled_out,
    without_legs,
)
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.model.updates import PositionUpdate
from neo_async.wire.tags import without_suffix

_TIMER_MARGIN_SECONDS = 0.001
"""Time by which a timer of the loop may be early."""


class InFlightOrders:
    """The requests in flight. `apply_order_book` has to be called with every order book that is
    read, and `on_update` with every message of the order feed, after the cache has applied them."""

    def __init__(
        self,
        cache: OrderCache,
        read_book: Callable[[], Coroutine[Any, Any, list[OrderRow]]],
        read_history: Callable[[str], Coroutine[Any, Any, list[HistoryRow]]],
        *,
        journal: Journal | None,
        resolution_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self.log = cache.log
        self._journal = journal
        self.resolution_timeout = resolution_timeout
        """Seconds after the loss of an answer in which an order may still appear."""
        self.clock = clock
        """Function that returns Unix seconds, our clock."""
        self._requests = RequestIndex()
        self._late_orders = LateOrders(cache, journal)
        self._poller = BookPoller(read_book, self._awaited_until, self.log)
        self._index = BookIndex(cache, self._requests, self._late_orders)
        self._inconclusive_books = 0
        """Number of books in a row that could have ruled a request out, and proved nothing."""
        self._histories = HistorySearch(read_history, self.log)
        self._searches: dict[InFlightRequest, asyncio.Task[None]] = {}
        """Tasks that search histories for requests whose effect the order book does not show."""
        self._failed_searches = 0
        """Number of searches in a row that proved nothing."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Tasks that run while a request is in flight."""
        self.is_closed = False
        self.opened = 0
        """Number of requests so far."""
        self.resolved: Counter[str] = Counter()
        """Number of requests that have left so far, by outcome."""

    # --- requests, and their callers --------------------------------------------------------------

    @property
    def in_flight_requests(self) -> Collection[InFlightRequest]:
        """The requests in flight, oldest first."""
        return self._requests.all.keys()

    def find(
        self, action: str, *, client_tag: str = "", number: str = ""
    ) -> InFlightRequest | None:
        """Return the newest request in flight with that action and client tag or order number."""
        return self._requests.find(action, client_tag, number)

    def open(
        self,
        expected: ExpectedEffect,
        *,
        intent: int | None = None,
        is_proven: bool = False,
        sent_at: float | None = None,
        sent_ns: int | None = None,
    ) -> InFlightRequest:
        """Begin to resolve a request whose answer was lost just now. It was not sent before
        `sent_at`, a time of the loop, which was `sent_ns` by `clock` in Unix nanoseconds; both are
        now where they are not given. One does not follow from the other: a machine that sleeps
        stops the loop's clock, and a day may have ended since.

        `is_proven` means that the broker claims to have the order of a placement; for a change it
        has no meaning.
        """
        now = asyncio.get_running_loop().time()
        request = InFlightRequest(
            expected,
            intent=intent,
            is_proven=is_proven and bool(expected.client_tag),
            deadline=now + self.resolution_timeout,
            sent_at=now if sent_at is None else sent_at,
            sent_ns=int(self.clock() * 1e9) if sent_ns is None else sent_ns,
        )
        if self.is_closed:
            self._log_out(request)
            return request
        self.opened += 1
        self._requests.add(request)
        self._late_orders.unwatch(expected.client_tag)
        self._set_timer(request)
        # The feed may have been faster than the loss.
        order = self._cache.find(expected.client_tag, expected.number)
        if order is not None and expected.client_tag:
            self.accept(request, register_own(self._cache, order, expected.client_tag))
        elif order is not None and order.updated_ns:
            self._apply_report(request, order, order)
        if not request.is_done:
            self._read_soon()
        return request

    async def wait(self, request: InFlightRequest, *, patience: float) -> bool:
        """Wait until a request has left; return False when it is still in flight at the end of its
        resolution timeout and `patience` seconds for the book that is read then."""
        return await request.wait(patience)

    def run_while_open(
        self, request: InFlightRequest, work: Coroutine[Any, Any, None], name: str
    ) -> asyncio.Task[None]:
        """Run `work` in a task that is cancelled when the request has left."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        request.on_done(task.cancel)
        return task

    def subject(self, request: InFlightRequest) -> Subject:
        """Return the name of a request in the log."""
        expected = request.expected
        order = self._cache.find(expected.client_tag, expected.number)
        if order is None:
            return Subject(expected.action, expected.client_tag, expected.number)
        return Subject(expected.action, order.client_tag, order.number)

    async def close(self) -> None:
        """End all requests with their outcome unknown: if there is a journal, the next login
        resolves them."""
        self.is_closed = True
        for request in self._requests.all:
            self._log_out(request)
        self._requests.clear()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._histories.close()
        await self._poller.close()

    def reopen(self) -> None:
        self.is_closed = False

    # --- late orders ------------------------------------------------------------------------------

    @property
    def late_orders(self) -> list[Order]:
        """Late orders and second orders so far, oldest first; see LateOrders."""
        return self._late_orders.reported

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every late order."""
        self._late_orders.on_late_order(listener)

    def watch_for(
        self, client_tag: str, intent: int | None, outcome: Outcome = Outcome.REJECTED
    ) -> None:
        """Report an order that appears under the tag of a placement whose caller takes it to have
        none, by the outcome that the caller was given."""
        self._late_orders.watch(client_tag, intent, outcome)

    def doubt(self, client_tag: str) -> None:
        """Read order books until the end of the resolution timeout for the order of a placement
        that was refused, and is watched for, but may have been accepted all the same."""
        until = asyncio.get_running_loop().time() + self.resolution_timeout
        self._late_orders.doubt(client_tag, until)
        if not self.is_closed:
            self._read_soon()

    @property
    def has_doubts(self) -> bool:
        """Whether an order may still appear for a placement whose refusal is doubtful."""
        until = self._late_orders.doubtful_until
        return until is not None and until > asyncio.get_running_loop().time()

    # --- reports ----------------------------------------------------------------------------------

    def on_update(self, update: OrderRow | PositionUpdate) -> None:
        """Apply a message of the order feed, after the cache has applied it."""
        if self.is_closed or isinstance(update, PositionUpdate):
            return
        tag = without_suffix(update.gui_order_id)
        changes = self._requests.changes.get(update.number)
        concerns_tag = self._index.concerns_tag(tag, update.number)
        if not (changes or concerns_tag):
            return
        order = self._cache.get(update.number)
        if order is None:
            # It exists; the book describes it.
            self._poller.read_now(needed_for_seconds=EXPIRY_SECONDS)
            return
        for request in [*(changes or ())]:
            self._apply_report(request, order, update)
        if concerns_tag:
            self._apply_tagged(tag, [update])

    def apply_order_book(self, rows: list[OrderRow], requested_at: float) -> None:
        """Apply a whole order book that was requested at `requested_at`, a time of the loop."""
        changed, tagged = self._index.add(rows, asyncio.get_running_loop().time())
        for tag, alike in tagged.items():
            self._apply_tagged(tag, alike)
        for row in changed.values():
            order = self._cache.register(row)
            for request in [*self._requests.changes.get(row.number, ())]:
                self._apply_report(request, order, row)
        self._late_orders.end_doubts(requested_at)
        absent = [
            request
            for request in self._requests.all
            if can_be_ruled_out(
                self._cache.get(request.expected.number),
                requested_at=requested_at,
                timeout_at=request.deadline,
                is_being_resubmitted=request.is_being_resubmitted,
            )
        ]
        if not absent:
            return
        today = day_of(self.clock())
        is_complete = self._index.is_complete(rows, today)
        inconclusive = [
            request
            for request in absent
            if not self._apply_absence(request, rows, changed, is_complete, today)
        ]
        self._inconclusive_books = self._inconclusive_books + 1 if inconclusive else 0
        if inconclusive:
            self._read_again()

    def _apply_tagged(self, tag: str, rows: Iterable[OrderRow]) -> None:
        """Apply all rows of a report that have one client tag."""
        known = self._cache.tags.find(tag)
        by_number = {} if known is None else {known.number: known}
        for row in without_legs(rows, None if known is None else known.number):
            by_number[row.number] = self._cache.register(row)
        orders = [*by_number.values()]
        if not orders:
            return
        order = placed_order(orders, self._cache.own)
        if tag in self._requests.placements:
            for request in [*self._requests.placements[tag]]:
                self.accept(request, register_own(self._cache, order, tag))
        else:
            self._late_orders.apply(tag, order)
        if order.number in self._cache.own:
            self._late_orders.apply_second_orders(tag, order, orders)

    def _apply_report(
        self, request: InFlightRequest, order: Order, report: Order | OrderRow
    ) -> None:
        """Apply a report of an order to a request to change it."""
        if not request.is_done:
            proof = proof_by_report(request.expected, order, report)
            self._resolve(request, Resolution(proof), order)

    def _apply_absence(
        self,
        request: InFlightRequest,
        rows: list[OrderRow],
        changed: dict[str, OrderRow],
        is_complete: bool,
        today: str,
    ) -> bool:
        """Apply a book that does not show the effect of a request; return whether it can do so."""
        number = request.expected.number
        order = self._cache.get(number)
        resolution = proof_by_absence(
            request.expected,
            order,
            changed.get(number),
            sent_day=request.day,
            sent_ns=request.sent_ns,
            book_day=today,
            is_complete=is_complete,
            nameless=self._index.nameless,
        )
        if resolution.proof is Proof.NONE:
            request.problem = resolution.reason
            return False
        if resolution.proof is Proof.BY_HISTORY:
            self._begin_search(request, rows)
        else:
            self._resolve(request, resolution, order)
        return True

    # --- histories --------------------------------------------------------------------------------

    def _begin_search(self, request: InFlightRequest, rows: list[OrderRow]) -> None:
        """Search histories for a request, unless they are being searched."""
        if request in self._searches:
            return
        name = f"history search {request.expected.identity}"
        task = self.run_while_open(request, self._search_histories(request, rows), name)
        self._searches[request] = task
        task.add_done_callback(lambda _: self._searches.pop(request))

    async def _search_histories(self, request: InFlightRequest, rows: list[OrderRow]) -> None:
        try:
            await self._prove_by_histories(request, rows)
        except Exception as error:
            request.problem = f"no history: {error}"
            self._failed_searches += 1
            unforeseen = None if isinstance(error, NeoError) else error
            is_first = self._failed_searches == 1 or unforeseen is not None
            self.log.log(
                logging.WARNING if is_first else logging.DEBUG,
                "%s: no history: %s",
                self.subject(request),
                error,
                exc_info=unforeseen,
            )
            self._read_again()  # the next book begins another search
        else:
            self._failed_searches = 0

    async def _prove_by_histories(self, request: InFlightRequest, rows: list[OrderRow]) -> None:
        """Resolve a request by histories. Raises ProtocolError when they prove nothing."""
        expected = request.expected
        order = self._cache.get(expected.number)
        if expected.client_tag:
            possible = self._index.candidates(request, rows)
            resolution = await self._histories.by_tags(expected, possible)
        else:
            resolution = await self._histories.by_terms(expected, order)
        if request.is_done:
            return  # a report was faster
        if resolution.proof is Proof.NONE:
            raise ProtocolError(resolution.reason)
        if resolution.number:
            row = next(row for row in rows if row.number == resolution.number)
            order = self._cache.register(row, client_tag=expected.client_tag)
        self._resolve(request, resolution, order)

    # --- outcomes ---------------------------------------------------------------------------------

    def accept(self, request: InFlightRequest, order: Order) -> None:
        """End a request that took effect."""
        self._end(request, Outcome.ACCEPTED, order)
        log_order(self.log, logging.INFO, self.subject(request), "took effect: %r", order)

    def expire(self, request: InFlightRequest, reason: str) -> None:
        """End a request whose outcome cannot be known any more."""
        if request.is_done:
            return
        self._end(request, Outcome.UNRESOLVED, request.unknown(reason), reason)
        log_order(self.log, logging.ERROR, self.subject(request), "outcome unresolved: %s", reason)

    def _resolve(
        self, request: InFlightRequest, resolution: Resolution, order: Order | None
    ) -> None:
        """End a request with what a report has proven, if anything."""
        if resolution.proof is Proof.NOT_RECEIVED:
            resolution = when_ruled_out(request.expected, is_proven=request.is_proven)
        if resolution.proof is Proof.TOOK_EFFECT:
            assert order is not None
            self.accept(request, order)
        elif resolution.proof is Proof.TOO_LATE:
            assert order is not None
            self._end_as_too_late(request, order)
        elif resolution.proof is Proof.NOT_RECEIVED:
            self._reject_as_not_received(request)
        elif resolution.proof is Proof.IMPOSSIBLE:
            self.expire(request, resolution.reason)

    def _reject_as_not_received(self, request: InFlightRequest) -> None:
        error = request.not_accepted(self.resolution_timeout)
        self._end(request, Outcome.NOT_ACCEPTED, error, str(error))
        log_order(self.log, logging.INFO, self.subject(request), "%s", error)

    def _end_as_too_late(self, request: InFlightRequest, order: Order) -> None:
        text = f"order {order.number} is {order.status_text}: too late to {request.expected.action}"
        self._end(request, Outcome.REJECTED, OrderAlreadyFinal(text), text)
        log_order(self.log, logging.INFO, self.subject(request), "%s", text)

    def _log_out(self, request: InFlightRequest) -> None:
        """End a request with the login; its outcome in the journal stays open."""
        request.end(request.unknown("logged out before its outcome was known"))
        self._watch(request, Outcome.UNRESOLVED)

    def _watch(self, request: InFlightRequest, outcome: Outcome) -> None:
        if request.expected.client_tag:
            self._late_orders.watch(request.expected.client_tag, request.intent, outcome)

    def _end(
        self, request: InFlightRequest, outcome: Outcome, result: Order | NeoError, reason: str = ""
    ) -> None:
        """Take a request out of the index, write its outcome into the journal, watch for an order
        that it should not have, and give `result` to its callers."""
        self._requests.remove(request)
        if not self._requests.all:
            self._histories.clear()
        self.resolved[outcome.value] += 1
        if self._journal is not None and request.intent is not None:
            number = result.number if isinstance(result, Order) else ""
            self._journal.end(request.intent, outcome, order_number=number, reason=reason)
        if outcome is not Outcome.ACCEPTED:
            self._watch(request, outcome)
        request.end(result)

    # --- timeouts and polling ---------------------------------------------------------------------

    def request_order_book(self) -> None:
        """Have the order book read now."""
        self._poller.read_now()

    def _set_timer(self, request: InFlightRequest) -> None:
        """Have a book read at the end of the resolution timeout, and the request expire later."""
        loop = asyncio.get_running_loop()
        is_over = loop.time() >= request.deadline
        at = request.expires_at if is_over else request.deadline
        request.timer = loop.call_at(at + _TIMER_MARGIN_SECONDS, self._on_timer, request)

    def _on_timer(self, request: InFlightRequest) -> None:
        now = asyncio.get_running_loop().time()
        if now >= request.expires_at:
            seconds = self.resolution_timeout + EXPIRY_SECONDS
            self.expire(request, f"nothing proved it within {seconds:g} s: {request.problem}")
            return
        if now >= request.deadline:
            self.request_order_book()
        self._set_timer(request)

    def _read_soon(self) -> None:
        self._inconclusive_books = 0
        self._poller.read_soon()

    def _read_again(self) -> None:
        self._poller.read_again(max(self._inconclusive_books, self._failed_searches))

    def _awaited_until(self) -> float | None:
        """Return the time of the loop at which the last resolution timeout ends, also of doubtful
        refusals; None while there is none."""
        now = asyncio.get_running_loop().time()
        self._late_orders.end_doubts(now - EXPIRY_SECONDS)
        ends = [request.deadline for request in self._requests.all]
        if (doubtful_until := self._late_orders.doubtful_until) is not None:
            ends.append(doubtful_until)
        return max(ends, default=None)
