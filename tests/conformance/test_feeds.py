"""The official SDK's feed clients, unmodified, listen to our exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pyotp
import pytest

from neo_async.exchange import AuthAnswer, Exchange, FeedSettings
from neo_async.exchange.engine.types import NewOrder
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.ticks import MarketState
from neo_async.wire.feed import FeedDecoder, read_control
from tests.conformance.conftest import NOON
from tests.conformance.test_feed_decoder import fields, their_fields
from tests.exchange_settings import exchange_with

sfeed = pytest.importorskip("neo_api_client.websocket.feed")
orderfeed = pytest.importorskip("neo_api_client.websocket.orderfeed")
SubscriptionError = pytest.importorskip(
    "neo_api_client.websocket.feed.exceptions"
).SubscriptionError

TCS, ITBEES, RELIANCE = (sfeed.WsToken("nse_cm", token) for token in ("11536", "19084", "2885"))
NIFTY, BANK = sfeed.WsToken("nse_cm", "Nifty 50"), sfeed.WsToken("nse_cm", "26009")

PLACE, MODIFY, CANCEL = "rule/ms/place", "vr/modify", "cancel"


class Client:
    """One login at an exchange of its own whose clock stands still."""

    def __init__(self, exchange: Exchange, http: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self._http = http
        self.login: dict[str, Any] = {}

    async def log_in(self) -> None:
        credentials = self.exchange.credentials
        url = f"{self.exchange.login_url}/login/1.0/tradeApi"
        headers = {"Authorization": credentials.consumer_key, "neo-fin-key": "neotradeapi"}
        form = {
            "mobileNumber": credentials.mobile_number,
            "ucc": credentials.ucc,
            "totp": pyotp.TOTP(credentials.totp_secret).at(NOON),
        }
        async with self._http.post(f"{url}Login", json=form, headers=headers) as answer:
            view = (await answer.json())["data"]
        headers |= {"sid": view["sid"], "Auth": view["token"]}
        form = {"mpin": credentials.mpin}
        async with self._http.post(f"{url}Validate", json=form, headers=headers) as answer:
            self.login = (await answer.json())["data"]

    async def order(self, call: str, **fields_: str) -> str:
        """Place, modify or cancel; the order's number."""
        url = f"{self.exchange.base_url}/quick/order/{call}"
        headers = {"Sid": self.login["sid"], "Auth": self.login["token"]}
        form = {"jData": json.dumps(fields_)}
        async with self._http.post(url, data=form, headers=headers) as answer:
            number: str = (await answer.json())["nOrdNo"]
            return number

    async def place(self, price: str) -> str:
        return await self.order(
            PLACE,
            am="NO",
            dq="0",
            es="nse_cm",
            mp="0",
            pc="CNC",
            pr=price,
            pt="L",
            qt="10",
            rt="DAY",
            tp="0",
            ts="ITBEES-EQ",
            tt="B",
        )

    def sell(self, quantity: int, price: int) -> None:
        """The other account sells, at paise."""
        order = NewOrder(
            segment=Segment.NSE_CM,
            symbol="ITBEES-EQ",
            side=Side.SELL,
            quantity=quantity,
            price=price,
            order_type=OrderType.LIMIT,
            product=Product.MIS,
        )
        self.exchange.market.place(self.exchange.accounts[1].ucc, order)
        self.exchange.tick()


@asynccontextmanager
async def logged_in(**options: Any) -> AsyncIterator[Client]:
    settings = {"seed": 7, "limits": None, "clock": lambda: NOON, "market_makers": False} | options
    async with exchange_with(**settings) as exchange, aiohttp.ClientSession() as http:
        client = Client(exchange, http)
        await client.log_in()
        yield client


class Listener:
    """The SDK's client, and what it was sent."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed
        self.frames: list[str | bytes] = []
        self.errors: list[Exception] = []
        self.heard = asyncio.Event()
        feed.on_raw = self._hear
        feed.on_error = self.errors.append

    def _hear(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        self.heard.set()

    async def message(self) -> Any:
        return await asyncio.wait_for(anext(self.feed), 5)

    async def messages(self, count: int) -> list[Any]:
        return [await self.message() for _ in range(count)]


@asynccontextmanager
async def market_listener(client: Client) -> AsyncIterator[Listener]:
    feed = sfeed.SFeedWebSocket(
        sid=client.login["sid"],
        ucc=client.login["ucc"],
        url=client.exchange.feed_url,
        max_connect_retries=0,
        max_reconnect_attempts=0,
    )
    listener = Listener(feed)
    async with feed:
        yield listener
    assert listener.errors == []


@asynccontextmanager
async def order_listener(client: Client) -> AsyncIterator[Listener]:
    feed = orderfeed.OrderFeedWebSocket(
        None,
        client.login["token"],
        client.login["sid"],
        url=client.exchange.realtime_url,
        max_connect_retries=0,
        max_reconnect_attempts=0,
    )
    listener = Listener(feed)
    async with feed:
        await listener.heard.wait()  # its connect() does not wait for the acknowledgement
        yield listener
    assert listener.errors == []


# --- market feed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", list(AuthAnswer))
async def test_the_sdk_authenticates_and_learns_every_divider(answer: AuthAnswer) -> None:
    settings = FeedSettings(auth_answer=answer)
    async with logged_in(feeds=settings) as client, market_listener(client) as listener:
        assert listener.feed.dividers == {
            1: 100,
            2: 100,
            3: 10_000_000,
            4: 10_000,
            5: 100,
            6: 100,
            7: 10_000_000,
            8: 10_000,
            9: 100,
            10: 1,
        }


async def test_a_wrong_sid_fails_as_an_authentication_error() -> None:
    async with logged_in() as client:
        feed = sfeed.SFeedWebSocket(
            sid="wrong", ucc=client.login["ucc"], url=client.exchange.feed_url
        )
        with pytest.raises(Exception, match="Auth failed") as caught:
            await feed.connect()
        assert type(caught.value).__name__ == "AuthenticationError"
        await feed.close()


LEVELS: dict[str, Callable[[Any], int | str]] = {
    "scrips_lite": lambda message: message.type,
    "scrips": lambda message: message.level,
    "depth": lambda message: message.level,
    "full_depth": lambda message: message.level,
}


@pytest.mark.parametrize(
    ("intent", "kind"),
    [("scrips_lite", "scrip_lite"), ("scrips", 4), ("depth", 8), ("full_depth", 16)],
)
async def test_every_level_reads_the_same_in_the_sdk_and_here(intent: str, kind: int | str) -> None:
    async with logged_in(market_makers=True) as client, market_listener(client) as listener:
        # Returns only once the acknowledgement has come; there is a long wait otherwise.
        async with asyncio.timeout(2):
            await getattr(listener.feed, f"subscribe_{intent}")([TCS, ITBEES, RELIANCE])
        assert listener.feed.trading_symbols == {
            "nse_cm|11536": "TCS-EQ",
            "nse_cm|19084": "ITBEES-EQ",
            "nse_cm|2885": "RELIANCE-EQ",
        }
        messages = await listener.messages(3)
        client.exchange.market.print_price(Segment.NSE_CM, "11536", 2120_00)
        client.exchange.tick()
        messages += await listener.messages(1)
        assert {LEVELS[intent](message) for message in messages} == {kind}
        assert messages[-1].last_traded_price == 2120.00
        assert_same(listener, messages)


async def test_indices_are_named_whether_by_name_or_number() -> None:
    async with logged_in() as client, market_listener(client) as listener:
        await listener.feed.subscribe_index([NIFTY, BANK])
        messages = await listener.messages(2)
        assert [
            (message.instrument_token, message.name, message.trading_symbol) for message in messages
        ] == [("26000", "Nifty 50", "Nifty 50-IN"), ("26009", "Nifty Bank", "Nifty Bank-IN")]
        client.exchange.market.print_price(Segment.NSE_CM, "1333", 800_00)
        client.exchange.tick()
        messages += await listener.messages(2)
        assert all(message.change > 0 for message in messages[2:])
        assert_same(listener, messages)


async def test_a_mixed_subscription_of_names_and_tokens_gives_both_kinds() -> None:
    async with logged_in() as client, market_listener(client) as listener:
        await listener.feed.subscribe_scrips([TCS, NIFTY])
        messages = await listener.messages(2)
        assert [message.type for message in messages] == ["scrip", "index"]
        assert all(message.trading_symbol for message in messages)


async def test_unsubscribed_instruments_are_heard_of_no_more() -> None:
    async with logged_in() as client, market_listener(client) as listener:
        await listener.feed.subscribe_depth([TCS, ITBEES])
        await listener.messages(2)
        await listener.feed.unsubscribe_depth([TCS])
        await listener.feed.subscribe_depth([RELIANCE])
        await listener.messages(1)
        assert client.exchange.feeds.subscribed == {"nse_cm|19084", "nse_cm|2885"}


@pytest.mark.parametrize("feed_type", ["scrips", "scrips_lite", "depth"])
async def test_snapshots_are_one_message_each(feed_type: str) -> None:
    async with logged_in() as client, market_listener(client) as listener:
        await listener.feed.snapshot([TCS, ITBEES], feed_type)
        messages = await listener.messages(2)
        assert [message.trading_symbol for message in messages] == ["TCS-EQ", "ITBEES-EQ"]
        assert client.exchange.feeds.subscribed == set()


@pytest.mark.parametrize("old", [False, True])
async def test_market_status_reaches_the_sdk(old: bool) -> None:
    settings = FeedSettings(old_status=old)
    async with logged_in(feeds=settings) as client, market_listener(client) as listener:
        await listener.feed.subscribe_exchange()
        messages = await listener.messages(5)
        assert {message.status for message in messages} == {"Market open"}
        client.exchange.feeds.set_market_status(MarketState.CLOSED, Segment.NSE_CM)
        closed = await listener.message()
        assert (closed.exchange_segment, closed.status) == ("nse_cm", "Market closed")


@pytest.mark.parametrize("long", [False, True])
async def test_auctions_of_either_length_reach_the_sdk(long: bool) -> None:
    settings = FeedSettings(long_auctions=long)
    async with logged_in(feeds=settings) as client, market_listener(client) as listener:
        await listener.feed.subscribe_depth([TCS])
        await listener.message()
        client.exchange.feeds.send_auction(
            "nse_cm|11536",
            reference_price=2120.5,
            imbalance_quantity=2500,
            imbalance_at_market=-1200,
        )
        message = await listener.message()
        assert message.model_dump() == {
            "type": "cas_change",
            "exchange_segment": "nse_cm",
            "instrument_token": "11536",
            "trading_symbol": "TCS-EQ",
            "ref_price": 2120.5,
            "imbalance_qty": 2500,
            "imbalance_qty_at_market": -1200,
        }


async def test_garbage_and_cut_batches_do_not_end_the_sdks_stream() -> None:
    async with logged_in() as client, market_listener(client) as listener:
        await listener.feed.subscribe_scrips_lite([TCS])
        await listener.message()
        client.exchange.feeds.send_garbage("market")
        client.exchange.feeds.truncate_batches()
        for price in (2118_00, 2119_00):
            client.exchange.market.print_price(Segment.NSE_CM, "11536", price)
            await client.exchange.feeds.market.flush()
            await client.exchange.feeds.market.until_sent()
        while (message := await listener.message()).type != "scrip_lite":
            pass
        assert message.last_traded_price == 2119.00
        listener.errors.clear()  # garbage may well look like a packet that is too short


async def test_the_sdk_comes_back_after_a_break_and_hears_on() -> None:
    async with logged_in() as client, market_listener(client) as listener:
        feed = listener.feed
        feed.max_reconnect_attempts, feed.reconnect_delay = 5, 0
        await feed.subscribe_scrips_lite([TCS])
        await listener.message()
        client.exchange.feeds.drop_connections()
        again = await listener.message()
        assert (again.trading_symbol, again.last_traded_price) == ("TCS-EQ", 2117.00)
        assert client.exchange.feeds.subscribed == {"nse_cm|11536"}


def assert_same(listener: Listener, messages: list[Any]) -> None:
    """Our decoder, given the same frames, reads the same values and names."""
    decoder = FeedDecoder()
    ticks = []
    for frame in listener.frames:
        if isinstance(frame, bytes):
            ticks += decoder.decode(frame, 0)
        else:
            decoder.set_symbols(read_control(frame).symbols)
    ours = [fields(tick) for tick in ticks]
    theirs = [their_fields(message) for message in messages]
    for each in (*ours, *theirs):
        each.pop("instrument")  # we call an index as it was subscribed, the SDK by its number
    assert ours == theirs
    assert [getattr(tick, "symbol", "") for tick in ticks] == [
        message.trading_symbol for message in messages
    ]


# --- order feed -----------------------------------------------------------------------------------


async def test_an_order_goes_through_its_life_before_the_sdks_eyes() -> None:
    async with logged_in() as client, order_listener(client) as listener:
        number = await client.place("38.00")
        updates = await listener.messages(4)
        await client.order(
            MODIFY, no=number, pr="39.00", pt="L", qt="10", tp="0", dq="0", vd="DAY", am="NO"
        )
        updates += await listener.messages(4)
        client.sell(4, 39_00)
        updates += [await listener.message()]
        position = await listener.message()
        await client.order(CANCEL, on=number, am="NO")
        updates += await listener.messages(2)

        assert all(isinstance(update, orderfeed.OrderUpdate) for update in updates)
        assert {update.data.order_id for update in updates} == {number}
        assert [update.data.order_status for update in updates] == [
            "put order req received",
            "validation pending",
            "open pending",
            "open",
            "modify validation pending",
            "modify pending",
            "modified",
            "open",
            "open",
            "cancel pending",
            "cancelled",
        ]
        fill = updates[8].data
        assert (fill.filled_quantity, fill.unfilled_size, fill.average_price) == (4, 6, "39.00")
        times = [update.data.update_receive_time for update in updates]
        assert times == sorted(set(times))
        assert_complete(updates[-1].data)

        assert isinstance(position, orderfeed.PositionUpdate)
        assert_complete(position.data)
        assert position.data.filled_buy_quantity == "4"
        assert position.data.buy_amount == "156.00"


async def test_a_fill_completes_and_a_rejection_says_why() -> None:
    async with logged_in() as client, order_listener(client) as listener:
        client.sell(10, 38_00)
        await client.place("38.00")
        *_, complete, position = await listener.messages(6)
        assert (complete.data.order_status, complete.data.average_price) == ("complete", "38.00")
        assert position.data.filled_buy_quantity == "10"
        await client.place("60.00")
        *_, rejected = await listener.messages(3)
        assert rejected.data.order_status == "rejected"
        assert "circuit" in rejected.data.model_extra["rejRsn"]


async def test_on_connecting_the_sdk_is_told_where_everything_stands() -> None:
    async with logged_in() as client:
        client.sell(10, 38_00)
        await client.place("38.00")
        await client.place("37.00")
        async with order_listener(client) as listener:
            done, resting, position = await listener.messages(3)
            assert (done.data.order_status, resting.data.order_status) == ("complete", "open")
            assert isinstance(position, orderfeed.PositionUpdate)


async def test_the_sdk_is_shown_fills_without_an_average_price_first() -> None:
    settings = FeedSettings(zero_averages=True)
    async with logged_in(feeds=settings) as client, order_listener(client) as listener:
        client.sell(10, 38_00)
        await client.place("38.00")
        updates = await listener.messages(6)
        assert [update.data.average_price for update in updates[-2:]] == ["0.00", "38.00"]


def assert_complete(data: Any) -> None:
    """No field of the SDK's model is missing from what the exchange sent."""
    assert [name for name, value in data if value is None] == []
