"""`neo.orders`: placing, changing and cancelling orders, and reading the order book."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, overload

import msgspec

from neo_async.errors import InvalidOrder, NeoError, OutcomeUnknown, Rejected
from neo_async.execution.engine import ExecutionEngine, nameless_error
from neo_async.execution.order import Order
from neo_async.execution.order_arguments import order_of, request_of, selection
from neo_async.execution.sender import Request
from neo_async.execution.validation import check_against, check_bracket, check_tradable, slices
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.orders import (
    Bracket,
    HistoryRow,
    OrderRequest,
    OrderRow,
    OrderTerms,
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
from neo_async.wire.reports import read_order_book, read_trades
from neo_async.wire.rules import (
    check_change,
    check_number,
    check_order,
    modify_form,
    place_form,
    read_order_type,
)


class Orders:
    """Places, changes and cancels orders, and reads what the broker reports of them.

    Every call checks its arguments first (InvalidOrder, nothing is sent), and ends in exactly one
    of: it worked; `Rejected` or another BrokerError; `NotSent`; `OutcomeUnknown`.

    A request that could not be sent is sent again until the deadline. Only where the broker has
    failed for a while when a call begins, it fails at once with `BreakerOpen`; cancels never do.

    A request that was sent, and whose answer was lost, is not sent again. The call waits until the
    order feed or the order book proves its outcome: it took effect, or `NotAccepted` is raised.
    OutcomeUnknown is raised where no order book could be read within a minute after the resolution
    timeout. With `wait_for_outcome=False` a call does not wait: it raises OutcomeUnknown as soon as
    the answer is lost. `await error.outcome()` waits for the proof then, and raises OutcomeUnknown
    when there is none three minutes after the resolution timeout, or at a logout.

    Where the instrument's scrip master is loaded (`neo.instruments.load`), arguments are checked
    against it, too: the trading symbol, price and trigger on tick and inside the day's band,
    quantity in lots and not above the freeze quantity. A symbol that is not in a scrip master of an
    earlier day, or in one with rows that could not be read, is left to the broker's own checks.

    Sides, products, order types, validities and segments may be text as well, in any case: `"buy"`,
    `"MIS"`, `"limit"`, `"SL-M"`, `"nse_cm"`.
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
        self._tags = engine.tags

    @overload
    async def place(
        self,
        segment: Segment | str,
        symbol: str,
        side: Side | str,
        quantity: int,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        validity: Validity | str = ...,
        disclosed_quantity: int = ...,
        amo: bool = ...,
        tag: str = ...,
        bracket: Bracket | None = ...,
        wait_for_outcome: bool = ...,
    ) -> Order: ...

    @overload
    async def place(
        self,
        instrument: InstrumentLike,
        side: Side | str,
        quantity: int,
        /,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
        validity: Validity | str = ...,
        disclosed_quantity: int = ...,
        amo: bool = ...,
        tag: str = ...,
        bracket: Bracket | None = ...,
        wait_for_outcome: bool = ...,
    ) -> Order: ...

    async def place(
        self,
        segment: Any,
        symbol: Any,
        side: Any = None,
        quantity: Any = None,
        *,
        wait_for_outcome: bool = True,
        **terms: Any,
    ) -> Order:
        """Place one order. `terms` are product, price, order_type, trigger, validity,
        disclosed_quantity, amo, tag and bracket; see OrderRequest.

        The instrument is a segment and a trading symbol (`place(Segment.NSE_CM, "ITBEES-EQ",
        Side.BUY, 10, …)`), or one argument (`place("nse_cm|19084", "buy", 10, …)`): an Instrument,
        or a name that the loaded scrip masters have. Nothing is downloaded here.

        That it returns means that the broker took the order, not that it is valid: margin and
        price bands are checked later, and a refusal then shows as status REJECTED.
        """
        order = order_of(self._instruments, segment, symbol, side, quantity, terms)
        request = self.placement(order)
        self._engine.check_trading_state(Kind.PLACE)
        if self._guard is None:
            return await self._engine.place(request, wait_for_outcome=wait_for_outcome)
        (reservation,) = await self._admit(self._guard, [request])
        return await self._place(request, reservation, wait_for_outcome=wait_for_outcome)

    async def place_sliced(
        self, order: OrderRequest | Mapping[str, Any], *, wait_for_outcome: bool = True
    ) -> list[Order | NeoError]:
        """Place an order whose quantity may be above the freeze quantity: as several orders at
        once, or as one where it is not. Return the outcome of each, as `place_many` does.

        This needs the segment's scrip master, and without it raises InvalidOrder.
        """
        slices = self._slices(request_of(order, self._instruments))
        return await self.place_many(slices, wait_for_outcome=wait_for_outcome)

    async def place_many(
        self,
        requests: Iterable[OrderRequest | Mapping[str, Any]],
        *,
        wait_for_outcome: bool = True,
    ) -> list[Order | NeoError]:
        """Place orders at once, as fast as the limiter allows, and return the outcome of each, in
        their order: the Order, or the error.

        An order may be a dict of the arguments of `place`, the instrument as `segment` and `symbol`
        or as `instrument`: `{"instrument": "nse_cm|19084", "side": "buy", "quantity": 10, …}`.

        If any of them is malformed, InvalidOrder names it and none is sent. Nor is any when all
        together would break a limit of RiskLimits.
        """
        checked = []
        for position, order in enumerate(requests):
            try:
                checked.append(self.placement(request_of(order, self._instruments)))
            except InvalidOrder as error:
                field = f"requests[{position}].{error.field}"
                raise InvalidOrder(field, error.value, error.rule) from error
        self._engine.check_trading_state(Kind.PLACE)
        if self._guard is None:
            return await _outcomes(
                [
                    self._engine.place(request, wait_for_outcome=wait_for_outcome)
                    for request in checked
                ]
            )
        reservations = await self._admit(self._guard, checked)
        try:
            return await _outcomes(
                [
                    self._place(request, reservation, wait_for_outcome=wait_for_outcome)
                    for request, reservation in zip(checked, reservations, strict=True)
                ]
            )
        finally:
            for reservation in reservations:  # those of placements that had no time to begin
                reservation.end()

    async def modify(
        self,
        order: Order | str,
        *,
        price: Price | None = None,
        quantity: int | None = None,
        trigger: Price | None = None,
        order_type: OrderType | str | None = None,
        validity: Validity | str | None = None,
        disclosed_quantity: int | None = None,
        wait_for_outcome: bool = True,
    ) -> Order:
        """Change the terms that are given and leave the others. `quantity` is the new total.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late, and
        Rejected for other refusals. The broker may not find an order at first that it finds seconds
        later: that raises Rejected, too.

        Changes of one order are sent one after the other, since a term that is not given is taken
        from the change before. When the answer of that one was lost, a change that leaves out one
        of its terms waits until its outcome is resolved, and raises NotSent when it cannot be.
        """
        order = await self._resolve(order)
        given = {
            "price": price,
            "quantity": quantity,
            "trigger": trigger,
            "order_type": None if order_type is None else read_order_type(order_type),
            "validity": validity,
            "disclosed_quantity": disclosed_quantity,
        }
        given = {name: value for name, value in given.items() if value is not None}
        self.modification(order, given)  # what is malformed is refused at once
        async with self._engine.modification_lock(order):
            await self._engine.until_terms_known(order, given.keys())
            self._engine.check_trading_state(Kind.MODIFY)
            request = self.modification(order, given)
            reservation = None
            if self._guard is not None:
                reservation = await self._admit_change(self._guard, order, request)
            try:
                await self._engine.modify(request)
                return order
            except OutcomeUnknown as error:
                unknown = error
            finally:
                if reservation is not None:
                    reservation.was_sent = request.was_sent
                    reservation.end(self._engine.find_in_flight("modify", number=order.number))
        return await self._engine.resolved_order(unknown, wait_for_outcome=wait_for_outcome)

    async def cancel(self, order: Order | str, *, wait_for_outcome: bool = True) -> Order:
        """Ask for cancellation; `order.wait()` returns when it is done, or filled before that.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late, and
        Rejected for other refusals. The broker may not find an open order at first that it finds
        seconds later: that raises Rejected, too.
        """
        order = await self._resolve(order)
        return await self._engine.cancel(order, wait_for_outcome=wait_for_outcome)

    async def cancel_all(
        self,
        *,
        segment: Segment | str | None = None,
        symbol: str | None = None,
        instrument: InstrumentLike | None = None,
        wait_for_outcome: bool = True,
    ) -> list[Order | NeoError]:
        """Cancel every order that is not final, of one segment, symbol or instrument where given;
        return the outcome of each request. Cover and bracket orders are exited.

        An order whose segment or symbol cannot be read is cancelled too. A row of the order book
        without an order number cannot be cancelled: it is returned as a ProtocolError. Where no
        order is of the symbol, and the scrip masters show that there is no such symbol, this raises
        InvalidOrder with the nearest ones.
        """
        segment, symbol = selection(
            self._instruments, segment=segment, symbol=symbol, instrument=instrument
        )

        def is_meant(one: Order | OrderRow) -> bool:
            return segment in (None, one.segment or segment) and symbol in (
                None,
                one.symbol or symbol,
            )

        rows = [row for row in await self.book() if not row.status.is_final]
        nameless = [nameless_error(row) for row in rows if not row.has_number and is_meant(row)]
        orders = [order async for order in self._engine.register_open(rows) if is_meant(order)]
        if symbol is not None and not orders and not nameless and self._instruments is not None:
            self._instruments.resolver.check_symbol_anywhere(symbol)
        results = await _outcomes(
            [self.cancel(order, wait_for_outcome=wait_for_outcome) for order in orders]
        )
        return [*results, *nameless]

    @property
    def late_orders(self) -> Sequence[Order]:
        """Orders that appeared although their placement had raised an error: NotAccepted, where the
        broker took longer than the resolution timeout; OutcomeUnknown, where nothing proved it in
        time; or a refusal, such as RateLimited. Second orders under the client tag of another one
        are among them. Each was logged as an error, too."""
        return self._engine.late_orders

    def on_late_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every such order as it appears; see `late_orders`."""
        self._engine.on_late_order(listener)

    async def book(self) -> list[OrderRow]:
        """Return today's orders of the account, newest first, also those placed elsewhere."""
        return await self._engine.read_order_book()

    async def history(self, order: Order | str) -> list[HistoryRow]:
        """Return every state that an order went through, newest first."""
        return await self._engine.history(order)

    async def trades(self) -> list[Trade]:
        """Return today's fills of the account."""
        return await self._session.read(TRADES, read_trades)

    # --- checked requests ---------------------------------------------------------------------

    def placement(
        self, order: OrderRequest, *, kind: Kind = Kind.PLACE, is_sliced: bool = False
    ) -> Request:
        """Check an order by all that is known of it, and return the placement to send. The freeze
        quantity does not bind an order that will be sliced. Raises InvalidOrder."""
        client_tag = self._tags.make(order.tag)
        terms = check_order(order)
        form = place_form(terms, client_tag, order.bracket)
        instrument = self._listed_instrument(terms)
        if instrument is not None:
            self._check_against(instrument, terms, order.bracket, is_sliced=is_sliced)
        return Request(kind, PLACE, form, client_tag, terms=terms)

    def _slices(self, order: OrderRequest) -> list[OrderRequest]:
        """Return the order as several that the exchange takes. Raises InvalidOrder."""
        terms = check_order(order)
        instrument = self._listed_instrument(terms)
        if instrument is None:
            raise InvalidOrder(
                "symbol",
                terms.symbol,
                "its freeze quantity is not known: await "
                f"instruments.load({str(terms.segment)!r}) first",
            )
        self._check_against(instrument, terms, order.bracket, is_sliced=True)
        return [
            msgspec.structs.replace(
                order,
                quantity=quantity,
                disclosed_quantity=min(order.disclosed_quantity, quantity),
            )
            for quantity in slices(order.quantity, instrument)
        ]

    def _check_against(
        self,
        instrument: Instrument,
        terms: OrderTerms,
        bracket: Bracket | None,
        *,
        is_sliced: bool = False,
    ) -> None:
        """Check a placement against the scrip master. Raises InvalidOrder."""
        check_against(
            instrument,
            quantity=terms.quantity,
            price=terms.price,
            trigger=terms.trigger,
            is_banded=self._has_bands(terms.segment),
            is_sliced=is_sliced,
        )
        if bracket is not None:
            check_bracket(instrument, bracket)

    def modification(
        self, order: Order, given: Mapping[str, object], *, kind: Kind = Kind.MODIFY
    ) -> Request:
        """Check the order as it would be with the given terms, and return the modification to send.
        Raises InvalidOrder."""
        terms = msgspec.structs.replace(order.terms, **given)
        # The limit and the trigger of before are dropped where the new type has none.
        if "price" not in given and not terms.order_type.has_limit:
            terms = msgspec.structs.replace(terms, price=None)
        needs_trigger = terms.order_type.has_trigger or terms.product is Product.CO
        if "trigger" not in given and not needs_trigger:
            terms = msgspec.structs.replace(terms, trigger=None)
        # A quantity that the caller did not give is not the caller's mistake: when all of it is
        # filled, the broker answers that it is too late.
        filled_quantity = order.filled_quantity if "quantity" in given else 0
        terms = check_change(terms, filled_quantity=filled_quantity)
        instrument = self._instrument(order.segment, order.symbol)
        if instrument is not None:
            check_against(
                instrument,
                # What stays as it is has been good enough for the exchange.
                quantity=terms.quantity if "quantity" in given else None,
                price=terms.price if "price" in given else None,
                trigger=terms.trigger if "trigger" in given else None,
                is_banded=self._has_bands(order.segment),
            )
        form = modify_form(order.number, terms)
        return Request(kind, MODIFY, form, order=order, terms=terms)

    def _instrument(self, segment: str, symbol: str) -> Instrument | None:
        return None if self._instruments is None else self._instruments.find(segment, symbol)

    def _listed_instrument(self, terms: OrderTerms) -> Instrument | None:
        """Return the instrument of a placement; None when no scrip master has it. Raises
        InvalidOrder when the exchange certainly does not list it."""
        instrument = self._instrument(terms.segment, terms.symbol)
        if instrument is None and self._instruments is not None:
            self._instruments.resolver.check_symbol(terms.segment, terms.symbol)
        return None if instrument is None else check_tradable(instrument)

    def _has_bands(self, segment: str) -> bool:
        return self._instruments is not None and self._instruments.is_of_today(segment)

    async def _admit(
        self, guard: RiskEngine, requests: Sequence[Request]
    ) -> list[ExposureReservation]:
        """Check placements by the limits. While new orders are held back, it is not known what they
        have to be added to."""
        await self._engine.pass_gate(Kind.PLACE)
        return guard.admit([request.terms for request in requests if request.terms is not None])

    async def _admit_change(
        self, guard: RiskEngine, order: Order, request: Request
    ) -> ExposureReservation:
        await self._engine.pass_gate(Kind.MODIFY)
        assert request.terms is not None
        return guard.admit_change(order, request.terms)

    async def _place(
        self,
        request: Request,
        reservation: ExposureReservation,
        *,
        wait_for_outcome: bool,
    ) -> Order:
        """Place an order for whose exposure there is a reservation, and end that."""
        try:
            return await self._engine.place(request, wait_for_outcome=wait_for_outcome)
        finally:
            reservation.was_sent = request.was_sent
            reservation.end(self._engine.find_in_flight("place", client_tag=request.client_tag))

    async def _resolve(self, order: Order | str) -> Order:
        """Return the order itself, or the order of that number: from the order book where it is not
        registered."""
        if isinstance(order, Order):
            return order
        check_number(order)
        known = self._engine.cache.get(order)
        if known is not None:
            return known
        rows = await self._session.read(ORDER_BOOK, read_order_book, suffix=f"/{order}")
        for row in rows:  # a server that ignores the number sends the whole book
            if row.number == order:
                return self._engine.cache.register(row)
        raise Rejected(f"there is no order {order} in today's order book")


async def _outcomes(calls: Sequence[Coroutine[Any, Any, Order]]) -> list[Order | NeoError]:
    """Return the outcomes of calls that run at once. An error that is no NeoError is raised."""
    results: list[Order | NeoError] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, NeoError):
            raise result
        results.append(result)
    return results
