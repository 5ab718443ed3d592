"""Placing, changing and cancelling orders, and the books that tell what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Literal, overload

import msgspec

from neo_async.errors import (
    AnswerLost,
    DuplicateTag,
    InvalidOrder,
    NeoError,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServerError,
)
from neo_async.instruments import Instruments
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.instruments import Instrument
from neo_async.model.orders import Bracket, HistoryRow, OrderRequest, OrderRow, Price, Trade
from neo_async.session import SessionManager
from neo_async.tracking import Order, Tracker, find_by_tag
from neo_async.transport.limiter import Kind
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
from neo_async.wire.orders import HistoryForm, PlaceForm, read_accepted
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

_WITH_LIMIT = [kind for kind in OrderType if kind.has_limit]
_WITH_TRIGGER = [kind for kind in OrderType if kind.has_trigger]


class Orders:
    """Every call checks its arguments first (InvalidOrder, nothing is sent), and ends in exactly
    one of: it worked; `Rejected` or another BrokerError; `NotSent`; `OutcomeUnknown`.

    Where the instrument's scrip master is loaded (`neo.instruments.load`), arguments are checked
    against that, too: price and trigger on tick and inside the day's band, quantity in lots and not
    above the freeze quantity. What is not loaded, or not in it, is left to the broker to judge.
    """

    def __init__(
        self, session: SessionManager, tracker: Tracker, instruments: Instruments | None = None
    ) -> None:
        self._session = session
        self._tracker = tracker
        self._instruments = instruments
        self._tags = TagMaker()
        tracker.refresh_with(self.book)

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
            return await self.place_many(self._sliced(request))
        return await self._place(request, self._form(request))

    async def place_many(self, requests: Iterable[OrderRequest]) -> list[Order | NeoError]:
        """Place orders at once, as fast as the limiter allows, and return what became of each, in
        their order.

        If any of them is malformed, InvalidOrder names it and none is sent.
        """
        forms = []
        for position, request in enumerate(requests):
            try:
                forms.append((request, self._form(request)))
            except InvalidOrder as error:
                field = f"requests[{position}].{error.field}"
                raise InvalidOrder(field, error.value, error.rule) from error
        return await _outcomes([self._place(request, form) for request, form in forms])

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
    ) -> Order:
        """Change what is given and leave the rest as it is. `quantity` is the new total.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late.
        """
        order = await self._resolve(order)
        new_type = order.order_type if order_type is None else order_type
        price_stays, trigger_stays = price is None, trigger is None
        if price is None and new_type in _WITH_LIMIT:
            price = order.price
        if trigger is None and (new_type in _WITH_TRIGGER or order.product is Product.CO):
            trigger = order.trigger
        new_validity = order.validity if validity is None else validity
        form = modify_form(
            number=order.number,
            side=order.side,
            product=order.product,
            segment=order.segment,
            order_type=new_type,
            quantity=order.quantity if quantity is None else quantity,
            # A quantity that the caller did not give is not the caller's mistake: when all of it is
            # filled, the broker says that it is too late.
            filled_quantity=0 if quantity is None else order.filled_quantity,
            price=price,
            trigger=trigger,
            validity=new_validity,
            disclosed_quantity=(
                order.disclosed_quantity if disclosed_quantity is None else disclosed_quantity
            ),
            amo=order.amo,
        )
        instrument = self._instrument(order.segment, order.symbol)
        if instrument is not None:
            check_against(
                instrument,
                # What stays as it is has been good enough for the exchange.
                quantity=quantity,
                price="0" if price_stays else form.pr,
                trigger="0" if trigger_stays else form.tp,
                is_banded=self._has_bands(order.segment),
            )
        await self._send(Kind.MODIFY, MODIFY, form, number=order.number)
        order.order_type = OrderType(form.pt)
        order.quantity = int(form.qt)
        order.price = price
        order.trigger = trigger
        order.validity = Validity(new_validity)
        order.disclosed_quantity = int(form.dq)
        return order

    async def cancel(self, order: Order | str) -> Order:
        """Ask for cancellation; `order.wait()` tells when it is done, or filled before that.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late.
        """
        order = await self._resolve(order)
        form = cancel_form(number=order.number, symbol=order.symbol, amo=order.amo)
        await self._send(Kind.CANCEL, _cancel_endpoint(order.product), form, number=order.number)
        return order

    async def cancel_all(
        self, *, segment: Segment | None = None, symbol: str | None = None
    ) -> list[Order | NeoError]:
        """Cancel every order that is not final, of one segment or symbol where given; returns what
        became of each request. Cover and bracket orders are exited."""
        if symbol is not None:
            check_symbol(symbol)
        open_orders = [
            self._tracker.adopt(row)
            for row in await self.book()
            if not row.status.is_final
            and (segment is None or row.segment == segment)
            and (symbol is None or row.symbol == symbol)
        ]
        return await _outcomes([self.cancel(order) for order in open_orders])

    async def book(self) -> list[OrderRow]:
        """Today's orders of the account, newest first, also those placed elsewhere."""
        rows = await self._session.read(ORDER_BOOK, read_order_book)
        self._tracker.apply(rows)
        return rows

    async def history(self, order: Order | str) -> list[HistoryRow]:
        """Every state that an order went through, newest first."""
        number = order if isinstance(order, str) else order.number
        check_number(number)
        return await self._session.read(HISTORY, read_history, form=HistoryForm(number))

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

    async def _place(self, request: OrderRequest, form: PlaceForm) -> Order:
        client_tag = form.ig or ""
        try:
            number = await self._send(Kind.PLACE, PLACE, form, client_tag=client_tag)
        except DuplicateTag as error:
            # Every placement has a tag of its own, so the order that has it is this one: an
            # earlier try arrived although its answer said otherwise.
            return await self._find(client_tag, error)
        # The form's codes are members of the enums already: the rules have put them there.
        order = Order(
            self._tracker,
            number=number,
            client_tag=client_tag,
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
        )
        return self._tracker.add(order)

    async def _send(
        self,
        kind: Kind,
        endpoint: Endpoint,
        form: object,
        *,
        client_tag: str = "",
        number: str = "",
    ) -> str:
        try:
            return await self._session.order(kind, endpoint, form, read_accepted)
        except (AnswerLost, ServerError, ProtocolError) as error:
            raise OutcomeUnknown(
                endpoint.name, client_tag=client_tag, order_number=number, reason=str(error)
            ) from error

    async def _find(self, client_tag: str, refusal: DuplicateTag) -> Order:
        try:
            row = find_by_tag(await self.book(), client_tag)
        except NeoError as error:
            # It may say that nothing was sent: true of the look into the book, not of the order.
            raise OutcomeUnknown(
                "place", client_tag=client_tag, reason=f"{refusal}, and no order book: {error}"
            ) from error
        if row is None:
            raise OutcomeUnknown(
                "place", client_tag=client_tag, reason=f"{refusal}, but the order book lacks it"
            ) from refusal
        return self._tracker.adopt(row, client_tag=client_tag)

    async def _resolve(self, order: Order | str) -> Order:
        """The order itself, or the one of that number, from the book where it is not known."""
        if isinstance(order, Order):
            return order
        check_number(order)
        known = self._tracker.get(order)
        if known is not None:
            return known
        rows = await self._session.read(ORDER_BOOK, read_order_book, suffix=f"/{order}")
        if not rows:
            raise Rejected(f"there is no order {order} in today's order book")
        return self._tracker.adopt(rows[0])


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
