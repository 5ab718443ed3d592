"""How results look: tables for people, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import msgspec
import typer

from neo_async.text import shown, shown_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

UNKNOWN = "unknown"
NOTHING = "-"

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

PIPE_WIDTH = 200
"""Columns where no terminal sets them: a row of a table is then one line, whatever reads it."""

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
    heading: str
    is_number: bool = False
    is_whole: bool = False
    """Never broken into lines: what people copy."""
    is_optional: bool = False
    """Left out where no row has anything in it."""
    is_spare: bool = False
    """Left out where the terminal is too narrow for it."""


class Cell(NamedTuple):
    text: str
    style: str = ""


def money(amount: float | None) -> str:
    """Rupees, `1,234.50`; an amount that nobody knows is not 0."""
    return UNKNOWN if amount is None else f"{amount:,.2f}"


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
    """A price of 0 is the broker's way of saying that there is none."""
    return money(price) if price else NOTHING


def status(text: str) -> Cell:
    return Cell(text, _STATUS_STYLES.get(text, ""))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> None:
    """In a terminal that is too narrow, cells break between their words; where that does not help,
    rows are longer than a line, and can still be copied."""
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
    """Cells hold words of others, which must be seen and not act on the terminal."""
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
        # Text, so that square brackets in the broker's words are not taken for markup.
        table.add_row(*(Text(row[number].text, style=row[number].style) for number in used))
    return table


def _widths(console: Console, table: Table) -> Measurement:
    """At least and at most, whatever the width of the terminal."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), table)


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        echo(note)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one line. What others have written into it is seen and cannot act: use this, not
    `typer.echo`, for everything but JSON."""
    typer.echo(shown(str(text)), err=err)


def print_json(value: object) -> None:
    typer.echo(shown_json(msgspec.json.encode(plain(value)).decode()))


def plain(value: Any) -> Any:
    """Structs as dicts of their own field names; encoding them would give the wire's. What a
    report's row lacks is null, not the default of its field."""
    if isinstance(value, msgspec.Struct):
        missing = getattr(value, "missing", ())
        return {
            name: None if name in missing else plain(getattr(value, name))
            for name in value.__struct_fields__
            if name not in ("missing", "odd")
        } | ({"odd": list(odd)} if (odd := getattr(value, "odd", ())) else {})
    if isinstance(value, list):
        return [plain(item) for item in value]
    # Without the residue of binary fractions: no amount, price or percentage has more decimals.
    return round(value, 6) if isinstance(value, float) else value


def console(**options: Any) -> Console:
    """A console of rich's on which the words of others cannot act."""
    from neo_async.cli.console import ShownConsole

    return ShownConsole(highlight=False, **options)


def _console() -> Console:
    return console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
