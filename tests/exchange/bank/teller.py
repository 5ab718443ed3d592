"""A caller of the bank made of plain aiohttp: nothing of our client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from neo_async.exchange import BankSettings, Exchange
from neo_async.exchange.bank.types import Client
from tests.exchange.callers import Answered, Clock
from tests.exchange_settings import exchange_with

CREATE = "accounts/create"
MODIFY = "accounts/modify"
DELETE = "accounts/delete"
INQUIRY = "accounts/inquiry"
FETCH = "transactions/fetch"
ACK = "transactions/ack"
REFUND = "refunds/create"
STATUS = "refunds/status"

NUMBER = "ACME00000001"
OPEN = BankSettings(requests_per_second=None, requests_per_day=None)

Json = dict[str, Any]


class Teller:
    def __init__(self, exchange: Exchange, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.exchange = exchange
        self.http = http
        self.clock = clock
        self.client: Client = exchange.bank.client
        self.token = ""

    @property
    def physical(self) -> str:
        return self.client.physical_accounts[0]

    async def request(self, method: str, path: str, **options: Any) -> Answered:
        url = f"{self.exchange.bank_url}{path}"
        async with self.http.request(method, url, **options) as response:
            return Answered(response, await response.read())

    async def ask_for_token(self, **changes: str) -> Answered:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client.client_id,
            "client_secret": self.client.client_secret,
        }
        return await self.request("POST", "/auth/oauth/v2/token", data=form | changes)

    async def log_in(self) -> None:
        self.token = (await self.ask_for_token()).json()["access_token"]

    async def call(self, service: str, headers: Json | None = None, **fields: object) -> Answered:
        """With what every request needs, unless it is among the fields; None leaves a field out."""
        body = {
            "requestId": str(uuid.uuid4()),
            "clientName": self.client.name,
            "physicalAccount": self.physical,
        } | fields
        return await self.request(
            "POST",
            f"/va/v1/{service}",
            json={name: value for name, value in body.items() if value is not None},
            headers={"Authorization": f"Bearer {self.token}"} | (headers or {}),
        )

    async def told(self, service: str, **fields: object) -> Json:
        """The content of an answer that has to be good."""
        answered = await self.call(service, **fields)
        assert answered.status == 200, answered.body
        content: Json = answered.json()
        return content

    async def open(self, number: str = NUMBER, **fields: object) -> None:
        item = {"virtualAccountNumber": number, "name": "Asha Rao"} | fields
        assert (await self.told(CREATE, accounts=[item]))["status"] == "SUCCESS"

    async def results(self, service: str, *items: object) -> list[Json]:
        results: list[Json] = (await self.told(service, accounts=list(items)))["results"]
        return results

    async def refused(self, service: str, **fields: object) -> tuple[int, str]:
        """Status and code."""
        answered = await self.call(service, **fields)
        content = answered.json()
        assert content["status"] == "FAILURE"
        assert content["message"]
        return answered.status, content["errorCode"]

    async def drain(self) -> list[Json]:
        """Fetch and acknowledge until nothing is left."""
        rows: list[Json] = []
        while (batch := await self.told(FETCH))["count"]:
            rows += batch["transactions"]
            await self.told(ACK, batchId=batch["batchId"], count=batch["count"], status="RECEIVED")
        return rows

    async def admin(self, name: str, **fields: object) -> Answered:
        url = f"{self.exchange.admin_url}/{name}"
        async with self.http.post(url, json=fields) as response:
            return Answered(response, await response.read())


@asynccontextmanager
async def at_the_bank(**options: Any) -> AsyncIterator[Teller]:
    """Logged in, at a bank without plan limits and with a clock of ours."""
    clock = options.setdefault("clock", Clock())
    options.setdefault("seed", 7)
    options.setdefault("bank", OPEN)
    options.setdefault("market_makers", False)
    async with exchange_with(**options) as exchange, aiohttp.ClientSession() as http:
        teller = Teller(exchange, http, clock)
        await teller.log_in()
        yield teller


def external(teller: Teller) -> Teller:
    """The other client."""
    other = Teller(teller.exchange, teller.http, teller.clock)
    other.client = teller.exchange.bank.clients[1]
    return other
