from __future__ import annotations

import json
from typing import Any

import pytest

from neo_async.exchange import FeedSettings
from neo_async.exchange.feeds.order_feed import read_handshake
from neo_async.model.enums import Side
from tests.exchange.callers import Caller, second_account, trading, visiting
from tests.exchange.feeds.readers import OrderReader, order_reader, put, raw_handshake
from tests.simulation.virtual_time import now

KEYS = {
    **dict.fromkeys(("nOrdNo", "exOrdId", "ordSt", "rejRsn", "GuiOrdId"), str),
    **dict.fromkeys(("qty", "fldQty", "unFldSz", "dscQty"), int),
    **dict.fromkeys(("avgPrc", "prc", "trgPrc", "stkPrc"), str),
    **dict.fromkeys(("trnsTp", "prcTp", "prod", "vldt", "exSeg", "sym", "trdSym", "tok"), str),
    **dict.fromkeys(("series", "optTp", "it", "expDt", "ordDtTm", "exCfmTm", "hsUpTm"), str),
    **dict.fromkeys(("updRecvTm", "boeSec"), int),
    **dict.fromkeys(("uSec", "brdLtQty", "lotSz", "multiplier", "precision", "mktPro"), str),
    **dict.fromkeys(("actId", "usrId", "ordSrc", "ordGenTp", "ordValDt", "symOrdId"), str),
    **dict.fromkeys(("reqId", "mfdBy", "strategyCode"), str),
}
POSITION_KEYS = {
    *("actId", "sym", "exSeg", "prod", "flBuyQty", "flSellQty", "buyAmt", "sellAmt"),
    *("posFlg", "sqrFlg", "lotSz", "multiplier", "hsUpTm", "trdSym", "tok"),
}
ACCEPTED = ["put order req received", "validation pending", "open pending", "open"]


# --- saying who one is --------------------------------------------------------------------------


def handshakes(caller: Caller) -> list[str]:
    token, sid = caller.login_data["token"], caller.login_data["sid"]
    return [
        raw_handshake(caller),
        f"{{type:cn,Authorization:{token},Sid:{sid},src:ANY}}",
        f" {{ src:WEB, Sid: {sid}, type: cn, Authorization: {token} }} ",
        json.dumps({"type": "cn", "Authorization": token, "Sid": sid, "src": "WEB"}),
        json.dumps({"src": "API", "Sid": sid, "Authorization": token, "type": "cn"}),
    ]


@pytest.mark.parametrize("form", range(5))
async def test_the_request_may_be_raw_or_json_in_any_order(form: int) -> None:
    async with trading() as caller, order_reader(caller, handshakes(caller)[form]):
        pass


@pytest.mark.parametrize(
    "handshake",
    [
        "",
        "hello",
        "{}",
        "{type:hb}",
        "{type:cn}",
        "{type:cn,Authorization:x,Sid:y,src:WEB}",
        "{type:fcn,Authorization:TOKEN,Sid:SID,src:WEB}",
        "{type:cn,Authorization:SID,Sid:SID,src:WEB}",
        '{"type":"cn","Authorization":null,"Sid":"SID"}',
        "[1,2]",
    ],
)
async def test_anyone_else_is_refused_and_the_socket_closed(handshake: str) -> None:
    async with (
        trading() as caller,
        caller.http.ws_connect(caller.exchange.realtime_url) as websocket,
    ):
        text = handshake.replace("TOKEN", caller.login_data["token"])
        await websocket.send_str(text.replace("SID", caller.login_data["sid"]))
        await assert_refused(OrderReader(websocket))


async def test_a_login_that_stopped_half_way_is_refused() -> None:
    async with visiting(market_makers=False) as caller:
        caller.login_data = (await caller.first_step()).json()["data"]
        async with caller.http.ws_connect(caller.exchange.realtime_url) as websocket:
            await websocket.send_str(raw_handshake(caller))
            await assert_refused(OrderReader(websocket))


async def test_who_says_nothing_is_refused_after_a_while() -> None:
    async with (
        trading(clock=now) as caller,
        caller.http.ws_connect(caller.exchange.realtime_url) as websocket,
    ):
        await assert_refused(OrderReader(websocket))


async def assert_refused(reader: OrderReader) -> None:
    assert await reader.websocket.receive_json(timeout=30) == {
        "ak": "nk",
        "type": "cn",
        "task": "cn",
        "msg": "Authentication Failed",
    }
    async for _ in reader.websocket:
        pass
    assert reader.websocket.close_code == 1008


def test_a_token_with_a_colon_is_read_whole() -> None:
    assert read_handshake("{type:cn,Authorization:a:b,Sid:c}")["authorization"] == "a:b"


@pytest.mark.parametrize("beat", ["{type:hb}", '{"type":"hb"}'])
async def test_a_heartbeat_is_taken_in_silence(beat: str) -> None:
    async with trading() as caller, order_reader(caller) as reader:
        await reader.websocket.send_str(beat)
        await caller.placed()
        assert (await reader.frame())["type"] == "order"


@pytest.mark.parametrize("beat", ["{type:hb}", '{"type":"hb"}'])
async def test_a_heartbeat_can_be_answered(beat: str) -> None:
    settings = FeedSettings(answers_heartbeat=True)
    async with trading(feeds=settings) as caller, order_reader(caller) as reader:
        await reader.websocket.send_str("{type:unheard of}")
        await reader.websocket.send_str(beat)
        assert await reader.frame() == {"ak": "ok", "type": "hb"}


# --- orders -------------------------------------------------------------------------------------


async def test_every_state_has_a_frame_with_every_key() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        number = await caller.placed(ig="tag1")
        frames = await reader.data("order", 4)
        assert [frame["ordSt"] for frame in frames] == ACCEPTED
        for frame in frames:
            assert {key: type(value) for key, value in frame.items()} == KEYS
            assert (frame["nOrdNo"], frame["GuiOrdId"]) == (number, "tag1")
        assert [frame["exOrdId"] != "NA" for frame in frames] == [False, False, False, True]
        times = [frame["updRecvTm"] for frame in frames]
        assert times == sorted(set(times))


async def test_the_last_frame_says_what_the_order_book_says() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        number = await caller.placed(ig="tag1")
        await caller.post("/quick/order/vr/modify", modification(number, pr="38.50", qt="20"))
        seller = second_account(caller).ucc
        put(caller.exchange, Side.SELL, 5, 38_50, account=seller)
        caller.exchange.tick()
        await caller.post("/quick/order/cancel", {"on": number, "am": "NO"})
        frames = await reader.until(lambda frame: frame["data"].get("ordSt") == "cancelled")
        (row,) = await caller.book()
        blank_in_books = {"actId", "usrId"}
        assert {key: row[key] for key in KEYS if key not in blank_in_books} == {
            key: value for key, value in frames[-1]["data"].items() if key not in blank_in_books
        }


async def test_changes_and_cancellations_are_told_state_by_state() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        number = await caller.placed()
        assert await reader.states("open") == ACCEPTED
        await caller.post("/quick/order/vr/modify", modification(number, pr="38.50"))
        assert await reader.states("open") == [
            "modify validation pending",
            "modify pending",
            "modified",
            "open",
        ]
        await caller.post("/quick/order/cancel", {"on": number, "am": "NO"})
        assert await reader.states("cancelled") == ["cancel pending", "cancelled"]


async def test_a_rejection_comes_with_its_reason() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        await caller.placed(qt="40000")
        (*_, last) = await reader.until(lambda frame: frame["data"].get("ordSt") == "rejected")
        assert "RMS:Margin Exceeds" in last["data"]["rejRsn"]
        assert last["data"]["avgPrc"] == "0.00"


async def test_every_partial_fill_has_a_frame_and_a_position() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        await caller.placed(pr="39.00", qt="10")
        await reader.data("order", 4)
        for quantity, price in ((4, 39_00), (6, 38_00)):
            put(caller.exchange, Side.SELL, quantity, price, account=second_account(caller).ucc)
            caller.exchange.tick()
        frames = [await reader.frame() for _ in range(4)]
        assert [frame["type"] for frame in frames] == ["order", "position"] * 2
        assert [
            (frame["data"]["ordSt"], frame["data"]["fldQty"], frame["data"]["unFldSz"])
            for frame in frames[::2]
        ] == [("open", 4, 6), ("complete", 10, 0)]
        assert frames[2]["data"]["avgPrc"] == "39.00"
        assert [frame["data"]["flBuyQty"] for frame in frames[1::2]] == ["4", "10"]
        assert frames[3]["data"]["buyAmt"] == "390.00"


async def test_fills_can_show_no_average_price_at_first() -> None:
    settings = FeedSettings(zero_averages=True)
    async with trading(feeds=settings) as caller, order_reader(caller) as reader:
        await caller.placed(pr="39.00", qt="10")
        put(caller.exchange, Side.SELL, 4, 39_00, account=second_account(caller).ucc)
        put(caller.exchange, Side.SELL, 6, 39_00, account=second_account(caller).ucc)
        caller.exchange.tick()
        frames = await reader.data("order", 8)
        assert [(frame["ordSt"], frame["fldQty"], frame["avgPrc"]) for frame in frames[4:]] == [
            ("open", 4, "0.00"),
            ("open", 4, "39.00"),
            ("complete", 10, "0.00"),
            ("complete", 10, "39.00"),
        ]
        times = [frame["updRecvTm"] for frame in frames]
        assert times == sorted(set(times))


async def test_a_position_frame_is_text_throughout() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        await caller.placed(pr="39.00", qt="10")
        put(caller.exchange, Side.SELL, 10, 39_00, account=second_account(caller).ucc)
        caller.exchange.tick()
        (position,) = await reader.data("position", 1)
        assert set(position) == POSITION_KEYS
        assert all(isinstance(value, str) for value in position.values())
        assert (position["actId"], position["trdSym"], position["tok"], position["sqrFlg"]) == (
            caller.credentials.ucc,
            "ITBEES-EQ",
            "19084",
            "true",
        )


async def test_updates_follow_their_request_without_waiting_for_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neo_async.exchange.simulator._TICK", 3600)
    async with trading() as caller, order_reader(caller) as reader:
        number = await caller.placed(pr="39.00")
        assert await reader.states("open") == ACCEPTED
        price = {"segment": "nse_cm", "token": "19084", "price": 38.5}
        await caller.admin("POST", "price", json=price)
        assert await reader.states("complete") == ["complete"]
        assert number


async def test_each_account_hears_of_its_own_orders_only() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        other = put(caller.exchange, Side.BUY, 1, 38_00, account=second_account(caller).ucc)
        mine = await caller.placed()
        assert {frame["nOrdNo"] for frame in await reader.data("order", 4)} == {mine}
        assert other.number != mine


async def test_every_connection_of_an_account_hears_the_same() -> None:
    async with trading() as caller, order_reader(caller) as one, order_reader(caller) as other:
        await caller.placed()
        assert await one.data("order", 4) == await other.data("order", 4)


# --- on connecting ------------------------------------------------------------------------------


async def test_whoever_connects_is_told_where_everything_stands() -> None:
    async with trading() as caller:
        done = await caller.placed(pr="39.00", qt="10")
        put(caller.exchange, Side.SELL, 10, 39_00, account=second_account(caller).ucc)
        cancelled = await caller.placed()
        await caller.post("/quick/order/cancel", {"on": cancelled, "am": "NO"})
        resting = await caller.placed()
        async with order_reader(caller) as reader:
            frames = [await reader.frame() for _ in range(4)]
            assert [(frame["data"]["nOrdNo"], frame["data"]["ordSt"]) for frame in frames[:3]] == [
                (done, "complete"),
                (cancelled, "cancelled"),
                (resting, "open"),
            ]
            assert (frames[3]["type"], frames[3]["data"]["flBuyQty"]) == ("position", "10")

            await caller.placed()
            assert await reader.states("open") == ACCEPTED


async def test_nothing_older_follows_what_is_told_on_connecting() -> None:
    """Although the clock has not told anyone of the order yet."""
    async with trading() as caller:
        put(caller.exchange, Side.BUY, 1, 38_00)
        async with order_reader(caller) as reader:
            first = await reader.frame()
            assert first["data"]["ordSt"] == "open"
            await caller.placed()
            assert await reader.states("open") == ACCEPTED


# --- the end of a session -----------------------------------------------------------------------


async def test_a_session_that_ends_takes_its_feed_along() -> None:
    async with trading() as caller, order_reader(caller) as reader:
        await caller.post("/apim/login/2.0/logout", {})
        async for _ in reader.websocket:
            pass
        assert reader.websocket.close_code == 1008


async def test_the_third_login_ends_the_feed_of_the_first() -> None:
    async with trading() as caller, order_reader(caller) as first:
        await caller.log_in_again()
        async with order_reader(caller) as second:
            await caller.log_in_again()
            async for _ in first.websocket:
                pass
            assert first.websocket.close_code == 1008
            await caller.placed()
            assert await second.states("open") == ACCEPTED


def modification(number: str, **changes: str) -> dict[str, Any]:
    return {
        "no": number,
        "pr": "38.00",
        "pt": "L",
        "qt": "10",
        "tp": "0",
        "dq": "0",
        "mp": "0",
        "vd": "DAY",
        "am": "NO",
        "os": "NEOTRADEAPI",
    } | changes
