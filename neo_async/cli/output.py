"""How results look: tables for people, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import msgspec
import typer

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "unknown"

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

PIPE_WIDTH = 200
"""Columns where no terminal sets them: a row of a table is then one line, whatever reads it."""

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
    return money(price) if price else "-"


def status(text: str) -> Cell:
    return Cell(text, _STATUS_STYLES.get(text, ""))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="fold",
        )
    for row in rows:
        # Text, so that square brackets in the broker's words are not taken for markup.
        cells = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
        table.add_row(*(Text(cell.text, style=cell.style) for cell in cells))
    _console().print(table)


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(note)


def print_json(value: object) -> None:
    typer.echo(msgspec.json.encode(plain(value)).decode())


def plain(value: Any) -> Any:
    """Structs as dicts of their own field names; encoding them would give the wire's."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
