"""A client of an exchange whose answers a test replaces, delays or drops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from neo_async import (
    BreakerConfig,
    NeoClient,
    Product,
    Segment,
    Side,
    Timeouts,
)
from neo_async.exchange import Exchange
from tests.clients import client_of, exchange_of, paths
from tests.fake_servers import Reply, fault_proxy

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
BOOK = "/neo/quick/user/orders"
HISTORY = "/neo/quick/order/history"
BUSY = Reply("busy", 503)
RESOLUTION_TIMEOUT = 30.0


def seconds() -> float:
    return asyncio.get_running_loop().time()


class ProxiedExchange:
    """An exchange behind a fault proxy whose `override` a test may change."""

    def __init__(self, exchange: Exchange, neo: NeoClient) -> None:
        self.exchange = exchange
        self.neo = neo
        self.overrides: dict[str, Any] = {}
        """By path, what goes out instead of the exchange's answer, or what makes it."""
        self.dropped: set[str] = set()
        """Paths to which nothing arrives."""
        self.refused: dict[str, Reply] = {}
        """By path, what is answered without asking the exchange."""

    @property
    def ledger(self) -> Any:
        return self.exchange.market.ledger

    async def sent(self, path: str) -> int:
        return (await paths(self.exchange)).count(path)


@contextlib.asynccontextmanager
async def proxied_exchange(**options: Any) -> AsyncIterator[ProxiedExchange]:
    overrides: dict[str, Any] = {}
    dropped: set[str] = set()
    refused: dict[str, Reply] = {}

    def override(path: str, status: int, body: bytes) -> Any:
        answer = overrides.get(path)
        return answer() if callable(answer) else answer

    defaults: dict[str, Any] = {
        "live_updates": False,
        "timeouts": Timeouts(order=2.0),
        "breaker": BreakerConfig(failures=10**6),
    }
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override, dropped=dropped, refused=refused) as endpoints,
        client_of(exchange, endpoints=endpoints, **{**defaults, **options}) as neo,
    ):
        proxy = ProxiedExchange(exchange, neo)
        proxy.overrides, proxy.dropped, proxy.refused = overrides, dropped, refused
        yield proxy
