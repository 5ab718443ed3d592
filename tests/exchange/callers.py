"""A caller of the exchange made of plain aiohttp and pyotp: nothing of our client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pyotp

from neo_async.config import Credentials
from neo_async.exchange import Exchange
from tests.exchange_settings import exchange_with

START = 1_795_408_200.0
"""2026-11-23 10:00:00 IST, a Monday."""


class Clock:
    """Unix seconds that stand still until told otherwise."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Answered:
    """An answer, read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    def __init__(self, exchange: Exchange, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.exchange = exchange
        self.http = http
        self.clock = clock
        self.credentials = exchange.credentials
        self.login_data: dict[str, Any] = {}

    async def request(self, method: str, url: str, **options: Any) -> Answered:
        async with self.http.request(method, url, **options) as response:
            return Answered(response, await response.read())

    # --- login --------------------------------------------------------------------------------

    def code(self, *, steps: int = 0) -> str:
        """The TOTP code of the moment, or of so many steps later."""
        return pyotp.TOTP(self.credentials.totp_secret).at(int(self.clock()) + 30 * steps)

    async def first_step(self, *, authorization: str | None = None, **fields: object) -> Answered:
        form = {
            "mobileNumber": self.credentials.mobile_number,
            "ucc": self.credentials.ucc,
            "totp": self.code(),
        } | fields
        return await self.request(
            "POST",
            f"{self.exchange.login_url}/login/1.0/tradeApiLogin",
            json={name: value for name, value in form.items() if value is not None},
            headers={
                "Authorization": authorization or self.credentials.consumer_key,
                "neo-fin-key": "neotradeapi",
            },
        )

    async def second_step(self, view: dict[str, Any], mpin: str | None = None) -> Answered:
        return await self.request(
            "POST",
            f"{self.exchange.login_url}/login/1.0/tradeApiValidate",
            json={"mpin": self.credentials.mpin if mpin is None else mpin},
            headers={
                "Authorization": self.credentials.consumer_key,
                "neo-fin-key": "neotradeapi",
                "sid": view["sid"],
                "Auth": view["token"],
            },
        )

    async def log_in(self) -> dict[str, Any]:
        first = await self.first_step()
        second = await self.second_step(first.json()["data"])
        self.login_data = second.json()["data"]
        return self.login_data

    async def log_in_again(self) -> dict[str, Any]:
        """With the code of the next step, as no code is good twice."""
        self.clock.now += 30
        return await self.log_in()

    # --- after login --------------------------------------------------------------------------

    @property
    def pair(self) -> dict[str, str]:
        return {"Sid": self.login_data["sid"], "Auth": self.login_data["token"]}

    async def get(self, path: str, **headers: str) -> Answered:
        return await self.request(
            "GET", f"{self.exchange.base_url}{path}", headers=self.pair | headers
        )

    async def post(self, path: str, arguments: object) -> Answered:
        return await self.request(
            "POST",
            f"{self.exchange.base_url}{path}",
            headers=self.pair,
            data={"jData": json.dumps(arguments)},
        )

    async def place(self, **changes: object) -> Answered:
        return await self.post("/quick/order/rule/ms/place", order(**changes))

    async def placed(self, **changes: object) -> str:
        """Place, and answer the order's number."""
        number: str = (await self.place(**changes)).json()["nOrdNo"]
        return number

    async def book(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.get("/quick/user/orders")).json()["data"]
        return rows

    async def admin(self, method: str, name: str, **options: Any) -> Answered:
        return await self.request(method, f"{self.exchange.admin_url}/{name}", **options)


def order(**changes: object) -> dict[str, object]:
    """A placement that rests: far below the market, as the official SDK writes it."""
    return {
        "am": "NO",
        "dq": "0",
        "es": "nse_cm",
        "mp": "0",
        "pc": "CNC",
        "pr": "38.00",
        "pt": "L",
        "qt": "10",
        "rt": "DAY",
        "tp": "0",
        "ts": "ITBEES-EQ",
        "tt": "B",
        "ig": None,
        "os": "NEOTRADEAPI",
    } | changes


@asynccontextmanager
async def visiting(**options: Any) -> AsyncIterator[Caller]:
    """An exchange with a clock of ours and no rate limit, and a caller in front of it."""
    clock = options.setdefault("clock", Clock())
    options.setdefault("seed", 7)
    options.setdefault("limits", None)
    async with exchange_with(**options) as exchange, aiohttp.ClientSession() as http:
        yield Caller(exchange, http, clock)


@asynccontextmanager
async def trading(**options: Any) -> AsyncIterator[Caller]:
    """The same, logged in, with nobody else in the market unless `market_makers` says so."""
    options.setdefault("market_makers", False)
    async with visiting(**options) as caller:
        await caller.log_in()
        yield caller


def second_account(caller: Caller) -> Credentials:
    return caller.exchange.accounts[1]
