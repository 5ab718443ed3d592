from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from neo_async.exchange import AuthAnswer, FeedSettings
from neo_async.wire.feed import DIVIDERS, EXCHANGE_IDS
from tests.exchange.callers import Caller, trading, visiting
from tests.exchange.feeds.readers import MarketReader, market_reader, unknown_reader
from tests.simulation.virtual_time import now

Login = dict[str, Any]


def sdk_keys(login: Login) -> Login:
    """As the official SDK writes them."""
    return {
        "user": login["ucc"],
        "auth": login["sid"],
        "format": "native_batch",
        "source": "NEOTRADEAPI",
        "platform": "Web",
        "version": "1.2.3",
        "sdk_version": 2,
        "sdk_date": "2026-08-07T09:41:17.667Z",
        "conn_req_time": 1786095677667,
        "sessionValidation": False,
    }


def documented_keys(login: Login) -> Login:
    return {
        "user": login["ucc"],
        "auth": login["sid"],
        "format": "native_batch",
        "platform": "NEOTRADEAPI",
        "sdk_version": 1.1,
        "sdk_date": "2026-08-07",
    }


@pytest.mark.parametrize("keys", [sdk_keys, documented_keys])
async def test_both_sets_of_keys_are_taken(keys: Callable[[Login], Login]) -> None:
    async with trading() as caller, unknown_reader(caller) as reader:
        await reader.send(keys(caller.login_data))
        assert (await reader.control()).message_code == 1117


async def test_the_answer_names_every_exchange_with_number_and_divider() -> None:
    async with trading() as caller, unknown_reader(caller) as reader:
        await reader.send(sdk_keys(caller.login_data))
        answer = json.loads(await reader.websocket.receive_str())
        assert answer["format"] == "native_batch"
        assert answer["exchanges"] == {
            name: {"value": EXCHANGE_IDS[name], "divider": DIVIDERS[name]}
            for name in EXCHANGE_IDS
            if name != "none"
        }


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (AuthAnswer.OK, [1117]),
        (AuthAnswer.CONNECTED_THEN_OK, [1119, 1117]),
        (AuthAnswer.CONNECTED, [1119]),
    ],
)
async def test_success_can_be_said_in_three_ways(answer: AuthAnswer, codes: list[int]) -> None:
    settings = FeedSettings(auth_answer=answer)
    async with trading(feeds=settings) as caller, unknown_reader(caller) as reader:
        await reader.send(sdk_keys(caller.login_data))
        controls = [await reader.control() for _ in codes]
        assert [control.message_code for control in controls] == codes
        assert all(set(control.exchanges) == set(DIVIDERS) for control in controls)
        await reader.wait_for_outcome()  # nothing else was said


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": "00000000-0000-0000-0000-000000000000"},
        {"user": "ZZZ99"},
        {"format": "json"},
        {"source": "SOMEBODY"},
        {"auth": None},
    ],
)
async def test_what_is_not_right_is_refused_and_the_socket_closed(changes: Login) -> None:
    async with trading() as caller, unknown_reader(caller) as reader:
        await reader.send(sdk_keys(caller.login_data) | changes)
        await assert_refused(reader)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"event":"subscribeExchange"}', "\x00"])
async def test_a_first_frame_of_another_kind_is_refused(text: str) -> None:
    async with trading() as caller, unknown_reader(caller) as reader:
        await reader.send(text)
        await assert_refused(reader)


async def test_the_token_does_not_pass_for_the_sid() -> None:
    async with trading() as caller, unknown_reader(caller) as reader:
        await reader.send(sdk_keys(caller.login_data) | {"auth": caller.login_data["token"]})
        await assert_refused(reader)


async def test_a_login_that_stopped_half_way_is_refused() -> None:
    async with visiting(market_makers=False) as caller:
        view = (await caller.first_step()).json()["data"]
        async with unknown_reader(caller) as reader:
            await reader.send(sdk_keys(view))
            await assert_refused(reader)


async def test_who_says_nothing_is_refused_after_a_while() -> None:
    async with trading(clock=now) as caller, unknown_reader(caller) as reader:
        loop = asyncio.get_running_loop()
        connected = loop.time()
        answer = json.loads(await reader.websocket.receive_str())
        assert answer["message_code"] == 1120
        assert loop.time() - connected == pytest.approx(10, abs=0.5)
        assert await reader.ending() == 1008


async def test_the_addresses_are_for_websockets() -> None:
    async with trading() as caller:
        for url in (caller.exchange.feed_url, caller.exchange.realtime_url):
            assert (await caller.request("GET", url)).status == 426


async def test_connections_are_among_the_requests() -> None:
    async with trading() as caller, market_reader(caller):
        paths = [each["path"] for each in (await caller.admin("GET", "requests")).json()]
        assert paths[-1] == "/apifeed"


# --- the end of a session -----------------------------------------------------------------------


async def log_out(caller: Caller) -> None:
    assert (await caller.post("/apim/login/2.0/logout", {})).status == 200


async def log_in_twice_more(caller: Caller) -> None:
    mine = caller.login_data
    await caller.log_in_again()
    await caller.log_in_again()
    caller.login_data = mine


async def end_sessions(caller: Caller) -> None:
    caller.exchange.end_sessions()


async def let_midnight_pass(caller: Caller) -> None:
    caller.clock.now += 86_400
    caller.exchange.tick()


@pytest.mark.parametrize("end", [log_out, log_in_twice_more, end_sessions, let_midnight_pass])
async def test_a_session_that_ends_takes_its_feed_along(end: Callable[[Caller], Any]) -> None:
    async with trading() as caller, market_reader(caller) as reader:
        await end(caller)
        assert await reader.ending() == 1008
        async with unknown_reader(caller) as again:
            await again.send(sdk_keys(caller.login_data))
            await assert_refused(again)


async def test_another_session_of_the_account_goes_on() -> None:
    async with trading() as caller:
        first = caller.login_data
        await caller.log_in_again()
        async with market_reader(caller) as reader:
            caller.login_data = first
            await log_out(caller)
            await reader.wait_for_outcome()


async def assert_refused(reader: MarketReader) -> None:
    answer = await reader.control()
    assert answer.message_code == 1120
    assert answer.message.startswith("Auth failed")
    assert await reader.ending() == 1008
