"""Streams of the market feed beside prices: indices, market statuses, auctions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import UsageError
from neo_async.feeds.buffers import Policy, tick_buffer
from neo_async.feeds.tick_stream import TickStream
from neo_async.model.ticks import (
    AuctionTick,
    MarketState,
    MarketStatus,
)
from tests.feed_servers import feed_server
from tests.feeds.market_servers import (
    ENCODE,
    opened,
    sending,
    status,
)
from tests.simulation.virtual_time import in_virtual_time


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


# --- a stream by itself ---------------------------------------------------------------------------


def tick(number: int, segment: str = "nse_cm") -> MarketStatus:
    return MarketStatus(segment, number, "", number)


def stream_of(
    *newest: MarketStatus, policy: Policy = Policy.BLOCK, bound: int = 1000
) -> TickStream[MarketStatus]:
    return TickStream(tick_buffer(policy, bound), newest)


@given(st.integers(0, 5), st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=6))
@in_virtual_time
async def test_a_stream_yields_the_newest_ticks_then_all_that_come_and_ends_when_it_is_closed(
    count: int, batches: list[list[int]]
) -> None:
    stream = stream_of(*(tick(number) for number in range(count)))
    for batch in batches:
        assert stream.put([tick(number) for number in batch]) is None
    stream.close()
    taken = [each.code async for each in stream]
    assert taken == [*range(count), *(number for batch in batches for number in batch)]
    assert [each async for each in stream] == []


async def test_a_consumer_waits_for_the_next_tick_and_is_released_by_the_closing() -> None:
    stream = stream_of()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(1)
    assert not waiting.done()
    stream.put([tick(7)])
    assert await waiting == tick(7)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(1)
    stream.close()
    assert await waiting is None


async def test_with_policy_block_the_feed_has_to_wait_until_there_is_room() -> None:
    stream = stream_of(bound=2)
    assert stream.put([tick(1)]) is None
    room = stream.put([tick(2)])
    assert room is not None
    reading = asyncio.ensure_future(room)
    await asyncio.sleep(1)
    assert not reading.done()
    assert await anext(stream) == tick(1)
    await asyncio.wait_for(reading, 1)


async def test_with_policy_conflate_a_late_consumer_gets_the_newest_of_each_subject() -> None:
    stream = stream_of(tick(1), policy=Policy.CONFLATE)
    stream.put([tick(2), tick(3, "nse_fo")])
    stream.put([tick(4)])
    assert [await anext(stream) for _ in range(2)] == [tick(4), tick(3, "nse_fo")]


async def test_a_stream_has_one_consumer() -> None:
    stream = stream_of()
    first = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="two consumers"):
        await anext(stream)
    stream.close()
    await first
