"""Values of market data rows, which the broker writes as numbers or as text.

A value that is missing or unreadable is None: it is one of many, and does not spoil the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

import msgspec

from neo_async.errors import UsageError
from neo_async.model.answer import Answer
from neo_async.model.numbers import Number, Whole
from neo_async.wire.answers import failure
from neo_async.wire.lenient import UNREADABLE, read_json


def parse_json(answer: Answer) -> object:
    """Return the content of an answer. Raises the exception that an answer without JSON stands
    for."""
    if not 200 <= answer.status < 300:
        raise failure(answer)
    try:
        return read_json(answer.body)
    except UNREADABLE as error:
        raise failure(answer) from error


def object_of(value: object) -> Mapping[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text_of(value: object) -> str:
    """Return a text without blanks around it, or the digits of a whole number; else an empty
    text."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def number_of(value: object) -> float | None:
    """Return a number, written as one or as text."""
    if isinstance(value, str):
        value = value.strip()
    try:
        return msgspec.convert(value, Number, strict=False)
    except UNREADABLE:
        return None


def whole_of(value: object) -> int | None:
    """Return a whole number. Quantities are written as `550`, and sometimes as `550.0`."""
    if isinstance(value, str):
        value = value.strip()
    try:
        return msgspec.convert(value, Whole, strict=False)
    except UNREADABLE:
        number = number_of(value)
        if number is None or not number.is_integer() or abs(number) > _LARGEST_WHOLE:
            return None
        return int(number)


_LARGEST_WHOLE: Final = 2**53


_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)

LATEST: Final = 253_402_300_799
"""Last second of the year 9999; larger numbers are no time."""


def time_of(value: object) -> int | None:
    """Return Unix seconds; None for 0 and for numbers that are no time."""
    seconds = whole_of(value)
    return seconds if seconds is not None and 0 < seconds < LATEST else None


def date_of(value: object) -> date | None:
    """Return a date: `2026-06-23`, or `31-JUL-2026` as in futures."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        day, month, year = text.split("-")
        if month.isalpha():
            return date(int(year), _MONTHS.index(month.upper()) + 1, int(day))
        return date.fromisoformat(text)
    except (ValueError, OverflowError):
        return None


def check_day(field: str, value: date | str) -> date:
    """Return a day, given as a date or as text such as `2026-12-08`. Raises UsageError for anything
    else: a datetime may be of another day in India."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            pass
    elif isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise UsageError(
        f"{field}={value!r}: must be a datetime.date, which counts in IST, or text such as "
        "'2026-12-08'"
    )
