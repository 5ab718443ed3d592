"""Authenticated calls: headers, ended sessions, 429, and files."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from neo_async import (
    Endpoints,
    NeoClient,
    NeoError,
    OutcomeUnknown,
    Product,
    ProtocolError,
    RateLimited,
    Segment,
    SessionEnded,
    Side,
)
from neo_async.session.requests import BETWEEN_LOGINS_SECONDS
from neo_async.transport.kinds import Kind
from neo_async.wire.endpoints import PLACE
from neo_async.wire.orders import read_accepted
from tests.clients import client_of, exchange_of
from tests.fake_servers import (
    BASE,
    CREDENTIALS,
    LOGIN,
    SID,
    TOKEN,
    VALIDATE,
    Reply,
    fault_proxy,
    scripted_broker,
)
from tests.simulation.virtual_time import now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
EMPTY_BOOK = Reply({"stCode": 5203, "errMsg": "No Data", "desc": "data not found"})
ENDED = Reply({"stat": "Not_Ok", "emsg": "Invalid session", "stCode": 1003}, 403)


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


async def test_credentials_are_sent_in_the_headers_that_the_documents_name() -> None:
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


async def test_order_requests_carry_the_headers_of_the_session_that_is_current() -> None:
    """Their heads are prepared once for each session."""
    async with scripted_broker() as broker:
        broker.script(
            "/quick/order/rule/ms/place", Reply({"nOrdNo": "7", "stat": "Ok", "stCode": 200})
        )
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            placing = neo._requests.order
            form = {"any": "form"}
            for _ in range(2):
                await placing(Kind.PLACE, PLACE, form, read_accepted)
            await neo.resume(msgspec.structs.replace(neo.session, token="another", sid="other"))
            await placing(Kind.PLACE, PLACE, form, read_accepted)
        sent = [(headers["sid"], headers["auth"]) for _, headers, _ in broker.requests[2:]]
        assert sent == [(SID, TOKEN), (SID, TOKEN), ("other", "another")]


async def test_the_renewals_of_a_session_that_ends_at_once_are_bounded() -> None:
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


@pytest.mark.parametrize("code", [100008, 1037])
async def test_a_read_refused_as_for_its_address_has_lost_its_session(code: int) -> None:
    refusal = Reply({"stCode": code, "errMsg": "unauthorized", "stat": "Not_Ok"}, 403)
    async with scripted_broker() as broker:
        broker.script("/quick/user/orders", refusal, EMPTY_BOOK)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            assert await neo.orders.book() == []
        assert broker.paths().count(LOGIN) == 2


async def test_a_static_ip_refusal_of_an_order_is_no_ended_session() -> None:
    async with scripted_broker() as broker:
        refusal = {"stCode": 100008, "errMsg": "unauthorized", "stat": "Not_Ok"}
        broker.script("/quick/order/rule/ms/place", Reply(refusal, 403))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(NeoError, match="unauthorized") as caught:
                await neo.orders.place(*BUY, **CNC)
        assert type(caught.value).__name__ == "StaticIpRefused"
        assert broker.paths().count(LOGIN) == 1


async def test_a_cancel_is_sent_in_the_old_session_while_another_call_renews_it() -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        forbidden = path == "/neo/quick/user/limits"
        return Reply("<html>403 Forbidden</html>", 403, "text/html") if forbidden else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
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


async def test_a_cancel_that_was_refused_itself_joins_the_renewal() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        order = await neo.orders.place(*BUY, **CNC)
        exchange.end_sessions()
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(0.5)
        await asyncio.gather(neo.orders.cancel(order), reading)
        assert neo._session.renewals == 1
        assert [order.status_text for order in await neo.orders.book()] == ["cancelled"]


async def test_a_login_that_did_not_help_a_call_is_not_repeated_for_it_within_five_minutes() -> (
    None
):
    is_forbidden = True

    def override(path: str, status: int, body: bytes) -> Reply | None:
        forbidden = is_forbidden and path == "/neo/quick/user/limits"
        return Reply("<html>403 Forbidden</html>", 403, "text/html") if forbidden else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        for _ in range(20):
            with pytest.raises(SessionEnded):
                await neo.portfolio.limits()
            await asyncio.sleep(10)
        assert neo._session.renewals == 1
        exchange.end_sessions()
        assert await neo.orders.book() == []  # another call may have one
        assert neo._session.renewals == 2
        await asyncio.sleep(BETWEEN_LOGINS_SECONDS)
        with pytest.raises(SessionEnded):
            await neo.portfolio.limits()
        assert neo._session.renewals == 3
        is_forbidden = False
        await neo.portfolio.limits()
        exchange.end_sessions()
        await neo.portfolio.limits()  # it worked since
        assert neo._session.renewals == 4


async def test_a_report_that_is_throttled_for_a_day_leaves_orders_and_cancels_alone() -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        throttled = path == "/neo/quick/user/trades"
        return Reply({}, 429, headers={"Retry-After": "86400"}) if throttled else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
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


async def test_an_order_that_got_a_429_is_never_reported_as_not_sent() -> None:
    """Brokers were seen to take what they answer with 429."""
    throttling = True

    def override(path: str, status: int, body: bytes) -> Reply | None:
        throttled = throttling and path.endswith("/ms/place")
        return Reply({}, 429, headers={"Retry-After": "2"}) if throttled else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, live_updates=False) as neo,
    ):
        neo.limiter._clock = asyncio.get_running_loop().time
        form = {"any": "form"}
        records = [SimpleNamespace(was_sent=False) for _ in range(2)]
        calls = [
            asyncio.create_task(neo._requests.order(Kind.PLACE, PLACE, form, read_accepted, record))
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
async def test_a_file_is_downloaded_only_from_an_allowed_address(login: str, file: str) -> None:
    neo = NeoClient(CREDENTIALS, endpoints=Endpoints(login=login))
    with pytest.raises(ProtocolError, match="offers a file at"):
        async with neo._requests.download(file):
            pass
