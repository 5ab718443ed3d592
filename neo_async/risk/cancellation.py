"""Cancels every open order for a halt, and reads the order book until it proves that none is open.

Cancels are sent as soon as an order is known, without waiting for the order book, and repeated
while an order stays open. What the order book proves is decided in cancellation_proof.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from neo_async.base.logs import Log, Subject, log_order
from neo_async.errors import NeoError, NotLoggedIn, OrderAlreadyFinal, OutcomeUnknown, Rejected
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal_schema import CancelScope, Intent
from neo_async.execution.order import Order
from neo_async.execution.reconciliation import order_of
from neo_async.model.orders import OrderRow
from neo_async.risk.cancellation_proof import CancelAttempts, CancellationProof
from neo_async.transport.backoff import backoff
from neo_async.wire.tags import is_exit

REPEAT_CANCEL_SECONDS = 2.0
"""Seconds after which an order whose cancel was accepted, and which is open nevertheless, is
cancelled again."""

RETRY_BASE_SECONDS = 0.1
RETRY_CAP_SECONDS = 5.0
"""Bounds of the backoff between two readings of the order book that show nothing new, and between
two cancels of an order that fail."""

MAX_CONCURRENT_CANCELS = 200
"""Cancels of one halt that are under way at once: thousands of tasks would block the event loop."""

MAX_CONCURRENT_EARLIER_CANCELS = 10
"""Cancels under way at once for orders of an earlier process, before an order book shows which of
them are open."""
MAX_EARLIER_CANCEL_REFUSALS = 3
"""Refused cancels after which an order of an earlier process is left to the order book."""

REMINDER_INTERVAL_SECONDS = 30.0
"""Seconds between two errors in the log that explain why a halt is not done."""


class OpenOrderCancellation:
    """The cancelling of one halt, from its first cancel until nothing is open."""

    def __init__(
        self,
        engine: ExecutionEngine,
        log: Log,
        *,
        earlier_placements: Sequence[Intent],
        is_logging_in: Callable[[], bool],
        scope: CancelScope,
        give_up_after: float,
        clock: Callable[[], float],
    ) -> None:
        """See KillSwitch.set_earlier_placements and CancellationProof."""
        self._engine = engine
        self.scope = scope
        """The open orders that are cancelled."""
        self._log = log
        self._cache = engine.cache
        self._earlier = deque(earlier_placements)
        """Placements of an earlier process that no order book has shown yet."""
        self._earlier_under_way = 0
        """Number of their cancels under way."""
        self._earlier_due_at = -math.inf
        """Time of the loop from which more of them are cancelled although requests wait for the
        rate limit."""
        self._is_logging_in = is_logging_in
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._remind_at = self._began_at + REMINDER_INTERVAL_SECONDS
        self._wakeup = asyncio.Event()
        """Set when there may be something to do."""
        self._is_ended = False
        """Whether `end` was called."""
        self._is_logged_out = False
        """Whether the order book cannot be read without another login."""

        self._attempts: dict[str, CancelAttempts] = {}
        """Orders that were cancelled at least once, by number."""
        self._cancels: dict[str, asyncio.Task[None]] = {}
        """Cancels under way, by order number."""
        self._idle_since = self._began_at
        """Time of the loop since which no cancel is under way."""
        self._books_at_repeat = 0
        """Value of `_books` when cancels were last repeated."""

        self._book: asyncio.Task[list[OrderRow]] | None = None
        """The reading of the order book that is under way."""
        self._book_due_at = self._began_at
        """Time of the loop at which the order book is read next."""
        self._books = 0
        """Readings that have ended."""
        self._unchanged_books = 0
        """Readings in a row that showed no new open order."""
        self._could_arrive = True
        """Whether a request of this client could still arrive when that reading began."""
        self._book_error: NeoError | None = None
        """Why the last reading failed."""
        self._proof = CancellationProof(
            engine.cache,
            self._attempts,
            log,
            scope=scope,
            give_up_after=give_up_after,
            clock=clock,
        )

    @property
    def is_done(self) -> bool:
        """Whether it is proved that no order is open, except those that were given up."""
        return self._proof.is_done

    @property
    def is_ending(self) -> bool:
        """Whether the order book will not be read again."""
        return self._is_ended or self._is_logged_out or self._proof.is_over

    def end(self) -> None:
        """Stop, and leave open orders open."""
        self._is_ended = True
        self._wakeup.set()

    def retry_now(self) -> None:
        """Repeat cancels and read the order book at once, because a login or a new halt has made
        success more likely."""
        self._book_due_at = self._loop.time()
        for attempts in self._attempts.values():
            attempts.due_at = -math.inf
        self._wakeup.set()

    def set_earlier_placements(self, placements: Iterable[Intent]) -> None:
        """Set the placements of an earlier process; see KillSwitch.set_earlier_placements."""
        self._earlier = deque(placements)
        self._wakeup.set()

    async def run(self, on_first_cancels: Callable[[], None]) -> list[Order | NeoError]:
        """Work until nothing is open, or until ended. Return every order that was open: the Order
        when it is final, or the error for which it may be open. `on_first_cancels` is called once
        the first cancels are being sent."""
        try:
            self._start_cancels()
            # The tasks of the cancels run before anything that could delay them.
            await asyncio.sleep(0)
            on_first_cancels()
            while not self.is_ending:
                try:
                    await self._step()
                except Exception:
                    # An error in a listener of the program must not leave orders open.
                    self._log.exception("halt: continuing after an error")
                    await asyncio.sleep(RETRY_BASE_SECONDS)
        finally:
            await self._finish()
        return self._proof.results(self._book_error)

    async def _step(self) -> None:
        self._wakeup.clear()
        self._start_cancels()
        self._start_book()
        if self._book is not None:
            pause = REPEAT_CANCEL_SECONDS
        else:
            pause = self._book_due_at - self._loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(pause, 0.0), REPEAT_CANCEL_SECONDS)):
                await self._wakeup.wait()
        self._take_book()
        if not self.is_ending and self._loop.time() >= self._remind_at:
            self._remind()

    async def _finish(self) -> None:
        tasks: list[asyncio.Task[None] | asyncio.Task[list[OrderRow]]] = [*self._cancels.values()]
        if self._book is not None:
            self._book.cancel()
            tasks.append(self._book)
        if tasks:
            await asyncio.wait(tasks)

    # --- cancels ------------------------------------------------------------------------------

    def _start_cancels(self) -> None:
        """Send the cancels that are due: at once for an order that was not cancelled yet."""
        now = self._loop.time()
        # Cancels are repeated only after the book was read in between. Where the rate limit is the
        # bottleneck, cancels go before reads, and repeated at once they would starve the reading.
        may_repeat = self._books > self._books_at_repeat or (
            not self._cancels and now >= self._idle_since + REPEAT_CANCEL_SECONDS
        )
        open_orders = self._proof.open_orders()
        self._proof.add_targets(open_orders)
        for number, order in open_orders.items():
            if len(self._cancels) >= MAX_CONCURRENT_CANCELS:
                break
            attempts = self._attempts.get(number)
            if attempts is not None:
                if not may_repeat or number in self._cancels or now < attempts.due_at:
                    continue
                self._books_at_repeat = self._books
            self._start_cancel(number, self._cancel(order))
        if self._earlier and self._engine.is_logged_in:
            self._start_earlier_cancels(now)

    def _start_earlier_cancels(self, now: float) -> None:
        """Cancel orders of an earlier process by their numbers, newest first.

        This does not wait for the order book: after a crash it may be unreadable for as long as the
        broker has problems, and the journal has the numbers. Only a few are sent at once, because
        most of those orders are final by now, and where the rate limit is the bottleneck the
        reading of the book, which shows the open ones, must not wait for the cancels of all.
        """
        if self._engine.is_throttled and now < self._earlier_due_at:
            return
        self._earlier_due_at = now + REPEAT_CANCEL_SECONDS
        while self._earlier and self._earlier_under_way < MAX_CONCURRENT_EARLIER_CANCELS:
            intent = self._earlier.popleft()
            number = intent.order_number
            # An order in the cache is cancelled with the open ones, or is final.
            if number in self._cancels or self._cache.get(number) is not None:
                continue
            if self.scope is CancelScope.ALL_BUT_EXITS and is_exit(intent.client_tag):
                continue
            self._earlier_under_way += 1
            self._start_cancel(number, self._cancel_earlier(intent))

    def _start_cancel(self, number: str, cancel: Coroutine[Any, Any, None]) -> None:
        self._attempts.setdefault(number, CancelAttempts())
        self._cancels[number] = asyncio.create_task(cancel, name=f"halt: cancel {number}")

    async def _cancel_earlier(self, intent: Intent) -> None:
        number = intent.order_number
        # A retry goes back into the queue that it came from: a login may have replaced that.
        queue = self._earlier
        try:
            await self._cancel(order_of(intent))
        finally:
            self._earlier_under_way -= 1
        attempts = self._attempts[number]
        is_over = attempts.problem is None or isinstance(attempts.problem, OrderAlreadyFinal)
        # The broker may not find an order that it registers only seconds later, so a refusal counts
        # only when it is repeated.
        if isinstance(attempts.problem, Rejected):
            is_over = is_over or attempts.failures >= MAX_EARLIER_CANCEL_REFUSALS
        if not is_over:
            self._loop.call_at(attempts.due_at, queue.append, intent)

    async def _cancel(self, order: Order) -> None:
        number = order.number
        problem: NeoError | None = None
        try:
            await self._engine.cancel(order, wait_for_outcome=False)
        except NeoError as error:
            problem = error
        except Exception as error:
            self._log.exception("halt: cancelling order %s failed", number)
            problem = NeoError(f"cancelling order {number} failed: {error!r}")
        finally:
            now = self._loop.time()
            del self._cancels[number]
            if not self._cancels:
                self._idle_since = self._book_due_at = now
            self._wakeup.set()
        self._record_answer(order, problem, now)

    def _record_answer(self, order: Order, problem: NeoError | None, now: float) -> None:
        attempts = self._attempts[order.number]
        attempts.problem = problem
        if problem is None:
            attempts.is_answered = True
            attempts.failures = 0
            attempts.due_at = now + REPEAT_CANCEL_SECONDS
            return
        attempts.is_answered = attempts.is_answered or isinstance(problem, Rejected)
        attempts.failures += 1
        attempts.due_at = now + _backoff(attempts.failures)
        # The book shows whether an order was final already, and a cancel of unknown outcome can be
        # repeated safely: neither needs a line in the log.
        if not isinstance(problem, OrderAlreadyFinal | OutcomeUnknown):
            subject = Subject("cancel", order.client_tag, order.number)
            level = logging.WARNING if attempts.failures == 1 else logging.DEBUG
            log_order(self._log, level, subject, "the halt could not cancel it: %s", problem)

    # --- order book ---------------------------------------------------------------------------

    def _can_arrive(self) -> bool:
        """Return whether a request of this client may still arrive at the broker, or a login may
        still report one of an earlier process."""
        return not self._engine.is_quiet or bool(self._cancels) or self._is_logging_in()

    def _start_book(self) -> None:
        if self._book is None and self._loop.time() >= self._book_due_at:
            self._could_arrive = self._can_arrive()
            self._book = asyncio.create_task(
                self._engine.read_order_book(), name="halt: order book"
            )
            self._book.add_done_callback(lambda _: self._wakeup.set())

    def _take_book(self) -> None:
        """Apply the order book once its reading has ended, and set when it is read next."""
        book = self._book
        if book is None or not book.done():
            return
        self._book = None
        self._books += 1
        has_new_orders = False
        try:
            rows = book.result()
        except NotLoggedIn as error:
            self._book_error = error
            self._is_logged_out = not self._is_logging_in()
        except NeoError as error:
            self._book_error = error
            self._log.warning("halt: the order book could not be read: %s", error)
        except (Exception, asyncio.CancelledError) as error:
            self._book_error = NeoError(f"reading the order book failed: {error!r}")
            self._log.exception("halt: the order book could not be read")
        else:
            self._book_error = None
            has_new_orders = self._apply_order_book(rows)
        self._unchanged_books = 0 if has_new_orders else self._unchanged_books + 1
        pause = 0.0 if has_new_orders else _backoff(self._unchanged_books)
        self._book_due_at = self._loop.time() + pause

    def _apply_order_book(self, rows: list[OrderRow]) -> bool:
        """Apply the rows. Return whether they show open orders that were not known before."""
        now = self._loop.time()
        has_new_orders = self._proof.apply_order_book(rows, now)
        if self._earlier:
            shown = {row.number for row in rows}
            kept = [intent for intent in self._earlier if intent.order_number not in shown]
            self._earlier.clear()
            self._earlier.extend(kept)
        # Checked again after the reading: a login that began meanwhile may report more orders.
        if not (self._could_arrive or self._can_arrive()):
            self._proof.conclude(now)
        return has_new_orders

    # --- log ----------------------------------------------------------------------------------

    def _remind(self) -> None:
        """Log why the halt is not done."""
        now = self._loop.time()
        self._remind_at = now + REMINDER_INTERVAL_SECONDS
        reasons = [*self._proof.open_reasons()]
        if self._earlier:
            first = self._earlier[0].order_number
            reasons.append(
                f"{len(self._earlier)} orders of an earlier process may be open, such as {first}"
            )
        problems = (self._book_error, self._proof.book_problem)
        reasons += [str(problem) for problem in problems if problem is not None]
        if self._is_logging_in():
            reasons.append("a login is under way")
        if not self._engine.is_quiet:
            reasons.append("placements or changes may still arrive")
        self._log.error("halt: not done after %.0f s: %s", now - self._began_at, "; ".join(reasons))


def _backoff(failures: int) -> float:
    return backoff(failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
