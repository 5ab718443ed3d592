"""The journal: what it holds at which time, who may write it, and what a restart reads of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
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
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import CancelScope
from neo_async.wire.tags import own_tag
from tests.clients import PLACE, client_of, exchange_of
from tests.execution.journals import halts_in, locked, opened, rows_of
from tests.fake_servers import CREDENTIALS, Reply, fault_proxy

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
BOOK = "/neo/quick/user/orders"
BUSY = Reply("busy", 503)


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


async def test_a_request_that_cannot_be_written_is_not_sent(tmp_path: Path) -> None:
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


async def test_the_log_is_moved_into_the_file_while_no_order_is_written(
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


async def test_a_cancel_without_an_open_journal_is_logged(
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
