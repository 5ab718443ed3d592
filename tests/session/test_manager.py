"""Logging in, staying logged in, and what callers see when either fails."""

from __future__ import annotations

import asyncio
import logging
import re
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import pyotp
import pytest

from neo_async import (
    ClockSkew,
    Endpoints,
    LoginFailed,
    NeoClient,
    NeoError,
    NotLoggedIn,
    NotSent,
    OutcomeUnknown,
    PoolLimits,
    Product,
    ProtocolError,
    RateLimited,
    RateLimits,
    Segment,
    ServerError,
    SessionEnded,
    Side,
    Timeouts,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.exchange.tls import self_signed
from neo_async.execution.order_cache import OrderCache
from neo_async.orders import Orders
from neo_async.session.manager import BETWEEN_LOGINS, SessionManager
from neo_async.transport.limiter import Kind, Limiter
from neo_async.wire.endpoints import PLACE
from neo_async.wire.orders import read_accepted
from tests.clients import BOOK, client_of, exchange_of, logins, paths
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
from tests.simulation.virtual_time import START, in_virtual_time, now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}

EMPTY_BOOK = Reply({"stCode": 5203, "errMsg": "No Data", "desc": "data not found"})
ENDED = Reply({"stat": "Not_Ok", "emsg": "Invalid session", "stCode": 1003}, 403)


def replaced(credentials: Any, **changes: str) -> Any:
    return msgspec.structs.replace(credentials, **changes)


# --- logging in -------------------------------------------------------------------------------


async def test_login_takes_the_addresses_from_the_answer() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert neo.session.base_url == exchange.base_url == f"{exchange.login_url}/neo"
        assert neo.session.feed_url == exchange.feed_url.replace("http", "ws")
        assert neo.session.realtime_url == exchange.realtime_url.replace("http", "ws")
        assert neo.session.ucc == exchange.credentials.ucc
        assert neo.session.data_center == "E43"
        assert await paths(exchange) == [LOGIN, VALIDATE]


async def test_a_code_can_be_handed_in() -> None:
    async with exchange_of() as exchange:
        secret = exchange.credentials.totp_secret
        unarmed = replaced(exchange.credentials, totp_secret="")
        code = pyotp.TOTP(secret).at(now())
        async with client_of(exchange, credentials=unarmed, totp=code) as neo:
            assert neo.session.ucc == unarmed.ucc


async def test_a_code_of_the_constructor_is_for_the_first_login_only() -> None:
    async with exchange_of(clock=lambda: START) as exchange:
        secret = exchange.credentials.totp_secret
        unarmed = replaced(exchange.credentials, totp_secret="")
        neo = client_of(exchange, credentials=unarmed, totp=pyotp.TOTP(secret).at(START))
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
        neo = client_of(exchange, credentials=replaced(exchange.credentials, totp_secret="1l0O!"))
        with pytest.raises(UsageError, match="base32") as caught:
            await neo.login()
        assert "1l0O!" not in str(caught.value)
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
@in_virtual_time
async def test_what_the_first_step_refuses_twice_is_a_wrong_totp(wrong: dict[str, str]) -> None:
    """Once more with the next code: the broker does not say that the code was used up."""
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, **wrong))
        with pytest.raises(WrongTotp, match="check TOTP secret or code") as caught:
            async with neo:
                raise AssertionError("logged in")
        assert (caught.value.status, caught.value.code) == (401, 401)
        assert now() == START + 30
        assert await paths(exchange) == [LOGIN, LOGIN]


async def test_a_wrong_mpin_is_told_apart() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, credentials=replaced(exchange.credentials, mpin="000000"))
        with pytest.raises(WrongMpin, match="Invalid MPIN"):
            async with neo:
                raise AssertionError("logged in")
        assert await paths(exchange) == [LOGIN, VALIDATE]


@in_virtual_time
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
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
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
async def test_a_clock_that_is_off_is_told_with_its_seconds(skew: float) -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, clock=lambda: now() + skew)
        with pytest.raises(ClockSkew, match="ahead of" if skew > 0 else "behind") as caught:
            async with neo:
                raise AssertionError("logged in")
        assert caught.value.skew == pytest.approx(skew, abs=1.5)  # the Date header has seconds


@in_virtual_time
async def test_a_step_either_way_is_tolerated() -> None:
    async with exchange_of() as exchange:
        for skew in (-29.0, 29.0):
            async with client_of(exchange, clock=lambda skew=skew: now() + skew) as neo:
                assert neo.session.ucc == exchange.credentials.ucc


@in_virtual_time
async def test_a_code_is_never_used_twice() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert now() == START
        await neo.login()
        assert now() == START + 30
        await asyncio.gather(neo.login(), neo.login())
        assert now() == START + 90
        assert await logins(exchange) == 4


@in_virtual_time
async def test_a_code_that_was_handed_in_is_not_made_again() -> None:
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


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_path_of_the_base_url_is_kept(slash: str) -> None:
    async with scripted_broker() as broker:
        data = {"token": TOKEN, "sid": SID, "baseUrl": broker.url + BASE + slash}
        broker.script(VALIDATE, Reply({"data": data}))
        broker.script("/quick/user/orders", EMPTY_BOOK)
        broker.script("/quick/order/cancel", Reply({"nOrdNo": "7", "stat": "Ok", "stCode": 200}))
        broker.script("/quick/user/orders/7", EMPTY_BOOK)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert neo.session.base_url == broker.url + BASE
            assert await neo.orders.book() == []
        assert broker.paths()[2:] == ["/quick/user/orders"]


async def test_what_the_login_does_not_say_is_derived() -> None:
    async with scripted_broker() as broker:
        data = {"token": TOKEN, "sid": SID, "baseUrl": None, "feedUrl": "sfeed.example.com/apifeed"}
        broker.script(VALIDATE, Reply({"data": data}))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert neo.session.base_url == broker.url
            assert neo.session.feed_url == "wss://sfeed.example.com/apifeed"
            assert neo.session.realtime_url == broker.url.replace("http", "ws") + "/realtime"


async def test_addresses_of_the_caller_win() -> None:
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


async def test_what_proves_the_caller_goes_where_the_documents_want_it() -> None:
    async with scripted_broker() as broker:
        broker.script("/quick/user/orders", EMPTY_BOOK)
        broker.script(
            "/quick/order/rule/ms/place", Reply({"nOrdNo": "7", "stat": "Ok", "stCode": 200})
        )
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            await neo.orders.book()
            await neo.orders.place(*BUY, **CNC)
        login, validate, book, place = broker.requests
        assert login[1]["authorization"] == CREDENTIALS.consumer_key
        assert "sid" not in login[1]
        assert msgspec.json.decode(login[2]) == {
            "mobileNumber": CREDENTIALS.mobile_number,
            "ucc": CREDENTIALS.ucc,
            "totp": "123456",
        }
        assert (validate[1]["sid"], validate[1]["auth"]) == (SID, TOKEN)
        assert msgspec.json.decode(validate[2]) == {"mpin": CREDENTIALS.mpin}
        for _, headers, _ in (login, validate, book, place):
            assert headers["neo-fin-key"] == "neotradeapi"
        for _, headers, _ in (book, place):
            assert (headers["sid"], headers["auth"]) == (SID, TOKEN)
            assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert "authorization" not in book[1]
        assert place[1]["authorization"] == CREDENTIALS.consumer_key


# --- TLS --------------------------------------------------------------------------------------


async def test_over_tls_the_ca_file_is_what_is_trusted(tmp_path: Path) -> None:
    tls, ca_file = self_signed(tmp_path)
    async with exchange_of(tls=tls, ca_file=ca_file) as exchange:
        async with client_of(exchange) as neo:
            assert neo.session.base_url.startswith("https://")
            assert neo.session.feed_url.startswith("wss://")
            order = await neo.orders.place(*BUY, **CNC)
            assert [row.number for row in await neo.orders.book()] == [order.number]
            await neo.orders.cancel(order)
            assert (await neo.orders.book())[0].status_text == "cancelled"
        distrustful = client_of(exchange, endpoints=Endpoints(login=exchange.login_url))
        with pytest.raises(NotSent, match=r"tradeApiLogin: \[SSL: CERTIFICATE_VERIFY_FAILED\]"):
            async with distrustful:
                raise AssertionError("logged in")


async def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(UsageError, match=re.escape(missing)):
        NeoClient(CREDENTIALS, endpoints=Endpoints(ca_file=missing))
    (tmp_path / "words.pem").write_text("not a certificate")
    with pytest.raises(UsageError, match="PEM"):
        NeoClient(CREDENTIALS, endpoints=Endpoints(ca_file=str(tmp_path / "words.pem")))


# --- staying logged in ------------------------------------------------------------------------


@in_virtual_time
async def test_an_ended_session_is_renewed_once_for_everybody_and_nothing_is_doubled() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        first = neo.session
        exchange.end_sessions()

        orders, books, limits = await asyncio.gather(
            asyncio.gather(*(neo.orders.place(*BUY, **CNC) for _ in range(25))),
            asyncio.gather(*(neo.orders.book() for _ in range(15))),
            asyncio.gather(*(neo.portfolio.limits() for _ in range(10))),
        )

        assert (len(books), len(limits)) == (15, 10)
        assert await logins(exchange) == 2
        assert neo.session is not first
        assert neo.session.token != first.token
        ledger = list(exchange.market.ledger)
        assert sorted(order.number for order in orders) == [order.number for order in ledger]
        assert len({order.client_tag for order in ledger}) == 25
        assert {order.arrivals for order in ledger} == {1}


@in_virtual_time
async def test_a_flood_of_orders_does_not_starve_the_renewal() -> None:
    """The login is a read to the limiter, and orders go before reads."""
    async with exchange_of() as exchange:
        loop = asyncio.get_running_loop()
        session = SessionManager(
            exchange.credentials,
            exchange.endpoints,
            limiter=Limiter(RateLimits(), clock=loop.time),
            timeouts=Timeouts(),
            pool=PoolLimits(),
            clock=now,
        )
        await session.login()
        await asyncio.sleep(35)  # the next code is there
        exchange.end_sessions()
        orders, placing = Orders(session, OrderCache()), []
        placing += [asyncio.create_task(orders.place(*BUY, **CNC)) for _ in range(20)]
        for _ in range(60):  # 12 a second, for 5 s
            placing.append(asyncio.create_task(orders.place(*BUY, **CNC)))
            await asyncio.sleep(1 / 12)
        assert session.renewals == 1

        placed = await asyncio.gather(*placing)
        assert len({order.number for order in placed}) == len(exchange.market.ledger) == 80
        # At 10 a second; those in the first queue were sent in vain.
        assert now() - START < 35 + 11.5
        await session.logout()


@in_virtual_time
async def test_a_session_is_renewed_as_often_as_it_ends() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        for _ in range(3):
            exchange.end_sessions()
            assert await neo.portfolio.positions() == []
        assert await logins(exchange) == 4


@in_virtual_time
async def test_midnight_ends_the_session_and_the_next_call_goes_on() -> None:
    hours = 10  # at START

    def clock() -> float:
        return now() + (hours - 10) * 3600

    async with exchange_of(clock=clock) as exchange, client_of(exchange, clock=clock) as neo:
        hours = 24
        order = await neo.orders.place(*BUY, **CNC)
        assert order.number.startswith("261124")
        assert await logins(exchange) == 2


async def test_a_session_that_ends_again_at_once_is_not_renewed_for_ever() -> None:
    async with scripted_broker() as broker:
        broker.script("/quick/user/orders", ENDED)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(SessionEnded, match="Invalid session"):
                await neo.orders.book()
        assert broker.paths().count("/quick/user/orders") == 2
        assert broker.paths().count(LOGIN) == 2


@pytest.mark.parametrize(
    "ended",
    [
        ENDED,
        Reply({"stCode": 100010, "errMsg": "invalid session token", "stat": "Not_Ok"}),
        Reply(
            {
                "stCode": 100022,
                "errMsg": "invalid session token",
                "stat": "error in neo-login-check-api",
            }
        ),
        Reply({"message": "Forbidden"}, 403),
        Reply("", 401),
    ],
)
async def test_every_way_to_say_that_the_session_ended_renews_it(ended: Reply) -> None:
    async with scripted_broker() as broker:
        broker.script("/quick/user/orders", ended, EMPTY_BOOK)
        accepted = Reply({"nOrdNo": "7", "stat": "Ok", "stCode": 200})
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert await neo.orders.book() == []
        broker.script("/quick/order/rule/ms/place", ended, accepted)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert (await neo.orders.place(*BUY, **CNC)).number == "7"
        assert broker.paths().count(LOGIN) == 4


async def test_a_static_ip_refusal_is_no_ended_session() -> None:
    async with scripted_broker() as broker:
        refusal = {"stCode": 100008, "errMsg": "unauthorized", "stat": "Not_Ok"}
        broker.script("/quick/order/rule/ms/place", Reply(refusal, 403))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(NeoError, match="unauthorized") as caught:
                await neo.orders.place(*BUY, **CNC)
        assert type(caught.value).__name__ == "StaticIpRefused"
        assert broker.paths().count(LOGIN) == 1


async def test_without_a_secret_an_ended_session_stays_ended() -> None:
    async with exchange_of() as exchange:
        unarmed = replaced(exchange.credentials, totp_secret="")
        totp = pyotp.TOTP(exchange.credentials.totp_secret)
        async with client_of(exchange, credentials=unarmed, totp=totp.at(now())) as neo:
            exchange.end_sessions()
            with pytest.raises(SessionEnded, match="without a TOTP secret"):
                await neo.orders.book()
            with pytest.raises(SessionEnded, match="without a TOTP secret"):
                await neo.orders.place(*BUY, **CNC)
            await neo.login(totp.at(now() + 30))
            assert await neo.orders.book() == []


@in_virtual_time
@pytest.mark.parametrize("failure", [Reply("busy", 503), Cut()])
async def test_when_a_renewal_fails_every_waiter_hears_it_and_the_next_call_tries_again(
    failure: Reply | Cut,
) -> None:
    broken = False

    def override(path: str, status: int, body: bytes) -> Reply | Cut | None:
        return failure if broken and path == LOGIN else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        exchange.end_sessions()
        broken = True
        results = await asyncio.gather(
            *(neo.orders.place(*BUY, **CNC) for _ in range(5)),
            *(neo.orders.book() for _ in range(5)),
            return_exceptions=True,
        )
        # Not OutcomeUnknown, nor "not sent": the orders were refused, whatever became of the login.
        assert [type(result) for result in results] == [SessionEnded] * 10
        assert all("logging in again failed" in str(result) for result in results)
        assert (await paths(exchange)).count(LOGIN) == 2
        assert exchange.market.ledger == []

        broken = False
        order = await neo.orders.place(*BUY, **CNC)
        assert [row.number for row in await neo.orders.book()] == [order.number]


@in_virtual_time
async def test_a_code_that_another_process_has_used_is_not_the_end_of_a_renewal() -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        client_of(exchange, totp=pyotp.TOTP(exchange.credentials.totp_secret).at(int(now()) + 30)),
    ):
        await asyncio.sleep(30)
        exchange.end_sessions()
        order = await neo.orders.place(*BUY, **CNC)
        assert [row.number for row in await neo.orders.book()] == [order.number]


@in_virtual_time
async def test_a_wrong_mpin_at_renewal_is_told_as_such() -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        refused = {"status": "error", "message": "Invalid MPIN.", "errorCode": "401"}
        return Reply(refused, 401) if changed and path == VALIDATE else None

    changed = False
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        exchange.end_sessions()
        changed = True
        with pytest.raises(WrongMpin):
            await neo.orders.place(*BUY, **CNC)


@in_virtual_time
async def test_a_waiter_that_gives_up_does_not_take_the_renewal_with_it() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        impatient = asyncio.create_task(neo.orders.book())
        patient = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(10)  # both wait for the next code
        impatient.cancel()
        assert await patient == []
        assert impatient.cancelled()
        assert await logins(exchange) == 2


@in_virtual_time
async def test_who_waits_for_a_renewal_learns_of_a_refusal_at_once() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        placing = asyncio.create_task(neo.orders.place(*BUY, **CNC))
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(0.1)  # both wait for a code that was not used yet
        assert neo._session._renewal is not None
        began = asyncio.get_running_loop().time()
        neo._session.refuse_by(lambda kind: UsageError("no") if kind is Kind.PLACE else None)
        with pytest.raises(UsageError, match="no"):
            await placing
        assert asyncio.get_running_loop().time() == began
        assert await reading == []
        assert neo._session.renewals == 1


@in_virtual_time
async def test_logging_out_tells_those_who_wait_for_a_renewal() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        waiting = [asyncio.create_task(neo.orders.book()) for _ in range(3)]
        await asyncio.sleep(10)
        await neo.logout()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [NotLoggedIn] * 3


@in_virtual_time
async def test_a_cancel_goes_out_with_the_session_at_hand_while_another_call_renews_it() -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        forbidden = path == "/neo/quick/user/limits"
        return Reply("<html>403 Forbidden</html>", 403, "text/html") if forbidden else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
    ):
        first = await neo.orders.place(*BUY, **CNC)
        reading = asyncio.create_task(neo.portfolio.limits())
        await asyncio.sleep(0.5)
        assert neo._session.is_renewing
        began = now()
        await neo.orders.cancel(first)
        second = await neo.orders.place(*BUY, **CNC)
        assert {row.number for row in await neo.orders.book()} == {first.number, second.number}
        assert now() - began < 0.5
        assert neo._session.is_renewing
        with pytest.raises(SessionEnded):
            await reading
        assert neo._session.renewals == 1


@in_virtual_time
async def test_a_cancel_that_was_refused_itself_joins_the_renewal() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_orders=False) as neo:
        order = await neo.orders.place(*BUY, **CNC)
        exchange.end_sessions()
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(0.5)
        await asyncio.gather(neo.orders.cancel(order), reading)
        assert neo._session.renewals == 1
        assert [order.status_text for order in await neo.orders.book()] == ["cancelled"]


@in_virtual_time
async def test_a_login_that_did_not_help_a_call_is_not_made_for_it_again_within_five_minutes() -> (
    None
):
    is_forbidden = True

    def override(path: str, status: int, body: bytes) -> Reply | None:
        forbidden = is_forbidden and path == "/neo/quick/user/limits"
        return Reply("<html>403 Forbidden</html>", 403, "text/html") if forbidden else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
    ):
        for _ in range(20):
            with pytest.raises(SessionEnded):
                await neo.portfolio.limits()
            await asyncio.sleep(10)
        assert neo._session.renewals == 1
        exchange.end_sessions()
        assert await neo.orders.book() == []  # another call may have one
        assert neo._session.renewals == 2
        await asyncio.sleep(BETWEEN_LOGINS)
        with pytest.raises(SessionEnded):
            await neo.portfolio.limits()
        assert neo._session.renewals == 3
        is_forbidden = False
        await neo.portfolio.limits()
        exchange.end_sessions()
        await neo.portfolio.limits()  # it worked since
        assert neo._session.renewals == 4


@in_virtual_time
@pytest.mark.parametrize(
    ("path", "words", "kind", "tries"),
    [
        (VALIDATE, "Invalid MPIN.", WrongMpin, 1),
        (VALIDATE, "Account locked.", LoginFailed, 1),
        (LOGIN, "Invalid credentials or TOTP.", WrongTotp, 2),
        (LOGIN, "Invalid UCC", WrongTotp, 2),
    ],
)
async def test_credentials_that_a_renewal_found_refused_are_not_sent_again_unasked(
    path: str, words: str, kind: type[NeoError], tries: int
) -> None:
    sent = 0
    is_refused = False

    def override(at: str, status: int, body: bytes) -> Reply | None:
        nonlocal sent
        if not is_refused or at != path:
            return None
        sent += 1
        date = formatdate(now(), usegmt=True)
        refused = {"status": "error", "message": words, "errorCode": "401"}
        return Reply(refused, 401, headers={"Date": date})

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        exchange.end_sessions()
        is_refused = True
        for _ in range(5):
            calls = (neo.orders.book(), neo.orders.place(*BUY, **CNC), neo.portfolio.limits())
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [kind] * 3
            await asyncio.sleep(100)
        assert sent == tries
        with pytest.raises(kind):
            await neo.login()
        assert sent == 2 * tries
        await asyncio.sleep(100)
        is_refused = False
        await neo.login()
        assert await neo.orders.book() == []


@in_virtual_time
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
            "Invalid credentials or TOTP: check TOTP secret or code (each code works once), UCC, "
            "mobile number and consumer key; trying the next code, once, in up to 30 s"
        ]


@in_virtual_time
async def test_a_code_that_was_handed_in_is_not_replaced_by_another() -> None:
    async with exchange_of() as exchange:
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(now())
        async with client_of(exchange):
            pass
        neo = client_of(exchange, totp=code)
        with pytest.raises(WrongTotp):
            await neo.login()
        assert (await paths(exchange)).count(LOGIN) == 2


@in_virtual_time
async def test_a_flood_of_cancels_with_a_dead_session_does_not_starve_the_login() -> None:
    async with exchange_of() as exchange:
        loop = asyncio.get_running_loop()
        session = SessionManager(
            exchange.credentials,
            exchange.endpoints,
            limiter=Limiter(RateLimits(), clock=loop.time),
            timeouts=Timeouts(),
            pool=PoolLimits(),
            clock=now,
        )
        await session.login()
        orders = Orders(session, OrderCache())
        placed = [await orders.place(*BUY, **CNC) for _ in range(60)]
        await asyncio.sleep(30)
        exchange.end_sessions()
        cancelling = [asyncio.create_task(orders.cancel(order)) for order in placed]
        await asyncio.sleep(2.5)  # two windows, one for each step
        assert session.renewals == 1
        await asyncio.gather(*cancelling)
        await session.logout()


# --- pauses -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_report_that_is_throttled_for_a_day_leaves_orders_and_cancels_alone() -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        throttled = path == "/neo/quick/user/trades"
        return Reply({}, 429, headers={"Retry-After": "86400"}) if throttled else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
    ):
        neo.limiter._clock = asyncio.get_running_loop().time
        order = await neo.orders.place(*BUY, **CNC)
        began = now()
        with pytest.raises(RateLimited, match="429"):
            await neo.orders.trades()
        await neo.orders.cancel(order)
        with pytest.raises(RateLimited, match="for another 60") as caught:
            await neo.orders.book()
        assert not caught.value.was_sent
        assert now() - began < 0.1
        await neo.orders.place(*BUY, **CNC)
        assert now() - began < 1.1
        await asyncio.sleep(60)
        assert len(await neo.orders.book()) == 2


@in_virtual_time
async def test_an_order_that_got_a_429_is_never_said_to_be_unsent() -> None:
    """Brokers were seen to take what they answer with 429."""
    throttling = True

    def override(path: str, status: int, body: bytes) -> Reply | None:
        throttled = throttling and path.endswith("/ms/place")
        return Reply({}, 429, headers={"Retry-After": "2"}) if throttled else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_orders=False) as neo,
    ):
        neo.limiter._clock = asyncio.get_running_loop().time
        form = {"any": "form"}
        records = [SimpleNamespace(was_sent=False) for _ in range(2)]
        calls = [
            asyncio.create_task(neo._session.order(Kind.PLACE, PLACE, form, read_accepted, record))
            for record in records
        ]
        await asyncio.sleep(0.5)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        assert records[0].was_sent
        neo.limiter.pause(50.0)
        with pytest.raises(RateLimited) as refused:
            await calls[1]
        assert refused.value.was_sent


# --- life cycle -------------------------------------------------------------------------------


async def test_before_login_and_after_logout_calls_say_so() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        for _ in range(2):
            with pytest.raises(NotLoggedIn, match="not logged in"):
                await neo.orders.book()
            with pytest.raises(NotLoggedIn):
                await neo.orders.place(*BUY, **CNC)
            with pytest.raises(NotLoggedIn):
                _ = neo.session
            if not await paths(exchange):
                await neo.login()
                await neo.logout()
        assert await paths(exchange) == [LOGIN, VALIDATE]


@in_virtual_time
async def test_after_logout_one_can_log_in_again() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        for _ in range(3):
            async with neo:
                await neo.orders.place(*BUY, **CNC)
        assert len(exchange.market.ledger) == 3
        await neo.logout()  # once more does no harm


async def test_leaving_the_block_by_an_error_logs_out() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        with pytest.raises(ZeroDivisionError):
            async with neo:
                _ = 1 // 0
        with pytest.raises(NotLoggedIn):
            _ = neo.session


@in_virtual_time
async def test_giving_up_during_login_leaves_nothing_open() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        await neo.login()
        again = asyncio.create_task(neo.__aenter__())
        await asyncio.sleep(10)  # waits for the next code
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again
        assert "not logged in" in repr(neo)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if "lane" in name or "renewal" in name}


async def test_two_clients_in_one_process_trade_with_each_other() -> None:
    async with exchange_of() as exchange:
        first, second = exchange.accounts
        async with (
            client_of(exchange, credentials=first) as seller,
            client_of(exchange, credentials=second) as buyer,
        ):
            offer, bid = await asyncio.gather(
                seller.orders.place(
                    Segment.NSE_CM, "ITBEES-EQ", Side.SELL, 10, price="39.40", product=Product.CNC
                ),
                buyer.orders.place(
                    Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.40", product=Product.CNC
                ),
            )
            for neo, order in ((seller, offer), (buyer, bid)):
                assert [row.number for row in await neo.orders.book()] == [order.number]
                assert [trade.price for trade in await neo.orders.trades()] == [39.4]
                assert order.filled_quantity == 10
            assert seller.session.token != buyer.session.token


async def test_a_login_elsewhere_leaves_this_one_alone() -> None:
    """The broker allows two at once; a third ends the oldest."""
    async with exchange_of(clock=lambda: START) as exchange:
        codes = [
            pyotp.TOTP(exchange.credentials.totp_secret).at(START + 30 * n) for n in (-1, 0, 1)
        ]
        here, there, third = (client_of(exchange, totp=code) for code in codes)
        async with here, there:
            assert await here.orders.book() == await there.orders.book() == []
            async with third:
                assert await there.orders.book() == []
                async with aiohttp.ClientSession() as http:
                    headers = {"Sid": here.session.sid, "Auth": here.session.token}
                    async with http.get(exchange.login_url + BOOK, headers=headers) as answer:
                        assert (answer.status, (await answer.json())["stCode"]) == (403, 1003)


@in_virtual_time
async def test_a_client_shows_who_it_is_and_how_its_lane_does() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        assert "not logged in" in repr(neo)
        async with neo:
            assert f"{exchange.credentials.ucc} at {exchange.base_url}" in repr(neo)
            assert "2 idle, 0 busy" in repr(neo)
            assert "2/10000 in the window" in repr(neo)


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


@pytest.mark.parametrize(
    "change",
    [
        {"token": "hush\r\n"},
        {"token": ""},
        {"sid": "hush\u0935"},
        {"base_url": "http://broker.example"},
        {"base_url": "https://[::1"},
        {"feed_url": "https://broker.example"},
        {"realtime_url": "ws://broker.example"},
    ],
)
async def test_a_session_that_no_login_answers_is_not_resumed(change) -> None:
    async with scripted_broker() as broker:
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            session = msgspec.structs.replace(neo.session, **change)
        client = NeoClient(CREDENTIALS, endpoints=broker.endpoints)
        with pytest.raises(UsageError, match=next(iter(change))) as caught:
            await client.resume(session)
        assert "hush" not in str(caught.value)


async def test_an_answer_to_an_order_that_is_nested_too_deeply_leaves_its_outcome_unknown() -> None:
    async with scripted_broker() as broker:
        broker.script("/quick/order/rule/ms/place", Reply('{"x":' + "[" * 100_000))
        broker.script("/quick/user/orders", Reply("[" * 100_000))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(OutcomeUnknown):
                await neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
            with pytest.raises(ProtocolError):
                await neo.orders.book()


@pytest.mark.parametrize(
    ("login", "file"),
    [
        ("https://mis.example", "http://files.example/nse_cm.csv"),
        ("https://mis.example", "http://127.0.0.1/nse_cm.csv"),
        ("http://127.0.0.1:1", "http://files.example/nse_cm.csv"),
        ("https://mis.example", "ftp://files.example/nse_cm.csv"),
        ("https://mis.example", "file:///etc/passwd"),
    ],
)
async def test_a_file_list_does_not_lead_to_an_address_in_clear_text(login: str, file: str) -> None:
    neo = NeoClient(CREDENTIALS, endpoints=Endpoints(login=login))
    with pytest.raises(ProtocolError, match="offers a file at"):
        async with neo._session.download(file):
            pass
