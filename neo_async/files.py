"""Files that are whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path


def replace(path: Path, blocks: Iterable[bytes]) -> None:
    """Replace a file at once, or not at all; its owner alone can read it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with mode 0600, under a name of its own: nobody sees half a file.
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
    """A file that nobody but its owner, who is the caller, can have read; None when there is none,
    or it is not like that. Raises OSError."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        state = os.fstat(file.fileno())
        if os.name == "posix" and (
            stat.S_IMODE(state.st_mode) & 0o077 or state.st_uid != os.getuid()
        ):
            return None
        return file.read()
