"""Placing, changing and cancelling orders, and the books that tell what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import msgspec

from neo_async.dispatch import Dispatch, Request
from neo_async.errors import (
    InvalidOrder,
    JournalFailed,
    NeoError,
    NotSent,
    OutcomeUnknown,
    Rejected,
    UsageError,
)
from neo_async.instruments import Instruments
from neo_async.journal import Journal
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.instruments import Instrument
from neo_async.model.orders import Bracket, HistoryRow, OrderRequest, OrderRow, Price, Trade
from neo_async.reconciliation import Reconciliation, reconcile
from neo_async.risk import Hold, RiskGuard
from neo_async.session import SessionManager
from neo_async.settlement import Question, Settlement
from neo_async.tracking import Order, OrderSource, Tracker
from neo_async.transport.limiter import Kind, Refusal
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
    read_accepted,
)
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

NOT_SENT = (NotSent, UsageError, JournalFailed)
"""Raised when no byte of a request has left."""


class Orders:
    """Every call checks its arguments first (InvalidOrder, nothing is sent), and ends in exactly
    one of: it worked; `Rejected` or another BrokerError; `NotSent`; `OutcomeUnknown`.

    What could not be sent is sent again until the deadline. Only where the broker has failed for a
    while when a call begins, it fails at once with `CircuitOpen`; cancels never do.

    What was sent, and whose answer was lost, is not sent again: it is looked for in the order feed
    and the order book, and the call waits for what they tell. Then it worked after all, or raises
    `NotAccepted`; OutcomeUnknown remains where no book could be read, however often it was asked
    for, within a minute after the end of the horizon.
    With `settle=False` a call raises OutcomeUnknown at once, whose `outcome()` waits for the same,
    and raises OutcomeUnknown itself when nothing is known three minutes after the horizon, or at a
    logout.

    Where the instrument's scrip master is loaded (`neo.instruments.load`), arguments are checked
    against that, too: price and trigger on tick and inside the day's band, quantity in lots and not
    above the freeze quantity. What is not loaded, or not in it, is left to the broker to judge.
    """

    def __init__(
        self,
        session: SessionManager,
        tracker: Tracker,
        instruments: Instruments | None = None,
        *,
        guard: RiskGuard | None = None,
        journal: Journal | None = None,
        horizon: float = 30.0,
        resend_unknown: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """See NeoClient for the settings."""
        self._session = session
        self._tracker = tracker
        self._instruments = instruments
        self._tags = TagMaker()
        self._guard = guard
        """None when no limit is set."""
        self._resends_unknown = resend_unknown
        self._journal = journal
        self._clock = clock
        self._settlement = Settlement(
            tracker, self.book, self.history, journal=journal, horizon=horizon, clock=clock
        )
        self._dispatch = Dispatch(session, self._settlement, journal)
        tracker.refresh_with(self.book)

    def follow(self, feed: OrderSource) -> None:
        """Let the feed tell of requests whose answers were lost. The tracker must follow it
        already."""
        feed.listen(self._settlement.hear)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """New orders wait until this is over."""
        self._settlement.reopen()
        return self._dispatch.held()

    def refuse_by(self, refusal: Refusal | None) -> None:
        """See Dispatch.refuse_by."""
        self._dispatch.refuse_by(refusal)

    @property
    def is_quiet(self) -> bool:
        """Whether no request is on its way, and of every one it is known what became of it."""
        return not self._settlement.questions and not self._session.is_sending

    @property
    def questions(self) -> Collection[Question]:
        """Requests of which it is being found out whether they took effect."""
        return self._settlement.questions

    @property
    def unknowns_opened(self) -> int:
        """Such requests so far."""
        return self._settlement.opened

    @property
    def unknowns_resolved(self) -> Mapping[str, int]:
        """Those of which it is known by now, by outcome."""
        return dict(self._settlement.resolved)

    async def reconcile(self) -> Reconciliation:
        """Bring journal and book together after a login; see Reconciliation."""
        assert self._journal is not None
        return await reconcile(
            self._journal, self._settlement, self._tracker, self.book, clock=self._clock
        )

    async def close(self) -> None:
        """Stop finding out what became of requests whose answers were lost."""
        await self._settlement.close()

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
        settle: bool = ...,
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
        settle: bool = ...,
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
        settle: bool = True,
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
            return await self.place_many(self._sliced(request), settle=settle)
        form = self._form(request)
        hold = None
        self._dispatch.check_refusal(Kind.PLACE)
        if self._guard is not None:
            (hold,) = await self._admit(self._guard, [form])
        return await self._place(request, form, hold, settle=settle)

    async def place_many(
        self, requests: Iterable[OrderRequest], *, settle: bool = True
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
        self._dispatch.check_refusal(Kind.PLACE)
        if self._guard is None:
            return await _outcomes(
                [self._place(request, form, None, settle=settle) for request, form in forms]
            )
        holds = await self._admit(self._guard, [form for _, form in forms])
        try:
            return await _outcomes(
                [
                    self._place(request, form, hold, settle=settle)
                    for (request, form), hold in zip(forms, holds, strict=True)
                ]
            )
        finally:
            for hold in holds:  # of those that had no time to begin
                hold.end()

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
        settle: bool = True,
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
        hold = None
        self._dispatch.check_refusal(Kind.MODIFY)
        if self._guard is not None:
            hold = await self._admit_change(self._guard, order, form)
        try:
            await self._dispatch.send(Request(Kind.MODIFY, MODIFY, form, order=order))
        except OutcomeUnknown as unknown:
            return await self._dispatch.settled(unknown, settle=settle)
        except NOT_SENT:
            _was_not_sent(hold)
            raise
        else:
            order.order_type = OrderType(form.pt)
            order.quantity = int(form.qt)
            order.price = price
            order.trigger = trigger
            order.validity = Validity(new_validity)
            order.disclosed_quantity = int(form.dq)
            return order
        finally:
            if hold is not None:
                hold.end(self._settlement.find("modify", number=order.number))

    async def cancel(self, order: Order | str, *, settle: bool = True) -> Order:
        """Ask for cancellation; `order.wait()` tells when it is done, or filled before that.

        Takes an Order or an order number. Raises OrderAlreadyFinal when it is too late.
        """
        order = await self._resolve(order)
        form = cancel_form(number=order.number, symbol=order.symbol, amo=order.amo)
        endpoint = _cancel_endpoint(order.product)
        try:
            await self._dispatch.send(Request(Kind.CANCEL, endpoint, form, order=order))
        except OutcomeUnknown as unknown:
            return await self._dispatch.settled(unknown, settle=settle)
        return order

    async def cancel_all(
        self,
        *,
        segment: Segment | None = None,
        symbol: str | None = None,
        settle: bool = True,
    ) -> list[Order | NeoError]:
        """Cancel every order that is not final, of one segment or symbol where given; returns what
        became of each request. Cover and bracket orders are exited."""
        if symbol is not None:
            check_symbol(symbol)
        open_orders = [
            order
            for order in await self.read_open()
            if segment in (None, order.segment) and symbol in (None, order.symbol)
        ]
        return await _outcomes([self.cancel(order, settle=settle) for order in open_orders])

    @property
    def latecomers(self) -> Sequence[Order]:
        """Orders that appeared although their placement had raised an error: NotAccepted, and the
        broker took longer than the horizon; OutcomeUnknown, and nothing proved it in time; or a
        refusal, such as RateLimited. And second orders under the client tag of another one. Each
        was logged as an error, too."""
        return self._settlement.latecomers

    def on_latecomer(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` with every order that appears so."""
        self._settlement.on_latecomer(listener)

    async def read_open(self) -> list[Order]:
        """The orders of the account that are not final, by the order book, also those placed
        elsewhere; followed from now on."""
        rows = await self.book()
        return [self._tracker.adopt(row) for row in rows if not row.status.is_final]

    async def book(self) -> list[OrderRow]:
        """Today's orders of the account, newest first, also those placed elsewhere."""
        began = asyncio.get_running_loop().time()
        rows = await self._session.read(ORDER_BOOK, read_order_book)
        guard = self._guard
        self._tracker.apply(rows, adopts_open=guard is not None and guard.needs_orders)
        if guard is not None:
            guard.see_book(rows, began)
        self._settlement.judge(rows, began)
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

    async def _admit(self, guard: RiskGuard, forms: Sequence[PlaceForm]) -> list[Hold]:
        """Check placements by the limits; while new orders are held back, nobody knows what they
        have to be held against."""
        await self._dispatch.pass_gate(Kind.PLACE)
        return guard.admit(forms)

    async def _admit_change(self, guard: RiskGuard, order: Order, form: ModifyForm) -> Hold:
        await self._dispatch.pass_gate(Kind.MODIFY)
        return guard.admit_change(order, form)

    async def _place(
        self, request: OrderRequest, form: PlaceForm, hold: Hold | None, *, settle: bool
    ) -> Order:
        client_tag = form.ig or ""
        try:
            number = await self._dispatch.send(Request(Kind.PLACE, PLACE, form, client_tag))
        except OutcomeUnknown as unknown:
            if self._resends_unknown:
                self._send_again(unknown, request, form)
            return await self._dispatch.settled(unknown, settle=settle)
        except NOT_SENT:
            _was_not_sent(hold)
            raise
        else:
            return self._placed(request, form, number)
        finally:
            if hold is not None:
                hold.end(self._settlement.find("place", client_tag=client_tag))

    def _placed(self, request: OrderRequest, form: PlaceForm, number: str) -> Order:
        # The form's codes are members of the enums already: the rules have put them there.
        order = Order(
            self._tracker,
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
        )
        return self._tracker.add(order)

    def _send_again(self, unknown: OutcomeUnknown, request: OrderRequest, form: PlaceForm) -> None:
        """Under the same tag: it can become an order only once."""
        question = unknown.resolution
        assert isinstance(question, Question)

        async def again() -> Order:
            number = await self._session.order(Kind.PLACE, PLACE, form, read_accepted)
            return self._placed(request, form, number)

        self._settlement.resend(question, again)

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


def _was_not_sent(hold: Hold | None) -> None:
    if hold is not None:
        hold.was_sent = False


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
