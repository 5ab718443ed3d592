"""Resolve order and SIP requests whose answers were lost.

Nothing is sent again: the list of orders or SIPs is read until it shows the effect of the request,
or until the resolution timeout is over. A placement is recognised by its tag. A tag that was
generated for it identifies it. A tag chosen by the caller may be on several orders, so fund, value
and time must match as well, and an id that belongs to another placement is never matched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from neo_async.base import logs
from neo_async.errors import (
    AnswerLost,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServerError,
    SessionEnded,
)
from neo_async.kite.model import FundOrder, FundOrderStatus, Sip, SipStatus
from neo_async.model import money
from neo_async.model.enums import Side
from neo_async.transport.pending import Pending

log = logging.getLogger(logs.KITE)

FIRST_CHECK_SECONDS: Final = 0.25
"""Seconds from the loss of an answer to the first check; the pause doubles with every check."""
MAX_PAUSE_SECONDS: Final = 5.0
"""Longest pause between two checks before the resolution timeout is over."""
MAX_LATE_PAUSE_SECONDS: Final = 30.0
"""Longest pause afterwards, when checks go on only because the list cannot be read."""
GIVE_UP_AFTER_SECONDS: Final = 3600.0
"""Seconds after the resolution timeout at which a list that cannot be read is given up."""

_CLOCK_MARGIN: Final = 2.0
"""Seconds of tolerance: Kite's timestamps and its Date header have a resolution of one second."""

_NOT_FOUND: Final = 404

Check = Callable[[], Awaitable[str | None]]
"""Reads once whether a request took effect: returns the id, or None while the effect does not show.

Raises OrderAlreadyFinal when the request came too late.
"""


class Request(NamedTuple):
    """A request to change something, as named in errors and log lines."""

    action: str
    book: str
    """Name of the list that shows the effect."""
    tag: str = ""
    """Tag of a placement; empty for other requests."""
    number: str = ""
    """Id of the order or SIP to change; empty for a placement."""

    def unknown(self, cause: NeoError, resolution: InFlightRequest | None = None) -> OutcomeUnknown:
        """Return the error for an outcome that could not be established because of `cause`."""
        return OutcomeUnknown(
            self.action,
            client_tag=self.tag,
            order_number=self.number,
            reason=str(cause),
            resolution=resolution,
            book=self.book,
        )

    def not_accepted(self, resolution_timeout: float) -> NotAccepted:
        """Return the error for a request that had no effect within the resolution timeout."""
        return NotAccepted(
            self.action,
            client_tag=self.tag,
            order_number=self.number,
            resolution_timeout=resolution_timeout,
            book=self.book,
            unless="another application changed it meanwhile",
        )


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The facts by which a placement is recognised in a list."""

    tag: str
    is_tag_unique: bool
    """Whether the tag was generated for this placement alone."""
    tradingsymbol: str
    terms: tuple[str, ...]
    """The side of an order, or the frequency of a SIP."""
    value: Decimal
    """Amount in rupees, or quantity in units."""
    sent_at: float
    """Unix seconds at which it was sent, by the local clock."""
    known: frozenset[str] = frozenset()
    """Ids of orders or SIPs that existed before it was sent."""

    @property
    def key(self) -> tuple[object, ...]:
        """Key that is equal for placements which differ in nothing but their time."""
        return self.tag, self.tradingsymbol, self.terms, self.value

    def matches_order(self, order: FundOrder, skew: float) -> bool:
        """Return whether `order` may be this placement; `skew` is Kite's clock minus the local."""
        if order.tag != self.tag:
            return False
        if self.is_tag_unique:
            return True
        placed = order.order_timestamp
        value = order.amount if order.transaction_type == Side.BUY.name else order.quantity
        return (
            order.order_id not in self.known
            and (order.tradingsymbol, (order.transaction_type,)) == (self.tradingsymbol, self.terms)
            # A field that Kite leaves out does not prove that it is another order.
            and (value is None or self.value == money.exact(value))
            and (placed is None or placed.timestamp() >= self._earliest(skew))
        )

    def matches_sip(self, sip: Sip, skew: float) -> bool:
        """Return whether `sip` may be this placement; `skew` is Kite's clock minus the local."""
        if sip.tag != self.tag:
            return False
        if self.is_tag_unique:
            return True
        value = sip.instalment_amount
        return (
            sip.sip_id not in self.known
            and (sip.tradingsymbol, (sip.frequency,)) == (self.tradingsymbol, self.terms)
            and (value is None or self.value == money.exact(value))
            and (sip.created is None or sip.created.timestamp() >= self._earliest(skew))
        )

    def _earliest(self, skew: float) -> float:
        """Return the earliest time that Kite's clock can have shown when it was sent."""
        return self.sent_at + skew - _CLOCK_MARGIN


def find_order(
    placement: Placement, orders: Iterable[FundOrder], own_ids: set[str], skew: float
) -> str | None:
    """Return the id of the oldest matching order that belongs to no other placement.

    Kite lists the newest first.
    """
    found = None
    for order in orders:
        if order.order_id not in own_ids and placement.matches_order(order, skew):
            found = order.order_id
    return found


def find_sip(
    placement: Placement, sips: Iterable[Sip], own_ids: set[str], skew: float
) -> str | None:
    """Return the id of a matching SIP that belongs to no other placement."""
    for sip in sips:
        if sip.sip_id not in own_ids and placement.matches_sip(sip, skew):
            return sip.sip_id
    return None


def confirm_order_cancelled(order: FundOrder) -> str | None:
    """Return the id of a cancelled order. Raises OrderAlreadyFinal for any other final state."""
    if order.status == FundOrderStatus.CANCELLED:
        return order.order_id
    if order.is_final:
        raise OrderAlreadyFinal(f"order {order.order_id} is {order.status}: too late to cancel")
    return None


def confirm_sip_cancelled(sip: Sip) -> str | None:
    """Return the id of a cancelled SIP."""
    return sip.sip_id if sip.status == SipStatus.CANCELLED else None


def confirm_sip_changed(sip: Sip, form: dict[str, str]) -> str | None:
    """Return the id of a SIP that has the values of `form`. Raises OrderAlreadyFinal when it was
    cancelled."""
    if sip.status == SipStatus.CANCELLED:
        raise OrderAlreadyFinal(f"SIP {sip.sip_id} is {sip.status}: too late to change")
    found = {
        "frequency": sip.frequency,
        "instalments": str(sip.instalments),
        "instalment_day": str(sip.instalment_day),
        "status": sip.status.lower(),
    }
    wanted = dict(form)
    amount = wanted.pop("amount", None)
    if amount is not None:
        shown = sip.instalment_amount
        if shown is None or Decimal(amount) != money.exact(shown):
            return None
    return sip.sip_id if wanted.items() <= found.items() else None


class InFlightRequest(Pending[str]):
    """A request whose answer was lost. Awaiting it returns the id, or raises its outcome."""

    __slots__ = ("_check", "_request", "_resolution_timeout", "_task")

    def __init__(self, request: Request, check: Check, resolution_timeout: float) -> None:
        super().__init__(deadline=asyncio.get_running_loop().time() + resolution_timeout)
        self._request = request
        self._check = check
        self._resolution_timeout = resolution_timeout
        self._task = asyncio.create_task(self._resolve(), name=f"outcome of {request.action}")
        self._task.add_done_callback(self._finish)

    async def close(self) -> None:
        """Stop checking. Waiters get NotLoggedIn."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _finish(self, task: asyncio.Task[str]) -> None:
        if task.cancelled():
            self.fail(
                NotLoggedIn(f"closed while the outcome of {self._request.action} was unknown")
            )
        elif (error := task.exception()) is not None:
            self.fail(error)
        else:
            self.resolve(task.result())

    async def _resolve(self) -> str:
        """Check again and again until the effect shows, or has had its time to show."""
        loop = asyncio.get_running_loop()
        pause = FIRST_CHECK_SECONDS
        while True:
            rest = self.deadline - loop.time()
            # The last check begins exactly at the deadline: only that one can prove "no effect".
            await asyncio.sleep(min(pause, rest) if rest > 0 else pause)
            pause = min(MAX_PAUSE_SECONDS if rest > 0 else MAX_LATE_PAUSE_SECONDS, 2 * pause)
            began = loop.time()
            try:
                number = await self._check()
            except NeoError as error:
                self._check_failed(error, began)
                continue
            if number is not None:
                log.info("%s did take effect: %r", self._request.action, number)
                return number
            if began >= self.deadline:
                raise self._request.not_accepted(self._resolution_timeout)

    def _check_failed(self, error: NeoError, began: float) -> None:
        """Raise when further checks are of no use."""
        if isinstance(error, Rejected) and error.status in (None, _NOT_FOUND):
            raise error  # the order is final, or does not exist
        # A refused read is refused again until the program sets another token.
        is_refused = isinstance(error, Rejected | SessionEnded)
        if is_refused or began >= self.deadline + GIVE_UP_AFTER_SECONDS:
            log.error("%s: outcome unknown; giving up: %s", self._request.action, error)
            raise self._request.unknown(error) from error
        log.warning("%s cannot be read: %s", self._request.book, error)


class InFlightOrders:
    """Sends each request once, and keeps the in-flight ones until they are resolved."""

    def __init__(self, *, resolution_timeout: float, patience: float) -> None:
        """`resolution_timeout`: seconds after the loss of an answer in which the effect may still
        show. `patience`: further seconds to wait for the list that is read at its end."""
        self.resolution_timeout = resolution_timeout
        self._patience = patience
        self.own_ids: set[str] = set()
        """Ids of orders and SIPs that belong to a placement of this client."""
        self._in_flight: set[InFlightRequest] = set()
        self._locks: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()
        self._is_closed = False

    async def place(
        self,
        request: Request,
        placement: Placement,
        send: Callable[[], Awaitable[str]],
        check: Check,
        *,
        wait_for_outcome: bool,
    ) -> str:
        """Send a placement as `change` does, and register the id as its own."""
        # Placements that differ only in time are sent one after another. A check for one of them
        # waits too, until the id of the one being sent is registered: it could match that order.
        lock = self._locks.setdefault(placement.key, asyncio.Lock())

        async def send_one() -> str:
            async with lock:
                number = await send()
                self.own_ids.add(number)
                return number

        async def check_one() -> str | None:
            async with lock:
                number = await check()
                if number is not None:
                    self.own_ids.add(number)
                return number

        return await self.change(request, send_one, check_one, wait_for_outcome=wait_for_outcome)

    async def change(
        self,
        request: Request,
        send: Callable[[], Awaitable[str]],
        check: Check,
        *,
        wait_for_outcome: bool,
    ) -> str:
        """Send a request once. Return the id as soon as it is known to have taken effect; when the
        answer is lost, `check` is called until it shows.

        Raises what `send` raises when the request had no effect, NotAccepted when the list proves
        that, and OutcomeUnknown when it cannot be established, or without `wait_for_outcome`.
        """
        try:
            return await send()
        except (AnswerLost, ServerError, ProtocolError) as error:
            cause: NeoError = error
        except asyncio.CancelledError:
            mark = f"tag {request.tag!r}" if request.tag else f"number {request.number!r}"
            log.warning("%s cancelled, and may have been sent: look for %s", request.action, mark)
            raise
        pending = None if self._is_closed else self._open(request, check)
        if wait_for_outcome and pending is not None and await pending.wait(self._patience):
            return await pending
        raise request.unknown(cause, pending) from cause

    def _open(self, request: Request, check: Check) -> InFlightRequest:
        pending = InFlightRequest(request, check, self.resolution_timeout)
        self._in_flight.add(pending)
        pending.on_done(lambda: self._in_flight.discard(pending))
        return pending

    async def close(self) -> None:
        """Stop checking for every in-flight request, and open no other."""
        self._is_closed = True
        for pending in [*self._in_flight]:
            await pending.close()
