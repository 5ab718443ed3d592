"""Client requests: orders placed, modified, cancelled and exited, from the request to the book."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.commands import Modify, Place
from neo_async.exchange.engine.contingent_orders import ContingentOrders
from neo_async.exchange.engine.instrument_state import InstrumentState, WorkingOrder, working_order
from neo_async.exchange.engine.ledger import OPEN, RECEIVED, REFUSED, Ledger
from neo_async.exchange.engine.listed_instruments import ListedInstruments
from neo_async.exchange.engine.market_makers import MarketMakers
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.order_checks import (
    check_bracket,
    check_change,
    check_listing,
    check_terms,
    entity,
    reject_reason,
)
from neo_async.exchange.engine.protection import protected_limit, protection_percent
from neo_async.exchange.engine.trading_hours import Phase, indian_day
from neo_async.exchange.engine.types import (
    Change,
    Hours,
    Listing,
    NewOrder,
    OrderRecord,
    Refusal,
    Repeated,
    Rules,
)
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity

_TAG_EXISTS: Final = "Put Order Response : Client OrderID already exists Data: 0"
"""Prose that the broker puts into `stat` of a refused duplicate tag, blanks included."""
_CO: Final = Product.CO
_BO: Final = Product.BO
_MIS: Final = Product.MIS
_NRML: Final = Product.NRML
_MARKET: Final = OrderType.MARKET


class Orders:
    def __init__(
        self,
        clock: Clock,
        ledger: Ledger,
        matching: Matching,
        contingent_orders: ContingentOrders,
        listed: ListedInstruments,
        market_makers: MarketMakers,
        accounts: dict[str, Account],
        phases: dict[Segment, Phase],
        rules: Rules,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._matching = matching
        self._contingent_orders = contingent_orders
        self._listed = listed
        self._market_makers = market_makers
        self._accounts = accounts
        self._phases = phases
        self._rules = rules
        self._is_always_open = rules.hours is Hours.ALWAYS
        self.queued: dict[str, OrderRecord] = {}
        """Queue of after-market orders that wait for the open, by number."""
        self.tags: dict[tuple[str, int, str], OrderRecord] = {}
        """Orders by account, day and client tag."""

    def set_rules(self, rules: Rules) -> None:
        """Use other rules for orders that come from now on. The hours must be the same."""
        self._rules = rules

    def place(self, command: Place) -> OrderRecord:
        """Accept an order and enter it, or queue it until the open. Raises Refusal."""
        account, order = command.account, command.order
        holder = self._accounts[account]
        tag_key = (account, self._clock.day, order.tag) if order.tag else None
        if tag_key and (earlier := self.tags.get(tag_key)):
            earlier.arrivals += 1
            self._ledger.events.append(Repeated(earlier))
            raise Refusal(32, "error from core", http_status=200, stat=_TAG_EXISTS)
        listing = self.listing_of(order)
        waits = order.amo if self._is_always_open else self._waits(order)
        check_terms(listing, order, is_cover=order.product is _CO)
        if order.bracket is not None or order.product is _BO:
            check_bracket(order)
        record = self._ledger.accept(holder, listing, order)
        if tag_key:
            self.tags[tag_key] = record
        if waits:
            self.queued[record.number] = record
            self._ledger.move(record, (OrderStatus.AMO_RECEIVED,))
        else:
            self.enter(record)
        return record

    def modify(self, command: Modify) -> OrderRecord:
        """Change an order that is queued or working. Raises Refusal."""
        number, change = command.number, command.change
        record = self._changeable(command.account, number)
        check_change(record, change, self._rules)
        if number in self.queued:
            self._ledger.apply_terms(record, msgspec.structs.replace(record, **_terms(change)))
            self._ledger.move(record, (OrderStatus.AMO_MODIFY_RECEIVED,))
        else:
            self._modify_working(self._matching.working[number], change)
        return record

    def release(self, segments: Collection[Segment]) -> None:
        """Send the queued orders of these segments to the market, in order of acceptance."""
        queue = self.queued
        self.queued = {
            number: record
            for number, record in queue.items()
            if record.listing.segment not in segments
        }
        for record in queue.values():
            if record.listing.segment not in segments:
                continue
            if self._listed.has_expired(record.listing):
                self._ledger.move(record, REFUSED, f"contract expired {entity(record)}")
            else:
                self.enter(record)

    def listing_of(self, order: NewOrder) -> Listing:
        """Return the listing of an order. Raises Refusal if its product is not traded there."""
        listing = self._listed.by_symbol.get((order.segment, order.symbol))
        if listing is None:
            raise Refusal(1007, f"invalid symbol {order.symbol!r} in {order.segment.value}")
        product = order.product
        if listing.expiry is not None or not (product is _MIS or product is _NRML):
            check_listing(listing, product, self._rules, self._clock.date)
        return listing

    def cancel(self, account: str, number: str) -> OrderRecord:
        """Cancel the pending quantity of an order; a contingent order exits its whole group.

        Raises Refusal.
        """
        record = self._changeable(account, number)
        if record.parent_number:
            return self.exit(account, number)
        if self.queued.pop(number, None):
            record.cancelled_quantity = record.pending_quantity
            record.gui_order_id = self._ledger.cancelled_gui_id(record)
            self._ledger.move(record, (OrderStatus.AMO_CANCELLED,))
            return record
        self._matching.cancel(self._matching.working[number])
        return record

    def exit(self, account: str, number: str) -> OrderRecord:
        """End a cover or bracket order at market; cancel any other order. Raises Refusal."""
        record = self._accounts[account].orders.get(number)
        if record is None or not self._contingent_orders.square_off(number):
            return self.cancel(account, number)
        return record

    def _waits(self, order: NewOrder) -> bool:
        """Return whether an order waits for the open, where trading hours apply.

        Raises Refusal for an after-market order while the market is open, and for any other while
        it is closed.
        """
        phase = self._phases[order.segment]
        if order.amo and phase is Phase.OPEN:
            raise Refusal(1008, "after market order not allowed while the market is open")
        if not order.amo and phase is Phase.CLOSED:
            raise Refusal(1008, "market closed")
        return phase is not Phase.OPEN

    def enter(self, record: OrderRecord) -> None:
        """Validate an accepted order, reserve its margin and bring it to the book."""
        matching, listing = self._matching, record.listing
        noted = 0
        instrument = self._market_makers.instrument(listing)
        holder = self._accounts[record.account]
        if record.order_type is _MARKET:
            self._ledger.move(record, RECEIVED)
            noted = len(RECEIVED)
            self._price_market_order(record, instrument)
        working = working_order(
            record, holder, holder.exposure(listing, record.product), instrument
        )
        reason = reject_reason(record, holder, self._rules) or self._reserve(record, working)
        if reason:
            self._ledger.move(record, REFUSED[noted:], reason)
            return
        matching.accept(working)
        matching.activate(working, noted)
        if instrument.triggered or matching.entries_to_adjust:
            self._contingent_orders.process_triggers(instrument)
        matching.mark_changed(instrument)

    def _price_market_order(self, record: OrderRecord, instrument: InstrumentState) -> None:
        """Turn a market order into a limit order; without a last price it is rejected later."""
        last_price = instrument.stats.last_price
        if not last_price:
            return
        record.order_type = OrderType.LIMIT
        record.price = self.market_limit(record.listing, record.side, last_price)
        if self._rules.protected_market_orders:
            record.protection_percent = protection_percent(record.listing, last_price)
        else:
            record.validity = Validity.IOC

    def market_limit(self, listing: Listing, side: Side, last_price: int) -> int:
        """Return the limit that a market order gets at a last price."""
        if self._rules.protected_market_orders:
            return protected_limit(listing, side, last_price)
        return listing.upper_band if side is Side.BUY else listing.lower_band

    def _reserve(self, record: OrderRecord, working: WorkingOrder, allowance: int = 0) -> str:
        """Reserve funds and stock for an order; return why, and reserve none, if they fall short.

        `allowance` is margin that the order may use however little is available: a modification
        has released it just before.
        """
        pending = record.quantity - record.filled_quantity
        available = working.account.available
        # A stop-loss market order reserves margin for the limit it would get at its trigger.
        working.margin_price = record.price or protected_limit(
            record.listing, record.side, record.trigger
        )
        cost = self._matching.reserve_margin(working, pending)
        if cost <= available or cost <= allowance:
            return ""
        self._matching.reserve_margin(working, -pending)
        return (
            f"RMS:Margin Exceeds,Cash Available:{available / 100:.2f},Additional margin "
            f"required:{(cost - available) / 100:.2f} {entity(record)}"
        )

    def _changeable(self, account: str, number: str) -> OrderRecord:
        record = self._accounts[account].orders.get(number)
        if record is None or not (number in self._matching.working or number in self.queued):
            raise Refusal(
                1021,
                "order is completed",
                http_status=200,
                stat="please provide valid order number",
            )
        return record

    def _modify_working(self, working: WorkingOrder, change: Change) -> None:
        record, holder = working.record, working.account
        before = record.status
        self._ledger.move(record, (OrderStatus.MODIFY_VALIDATION_PENDING,))
        was_triggered = record.order_type.has_trigger and not working.stop
        wanted = msgspec.structs.replace(record, **_terms(change))
        if wanted.order_type is OrderType.MARKET:
            self._price_market_order(wanted, working.instrument)
        elif was_triggered and wanted.order_type is OrderType.SL_M:
            wanted.price = record.price

        available, margin_price = holder.available, working.margin_price
        self._matching.reserve_margin(working, -record.pending_quantity)
        released = holder.available - available
        reason = reject_reason(wanted, holder, self._rules) or self._reserve(
            wanted, working, released
        )
        if reason:
            working.margin_price = margin_price
            self._matching.reserve_margin(working, record.pending_quantity)
            self._ledger.move(record, (before,), reason)
            return
        self._ledger.move(record, (OrderStatus.MODIFY_PENDING,))
        keeps_place = working.rests and _only_shrinks(record, wanted)
        self._ledger.apply_terms(record, wanted)
        self._ledger.move(record, (OrderStatus.MODIFIED,))

        if keeps_place:
            working.instrument.book.side(record.side).shrink(working, record.pending_quantity)
        else:
            self._matching.withdraw(working)
            if record.order_type.has_trigger and not was_triggered:
                self._matching.arm(working)
            else:
                self._matching.match(working)
        if record.status is OrderStatus.MODIFIED:
            self._ledger.move(record, OPEN)
        self._contingent_orders.process_triggers(working.instrument)
        self._matching.mark_changed(working.instrument)

    def restore(self, records: dict[str, OrderRecord], queued: list[str]) -> None:
        """Rebuild queue and tags; all orders of an instrument share one listing object again."""
        for record in records.values():
            listing = self._listed.by_token.get((record.listing.segment, record.listing.token))
            if listing == record.listing:
                record.listing = listing
            if record.client_tag:
                day = indian_day(record.accepted_ns)
                self.tags[record.account, day, record.client_tag] = record
        self.queued = {number: records[number] for number in queued}


def _terms(change: Change) -> dict[str, Any]:
    """Return the fields of an order that a modification replaces."""
    return {
        "quantity": change.quantity,
        "order_type": change.order_type,
        "validity": change.validity,
        "price": change.price if change.order_type.has_limit else 0,
        "trigger": change.trigger,
        "disclosed_quantity": change.disclosed_quantity,
        "protection_percent": 0.0,
    }


def _only_shrinks(record: OrderRecord, wanted: OrderRecord) -> bool:
    """Return whether a modification leaves the order its place in the queue."""
    return (
        wanted.quantity <= record.quantity
        and wanted.price == record.price
        and wanted.order_type is record.order_type
        and wanted.validity is record.validity
        and wanted.disclosed_quantity == record.disclosed_quantity
    )
