"""Which credits were handed over already: what makes exactly once of the bank's at least once.

A SQLite file in WAL mode with one row a credit, about 50 bytes each: the bank's reference, and
whether its consumer is done with it. One process at a time has it open.

What is written, when:

* before a credit is handed over, that it is in the consumer's hands;
* when the consumer comes back for the next one (or acknowledges the batch), that it is done.

A credit that is done never comes again, whatever the bank repeats. One that was in somebody's hands
when its process ended comes once more, with `may_be_repeated`: nobody but the consumer's own books
can tell whether it was booked. Nothing is ever lost. All that holds for any death of the process; a
power failure may take back the marks of the last moments, and those credits come again unmarked if
their batch was not acknowledged yet.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from neo_async.errors import StoreFailed

P = ParamSpec("P")
T = TypeVar("T")

VERSION = 1
"""Of the table; kept as the file's `user_version`."""

_CREATE = """
CREATE TABLE IF NOT EXISTS credits (
    reference TEXT PRIMARY KEY,
    done INTEGER NOT NULL
) WITHOUT ROWID
"""
_TAKE = "INSERT OR IGNORE INTO credits (reference, done) VALUES (?, 0)"
_DONE = "UPDATE credits SET done = 1 WHERE reference = ?"

_BATCHES_BETWEEN_CHECKPOINTS = 20


class CreditStore:
    """One file. `step` writes within some 20 µs, on the loop, for it never waits for the disk;
    the rest goes by a thread. Every method raises StoreFailed when the file cannot be used."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: sqlite3.Connection | None = None
        self._batches = 0

    async def open(self) -> None:
        """Raises StoreFailed when another process has it open, or it is no such store."""
        if self._file is None:
            self._file = await _aside(self._connect)

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await _aside(file.close)

    async def known(self, references: Sequence[str]) -> dict[str, bool]:
        """Of those that were handed over before, whether their consumer is done with them."""
        return await _aside(self._known, references)

    def step(self, *, done: str | None, taken: str | None) -> None:
        """The consumer is done with one credit and takes another."""
        file = self._opened()
        try:
            file.execute("BEGIN")
            if done is not None:
                file.execute(_DONE, (done,))
            if taken is not None:
                file.execute(_TAKE, (taken,))
            file.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(file, error) from error

    async def take(self, references: Iterable[str]) -> None:
        """The consumer takes a whole batch."""
        await _aside(self._write, _TAKE, list(references))

    async def finish(self, references: Iterable[str]) -> None:
        """The consumer is done with a whole batch."""
        await _aside(self._write, _DONE, list(references))

    def __repr__(self) -> str:
        return f"<CreditStore {self.path}{'' if self._file else ', closed'}>"

    def _connect(self) -> sqlite3.Connection:
        try:
            file = sqlite3.connect(
                self.path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreFailed(f"the store {self.path} cannot be opened: {error}") from error
        try:
            # Ours until it is closed; that also spares WAL its shared memory.
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("PRAGMA journal_mode = WAL")
            # Commits are with the system at once and with the disk at a checkpoint, which is made
            # beside the loop.
            file.execute("PRAGMA synchronous = NORMAL")
            file.execute("PRAGMA wal_autocheckpoint = 0")
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise StoreFailed(
                    f"the store {self.path} is of version {version}, this package writes "
                    f"{VERSION}: give it another file"
                )
            file.execute(_CREATE)
            file.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.OperationalError as error:
            file.close()
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            why = "somebody else has it open" if busy else str(error)
            raise StoreFailed(f"the store {self.path} cannot be opened: {why}") from error
        except sqlite3.Error as error:
            file.close()
            raise StoreFailed(f"the store {self.path} cannot be opened: {error}") from error
        except StoreFailed:
            file.close()
            raise
        return file

    def _known(self, references: Sequence[str]) -> dict[str, bool]:
        file = self._opened()
        places = ",".join("?" * len(references))
        try:
            rows = file.execute(
                f"SELECT reference, done FROM credits WHERE reference IN ({places})",
                references,
            ).fetchall()
            self._batches += 1
            if self._batches % _BATCHES_BETWEEN_CHECKPOINTS == 0:
                file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise self._failed(file, error) from error
        return {reference: bool(done) for reference, done in rows}

    def _write(self, statement: str, references: list[str]) -> None:
        file = self._opened()
        try:
            file.execute("BEGIN")
            file.executemany(statement, [(reference,) for reference in references])
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
    """In a thread, and not left before that has ended, for a connection has one user at a time."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody is there to hear of it
        raise
