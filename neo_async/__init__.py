"""Asyncio-native trading client for the Kotak Neo Trade API.

from neo_async import Credentials, NeoClient, Product, Segment, Side

async with NeoClient(Credentials.from_env()) as neo:
    order = await neo.orders.place(
        Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.35", product=Product.CNC
    )
    await order.wait(timeout=30)
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from neo_async.client import NeoClient
from neo_async.config import Credentials, Endpoints, PoolLimits, RateLimits, Timeouts
from neo_async.errors import (
    AnswerLost,
    BrokerError,
    ClockSkew,
    DuplicateTag,
    InsufficientFunds,
    InvalidOrder,
    LoginFailed,
    NeoError,
    NotLoggedIn,
    NotSent,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    SessionEnded,
    StaticIpRefused,
    TransportError,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.model.enums import (
    Level,
    OffsetKind,
    OrderStatus,
    OrderType,
    Product,
    Segment,
    Side,
    Validity,
)
from neo_async.model.instruments import Instrument
from neo_async.model.orders import Bracket, HistoryRow, OrderRequest, OrderRow, Trade
from neo_async.model.portfolio import Holding, Limits, OrderMargin, Position
from neo_async.tracking import Order, OrderChange

__version__ = "0.1.0"

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on uvloop where there is one. Inside a loop of your own it is not needed."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(main)
    return uvloop.run(main)


__all__ = [
    "AnswerLost",
    "Bracket",
    "BrokerError",
    "ClockSkew",
    "Credentials",
    "DuplicateTag",
    "Endpoints",
    "HistoryRow",
    "Holding",
    "Instrument",
    "InsufficientFunds",
    "InvalidOrder",
    "Level",
    "Limits",
    "LoginFailed",
    "NeoClient",
    "NeoError",
    "NotLoggedIn",
    "NotSent",
    "OffsetKind",
    "Order",
    "OrderAlreadyFinal",
    "OrderChange",
    "OrderMargin",
    "OrderRequest",
    "OrderRow",
    "OrderStatus",
    "OrderType",
    "OutcomeUnknown",
    "PoolLimits",
    "Position",
    "Product",
    "ProtocolError",
    "RateLimited",
    "RateLimits",
    "Rejected",
    "Segment",
    "ServerError",
    "SessionEnded",
    "Side",
    "StaticIpRefused",
    "Timeouts",
    "Trade",
    "TransportError",
    "UsageError",
    "Validity",
    "WrongMpin",
    "WrongTotp",
    "run",
]
