"""Clients on a simulated exchange, with limits or with a rate limiter on the loop's clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from neo_async import (
    Level,
    NeoClient,
    NeoError,
    Order,
    OrderRequest,
    OrderStatus,
    Product,
    RiskLimits,
    Segment,
    Side,
)
from neo_async.exchange import Exchange
from neo_async.wire.orders import PlaceForm
from tests.clients import MODIFY, PLACE, client_of, exchange_of, paths
from tests.fake_servers import Reply, fault_proxy

SYMBOL, TOKEN = "ITBEES-EQ", "19084"
ITBEES = (Segment.NSE_CM, SYMBOL)
BUY: Any = (*ITBEES, Side.BUY)
SELL: Any = (*ITBEES, Side.SELL)
MIS: dict[str, Any] = {"price": "39.00", "product": Product.MIS}

POSITIONS = "/neo/portfolio/v2/positions"
"""Path of the positions report."""


@contextlib.asynccontextmanager
async def limited(**limits: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    """An exchange, and a client with these RiskLimits."""
    async with exchange_of() as exchange, client_of(exchange, risk=RiskLimits(**limits)) as neo:
        yield exchange, neo


@contextlib.asynccontextmanager
async def trading(**options: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    """An exchange, and a client whose rate limiter runs on the loop's clock."""
    async with exchange_of() as exchange, client_in_loop_time(exchange, **options) as neo:
        yield exchange, neo


def client_in_loop_time(exchange: Exchange, **options: Any) -> NeoClient:
    """A client whose rate limiter runs on the loop's clock."""
    neo = client_of(exchange, **options)
    neo.limiter._clock = asyncio.get_running_loop().time
    return neo


@contextlib.asynccontextmanager
async def ticking(exchange: Exchange, neo: NeoClient, price: int = 3900) -> AsyncIterator[Any]:
    """A market feed with one tick of the instrument, at `price` paise."""
    exchange.market.print_price(Segment.NSE_CM, TOKEN, price)
    async with neo.market_feed(level=None) as feed:
        await feed.subscribe([f"nse_cm|{TOKEN}"], level=Level.LITE)
        await until(lambda: feed.last_price(f"nse_cm|{TOKEN}") == price / 100)
        yield feed


async def until(condition: Any) -> None:
    """Wait until `condition` returns something true."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it may be anything
            await asyncio.sleep(0.01)


async def until_sent(neo: NeoClient) -> None:
    """Wait until the first bytes are sent, and no longer: before any answer."""
    while not neo._session.is_sending:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)


def seconds() -> float:
    """Return the time of the loop."""
    return asyncio.get_running_loop().time()


async def current(neo: NeoClient) -> None:
    """Wait until the live positions are current."""
    await neo.portfolio.live.wait(lambda live: live.is_current, timeout=30)


async def trade(exchange: Exchange, price: int) -> None:
    """Let the instrument trade at `price` paise."""
    exchange.market.print_price(Segment.NSE_CM, TOKEN, price)
    await asyncio.sleep(0)


async def requests_sent(exchange: Exchange) -> int:
    """Return how many placements and changes have reached the exchange."""
    seen = await paths(exchange)
    return seen.count(PLACE) + seen.count(MODIFY)


def open_orders_in(exchange: Exchange) -> list[str]:
    """Return the numbers of the open orders."""
    return [record.number for record in exchange.market.ledger if not record.status.is_final]


def final_statuses(results: list[Order | NeoError]) -> list[OrderStatus]:
    return [result.status for result in results if isinstance(result, Order)]


def requests(count: int, quantity: int = 10, **changes: Any) -> list[OrderRequest]:
    fields = {"product": Product.MIS, "price": "39.00", **changes}
    return [OrderRequest(*BUY, quantity, **fields) for _ in range(count)]


def place_form_of(client_tag: str) -> PlaceForm:
    return PlaceForm(
        am="NO", dq="0", es="nse_cm", mp="0", pc="MIS", pr="39.00", pt="L", qt="10", rt="DAY",
        tp="0", ts=SYMBOL, tt="B", pf="N", ig=client_tag, os="NEOTRADEAPI",
    )  # fmt: skip


POSITION: dict[str, Any] = {
    "exSeg": "nse_cm",
    "trdSym": "ITBEES-EQ",
    "tok": "19084",
    "prod": "MIS",
    "flBuyQty": "60",
    "flSellQty": "0",
    "buyAmt": "2340.00",
    "sellAmt": "0.00",
    "ltp": "39.00",
}
"""A row of the positions report."""


OPEN: dict[str, Any] = {
    "nOrdNo": "261123000000099",
    "ordSt": "open",
    "exSeg": "nse_cm",
    "trdSym": "ITBEES-EQ",
    "trnsTp": "B",
    "prcTp": "L",
    "prod": "MIS",
    "qty": 60,
    "fldQty": 0,
    "prc": "39.00",
}
"""A row of the order book: an open order."""


@contextlib.asynccontextmanager
async def with_reports(
    reports: dict[str, Any] | None = None, *, takes_orders: bool = True, **limits: Any
) -> AsyncIterator[NeoClient]:
    """A client whose exchange answers these paths with these rows or contents. Without
    `takes_orders` it answers placements with an empty object."""
    refused = {} if takes_orders else {PLACE: Reply({})}
    reports = reports or {}

    def override(path: str, status: int, body: bytes) -> Reply | None:
        rows = reports.get(path)
        if rows is None:
            return None
        return Reply(
            rows if isinstance(rows, dict) else {"stat": "Ok", "stCode": 200, "data": rows}
        )

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override, refused=refused) as endpoints,
        client_of(
            exchange, endpoints=endpoints, risk=RiskLimits(**limits), resolution_timeout=3
        ) as neo,
    ):
        await neo.order_feed.until_live()
        await asyncio.sleep(0.5)
        yield neo
