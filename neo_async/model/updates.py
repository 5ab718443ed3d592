"""What the order feed tells: an order's new state, and the day's business in one position."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from neo_async.model.numbers import Whole
from neo_async.model.orders import OrderRow


class OrderUpdate(OrderRow, frozen=True, kw_only=True, gc=False):
    """A state of an order, with the keys of the order book. Old servers send five of them."""

    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields that the message did not have, or not in a form that can be read: their
    values here say nothing, while a price of 0 that was sent says that there is no limit any
    more."""


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
    """The day's business so far in one position. Amounts are rupees, exact; None was not sent."""

    account: str = ""
    name: str = ""
    """Without series or contract, `ITBEES`: several instruments may share it."""
    segment: str = ""
    product: str = ""
    buy_quantity: Whole | None = None
    """Units filled today."""
    sell_quantity: Whole | None = None
    buy_value: Decimal | None = None
    """Traded today."""
    sell_value: Decimal | None = None
    symbol: str = ""
    """Trading symbol. Not in the published message."""
    token: str = ""
    """Exchange token. Not in the published message."""
    carried_buy_quantity: Whole | None = None
    """Of earlier days. Not in the published message."""
    carried_sell_quantity: Whole | None = None
    time_text: str = ""
    """IST, `2026/02/16 12:29:31`."""
    updated_ns: Whole = 0
    """Unix nanoseconds; 0 when not sent."""
