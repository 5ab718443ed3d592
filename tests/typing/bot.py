"""A typed bot. It is checked by type checkers, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import pandas
import polars

from neo_async import (
    AuctionTick,
    Candles,
    Credentials,
    Holding,
    IndexTick,
    Interval,
    Level,
    LiteTick,
    MarketFeed,
    MarketStatus,
    NeoClient,
    NeoError,
    Order,
    OrderRequest,
    OrderRow,
    OrderType,
    PriceTick,
    Product,
    ScripTick,
    Segment,
    Side,
    Trade,
    Validity,
)


async def square_off(neo: NeoClient) -> None:
    for position in await neo.portfolio.positions():
        if position.net_quantity:
            side = Side.SELL if position.net_quantity > 0 else Side.BUY
            order = await neo.orders.place(
                position.segment,
                position.symbol,
                side,
                abs(position.net_quantity),
                product=position.product,
                order_type=OrderType.MARKET,
            )
            assert_type(order, Order)
            assert_type(order.segment, Segment)
            assert_type(order.side.opposite, Side)


async def repeat_orders(neo: NeoClient, wait: bool) -> None:
    for row in await neo.orders.book():
        assert_type(row, OrderRow)
        request = OrderRequest(row.segment, row.symbol, row.side, row.quantity, row.product)
        for result in await neo.orders.place_sliced(request, wait_for_outcome=wait):
            assert_type(result, Order | NeoError)
            if isinstance(result, NeoError):
                continue
            assert_type(result.validity, Validity)
            assert_type(await neo.orders.cancel(result, wait_for_outcome=wait), Order)


async def reports(neo: NeoClient) -> None:
    trades, holdings = await neo.orders.trades(), await neo.portfolio.holdings()
    assert_type(trades, list[Trade])
    assert_type(trades[0].side, Side)
    assert_type(holdings, list[Holding])
    assert_type(holdings[0].segment, Segment)
    assert_type((await neo.portfolio.positions())[0].product, Product)


async def feeds(neo: NeoClient, some_level: Level) -> None:
    assert_type(neo.market_feed(), MarketFeed[ScripTick])
    assert_type(neo.market_feed(level=Level.LITE), MarketFeed[LiteTick])
    assert_type(neo.market_feed(level=Level.SCRIP), MarketFeed[ScripTick])
    assert_type(neo.market_feed(level=Level.DEPTH), MarketFeed[ScripTick])
    assert_type(neo.market_feed(level=Level.FULL_DEPTH), MarketFeed[ScripTick])
    assert_type(neo.market_feed(level=None), MarketFeed[PriceTick])
    assert_type(neo.market_feed(level=some_level), MarketFeed[PriceTick])
    assert_type(neo.market_feed(on_tick=neo.portfolio.live.on_tick), MarketFeed[ScripTick])
    async with neo.market_feed(level=Level.LITE) as feed:
        async for tick in feed:
            assert_type(tick, LiteTick)
        async for ticks in feed.batches():
            assert_type(ticks, list[LiteTick])
        assert_type(feed.latest("nse_cm|1"), LiteTick | None)
        assert_type(feed.latest_index("nse_cm|Nifty 50"), IndexTick | None)
        assert_type(feed.indices(), AsyncIterator[IndexTick])
        async for status in feed.statuses():
            assert_type(status, MarketStatus)
        async for auction in feed.auctions():
            assert_type(auction, AuctionTick)
        print(price_of(feed))


def price_of(feed: MarketFeed[PriceTick]) -> float | None:
    """Take a feed of any level."""
    return feed.last_price("nse_cm|1")


def on_lite(tick: LiteTick) -> None:
    print(tick.last_price)


async def callbacks(neo: NeoClient) -> None:
    neo.market_feed(level=Level.LITE, on_tick=on_lite)
    neo.market_feed(level=Level.DEPTH, on_tick=on_lite)  # WRONG


async def misuse(neo: NeoClient) -> None:
    async with neo.market_feed(level=Level.LITE) as feed:
        async for tick in feed:
            print(tick.bids)  # WRONG
    await neo.orders.place("nse_cm", "TCS-EQ", Side.BUY, "1", product=Product.CNC)  # WRONG


async def frames(neo: NeoClient) -> None:
    from datetime import date

    candles = await neo.market.candles("nse_cm|1", Interval.DAY, start=date(2026, 1, 1))
    assert_type(candles, Candles)
    assert_type(candles.to_pandas(), pandas.DataFrame)
    assert_type(candles.to_polars(), polars.DataFrame)
    assert_type(candles.close, list[float])


def live() -> NeoClient:
    return NeoClient(Credentials.from_env(), journal="orders.db")
