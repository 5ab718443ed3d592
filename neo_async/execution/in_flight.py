"""ResolvedIntent out whether order requests took effect whose answers were lost.

Such a request is an open question. Every order book that is read, and every message of the order
feed, may answer it with yes. Only a whole book that was asked for when the request could no longer
arrive answers it with no, and the histories of the orders that it might be under another mark.

Every question ends: with one of these answers, or `GIVE_UP_AFTER` seconds after the end of its
resolution timeout with OutcomeUnknown, and an error in the log. A logout ends it with
OutcomeUnknown at once. The client tags of placements that were refused, denied or given up are
looked for in every later book and message. Where a refusal is in doubt, as that of a 429 is, books
are read for it until the end of its resolution timeout.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable
from typing import Any, NamedTuple

from neo_async import logs
from neo_async.errors import (
    AnswerLost,
    DuplicateTag,
    NeoError,
    NotAccepted,
    NotSent,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    ServerError,
    TransportError,
)
from neo_async.execution.journal import Journal, Outcome
from neo_async.execution.order_cache import Order, OrderCache, last_day_of
from neo_async.execution.resolution import (
    ExpectedEffect,
    could_be,
    had_terms,
    is_behind,
    proves_cancellation,
    proves_modification,
    tags_in,
)
from neo_async.logs import Subject, log_order
from neo_async.model.enums import OrderStatus
from neo_async.model.india import day_of
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.model.updates import PositionUpdate
from neo_async.session.polling import Poller, retry_until_answered
from neo_async.transport.backoff import backoff
from neo_async.wire.tags import without_suffix

log = logging.getLogger(logs.ORDERS)

FIRST_LOOK = 0.25
"""Seconds after a question is opened at which the book is read; every further look waits twice as
long, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 5.0
LONGEST_WAIT_BEYOND = 30.0
"""When the resolution timeout of every question is over: only a book that cannot be read is waited
for then, or one that lacks what the broker says it has."""

GIVE_UP_AFTER = 180.0
"""Seconds after the end of its resolution timeout at which a question ends in OutcomeUnknown,
whatever the broker answers until then."""

HISTORIES_AT_ONCE = 8
"""So many pass the limiter before they would be taken for slow."""
HISTORY_EVERY = 0.2
"""Seconds between two histories, at least: half of the published rate is left to everything
else."""
READ_PATIENCE = 60.0
"""Seconds for which one book or history is asked for. After that it is looked whether it is still
needed."""
MOST_HISTORIES = 50
"""Histories of other orders that are read for one question. Where more orders could be it, nobody
can tell."""

RESEND_BASE = 0.5
RESEND_CAP = 5.0

WATCHED_TAGS = 10_000
"""Client tags of placements without an order that are looked for, the newest ones."""

_MARGIN = 0.001
"""Seconds by which a timer of the loop may be early."""


class InFlightRequest:
    """One order request of which it is not known whether it took effect. Awaiting it gives the
    Order, or raises the error that it turned out to be."""

    __slots__ = (
        "_answer",
        "day",
        "expected",
        "give_up_at",
        "intent",
        "is_being_resubmitted",
        "is_proven",
        "problem",
        "proof_at",
        "sent_at",
        "sent_ns",
        "timer",
    )

    def __init__(
        self,
        expected: ExpectedEffect,
        *,
        intent: int | None,
        is_proven: bool,
        proof_at: float,
        sent_at: float,
        sent_ns: int,
    ) -> None:
        self.expected = expected
        self.intent = intent
        self.is_proven = is_proven
        """Whether the broker has said that it has the order: it is never said not to exist then."""
        self.is_being_resubmitted = False
        """Whether it is on its way once more: then no book proves that it did not arrive."""
        self.proof_at = proof_at
        """Time of the loop from which on the order cannot appear any more."""
        self.give_up_at = proof_at + GIVE_UP_AFTER
        """Time of the loop at which it ends without an answer."""
        self.sent_at = sent_at
        """Time of the loop before which the request was not sent."""
        self.sent_ns = sent_ns
        """The same as Unix nanoseconds, our clock."""
        self.day = day_of(sent_ns / 1e9)
        """That the request was sent on: only that day's book proves that an order is not there."""
        self.problem = "no order book could be read"
        """Why it has no answer yet."""
        self.timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        # The answer may be awaited by nobody, which is no reason to complain.
        self._answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    @property
    def is_open(self) -> bool:
        return not self._answer.done()

    def answer(self, order: Order) -> None:
        self._answer.set_result(order)

    def refuse(self, error: NeoError) -> None:
        self._answer.set_exception(error)

    def on_answer(self, listener: Callable[[], object]) -> None:
        """Call `listener` soon after it is settled, whatever the answer is."""
        self._answer.add_done_callback(lambda _: listener())

    async def done_within(self, seconds: float) -> bool:
        await asyncio.wait([self._answer], timeout=seconds)
        return self._answer.done()

    def __await__(self) -> Generator[Any, None, Order]:
        # A caller who gives up must not take the answer from the others.
        return asyncio.shield(self._answer).__await__()


class _Watched(NamedTuple):
    """A placement that is reported to have no order."""

    intent: int | None
    """Of the journal."""
    said: str
    """What its caller was told."""


class InFlightOrders:
    """Asks for the book as long as there are open questions, and judges what it and the feed say.

    `apply_order_book` has to be called with every book that is read, after the tracker has taken it
    over.
    """

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
        self._read_book = read_book
        self._read_history = read_history
        self._journal = journal
        self.resolution_timeout = resolution_timeout
        """Seconds after the loss of an answer in which an order may still appear."""
        self.clock = clock
        """Gives Unix seconds, our clock."""
        self._requests: dict[InFlightRequest, None] = {}
        """Those that are open, oldest first."""
        self._placements: dict[str, dict[InFlightRequest, None]] = {}
        """Open ones about placements, by client tag."""
        self._changes: dict[str, dict[InFlightRequest, None]] = {}
        """Open ones about modifications and cancellations, by order number."""
        self._inquiries: dict[InFlightRequest, asyncio.Task[None]] = {}
        """Reading histories, for questions to which the book has nothing to say."""
        self._histories = asyncio.Semaphore(HISTORIES_AT_ONCE)
        self._history_at = -math.inf
        """Time of the loop at which the last history was asked for."""
        self._tags: dict[str, asyncio.Task[frozenset[str]]] = {}
        """Those in the histories of orders that were looked for one, by order number."""
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        """Placements that are reported to have no order, by client tag."""
        self._doubts: dict[str, float] = {}
        """Client tags of placements whose refusal is in doubt, and the times of the loop from which
        on their orders cannot appear any more."""
        self.late_orders: list[Order] = []
        """Orders of which the caller was told that they do not exist, or that should not exist."""
        self._late_order_listeners: list[Callable[[Order], None]] = []
        self._doubles: set[str] = set()
        """Numbers of orders that carry the client tag of another one of ours."""
        self._poller = Poller("order book", self._look, self._due_in)
        self._looks = 0
        self._vain_looks = 0
        """Books in a row that should have answered a question, and could not."""
        self._failed_inquiries = 0
        """Inquiries in a row that told nothing."""
        self._empty_books = 0
        self._look_at = -math.inf
        """Time of the loop of the next look."""
        self._wanted_until = -math.inf
        """Time of the loop up to which a book is read although there is no question."""
        self._seen_at: dict[str, float] = {}
        """Times of the loop at which a book first showed an order, by order number."""
        self._nameless: list[OrderRow] = []
        """Rows of the last book that name no order: no history can be asked for by them."""
        self._own_elsewhere: tuple[str, frozenset[str]] = ("", frozenset())
        """A day, and the numbers of our orders of other days that its book lacks."""
        self._resubmits: set[asyncio.Task[None]] = set()
        self.is_closed = False
        self.opened = 0
        """Questions so far."""
        self.resolved: Counter[str] = Counter()
        """Those that have an answer, by outcome."""

    @property
    def in_flight_requests(self) -> Collection[InFlightRequest]:
        """Those that are open."""
        return self._requests.keys()

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        self._late_order_listeners.append(listener)

    def find(
        self, action: str, *, client_tag: str = "", number: str = ""
    ) -> InFlightRequest | None:
        """The open question about a request; the newest, where there are several."""
        in_flight_requests = (self._placements if client_tag else self._changes).get(
            client_tag or number
        )
        for pending in reversed(in_flight_requests or {}):
            if pending.expected.action == action:
                return pending
        return None

    def open(
        self,
        expected: ExpectedEffect,
        *,
        intent: int | None = None,
        is_proven: bool = False,
        sent_at: float | None = None,
        sent_ns: int | None = None,
    ) -> InFlightRequest:
        """Begin to find out about a request whose answer was lost just now. It was not sent before
        `sent_at`, a time of the loop, which was `sent_ns` by `clock` in Unix nanoseconds; both are
        now where they are not given. One does not follow from the other: a machine that sleeps
        stops the loop's clock, and a day may have ended since.

        `is_proven` says that the broker has the order of a placement; of a change it says nothing.
        """
        now = asyncio.get_running_loop().time()
        pending = InFlightRequest(
            expected,
            intent=intent,
            is_proven=is_proven and bool(expected.client_tag),
            proof_at=now + self.resolution_timeout,
            sent_at=now if sent_at is None else sent_at,
            sent_ns=int(self.clock() * 1e9) if sent_ns is None else sent_ns,
        )
        if self.is_closed:
            self._log_out(pending)
            return pending
        self.opened += 1
        self._requests[pending] = None
        self._alike(pending)[pending] = None
        self._watched.pop(expected.client_tag, None)
        self._set_timer(pending)
        # The feed may have been faster than the loss.
        order = self._known_order(pending)
        if order is not None and expected.client_tag:
            self._accept(pending, self._own(order, expected.client_tag))
        elif order is not None and order.updated_ns:
            self._confirm(pending, order, order)
        if pending.is_open:
            self._look_soon()
        return pending

    def expire(self, pending: InFlightRequest, reason: str) -> None:
        """Give the question up: it cannot be known any more whether the request took effect."""
        if not pending.is_open:
            return
        expected = pending.expected
        self._end(pending, Outcome.UNRESOLVED, reason=reason)
        pending.refuse(_unknown(pending, reason))
        log_order(
            log, logging.ERROR, self._subject(pending), "its outcome stays unknown: %s", reason
        )
        if expected.client_tag:
            self.watch_for(expected.client_tag, pending.intent, said="of unknown outcome")

    def watch_for(self, client_tag: str, intent: int | None, *, said: str = "refused") -> None:
        """Report it as an error when an order appears under the tag of a placement that its caller
        takes to have none. `said` is what the caller was told of the placement."""
        if len(self._watched) >= WATCHED_TAGS:
            self._watched.popitem(last=False)
        self._watched[client_tag] = _Watched(intent, said)

    def doubt(self, client_tag: str) -> None:
        """Read books until the end of the resolution timeout for the order of a placement that was
        refused, and is watched for, but may have been taken all the same."""
        self._doubts[client_tag] = asyncio.get_running_loop().time() + self.resolution_timeout
        if not self.is_closed:
            self._look_soon()

    @property
    def has_doubts(self) -> bool:
        """Whether an order may still appear for a placement whose refusal is in doubt."""
        now = asyncio.get_running_loop().time()
        return any(until > now for until in self._doubts.values())

    def is_another_order(self, number: str, client_tag: str) -> bool:
        """Whether a number is known to be that of an order placed here under another client tag."""
        if number not in self._cache.own:
            return False
        order = self._cache.get(number)
        return order is not None and order.client_tag != client_tag

    async def wait(self, pending: InFlightRequest, *, patience: float) -> bool:
        """Wait until it is settled; False when it is not by the end of its resolution timeout and
        `patience` seconds for the book that is read then."""
        while pending.is_open:
            rest = pending.proof_at + patience - asyncio.get_running_loop().time()
            if rest <= 0:
                return False
            await pending.done_within(rest)
        return True

    def hear(self, update: OrderRow | PositionUpdate) -> None:
        """A message of the order feed, after the tracker has heard it."""
        if self.is_closed or isinstance(update, PositionUpdate):
            return
        tag = without_suffix(update.gui_order_id)
        in_flight_requests = self._changes.get(update.number)
        is_of_note = self._is_of_note(tag, update.number)
        if not (in_flight_requests or is_of_note):
            return
        order = self._cache.get(update.number)
        if order is None:
            # It exists; the book describes it.
            self._wanted_until = asyncio.get_running_loop().time() + GIVE_UP_AFTER
            self._poller.ask()
            return
        for pending in [*(in_flight_requests or ())]:
            self._confirm(pending, order, update)
        if is_of_note:
            self._take_tagged(tag, [update])

    def apply_order_book(self, rows: list[OrderRow], began: float) -> None:
        """Take in a whole book. `began` is the time of the loop at which it was asked for."""
        self._empty_books = 0 if rows else self._empty_books + 1
        changed, tagged = self._sort(rows)
        for tag, alike in tagged.items():
            self._take_tagged(tag, alike)
        for row in changed.values():
            order = self._cache.register(row)
            for pending in [*self._changes.get(row.number, ())]:
                self._confirm(pending, order, row)
        for tag in [tag for tag, until in self._doubts.items() if until <= began]:
            del self._doubts[tag]
        over = [pending for pending in self._requests if self._is_over(pending, began)]
        if not over:
            return
        is_whole = self._is_whole(rows)
        today = day_of(self.clock())
        vain = [
            pending
            for pending in over
            if not self._rule_out(pending, changed, rows if is_whole else None, today)
        ]
        self._vain_looks = self._vain_looks + 1 if vain else 0
        if vain:
            self._look_again()

    async def close(self) -> None:
        """Give up: what is open is found out at the next login, if there is a journal."""
        self.is_closed = True
        for pending in self._requests:
            self._log_out(pending)
        for index in (self._requests, self._placements, self._changes):
            index.clear()
        tasks = [*self._resubmits, *self._inquiries.values(), *self._tags.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tags.clear()
        await self._poller.close()

    def reopen(self) -> None:
        self.is_closed = False

    # --- verdicts -----------------------------------------------------------------------------

    def _alike(self, pending: InFlightRequest) -> dict[InFlightRequest, None]:
        """The open questions about the same tag, or the same order."""
        expected = pending.expected
        index = self._placements if expected.client_tag else self._changes
        return index.setdefault(expected.client_tag or expected.number, {})

    def _known_order(self, pending: InFlightRequest) -> Order | None:
        expected = pending.expected
        if expected.client_tag:
            return self._cache.by_tag(expected.client_tag)
        return self._cache.get(expected.number)

    def _own(self, order: Order, client_tag: str) -> Order:
        """Know that an order was placed here, under that tag."""
        order.client_tag = client_tag
        return self._cache.add(order)

    def _sort(self, rows: list[OrderRow]) -> tuple[dict[str, OrderRow], dict[str, list[OrderRow]]]:
        """Rows of a book that questions are about, by order number, and rows whose tags are of
        note, by tag. Every row is looked at once, however many questions there are."""
        now = asyncio.get_running_loop().time()
        changed: dict[str, OrderRow] = {}
        tagged: dict[str, list[OrderRow]] = {}
        self._nameless = [row for row in rows if not row.has_number]
        for row in self._nameless:
            for pending in self._placements.get(without_suffix(row.gui_order_id), ()):
                pending.is_proven = True
        for row in rows:
            number = row.number
            self._seen_at.setdefault(number, now)
            if number in self._changes:
                changed[number] = row
            if row.gui_order_id and row.has_number:
                tag = without_suffix(row.gui_order_id)
                if self._is_of_note(tag, number):
                    tagged.setdefault(tag, []).append(row)
        if len(self._seen_at) > 2 * len(rows) + 1000:
            self._seen_at = {row.number: self._seen_at[row.number] for row in rows}
        return changed, tagged

    def _is_of_note(self, tag: str, number: str) -> bool:
        """Whether the tag of an order is looked for, or is that of another order of ours."""
        if not tag:
            return False
        if tag in self._placements or tag in self._watched:
            return True
        known = self._cache.by_tag(tag)
        if known is None or known.number == number or number in self._doubles:
            return False
        # The marks that the broker makes itself have beginnings in common.
        other = self._cache.get(number)
        return any(
            order is not None and order.client_tag == tag and order.number in self._cache.own
            for order in (known, other)
        )

    def _take_tagged(self, tag: str, rows: Iterable[OrderRow]) -> None:
        """Take in all that a report shows of a client tag that is looked for, or known of another
        order."""
        orders = self._carriers(tag, rows)
        if not orders:
            return
        own = (order for order in orders if order.number in self._cache.own)
        alive = (order for order in orders if order.status is not OrderStatus.REJECTED)
        order = next(own, None) or next(alive, orders[0])
        watched = self._watched.get(tag)
        if tag in self._placements:
            for pending in [*self._placements[tag]]:
                self._accept(pending, self._own(order, tag))
        elif watched is not None and not (
            watched.said == "refused" and order.status is OrderStatus.REJECTED
        ):
            self._admit(tag, self._own(order, tag))
        if order.number not in self._cache.own:
            return
        for other in orders:
            # A second one that the broker refused is what is right.
            if other is not order and other.status is not OrderStatus.REJECTED:
                self._report_double(tag, order, other)

    def _carriers(self, tag: str, rows: Iterable[OrderRow]) -> list[Order]:
        """The orders that carry a tag, oldest first, without the legs of one of them."""
        known = self._cache.by_tag(tag)
        parents = {} if known is None else {known.number: ""}
        parents |= {row.number: row.parent_number for row in rows}
        orders = {} if known is None else {known.number: known}
        for row in reversed([*rows]):
            if row.parent_number == row.number or row.parent_number not in parents:
                orders[row.number] = self._cache.register(row)
        return [*orders.values()]

    def _report_double(self, tag: str, order: Order, other: Order) -> None:
        """A second order under a tag that was given to one placement."""
        if other.number in self._doubles:
            return
        self._doubles.add(other.number)
        log_order(
            log,
            logging.ERROR,
            Subject("place", tag, other.number),
            "a second order under the client tag of order %s, which was placed once: %r",
            order.number,
            other,
        )
        self._report(self._own(other, tag))

    def _is_whole(self, rows: list[OrderRow]) -> bool:
        """Whether a book can prove that something is not in it. It must hold our orders of its day;
        and since many a broken answer reads like an empty book, it takes two of those."""
        own, numbers = self._cache.own, {row.number for row in rows}
        today = day_of(self.clock())
        day, elsewhere = self._own_elsewhere
        # As long as it lacks the same ones of other days, nothing else need be looked through.
        lacks = len(own) - len(own & numbers)
        if day != today or lacks != len(elsewhere) or elsewhere & numbers:
            lacking = own - numbers
            self._own_elsewhere = (
                today,
                frozenset(number for number in lacking if not number.startswith(today)),
            )
            lacks_today = lacking - self._own_elsewhere[1]
            if lacks_today:
                log.warning(
                    "the order book lacks %d orders that must be in it, such as %s: it proves "
                    "nothing",
                    len(lacks_today),
                    min(lacks_today),
                )
                return False
        return self._empty_books != 1

    def _is_over(self, pending: InFlightRequest, began: float) -> bool:
        """Whether nothing more can come of it, by a book asked for at `began`."""
        if pending.is_being_resubmitted:
            return False
        if began >= pending.proof_at:
            return True
        # What comes to a final order is refused.
        order = self._cache.get(pending.expected.number)
        return order is not None and order.is_final

    def _rule_out(
        self,
        pending: InFlightRequest,
        changed: dict[str, OrderRow],
        rows: list[OrderRow] | None,
        today: str,
    ) -> bool:
        """End a question that a book does not answer with yes, or have histories end it. `rows` is
        None for a book that is not whole. Returns whether the book was good enough for that."""
        expected = pending.expected
        row = changed.get(expected.number)
        if rows is None:
            pending.problem = "the order book was empty, or lacked orders that must be in it"
            return False
        if row is None and pending.day != today:
            reason = f"{expected.mark} is of an earlier day, and not in today's order book"
            self.expire(pending, reason)
            return True
        order = self._cache.get(expected.number)
        if row is None and not expected.client_tag:
            if (
                order is not None
                and order.is_final
                and last_day_of(order, pending.day) < pending.day
            ):
                self._end_as_final(pending, order)
                return True
            pending.problem = f"the order book lacks order {expected.number}"
            return False
        if expected.client_tag and could_be(expected, self._nameless, pending.sent_ns):
            pending.problem = "the order book has an order without a number that could be it"
            return False
        if row is not None and order is not None and is_behind(row.updated_ns, order):
            pending.problem = f"the order book is behind the feed with order {expected.number}"
            return False
        self._inquire(pending, rows)
        return True

    def _confirm(self, pending: InFlightRequest, order: Order, report: Order | OrderRow) -> None:
        """Settle a question about a change if a report of its order says that it took effect, or
        came too late."""
        if not pending.is_open:
            return
        expected = pending.expected
        if expected.action == "modify":
            if proves_modification(expected, report):
                self._accept(pending, order)
        elif proves_cancellation(expected, order):
            self._accept(pending, order)
        elif order.is_final:
            self._end_as_final(pending, order)

    def _accept(self, pending: InFlightRequest, order: Order) -> None:
        self._end(pending, Outcome.ACCEPTED, order_number=order.number)
        pending.answer(order)
        log_order(log, logging.INFO, self._subject(pending), "it did take effect: %r", order)

    def _end_as_final(self, pending: InFlightRequest, order: Order) -> None:
        action = pending.expected.action
        text = f"order {order.number} is {order.status_text}: too late to {action}"
        self._end(pending, Outcome.REJECTED, reason=text)
        log_order(log, logging.INFO, self._subject(pending), "%s", text)
        pending.refuse(OrderAlreadyFinal(text))

    def _reject_as_not_received(self, pending: InFlightRequest) -> None:
        expected = pending.expected
        if pending.is_proven:
            self.expire(
                pending,
                f"the broker said that it has an order with {expected.mark}, but neither the order "
                "book nor a history shows one",
            )
            return
        error = NotAccepted(
            expected.action,
            client_tag=expected.client_tag,
            order_number=expected.number,
            resolution_timeout=self.resolution_timeout,
        )
        self._end(pending, Outcome.NOT_ACCEPTED, reason=str(error))
        pending.refuse(error)
        log_order(log, logging.INFO, self._subject(pending), "%s", error)
        if expected.client_tag:
            self.watch_for(expected.client_tag, pending.intent, said="not accepted")

    def _admit(self, tag: str, order: Order) -> None:
        """An order that its caller does not know of: report it as an error."""
        watched = self._watched.pop(tag)
        self._doubts.pop(tag, None)
        log_order(
            log,
            logging.ERROR,
            Subject("place", tag, order.number),
            "its order exists, although the placement was reported as %s: if it was placed again, "
            "it is there twice: %r",
            watched.said,
            order,
        )
        if self._journal is not None and watched.intent is not None:
            self._journal.end(watched.intent, Outcome.ACCEPTED, order_number=order.number)
        self._report(order)

    def _report(self, order: Order) -> None:
        """Hand an order that nobody expects to the listeners."""
        self.late_orders.append(order)
        for listener in [*self._late_order_listeners]:
            try:
                listener(order)
            except Exception:
                log.exception("a listener of late orders failed on %r", order)

    def _log_out(self, pending: InFlightRequest) -> None:
        """End a question with the login."""
        expected = pending.expected
        if pending.timer is not None:
            pending.timer.cancel()
        pending.refuse(_unknown(pending, "logged out before its outcome was known"))
        if expected.client_tag:
            self.watch_for(expected.client_tag, pending.intent, said="of unknown outcome")

    def _end(
        self,
        pending: InFlightRequest,
        outcome: Outcome,
        *,
        order_number: str = "",
        reason: str = "",
    ) -> None:
        del self._requests[pending]
        expected = pending.expected
        alike = self._alike(pending)
        del alike[pending]
        if not alike:
            del (self._placements if expected.client_tag else self._changes)[
                expected.client_tag or expected.number
            ]
        if pending.timer is not None:
            pending.timer.cancel()
        if not self._requests:
            for task in self._tags.values():
                task.cancel()
            self._tags.clear()
        self.resolved[outcome.value] += 1
        if self._journal is not None and pending.intent is not None:
            self._journal.end(pending.intent, outcome, order_number=order_number, reason=reason)

    def _subject(self, pending: InFlightRequest) -> Subject:
        expected, order = pending.expected, self._known_order(pending)
        if order is None:
            return Subject(expected.action, expected.client_tag, expected.number)
        return Subject(expected.action, order.client_tag, order.number)

    # --- looking ------------------------------------------------------------------------------

    def _set_timer(self, pending: InFlightRequest) -> None:
        """Have a book asked for at the end of its resolution timeout, and the question given up
        later."""
        loop = asyncio.get_running_loop()
        is_over = loop.time() >= pending.proof_at
        at = pending.give_up_at if is_over else pending.proof_at
        pending.timer = loop.call_at(at + _MARGIN, self._time_is_over, pending)

    def _time_is_over(self, pending: InFlightRequest) -> None:
        now = asyncio.get_running_loop().time()
        if now >= pending.give_up_at:
            seconds = self.resolution_timeout + GIVE_UP_AFTER
            self.expire(pending, f"nothing proved it within {seconds:g} s: {pending.problem}")
            return
        if now >= pending.proof_at:
            self._poller.ask()
        self._set_timer(pending)

    def _look_soon(self) -> None:
        self._looks = self._vain_looks = 0
        self._look_at = asyncio.get_running_loop().time() + FIRST_LOOK
        self._poller.look()

    def _look_again(self) -> None:
        """After a report that should have answered a question and could not; the more of them, the
        later."""
        count = max(self._vain_looks, self._failed_inquiries)
        pause = min(LONGEST_WAIT, FIRST_LOOK * 2.0 ** min(count, 10))
        self._look_at = asyncio.get_running_loop().time() + pause
        self._poller.look()

    async def _look(self) -> None:
        """Read the book, which judges, unless nothing needs it any more."""
        is_wanted = asyncio.get_running_loop().time() < self._wanted_until
        if not (self._requests or self._doubts or is_wanted):
            return
        try:
            async with asyncio.timeout(READ_PATIENCE):
                await retry_until_answered(self._read_book)
        except TimeoutError:
            raise TransportError(f"no answer that is a book for {READ_PATIENCE:g} s") from None

    def _inquire(self, pending: InFlightRequest, rows: list[OrderRow]) -> None:
        """Ask histories about it, unless they are being asked."""
        if pending in self._inquiries:
            return
        task = asyncio.create_task(
            self._look_closer(pending, rows), name=f"inquiry {pending.expected.mark}"
        )
        self._inquiries[pending] = task
        task.add_done_callback(lambda _: self._inquiries.pop(pending))
        # A report may answer it before the histories do.
        pending.on_answer(task.cancel)

    async def _look_closer(self, pending: InFlightRequest, rows: list[OrderRow]) -> None:
        try:
            if pending.expected.client_tag:
                await self._search(pending, rows)
            else:
                await self._consult(pending)
        except Exception as error:
            pending.problem = f"no history: {error}"
            self._failed_inquiries += 1
            unforeseen = None if isinstance(error, NeoError) else error
            is_first = self._failed_inquiries == 1 or unforeseen is not None
            log.log(
                logging.WARNING if is_first else logging.DEBUG,
                "%s: no history: %s",
                self._subject(pending),
                error,
                exc_info=unforeseen,
            )
            self._look_again()  # at a book that begins it anew
        else:
            self._failed_inquiries = 0

    async def _states_of(self, number: str) -> list[HistoryRow]:
        """The history of an order that exists: one without a state is no history."""

        async def read() -> list[HistoryRow]:
            rows = await self._read_history(number)
            if not rows:
                raise ProtocolError(f"the history of order {number} is empty")
            return rows

        async with self._histories:
            loop = asyncio.get_running_loop()
            self._history_at = max(loop.time(), self._history_at + HISTORY_EVERY)
            await asyncio.sleep(self._history_at - loop.time())
            try:
                async with asyncio.timeout(READ_PATIENCE):
                    return await retry_until_answered(read)
            except TimeoutError:
                raise TransportError(
                    f"the history of order {number} could not be read for {READ_PATIENCE:g} s"
                ) from None

    async def _tags_of(self, number: str) -> frozenset[str]:
        """Every mark that an order has ever had, of before it was asked for at least."""
        reading = self._tags.get(number)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = asyncio.create_task(self._read_tags(number), name=f"tags of {number}")
            self._tags[number] = reading
        return await asyncio.shield(reading)

    async def _read_tags(self, number: str) -> frozenset[str]:
        return tags_in(await self._states_of(number))

    async def _search(self, pending: InFlightRequest, rows: list[OrderRow]) -> None:
        """Look for the tag in the histories of orders that have lost theirs to a modification.
        What a book showed before the request was sent is another order."""
        expected = pending.expected
        candidates = [
            row
            for row in could_be(expected, rows, pending.sent_ns)
            if row.number not in self._cache.own
            and self._seen_at.get(row.number, math.inf) >= pending.sent_at
        ]
        # The newest row is first, and the order entered soon after the request.
        asked = candidates[-MOST_HISTORIES:]
        tags = await asyncio.gather(*(self._tags_of(row.number) for row in asked))
        if not pending.is_open:
            return
        for row, marks in zip(asked, tags, strict=True):
            if expected.client_tag in marks:
                order = self._cache.register(row, client_tag=expected.client_tag)
                self._accept(pending, order)
                return
        unread = [row.number for row, marks in zip(asked, tags, strict=True) if "" in marks]
        for number in unread:
            self._tags.pop(number, None)
        if unread:
            raise ProtocolError(f"the history of order {unread[0]} has a tag that cannot be read")
        if len(asked) < len(candidates):
            self.expire(
                pending,
                f"{len(candidates)} orders of the account could be it under another mark, and it "
                f"is none of the {len(asked)} whose histories were read",
            )
            return
        self._reject_as_not_received(pending)

    async def _consult(self, pending: InFlightRequest) -> None:
        """Look for the terms of a modification in the order's history: another one may have
        replaced them."""
        expected = pending.expected
        order = self._cache.get(expected.number)
        had = expected.action == "modify" and not expected.was_final
        if had:
            history = await self._states_of(expected.number)
            newest = max(row.updated_ns for row in history)
            if order is not None and is_behind(newest, order):
                raise ProtocolError(f"the history of order {order.number} lacks its newest state")
            told = had_terms(history, expected)
            if told is None:
                raise ProtocolError(
                    f"the history of order {expected.number} lacks what it would show"
                )
            had = told
        if not pending.is_open:
            return
        if order is None:
            self._reject_as_not_received(pending)
        elif had:
            self._accept(pending, order)
        elif order.is_final:
            self._end_as_final(pending, order)
        else:
            self._reject_as_not_received(pending)

    def _due_in(self) -> float | None:
        """Seconds until the book has to be read; None while there is no question or doubt."""
        now = asyncio.get_running_loop().time()
        self._doubts = {
            tag: until for tag, until in self._doubts.items() if now < until + GIVE_UP_AFTER
        }
        if not self._requests and not self._doubts:
            return None
        if self._poller.read_at >= self._look_at:
            self._looks += 1
            ends = [pending.proof_at for pending in self._requests]
            beyond = max([*ends, *self._doubts.values()]) <= now
            longest = LONGEST_WAIT_BEYOND if beyond else LONGEST_WAIT
            pause = min(longest, FIRST_LOOK * 2.0 ** min(self._looks, 10))
            self._look_at = self._poller.read_at + pause
        return self._look_at - now

    # --- sending again under the same tag -----------------------------------------------------

    def resubmit(self, pending: InFlightRequest, resubmit: Callable[[], Awaitable[Order]]) -> None:
        """Settle a placement by sending it again, which the broker refuses if it has it."""
        if not pending.is_open or pending.is_proven:
            return
        task = asyncio.create_task(
            self._resubmit(pending, resubmit), name=f"resend {pending.expected.mark}"
        )
        self._resubmits.add(task)
        task.add_done_callback(self._resubmits.discard)
        # What is found must not be sent once more; and nothing waits for ever to be sent.
        pending.on_answer(task.cancel)

    async def _resubmit(
        self, pending: InFlightRequest, resubmit: Callable[[], Awaitable[Order]]
    ) -> None:
        """Until the broker takes it or says that it has it, within the resolution timeout."""
        loop = asyncio.get_running_loop()
        until, tries = pending.proof_at, 0
        while pending.is_open and loop.time() < until:
            tries += 1
            log_order(log, logging.INFO, self._subject(pending), "sent again under the same tag")
            pending.is_being_resubmitted = True
            try:
                order = await resubmit()
            except DuplicateTag:
                pending.is_proven = True
                self._poller.ask()
                return
            except (NotSent, AnswerLost, ServerError, ProtocolError):
                pass
            except NeoError as error:
                # Says nothing of the first one, which may have met other circumstances.
                log_order(
                    log,
                    logging.WARNING,
                    self._subject(pending),
                    "sent again, and refused: %s",
                    error,
                )
                return
            else:
                if pending.is_open:
                    self._accept(pending, order)
                return
            finally:
                pending.is_being_resubmitted = False
                pending.proof_at = loop.time() + self.resolution_timeout
                pending.give_up_at = pending.proof_at + GIVE_UP_AFTER
            await asyncio.sleep(backoff(tries, base=RESEND_BASE, cap=RESEND_CAP))


def _unknown(pending: InFlightRequest, reason: str) -> OutcomeUnknown:
    expected = pending.expected
    return OutcomeUnknown(
        expected.action,
        client_tag=expected.client_tag,
        order_number=expected.number,
        reason=reason,
    )
