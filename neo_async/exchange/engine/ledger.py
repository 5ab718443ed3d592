"""The ledger of accepted orders: their numbers, their states, and the events of both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.types import (
    Event,
    Fill,
    Listing,
    NewOrder,
    OrderChanged,
    OrderRecord,
    Position,
    Step,
)
from neo_async.model.enums import OrderStatus, OrderType, Side, Validity

_FIRST_EXCHANGE_NUMBER: Final = 1_100_000_000_000_001
_FIRST_TRADE_NUMBER: Final = 200_000_001
_CONFIRMED: Final = frozenset({OrderStatus.OPEN, OrderStatus.TRIGGER_PENDING})

# Looking up a member of an enum costs as much as a third of a step, hence the names.
_PUT_RECEIVED: Final = OrderStatus.PUT_RECEIVED
_MARKET: Final = OrderType.MARKET
_SL_M: Final = OrderType.SL_M

# The states that an order goes through in one go are one step of its history.
RECEIVED: Final = (OrderStatus.PUT_RECEIVED, OrderStatus.VALIDATION_PENDING)
OPENED: Final = (*RECEIVED, OrderStatus.OPEN_PENDING, OrderStatus.OPEN)
ARMED: Final = (*RECEIVED, OrderStatus.OPEN_PENDING, OrderStatus.TRIGGER_PENDING)
REFUSED: Final = (*RECEIVED, OrderStatus.REJECTED)
OPEN: Final = (OrderStatus.OPEN,)
TRIGGER_PENDING: Final = (OrderStatus.TRIGGER_PENDING,)
COMPLETE: Final = (OrderStatus.COMPLETE,)
CANCEL_PENDING: Final = (OrderStatus.CANCEL_PENDING,)
CANCELLED: Final = (OrderStatus.CANCELLED,)


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's counters, as a snapshot keeps them."""

    orders_accepted: int
    exchange_numbers: int
    trade_numbers: int
    gui_numbers: int


class Ledger:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.orders: list[OrderRecord] = []
        """Orders ever accepted, in order of acceptance."""
        self.events: list[Event] = []
        """Events that have not been taken yet, oldest first."""
        self.orders_accepted = 0
        self.exchange_numbers = _FIRST_EXCHANGE_NUMBER
        self.trade_numbers = _FIRST_TRADE_NUMBER
        self.gui_numbers = 0

    def accept(self, holder: Account, listing: Listing, order: NewOrder) -> OrderRecord:
        """Give an order its number and enter it in ledger and order book."""
        clock = self._clock
        now = clock.stamp()
        order_type = order.order_type
        # `_next_number` written out: every order passes here.
        self.orders_accepted = count = self.orders_accepted + 1
        number = clock.date_code + str(count).zfill(9)
        # By position: by name it takes four times as long.
        record = OrderRecord(
            number,
            holder.name,
            listing,
            order.side,
            order.product,
            order_type,
            order.validity,
            order.quantity,
            0 if order_type is _MARKET or order_type is _SL_M else order.price,
            order.trigger,
            order.disclosed_quantity,
            order.amo,
            order.tag,
            order.tag or self._broker_gui_id(holder.name),
            order.source,
            _PUT_RECEIVED,
            now,
            now,
            order.bracket,
        )
        holder.orders[number] = record
        self.orders.append(record)
        return record

    def accept_contingent(
        self, holder: Account, entry: OrderRecord, side: Side, order_type: OrderType, price: int
    ) -> OrderRecord:
        """Enter an order of the exchange's own, which closes what an entry has filled."""
        now = self._clock.stamp()
        record = OrderRecord(
            number=self._next_number(),
            account=entry.account,
            listing=entry.listing,
            side=side,
            product=entry.product,
            order_type=order_type,
            validity=Validity.DAY,
            quantity=entry.filled_quantity,
            price=price,
            trigger=0,
            disclosed_quantity=0,
            amo=False,
            client_tag="",
            gui_order_id=self._broker_gui_id(entry.account),
            source=entry.source,
            status=_PUT_RECEIVED,
            accepted_ns=now,
            updated_ns=now,
            arrivals=0,
            parent_number=entry.number,
        )
        holder.orders[record.number] = record
        self.orders.append(record)
        return record

    def move(
        self,
        record: OrderRecord,
        statuses: tuple[OrderStatus, ...],
        reject_reason: str = "",
        fill: Fill | None = None,
        position: Position | None = None,
    ) -> None:
        """Take an order through one or more states: one step of its history, one event.

        `fill` is the execution that caused it, `position` a copy of the position after it.
        """
        clock = self._clock
        first = clock.last_stamp + 1
        if first < clock.now_ns:
            first = clock.now_ns
        status = statuses[-1]
        record.status = status
        record.reject_reason = reject_reason
        clock.last_stamp = record.updated_ns = last = first + len(statuses) - 1
        if not record.exchange_ns and status in _CONFIRMED:
            record.exchange_ns = last
        step = Step(
            statuses,
            first,
            record.quantity,
            record.filled_quantity,
            record.filled_value,
            record.price,
            record.trigger,
            record.order_type,
            record.validity,
            reject_reason,
            record.gui_order_id,
            record.request_id,
            record.exchange_number,
            fill,
        )
        record.steps += (step,)
        self.events.append(OrderChanged(record, step, position))

    def apply_terms(self, record: OrderRecord, wanted: OrderRecord) -> None:
        """Give an order the terms of its accepted modification."""
        record.quantity = wanted.quantity
        record.order_type = wanted.order_type
        record.validity = wanted.validity
        record.price = wanted.price
        record.trigger = wanted.trigger
        record.disclosed_quantity = wanted.disclosed_quantity
        record.protection_percent = wanted.protection_percent
        record.request_id += 1
        record.gui_order_id = self._broker_gui_id(record.account)

    def cancelled_gui_id(self, record: OrderRecord) -> str:
        """Return what the books show as the order's tag once it is cancelled."""
        if not record.client_tag:
            return record.gui_order_id
        return f"{record.client_tag}-{self._clock.second}"

    def next_trade_number(self) -> str:
        """Return a new trade number."""
        number = self.trade_numbers
        self.trade_numbers = number + 1
        return str(number)

    def snapshot(self) -> LedgerState:
        """Return the counters; the orders are kept apart from them."""
        return LedgerState(
            orders_accepted=self.orders_accepted,
            exchange_numbers=self.exchange_numbers,
            trade_numbers=self.trade_numbers,
            gui_numbers=self.gui_numbers,
        )

    def restore(self, state: LedgerState, orders: Iterable[OrderRecord]) -> None:
        """Take over counters and orders of a snapshot."""
        self.orders = list(orders)
        self.orders_accepted = state.orders_accepted
        self.exchange_numbers = state.exchange_numbers
        self.trade_numbers = state.trade_numbers
        self.gui_numbers = state.gui_numbers

    def _next_number(self) -> str:
        self.orders_accepted += 1
        return self._clock.date_code + str(self.orders_accepted).zfill(9)

    def _broker_gui_id(self, account: str) -> str:
        self.gui_numbers += 1
        return f"{self._clock.second}-{str(self.gui_numbers).zfill(6)}-{account}-ADMINAPI"
