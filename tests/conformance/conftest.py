"""The official SDK beside our client, both logged in to one account of one exchange.

The SDK is unmodified but for its addresses, and synchronous; so the exchange and our client live
on a loop in a thread of their own. It caches into the home directory: here, elsewhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import httpx
import pyotp
import pytest

from neo_async import NeoClient, RateLimits
from neo_async.exchange import Exchange
from tests.exchange_settings import EVERY_ORDER, exchange_with

T = TypeVar("T")

Sdk = Any
"""neo_api_client.NeoAPI; it has no types worth the name."""

Ours = Callable[[Coroutine[Any, Any, T]], T]

NOON = 1_795_415_400.0
"""2026-11-23 12:00:00 IST. The exchange's clock stands still, so that prices do, too."""


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[_Loop]:
    loop = _Loop()
    yield loop
    loop.stop()


@pytest.fixture(scope="module")
def exchange(loop: _Loop) -> Iterator[Exchange]:
    exchange = exchange_with(seed=7, limits=None, clock=lambda: NOON, rules=EVERY_ORDER)

    async def enter() -> Exchange:
        return await exchange.__aenter__()

    yield loop.run(enter())
    loop.run(exchange.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def new_sdk(
    exchange: Exchange, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Sdk]]:
    """Makes SDK clients that reach our exchange; nobody is logged in yet."""
    neo_api_client = pytest.importorskip("neo_api_client")
    from neo_api_client.utils import neo_utility

    clients = []

    def new() -> Sdk:
        sdk = neo_api_client.NeoAPI(consumer_key=exchange.credentials.consumer_key)
        clients.append(sdk)
        return sdk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neo_utility, "SESSION_PROD_BASE_URL", exchange.login_url)
        patch.setattr(neo_utility, "PROD_BASE_URL", exchange.base_url)
        config_service = f"{exchange.login_url}/5config/config"
        patch.setattr(neo_utility, "CONFIG_SERVICE_URL_PROD", config_service)
        for name in ("NEO_SCRIP_CACHE_DIR", "NEO_HOLDINGS_CACHE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield new
    for sdk in clients:
        sdk.api_client.rest_client.close()


@pytest.fixture(scope="module")
def codes(exchange: Exchange) -> Callable[[], str]:
    """TOTP codes of the account, each once: there are three that the exchange takes."""
    totp = pyotp.TOTP(exchange.credentials.totp_secret)
    unused = iter([totp.at(NOON - 30), totp.at(NOON), totp.at(NOON + 30)])
    return lambda: next(unused)


@pytest.fixture(scope="module")
def sdk(exchange: Exchange, new_sdk: Callable[[], Sdk], codes: Callable[[], str]) -> Sdk:
    """Logged in."""
    sdk = new_sdk()
    credentials = exchange.credentials
    view = sdk.totp_login(credentials.mobile_number, credentials.ucc, codes())
    assert view["data"]["kType"] == "View"
    trade = sdk.totp_validate(credentials.mpin)
    assert trade["data"]["kType"] == "Trade"
    return sdk


@pytest.fixture(scope="module")
def neo(exchange: Exchange, codes: Callable[[], str], loop: _Loop) -> Iterator[NeoClient]:
    """Our client, logged in to the same account."""
    limits = RateLimits(orders=10_000, total=10_000)
    neo = NeoClient(
        exchange.credentials, endpoints=exchange.endpoints, limits=limits, clock=lambda: NOON
    )
    loop.run(neo.login(codes()))
    yield neo
    loop.run(neo.logout())


@pytest.fixture(scope="module")
def ours(loop: _Loop) -> Ours[Any]:
    """Runs a call of our client, and returns what it returns."""
    return loop.run


@pytest.fixture
def print_price(exchange: Exchange) -> Callable[[str, str, float], None]:
    """Lets a trade print at a price from outside: segment, token, rupees."""

    def price(segment: str, token: str, rupees: float) -> None:
        content = {"segment": segment, "token": token, "price": rupees}
        httpx.post(f"{exchange.admin_url}/price", json=content).raise_for_status()

    return price
