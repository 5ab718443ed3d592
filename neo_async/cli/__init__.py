"""The `neo-async` command."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Entry point of `neo-async` and of `python -m neo_async`."""
    _open_closed_streams()
    # A terminal without box or arrow characters shows question marks instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    from neo_async.cli.app import app

    app(prog_name="neo-async")


def _open_closed_streams() -> None:
    """Open closed standard streams on the null device. Otherwise a socket would get the number of
    one, and uvloop ends the process when that is closed, maybe with an order on its way."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one: those below are open by now.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - stays open
