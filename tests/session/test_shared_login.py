"""Clients that share one login by a file, and clients that wait for a code; one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pyotp
import pytest

from neo_async import (
    Endpoints,
    NeoClient,
    NeoError,
    NotLoggedIn,
    Product,
    Segment,
    SessionEnded,
    Side,
    UsageError,
    WrongMpin,
)
from neo_async.exchange import Exchange
from neo_async.session.session_file import SessionFile
from tests.clients import client_of, exchange_of, logins, paths
from tests.fake_servers import LOGIN, VALIDATE, Reply, fault_proxy
from tests.simulation.virtual_time import START, now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


@contextlib.asynccontextmanager
async def sharing(
    path: Path, count: int, **settings: Any
) -> AsyncIterator[tuple[Exchange, list[NeoClient]]]:
    """An exchange, and clients that share a file, all logged in."""
    async with exchange_of() as exchange, contextlib.AsyncExitStack() as stack:
        clients = [client_of(exchange, session=path, **settings) for _ in range(count)]
        await asyncio.gather(*map(stack.enter_async_context, clients))
        yield exchange, clients


async def test_clients_that_start_at_once_make_one_login(tmp_path: Path) -> None:
    async with sharing(tmp_path / "session.json", 4) as (exchange, clients):
        assert now() - START < 1
        assert await logins(exchange) == 1
        assert len({neo.session.token for neo in clients}) == 1
        await asyncio.gather(*(neo.orders.place(*BUY, **CNC) for neo in clients))
        assert len(exchange.market.ledger) == 4


async def test_restarts_within_one_code_take_the_login_up(tmp_path: Path) -> None:
    async with exchange_of() as exchange:
        for _ in range(5):
            async with client_of(exchange, session=tmp_path / "session.json") as neo:
                await neo.orders.book()
        assert await logins(exchange) == 1
        assert now() - START < 3


async def test_an_ended_session_is_renewed_once_for_all_clients(tmp_path: Path) -> None:
    async with sharing(tmp_path / "session.json", 3) as (exchange, clients):
        exchange.end_sessions()
        await asyncio.sleep(30)
        await asyncio.gather(*(neo.orders.book() for neo in clients))
        assert await logins(exchange) == 2
        assert len({neo.session.token for neo in clients}) == 1


async def test_a_renewal_of_another_client_that_has_ended_as_well_is_renewed_again(
    tmp_path: Path,
) -> None:
    async with sharing(tmp_path / "session.json", 2) as (exchange, (busy, idle)):
        for neo in (busy, idle):
            await neo.order_feed.close()
        exchange.end_sessions()
        await busy.orders.book()
        exchange.end_sessions()
        assert await idle.orders.book() == []
        assert await logins(exchange) == 3
        assert await busy.orders.book() == []
        assert await logins(exchange) == 3


async def test_a_stored_session_that_has_ended_is_detected_at_the_login(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        async with client_of(exchange, session=path) as neo:
            first = neo.session
        exchange.end_sessions()
        async with client_of(exchange, session=path) as neo:
            assert neo.session.token != first.token
        assert await logins(exchange) == 2


async def test_without_a_secret_the_stored_session_is_taken_up_and_its_successor(
    tmp_path: Path,
) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        without_secret = msgspec.structs.replace(exchange.credentials, totp_secret="")
        async with (
            client_of(exchange, session=path) as one,
            client_of(exchange, session=path, credentials=without_secret) as other,
        ):
            exchange.end_sessions()
            await other.order_feed.close()
            await one.orders.book()
            assert await other.orders.book() == []
            assert other.session.token == one.session.token
        exchange.end_sessions()
        async with client_of(exchange) as elsewhere:
            assert elsewhere.session
        with pytest.raises(UsageError, match="no TOTP secret"):
            await client_of(exchange, session=path, credentials=without_secret).login()


async def test_an_ended_session_without_a_secret_cannot_be_renewed(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        without_secret = msgspec.structs.replace(exchange.credentials, totp_secret="")
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(int(now()))
        async with client_of(exchange, session=path, credentials=without_secret, totp=code) as neo:
            exchange.end_sessions()
            with pytest.raises(SessionEnded, match="without a TOTP secret"):
                await neo.orders.book()


async def test_a_code_and_fresh_log_in_beside_a_stored_session(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        totp = pyotp.TOTP(exchange.credentials.totp_secret)
        neo = client_of(exchange, session=path)
        tokens = {(await neo.login()).token}
        tokens.add((await neo.login(totp.at(int(now()) + 30))).token)
        await asyncio.sleep(60)
        tokens.add((await neo.login(fresh=True)).token)
        assert len(tokens) == 3
        await neo.logout()


async def test_the_code_of_a_client_is_kept_for_when_there_is_no_login(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        without_secret = msgspec.structs.replace(exchange.credentials, totp_secret="")
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(int(now()))
        for _ in range(3):
            neo = client_of(exchange, session=path, credentials=without_secret, totp=code)
            async with neo:
                assert await neo.orders.book() == []
        assert await logins(exchange) == 1


async def test_yesterdays_login_is_a_warning_and_a_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    days = 0

    def clock() -> float:
        return now() + days * 86_400

    async with exchange_of(clock=clock) as exchange:
        for days in (0, 1):  # noqa: B007 - read by the clock
            async with client_of(exchange, session=tmp_path / "session.json", clock=clock) as neo:
                assert await neo.orders.book() == []
        assert caplog.text.count("of an earlier day: not used") == 1
        assert await logins(exchange) == 2


async def test_a_wrong_mpin_is_sent_once_by_all_that_start_together(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        wrong = msgspec.structs.replace(exchange.credentials, mpin="000000")
        clients = [client_of(exchange, session=path, credentials=wrong) for _ in range(4)]
        results = await asyncio.gather(*(neo.login() for neo in clients), return_exceptions=True)
        assert [type(result) for result in results] == [WrongMpin] * 4
        assert (await paths(exchange)).count(VALIDATE) == 1
        assert sum("it is not sent again today" in str(result) for result in results) == 3
        with pytest.raises(WrongMpin, match=r"Invalid MPIN.* \(at 10:00:00 IST; it is not sent"):
            await client_of(exchange, session=path, credentials=wrong).login()
        assert (await paths(exchange)).count(VALIDATE) == 1
        # The right one is sent, with the next code.
        async with client_of(exchange, session=path) as neo:
            assert neo.session
        assert now() - START >= 29
        await neo.login(fresh=True)
        await neo.logout()


async def test_a_refused_mpin_is_sent_again_on_demand_and_on_another_day(tmp_path: Path) -> None:
    days = 0

    def clock() -> float:
        return now() + days * 86_400

    path = tmp_path / "session.json"
    async with exchange_of(clock=clock) as exchange:
        wrong = msgspec.structs.replace(exchange.credentials, mpin="000000")
        neo = client_of(exchange, session=path, credentials=wrong, clock=clock)
        with pytest.raises(WrongMpin):
            await neo.login()
        with pytest.raises(WrongMpin, match="not sent again today"):
            await neo.login()
        with pytest.raises(WrongMpin):
            await neo.login(fresh=True)
        assert (await paths(exchange)).count(VALIDATE) == 2
        days = 1
        with pytest.raises(WrongMpin):
            await neo.login()
        assert (await paths(exchange)).count(VALIDATE) == 3


async def test_a_refused_login_is_not_repeated_by_the_others_at_a_renewal(tmp_path: Path) -> None:
    refused = {"status": "error", "message": "Invalid MPIN.", "errorCode": "401"}
    is_refused = False

    def override(path: str, status: int, body: bytes) -> Reply | None:
        return Reply(refused, 401) if is_refused and path == VALIDATE else None

    async with exchange_of() as exchange, fault_proxy(exchange, override) as endpoints:
        clients = [
            client_of(exchange, endpoints=endpoints, session=tmp_path / "s", live_updates=False)
            for _ in range(3)
        ]
        for neo in clients:
            await neo.login()
        exchange.end_sessions()
        is_refused = True
        results = await asyncio.gather(
            *(neo.orders.book() for neo in clients), return_exceptions=True
        )
        assert [type(result) for result in results] == [WrongMpin] * 3
        assert (await paths(exchange)).count(VALIDATE) == 2
        for neo in clients:
            await neo.logout()


@pytest.mark.parametrize("content", ["", "words", '{"session": null}'])
async def test_a_damaged_file_is_a_warning_and_a_login(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "session.json"
    path.write_text(content)
    path.chmod(0o600)
    async with sharing(path, 1) as (exchange, _):
        assert caplog.text.count("is not used: it is not a session file, or damaged") == 1
        assert await logins(exchange) == 1
        async with client_of(exchange, session=path):
            assert await logins(exchange) == 1


async def test_a_directory_that_cannot_be_written_is_a_warning_and_a_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with sharing(tmp_path / "file" / "session.json", 1) as (exchange, _):
        assert await logins(exchange) == 1
    assert "the login could not be stored" in caplog.text


async def test_logging_out_keeps_the_shared_session_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with sharing(path, 2) as (exchange, (one, other)):
        await one.logout()
        assert await other.orders.book() == []
        await one.login()
        assert await logins(exchange) == 1
        await one.logout(forget=True)
        assert "token" not in path.read_text()
        assert await other.orders.book() == []  # the broker has no call to end a session
        await one.login()
        assert await logins(exchange) == 2


async def test_the_log_names_paper_or_live_and_where_the_session_came_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="neo_async.session")
    async with sharing(tmp_path / "session.json", 1) as (exchange, (neo,)):
        assert neo.is_paper
        ucc = exchange.credentials.ucc
        where = f"{ucc}: logged in as {ucc} at {exchange.base_url}: paper"
        assert caplog.messages[-1] == where
        async with client_of(exchange, session=tmp_path / "session.json"):
            assert caplog.messages[-1] == f"{where}, by the login of 10:00:00 IST"


async def test_a_server_beyond_this_machine_is_live() -> None:
    credentials = exchange_of().credentials
    assert not NeoClient(credentials, endpoints=Endpoints(login="https://10.0.0.7")).is_paper
    assert not NeoClient(credentials).is_paper
    for host in ("localhost", "127.0.0.1:8080", "[::1]:99"):
        assert NeoClient(credentials, endpoints=Endpoints(login=f"http://{host}")).is_paper


# --- save and resume ------------------------------------------------------------------------------


async def test_a_saved_session_is_resumed_by_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "session.json"
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        with pytest.raises(NotLoggedIn):
            neo.save(path)
        async with neo:
            neo.save(path)
            token = neo.session.token
        again = client_of(exchange)
        caplog.set_level(logging.INFO, logger="neo_async.session")
        await again.resume(path)
        assert f"{exchange.base_url}: paper" in caplog.text
        assert again.session.token == token
        assert await again.orders.book() == []
        await again.logout()
        assert await logins(exchange) == 1
        path.write_text("words")
        with pytest.raises(UsageError, match="not a session file"):
            await again.resume(path)
        with pytest.raises(UsageError, match="No such file"):
            await again.resume(tmp_path / "missing")


@pytest.mark.parametrize("session", ["", 7, False, b"x"])
async def test_a_value_that_is_no_path_is_refused_as_a_session_file(session: Any) -> None:
    with pytest.raises(UsageError, match="session="):
        NeoClient(exchange_of().credentials, session=session)


# --- without a file -------------------------------------------------------------------------------


async def test_the_address_that_the_broker_sees() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert await neo.client_ip() == "127.0.0.1"


@pytest.mark.parametrize(
    "answer",
    [
        Reply({"data": [], "stCode": 1000}),
        Reply({"data": [{"ip": "no address"}]}),
        Reply({"stat": "Not_Ok", "stCode": 1005, "errMsg": "Internal Error"}),
        Reply(b""),
    ],
)
async def test_an_answer_without_an_address_is_an_error(answer: Reply) -> None:
    def override(path: str, status: int, body: bytes) -> Reply | None:
        return answer if path.endswith("get-client-ip") else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        with pytest.raises(NeoError):
            await neo.client_ip()


async def test_a_fixed_code_that_was_used_is_not_replaced() -> None:
    async with exchange_of() as exchange:
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(int(now()))
        async with client_of(exchange, totp=code):
            with pytest.raises(NeoError, match="TOTP"):
                await client_of(exchange, totp=code).login()
        assert now() - START < 1
        assert (await paths(exchange)).count(LOGIN) == 2


async def test_a_login_during_a_logout_has_an_order_lane() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        await neo.login()
        for _ in range(3):
            ending = asyncio.create_task(neo.logout())
            await asyncio.sleep(0)
            await neo.login()
            await ending
            assert (await neo.orders.place(*BUY, **CNC)).number
            assert await neo.orders.book()
        await neo.logout()


@pytest.mark.parametrize("turns", range(1, 41, 3))
async def test_a_login_at_any_moment_of_a_logout_works(turns: int) -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        session = await neo.login()
        ending = asyncio.create_task(neo.logout())
        for _ in range(turns):
            await asyncio.sleep(0)
        await neo.resume(session)
        await ending
        assert (await neo.orders.place(*BUY, **CNC)).number
        await neo.logout()


async def test_a_logout_during_a_login_gives_it_up() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange):
            pass
        neo = client_of(exchange)
        logging_in = asyncio.create_task(neo.login())
        await asyncio.sleep(5)  # it waits for the next code
        await neo.logout()
        with pytest.raises(NotLoggedIn, match="logged out while logging in"):
            await logging_in
        assert "not logged in" in repr(neo)
        with pytest.raises(NotLoggedIn):
            await neo.orders.book()


async def test_two_logouts_at_once_are_one() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        await neo.login()
        await asyncio.gather(neo.logout(), neo.logout(), neo.logout())
        assert "not logged in" in repr(neo)


async def test_the_file_of_a_client_names_the_account_and_server(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with sharing(path, 1) as (exchange, _):
        other = exchange.accounts[1]
        assert SessionFile(path, other, exchange.endpoints, clock=now).load() is None
