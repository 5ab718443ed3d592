"""The file of a journal: opened, taken over from an older version, read, checkpointed and closed.

The file, its log and `<file>-lock` are private files of their owner (see `neo_async.system.files`).
Everything here waits for the disk, so the event loop has it done in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from neo_async.base.logs import Log
from neo_async.config import Durability
from neo_async.errors import JournalFailed
from neo_async.execution.journal_schema import (
    SELECT_ALL_PLANS,
    SELECT_OPEN_IDS,
    SELECT_PLANS,
    TABLES,
    VERSION,
    Halt,
    Intent,
    Row,
    Unreadable,
    Write,
    check_schema,
    intent_of,
    read_halt,
    read_ids,
)
from neo_async.system import files
from neo_async.system.file_lock import Held, hold, release

BUSY_TIMEOUT_SECONDS = 0.25
"""Time for which an opening, reading or checkpoint waits for the lock of another program."""
SLOW_READ_SECONDS = 1.0
"""Time from which on the opening and reading of a login is logged."""
PATH_CHECK_INTERVAL_SECONDS = 1.0
"""Time between two checks whether the path still leads to the open file."""

WHAT_TO_DO = (
    "repair it (sqlite3 FILE .recover), or move it away and look for the orders that it held in "
    "the broker's order book"
)

FAILURES = (sqlite3.Error, ValueError, OverflowError)
"""Exceptions that SQLite raises. Its words about a damaged file need not be text, and then they are
a UnicodeDecodeError."""


class OpenedFile(NamedTuple):
    """A journal that is locked and open, and what was read of it."""

    lock: int
    file: sqlite3.Connection
    last: int
    """The highest id."""
    resolved_up_to: int
    """The id up to which every intent of the account has a final outcome."""
    open_ids: Sequence[int]
    halt: Halt | None
    identities: Mapping[Path, tuple[int, int]]
    """Device and inode of the file and its log, by path."""


def open_file(
    path: Path, location: Path, *, ucc: str, durability: Durability, log: Log
) -> OpenedFile:
    """Lock and open the file at `location`, which the user named `path`, and read what a login
    needs of it. Raises JournalFailed."""
    began = time.monotonic()
    try:
        if location.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        lock = hold(_beside(location, "-lock"))
    except Held as held:
        raise JournalFailed(
            f"the journal {path} is being written by process {held}: one account's orders "
            "need one writer; give this client another file, or end that process"
        ) from None
    except (OSError, ValueError) as error:
        # Not all of the error: the file that it names is not the one that the user named.
        raise _not_opened(path, error) from error
    try:
        files.make_private(location)
        for suffix in ("-wal", "-shm", "-journal"):
            files.make_private(_beside(location, suffix), create=False)
        file = _connect(location)
        try:
            _migrate(file, path, durability)
            opened = _read(file, lock, location, ucc)
        except BaseException:
            file.close()
            raise
    except BaseException as error:
        release(lock)
        if isinstance(error, (OSError, *FAILURES, Unreadable)):
            raise _not_opened(path, error) from error
        raise
    took = time.monotonic() - began
    if took >= SLOW_READ_SECONDS:
        log.info("the journal %s of %d intents: opened in %.1f s", path, opened.last, took)
    return opened


def read_intents(
    path: Path,
    location: Path,
    select: Callable[[sqlite3.Connection], Iterator[Row]],
    log: Log,
) -> list[Intent]:
    """Return the intents of the rows that `select` gives, on a connection of its own. Raises
    JournalFailed for a file that cannot be read, or holds what no journal holds."""
    began = time.monotonic()
    try:
        with contextlib.closing(_connect(location)) as file:
            intents = [intent_of(row) for row in select(file)]
    except (*FAILURES, Unreadable) as error:
        raise JournalFailed(f"the journal {path} cannot be read ({error}): {WHAT_TO_DO}") from error
    took = time.monotonic() - began
    if took >= SLOW_READ_SECONDS:
        log.info("the journal %s: %d intents read in %.1f s", path, len(intents), took)
    return intents


def read_plans(path: Path, location: Path, ucc: str) -> list[str]:
    """Return the states of the account's plans that have not ended, oldest first, as JSON. Raises
    JournalFailed as `read_intents` does."""
    try:
        with contextlib.closing(_connect(location)) as file:
            plans = [state for (state,) in file.execute(SELECT_PLANS, (ucc,))]
            if not all(isinstance(state, str) for state in plans):
                raise Unreadable("a state in its table 'plans' is not text")
            return plans
    except (*FAILURES, Unreadable) as error:
        raise JournalFailed(f"the journal {path} cannot be read ({error}): {WHAT_TO_DO}") from error


def read_all_plans(path: Path) -> list[tuple[str, str]]:
    """Return account and state, JSON, of every plan in a journal, those that have ended included.

    The one written last comes last. Another process may be writing the journal: nothing is written
    or locked. Raises JournalFailed for a file that is no journal or cannot be read.
    """
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS)
        ) as file:
            file.execute("PRAGMA trusted_schema = OFF")
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_schema")}
            if "intents" not in tables:
                raise Unreadable("it is not a journal")
            # A journal of an earlier version has no plans.
            plans = [*file.execute(SELECT_ALL_PLANS)] if "plans" in tables else []
    except (OSError, *FAILURES, Unreadable) as error:
        raise JournalFailed(f"the journal {path} cannot be read: {error}") from error
    if not all(isinstance(text, str) for row in plans for text in row):
        raise JournalFailed(f"the journal {path} cannot be read: a plan in it is not text")
    return plans


def commit(file: sqlite3.Connection, writes: Sequence[Write]) -> None:
    """Commit all in one transaction: what a write costs is mostly its commit."""
    if len(writes) == 1:
        file.execute(*writes[0])
        return
    file.execute("BEGIN IMMEDIATE")
    try:
        for statement, row in writes:
            file.execute(statement, row)
        file.execute("COMMIT")
    except BaseException:  # an interrupt from the keyboard, too, must leave no open transaction
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def checkpoint(path: Path, log: Log) -> None:
    """Move the log into the file. Never raises; a failure is logged."""
    try:
        with contextlib.closing(_connect(path)) as file:
            file.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except FAILURES as error:
        log.warning("the log of the journal %s could not be moved into it: %s", path, error)


def close_file(file: sqlite3.Connection, last: Write | None) -> None:
    """Close the file after a last write, which moves its log into it."""
    with contextlib.suppress(*FAILURES):  # it only saves the next login some reading
        if last is not None:
            commit(file, [last])
    file.close()


class PathCheck:
    """Whether the path still leads to the open file and its log: what is written to a file that was
    moved, deleted or replaced ends with this process."""

    def __init__(self, identities: Mapping[Path, tuple[int, int]], log: Log) -> None:
        self._log = log
        self._identities = identities
        self._checked_at = -math.inf
        self.is_lost = False

    def check_if_due(self, now: float) -> None:
        """Check unless that was done within `PATH_CHECK_INTERVAL_SECONDS` of `now`, a time of the
        loop."""
        if now >= self._checked_at + PATH_CHECK_INTERVAL_SECONDS:
            self.check(now)

    def check(self, now: float) -> None:
        self._checked_at = now
        lost = [path for path, known in self._identities.items() if _identity(path) != known]
        if lost and not self.is_lost:
            self._log.error(
                "%s is not the file any more that was opened as the journal: it was moved, deleted "
                "or replaced, and what is written now ends with this process; put it back, or log "
                "out and in again to begin another journal",
                lost[0],
            )
        self.is_lost = bool(lost)


def _migrate(file: sqlite3.Connection, path: Path, durability: Durability) -> None:
    """Create the tables that are missing, and set how commits are made durable. Raises
    JournalFailed for another version, sqlite3.Error and Unreadable."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version not in range(VERSION + 1):
        raise JournalFailed(
            f"the journal {path} is of version {version}, this package writes "
            f"{VERSION}: give it another file"
        )
    check_schema(file)
    # Small pages: what a commit writes is mostly pages.
    file.execute("PRAGMA page_size = 2048")
    file.execute("PRAGMA journal_mode = WAL")
    # Without autocheckpoint no commit but those of POWER ever waits for the disk. A commit is
    # written to the log in any case, and so survives this process; NORMAL syncs the log before
    # a checkpoint, so that a loss of power takes the last orders, never the file.
    synchronous = "FULL" if durability is Durability.POWER else "NORMAL"
    file.execute(f"PRAGMA synchronous = {synchronous}")
    file.execute("PRAGMA wal_autocheckpoint = 0")
    if version != VERSION:
        creations: list[Write] = [(create, ()) for create in TABLES.values()]
        commit(file, [*creations, (f"PRAGMA user_version = {VERSION}", ())])


def _read(file: sqlite3.Connection, lock: int, location: Path, ucc: str) -> OpenedFile:
    """Read what a login needs of the file. Raises sqlite3.Error and Unreadable."""
    last, resolved_up_to = read_ids(file, ucc)
    open_ids = [one for (one,) in file.execute(SELECT_OPEN_IDS, (resolved_up_to, ucc))]
    halt = read_halt(file, ucc)
    # The loop waits for no lock of another program: what fails is tried again.
    file.execute("PRAGMA busy_timeout = 0")
    places = (location, _beside(location, "-wal"))
    identities = {each: identity for each in places if (identity := _identity(each))}
    return OpenedFile(lock, file, last, resolved_up_to, open_ids, halt, identities)


def _beside(location: Path, suffix: str) -> Path:
    return location.with_name(location.name + suffix)


def _not_opened(path: Path, error: Exception) -> JournalFailed:
    text = f"the journal {path} cannot be opened: "
    if isinstance(error, OSError):
        return JournalFailed(f"{text}{error.strerror}")
    if isinstance(error, sqlite3.OperationalError):  # locked, or no room
        return JournalFailed(f"{text}{error}")
    return JournalFailed(f"{text}{error}; {WHAT_TO_DO}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file that exists, whose schema is not trusted to hold anything but data."""
    file = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    file.execute("PRAGMA trusted_schema = OFF")
    return file
