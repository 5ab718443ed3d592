"""The file of a journal: who may open it, who may read it, and what is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    Durability,
    Halted,
    JournalFailed,
    Outcome,
    Product,
    Segment,
    Side,
)
from neo_async.errors import NeoError
from neo_async.execution import journal_file
from neo_async.execution.journal import Journal
from neo_async.execution.journal_file import (
    PATH_CHECK_INTERVAL_SECONDS,
    PathCheck,
    checkpoint,
    close_file,
    commit,
    open_file,
    read_intents,
)
from neo_async.execution.journal_schema import (
    INSERT_INTENT,
    SELECT_LAST_ID,
    WRITE_SETTLED,
    CancelScope,
    Intent,
    Write,
)
from neo_async.system.file_lock import release
from tests.clients import client_of, exchange_of
from tests.execution.journals import opened, posix, read_as_a_login_does

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


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
async def test_a_path_where_no_file_can_be_is_named_as_it_was_given(
    place: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / place
    with pytest.raises(JournalFailed) as caught:
        Journal(path, ucc="ABC12").open()
    assert str(caught.value) == f"the journal {path} cannot be opened: {reason}"
    with pytest.raises(JournalFailed, match=r"the journal \. cannot be opened: Is a directory"):
        Journal(".", ucc="ABC12").open()


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


@pytest.mark.parametrize("seed", range(25))
async def test_random_bytes_end_in_journal_failed_or_do_no_harm(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    for number in range(60):
        journal.end(await journal.begin("place", {"n": "x" * 200}), Outcome.ACCEPTED)
        journal.write_halt(Halted(f"reason {number}", since=1e9), scope=CancelScope.ALL)
    await journal.close()
    source = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(source.choice((1, 20, 400))):
        content[source.randrange(len(content))] = source.randrange(256)
    if source.random() < 0.3:
        del content[source.randrange(len(content)) :]
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


async def _use(journal: Journal) -> None:
    await read_as_a_login_does(journal)
    journal.read_halt()
    journal.end(await journal.begin("place", {}), Outcome.ACCEPTED)
    journal.note("cancel", {}, order_number="1")
    journal.clear_halt()


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
async def test_a_file_that_is_not_private_to_the_user_is_refused_and_left_alone(
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


# --- the file by itself ---------------------------------------------------------------------------

LOG = logging.getLogger("neo_async.execution.journal")


def open_at(path: Path, **settings: Any) -> journal_file.OpenedFile:
    known: dict[str, Any] = {"ucc": "ABC12", "durability": Durability.PROCESS, **settings}
    return open_file(path, path, log=LOG, **known)


def close(opened: journal_file.OpenedFile, last: Write | None = None) -> None:
    close_file(opened.file, last)
    release(opened.lock)


def insert(number: int) -> Write:
    return INSERT_INTENT, (number, number, "ABC12", "place", f"t_{number}", "", "{}")


@given(st.lists(st.integers(1, 6), max_size=8))
def test_the_writes_of_a_commit_are_in_the_file_all_or_none(numbers: list[int]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        file.execute(journal_file.TABLES["intents"])
        is_valid = len(set(numbers)) == len(numbers)
        if is_valid:
            commit(file, [insert(number) for number in numbers])
        else:
            with pytest.raises(sqlite3.IntegrityError):
                commit(file, [insert(number) for number in numbers])
        ids = [number for (number,) in file.execute("SELECT id FROM intents ORDER BY id")]
        assert ids == (sorted(numbers) if is_valid else [])
        assert not file.in_transaction


def test_an_opened_file_is_read_for_what_a_login_needs(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    opened = open_at(path)
    assert (opened.last, opened.resolved_up_to, [*opened.open_ids], opened.halt) == (0, 0, [], None)
    commit(opened.file, [insert(number) for number in (1, 2, 3)])
    close(opened, (WRITE_SETTLED, ("ABC12", 1)))
    opened = open_at(path)
    assert (opened.last, opened.resolved_up_to, [*opened.open_ids]) == (3, 1, [2, 3])
    close(opened)
    other = open_at(path, ucc="XYZ99")
    assert (other.last, other.resolved_up_to, [*other.open_ids]) == (3, 0, [])
    close(other)


@pytest.mark.parametrize("durability", list(Durability))
def test_only_commits_that_survive_a_loss_of_power_wait_for_the_disk(
    tmp_path: Path, durability: Durability
) -> None:
    opened = open_at(tmp_path / "orders.db", durability=durability)
    pragmas = [
        opened.file.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "busy_timeout")
    ]
    full, normal = 2, 1
    assert pragmas == ["wal", full if durability is Durability.POWER else normal, 0, 0]
    close(opened)


def test_a_file_of_another_version_is_refused_and_its_lock_released(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    close(open_at(path))
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 4")
    for _ in range(2):
        with pytest.raises(JournalFailed, match="is of version 4, this package writes 3"):
            open_at(path)


def test_a_checkpoint_moves_the_log_into_the_file_and_logs_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.db"
    opened = open_at(path)
    commit(opened.file, [insert(1)])
    size = path.stat().st_size
    checkpoint(path, LOG)
    assert path.stat().st_size > size
    assert not caplog.text
    checkpoint(tmp_path / "missing.db", LOG)
    assert f"{tmp_path / 'missing.db'} could not be moved into it" in caplog.text
    close(opened)


def test_a_last_write_that_fails_does_not_keep_the_file_from_being_closed(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    opened = open_at(path)
    commit(opened.file, [insert(1)])
    close(opened, insert(1))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened.file.execute(SELECT_LAST_ID)
    close(open_at(path))


def test_intents_that_cannot_be_read_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    close(open_at(path))
    with pytest.raises(JournalFailed, match=r"orders.db cannot be read \(no such table: absent\)"):
        read_intents(path, path, lambda file: file.execute("SELECT * FROM absent"), LOG)


def test_the_path_is_checked_at_most_once_per_interval_and_a_loss_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.db"
    path.write_text("")
    found = path.stat()
    check = PathCheck({path: (found.st_dev, found.st_ino)}, LOG)
    check.check_if_due(10.0)
    path.rename(tmp_path / "aside")
    check.check_if_due(10.0 + PATH_CHECK_INTERVAL_SECONDS / 2)
    assert not check.is_lost
    for turn in range(1, 4):
        check.check_if_due(10.0 + turn * PATH_CHECK_INTERVAL_SECONDS)
        assert check.is_lost
    assert caplog.text.count("is not the file any more that was opened as the journal") == 1
    (tmp_path / "aside").rename(path)
    check.check(20.0)
    assert not check.is_lost
