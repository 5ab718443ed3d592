"""The journal: every order request before its first byte leaves, and its outcome.

A placement or a change is written before it is sent. A cancel does not wait for the journal: it is
written at the same time, or as soon as the file can be written.

The journal is a SQLite file in WAL mode, version 2, which other programs may query while it is
written. It has these tables and nothing else:

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
    halts
        ucc            the account, which has a row while its orders are halted
        reason         why they were halted
        since          Unix seconds of the halt
        cancels_open   1 when the halt was to cancel the open orders, else 0
    settled
        ucc            the account
        id             every intent of the account up to this one has a final outcome

What is left without an outcome by a crash is found out at the next login, before any new order.
A login does not read the whole table: `settled` says where the open intents begin, and since ids
rise with the time, the recent ones are found by bisection. An index would do the same, and cost
every order about 10 µs. A file of version 1, which had only `intents`, is taken over in place.

The file, its log and `<file>-lock` are private files of their owner (see `neo_async.files`). The
lock is held by the one process that writes. A process that was forked off it has no share in the
journal: there, every call fails with JournalFailed, and the lock is not held.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import os
import queue
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from neo_async import files, logs
from neo_async.config import Durability
from neo_async.errors import Halted, JournalFailed
from neo_async.logs import Subject, log_order
from neo_async.model.india import midnight

log = logging.getLogger(logs.JOURNAL)

VERSION = 2
"""Of the tables; kept as the file's `user_version`."""

WRITES_BETWEEN_CHECKPOINTS = 2000
MOST_WRITES_BETWEEN_CHECKPOINTS = 50_000
"""About 100 MB of log: from there on it is moved into the file even while orders come."""
LATEST = 0.01
"""Seconds after which an outcome is written that no intent has followed."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether the path still leads to the open file."""
QUIET = 0.05
"""Seconds without a write after which a checkpoint delays no order."""

BUSY = 0.25
"""Seconds for which an opening, reading or checkpoint waits for the lock of another program."""
PATIENCE = 0.25
"""Seconds from the first failed write until an intent is given up: it is not sent then. An outcome
that cannot be written for so long is logged, and kept."""
RETRY = 0.01
"""Seconds between two tries to write while a caller waits."""
RETRY_OUTCOMES = 0.1
"""Seconds between two tries to write while only outcomes are to be written."""
WRITES_AT_ONCE = 500
"""The most writes of one commit, which takes about 3 ms of the event loop."""
SINGLE_WRITES = 50
"""The most that are tried each in a commit of its own after one of them cannot be written."""
KEPT = 50_000
"""The most outcomes that are kept while the file cannot be written, about 25 MB."""
CLOSE_PATIENCE = 1.0
"""Seconds for which `close` tries to write what is left."""
SLOW_START = 1.0
"""Seconds from which on the reading of a login is logged."""

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
_CREATE_HALTS = """
CREATE TABLE IF NOT EXISTS halts (
    ucc TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    cancels_open INTEGER NOT NULL
)
"""
_CREATE_SETTLED = """
CREATE TABLE IF NOT EXISTS settled (
    ucc TEXT PRIMARY KEY,
    id INTEGER NOT NULL
)
"""
_TABLES = {"intents": _CREATE, "halts": _CREATE_HALTS, "settled": _CREATE_SETTLED}

_BEGIN = (
    "INSERT INTO intents (id, at_ns, ucc, action, client_tag, order_number, form) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_END = (
    "UPDATE intents SET outcome = ?, outcome_at_ns = ?, reason = ?, "
    "order_number = coalesce(nullif(?, ''), order_number) WHERE id = ?"
)
_HALT = "INSERT OR REPLACE INTO halts (ucc, reason, since, cancels_open) VALUES (?, ?, ?, ?)"
_RESUME = "DELETE FROM halts WHERE ucc = ?"
_SETTLED = "INSERT OR REPLACE INTO settled (ucc, id) VALUES (?, ?)"

# Words that are no outcome count as open here, so that they are met and refused.
_IS_OPEN = (
    "(outcome IS NULL OR outcome NOT IN "
    "('accepted', 'rejected', 'not sent', 'not accepted', 'lapsed'))"
)
_SELECT_OPEN_IDS = f"SELECT id FROM intents WHERE id > ? AND ucc = ? AND {_IS_OPEN}"
_SELECT = (
    "SELECT id, at_ns, action, client_tag, order_number, "
    f"CASE WHEN {_IS_OPEN} THEN form ELSE '' END, outcome, reason FROM intents "
    f"WHERE id >= ? AND ucc = ? AND (({_IS_OPEN} AND id > ? AND (action <> 'cancel' OR id <= ?)) "
    "OR (action = 'place' AND at_ns >= CASE order_number WHEN '' THEN ? ELSE ? END)) ORDER BY id"
)
_SELECT_PLACED = (
    "SELECT id, at_ns, action, client_tag, order_number, '', outcome, reason FROM intents "
    "WHERE id >= ? AND ucc = ? AND action = 'place' "
    "AND order_number IN (SELECT value FROM json_each(?)) ORDER BY id"
)
_SELECT_UNCANCELLED = (
    "SELECT id, at_ns, action, client_tag, order_number, form, outcome, reason FROM intents "
    "WHERE id >= ? AND ucc = ? AND action = 'place' AND order_number <> '' "
    """AND (at_ns >= ? OR form LIKE '%"am":"YES"%') """
    "AND order_number NOT IN (SELECT order_number FROM intents WHERE id >= ? AND ucc = ? "
    "AND action = 'cancel' AND outcome = 'accepted') ORDER BY id DESC"
)
_SUBJECT = "SELECT action, client_tag, order_number FROM intents WHERE id = ?"

_WHAT_TO_DO = (
    "repair it (sqlite3 FILE .recover), or move it away and look for the orders that it held in "
    "the broker's order book"
)

_SELECT_TIME = "SELECT at_ns FROM intents WHERE id >= ? ORDER BY id LIMIT 1"

_ACTIONS = ("place", "modify", "cancel")
_HIGHEST = 1 << 62
"""Of an id; none that was counted from 1 comes near it."""
_CLOSED_TOO_SOON = sqlite3.OperationalError("it was closed before it could be written")

_FAILURES = (sqlite3.Error, ValueError, OverflowError)
"""What SQLite raises. Its words about a damaged file need not be text, and then they are a
UnicodeDecodeError."""

_OF_ONE_WRITE = (sqlite3.IntegrityError, UnicodeEncodeError, OverflowError)
"""Failures of what is written and not of the file: an id that another program took, a text or a
time that cannot be stored."""

_form = msgspec.json.Encoder()
_object = msgspec.json.Decoder(dict[str, object])

_Row = tuple[object, ...]
_Write = tuple[str, _Row]
_Queued = tuple[_Write, asyncio.Future[None] | None]
_Put = tuple[_Write, asyncio.Future[None] | None, bool]
"""The last: whether it is the halt."""


class Outcome(StrEnum):
    """The outcome of an order request."""

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
    UNRESOLVED = "lapsed"
    """It stays unknown: nothing proved it in time, or it is of an earlier day, and the order book
    is only of today."""

    @property
    def is_final(self) -> bool:
        return self is not Outcome.UNKNOWN


_OUTCOMES: dict[object, Outcome | None] = {None: None, **{one.value: one for one in Outcome}}


class Intent(msgspec.Struct, frozen=True, gc=False):
    """One line of the journal."""

    id: int
    at_ns: int
    action: str
    client_tag: str
    order_number: str
    form: str
    """JSON; empty where it was not asked for."""
    outcome: Outcome | None
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to be found out."""
        return self.outcome is None or not self.outcome.is_final


class Journal:
    """One file, written by one process: `start` (or `open`) before use, `close` after."""

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
        # A later change of the working directory must not lead to another file.
        self._place = Path(os.path.abspath(self.path))
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None
        self._file: sqlite3.Connection | None = None
        self._writer: _LoopWriter | _ThreadWriter | None = None
        self._why_closed = "it is not open"
        self._last = 0
        self._last_at_start = 0
        self._under_way: set[int] = set()
        """Intents that were written, and have no outcome."""
        self._unresolved: set[int] = set()
        """Intents whose outcome is open, and is not waited for by the call that sent them."""
        self._settled = 0
        """Every intent of the account up to this one has a final outcome, by the file."""
        self._halt: _Halt | None = None
        self._unwritten_halt: _Write | None = None
        """What has to be written of a halt as soon as the journal is open."""
        self._writes = self._moved = 0
        """Writes so far, and how many of them the last checkpoint moved."""
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._checkpoint: threading.Thread | None = None
        self._files: Mapping[Path, tuple[int, int]] = {}
        """The open file and its log, by where they were found: device and inode."""
        self._looked_at = -math.inf
        """Time of the loop at which they were last looked for there."""
        self._is_lost = False

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def is_lost(self) -> bool:
        """Whether the path does not lead to the open file and its log any more: what is written
        ends with this process then. It is looked at once a second at most, and said in the log."""
        if self._loop is not None and self._loop.time() >= self._looked_at + LOOK_EVERY:
            self._look_for_files(self._loop.time())
        return self._is_lost

    def open(self) -> None:
        """Open the file, and create it where there is none.

        It reads as much as a crash has left to read, and holds the event loop meanwhile; `start`
        does not. Raises JournalFailed when another process writes the file, it is not a private
        one, or it is not a journal.
        """
        self._use(self._prepare())

    async def start(self) -> bool:
        """Open the file as `open` does, in a thread. Returns False when it was open already."""
        async with self._starting:
            if self.is_open:
                return False
            preparing = asyncio.ensure_future(asyncio.to_thread(self._prepare))
            try:
                prepared = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                await asyncio.wait([preparing])
                if preparing.exception() is None:
                    preparing.result().file.close()
                    _unlock(preparing.result().lock)
                raise
            self._use(prepared)
            return True

    async def begin(
        self, action: str, form: object, *, client_tag: str = "", order_number: str = ""
    ) -> int:
        """Write an intent, and return its id when it is as durable as was asked for.

        Waits up to `PATIENCE` seconds for a file that cannot be written. Raises JournalFailed when
        it cannot be written: it must not be sent then. A cancelled call leaves an intent that was
        not sent, if any.
        """
        try:
            intent, write = self._intent(action, form, client_tag, order_number)
            await self._written(intent, write)
        except (*_FAILURES, TypeError) as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be written ({error}): nothing was sent"
            ) from error
        self._under_way.add(intent)
        self._count()
        return intent

    def note(
        self, action: str, form: object, *, client_tag: str = "", order_number: str = ""
    ) -> int:
        """Have an intent written soon, and return its id at once: for a cancel, which does not wait
        for the journal.

        Never raises. What cannot be written is kept and written later; it is logged once, as an
        error. The id is 0 when it will never be written, which `end` ignores.
        """
        try:
            intent, write = self._intent(action, form, client_tag, order_number)
            if self._writer is None:
                raise sqlite3.ProgrammingError(self._why_closed)
        except (*_FAILURES, TypeError) as error:
            subject = Subject(action, client_tag, order_number)
            log_order(log, logging.ERROR, subject, "the journal %s lacks it: %s", self.path, error)
            return 0
        self._under_way.add(intent)
        self._writer.put_soon(write)
        self._count()
        return intent

    def end(
        self, intent: int, outcome: Outcome, *, order_number: str = "", reason: str = ""
    ) -> None:
        """Write the outcome of an intent: soon, since the next login finds it out again when it is
        lost. Never raises; what cannot be written is kept, and written later."""
        if self._writer is None or not intent:
            return
        self._under_way.discard(intent)
        if outcome is Outcome.UNKNOWN:
            self._unresolved.add(intent)
        else:
            self._unresolved.discard(intent)
        if reason:
            reason = _text(reason)
        row = (outcome.value, self._now(), reason, order_number, intent)
        self._writer.put((_END, row))
        self._count()
        assert self._loop is not None
        now = self._loop.time()
        if now >= self._looked_at + LOOK_EVERY:
            self._look_for_files(now)

    @property
    def has_intents(self) -> bool:
        """Whether anything was ever written to it, of any account."""
        return self._last > 0

    async def intents(
        self, since_ns: int, *, without_order_since_ns: int | None = None
    ) -> list[Intent]:
        """Return the open intents of the account, and its placements since then; oldest first.
        Those without an order number are returned since `without_order_since_ns`, if it is given.

        Open are those without a final outcome, whatever their age, but not the cancels that this
        process has sent since it opened the journal: they may be under way. Only open ones have
        their form. Reads in a thread. Raises JournalFailed for a file that cannot be read, or holds
        what no journal holds.
        """

        def select(file: sqlite3.Connection) -> Iterator[_Row]:
            without_order = since_ns if without_order_since_ns is None else without_order_since_ns
            recent = _first_since(file, min(since_ns, without_order), self._last)
            first = min(recent, self._settled + 1)
            settled = (self._settled, self._last_at_start)
            return file.execute(_SELECT, (first, self._ucc, *settled, without_order, since_ns))

        return await self._read(select)

    async def placed(self, numbers: Collection[str], since_ns: int) -> list[Intent]:
        """Return the account's placements since then whose orders have these numbers, oldest first
        and without their forms. Reads in a thread, and raises, as `intents`."""
        wanted = json.dumps(list(numbers))

        def select(file: sqlite3.Connection) -> Iterator[_Row]:
            first = _first_since(file, since_ns, self._last)
            return file.execute(_SELECT_PLACED, (first, self._ucc, wanted))

        return await self._read(select)

    async def uncancelled(self, since_ns: int, *, amo_since_ns: int) -> list[Intent]:
        """Return the placements of the account since `since_ns` whose orders have a number, but for
        those that the broker has accepted a cancel of; newest first, with their forms. After-market
        orders are returned since `amo_since_ns`. Reads in a thread, and raises, as `intents`."""

        def select(file: sqlite3.Connection) -> Iterator[_Row]:
            first = _first_since(file, min(since_ns, amo_since_ns), self._last)
            row = (first, self._ucc, since_ns, first, self._ucc)
            return file.execute(_SELECT_UNCANCELLED, row)

        return await self._read(select)

    # --- the halt -----------------------------------------------------------------------------

    def write_halt(self, halted: Halted, *, cancels_open: bool) -> None:
        """Write that the account's orders are halted, over what was written of an earlier halt.

        It is written at once when the file can be written, and else as soon as it can, before
        anything that waits. A journal that is not open writes it when it is opened. Never raises.
        """
        self._halt = _Halt(halted.reason, halted.since, cancels_open)
        row = (self._ucc, _text(halted.reason), float(halted.since), int(cancels_open))
        self._put_halt((_HALT, row))

    def clear_halt(self) -> None:
        """Write that the account's orders are not halted any more; as `write_halt` does."""
        self._halt = None
        self._put_halt((_RESUME, (self._ucc,)))

    def read_halt(self) -> tuple[Halted, bool] | None:
        """Return the halt of the account that was written last, perhaps by an earlier process, and
        whether its open orders were to be cancelled; None when its orders are not halted.

        The file was read when the journal was opened; before that only this process is known.
        """
        if self._halt is None:
            return None
        return Halted(self._halt.reason, since=self._halt.since), self._halt.cancels_open

    def _put_halt(self, write: _Write) -> None:
        if self._writer is None:
            self._unwritten_halt = write
            return
        self._writer.put_halt(write)
        self._count()

    # --- life ---------------------------------------------------------------------------------

    def _look_for_files(self, now: float) -> None:
        self._looked_at = now
        was_lost, self._is_lost = self._is_lost, False
        if self._file is None:
            return
        lost = [path for path, identity in self._files.items() if _identity(path) != identity]
        self._is_lost = bool(lost)
        if lost and not was_lost:
            log.error(
                "%s is not the file any more that was opened as the journal: it was moved, deleted "
                "or replaced, and what is written now ends with this process; put it back, or log "
                "out and in again to begin another journal",
                lost[0],
            )

    async def close(self) -> None:
        """Write what is still to be written, and let others have the file.

        A file that cannot be written is tried for `CLOSE_PATIENCE` seconds; what it lacks then is
        logged. Raises JournalFailed when the file cannot be closed properly.
        """
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None
        writer, self._writer = self._writer, None
        file, self._file = self._file, None
        self._why_closed = "it is closed"
        with _forking:
            _open_journals.discard(self)
        try:
            if writer is not None:
                await writer.close()
            if self._checkpoint is not None:
                await asyncio.to_thread(self._checkpoint.join)
                self._checkpoint = None
            if writer is not None and file is not None:
                await asyncio.to_thread(_close, file, self._next_settled(writer))
        except _FAILURES as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be closed ({error}): {_WHAT_TO_DO}"
            ) from error
        finally:
            if self._lock is not None:
                _unlock(self._lock)
                self._lock = None

    @property
    def writes(self) -> int:
        """Intents, outcomes and halts written so far."""
        return self._writes

    def __repr__(self) -> str:
        return f"<Journal {self.path} {self._durability}, {self._last} intents>"

    def _use(self, prepared: _Prepared) -> None:
        self._lock = prepared.lock
        self._file = prepared.file
        self._files = prepared.files
        self._looked_at, self._is_lost = -math.inf, False
        self._last = self._last_at_start = prepared.last
        self._settled = prepared.settled
        self._unresolved = set(prepared.open_ids)
        self._under_way.clear()
        loop = self._loop = asyncio.get_running_loop()
        writer = _ThreadWriter if self._durability is Durability.POWER else _LoopWriter
        self._writer = writer(self._file, loop, self.path)
        with _forking:
            _open_journals.add(self)
        unwritten, self._unwritten_halt = self._unwritten_halt, None
        if unwritten is None:
            self._halt = prepared.halt
        else:
            self._put_halt(unwritten)
        # A file of version 1 was read from its beginning: not once more after a crash.
        is_long = self._last - self._settled > WRITES_BETWEEN_CHECKPOINTS
        if is_long and (settled := self._next_settled(self._writer)) is not None:
            self._writer.put(settled)

    def _prepare(self) -> _Prepared:
        """Lock and open the file, and read what has to be known of it. Runs in any thread."""
        began = time.monotonic()
        try:
            if self._place.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            lock = _hold(self._beside("-lock"))
        except _Held as held:
            raise JournalFailed(
                f"the journal {self.path} is being written by process {held}: one account's orders "
                "need one writer; give this client another file, or end that process"
            ) from None
        except (OSError, ValueError) as error:
            # Not all of the error: the file that it names is not the one that was asked for.
            raise self._unopened(error) from error
        try:
            files.make_private(self._place)
            for suffix in ("-wal", "-shm", "-journal"):
                files.make_private(self._beside(suffix), create=False)
            file = _connect(self._place)
            try:
                prepared = self._look_over(lock, file)
            except BaseException:
                file.close()
                raise
        except BaseException as error:
            _unlock(lock)
            if isinstance(error, (OSError, *_FAILURES, _Unreadable)):
                raise self._unopened(error) from error
            raise
        took = time.monotonic() - began
        if took >= SLOW_START:
            log.info("the journal %s of %d intents: opened in %.1f s", self.path, prepared[2], took)
        return prepared

    def _look_over(self, lock: int, file: sqlite3.Connection) -> _Prepared:
        """Raises sqlite3.Error and _Unreadable."""
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version not in (0, 1, VERSION):
            raise JournalFailed(
                f"the journal {self.path} is of version {version}, this package writes "
                f"{VERSION}: give it another file"
            )
        _check_schema(file)
        # Small pages: what a commit writes is mostly pages.
        file.execute("PRAGMA page_size = 2048")
        file.execute("PRAGMA journal_mode = WAL")
        # Without autocheckpoint no commit but those of POWER ever waits for the disk. A commit is
        # written to the log in any case, and so survives this process; NORMAL syncs the log before
        # a checkpoint, so that a loss of power takes the last orders, never the file.
        synchronous = "FULL" if self._durability is Durability.POWER else "NORMAL"
        file.execute(f"PRAGMA synchronous = {synchronous}")
        file.execute("PRAGMA wal_autocheckpoint = 0")
        if version != VERSION:
            creations: list[_Write] = [(create, ()) for create in _TABLES.values()]
            _commit(file, [*creations, (f"PRAGMA user_version = {VERSION}", ())])
        (last,) = file.execute("SELECT coalesce(max(id), 0) FROM intents").fetchone()
        found = file.execute("SELECT id FROM settled WHERE ucc = ?", (self._ucc,)).fetchone()
        settled = 0 if found is None else found[0]
        if not (isinstance(settled, int) and 0 <= settled <= last <= _HIGHEST):
            raise _Unreadable(f"its intents end with {last}, and are settled up to {settled!r}")
        open_ids = [one for (one,) in file.execute(_SELECT_OPEN_IDS, (settled, self._ucc))]
        halt = _halt_of(
            file.execute(
                "SELECT reason, since, cancels_open FROM halts WHERE ucc = ?", (self._ucc,)
            ).fetchone()
        )
        # The loop waits for no lock of another program: what fails is tried again.
        file.execute("PRAGMA busy_timeout = 0")
        places = (self._place, self._beside("-wal"))
        found = {place: identity for place in places if (identity := _identity(place))}
        return _Prepared(lock, file, last, settled, open_ids, halt, found)

    async def _read(self, select: Callable[[sqlite3.Connection], Iterator[_Row]]) -> list[Intent]:
        if self._file is None:
            raise JournalFailed(f"the journal {self.path} cannot be read: {self._why_closed}")
        return await asyncio.to_thread(self._read_here, select)

    def _read_here(self, select: Callable[[sqlite3.Connection], Iterator[_Row]]) -> list[Intent]:
        """See `intents`. Runs in a thread, on a connection of its own."""
        began = time.monotonic()
        try:
            with contextlib.closing(_connect(self._place)) as file:
                intents = [_intent_of(row) for row in select(file)]
        except (*_FAILURES, _Unreadable) as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be read ({error}): {_WHAT_TO_DO}"
            ) from error
        took = time.monotonic() - began
        if took >= SLOW_START:
            log.info("the journal %s: %d intents read in %.1f s", self.path, len(intents), took)
        return intents

    def _beside(self, suffix: str) -> Path:
        return self._place.with_name(self._place.name + suffix)

    def _unopened(self, error: Exception) -> JournalFailed:
        text = f"the journal {self.path} cannot be opened: "
        if isinstance(error, OSError):
            return JournalFailed(f"{text}{error.strerror}")
        if isinstance(error, sqlite3.OperationalError):  # locked, or no room
            return JournalFailed(f"{text}{error}")
        return JournalFailed(f"{text}{error}; {_WHAT_TO_DO}")

    def abandon(self) -> None:
        """Leave the journal to the process that this one was forked off, without a touch of the
        file: SQLite allows a forked process not even to close it."""
        if self._file is not None:
            with contextlib.suppress(ImportError):
                import ctypes

                # Never freed, and so never closed.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file))
            self._file = None
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None
        self._checkpoint = None
        self._lock = None
        self._why_closed = (
            "it was opened by the process that this one was forked off, and only that one writes "
            "it: open a journal with another file here"
        )

    def _now(self) -> int:
        return int(self._clock() * 1e9)

    def _intent(
        self, action: str, form: object, client_tag: str, order_number: str
    ) -> tuple[int, _Write]:
        text = _form.encode(form).decode()
        intent = self._last + 1
        row = (intent, self._now(), self._ucc, action, client_tag, order_number, text)
        self._last = intent
        return intent, (_BEGIN, row)

    async def _written(self, intent: int, write: _Write) -> None:
        if self._writer is None:
            raise sqlite3.ProgrammingError(self._why_closed)
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
        """Count one more write. Enough of them are moved from the log into the file, beside the
        loop and when no order is near: that waits for the disk."""
        self._writes += 1
        is_due = self._writes - self._moved >= WRITES_BETWEEN_CHECKPOINTS
        if is_due and self._checkpoint_timer is None:
            self._look_for_quiet()

    def _look_for_quiet(self) -> None:
        assert self._loop is not None
        self._checkpoint_timer = self._loop.call_later(QUIET, self._check_quiet, self._writes)

    def _check_quiet(self, writes: int) -> None:
        self._checkpoint_timer = None
        is_busy = self._checkpoint is not None and self._checkpoint.is_alive()
        is_quiet = writes == self._writes
        if is_busy or not (
            is_quiet or self._writes - self._moved >= MOST_WRITES_BETWEEN_CHECKPOINTS
        ):
            self._look_for_quiet()
            return
        if self._writer is not None and (settled := self._next_settled(self._writer)) is not None:
            self._writer.put(settled)
        self._look_for_files(asyncio.get_running_loop().time())
        self._moved = self._writes
        self._checkpoint = threading.Thread(
            target=_checkpoint, args=(self._place,), name="journal checkpoint"
        )
        self._checkpoint.start()

    def _next_settled(self, writer: _LoopWriter | _ThreadWriter) -> _Write | None:
        """Return what lets the next login look for open intents from a later one on, if anything.

        Only while nothing waits to be written: an outcome that is lost must not be behind it.
        """
        if not writer.is_idle:
            return None
        still_open = self._under_way | self._unresolved | writer.lost
        settled = min(still_open, default=self._last + 1) - 1
        if settled <= self._settled:
            return None
        self._settled = settled
        return _SETTLED, (self._ucc, settled)


class _Unreadable(Exception):
    """What a file holds is not what a journal holds."""


class _Held(Exception):
    """Another process has the lock; it is named."""


class _Halt(NamedTuple):
    reason: str
    since: float
    cancels_open: bool


class _Prepared(NamedTuple):
    """A journal that is locked and open."""

    lock: int
    file: sqlite3.Connection
    last: int
    """The highest id."""
    settled: int
    open_ids: Sequence[int]
    halt: _Halt | None
    files: Mapping[Path, tuple[int, int]]


# --- writing --------------------------------------------------------------------------------------


class _Late:
    """A write that has failed, to be tried again."""

    __slots__ = ("due", "waiter", "write")

    def __init__(self, write: _Write, waiter: asyncio.Future[None] | None, due: float) -> None:
        self.write = write
        self.waiter = waiter
        self.due = due
        """When an intent is given up, and a kept write is logged."""


class _Backlog:
    """What is not in the file yet. Intents whose caller waits come first."""

    def __init__(
        self,
        file: sqlite3.Connection,
        path: Path,
        announce: Callable[[list[asyncio.Future[None]], Exception | None], object],
    ) -> None:
        self._file = file
        self._path = path
        self._announce = announce
        self.fresh: list[_Queued] = []
        """Writes that were not tried yet."""
        self.halt: _Write | None = None
        self._waiting: list[_Late] = []
        self._kept: list[_Late] = []
        """Late writes for which no caller waits."""
        self._logged = 0
        """How many of those, from the first, are logged as missing."""
        self.lost: set[int] = set()
        """The oldest intent whose outcome was given up, since too many were kept."""
        self.has_failed = self._has_dropped = False
        self.is_writing = False
        """Whether a commit is under way: a signal handler may interrupt one."""

    @property
    def is_empty(self) -> bool:
        return not (self.fresh or self._waiting or self._kept or self.halt)

    @property
    def retry(self) -> float:
        """Seconds until the next try after one that failed."""
        return RETRY if self._waiting or self.halt is not None else RETRY_OUTCOMES

    def commit_with(self, write: _Write) -> bool:
        """Commit one write together with the fresh ones. Returns whether it worked; nothing is
        changed when it did not."""
        writes = [fresh for fresh, _ in self.fresh]
        writes.append(write)
        self.is_writing = True
        try:
            _commit(self._file, writes)
            self.fresh.clear()
        except _FAILURES:
            return False
        finally:
            self.is_writing = False
        return True

    def commit(self, now: float) -> bool:
        """Commit the first `WRITES_AT_ONCE`. Returns whether it worked."""
        self.is_writing = True
        try:
            if self.has_failed or self.halt is not None or len(self.fresh) > WRITES_AT_ONCE:
                self._commit_first()
            else:
                _commit(self._file, [write for write, _ in self.fresh])
                waiters = [waiter for _, waiter in self.fresh if waiter is not None]
                self.fresh.clear()
                if waiters:
                    self._announce(waiters, None)
        except _OF_ONE_WRITE as error:
            # The others must not fail with it for ever.
            self._fail(error, now)
            self._commit_singly()
            return False
        except _FAILURES as error:
            self._fail(error, now)
            return False
        finally:
            self.is_writing = False
        if self.has_failed and not (self._waiting or self._kept):
            self.has_failed = self._has_dropped = False
            log.warning("the journal %s is written again", self._path)
        return True

    def _commit_first(self) -> None:
        """The halt, and of the others as many as are allowed, late ones first."""
        waiting = self._waiting[:WRITES_AT_ONCE]
        kept = self._kept[: WRITES_AT_ONCE - len(waiting)]
        fresh = self.fresh[: WRITES_AT_ONCE - len(waiting) - len(kept)]
        writes = [] if self.halt is None else [self.halt]
        writes += [late.write for late in (*waiting, *kept)]
        writes += [write for write, _ in fresh]
        _commit(self._file, writes)
        self.halt = None
        del self._waiting[: len(waiting)], self._kept[: len(kept)], self.fresh[: len(fresh)]
        self._logged = max(0, self._logged - len(kept))
        waiters = [late.waiter for late in waiting if late.waiter is not None]
        waiters += [waiter for _, waiter in fresh if waiter is not None]
        if waiters:
            self._announce(waiters, None)

    def _commit_singly(self) -> None:
        """Give up the late writes that cannot be, each by itself."""
        before = len(self._kept)
        for lates in (self._waiting, self._kept):
            for late in lates[:SINGLE_WRITES]:
                error: Exception | None = None
                try:
                    _commit(self._file, [late.write])
                except _OF_ONE_WRITE as failure:
                    error = failure
                    _log_missing(self._file, self._path, late.write, error)
                except _FAILURES:
                    break
                lates.remove(late)
                if late.waiter is not None:
                    self._announce([late.waiter], error)
        self._logged = max(0, self._logged - (before - len(self._kept)))

    def _fail(self, error: Exception, now: float) -> None:
        for write, waiter in self.fresh:
            late = _Late(write, waiter, now + PATIENCE)
            (self._kept if waiter is None else self._waiting).append(late)
        self.fresh.clear()
        if not self.has_failed:
            self.has_failed = True
            log.warning("the journal %s cannot be written at the moment: %s", self._path, error)
        self._give_up(error, now)
        while self._logged < len(self._kept) and self._kept[self._logged].due <= now:
            _log_missing(self._file, self._path, self._kept[self._logged].write, error)
            self._logged += 1
        if (excess := len(self._kept) - KEPT) > 0:
            self._drop(excess)

    def _give_up(self, error: Exception, now: float) -> None:
        """End the waiting of those whose time is over."""
        if not self._waiting or self._waiting[0].due > now:
            return
        over = [late for late in self._waiting if late.due <= now]
        self._waiting = [late for late in self._waiting if late.due > now]
        for late in over:
            _log_missing(self._file, self._path, late.write, error)
        self._announce([late.waiter for late in over if late.waiter is not None], error)

    def _drop(self, excess: int) -> None:
        if not self._has_dropped:
            self._has_dropped = True
            log.error(
                "the journal %s could not be written for so long that its oldest outcomes are "
                "dropped, more than %d: the next login finds them out",
                self._path,
                KEPT,
            )
        ends = [late.write[1] for late in self._kept[:excess] if late.write[0] is _END]
        self.lost.update(row[4] for row in ends if isinstance(row[4], int))
        self.lost = {min(self.lost)} if self.lost else set()
        del self._kept[:excess]
        self._logged = max(0, self._logged - excess)

    def missing(self, error: Exception) -> list[asyncio.Future[None]]:
        """Log what will never be written, each once, and return those who wait."""
        for late in (*self._waiting, *self._kept[self._logged :]):
            _log_missing(self._file, self._path, late.write, error)
        for write, _ in self.fresh:
            _log_missing(self._file, self._path, write, error)
        waiters = [late.waiter for late in self._waiting if late.waiter is not None]
        return waiters + [waiter for _, waiter in self.fresh if waiter is not None]

    def abandon(self) -> None:
        self.fresh.clear()
        self._waiting.clear()
        self._kept.clear()
        self.halt = None


class _LoopWriter:
    """Commits a lone intent at once, and those that come while others are under way together at
    the end of the loop's turn. Outcomes, for which no caller waits, go with the next commit.

    No commit waits for the lock of another program: what could not be written is tried again."""

    def __init__(
        self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop, path: Path
    ) -> None:
        self._loop = loop
        self._path = path
        self._backlog = _Backlog(file, path, _announce)
        self._turn: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        """When outcomes are written that no intent has followed, or what has failed is tried
        again."""

    @property
    def is_idle(self) -> bool:
        return self._backlog.is_empty

    @property
    def lost(self) -> set[int]:
        return self._backlog.lost

    def put(self, write: _Write, waiter: asyncio.Future[None] | None = None) -> None:
        self._backlog.fresh.append((write, waiter))
        if waiter is not None:
            self._write_this_turn()
        elif self._later is None:
            self._later = self._loop.call_later(LATEST, self._write_latest)

    def put_soon(self, write: _Write) -> None:
        """Commit it at the end of the turn."""
        self._backlog.fresh.append((write, None))
        self._write_this_turn()

    def put_halt(self, write: _Write) -> None:
        """Commit it now, or before all else as soon as that is possible."""
        self._backlog.halt = write
        if self._backlog.is_writing:
            self._write_this_turn()
        else:
            self._write()

    def put_alone(self, write: _Write) -> bool:
        """Commit it at once, unless others wait for the end of the turn or the file cannot be
        written. Returns whether that was done."""
        backlog = self._backlog
        if self._turn is not None or backlog.has_failed or len(backlog.fresh) >= WRITES_AT_ONCE:
            return False
        return backlog.commit_with(write)

    async def close(self) -> None:
        self._cancel_timers()
        until = self._loop.time() + CLOSE_PATIENCE
        while not self._backlog.is_empty:
            if self._backlog.commit(self._loop.time()):
                await asyncio.sleep(0)
            elif self._loop.time() >= until:
                break
            else:
                await asyncio.sleep(RETRY)
        if not self._backlog.is_empty:
            _announce(self._backlog.missing(_CLOSED_TOO_SOON), _CLOSED_TOO_SOON)

    def abandon(self) -> None:
        self._cancel_timers()
        self._backlog.abandon()

    def _cancel_timers(self) -> None:
        for handle in (self._turn, self._later):
            if handle is not None:
                handle.cancel()
        self._turn = self._later = None

    def _write_this_turn(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn = None
        self._write()

    def _write_latest(self) -> None:
        self._later = None
        self._write()

    def _write(self) -> None:
        backlog = self._backlog
        if backlog.is_empty:
            return
        if backlog.commit(self._loop.time()):
            if not backlog.is_empty:
                self._write_this_turn()
            return
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(backlog.retry, self._write_latest)


class _ThreadWriter:
    """A thread that commits all that has come while the disk took the commit before."""

    def __init__(
        self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop, path: Path
    ) -> None:
        self._loop = loop
        self._path = path
        self._backlog = _Backlog(file, path, self._announce)
        self._queue: queue.SimpleQueue[_Put | None] = queue.SimpleQueue()
        self._put = self._done = 0
        """Writes that were put, and those that are in the file; the second belongs to the
        thread."""
        # A daemon: a program that ends without closing must not hang on it.
        self._thread = threading.Thread(target=self._run, name="journal writer", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        return self._put == self._done

    @property
    def lost(self) -> set[int]:
        return self._backlog.lost

    def put(self, write: _Write, waiter: asyncio.Future[None] | None = None) -> None:
        self._put += 1
        self._queue.put((write, waiter, False))

    def put_soon(self, write: _Write) -> None:
        self.put(write)

    def put_halt(self, write: _Write) -> None:
        self._put += 1
        self._queue.put((write, None, True))

    def put_alone(self, write: _Write) -> bool:
        return False  # none waits for the disk alone

    async def close(self) -> None:
        """Ends when everything is written, or cannot be."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        pass  # the thread has no counterpart in a forked process

    def _announce(self, waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
        # A loop that is closed has no caller waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_announce, waiters, error)

    def _run(self) -> None:
        backlog = self._backlog
        close_at = math.inf
        taken = 0
        wait: float | None = None
        while True:
            for queued in self._taken(wait):
                if queued is None:
                    close_at = time.monotonic() + CLOSE_PATIENCE
                    continue
                write, waiter, is_halt = queued
                taken += 1
                if is_halt:
                    backlog.halt = write
                else:
                    backlog.fresh.append((write, waiter))
            has_worked = backlog.is_empty or backlog.commit(time.monotonic())
            if backlog.is_empty:
                self._done = taken
                if close_at < math.inf:
                    return
                wait = None
            elif has_worked:
                wait = 0.0
            elif time.monotonic() >= close_at:
                self._announce(backlog.missing(_CLOSED_TOO_SOON), _CLOSED_TOO_SOON)
                return
            else:
                wait = RETRY

    def _taken(self, wait: float | None) -> Iterator[_Put | None]:
        """All that has come; waits for the first up to `wait` seconds, or for ever."""
        with contextlib.suppress(queue.Empty):
            yield self._queue.get(timeout=wait)
            while True:
                yield self._queue.get_nowait()


def _commit(file: sqlite3.Connection, writes: Sequence[_Write]) -> None:
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


def _close(file: sqlite3.Connection, settled: _Write | None) -> None:
    """Close the file, which moves its log into it."""
    with contextlib.suppress(*_FAILURES):  # it only saves the next login some reading
        if settled is not None:
            _commit(file, [settled])
    file.close()


def _log_missing(file: sqlite3.Connection, path: Path, write: _Write, error: Exception) -> None:
    statement, row = write
    if statement is _BEGIN:
        _, _, _, action, client_tag, order_number, _ = row
        subject = Subject(str(action), str(client_tag), str(order_number))
        log_order(log, logging.ERROR, subject, "the journal %s lacks it: %s", path, error)
    elif statement is _END:
        outcome, _, _, _, intent = row
        subject = _subject_of(file, intent)
        log_order(
            log, logging.ERROR, subject, "the journal lacks its outcome (%s): %s", outcome, error
        )
    else:
        log.error("the journal %s lacks the state of the account %s: %s", path, row[0], error)


def _subject_of(file: sqlite3.Connection, intent: object) -> Subject:
    """Name the request as the journal does: what cannot be written can often be read."""
    with contextlib.suppress(*_FAILURES):
        found = file.execute(_SUBJECT, (intent,)).fetchone()
        if found is not None:
            return Subject(*found)
    return Subject(f"intent {intent}")


def _announce(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


def _checkpoint(path: Path) -> None:
    try:
        with contextlib.closing(_connect(path)) as file:
            file.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except _FAILURES as error:
        log.warning("the log of the journal %s could not be moved into it: %s", path, error)


def _text(value: str) -> str:
    """Return a text that can be stored. Half a surrogate pair, which JSON can hold, cannot be."""
    if value.isascii():
        return value
    return value.encode(errors="backslashreplace").decode()


# --- opening and reading --------------------------------------------------------------------------


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
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
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
    )
    file.execute("PRAGMA trusted_schema = OFF")
    return file


def _check_schema(file: sqlite3.Connection) -> None:
    """Raises _Unreadable when the file holds anything but the tables of a journal."""
    for kind, name, sql in file.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind in ("table", "index") and str(name).startswith("sqlite_"):
            continue  # SQLite's own
        expected = _TABLES.get(name) if kind == "table" else None
        if expected is None:
            raise _Unreadable(f"it holds the {kind} {name!r}, which no journal has")
        if " ".join(str(sql).split()) != " ".join(expected.split()).replace("IF NOT EXISTS ", ""):
            raise _Unreadable(f"its table {name!r} has other columns than a journal's: {sql}")


def _halt_of(row: tuple[object, ...] | None) -> _Halt | None:
    """Raises _Unreadable."""
    if row is None:
        return None
    reason, since, cancels_open = row
    if isinstance(reason, str) and isinstance(since, float) and cancels_open in (0, 1):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            Halted(reason, since=since)
            return _Halt(reason, since, bool(cancels_open))
    raise _Unreadable(f"{row!r} in its table 'halts' is no halt")


def _intent_of(row: tuple[object, ...]) -> Intent:
    """Raises _Unreadable."""
    intent, at_ns, action, client_tag, order_number, form, outcome, reason = row
    if not (
        isinstance(intent, int)
        and isinstance(at_ns, int)
        and isinstance(action, str)
        and action in _ACTIONS
        and isinstance(client_tag, str)
        and isinstance(order_number, str)
        and isinstance(form, str)
        and isinstance(reason, str)
        and outcome in _OUTCOMES
    ):
        raise _Unreadable(
            f"its intent {intent} is none of a journal: action={action!r}, at_ns={at_ns!r}, "
            f"client_tag={client_tag!r}, order_number={order_number!r}, outcome={outcome!r}, "
            f"reason={reason!r}"
        )
    if form and not _is_object(form):
        raise _Unreadable(f"the form of its intent {intent} is no JSON object: {form[:80]!r}")
    return Intent(intent, at_ns, action, client_tag, order_number, form, _OUTCOMES[outcome], reason)


def _is_object(form: str) -> bool:
    try:
        _object.decode(form)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _first_since(file: sqlite3.Connection, since_ns: int, last: int) -> int:
    """Return the id of the first intent since then, by bisection: ids rise with the time."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = file.execute(_SELECT_TIME, (middle,)).fetchone()
        if found is not None and not isinstance(found[0], int):
            raise _Unreadable(f"the time of its intent {middle} is {found[0]!r}")
        if found is None or found[0] >= since_ns:
            high = middle
        else:
            low = middle + 1
    return low


# --- the lock -------------------------------------------------------------------------------------

_forking = threading.RLock()
"""Held while a process is forked off, so that none is between the opening of a lock and its entry
here."""
_locks: set[int] = set()
"""Descriptors of the locks of this process. A lock belongs to an open file, and so to every process
that was forked since, until that closes it."""
_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Give up all journals in a process that was forked off their own."""
    try:
        for lock in _locks:
            with contextlib.suppress(OSError):
                os.close(lock)
        _locks.clear()
        for journal in [*_open_journals]:
            journal.abandon()
        _open_journals.clear()
    finally:
        _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forking.acquire,
        after_in_parent=_forking.release,
        after_in_child=_leave_to_parent,
    )


def _hold(beside: Path) -> int:
    """Lock a file for as long as this process lives, or until `_unlock`.

    Raises _Held when another process has it; OSError when it cannot be locked at all.
    """
    with _forking:
        lock = files.open_private(beside, os.O_RDWR | os.O_CREAT)
        _locks.add(lock)
    try:
        _take(lock)
    except OSError as error:
        owner = os.read(lock, 20).decode(errors="replace").strip() or "another one"
        _unlock(lock)
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise _Held(owner) from None
        raise
    with contextlib.suppress(OSError):  # a full disk: the number is for the message only
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    return lock


def _unlock(lock: int) -> None:
    with _forking:
        _locks.discard(lock)
        os.close(lock)


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
    return midnight(now) * 1_000_000_000
