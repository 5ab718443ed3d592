"""Placing, changing and cancelling orders, and the books that tell what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Literal, overload
from weakref import WeakValueDictionary

import msgspec

from neo_async import logs
from neo_async.errors import (
    InvalidOrder,
    NeoError,
    NotSent,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
)
from neo_async.execution.engine import PATIENCE, ExecutionEngine, Request
from neo_async.execution.in_flight import InFlightOrders, InFlightRequest
from neo_async.execution.journal import Intent, Journal
from neo_async.execution.order_cache import Order, OrderCache, OrderSource, day_of, in_slices
from neo_async.execution.reconciliation import Reconciliation, reconcile, uncancelled
from neo_async.logs import Subject, log_order
from neo_async.market_data.instruments import Instruments
from neo_async.model.answer import Answer
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.instruments import Instrument
from neo_async.model.orders import (
    Bracket,
    HistoryRow,
    OrderRequest,
    OrderRow,
    Price,
    Trade,
)
from neo_async.risk.engine import ExposureReservation, RiskGuard
from neo_async.session.requests import SessionRequests
from neo_async.transport.kinds import Kind
from neo_async.wire.endpoints import (
    CANCEL,
    EXIT_BRACKET,
    EXIT_COVER,
    HISTORY,
    MODIFY,
    ORDER_BOOK,
    PLACE,
    TRADES,
    Endpoint,
)
from neo_async.wire.orders import (
    HistoryForm,
    ModifyForm,
    PlaceForm,
    read_placed,
)
from neo_async.wire.parts import in_parts
from neo_async.wire.reports import read_history, read_order_book, read_trades
from neo_async.wire.rules import (
    cancel_form,
    check_against,
    check_bracket,
    check_number,
    check_symbol,
    modify_form,
    place_form,
    slices,
)
from neo_async.wire.tags import TagMaker

log = logging.getLogger(logs.ORDERS)

_WITH_LIMIT = [kind for kind in OrderType if kind.has_limit]
_WITH_TRIGGER = [kind for kind in OrderType if kind.has_trigger]

ABSENT_FOR = 60.0
"""Seconds for which every order book has to lack an order before its history is asked whether the
broker still knows it; twice the time in which a placement may appear."""

_ROWS_OF_A_PART = 500
"""Rows of a long order book that are decoded before other tasks get their turn."""


class _NewTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller of `modify` gave; None leaves a term as it is."""

    price: Price | None
    quantity: int | None
    trigger: Price | None
    order_type: OrderType | None
    validity: Validity | None
    disclosed_quantity: int | None

    @property
    def given(self) -> set[str]:
        return {name for name in self.__struct_fields__ if getattr(self, name) is not None}


class Orders:
    """Every call checks its arguments first (InvalidOrder, nothing is sent), and ends in exactly
    one of: it worked; `Rejected` or another BrokerError; `NotSent`; `OutcomeUnknown`.

    What could not be sent is sent again until the deadline. Only where the broker has failed for a
    while when a call begins, it fails at once with `BreakerOpen`; cancels never do.

    What was sent, and whose answer was lost, is not sent again: it is looked for in the order feed
    and the order book, and the call waits for what they tell. Then it worked after all, or raises
    `NotAccepted`; OutcomeUnknown remains where no book could be read, however often it was asked
    for, within a minute after the end of the resolution timeout. With `wait_for_outcome=False` a
    call raises OutcomeUnknown at once, whose `outcome()` waits for the same, and raises
    OutcomeUnknown itself when nothing is known three minutes after the resolution timeout, or at a
    logout.

    Where the instrument's scrip master is loaded (`neo.instruments.load`), arguments are checked
    against that, too: price and trigger on tick and inside the day's band, quantity in lots and not
    above the freeze quantity. What is not loaded, or not in it, is left to the broker to judge.
    """

    def __init__(
        self,
        session: SessionRequests,
        cache: OrderCache,
        instruments: Instruments | None = None,
        *,
        guard: RiskGuard | None = None,
        journal: Journal | None = None,
        resolution_timeout: float = 30.0,
        resubmit_unacknowledged: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """See NeoClient for the settings."""
        self._session = session
        self._cache = cache
        self._instruments = instruments
        self._tags = TagMaker()
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Locks of the orders that are being changed, by number."""
        self._guard = guard
        """None when no limit is set."""
        self._resubmits_unacknowledged = resubmit_unacknowledged
        self._journal = journal
        self._clock = clock
        self._in_flight = InFlightOrders(
            cache,
            self.book,
            self.history,
            journal=journal,
            resolution_timeout=resolution_timeout,
            clock=clock,
        )
        self._engine = ExecutionEngine(session, self._in_flight, journal)
        self._renewals = 0
        self._renewed_at = -math.inf
        """Time of the loop at which the first order book after the last renewal was asked for."""
        self._absence: asyncio.Task[None] | None = None
        cache.clock = clock
        cache.refresh_with(self.book)

    def follow(self, feed: OrderSource) -> None:
        """Let the feed tell of requests whose answers were lost. The tracker must follow it
        already."""
        feed.listen(self._in_flight.hear)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """New orders wait until this is over."""
        self._in_flight.reopen()
        return self._engine.held()

    @property
    def is_quiet(self) -> bool:
        """Whether no placement or change of this client can arrive at the broker any more."""
        return self._engine.is_quiet

    @property
    def in_flight_requests(self) -> Collection[InFlightRequest]:
        """Requests of which it is being found out whether they took effect."""
        return self._in_flight.in_flight_requests

    @property
    def unknowns_opened(self) -> int:
        """Such requests so far."""
        return self._in_flight.opened

    @property
    def unknowns_resolved(self) -> Mapping[str, int]:
        """Those of which it is known by now, by outcome."""
        return dict(self._in_flight.resolved)

    @property
    def is_logged_in(self) -> bool:
        """Whether there is a login to send orders with."""
        return self._session.is_open

    @property
    def is_throttled(self) -> bool:
        """Whether a request waits for the speed limit."""
        return self._session.is_throttled

    async def uncancelled(self) -> list[Intent]:
        """The placements of the journal whose orders may be open; see `reconciliation`."""
        assert self._journal is not None
        return await uncancelled(self._journal, self._clock())

    async def reconcile(self) -> Reconciliation:
        """Bring journal and book together after a login; see Reconciliation."""
        assert self._journal is not None
        return await reconcile(
            self._journal, self._in_flight, self._cache, self.book, clock=self._clock
        )

    async def close(self) -> None:
        """Stop finding out what became of requests whose answers were lost."""
        if self._absence is not None:
            self._absence.cancel()
            await asyncio.gather(self._absence, return_exceptions=True)
        await self._in_flight.close()

    @overload
    async def place(
        self,
        segment: Segment,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        price: Price | None = ...,
        order_type: OrderType = ...,
        trigger: Price | None = ...,
        validity: Validity = ...,
        disclosed_quantity: int = ...,
        amo: bool = ...,
        tag: str = ...,
        bracket: Bracket | None = ...,
        slice: Literal[False] = ...,
        wait_for_outcome: bool = ...,
    ) -> Order: ...

    @overload
    async def place(
        self,
        segment: Segment,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        price: Price | None = ...,
        order_type: OrderType = ...,
        trigger: Price | None = ...,
        validity: Validity = ...,
        disclosed_quantity: int = ...,
        amo: bool = ...,
        tag: str = ...,
        bracket: Bracket | None = ...,
        slice: Literal[True],
        wait_for_outcome: bool = ...,
    ) -> list[Order | NeoError]: ...

    async def place(
        self,
        segment: Segment,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        price: Price | None = None,
        order_type: OrderType = OrderType.LIMIT,
        trigger: Price | None = None,
        validity: Validity = Validity.DAY,
        disclosed_quantity: int = 0,
        amo: bool = False,
        tag: str = "",
        bracket: Bracket | None = None,
        slice: bool = False,  # noqa: A002 - what traders call it
        wait_for_outcome: bool = True,
    ) -> Order | list[Order | NeoError]:
        """Place one order; see OrderRequest for the arguments.

        That it returns means that the broker took the order, not that it is valid: margin and
        price bands are checked later, and a refusal then shows as status REJECTED.

        With `slice=True` a quantity above the freeze quantity goes out as several orders at once,
        and what became of each is returned, as by `place_many`; a smaller one as a list of one.
        This needs the segment's scrip master, and without it raises InvalidOrder.
        """
        request = OrderRequest(
            segment,
            symbol,
            side,
            quantity,
            product,
            price,
            order_type,
            trigger,
            validity,
            disclosed_quantity,
            amo,
            tag,
            bracket,
        )
        if slice:
            return await self.place_many(self._sliced(request), wait_for_outcome=wait_for_outcome)
        form = self._form(request)
        reservation = None
        self._session.trading_state.check(Kind.PLACE)
        if self._guard is not None:
            (reservation,) = await self._admit(self._guard, [form])
        return await self._place(request, form, reservation, wait_for_outcome=wait_for_outcome)

    async def place_many(
        self, requests: Iterable[OrderRequest], *, wait_for_outcome: bool = True
    ) -> list[Order | NeoError]:
        """Place orders at once, as fast as the limiter allows, and return what became of each, in
        their order.

        If any of them is malformed, InvalidOrder names it and none is sent. Nor is any when all
        together would break a limit of RiskLimits.
        """
        forms = []
        for position, request in enumerate(requests):
            try:
                forms.append((request, self._form(request)))
            except InvalidOrder as error:
                field = f"requests[{position}].{error.field}"
                raise InvalidOrder(field, error.value, error.rule) from error
        self._session.trading_state.check(Kind.PLACE)
        if self._guard is None:
            return await _outcomes(
                [
                    self._place(request, form, None, wait_for_outcome=wait_for_outcome)
                    for request, form in forms
                ]
            )
        reservations = await self._admit(self._guard, [form for _, form in forms])
        try:
            return await _outcomes(
                [
                    self._place(request, form, reservation, wait_for_outcome=wait_for_outcome)
                    for (request, form), reservation in zip(forms, reservations, strict=True)
                ]
            )
        finally:
            for reservation in reservations:  # of those that had no time to begin
                reservation.end()

    async def modify(
        self,
        order: Order | str,
        *,
        price: Price | None = None,
        quantity: int | None = None,
        trigger: Price | None = None,
        order_type: OrderType | None = None,
        validity: Validity | None = None,
        disclosed_quantity: int | None = None,
        wait_for_outcome: bool = True,
    ) -> Order:
        """Change what is given and leave the rest as it is. `quantity` is the new total.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late, and
        Rejected for other refusals: of an order that the broker does not find, too, which may be
        one that it knows only seconds later.

        Changes of one order go out one after the other, since what is not given has to be filled
        in with what the change before has led to. When the answer of that one was lost, a change
        that leaves out what it was to change waits until its outcome is known, and raises NotSent
        when that cannot be found out.
        """
        order = await self._resolve(order)
        wanted = _NewTerms(
            price=price,
            quantity=quantity,
            trigger=trigger,
            order_type=order_type,
            validity=validity,
            disclosed_quantity=disclosed_quantity,
        )
        self._change_form(order, wanted)  # what is malformed is refused at once
        lock = self._changing.get(order.number)
        if lock is None:
            lock = self._changing[order.number] = asyncio.Lock()
        async with lock:
            await self._until_known(order, wanted)
            self._session.trading_state.check(Kind.MODIFY)
            form, terms = self._change_form(order, wanted)
            reservation = None
            if self._guard is not None:
                reservation = await self._admit_change(self._guard, order, form)
            request = Request(Kind.MODIFY, MODIFY, form, order=order)
            try:
                await self._send_change(order, request, terms)
                return order
            except OutcomeUnknown as error:
                unknown = error
            finally:
                if reservation is not None:
                    reservation.was_sent = request.was_sent
                    reservation.end(self._in_flight.find("modify", number=order.number))
        return await self._engine.resolved_order(unknown, wait_for_outcome=wait_for_outcome)

    async def _send_change(
        self, order: Order, request: Request, terms: Mapping[str, object]
    ) -> None:
        change = order.begin_change(terms)
        is_known = False
        try:
            await self._engine.send(request)
        except OutcomeUnknown:
            raise
        except NeoError:
            is_known = True
            raise
        else:
            order.accept_change(change)
        finally:
            if change.accepted_at is None:
                order.drop_change(change, is_known=is_known or not request.was_sent)

    async def _until_known(self, order: Order, wanted: _NewTerms) -> None:
        """Wait for the outcome of earlier changes whose answers were lost, as far as they were to
        change what is not given now. Raises NotSent when it cannot be found out."""
        while pending := self._in_flight.find("modify", number=order.number):
            names = {name.rpartition(" ")[2] for name in pending.expected.terms}
            lacking = sorted(names - wanted.given)
            if not lacking:
                return
            if not await self._in_flight.wait(pending, patience=PATIENCE):
                raise NotSent(
                    f"whether an earlier change of order {order.number} took effect is not known: "
                    f"modify() has to be given {' and '.join(lacking)} too"
                )

    def _change_form(
        self, order: Order, wanted: _NewTerms
    ) -> tuple[ModifyForm, Mapping[str, object]]:
        """The form of a change of the order as it is now, and all its terms after it. Raises
        InvalidOrder."""
        new_type = order.order_type if wanted.order_type is None else wanted.order_type
        price, trigger = wanted.price, wanted.trigger
        if price is None and new_type in _WITH_LIMIT:
            price = order.price
        if trigger is None and (new_type in _WITH_TRIGGER or order.product is Product.CO):
            trigger = order.trigger
        new_validity = order.validity if wanted.validity is None else wanted.validity
        form = modify_form(
            number=order.number,
            side=order.side,
            product=order.product,
            segment=order.segment,
            order_type=new_type,
            quantity=order.quantity if wanted.quantity is None else wanted.quantity,
            # A quantity that the caller did not give is not the caller's mistake: when all of it is
            # filled, the broker says that it is too late.
            filled_quantity=0 if wanted.quantity is None else order.filled_quantity,
            price=price,
            trigger=trigger,
            validity=new_validity,
            disclosed_quantity=(
                order.disclosed_quantity
                if wanted.disclosed_quantity is None
                else wanted.disclosed_quantity
            ),
            amo=order.amo,
        )
        instrument = self._instrument(order.segment, order.symbol)
        if instrument is not None:
            check_against(
                instrument,
                # What stays as it is has been good enough for the exchange.
                quantity=wanted.quantity,
                price="0" if wanted.price is None else form.pr,
                trigger="0" if wanted.trigger is None else form.tp,
                is_banded=self._has_bands(order.segment),
            )
        return form, {
            "order_type": OrderType(form.pt),
            "quantity": int(form.qt),
            "price": price,
            "trigger": trigger,
            "validity": Validity(new_validity),
            "disclosed_quantity": int(form.dq),
        }

    async def cancel(self, order: Order | str, *, wait_for_outcome: bool = True) -> Order:
        """Ask for cancellation; `order.wait()` tells when it is done, or filled before that.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late, and
        Rejected for other refusals: of an order that the broker does not find, too, which may be
        one that it knows only seconds later, and is open.
        """
        order = await self._resolve(order)
        form = cancel_form(number=order.number, symbol=order.symbol, amo=order.amo)
        endpoint = _cancel_endpoint(order.product)
        try:
            await self._engine.send(Request(Kind.CANCEL, endpoint, form, order=order))
        except OutcomeUnknown as unknown:
            return await self._engine.resolved_order(unknown, wait_for_outcome=wait_for_outcome)
        return order

    async def cancel_all(
        self,
        *,
        segment: Segment | None = None,
        symbol: str | None = None,
        wait_for_outcome: bool = True,
    ) -> list[Order | NeoError]:
        """Cancel every order that is not final, of one segment or symbol where given; returns what
        became of each request. Cover and bracket orders are exited.

        An order whose segment or symbol cannot be read is cancelled too. A row of the order book
        without an order number cannot be cancelled: it is returned as a ProtocolError.
        """
        if symbol is not None:
            check_symbol(symbol)

        def is_meant(one: Order | OrderRow) -> bool:
            return segment in (None, one.segment or segment) and symbol in (
                None,
                one.symbol or symbol,
            )

        rows = [row for row in await self.book() if not row.status.is_final]
        nameless = [nameless_error(row) for row in rows if not row.has_number and is_meant(row)]
        orders = [order async for order in self._registered(rows) if is_meant(order)]
        results = await _outcomes(
            [self.cancel(order, wait_for_outcome=wait_for_outcome) for order in orders]
        )
        return [*results, *nameless]

    @property
    def late_orders(self) -> Sequence[Order]:
        """Orders that appeared although their placement had raised an error: NotAccepted, and the
        broker took longer than the resolution timeout; OutcomeUnknown, and nothing proved it in
        time; or a refusal, such as RateLimited. And second orders under the client tag of another
        one. Each was logged as an error, too."""
        return self._in_flight.late_orders

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every order that appears so."""
        self._in_flight.on_late_order(listener)

    async def read_open(self) -> list[Order]:
        """The orders of the account that are not final, by the order book, also those placed
        elsewhere; followed from now on."""
        rows = [row for row in await self.book() if not row.status.is_final]
        return [order async for order in self._registered(rows)]

    async def _registered(self, rows: Sequence[OrderRow]) -> AsyncIterator[Order]:
        """The orders of rows that are not final, as far as they are open still."""
        async for part in in_slices(rows):
            for row in part:
                if not row.has_number:
                    subject = Subject("report", row.gui_order_id, "")
                    log_order(log, logging.ERROR, subject, "%s", nameless_error(row))
                    continue
                order = self._cache.register(row)
                if not order.is_final:
                    yield order

    async def book(self) -> list[OrderRow]:
        """Today's orders of the account, newest first, also those placed elsewhere."""
        began = asyncio.get_running_loop().time()
        day = day_of(self._clock())
        rows = await self._read_book()
        guard = self._guard
        await self._cache.apply_in_slices(
            rows,
            adopts_open=guard is not None and guard.needs_orders,
            asked_at=began,
            day=day,
        )
        if guard is not None:
            guard.see_book(rows, began)
        self._in_flight.apply_order_book(rows, began)
        self._look_for_absent(began)
        return rows

    def _look_for_absent(self, began: float) -> None:
        """Ask the histories of own orders that the broker seems to know no more.

        A book that lacks an order proves nothing. But sessions end with the day, and the clocks of
        both sides may disagree about that: what was open before the broker ended the session, is in
        no book for `ABSENT_FOR` seconds since and has no history is over.
        """
        if self._session.renewals != self._renewals:
            self._renewals, self._renewed_at = self._session.renewals, began
        if self._absence is not None and not self._absence.done():
            return
        absent = [
            order
            for order in self._cache.absent_since(began - ABSENT_FOR)
            if order.heard_at < self._renewed_at
        ]
        if absent:
            self._absence = asyncio.create_task(self._end_absent(absent), name="absent orders")

    async def _end_absent(self, orders: Sequence[Order]) -> None:
        for order in orders:
            try:
                rows = await self.history(order)
            except NeoError as error:
                log.warning("the history of order %s could not be read: %s", order.number, error)
                return
            if not rows:
                self._cache.end_absent(
                    order,
                    f"the broker has ended the session it was placed in, and for {ABSENT_FOR:g} s "
                    "neither its order book nor the order's history has known it",
                )

    async def _read_book(self) -> list[OrderRow]:
        """The rows of the order book. A long one is decoded in parts, so that it does not hold up
        the event loop."""
        book = await self._session.read(ORDER_BOOK, _read_book)
        if isinstance(book, list):
            return book
        rows: list[OrderRow] = []
        for part in book:
            await asyncio.sleep(0)
            rows.extend(read_order_book(part))
        return rows

    async def history(self, order: Order | str) -> list[HistoryRow]:
        """Every state that an order went through, newest first."""
        number = order if isinstance(order, str) else order.number
        check_number(number)
        rows = await self._session.read(HISTORY, read_history, form=HistoryForm(number))
        rows = [row for row in rows if row.number in ("", number)]
        self._cache.take_history(number, rows)
        return rows

    async def trades(self) -> list[Trade]:
        """Today's fills of the account."""
        return await self._session.read(TRADES, read_trades)

    def _form(self, request: OrderRequest) -> PlaceForm:
        """Check an order by all that is known of it, and write its form. Raises InvalidOrder."""
        form = place_form(request, self._tags.make(request.tag))
        instrument = self._instrument(request.segment, request.symbol)
        if instrument is not None:
            self._check(request, form, instrument, is_sliced=False)
        return form

    def _sliced(self, request: OrderRequest) -> list[OrderRequest]:
        """The order as several that the exchange takes. Raises InvalidOrder."""
        form = place_form(request, self._tags.make(request.tag))
        instrument = self._instrument(request.segment, request.symbol)
        if instrument is None:
            raise InvalidOrder(
                "slice",
                True,
                f"the freeze quantity of {request.symbol} is not known: await "
                f"instruments.load({str(form.es)!r}) first",
            )
        self._check(request, form, instrument, is_sliced=True)
        return [
            msgspec.structs.replace(
                request,
                quantity=quantity,
                disclosed_quantity=min(request.disclosed_quantity, quantity),
            )
            for quantity in slices(request.quantity, instrument)
        ]

    def _check(
        self, request: OrderRequest, form: PlaceForm, instrument: Instrument, *, is_sliced: bool
    ) -> None:
        check_against(
            instrument,
            quantity=request.quantity,
            price=form.pr,
            trigger=form.tp,
            is_banded=self._has_bands(request.segment),
            is_sliced=is_sliced,
        )
        if request.bracket is not None:
            check_bracket(instrument, request.bracket)

    def _instrument(self, segment: str, symbol: str) -> Instrument | None:
        return None if self._instruments is None else self._instruments.find(segment, symbol)

    def _has_bands(self, segment: str) -> bool:
        return self._instruments is not None and self._instruments.is_of_today(segment)

    async def _admit(
        self, guard: RiskGuard, forms: Sequence[PlaceForm]
    ) -> list[ExposureReservation]:
        """Check placements by the limits; while new orders are held back, nobody knows what they
        have to be held against."""
        await self._engine.pass_gate(Kind.PLACE)
        return guard.admit(forms)

    async def _admit_change(
        self, guard: RiskGuard, order: Order, form: ModifyForm
    ) -> ExposureReservation:
        await self._engine.pass_gate(Kind.MODIFY)
        return guard.admit_change(order, form)

    async def _place(
        self,
        request: OrderRequest,
        form: PlaceForm,
        reservation: ExposureReservation | None,
        *,
        wait_for_outcome: bool,
    ) -> Order:
        client_tag = form.ig or ""
        sending = Request(Kind.PLACE, PLACE, form, client_tag)
        try:
            number = await self._engine.send(sending)
        except OutcomeUnknown as unknown:
            if self._resubmits_unacknowledged:
                self._resubmit(unknown, request, form)
            return await self._engine.resolved_order(unknown, wait_for_outcome=wait_for_outcome)
        else:
            return self._placed(request, form, number, sending.sent_ns)
        finally:
            if reservation is not None:
                reservation.was_sent = sending.was_sent
                reservation.end(self._in_flight.find("place", client_tag=client_tag))

    def _placed(self, request: OrderRequest, form: PlaceForm, number: str, sent_ns: int) -> Order:
        # The form's codes are members of the enums already: the rules have put them there.
        order = Order(
            self._cache,
            number=number,
            client_tag=form.ig or "",
            segment=form.es,
            symbol=form.ts,
            side=form.tt,
            quantity=request.quantity,
            product=form.pc,
            order_type=form.pt,
            price=request.price,
            trigger=request.trigger,
            validity=form.rt,
            disclosed_quantity=request.disclosed_quantity,
            amo=request.amo,
            placed_ns=sent_ns,
        )
        return self._cache.add(order)

    def _resubmit(self, unknown: OutcomeUnknown, request: OrderRequest, form: PlaceForm) -> None:
        """Under the same tag: it can become an order only once."""
        pending = unknown.resolution
        assert isinstance(pending, InFlightRequest)

        async def again() -> Order:
            sent_ns = int(self._clock() * 1e9)
            number = await self._session.order(Kind.PLACE, PLACE, form, read_placed)
            return self._placed(request, form, number, sent_ns)

        self._in_flight.resubmit(pending, again)

    async def _resolve(self, order: Order | str) -> Order:
        """The order itself, or the one of that number, from the book where it is not known."""
        if isinstance(order, Order):
            return order
        check_number(order)
        known = self._cache.get(order)
        if known is not None:
            return known
        rows = await self._session.read(ORDER_BOOK, read_order_book, suffix=f"/{order}")
        for row in rows:  # of which a server that ignores the number sends all
            if row.number == order:
                return self._cache.register(row)
        raise Rejected(f"there is no order {order} in today's order book")


def _read_book(answer: Answer) -> list[OrderRow] | Iterator[Answer]:
    """The rows of an order book, or a long one in parts. Raises what `read_order_book` raises."""
    parts = in_parts(answer, _ROWS_OF_A_PART)
    return read_order_book(answer) if parts is None else parts


def nameless_error(row: OrderRow) -> ProtocolError:
    """The error of an order that stands in the book without a number."""
    instead = f" (but {row.number!r})" if row.number else ""
    return ProtocolError(
        f"a row of the order book has no order number{instead}, and is {row.status_text!r}: "
        f"{row.side} {row.quantity} {row.symbol} cannot be cancelled from here"
    )


def _cancel_endpoint(product: str) -> Endpoint:
    if product is Product.CO:
        return EXIT_COVER
    return EXIT_BRACKET if product is Product.BO else CANCEL


async def _outcomes(calls: Sequence[Coroutine[Any, Any, Order]]) -> list[Order | NeoError]:
    """Run the calls at once; errors that are not ours end them all."""
    results: list[Order | NeoError] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, NeoError):
            raise result
        results.append(result)
    return results
