"""The writers of a journal: they commit intents, outcomes and halts to the open file.

`LoopWriter` commits in the event loop, where a commit does not wait for the disk; `ThreadWriter`
commits in a thread, for a file whose commits do. Both keep what cannot be written in a backlog, and
try again: an intent until its caller is refused, an outcome until there are too many of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from neo_async.base.logs import Log, Subject, log_order
from neo_async.execution.journal_file import FAILURES, commit
from neo_async.execution.journal_schema import (
    INSERT_INTENT,
    SELECT_SUBJECT,
    UPDATE_OUTCOME,
    Write,
)

OUTCOME_DELAY_SECONDS = 0.01
"""Time after which an outcome is written that no intent has followed."""
WRITE_TIMEOUT_SECONDS = 0.25
"""Time from the first failed write until an intent is given up: it is not sent then. An outcome
that cannot be written for so long is logged, and kept."""
RETRY_INTERVAL_SECONDS = 0.01
"""Time between two tries to write while a caller waits."""
OUTCOME_RETRY_INTERVAL_SECONDS = 0.1
"""Time between two tries to write while only outcomes are to be written."""
MAX_WRITES_PER_COMMIT = 500
"""Bound of one commit, which takes about 3 ms of the event loop."""
MAX_SINGLE_WRITES = 50
"""Number of writes, at most, that are tried each in a commit of its own after one of them cannot be
written."""
MAX_KEPT_OUTCOMES = 50_000
"""Number of outcomes, at most, that are kept while the file cannot be written, about 25 MB."""
CLOSE_TIMEOUT_SECONDS = 1.0
"""Time for which `close` tries to write what is left."""

_CLOSED_TOO_SOON = sqlite3.OperationalError("it was closed before it could be written")

_OF_ONE_WRITE = (sqlite3.IntegrityError, UnicodeEncodeError, OverflowError)
"""Failures of what is written and not of the file: an id that another program took, a text or a
time that cannot be stored."""

_Queued = tuple[Write, asyncio.Future[None] | None]
"""A write, and what its caller waits for."""
_Put = tuple[Write, asyncio.Future[None] | None, bool]
"""A write, what its caller waits for, and whether the write is the halt."""


class _Failed:
    """A write that has failed, to be tried again."""

    __slots__ = ("due", "waiter", "write")

    def __init__(self, write: Write, waiter: asyncio.Future[None] | None, due: float) -> None:
        self.write = write
        self.waiter = waiter
        self.due = due
        """Time at which an intent is given up, and a kept write is logged."""


class _Backlog:
    """Writes that are not in the file yet. Intents whose caller waits come first."""

    def __init__(
        self,
        file: sqlite3.Connection,
        path: Path,
        announce: Callable[[list[asyncio.Future[None]], Exception | None], object],
        log: Log,
    ) -> None:
        self._file = file
        self._path = path
        self._notify = announce
        self._log = log
        self.fresh: list[_Queued] = []
        """Writes that were not tried yet."""
        self.halt: Write | None = None
        """The newest state of the halt, which is written before all else."""
        self._waiting: list[_Failed] = []
        """Failed writes for which a caller waits, oldest first."""
        self._kept: list[_Failed] = []
        """Failed writes for which no caller waits, oldest first."""
        self._logged = 0
        """Number of kept writes, from the first, that are logged as missing."""
        self.lost: set[int] = set()
        """The oldest intent whose outcome was given up, since too many were kept; empty when there
        is none."""
        self.has_failed = self._has_dropped = False
        self.is_writing = False
        """Whether a commit is under way: a signal handler may interrupt one."""

    @property
    def is_empty(self) -> bool:
        return not (self.fresh or self._waiting or self._kept or self.halt)

    @property
    def retry(self) -> float:
        """Seconds until the next try after one that failed."""
        return (
            RETRY_INTERVAL_SECONDS
            if self._waiting or self.halt is not None
            else OUTCOME_RETRY_INTERVAL_SECONDS
        )

    def commit_with(self, write: Write) -> bool:
        """Commit one write together with the fresh ones. Returns whether it worked; nothing is
        changed when it did not."""
        writes = [fresh for fresh, _ in self.fresh]
        writes.append(write)
        self.is_writing = True
        try:
            commit(self._file, writes)
            self.fresh.clear()
        except FAILURES:
            return False
        finally:
            self.is_writing = False
        return True

    def commit(self, now: float) -> bool:
        """Commit the first `MAX_WRITES_PER_COMMIT`. Returns whether it worked."""
        self.is_writing = True
        try:
            if self.has_failed or self.halt is not None or len(self.fresh) > MAX_WRITES_PER_COMMIT:
                self._commit_first()
            else:
                commit(self._file, [write for write, _ in self.fresh])
                waiters = [waiter for _, waiter in self.fresh if waiter is not None]
                self.fresh.clear()
                if waiters:
                    self._notify(waiters, None)
        except _OF_ONE_WRITE as error:
            # The others must not fail with it for ever: each is tried in a commit of its own.
            self._fail(error, now)
            self._commit_singly()
            return False
        except FAILURES as error:
            self._fail(error, now)
            return False
        finally:
            self.is_writing = False
        if self.has_failed and not (self._waiting or self._kept):
            self.has_failed = self._has_dropped = False
            self._log.warning("the journal %s is written again", self._path)
        return True

    def _commit_first(self) -> None:
        """Commit the halt, and of the others as many as are allowed, failed ones first."""
        waiting = self._waiting[:MAX_WRITES_PER_COMMIT]
        kept = self._kept[: MAX_WRITES_PER_COMMIT - len(waiting)]
        fresh = self.fresh[: MAX_WRITES_PER_COMMIT - len(waiting) - len(kept)]
        writes = [] if self.halt is None else [self.halt]
        writes += [failed.write for failed in (*waiting, *kept)]
        writes += [write for write, _ in fresh]
        commit(self._file, writes)
        self.halt = None
        del self._waiting[: len(waiting)], self._kept[: len(kept)], self.fresh[: len(fresh)]
        self._logged = max(0, self._logged - len(kept))
        waiters = [failed.waiter for failed in waiting if failed.waiter is not None]
        waiters += [waiter for _, waiter in fresh if waiter is not None]
        if waiters:
            self._notify(waiters, None)

    def _commit_singly(self) -> None:
        """Commit failed writes one by one, and give up each that cannot be stored."""
        before = len(self._kept)
        for failed_writes in (self._waiting, self._kept):
            for failed in failed_writes[:MAX_SINGLE_WRITES]:
                error: Exception | None = None
                try:
                    commit(self._file, [failed.write])
                except _OF_ONE_WRITE as failure:
                    error = failure
                    _log_missing(self._log, self._file, self._path, failed.write, error)
                except FAILURES:
                    break
                failed_writes.remove(failed)
                if failed.waiter is not None:
                    self._notify([failed.waiter], error)
        self._logged = max(0, self._logged - (before - len(self._kept)))

    def _fail(self, error: Exception, now: float) -> None:
        for write, waiter in self.fresh:
            failed = _Failed(write, waiter, now + WRITE_TIMEOUT_SECONDS)
            (self._kept if waiter is None else self._waiting).append(failed)
        self.fresh.clear()
        if not self.has_failed:
            self.has_failed = True
            self._log.warning(
                "the journal %s cannot be written at the moment: %s", self._path, error
            )
        self._give_up(error, now)
        while self._logged < len(self._kept) and self._kept[self._logged].due <= now:
            _log_missing(self._log, self._file, self._path, self._kept[self._logged].write, error)
            self._logged += 1
        if (excess := len(self._kept) - MAX_KEPT_OUTCOMES) > 0:
            self._drop(excess)

    def _give_up(self, error: Exception, now: float) -> None:
        """Fail the callers whose time is over."""
        if not self._waiting or self._waiting[0].due > now:
            return
        over = [failed for failed in self._waiting if failed.due <= now]
        self._waiting = [failed for failed in self._waiting if failed.due > now]
        for failed in over:
            _log_missing(self._log, self._file, self._path, failed.write, error)
        self._notify([failed.waiter for failed in over if failed.waiter is not None], error)

    def _drop(self, excess: int) -> None:
        if not self._has_dropped:
            self._has_dropped = True
            self._log.error(
                "the journal %s could not be written for so long that its oldest outcomes are "
                "dropped, more than %d: the next login resolves them",
                self._path,
                MAX_KEPT_OUTCOMES,
            )
        ends = [
            failed.write[1] for failed in self._kept[:excess] if failed.write[0] is UPDATE_OUTCOME
        ]
        self.lost.update(row[4] for row in ends if isinstance(row[4], int))
        self.lost = {min(self.lost)} if self.lost else set()
        del self._kept[:excess]
        self._logged = max(0, self._logged - excess)

    def missing(self, error: Exception) -> list[asyncio.Future[None]]:
        """Log what will never be written, each once, and return what the callers wait for."""
        for failed in (*self._waiting, *self._kept[self._logged :]):
            _log_missing(self._log, self._file, self._path, failed.write, error)
        for write, _ in self.fresh:
            _log_missing(self._log, self._file, self._path, write, error)
        waiters = [failed.waiter for failed in self._waiting if failed.waiter is not None]
        return waiters + [waiter for _, waiter in self.fresh if waiter is not None]

    def abandon(self) -> None:
        self.fresh.clear()
        self._waiting.clear()
        self._kept.clear()
        self.halt = None


class LoopWriter:
    """Commits a lone intent at once, and those that come while others are under way together at
    the end of the loop's turn. Outcomes, for which no caller waits, go with the next commit.

    No commit waits for the lock of another program: what could not be written is tried again."""

    def __init__(
        self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop, path: Path, log: Log
    ) -> None:
        self._loop = loop
        self._path = path
        self._backlog = _Backlog(file, path, _notify, log)
        self._turn: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        """Timer of the next write of outcomes that no intent has followed, or of the next try of
        what has failed."""

    @property
    def is_idle(self) -> bool:
        return self._backlog.is_empty

    @property
    def lost(self) -> set[int]:
        return self._backlog.lost

    def put(self, write: Write, waiter: asyncio.Future[None] | None = None) -> None:
        self._backlog.fresh.append((write, waiter))
        if waiter is not None:
            self._write_this_turn()
        elif self._later is None:
            self._later = self._loop.call_later(OUTCOME_DELAY_SECONDS, self._write_delayed)

    def put_soon(self, write: Write) -> None:
        """Commit it at the end of the turn."""
        self._backlog.fresh.append((write, None))
        self._write_this_turn()

    def put_halt(self, write: Write) -> None:
        """Commit it now, or before all else as soon as that is possible."""
        self._backlog.halt = write
        if self._backlog.is_writing:
            self._write_this_turn()
        else:
            self._write()

    def put_alone(self, write: Write) -> bool:
        """Commit it at once, unless others wait for the end of the turn or the file cannot be
        written. Returns whether that was done."""
        backlog = self._backlog
        if (
            self._turn is not None
            or backlog.has_failed
            or len(backlog.fresh) >= MAX_WRITES_PER_COMMIT
        ):
            return False
        return backlog.commit_with(write)

    async def close(self) -> None:
        self._cancel_timers()
        until = self._loop.time() + CLOSE_TIMEOUT_SECONDS
        while not self._backlog.is_empty:
            if self._backlog.commit(self._loop.time()):
                await asyncio.sleep(0)
            elif self._loop.time() >= until:
                break
            else:
                await asyncio.sleep(RETRY_INTERVAL_SECONDS)
        if not self._backlog.is_empty:
            _notify(self._backlog.missing(_CLOSED_TOO_SOON), _CLOSED_TOO_SOON)

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

    def _write_delayed(self) -> None:
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
        self._later = self._loop.call_later(backlog.retry, self._write_delayed)


class ThreadWriter:
    """Commits in a thread all that has come while the disk took the commit before."""

    def __init__(
        self, file: sqlite3.Connection, loop: asyncio.AbstractEventLoop, path: Path, log: Log
    ) -> None:
        self._loop = loop
        self._path = path
        self._backlog = _Backlog(file, path, self._notify, log)
        self._queue: queue.SimpleQueue[_Put | None] = queue.SimpleQueue()
        self._put = self._done = 0
        """Number of writes that were put, and of those that are in the file. The second belongs to
        the thread."""
        # A daemon: a program that ends without closing must not hang on it.
        self._thread = threading.Thread(target=self._run, name="journal writer", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        return self._put == self._done

    @property
    def lost(self) -> set[int]:
        return self._backlog.lost

    def put(self, write: Write, waiter: asyncio.Future[None] | None = None) -> None:
        self._put += 1
        self._queue.put((write, waiter, False))

    def put_soon(self, write: Write) -> None:
        self.put(write)

    def put_halt(self, write: Write) -> None:
        self._put += 1
        self._queue.put((write, None, True))

    def put_alone(self, write: Write) -> bool:
        return False  # the loop never waits for the disk

    async def close(self) -> None:
        """Return when everything is written, or cannot be."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        pass  # the thread has no counterpart in a forked process

    def _notify(self, waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
        # A loop that is closed has no caller waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_notify, waiters, error)

    def _run(self) -> None:
        backlog = self._backlog
        close_at = math.inf
        taken = 0
        wait: float | None = None
        while True:
            for queued in self._taken(wait):
                if queued is None:
                    close_at = time.monotonic() + CLOSE_TIMEOUT_SECONDS
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
                self._notify(backlog.missing(_CLOSED_TOO_SOON), _CLOSED_TOO_SOON)
                return
            else:
                wait = RETRY_INTERVAL_SECONDS

    def _taken(self, wait: float | None) -> Iterator[_Put | None]:
        """Yield all that has come; wait for the first up to `wait` seconds, or for ever."""
        with contextlib.suppress(queue.Empty):
            yield self._queue.get(timeout=wait)
            while True:
                yield self._queue.get_nowait()


def _log_missing(
    log: Log, file: sqlite3.Connection, path: Path, write: Write, error: Exception
) -> None:
    statement, row = write
    if statement is INSERT_INTENT:
        _, _, _, action, client_tag, order_number, _ = row
        subject = Subject(str(action), str(client_tag), str(order_number))
        log_order(log, logging.ERROR, subject, "not in the journal %s: %s", path, error)
    elif statement is UPDATE_OUTCOME:
        outcome, _, _, _, intent = row
        subject = _subject_of(file, intent)
        log_order(
            log, logging.ERROR, subject, "outcome (%s) not in the journal: %s", outcome, error
        )
    else:
        log.error("the state of account %s is not in the journal %s: %s", row[0], path, error)


def _subject_of(file: sqlite3.Connection, intent: object) -> Subject:
    """Return the request of an intent as the journal has it: what cannot be written can often be
    read."""
    with contextlib.suppress(*FAILURES):
        found = file.execute(SELECT_SUBJECT, (intent,)).fetchone()
        if found is not None:
            return Subject(*found)
    return Subject(f"intent {intent}")


def _notify(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
