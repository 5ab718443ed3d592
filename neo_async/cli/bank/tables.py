"""Read CSV files whose columns have the names of fields."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, TypeAlias, TypeVar

import typer

from neo_async.errors import InvalidField, UsageError

T = TypeVar("T")

CsvFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="CSV file of many, - for stdin; the results are CSV, too. Texts that a spreadsheet "
        "would take for a formula begin with an apostrophe there.",
    ),
]

_PLACE = re.compile(r"(?:accounts|numbers)\[([0-9]+)\]\.?(.*)")


class Row:
    """A line of a file, below its headings."""

    def __init__(self, line: int, cells: Mapping[str, str]) -> None:
        self.line = line
        self.cells = cells

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")


class Table:
    """The lines of a file."""

    def __init__(self, name: str, rows: list[Row]) -> None:
        self.name = name
        self.rows = rows

    @contextmanager
    def lines_named(self) -> Iterator[None]:
        """Name file and line in the errors of a field, instead of a position in a list."""
        try:
            yield
        except InvalidField as error:
            place = _PLACE.fullmatch(error.field)
            if place is None:
                raise
            row, field = self.rows[int(place[1])], place[2] or "number"
            raise self.error(row, InvalidField(field, error.value, error.rule)) from error

    def error(self, row: Row, problem: object) -> UsageError:
        return UsageError(f"{self.name}, line {row.line}: {problem}")

    def read(self, row: Row, name: str, read: Callable[[str], T], rule: str) -> T:
        try:
            return read(row[name])
        except ValueError:
            raise self.error(row, f"{name}={row[name]!r}: must be {rule}") from None


def read_table(file: str, columns: Iterable[str], needed: Iterable[str]) -> Table:
    """Read a CSV file. Raises UsageError that names what is wrong with it or its headings."""
    name = "stdin" if file == "-" else file
    try:
        if file == "-":
            rows = _rows(name, sys.stdin, list(columns), list(needed))
        else:
            # Excel begins its files with a byte order mark.
            with open(file, encoding="utf-8-sig", newline="") as lines:
                rows = _rows(name, lines, list(columns), list(needed))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: is not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    if not rows:
        raise UsageError(f"{name}: has no line below its headings")
    return Table(name, rows)


def _rows(name: str, lines: Iterable[str], columns: list[str], needed: list[str]) -> list[Row]:
    reader = csv.DictReader(lines, strict=True)
    given = reader.fieldnames or []
    for heading in given:
        if heading not in columns:
            raise UsageError(f"{name}: column {heading!r} is none of {', '.join(columns)}")
    for heading in needed:
        if heading not in given:
            raise UsageError(f"{name}: lacks column {heading!r}; has {', '.join(given) or 'none'}")
    rows = []
    for cells in reader:
        if None in cells:
            raise UsageError(f"{name}, line {reader.line_num}: has more cells than headings")
        stripped = {heading: (cell or "").strip() for heading, cell in cells.items()}
        rows.append(Row(reader.line_num, stripped))
    return rows
