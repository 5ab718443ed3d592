from __future__ import annotations

import asyncio
import json
import ssl
from datetime import date
from pathlib import Path

import aiohttp
import pytest
import trustme

from neo_async.exchange import FeedSettings
from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.feeds.market_feed import BUDGET
from neo_async.model.enums import Level, Segment, Side
from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketState,
    MarketStatus,
    ScripTick,
)
from neo_async.wire.feed import EXCHANGE_IDS, Stream
from tests.exchange.callers import START, Caller, Clock, trading
from tests.exchange.feeds.readers import (
    ITBEES,
    RELIANCE,
    TCS,
    market_reader,
    order_reader,
    put,
    trade,
)
from tests.exchange_settings import exchange_with

LISTED = default_listings(date(2026, 11, 23))
NIFTY_FUTURE = next(listing for listing in LISTED if listing.symbol == "NIFTY26DECFUT")

NIFTY, BANK, SENSEX = "nse_cm|Nifty 50", "nse_cm|Nifty Bank", "bse_cm|SENSEX"
AT_ONCE = FeedSettings(interval=0)


async def test_a_subscription_is_acknowledged_with_names_under_both_keys() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        await reader.send(
            {"event": "subscribeDepth", "inputtoken": f"{ITBEES},{TCS}", "ack_symbol": True}
        )
        assert json.loads(await reader.websocket.receive_str()) == {
            "message_code": 1109,
            "message": "Subscribed",
            "error_code": 0,
            "description": "SUBSCRIBED",
            "trading_symbols": {ITBEES: "ITBEES-EQ", TCS: "TCS-EQ"},
            "data": {
                ITBEES: {"cas_status": 1, "trading_symbols": "ITBEES-EQ"},
                TCS: {"cas_status": 1, "trading_symbols": "TCS-EQ"},
            },
        }
        assert caller.exchange.feeds.subscribed == {ITBEES, TCS}


async def test_unknown_instruments_are_left_out_and_the_others_served() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        unknown = ["nse_cm|0", "nowhere|11536", "nse_cm", "", "nse_cm|Nifty 51"]
        ack = await reader.ask("subscribe", Stream.LITE, *unknown, TCS)
        assert ack.symbols == {TCS: "TCS-EQ"}
        assert [tick.instrument for tick in await reader.ticks()] == [TCS]
        assert (await reader.ask("subscribe", Stream.LITE, *unknown)).symbols == {}


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        (Stream.LITE, 54),
        (Stream.SCRIP, 176),
        (Stream.DEPTH, 304),
        (Stream.FULL_DEPTH, 144 + 16 * 10),
        (Stream.INDEX, 87),
    ],
)
async def test_each_subscription_is_answered_with_one_packet_at_once(
    stream: Stream, size: int
) -> None:
    async with trading(market_makers=True) as caller, market_reader(caller) as reader:
        await reader.ask("subscribe", stream, NIFTY if stream is Stream.INDEX else TCS)
        message = await reader.message()
        assert len(message) == size
        assert int.from_bytes(message[:2], "little") == size


async def test_the_mini_touch_line_tells_of_the_last_trade() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        (tick,) = await reader.subscribe(Stream.LITE, ITBEES)
        assert tick == LiteTick(ITBEES, "", 39.40, 0, 0, 39.40, 0.0, 0.0, 1, 2, 1, 0)
        trade(caller.exchange, 30, 39_79)
        assert await reader.tick(LiteTick) == LiteTick(
            ITBEES, "", 39.79, int(START), 30, 39.40, 0.39, 0.99, 1, 2, 1, 0
        )


async def test_the_touch_line_tells_of_the_day() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        exchange = caller.exchange
        (fresh,) = await reader.subscribe(Stream.SCRIP, ITBEES)
        assert isinstance(fresh, ScripTick)
        assert (fresh.open, fresh.high, fresh.low, fresh.close) == (0, 0, 0, 39.40)
        assert (fresh.volume, fresh.value, fresh.average_price) == (0, 0, 0)
        assert (fresh.bids, fresh.asks) == ((DepthRow(0, 0.0, 0),), (DepthRow(0, 0.0, 0),))

        put(exchange, Side.BUY, 7, 39_00)
        put(exchange, Side.BUY, 5, 38_90)
        put(exchange, Side.SELL, 3, 41_00)
        caller.clock.now += 60
        for quantity, price in ((10, 39_50), (20, 40_10), (30, 39_20), (40, 39_60)):
            trade(exchange, quantity, price)
        tick = fresh
        while tick.volume < 100:
            tick = await reader.tick(ScripTick)
        assert tick.level is Level.SCRIP or tick.level == 4
        assert (tick.open, tick.high, tick.low, tick.close) == (39.50, 40.10, 39.20, 39.40)
        assert (tick.last_price, tick.last_quantity) == (39.60, 40)
        value = 10 * 39.50 + 20 * 40.10 + 30 * 39.20 + 40 * 39.60
        assert tick.value == pytest.approx(value)
        assert tick.average_price == pytest.approx(value / 100, abs=0.005)
        assert tick.last_trade_time == tick.last_update_time == int(START) + 60
        assert (tick.total_buy_quantity, tick.total_sell_quantity) == (12, 3)
        assert (tick.bids, tick.asks) == ((DepthRow(7, 39.00, 1),), (DepthRow(3, 41.00, 1),))
        assert (tick.change, tick.change_percent) == (0.20, 0.51)
        assert (tick.lower_circuit, tick.upper_circuit) == (31.52, 47.28)
        assert tick.year_low < 39.20 < 40.10 < tick.year_high
        assert tick.open_interest == 0


async def test_depth_has_five_rows_a_side_and_full_depth_up_to_twenty() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        for step in range(25):
            put(caller.exchange, Side.BUY, 1 + step, 39_00 - step)
        put(caller.exchange, Side.BUY, 4, 39_00)
        put(caller.exchange, Side.SELL, 9, 40_00)
        (depth,) = await reader.subscribe(Stream.DEPTH, ITBEES)
        (full,) = await reader.subscribe(Stream.FULL_DEPTH, ITBEES)
        assert isinstance(depth, ScripTick)
        assert isinstance(full, ScripTick)
        rows = [DepthRow(1 + step, (39_00 - step) / 100, 1) for step in range(25)]
        rows[0] = DepthRow(5, 39.00, 2)
        nobody = DepthRow(0, 0.0, 0)
        assert depth.bids == tuple(rows[:5])
        assert depth.asks == (DepthRow(9, 40.00, 1), *[nobody] * 4)
        assert full.bids == tuple(rows[:20])
        assert full.asks == (DepthRow(9, 40.00, 1),)


async def test_derivatives_have_an_open_interest_in_whole_lots() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        (tick,) = await reader.subscribe(Stream.SCRIP, f"nse_fo|{NIFTY_FUTURE.token}")
        assert isinstance(tick, ScripTick)
        assert tick.open_interest > 0
        assert tick.open_interest % tick.lot_size == 0


async def test_levels_are_streams_of_their_own() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        await reader.subscribe(Stream.DEPTH, ITBEES)
        await reader.send({"event": "unsubscribeScripsLite", "inputtoken": ITBEES})
        await reader.wait_for_outcome()
        trade(caller.exchange, 1, 39_50)
        assert (await reader.tick(ScripTick)).level == Level.DEPTH
        assert caller.exchange.feeds.subscribed == {ITBEES}


async def test_unsubscribing_ends_the_packets_and_says_nothing() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES, TCS)
        await reader.send({"event": "unsubscribeScripsLite", "inputtoken": f"{ITBEES},nse_cm|0"})
        await reader.wait_for_outcome()
        trade(caller.exchange, 1, 39_50)
        trade(caller.exchange, 1, 2117_00, symbol="TCS-EQ")
        assert (await reader.tick(LiteTick)).instrument == TCS
        assert caller.exchange.feeds.subscribed == {TCS}


async def test_a_snapshot_is_one_packet_and_no_subscription() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        for stream, text in (
            (Stream.LITE, ITBEES),
            (Stream.SCRIP, ITBEES),
            (Stream.DEPTH, ITBEES),
            (Stream.INDEX, NIFTY),
        ):
            ack = await reader.ask("snapshot", stream, text)
            assert set(ack.symbols) == {text}
            assert len(await reader.ticks()) == 1
        assert caller.exchange.feeds.subscribed == set()
        trade(caller.exchange, 1, 39_50)
        await reader.wait_for_outcome()


@pytest.mark.parametrize(
    "frame",
    ["", "nothing", "[1]", "{}", '{"event":7}', '{"event":"snapshotFullDepth"}'],
)
async def test_what_is_not_understood_is_said_to_be_so(frame: str) -> None:
    async with trading() as caller, market_reader(caller) as reader:
        await reader.send(frame)
        answer = await reader.control()
        assert (answer.message_code, answer.symbols) == (1109, {})
        assert answer.error_code != 0
        assert len(await reader.subscribe(Stream.LITE, TCS)) == 1


# --- the budget ---------------------------------------------------------------------------------


async def test_a_request_beyond_the_budget_subscribes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neo_async.exchange.feeds.market_feed.BUDGET", 2)
    async with trading() as caller, market_reader(caller) as reader:
        refused = await reader.ask("subscribe", Stream.LITE, ITBEES, TCS, RELIANCE)
        assert (refused.message_code, refused.symbols) == (1109, {})
        assert refused.error_code != 0
        assert "may have 2" in refused.text
        assert caller.exchange.feeds.subscribed == set()

        await reader.subscribe(Stream.LITE, ITBEES, TCS)
        assert (await reader.ask("subscribe", Stream.DEPTH, ITBEES)).error_code != 0
        assert len(await reader.subscribe(Stream.LITE, ITBEES)) == 1  # counted already
        await reader.send({"event": "unsubscribeScripsLite", "inputtoken": TCS})
        assert len(await reader.subscribe(Stream.DEPTH, ITBEES)) == 1


async def test_what_is_not_listed_is_not_counted() -> None:
    assert BUDGET == 3000
    async with trading() as caller, market_reader(caller) as reader:
        unknown = [f"nse_cm|{900_000 + number}" for number in range(BUDGET)]
        ack = await reader.ask("subscribe", Stream.LITE, *unknown, TCS)
        assert ack.symbols == {TCS: "TCS-EQ"}


# --- indices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "token", "name", "close"),
    [
        (NIFTY, 26000, "Nifty 50", 24_412.35),
        ("nse_cm|26000", 26000, "Nifty 50", 24_412.35),
        ("nse_cm|NIFTY 50", 26000, "Nifty 50", 24_412.35),
        (BANK, 26009, "Nifty Bank", 55_180.70),
        ("nse_cm|26009", 26009, "Nifty Bank", 55_180.70),
        (SENSEX, 1, "SENSEX", 79_802.10),
    ],
)
@pytest.mark.parametrize("stream", [Stream.INDEX, Stream.SCRIP])
async def test_an_index_goes_by_name_or_number_and_is_named_as_asked_for(
    stream: Stream, text: str, token: int, name: str, close: float
) -> None:
    async with trading() as caller, market_reader(caller) as reader:
        ack = await reader.ask("subscribe", stream, text)
        assert ack.symbols == {text: f"{name}-IN"}
        tick = await reader.tick(IndexTick)
        assert (tick.token, tick.name, tick.close) == (token, name, close)
        assert (tick.last_price, tick.change, tick.change_percent) == (close, 0, 0)
        assert (tick.open, tick.high, tick.low) == (0, 0, 0)
        assert tick.year_low < close < tick.year_high


async def test_an_index_moves_as_its_members_do() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.INDEX, SENSEX)
        market = caller.exchange.market
        market.print_price(Segment.BSE_CM, "500325", 1412_20 * 110 // 100)  # 11 of 71 parts
        caller.exchange.tick()
        tick = await reader.tick(IndexTick)
        assert tick.last_price == pytest.approx(79_802.10 * (1 + 0.1 * 11 / 71), rel=1e-5)
        assert tick.high == tick.last_price
        assert tick.change_percent == pytest.approx(1.549, abs=0.01)
        assert tick.last_trade_time == int(START)
        market.print_price(Segment.BSE_CM, "500325", 1412_20)
        caller.exchange.tick()
        back = await reader.tick(IndexTick)
        assert (back.last_price, back.high) == (79_802.10, tick.high)


async def test_both_spellings_of_an_index_are_one_subscription() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        ack = await reader.ask("subscribe", Stream.INDEX, NIFTY, "nse_cm|26000")
        assert set(ack.symbols) == {NIFTY, "nse_cm|26000"}
        await reader.tick(IndexTick)
        assert caller.exchange.feeds.subscribed == {"nse_cm|26000"}


async def test_a_share_is_no_index() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        assert (await reader.ask("subscribe", Stream.INDEX, TCS)).symbols == {}


# --- market status and auctions -----------------------------------------------------------------


async def test_market_status_is_told_at_once_and_when_it_changes() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        await reader.send({"event": "subscribeExchange"})
        statuses = await reader.ticks()
        assert {status.instrument for status in statuses} == {
            listing.segment.value for listing in LISTED
        }
        assert all(
            isinstance(status, MarketStatus) and (status.code, status.text) == (1, "OPEN")
            for status in statuses
        )
        caller.exchange.feeds.set_market_status(MarketState.CLOSED, Segment.NSE_FO)
        assert await reader.ticks() == [MarketStatus("nse_fo", 2, "CLOSE", 0)]
        caller.exchange.feeds.set_market_status(MarketState.AUCTION_STARTED)
        assert {status.code for status in await reader.ticks()} == {10}  # type: ignore[union-attr]

        await reader.send({"event": "unsubscribeExchange"})
        await reader.wait_for_outcome()
        caller.exchange.feeds.set_market_status(MarketState.OPEN)
        await reader.wait_for_outcome()


async def test_whoever_comes_later_is_told_the_present_status() -> None:
    async with trading() as caller, market_reader(caller) as reader:
        caller.exchange.feeds.set_market_status(MarketState.CLOSED, Segment.MCX_FO)
        await reader.send({"event": "subscribeExchange"})
        codes = {status.instrument: status.code for status in await reader.ticks()}  # type: ignore[union-attr]
        assert codes == dict.fromkeys(codes, 1) | {"mcx_fo": 2}


async def test_open_and_close_can_come_as_the_bare_headers_of_old() -> None:
    settings = FeedSettings(old_status=True)
    async with trading(feeds=settings) as caller, market_reader(caller) as reader:
        await reader.send({"event": "subscribeExchange"})
        assert len(await reader.message()) == 9 * 5
        caller.exchange.feeds.set_market_status(MarketState.CLOSED, Segment.NSE_CM)
        assert await reader.message() == bytes([9, 0, 0x79, 0x19, 1, 0, 0, 0, 0])  # 6521
        caller.exchange.feeds.set_market_status(MarketState.AUCTION_STARTED, Segment.NSE_CM)
        assert len(await reader.message()) == 16


@pytest.mark.parametrize(("long", "size"), [(False, 33), (True, 48)])
async def test_auctions_are_told_to_scrip_and_depth_subscribers(long: bool, size: int) -> None:
    settings = FeedSettings(long_auctions=long)
    async with trading(feeds=settings) as caller, market_reader(caller) as reader:
        for stream in (Stream.LITE, Stream.SCRIP, Stream.DEPTH):
            await reader.subscribe(stream, TCS)
        caller.exchange.feeds.send_auction(
            TCS, reference_price=1501.0, imbalance_quantity=2500, imbalance_at_market=-1200
        )
        message = await reader.message()
        assert len(message) == 2 * size
        ticks = reader.decoder.decode(message, 0)
        assert ticks == [AuctionTick(TCS, "", 1501.0, 2500, -1200, 0)] * 2
        assert [message[5], message[size + 5]] == [Level.SCRIP, Level.DEPTH]


# --- what it costs ------------------------------------------------------------------------------


async def test_all_subscribers_share_one_packet() -> None:
    """Down to its sequence number, which counts packets."""
    async with (
        trading(feeds=AT_ONCE) as caller,
        market_reader(caller) as one,
        market_reader(caller) as other,
    ):
        for reader in (one, other):
            await reader.subscribe(Stream.DEPTH, ITBEES)
        trade(caller.exchange, 1, 39_50)
        assert await one.message() == await other.message()


async def test_many_changes_come_in_one_message() -> None:
    async with trading(market_makers=True) as caller, market_reader(caller) as reader:
        texts = [f"{each.segment.value}|{each.token}" for each in LISTED]
        await reader.ask("subscribe", Stream.DEPTH, *texts)
        first: list[str] = []
        while len(first) < len(texts):
            first += [tick.instrument for tick in await reader.ticks()]
        assert sorted(first) == sorted(texts)
        caller.clock.now += 0.3
        caller.exchange.tick()
        changed = [tick.instrument for tick in await reader.ticks()]
        assert sorted(changed) == sorted(texts)


async def test_no_message_is_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_async.exchange.feeds.topics.MAX_MESSAGE", 1000)
    async with trading() as caller, market_reader(caller) as reader:
        await reader.ask("subscribe", Stream.DEPTH, *[f"nse_cm|{t}" for t in (25, 236, 317, 526)])
        sizes = [len(await reader.message()) for _ in range(2)]
        assert sizes == [3 * 304, 304]


async def test_prices_between_two_flushes_are_left_out() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        for price in (39_10, 39_20, 39_30):
            caller.exchange.market.print_price(Segment.NSE_CM, "19084", price)
        caller.exchange.tick()
        assert (await reader.tick(LiteTick)).last_price == 39.30
        await reader.wait_for_outcome()


async def test_changes_wait_for_the_interval_after_a_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    go_on = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await go_on.wait()

    settings = FeedSettings(interval=7.5)
    async with trading(feeds=settings) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        monkeypatch.setattr("neo_async.exchange.feeds.market_feed._pause", pause)
        trade(caller.exchange, 1, 39_10)
        assert (await reader.tick(LiteTick)).last_price == 39.10
        assert pauses == [7.5]
        trade(caller.exchange, 1, 39_20)
        trade(caller.exchange, 1, 39_30)
        await reader.wait_for_outcome()
        go_on.set()
        assert (await reader.tick(LiteTick)).last_price == 39.30


async def test_a_price_that_the_wire_has_no_room_for_keeps_only_its_own_listing_silent() -> None:
    async with trading(feeds=AT_ONCE) as caller:
        caller.exchange.feeds.market.set_exchanges({"nse_cm": (1, 10_000_000)})
        async with market_reader(caller) as reader:
            (first,) = await reader.subscribe(Stream.LITE, TCS, ITBEES)  # 2117.00 and 39.40
            assert first.instrument == ITBEES
            trade(caller.exchange, 1, 2120_00, symbol="TCS-EQ")
            trade(caller.exchange, 1, 39_50)
            assert (await reader.tick(LiteTick)).last_price == 39.50


async def test_both_feeds_run_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    trusting = ssl.create_default_context(cafile=str(ca_file))
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with (
        exchange_with(tls=context, ca_file=ca_file, clock=Clock(), market_makers=False) as exchange,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        caller = Caller(exchange, http, Clock())
        await caller.log_in()
        async with market_reader(caller) as market, order_reader(caller) as orders:
            assert len(await market.subscribe(Stream.DEPTH, TCS)) == 1
            await caller.placed()
            assert (await orders.states("open"))[-1] == "open"


async def test_nobody_watches_once_the_last_reader_has_gone() -> None:
    async with trading() as caller:
        feed = caller.exchange.feeds.market
        async with market_reader(caller) as reader:
            await reader.subscribe(Stream.DEPTH, ITBEES)
            await reader.subscribe(Stream.INDEX, NIFTY)
            trade(caller.exchange, 1, 39_10)
            lines = list(feed.connections)
        for line in lines:
            await line.closed.wait()
        assert not feed.connections
        assert caller.exchange.feeds.subscribed == set()
        trade(caller.exchange, 1, 39_20)
        trade(caller.exchange, 1, 1412_00, symbol="RELIANCE-EQ")
        assert not caller.exchange.market.has_changes


async def test_after_a_reset_the_new_market_is_shown() -> None:
    async with trading(feeds=AT_ONCE) as caller, market_reader(caller) as reader:
        await reader.subscribe(Stream.LITE, ITBEES)
        trade(caller.exchange, 1, 39_90)
        await reader.tick(LiteTick)
        await caller.admin("POST", "reset")
        assert (await reader.tick(LiteTick)).last_price == 39.40
        trade(caller.exchange, 1, 39_10)
        assert (await reader.tick(LiteTick)).last_price == 39.10


def test_every_segment_that_trades_has_a_number_on_the_wire() -> None:
    assert {segment.value for segment in Segment} <= set(EXCHANGE_IDS)
