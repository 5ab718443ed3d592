"""The journal: every order request before its first byte leaves, and what became of it.

A SQLite file in WAL mode with one table, which anybody may query while it is written:

    intents
        id             count from 1
        at_ns          Unix nanoseconds at which it was written, before it was sent
        ucc            the account
        action         place, modify or cancel (an exit of a cover or bracket order, too)
        client_tag     the mark of a placement; empty for the other actions
        order_number   of the order concerned; of a placement as soon as it is known
        form           what was to be sent: JSON by the wire's own names (it holds no secret)
        outcome        NULL while it is under way, or one of Outcome
        outcome_at_ns  when that was written
        reason         the broker's words or the failure, where there is something to say

What is left without an outcome by a crash is found out at the next login, before any new order.
`<file>-lock` beside it is held by the one process that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from neo_async.config import Durability
from neo_async.errors import Halted, JournalFailed
from neo_async.logs import Subject, tell

log = logging.getLogger(__name__)

VERSION = 1
"""Of the table; kept as the file's `user_version`."""

WRITES_BETWEEN_CHECKPOINTS = 2000
MOST_WRITES_BETWEEN_CHECKPOINTS = 50_000
"""About 100 MB of log: from there on it is moved into the file even while orders come."""
LATEST = 0.01
"""Seconds after which an outcome is written that no intent has followed."""
QUIET = 0.05
"""Seconds without a write after which nobody minds a checkpoint."""

BUSY = 0.25
"""Seconds for which somebody else's transaction is waited for. The event loop waits along."""

_CREATE = """
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
_CREATE_HALTS = (
    "CREATE TABLE IF NOT EXISTS halts "
    "(ucc TEXT PRIMARY KEY, since REAL, reason TEXT, cancels_open INTEGER)"
)
_BEGIN = (
    "INSERT INTO intents (id, at_ns, ucc, action, client_tag, order_number, form) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_END = (
    "UPDATE intents SET outcome = ?, outcome_at_ns = ?, reason = ?, "
    "order_number = coalesce(nullif(?, ''), order_number) WHERE id = ?"
)
_SELECT = (
    "SELECT id, at_ns, action, client_tag, order_number, form, outcome, reason FROM intents "
    "WHERE ucc = ? AND (at_ns >= ? OR outcome IS NULL OR outcome = 'unknown') ORDER BY id"
)
_SUBJECT = "SELECT action, client_tag, order_number FROM intents WHERE id = ?"

_form = msgspec.json.Encoder()

_Row = tuple[object, ...]
_Write = tuple[str, _Row]
_Queued = tuple[_Write, asyncio.Future[None] | None]


class Outcome(StrEnum):
    """What became of an order request."""

    ACCEPTED = "accepted"
    """The broker took it; so it has an order number."""
    REJECTED = "rejected"
    """The broker refused it."""
    NOT_SENT = "not sent"
    """No byte of it left."""
    UNKNOWN = "unknown"
    """Being found out."""
    NOT_ACCEPTED = "not accepted"
    """It was sent, and proved to have had no effect."""
    LAPSED = "lapsed"
    """It stays unknown: nothing proved it in time, or it is of an earlier day, and the order book
    is only of today."""

    @property
    def is_final(self) -> bool:
        return self is not Outcome.UNKNOWN


class Intent(msgspec.Struct, frozen=True):
    """One line of the journal."""

    id: int
    at_ns: int
    action: str
    client_tag: str
    order_number: str
    form: str
    outcome: Outcome | None
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to be found out."""
        return self.outcome is None or not self.outcome.is_final


class Journal:
    """One file, written by one process: `open` before use, `close` after."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ucc: str,
        durability: Durability = Durability.PROCESS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._ucc = ucc
        self._durability = Durability(durability)
        self._clock = clock
        self._lock: int | None = None
        self._file: sqlite3.Connection | None = None
        self._writer: _LoopWriter | _ThreadWriter | None = None
        self._last = 0
        self._under_way: set[int] = set()
        """Intents that were written, and have come to no end."""
        self._writes = self._moved = 0
        """Writes so far, and how many of them the last checkpoint moved."""
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._checkpoint: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self) -> None:
        """Raises JournalFailed when another process writes it, or it is no journal."""
        self._lock = _lock(self.path)
        try:
            self._file = self._connect()
        except sqlite3.Error as error:
            self._unlock()
            raise JournalFailed(f"the journal {self.path} cannot be opened: {error}") from error
        except JournalFailed:
            self._unlock()
            raise
        writer = _ThreadWriter if self._durability is Durability.POWER else _LoopWriter
        self._writer = writer(self._file, asyncio.get_running_loop())

    async def begin(
        self, action: str, form: object, *, client_tag: str = "", order_number: str = ""
    ) -> int:
        """Write an intent, and return its id when it is as durable as was asked for.

        Raises JournalFailed when it cannot be written: it must not be sent then.
        """
        self._last += 1
        intent = self._last
        text = _form.encode(form).decode()
        row = (intent, self._now(), self._ucc, action, client_tag, order_number, text)
        try:
            await self._written(intent, (_BEGIN, row))
        except sqlite3.Error as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be written ({error}): nothing was sent"
            ) from error
        self._under_way.add(intent)
        self._count()
        return intent

    def note(
        self, action: str, form: object, *, client_tag: str = "", order_number: str = ""
    ) -> int:
        """Write an intent without waiting for it, and return its id. Never raises: what cannot be
        written is logged as an error."""
        self._last += 1
        intent = self._last
        if self._writer is not None:
            text = _form.encode(form).decode()
            row = (intent, self._now(), self._ucc, action, client_tag, order_number, text)
            self._writer.put((_BEGIN, row))
            self._under_way.add(intent)
        return intent

    def write_halt(self, halted: Halted, *, cancels_open: bool) -> None:
        """Write that the account is halted. Never raises."""
        self._change_halt(
            "INSERT OR REPLACE INTO halts VALUES (?, ?, ?, ?)",
            (self._ucc, halted.since, halted.reason, cancels_open),
        )

    def clear_halt(self) -> None:
        """Write that the account is not halted any more. Never raises."""
        self._change_halt("DELETE FROM halts WHERE ucc = ?", (self._ucc,))

    def read_halt(self) -> tuple[Halted, bool] | None:
        """The halt that was written last and not cleared, and whether it cancels open orders."""
        if self._file is None:
            return None
        with contextlib.suppress(sqlite3.Error):
            self._file.execute(_CREATE_HALTS)
            row = self._file.execute(
                "SELECT reason, since, cancels_open FROM halts WHERE ucc = ?", (self._ucc,)
            ).fetchone()
            if row is not None:
                return Halted(row[0], since=row[1]), bool(row[2])
        return None

    def _change_halt(self, statement: str, row: tuple[object, ...]) -> None:
        if self._file is None:
            return
        try:
            self._file.execute("PRAGMA busy_timeout = 0")
            self._file.execute(_CREATE_HALTS)
            self._file.execute(statement, row)
        except sqlite3.Error as error:
            log.error("the journal %s lacks the halt: %s", self.path, error)
        finally:
            self._file.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")

    def end(
        self, intent: int, outcome: Outcome, *, order_number: str = "", reason: str = ""
    ) -> None:
        """Write what became of an intent: soon, since the next login finds it out again when it is
        lost."""
        if self._writer is None:
            return
        self._under_way.discard(intent)
        self._writer.put((_END, (outcome.value, self._now(), reason, order_number, intent)))
        self._count()

    def intents(self, since_ns: int) -> list[Intent]:
        """Those of the account since then, and older ones whose outcome is open; oldest first."""
        assert self._file is not None
        rows = self._file.execute(_SELECT, (self._ucc, since_ns)).fetchall()
        names = Intent.__struct_fields__
        return [
            msgspec.convert(dict(zip(names, row, strict=True)), Intent, strict=False)
            for row in rows
        ]

    async def close(self) -> None:
        """Write what is still to be written, and let others have the file."""
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        if self._checkpoint is not None:
            await asyncio.to_thread(self._checkpoint.join)
            self._checkpoint = None
        if self._file is not None:
            file, self._file = self._file, None
            await asyncio.to_thread(file.close)  # moves the log into the file
        self._unlock()

    @property
    def writes(self) -> int:
        """Intents and outcomes written so far."""
        return self._writes

    def __repr__(self) -> str:
        return f"<Journal {self.path} {self._durability}, {self._last} intents>"

    def _now(self) -> int:
        return int(self._clock() * 1e9)

    def _connect(self) -> sqlite3.Connection:
        file = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            # Small pages: what a commit writes is mostly pages.
            file.execute("PRAGMA page_size = 2048")
            file.execute("PRAGMA journal_mode = WAL")
            # Without autocheckpoint no commit but those of POWER ever waits for the disk. A commit
            # is written to the log in any case, and so survives this process; NORMAL syncs the log
            # before a checkpoint, so that a loss of power takes the last orders, never the file.
            synchronous = "FULL" if self._durability is Durability.POWER else "NORMAL"
            file.execute(f"PRAGMA synchronous = {synchronous}")
            file.execute("PRAGMA wal_autocheckpoint = 0")
            (version,) = file.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise JournalFailed(
                    f"the journal {self.path} is of version {version}, this package writes "
                    f"{VERSION}: give it another file"
                )
            file.execute(_CREATE)
            file.execute(f"PRAGMA user_version = {VERSION}")
            (self._last,) = file.execute("SELECT coalesce(max(id), 0) FROM intents").fetchone()
        except BaseException:
            file.close()
            raise
        return file

    async def _written(self, intent: int, write: _Write) -> None:
        if self._writer is None:
            raise sqlite3.ProgrammingError("it is closed")
        if not self._under_way and self._writer.put_alone(write):
            return
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer.put(write, written)
        try:
            await written
        except asyncio.CancelledError:
            self.end(intent, Outcome.NOT_SENT, reason="cancelled")
            raise

    def _count(self) -> None:
        """One more write. Enough of them are moved from the log into the file, beside the loop and
        when no order is near: that waits for the disk."""
        self._writes += 1
        is_due = self._writes - self._moved >= WRITES_BETWEEN_CHECKPOINTS
        if is_due and self._checkpoint_timer is None:
            self._look_for_quiet()

    def _look_for_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        self._checkpoint_timer = loop.call_later(QUIET, self._check_quiet, self._writes)

    def _check_quiet(self, writes: int) -> None:
        self._checkpoint_timer = None
        is_busy = self._checkpoint is not None and self._checkpoint.is_alive()
        is_quiet = writes == self._writes
        if is_busy or not (
            is_quiet or self._writes - self._moved >= MOST_WRITES_BETWEEN_CHECKPOINTS
        ):
            self._look_for_quiet()
            return
        self._moved = self._writes
        self._checkpoint = threading.Thread(
            target=_checkpoint, args=(self.path,), name="journal checkpoint"
        )
        self._checkpoint.start()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _LoopWriter:
    """Commits a lone intent at once, and those that come while others are under way together at
    the end of the loop's turn. Outcomes, which nobody waits for, go with the next commit."""

    def __init__(self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._queue: list[_Queued] = []
        self._turn: asyncio.Handle | None = None
        self._latest: asyncio.TimerHandle | None = None
        """When outcomes are written that no intent has followed."""
        self._has_failed = False

    def put(self, write: _Write, written: asyncio.Future[None] | None = None) -> None:
        self._queue.append((write, written))
        if written is None:
            if self._latest is None:
                self._latest = self._loop.call_later(LATEST, self._write_latest)
        elif self._turn is None:
            self._turn = self._loop.call_soon(self._end_turn)

    def put_alone(self, write: _Write) -> bool:
        """Commit it at once, unless others wait for the end of the turn, or the last commit has
        failed: each that fails holds up the loop. Raises sqlite3.Error."""
        if self._turn is not None or self._has_failed:
            return False
        self._queue.append((write, None))
        error = self._commit()
        if error is not None:
            self._queue.pop()
            raise error
        return True

    async def close(self) -> None:
        for handle in (self._turn, self._latest):
            if handle is not None:
                handle.cancel()
        self._write()

    def _end_turn(self) -> None:
        self._turn = None
        self._write()

    def _write_latest(self) -> None:
        self._latest = None
        self._write()

    def _write(self) -> None:
        if self._queue:
            waiters = [written for _, written in self._queue if written is not None]
            _announce(waiters, self._commit())

    def _commit(self) -> sqlite3.Error | None:
        """What nobody waits for stays for the next commit when this one fails."""
        writes = [write for write, _ in self._queue]
        try:
            _commit(self._file, writes)
        except sqlite3.Error as error:
            _tell_of_lost(self._file, writes, error)
            self._queue = [one for one in self._queue if one[1] is None]
            self._has_failed = True
            return error
        self._queue = []
        self._has_failed = False
        return None


class _ThreadWriter:
    """A thread that commits all that has come while the disk took the commit before."""

    def __init__(self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        # A daemon: a program that ends without closing must not hang on it.
        self._thread = threading.Thread(target=self._run, name="journal writer", daemon=True)
        self._thread.start()

    def put(self, write: _Write, written: asyncio.Future[None] | None = None) -> None:
        self._queue.put((write, written))

    def put_alone(self, write: _Write) -> bool:
        return False  # none waits for the disk alone

    async def close(self) -> None:
        """Ends when everything is written."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            queued = [first]
            is_last = False
            with contextlib.suppress(queue.Empty):
                while True:
                    one = self._queue.get_nowait()
                    if one is None:
                        is_last = True
                        break
                    queued.append(one)
            error: sqlite3.Error | None = None
            try:
                _commit(self._file, [write for write, _ in queued])
            except sqlite3.Error as failure:
                _tell_of_lost(self._file, [write for write, _ in queued], failure)
                error = failure
            waiters = [written for _, written in queued if written is not None]
            # A loop that is closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_announce, waiters, error)
            if is_last:
                return


def _commit(file: sqlite3.Connection, writes: Sequence[_Write]) -> None:
    """All in one transaction: what a write costs is mostly its commit."""
    if len(writes) == 1:
        file.execute(*writes[0])
        return
    file.execute("BEGIN IMMEDIATE")
    try:
        for statement, row in writes:
            file.execute(statement, row)
        file.execute("COMMIT")
    except sqlite3.Error:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _tell_of_lost(
    file: sqlite3.Connection | None, writes: Sequence[_Write], error: sqlite3.Error
) -> None:
    for statement, row in writes:
        if statement is _BEGIN:
            _, _, _, action, client_tag, order_number, _ = row
            subject = Subject(str(action), str(client_tag), str(order_number))
            tell(log, logging.ERROR, subject, "the journal cannot be written: %s", error)
        else:
            outcome, _, _, _, intent = row
            subject = _subject_of(file, intent)
            tell(
                log,
                logging.ERROR,
                subject,
                "the journal lacks its outcome (%s): %s",
                outcome,
                error,
            )


def _subject_of(file: sqlite3.Connection | None, intent: object) -> Subject:
    """As the journal itself tells it: what cannot be written can often be read."""
    with contextlib.suppress(sqlite3.Error):
        found = file.execute(_SUBJECT, (intent,)).fetchone() if file is not None else None
        if found is not None:
            return Subject(*found)
    return Subject(f"intent {intent}")


def _announce(waiters: list[asyncio.Future[None]], error: sqlite3.Error | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


def _checkpoint(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY)) as file:
            file.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        log.warning("the journal's log could not be moved into its file: %s", error)


def _lock(path: Path) -> int:
    """Hold the file beside the journal for as long as this process lives, or until it is closed.

    Raises JournalFailed when another process holds it.
    """
    if path.is_dir():
        raise JournalFailed(f"the journal {path} cannot be opened: {os.strerror(errno.EISDIR)}")
    beside = path.with_name(path.name + "-lock")
    try:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        # Not all of the error: the file that it names is not the one that was asked for.
        raise JournalFailed(f"the journal {path} cannot be opened: {error.strerror}") from error
    try:
        _take(lock)
    except OSError:
        owner = os.read(lock, 20).decode(errors="replace").strip() or "another one"
        os.close(lock)
        raise JournalFailed(
            f"the journal {path} is being written by process {owner}: one account's orders need "
            "one writer; give this client another file, or end that process"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


if sys.platform == "win32":
    import msvcrt

    def _take(lock: int) -> None:
        # Behind what is written: Windows forbids others even to read what is locked.
        os.lseek(lock, 1 << 20, os.SEEK_SET)
        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        os.lseek(lock, 0, os.SEEK_SET)

else:
    import fcntl

    def _take(lock: int) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def today_ns(now: float) -> int:
    """Unix nanoseconds of the last midnight in India, by a clock that shows `now`."""
    shifted = int(now) + 19_800
    return (shifted - shifted % 86_400 - 19_800) * 1_000_000_000
