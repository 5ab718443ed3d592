"""The `neo-async` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Entry point of `neo-async` and of `python -m neo_async`."""
    # A terminal that knows no box or arrow characters shows question marks instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    from neo_async.cli.app import app

    app(prog_name="neo-async")
