"""Locks between processes: a file of its own, held until it is released or the process ends.

The lock belongs to an open file, and so to every process that was forked off the holder, until that
closes it. A forked process therefore closes all locks at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from pathlib import Path

from neo_async.system import files

forking = threading.RLock()
"""Lock that is held while a process is forked off, so that none is forked between the opening of a
lock file and its entry in `_descriptors`."""
_descriptors: set[int] = set()
"""Descriptors of the lock files that this process holds."""


class Held(Exception):
    """Another process has the lock; its text is that process's id."""


def hold(beside: Path) -> int:
    """Lock a file for as long as this process lives, or until `release`.

    Raises Held when another process has it; OSError when it cannot be locked at all.
    """
    with forking:
        descriptor = files.open_private(beside, os.O_RDWR | os.O_CREAT)
        _descriptors.add(descriptor)
    try:
        _lock(descriptor)
    except OSError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "another one"
        release(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise Held(owner) from None
        raise
    with contextlib.suppress(OSError):  # a full disk: the number is for the message only
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def release(descriptor: int) -> None:
    """Release a lock. In a process that was forked off its holder, this does nothing."""
    with forking:
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            os.close(descriptor)


def _leave_to_parent() -> None:
    """Give up all locks in a process that was forked off their holder."""
    try:
        for descriptor in _descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _descriptors.clear()
    finally:
        forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=forking.acquire,
        after_in_parent=forking.release,
        after_in_child=_leave_to_parent,
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Behind what is written: Windows forbids others even to read what is locked.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
