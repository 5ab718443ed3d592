"""Before something is sent: what it is, and for whom; and what an interruption leaves open."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from neo_async.cli import output
from neo_async.errors import UsageError

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(what: str, who: object, *, yes: bool) -> None:
    """Say what will be sent for whom, and ask. Leaves the command when the answer is no."""
    if yes:
        return
    output.echo(what, err=True)
    output.echo(f"for {who}", err=True)
    if not can_ask():
        raise UsageError("nothing was sent: stdin is no terminal to ask at; --yes sends unasked")
    try:
        is_wanted = typer.confirm("Send it?", err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        output.echo(err=True)
        is_wanted = False
    if not is_wanted:
        output.echo("nothing was sent", err=True)
        raise typer.Exit(1)


def can_ask() -> bool:
    return sys.stdin.isatty()


@contextlib.contextmanager
def interruption_told(what: str, command: str) -> Iterator[None]:
    """Ctrl-C while a request is on its way takes nothing back: say so. `command` shows what became
    of it."""
    try:
        yield
    except asyncio.CancelledError:
        output.echo(
            f"interrupted: {what} may have been sent; {command} shows what became of it", err=True
        )
        raise
