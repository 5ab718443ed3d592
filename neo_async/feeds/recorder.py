"""Recordings: the messages of a feed in a file, written without delaying the loop or the feed.

The loop only appends bytes to a block: 0.5 µs for a packet of 54 bytes, 1.4 µs for 50 of them in a
message, on the machine of the benchmarks. Packing and writing happen in a thread of the
recording's own, a block at a time; the format is that of wire/recording.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from neo_async.base import logs
from neo_async.base.logs import Log, logger_of
from neo_async.errors import UsageError
from neo_async.system import files
from neo_async.wire.recording import BLOCK_BYTES, FILE_HEADER, BlockBuilder, encode_block

BLOCK_SECONDS = 1.0
"""Seconds after which a block is written although it is not full."""
BACKLOG = 16 << 20
"""Unpacked bytes that may wait for the disk; beyond them, frames are dropped until half of it is
written."""


class Recording:
    """A file of a feed's messages: begun by `feed.record(path)`, ended by `close`.

    A process that is killed loses the messages of the last second. When the disk fails, the
    recording ends there and `error` holds the reason; the feed goes on.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
        greeting: Callable[[], Iterable[str]],
        on_end: Callable[[Recording], None],
        log: Log | None = None,
    ) -> None:
        """`greeting` returns the texts without which the frames that come next cannot be read;
        `on_end` is called when the recording takes no more."""
        self.path = Path(path)
        self.frames = 0
        """Number of messages taken so far, the server's answers to new connections included."""
        self.bytes = 0
        """Size of these messages."""
        self.dropped = 0
        """Number of messages left out because the disk was too slow."""
        self.error: OSError | None = None
        """The error that ended the recording; None while there is none."""
        self._log = log or logger_of(logs.FEEDS)
        self._greeting = greeting
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._block = BlockBuilder()
        self._timer: asyncio.TimerHandle | None = None
        self._after_gap = True
        self._is_overloaded = False
        self._open = True
        # Bytes given to the thread, bytes it has finished, and the size of the file. Only the loop
        # writes the first, only the thread the others: none needs a lock.
        self._submitted = 0
        self._done = 0
        self._stored = len(FILE_HEADER)
        self._file = _create(self.path, overwrite)
        self._writer = ThreadPoolExecutor(1, "feed recording")
        self._finished: Future[None] | None = None
        self.greet()

    @property
    def is_open(self) -> bool:
        """Whether the recording still takes frames."""
        return self._open

    @property
    def bytes_stored(self) -> int:
        """Size of the file in bytes."""
        return self._stored

    def add(self, content: bytes | str) -> None:
        """Take a message that has just arrived."""
        if not self._open:
            return
        if self._is_overloaded and not self._has_caught_up():
            self.dropped += 1
            return
        self._after_gap = False
        self._append(content)
        self.frames += 1
        self.bytes += len(content)

    def greet(self) -> None:
        """Write the texts with which a connection begins."""
        for text in self._greeting():
            self.add(text)

    def mark_gap(self) -> None:
        """Write that frames are missing from here on until the next one."""
        if self._open and not (self._after_gap or self._is_overloaded):
            self._after_gap = True
            self._append(None)

    async def close(self) -> None:
        """Write what is pending, and wait until it is in the file. An error of the disk is not
        raised here: `error` has it."""
        if self._finished is None:
            self._finished = self._end()
        await asyncio.shield(asyncio.wrap_future(self._finished))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = f"ended by {self.error!r}" if self.error else "open" if self._open else "closed"
        return (
            f"<Recording {self.path}, {state}: {self.frames} frames, {self.bytes} bytes "
            f"in {self.bytes_stored}, {self.dropped} dropped>"
        )

    # --- on the loop --------------------------------------------------------------------------

    def _append(self, content: bytes | str | None) -> None:
        block = self._block
        block.add(time.time_ns(), content)
        if block.size >= BLOCK_BYTES:
            self._submit_block()
        elif self._timer is None:
            self._timer = self._loop.call_later(BLOCK_SECONDS, self._submit_block)

    def _submit_block(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._block.size:
            return
        first_ns, records = self._block.take()
        self._submitted += len(records)
        self._is_overloaded = self._submitted - self._done > BACKLOG
        self._writer.submit(self._write, first_ns, records)

    def _has_caught_up(self) -> bool:
        """Return whether the disk has caught up; if so, the frames go on behind a gap."""
        if self._submitted - self._done > BACKLOG // 2:
            return False
        self._log.warning(
            "recording %s: the disk was slow, %d frames lost", self.path, self.dropped
        )
        self._is_overloaded = False
        self.mark_gap()
        self.greet()
        return True

    def _end(self) -> Future[None]:
        """Take no more frames, and return the future that is done when the file is closed."""
        self._open = False
        self._on_end(self)
        self._submit_block()
        finished = self._writer.submit(self._finish)
        self._writer.shutdown(wait=False)
        return finished

    def _fail(self) -> None:
        self._log.error("recording %s ends, the feed goes on: %s", self.path, self.error)
        if self._finished is None:
            self._finished = self._end()

    # --- in the thread ------------------------------------------------------------------------

    def _write(self, first_ns: int, records: bytearray) -> None:
        if self.error is None:
            with self._noting_errors():
                rest = memoryview(encode_block(first_ns, records))
                while rest:
                    count = self._file.write(rest)
                    self._stored += count
                    rest = rest[count:]
        self._done += len(records)

    def _finish(self) -> None:
        with self._noting_errors():
            try:
                if self.error is None:
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.error is None:
                self.error = error
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._fail)


def _create(path: Path, overwrite: bool) -> FileIO:
    mode = os.O_TRUNC if overwrite else os.O_EXCL
    try:
        # The file shows what its owner trades: only the owner may read it.
        file = FileIO(files.open_private(path, os.O_WRONLY | os.O_CREAT | mode), "w")
        try:
            file.write(FILE_HEADER)
        except OSError:
            file.close()
            raise
    except FileExistsError:
        raise UsageError(
            f"{path} exists already: record to another file, or with overwrite=True"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot record to {path}: {error.strerror}") from error
    except ValueError as error:  # a name with a zero byte, or half of a character
        raise UsageError(f"cannot record to {str(path)!r}: {error}") from error
    return file
