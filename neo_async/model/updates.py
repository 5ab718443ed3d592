"""The messages of the order feed: order updates and position updates."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from neo_async.model.enums import Product, Segment
from neo_async.model.numbers import Whole
from neo_async.model.orders import OrderRow


class OrderUpdate(OrderRow, frozen=True, kw_only=True, gc=False):
    """The new state of an order, with fields of the order book. Old servers send five of them."""

    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields that the message lacks, or has without a readable value: they hold a
    default that means nothing. A price of 0 that was sent means that the limit was removed."""


class PositionUpdate(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "account": "actId",
        "name": "sym",
        "segment": "exSeg",
        "product": "prod",
        "buy_quantity": "flBuyQty",
        "sell_quantity": "flSellQty",
        "buy_value": "buyAmt",
        "sell_value": "sellAmt",
        "symbol": "trdSym",
        "token": "tok",
        "carried_buy_quantity": "cfBuyQty",
        "carried_sell_quantity": "cfSellQty",
        "time_text": "hsUpTm",
        "updated_ns": "updRecvTm",
    },
):
    """Today's trading in one position. Amounts are exact rupees; None was not sent."""

    account: str = ""
    name: str = ""
    """Symbol without series or contract, `ITBEES`: several instruments may share it."""
    segment: Segment = Segment.read("")
    product: Product = Product.read("")
    buy_quantity: Whole | None = None
    """Units bought today."""
    sell_quantity: Whole | None = None
    buy_value: Decimal | None = None
    """Rupees bought today."""
    sell_value: Decimal | None = None
    symbol: str = ""
    """Trading symbol. Not in the published message."""
    token: str = ""
    """Exchange token. Not in the published message."""
    carried_buy_quantity: Whole | None = None
    """Units bought on earlier days. Not in the published message."""
    carried_sell_quantity: Whole | None = None
    time_text: str = ""
    """Time in IST: `2026/02/16 12:29:31`."""
    updated_ns: Whole = 0
    """Unix nanoseconds of the update; 0 when not sent."""
