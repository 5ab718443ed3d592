"""The legs of cover and bracket orders at work: made, resized, moved and ended (see legs.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.instrument_state import Desk, Working, at_work
from neo_async.exchange.engine.ledger import Ledger
from neo_async.exchange.engine.oco_group import Legs, inside, target_and_trigger
from neo_async.exchange.engine.protection import protected_limit, protection_percent
from neo_async.exchange.engine.types import OrderRecord
from neo_async.model.enums import OrderStatus, OrderType, Product, Side

if TYPE_CHECKING:
    from neo_async.exchange.engine.matching import Matching


class Exits:
    def __init__(self, ledger: Ledger, accounts: dict[str, Account], matching: Matching) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._matching = matching
        self.legs: dict[str, Legs] = {}
        """Exits that are still wanted, by the numbers of their entry and of both legs."""
        self.unbalanced: dict[str, OrderRecord] = {}
        """Entries whose legs no longer fit what has been filled, by number."""

    def balance_next(self, desk: Desk) -> None:
        """Balance the entry that has waited longest."""
        self.balance(self.unbalanced.pop(next(iter(self.unbalanced))), desk)

    def balance(self, entry: OrderRecord, desk: Desk) -> None:
        """Bring the legs of an entry to what they have to close, and end what has no use left."""
        legs = self.legs.get(entry.number)
        if legs is None:
            self.make(entry, desk)
            return
        orders = self._accounts[entry.account].orders
        exits = [orders[number] for number in (legs.target, legs.stop) if number]
        closed = sum(record.filled_quantity for record in exits)
        working_entry = self._matching.working.get(entry.number)
        if closed and working_entry is not None:
            self._matching.cancel(working_entry)
        for record in exits:
            working = self._matching.working.get(record.number)
            if working is not None:
                self.resize(working, entry.filled_quantity - closed)
        stop, target = (
            self._matching.working.get(legs.stop),
            self._matching.working.get(legs.target),
        )
        if stop is not None and target is None:
            self.let_block(stop)
        if stop is None and target is None:
            for number in (legs.entry, legs.target, legs.stop):
                self.legs.pop(number, None)
            desk.trailing.pop(entry.number, None)

    def make(self, entry: OrderRecord, desk: Desk) -> None:
        listing, base = entry.listing, entry.fills[0].price
        side = entry.side.opposite
        target_price, trigger = target_and_trigger(entry, base)
        trigger = inside(listing, trigger)
        stop = self.new_leg(entry, desk, OrderType.SL, protected_limit(listing, side, trigger))
        stop.record.trigger = trigger
        legs = Legs(
            entry=entry.number,
            stop=stop.record.number,
            base=base,
            first_trigger=trigger,
            step=entry.bracket.trail_step(listing.tick) if entry.bracket else 0,
        )
        self.legs[legs.entry] = self.legs[legs.stop] = legs
        if legs.step:
            desk.trailing[entry.number] = legs
        if entry.product is Product.BO:
            stop.blocks = False
            target = self.new_leg(entry, desk, OrderType.LIMIT, inside(listing, target_price))
            legs.target = target.record.number
            self.legs[legs.target] = legs
            self.start(target)
        self.start(stop)

    def new_leg(self, entry: OrderRecord, desk: Desk, order_type: OrderType, price: int) -> Working:
        holder = self._accounts[entry.account]
        record = self._ledger.accept_leg(holder, entry, entry.side.opposite, order_type, price)
        return at_work(record, holder, holder.exposure(entry.listing, entry.product), desk)

    def start(self, leg: Working) -> None:
        self._matching.block(leg, leg.record.pending_quantity)
        self._matching.take_on(leg)
        self._matching.put_to_work(leg)

    def resize(self, working: Working, pending: int) -> None:
        """Let a leg close that much from now on; it loses its place in the queue when it grows."""
        record, book = working.record, working.desk.book.side(working.record.side)
        if pending == record.pending_quantity:
            return
        if not pending:
            self._matching.cancel(working)
            return
        self._matching.block(working, pending - record.pending_quantity)
        grows = pending > record.pending_quantity
        record.quantity = record.filled_quantity + pending
        if working.rests and grows:
            book.remove(working)
            self._matching.rest(working)
        elif working.rests:
            book.shrink(working, pending)
        self._ledger.move(record, (record.status,))

    def trail(self, legs: Legs, price: int) -> None:
        """Let a stop that waits for its trigger follow a favourable price."""
        working = self._matching.working.get(legs.stop)
        if working is None or not working.stop:
            return
        record = working.record
        sign = 1 if record.side is Side.SELL else -1
        trigger = legs.trigger_at(price, sign)
        if (trigger - record.trigger) * sign <= 0:
            return
        record.trigger = inside(record.listing, trigger)
        record.price = protected_limit(record.listing, record.side, record.trigger)
        self._matching.arm(working)

    def leave_to_stop(self, stop: Working) -> None:
        """Once the stop works, nothing else of its bracket does."""
        legs = self.legs[stop.record.number]
        for number in (legs.entry, legs.target):
            other = self._matching.working.get(number)
            if other is not None:
                self._matching.cancel(other)
        self.let_block(stop)

    def let_block(self, stop: Working) -> None:
        if not stop.blocks:
            stop.blocks = True
            self._matching.block(stop, stop.record.pending_quantity)

    def square_off(self, stop: Working) -> None:
        """Turn a stop into what a market order would be at this moment."""
        record, desk = stop.record, stop.desk
        self.leave_to_stop(stop)
        self._matching.withdraw(stop)
        self._matching.block(stop, -record.pending_quantity)
        record.order_type = OrderType.LIMIT
        record.trigger = 0
        record.protection_percent = protection_percent(record.listing, desk.day.last_price)
        record.price = stop.blocked_price = protected_limit(
            record.listing, record.side, desk.day.last_price
        )
        self._matching.block(stop, record.pending_quantity)
        self._ledger.move(record, (OrderStatus.MODIFIED, OrderStatus.OPEN))
        self._matching.match(stop)
        self._matching.follow_up(desk)
        self._matching.mark(desk)

    def restore(self, legs: Legs, desk: Desk) -> None:
        for number in (legs.entry, legs.stop, legs.target):
            if number:
                self.legs[number] = legs
        if legs.step:
            desk.trailing[legs.entry] = legs
