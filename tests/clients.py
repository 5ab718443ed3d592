"""An exchange and clients on one clock, with no limits in the way unless a test sets them."""

from __future__ import annotations

from typing import Any

import aiohttp

from neo_async import ConnectionSettings, NeoClient, OrderSettings, RateLimits
from neo_async.exchange import Exchange
from tests.exchange_settings import exchange_with
from tests.fake_servers import LOGIN, VALIDATE
from tests.simulation.virtual_time import now

WIDE = RateLimits(orders=10_000, total=10_000)

PLACE = "/neo/quick/order/rule/ms/place"
MODIFY = "/neo/quick/order/vr/modify"
CANCEL = "/neo/quick/order/cancel"
BOOK = "/neo/quick/user/orders"


def exchange_of(**settings: Any) -> Exchange:
    """Return an exchange without market makers: only orders of the test trade."""
    defaults: dict[str, Any] = {"seed": 7, "clock": now, "limits": None, "market_makers": False}
    return exchange_with(**{**defaults, **settings})


def grouped(settings: dict[str, Any]) -> dict[str, Any]:
    """Return keywords of NeoClient with the fields of its grouped settings, which tests give one by
    one, in their groups."""
    settings = dict(settings)
    for name, kind in (("orders", OrderSettings), ("connections", ConnectionSettings)):
        fields = {key: settings.pop(key) for key in kind.__struct_fields__ if key in settings}
        if fields:
            settings[name] = kind(**fields)
    return settings


def client_of(exchange: Exchange, **settings: Any) -> NeoClient:
    credentials = settings.pop("credentials", exchange.credentials)
    defaults: dict[str, Any] = {"endpoints": exchange.endpoints, "limits": WIDE, "clock": now}
    return NeoClient(credentials, **grouped({**defaults, **settings}))


async def admin(exchange: Exchange, name: str, **content: Any) -> Any:
    """Send a GET to the control surface, or a POST if there is content; return the answer."""
    async with aiohttp.ClientSession() as http:
        method = "POST" if content else "GET"
        url = f"{exchange.admin_url}/{name}"
        async with http.request(method, url, json=content or None) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def paths(exchange: Exchange) -> list[str]:
    """Return the path of every call that reached the server, without websockets."""
    requests = await admin(exchange, "requests")
    streams = ("/apifeed", "/realtime")
    return [request["path"] for request in requests if request["path"] not in streams]


async def logins(exchange: Exchange) -> int:
    """Return the number of complete logins, after asserting that no step was repeated."""
    seen = await paths(exchange)
    assert seen.count(LOGIN) == seen.count(VALIDATE)
    return seen.count(LOGIN)
