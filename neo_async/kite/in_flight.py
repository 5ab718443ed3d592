"""ResolvedIntent out what became of changes whose answers were lost.

Nothing is sent again: the lists are looked through until they tell. A placement is recognised by
its tag. One that we made is found nowhere else; a caller's own may be on other orders, too, so
fund, value and time have to agree then, and no other placement may have a claim to what is found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from decimal import Decimal
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from neo_async import logs
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

log = logging.getLogger(logs.KITE)

FIRST_LOOK: Final = 0.25
"""Seconds after the loss at which is looked first; every further look waits twice as long, up to
`LONGEST_WAIT`."""
LONGEST_WAIT: Final = 5.0
LONGEST_WAIT_BEYOND: Final = 30.0
"""When the resolution timeout is over: only a list that cannot be read is waited for then."""
LONGEST_SEARCH: Final = 3600.0
"""Seconds beyond the resolution timeout after which a list that cannot be read is waited for no
longer."""

_CLOCK_MARGIN: Final = 2.0
"""Kite's times are whole seconds, and so is the Date by which its clock is compared with ours."""

_NOT_FOUND: Final = 404

Look = Callable[[], Awaitable[str | None]]
"""Gives the id once the change shows, None while it does not; raises OrderAlreadyFinal when it came
too late."""


class Lost(NamedTuple):
    """A change whose answer was lost."""

    action: str
    book: str
    """Where to look, in words."""
    tag: str = ""
    """Of a placement."""
    number: str = ""
    """Of the order or SIP that was to change."""

    def unknown(self, cause: NeoError, resolution: InFlightRequest | None = None) -> OutcomeUnknown:
        return OutcomeUnknown(
            self.action,
            client_tag=self.tag,
            order_number=self.number,
            reason=str(cause),
            resolution=resolution,
            book=self.book,
        )


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a placement that was sent, to recognise it by."""

    tag: str
    is_ours: bool
    """The tag was made for this placement alone."""
    tradingsymbol: str
    terms: tuple[str, ...]
    """Side of an order, frequency of a SIP."""
    value: Decimal
    """Amount or quantity."""
    sent_at: float
    """Unix seconds by our clock."""
    known: frozenset[str] = frozenset()
    """Ids that were known before."""

    @property
    def mark(self) -> tuple[object, ...]:
        """The same for those that cannot be told apart by anything but their time."""
        return self.tag, self.tradingsymbol, self.terms, self.value

    def is_order(self, order: FundOrder, skew: float) -> bool:
        if order.tag != self.tag:
            return False
        if self.is_ours:
            return True
        placed = order.order_timestamp
        value = order.amount if order.transaction_type == Side.BUY.name else order.quantity
        return (
            order.order_id not in self.known
            and (order.tradingsymbol, (order.transaction_type,)) == (self.tradingsymbol, self.terms)
            # What Kite does not say does not prove that it is another one.
            and (value is None or self.value == money.exact(value))
            and (placed is None or placed.timestamp() >= self._earliest(skew))
        )

    def is_sip(self, sip: Sip, skew: float) -> bool:
        if sip.tag != self.tag:
            return False
        if self.is_ours:
            return True
        value = sip.instalment_amount
        return (
            sip.sip_id not in self.known
            and (sip.tradingsymbol, (sip.frequency,)) == (self.tradingsymbol, self.terms)
            and (value is None or self.value == money.exact(value))
            and (sip.created is None or sip.created.timestamp() >= self._earliest(skew))
        )

    def _earliest(self, skew: float) -> float:
        """When Kite's clock showed the sending, at the earliest."""
        return self.sent_at + skew - _CLOCK_MARGIN


def find_order(
    placement: Placement, orders: Iterable[FundOrder], claimed: set[str], skew: float
) -> str | None:
    """The oldest one that may be it, as Kite lists the newest first."""
    found = None
    for order in orders:
        if order.order_id not in claimed and placement.is_order(order, skew):
            found = order.order_id
    return found


def find_sip(
    placement: Placement, sips: Iterable[Sip], claimed: set[str], skew: float
) -> str | None:
    for sip in sips:
        if sip.sip_id not in claimed and placement.is_sip(sip, skew):
            return sip.sip_id
    return None


def judge_cancelled_order(order: FundOrder) -> str | None:
    """The id when it is cancelled. Raises OrderAlreadyFinal when something else became of it."""
    if order.status == FundOrderStatus.CANCELLED:
        return order.order_id
    if order.is_final:
        raise OrderAlreadyFinal(f"order {order.order_id} is {order.status}: too late to cancel")
    return None


def judge_cancelled_sip(sip: Sip) -> str | None:
    return sip.sip_id if sip.status == SipStatus.CANCELLED else None


def judge_changed_sip(sip: Sip, form: dict[str, str]) -> str | None:
    """The id when the SIP is as the form wanted it. Raises OrderAlreadyFinal when it is over."""
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


class InFlightRequest:
    """What became of a change. Awaiting it gives the id, or raises what it turned out to be."""

    def __init__(self, lost: Lost, look: Look, resolution_timeout: float) -> None:
        self._lost = lost
        self._look = look
        self._resolution_timeout = resolution_timeout
        self._task = asyncio.create_task(self._find_out(), name=f"outcome of {lost.action}")
        # Whoever wants it has it; nobody wanting it is no reason to complain.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def when_over(self, act: Callable[[], None]) -> None:
        self._task.add_done_callback(lambda _: act())

    async def done_within(self, seconds: float) -> bool:
        await asyncio.wait([self._task], timeout=seconds)
        return self._task.done()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self) -> str:
        try:
            # One who gives up must not take the answer from the others.
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if self._task.cancelled() and waiter is not None and not waiter.cancelling():
                raise NotLoggedIn(
                    f"closed while it was being found out what became of {self._lost.action}"
                ) from None
            raise

    def __await__(self) -> Generator[Any, None, str]:
        return self.wait().__await__()

    async def _find_out(self) -> str:
        loop = asyncio.get_running_loop()
        proof_at = loop.time() + self._resolution_timeout
        pause = FIRST_LOOK
        while True:
            rest = proof_at - loop.time()
            await asyncio.sleep(min(pause, rest) if rest > 0 else pause)
            pause = min(LONGEST_WAIT if rest > 0 else LONGEST_WAIT_BEYOND, 2 * pause)
            began = loop.time()
            try:
                found = await self._look()
            except NeoError as error:
                if isinstance(error, Rejected) and error.status in (None, _NOT_FOUND):
                    raise  # it is final, or there is no such thing
                # A refusal would be the same again, until the program has another token.
                is_refused = isinstance(error, Rejected | SessionEnded)
                if is_refused or began >= proof_at + LONGEST_SEARCH:
                    log.error("%s: no longer looked for: %s", self._lost.action, error)
                    raise self._lost.unknown(error) from error
                log.warning("%s cannot be read: %s", self._lost.book, error)
                continue
            if found is not None:
                log.info("%s did take effect: %r", self._lost.action, found)
                return found
            if began >= proof_at:
                raise NotAccepted(
                    self._lost.action,
                    client_tag=self._lost.tag,
                    order_number=self._lost.number,
                    resolution_timeout=self._resolution_timeout,
                    book=self._lost.book,
                    unless="another application changed it meanwhile",
                )


class InFlightOrders:
    """Sends changes, and has every question that is open about them."""

    def __init__(self, *, resolution_timeout: float, patience: float) -> None:
        """`resolution_timeout`: seconds after the loss of an answer in which a change may still
        show. `patience`: seconds to wait for the list that is read then."""
        self.resolution_timeout = resolution_timeout
        self._patience = patience
        self.claimed: set[str] = set()
        """Ids that belong to placements of ours."""
        self._requests: set[InFlightRequest] = set()
        self._turns: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()
        self._is_closed = False

    async def place(
        self,
        lost: Lost,
        placement: Placement,
        send: Callable[[], Awaitable[str]],
        look: Look,
        *,
        wait_for_outcome: bool,
    ) -> str:
        """As `change`. The id, answered or found, belongs to this placement alone from then on."""
        # Those that only their time tells apart take turns; and whoever looks for one of them waits
        # until the others have what is theirs.
        lock = self._turns.setdefault(placement.mark, asyncio.Lock())

        async def send_in_turn() -> str:
            async with lock:
                number = await send()
                self.claimed.add(number)
                return number

        async def look_in_turn() -> str | None:
            async with lock:
                number = await look()
                if number is not None:
                    self.claimed.add(number)
                return number

        return await self.change(
            lost, send_in_turn, look_in_turn, wait_for_outcome=wait_for_outcome
        )

    async def change(
        self, lost: Lost, send: Callable[[], Awaitable[str]], look: Look, *, wait_for_outcome: bool
    ) -> str:
        """Send a change, once. The id, as soon as it is known to have worked; `lost` and `look`
        are for the case that its answer is lost.

        Raises what `send` does when that says that it has had no effect, NotAccepted when it proved
        so, and OutcomeUnknown when that cannot be found out, or is not wanted.
        """
        try:
            return await send()
        except (AnswerLost, ServerError, ProtocolError) as error:
            cause: NeoError = error
        except asyncio.CancelledError:
            mark = f"tag {lost.tag!r}" if lost.tag else f"number {lost.number!r}"
            log.warning("%s was given up and may have been sent: look for %s", lost.action, mark)
            raise
        pending = None if self._is_closed else self._open(lost, look)
        if wait_for_outcome and pending is not None:
            patience = self.resolution_timeout + self._patience
            if await pending.done_within(patience):
                return await pending
        raise lost.unknown(cause, pending) from cause

    def _open(self, lost: Lost, look: Look) -> InFlightRequest:
        pending = InFlightRequest(lost, look, self.resolution_timeout)
        self._requests.add(pending)
        pending.when_over(lambda: self._requests.discard(pending))
        return pending

    async def close(self) -> None:
        self._is_closed = True
        for pending in [*self._requests]:
            await pending.close()
