"""The current session: renewal, resumption, logout, and what callers see when they fail."""

from __future__ import annotations

import asyncio
import re
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pyotp
import pytest

from neo_async import (
    Endpoints,
    LoginFailed,
    NeoClient,
    NeoError,
    NotLoggedIn,
    NotSent,
    PoolLimits,
    Product,
    RateLimits,
    Segment,
    SessionEnded,
    Side,
    Timeouts,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.errors import Halted
from neo_async.exchange.tls import self_signed
from neo_async.execution.engine import ExecutionEngine
from neo_async.orders import Orders
from neo_async.session.manager import SessionManager
from neo_async.session.requests import SessionRequests
from neo_async.transport.limiter import Limiter
from tests.clients import BOOK, client_of, exchange_of, logins, paths
from tests.fake_servers import (
    CREDENTIALS,
    LOGIN,
    VALIDATE,
    Cut,
    Reply,
    fault_proxy,
    scripted_broker,
)
from tests.simulation.virtual_time import START, now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


def replaced(credentials: Any, **changes: str) -> Any:
    return msgspec.structs.replace(credentials, **changes)


async def test_over_tls_only_the_ca_file_is_trusted(tmp_path: Path) -> None:
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


async def test_a_ca_file_that_cannot_be_read_is_named_in_the_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(UsageError, match=re.escape(missing)):
        NeoClient(CREDENTIALS, endpoints=Endpoints(ca_file=missing))
    (tmp_path / "words.pem").write_text("not a certificate")
    with pytest.raises(UsageError, match="PEM"):
        NeoClient(CREDENTIALS, endpoints=Endpoints(ca_file=str(tmp_path / "words.pem")))


async def test_an_ended_session_is_renewed_once_for_all_callers_and_nothing_is_sent_twice() -> None:
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
        requests, placing = SessionRequests(session), []
        orders = Orders(requests, ExecutionEngine(requests))
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


async def test_a_session_is_renewed_as_often_as_it_ends() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        for _ in range(3):
            exchange.end_sessions()
            assert await neo.portfolio.positions() == []
        assert await logins(exchange) == 4


async def test_midnight_ends_the_session_and_the_next_call_goes_on() -> None:
    hours = 10  # at START

    def clock() -> float:
        return now() + (hours - 10) * 3600

    async with exchange_of(clock=clock) as exchange, client_of(exchange, clock=clock) as neo:
        hours = 24
        order = await neo.orders.place(*BUY, **CNC)
        assert order.number.startswith("261124")
        assert await logins(exchange) == 2


async def test_without_a_secret_an_ended_session_stays_ended() -> None:
    async with exchange_of() as exchange:
        without_secret = replaced(exchange.credentials, totp_secret="")
        totp = pyotp.TOTP(exchange.credentials.totp_secret)
        async with client_of(exchange, credentials=without_secret, totp=totp.at(now())) as neo:
            exchange.end_sessions()
            with pytest.raises(SessionEnded, match="without a TOTP secret"):
                await neo.orders.book()
            with pytest.raises(SessionEnded, match="without a TOTP secret"):
                await neo.orders.place(*BUY, **CNC)
            await neo.login(totp.at(now() + 30))
            assert await neo.orders.book() == []


@pytest.mark.parametrize("failure", [Reply("busy", 503), Cut()])
async def test_a_failed_renewal_is_raised_to_every_waiter_and_the_next_call_tries_again(
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
        # Not OutcomeUnknown, nor "not sent": the orders were refused, however the login ends.
        assert [type(result) for result in results] == [SessionEnded] * 10
        assert all("logging in again failed" in str(result) for result in results)
        assert (await paths(exchange)).count(LOGIN) == 2
        assert exchange.market.ledger == []

        broken = False
        order = await neo.orders.place(*BUY, **CNC)
        assert [row.number for row in await neo.orders.book()] == [order.number]


async def test_a_renewal_goes_on_with_the_next_code_where_another_process_used_one() -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        client_of(exchange, totp=pyotp.TOTP(exchange.credentials.totp_secret).at(int(now()) + 30)),
    ):
        await asyncio.sleep(30)
        exchange.end_sessions()
        order = await neo.orders.place(*BUY, **CNC)
        assert [row.number for row in await neo.orders.book()] == [order.number]


async def test_a_wrong_mpin_at_renewal_is_raised_as_such() -> None:
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


async def test_a_cancelled_waiter_does_not_cancel_the_renewal() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        impatient = asyncio.create_task(neo.orders.book())
        patient = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(10)  # both wait for the next code
        impatient.cancel()
        assert await patient == []
        assert impatient.cancelled()
        assert await logins(exchange) == 2


async def test_a_halt_ends_the_wait_for_a_renewal_at_once() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        placing = asyncio.create_task(neo.orders.place(*BUY, **CNC))
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(0.1)  # both wait for a code that was not used yet
        assert neo._session._renewal is not None
        began = asyncio.get_running_loop().time()
        neo.limiter.state.halt(Halted("no", since=0.0))
        with pytest.raises(Halted, match="no"):
            await placing
        assert asyncio.get_running_loop().time() == began
        assert await reading == []
        assert neo._session.renewals == 1


async def test_logging_out_ends_the_waits_for_a_renewal() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        waiting = [asyncio.create_task(neo.orders.book()) for _ in range(3)]
        await asyncio.sleep(10)
        await neo.logout()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [NotLoggedIn] * 3


@pytest.mark.parametrize(
    ("path", "words", "kind", "tries"),
    [
        (VALIDATE, "Invalid MPIN.", WrongMpin, 1),
        (VALIDATE, "Account locked.", LoginFailed, 1),
        (LOGIN, "Invalid credentials or TOTP.", WrongTotp, 2),
        (LOGIN, "Invalid UCC", WrongTotp, 2),
    ],
)
async def test_credentials_refused_at_a_renewal_are_not_sent_again_before_login(
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
        orders = Orders(SessionRequests(session), ExecutionEngine(SessionRequests(session)))
        placed = [await orders.place(*BUY, **CNC) for _ in range(60)]
        await asyncio.sleep(30)
        exchange.end_sessions()
        cancelling = [asyncio.create_task(orders.cancel(order)) for order in placed]
        await asyncio.sleep(2.5)  # two windows, one for each step
        assert session.renewals == 1
        await asyncio.gather(*cancelling)
        await session.logout()


async def test_calls_before_login_and_after_logout_raise_not_logged_in() -> None:
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


async def test_a_client_can_log_in_again_after_a_logout() -> None:
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


async def test_cancelling_a_login_leaves_nothing_open() -> None:
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


async def test_the_repr_of_a_client_shows_its_account_lane_and_limiter() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        assert "not logged in" in repr(neo)
        async with neo:
            assert f"{exchange.credentials.ucc} at {exchange.base_url}" in repr(neo)
            assert "2 idle, 0 busy" in repr(neo)
            assert "2/10000 in the window" in repr(neo)


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
