"""The journal: what it holds when, who may write it, and what a restart makes of it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    Durability,
    JournalFailed,
    Outcome,
    OutcomeUnknown,
    Product,
    Rejected,
    Segment,
    Side,
)
from neo_async.journal import LATEST, Journal
from neo_async.wire.tags import own_tag
from tests.clients import PLACE, client_of, exchange_of
from tests.far_ends import CREDENTIALS, Reply, meddler
from tests.virtual_time import in_virtual_time

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
        hand_over, seen = neo._session.order, []

        def looking(*arguments: Any) -> Any:
            seen.append([row["client_tag"] for row in rows_of(path)])
            return hand_over(*arguments)

        neo._session.order = looking  # type: ignore[method-assign]
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


@in_virtual_time
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
    await asyncio.sleep(LATEST)
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


async def test_nobody_who_waits_is_forgotten_by_one_who_does_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    first = await journal.begin("cancel", {}, order_number="1")
    waiting = asyncio.create_task(journal.begin("cancel", {}, order_number="2"))
    await asyncio.sleep(0)
    journal.end(first, Outcome.ACCEPTED)  # now none is under way
    last = await journal.begin("cancel", {}, order_number="3")
    assert {await asyncio.wait_for(waiting, 1), last} == {2, 3}
    await journal.close()


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
async def test_nobody_who_was_told_that_nothing_was_written_is_in_the_file(
    tmp_path: Path, before: int
) -> None:
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


@in_virtual_time
async def test_an_outcome_that_cannot_be_written_waits_for_the_next_write(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "orders.db", ucc="ABC12")
    journal.open()
    intent = await journal.begin("cancel", {}, order_number="1")
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.end(intent, Outcome.ACCEPTED)
        await asyncio.sleep(LATEST)
        other.execute("ROLLBACK")
    other.close()
    await journal.close()
    assert [row["outcome"] for row in rows_of(journal.path)] == ["accepted"]


@in_virtual_time
async def test_the_log_is_moved_into_the_file_when_no_order_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_async.journal.WRITES_BETWEEN_CHECKPOINTS", 20)
    monkeypatch.setattr("neo_async.journal.MOST_WRITES_BETWEEN_CHECKPOINTS", 60)
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

    monkeypatch.setattr("neo_async.journal.threading", SimpleNamespace(Thread=Thread))
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


async def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
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


@in_virtual_time
async def test_a_restart_adopts_what_is_known_and_finds_out_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    spoilt: dict[str, Any] = {}
    swallowed: set[str] = set()
    async with (
        exchange_of() as exchange,
        meddler(exchange, lambda path, *_: spoilt.get(path), swallowed=swallowed) as endpoints,
    ):
        options: dict[str, Any] = {"journal": path, "endpoints": endpoints, "live_orders": False}
        async with client_of(exchange, **options) as first:
            known = await first.orders.place(*BUY, **CNC, tag="known")
            spoilt.update({PLACE: BUSY, BOOK: BUSY})
            with pytest.raises(OutcomeUnknown):
                await first.orders.place(*BUY, **CNC, tag="lost", settle=False)
            swallowed.add(PLACE)
            with pytest.raises(OutcomeUnknown):
                await first.orders.place(*BUY, **CNC, tag="gone", settle=False)
        assert [row["outcome"] for row in rows_of(path)] == ["accepted", "unknown", "unknown"]
        spoilt.clear()
        swallowed.clear()
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
        assert [(own_tag(one.intent.client_tag), one.outcome) for one in found.findings] == [
            ("lost", Outcome.ACCEPTED),
            ("gone", Outcome.NOT_ACCEPTED),
        ]
        assert second.orders._tracker.get(known.number) is not None
        await early
        assert len(exchange.market.ledger) == 3
        await second.logout()
        outcomes = [row["outcome"] for row in rows_of(path)]
        assert outcomes == ["accepted", "accepted", "not accepted", "accepted"]


async def _place_as_soon_as_possible(neo: Any) -> None:
    while not neo._session.is_open:  # noqa: ASYNC110 - a login has no event
        await asyncio.sleep(0.001)
    await neo.orders.place(*BUY, **CNC, tag="new")


@in_virtual_time
async def test_what_is_of_an_earlier_day_lapses_at_once(tmp_path: Path) -> None:
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
            (finding,) = neo.reconciliation.findings
            assert (finding.outcome, finding.order) == (Outcome.LAPSED, None)
        assert rows_of(path)[0]["outcome"] == "lapsed"
