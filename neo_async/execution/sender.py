"""Sends order requests: past the login gate, into the journal, out on the lane, to an outcome.

A request has been checked before it gets here. It ends with exactly one outcome: the order's
number, an error for a request that had no effect, or OutcomeUnknown with the request in flight.

A cancel takes a shorter way than placements and changes: no gate holds it back, and the journal
notes it without being waited for. A cancel cannot be doubled, and it is what limits a loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Iterator

import msgspec

from neo_async.base.logs import Subject, log_order
from neo_async.errors import (
    AnswerLost,
    BrokerError,
    DuplicateTag,
    NotLoggedIn,
    NotSent,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    UsageError,
)
from neo_async.execution.expected_effect import (
    ExpectedEffect,
    cancellation,
    modification,
    placement,
)
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Outcome
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.model.orders import OrderTerms
from neo_async.session.requests import SessionRequests
from neo_async.transport.backoff import backoff
from neo_async.transport.connection import Connection
from neo_async.transport.kinds import Kind
from neo_async.wire.endpoints import Endpoint
from neo_async.wire.orders import CancelForm, ModifyForm, PlaceForm, read_accepted, read_placed

_ACCEPTED = Outcome.ACCEPTED.value  # read once: a microsecond's quarter on Python 3.11
_CANCEL = Kind.CANCEL
_REFUSED = {Outcome.REJECTED: "refused", Outcome.NOT_SENT: "not sent"}

_NOT_FOUND = 1006
"""Code of the broker for an order that is final or not found; it does not distinguish them."""

PATIENCE = 60.0
"""Seconds after the end of the resolution timeout for which a caller waits for an order book. A
session that has ended meanwhile costs a login, and a login that fails costs another TOTP code,
which comes every 30 s."""


class Request(msgspec.Struct):
    """An order request that was checked, with the form that is sent."""

    kind: Kind
    endpoint: Endpoint
    form: PlaceForm | ModifyForm | CancelForm
    client_tag: str = ""
    """Client tag of a placement; empty for a change or a cancel."""
    order: Order | None = None
    """The order that is changed or cancelled; None for a placement."""
    terms: OrderTerms | None = None
    """Terms of the order after a placement or a change; None for a cancel."""
    was_sent: bool = False
    """Whether the request's bytes were handed to a socket, at least once."""
    connection: Connection | None = None
    """The connection to which the bytes were handed last."""
    sent_ns: int = 0
    """Unix nanoseconds by our clock, before which the request was not sent."""

    @property
    def action(self) -> str:
        if self.order is None:
            return "place"
        return "cancel" if self.terms is None else "modify"

    @property
    def number(self) -> str:
        return "" if self.order is None else self.order.number

    @property
    def subject(self) -> Subject:
        """The request's name in the log."""
        client_tag = self.client_tag if self.order is None else self.order.client_tag
        return Subject(self.action, client_tag, self.number)

    def expected(self) -> ExpectedEffect:
        """Return the effect that it is to have, from the order as it is before it is sent."""
        if isinstance(self.form, PlaceForm):
            return placement(self.form)
        assert self.order is not None
        if self.terms is None:
            return cancellation(self.order)
        return modification(self.order, self.terms)


class _Gate:
    """Holds placements and changes back while a login is under way."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        """Set when the login has ended, and for a moment at a halt."""
        self.refuses = False
        """Whether the login has failed, so that what waited must not be sent."""


class OrderSender:
    """Sends order requests, each once."""

    def __init__(
        self,
        session: SessionRequests,
        cache: OrderCache,
        in_flight: InFlightOrders,
        journal: Journal | None,
    ) -> None:
        self._session = session
        self._cache = cache
        self._in_flight = in_flight
        self._log = in_flight.log
        self._journal = journal
        self._gate: _Gate | None = None
        """The gate of the logins under way; None while there is none."""
        self._holds = 0
        """Number of logins under way."""
        self._under_way = 0
        """Number of placements and changes that may be sent or were sent, and have no outcome."""
        self._state = session.trading_state
        self._state.on_halt(self._wake_waiting)
        self._halts = asyncio.Event()

    # --- the login gate -----------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold placements and changes back around a login. When it fails, those that waited raise
        NotLoggedIn, unless the login was to replace one that is still there."""
        is_replacing = self._session.is_open
        gate = self._gate = self._gate or _Gate()
        self._holds += 1
        try:
            yield
        except BaseException:
            gate.refuses |= not (is_replacing and self._session.is_open)
            raise
        finally:
            self._holds -= 1
            if not self._holds:
                self._gate = None
                gate.event.set()

    def _wake_waiting(self) -> None:
        """Make the requests that wait here check the trading state."""
        events = [self._halts]
        if self._gate is not None:
            events.append(self._gate.event)
        for event in events:
            event.set()  # wakes those who wait, and only those
            event.clear()

    async def pass_gate(self, kind: Kind) -> None:
        """Wait while placements and changes are held back. Raises Halted, and NotLoggedIn when the
        login has failed."""
        while (gate := self._gate) is not None:
            await gate.event.wait()
            self._state.check(kind)
            if gate.refuses:
                raise NotLoggedIn("the login failed for which new orders waited: nothing was sent")

    @property
    def is_quiet(self) -> bool:
        """Whether no placement or change of this client can arrive at the broker any more: none is
        under way, and those whose answers were lost are older than the resolution timeout, as are
        placements that were answered with 429. A cancel that arrives late opens nothing, so cancels
        do not count."""
        if self._under_way or self._in_flight.has_doubts:
            return False
        now = asyncio.get_running_loop().time()
        return not any(
            pending.is_being_resubmitted or pending.deadline > now
            for pending in self._in_flight.in_flight_requests
            if pending.expected.action != "cancel"
        )

    # --- sending ------------------------------------------------------------------------------

    async def send(self, request: Request) -> str:
        """Journal the intent, send the request, and journal the outcome. Return the order's number.

        Raises OutcomeUnknown when the answer was lost or is unusable; from then on the request is
        in flight, and its outcome is resolved.
        """
        is_cancel = request.kind is _CANCEL
        if self._gate is not None and not is_cancel:
            await self.pass_gate(request.kind)
        if not self._session.is_order_breaker_closed:
            await self._session.check_orders(request.kind)
        intent = None
        if self._journal is not None:
            if is_cancel:
                intent = self._journal.note(
                    request.action, request.form, order_number=request.number
                )
            else:
                intent = await self._journal.begin(
                    request.action,
                    request.form,
                    client_tag=request.client_tag,
                    order_number=request.number,
                )
        sent_at = asyncio.get_running_loop().time()
        request.sent_ns = int(self._in_flight.clock() * 1e9)
        # The order may be another one when the answer is lost.
        expected = None if request.order is None else request.expected()
        self._under_way += not is_cancel
        is_logged = self._log.isEnabledFor(logging.DEBUG)
        if is_logged:
            log_order(self._log, logging.DEBUG, request.subject, "sending")
            began = time.perf_counter()
        try:
            try:
                number = await self._order(request)
            except NotSent as error:
                number = await self._send_later(request, error)
            if is_logged:
                took = (time.perf_counter() - began) * 1000
                subject = request.subject._replace(order_number=number)
                log_order(self._log, logging.DEBUG, subject, "accepted after %.3f ms", took)
            self._check_number(request, number)
        except (AnswerLost, ServerError, ProtocolError, DuplicateTag) as error:
            # Every placement has a tag of its own, so the order that has it is this one: an
            # earlier try arrived although its answer was a failure.
            text = "outcome unknown (%s): resolving it"
            self._end(request, intent, Outcome.UNKNOWN, logging.WARNING, text, error)
            is_proven = isinstance(error, DuplicateTag) and bool(request.client_tag)
            pending = self._in_flight.open(
                expected or request.expected(),
                intent=intent,
                is_proven=is_proven,
                sent_at=sent_at,
                sent_ns=request.sent_ns,
            )
            raise _unknown(request, error, pending) from error
        except BrokerError as error:
            # One that was not sent was refused on this side: no start within the deadline, or no
            # login to be had.
            outcome = Outcome.REJECTED if request.was_sent else Outcome.NOT_SENT
            self._end(request, intent, outcome, logging.INFO, f"{_REFUSED[outcome]}: %s", error)
            if request.was_sent:
                # Of a 429 it is only assumed that nothing was taken.
                self._watch(request, intent, is_doubted=isinstance(error, RateLimited))
            order = request.order
            if type(error) is Rejected and error.code == _NOT_FOUND and order and order.is_final:
                raise OrderAlreadyFinal(
                    error.text, code=error.code, status=error.status, body=error.body
                ) from error
            raise
        except (NotSent, UsageError) as error:
            self._end(request, intent, Outcome.NOT_SENT, logging.INFO, "not sent: %s", error)
            # It may have been answered with 429 before.
            if request.was_sent:
                self._watch(request, intent, is_doubted=True)
            raise
        except (asyncio.CancelledError, Exception):
            reason = "the caller gave up"
            if not request.was_sent:
                self._end(request, intent, Outcome.NOT_SENT, logging.INFO, "not sent: %s", reason)
                raise
            # There may be an order nevertheless.
            text = "outcome unknown (%s): resolving it"
            self._end(request, intent, Outcome.UNKNOWN, logging.INFO, text, reason)
            self._in_flight.open(
                expected or request.expected(),
                intent=intent,
                sent_at=sent_at,
                sent_ns=request.sent_ns,
            )
            raise
        finally:
            self._under_way -= not is_cancel
        self._session.meter.ended(request.kind, _ACCEPTED)
        if intent is not None and self._journal is not None:
            self._journal.end(intent, Outcome.ACCEPTED, order_number=number)
        return number

    def _order(self, request: Request) -> Awaitable[str]:
        """Send a request once, and return its order's number."""
        read = read_placed if request.order is None else read_accepted
        return self._session.order(request.kind, request.endpoint, request.form, read, request)

    async def _send_later(self, request: Request, error: NotSent) -> str:
        """Send a request of which no byte has left, until one of the tries succeeds or the deadline
        of an order is over. Raises the error of the last one."""
        session, loop = self._session, asyncio.get_running_loop()
        give_up_at = loop.time() + session.timeouts.order
        for failures in itertools.count(1):
            delay = backoff(failures, base=0.1, cap=0.5)
            if not session.is_open or loop.time() + delay >= give_up_at:
                break
            session.meter.retries += 1
            subject = request.subject
            log_order(self._log, logging.INFO, subject, "%s; next try in %.2f s", error, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._halts.wait()
            self._state.check(request.kind)
            try:
                return await self._order(request)
            except NotSent as failure:
                error = failure
        raise error

    def _check_number(self, request: Request, number: str) -> None:
        """Check that an answer is about the order of its request. Raises ProtocolError, and closes
        the connection, where it is not: after an answer that came twice, every answer on a
        connection would count as the one before it."""
        if request.order is None:
            if not self._cache.is_another_order(number, request.client_tag):
                return
            problem = f"the answer to a new order names order {number}, which was placed before"
        else:
            if number == request.order.number:
                return
            problem = f"the answer names order {number} instead of {request.order.number}"
        if request.connection is not None:
            request.connection.close()
        raise ProtocolError(problem)

    def _end(
        self,
        request: Request,
        intent: int | None,
        outcome: Outcome,
        level: int,
        text: str,
        reason: object,
    ) -> None:
        """Journal and log an outcome other than ACCEPTED. `reason` fills the %s in `text`."""
        log_order(self._log, level, request.subject, text, reason)
        self._session.meter.ended(request.kind, outcome.value)
        if intent is not None and self._journal is not None:
            self._journal.end(intent, outcome, reason=str(reason))

    def _watch(self, request: Request, intent: int | None, *, is_doubted: bool) -> None:
        """Have an order reported that appears although its placement failed. Where the failure is
        in doubt, have order books read for it."""
        if not request.client_tag:
            return
        self._in_flight.watch_for(request.client_tag, intent)
        if is_doubted:
            self._in_flight.doubt(request.client_tag)

    # --- outcomes -----------------------------------------------------------------------------

    async def resolved_order(self, unknown: OutcomeUnknown, *, wait_for_outcome: bool) -> Order:
        """Return the order of a request whose answer was lost, once it is proven to have taken
        effect. Raises the error that it turned out to be, and `unknown` when that takes too long or
        `wait_for_outcome` is False."""
        pending = unknown.resolution
        assert isinstance(pending, InFlightRequest)
        if wait_for_outcome and await self._in_flight.wait(pending, patience=PATIENCE):
            return await pending
        raise unknown


def _unknown(request: Request, error: Exception, pending: InFlightRequest) -> OutcomeUnknown:
    return OutcomeUnknown(
        request.endpoint.name,
        client_tag=request.client_tag,
        order_number=request.number,
        reason=str(error),
        resolution=pending,
    )
