"""Streams of the market feed beside prices: indices, market statuses, auctions."""

from __future__ import annotations

from neo_async.model.ticks import (
    AuctionTick,
    MarketState,
)
from tests.feed_servers import feed_server
from tests.feeds.market_servers import (
    ENCODE,
    opened,
    sending,
    status,
)


async def test_market_status_and_auctions_come_from_iterators_of_their_own() -> None:
    auction = ENCODE.auction(AuctionTick("nse_cm|11536", "", 1501.0, 2500, -1200, 0))
    nothing = ENCODE.auction(AuctionTick("nse_cm|11536", "", 0.0, 0, 0, 0))
    script = sending(status(MarketState.OPEN) + nothing + auction)
    async with feed_server(script) as server, opened(server) as feed:
        await feed.subscribe(["nse_cm|11536"])
        await feed.subscribe_status()
        first, second = await anext(feed.statuses()), await anext(feed.auctions())
        assert (first.segment, first.code) == ("nse_cm", MarketState.OPEN)
        assert (second.reference_price, second.imbalance_at_market) == (1501.0, -1200)
        assert feed.latest_status("nse_cm") == first
        assert feed.latest_auction("nse_cm|11536") == second
        assert feed.pending == 0
