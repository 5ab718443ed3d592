"""The client as a whole: what it shows of itself, and what it never shows of its owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from typing import Any

import pyotp
import pytest
from rich.pretty import pretty_repr

from neo_async import (
    Credentials,
    NeoClient,
    NeoError,
    OrderRequest,
    Product,
    Segment,
    Side,
    UsageError,
)
from neo_async.model.session import Session
from neo_async.wire.login import LoginAnswer, LoginForm, ValidateForm
from tests.clients import client_of, exchange_of
from tests.fake_servers import CREDENTIALS, LOGIN, SID, TOKEN, VALIDATE, Cut, Reply, scripted_broker
from tests.simulation.virtual_time import now

BUY: tuple[Any, ...] = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}

BOOK = "/quick/user/orders"
PLACE = "/quick/order/rule/ms/place"


def secrets_of(credentials: Credentials, *sessions: Session) -> set[str]:
    """What must be seen nowhere. A number as short as the MPIN may occur by chance in a longer
    one, so it is chosen not to."""
    secrets = {
        credentials.consumer_key,
        credentials.mobile_number,
        credentials.mpin,
        credentials.totp_secret,
    }
    return secrets.union(*({session.token, session.sid} for session in sessions))


def assert_none_of(secrets: set[str], text: str) -> None:
    found = [secret[:4] + "…" for secret in secrets if secret in text]
    assert not found, f"{found} in {text[:300]}"


async def test_nothing_shows_a_secret_of_itself() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        secrets = secrets_of(exchange.credentials, neo.session)
        request = OrderRequest(*BUY, Product.CNC, "39.00")
        order = await neo.orders.place(*BUY, **CNC)
        for thing in (
            neo,
            neo._session,
            neo.session,
            neo.limiter,
            neo.orders,
            neo.portfolio,
            exchange,
            exchange.credentials,
            exchange.accounts,
            exchange.endpoints,
            request,
            order,
            LoginForm(exchange.credentials.mobile_number, "ABC12", "123456"),
            ValidateForm(exchange.credentials.mpin),
            LoginAnswer(token=neo.session.token, sid=neo.session.sid),
        ):
            assert_none_of(secrets | {"123456"}, repr(thing))
            assert_none_of(secrets | {"123456"}, str(thing))
            # Structs are taken apart by rich, which prints tracebacks with the values of locals.
            assert_none_of(secrets | {"123456"}, pretty_repr(thing))
            assert_none_of(secrets | {"123456"}, pretty_repr({"local": [thing]}))


def test_credentials_that_cannot_be_right_are_refused_without_being_repeated() -> None:
    for field, value in (("mobile_number", "98765"), ("mpin", "12345a"), ("mpin", "1234567")):
        facts = {
            "consumer_key": CREDENTIALS.consumer_key,
            "mobile_number": CREDENTIALS.mobile_number,
            "ucc": CREDENTIALS.ucc,
            "mpin": CREDENTIALS.mpin,
        }
        with pytest.raises(UsageError, match=field) as caught:
            Credentials(**facts | {field: value})
        assert value not in str(caught.value)


async def test_the_log_of_a_whole_day_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with exchange_of() as exchange:
        code = pyotp.TOTP(exchange.credentials.totp_secret).at(now())
        neo = client_of(exchange)
        sessions = []
        async with neo:
            sessions.append(neo.session)
            order = await neo.orders.place(*BUY, **CNC, tag="day")
            await neo.orders.modify(order, price="39.10")
            await neo.orders.cancel(order)
            with contextlib.suppress(NeoError):
                await neo.orders.cancel(order)
            exchange.end_sessions()
            await asyncio.gather(neo.portfolio.positions(), neo.portfolio.limits())
            sessions.append(neo.session)
            await neo.orders.cancel_all()
        wrong = client_of(exchange, credentials=exchange.accounts[1], totp="123123")
        with pytest.raises(NeoError):
            await wrong.login()
    assert "logged in as" in caplog.text
    assert sessions[0].token != sessions[1].token
    secrets = secrets_of(exchange.credentials, *sessions) | secrets_of(exchange.accounts[1])
    assert_none_of(secrets | {code, "123123"}, caplog.text)
    for record in caplog.records:
        assert_none_of(secrets, repr(record.__dict__))


ECHOES: list[Reply | Cut] = [
    Reply({"stCode": 1005, "errMsg": f"token {TOKEN} of sid {SID} failed", "stat": "Not_Ok"}),
    Reply({"message": f"cannot parse Authorization: {CREDENTIALS.consumer_key}"}, 400),
    Reply({"error": [{"code": "10020", "message": f"Auth {TOKEN}"}]}, 400),
    Reply({"fault": {"code": 900, "message": "no", "description": f"Sid: {SID}"}}, 500),
    Reply({"data": {"token": TOKEN, "sid": SID, "note": "not a book"}}),
    Reply(f"<pre>auth: {TOKEN}\nsid: {SID}</pre>", 502, "text/html"),
    Reply(f'<p>{{"token":"{TOKEN}"', 200, "text/html"),
    Reply(f'{{"detail":"{{\\"token\\":\\"{TOKEN}\\"}}","sid":"{SID}"}}', 404),
    Reply(("x" * 250) + TOKEN, 500, "text/plain"),
    Cut(b'{"token":"' + TOKEN.encode() + b'"'),
]


@pytest.mark.parametrize("echo", ECHOES)
async def test_an_error_shows_nothing_that_the_broker_echoes(
    echo: Reply | Cut, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = secrets_of(CREDENTIALS) | {TOKEN, TOKEN[:30], SID}
    async with scripted_broker() as broker:
        broker.script(BOOK, echo)
        broker.script(PLACE, echo)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            for call in (neo.orders.book(), neo.orders.place(*BUY, **CNC, wait_for_outcome=False)):
                with pytest.raises(NeoError) as caught:
                    await call
                shown = "".join(traceback.format_exception(caught.value))
                assert_none_of(secrets, shown)
                for error in (caught.value, caught.value.__cause__):
                    assert_none_of(secrets, repr(error) + repr(getattr(error, "__dict__", "")))
    assert_none_of(secrets, caplog.text)


async def test_what_a_row_says_of_a_value_shows_nothing_that_the_broker_echoes() -> None:
    odd = [{"nOrdNo": {"token": TOKEN, "sid": SID}, "qty": TOKEN, "prc": f"sid {SID}"}]
    async with scripted_broker() as broker:
        broker.script(BOOK, Reply({"data": odd, "stat": "Ok"}))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            (row,) = await neo.orders.book()
    assert row.missing == {"number", "quantity", "price"}
    assert_none_of({TOKEN, TOKEN[:30], TOKEN[-20:], SID}, repr(row))


@pytest.mark.parametrize("path", [LOGIN, VALIDATE])
async def test_an_error_of_the_login_shows_nothing_either(path: str) -> None:
    code = "123456"
    secrets = secrets_of(CREDENTIALS) | {TOKEN, SID, code}
    form = {"mpin": CREDENTIALS.mpin, "totp": code, "mobileNumber": CREDENTIALS.mobile_number}
    for echo in (
        Reply({"data": {"token": TOKEN, "sid": SID, "status": "blocked", "kId": "ABCDE1234F"}}),
        Reply({"data": {"token": TOKEN}, **form}),
        Reply({"message": f"refused for {TOKEN}", **form}, 401),
    ):
        async with scripted_broker() as broker:
            broker.script(path, echo)
            neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints)
            with pytest.raises(NeoError) as caught:
                await neo.login(code)
            shown = "".join(traceback.format_exception(caught.value))
            assert_none_of(secrets | {"ABCDE1234F"}, shown + repr(caught.value.__dict__))
