from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from neo_async.config import Endpoints
from neo_async.errors import UsageError
from neo_async.exchange import Exchange
from neo_async.exchange.tls import self_signed
from tests.exchange.callers import Caller, Clock, trading, visiting
from tests.exchange_settings import exchange_with


async def test_a_closed_exchange_says_so() -> None:
    exchange = Exchange(seed=7)
    assert repr(exchange) == "<Exchange closed, seed 7>"
    with pytest.raises(UsageError, match="is not open"):
        _ = exchange.login_url
    async with exchange:
        assert repr(exchange) == f"<Exchange {exchange.login_url}, seed 7>"
        with pytest.raises(UsageError, match="open already"):
            await exchange.__aenter__()
    with pytest.raises(UsageError, match="is not open"):
        _ = exchange.market


async def test_the_same_seed_makes_the_same_customers() -> None:
    one, two, other = Exchange(seed=1), Exchange(seed=1), Exchange(seed=2)
    assert one.accounts == two.accounts
    assert not set(one.accounts) & set(other.accounts)
    assert len({account.ucc for account in one.accounts}) == 2
    assert one.credentials == one.accounts[0]


async def test_the_ready_line_tells_where_and_who() -> None:
    async with visiting() as caller:
        exchange = caller.exchange
        ready = exchange.ready()
        assert set(ready) == {
            *("event", "login_url", "base_url", "feed_url", "realtime_url", "kite_url"),
            *("bank_url", "admin_url", "accounts", "bank_clients", "kite"),
        }
        assert ready["event"] == "ready"
        assert ready["login_url"] == exchange.login_url
        assert ready["kite_url"] == exchange.kite_url
        assert ready["kite"] == {
            "api_key": exchange.kite.api_key,
            "api_secret": exchange.kite.api_secret,
            "access_token": exchange.kite.access_token,
            "user_id": exchange.kite.user_id,
        }
        assert ready["accounts"] == [
            {
                "consumer_key": account.consumer_key,
                "mobile_number": account.mobile_number,
                "ucc": account.ucc,
                "mpin": account.mpin,
                "totp_secret": account.totp_secret,
            }
            for account in exchange.accounts
        ]
        assert exchange.endpoints == Endpoints(login=exchange.login_url)


async def test_it_opens_again_on_the_port_it_is_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    exchange = Exchange(port=port)
    for _ in range(2):
        async with exchange:
            assert exchange.login_url == f"http://127.0.0.1:{port}"


async def test_a_port_that_is_taken_is_an_error_that_leaves_nothing_behind() -> None:
    async with Exchange() as first:
        port = int(first.login_url.rpartition(":")[2])
        second = Exchange(port=port)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        with pytest.raises(UsageError, match="is not open"):
            _ = second.market


async def test_it_closes_at_once_under_open_connections() -> None:
    async with aiohttp.ClientSession() as http:
        async with trading() as caller:
            idle = Caller(caller.exchange, http, caller.clock)
            await idle.admin("GET", "ledger")
            host, port = caller.exchange.login_url.removeprefix("http://").split(":")
            silent_reader, silent_writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(1):
            assert await silent_reader.read() == b""
        silent_writer.close()
        await silent_writer.wait_closed()


async def test_time_passes_although_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_async.exchange.simulator._TICK", 0)
    async with visiting() as caller:
        caller.clock.now += 3600
        for _ in range(3):
            await asyncio.sleep(0)
        assert caller.exchange.market.now_ns == int(caller.clock.now * 1e9)


async def test_makers_fill_what_crosses_them() -> None:
    async with trading(market_makers=True) as caller:
        await caller.placed(pr="41.00")
        (row,) = await caller.book()
        assert (row["ordSt"], row["fldQty"]) == ("complete", 10)


@pytest.mark.parametrize("cash", ["", "a lot", "-1", "1e6"])
def test_cash_is_rupees_as_text(cash: str) -> None:
    with pytest.raises(UsageError, match="must be rupees"):
        Exchange(cash=cash)


# --- TLS ----------------------------------------------------------------------------------------


async def test_it_speaks_tls_with_the_context_it_is_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with exchange_with(tls=context, ca_file=ca_file, clock=Clock()) as exchange:
        await _log_in_over_tls(exchange)


def test_an_authority_without_tls_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="without tls"):
        exchange_with(ca_file="ca.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
async def test_a_certificate_of_its_own_stands_strict_verification(tmp_path: Path) -> None:
    context, ca_file = self_signed(tmp_path)
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    async with exchange_with(tls=context, ca_file=ca_file, clock=Clock()) as exchange:
        await _log_in_over_tls(exchange)


def test_without_openssl_there_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs the openssl command"):
        self_signed(tmp_path)


async def _log_in_over_tls(exchange: Exchange) -> None:
    endpoints = exchange.endpoints
    assert endpoints.login.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=endpoints.ca_file)
    # The default from Python 3.13 on.
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with aiohttp.ClientSession(connector=connector) as http:
        caller = Caller(exchange, http, Clock())
        data = await caller.log_in()
        assert all(data[name].startswith("https://") for name in ("baseUrl", "feedUrl", "rtUrl"))
        assert (await caller.place()).json()["stat"] == "Ok"


# --- accounts -----------------------------------------------------------------------------------


async def test_there_are_as_many_accounts_as_one_wants() -> None:
    async with Exchange(seed=7, clock=Clock()) as two, Exchange(seed=7, accounts=5) as five:
        assert five.accounts[:2] == two.accounts
        assert len({credentials.ucc for credentials in five.accounts}) == 5
        assert all(five.market.funds(each.ucc).cash for each in five.accounts)


def test_an_exchange_without_accounts_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Exchange(accounts=0)
