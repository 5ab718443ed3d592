"""CSV as RFC 4180 has it, with cells that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Any

import msgspec

from neo_async.base.text import shown

_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Start of a cell that a spreadsheet takes for a formula; full-width signs are included."""
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def as_text(cell: object) -> str:
    """Return a cell that is safe in a spreadsheet: text that would be a formula gets an apostrophe,
    and control characters are escaped. A plain number stays a number."""
    text = _written(cell)
    is_formula = _FORMULA.match(text) is not None and _PLAIN_NUMBER.fullmatch(text) is None
    return f"'{shown(text)}" if is_formula else shown(text)


def _written(value: object) -> str:
    """Return a value in full precision: nothing for None, times in ISO 8601, nested values as
    JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, (list, tuple, dict)):
        return msgspec.json.encode(value).decode() if value else ""
    return str(value)


class CsvWriter:
    """Writes CSV to stdout, and flushes it with every `write`; cells are escaped by `as_text`."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\r\n")
        self._writer.writerow(columns)

    def write(self, rows: Iterable[Iterable[object]]) -> None:
        self._writer.writerows(map(as_text, row) for row in rows)
        sys.stdout.flush()


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a line of headings, and a line for each row. A row may lack columns."""
    CsvWriter(columns).write([row.get(name) for name in columns] for row in rows)
