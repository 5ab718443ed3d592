"""Confirmation before a request is sent, and the note after an interruption."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeAlias

import typer

from neo_async.cli import output
from neo_async.errors import UsageError
from neo_async.system.program import note_told

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(
    what: str | Sequence[str],
    account: object,
    *,
    yes: bool,
    note: str = "",
    question: str = "Send it?",
) -> None:
    """Show the request, or several of them a line each, a note about it and the account, and ask
    for confirmation. Exits when the answer is no. With `yes`, only the account is shown."""
    if yes:
        show_account(account)
        return
    for line in [what] if isinstance(what, str) else what:
        output.print_sentence(line, err=True)
    if note:
        output.print_sentence(note, err=True)
    output.echo(f"for {account}", err=True)
    if not can_prompt():
        raise UsageError("nothing was sent: stdin is not a terminal; --yes sends without asking")
    try:
        is_wanted = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        output.echo(err=True)
        is_wanted = False
    if not is_wanted:
        output.echo("nothing was sent", err=True)
        raise typer.Exit(1)


def show_account(account: object) -> None:
    """Show a person at a terminal which account a command is for, and whether it is paper or
    live."""
    if sys.stderr.isatty():
        output.echo_dim(f"for {account}")


def can_prompt() -> bool:
    """Return whether stdin is a terminal."""
    return sys.stdin.isatty()


@contextlib.contextmanager
def interruption_reported(what: str, command: str) -> Iterator[None]:
    """Report on Ctrl-C that a request may have been sent; `command` shows its outcome."""
    try:
        yield
    except asyncio.CancelledError:
        tell_interruption(f"{what} may have been sent; {command} shows its outcome")
        raise


def tell_interruption(left: str) -> None:
    """Say what an interruption leaves at the broker, instead of the program's own line."""
    output.print_sentence(f"interrupted: {left}", err=True)
    note_told()
