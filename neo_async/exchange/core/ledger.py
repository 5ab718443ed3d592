"""The orders of a market: their numbers, the states they go through, and what is told of it."""

from __future__ import annotations

from typing import Final

from neo_async.exchange.core.accounts import Account
from neo_async.exchange.core.clock import Clock
from neo_async.exchange.core.sessions import SECOND_NS
from neo_async.exchange.core.state import State
from neo_async.exchange.core.types import (
    Event,
    Listing,
    NewOrder,
    OrderChanged,
    OrderRecord,
    Transition,
)
from neo_async.model.enums import OrderStatus

_FIRST_EXCHANGE_NUMBER: Final = 1_100_000_000_000_001
_FIRST_TRADE_NUMBER: Final = 200_000_001
_CONFIRMED: Final = frozenset({OrderStatus.OPEN, OrderStatus.TRIGGER_PENDING})


class Ledger:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.orders: list[OrderRecord] = []
        """Every order ever accepted, in order of acceptance."""
        self.events: list[Event] = []
        self.orders_accepted = 0
        self.exchange_numbers = _FIRST_EXCHANGE_NUMBER
        self.trade_numbers = _FIRST_TRADE_NUMBER
        self.gui_numbers = 0

    def accept(self, holder: Account, listing: Listing, order: NewOrder) -> OrderRecord:
        now = self._clock.stamp()
        record = OrderRecord(
            number=self.next_number(),
            account=holder.name,
            listing=listing,
            side=order.side,
            product=order.product,
            order_type=order.order_type,
            validity=order.validity,
            quantity=order.quantity,
            price=order.price if order.order_type.has_limit else 0,
            trigger=order.trigger,
            disclosed_quantity=order.disclosed_quantity,
            amo=order.amo,
            client_tag=order.tag,
            gui_order_id=order.tag or self.broker_gui_id(holder.name),
            source=order.source,
            status=OrderStatus.PUT_RECEIVED,
            accepted_ns=now,
            updated_ns=now,
            bracket=order.bracket,
        )
        self.enlist(holder, record)
        return record

    def next_number(self) -> str:
        self.orders_accepted += 1
        return f"{self._clock.date_code()}{self.orders_accepted:09d}"

    def enlist(self, holder: Account, record: OrderRecord) -> None:
        holder.orders[record.number] = record
        self.orders.append(record)

    def take_over(self, record: OrderRecord, wanted: OrderRecord) -> None:
        record.quantity = wanted.quantity
        record.order_type = wanted.order_type
        record.validity = wanted.validity
        record.price = wanted.price
        record.trigger = wanted.trigger
        record.disclosed_quantity = wanted.disclosed_quantity
        record.protection_percent = wanted.protection_percent
        record.request_id += 1
        record.gui_order_id = self.broker_gui_id(record.account)

    def move(self, record: OrderRecord, status: OrderStatus, reject_reason: str = "") -> None:
        """Bring an order into a state: one row of its history, one event."""
        now = self._clock.last_stamp + 1
        if now < self._clock.now_ns:
            now = self._clock.now_ns
        self._clock.last_stamp = now
        record.status = status
        record.reject_reason = reject_reason
        record.updated_ns = now
        if not record.exchange_ns and status in _CONFIRMED:
            record.exchange_ns = now
        filled = record.filled_quantity
        transition = Transition(
            status,
            now,
            record.quantity,
            filled,
            record.price,
            record.trigger,
            record.filled_value / filled if filled else 0.0,
            record.order_type,
            record.validity,
            reject_reason,
            record.gui_order_id,
            record.request_id,
            record.exchange_number,
        )
        record.history.append(transition)
        self.events.append(OrderChanged(record, transition))

    def broker_gui_id(self, account: str) -> str:
        self.gui_numbers += 1
        return f"{self._clock.now_ns // SECOND_NS}-{self.gui_numbers:06d}-{account}-ADMINAPI"

    def cancelled_gui_id(self, record: OrderRecord) -> str:
        if not record.client_tag:
            return record.gui_order_id
        return f"{record.client_tag}-{self._clock.now_ns // SECOND_NS}"

    def restore(self, state: State) -> None:
        self.orders = state.ledger
        self.orders_accepted = state.orders_accepted
        self.exchange_numbers = state.exchange_numbers
        self.trade_numbers = state.trade_numbers
        self.gui_numbers = state.gui_numbers
