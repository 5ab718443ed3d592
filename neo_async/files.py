"""Files that are whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_KEPT_DAYS: Final = 14
"""Files that nobody has written for so long are those of servers that nobody uses."""
_DAY: Final = 86_400.0


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


def remove_old(directory: Path, *patterns: str) -> None:
    """Tidy up among files that are made anew every day. What cannot be removed stays."""
    oldest = time.time() - _KEPT_DAYS * _DAY
    for pattern in patterns:
        for path in directory.glob(pattern):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
