"""What the exchange does for the web pages that are open in a browser on the same machine."""

from __future__ import annotations

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import NeoClient
from neo_async.errors import UsageError
from neo_async.exchange import Exchange
from neo_async.exchange.rest.web_origin import foreign_host, foreign_page
from neo_async.model.address import is_loopback
from tests.exchange_settings import exchange_with

PAGE = "https://page.example"


async def status(url: str, method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=named) as answer,
    ):
        return answer.status


async def test_a_foreign_page_can_neither_reset_the_exchange_nor_log_in_nor_open_a_feed() -> None:
    async with Exchange() as exchange:
        before = exchange.market
        for url in (
            f"{exchange.admin_url}/reset",
            f"{exchange.login_url}/login/1.0/tradeApiLogin",
            f"{exchange.bank_url}/auth/oauth/v2/token",
        ):
            assert await status(url, "POST", Origin=PAGE) == 403
            assert await status(url, "POST", Sec_Fetch_Site="cross-site") == 403
            assert await status(url, "POST", Sec_Fetch_Site="same-site") == 403
        assert await status(exchange.feed_url, Origin=PAGE) == 403
        assert exchange.market is before


async def test_a_name_that_was_rebound_to_loopback_reads_nothing() -> None:
    async with Exchange() as exchange:
        port = exchange.login_url.rpartition(":")[2]
        ledger = f"{exchange.admin_url}/ledger"
        assert await status(ledger, Host=f"page.example:{port}") == 403
        assert await status(ledger, Host="") == 403
        for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
            assert await status(ledger, Host=f"{name}:{port}") == 200
        rebound = f"page.example:{port}"
        login = f"{exchange.login_url}/login/1.0/tradeApiLogin"
        assert await status(login, "POST", Host=rebound, Origin=f"http://{rebound}") == 403


async def test_a_rebound_name_reads_neither_funds_nor_bank_nor_broker_nor_a_feed() -> None:
    async with Exchange() as exchange:
        rebound = f"page.example:{exchange.login_url.rpartition(':')[2]}"
        kite = exchange.kite
        token = f"token {kite.api_key}:{kite.access_token}"
        page = {"Host": rebound, "Authorization": token, "X_Kite_Version": "3"}
        assert (
            await status(f"{exchange.kite_url}/mf/holdings", **page | {"Host": "localhost"}) == 200
        )
        for url in (
            f"{exchange.kite_url}/mf/holdings",
            f"{exchange.kite_url}/connect/login?api_key={kite.api_key}",
            f"{exchange.bank_url}/va/v1/accounts?apikey={exchange.bank.client.client_id}",
            f"{exchange.base_url}/script-details/1.0/masterscrip/file-paths",
            exchange.feed_url,
            exchange.realtime_url,
        ):
            assert await status(url, **page) == 403


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1#.page.example",
        "page@127.0.0.1",
        "127.0.0.1/a",
        "page.example[::1]",
        "[::1].page.example",
        "[::1][::1]",
        "[127.0.0.1]",
    ],
)
def test_what_is_no_host_is_no_name_of_this_machine(host: str) -> None:
    assert foreign_host({"Host": host}) is not None


async def test_a_page_of_the_exchange_itself_and_a_link_to_it_are_let_through() -> None:
    async with Exchange() as exchange:
        ledger = f"{exchange.admin_url}/ledger"
        assert await status(ledger, Origin=exchange.login_url, Sec_Fetch_Site="same-origin") == 200
        assert await status(ledger, Sec_Fetch_Site="none") == 200
        link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        assert await status(f"{exchange.kite_url}/connect/login", **link) != 403
        assert await status(f"{exchange.kite_url}/connect/login", "POST", **link) == 403


async def test_on_the_network_the_control_surface_wants_the_key_and_accounts_depend_on_it() -> None:
    async with Exchange(host="0.0.0.0") as exchange, Exchange() as local:
        root = exchange.login_url
        for path in ("ledger", "x/ledger", "", "/ledger", "é/ledger"):
            assert await status(f"{root}/admin/{path}") == 403
        assert await status(f"{root}/admin/reset", "POST") == 403
        assert await status(f"{exchange.admin_url}/ledger", Host="paper.example") == 200
        assert await status(f"{exchange.admin_url}/ledger", Origin=PAGE) == 403
        ours, known = exchange.credentials, local.credentials
        assert ours.ucc == known.ucc
        assert ours.mpin != known.mpin
        assert ours.totp_secret != known.totp_secret
        assert exchange.kite.access_token != local.kite.access_token
        assert exchange.bank.client.client_secret != local.bank.client.client_secret
        async with NeoClient(ours, endpoints=exchange.endpoints) as neo:
            assert await neo.orders.book() == []


async def test_a_key_that_is_given_makes_the_same_secrets_again() -> None:
    key = "0123456789abcdef"
    exchanges = [exchange_with(host="0.0.0.0", key=key) for _ in range(2)]
    assert exchanges[0].accounts == exchanges[1].accounts
    async with exchanges[0] as exchange:
        assert exchange.admin_url.endswith(f"/admin/{key}")


@pytest.mark.parametrize("key", ["short", "with a blank in it", "a/b/c/d/e/f/g/h/i", "x" * 65])
def test_a_key_that_cannot_stand_in_an_address_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="key: must be 16 to 64"):
        exchange_with(key=key)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.page.example", False),
        ("127.0.0.1.page.example", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("", False),
        ("2130706433", False),
    ],
)
def test_only_loopback_is_taken_for_loopback(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


@given(st.dictionaries(st.sampled_from(["Origin", "Host", "Sec-Fetch-Site"]), st.text()))
def test_whatever_the_headers_hold_they_are_judged(headers: dict[str, str]) -> None:
    foreign_host(headers)
    why = foreign_page(headers, "GET", on_loopback=True)
    assert why is None or isinstance(why, str)
