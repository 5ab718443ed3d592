"""Kite as a script: answers by method and path, and what was asked of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web

from neo_async import RateLimits
from neo_async.config import KiteEndpoints
from neo_async.exchange import Exchange
from neo_async.kite import KiteMutualFunds
from tests.clients import admin
from tests.fake_servers import Answer, Reply, respond, serving
from tests.simulation.virtual_time import now

PAYLOADS = Path(__file__).parents[1] / "payloads" / "kite"

API_KEY = "samplekey"
ACCESS_TOKEN = "sampletoken"

ISIN = "INF174K01LS2"
"""Minimum 5,000 at first, 100 later, multiples of 1; in the exchange and in the document."""


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]


class ScriptedKite:
    """A list of answers is used up one by one, and its last entry stays."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], list[Answer]] = {}

    def script(self, method: str, path: str, *answers: Answer) -> None:
        self._answers[method, path] = list(answers)

    def sample(self, method: str, path: str, name: str) -> None:
        """Answer with a payload of the document."""
        kind = "text/csv" if name.endswith(".csv") else "application/json"
        self.script(method, path, Reply((PAYLOADS / name).read_bytes(), content_type=kind))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        form = dict(parse_qsl((await request.read()).decode()))
        self.asked.append(Asked(request.method, request.path_qs, headers, form))
        script = self._answers.get((request.method, request.path))
        if script is None:
            return await respond(request, Reply("<h1>not here</h1>", 404, "text/html"))
        return await respond(request, script.pop(0) if len(script) > 1 else script[0])


@contextlib.asynccontextmanager
async def scripted_kite(
    directory: Path, **settings: Any
) -> AsyncIterator[tuple[ScriptedKite, KiteMutualFunds]]:
    fake_kite = ScriptedKite()
    async with serving(fake_kite.handle) as url:
        fake_kite.url = url
        endpoints = KiteEndpoints(api=url, login=url)
        settings = {"rate_limit": 10_000, "directory": directory, **settings}
        async with KiteMutualFunds(API_KEY, ACCESS_TOKEN, endpoints=endpoints, **settings) as kite:
            yield fake_kite, kite


@contextlib.asynccontextmanager
async def fund_exchange(
    directory: Path, *, limits: RateLimits | None = None, **settings: Any
) -> AsyncIterator[tuple[Exchange, KiteMutualFunds]]:
    """An exchange and a client on one clock, with no limit in the way."""
    async with (
        Exchange(seed=7, clock=now, limits=limits, market_makers=False) as exchange,
        kite_of(exchange, directory, **settings) as kite,
    ):
        yield exchange, kite


def kite_of(exchange: Exchange, directory: Path, **settings: Any) -> KiteMutualFunds:
    defaults: dict[str, Any] = {
        "endpoints": exchange.kite_endpoints,
        "rate_limit": 10_000,
        "directory": directory,
        "clock": now,
    }
    application = exchange.kite
    return KiteMutualFunds(
        application.api_key, application.access_token, **{**defaults, **settings}
    )


async def arrivals(exchange: Exchange) -> list[str]:
    """Requests that reached the exchange, as `GET /mf/orders`."""
    return [f"{one['method']} {one['path']}" for one in await admin(exchange, "requests")]
