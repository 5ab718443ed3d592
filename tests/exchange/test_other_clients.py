"""The requests of clients that others wrote, as they send them: paths, headers and forms."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.exchange.callers import Caller, order, trading, visiting

# --- the official SDK, version 2 ------------------------------------------------------------------
# It asks for a base URL in its constructor, and sends everything there, with `sId` in the query.


class SecondSdk:
    """The official Python SDK 2: its calls, in its words."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.base_url = ""
        self._headers: dict[str, str] = {}

    async def log_in(self, steps: tuple[str, str]) -> dict[str, Any]:
        caller, credentials = self._caller, self._caller.credentials
        lookup = f"{caller.exchange.login_url}/algo-user/v5/get-base-url?id={credentials.ucc}"
        self.base_url = (await caller.request("GET", lookup)).json()["data"]["baseURL"]
        headers = {
            "Authorization": credentials.consumer_key,
            "neo-fin-key": "neotradeapi",
            "Content-Type": "application/json",
        }
        first = {
            "mobileNumber": credentials.mobile_number,
            "ucc": credentials.ucc,
            "totp": caller.code(),
        }
        view = await self._post_json(steps[0], first, headers)
        headers |= {"sid": view["data"]["sid"], "Auth": view["data"]["token"]}
        trade = await self._post_json(steps[1], {"mpin": credentials.mpin}, headers)
        data: dict[str, Any] = trade["data"]
        self._headers = {
            "Sid": data["sid"],
            "Auth": data["token"],
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return data

    async def _post_json(self, path: str, body: object, headers: dict[str, str]) -> Any:
        url = f"{self.base_url}/{path}"
        return (await self._caller.request("POST", url, json=body, headers=headers)).json()

    async def post(self, path: str, form: object) -> dict[str, Any]:
        answered = await self._caller.request(
            "POST",
            f"{self.base_url}/{path}?sId=server1",
            headers=self._headers,
            data=f"jData={quote(json.dumps(form))}",
        )
        body: dict[str, Any] = answered.json()
        return body

    async def get(self, path: str, **headers: str) -> dict[str, Any]:
        url = f"{self.base_url}/{path}?sId=server1"
        body = (await self._caller.request("GET", url, headers=headers or self._headers)).json()
        assert isinstance(body, dict)
        return body


@pytest.mark.parametrize(
    "steps",
    [
        ("login/1.0/tradeApiLogin", "login/1.0/tradeApiValidate"),
        ("apim/login/2.0/login/v6/totp/login", "apim/login/2.0/login/v6/totp/validate"),
        ("api/1.0/login/v6/totp/login", "api/1.0/login/v6/totp/validate"),
    ],
)
async def test_the_second_sdk_logs_in_where_get_base_url_sends_it(steps: tuple[str, str]) -> None:
    async with visiting(market_makers=False) as caller:
        sdk = SecondSdk(caller)
        login = await sdk.log_in(steps)
        assert (login["kType"], login["baseUrl"]) == ("Trade", sdk.base_url)
        assert (await sdk.get("quick/user/orders"))["stCode"] == 5203


async def test_the_second_sdk_trades_at_the_same_address() -> None:
    async with visiting(market_makers=False) as caller:
        sdk = SecondSdk(caller)
        await sdk.log_in(("login/1.0/tradeApiLogin", "login/1.0/tradeApiValidate"))
        placed = {name: value for name, value in order(pf="N").items() if value is not None}
        number = (await sdk.post("quick/order/rule/ms/place", placed))["nOrdNo"]
        (row,) = (await sdk.get("quick/user/orders"))["data"]
        assert (row["nOrdNo"], row["ordSt"]) == (number, "open")
        assert (await sdk.post("quick/order/history", {"nOrdNo": number}))["stat"] == "Ok"
        assert (await sdk.get("portfolio/v1/holdings"))["data"]
        limits = {"seg": "ALL", "exch": "ALL", "prod": "ALL"}
        assert (await sdk.post("quick/user/limits", limits))["stat"] == "Ok"
        files = await sdk.get(
            "script-details/1.0/masterscrip/file-paths",
            Authorization=caller.credentials.consumer_key,
        )
        assert files["data"]["filesPaths"]
        cancelled = await sdk.post("quick/order/cancel", {"on": number, "am": "NO"})
        assert cancelled == {"nOrdNo": number, "stat": "Ok", "stCode": 200}


# --- OpenAlgo -------------------------------------------------------------------------------------


async def test_both_feeds_are_served_below_the_base_url_too() -> None:
    """OpenAlgo's adapter builds the order feed's address from host and path of the base URL, as the
    broker's page on the order feed says."""
    async with trading() as caller:
        below = caller.exchange.base_url.replace("http", "ws", 1)
        async with caller.http.ws_connect(f"{below}/realtime") as orders:
            await orders.send_str(
                f"{{type:cn,Authorization:{caller.login_data['token']},"
                f"Sid:{caller.login_data['sid']},src:WEB}}"
            )
            assert (await orders.receive(5)).type is aiohttp.WSMsgType.TEXT
            number = await caller.placed()
            message = await orders.receive(5)
            assert number in message.data
        async with caller.http.ws_connect(f"{below}/apifeed") as market:
            assert not market.closed
            await market.send_str("not a frame")
            assert "1120" in (await market.receive(5)).data


# --- what a client must not get away with ---------------------------------------------------------


async def test_trading_calls_are_served_below_the_base_url_only() -> None:
    """A client that sends its orders to the login host, whatever the login answered, fails live."""
    async with trading() as caller:
        url = f"{caller.exchange.login_url}/quick/order/rule/ms/place"
        form = {"jData": json.dumps(order())}
        assert (await caller.request("POST", url, headers=caller.pair, data=form)).status == 404
