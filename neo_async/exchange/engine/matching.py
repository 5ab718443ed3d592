"""Working orders: matched against the book, resting, waiting for a trigger, cancelled."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.book import Resting
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.instrument_state import (
    InstrumentState,
    RestingOrderState,
    WorkingOrder,
    working_order,
)
from neo_async.exchange.engine.ledger import (
    ARMED,
    CANCEL_PENDING,
    CANCELLED,
    COMPLETE,
    OPEN,
    OPENED,
    TRIGGER_PENDING,
    Ledger,
)
from neo_async.exchange.engine.oco_group import COVERED_PRODUCTS, OcoGroup, within_bands
from neo_async.exchange.engine.protection import protected_limit
from neo_async.exchange.engine.types import Fill, IndexMoved, OrderRecord, Printed
from neo_async.model.enums import OrderStatus, OrderType, Segment, Side, Validity

# Looking up a member of an enum takes longer than all that is done with it here.
_BUY: Final = Side.BUY
_IOC: Final = Validity.IOC
_SL: Final = OrderType.SL
_SL_M: Final = OrderType.SL_M


class WorkingOrderState(msgspec.Struct, frozen=True, array_like=True):
    """A working order, as a snapshot keeps it."""

    number: str
    margin_price: int
    reserves_margin: bool
    stop: int


class MatchingState(msgspec.Struct, frozen=True, kw_only=True):
    """The working orders, as a snapshot keeps them."""

    working: list[WorkingOrderState]
    stops: int


class Matching:
    def __init__(self, clock: Clock, ledger: Ledger, accounts: dict[str, Account]) -> None:
        self._clock = clock
        self._ledger = ledger
        self._accounts = accounts
        self.working: dict[str, WorkingOrder] = {}
        """Working orders by number."""
        self.changed: dict[InstrumentState, None] = {}
        """Watched instruments that have changed since their changes were last taken."""
        self.entries_to_adjust: dict[str, OrderRecord] = {}
        """Entries with contingent orders that a fill has put out of line, by number."""
        self._stops = 0

    def accept(self, working: WorkingOrder) -> None:
        """Give a validated order its exchange number and list it as working."""
        record, ledger = working.record, self._ledger
        record.exchange_number = str(ledger.exchange_numbers)
        ledger.exchange_numbers += 1
        self.working[record.number] = working
        working.instrument.working_count += 1

    def activate(self, working: WorkingOrder, noted: int = 0) -> None:
        """Arm a stop, or match an order and let its remainder rest.

        `noted` is the number of states on the way there that its history has already.
        """
        record = working.record
        order_type = record.order_type
        if order_type is _SL or order_type is _SL_M:
            self.arm(working, ARMED[noted:])
        else:
            self._ledger.move(record, OPENED[noted:])
            self.match(working)

    def match(self, working: WorkingOrder) -> None:
        """Trade an order with the book; the remainder rests, or is cancelled if it is IOC."""
        record, instrument = working.record, working.instrument
        book = instrument.book
        against = book.asks if working.side is _BUY else book.bids
        if against.meets(record.price):
            # A working order has nothing cancelled: the property would only add a call.
            pending = record.quantity - record.filled_quantity
            executions = against.execute(record.price, pending)
            self.apply_fills(instrument, working, executions)
            if record.filled_quantity == record.quantity:
                return
        if record.validity is _IOC:
            self.cancel_remainder(working)
        else:
            self.rest(working)

    def rest(self, working: WorkingOrder) -> None:
        """Add the pending quantity of an order to the book."""
        record = working.record
        working.price = record.price
        working.quantity = pending = record.quantity - record.filled_quantity
        working.disclosed = disclosed = record.disclosed_quantity or pending
        working.visible = disclosed if disclosed < pending else pending
        working.rests = True
        book = working.instrument.book
        (book.bids if working.side is _BUY else book.asks).add(working)

    def apply_fills(
        self,
        instrument: InstrumentState,
        incoming: WorkingOrder | None,
        executions: list[tuple[Resting, int]],
    ) -> None:
        """Book the executions of an incoming order; None is an order of a market maker."""
        for resting, quantity in executions:
            met = resting if isinstance(resting, WorkingOrder) else None
            if instrument.has_open_interest:
                change = _open_interest_change(instrument, incoming, met, quantity)
                instrument.stats.change_open_interest(change)
            if incoming is not None or met is not None:
                trade_number = self._ledger.next_trade_number()
                if met is not None:
                    self.fill(met, trade_number, quantity, resting.price)
                if incoming is not None:
                    self.fill(incoming, trade_number, quantity, resting.price)
            self.print_trade(instrument, resting.price, quantity)

    def fill(self, working: WorkingOrder, trade_number: str, quantity: int, price: int) -> None:
        """Book one execution of one order."""
        record, exposure = working.record, working.exposure
        listing, side = record.listing, working.side
        now = self._clock.stamp()
        record.fill_count = leg = record.fill_count + 1
        fill = Fill(
            trade_number,
            record.number,
            record.account,
            listing.segment,
            listing.token,
            side,
            record.product,
            quantity,
            price,
            leg,
            now,
        )
        working.account.fills.append(fill)
        record.filled_quantity = filled = record.filled_quantity + quantity
        record.filled_value += quantity * price
        exposure.fill(side, quantity, price, working.margin_price)
        position = exposure.position
        position.updated_ns = now
        if record.product in COVERED_PRODUCTS:
            entry = working.account.orders[record.parent_number or record.number]
            self.entries_to_adjust[entry.number] = entry
        if filled < record.quantity:
            self._ledger.move(record, OPEN, "", fill, replace(position))
        else:
            self._ledger.move(record, COMPLETE, "", fill, replace(position))
            self._remove(working)

    def print_trade(self, instrument: InstrumentState, price: int, quantity: int) -> None:
        """Publish a trade: to the session figures, the indices, trailing stops and triggers."""
        now = self._clock.now_ns
        stats = instrument.stats
        stats.trade(price, quantity, now)
        self._ledger.events.append(
            Printed(instrument.listing, price, quantity, now, stats.open_interest)
        )
        for live_index, position in instrument.live_indices:
            if live_index.update(position, price, now):
                self._ledger.events.append(
                    IndexMoved(live_index.index, live_index.stats.last_price, now)
                )
        if instrument.trailing:
            for group in instrument.trailing.values():
                self._trail(group, price)
        if instrument.buy_stops and instrument.buy_stops[0][0] <= price:
            _trigger_up_to(instrument, instrument.buy_stops, price)
        if instrument.sell_stops and instrument.sell_stops[0][0] <= -price:
            _trigger_up_to(instrument, instrument.sell_stops, -price)

    # --- stops --------------------------------------------------------------------------------

    def arm(
        self, working: WorkingOrder, statuses: tuple[OrderStatus, ...] = TRIGGER_PENDING
    ) -> None:
        """Let a stop wait for its trigger; one that has been reached already fires next."""
        self._stops += 1
        working.stop = self._stops
        self._ledger.move(working.record, statuses)
        self._await_trigger(working)

    def _await_trigger(self, working: WorkingOrder) -> None:
        record, instrument = working.record, working.instrument
        if record.side is _BUY:
            heap, sign = instrument.buy_stops, 1
        else:
            heap, sign = instrument.sell_stops, -1
        if (instrument.stats.last_price - record.trigger) * sign >= 0:
            instrument.triggered.append((working.stop, working))
        else:
            heapq.heappush(heap, (record.trigger * sign, working.stop, working))

    def trigger(self, working: WorkingOrder) -> None:
        """Send a triggered stop into the book; a stop-loss market order gets its limit now."""
        record = working.record
        if record.order_type is _SL_M:
            last_price = working.instrument.stats.last_price
            record.price = protected_limit(record.listing, record.side, last_price)
            self.reserve_margin(working, -record.pending_quantity)
            working.margin_price = record.price
            self.reserve_margin(working, record.pending_quantity)
        self._ledger.move(record, OPEN)
        self.match(working)

    def _trail(self, group: OcoGroup, price: int) -> None:
        """Move a stop that waits for its trigger after a favourable price."""
        working = self.working.get(group.stop)
        if working is None or not working.stop:
            return
        record = working.record
        sign = -1 if record.side is _BUY else 1
        trigger = group.trigger_at(price, sign)
        if (trigger - record.trigger) * sign <= 0:
            return
        record.trigger = within_bands(record.listing, trigger)
        record.price = protected_limit(record.listing, record.side, record.trigger)
        self.arm(working)

    # --- cancelling ---------------------------------------------------------------------------

    def cancel(self, working: WorkingOrder) -> None:
        """Cancel the pending quantity of an order at the client's or the exchange's wish."""
        record = working.record
        self._ledger.move(record, CANCEL_PENDING)
        self.withdraw(working)
        record.gui_order_id = self._ledger.cancelled_gui_id(record)
        self.cancel_remainder(working)
        self.mark_changed(working.instrument)

    def cancel_remainder(self, working: WorkingOrder) -> None:
        """Cancel the pending quantity of an order that is not in the book."""
        record = working.record
        pending = record.pending_quantity
        self.reserve_margin(working, -pending)
        record.cancelled_quantity = pending
        self._ledger.move(record, CANCELLED)
        self._remove(working)

    def withdraw(self, working: WorkingOrder) -> None:
        """Take an order out of the book, or disarm it."""
        if working.rests:
            working.instrument.book.side(working.side).remove(working)
            working.rests = False
        working.stop = 0

    def _remove(self, working: WorkingOrder) -> None:
        del self.working[working.record.number]
        working.instrument.working_count -= 1

    # --- margin and changes -------------------------------------------------------------------

    def reserve_margin(self, working: WorkingOrder, quantity: int) -> int:
        """Reserve funds and stock for a quantity of an order; a negative quantity releases them.

        Returns by how much that lowers what is available.
        """
        if not working.reserves_margin:
            return 0
        return working.exposure.reserve(working.side, quantity, working.margin_price)

    def mark_changed(self, instrument: InstrumentState) -> None:
        """Note that book or figures of an instrument have changed."""
        instrument.changed_ns = self._clock.now_ns
        if instrument.watchers:
            self.changed[instrument] = None

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self) -> MatchingState:
        """Return the working orders as plain values."""
        return MatchingState(
            working=[
                WorkingOrderState(
                    number, working.margin_price, working.reserves_margin, working.stop
                )
                for number, working in self.working.items()
            ],
            stops=self._stops,
        )

    def restore(
        self,
        state: MatchingState,
        records: Mapping[str, OrderRecord],
        instruments: Mapping[tuple[Segment, str], InstrumentState],
    ) -> None:
        """Take over the working orders of a snapshot; their book entries come later."""
        self._stops = state.stops
        for each in state.working:
            record = records[each.number]
            instrument = instruments[record.listing.segment, record.listing.token]
            account = self._accounts[record.account]
            exposure = account.exposure(record.listing, record.product)
            working = working_order(record, account, exposure, instrument)
            working.margin_price = each.margin_price
            working.reserves_margin = each.reserves_margin
            working.stop = each.stop
            self.working[each.number] = working
            instrument.working_count += 1
            self.reserve_margin(working, record.pending_quantity)
            if working.stop:
                self._await_trigger(working)

    def restore_resting(self, state: RestingOrderState) -> WorkingOrder:
        """Return the working order of a book entry, with the entry's price and quantities."""
        working = self.working[state.number]
        working.price = state.price
        working.quantity = state.quantity
        working.disclosed = state.disclosed
        working.visible = state.visible
        working.rests = True
        return working


def _trigger_up_to(
    instrument: InstrumentState, stops: list[tuple[int, int, WorkingOrder]], reached: int
) -> None:
    while stops and stops[0][0] <= reached:
        _, sequence, working = heapq.heappop(stops)
        instrument.triggered.append((sequence, working))


def _open_interest_change(
    instrument: InstrumentState,
    one: WorkingOrder | None,
    other: WorkingOrder | None,
    quantity: int,
) -> int:
    """Return by how much a trade changes the open interest; ask before the trade is booked.

    Each side adds what it opens and nothing for what it closes. A market maker (None) opens and
    closes as its counterparty does.
    """
    if one is not None and other is not None:
        if one.exposure is other.exposure:
            return 0
        return _opened(one, quantity) + _opened(other, quantity) - quantity
    client = one or other
    if client is None:
        return instrument.stats.background_open_interest_change(
            quantity, instrument.listing.lot_size
        )
    return 2 * _opened(client, quantity) - quantity


def _opened(working: WorkingOrder, quantity: int) -> int:
    """Return how much of a fill does not close an earlier position."""
    position = working.exposure.position
    net = position.bought - position.sold
    open_against_it = -net if working.record.side is _BUY else net
    return quantity - min(quantity, max(0, open_against_it))
