"""From the login page to an access token."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest

from neo_async import LoginFailed, SessionEnded, UsageError
from neo_async.base.india import IST
from neo_async.exchange import Exchange
from neo_async.kite import KiteEndpoints, KiteMutualFunds, KiteSession
from tests.exchange_settings import exchange_with
from tests.fake_servers import Reply
from tests.kite.fake_kite import fund_exchange, kite_of, scripted_kite

LOGIN = {
    "access_token": "at", "user_id": "ZV8062", "user_name": "N", "refresh_token": "rt",
    "public_token": "pt", "login_time": "2026-11-23 10:00:00", "enctoken": "et", "email": "e",
    "exchanges": ["MF"], "meta": {"demat_consent": "consent"}, "avatar_url": None,
}  # fmt: skip


def session_of(exchange: Exchange, api_secret: str | None = None) -> KiteSession:
    application = exchange.kite
    secret = application.api_secret if api_secret is None else api_secret
    return KiteSession(application.api_key, secret, endpoints=exchange.kite_endpoints)


async def log_in(session: KiteSession) -> str:
    """The address to which a browser is sent."""
    async with aiohttp.ClientSession() as browser, browser.get(session.login_url) as page:
        assert page.status == 200
        return str(page.url)


def test_the_login_page_is_kites() -> None:
    session = KiteSession("key", "secret")
    assert session.login_url == "https://kite.zerodha.com/connect/login?v=3&api_key=key"
    assert "secret" not in repr(session)


async def test_tokens_are_asked_for_with_the_checksum(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, _):
        fake_kite.script("POST", "/session/token", Reply({"status": "success", "data": LOGIN}))
        fake_kite.script(
            "POST", "/session/refresh_token", Reply({"status": "success", "data": LOGIN})
        )
        fake_kite.script("DELETE", "/session/token", Reply({"status": "success", "data": True}))
        session = KiteSession(
            "key", "secret", endpoints=KiteEndpoints(api=fake_kite.url, login=fake_kite.url)
        )
        login = await session.open("rtoken")
        await session.renew("rt")
        await session.end("at")
    assert (login.access_token, login.refresh_token, login.user_id) == ("at", "rt", "ZV8062")
    assert login.login_time == datetime(2026, 11, 23, 10, tzinfo=IST)
    opened, renewed, ended = fake_kite.asked
    assert opened.form == {
        "api_key": "key",
        "request_token": "rtoken",
        "checksum": hashlib.sha256(b"keyrtokensecret").hexdigest(),
    }
    assert renewed.form == {
        "api_key": "key",
        "refresh_token": "rt",
        "checksum": hashlib.sha256(b"keyrtsecret").hexdigest(),
    }
    assert ended.path == "/session/token?api_key=key&access_token=at"
    for asked in fake_kite.asked:
        assert asked.headers["x-kite-version"] == "3"
        assert "authorization" not in asked.headers


def test_a_login_shows_no_token() -> None:
    from rich.pretty import pretty_repr

    from neo_async.kite import KiteLogin

    login = KiteLogin(access_token="geheim", user_id="ZV1", refresh_token="auch")
    for text in (repr(login), str(login), pretty_repr(login)):
        assert "ZV1" in text
        assert "geheim" not in text
        assert "auch" not in text


async def test_the_whole_way_on_the_exchange(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        session = session_of(exchange)
        address = await log_in(session)
        login = await session.open(address)
        assert login.user_id == exchange.kite.user_id
        kite.use_token(login.access_token)
        assert len(await kite.holdings()) == 2
        with pytest.raises(LoginFailed, match="invalid or has expired"):
            await session.open(address)  # once only
        next_login = await session.renew(login.refresh_token)
        assert next_login.access_token != login.access_token
        await session.end(login.access_token)
        with pytest.raises(SessionEnded) as caught:
            await kite.orders()
        assert caught.value.code == "TokenException"
        kite.use_token(next_login.access_token)
        assert await kite.orders() == []


async def test_access_ends_at_six_in_the_morning(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        session = session_of(exchange)
        login = await session.open(await log_in(session))
        kite.use_token(login.access_token)
        exchange.advance_clock(19 * 3600)  # from ten to five
        await kite.orders()
        exchange.advance_clock(3600)
        with pytest.raises(SessionEnded):
            await kite.orders()


async def test_a_request_token_lasts_some_minutes(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, _):
        session = session_of(exchange)
        address = await log_in(session)
        exchange.advance_clock(301)
        with pytest.raises(LoginFailed):
            await session.open(address)


async def test_a_wrong_secret(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, _):
        session = session_of(exchange, "wrong")
        with pytest.raises(LoginFailed, match="Invalid `checksum`"):
            await session.open(await log_in(session))


@pytest.mark.parametrize(
    "address",
    [
        "https://app.example/?action=login&status=success",
        "https://app.example/?request_token=x&action=login&status=cancelled",
    ],
)
async def test_an_address_of_a_login_that_failed(address: str) -> None:
    with pytest.raises(LoginFailed, match="no request token"):
        await KiteSession("key", "secret").open(address)


async def test_what_cannot_be_right_is_not_sent() -> None:
    with pytest.raises(UsageError, match="request_token is empty"):
        await KiteSession("key", "secret").open(" ")
    with pytest.raises(UsageError, match="api_secret is empty"):
        KiteSession("key", "")
    for key, token in (("", "t"), ("k", ""), ("k:", "t"), ("k", "t\n"), ("k", "ö"), ("k", "a b")):
        with pytest.raises(UsageError, match=r"api_key|access_token") as caught:
            KiteMutualFunds(key, token)
        assert "a b" not in str(caught.value)


def test_from_the_environment() -> None:
    env = {"KITE_API_KEY": "key", "KITE_ACCESS_TOKEN": "geheim", "KITE_URL": "http://127.0.0.1:1"}
    kite = KiteMutualFunds.from_env(env)
    assert repr(kite).startswith("<KiteMutualFunds at http://127.0.0.1:1, <Limiter")
    assert "geheim" not in repr(kite)
    with pytest.raises(UsageError, match="KITE_API_KEY, KITE_ACCESS_TOKEN"):
        KiteMutualFunds.from_env({})
    with pytest.raises(UsageError, match="must start with https"):
        KiteEndpoints.from_env({"KITE_URL": "kite"})


async def test_over_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    from neo_async.exchange.tls import self_signed

    context, ca_file = self_signed(tmp_path, "127.0.0.1")
    async with exchange_with(seed=7, tls=context, ca_file=ca_file) as exchange:
        assert exchange.kite_url.startswith("https://")
        async with kite_of(exchange, tmp_path) as kite:
            assert len(await kite.holdings()) == 2
        assert (await session_of(exchange).open(await request_token(exchange))).access_token


async def request_token(exchange: Exchange) -> str:
    import ssl

    context = ssl.create_default_context(cafile=exchange.kite_endpoints.ca_file)
    async with (
        aiohttp.ClientSession() as browser,
        browser.get(session_of(exchange).login_url, ssl=context) as page,
    ):
        return page.url.query["request_token"]
