"""When writes reach the file, together or alone, and what happens while it cannot be written."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    Durability,
    Halted,
    JournalFailed,
    Outcome,
)
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import (
    CLEAR_HALT,
    INSERT_INTENT,
    TABLES,
    UPDATE_OUTCOME,
    WRITE_HALT,
    CancelScope,
    Write,
)
from neo_async.execution.journal_writers import (
    CLOSE_TIMEOUT_SECONDS,
    MAX_WRITES_PER_COMMIT,
    OUTCOME_DELAY_SECONDS,
    WRITE_TIMEOUT_SECONDS,
    LoopWriter,
    ThreadWriter,
)
from tests.execution.journals import halts_in, locked, opened, rows_of


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


async def test_an_intent_that_waits_for_the_turn_is_written_although_a_later_one_does_not_wait(
    tmp_path: Path,
) -> None:
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


async def test_an_id_taken_by_another_program_fails_one_placement_and_no_other(
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


# --- the writers by themselves --------------------------------------------------------------------

LOG = logging.getLogger("neo_async.execution.journal")


def file_at(path: Path) -> sqlite3.Connection:
    """The tables of a journal in a file, without a wait for locks."""
    file = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    file.execute("PRAGMA journal_mode = WAL")
    for create in TABLES.values():
        file.execute(create)
    return file


def insert(number: int) -> Write:
    return INSERT_INTENT, (number, 1, "ABC12", "place", f"t_{number}", "", "{}")


def outcome(number: int) -> Write:
    return UPDATE_OUTCOME, ("accepted", 2, "", "", number)


def halt(reason: str) -> Write:
    return WRITE_HALT, ("ABC12", reason, 1e9, 1)


@pytest.mark.parametrize("kind", [LoopWriter, ThreadWriter])
@pytest.mark.real_time("one of the writers has a thread")
async def test_a_writer_that_is_closed_has_written_everything_in_the_order_of_the_calls(
    tmp_path: Path, kind: type[LoopWriter | ThreadWriter]
) -> None:
    path = tmp_path / "orders.db"
    loop = asyncio.get_running_loop()
    with closing(file_at(path)) as file:
        writer = kind(file, loop, path, LOG)
        assert writer.is_idle
        waiter = loop.create_future()
        writer.put(insert(1), waiter)
        writer.put(outcome(1))
        writer.put_soon(insert(2))
        writer.put_halt(halt("enough"))
        writer.put_halt((CLEAR_HALT, ("ABC12",)))
        writer.put_halt(halt("too much"))
        await waiter
        await writer.close()
        assert writer.is_idle
        assert writer.lost == set()
    assert [(row["id"], row["outcome"]) for row in rows_of(path)] == [(1, "accepted"), (2, None)]
    assert [reason for _, reason, _, _ in halts_in(path)] == ["too much"]


async def test_a_lone_write_is_committed_unless_others_wait_for_the_end_of_the_turn(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.db"
    loop = asyncio.get_running_loop()
    with closing(file_at(path)) as file:
        writer = LoopWriter(file, loop, path, LOG)
        assert writer.put_alone(insert(1))
        writer.put(outcome(1))  # no caller waits for it: it goes along
        assert writer.put_alone(insert(2))
        assert [row["outcome"] for row in rows_of(path)] == ["accepted", None]
        writer.put_soon(outcome(2))
        assert not writer.put_alone(insert(3))
        await writer.close()
    assert [row["outcome"] for row in rows_of(path)] == ["accepted", "accepted"]


async def test_a_lone_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with closing(file_at(path)) as file:
        writer = LoopWriter(file, asyncio.get_running_loop(), path, LOG)
        writer.put_alone(insert(1))
        writer.put(outcome(1))
        with locked(path):
            assert not writer.put_alone(insert(2))
        await writer.close()
    assert [(row["id"], row["outcome"]) for row in rows_of(path)] == [(1, "accepted")]


async def test_more_writes_than_one_commit_may_hold_are_spread_over_turns(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    count = 2 * MAX_WRITES_PER_COMMIT + 1
    with closing(file_at(path)) as file:
        commits: list[str] = []
        writer = LoopWriter(file, asyncio.get_running_loop(), path, LOG)
        file.set_trace_callback(lambda text: commits.append(text.split()[0]))
        for number in range(1, count + 1):
            writer.put_soon(insert(number))
        await asyncio.sleep(OUTCOME_DELAY_SECONDS)
        file.set_trace_callback(None)
        await writer.close()
    assert commits.count("INSERT") == count
    # The last of three is of one write, and needs no transaction.
    assert commits.count("COMMIT") == 2
    assert len(rows_of(path)) == count


async def test_a_close_in_vain_logs_each_missing_write_once_and_fails_its_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.db"
    loop = asyncio.get_running_loop()
    with closing(file_at(path)) as file, locked(path):
        writer = LoopWriter(file, loop, path, LOG)
        waiter = loop.create_future()
        writer.put(outcome(7))
        writer.put_halt(halt("enough"))
        await asyncio.sleep(1)
        writer.put(insert(8), waiter)
        began = loop.time()
        await writer.close()
        assert loop.time() - began == pytest.approx(CLOSE_TIMEOUT_SECONDS, abs=0.05)
        with pytest.raises(sqlite3.OperationalError):
            await waiter
        assert not writer.is_idle
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == len(set(errors)) == 2
    assert "intent 7: outcome (accepted) not in the journal" in caplog.text
    assert "place of tag 't_8': not in the journal" in caplog.text


async def test_an_abandoned_writer_writes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with closing(file_at(path)) as file:
        writer = LoopWriter(file, asyncio.get_running_loop(), path, LOG)
        writer.put_soon(insert(1))
        writer.put(outcome(1))
        writer.abandon()
        assert writer.is_idle
        await asyncio.sleep(1)
    assert rows_of(path) == []
