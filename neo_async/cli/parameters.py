"""Arguments and options whose values are checked here, before a command does anything.

typer's own checks of choices, numbers and days say it in other words with every release, and do not
name the value. Their help breaks a list of choices where it cannot be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

E = TypeVar("E", bound=StrEnum)


def choice_argument(choices: Iterable[StrEnum], metavar: str) -> Any:
    """Return an argument that takes one of these values, in any case."""
    return typer.Argument(
        metavar=metavar,
        parser=_choice_reader(choices),
        autocompletion=_choice_completer(choices),
        help=f"{listed(choices)}.",
    )


def choice_option(choices: Iterable[StrEnum], name: str, *, metavar: str, help: str = "") -> Any:  # noqa: A002 - as typer has it
    """Return an option that takes one of these values, in any case. Its name is given, as typer
    0.27 writes one in capitals that is the same word as its metavar."""
    return typer.Option(
        name,
        metavar=metavar,
        parser=_choice_reader(choices),
        autocompletion=_choice_completer(choices),
        help=f"{help} {listed(choices)}.".strip(),
    )


def number_reader(
    read: Callable[[str], Any], kind: str, low: float | None = None, high: float | None = None
) -> Callable[[str], Any]:
    """Return a parser of numbers from `low` to `high`; `kind` is what they are."""
    rule = f"must be {kind}"
    if low is not None and high is not None:
        rule += f" from {low:g} to {high:g}"
    elif low is not None:
        rule += f", {low:g} or more"

    def number(text: Any) -> Any:
        try:
            value = read(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: {rule}") from None
        # Written so that NaN is refused, too.
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise typer.BadParameter(f"{str(text)!r}: {rule}")
        return value

    return number


def whole_number(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range."""
    return number_reader(int, "a whole number", low, high)


def seconds(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return a parser of a number of seconds, at least `low`."""
    return number_reader(float, "a number of seconds", low, high)


Limit: TypeAlias = Annotated[
    int,
    typer.Option(
        parser=whole_number(0), metavar="ROWS", help="Rows in the table; 0 for all of them."
    ),
]


def day(text: Any) -> date:
    """Read a day as YYYY-MM-DD."""
    try:
        return text if isinstance(text, date) else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: must be a day as YYYY-MM-DD") from None


def new_file(text: Any) -> Path:
    """Read the path of a file to write: its directory has to exist and be writable, and the file
    as well when it exists."""
    import os

    path = Path(text)
    folder = path.parent
    reason = ""
    if path.is_dir():
        reason = "is a directory"
    elif not folder.is_dir():
        reason = f"there is no directory {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        reason = "may not be written"
    if reason:
        raise typer.BadParameter(f"{str(path)!r}: {reason}")
    return path


def existing_file(text: Any) -> Path:
    """Read the path of a file to read."""
    path = Path(text)
    if not path.is_file():
        reason = "is a directory" if path.is_dir() else "there is no such file"
        raise typer.BadParameter(f"{str(path)!r}: {reason}")
    return path


def listed(choices: Iterable[StrEnum]) -> str:
    """Return the values as in a sentence: `buy or sell`."""
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _choice_reader(choices: Iterable[E]) -> Callable[[str], E]:
    by_name = {value.lower(): value for value in choices}

    def choice(text: Any) -> E:
        found = by_name.get(str(text).lower())
        if found is None:
            raise typer.BadParameter(f"{text!r}: must be one of {', '.join(choices)}")
        return found

    return choice


def _choice_completer(choices: Iterable[StrEnum]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        values = [value.lower() if incomplete.islower() else str(value) for value in choices]
        return [value for value in values if value.startswith(incomplete)]

    return complete
