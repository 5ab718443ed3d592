"""The question before anything is sent that cannot be taken back."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer

from neo_async.errors import UsageError

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(what: str, whom: object, *, yes: bool) -> None:
    """Say what will be sent to whom and ask. Leaves the command when the answer is no."""
    if yes:
        return
    typer.echo(f"{what}\nfor {whom}", err=True)
    if not _can_ask():
        raise UsageError("nothing was sent: stdin is no terminal to ask at; --yes sends unasked")
    try:
        is_wanted = typer.confirm("Send it?", err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        typer.echo(err=True)
        is_wanted = False
    if not is_wanted:
        typer.echo("nothing was sent", err=True)
        raise typer.Exit(1)


def _can_ask() -> bool:
    return sys.stdin.isatty()
