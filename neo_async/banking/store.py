"""The store of delivered credits: it turns the bank's at-least-once delivery into exactly-once.

A SQLite file in WAL mode with one row per credit, about 60 bytes each: the bank's reference, a
digest of all fields of the credit, its sequence, and whether the consumer is done with it. One
process at a time has it open, and only the file's owner can read it.

A credit is marked

* as being processed, before it is delivered;
* as done, when the consumer requests the next one (or acknowledges the batch).

A credit that is done is never delivered again, whatever the bank repeats. One that was being
processed when its process ended is delivered once more, with `may_be_repeated`: only the consumer's
own books show whether it was booked. No credit is ever lost. All this holds for any crash of the
process. A power failure may undo the latest marks; those credits are then delivered again,
unmarked, if their batch was not acknowledged yet.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from neo_async.errors import StoreFailed
from neo_async.system import files

P = ParamSpec("P")
T = TypeVar("T")

VERSION = 2
"""Version of the table, kept as the file's `user_version`. Version 1 identified credits by their
reference."""

_CREATE = """
CREATE TABLE credits (
    reference TEXT NOT NULL,
    mark BLOB NOT NULL,
    sequence INTEGER,
    done INTEGER NOT NULL,
    PRIMARY KEY (reference, mark)
) WITHOUT ROWID
"""
_FROM_VERSION_1 = (
    "ALTER TABLE credits RENAME TO credits_of_version_1",
    _CREATE,
    "INSERT INTO credits SELECT reference, x'', NULL, done FROM credits_of_version_1",
    "DROP TABLE credits_of_version_1",
)
_TAKE = "INSERT OR IGNORE INTO credits (reference, mark, sequence, done) VALUES (?, ?, ?, 0)"
_DONE = "UPDATE credits SET done = 1 WHERE reference = ? AND mark = ?"
LARGEST_SEQUENCE = 2**63 - 1
"""Largest whole number that SQLite holds."""

_BATCHES_BETWEEN_CHECKPOINTS = 20


class Key(NamedTuple):
    """The identity of a credit, by which a repetition is recognised."""

    reference: str
    mark: bytes
    """Digest of all fields of the credit; empty for credits from version 1 of the file."""
    sequence: int | None

    def is_new_beside(self, others: Collection[Key]) -> bool:
        """Return whether it is certainly none of the credits with the same reference."""
        return not others or (
            self.sequence is not None
            and all(other.sequence not in (None, self.sequence) for other in others)
        )


class CreditStore:
    """The SQLite file of delivered credits. `step` writes within some 20 µs on the event loop,
    because it never waits for the disk; the other methods use a thread. Every method raises
    StoreFailed when the file cannot be used."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: sqlite3.Connection | None = None
        self._batches = 0

    async def open(self) -> None:
        """Open the file. Raises StoreFailed when another process has it open, or it is not such a
        store."""
        if self._file is None:
            self._file = await _aside(self._connect)

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await _aside(file.close)

    async def known(self, references: Sequence[str]) -> dict[str, dict[Key, bool]]:
        """Return whether each credit that was delivered before under one of these references is
        done."""
        return await _aside(self._known, references) if references else {}

    def step(self, *, done: Key | None, taken: Key | None) -> None:
        """Mark one credit as done, and another as being processed."""
        file = self._opened()
        try:
            file.execute("BEGIN")
            if done is not None:
                file.execute(_DONE, done[:2])
            if taken is not None:
                file.execute(_TAKE, taken)
            file.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(file, error) from error

    async def take(self, keys: Iterable[Key]) -> None:
        """Mark a whole batch as being processed."""
        await _aside(self._write, _TAKE, list(keys))

    async def finish(self, keys: Iterable[Key]) -> None:
        """Mark a whole batch as done."""
        await _aside(self._write, _DONE, [key[:2] for key in keys])

    def __repr__(self) -> str:
        return f"<CreditStore {self.path}{'' if self._file else ', closed'}>"

    def _connect(self) -> sqlite3.Connection:
        try:
            # The files that SQLite creates beside it get the same mode.
            files.make_private(self.path)
            for suffix in ("-wal", "-shm", "-journal"):
                files.make_private(Path(f"{self.path}{suffix}"), create=False)
            file = sqlite3.connect(
                self.path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
        except OSError as error:
            raise StoreFailed(
                f"the store {self.path}: unable to open it: {error.strerror}"
            ) from error
        except (sqlite3.Error, ValueError) as error:
            raise StoreFailed(f"the store {self.path} cannot be opened: {error}") from error
        try:
            # A file from elsewhere is data: no code in its schema may run.
            file.execute("PRAGMA trusted_schema = OFF")
            # Locked until it is closed, which also makes WAL work without shared memory.
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("PRAGMA journal_mode = WAL")
            # A commit reaches the operating system at once. It reaches the disk at a checkpoint,
            # which runs outside the event loop.
            file.execute("PRAGMA synchronous = NORMAL")
            file.execute("PRAGMA wal_autocheckpoint = 0")
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version not in (0, 1, VERSION):
                raise StoreFailed(
                    f"the store {self.path} is of version {version}, this package writes "
                    f"{VERSION}: use another file"
                )
            held = file.execute("SELECT type, name FROM sqlite_master WHERE sql NOT NULL")
            if held.fetchall() != ([("table", "credits")] if version else []):
                raise StoreFailed(
                    f"the store {self.path} has tables that no store of credits has: use another "
                    "file"
                )
            if version != VERSION:
                file.execute("BEGIN IMMEDIATE")
                for statement in _FROM_VERSION_1 if version else (_CREATE,):
                    file.execute(statement)
                file.execute(f"PRAGMA user_version = {VERSION}")
                file.execute("COMMIT")
        except sqlite3.OperationalError as error:
            file.close()
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            why = "another process has it open" if busy else str(error)
            raise StoreFailed(f"the store {self.path} cannot be opened: {why}") from error
        except sqlite3.Error as error:
            file.close()
            raise StoreFailed(f"the store {self.path} cannot be opened: {error}") from error
        except StoreFailed:
            file.close()
            raise
        return file

    def _known(self, references: Sequence[str]) -> dict[str, dict[Key, bool]]:
        file = self._opened()
        places = ",".join("?" * len(references))
        try:
            rows = file.execute(
                "SELECT reference, mark, sequence, done FROM credits "
                f"WHERE reference IN ({places})",
                references,
            ).fetchall()
            self._batches += 1
            if self._batches % _BATCHES_BETWEEN_CHECKPOINTS == 0:
                file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise self._failed(file, error) from error
        known: dict[str, dict[Key, bool]] = {}
        for *key, done in rows:
            known.setdefault(key[0], {})[Key(*key)] = bool(done)
        return known

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        file = self._opened()
        try:
            file.execute("BEGIN")
            file.executemany(statement, rows)
            file.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(file, error) from error

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            raise StoreFailed(f"the store {self.path} is closed")
        return self._file

    def _failed(self, file: sqlite3.Connection, error: sqlite3.Error) -> StoreFailed:
        if file.in_transaction:
            file.execute("ROLLBACK")
        return StoreFailed(f"the store {self.path} cannot be used: {error}")


async def _aside(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run in a thread, and do not return before it has ended: a connection has one user at a
    time."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # no caller is left to get it
        raise
