"""The arrangement of a table in a terminal: columns that fit, and the width of each.

No word is ever broken. When a table is too wide, whole columns are left out, those of the highest
rank first; then cells are broken between words; and where even that does not suffice, the caller
prints each row as a record of its own, a line for each column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len

GAP = 2
"""Spaces between two columns."""


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    is_number: bool = False
    is_whole: bool = False
    """Whether cells are never broken into lines, because users copy them."""
    is_optional: bool = False
    """Whether the column is left out when all its cells are empty."""
    rank: int = 0
    """Rank by which columns are left out when the terminal is too narrow, the highest first; those
    of rank 0 stay."""
    comfortable: int = 24
    """Width of a column of text below which a ranked column is rather left out."""


class Arrangement(NamedTuple):
    """The columns to show, by their position, and their widths."""

    columns: list[int]
    widths: list[int]
    left_out: list[int]


class _Needs(NamedTuple):
    smallest: int
    comfortable: int
    natural: int


def arrange(
    columns: Sequence[Column], used: Sequence[int], rows: Sequence[Sequence[str]], room: int | None
) -> Arrangement | None:
    """Arrange the columns in `used` in `room` terminal cells, or at full width if that is None.
    Return None when they do not fit without breaking a word."""
    needs = {number: _needs(columns[number], [row[number] for row in rows]) for number in used}
    chosen = list(used)
    if room is None:
        return Arrangement(chosen, [needs[number].natural for number in chosen], [])
    while _total(needs[number].comfortable for number in chosen) > room:
        rank = max(columns[number].rank for number in chosen)
        if not rank:
            break
        chosen = [number for number in chosen if columns[number].rank != rank]
    spare = room - _total(needs[number].smallest for number in chosen)
    if spare < 0:
        return None
    left_out = [number for number in used if number not in chosen]
    return Arrangement(chosen, _widths([needs[number] for number in chosen], spare), left_out)


def _needs(column: Column, cells: Sequence[str]) -> _Needs:
    heading = max(map(cell_len, column.heading.split()), default=0)
    longest = max(map(cell_len, cells), default=0)
    natural = max(cell_len(column.heading), longest)
    if column.is_number or column.is_whole:
        smallest = max(heading, longest)
        return _Needs(smallest, natural, natural)
    words = (word for cell in cells for word in cell.split())
    smallest = max(heading, max(map(cell_len, words), default=0))
    return _Needs(smallest, max(smallest, min(natural, column.comfortable)), natural)


def _total(widths: Iterable[int]) -> int:
    listed = list(widths)
    return sum(listed) + GAP * (len(listed) - 1)


def _widths(needs: Sequence[_Needs], spare: int) -> list[int]:
    """Return the smallest widths, widened by what there is to spare, in equal parts."""
    widths = [need.smallest for need in needs]
    while spare > 0:
        narrow = [one for one, need in enumerate(needs) if widths[one] < need.natural]
        if not narrow:
            break
        part = max(1, spare // len(narrow))
        for one in narrow:
            added = min(part, spare, needs[one].natural - widths[one])
            widths[one] += added
            spare -= added
    return widths
