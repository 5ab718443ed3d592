"""The journal: every order request before its first byte leaves, and its outcome.

A placement or a change is written before it is sent. A cancel does not wait for the journal: it is
written at the same time, or as soon as the file can be written. Requests that a crash has left
without an outcome are resolved at the next login, before any new order is sent.

One process writes the file. A process that was forked off it has no share in the journal: there,
every call fails with JournalFailed, and the lock is not held.

The tables are in `journal_schema`, the file in `journal_file`, the lock in `file_lock`, and the
threads and timers that write in `journal_writers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from neo_async.base import logs
from neo_async.base.logs import Subject, log_order, logger_of
from neo_async.config import Durability
from neo_async.errors import Halted, JournalFailed
from neo_async.execution.journal_file import (
    FAILURES,
    WHAT_TO_DO,
    OpenedFile,
    PathCheck,
    checkpoint,
    close_file,
    open_file,
    read_intents,
    read_plans,
)
from neo_async.execution.journal_forks import abandon_after_fork, keep_after_fork
from neo_async.execution.journal_schema import (
    CLEAR_HALT,
    INSERT_INTENT,
    SELECT_INTENTS,
    SELECT_PLACED,
    SELECT_UNCANCELLED,
    UPDATE_OUTCOME,
    WRITE_HALT,
    WRITE_PLAN,
    WRITE_SETTLED,
    CancelScope,
    Halt,
    Intent,
    Outcome,
    Row,
    Write,
    first_since,
    storable,
)
from neo_async.execution.journal_writers import LoopWriter, ThreadWriter
from neo_async.system.file_lock import release

WRITES_BETWEEN_CHECKPOINTS = 2000
MAX_WRITES_BETWEEN_CHECKPOINTS = 50_000
"""Number of writes, about 100 MB of log, from which on the log is moved into the file even while
orders come."""
IDLE_BEFORE_CHECKPOINT_SECONDS = 0.05
"""Time without a write after which a checkpoint delays no order."""

_form = msgspec.json.Encoder()


class Journal:
    """A journal file, written by one process: `start` (or `open`) before use, `close` after."""

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
        self._log = logger_of(logs.JOURNAL, ucc)
        self._durability = Durability(durability)
        self._clock = clock
        # A later change of the working directory must not lead to another file.
        self._absolute_path = Path(os.path.abspath(self.path))
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None
        self._file: sqlite3.Connection | None = None
        self._writer: LoopWriter | ThreadWriter | None = None
        self._why_closed = "it is not open"
        self._last = 0
        self._last_at_start = 0
        self._under_way: set[int] = set()
        """Intents that were written, and have no outcome yet."""
        self._unresolved: set[int] = set()
        """Intents whose outcome is UNKNOWN until a report proves one."""
        self._resolved_up_to = 0
        """The id up to which, by the file, every intent of the account has a final outcome."""
        self._halt: Halt | None = None
        self._unwritten_halt: Write | None = None
        """The newest state of the halt, until the journal is open and it can be written."""
        self._writes = self._moved = 0
        """Number of writes so far, and of those that the last checkpoint moved."""
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._checkpoint: threading.Thread | None = None
        self._path_check: PathCheck | None = None
        """The open file; None while it is closed."""

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def is_lost(self) -> bool:
        """Whether the path does not lead to the open file and its log any more: what is written
        ends with this process then. It is checked once a second at most, and logged."""
        if self._path_check is None or self._loop is None:
            return False
        self._path_check.check_if_due(self._loop.time())
        return self._path_check.is_lost

    def open(self) -> None:
        """Open the file, and create it where there is none.

        It reads as much as a crash has left to read, and holds the event loop meanwhile; `start`
        does not. Raises JournalFailed when another process writes the file, it is not a private
        one, or it is not a journal.
        """
        self._use(self._open_file())

    async def start(self) -> bool:
        """Open the file as `open` does, in a thread. Returns False when it was open already."""
        async with self._starting:
            if self.is_open:
                return False
            opening = asyncio.ensure_future(asyncio.to_thread(self._open_file))
            try:
                opened = await asyncio.shield(opening)
            except asyncio.CancelledError:
                await asyncio.wait([opening])
                if opening.exception() is None:
                    opening.result().file.close()
                    release(opening.result().lock)
                raise
            self._use(opened)
            return True

    async def begin(
        self, action: str, form: object, *, client_tag: str = "", order_number: str = ""
    ) -> int:
        """Write an intent, and return its id when it is as durable as the setting demands.

        Waits up to `WRITE_TIMEOUT_SECONDS` for a file that cannot be written. Raises JournalFailed
        when it cannot be written: it must not be sent then. A cancelled call leaves an intent that
        was not sent, if any.
        """
        try:
            intent, write = self._intent(action, form, client_tag, order_number)
            await self._written(intent, write)
        except (*FAILURES, TypeError) as error:
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
        except (*FAILURES, TypeError) as error:
            subject = Subject(action, client_tag, order_number)
            log_order(
                self._log, logging.ERROR, subject, "not in the journal %s: %s", self.path, error
            )
            return 0
        self._under_way.add(intent)
        self._writer.put_soon(write)
        self._count()
        return intent

    def end(
        self, intent: int, outcome: Outcome, *, order_number: str = "", reason: str = ""
    ) -> None:
        """Write the outcome of an intent soon: the next login resolves again what is lost. Never
        raises; what cannot be written is kept, and written later."""
        if self._writer is None or not intent:
            return
        self._under_way.discard(intent)
        if outcome is Outcome.UNKNOWN:
            self._unresolved.add(intent)
        else:
            self._unresolved.discard(intent)
        if reason:
            reason = storable(reason)
        row = (outcome.value, self._now(), reason, order_number, intent)
        self._writer.put((UPDATE_OUTCOME, row))
        self._count()
        if self._path_check is not None and self._loop is not None:
            self._path_check.check_if_due(self._loop.time())

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
        process has sent since it opened the journal: they may be in flight. Only open ones have
        their form. Reads in a thread. Raises JournalFailed for a file that cannot be read, or holds
        what no journal holds.
        """

        def select(file: sqlite3.Connection) -> Iterator[Row]:
            without_order = since_ns if without_order_since_ns is None else without_order_since_ns
            recent = first_since(file, min(since_ns, without_order), self._last)
            first = min(recent, self._resolved_up_to + 1)
            open_after = (self._resolved_up_to, self._last_at_start)
            return file.execute(
                SELECT_INTENTS, (first, self._ucc, *open_after, without_order, since_ns)
            )

        return await self._read(select)

    async def placed(self, numbers: Collection[str], since_ns: int) -> list[Intent]:
        """Return the account's placements since then whose orders have these numbers, oldest first
        and without their forms. Reads in a thread, and raises, as `intents`."""
        wanted = json.dumps(list(numbers))

        def select(file: sqlite3.Connection) -> Iterator[Row]:
            first = first_since(file, since_ns, self._last)
            return file.execute(SELECT_PLACED, (first, self._ucc, wanted))

        return await self._read(select)

    async def uncancelled(self, since_ns: int, *, amo_since_ns: int) -> list[Intent]:
        """Return the placements of the account since `since_ns` whose orders have a number, but for
        those that the broker has accepted a cancel of; newest first, with their forms. After-market
        orders are returned since `amo_since_ns`. Reads in a thread, and raises, as `intents`."""

        def select(file: sqlite3.Connection) -> Iterator[Row]:
            first = first_since(file, min(since_ns, amo_since_ns), self._last)
            row = (first, self._ucc, since_ns, first, self._ucc)
            return file.execute(SELECT_UNCANCELLED, row)

        return await self._read(select)

    # --- exit plans ---------------------------------------------------------------------------

    def write_plan(self, plan: str, state: str, *, is_final: bool) -> None:
        """Have the state of an exit plan, JSON, written before the next intent is, or soon. Never
        raises; what cannot be written is kept, and written later."""
        if self._writer is None:
            return
        self._writer.put((WRITE_PLAN, (self._ucc, plan, storable(state), int(is_final))))
        self._count()

    async def plans(self) -> list[str]:
        """Return the states of the account's exit plans that have not ended, oldest first, as JSON.
        Reads in a thread, and raises, as `intents`."""
        if self._file is None:
            raise JournalFailed(f"the journal {self.path} cannot be read: {self._why_closed}")
        return await asyncio.to_thread(read_plans, self.path, self._absolute_path, self._ucc)

    # --- the halt -----------------------------------------------------------------------------

    def write_halt(self, halted: Halted, *, scope: CancelScope) -> None:
        """Write that the account's orders are halted, over what was written of an earlier halt.

        It is written at once when the file can be written, and else as soon as it can, before
        anything that waits. A journal that is not open writes it when it is opened. Never raises.
        """
        self._halt = Halt(halted.reason, halted.since, scope)
        row = (self._ucc, storable(halted.reason), float(halted.since), int(scope))
        self._put_halt((WRITE_HALT, row))

    def clear_halt(self) -> None:
        """Write that the account's orders are not halted any more; as `write_halt` does."""
        self._halt = None
        self._put_halt((CLEAR_HALT, (self._ucc,)))

    def read_halt(self) -> tuple[Halted, CancelScope] | None:
        """Return the halt of the account that was written last, perhaps by an earlier process, and
        which open orders were still to be cancelled; None when its orders are not halted.

        The file was read when the journal was opened; before that only this process is known.
        """
        if self._halt is None:
            return None
        return Halted(self._halt.reason, since=self._halt.since), self._halt.scope

    def _put_halt(self, write: Write) -> None:
        if self._writer is None:
            self._unwritten_halt = write
            return
        self._writer.put_halt(write)
        self._count()

    # --- life ---------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is still to be written, and let others have the file.

        A file that cannot be written is tried for `CLOSE_TIMEOUT_SECONDS`; what it lacks then is
        logged. Raises JournalFailed when the file cannot be closed properly.
        """
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None
        writer, self._writer = self._writer, None
        file, self._file = self._file, None
        self._why_closed = "it is closed"
        self._path_check = None
        keep_after_fork(self)
        try:
            if writer is not None:
                await writer.close()
            if self._checkpoint is not None:
                await asyncio.to_thread(self._checkpoint.join)
                self._checkpoint = None
            if writer is not None and file is not None:
                await asyncio.to_thread(close_file, file, self._resolved_write(writer))
        except FAILURES as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be closed ({error}): {WHAT_TO_DO}"
            ) from error
        finally:
            if self._lock is not None:
                release(self._lock)
                self._lock = None

    @property
    def writes(self) -> int:
        """Number of intents, outcomes and halts written so far."""
        return self._writes

    def __repr__(self) -> str:
        return f"<Journal {self.path} {self._durability}, {self._last} intents>"

    def _use(self, opened: OpenedFile) -> None:
        self._lock = opened.lock
        self._file = opened.file
        self._path_check = PathCheck(opened.identities, self._log)
        self._last = self._last_at_start = opened.last
        self._resolved_up_to = opened.resolved_up_to
        self._unresolved = set(opened.open_ids)
        self._under_way.clear()
        loop = self._loop = asyncio.get_running_loop()
        writer = ThreadWriter if self._durability is Durability.POWER else LoopWriter
        self._writer = writer(self._file, loop, self.path, self._log)
        abandon_after_fork(self)
        unwritten, self._unwritten_halt = self._unwritten_halt, None
        if unwritten is None:
            self._halt = opened.halt
        else:
            self._put_halt(unwritten)
        # A file of version 1 was read from its beginning: not once more after a crash.
        is_long = self._last - self._resolved_up_to > WRITES_BETWEEN_CHECKPOINTS
        if is_long and (write := self._resolved_write(self._writer)) is not None:
            self._writer.put(write)

    def _open_file(self) -> OpenedFile:
        """Open the file as configured. Runs in any thread."""
        return open_file(
            self.path,
            self._absolute_path,
            ucc=self._ucc,
            durability=self._durability,
            log=self._log,
        )

    async def _read(self, select: Callable[[sqlite3.Connection], Iterator[Row]]) -> list[Intent]:
        if self._file is None:
            raise JournalFailed(f"the journal {self.path} cannot be read: {self._why_closed}")
        return await asyncio.to_thread(
            read_intents, self.path, self._absolute_path, select, self._log
        )

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
        self._path_check = None
        self._lock = None
        self._why_closed = (
            "it was opened by the process that this one was forked off, and only that one writes "
            "it: open a journal with another file here"
        )

    def _now(self) -> int:
        return int(self._clock() * 1e9)

    def _intent(
        self, action: str, form: object, client_tag: str, order_number: str
    ) -> tuple[int, Write]:
        text = _form.encode(form).decode()
        intent = self._last + 1
        row = (intent, self._now(), self._ucc, action, client_tag, order_number, text)
        self._last = intent
        return intent, (INSERT_INTENT, row)

    async def _written(self, intent: int, write: Write) -> None:
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
            self._schedule_checkpoint()

    def _schedule_checkpoint(self) -> None:
        assert self._loop is not None
        self._checkpoint_timer = self._loop.call_later(
            IDLE_BEFORE_CHECKPOINT_SECONDS, self._begin_checkpoint_if_idle, self._writes
        )

    def _begin_checkpoint_if_idle(self, writes: int) -> None:
        self._checkpoint_timer = None
        is_busy = self._checkpoint is not None and self._checkpoint.is_alive()
        is_idle_now = writes == self._writes
        if is_busy or not (
            is_idle_now or self._writes - self._moved >= MAX_WRITES_BETWEEN_CHECKPOINTS
        ):
            self._schedule_checkpoint()
            return
        if self._writer is not None and (write := self._resolved_write(self._writer)) is not None:
            self._writer.put(write)
        if self._path_check is not None:
            self._path_check.check(asyncio.get_running_loop().time())
        self._moved = self._writes
        self._checkpoint = threading.Thread(
            target=checkpoint, args=(self._absolute_path, self._log), name="journal checkpoint"
        )
        self._checkpoint.start()

    def _resolved_write(self, writer: LoopWriter | ThreadWriter) -> Write | None:
        """Return the write that lets the next login look for open intents from a later one on; None
        while there is no later one.

        None as well while something waits to be written: an outcome that is lost must not be among
        those that the next login leaves out.
        """
        if not writer.is_idle:
            return None
        still_open = self._under_way | self._unresolved | writer.lost
        resolved_up_to = min(still_open, default=self._last + 1) - 1
        if resolved_up_to <= self._resolved_up_to:
            return None
        self._resolved_up_to = resolved_up_to
        return WRITE_SETTLED, (self._ucc, resolved_up_to)
