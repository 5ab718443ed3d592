"""`neo-async demo`: the whole order path on a live screen, in ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.exchange import ScripMaster
from neo_async.cli.parameters import new_file, whole_number

if TYPE_CHECKING:
    from rich.live import Live

    from neo_async.cli.demo.report import Report
    from neo_async.cli.demo.run import DemoRun

_LONGEST = 19.0
_FRAME = 0.1
_PIPE_WIDTH = 80
_SVG_WIDTH, _SVG_HEIGHT = 100, 43


def demo(
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number(),
            metavar="NUMBER",
            help="The same seed gives the same market.",
        ),
    ] = 7,
    scripmaster: ScripMaster = None,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=new_file, help="Draw the final screen into a file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end and nothing else.")
    ] = False,
) -> None:
    """Watch orders trade, without an account.

    Starts the embedded exchange, logs in over real sockets, sends a burst of orders through the
    rate limiter, changes and cancels some, and lets some fill. Everything is then checked against
    the exchange's own records: exit code 1 when anything does not agree.
    """
    try:
        demo_run, report = neo_async.run(_demo(seed, scripmaster or [], as_json=as_json))
    except TimeoutError:
        output.echo(f"neo-async demo: not at its end after {_LONGEST:.0f} s", err=True)
        raise typer.Exit(1) from None
    if svg is not None:
        _draw(svg, demo_run, report)
    if as_json:
        output.print_json(report)
    for problem in report.problems:
        output.echo(f"neo-async demo: {problem}", err=True)
    if report.problems:
        raise typer.Exit(1)


async def _demo(seed: int, scripmaster: list[Path], *, as_json: bool) -> tuple[DemoRun, Report]:
    from rich.live import Live

    from neo_async.cli.demo.report import summary
    from neo_async.cli.demo.run import DemoRun
    from neo_async.cli.demo.screen import board, final_board
    from neo_async.exchange import Exchange

    console = output.console()
    live = console.is_terminal and not as_json
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="neo-async-demo-"))
        await stack.enter_async_context(asyncio.timeout(_LONGEST))
        exchange = await stack.enter_async_context(Exchange(seed=seed, scripmaster=scripmaster))
        demo_run = DemoRun(
            exchange,
            seed=seed,
            scripmaster=scripmaster,
            pause=1.0 if live else 0.0,
            directory=Path(directory),
        )
        if as_json:
            return demo_run, await demo_run.run()
        if not live:
            demo_run.on_event = _print_event
            report = await demo_run.run()
        else:
            with Live(console=console, auto_refresh=False, transient=True) as screen:
                painter = asyncio.create_task(_paint(demo_run, screen, board), name="demo screen")
                try:
                    report = await demo_run.run()
                finally:
                    painter.cancel()
                    await asyncio.gather(painter, return_exceptions=True)
    console.print(final_board(demo_run, console.width))
    console.print(summary(report))
    return demo_run, report


async def _paint(
    demo_run: DemoRun, screen: Live, board: Callable[[DemoRun, int, int], Any]
) -> None:
    """Draw ten times a second, at moments in which no request is on its way: drawing takes
    milliseconds, which would be counted as the exchange's."""
    while True:
        if demo_run.in_flight > 0:
            await asyncio.sleep(0.002)
            continue
        size = screen.console.size
        screen.update(board(demo_run, size.width, size.height), refresh=True)
        await asyncio.sleep(_FRAME)


def _print_event(elapsed: float, text: str) -> None:
    line = f"{elapsed:6.2f} s  {text}"
    for part in textwrap.wrap(line, _PIPE_WIDTH, subsequent_indent=" " * 10):
        output.echo(part)


def _draw(file: Path, demo_run: DemoRun, report: Report) -> None:
    """Draw the last board and the summary as a picture."""
    from rich.console import Group

    from neo_async.cli.demo.report import summary
    from neo_async.cli.demo.screen import board

    console = output.console(record=True, width=_SVG_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Group(board(demo_run, _SVG_WIDTH, _SVG_HEIGHT), "", summary(report)))
    file.write_text(console.export_svg(title="neo-async demo"), encoding="utf-8")
