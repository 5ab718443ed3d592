"""`neo-async watch`: prices, orders, positions and the state of the feeds, as they move."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import Account, Fresh, halt_on_sigusr1
from neo_async.cli.naming import HELP, checked_name, read_keys
from neo_async.cli.parameters import choice_option, existing_file, seconds
from neo_async.model.enums import Level

if TYPE_CHECKING:
    from rich.console import Console

    from neo_async.cli.watch.state import Watched

_OFTENEST, _RAREST = 0.25, 3600.0
"""Shortest and longest interval between two updates of the screen, in seconds."""
_BETWEEN_LINES = 1.0


class _LevelName(StrEnum):
    LITE = "lite"
    SCRIP = "scrip"
    DEPTH = "depth"

    @property
    def level(self) -> Level:
        return Level[self.name]


def watch(
    instruments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INSTRUMENT",
            parser=checked_name,
            help=f"{HELP} By default those of open positions and orders, else a few that trade a "
            "lot.",
        ),
    ] = None,
    level: Annotated[
        _LevelName,
        choice_option(
            _LevelName,
            "--level",
            metavar="LEVEL",
            help="Price alone, with the best bid and ask, or with five of each:",
        ),
    ] = _LevelName.SCRIP,
    refresh: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=seconds(_OFTENEST, _RAREST),
            help=f"Between two looks: by default {_OFTENEST} on a screen, {_BETWEEN_LINES:g} for "
            "lines.",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=existing_file,
            help="Show the exit plans in the journal of a bot or a command, which goes on writing.",
        ),
    ] = None,
    fresh: Fresh = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a look, a line each.")
    ] = False,
) -> None:
    """Watch prices, orders and positions live until Ctrl-C. SIGUSR1 cancels every open order.

    Where stdout is not a terminal, each update is one line instead of a screen.

    neo-async watch RELIANCE nse_cm:1333 'nse_cm:Nifty 50'
    """
    account = Account()
    names = read_keys(account, instruments or [])
    show = _way_to_show(refresh, as_json=as_json)
    neo_async.run(_watch(account, names, level.level, show, journal=journal, fresh=fresh))


async def _watch(
    account: Account,
    names: list[str],
    level: Level,
    show: Callable[[Watched], Awaitable[None]],
    *,
    journal: Path | None,
    fresh: bool,
) -> None:
    """Run until interrupted, and then end without an error."""
    from neo_async.cli.watch.state import Watched

    this = asyncio.current_task()
    assert this is not None
    with contextlib.suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    # Ctrl-C cancels this task, too: that is how asyncio treats it.
    with contextlib.suppress(asyncio.CancelledError):
        async with (
            account.connect(fresh=fresh) as neo,
            Watched(neo, names, level, journal=journal) as watched,
        ):
            halt_on_sigusr1(neo)
            await show(watched)


def _way_to_show(refresh: float | None, *, as_json: bool) -> Callable[[Watched], Awaitable[None]]:
    console = output.console()
    if as_json or not sys.stdout.isatty() or console.is_dumb_terminal:
        every = refresh or _BETWEEN_LINES
        return lambda watched: _show_lines(watched, every, as_json=as_json)
    return lambda watched: _show_screen(watched, console, refresh or _OFTENEST)


async def _show_screen(watched: Watched, console: Console, every: float) -> None:
    from rich.live import Live

    from neo_async.cli.watch.screen import board

    with watched.warnings_noted(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            await watched.look()
            size = console.size
            live.update(board(watched, size.width, size.height))
            # A terminal that takes nothing, at the end of a bad line, must not stop the feeds.
            await asyncio.to_thread(live.refresh)
            await asyncio.sleep(every)


async def _show_lines(watched: Watched, every: float, *, as_json: bool) -> None:
    from neo_async.cli.watch.lines import plain_line, snapshot

    while True:
        await asyncio.sleep(every)
        await watched.look()
        if as_json:
            await asyncio.to_thread(output.print_json, snapshot(watched))
        else:
            await asyncio.to_thread(output.echo, plain_line(watched))
