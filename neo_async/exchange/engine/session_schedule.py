"""The course of a trading day: what opens, closes, expires and is settled, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from neo_async.calendar import Calendar
from neo_async.exchange.engine.accounts import Account, Exposure
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.contingent_orders import ContingentOrders
from neo_async.exchange.engine.instrument_state import working_order
from neo_async.exchange.engine.ledger import OPENED, Ledger
from neo_async.exchange.engine.listed_instruments import ListedInstruments
from neo_async.exchange.engine.market_makers import MarketMakers
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.oco_group import COVERED_PRODUCTS
from neo_async.exchange.engine.orders import Orders
from neo_async.exchange.engine.trading_hours import (
    Phase,
    SessionEvent,
    SessionEventKind,
    next_session_events,
)
from neo_async.exchange.engine.types import Hours, Listing, NewOrder, OrderRecord, Position, Rules
from neo_async.model.enums import OrderType, Product, Segment, Side

_INTRADAY: Final = (Product.MIS, *COVERED_PRODUCTS)
_SQUARED_OFF: Final = "SQUAREOFF"
"""Source of the orders that square off intraday positions."""
_SETTLED: Final = "SETTLEMENT"
"""Source of the orders that stand for a settlement, which has no counterparty."""


class SessionScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule, as a snapshot keeps it."""

    days_begun: int
    orders_before_today: int
    """Orders in the ledger when the day began."""
    phases: dict[Segment, Phase]
    """Phase of each segment; empty where trading never pauses."""


class SessionSchedule:
    def __init__(
        self,
        clock: Clock,
        ledger: Ledger,
        matching: Matching,
        contingent_orders: ContingentOrders,
        listed: ListedInstruments,
        market_makers: MarketMakers,
        orders: Orders,
        accounts: dict[str, Account],
        phases: dict[Segment, Phase],
        rules: Rules,
        calendar: Calendar,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._matching = matching
        self._contingent_orders = contingent_orders
        self._listed = listed
        self._market_makers = market_makers
        self._orders = orders
        self._accounts = accounts
        self._phases = phases
        self._calendar = calendar
        self._keeps_hours = rules.hours is Hours.EXCHANGE
        self.days_begun = 0
        self.orders_before_today = 0
        """Orders in the ledger when the day began."""
        self._events: deque[SessionEvent] = deque()
        if self._keeps_hours:
            self._events.extend(next_session_events(calendar, clock.now_ns))

    @property
    def next_ns(self) -> int | None:
        """Time of the next session event; None where there is no timetable."""
        return self._events[0].time_ns if self._events else None

    def run_next_event(self) -> None:
        """Carry out the next session event of the timetable."""
        self._run(self._events.popleft())
        if not self._events:
            self._events.extend(next_session_events(self._calendar, self._clock.now_ns))

    def end_day(self) -> None:
        """End the day in all segments at once, and begin the next."""
        segments = self._listed.segments
        self._square_off_intraday(segments)
        self._close(segments)
        self._begin_day()
        if not self._keeps_hours:
            self._open(segments)

    def _run(self, event: SessionEvent) -> None:
        match event.kind:
            case SessionEventKind.NEW_DAY:
                self._expire(lambda _: True)
                self.settle_expired()
                self._begin_day()
            case SessionEventKind.PRE_OPEN:
                self._phases.update(dict.fromkeys(event.segments, Phase.PRE_OPEN))
            case SessionEventKind.OPEN:
                self._open(event.segments)
            case SessionEventKind.SQUARE_OFF:
                self._square_off_intraday(event.segments)
            case SessionEventKind.CLOSE:
                self._close(event.segments)

    def _open(self, segments: Collection[Segment]) -> None:
        """Open the market with new quotes, and release the orders queued for it."""
        self._phases.update(dict.fromkeys(segments, Phase.OPEN))
        for instrument in self._market_makers.active.values():
            if instrument.listing.segment in segments:
                self._market_makers.pull_quotes(instrument)
                self._market_makers.quote(instrument)
                self._matching.mark_changed(instrument)
        self._orders.release(segments)

    def _square_off_intraday(self, segments: Collection[Segment]) -> None:
        """Cancel intraday orders and close intraday positions, at market."""
        for group in self._contingent_orders.snapshot():
            entry = self._record(group.entry)
            # Squaring off one group may have ended another, by trading with it.
            if entry.listing.segment in segments and entry.number in self._contingent_orders.groups:
                self._orders.exit(entry.account, entry.number)
        for working in list(self._matching.working.values()):
            record = working.record
            if (
                record.listing.segment in segments
                and record.product in _INTRADAY
                and not record.parent_number
                and record.number in self._matching.working
            ):
                self._matching.cancel(working)
        for account, exposure, net in self._open_positions(segments):
            position = exposure.position
            if position.product is Product.MIS:
                order = _closing_order(position, net, OrderType.MARKET, 0, _SQUARED_OFF)
                self._orders.enter(self._ledger.accept(account, position.listing, order))

    def _close(self, segments: Collection[Segment]) -> None:
        """End trading: orders expire, and intraday positions that are left are settled at the last
        price, contracts on their last day at their final settlement value."""
        self._expire(lambda listing: listing.segment in segments)
        for account, exposure, net in self._open_positions(segments):
            listing, product = exposure.position.listing, exposure.position.product
            if listing.expiry is not None and listing.expiry <= self._clock.date:
                self._settle_at_value(account, exposure, net)
            elif product in _INTRADAY:
                last_price = self._market_makers.instrument(listing).stats.last_price
                self._settle_position(account, exposure, net, last_price)
        for instrument in self._market_makers.instruments.values():
            if instrument.listing.segment in segments:
                instrument.trailing.clear()
                self._market_makers.pull_quotes(instrument)
                self._matching.mark_changed(instrument)
        self._phases.update(dict.fromkeys(segments, Phase.CLOSED))

    def settle_expired(self) -> None:
        """Cancel the orders and settle the positions of expired contracts.

        Needed besides the close, because a last trading day may pass without one.
        """
        has_expired = self._listed.has_expired
        self._expire(has_expired)
        for account, exposure, net in self._open_positions(self._listed.segments):
            if has_expired(exposure.position.listing):
                self._settle_at_value(account, exposure, net)
        for instrument in self._market_makers.instruments.values():
            if has_expired(instrument.listing) and instrument.market_maker is not None:
                self._market_makers.retire(instrument)

    def _settle_at_value(self, account: Account, exposure: Exposure, net: int) -> None:
        """Settle a position at the final settlement value of its contract."""
        instrument = self._market_makers.instrument(exposure.position.listing)
        value = self._market_makers.fair_value(instrument)
        self._settle_position(account, exposure, net, max(0, round(value)))

    def _expire(self, concerns: Callable[[Listing], bool]) -> None:
        """Cancel all working orders in the listings for which `concerns` is true."""
        for working in list(self._matching.working.values()):
            if concerns(working.record.listing):
                self._matching.withdraw(working)
                self._matching.cancel_remainder(working)
        self._contingent_orders.discard(lambda number: concerns(self._record(number).listing))

    def _open_positions(self, segments: Collection[Segment]) -> list[tuple[Account, Exposure, int]]:
        """Return the open positions but for delivery, with their net quantity."""
        return [
            (account, exposure, net)
            for account in self._accounts.values()
            for exposure in account.exposures()
            if exposure.position.listing.segment in segments
            and (net := exposure.position.bought - exposure.position.sold)
            and exposure.position.product is not Product.CNC
        ]

    def _settle_position(self, account: Account, exposure: Exposure, net: int, price: int) -> None:
        """Close a position at a price, without a counterparty."""
        position = exposure.position
        order = _closing_order(position, net, OrderType.LIMIT, price, _SETTLED)
        record = self._ledger.accept(account, position.listing, order)
        instrument = self._market_makers.instrument(position.listing)
        working = working_order(record, account, exposure, instrument)
        self._matching.reserve_margin(working, record.quantity)
        self._matching.accept(working)
        self._ledger.move(record, OPENED)
        trade_number = self._ledger.next_trade_number()
        self._matching.fill(working, trade_number, record.quantity, price)
        self._matching.entries_to_adjust.pop(record.number, None)

    def _begin_day(self) -> None:
        """Settle the accounts at the closing prices, and list everything anew from those."""
        self.days_begun += 1
        self.orders_before_today = len(self._ledger.orders)
        self._listed.begin_session(self._closing_price)
        self._market_makers.begin_session()
        by_token = self._listed.by_token
        for account in self._accounts.values():
            account.end_session(lambda listing: by_token[listing.segment, listing.token])
        for number, record in self._orders.queued.items():
            record.listing = by_token[record.listing.segment, record.listing.token]
            self._accounts[record.account].orders[number] = record

    def _closing_price(self, listing: Listing) -> int:
        instrument = self._market_makers.instruments.get((listing.segment, listing.token))
        return instrument.stats.last_price if instrument is not None else listing.base_price

    def _record(self, number: str) -> OrderRecord:
        return next(
            account.orders[number]
            for account in self._accounts.values()
            if number in account.orders
        )

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self) -> SessionScheduleState:
        """Return the schedule as plain values."""
        return SessionScheduleState(
            days_begun=self.days_begun,
            orders_before_today=self.orders_before_today,
            phases=self._phases if self._keeps_hours else {},
        )

    def restore(self, state: SessionScheduleState) -> None:
        """Take over days and phases of a snapshot."""
        self.days_begun = state.days_begun
        self.orders_before_today = state.orders_before_today
        if self._keeps_hours:
            self._phases.update(state.phases)


def _closing_order(
    position: Position, net: int, order_type: OrderType, price: int, source: str
) -> NewOrder:
    """Return an order for the opposite of a net quantity."""
    return NewOrder(
        segment=position.listing.segment,
        symbol=position.listing.symbol,
        side=Side.SELL if net > 0 else Side.BUY,
        quantity=abs(net),
        order_type=order_type,
        product=position.product,
        price=price,
        source=source,
    )
