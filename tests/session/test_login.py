"""The two steps of a login: codes, refusals, and the session in the answer."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import msgspec
import pyotp
import pytest

from neo_async import (
    ClockSkew,
    Endpoints,
    LoginFailed,
    NeoClient,
    NeoError,
    NotSent,
    PoolLimits,
    ProtocolError,
    RateLimits,
    ServerError,
    Timeouts,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.session.manager import SessionManager
from neo_async.transport.hidden import Hidden
from neo_async.transport.limiter import Limiter
from tests.clients import client_of, exchange_of, logins, paths
from tests.fake_servers import (
    BASE,
    CREDENTIALS,
    LOGIN,
    SID,
    TOKEN,
    VALIDATE,
    Cut,
    Reply,
    fault_proxy,
    scripted_broker,
)
from tests.simulation.virtual_time import START, now


def replaced(credentials: Any, **changes: str) -> Any:
    return msgspec.structs.replace(credentials, **changes)


async def test_login_takes_the_addresses_from_the_answer() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert neo.session.base_url == exchange.base_url == f"{exchange.login_url}/neo"
        assert neo.session.feed_url == exchange.feed_url.replace("http", "ws")
        assert neo.session.realtime_url == exchange.realtime_url.replace("http", "ws")
        assert neo.session.ucc == exchange.credentials.ucc
        assert neo.session.data_center == "E43"
        assert await paths(exchange) == [LOGIN, VALIDATE]


async def test_a_login_returns_a_session_and_installs_nothing() -> None:
    async with scripted_broker() as broker:
        manager = SessionManager(
            CREDENTIALS,
            broker.endpoints,
            limiter=Limiter(RateLimits()),
            timeouts=Timeouts(),
            pool=PoolLimits(),
        )
        session = await manager._authenticator.login(Hidden("123456"))
        assert (session.token, session.sid) == (TOKEN, SID)
        assert not manager.is_open
        assert manager.open_lane is None
        await manager.logout()


async def test_a_login_accepts_a_totp_code_from_the_caller() -> None:
    async with exchange_of() as exchange:
        secret = exchange.credentials.totp_secret
        without_secret = replaced(exchange.credentials, totp_secret="")
        code = pyotp.TOTP(secret).at(now())
        async with client_of(exchange, credentials=without_secret, totp=code) as neo:
            assert neo.session.ucc == without_secret.ucc


async def test_a_code_of_the_constructor_is_for_the_first_login_only() -> None:
    async with exchange_of(clock=lambda: START) as exchange:
        secret = exchange.credentials.totp_secret
        without_secret = replaced(exchange.credentials, totp_secret="")
        neo = client_of(exchange, credentials=without_secret, totp=pyotp.TOTP(secret).at(START))
        await neo.login()
        await neo.logout()
        with pytest.raises(UsageError, match="hand a code to login"):
            await neo.login()


async def test_without_secret_and_code_login_asks_for_one() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, totp_secret=""))
        with pytest.raises(UsageError, match="hand a code to login"):
            await neo.login()
        assert await paths(exchange) == []


async def test_a_secret_that_is_not_base32_is_named_before_anything_is_sent() -> None:
    async with exchange_of() as exchange:
        with pytest.raises(UsageError, match="base32") as caught:
            replaced(exchange.credentials, totp_secret="1l0O!")
        assert "1l0O!" not in str(caught.value)
        assert await paths(exchange) == []


async def test_a_secret_cut_short_is_named_before_anything_is_sent() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, totp_secret="ABC"))
        with pytest.raises(UsageError, match="base32"):
            await neo.login()
        assert await paths(exchange) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"totp_secret": "A" * 32},
        {"ucc": "OTHER"},
        {"mobile_number": "+910000000000"},
        {"consumer_key": "someone-elses"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_first_step_that_is_refused_twice_is_a_wrong_totp(wrong: dict[str, str]) -> None:
    """Once more with the next code: the broker does not say that the code was used up."""
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, **wrong))
        with pytest.raises(WrongTotp, match="check TOTP secret or code") as caught:
            async with neo:
                raise AssertionError("logged in")
        assert (caught.value.status, caught.value.code) == (401, 401)
        assert now() == START + 30
        assert await paths(exchange) == [LOGIN, LOGIN]


async def test_a_wrong_mpin_has_an_error_of_its_own() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, mpin="000000"))
        with pytest.raises(WrongMpin, match="Invalid MPIN"):
            async with neo:
                raise AssertionError("logged in")
        assert await paths(exchange) == [LOGIN, VALIDATE]


async def test_a_login_that_the_broker_ends_between_its_two_steps_is_begun_again_once() -> None:
    times = 1

    def override(path: str, status: int, body: bytes) -> None:
        nonlocal times
        if path == LOGIN and times:
            times -= 1
            exchange.end_sessions()

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        both = [LOGIN, VALIDATE]
        assert await paths(exchange) == both * 2
        times = 1
        exchange.end_sessions()
        assert await neo.orders.book() == []  # a renewal does the same
        assert [path for path in await paths(exchange) if path in both] == both * 4
        times = 9
        with pytest.raises(LoginFailed, match="Invalid credentials or TOTP"):
            await neo.login()
        assert times == 7
        assert [path for path in await paths(exchange) if path in both] == both * 6


@pytest.mark.parametrize("skew", [-3600.0, -95.0, 95.0, 300.0])
async def test_a_wrong_clock_is_reported_with_its_skew_in_seconds(skew: float) -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, clock=lambda: now() + skew)
        with pytest.raises(ClockSkew, match="ahead of" if skew > 0 else "behind") as caught:
            async with neo:
                raise AssertionError("logged in")
        assert caught.value.skew == pytest.approx(skew, abs=1.5)  # the Date header has seconds


async def test_a_clock_that_is_off_by_less_than_a_step_is_tolerated() -> None:
    async with exchange_of() as exchange:
        for skew in (-29.0, 29.0):
            async with client_of(exchange, clock=lambda skew=skew: now() + skew) as neo:
                assert neo.session.ucc == exchange.credentials.ucc


async def test_a_code_is_never_used_twice() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert now() == START
        await neo.login()
        assert now() == START + 30
        await asyncio.gather(neo.login(), neo.login())
        assert now() == START + 90
        assert await logins(exchange) == 4


async def test_a_renewal_waits_for_the_step_after_a_code_from_the_caller() -> None:
    async with exchange_of() as exchange:
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(now())
        async with client_of(exchange, totp=code) as neo:
            exchange.end_sessions()
            assert await neo.orders.book() == []
            assert now() == START + 30


FAILURES: list[tuple[str, Reply | Cut, type[NeoError], str]] = [
    (
        LOGIN,
        Reply({"stCode": 429, "errMsg": "Invalid UCC", "status": "failure"}),
        LoginFailed,
        "Invalid UCC",
    ),
    (
        LOGIN,
        Reply({"status": "error", "message": "Invalid credentials or TOTP.", "errorCode": "401"}),
        WrongTotp,
        "code 401, HTTP 200",
    ),
    (
        LOGIN,
        Reply({"data": {"Code": 401, "Message": "Session service refused"}}),
        WrongTotp,
        "Session service refused",
    ),
    (
        LOGIN,
        Reply({"error": [{"code": "400", "message": "Missing required field 'Ucc'"}]}, 400),
        LoginFailed,
        "Missing required field 'Ucc'",
    ),
    (LOGIN, Reply("<h1>Not Found</h1>", 404, "text/html"), LoginFailed, "check the login URL"),
    (LOGIN, Reply({"message": "dependency down"}, 424), ServerError, "dependency down"),
    (LOGIN, Reply("<h1>Bad gateway</h1>", 502, "text/html"), ServerError, "HTTP 502"),
    (LOGIN, Reply("<h1>Maintenance</h1>", 200, "text/html"), ProtocolError, "not JSON"),
    (LOGIN, Reply(b""), ProtocolError, "empty"),
    (LOGIN, Reply('{"data":{"token":"ey'), ProtocolError, "not JSON"),
    (LOGIN, Reply({"data": {"token": "", "sid": SID}}), ProtocolError, "unexpected shape"),
    (
        VALIDATE,
        Reply({"stCode": 401, "errMsg": "Invalid MPIN", "status": "failure"}),
        WrongMpin,
        "Invalid MPIN",
    ),
    (
        VALIDATE,
        Reply({"data": {"token": TOKEN, "sid": SID, "status": "blocked"}}),
        ProtocolError,
        "unexpected shape",
    ),
    (
        VALIDATE,
        Reply({"stCode": 100021, "errMsg": "invalid  access type", "stat": "Not_Ok"}),
        LoginFailed,
        "access type",
    ),
]


@pytest.mark.parametrize(("path", "reply", "kind", "words"), FAILURES)
async def test_every_shape_of_a_refused_login_has_its_error(
    path: str, reply: Reply, kind: type[NeoError], words: str
) -> None:
    async with scripted_broker() as broker:
        broker.script(path, reply)
        neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456")
        with pytest.raises(NeoError, match=re.escape(words)) as caught:
            async with neo:
                raise AssertionError("logged in")
        assert type(caught.value) is kind
        assert TOKEN not in str(caught.value)
        assert SID not in str(caught.value)
        assert "not logged in" in repr(neo)


@pytest.mark.parametrize("code", ["12345", "1234567", "12345a", "123 456", ""])
async def test_a_code_of_another_shape_is_not_sent(code: str) -> None:
    async with exchange_of() as exchange:
        with pytest.raises(UsageError, match="six digits"):
            await client_of(exchange).login(totp=code)
        assert await paths(exchange) == []


async def test_an_unreachable_broker_is_not_sent() -> None:
    async with exchange_of() as exchange:
        endpoints = exchange.endpoints
    with pytest.raises(NotSent, match="cannot connect"):
        await NeoClient(CREDENTIALS, endpoints=endpoints).login()


async def test_a_login_that_was_cut_off_can_be_tried_again() -> None:
    async with scripted_broker() as broker:
        good = broker.answers[LOGIN][0]
        broker.script(LOGIN, Cut(), good)
        neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints)
        with pytest.raises(NeoError, match="lost"):
            await neo.login("123456")
        await neo.login("654321")
        assert neo.session.ucc == CREDENTIALS.ucc
        await neo.logout()


async def test_addresses_missing_from_the_login_are_derived() -> None:
    async with scripted_broker() as broker:
        data = {"token": TOKEN, "sid": SID, "baseUrl": None, "feedUrl": "sfeed.example.com/apifeed"}
        broker.script(VALIDATE, Reply({"data": data}))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert neo.session.base_url == broker.url
            assert neo.session.feed_url == "wss://sfeed.example.com/apifeed"
            assert neo.session.realtime_url == broker.url.replace("http", "ws") + "/realtime"


async def test_addresses_of_the_caller_take_precedence() -> None:
    async with scripted_broker() as broker:
        endpoints = Endpoints(
            login=broker.url + "/",
            base=broker.url + BASE,
            feed="https://feed.example.com/x",
            realtime="ws://realtime.example.com",
            insecure=True,
        )
        data = {"token": TOKEN, "sid": SID, "baseUrl": "http://127.0.0.1:1", "feedUrl": "wss://no"}
        broker.script(VALIDATE, Reply({"data": data}))
        async with NeoClient(CREDENTIALS, endpoints=endpoints, totp="123456") as neo:
            assert neo.session.base_url == broker.url + BASE
            assert neo.session.feed_url == "wss://feed.example.com/x"
            assert neo.session.realtime_url == "ws://realtime.example.com"


async def test_a_restart_within_one_totp_step_waits_for_the_next_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange):
            pass
        caplog.set_level(logging.WARNING)
        async with client_of(exchange) as neo:
            assert await neo.orders.book() == []
        assert now() == pytest.approx(START + 30, abs=0.1)
        assert [record.getMessage() for record in caplog.records] == [
            f"{neo.ucc}: Invalid credentials or TOTP: check TOTP secret or code (each code works "
            "once), UCC, mobile number and consumer key; trying the next code, once, in up to 30 s"
        ]


async def test_a_code_from_the_caller_is_not_replaced_by_the_next_one() -> None:
    async with exchange_of() as exchange:
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(now())
        async with client_of(exchange):
            pass
        neo = client_of(exchange, totp=code)
        with pytest.raises(WrongTotp):
            await neo.login()
        assert (await paths(exchange)).count(LOGIN) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"baseUrl": "http://127.0.0.1:99999"}, "baseUrl='http://127.0.0.1:99999': holds no host"),
        ({"baseUrl": "http://[::1"}, "baseUrl='http://.*': holds no host"),
        ({"baseUrl": "http://x\u2100y.example/"}, "baseUrl='.*': holds no host"),
        ({"baseUrl": "ftp://127.0.0.1"}, "baseUrl='ftp://127.0.0.1': must start with https"),
        ({"baseUrl": "http://broker.example"}, "baseUrl='http://broker.example': would carry"),
        ({"feedUrl": "ws://broker.example"}, "feedUrl='ws://broker.example': would carry"),
        ({"rtUrl": "http://broker.example"}, "rtUrl='ws://broker.example': would carry"),
        ({"token": "hush\u0935"}, "its token holds line ends, or letters beyond ASCII"),
        ({"token": "hush" * 2001}, "its token is longer than 8000 characters"),
        ({"sid": "hush\r\nX: y"}, "its sid holds line ends"),
        ({"ucc": "A\nB"}, "its ucc is longer than 64 characters or cannot be printed"),
    ],
)
async def test_a_login_whose_answer_cannot_be_used_fails_at_once(given, message) -> None:
    async with scripted_broker() as broker:
        data = {"token": TOKEN, "sid": SID, "status": "success", "baseUrl": broker.url + BASE}
        broker.script(VALIDATE, Reply({"data": data | given}))
        client = NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456")
        with pytest.raises(LoginFailed, match=message) as caught:
            await client.login()
        assert "hush" not in str(caught.value)
        await client.logout()
