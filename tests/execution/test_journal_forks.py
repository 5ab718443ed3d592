"""A process that is forked off the one that writes a journal."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    Durability,
)
from neo_async.execution.journal_forks import abandon_after_fork, keep_after_fork
from tests.execution.journals import halts_in, opened, posix, rows_of


def _wait_for_work(pipe: Any) -> None:
    pipe.send("started")
    pipe.recv()


@posix
async def test_a_forked_worker_that_outlives_its_parent_does_not_hold_the_lock(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path / "orders.db")
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    worker = fork.Process(target=_wait_for_work, args=(there,))
    worker.start()
    here.recv()
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
        from neo_async.execution.journal_schema import CancelScope

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


class OpenJournal:
    """Keeps whether it was abandoned."""

    def __init__(self) -> None:
        self.is_abandoned = False

    def abandon(self) -> None:
        self.is_abandoned = True


@posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_abandons_the_open_journals_and_its_parent_none() -> None:
    opened, closed = OpenJournal(), OpenJournal()
    for journal in (opened, closed):
        abandon_after_fork(journal)
    keep_after_fork(closed)
    try:
        child = os.fork()
        if child == 0:
            os._exit(10 * opened.is_abandoned + closed.is_abandoned)
        _, status = os.waitpid(child, 0)
    finally:
        keep_after_fork(opened)
    assert os.waitstatus_to_exitcode(status) == 10
    assert not opened.is_abandoned
    keep_after_fork(opened)  # closing twice is harmless
