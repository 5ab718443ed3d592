"""Asyncio-native trading client for the Kotak Neo Trade API.

from neo_async import Credentials, NeoClient, Product, Segment, Side

async with NeoClient(Credentials.from_env()) as neo:
    order = await neo.orders.place(
        Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.35", product=Product.CNC
    )
    await order.wait(timeout=30)
"""

from __future__ import annotations

from collections.abc import Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from neo_async.client import NeoClient
    from neo_async.config import (
        BreakerConfig,
        Credentials,
        Durability,
        Endpoints,
        FeedTimings,
        PoolLimits,
        RateLimits,
        RiskLimits,
        Timeouts,
    )
    from neo_async.errors import (
        AnswerLost,
        BankRejected,
        BreakerOpen,
        BrokerError,
        ClockSkew,
        DuplicateTag,
        Halted,
        InsufficientFunds,
        InvalidField,
        InvalidOrder,
        JournalFailed,
        LoginFailed,
        LossLimit,
        NeoError,
        NotAccepted,
        NotLoggedIn,
        NotSent,
        OpenOrdersLimit,
        OrderAlreadyFinal,
        OrderRateLimit,
        OutcomeUnknown,
        PositionLimit,
        PriceLimit,
        ProductNotAllowed,
        ProtocolError,
        QuantityLimit,
        RateLimited,
        RefundUnknown,
        Rejected,
        RiskRefused,
        SegmentNotAllowed,
        ServerError,
        SessionEnded,
        StaticIpRefused,
        StoreFailed,
        TransportError,
        UnreadableCredit,
        UsageError,
        ValueLimit,
        WrongMpin,
        WrongTotp,
    )
    from neo_async.execution.journal import Intent, Outcome
    from neo_async.execution.order import Order, OrderChange
    from neo_async.execution.reconciliation import Reconciliation, ResolvedIntent
    from neo_async.feeds.buffers import Policy
    from neo_async.feeds.market_feed import ColumnFeed, MarketFeed, OrderFeed
    from neo_async.feeds.recorder import Recording
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
    from neo_async.model.health import (
        BreakerHealth,
        FeedHealth,
        Health,
        LaneHealth,
        LimiterHealth,
    )
    from neo_async.model.instruments import Instrument, StrikeRow
    from neo_async.model.market import (
        Candle,
        Candles,
        ChainRow,
        FutureQuote,
        FuturesChain,
        Interval,
        OptionChain,
        OptionQuote,
        Quote,
        QuoteFilter,
        Quotes,
    )
    from neo_async.model.metrics import Histogram, Metrics
    from neo_async.model.orders import (
        Bracket,
        HistoryRow,
        OrderRequest,
        OrderRow,
        OrderTerms,
        Trade,
    )
    from neo_async.model.portfolio import Holding, Limits, OrderMargin, Position
    from neo_async.model.ticks import (
        AuctionTick,
        DepthRow,
        IndexTick,
        LiteTick,
        MarketState,
        MarketStatus,
        ScripTick,
        Tick,
    )
    from neo_async.model.updates import OrderUpdate, PositionUpdate
    from neo_async.portfolio.live_positions import LivePositions, TotalPnl
    from neo_async.transport.websocket import FeedEvent, FeedState

__version__ = "0.1.0"

T = TypeVar("T")


_HOMES = {
    "BreakerHealth": "neo_async.model.health",
    "FeedHealth": "neo_async.model.health",
    "Health": "neo_async.model.health",
    "LaneHealth": "neo_async.model.health",
    "LimiterHealth": "neo_async.model.health",
    "Histogram": "neo_async.model.metrics",
    "Metrics": "neo_async.model.metrics",
    "Policy": "neo_async.feeds.buffers",
    "Tick": "neo_async.model.ticks",
    "Recording": "neo_async.feeds.recorder",
    "TotalPnl": "neo_async.portfolio.live_positions",
    "LivePositions": "neo_async.portfolio.live_positions",
    "AuctionTick": "neo_async.model.ticks",
    "DepthRow": "neo_async.model.ticks",
    "IndexTick": "neo_async.model.ticks",
    "LiteTick": "neo_async.model.ticks",
    "MarketState": "neo_async.model.ticks",
    "MarketStatus": "neo_async.model.ticks",
    "ScripTick": "neo_async.model.ticks",
    "OrderUpdate": "neo_async.model.updates",
    "PositionUpdate": "neo_async.model.updates",
    "FeedEvent": "neo_async.transport.websocket",
    "FeedState": "neo_async.transport.websocket",
    "ColumnFeed": "neo_async.feeds.market_feed",
    "MarketFeed": "neo_async.feeds.market_feed",
    "OrderFeed": "neo_async.feeds.market_feed",
    "NeoClient": "neo_async.client",
    "BreakerConfig": "neo_async.config",
    "Credentials": "neo_async.config",
    "Durability": "neo_async.config",
    "Endpoints": "neo_async.config",
    "FeedTimings": "neo_async.config",
    "PoolLimits": "neo_async.config",
    "RiskLimits": "neo_async.config",
    "RateLimits": "neo_async.config",
    "Timeouts": "neo_async.config",
    "AnswerLost": "neo_async.errors",
    "BankRejected": "neo_async.errors",
    "BrokerError": "neo_async.errors",
    "BreakerOpen": "neo_async.errors",
    "ClockSkew": "neo_async.errors",
    "DuplicateTag": "neo_async.errors",
    "InsufficientFunds": "neo_async.errors",
    "InvalidField": "neo_async.errors",
    "InvalidOrder": "neo_async.errors",
    "JournalFailed": "neo_async.errors",
    "LoginFailed": "neo_async.errors",
    "NeoError": "neo_async.errors",
    "NotAccepted": "neo_async.errors",
    "NotLoggedIn": "neo_async.errors",
    "NotSent": "neo_async.errors",
    "OrderAlreadyFinal": "neo_async.errors",
    "OutcomeUnknown": "neo_async.errors",
    "ProtocolError": "neo_async.errors",
    "RateLimited": "neo_async.errors",
    "RefundUnknown": "neo_async.errors",
    "Rejected": "neo_async.errors",
    "ServerError": "neo_async.errors",
    "SessionEnded": "neo_async.errors",
    "StaticIpRefused": "neo_async.errors",
    "StoreFailed": "neo_async.errors",
    "TransportError": "neo_async.errors",
    "UnreadableCredit": "neo_async.errors",
    "UsageError": "neo_async.errors",
    "WrongMpin": "neo_async.errors",
    "Halted": "neo_async.errors",
    "RiskRefused": "neo_async.errors",
    "SegmentNotAllowed": "neo_async.errors",
    "ProductNotAllowed": "neo_async.errors",
    "QuantityLimit": "neo_async.errors",
    "ValueLimit": "neo_async.errors",
    "PriceLimit": "neo_async.errors",
    "OrderRateLimit": "neo_async.errors",
    "OpenOrdersLimit": "neo_async.errors",
    "PositionLimit": "neo_async.errors",
    "LossLimit": "neo_async.errors",
    "WrongTotp": "neo_async.errors",
    "Intent": "neo_async.execution.journal",
    "Outcome": "neo_async.execution.journal",
    "Level": "neo_async.model.enums",
    "OffsetKind": "neo_async.model.enums",
    "OrderStatus": "neo_async.model.enums",
    "OrderType": "neo_async.model.enums",
    "Product": "neo_async.model.enums",
    "Segment": "neo_async.model.enums",
    "Side": "neo_async.model.enums",
    "Validity": "neo_async.model.enums",
    "Instrument": "neo_async.model.instruments",
    "StrikeRow": "neo_async.model.instruments",
    "Candle": "neo_async.model.market",
    "Candles": "neo_async.model.market",
    "ChainRow": "neo_async.model.market",
    "FutureQuote": "neo_async.model.market",
    "FuturesChain": "neo_async.model.market",
    "Interval": "neo_async.model.market",
    "OptionChain": "neo_async.model.market",
    "OptionQuote": "neo_async.model.market",
    "Quote": "neo_async.model.market",
    "QuoteFilter": "neo_async.model.market",
    "Quotes": "neo_async.model.market",
    "Bracket": "neo_async.model.orders",
    "HistoryRow": "neo_async.model.orders",
    "OrderRequest": "neo_async.model.orders",
    "OrderRow": "neo_async.model.orders",
    "OrderTerms": "neo_async.model.orders",
    "Trade": "neo_async.model.orders",
    "Holding": "neo_async.model.portfolio",
    "Limits": "neo_async.model.portfolio",
    "OrderMargin": "neo_async.model.portfolio",
    "Position": "neo_async.model.portfolio",
    "ResolvedIntent": "neo_async.execution.reconciliation",
    "Reconciliation": "neo_async.execution.reconciliation",
    "Order": "neo_async.execution.order",
    "OrderChange": "neo_async.execution.order",
}
"""Where each public name lives. It is imported when first asked for: `import neo_async` alone costs
neither aiohttp's start-up time nor its memory."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'neo_async' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on uvloop where there is one. Inside a loop of your own it is not needed."""
    try:
        import uvloop
    except ImportError:  # Windows
        import asyncio

        return asyncio.run(main)
    return uvloop.run(main)


__all__ = [
    "AnswerLost",
    "AuctionTick",
    "BankRejected",
    "Bracket",
    "BreakerConfig",
    "BreakerHealth",
    "BreakerOpen",
    "BrokerError",
    "Candle",
    "Candles",
    "ChainRow",
    "ClockSkew",
    "ColumnFeed",
    "Credentials",
    "DepthRow",
    "DuplicateTag",
    "Durability",
    "Endpoints",
    "FeedEvent",
    "FeedHealth",
    "FeedState",
    "FeedTimings",
    "FutureQuote",
    "FuturesChain",
    "Halted",
    "Health",
    "Histogram",
    "HistoryRow",
    "Holding",
    "IndexTick",
    "Instrument",
    "InsufficientFunds",
    "Intent",
    "Interval",
    "InvalidField",
    "InvalidOrder",
    "JournalFailed",
    "LaneHealth",
    "Level",
    "LimiterHealth",
    "Limits",
    "LiteTick",
    "LivePositions",
    "LoginFailed",
    "LossLimit",
    "MarketFeed",
    "MarketState",
    "MarketStatus",
    "Metrics",
    "NeoClient",
    "NeoError",
    "NotAccepted",
    "NotLoggedIn",
    "NotSent",
    "OffsetKind",
    "OpenOrdersLimit",
    "OptionChain",
    "OptionQuote",
    "Order",
    "OrderAlreadyFinal",
    "OrderChange",
    "OrderFeed",
    "OrderMargin",
    "OrderRateLimit",
    "OrderRequest",
    "OrderRow",
    "OrderStatus",
    "OrderTerms",
    "OrderType",
    "OrderUpdate",
    "Outcome",
    "OutcomeUnknown",
    "Policy",
    "PoolLimits",
    "Position",
    "PositionLimit",
    "PositionUpdate",
    "PriceLimit",
    "Product",
    "ProductNotAllowed",
    "ProtocolError",
    "QuantityLimit",
    "Quote",
    "QuoteFilter",
    "Quotes",
    "RateLimited",
    "RateLimits",
    "Reconciliation",
    "Recording",
    "RefundUnknown",
    "Rejected",
    "ResolvedIntent",
    "RiskLimits",
    "RiskRefused",
    "ScripTick",
    "Segment",
    "SegmentNotAllowed",
    "ServerError",
    "SessionEnded",
    "Side",
    "StaticIpRefused",
    "StoreFailed",
    "StrikeRow",
    "Tick",
    "Timeouts",
    "TotalPnl",
    "Trade",
    "TransportError",
    "UnreadableCredit",
    "UsageError",
    "Validity",
    "ValueLimit",
    "WrongMpin",
    "WrongTotp",
    "run",
]
