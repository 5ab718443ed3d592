"""Tables and panels of the screen of `neo-async watch`: columns that fit, and whole cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_LONGEST = 24
"""Longest symbol that is shown in full, in letters; `MIDCPNIFTY26DEC12000CE` has 22."""


class Column(NamedTuple):
    heading: str
    width: int
    rank: int
    """Rank of the column: those with the highest are left out first on a narrow screen."""
    is_number: bool = True


def _natural(column: Column, lines: list[dict[str, Text]]) -> int:
    longest = max(
        (line[column.heading].cell_len for line in lines if column.heading in line), default=0
    )
    if column.heading == "state":  # takes the rest of the line
        return column.width
    return max(column.width, min(_LONGEST, longest))


def fitting(columns: Iterable[Column], lines: list[dict[str, Text]], room: int) -> list[Column]:
    """Return the columns of the lowest ranks that fit side by side, in their order; a rank is shown
    whole or not at all. Cells are not cut: the last letters of a symbol distinguish a call from a
    put, and a number without its last digits is another number."""
    columns = [one._replace(width=_natural(one, lines)) for one in columns]
    chosen: set[str] = set()
    room += 1
    for rank in sorted({column.rank for column in columns}):
        together = [column for column in columns if column.rank == rank]
        room -= sum(column.width + 1 for column in together)
        if room < 0 and rank:
            break
        chosen.update(column.heading for column in together)
    return [column for column in columns if column.heading in chosen]


def table(
    columns: Sequence[Column], lines: list[dict[str, Text]], rows: int, *, wide: str = ""
) -> Table:
    """Return a table of fixed widths, so that nothing moves when a figure gets longer; the column
    `wide` takes the rest."""
    table = Table(
        box=None, expand=bool(wide), padding=(0, 1), pad_edge=False, collapse_padding=True
    )
    for column in columns:
        is_wide = column.heading == wide
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            width=None if is_wide else column.width,
            min_width=column.width if is_wide else None,
            ratio=1 if is_wide else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    for line in lines:
        table.add_row(*(line.get(column.heading, "") for column in columns))
    for _ in range(rows - len(lines)):
        table.add_row("")
    return table


def panel(content: RenderableType, title: str | Text) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))
