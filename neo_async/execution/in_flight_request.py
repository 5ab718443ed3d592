"""Order requests in flight, and the index of all of them."""

from __future__ import annotations

import asyncio

from neo_async.base.india import day_of
from neo_async.errors import NeoError, NotAccepted, OutcomeUnknown
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.order import Order
from neo_async.transport.pending import Pending

EXPIRY_SECONDS = 180.0
"""Time after the end of its resolution timeout at which a request ends in OutcomeUnknown, whatever
the broker answers until then."""


class InFlightRequest(Pending[Order]):
    """An order request whose outcome is not known yet. Awaiting it returns the Order, or raises
    the error that its outcome is."""

    __slots__ = (
        "day",
        "expected",
        "expires_at",
        "intent",
        "is_being_resubmitted",
        "is_proven",
        "problem",
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
        deadline: float,
        sent_at: float,
        sent_ns: int,
    ) -> None:
        self.expected = expected
        self.intent = intent
        """Id of the request in the journal; None without one."""
        self.is_proven = is_proven
        """Whether the broker claims to have the order of a placement: it is never reported as not
        accepted then."""
        self.is_being_resubmitted = False
        """Whether it is being sent again: no order book proves then that it did not arrive."""
        super().__init__(deadline=deadline)
        self.restart_timeout(deadline)
        self.sent_at = sent_at
        """Time of the loop before which the request was not sent."""
        self.sent_ns = sent_ns
        """Unix nanoseconds, our clock, before which the request was not sent."""
        self.day = day_of(sent_ns / 1e9)
        """Day in India on which the request was sent."""
        self.problem = "no order book could be read"
        """Why its outcome is not proven yet."""
        self.timer: asyncio.TimerHandle | None = None

    def restart_timeout(self, deadline: float) -> None:
        """Set the end of the resolution timeout, a time of the loop: the order cannot appear
        later."""
        self.deadline = deadline
        self.expires_at = deadline + EXPIRY_SECONDS
        """Time of the loop at which it ends with its outcome unknown."""

    def end(self, result: Order | NeoError) -> None:
        """Give the order that it became or changed, or the error that its outcome is, to all
        callers."""
        if self.timer is not None:
            self.timer.cancel()
        if isinstance(result, NeoError):
            self.fail(result)
        else:
            self.resolve(result)

    def not_accepted(self, resolution_timeout: float) -> NotAccepted:
        """Return the error of a request that was proven to have had no effect."""
        return NotAccepted(
            self.expected.action,
            client_tag=self.expected.client_tag,
            order_number=self.expected.number,
            resolution_timeout=resolution_timeout,
        )

    def unknown(self, reason: str) -> OutcomeUnknown:
        """Return the error of an outcome that stays unknown."""
        return OutcomeUnknown(
            self.expected.action,
            client_tag=self.expected.client_tag,
            order_number=self.expected.number,
            reason=reason,
        )


class RequestIndex:
    """The requests in flight, indexed by what reports are about."""

    def __init__(self) -> None:
        self.all: dict[InFlightRequest, None] = {}
        """Requests in flight, oldest first."""
        self.placements: dict[str, dict[InFlightRequest, None]] = {}
        """Placements in flight, by client tag."""
        self.changes: dict[str, dict[InFlightRequest, None]] = {}
        """Modifications and cancellations in flight, by order number."""

    def add(self, request: InFlightRequest) -> None:
        self.all[request] = None
        index, key = self._place_of(request)
        index.setdefault(key, {})[request] = None

    def remove(self, request: InFlightRequest) -> None:
        del self.all[request]
        index, key = self._place_of(request)
        del index[key][request]
        if not index[key]:
            del index[key]

    def clear(self) -> None:
        for index in (self.all, self.placements, self.changes):
            index.clear()

    def find(self, action: str, client_tag: str, number: str) -> InFlightRequest | None:
        """Return the newest request with that action and client tag or order number."""
        requests = (self.placements if client_tag else self.changes).get(client_tag or number)
        for request in reversed(requests or {}):
            if request.expected.action == action:
                return request
        return None

    def _place_of(
        self, request: InFlightRequest
    ) -> tuple[dict[str, dict[InFlightRequest, None]], str]:
        expected = request.expected
        if expected.client_tag:
            return self.placements, expected.client_tag
        return self.changes, expected.number
