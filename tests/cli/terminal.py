"""A command that lives at a terminal until somebody interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence


def interrupted(command: Sequence[str], *, at: bytes) -> tuple[int, bytes]:
    """The exit code and all that was shown, when SIGINT came as soon as `at` was.

    POSIX only. The terminal has 24 lines of 80 columns.
    """
    import fcntl
    import pty
    import struct
    import termios

    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while at not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while chunk := _read(ours):
            shown += chunk
        process.wait(10)
    os.close(ours)
    return process.returncode, shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""
