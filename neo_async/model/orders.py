"""Orders: the request of a caller, the terms of an order, and the rows of the broker's reports."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

import msgspec

from neo_async.model.enums import (
    OffsetKind,
    OrderStatus,
    OrderType,
    Product,
    Segment,
    Side,
    Validity,
    parse_status,
)
from neo_async.model.numbers import Number, Whole

Price: TypeAlias = str | Decimal | int | float
"""A price or amount in rupees. It is sent as exact decimal text, so that `"39.35"`,
`Decimal("39.35")` and `39.35` are equal."""


def is_order_number(text: str) -> bool:
    """Return whether a text is an order number: digits, and not only zeros."""
    return text.isascii() and text.isdigit() and bool(text.strip("0"))


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """Target and stop-loss of a bracket order, as distances from the entry price."""

    target: Price
    stop: Price
    trail: Price = 0
    """Step by which the stop trails a favourable price; 0 does not trail it."""
    kind: OffsetKind = OffsetKind.ABSOLUTE


class OrderRequest(msgspec.Struct, frozen=True, gc=False):
    """An order as the caller wants it, not checked yet. Quantities are units (not lots), prices
    rupees. Text may be a code or a name in any case: `"buy"`, `"limit"`."""

    segment: Segment | str
    symbol: str
    """Trading symbol of the scrip master: `ITBEES-EQ`."""
    side: Side | str
    quantity: int
    product: Product | str
    price: Price | None = None
    """Limit price; needed for LIMIT and SL, not allowed for MARKET and SL_M."""
    order_type: OrderType | str = OrderType.LIMIT
    trigger: Price | None = None
    """Trigger price; needed for SL, SL_M and product CO."""
    validity: Validity | str = Validity.DAY
    disclosed_quantity: int = 0
    """Units shown to the market; 0 shows all."""
    amo: bool = False
    """Queued until the next open, as an after-market order."""
    tag: str = ""
    """The caller's part of the client tag: up to 9 characters of [A-Za-z0-9_]."""
    bracket: Bracket | None = None
    """Target and stop-loss; required for product BO, and not allowed for any other."""


class OrderTerms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The terms of an order: what is bought or sold, and how. A modification replaces them.

    Where another application placed the order, segment, side, product, order type and validity may
    be codes that are not members of their enums: `is_known` is False for them.
    """

    segment: Segment
    symbol: str
    """Trading symbol of the scrip master, `ITBEES-EQ`."""
    side: Side
    product: Product
    order_type: OrderType
    quantity: int
    """Units, in total; 0 when no report has shown it in a form that can be read."""
    price: Decimal | None = None
    """Limit price in rupees; None when the order has none."""
    trigger: Decimal | None = None
    """Trigger price in rupees; None when the order has none."""
    validity: Validity = Validity.DAY
    disclosed_quantity: int = 0
    """Units shown to the market; 0 shows all."""
    amo: bool = False
    """Whether it is an after-market order: queued until the next open."""


@lru_cache(maxsize=4096)
def exact_price(price: float) -> Decimal | None:
    """Return the price of a report as the decimal that it prints as, with two decimals or more;
    None for 0, which stands for no price."""
    if not price:
        return None
    text = f"{price:.2f}"
    return Decimal(text if float(text) == price else repr(price))


class OrderRow(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "number": "nOrdNo",
        "exchange_number": "exOrdId",
        "status_text": "ordSt",
        "reject_text": "rejRsn",
        "segment": "exSeg",
        "symbol": "trdSym",
        "name": "sym",
        "token": "tok",
        "side": "trnsTp",
        "order_type": "prcTp",
        "product": "prod",
        "validity": "vldt",
        "quantity": "qty",
        "filled_quantity": "fldQty",
        "pending_quantity": "unFldSz",
        "cancelled_quantity": "cnlQty",
        "disclosed_quantity": "dscQty",
        "price": "prc",
        "trigger": "trgPrc",
        "average_price": "avgPrc",
        "generated_type": "ordGenTp",
        "time_text": "ordDtTm",
        "updated_ns": "updRecvTm",
        "gui_order_id": "GuiOrdId",
        "parent_number": "symOrdId",
    },
):
    """A row of the order book: one order in its present state."""

    number: str
    exchange_number: str = ""
    """The exchange's order number; `NA` until the exchange has the order."""
    status_text: str = ""
    reject_text: str = ""
    segment: Segment = Segment.read("")
    symbol: str = ""
    name: str = ""
    token: str = ""
    side: Side = Side.read("")
    order_type: OrderType = OrderType.read("")
    product: Product = Product.read("")
    validity: Validity = Validity.read("")
    quantity: Whole = 0
    filled_quantity: Whole = 0
    pending_quantity: Whole = 0
    cancelled_quantity: Whole = 0
    disclosed_quantity: Whole = 0
    price: Number = 0.0
    """Limit price in rupees; 0 when the order has no limit."""
    trigger: Number = 0.0
    average_price: Number = 0.0
    """Average price of the fills in rupees; 0 before the first fill, and for a while after it."""
    generated_type: str = ""
    """Origin of the order: `AMO` for an after-market order."""
    time_text: str = ""
    """Time in IST: `22-Jan-2025 14:28:01`."""
    updated_ns: Whole = 0
    """Unix nanoseconds of the broker's last change; of two reports the newer one counts."""
    gui_order_id: str = ""
    """The client tag; the broker overwrites it after a modification, and adds to it after a
    cancellation."""
    parent_number: str = ""
    """Number of the entry order of a CO or BO leg; `NA` for other orders."""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value: they hold a default that means nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """The unreadable values of missing fields: `avgPrc='1,039.35' is not a number`."""

    @property
    def has_number(self) -> bool:
        """Whether the row has an order number. Without one it may be any order."""
        return is_order_number(self.number)

    @property
    def status(self) -> OrderStatus:
        """The status that `status_text` stands for."""
        return parse_status(self.status_text)

    @property
    def contradicts_itself(self) -> bool:
        """Whether the filled quantity is negative, or above the order's quantity, so that neither
        of the two can be relied on."""
        return self.filled_quantity < 0 or self.filled_quantity > self.quantity > 0

    @property
    def reject_reason(self) -> str:
        """Reason of a rejection; empty when the order was not rejected."""
        return "" if self.reject_text in ("--", "NA") else self.reject_text.strip()


class HistoryRow(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "number": "nOrdNo",
        "exchange_number": "exchOrdId",
        "status_text": "ordSt",
        "reject_text": "rejRsn",
        "segment": "exSeg",
        "symbol": "trdSym",
        "token": "tok",
        "side": "trnsTp",
        "order_type": "prcTp",
        "product": "prod",
        "validity": "ordDur",
        "quantity": "qty",
        "filled_quantity": "fldQty",
        "pending_quantity": "unFldSz",
        "price": "prc",
        "trigger": "trgPrc",
        "average_price": "avgPrc",
        "time_text": "flDtTm",
        "updated_ns": "updRecvTm",
        "gui_order_id": "GuiOrdId",
    },
):
    """A row of an order's history: one past or present state."""

    number: str
    exchange_number: str = ""
    status_text: str = ""
    reject_text: str = ""
    segment: Segment = Segment.read("")
    symbol: str = ""
    token: str = ""
    side: Side = Side.read("")
    order_type: OrderType = OrderType.read("")
    product: Product = Product.read("")
    validity: Validity = Validity.read("")
    quantity: Whole = 0
    filled_quantity: Whole = 0
    pending_quantity: Whole = 0
    price: Number = 0.0
    trigger: Number = 0.0
    average_price: Number = 0.0
    time_text: str = ""
    """Time in IST: `22-Jan-2025 14:32:53`, possibly with blanks after the colons, or `--`."""
    updated_ns: Whole = 0
    gui_order_id: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value: they hold a default that means nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """The unreadable values of missing fields."""

    @property
    def status(self) -> OrderStatus:
        """The status that `status_text` stands for."""
        return parse_status(self.status_text)

    @property
    def reject_reason(self) -> str:
        """Reason of a rejection; empty when the order was not rejected."""
        return "" if self.reject_text in ("--", "NA") else self.reject_text.strip()


class Trade(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "order_number": "nOrdNo",
        "exchange_number": "exOrdId",
        "trade_number": "flId",
        "leg": "flLeg",
        "segment": "exSeg",
        "symbol": "trdSym",
        "name": "sym",
        "side": "trnsTp",
        "product": "prod",
        "order_type": "prcTp",
        "quantity": "fldQty",
        "price": "avgPrc",
        "date_text": "flDt",
        "time_text": "flTm",
        "updated_ns": "updRecvTm",
        "gui_order_id": "GuiOrdId",
    },
):
    """A row of the trade book: one fill. (`exchange_number`, `trade_number`) is unique."""

    order_number: str
    exchange_number: str = ""
    trade_number: str = ""
    leg: Whole = 0
    """Position of this fill among the fills of its order, from 1."""
    segment: Segment = Segment.read("")
    symbol: str = ""
    name: str = ""
    side: Side = Side.read("")
    product: Product = Product.read("")
    order_type: OrderType = OrderType.read("")
    quantity: Whole = 0
    """Units filled."""
    price: Number = 0.0
    """Price of this fill in rupees."""
    date_text: str = ""
    """Date in IST: `22-Jan-2025`."""
    time_text: str = ""
    """Time in IST: `14:28:16`."""
    updated_ns: Whole = 0
    gui_order_id: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value: they hold a default that means nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """The unreadable values of missing fields."""
