"""Orders at work: matched against the book, resting there, waiting for a trigger, taken away."""

from __future__ import annotations

import heapq

import msgspec

from neo_async.exchange.core.accounts import Account
from neo_async.exchange.core.book import Resting
from neo_async.exchange.core.clock import Clock
from neo_async.exchange.core.desk import Desk, Working
from neo_async.exchange.core.exits import Exits
from neo_async.exchange.core.ledger import Ledger
from neo_async.exchange.core.legs import COVERED
from neo_async.exchange.core.protection import protected_limit
from neo_async.exchange.core.state import WorkingState
from neo_async.exchange.core.types import Fill, OrderRecord, PositionChanged, Printed
from neo_async.model.enums import OrderStatus, OrderType, Side, Validity


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
        self.exits = Exits(clock, ledger, accounts, self)

    def take_on(self, working: Working) -> None:
        """Let a validated order into the exchange."""
        record = working.record
        self._ledger.move(record, OrderStatus.OPEN_PENDING)
        record.exchange_number = str(self._ledger.exchange_numbers)
        self._ledger.exchange_numbers += 1
        self.working[record.number] = working
        working.desk.working += 1

    def put_to_work(self, working: Working) -> None:
        """Arm a stop, or match an order and let its remainder rest."""
        record = working.record
        if record.order_type.has_trigger:
            self.arm(working)
        else:
            self._ledger.move(record, OrderStatus.OPEN)
            self.match(working)

    def match(self, working: Working) -> None:
        record, desk = working.record, working.desk
        executions = desk.book.execute(record.side, record.price, record.pending_quantity)
        self.settle(desk, working, executions)
        if not record.pending_quantity:
            return
        if record.validity is Validity.IOC:
            self.drop_remainder(working)
            return
        self.rest(working)

    def rest(self, working: Working) -> None:
        """Let what is pending of an order stand in the book."""
        record = working.record
        working.resting = Resting(
            record.side,
            record.price,
            record.pending_quantity,
            disclosed=record.disclosed_quantity,
            record=record,
        )
        working.desk.book.side(record.side).add(working.resting)

    def settle(
        self, desk: Desk, incoming: Working | None, executions: list[tuple[Resting, int]]
    ) -> None:
        """Book what an incoming order of a client (or of a maker: None) has traded."""
        for resting, quantity in executions:
            if incoming is not None or resting.record is not None:
                trade_number = str(self._ledger.trade_numbers)
                self._ledger.trade_numbers += 1
                if resting.record is not None:
                    met = self.working[resting.record.number]
                    self.fill(met, trade_number, quantity, resting.price)
                if incoming is not None:
                    self.fill(incoming, trade_number, quantity, resting.price)
            self.print_trade(desk, resting.price, quantity)

    def fill(self, working: Working, trade_number: str, quantity: int, price: int) -> None:
        record = working.record
        fill = Fill(
            trade_number=trade_number,
            order_number=record.number,
            account=record.account,
            segment=record.listing.segment,
            token=record.listing.token,
            side=record.side,
            product=record.product,
            quantity=quantity,
            price=price,
            leg=len(record.fills) + 1,
            time_ns=self._clock.stamp(),
        )
        record.fills.append(fill)
        record.filled_quantity += quantity
        record.filled_value += quantity * price
        working.account.fill(working.exposure, fill, working.blocked_price)
        if record.product in COVERED:
            entry = working.account.orders[record.parent_number or record.number]
            self.exits.unbalanced[entry.number] = entry
        if record.pending_quantity:
            self._ledger.move(record, OrderStatus.OPEN)
        else:
            self._ledger.move(record, OrderStatus.COMPLETE)
            self.forget(working)
        self._ledger.events.append(
            PositionChanged(record.account, msgspec.structs.replace(working.exposure.position))
        )

    def print_trade(self, desk: Desk, price: int, quantity: int) -> None:
        desk.day.trade(price, quantity, self._clock.now_ns)
        self._ledger.events.append(Printed(desk.listing, price, quantity, self._clock.now_ns))
        for legs in desk.trailing.values():
            self.exits.trail(legs, price)
        for heap, sign in ((desk.buy_stops, 1), (desk.sell_stops, -1)):
            while heap and heap[0][0] <= price * sign:
                _, sequence, working = heapq.heappop(heap)
                desk.fired.append((sequence, working))

    def arm(self, working: Working) -> None:
        """Let a stop wait for its trigger; one that has been reached already fires next."""
        record = working.record
        self.stops += 1
        working.stop = self.stops
        self._ledger.move(record, OrderStatus.TRIGGER_PENDING)
        self.await_trigger(working)

    def await_trigger(self, working: Working) -> None:
        record, desk = working.record, working.desk
        heap, sign = (desk.buy_stops, 1) if record.side is Side.BUY else (desk.sell_stops, -1)
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
            if record.order_type is OrderType.SL_M:
                record.price = protected_limit(record.listing, record.side, desk.day.last_price)
                self.block(working, -record.pending_quantity)
                working.blocked_price = record.price
                self.block(working, record.pending_quantity)
            self._ledger.move(record, OrderStatus.OPEN)
            self.match(working)

    def cancel(self, working: Working) -> None:
        record = working.record
        self._ledger.move(record, OrderStatus.CANCEL_PENDING)
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
        self._ledger.move(record, OrderStatus.CANCELLED)
        self.forget(working)

    def withdraw(self, working: Working) -> None:
        """Take an order out of the book, or disarm it."""
        if working.resting is not None:
            working.desk.book.side(working.record.side).remove(working.resting)
            working.resting = None
        working.stop = 0

    def forget(self, working: Working) -> None:
        del self.working[working.record.number]
        working.desk.working -= 1

    def block(self, working: Working, quantity: int) -> None:
        """Block funds and stock for that much of an order, or release with a negative quantity."""
        if not working.blocks:
            return
        side = working.record.side
        working.account.block(working.exposure, side, quantity, working.blocked_price)

    def mark(self, desk: Desk) -> None:
        """Note that the desk's picture is another one now."""
        desk.changed_ns = self._clock.now_ns
        if desk.watchers:
            self.changed[desk] = None

    def restore(
        self, state: WorkingState, record: OrderRecord, desk: Desk, resting: Resting | None
    ) -> None:
        account = self._accounts[record.account]
        exposure = account.exposure(record.listing, record.product)
        working = Working(record, account, exposure, desk)
        working.blocked_price = state.blocked_price
        working.blocks = state.blocks
        working.stop = state.stop
        working.resting = resting
        self.working[state.number] = working
        desk.working += 1
        self.block(working, record.pending_quantity)
        if working.stop:
            self.await_trigger(working)
