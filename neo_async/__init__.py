"""Asyncio-native trading client for the Kotak Neo Trade API.

from neo_async import NeoClient, Product, Segment, Side

async with NeoClient() as neo:  # account and server of the environment
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
    from neo_async.calendar import Calendar
    from neo_async.client import NeoClient
    from neo_async.config import (
        BreakerConfig,
        ConnectionSettings,
        Credentials,
        Durability,
        Endpoints,
        FeedTimings,
        OnExit,
        OrderSettings,
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
        PositionOpen,
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
    from neo_async.execution.journal_schema import Intent, Outcome
    from neo_async.execution.order import Order, OrderChange
    from neo_async.execution.reconciliation import Reconciliation, ResolvedIntent
    from neo_async.exits.plan import ExitPlan, PlanChange
    from neo_async.exits.state import ExitReason, PlanStatus, Resting, Unprotected
    from neo_async.exits.trigger import PriceTrigger, TriggerStatus
    from neo_async.feeds.buffers import Policy
    from neo_async.feeds.column_feed import ColumnFeed
    from neo_async.feeds.market_feed import MarketFeed
    from neo_async.feeds.order_feed import OrderFeed
    from neo_async.feeds.recorded_ticks import recorded_ticks
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
    from neo_async.model.feed_state import FeedEvent, FeedState
    from neo_async.model.frames import to_pandas, to_polars
    from neo_async.model.health import (
        BreakerHealth,
        FeedHealth,
        Health,
        LaneHealth,
        LimiterHealth,
    )
    from neo_async.model.instruments import Instrument, InstrumentLike, StrikeRow
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
    from neo_async.model.portfolio import (
        Holding,
        Limits,
        OrderMargin,
        Position,
        SquaredOff,
        TotalPnl,
    )
    from neo_async.model.prometheus import prometheus_text
    from neo_async.model.ticks import (
        AuctionTick,
        DepthRow,
        IndexTick,
        LiteTick,
        MarketState,
        MarketStatus,
        PriceTick,
        ScripTick,
        Tick,
    )
    from neo_async.model.updates import OrderUpdate, PositionUpdate
    from neo_async.portfolio.live_positions import LivePositions

__version__ = "0.1.0"

T = TypeVar("T")

# fmt: off
_PUBLIC = {
    "neo_async.calendar": ("Calendar",),
    "neo_async.client": ("NeoClient",),
    "neo_async.config": (
        "BreakerConfig", "ConnectionSettings", "Credentials", "Durability", "Endpoints",
        "FeedTimings", "OnExit", "OrderSettings", "PoolLimits", "RateLimits", "RiskLimits",
        "Timeouts",
    ),
    "neo_async.errors": (
        "AnswerLost", "BankRejected", "BreakerOpen", "BrokerError", "ClockSkew", "DuplicateTag",
        "Halted", "InsufficientFunds", "InvalidField", "InvalidOrder", "JournalFailed",
        "LoginFailed", "LossLimit", "NeoError", "NotAccepted", "NotLoggedIn", "NotSent",
        "OpenOrdersLimit", "OrderAlreadyFinal", "OrderRateLimit", "OutcomeUnknown",
        "PositionLimit", "PositionOpen", "PriceLimit", "ProductNotAllowed", "ProtocolError",
        "QuantityLimit", "RateLimited", "RefundUnknown", "Rejected", "RiskRefused",
        "SegmentNotAllowed", "ServerError", "SessionEnded", "StaticIpRefused", "StoreFailed",
        "TransportError", "UnreadableCredit", "UsageError", "ValueLimit", "WrongMpin", "WrongTotp",
    ),
    "neo_async.execution.journal_schema": ("Intent", "Outcome"),
    "neo_async.execution.order": ("Order", "OrderChange"),
    "neo_async.execution.reconciliation": ("Reconciliation", "ResolvedIntent"),
    "neo_async.exits.plan": ("ExitPlan", "PlanChange"),
    "neo_async.exits.state": ("ExitReason", "PlanStatus", "Resting", "Unprotected"),
    "neo_async.exits.trigger": ("PriceTrigger", "TriggerStatus"),
    "neo_async.feeds.buffers": ("Policy",),
    "neo_async.feeds.column_feed": ("ColumnFeed",),
    "neo_async.feeds.market_feed": ("MarketFeed",),
    "neo_async.feeds.order_feed": ("OrderFeed",),
    "neo_async.feeds.recorded_ticks": ("recorded_ticks",),
    "neo_async.feeds.recorder": ("Recording",),
    "neo_async.model.enums": (
        "Level", "OffsetKind", "OrderStatus", "OrderType", "Product", "Segment", "Side", "Validity",
    ),
    "neo_async.model.feed_state": ("FeedEvent", "FeedState"),
    "neo_async.model.frames": ("to_pandas", "to_polars"),
    "neo_async.model.health": (
        "BreakerHealth", "FeedHealth", "Health", "LaneHealth", "LimiterHealth",
    ),
    "neo_async.model.instruments": ("Instrument", "InstrumentLike", "StrikeRow"),
    "neo_async.model.market": (
        "Candle", "Candles", "ChainRow", "FutureQuote", "FuturesChain", "Interval", "OptionChain",
        "OptionQuote", "Quote", "QuoteFilter", "Quotes",
    ),
    "neo_async.model.metrics": ("Histogram", "Metrics"),
    "neo_async.model.orders": (
        "Bracket", "HistoryRow", "OrderRequest", "OrderRow", "OrderTerms", "Trade",
    ),
    "neo_async.model.prometheus": ("prometheus_text",),
    "neo_async.model.portfolio": (
        "Holding", "Limits", "OrderMargin", "Position", "SquaredOff", "TotalPnl",
    ),
    "neo_async.model.ticks": (
        "AuctionTick", "DepthRow", "IndexTick", "LiteTick", "MarketState", "MarketStatus",
        "PriceTick", "ScripTick", "Tick",
    ),
    "neo_async.model.updates": ("OrderUpdate", "PositionUpdate"),
    "neo_async.portfolio.live_positions": ("LivePositions",),
}
"""The public names by module. A module is imported when one of its names is first used: a plain
`import neo_async` does not pay for aiohttp's start-up time and memory."""
# fmt: on

_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'neo_async' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program as `asyncio.run` does, on uvloop where it is installed. Return its result.

    SIGINT (Ctrl-C) and SIGTERM cancel the program's main task, so that every `async with` closes;
    then one line on stderr says which orders are still open, and the process exits with 130 or 143
    (SystemExit, without a traceback). A second signal ends the process at once. Handlers that the
    program has set before are left alone, and none stays behind.

    Raises UsageError where an event loop is running already, as in Jupyter: `await main()` there.
    """
    from neo_async.system.program import run as run_program

    return run_program(main)


# Written out, because type checkers cannot evaluate an expression here.
# fmt: off
__all__ = [
    "AnswerLost", "AuctionTick", "BankRejected", "Bracket", "BreakerConfig", "BreakerHealth",
    "BreakerOpen", "BrokerError", "Calendar", "Candle", "Candles", "ChainRow", "ClockSkew",
    "ColumnFeed", "ConnectionSettings", "Credentials", "DepthRow", "DuplicateTag", "Durability",
    "Endpoints", "ExitPlan", "ExitReason", "FeedEvent", "FeedHealth", "FeedState", "FeedTimings",
    "FutureQuote", "FuturesChain", "Halted", "Health", "Histogram", "HistoryRow", "Holding",
    "IndexTick", "Instrument", "InstrumentLike", "InsufficientFunds", "Intent", "Interval",
    "InvalidField", "InvalidOrder", "JournalFailed", "LaneHealth", "Level", "LimiterHealth",
    "Limits", "LiteTick", "LivePositions", "LoginFailed", "LossLimit", "MarketFeed", "MarketState",
    "MarketStatus", "Metrics", "NeoClient", "NeoError", "NotAccepted", "NotLoggedIn", "NotSent",
    "OffsetKind", "OnExit", "OpenOrdersLimit", "OptionChain", "OptionQuote", "Order",
    "OrderAlreadyFinal", "OrderChange", "OrderFeed", "OrderMargin", "OrderRateLimit",
    "OrderRequest", "OrderRow", "OrderSettings", "OrderStatus", "OrderTerms", "OrderType",
    "OrderUpdate", "Outcome", "OutcomeUnknown", "PlanChange", "PlanStatus", "Policy", "PoolLimits",
    "Position", "PositionLimit", "PositionOpen", "PositionUpdate", "PriceLimit", "PriceTick",
    "PriceTrigger", "Product", "ProductNotAllowed", "ProtocolError", "QuantityLimit", "Quote",
    "QuoteFilter", "Quotes", "RateLimited", "RateLimits", "Reconciliation", "Recording",
    "RefundUnknown", "Rejected", "ResolvedIntent", "Resting", "RiskLimits", "RiskRefused",
    "ScripTick", "Segment", "SegmentNotAllowed", "ServerError", "SessionEnded", "Side",
    "SquaredOff", "StaticIpRefused", "StoreFailed", "StrikeRow", "Tick", "Timeouts", "TotalPnl",
    "Trade", "TransportError", "TriggerStatus", "Unprotected", "UnreadableCredit", "UsageError",
    "Validity", "ValueLimit", "WrongMpin", "WrongTotp", "prometheus_text", "recorded_ticks", "run",
    "to_pandas", "to_polars",
]
# fmt: on
