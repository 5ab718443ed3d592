"""Orders at work: matched against the book, resting there, waiting for a trigger, taken away."""

from __future__ import annotations

import heapq
from typing import Final

from msgspec.structs import replace

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.book import Resting
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.contingent_orders import Exits
from neo_async.exchange.engine.instrument_state import Desk, Working, at_work
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
from neo_async.exchange.engine.oco_group import COVERED
from neo_async.exchange.engine.protection import protected_limit
from neo_async.exchange.engine.snapshot import RestingState, WorkingState
from neo_async.exchange.engine.types import Fill, IndexMoved, OrderRecord, Printed
from neo_async.model.enums import OrderStatus, OrderType, Side, Validity

# Looking up a member of an enum takes longer than all that is done with it here.
_BUY: Final = Side.BUY
_IOC: Final = Validity.IOC
_SL: Final = OrderType.SL
_SL_M: Final = OrderType.SL_M


class Matching:
    def __init__(self, clock: Clock, ledger: Ledger, accounts: dict[str, Account]) -> None:
        self._clock = clock
        self._ledger = ledger
        self._accounts = accounts
        self.working: dict[str, Working] = {}
        """By number."""
        self.changed: dict[Desk, None] = {}
        """Watched desks whose picture has changed since somebody asked."""
        self.stops = 0
        self.exits = Exits(ledger, accounts, self)

    def take_on(self, working: Working) -> None:
        """Let a validated order into the exchange."""
        record, ledger = working.record, self._ledger
        record.exchange_number = str(ledger.exchange_numbers)
        ledger.exchange_numbers += 1
        self.working[record.number] = working
        working.desk.working += 1

    def put_to_work(self, working: Working, noted: int = 0) -> None:
        """Arm a stop, or match an order and let its remainder rest. `noted`: how many states of the
        way there its history tells already."""
        record = working.record
        order_type = record.order_type
        if order_type is _SL or order_type is _SL_M:
            self.arm(working, ARMED[noted:])
        else:
            self._ledger.move(record, OPENED[noted:])
            self.match(working)

    def match(self, working: Working) -> None:
        record, desk = working.record, working.desk
        against = desk.book.against(working.side)
        if against.meets(record.price):
            executions = against.execute(record.price, record.pending_quantity)
            self.apply_fill(desk, working, executions)
            if record.filled_quantity == record.quantity:
                return
        if record.validity is _IOC:
            self.drop_remainder(working)
        else:
            self.rest(working)

    def rest(self, working: Working) -> None:
        """Let what is pending of an order stand in the book."""
        record = working.record
        working.price = record.price
        working.quantity = pending = record.quantity - record.filled_quantity
        working.disclosed = disclosed = record.disclosed_quantity or pending
        working.visible = disclosed if disclosed < pending else pending
        working.rests = True
        working.desk.book.side(record.side).add(working)

    def apply_fill(
        self, desk: Desk, incoming: Working | None, executions: list[tuple[Resting, int]]
    ) -> None:
        """Book what an incoming order of a client (or of a maker: None) has traded."""
        for resting, quantity in executions:
            met = resting if isinstance(resting, Working) else None
            if desk.has_interest:
                desk.day.change_interest(_interest(desk, incoming, met, quantity))
            if incoming is not None or met is not None:
                trade_number = self._ledger.next_trade_number()
                if met is not None:
                    self.fill(met, trade_number, quantity, resting.price)
                if incoming is not None:
                    self.fill(incoming, trade_number, quantity, resting.price)
            self.print_trade(desk, resting.price, quantity)

    def fill(self, working: Working, trade_number: str, quantity: int, price: int) -> None:
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
        exposure.fill(side, quantity, price, working.blocked_price)
        position = exposure.position
        position.updated_ns = now
        if record.product in COVERED:
            entry = working.account.orders[record.parent_number or record.number]
            self.exits.unbalanced[entry.number] = entry
        if filled < record.quantity:
            self._ledger.move(record, OPEN, "", fill, replace(position))
        else:
            self._ledger.move(record, COMPLETE, "", fill, replace(position))
            self._forget(working)

    def print_trade(self, desk: Desk, price: int, quantity: int) -> None:
        now = self._clock.now_ns
        desk.day.trade(price, quantity, now)
        self._ledger.events.append(
            Printed(desk.listing, price, quantity, now, desk.day.open_interest)
        )
        for meter, place in desk.meters:
            if meter.take(place, price, now):
                self._ledger.events.append(IndexMoved(meter.index, meter.day.last_price, now))
        if desk.trailing:
            for legs in desk.trailing.values():
                self.exits.trail(legs, price)
        if desk.buy_stops and desk.buy_stops[0][0] <= price:
            _fire(desk, desk.buy_stops, price)
        if desk.sell_stops and desk.sell_stops[0][0] <= -price:
            _fire(desk, desk.sell_stops, -price)

    def arm(self, working: Working, statuses: tuple[OrderStatus, ...] = TRIGGER_PENDING) -> None:
        """Let a stop wait for its trigger; one that has been reached already fires next."""
        self.stops += 1
        working.stop = self.stops
        self._ledger.move(working.record, statuses)
        self.await_trigger(working)

    def await_trigger(self, working: Working) -> None:
        record, desk = working.record, working.desk
        heap, sign = (desk.buy_stops, 1) if record.side is _BUY else (desk.sell_stops, -1)
        if (desk.day.last_price - record.trigger) * sign >= 0:
            desk.fired.append((working.stop, working))
        else:
            heapq.heappush(heap, (record.trigger * sign, working.stop, working))

    def follow_up(self, desk: Desk) -> None:
        """Bring legs in line with what has traded and work off the stops that have fired, and
        those that their own trades fire in turn."""
        while desk.fired or self.exits.unbalanced:
            if self.exits.unbalanced:
                self.exits.balance_next(desk)
                continue
            sequence, working = desk.fired.popleft()
            if working.stop != sequence:
                continue
            working.stop = 0
            record = working.record
            if record.parent_number:
                self.exits.leave_to_stop(working)
            if record.order_type is _SL_M:
                record.price = protected_limit(record.listing, record.side, desk.day.last_price)
                self.block(working, -record.pending_quantity)
                working.blocked_price = record.price
                self.block(working, record.pending_quantity)
            self._ledger.move(record, OPEN)
            self.match(working)

    def cancel(self, working: Working) -> None:
        record = working.record
        self._ledger.move(record, CANCEL_PENDING)
        self.withdraw(working)
        record.gui_order_id = self._ledger.cancelled_gui_id(record)
        self.drop_remainder(working)
        self.mark(working.desk)

    def drop_remainder(self, working: Working) -> None:
        """Cancel what is pending of an order that no longer rests anywhere."""
        record = working.record
        pending = record.pending_quantity
        self.block(working, -pending)
        record.cancelled_quantity = pending
        self._ledger.move(record, CANCELLED)
        self._forget(working)

    def withdraw(self, working: Working) -> None:
        """Take an order out of the book, or disarm it."""
        if working.rests:
            working.desk.book.side(working.side).remove(working)
            working.rests = False
        working.stop = 0

    def _forget(self, working: Working) -> None:
        del self.working[working.record.number]
        working.desk.working -= 1

    def block(self, working: Working, quantity: int) -> int:
        """Block funds and stock for that much of an order, or release with a negative quantity.

        Returns by how much that lowers what is available.
        """
        if not working.blocks:
            return 0
        return working.exposure.block(working.side, quantity, working.blocked_price)

    def mark(self, desk: Desk) -> None:
        """Note that the desk's picture is another one now."""
        desk.changed_ns = self._clock.now_ns
        if desk.watchers:
            self.changed[desk] = None

    def restore(self, state: WorkingState, record: OrderRecord, desk: Desk) -> None:
        account = self._accounts[record.account]
        exposure = account.exposure(record.listing, record.product)
        working = at_work(record, account, exposure, desk)
        working.blocked_price = state.blocked_price
        working.blocks = state.blocks
        working.stop = state.stop
        self.working[state.number] = working
        desk.working += 1
        self.block(working, record.pending_quantity)
        if working.stop:
            self.await_trigger(working)

    def restore_rest(self, state: RestingState) -> Working:
        """The entry of an order that is to stand in the book again."""
        working = self.working[state.number]
        working.price = state.price
        working.quantity = state.quantity
        working.disclosed = state.disclosed
        working.visible = state.visible
        working.rests = True
        return working


def _fire(desk: Desk, stops: list[tuple[int, int, Working]], reached: int) -> None:
    while stops and stops[0][0] <= reached:
        _, sequence, working = heapq.heappop(stops)
        desk.fired.append((sequence, working))


def _interest(desk: Desk, one: Working | None, other: Working | None, quantity: int) -> int:
    """By how much a trade changes the open interest: by what it opens on both sides, and not at all
    where it only changes hands. Whoever is no client (None) does as the client does.

    To be asked before the trade is booked.
    """
    if one is not None and other is not None:
        if one.exposure is other.exposure:
            return 0
        return _opened(one, quantity) + _opened(other, quantity) - quantity
    client = one or other
    if client is None:
        return desk.day.crowd_interest(quantity, desk.listing.lot_size)
    return 2 * _opened(client, quantity) - quantity


def _opened(working: Working, quantity: int) -> int:
    """What of a fill does not close an earlier position."""
    position = working.exposure.position
    net = position.bought - position.sold
    open_against_it = -net if working.record.side is _BUY else net
    return quantity - min(quantity, max(0, open_against_it))
