"""Contingent orders at work: created with the first fill of an entry, resized, triggered,
cancelled.

Their prices, and what ties an entry to its target and stop, are in oco_group.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.instrument_state import InstrumentState, WorkingOrder, working_order
from neo_async.exchange.engine.ledger import Ledger
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.oco_group import OcoGroup, exit_prices, within_bands
from neo_async.exchange.engine.protection import protected_limit, protection_percent
from neo_async.exchange.engine.types import OrderRecord
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment


class ContingentOrders:
    def __init__(self, ledger: Ledger, accounts: dict[str, Account], matching: Matching) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._matching = matching
        self.groups: dict[str, OcoGroup] = {}
        """Groups that are still needed, by the numbers of entry, target and stop."""

    def process_triggers(self, instrument: InstrumentState) -> None:
        """Adjust contingent orders to the fills and send triggered stops into the book, until the
        trades that follow from it cause neither any more."""
        matching = self._matching
        entries = matching.entries_to_adjust
        while instrument.triggered or entries:
            if entries:
                # The entry that has waited longest comes first.
                self._adjust(entries.pop(next(iter(entries))), instrument)
                continue
            sequence, working = instrument.triggered.popleft()
            if working.stop != sequence:
                continue  # changed or cancelled since
            working.stop = 0
            if working.record.parent_number:
                self._cancel_siblings(working)
            matching.trigger(working)

    def _adjust(self, entry: OrderRecord, instrument: InstrumentState) -> None:
        """Resize the contingent orders of an entry to what they have to close, and end the group
        when both are final."""
        group = self.groups.get(entry.number)
        if group is None:
            self._create(entry, instrument)
            return
        orders, working_orders = self._accounts[entry.account].orders, self._matching.working
        exits = [orders[number] for number in (group.target, group.stop) if number]
        closed = sum(record.filled_quantity for record in exits)
        working_entry = working_orders.get(entry.number)
        if closed and working_entry is not None:
            self._matching.cancel(working_entry)
        for record in exits:
            working = working_orders.get(record.number)
            if working is not None:
                self._resize(working, entry.filled_quantity - closed)
        stop, target = working_orders.get(group.stop), working_orders.get(group.target)
        if stop is not None and target is None:
            self._reserve_stop_margin(stop)
        if stop is None and target is None:
            for number in (group.entry, group.target, group.stop):
                self.groups.pop(number, None)
            instrument.trailing.pop(entry.number, None)

    def _create(self, entry: OrderRecord, instrument: InstrumentState) -> None:
        """Place target and stop of an entry that has been filled for the first time."""
        listing, base = entry.listing, entry.fills[0].price
        side = entry.side.opposite
        target_price, trigger = exit_prices(entry, base)
        trigger = within_bands(listing, trigger)
        limit = protected_limit(listing, side, trigger)
        stop = self._accept(entry, instrument, OrderType.SL, limit)
        stop.record.trigger = trigger
        group = OcoGroup(
            entry=entry.number,
            stop=stop.record.number,
            base=base,
            first_trigger=trigger,
            step=entry.bracket.trail_step(listing.tick) if entry.bracket else 0,
        )
        self.groups[group.entry] = self.groups[group.stop] = group
        if group.step:
            instrument.trailing[entry.number] = group
        if entry.product is Product.BO:
            stop.reserves_margin = False
            limit = within_bands(listing, target_price)
            target = self._accept(entry, instrument, OrderType.LIMIT, limit)
            group.target = target.record.number
            self.groups[group.target] = group
            self._activate(target)
        self._activate(stop)

    def _accept(
        self, entry: OrderRecord, instrument: InstrumentState, order_type: OrderType, price: int
    ) -> WorkingOrder:
        holder = self._accounts[entry.account]
        record = self._ledger.accept_contingent(
            holder, entry, entry.side.opposite, order_type, price
        )
        exposure = holder.exposure(entry.listing, entry.product)
        return working_order(record, holder, exposure, instrument)

    def _activate(self, working: WorkingOrder) -> None:
        self._matching.reserve_margin(working, working.record.pending_quantity)
        self._matching.accept(working)
        self._matching.activate(working)

    def _resize(self, working: WorkingOrder, pending: int) -> None:
        """Let a contingent order close `pending` units; it loses its queue place if it grows."""
        record, book = working.record, working.instrument.book.side(working.record.side)
        if pending == record.pending_quantity:
            return
        if not pending:
            self._matching.cancel(working)
            return
        self._matching.reserve_margin(working, pending - record.pending_quantity)
        grows = pending > record.pending_quantity
        record.quantity = record.filled_quantity + pending
        if working.rests and grows:
            book.remove(working)
            self._matching.rest(working)
        elif working.rests:
            book.shrink(working, pending)
        self._ledger.move(record, (record.status,))

    def _cancel_siblings(self, stop: WorkingOrder) -> None:
        """Cancel entry and target of a stop that is triggered."""
        group = self.groups[stop.record.number]
        for number in (group.entry, group.target):
            other = self._matching.working.get(number)
            if other is not None:
                self._matching.cancel(other)
        self._reserve_stop_margin(stop)

    def _reserve_stop_margin(self, stop: WorkingOrder) -> None:
        """Reserve margin for a stop that has lost its target, which reserved for both."""
        if not stop.reserves_margin:
            stop.reserves_margin = True
            self._matching.reserve_margin(stop, stop.record.pending_quantity)

    def square_off(self, number: str) -> bool:
        """End the group of an order: cancel entry and target, send the stop as a market order.

        Returns False when the order belongs to no group.
        """
        group = self.groups.get(number)
        if group is None:
            return False
        matching = self._matching
        entry = matching.working.get(group.entry)
        if entry is not None:
            matching.cancel(entry)
        stop = matching.working[group.stop]
        record, instrument = stop.record, stop.instrument
        last_price = instrument.stats.last_price
        self._cancel_siblings(stop)
        matching.withdraw(stop)
        matching.reserve_margin(stop, -record.pending_quantity)
        record.order_type = OrderType.LIMIT
        record.trigger = 0
        record.protection_percent = protection_percent(record.listing, last_price)
        limit = protected_limit(record.listing, record.side, last_price)
        record.price = stop.margin_price = limit
        matching.reserve_margin(stop, record.pending_quantity)
        self._ledger.move(record, (OrderStatus.MODIFIED, OrderStatus.OPEN))
        matching.match(stop)
        self.process_triggers(instrument)
        matching.mark_changed(instrument)
        return True

    def discard(self, concerns: Callable[[str], bool]) -> None:
        """Forget the groups of the orders, by number, for which `concerns` is true."""
        self.groups = {
            number: group for number, group in self.groups.items() if not concerns(number)
        }

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self) -> list[OcoGroup]:
        """Return every group once."""
        return [group for number, group in self.groups.items() if number == group.entry]

    def restore(
        self,
        groups: Iterable[OcoGroup],
        records: Mapping[str, OrderRecord],
        instruments: Mapping[tuple[Segment, str], InstrumentState],
    ) -> None:
        """Take over the groups of a snapshot."""
        for group in groups:
            for number in (group.entry, group.stop, group.target):
                if number:
                    self.groups[number] = group
            if group.step:
                listing = records[group.entry].listing
                instruments[listing.segment, listing.token].trailing[group.entry] = group
