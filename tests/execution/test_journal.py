"""The journal: what it holds at which time, who may write it, and what a restart reads of it."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import random
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    Durability,
    Halted,
    JournalFailed,
    Outcome,
    OutcomeUnknown,
    Product,
    Rejected,
    Segment,
    Side,
)
from neo_async.errors import NeoError
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import CancelScope, Intent
from neo_async.execution.journal_writers import OUTCOME_DELAY_SECONDS, WRITE_TIMEOUT_SECONDS
from neo_async.wire.tags import own_tag
from tests.clients import PLACE, client_of, exchange_of
from tests.fake_servers import CREDENTIALS, Reply, fault_proxy

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
BOOK = "/neo/quick/user/orders"
BUSY = Reply("busy", 503)


def rows_of(path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(path) as file:
        file.row_factory = sqlite3.Row
        rows = [dict(row) for row in file.execute("SELECT * FROM intents ORDER BY id")]
    file.close()
    return rows


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program's transaction, which lets no other one write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def opened(path: Path, **settings: Any) -> Journal:
    journal = Journal(path, ucc="ABC12", **settings)
    journal.open()
    return journal


@pytest.mark.parametrize("durability", list(Durability))
async def test_every_intent_is_there_with_its_outcome(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "orders.db"
    async with (
        exchange_of() as exchange,
        client_of(exchange, journal=path, durability=durability) as neo,
    ):
        order = await neo.orders.place(*BUY, **CNC, tag="kept")
        await neo.orders.modify(order, price="39.10")
        await neo.orders.cancel(order)
        with pytest.raises(Rejected):
            await neo.orders.place(Segment.NSE_CM, "NOSUCH-EQ", Side.BUY, 1, **CNC)
    rows = rows_of(path)
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("place", "accepted"),
        ("modify", "accepted"),
        ("cancel", "accepted"),
        ("place", "rejected"),
    ]
    assert {row["order_number"] for row in rows[:3]} == {order.number}
    assert rows[0]["client_tag"] == order.client_tag
    assert json.loads(rows[1]["form"])["pr"] == "39.10"
    assert "NOSUCH-EQ" in rows[3]["reason"]
    secrets = CREDENTIALS, exchange.credentials
    content = path.read_bytes()
    for each in secrets:
        for secret in (each.consumer_key, each.mpin, each.totp_secret, each.mobile_number):
            assert secret.encode() not in content


@pytest.mark.parametrize("durability", list(Durability))
async def test_an_intent_can_be_read_before_anything_is_sent(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "orders.db"
    async with (
        exchange_of() as exchange,
        client_of(exchange, journal=path, durability=durability) as neo,
    ):
        hand_over, seen = neo._requests.order, []

        def looking(*arguments: Any) -> Any:
            seen.append([row["client_tag"] for row in rows_of(path)])
            return hand_over(*arguments)

        neo._requests.order = looking  # type: ignore[method-assign]
        orders = await asyncio.gather(*(neo.orders.place(*BUY, **CNC) for _ in range(8)))
        for tags, order in zip(seen, orders, strict=True):
            assert order.client_tag in tags


async def test_what_cannot_be_written_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange, client_of(exchange, journal=path) as neo:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalFailed, match="nothing was sent"):
                await neo.orders.place(*BUY, **CNC)
            other.execute("ROLLBACK")
        other.close()
        assert exchange.market.ledger == []
        await neo.orders.place(*BUY, **CNC)


async def test_an_outcome_goes_into_the_file_with_the_next_intent_or_soon(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    commits: list[str] = []
    assert journal._file is not None
    journal._file.set_trace_callback(lambda text: commits.append(text.split()[0]))
    first = await journal.begin("cancel", {}, order_number="1")
    journal.end(first, Outcome.ACCEPTED)
    second = await journal.begin("cancel", {}, order_number="1")
    assert commits == ["INSERT", "BEGIN", "UPDATE", "INSERT", "COMMIT"]
    journal.end(second, Outcome.REJECTED, reason="too late")
    await asyncio.sleep(OUTCOME_DELAY_SECONDS)
    assert [row["outcome"] for row in rows_of(journal.path)] == ["accepted", "rejected"]
    await journal.close()


async def test_a_burst_of_intents_is_two_commits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    commits: list[str] = []
    assert journal._file is not None
    journal._file.set_trace_callback(lambda text: commits.append(text.split()[0]))
    await asyncio.gather(*(journal.begin("cancel", {}, order_number="1") for _ in range(5)))
    assert commits == ["INSERT", "BEGIN", *4 * ["INSERT"], "COMMIT"]
    await journal.close()
    assert len(rows_of(journal.path)) == 5


async def test_a_lone_intent_does_not_wait_for_the_turn_of_the_loop(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    first = await journal.begin("cancel", {}, order_number="1")
    second = await journal.begin("cancel", {}, order_number="1")  # beside the first
    journal.end(first, Outcome.ACCEPTED)
    journal.end(second, Outcome.ACCEPTED)
    lone = journal.begin("cancel", {}, order_number="1")
    with pytest.raises(StopIteration):
        lone.send(None)
    assert len(rows_of(journal.path)) == 3
    await journal.close()


async def test_no_intent_that_waits_is_lost_to_one_that_does_not_wait(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    first = await journal.begin("cancel", {}, order_number="1")
    waiting = asyncio.create_task(journal.begin("cancel", {}, order_number="2"))
    await asyncio.sleep(0)
    journal.end(first, Outcome.ACCEPTED)  # now none is under way
    last = await journal.begin("cancel", {}, order_number="3")
    assert {await asyncio.wait_for(waiting, 1), last} == {2, 3}
    await journal.close()


@settings(deadline=None)  # each example opens a file
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_every_intent_is_written_whatever_comes_between(steps: list[tuple[int, int]]) -> None:
    """Each begins some turns of the loop after the start, and ends some turns after that."""

    async def order(journal: Journal, wait: int, last: int) -> int:
        for _ in range(wait):
            await asyncio.sleep(0)
        intent = await journal.begin("cancel", {}, order_number="1")
        for _ in range(last):
            await asyncio.sleep(0)
        journal.end(intent, Outcome.ACCEPTED)
        return intent

    async def main(path: Path) -> list[int]:
        journal = Journal(path, ucc="ABC12")
        journal.open()
        async with asyncio.timeout(5):
            intents = await asyncio.gather(*(order(journal, *step) for step in steps))
        await journal.close()
        return intents

    with TemporaryDirectory() as folder:
        path = Path(folder, "orders.db")
        intents = asyncio.run(main(path))
        rows = rows_of(path)
    assert sorted(intents) == [row["id"] for row in rows] == list(range(1, len(steps) + 1))
    assert all(row["outcome"] == "accepted" for row in rows)


@pytest.mark.parametrize("before", [0, 1])
async def test_no_intent_whose_write_failed_is_in_the_file(tmp_path: Path, before: int) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(journal.begin("cancel", {}, order_number="1") for _ in range(1 + before)),
            return_exceptions=True,
        )
        other.execute("ROLLBACK")
    other.close()
    assert [type(result) for result in results] == [JournalFailed] * (1 + before)
    await journal.begin("cancel", {}, order_number="2")
    await journal.close()
    assert [row["order_number"] for row in rows_of(journal.path)] == ["2"]


async def test_an_outcome_that_cannot_be_written_waits_for_the_next_write(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    intent = await journal.begin("cancel", {}, order_number="1")
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.end(intent, Outcome.ACCEPTED)
        await asyncio.sleep(OUTCOME_DELAY_SECONDS)
        other.execute("ROLLBACK")
    other.close()
    await journal.close()
    assert [row["outcome"] for row in rows_of(journal.path)] == ["accepted"]


async def test_the_log_is_moved_into_the_file_when_no_order_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_async.execution.journal.WRITES_BETWEEN_CHECKPOINTS", 20)
    monkeypatch.setattr("neo_async.execution.journal.MAX_WRITES_BETWEEN_CHECKPOINTS", 60)
    moved: list[int] = []

    class Thread:
        """Does its work at once: real ones take no part in virtual time."""

        def __init__(self, **settings: Any) -> None:
            pass

        def start(self) -> None:
            moved.append(journal._writes)

        def is_alive(self) -> bool:
            return False

        def join(self) -> None:
            pass

    monkeypatch.setattr("neo_async.execution.journal.threading", SimpleNamespace(Thread=Thread))
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    for _ in range(40):
        await journal.begin("cancel", {}, order_number="1")
        await asyncio.sleep(0.01)
    assert moved == []
    await asyncio.sleep(1)
    assert moved == [40]
    for _ in range(80):
        await journal.begin("cancel", {}, order_number="1")
        await asyncio.sleep(0.01)
    assert moved == [40, pytest.approx(100, abs=6)]
    await journal.close()


async def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=path) as first:
            session = first.session
            second = client_of(exchange, journal=path)
            with pytest.raises(JournalFailed, match=f"written by process {os.getpid()}"):
                await second.resume(session)
        third = client_of(exchange, journal=path)
        await third.resume(session)
        await third.orders.place(*BUY, **CNC)
        await third.logout()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    path.write_text("no database at all, but long enough to be looked at" * 40)
    journal = Journal(path, ucc="ABC12")
    with pytest.raises(JournalFailed, match="cannot be opened"):
        journal.open()


@pytest.mark.parametrize(
    ("place", "reason"),
    [("nowhere/orders.db", "No such file or directory"), ("", "Is a directory")],
)
async def test_a_place_where_no_file_can_be_is_named_as_it_was_given(
    place: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / place
    with pytest.raises(JournalFailed) as caught:
        Journal(path, ucc="ABC12").open()
    assert str(caught.value) == f"the journal {path} cannot be opened: {reason}"
    with pytest.raises(JournalFailed, match=r"the journal \. cannot be opened: Is a directory"):
        Journal(".", ucc="ABC12").open()


# --- restart ----------------------------------------------------------------------------------


async def test_a_restart_registers_what_is_known_and_resolves_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    overrides: dict[str, Any] = {}
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: overrides.get(path), dropped=dropped) as endpoints,
    ):
        options: dict[str, Any] = {"journal": path, "endpoints": endpoints, "live_updates": False}
        async with client_of(exchange, **options) as first:
            known = await first.orders.place(*BUY, **CNC, tag="known")
            overrides.update({PLACE: BUSY, BOOK: BUSY})
            with pytest.raises(OutcomeUnknown):
                await first.orders.place(*BUY, **CNC, tag="lost", wait_for_outcome=False)
            dropped.add(PLACE)
            with pytest.raises(OutcomeUnknown):
                await first.orders.place(*BUY, **CNC, tag="gone", wait_for_outcome=False)
        assert [row["outcome"] for row in rows_of(path)] == ["accepted", "unknown", "unknown"]
        overrides.clear()
        dropped.clear()
        await asyncio.sleep(30)  # the next code
        second = client_of(exchange, **options)
        beginning = asyncio.create_task(second.login())
        early = asyncio.create_task(_place_as_soon_as_possible(second))
        await beginning
        assert len(exchange.market.ledger) == 2  # nothing new before that
        found = second.reconciliation
        assert {order.tag for order in found.orders} == {"known", "lost"}
        assert {order.number for order in found.orders} == {
            record.number for record in exchange.market.ledger
        }
        assert [
            (own_tag(one.intent.client_tag), one.outcome) for one in found.resolved_intents
        ] == [
            ("lost", Outcome.ACCEPTED),
            ("gone", Outcome.NOT_ACCEPTED),
        ]
        assert second._engine.cache.get(known.number) is not None
        await early
        assert len(exchange.market.ledger) == 3
        await second.logout()
        outcomes = [row["outcome"] for row in rows_of(path)]
        assert outcomes == ["accepted", "accepted", "not accepted", "accepted"]


async def _place_as_soon_as_possible(neo: Any) -> None:
    while not neo._session.is_open:  # noqa: ASYNC110 - a login has no event
        await asyncio.sleep(0.001)
    await neo.orders.place(*BUY, **CNC, tag="new")


async def test_an_intent_of_an_earlier_day_is_unresolved_at_once(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange:
        async with client_of(exchange, journal=path):
            pass
        with sqlite3.connect(path) as file:
            file.execute(
                "INSERT INTO intents (id, at_ns, ucc, action, client_tag, order_number, form) "
                "VALUES (1, 1, ?, 'place', 'old_x', '', '{}')",
                (exchange.credentials.ucc,),
            )
        file.close()
        await asyncio.sleep(30)  # the next code
        async with client_of(exchange, journal=path) as neo:
            (resolved_intent,) = neo.reconciliation.resolved_intents
            assert (resolved_intent.outcome, resolved_intent.order) == (Outcome.UNRESOLVED, None)
        assert rows_of(path)[0]["outcome"] == "lapsed"


# --- a file that cannot be written ----------------------------------------------------------------


async def test_a_placement_waits_for_a_lock_that_is_soon_given_back(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    with locked(journal.path):
        waiting = asyncio.create_task(journal.begin("place", {}, client_tag="t_1"))
        await asyncio.sleep(WRITE_TIMEOUT_SECONDS / 2)
        assert not waiting.done()
    assert await waiting == 1
    assert [row["client_tag"] for row in rows_of(journal.path)] == ["t_1"]
    await journal.close()


async def test_the_lock_of_another_program_never_holds_the_loop(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    ended = await journal.begin("place", {}, client_tag="t_1")
    with locked(journal.path):
        began = time.perf_counter()
        journal.end(ended, Outcome.ACCEPTED)
        journal.note("cancel", {}, order_number="1")
        journal.write_halt(Halted("enough", since=1e9), scope=CancelScope.ALL)
        for _ in range(4):
            with pytest.raises(JournalFailed, match="nothing was sent"):
                await journal.begin("place", {}, client_tag="t_2")
        assert asyncio.get_running_loop().time() >= 4 * WRITE_TIMEOUT_SECONDS
        assert (
            time.perf_counter() - began < WRITE_TIMEOUT_SECONDS
        )  # real time: nothing has waited in the loop
    await journal.close()


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.real_time("another SQLite connection holds a lock")
async def test_a_cancel_does_not_wait_for_the_journal_and_is_written_when_it_can_be(
    tmp_path: Path, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path / "orders.db", durability=durability)
    with locked(journal.path):
        cancel = journal.note("cancel", {"on": "7"}, order_number="7")
        journal.end(cancel, Outcome.ACCEPTED)
        await asyncio.sleep(2 * WRITE_TIMEOUT_SECONDS)
        assert rows_of(journal.path) == []
    await journal.close()
    (row,) = rows_of(journal.path)
    assert (row["id"], row["action"], row["outcome"]) == (cancel, "cancel", "accepted")
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.getMessage()[:24] for one in errors] == [
        "ABC12: cancel of order 7",
        "ABC12: intent 1: outcome",
    ]
    assert vars(errors[0])["order_number"] == "7"


async def test_a_cancel_is_in_the_file_at_the_end_of_the_turn(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    for number in "123":
        journal.note("cancel", {}, order_number=number)
    await asyncio.sleep(0)
    assert [row["order_number"] for row in rows_of(journal.path)] == ["1", "2", "3"]
    await journal.close()


async def test_a_cancel_without_an_open_journal_is_logged_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    assert journal.note("cancel", {}, order_number="7") == 0
    journal.open()
    first = await journal.begin("place", {}, client_tag="t_1")
    journal.end(0, Outcome.REJECTED)
    assert journal.note("cancel", {"bad": object()}, order_number="8") == 0
    await journal.close()
    assert [(row["id"], row["outcome"]) for row in rows_of(journal.path)] == [(first, None)]
    assert [one.getMessage()[:24] for one in caplog.records] == [
        "ABC12: cancel of order 7",
        "ABC12: cancel of order 8",
    ]


async def test_a_full_disk_stops_placements_and_loses_no_outcome(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path / "orders.db")
    placed = [await journal.begin("place", {}, client_tag=f"t_{n}") for n in range(40)]
    assert journal._file is not None
    (pages,) = journal._file.execute("PRAGMA page_count").fetchone()
    journal._file.execute(f"PRAGMA max_page_count = {pages}")
    for intent in placed:
        journal.end(intent, Outcome.REJECTED, reason="x" * 400)
    with pytest.raises(JournalFailed, match=r"full.*nothing was sent"):
        await journal.begin("place", {}, client_tag="late")
    await asyncio.sleep(30)
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert len(lines) == len(set(lines)) == 41  # each once, however often it was tried
    journal._file.execute("PRAGMA max_page_count = 1000000")
    await journal.begin("place", {}, client_tag="after")
    await journal.close()
    rows = rows_of(journal.path)
    assert [row["outcome"] for row in rows] == [*40 * ["rejected"], None]
    assert rows[-1]["client_tag"] == "after"


async def test_outcomes_that_were_dropped_are_found_open_by_the_next_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_async.execution.journal_writers.MAX_KEPT_OUTCOMES", 4)
    monkeypatch.setattr("neo_async.execution.journal.WRITES_BETWEEN_CHECKPOINTS", 5)
    journal = opened(tmp_path / "orders.db")
    placed = [await journal.begin("place", {}, client_tag=f"t_{n}") for n in range(6)]
    with locked(journal.path):
        for intent in placed:
            journal.end(intent, Outcome.ACCEPTED)
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    await journal.begin("place", {}, client_tag="t_6")
    await journal.close()
    journal = opened(tmp_path / "orders.db")
    assert [one.id for one in await journal.intents(0) if one.is_open] == [1, 2, 7]
    await journal.close()


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.real_time("another SQLite connection holds a lock")
async def test_a_placement_given_up_while_it_is_written_was_not_sent(
    tmp_path: Path, durability: Durability
) -> None:
    journal = opened(tmp_path / "orders.db", durability=durability)
    with locked(journal.path):
        waiting = asyncio.create_task(journal.begin("place", {}, client_tag="t_1"))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.sleep(0.1)
    await journal.close()
    assert [row["outcome"] for row in rows_of(journal.path)] == ["not sent"]


async def test_an_id_that_another_program_took_costs_one_placement_and_no_more(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path / "orders.db")
    first = await journal.begin("place", {}, client_tag="t_1")
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute(
            "INSERT INTO intents SELECT 2, at_ns, ucc, action, 'x', '', '{}', "
            "'lapsed', 0, '' FROM intents"
        )
    journal.end(first, Outcome.ACCEPTED)
    with pytest.raises(JournalFailed, match="UNIQUE"):
        await journal.begin("place", {}, client_tag="t_2")
    await journal.begin("place", {}, client_tag="t_3")
    await journal.close()
    assert [(row["client_tag"], row["outcome"]) for row in rows_of(journal.path)] == [
        ("t_1", "accepted"),
        ("x", "lapsed"),
        ("t_3", None),
    ]


async def test_half_a_surrogate_pair_is_written_as_it_would_be_escaped(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    intent = await journal.begin("place", {}, client_tag="t_1")
    journal.end(intent, Outcome.REJECTED, reason="fünds \ud800 low")
    with pytest.raises(JournalFailed, match="surrogates not allowed"):
        await journal.begin("place", {}, client_tag="t_\ud800")
    assert journal.note("cancel", {}, order_number="\ud800") == 3
    await journal.begin("place", {}, client_tag="t_4")
    await journal.close()
    assert [row["id"] for row in rows_of(journal.path)] == [1, 4]
    assert rows_of(journal.path)[0]["reason"] == "fünds \\ud800 low"


# --- the halt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", list(Durability))
async def test_a_halt_is_known_to_the_next_process_until_it_is_cleared(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path, durability=durability)
    assert journal.read_halt() is None
    journal.write_halt(Halted("day loss", since=1e9), scope=CancelScope.NONE)
    journal.write_halt(Halted("day loss", since=1e9), scope=CancelScope.ALL)
    await journal.close()
    other = Journal(path, ucc="XYZ99")
    other.open()
    assert other.read_halt() is None
    await other.close()
    journal = opened(path)
    found = journal.read_halt()
    assert found is not None
    assert (found[0].reason, found[0].since, found[1]) == ("day loss", 1e9, True)
    journal.clear_halt()
    assert journal.read_halt() is None
    await journal.close()
    journal = opened(path)
    assert journal.read_halt() is None
    await journal.close()


def halts_in(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT ucc, reason, since, cancels_open FROM halts").fetchall()


async def test_a_halt_is_in_the_file_when_the_call_returns(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    journal.write_halt(Halted("enough", since=1e9), scope=CancelScope.ALL)
    assert halts_in(journal.path) == [("ABC12", "enough", 1e9, 1)]
    await journal.close()


async def test_a_halt_is_written_before_all_that_a_lock_has_kept_waiting(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    with locked(journal.path):
        for number in range(1200):
            journal.note("cancel", {}, order_number=str(number))
        await asyncio.sleep(1)
        journal.write_halt(Halted("enough", since=1e9), scope=CancelScope.ALL)
    while not halts_in(journal.path):  # noqa: ASYNC110 - the file has no event
        await asyncio.sleep(0.001)
    assert len(rows_of(journal.path)) < 1200
    await asyncio.sleep(1)
    assert len(rows_of(journal.path)) == 1200
    await journal.close()


async def test_a_halt_before_the_opening_is_written_by_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    journal.write_halt(Halted("old", since=1e9), scope=CancelScope.NONE)
    await journal.close()
    journal = Journal(path, ucc="ABC12")
    journal.write_halt(Halted("new", since=2e9), scope=CancelScope.ALL)
    await journal.start()
    found = journal.read_halt()
    assert found is not None
    assert found[0].reason == "new"
    assert halts_in(path) == [("ABC12", "new", 2e9, 1)]
    await journal.close()


# --- what a login reads ---------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,
    ucc TEXT NOT NULL,
    action TEXT NOT NULL,
    client_tag TEXT NOT NULL,
    order_number TEXT NOT NULL,
    form TEXT NOT NULL,
    outcome TEXT,
    outcome_at_ns INTEGER,
    reason TEXT NOT NULL DEFAULT ''
)
"""


async def test_a_journal_of_version_1_is_taken_over_in_place(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(VERSION_1)
        file.execute("PRAGMA user_version = 1")
        file.executemany(
            "INSERT INTO intents VALUES (?, ?, 'ABC12', ?, ?, ?, '{}', ?, NULL, '')",
            [
                (1, 10, "place", "a", "", None),
                (2, 20, "place", "b", "11", "accepted"),
                (3, 30, "cancel", "", "11", "unknown"),
                (4, 40, "cancel", "", "11", "accepted"),
                (5, 50, "place", "c", "12", "accepted"),
                (6, 60, "place", "d", "", "not accepted"),
            ],
        )
    journal = Journal(path, ucc="ABC12")
    assert await journal.start()
    assert not await journal.start()
    assert await journal.intents(50) == [
        Intent(1, 10, "place", "a", "", "{}", None, ""),
        Intent(3, 30, "cancel", "", "11", "{}", Outcome.UNKNOWN, ""),
        Intent(5, 50, "place", "c", "12", "", Outcome.ACCEPTED, ""),
        Intent(6, 60, "place", "d", "", "", Outcome.NOT_ACCEPTED, ""),
    ]
    assert await journal.begin("place", {}, client_tag="e") == 7
    await journal.close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (3,)


OUTCOMES = [None, *Outcome]


@settings(deadline=None, max_examples=40)  # each example starts journals in threads
@given(
    runs=st.lists(
        st.lists(st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 20)), max_size=12), max_size=4
    )
)
def test_every_open_intent_is_found_at_every_start_however_often_there_was_one(
    runs: list[list[tuple[Outcome | None, int]]],
) -> None:
    """Of each run, intents with their first outcome, and which earlier one gets a final one."""
    expected: dict[int, Outcome | None] = {}

    async def run(path: Path, steps: list[tuple[Outcome | None, int]]) -> None:
        journal = opened(path)
        found = [one.id for one in await journal.intents(2**62) if one.is_open]
        assert found == [one for one, outcome in expected.items() if _is_open(outcome)]
        for outcome, earlier in steps:
            intent = await journal.begin("place", {})
            expected[intent] = outcome
            if outcome is not None:
                journal.end(intent, outcome)
            if earlier in expected:
                expected[earlier] = Outcome.UNRESOLVED
                journal.end(earlier, Outcome.UNRESOLVED)
        await journal.close()

    with TemporaryDirectory() as folder:
        for steps in [*runs, []]:
            asyncio.run(run(Path(folder, "orders.db"), steps))


def _is_open(outcome: Outcome | None) -> bool:
    return outcome is None or not outcome.is_final


async def test_a_login_reads_no_resolved_intent_of_long_ago(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    for _ in range(50):
        journal.end(await journal.begin("place", {}), Outcome.ACCEPTED)
    await journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        assert file.execute("SELECT ucc, id FROM settled").fetchall() == [("ABC12", 50)]
        file.execute("UPDATE intents SET outcome = 'never read' WHERE id < 40")
    journal = opened(path)
    assert await journal.intents(2**62) == []
    await journal.close()


async def test_a_cancel_of_this_process_is_not_resolved_by_its_login(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    journal.note("cancel", {}, order_number="1")
    await asyncio.sleep(0)
    assert await journal.intents(0) == []
    await journal.close()


async def test_the_file_stays_the_same_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    journal = opened(Path("orders.db"))
    await journal.begin("place", {}, client_tag="t_1")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(await journal.intents(0)) == 1
    await journal.close()
    assert os.listdir(tmp_path / "elsewhere") == []


async def test_a_start_given_up_holds_no_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    starting = asyncio.create_task(journal.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    first, second = await asyncio.gather(journal.start(), journal.start())
    assert (first, second) == (True, False)
    await journal.close()


# --- a file that is damaged, or of others ---------------------------------------------------------

ROW = "INSERT INTO intents VALUES (9, {}, 'ABC12', {}, 't', '', {}, {}, NULL, '')"
SPOILT = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON intents BEGIN DELETE FROM intents; END",
    "a view": "CREATE VIEW today AS SELECT * FROM intents",
    "a view in the place of a table": "DROP TABLE halts; CREATE VIEW halts AS SELECT 1",
    "a table of others": "CREATE TABLE notes (text)",
    "an index of others": "CREATE UNIQUE INDEX one ON intents (ucc)",
    "another column": "ALTER TABLE intents ADD COLUMN extra",
    "a table fewer columns": "DROP TABLE settled; CREATE TABLE settled (ucc)",
    "an unknown outcome": ROW.format(1, "'place'", "'{}'", "'perhaps'"),
    "an unknown action": ROW.format(1, "'steal'", "'{}'", "NULL"),
    "a time that is text": ROW.format("'noon'", "'place'", "'{}'", "NULL"),
    "a form that is no JSON": ROW.format(1, "'place'", "'{'", "NULL"),
    "a form of bytes": ROW.format(1, "'place'", "x'ff'", "NULL"),
    "text that is none": ROW.format(1, "'place'", "CAST(x'ff' AS TEXT)", "NULL"),
    "an id without end": "UPDATE intents SET id = 9223372036854775807",
    "a halt at no time": "INSERT INTO halts VALUES ('ABC12', 'r', 'noon', 1)",
    "a halt at the end of time": "INSERT INTO halts VALUES ('ABC12', 'r', 1e300, 1)",
    "a halt of bytes": "INSERT INTO halts VALUES ('ABC12', x'ff', 1e9, 1)",
    "settled what is not there": "INSERT OR REPLACE INTO settled VALUES ('ABC12', 77)",
    "settled a text": "INSERT OR REPLACE INTO settled VALUES ('ABC12', 'all')",
    "another version": "PRAGMA user_version = 4",
}


@pytest.mark.parametrize("sql", SPOILT.values(), ids=SPOILT.keys())
async def test_a_file_that_others_have_changed_is_refused_by_its_name(
    tmp_path: Path, sql: str
) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    await journal.begin("place", {}, client_tag="t_1")
    await journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(sql)
    journal = Journal(path, ucc="ABC12")
    with pytest.raises(JournalFailed) as caught:
        await _log_in(journal)
    await journal.close()
    assert f"the journal {path} " in str(caught.value)
    assert "move it away" in str(caught.value) or "give it another file" in str(caught.value)
    with closing(sqlite3.connect(path)) as file:  # nothing of theirs has run
        assert file.execute("SELECT count(*) FROM intents").fetchone()[0] >= 1


@pytest.mark.parametrize("seed", range(25))
async def test_random_bytes_end_in_journal_failed_or_do_no_harm(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    for number in range(60):
        journal.end(await journal.begin("place", {"n": "x" * 200}), Outcome.ACCEPTED)
        journal.write_halt(Halted(f"reason {number}", since=1e9), scope=CancelScope.ALL)
    await journal.close()
    dice = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 20, 400))):
        content[dice.randrange(len(content))] = dice.randrange(256)
    if dice.random() < 0.3:
        del content[dice.randrange(len(content)) :]
    path.write_bytes(content)
    journal = Journal(path, ucc="ABC12")
    failures = []
    for work in (_use(journal), journal.close()):
        try:
            await work
        except NeoError as error:
            failures.append(error)
    for failure in failures:
        assert isinstance(failure, JournalFailed)
        assert str(path) in str(failure)


async def _log_in(journal: Journal) -> None:
    await journal.start()
    await journal.intents(0)


async def _use(journal: Journal) -> None:
    await _log_in(journal)
    journal.read_halt()
    journal.end(await journal.begin("place", {}), Outcome.ACCEPTED)
    journal.note("cancel", {}, order_number="1")
    journal.clear_halt()


# --- the file's owner, and processes --------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and forks are those of POSIX")


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@posix
async def test_no_other_user_can_read_the_journal_from_its_first_moment(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        journal = opened(tmp_path / "orders.db")
        await journal.begin("place", {}, client_tag="t_1")
        await journal.intents(0)
        modes = modes_in(tmp_path)
        await journal.close()
    finally:
        os.umask(before)
    names = ("orders.db", "orders.db-lock", "orders.db-shm", "orders.db-wal")
    assert modes == dict.fromkeys(names, 0o600)


@posix
async def test_a_journal_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    await opened(tmp_path / "orders.db").close()
    (tmp_path / "orders.db").chmod(0o644)
    journal = opened(tmp_path / "orders.db")
    await journal.begin("place", {})
    assert set(modes_in(tmp_path).values()) == {0o600}
    await journal.close()


@posix
@pytest.mark.parametrize(
    "name", ["orders.db", "orders.db-lock", "orders.db-wal", "orders.db-shm", "orders.db-journal"]
)
@pytest.mark.parametrize("kind", ["link", "pipe", "open to all"])
async def test_what_is_not_a_file_of_the_user_alone_is_refused_and_left_alone(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / "others").write_text("theirs")
    if kind == "link":
        (tmp_path / name).symlink_to(tmp_path / "others")
    elif kind == "pipe":
        os.mkfifo(tmp_path / name, 0o600)
    else:
        (tmp_path / name).write_text("theirs")
        (tmp_path / name).chmod(0o666)
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    with pytest.raises(JournalFailed, match=f"cannot be opened: {name} (is|can)"):
        journal.open()
    assert (tmp_path / "others").read_text() == "theirs"


def _wait_for_work(pipe: Any) -> None:
    pipe.recv()


@posix
async def test_a_worker_that_outlives_its_bot_does_not_hold_the_lock(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    worker = fork.Process(target=_wait_for_work, args=(there,))
    worker.start()
    await journal.close()
    try:
        journal = opened(tmp_path / "orders.db")
        await journal.close()
    finally:
        here.send("end")
        worker.join()


@posix
def test_a_forked_process_has_no_share_in_the_journal_and_does_it_no_harm(tmp_path: Path) -> None:
    """In the middle of a transaction, and with an ordinary end of the forked process."""
    script = """
        import asyncio, gc, os, sys
        from pathlib import Path
        from neo_async import Durability, Halted, JournalFailed, Outcome
        from neo_async.execution.journal import Journal

        journal = Journal(sys.argv[1], ucc="ABC12", durability=Durability(sys.argv[2]))

        async def in_child():
            for call in (journal.begin("place", {}), journal.intents(0)):
                try:
                    await call
                except JournalFailed as error:
                    assert "forked off" in str(error), error
                else:
                    raise AssertionError("written by a forked process")
            assert journal.note("cancel", {}, order_number="1") == 0
            journal.end(1, Outcome.REJECTED)
            journal.write_halt(Halted("of the child", since=1e9), scope=CancelScope.ALL)
            assert not journal.is_open
            try:
                journal.open()
            except JournalFailed as error:
                assert f"process {os.getppid()}" in str(error), error
            await journal.close()

        async def bot():
            journal.open()
            first = await journal.begin("place", {}, client_tag="first")
            journal._file.execute("BEGIN IMMEDIATE")
            child = os.fork()
            if child == 0:
                return True
            journal._file.execute("ROLLBACK")
            journal.end(first, Outcome.ACCEPTED)
            await journal.begin("place", {}, client_tag="second")
            _, status = os.waitpid(child, 0)
            await journal.begin("place", {}, client_tag="third")
            await journal.close()
            assert status == 0, status

        loop = asyncio.new_event_loop()
        if loop.run_until_complete(bot()):
            loop.close = lambda: None  # it would take the parent's epoll along
            asyncio.run(in_child())
            gc.collect()
    """
    for durability in Durability:
        path = tmp_path / f"{durability}.db"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(path), durability],
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        assert [(row["client_tag"], row["outcome"]) for row in rows_of(path)] == [
            ("first", "accepted"),
            ("second", None),
            ("third", None),
        ]
        assert halts_in(path) == []
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_journal_that_is_deleted_or_replaced_is_logged_once_and_is_a_problem_of_health(
    tmp_path: Path, suffix: str, is_replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.db"

    def errors() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]

    async with exchange_of() as exchange, client_of(exchange, journal=path) as neo:
        assert neo._journal is not None
        await neo.orders.place(*BUY, **CNC)
        await asyncio.sleep(2)
        assert not neo._journal.is_lost
        lost = path.with_name(path.name + suffix)
        content = lost.read_bytes()
        aside = lost.rename(tmp_path / "aside")
        if is_replaced:
            lost.write_bytes(content)
        await asyncio.sleep(2)
        for _ in range(3):
            await neo.orders.place(*BUY, **CNC)
            await asyncio.sleep(2)
        (error,) = errors()
        assert error.partition(": ")[2].startswith(
            f"{lost} is not the file any more that was opened as the journal"
        )
        assert "moved, deleted or replaced" in " ".join(neo.health().problems)
        aside.rename(lost)
        await asyncio.sleep(2)
        assert "replaced" not in " ".join(neo.health().problems)


async def test_placements_are_found_by_the_numbers_of_their_orders(tmp_path: Path) -> None:
    journal = opened(tmp_path / "orders.db")
    for tag, number in (("a", "11"), ("b", "12"), ("c", "13")):
        intent = await journal.begin("place", {}, client_tag=tag)
        journal.end(intent, Outcome.ACCEPTED, order_number=number)
    await journal.close()
    journal = opened(tmp_path / "orders.db")
    found = await journal.placed({"13", "11", "' OR 1=1", "\ud800"}, 0)
    assert [(one.client_tag, one.order_number) for one in found] == [("a", "11"), ("c", "13")]
    assert await journal.placed({"11"}, 2**62) == []
    await journal.close()


async def test_placements_without_an_order_are_returned_since_a_time_of_their_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    journal.end(await journal.begin("place", {}, client_tag="a"), Outcome.REJECTED)
    intent = await journal.begin("place", {}, client_tag="b")
    journal.end(intent, Outcome.ACCEPTED, order_number="11")
    await journal.close()
    journal = opened(path)
    found = await journal.intents(2**62, without_order_since_ns=0)
    assert [one.client_tag for one in found] == ["a"]
    assert len(await journal.intents(0, without_order_since_ns=0)) == 2
    assert await journal.intents(2**62) == []
    await journal.close()
