"""Journal files of tests: opened, read beside the journal, and locked by another program."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from neo_async.execution.journal import Journal

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and forks are those of POSIX")


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


def halts_in(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT ucc, reason, since, cancels_open FROM halts").fetchall()


async def read_as_a_login_does(journal: Journal) -> None:
    await journal.start()
    await journal.intents(0)
