"""Finding out what became of order requests whose answers were lost.

Such a request is an open question. Every order book that is read, and every message of the order
feed, may answer it with yes. Only a whole book that was asked for when the request could no longer
arrive answers it with no.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec

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
from neo_async.journal import Intent, Journal, Outcome, today_ns
from neo_async.model.enums import OrderStatus, OrderType
from neo_async.model.orders import OrderRow
from neo_async.model.updates import PositionUpdate
from neo_async.tracking import Order, Tracker, find_by_tag
from neo_async.transport.backoff import backoff
from neo_async.upkeep import Upkeep
from neo_async.wire.orders import ModifyForm
from neo_async.wire.tags import matches

log = logging.getLogger(__name__)

FIRST_LOOK = 0.25
"""Seconds after a question is opened at which the book is read; every further look waits twice as
long, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 5.0
LONGEST_WAIT_BEYOND = 30.0
"""When the horizon of every question is over: only a book that cannot be read is waited for then,
or one that lacks what the broker says it has."""

RESEND_BASE = 0.5
RESEND_CAP = 5.0

ADOPTED_DAYS = 7
"""Age of the oldest orders that are looked for in today's book at login: after-market orders wait
over weekends and holidays."""
_DAY_NS = 86_400 * 1_000_000_000

_CANCELLING = frozenset(
    {OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED, OrderStatus.CANCEL_PENDING}
)

Terms = Mapping[str, object]
"""Of an order by their names on it, as a modification was to make them."""
_OTHER_PRICE = "other price"
"""Among terms, the price that an order had before it was to become a market order. The broker makes
a limit of that, at a price of its own."""


class Finding(msgspec.Struct, frozen=True):
    """What the reconciliation found out about an intent that a crash had left open."""

    intent: Intent
    outcome: Outcome
    order: Order | None
    """None when the request had no effect, or nobody can know."""


class Reconciliation(msgspec.Struct, frozen=True):
    """What the journal and the broker's book told together at login."""

    orders: Sequence[Order] = ()
    """Every order of the journal that is in today's book; followed from now on."""
    findings: Sequence[Finding] = ()
    """One for every intent that had no outcome."""


class Question:
    """One order request of which nobody knows whether it took effect. Awaiting it gives the Order,
    or raises what it turned out to be."""

    __slots__ = (
        "_answer",
        "action",
        "client_tag",
        "intent",
        "is_proven",
        "number",
        "proof_at",
        "terms",
    )

    def __init__(
        self,
        action: str,
        *,
        client_tag: str,
        number: str,
        terms: Terms,
        intent: int | None,
        is_proven: bool,
        proof_at: float,
    ) -> None:
        self.action = action
        self.client_tag = client_tag
        self.number = number
        self.terms = terms
        self.intent = intent
        self.is_proven = is_proven
        """Whether the broker has said that it has the order: then no book tells otherwise."""
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

    async def settled_within(self, seconds: float) -> bool:
        await asyncio.wait([self._answer], timeout=seconds)
        return self._answer.done()

    def __await__(self) -> Generator[Any, None, Order]:
        # One who gives up must not take the answer from the others.
        return asyncio.shield(self._answer).__await__()

    @property
    def mark(self) -> str:
        return f"tag {self.client_tag!r}" if self.client_tag else f"number {self.number!r}"


class Settlement:
    """Asks for the book as long as there are open questions, and judges what it and the feed say.

    `judge` has to be called with every book that is read, after the tracker has taken it over.
    """

    def __init__(
        self,
        tracker: Tracker,
        read_book: Callable[[], Awaitable[list[OrderRow]]],
        *,
        journal: Journal | None,
        horizon: float,
        clock: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._read_book = read_book
        self._journal = journal
        self.horizon = horizon
        """Seconds after the loss of an answer in which an order may still appear."""
        self._clock = clock
        self._questions: list[Question] = []
        self._upkeep = Upkeep("order book", read_book, self._due_in)
        self._looks = 0
        self._look_at = -math.inf
        self._began = -math.inf
        """Time of the loop at which the last successful reading began."""
        self._resends: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def questions(self) -> Sequence[Question]:
        """Those that are open."""
        return self._questions

    def open(
        self,
        action: str,
        *,
        client_tag: str = "",
        number: str = "",
        terms: Terms | None = None,
        intent: int | None = None,
        is_proven: bool = False,
    ) -> Question:
        """Begin to find out about a request whose answer was lost just now."""
        now = asyncio.get_running_loop().time()
        question = Question(
            action,
            client_tag=client_tag,
            number=number,
            terms=terms or {},
            intent=intent,
            is_proven=is_proven,
            proof_at=now + self.horizon,
        )
        if self._is_closed:
            question.refuse(_logged_out(question))
            return question
        self._questions.append(question)
        # The feed may have been faster than the loss.
        self._affirm(question, self._known_order(question))
        if question.is_open:
            self._looks = 0
            self._look_at = now + FIRST_LOOK
            self._upkeep.look()
        return question

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
        if not self._questions or isinstance(update, PositionUpdate):
            return
        for question in [*self._questions]:
            if question.client_tag:
                is_meant = matches(update.gui_order_id, question.client_tag)
            else:
                is_meant = update.number == question.number
            if is_meant:
                order = self._tracker.get(update.number)
                if order is None:
                    self._upkeep.ask()  # it exists; the book describes it
                else:
                    self._affirm(question, order)

    def judge(self, rows: list[OrderRow], began: float) -> None:
        """Take in a whole book. `began` is the time of the loop at which it was asked for."""
        self._began = max(self._began, began)
        for question in [*self._questions]:
            row = _row_of(question, rows)
            if row is not None:
                order = self._tracker.adopt(row, client_tag=question.client_tag)
                self._affirm(question, order)
            if question.is_open and began >= question.proof_at and not question.is_proven:
                self._deny(question)

    async def close(self) -> None:
        """Give up: what is open is found out at the next login, if there is a journal."""
        self._is_closed = True
        for task in self._resends:
            task.cancel()
        await asyncio.gather(*self._resends, return_exceptions=True)
        await self._upkeep.close()
        for question in self._questions:
            if question.is_open:
                question.refuse(_logged_out(question))
        self._questions.clear()

    def reopen(self) -> None:
        self._is_closed = False

    # --- verdicts -----------------------------------------------------------------------------

    def _known_order(self, question: Question) -> Order | None:
        if question.number:
            return self._tracker.get(question.number)
        orders = self._tracker.orders.values()
        return next(
            (each for each in orders if matches(each.client_tag, question.client_tag)), None
        )

    def _affirm(self, question: Question, order: Order | None) -> None:
        """Settle the question if the order's state says that the request took effect."""
        if order is None or not question.is_open:
            return
        if question.client_tag:
            order.client_tag = question.client_tag
        elif question.action == "modify":
            if not _has(order, question.terms):
                return
        elif order.status not in _CANCELLING:
            if order.is_final:
                text = f"order {order.number} is {order.status_text}: too late to {question.action}"
                self._end(question, Outcome.REJECTED, reason=text)
                question.refuse(OrderAlreadyFinal(text))
            return
        self._end(question, Outcome.ACCEPTED, order_number=order.number)
        question.answer(order)
        log.info("%s of %s did take effect: %r", question.action, question.mark, order)

    def _deny(self, question: Question) -> None:
        error = NotAccepted(
            question.action,
            client_tag=question.client_tag,
            order_number=question.number,
            horizon=self.horizon,
        )
        self._end(question, Outcome.NOT_ACCEPTED, reason=str(error))
        question.refuse(error)
        log.info("%s", error)

    def _end(
        self, question: Question, outcome: Outcome, *, order_number: str = "", reason: str = ""
    ) -> None:
        self._questions.remove(question)
        if self._journal is not None and question.intent is not None:
            self._journal.end(question.intent, outcome, order_number=order_number, reason=reason)

    # --- looking ------------------------------------------------------------------------------

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
        task = asyncio.create_task(self._resend(question, resend), name=f"resend {question.mark}")
        self._resends.add(task)
        task.add_done_callback(self._resends.discard)

    async def _resend(self, question: Question, resend: Callable[[], Awaitable[Order]]) -> None:
        """Until the broker takes it or says that it has it, within the horizon."""
        loop = asyncio.get_running_loop()
        until, tries = question.proof_at, 0
        while question.is_open and loop.time() < until:
            tries += 1
            log.info("place of %s is sent again under the same tag", question.mark)
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
                log.warning("place of %s, sent again, was refused: %s", question.mark, error)
                return
            else:
                self._affirm(question, order)
                return
            finally:
                question.proof_at = loop.time() + self.horizon
            await asyncio.sleep(backoff(tries, base=RESEND_BASE, cap=RESEND_CAP))

    # --- after a crash ------------------------------------------------------------------------

    async def reconcile(self) -> Reconciliation:
        """Adopt what the journal knows of, and find out about every intent that it has left open.

        Returns when that is done: as soon as each is found, or at the end of the horizon.
        """
        assert self._journal is not None
        now = self._clock()
        today = today_ns(now)
        intents = self._journal.intents(int(now * 1e9) - ADOPTED_DAYS * _DAY_NS)
        open_intents = [intent for intent in intents if intent.is_open]
        if not any(intent.is_open or intent.order_number for intent in intents):
            return Reconciliation()
        rows = await self._read_until_it_works()
        asked = [(intent, self._ask_again(intent)) for intent in open_intents]
        self.judge(rows, -math.inf)
        orders = self._adopt(rows, intents)
        findings = []
        for intent, question in asked:
            if question.is_open and intent.at_ns < today:
                self._lapse(question)
            findings.append(await _finding(intent, question))
        adopted = {order.number: order for order in orders}
        adopted |= {one.order.number: one.order for one in findings if one.order is not None}
        log.info(
            "reconciled with the journal: %d orders adopted, %d of %d open intents took effect",
            len(adopted),
            sum(finding.outcome is Outcome.ACCEPTED for finding in findings),
            len(findings),
        )
        return Reconciliation(list(adopted.values()), findings)

    async def _read_until_it_works(self) -> list[OrderRow]:
        failures = 0
        while True:
            try:
                return await self._read_book()
            except NotLoggedIn:
                raise
            except NeoError as error:
                failures += 1
                delay = backoff(failures, base=0.5, cap=10.0)
                log.warning(
                    "no order book to reconcile the journal with: %s; next try in %.1f s",
                    error,
                    delay,
                )
                await asyncio.sleep(delay)

    def _ask_again(self, intent: Intent) -> Question:
        return self.open(
            intent.action,
            client_tag=intent.client_tag,
            number=intent.order_number if not intent.client_tag else "",
            terms=_terms_of(intent),
            intent=intent.id,
        )

    def _adopt(self, rows: list[OrderRow], intents: list[Intent]) -> list[Order]:
        tags = {each.order_number: each.client_tag for each in intents if each.client_tag}
        return [
            self._tracker.adopt(row, client_tag=tags[row.number])
            for row in rows
            if row.number in tags
        ]

    def _lapse(self, question: Question) -> None:
        reason = f"{question.mark} is of an earlier day, and not in today's order book"
        self._end(question, Outcome.LAPSED, reason=reason)
        question.refuse(
            OutcomeUnknown(
                question.action,
                client_tag=question.client_tag,
                order_number=question.number,
                reason=reason,
            )
        )
        log.warning("%s: nobody will know what became of it", reason)


async def _finding(intent: Intent, question: Question) -> Finding:
    try:
        return Finding(intent, Outcome.ACCEPTED, await question)
    except NotAccepted:
        return Finding(intent, Outcome.NOT_ACCEPTED, None)
    except OrderAlreadyFinal:
        return Finding(intent, Outcome.REJECTED, None)
    except OutcomeUnknown:
        return Finding(intent, Outcome.LAPSED, None)


def _row_of(question: Question, rows: list[OrderRow]) -> OrderRow | None:
    if question.client_tag:
        return find_by_tag(rows, question.client_tag)
    return next((row for row in rows if row.number == question.number), None)


def _logged_out(question: Question) -> NotLoggedIn:
    return NotLoggedIn(f"logged out while it was being found out what became of {question.mark}")


def changed_terms(before: Order, form: ModifyForm) -> Terms:
    """What of an order a modification is to change."""
    terms: dict[str, object] = {
        "quantity": int(form.qt),
        "validity": form.vd,
        "disclosed_quantity": int(form.dq),
        "trigger": float(form.tp),
    }
    if OrderType(form.pt).has_limit:
        terms |= {"order_type": form.pt, "price": float(form.pr)}
    changed = {name: value for name, value in terms.items() if _term(before, name) != value}
    if not OrderType(form.pt).has_limit and before.order_type != form.pt:
        changed[_OTHER_PRICE] = _term(before, "price")
    return changed


def _terms_of(intent: Intent) -> Terms:
    """As far as they can be known without the order as it was."""
    if intent.action != "modify":
        return {}
    form = msgspec.json.decode(intent.form, type=ModifyForm)
    terms: dict[str, object] = {"quantity": int(form.qt), "trigger": float(form.tp)}
    if OrderType(form.pt).has_limit:
        terms["price"] = float(form.pr)
    return terms


def _has(order: Order, terms: Terms) -> bool:
    return all(
        _term(order, "price") != value if name == _OTHER_PRICE else _term(order, name) == value
        for name, value in terms.items()
    )


def _term(order: Order, name: str) -> object:
    value = getattr(order, name)
    # Prices are whatever the caller gave, or None for none.
    return float(value or 0) if name in ("price", "trigger") else value
