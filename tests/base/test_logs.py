"""What is logged: every line about an order says which, and none says a secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from neo_async import (
    Credentials,
    JournalFailed,
    NeoClient,
    NeoError,
    NotAccepted,
    NotSent,
    OrderAlreadyFinal,
    OrderUpdate,
    Product,
    Segment,
    Side,
    Timeouts,
)
from neo_async.base.logs import Subject, log_order
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Outcome
from tests.clients import BOOK, CANCEL, MODIFY, PLACE, WIDE, client_of, exchange_of
from tests.fake_servers import (
    CREDENTIALS,
    LOGIN,
    SID,
    TOKEN,
    VALIDATE,
    Cut,
    Late,
    Reply,
    fault_proxy,
    scripted_broker,
)
from tests.simulation.virtual_time import START, now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
BUSY = Reply("busy", 503)


def echo(own: Credentials) -> Reply:
    """A refusal that repeats whatever it was told."""
    words = (own.mobile_number, own.mobile_number[3:], own.mpin, own.consumer_key, TOKEN, SID)
    return Reply({"stCode": 401, "errMsg": " ".join(words), "stat": "Not_Ok"}, 401)


ORDER_LOGGERS = ("orders", "journal", "risk")


def account_of(record: logging.LogRecord) -> str:
    """What leads the text of a client's line."""
    return f"{record.ucc}: " if hasattr(record, "ucc") else ""


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def about_orders(self) -> list[logging.LogRecord]:
        return [record for record in self.records if hasattr(record, "client_tag")]

    def lines(self, logger: str = "") -> list[str]:
        """Level and text, without the account that leads it."""
        return [
            f"{record.levelname} {record.getMessage().removeprefix(account_of(record))}"
            for record in self.records
            if record.name.endswith(logger)
        ]

    @property
    def text(self) -> str:
        """All of it, as any formatter could show it."""
        formatter = logging.Formatter("%(message)s")
        fields = (repr(vars(record)) for record in self.records)
        return "\n".join([*map(formatter.format, self.records), *fields])


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def assert_of_accounts(kept: Kept) -> None:
    """Every line of a client begins with its account, and has it as a field."""
    for record in kept.records:
        if record.name.startswith("neo_async.") and record.name != "neo_async.exchange":
            assert hasattr(record, "ucc"), record.getMessage()
            assert record.getMessage().startswith(f"{record.ucc}: ")


def assert_marked(kept: Kept) -> None:
    """Every line with a tag or order number in its words has them as fields, and the reverse."""
    numbered = re.compile(r"\b\d{15}\b|tag '")
    for record in kept.records:
        is_of_orders = record.name in [f"neo_async.{name}" for name in ORDER_LOGGERS]
        text = record.getMessage()
        if is_of_orders and numbered.search(text):
            assert hasattr(record, "client_tag"), text
    assert_of_accounts(kept)
    for record in kept.about_orders:
        text, fields = record.getMessage(), vars(record)
        assert fields["action"], text
        assert fields["client_tag"] or fields["order_number"], text
        for field in ("action", "client_tag", "order_number"):
            assert fields[field] in text


def secrets_of(own: Credentials) -> list[str]:
    codes = [pyotp.TOTP(own.totp_secret).at(int(START) + step) for step in range(-30, 600, 30)]
    return [TOKEN, SID, own.consumer_key, own.mpin, own.totp_secret, own.mobile_number[3:], *codes]


# --- lines about orders -----------------------------------------------------------------------


def test_a_line_says_what_it_is_about_in_words_and_as_fields(kept: Kept) -> None:
    log = logging.getLogger("neo_async.orders")
    log_order(
        log, logging.INFO, Subject("cancel", "t_1", "261123000000001"), "%d %% of %s", 5, "it"
    )
    log_order(log, logging.INFO, Subject("place", "t_2"), "sending")
    first, second = kept.records
    assert first.getMessage() == "cancel of order 261123000000001, tag 't_1': 5 % of it"
    assert (first.action, first.client_tag, first.order_number) == (  # type: ignore[attr-defined]
        "cancel",
        "t_1",
        "261123000000001",
    )
    assert second.getMessage() == "place of tag 't_2': sending"
    assert first.funcName == "test_a_line_says_what_it_is_about_in_words_and_as_fields"


async def test_an_order_that_works_has_two_lines_with_its_latency(kept: Kept) -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        order = await neo.orders.place(*BUY, **CNC, tag="mine")
        await neo.orders.cancel(order)
    tag, number = order.client_tag, order.number
    place, accepted, cancel, cancelled = kept.lines("neo_async.orders")[:4]
    assert place == f"DEBUG place of tag '{tag}': sending"
    assert re.fullmatch(
        rf"DEBUG place of order {number}, tag '{tag}': accepted after \d+\.\d{{3}} ms", accepted
    )
    assert cancel == f"DEBUG cancel of order {number}, tag '{tag}': sending"
    assert cancelled.startswith(f"DEBUG cancel of order {number}, tag '{tag}': accepted after")


async def test_nothing_is_made_for_lines_that_nobody_wants() -> None:
    log = logging.getLogger("neo_async.orders")
    log.setLevel(logging.INFO)
    handler = Kept()
    log.addHandler(handler)
    try:
        async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
            await neo.orders.place(*BUY, **CNC)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert [line.partition(": ")[0] for line in handler.lines()] == ["INFO exit"]


# --- whatever goes wrong ----------------------------------------------------------------------


async def test_every_line_about_an_order_has_its_tag_whatever_goes_wrong(
    kept: Kept, tmp_path: Path
) -> None:
    overrides: dict[str, Any] = {}
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(
            exchange, lambda path, status, body: overrides.get(path), dropped=dropped
        ) as endpoints,
        client_of(
            exchange,
            endpoints=endpoints,
            live_updates=False,
            journal=tmp_path / "orders.db",
            timeouts=Timeouts(order=2.0),
            resolution_timeout=4.0,
        ) as neo,
    ):
        orders, echoed = neo.orders, echo(exchange.credentials)
        order = await orders.place(*BUY, **CNC, tag="mine")
        for lost in (BUSY, Reply(""), Cut(), Late(60.0, Reply("late")), echoed):
            overrides[PLACE] = overrides[MODIFY] = lost
            with contextlib.suppress(NeoError):
                await orders.place(*BUY, **CNC)
            with contextlib.suppress(NeoError):
                await orders.modify(order, quantity=order.quantity + 1)
        overrides.clear()
        dropped |= {PLACE, CANCEL}
        with pytest.raises(NotAccepted):
            await orders.place(*BUY, **CNC)
        with pytest.raises(NotAccepted):
            await orders.cancel(order)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.0):
                await orders.place(*BUY, **CNC)
        dropped.clear()
        await orders.cancel(order)
        await orders.book()
        with pytest.raises(OrderAlreadyFinal):
            await orders.cancel(order)
        overrides[BOOK] = BUSY
        with contextlib.suppress(NeoError):
            await orders.cancel_all()
        overrides.clear()
        update = OrderUpdate(number=order.number, status_text="strange", updated_ns=1)
        neo._engine.cache.on_update(update)
        await neo.halt(reason="enough")
        with pytest.raises(NeoError):
            await orders.place(*BUY, **CNC)
    assert_marked(kept)
    words = "\n".join(kept.lines())
    for said in (
        ": sending",
        "accepted after",
        "outcome unknown",
        ": took effect: ",
        "had no effect",
        "refused: ",
        "the caller gave up",
    ):
        assert said in words, said
    assert not [s for s in secrets_of(exchange.credentials) if s in kept.text]


async def test_what_could_not_be_sent_is_told_with_its_tag(kept: Kept) -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        lane = neo._session.lane

        async def refused() -> Any:
            raise NotSent("cannot connect")

        lane.pool._open_connection = refused  # type: ignore[method-assign]
        for connection in list(lane.pool.connections):
            connection.close()
        with pytest.raises(NotSent):
            await neo.orders.place(*BUY, **CNC, tag="gone")
    lines = [line for line in kept.lines("neo_async.orders") if "gone_" in line]
    assert "next try in" in lines[1]
    assert lines[-1].startswith("INFO place of tag 'gone_")
    assert "not sent: " in lines[-1]
    assert_marked(kept)


async def test_an_outcome_that_the_journal_lacks_is_told_with_its_tag(
    kept: Kept, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12", clock=now)
    journal.open()
    intent = await journal.begin("place", {}, client_tag="t_1")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal.end(intent, Outcome.ACCEPTED, order_number="261123000000001")
    await asyncio.sleep(0)
    with pytest.raises(JournalFailed):
        await journal.begin("place", {}, client_tag="t_2")
    other.execute("ROLLBACK")
    other.close()
    await journal.close()
    assert "ERROR place of tag 't_1': outcome (accepted) not in the journal: " in "\n".join(
        kept.lines("neo_async.execution.journal")
    )
    assert_marked(kept)


# --- secrets ----------------------------------------------------------------------------------


async def test_no_secret_is_logged_however_a_login_ends(kept: Kept) -> None:
    said = ""
    for path in (LOGIN, VALIDATE):
        for reply in (echo(CREDENTIALS), BUSY, Reply(""), Cut(), Cut(b'{"data"'), Late(60.0, BUSY)):
            async with scripted_broker() as broker:
                broker.script(path, reply)
                neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints, limits=WIDE, clock=now)
                with pytest.raises(NeoError) as caught:
                    await neo.login()
                await neo.logout()
                said += f"{caught.value} {caught.value!r} {vars(caught.value)} {neo.health()!r}"
    assert not [s for s in secrets_of(CREDENTIALS) if s in kept.text]
    assert not [s for s in secrets_of(CREDENTIALS) if s in said]


async def test_no_secret_is_logged_of_sessions_that_end_and_feeds_that_break(kept: Kept) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        session = neo.session
        await neo.order_feed.until_live()
        async with neo.market_feed(level=None) as feed:
            await feed.until_live()
            exchange.feeds.drop_connections()
            exchange.end_sessions()
            await neo.orders.book()
            await asyncio.sleep(60)
            said = f"{neo!r} {neo.health()!r} {neo.health().breakers} {neo.metrics()!r}"
            said += neo.metrics().to_prometheus()
        secrets = secrets_of(exchange.credentials)
        secrets += [session.token, session.sid, neo.session.token, neo.session.sid]
    assert not [secret for secret in secrets if secret in kept.text]
    assert not [secret for secret in secrets if secret in said]
    assert len({record.name for record in kept.records if hasattr(record, "ucc")}) >= 2
    assert_of_accounts(kept)


def test_words_of_others_stay_on_the_line(caplog: pytest.LogCaptureFixture) -> None:
    subject = Subject("cancel", order_number="7\n8")
    log_order(logging.getLogger("neo_async.x"), logging.WARNING, subject, "%s", "no\r\n\x1b[2J")
    assert caplog.messages == [r"cancel of order 7\n8: no\r\n\x1b[2J"]
