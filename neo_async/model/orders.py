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
"""Rupees. Goes out as exact decimal text: `"39.35"`, `Decimal("39.35")` and `39.35` are equal."""


def is_order_number(text: str) -> bool:
    """Return whether a text is the number of an order: digits, and not only zeros."""
    return text.isascii() and text.isdigit() and bool(text.strip("0"))


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """The exits of a bracket order, as distances from the entry price (not price levels)."""

    target: Price
    stop: Price
    trail: Price = 0
    """Step by which the stop follows a favourable price; 0 leaves it where it is."""
    kind: OffsetKind = OffsetKind.ABSOLUTE


class OrderRequest(msgspec.Struct, frozen=True, gc=False):
    """An order as the caller wants it, not checked yet. Quantities are units (not lots), prices
    rupees."""

    segment: Segment
    symbol: str
    """Trading symbol of the scrip master, `ITBEES-EQ`."""
    side: Side
    quantity: int
    product: Product
    price: Price | None = None
    """Limit price; needed for LIMIT and SL, not allowed for MARKET and SL_M."""
    order_type: OrderType = OrderType.LIMIT
    trigger: Price | None = None
    """Trigger price; needed for SL, SL_M and product CO."""
    validity: Validity = Validity.DAY
    disclosed_quantity: int = 0
    """Units shown to the market; 0 shows all."""
    amo: bool = False
    """After-market order: queued until the next open."""
    tag: str = ""
    """The caller's own tag, up to 9 of [A-Za-z0-9_]; part of the client tag."""
    bracket: Bracket | None = None
    """Only for product BO, and needed there."""


class OrderTerms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The terms of an order: what is bought or sold, and how. A modification replaces them.

    Segment, side, product, order type and validity are members of their enums, or text where
    another application placed the order with a code that is not in the enum.
    """

    segment: Segment | str
    symbol: str
    """Trading symbol of the scrip master, `ITBEES-EQ`."""
    side: Side | str
    product: Product | str
    order_type: OrderType | str
    quantity: int
    """Units, in total; 0 when no report has shown it in a form that can be read."""
    price: Decimal | None = None
    """Limit price in rupees; None when the order has none."""
    trigger: Decimal | None = None
    """Trigger price in rupees; None when the order has none."""
    validity: Validity | str = Validity.DAY
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
    """One row of the order book: an order in its present state."""

    number: str
    exchange_number: str = ""
    """`NA` until the exchange has the order."""
    status_text: str = ""
    reject_text: str = ""
    segment: str = ""
    symbol: str = ""
    name: str = ""
    token: str = ""
    side: str = ""
    order_type: str = ""
    product: str = ""
    validity: str = ""
    quantity: Whole = 0
    filled_quantity: Whole = 0
    pending_quantity: Whole = 0
    cancelled_quantity: Whole = 0
    disclosed_quantity: Whole = 0
    price: Number = 0.0
    """Rupees; 0 when the order has no limit."""
    trigger: Number = 0.0
    average_price: Number = 0.0
    """Rupees, of what is filled; 0 before the first fill and, for a while, after it."""
    generated_type: str = ""
    """`AMO` for an after-market order."""
    time_text: str = ""
    """IST, `22-Jan-2025 14:28:01`."""
    updated_ns: Whole = 0
    """Unix nanoseconds of the broker's last change: newest wins."""
    gui_order_id: str = ""
    """The client tag; overwritten by the broker after a modification, suffixed after a cancel."""
    parent_number: str = ""
    """Entry of a CO or BO leg; `NA` otherwise."""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields that the broker sent without a readable value: their values here are
    defaults, and say nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """Texts of the fields that were not empty and not readable: `avgPrc='1,039.35' is not a
    number`."""

    @property
    def has_number(self) -> bool:
        """Whether the row names its order. Without a number nothing can be cancelled by it, and it
        may be any order."""
        return is_order_number(self.number)

    @property
    def status(self) -> OrderStatus:
        return parse_status(self.status_text)

    @property
    def contradicts_itself(self) -> bool:
        """Whether the filled quantity is above the quantity, or negative: then neither of the two
        numbers can be relied on."""
        return self.filled_quantity < 0 or self.filled_quantity > self.quantity > 0

    @property
    def reject_reason(self) -> str:
        """Reason of the rejection; empty when there is none."""
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
    """One past or present state of one order."""

    number: str
    exchange_number: str = ""
    status_text: str = ""
    reject_text: str = ""
    segment: str = ""
    symbol: str = ""
    token: str = ""
    side: str = ""
    order_type: str = ""
    product: str = ""
    validity: str = ""
    quantity: Whole = 0
    filled_quantity: Whole = 0
    pending_quantity: Whole = 0
    price: Number = 0.0
    trigger: Number = 0.0
    average_price: Number = 0.0
    time_text: str = ""
    """IST, `22-Jan-2025 14:32:53`, possibly with blanks after the colons, or `--`."""
    updated_ns: Whole = 0
    gui_order_id: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value; see OrderRow."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")

    @property
    def status(self) -> OrderStatus:
        return parse_status(self.status_text)

    @property
    def reject_reason(self) -> str:
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
    """One fill. (`exchange_number`, `trade_number`) is unique."""

    order_number: str
    exchange_number: str = ""
    trade_number: str = ""
    leg: Whole = 0
    """Count of this fill within its order, from 1."""
    segment: str = ""
    symbol: str = ""
    name: str = ""
    side: str = ""
    product: str = ""
    order_type: str = ""
    quantity: Whole = 0
    """Units of this fill."""
    price: Number = 0.0
    """Rupees, of this fill."""
    date_text: str = ""
    """IST, `22-Jan-2025`."""
    time_text: str = ""
    """IST, `14:28:16`."""
    updated_ns: Whole = 0
    gui_order_id: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value; see OrderRow."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
