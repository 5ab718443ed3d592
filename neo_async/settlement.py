"""Finding out what became of order requests whose answers were lost.

Such a request is an open question. Every order book that is read, and every message of the order
feed, may answer it with yes. Only a whole book that was asked for when the request could no longer
arrive answers it with no, and the histories of the orders that it might be under another mark.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any

from neo_async.errors import (
    AnswerLost,
    DuplicateTag,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    NotSent,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    ServerError,
)
from neo_async.evidence import (
    Sought,
    could_be,
    had_terms,
    has_terms,
    number_prefix,
    tags_in,
)
from neo_async.journal import Journal, Outcome
from neo_async.logs import Subject, tell
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.model.updates import PositionUpdate
from neo_async.tracking import Order, Tracker
from neo_async.transport.backoff import backoff
from neo_async.upkeep import Upkeep, persistently
from neo_async.wire.tags import matches, without_suffix

log = logging.getLogger(__name__)

FIRST_LOOK = 0.25
"""Seconds after a question is opened at which the book is read; every further look waits twice as
long, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 5.0
LONGEST_WAIT_BEYOND = 30.0
"""When the horizon of every question is over: only a book that cannot be read is waited for then,
or one that lacks what the broker says it has."""

HISTORIES_AT_ONCE = 8
"""So many pass the limiter before they would be taken for slow."""

RESEND_BASE = 0.5
RESEND_CAP = 5.0

DENIED_KEPT = 10_000
"""Placements that were not accepted, whose tags are still looked out for."""

_CANCELLING = frozenset(
    {OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED, OrderStatus.CANCEL_PENDING}
)


class Question:
    """One order request of which nobody knows whether it took effect. Awaiting it gives the Order,
    or raises what it turned out to be."""

    __slots__ = ("_answer", "intent", "is_being_resent", "is_proven", "proof_at", "sought")

    def __init__(
        self, sought: Sought, *, intent: int | None, is_proven: bool, proof_at: float
    ) -> None:
        self.sought = sought
        self.intent = intent
        self.is_proven = is_proven
        """Whether the broker has said that it has the order: then no book tells otherwise."""
        self.is_being_resent = False
        """Whether it is on its way once more: then no book tells that it did not arrive."""
        self.proof_at = proof_at
        """Time of the loop from which on the order cannot appear any more."""
        self._answer: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        # Whoever wants it has it; nobody wanting it is no reason to complain.
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

    async def settled_within(self, seconds: float) -> bool:
        await asyncio.wait([self._answer], timeout=seconds)
        return self._answer.done()

    def __await__(self) -> Generator[Any, None, Order]:
        # One who gives up must not take the answer from the others.
        return asyncio.shield(self._answer).__await__()


class Settlement:
    """Asks for the book as long as there are open questions, and judges what it and the feed say.

    `judge` has to be called with every book that is read, after the tracker has taken it over.
    """

    def __init__(
        self,
        tracker: Tracker,
        read_book: Callable[[], Coroutine[Any, Any, list[OrderRow]]],
        read_history: Callable[[str], Coroutine[Any, Any, list[HistoryRow]]],
        *,
        journal: Journal | None,
        horizon: float,
        clock: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._read_book = read_book
        self._read_history = read_history
        self._journal = journal
        self.horizon = horizon
        """Seconds after the loss of an answer in which an order may still appear."""
        self._clock = clock
        self._questions: list[Question] = []
        self._inquiries: dict[Question, asyncio.Task[None]] = {}
        """Of questions to which the book has nothing to say: histories have to tell."""
        self._histories = asyncio.Semaphore(HISTORIES_AT_ONCE)
        self._tags: dict[str, asyncio.Task[frozenset[str]]] = {}
        """Those in the histories of orders that were looked for one, by order number."""
        self._denied: dict[str, int | None] = {}
        """Tags of placements of which was said that they were not accepted, and their intents."""
        self.latecomers: list[Order] = []
        """Orders that appeared after all, when their placement had been called not accepted."""
        self._latecomer_listeners: list[Callable[[Order], None]] = []
        self._upkeep = Upkeep("order book", self._look, self._due_in)
        self._looks = 0
        self._empty_books = 0
        self._look_at = -math.inf
        self._began = -math.inf
        """Time of the loop at which the last successful reading began."""
        self._resends: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.opened = 0
        """Questions so far."""
        self.resolved: Counter[str] = Counter()
        """Those that have an answer, by outcome."""

    @property
    def questions(self) -> Sequence[Question]:
        """Those that are open."""
        return self._questions

    def on_latecomer(self, listener: Callable[[Order], None]) -> None:
        self._latecomer_listeners.append(listener)

    def find(self, action: str, *, client_tag: str = "", number: str = "") -> Question | None:
        """The open question about a request."""
        marks = (action, client_tag, number)
        for question in self._questions:
            sought = question.sought
            if (sought.action, sought.client_tag, sought.number) == marks:
                return question
        return None

    def open(
        self, sought: Sought, *, intent: int | None = None, is_proven: bool = False
    ) -> Question:
        """Begin to find out about a request whose answer was lost just now."""
        now = asyncio.get_running_loop().time()
        question = Question(sought, intent=intent, is_proven=is_proven, proof_at=now + self.horizon)
        if self._is_closed:
            question.refuse(_logged_out(question))
            return question
        self.opened += 1
        self._questions.append(question)
        # The feed may have been faster than the loss.
        self._affirm(question, self._known_order(question))
        if question.is_open:
            self._look_soon()
        return question

    def lapse(self, question: Question, reason: str) -> None:
        """Give the question up: nobody will ever know."""
        sought = question.sought
        self._end(question, Outcome.LAPSED, reason=reason)
        question.refuse(
            OutcomeUnknown(
                sought.action,
                client_tag=sought.client_tag,
                order_number=sought.number,
                reason=reason,
            )
        )
        tell(log, logging.WARNING, self._subject(question), "nobody will know: %s", reason)

    def watch_for(self, client_tag: str, intent: int | None) -> None:
        """Say so, loudly, when a placement appears of which was said that it was not accepted."""
        if len(self._denied) >= DENIED_KEPT:
            del self._denied[next(iter(self._denied))]
        self._denied[client_tag] = intent

    async def wait(self, question: Question, *, patience: float) -> bool:
        """Wait until it is settled; False when it is not by the end of its horizon and `patience`
        seconds for the book that is read then."""
        while question.is_open:
            rest = question.proof_at + patience - asyncio.get_running_loop().time()
            if rest <= 0:
                return False
            await question.settled_within(rest)
        return True

    def hear(self, update: OrderRow | PositionUpdate) -> None:
        """A message of the order feed, after the tracker has heard it."""
        if isinstance(update, PositionUpdate) or not (self._questions or self._denied):
            return
        for question in [*self._questions]:
            if question.sought.is_in(update):
                order = self._tracker.get(update.number)
                if order is None:
                    self._upkeep.ask()  # it exists; the book describes it
                else:
                    self._affirm(question, order)
        if self._denied and self._denied_tag(update) is not None:
            self._upkeep.ask()

    def judge(self, rows: list[OrderRow], began: float) -> None:
        """Take in a whole book. `began` is the time of the loop at which it was asked for."""
        self._began = max(self._began, began)
        self._empty_books = 0 if rows else self._empty_books + 1
        is_whole = bool(self._questions) and self._is_whole(rows)
        for question in [*self._questions]:
            row = next((row for row in rows if question.sought.is_in(row)), None)
            if row is not None:
                order = self._tracker.adopt(row, client_tag=question.sought.client_tag)
                self._affirm(question, order)
            is_over = question.is_open and not question.is_proven and self._is_over(question, began)
            tells = is_whole and (row is not None or bool(question.sought.client_tag))
            if is_over and tells:
                self._inquire(question, rows)
            elif is_over:
                self._look_soon()
        for row in rows if self._denied else ():
            if (tag := self._denied_tag(row)) is not None:
                self._admit(tag, self._tracker.adopt(row, client_tag=tag))

    async def close(self) -> None:
        """Give up: what is open is found out at the next login, if there is a journal."""
        self._is_closed = True
        for question in self._questions:
            question.refuse(_logged_out(question))
        self._questions.clear()
        tasks = [*self._resends, *self._inquiries.values(), *self._tags.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upkeep.close()

    def reopen(self) -> None:
        self._is_closed = False

    # --- verdicts -----------------------------------------------------------------------------

    def _known_order(self, question: Question) -> Order | None:
        sought = question.sought
        if sought.number:
            return self._tracker.get(sought.number)
        orders = self._tracker.orders.values()
        return next((each for each in orders if matches(each.client_tag, sought.client_tag)), None)

    def _is_whole(self, rows: list[OrderRow]) -> bool:
        """Whether a book can prove that something is not in it. It must hold what is known to be
        there; and since many a broken answer reads like an empty book, it takes two of those."""
        numbers = {row.number for row in rows}
        today = number_prefix(self._clock())
        lacking = [one for one in self._tracker.own if one not in numbers and one[:6] == today]
        if lacking:
            log.warning(
                "the order book lacks %d orders that must be in it, such as %s: it proves nothing",
                len(lacking),
                lacking[0],
            )
        return not lacking and self._empty_books != 1

    def _is_over(self, question: Question, began: float) -> bool:
        """Whether nothing more can come of it, by a book asked for at `began`."""
        if question.is_being_resent:
            return False
        if began >= question.proof_at:
            return True
        # What comes to a final order is refused.
        order = self._tracker.get(question.sought.number)
        return order is not None and order.is_final

    def _affirm(self, question: Question, order: Order | None) -> None:
        """Settle the question if the order's state says that the request took effect."""
        if order is None or not question.is_open:
            return
        sought = question.sought
        if sought.client_tag:
            order.client_tag = sought.client_tag
        elif sought.action == "modify":
            if sought.was_final or not has_terms(order, sought.terms):
                return
        elif order.is_final and (sought.was_final or order.status not in _CANCELLING):
            self._end_as_final(question, order)
            return
        elif order.status not in _CANCELLING:
            return
        self._accept(question, order)

    def _accept(self, question: Question, order: Order) -> None:
        self._end(question, Outcome.ACCEPTED, order_number=order.number)
        question.answer(order)
        tell(log, logging.INFO, self._subject(question), "it did take effect: %r", order)

    def _end_as_final(self, question: Question, order: Order) -> None:
        action = question.sought.action
        text = f"order {order.number} is {order.status_text}: too late to {action}"
        self._end(question, Outcome.REJECTED, reason=text)
        tell(log, logging.INFO, self._subject(question), "%s", text)
        question.refuse(OrderAlreadyFinal(text))

    def _deny(self, question: Question) -> None:
        sought = question.sought
        error = NotAccepted(
            sought.action,
            client_tag=sought.client_tag,
            order_number=sought.number,
            horizon=self.horizon,
        )
        self._end(question, Outcome.NOT_ACCEPTED, reason=str(error))
        question.refuse(error)
        tell(log, logging.INFO, self._subject(question), "%s", error)
        if sought.client_tag:
            self.watch_for(sought.client_tag, question.intent)

    def _denied_tag(self, row: OrderRow) -> str | None:
        tag = without_suffix(row.gui_order_id)
        return tag if tag in self._denied else None

    def _admit(self, tag: str, order: Order) -> None:
        """What was said of this placement was wrong: say so, loudly."""
        intent = self._denied.pop(tag)
        tell(
            log,
            logging.ERROR,
            Subject("place", tag, order.number),
            "it has appeared after all, more than %g s after its answer was lost: it was said not "
            "to be accepted; whoever placed it again has it twice",
            self.horizon,
        )
        if self._journal is not None and intent is not None:
            self._journal.end(intent, Outcome.ACCEPTED, order_number=order.number)
        self.latecomers.append(order)
        for listener in self._latecomer_listeners:
            listener(order)

    def _end(
        self, question: Question, outcome: Outcome, *, order_number: str = "", reason: str = ""
    ) -> None:
        self._questions.remove(question)
        self.resolved[outcome.value] += 1
        if self._journal is not None and question.intent is not None:
            self._journal.end(question.intent, outcome, order_number=order_number, reason=reason)

    def _subject(self, question: Question) -> Subject:
        sought, order = question.sought, self._known_order(question)
        if order is None:
            return Subject(sought.action, sought.client_tag, sought.number)
        return Subject(sought.action, order.client_tag, order.number)

    # --- looking ------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._looks = 0
        self._look_at = asyncio.get_running_loop().time() + FIRST_LOOK
        self._upkeep.look()

    async def _look(self) -> None:
        """Read the book, which judges."""
        await persistently(self._read_book)

    def _inquire(self, question: Question, rows: list[OrderRow]) -> None:
        """Ask histories about it, unless they are being asked."""
        if question in self._inquiries:
            return
        task = asyncio.create_task(
            self._look_closer(question, rows), name=f"inquiry {question.sought.mark}"
        )
        self._inquiries[question] = task
        task.add_done_callback(lambda _: self._inquiries.pop(question))
        # Somebody else may find the answer first.
        question.on_answer(task.cancel)

    async def _look_closer(self, question: Question, rows: list[OrderRow]) -> None:
        try:
            if question.sought.client_tag:
                await self._search(question, rows)
            else:
                await self._consult(question)
        except NeoError as error:
            tell(log, logging.WARNING, self._subject(question), "no history: %s", error)
            self._look_soon()  # at a book that begins it anew

    async def _states_of(self, number: str) -> list[HistoryRow]:
        """The history of an order that exists: one without a state is no history."""

        async def read() -> list[HistoryRow]:
            rows = await self._read_history(number)
            if not rows:
                raise ProtocolError(f"the history of order {number} is empty")
            return rows

        async with self._histories:
            return await persistently(read)

    async def _tags_of(self, number: str) -> frozenset[str]:
        """Every mark that an order has ever had, of before it was asked for at least."""
        reading = self._tags.get(number)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = asyncio.create_task(self._read_tags(number), name=f"tags of {number}")
            self._tags[number] = reading
        return await asyncio.shield(reading)

    async def _read_tags(self, number: str) -> frozenset[str]:
        return tags_in(await self._states_of(number))

    async def _search(self, question: Question, rows: list[OrderRow]) -> None:
        """Look for the tag in the histories of orders that have lost theirs to a modification."""
        sought = question.sought
        candidates = [
            row for row in rows if could_be(sought, row) and row.number not in self._tracker.own
        ]
        tags = await asyncio.gather(*(self._tags_of(row.number) for row in candidates))
        if not question.is_open:
            return
        for row, marks in zip(candidates, tags, strict=True):
            if sought.client_tag in marks:
                self._affirm(question, self._tracker.adopt(row, client_tag=sought.client_tag))
                return
        self._deny(question)

    async def _consult(self, question: Question) -> None:
        """Look for the terms of a modification in the order's history: another one may have
        replaced them."""
        sought = question.sought
        order = self._tracker.get(sought.number)
        had = sought.action == "modify" and not sought.was_final
        if had:
            had = had_terms(await self._states_of(sought.number), sought)
        if not question.is_open:
            return
        if order is None:
            self._deny(question)
        elif had:
            self._accept(question, order)
        elif order.is_final:
            self._end_as_final(question, order)
        else:
            self._deny(question)

    def _due_in(self) -> float | None:
        """Seconds until the book has to be read; None while there is no question."""
        if not self._questions:
            return None
        now = asyncio.get_running_loop().time()
        if self._upkeep.read_at >= self._look_at:
            self._looks += 1
            beyond = all(question.proof_at <= now for question in self._questions)
            longest = LONGEST_WAIT_BEYOND if beyond else LONGEST_WAIT
            self._look_at = self._upkeep.read_at + min(longest, FIRST_LOOK * 2.0**self._looks)
        proofs = (each.proof_at for each in self._questions if each.proof_at > self._began)
        return min([self._look_at, *proofs]) - now

    # --- sending again under the same tag -----------------------------------------------------

    def resend(self, question: Question, resend: Callable[[], Awaitable[Order]]) -> None:
        """Settle a placement by sending it again, which the broker refuses if it has it."""
        if not question.is_open or question.is_proven:
            return
        task = asyncio.create_task(
            self._resend(question, resend), name=f"resend {question.sought.mark}"
        )
        self._resends.add(task)
        task.add_done_callback(self._resends.discard)

    async def _resend(self, question: Question, resend: Callable[[], Awaitable[Order]]) -> None:
        """Until the broker takes it or says that it has it, within the horizon."""
        loop = asyncio.get_running_loop()
        until, tries = question.proof_at, 0
        while question.is_open and loop.time() < until:
            tries += 1
            tell(log, logging.INFO, self._subject(question), "sent again under the same tag")
            question.is_being_resent = True
            try:
                order = await resend()
            except DuplicateTag:
                question.is_proven = True
                self._upkeep.ask()
                return
            except (NotSent, AnswerLost, ServerError, ProtocolError):
                pass
            except NeoError as error:
                # Says nothing of the first one, which may have met other circumstances.
                tell(
                    log,
                    logging.WARNING,
                    self._subject(question),
                    "sent again, and refused: %s",
                    error,
                )
                return
            else:
                self._affirm(question, order)
                return
            finally:
                question.is_being_resent = False
                question.proof_at = loop.time() + self.horizon
            await asyncio.sleep(backoff(tries, base=RESEND_BASE, cap=RESEND_CAP))


def _logged_out(question: Question) -> NotLoggedIn:
    return NotLoggedIn(
        f"logged out while it was being found out what became of {question.sought.mark}"
    )
