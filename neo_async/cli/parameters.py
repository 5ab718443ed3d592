"""Arguments and options whose values are checked here, before a command does anything.

typer's own checks of choices, numbers and days say it in other words with every release, and do not
name the value. Their help breaks a list of choices where it cannot be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from neo_async.model.enums import OrderType, Product, Validity
from neo_async.model.spellings import Vocabulary, member_of, plain, shown, telling

E = TypeVar("E", bound=StrEnum)

_TRADERS_WORDS: Mapping[type[StrEnum], Mapping[str, StrEnum]] = {
    Product: {
        "delivery": Product.CNC,
        "cashandcarry": Product.CNC,
        "intraday": Product.MIS,
        "normal": Product.NRML,
        "carryforward": Product.NRML,
        "margintradingfacility": Product.MTF,
        "cover": Product.CO,
        "coverorder": Product.CO,
        "bracket": Product.BO,
        "bracketorder": Product.BO,
    },
    OrderType: {"stoplosslimit": OrderType.SL, "stoplossmarket": OrderType.SL_M},
    Validity: {"immediateorcancel": Validity.IOC},
}
"""What traders say for a code. The library takes codes and names only: INTRADAY, in reports, is
also a code of the broker, which it does not accept in orders."""


def choice_argument(choices: Vocabulary[E], metavar: str) -> Any:
    """Return an argument that takes one of these values in any spelling: `BUY` or `b`, `market`."""
    return typer.Argument(
        metavar=metavar,
        parser=_choice_reader(choices),
        autocompletion=completer(choices),
        help=f"{listed(choices)}.",
    )


def choice_option(choices: Vocabulary[E], name: str, *, metavar: str, help: str = "") -> Any:  # noqa: A002 - as typer has it
    """Return an option that takes one of these values, as `choice_argument` does. Its name is
    given, as typer 0.27 writes one in capitals that is the same word as its metavar."""
    return typer.Option(
        name,
        metavar=metavar,
        parser=_choice_reader(choices),
        autocompletion=completer(choices),
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
    """Return the values as in a sentence: `B (buy) or S (sell)`."""
    *others, last = map(shown, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _choice_reader(choices: Vocabulary[E]) -> Callable[[str], Any]:
    words = _TRADERS_WORDS.get(choices, {}) if isinstance(choices, type) else {}

    def choice(text: Any) -> Any:
        try:
            return words.get(plain(str(text))) or member_of(choices, text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r}: {error}") from None

    return choice


def completer(choices: Iterable[StrEnum]) -> Callable[[str], list[str]]:
    """Return a function that completes what is typed to the spellings that show what they mean."""

    def complete(incomplete: str) -> list[str]:
        words = map(telling, choices)
        if incomplete.isupper():
            words = map(str.upper, words)
        elif incomplete.islower():
            words = map(str.lower, words)
        return [word for word in words if word.startswith(incomplete)]

    return complete
