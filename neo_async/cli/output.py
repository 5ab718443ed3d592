"""The output of commands: tables, JSON, notes and progress bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import typer

from neo_async.base.text import shown, shown_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

T = TypeVar("T")

UNKNOWN = "unknown"
NOTHING = "-"

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

PIPE_WIDTH = 200
"""Width without a terminal, in columns: a row of a table is then one line for its reader."""

_ANY_WIDTH = 10_000

_STATUS_STYLES = {
    "complete": "green",
    "rejected": "red",
    "cancelled": "dim",
    "cancelled after market order": "dim",
    "open": "cyan",
    "trigger pending": "cyan",
    "unknown": "yellow",
}


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    is_number: bool = False
    is_whole: bool = False
    """Whether cells are never broken into lines, because users copy them."""
    is_optional: bool = False
    """Whether the column is left out when all its cells are empty."""
    is_spare: bool = False
    """Whether the column is left out when the terminal is too narrow."""


class Cell(NamedTuple):
    text: str
    style: str = ""


def money(amount: float | None) -> str:
    """Return rupees as `1,234.50`; an unknown amount is not shown as 0."""
    return UNKNOWN if amount is None else f"{amount:z,.2f}"


def amount_cell(amount: float | None) -> Cell:
    return Cell(money(amount), "yellow" if amount is None else "")


def units(quantity: int | None) -> str:
    return UNKNOWN if quantity is None else f"{quantity:,}"


def profit(amount: float | None) -> Cell:
    if amount is None:
        return Cell(UNKNOWN, "yellow")
    return Cell(f"{amount:+,.2f}" if round(amount, 2) else "0.00", profit_style(amount))


def profit_style(amount: float) -> str:
    if not round(amount, 2):
        return ""
    return "green" if amount > 0 else "red"


def limit_price(price: float | None) -> str:
    """Return a price; the broker sends 0 for none."""
    return money(price) if price else NOTHING


def status(text: str) -> Cell:
    return Cell(text, _STATUS_STYLES.get(text, ""))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> None:
    """Print a table. In a narrow terminal, cells are broken between words; where that does not
    suffice, rows are longer than a line, and can still be copied."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    used = [
        number
        for number, column in enumerate(columns)
        if not column.is_optional or any(row[number].text != NOTHING for row in cells)
    ]
    console = _console()
    table = _table(columns, cells, used)
    if _widths(console, table).maximum > console.width:
        table = _table(columns, cells, [one for one in used if not columns[one].is_spare])
    widths = _widths(console, table)
    if widths.minimum > console.width:
        console.width = widths.maximum
    console.print(table)


def _cell(cell: str | Cell) -> Cell:
    """Return a cell with control characters escaped: its text may be untrusted."""
    return Cell(shown(cell.text), cell.style) if isinstance(cell, Cell) else Cell(shown(cell))


def _table(columns: Sequence[Column], rows: list[list[Cell]], used: list[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for number in used:
        column = columns[number]
        table.add_column(
            shown(column.heading),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number or column.is_whole,
            overflow="fold",
        )
    for row in rows:
        # Text, so that square brackets in the broker's texts are not taken for markup.
        table.add_row(*(Text(row[number].text, style=row[number].style) for number in used))
    return table


def _widths(console: Console, table: Table) -> Measurement:
    """Return the smallest and the natural width of a table, whatever the terminal's width."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), table)


def print_report(
    rows: list[T], print_rows: Callable[[list[T]], None], *, empty: str, as_json: bool
) -> None:
    """Print rows as JSON or as a table, or the text `empty` when there are none."""
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(rows)
    else:
        echo(empty)


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        echo(note)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one line with control characters escaped. Use this, not `typer.echo`, for everything
    but JSON."""
    typer.echo(shown(str(text)), err=err)


def print_json(value: object) -> None:
    typer.echo(shown_json(msgspec.json.encode(plain(value)).decode()))


def plain(value: Any) -> Any:
    """Return structs as dicts by their field names; encoding them would give the wire's names. A
    missing field of a report's row is null, not its default."""
    if isinstance(value, msgspec.Struct):
        missing = getattr(value, "missing", ())
        return {
            name: None if name in missing else plain(getattr(value, name))
            for name in value.__struct_fields__
            if name not in ("missing", "odd")
        } | ({"odd": list(odd)} if (odd := getattr(value, "odd", ())) else {})
    if isinstance(value, list):
        return [plain(item) for item in value]
    # Rounded, to remove binary fractions: no amount, price or percentage has more decimals.
    return round(value, 6) if isinstance(value, float) else value


def console(**options: Any) -> Console:
    """Return a rich console that is safe for untrusted text."""
    from neo_async.cli.console import ShownConsole

    return ShownConsole(highlight=False, **options)


@contextlib.contextmanager
def progress_bar(
    what: str, *, visible_above: int = 0, is_bytes: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows how much of a total is done, on stderr if it is a terminal.

    The bar is invisible up to a total of `visible_above`.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn() if is_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def show(done: int, total: int | None) -> None:
            is_visible = total is None or total > visible_above
            bar.update(task, completed=done, total=total, visible=is_visible)

        yield show


def _console() -> Console:
    return console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
