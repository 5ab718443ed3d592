"""`neo.orders`: placing, changing and cancelling orders, and reading the order book."""

from __future__ import annotations

import asyncio
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Literal, overload

import msgspec

from neo_async.errors import (
    InvalidOrder,
    NeoError,
    OutcomeUnknown,
    Rejected,
)
from neo_async.execution.engine import ExecutionEngine, nameless_error
from neo_async.execution.order import Order
from neo_async.execution.sender import Request
from neo_async.market_data.instruments import Instruments
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
from neo_async.risk.engine import RiskEngine
from neo_async.risk.exposure import ExposureReservation
from neo_async.session.requests import SessionRequests
from neo_async.transport.kinds import Kind
from neo_async.wire.endpoints import (
    MODIFY,
    ORDER_BOOK,
    PLACE,
    TRADES,
)
from neo_async.wire.orders import (
    ModifyForm,
    PlaceForm,
)
from neo_async.wire.reports import read_order_book, read_trades
from neo_async.wire.rules import (
    check_against,
    check_bracket,
    check_number,
    check_symbol,
    modify_form,
    place_form,
    slices,
)
from neo_async.wire.tags import TagMaker

_WITH_LIMIT = [kind for kind in OrderType if kind.has_limit]
_WITH_TRIGGER = [kind for kind in OrderType if kind.has_trigger]


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
        engine: ExecutionEngine,
        instruments: Instruments | None = None,
        *,
        guard: RiskEngine | None = None,
    ) -> None:
        """`guard` checks new orders against RiskLimits; None when no limit is set."""
        self._session = session
        self._engine = engine
        self._instruments = instruments
        self._guard = guard
        self._tags = TagMaker()

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
        self._engine.check_trading_state(Kind.PLACE)
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
        self._engine.check_trading_state(Kind.PLACE)
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
        async with self._engine.modification_lock(order):
            await self._engine.until_terms_known(order, wanted.given)
            self._engine.check_trading_state(Kind.MODIFY)
            form, terms = self._change_form(order, wanted)
            reservation = None
            if self._guard is not None:
                reservation = await self._admit_change(self._guard, order, form)
            request = Request(Kind.MODIFY, MODIFY, form, order=order)
            try:
                await self._engine.modify(request, terms)
                return order
            except OutcomeUnknown as error:
                unknown = error
            finally:
                if reservation is not None:
                    reservation.was_sent = request.was_sent
                    reservation.end(self._engine.find_in_flight("modify", number=order.number))
        return await self._engine.resolved_order(unknown, wait_for_outcome=wait_for_outcome)

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
        return await self._engine.cancel(order, wait_for_outcome=wait_for_outcome)

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
        orders = [order async for order in self._engine.register_open(rows) if is_meant(order)]
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
        return self._engine.late_orders

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every order that appears so."""
        self._engine.on_late_order(listener)

    async def book(self) -> list[OrderRow]:
        """Return today's orders of the account, newest first, also those placed elsewhere."""
        return await self._engine.read_order_book()

    async def history(self, order: Order | str) -> list[HistoryRow]:
        """Return every state that an order went through, newest first."""
        return await self._engine.history(order)

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
        self, guard: RiskEngine, forms: Sequence[PlaceForm]
    ) -> list[ExposureReservation]:
        """Check placements by the limits; while new orders are held back, nobody knows what they
        have to be held against."""
        await self._engine.pass_gate(Kind.PLACE)
        return guard.admit(forms)

    async def _admit_change(
        self, guard: RiskEngine, order: Order, form: ModifyForm
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
        sending = Request(Kind.PLACE, PLACE, form, form.ig or "")

        def make_order(number: str, sent_ns: int) -> Order:
            # The form's codes are members of the enums already: the rules have put them there.
            return Order(
                number=number,
                client_tag=sending.client_tag,
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

        try:
            return await self._engine.place(sending, make_order, wait_for_outcome=wait_for_outcome)
        finally:
            if reservation is not None:
                reservation.was_sent = sending.was_sent
                pending = self._engine.find_in_flight("place", client_tag=sending.client_tag)
                reservation.end(pending)

    async def _resolve(self, order: Order | str) -> Order:
        """The order itself, or the one of that number, from the book where it is not known."""
        if isinstance(order, Order):
            return order
        check_number(order)
        known = self._engine.cache.get(order)
        if known is not None:
            return known
        rows = await self._session.read(ORDER_BOOK, read_order_book, suffix=f"/{order}")
        for row in rows:  # of which a server that ignores the number sends all
            if row.number == order:
                return self._engine.cache.register(row)
        raise Rejected(f"there is no order {order} in today's order book")


async def _outcomes(calls: Sequence[Coroutine[Any, Any, Order]]) -> list[Order | NeoError]:
    """Run the calls at once; errors that are not ours end them all."""
    results: list[Order | NeoError] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, NeoError):
            raise result
        results.append(result)
    return results
