"""Tracebacks that show local variables (rich, pytest -l, error trackers) show no secret."""

from __future__ import annotations

import asyncio
import contextlib
import io
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from neo_async import Credentials, Endpoints, NeoClient, Timeouts
from neo_async.banking import BankingProfile, VirtualAccounts
from neo_async.banking.profile import Auth, Server
from neo_async.cli.bank.connection import Customer
from neo_async.cli.kite import access
from neo_async.cli.kite.access import Access
from neo_async.config import KiteEndpoints
from neo_async.errors import NeoError, UsageError
from neo_async.kite import KiteMutualFunds, KiteSession
from tests.exchange_settings import exchange_with
from tests.fake_servers import (
    CREDENTIALS,
    LOGIN,
    SID,
    TOKEN,
    VALIDATE,
    Cut,
    Late,
    Reply,
    tcp_server,
)
from tests.fake_servers import scripted_broker as scripted
from tests.test_orders import BUY, CNC

CODE = "918273"
KEY, SECRET = "k1te-key-0001", "k1te-s3cret-0002"
ACCESS, REQUEST = "acc3ss-t0ken-0003", "requ3st-t0ken-0004"
BANK_ID, BANK_SECRET, BEARER = "b4nk-id-0005", "b4nk-s3cret-0006", "b3arer-t0ken-0007"

BROKER = (
    CREDENTIALS.consumer_key,
    CREDENTIALS.mobile_number,
    CREDENTIALS.mpin,
    CREDENTIALS.totp_secret,
    CODE,
    TOKEN,
    SID,
)
RENEWAL = tuple(secret for secret in BROKER if secret != CODE)  # it makes a code of its own
KITE = (KEY, ACCESS)
KITE_LOGIN = (KEY, SECRET, REQUEST)
BANK_LOGIN = (BANK_ID, BANK_SECRET)
BANK = (*BANK_LOGIN, BEARER)
SECRETS = (*BROKER, *KITE, *KITE_LOGIN, *BANK)

SILENCE = Late(0.4, Reply({}))
ALL = " ".join(SECRETS)
FAILURES = {
    "closed": Cut(),
    "cut off": Cut(b'{"stat"'),
    "silent": SILENCE,
    "not JSON": Reply("<h1>" + ALL),
    "too deep": Reply("[" * 100_000),
    "too odd": Reply('[1e999999999, "' + "9" * 5000),
    "refused": Reply(
        {
            "stat": "Not_Ok",
            "stCode": 1,
            "errMsg": ALL,
            "status": "error",
            "message": ALL,
            "error_type": "InputException",
            "errorCode": "VA0001",
            "error": "invalid_client",
            "error_description": ALL,
        },
        400,
    ),
    "not gzip": Reply("x", headers={"Content-Encoding": "gzip"}),
    "odd": Reply({"data": ALL, "stat": ALL, "status": ALL, "access_token": {ALL: ALL}}),
}
PATIENCE = Timeouts(connect=1, login=0.3, read=0.3, order=0.3, duplicate_read_after=None)


def shown(error: BaseException) -> str:
    """What rich and the standard library make of it, local variables included, without the frames
    of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    console = Console(file=io.StringIO(), width=300)
    console.print(
        Traceback.from_exception(
            type(error),
            error,
            trace,
            show_locals=True,
            locals_max_length=1000,
            locals_max_string=100_000,
        )
    )
    plain = traceback.TracebackException(type(error), error, trace, capture_locals=True)
    return console.file.getvalue() + "".join(plain.format())  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def patient_broker() -> AsyncIterator[Any]:
    """A broker whose late answers are over when it ends."""
    async with scripted() as broker:
        yield broker
        if any(SILENCE in answers for answers in broker.answers.values()):
            await asyncio.sleep(0.5)


async def assert_fails_without(
    secrets: tuple[str, ...], call: Callable[[], Awaitable[Any]]
) -> None:
    """What the call's own client sent; what was never sent cannot be told from other words."""
    with pytest.raises((NeoError, TimeoutError)) as caught:
        await call()
    text = shown(caught.value)
    assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("step", [LOGIN, VALIDATE])
async def test_a_login_that_fails_shows_none(step, failure):
    async with patient_broker() as broker:
        broker.script(step, failure)
        client = NeoClient(CREDENTIALS, endpoints=broker.endpoints, timeouts=PATIENCE)
        await assert_fails_without(BROKER, lambda: client.login(CODE))
        await client.logout()


async def test_a_login_to_nobody_shows_none():
    client = NeoClient(CREDENTIALS, endpoints=Endpoints(login="http://127.0.0.1:9"))
    await assert_fails_without(BROKER, client.login)
    await client.logout()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_reads_and_orders_that_fail_show_none(failure):
    async with patient_broker() as broker:
        broker.script("/quick/user/orders", failure)
        broker.script("/quick/order/rule/ms/place", failure)
        broker.script("/portfolio/v1/holdings", failure)
        options: dict[str, Any] = {"endpoints": broker.endpoints, "timeouts": PATIENCE}
        async with NeoClient(CREDENTIALS, totp=CODE, **options) as neo:
            await assert_fails_without(BROKER, neo.orders.book)
            await assert_fails_without(BROKER, neo.portfolio.holdings)
            await assert_fails_without(
                BROKER, lambda: neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
            )


async def test_a_read_that_its_caller_gives_up_shows_none():
    async with patient_broker() as broker:
        broker.script("/quick/user/orders", SILENCE)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp=CODE) as neo:
            await assert_fails_without(BROKER, lambda: asyncio.wait_for(neo.orders.book(), 0.1))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_renewal_that_fails_shows_none(failure):
    async with patient_broker() as broker:
        ended = Reply({"stat": "Not_Ok", "stCode": 1003, "errMsg": "session ended"}, 401)
        broker.script("/quick/user/orders", ended)
        options: dict[str, Any] = {"endpoints": broker.endpoints, "timeouts": PATIENCE}
        async with NeoClient(CREDENTIALS, totp=CODE, **options) as neo:
            broker.script(VALIDATE, failure)
            await assert_fails_without(RENEWAL, neo.orders.book)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_kite_calls_that_fail_show_none(failure):
    async with patient_broker() as broker:
        for path in ("/mf/orders", "/mf/holdings", "/session/token", "/mf/instruments"):
            broker.script(path, failure)
        endpoints = KiteEndpoints(api=broker.url, login=broker.url)
        async with KiteMutualFunds(KEY, ACCESS, endpoints=endpoints, timeouts=PATIENCE) as kite:
            await assert_fails_without(KITE, kite.orders)
            await assert_fails_without(KITE, kite.holdings)
        session = KiteSession(KEY, SECRET, endpoints=endpoints, timeouts=PATIENCE)
        await assert_fails_without(KITE_LOGIN, lambda: session.open(REQUEST))
        if failure is not FAILURES["odd"]:  # of a logout, only the status matters
            await assert_fails_without(KITE, lambda: session.end(ACCESS))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("where", ["/auth/oauth/v2/token", "/va/v1/transactions/fetch"])
async def test_bank_calls_that_fail_show_none(where, failure):
    async with patient_broker() as broker:
        broker.script("/auth/oauth/v2/token", Reply({"access_token": BEARER, "expires_in": 3600}))
        broker.script(where, failure)
        secrets = BANK if where.endswith("fetch") else BANK_LOGIN
        profile = BankingProfile()
        server = msgspec.structs.replace(profile.server, base_url=broker.url, timeout=0.3)
        profile = msgspec.structs.replace(profile, server=server)
        async with VirtualAccounts(
            BANK_ID, BANK_SECRET, profile=profile, client_name="ACME", physical_account="12345678"
        ) as bank:
            await assert_fails_without(secrets, lambda: anext(aiter(bank.transactions())))


@pytest.mark.parametrize(
    "make",
    [
        lambda: KiteMutualFunds(KEY, ACCESS + ":"),
        lambda: KiteMutualFunds(KEY + " ", ACCESS),
        lambda: VirtualAccounts(BANK_ID, BANK_SECRET + "\n"),
        lambda: VirtualAccounts(BANK_ID, BANK_SECRET, profile="/nowhere"),
        lambda: KiteSession("", SECRET),
        lambda: KiteSession(KEY, ""),
        lambda: msgspec.structs.replace(CREDENTIALS, mpin="12").__post_init__(),
    ],
)
def test_settings_that_are_refused_show_none(make):
    with pytest.raises((UsageError, OSError)) as caught:
        make()
    assert [secret for secret in SECRETS if secret in shown(caught.value)] == []


ENVIRONMENT = {
    "NEO_CONSUMER_KEY": CREDENTIALS.consumer_key,
    "NEO_MOBILE_NUMBER": CREDENTIALS.mobile_number,
    "NEO_UCC": CREDENTIALS.ucc,
    "NEO_MPIN": CREDENTIALS.mpin,
    "NEO_TOTP_SECRET": CREDENTIALS.totp_secret,
    "KITE_API_KEY": KEY,
    "KITE_API_SECRET": SECRET,
    "KITE_ACCESS_TOKEN": ACCESS,
    "KOTAK_BANK_CLIENT_ID": BANK_ID,
    "KOTAK_BANK_CLIENT_SECRET": BANK_SECRET,
}
FAR = "http://far.example"


@pytest.mark.parametrize("is_own", [True, False], ids=["of the process", "handed in"])
@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"NEO_MPIN": "12"}, Credentials.from_env),
        ({"NEO_UCC": ""}, Credentials.from_env),
        ({"NEO_LOGIN_URL": FAR}, Endpoints.from_env),
        ({"KITE_URL": FAR}, KiteEndpoints.from_env),
        ({"KITE_URL": FAR}, KiteMutualFunds.from_env),
        ({"KITE_API_KEY": ""}, KiteMutualFunds.from_env),
        ({"KITE_ACCESS_TOKEN": ACCESS + ":"}, KiteMutualFunds.from_env),
        ({"KOTAK_BANK_URL": FAR}, lambda _: Customer(None).client()),
        ({"KOTAK_BANK_CLIENT_ID": ""}, lambda _: Customer(None)),
        ({"KITE_ACCESS_TOKEN": ACCESS + ":"}, lambda _: Access().client()),
    ],
)
def test_an_environment_that_is_refused_is_not_shown(monkeypatch, changes, read, is_own):
    environment = ENVIRONMENT | changes
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        read(None if is_own else environment)
    assert [secret for secret in SECRETS if secret in shown(caught.value)] == []


def test_a_stored_login_at_kite_shows_none():
    stored = access._Stored(access_token=ACCESS, user_id="ZV0001", made_at=0.0)
    assert ACCESS not in repr(stored) + pretty_repr(stored)


def test_the_made_up_secrets_of_an_exchange_are_not_shown_either():
    kite = exchange_with(key="0123456789abcdef").kite
    assert kite.api_secret not in pretty_repr(kite)
    assert kite.access_token not in pretty_repr(kite)


# --- answers that are no HTTP, and repeat the request ---------------------------------------------


def _lines(head: bytes) -> bytes:
    return head.partition(b"\r\n")[2]


def _line(head: bytes, body: bytes) -> bytes:
    return (head + body).replace(b"\r\n", b" ")


OK = b"HTTP/1.1 200 OK\r\n"
ECHOES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "whole": lambda head, body: head + body,
    "body": lambda head, body: body + b"\r\n\r\n",
    "bad names": lambda head, body: OK + _lines(head).replace(b": ", b" : "),
    "bad values": lambda head, body: OK + _lines(head).replace(b"\r\n", b"\x01\r\n"),
    "long line": lambda head, body: OK + b"A: " + 200 * _line(head, body),
    "head cut off": lambda head, body: OK + b"A: " + _line(head, body),
    "length": lambda head, body: OK + b"Content-Length: " + _line(head, body) + b"\r\n\r\n",
    "chunk": lambda head, body: (
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + _line(head, body) + b"\r\n"
    ),
    "encoding": lambda head, body: (
        OK
        + b"Content-Length: 1\r\nContent-Encoding: "
        + (body or head)[-40:].strip()
        + b"\r\n\r\nx"
    ),
}


@contextlib.asynccontextmanager
async def echoing(echo: Callable[[bytes, bytes], bytes]) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        writer.write(echo(head, await reader.readexactly(length)))

    async with tcp_server(handle) as address:
        yield f"http://{address}"


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.real_time("the servers close their connections in real time")
async def test_an_answer_that_is_no_http_and_repeats_the_request_shows_none(echo):
    async with echoing(echo) as url:
        client = NeoClient(CREDENTIALS, endpoints=Endpoints(login=url), timeouts=PATIENCE)
        await assert_fails_without(BROKER, lambda: client.login(CODE))
        await client.logout()
        endpoints = KiteEndpoints(api=url, login=url)
        async with KiteMutualFunds(KEY, ACCESS, endpoints=endpoints, timeouts=PATIENCE) as kite:
            await assert_fails_without(KITE, kite.orders)
            await assert_fails_without(KITE, kite.instruments)
        session = KiteSession(KEY, SECRET, endpoints=endpoints, timeouts=PATIENCE)
        await assert_fails_without(KITE_LOGIN, lambda: session.open(REQUEST))
        await assert_fails_without(KITE, lambda: session.end(ACCESS))
        server = Server(base_url=url, timeout=0.3, auth=Auth.API_KEY)
        profile = msgspec.structs.replace(BankingProfile(), server=server)
        async with VirtualAccounts(
            BANK_ID, BANK_SECRET, profile=profile, client_name="ACME", physical_account="12345678"
        ) as bank:
            await assert_fails_without(BANK_LOGIN, lambda: bank.refund("ACME", "REF00000001"))
