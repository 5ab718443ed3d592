"""The output of commands: tables, JSON, notes and progress bars."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import typer

from neo_async.base.text import shown, shown_json
from neo_async.cli.csv_output import print_csv
from neo_async.cli.table_layout import GAP, Column, arrange

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from neo_async.cli.table_layout import Arrangement

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

UNKNOWN = "unknown"
NOTHING = "-"

_NO_TEXT = "--"
"""Text of the broker that means none."""

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsCsv: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--csv",
        help="Print CSV instead of a table. Texts that a spreadsheet would take for a formula "
        "begin with an apostrophe.",
    ),
]

_STATUS_STYLES = {
    "complete": "green",
    "rejected": "red",
    "cancelled": "dim",
    "cancelled after market order": "dim",
    "open": "cyan",
    "trigger pending": "cyan",
    "unknown": "yellow",
}


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
    """Print a table as `table_layout` arranges it. Columns that do not fit are named on stderr;
    without a terminal, all columns are printed at full width."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    used = [
        number
        for number, column in enumerate(columns)
        if not column.is_optional or any(row[number].text != NOTHING for row in cells)
    ]
    console = _console()
    room = console.width if console.is_terminal else None
    arrangement = arrange(columns, used, [[cell.text for cell in row] for row in cells], room)
    if arrangement is None:
        _print_records(console, columns, used, cells)
        return
    # A row is never cut, whatever rich takes for the width.
    console.width = max(console.width, sum(arrangement.widths) + GAP * len(arrangement.widths))
    console.print(_table(columns, cells, arrangement))
    if arrangement.left_out:
        names = ", ".join(columns[number].heading for number in arrangement.left_out)
        print_sentence(f"not shown at {room} columns: {names}", err=True)


def _cell(cell: str | Cell) -> Cell:
    """Return a cell with control characters escaped: its text may be untrusted."""
    return Cell(shown(cell.text), cell.style) if isinstance(cell, Cell) else Cell(shown(cell))


def _table(columns: Sequence[Column], rows: list[list[Cell]], arrangement: Arrangement) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Text, so that square brackets in the broker's texts are not taken for markup.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for number, width in zip(arrangement.columns, arrangement.widths, strict=True):
        table.add_column(
            Text(shown(columns[number].heading)),
            justify="right" if columns[number].is_number else "left",
            width=width,
            overflow="fold",
        )
    for row in rows:
        table.add_row(
            *(Text(row[number].text, style=row[number].style) for number in arrangement.columns)
        )
    return table


def _print_records(
    console: Console, columns: Sequence[Column], used: list[int], rows: list[list[Cell]]
) -> None:
    """Print a line for each cell, and an empty line between two rows."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    words = (word for row in rows for number in used for word in row[number].text.split())
    heading = max(cell_len(columns[number].heading) for number in used)
    value = max(console.width - heading - GAP, max(map(cell_len, words), default=0))
    console.width = heading + GAP + value
    for position, row in enumerate(rows):
        if position:
            console.print()
        record = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        record.add_column(width=heading)
        record.add_column(width=value, overflow="fold")
        for number in used:
            cell = row[number]
            record.add_row(Text(columns[number].heading, "bold"), Text(cell.text, cell.style))
        console.print(record)


def print_report(
    rows: Sequence[T],
    print_rows: Callable[[Sequence[T]], None],
    *,
    empty: str,
    columns: Sequence[str],
    fields: Callable[[T], dict[str, Any]] | None = None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print rows as JSON, as CSV with these columns, or as a table; the text `empty` stands for a
    table without rows. `fields` returns the fields of a row by name."""
    read = fields or plain
    if as_json:
        print_json([read(row) for row in rows])
    elif as_csv:
        print_csv(columns, map(read, rows))
    elif rows:
        print_rows(rows)
    else:
        echo(empty)


def print_record(row: S, print_row: Callable[[S], None], *, as_json: bool, as_csv: bool) -> None:
    """Print one struct as JSON, as CSV with its fields as columns, or as a table."""
    if as_json:
        print_json(row)
    elif as_csv:
        print_csv(columns_of(type(row)), [plain(row)])
    else:
        print_row(row)


def columns_of(row: type[msgspec.Struct], *, without: Iterable[str] = ()) -> list[str]:
    """Return the columns of rows of this type in CSV: their fields, as in JSON."""
    left_out = {"missing", "odd", *without}
    return [name for name in row.__struct_fields__ if name not in left_out]


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print_sentence(note)


def print_sentence(text: object, *, err: bool = False) -> None:
    """Print a text with control characters escaped, on one line; a terminal shows it on as many as
    it takes, broken between words."""
    line = shown(str(text))
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        line = "\n".join(
            textwrap.wrap(
                line,
                console(stderr=err).width,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    typer.echo(line, err=err)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one line with control characters escaped. Use this, not `typer.echo`, for everything
    but JSON."""
    typer.echo(shown(str(text)), err=err)


def echo_text(text: str, *, err: bool = False) -> None:
    """Print lines with control characters escaped."""
    typer.echo("\n".join(map(shown, text.split("\n"))), err=err)


def echo_dim(text: str) -> None:
    """Print one line on stderr that is beside the output, such as the account."""
    typer.secho(shown(text), err=True, dim=True)


def print_json(value: object) -> None:
    typer.echo(shown_json(msgspec.json.encode(plain(value)).decode()))


def plain(value: Any) -> Any:
    """Return a value as every command prints it in JSON.

    Structs are dicts by their field names; encoding them would give the wire's names. A missing
    field of a report's row is null, not its default, and so is the broker's `--`. A side is `buy`
    or `sell`, as commands take it. Numbers have six decimals at most, to remove binary fractions:
    no amount, price or percentage has more.
    """
    if isinstance(value, msgspec.Struct):
        missing = getattr(value, "missing", ())
        return {
            name: None if name in missing else _plain_field(name, getattr(value, name))
            for name in value.__struct_fields__
            if name not in ("missing", "odd")
        } | ({"odd": list(odd)} if (odd := getattr(value, "odd", ())) else {})
    if isinstance(value, Mapping):
        return {name: _plain_field(name, one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6)
    return None if value == _NO_TEXT else value


def _plain_field(name: object, value: Any) -> Any:
    return side_name(value) if name == "side" else plain(value)


def side_name(code: str) -> str:
    """Return `buy` or `sell`; another code as it is."""
    return {"B": "buy", "S": "sell"}.get(code, code)


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
    return console()
