"""Exact decimal arithmetic, whatever decimal context the program has set.

`decimal.getcontext()` belongs to the program: its precision, rounding mode and traps change what
`a * b`, `round(a, 2)`, `a.scaleb(2)` and `format(a, ".2f")` give, and `DefaultContext` changes what
a `Context` made without all of its arguments does. Amounts are therefore computed with the
functions of this module only. Comparing two finite Decimals is always exact.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from decimal import (
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Clamped,
    Context,
    Decimal,
    Inexact,
    InvalidOperation,
    Overflow,
)
from typing import Final

PAISA: Final = Decimal("0.01")

_LARGEST_EXPONENT: Final = 400
"""Largest decimal exponent: beyond any float. Without it, "1e999999999" would fill the memory."""

_EXACT: Final = Context(
    prec=2 * _LARGEST_EXPONENT + 100,
    rounding=ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[Inexact, InvalidOperation, Overflow, Clamped],
)
_ROUNDED: Final = Context(
    prec=2 * _LARGEST_EXPONENT + 100,
    rounding=ROUND_HALF_UP,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation, Overflow],
)

_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
)
_GROUPED: Final = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]{1,20})?")
"""Digits in groups of three, or of two above the first three as in India: `1,23,456.00`."""


def exact(value: Decimal | int | float | str) -> Decimal:
    """Return the number as a Decimal: a float as it prints, text with or without grouped digits
    (`1,23,456.00`, `1,234.50`). Raises ValueError when it is not finite, or out of range."""
    if isinstance(value, float):
        # The class's own repr: subclasses (numpy's) print themselves differently.
        value = float.__repr__(value)
    if isinstance(value, str):
        text = value.strip()
        if "," in text and _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{_excerpt.repr(value)} is no number")
        number = _EXACT.create_decimal(text)
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"{_excerpt.repr(value)} is no number")
    else:
        number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{number} is no finite number")
    if abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"{_excerpt.repr(value)} is out of any amount's range")
    return number


def rupees(value: Decimal) -> Decimal:
    """Return the amount with two decimals. Raises ValueError when it has more."""
    try:
        return _EXACT.quantize(value, PAISA)
    except (Inexact, InvalidOperation):
        raise ValueError(f"{value} is no amount in rupees and paise") from None


def to_paise(amount: Decimal) -> int:
    """Return rupees as whole paise. Raises ValueError when there is a fraction of a paisa."""
    return int(_EXACT.scaleb(rupees(amount), 2))


def from_paise(paise: Decimal | int) -> Decimal:
    """Return paise as rupees with two decimals. Raises ValueError for a fraction of a paisa."""
    return rupees(_EXACT.scaleb(Decimal(paise), -2))


def rounded(value: Decimal, places: int) -> Decimal:
    """Return the value rounded to so many decimals, halves away from zero."""
    return _ROUNDED.quantize(value, Decimal((0, (1,), -places)))


def product(one: Decimal, other: Decimal) -> Decimal:
    """Return the product, exactly."""
    return _ROUNDED.multiply(one, other)


def difference(one: Decimal, other: Decimal) -> Decimal:
    """Return `one` less `other`, exactly."""
    return _ROUNDED.subtract(one, other)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum; 0 for no amounts."""
    result = Decimal(0)
    for amount in amounts:
        result = _ROUNDED.add(result, amount)
    return result


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Return whether `value` is a multiple of `step`, which must not be 0."""
    return not _ROUNDED.remainder(value, step)


def grouped(amount: Decimal) -> str:
    """Return an amount for display, rounded to paise: `1,234.50`."""
    return f"{rounded(amount, 2):,f}"


_excerpt = reprlib.Repr()
_excerpt.maxstring = _excerpt.maxother = 60
