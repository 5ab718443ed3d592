"""Prices as the broker wants to read them: plain decimal text."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from neo_async.errors import InvalidOrder
from neo_async.model.orders import Price

_PLAIN = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_LARGEST_EXPONENT = 400
"""Beyond that no float reaches; without a bound, "1e999999999" would fill the memory."""


def price_text(field: str, value: Price) -> str:
    """Exact decimal text of a price: no exponent, no sign, `"0"` for zero.

    Plain text keeps its trailing zeros (but `39.0` becomes `39`); a float goes out as the decimal
    it prints as, not as its binary expansion. `field` is what InvalidOrder names when the value is
    no price.
    """
    # The usual cases, without the cost of a Decimal.
    text = value if type(value) is str else repr(value) if type(value) is float else ""
    if not _PLAIN.fullmatch(text):
        text = format(_decimal(field, value), "f")
    if text[0] == "0" and not text.strip("0."):
        return "0"  # the broker refuses "0.0"
    return text[:-2] if text.endswith(".0") else text


def _decimal(field: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int | float):
        raise InvalidOrder(field, value, "must be a number, or a number as text")
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise InvalidOrder(field, value, 'must be decimal text such as "39.35"')
        number = _parse(field, value)
    elif isinstance(value, float):
        # The class's own repr: subclasses (numpy's) print themselves differently.
        number = _parse(field, float.__repr__(value))
    else:
        number = Decimal(value)
    if not number.is_finite():
        raise InvalidOrder(field, value, "must be finite")
    if number < 0:
        raise InvalidOrder(field, value, "must not be negative")
    if not number:
        return Decimal(0)  # without the sign and the exponent that a zero may carry
    if abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise InvalidOrder(field, value, "is out of any price's range")
    return number


def _parse(field: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:  # an exponent beyond what Decimal holds
        raise InvalidOrder(field, text, "is out of any price's range") from error
