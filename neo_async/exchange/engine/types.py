"""Value types of the matching engine. Money is integer paise, quantities are units, times Unix
ns."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from neo_async.model.enums import (
    OffsetKind,
    OrderStatus,
    OrderType,
    Product,
    Segment,
    Side,
    Validity,
)


class Listing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An instrument that trades here."""

    segment: Segment
    token: str
    symbol: str
    """Trading symbol, `ITBEES-EQ`; unique in the segment."""
    name: str
    """Name without series, `ITBEES`."""
    series: str = "EQ"
    description: str = ""
    isin: str = ""
    lot_size: int = 1
    tick: int = 5
    base_price: int
    """Previous close: where the reference price starts and the day's change counts from."""
    lower_band: int
    upper_band: int
    """Circuit limits, both allowed prices."""
    freeze_quantity: int = 0
    """Largest quantity of one order; 0 sets none."""
    kind: str = ""
    """`FUTIDX FUTSTK OPTIDX OPTSTK` …; empty in the cash segments."""
    expiry: date | None = None
    strike: int = 0
    option_type: str = ""
    """`CE`, `PE`, or empty."""
    underlying: str = ""
    """`nse_cm|26000`, of a derivative whose makers quote around its value: the share or the index
    that this value follows. Empty: the price walks by itself."""

    @property
    def is_option(self) -> bool:
        return self.option_type in ("CE", "PE")


class Index(msgspec.Struct, frozen=True):
    """A stock index, which does not trade itself."""

    segment: Segment
    token: str
    name: str
    close: int
    """Previous close in hundredths of a point."""
    weights: tuple[tuple[str, int], ...]
    """Trading symbol and weight of each member."""
    underlying: str = ""
    """Name in the scrip master, and of its derivatives: `NIFTY`; empty where it is in neither."""
    aliases: tuple[str, ...] = ()
    """Other names under which it can be requested."""
    elasticity: int = 1
    """Percent by which it moves when its members move by one; negative for one that falls as they
    rise."""

    @property
    def key(self) -> str:
        """`nse_cm|26000`."""
        return f"{self.segment.value}|{self.token}"

    @property
    def symbol(self) -> str:
        """The symbol as acknowledgements spell it: `Nifty 50-IN`."""
        return f"{self.name}-IN"


class Hours(StrEnum):
    """The hours at which orders trade."""

    ALWAYS = "always"
    """Orders trade at any time, and no day ends by itself."""
    EXCHANGE = "exchange"
    """Orders trade in the exchanges' sessions; see trading_hours.py."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of the market; by default those that the live broker has had since April 2026."""

    covered_orders: bool = False
    """Whether CO and BO are accepted; otherwise a placement is refused with code 1017, "BO/CO
    OrderType not allowed for TRADEAPI"."""
    stop_market_orders: bool = False
    """Whether SL-M is accepted; otherwise the order gets a number and is rejected with "Market
    order with Algo Id not allowed"."""
    protected_market_orders: bool = True
    """Whether a market order becomes a limit order at the published band; otherwise it trades at
    any price within the circuit limits, and what finds no counterparty is cancelled."""
    type_changes: bool = True
    """Whether a modification may change the type of an order; otherwise it is refused with code
    1009, "please provide valid order type"."""
    hours: Hours = Hours.ALWAYS
    """Whether orders trade at any time, or in the exchanges' sessions only."""

    @classmethod
    def before_2026(cls, *, hours: Hours = Hours.ALWAYS) -> Rules:
        """Return the rules until March 2026: CO, BO and SL-M are accepted, and market orders trade
        at any price within the circuit limits."""
        return cls(
            covered_orders=True,
            stop_market_orders=True,
            protected_market_orders=False,
            hours=hours,
        )


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """Contingent orders of a bracket order: distances from the entry, in paise or in ticks by their
    kind."""

    target: int
    stop: int
    trail: int = 0
    """Step by which the stop follows a favourable price, of the stop's kind; 0: it does not."""
    target_kind: OffsetKind = OffsetKind.ABSOLUTE
    stop_kind: OffsetKind = OffsetKind.ABSOLUTE

    def target_distance(self, tick: int) -> int:
        """Return the distance of the target from the entry price, in paise."""
        return self.target * (tick if self.target_kind is OffsetKind.TICKS else 1)

    def stop_distance(self, tick: int) -> int:
        return self.stop * (tick if self.stop_kind is OffsetKind.TICKS else 1)

    def trail_step(self, tick: int) -> int:
        """Return the step of a trailing stop in whole ticks, in paise; 0 when it does not trail."""
        if self.stop_kind is OffsetKind.TICKS:
            return self.trail * tick
        return max(self.trail // tick, 1) * tick if self.trail else 0


class NewOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order as requested, already parsed."""

    segment: Segment
    symbol: str
    side: Side
    quantity: int
    order_type: OrderType
    product: Product
    validity: Validity = Validity.DAY
    price: int = 0
    trigger: int = 0
    disclosed_quantity: int = 0
    amo: bool = False
    tag: str = ""
    source: str = ""
    bracket: Bracket | None = None
    """Terms of the bracket; needed for product BO, and for no other."""


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A modification: every field is the new value (`quantity` the new total)."""

    quantity: int
    order_type: OrderType
    validity: Validity
    price: int
    trigger: int
    disclosed_quantity: int


class Fill(msgspec.Struct, frozen=True, gc=False):
    """A fill: one execution of one order."""

    trade_number: str
    order_number: str
    account: str
    segment: Segment
    token: str
    side: Side
    product: Product
    quantity: int
    price: int
    leg: int
    """Count within the order, from 1."""
    time_ns: int


class Transition(msgspec.Struct, frozen=True, gc=False):
    """A state an order went through: one row of its history."""

    status: OrderStatus
    time_ns: int
    quantity: int
    filled_quantity: int
    price: int
    trigger: int
    average_price: float
    """Paise; 0 before the first fill."""
    order_type: OrderType
    validity: Validity
    reject_reason: str
    gui_order_id: str
    request_id: int
    exchange_number: str


class Step(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """States that an order went through in one go, a nanosecond apart and on the same terms.

    Kept in place of as many rows, which are seldom read: see `OrderRecord.history`.
    """

    statuses: tuple[OrderStatus, ...]
    time_ns: int
    """Time of the first state."""
    quantity: int
    filled_quantity: int
    filled_value: int
    price: int
    trigger: int
    order_type: OrderType
    validity: Validity
    reject_reason: str
    """Reject reason of the last state."""
    gui_order_id: str
    request_id: int
    exchange_number: str
    """Exchange number, of the states from open on."""
    fill: Fill | None = None
    """The execution that caused the step."""

    def rows(self) -> list[Transition]:
        last = len(self.statuses) - 1
        filled = self.filled_quantity
        return [
            Transition(
                status,
                self.time_ns + index,
                self.quantity,
                filled,
                self.price,
                self.trigger,
                self.filled_value / filled if filled else 0.0,
                self.order_type,
                self.validity,
                self.reject_reason if index == last else "",
                self.gui_order_id,
                self.request_id,
                "NA" if status in _ON_THE_WAY else self.exchange_number,
            )
            for index, status in enumerate(self.statuses)
        ]


_ON_THE_WAY: Final = frozenset(
    {OrderStatus.PUT_RECEIVED, OrderStatus.VALIDATION_PENDING, OrderStatus.OPEN_PENDING}
)
"""States before the order has an exchange number."""


class OrderRecord(msgspec.Struct, gc=False):
    """An order the exchange accepted, as it stands now."""

    number: str
    """YYMMDD of the trading day and a nine-digit sequence."""
    account: str
    listing: Listing
    side: Side
    product: Product
    order_type: OrderType
    validity: Validity
    quantity: int
    price: int
    trigger: int
    disclosed_quantity: int
    amo: bool
    client_tag: str
    """Tag as the client sent it; never overwritten."""
    gui_order_id: str
    """Tag as the books show it: overwritten by a modification, suffixed by a cancel."""
    source: str
    status: OrderStatus
    accepted_ns: int
    updated_ns: int
    bracket: Bracket | None = None
    exchange_number: str = "NA"
    exchange_ns: int = 0
    """Time at which the exchange confirmed it; 0 before."""
    filled_quantity: int = 0
    filled_value: int = 0
    """Sum of price x quantity over the fills."""
    cancelled_quantity: int = 0
    reject_reason: str = ""
    request_id: int = 1
    """Number of the terms, one higher after every accepted modification."""
    arrivals: int = 1
    """Count of placement requests with this order's tag, refused repeats included."""
    protection_percent: float = 0.0
    """Band by which a market order was limited; 0 for every other order."""
    parent_number: str = ""
    """Number of the entry whose fills a contingent order closes."""
    fill_count: int = 0
    steps: tuple[Step, ...] = ()
    """History, oldest first. A tuple, because lists would burden the garbage collector."""

    @property
    def place(self) -> int:
        """Place in the ledger, from 1."""
        return int(self.number[6:])

    @property
    def fills(self) -> list[Fill]:
        """Fills of the order, oldest first."""
        return [step.fill for step in self.steps if step.fill is not None]

    @property
    def history(self) -> list[Transition]:
        """States that the order went through, oldest first."""
        return [row for step in self.steps for row in step.rows()]

    @property
    def pending_quantity(self) -> int:
        return self.quantity - self.filled_quantity - self.cancelled_quantity

    @property
    def average_price(self) -> float:
        """Return the distance of the target from the entry price, in paise."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else 0.0


class Holding(msgspec.Struct, kw_only=True):
    """Delivery stock of an account."""

    listing: Listing
    quantity: int
    average_price: float
    """Paise, four decimals of a rupee kept."""
    sellable_quantity: int


class Position(msgspec.Struct, kw_only=True, gc=False):
    """Business of an account in one instrument and product: today's, and what was carried there
    from earlier days, at the previous close."""

    listing: Listing
    product: Product
    buy_quantity: int = 0
    sell_quantity: int = 0
    buy_value: int = 0
    sell_value: int = 0
    carried_buy_quantity: int = 0
    carried_sell_quantity: int = 0
    carried_buy_value: int = 0
    carried_sell_value: int = 0
    updated_ns: int = 0

    @property
    def bought(self) -> int:
        """Units, carried ones included."""
        return self.carried_buy_quantity + self.buy_quantity

    @property
    def sold(self) -> int:
        return self.carried_sell_quantity + self.sell_quantity

    @property
    def bought_value(self) -> int:
        return self.carried_buy_value + self.buy_value

    @property
    def sold_value(self) -> int:
        return self.carried_sell_value + self.sell_value


class Funds(msgspec.Struct, frozen=True, kw_only=True):
    """Funds of an account, in paise."""

    cash: int
    """Cash with which the account was opened, and all that has been settled since."""
    margin_used: int
    """Margin of working orders and open positions, unpaid deliveries included."""
    delivery_credit: int
    """Proceeds of delivery stock sold today, over what was bought of it."""
    realised: int
    """Closed part of the margin products' positions."""

    @property
    def available(self) -> int:
        return self.cash + self.delivery_credit + self.realised - self.margin_used


class OrderChanged(msgspec.Struct, frozen=True, gc=False):
    """An order has reached the states of `step`; `record` is live and may be further on."""

    record: OrderRecord
    step: Step
    position: Position | None = None
    """Copy of the position after a fill."""


class Printed(msgspec.Struct, frozen=True, gc=False):
    """A trade happened in an instrument."""

    listing: Listing
    price: int
    quantity: int
    """Units traded; 0 for a price set from outside."""
    time_ns: int
    open_interest: int = 0
    """Open interest after the trade."""


class IndexMoved(msgspec.Struct, frozen=True, gc=False):
    """A trade in one of its members has brought an index to another value."""

    index: Index
    value: int
    time_ns: int


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """Another request with an order's tag arrived, and was refused."""

    record: OrderRecord


Event: TypeAlias = OrderChanged | Printed | IndexMoved | Repeated


class Refusal(Exception):
    """The exchange refuses a request; carries the content of the broker's answer."""

    def __init__(self, code: int, text: str, *, http_status: int = 400, stat: str = "Not_Ok"):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.http_status = http_status
        self.stat = stat
