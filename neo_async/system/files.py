"""Files that are replaced whole or not at all, and files that are private to their owner.

A private file is a regular file of the caller's own that no other user can read or write, from the
moment it exists. Every private file is opened in one of three ways: `read_private` for a file that
is read in one piece (or `read_if_private`, which says why one is refused), `open_private` for one
that is worked with through its descriptor, and `make_private` before a library such as SQLite opens
it by its name. `open_regular` is for the files of others that a user names for reading.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

_KEPT_DAYS: Final = 14
"""Days without a write after which a cached file is removed: its server is not in use."""
_DAY: Final = 86_400.0

# Opening a FIFO would wait for its other end, and a link may lead to a file of another user.
# Windows has neither flag, but one against its translation of line ends.
_SAFELY: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)

_LINK: Final = "is a symbolic link: the file itself has to be named"
_NO_FILE: Final = "is not a regular file"


class NotPrivate(OSError):
    """A file is not private to the caller; `strerror` holds the reason and the remedy."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, f"{path.name} {why}", str(path))


def replace(path: Path, blocks: Iterable[bytes]) -> None:
    """Replace a file at once, or not at all; its owner alone can read it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with mode 0600, under a name of its own: no reader sees half a file.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(handle, "wb") as file:
            file.writelines(blocks)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_private(path: Path) -> bytes | None:
    """Return the content of a private file; None when there is none, or another user could have
    read or written it. Raises OSError."""
    try:
        return read_if_private(path)
    except (FileNotFoundError, NotPrivate):
        return None


def read_if_private(path: Path) -> bytes:
    """Return the content of a private file.

    Raises NotPrivate when another user could have read or written it, and for a link or what is
    not a regular file; and any other OSError, such as FileNotFoundError.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPrivate(path, _LINK) from error
        if error.errno == errno.ENXIO:
            raise NotPrivate(path, _NO_FILE) from error
        raise
    try:
        state = os.fstat(handle)
        why = _objection(state)
        if why is None and _is_shared(state):
            mode = stat.S_IMODE(state.st_mode)
            why = f"can be read by other users (mode {mode:o}): close it to them (chmod 600)"
        if why is not None:
            raise NotPrivate(path, why)
    except BaseException:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        return file.read()


def open_regular(path: Path) -> BinaryIO:
    """Open a file that the user has named for reading, with any owner and through links.

    Raises OSError, for what is not a regular file too: opening a FIFO would wait for its writer.
    """
    handle = os.open(path, os.O_RDONLY | _SAFELY & ~getattr(os, "O_NOFOLLOW", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} {_NO_FILE}", str(path))
    return open(handle, "rb")


def open_private(path: Path, flags: int) -> int:
    """Open a private file and return its descriptor, which the caller closes; `flags` are those of
    `os.open`. With `O_CREAT` a missing file is created with mode 0600.

    An existing file of the caller that others can read is closed to them. Raises NotPrivate for a
    link, for what is not a regular file, and for a file that others own or can write, which is
    left as it was; and any other OSError.
    """
    try:
        # Cut off only when it is known whose it is.
        handle = os.open(path, flags & ~os.O_TRUNC | _SAFELY, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPrivate(path, _LINK) from error
        if error.errno == errno.ENXIO:
            raise NotPrivate(path, _NO_FILE) from error
        raise
    try:
        state = os.fstat(handle)
        if (why := _objection(state)) is not None:
            raise NotPrivate(path, why)
        if _is_shared(state):
            os.fchmod(handle, 0o600)
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_private(path: Path, *, create: bool = True) -> None:
    """Prepare a private file for a library that opens it by its name: with `create` a missing file
    is created, empty and with mode 0600; an existing one is treated as by `open_private`.

    It does not open a file that exists: closing a descriptor would take away the locks that this
    process has on the file. Raises as `open_private`.
    """
    if create:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            return
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    if (why := _objection(state)) is not None:
        raise NotPrivate(path, why)
    if _is_shared(state):
        path.chmod(0o600)


def _is_shared(state: os.stat_result) -> bool:
    """Return whether other users may read or write a file."""
    return os.name == "posix" and bool(stat.S_IMODE(state.st_mode) & 0o077)


def _objection(state: os.stat_result) -> str | None:
    """Return why a file is not the caller's own to use; None when it is."""
    if stat.S_ISLNK(state.st_mode):
        return _LINK
    if not stat.S_ISREG(state.st_mode):
        return _NO_FILE
    if os.name != "posix":
        return None
    if state.st_uid != os.getuid():
        return f"belongs to user {state.st_uid}, not to user {os.getuid()} who runs this"
    if state.st_mode & stat.S_IWOTH:
        return (
            f"can be written by every user (mode {stat.S_IMODE(state.st_mode):o}): "
            "take it away from them (chmod 600) once its content is known to be right"
        )
    return None


def remove_old(directory: Path, *patterns: str) -> None:
    """Remove files that were not written for two weeks. Those that cannot be removed stay."""
    oldest = time.time() - _KEPT_DAYS * _DAY
    for pattern in patterns:
        for path in directory.glob(pattern):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
