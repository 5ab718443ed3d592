"""Prices as the broker accepts them: plain decimal text."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TypeAlias

from neo_async.errors import InvalidOrder
from neo_async.model.numbers import EXACT
from neo_async.model.orders import Price

_PLAIN = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_MOST_DIGITS = 17
"""Most digits before the point. Without a bound, "1e999999999" would fill the memory."""

MOST_DECIMALS = 4
"""Most decimals of a price: currency derivatives have four."""


def price_text(field: str, value: Price, decimals: int = MOST_DECIMALS) -> str:
    """Return a price as exact decimal text: no exponent, no sign, `"0"` for zero.

    Text keeps its trailing zeros (but `39.0` becomes `39`); a float is sent as the decimal that it
    prints as, not as its binary expansion. `field` is the name in the InvalidOrder that is raised
    when the value is not a price, or has more than `decimals`, as computed floats often have.
    """
    # The usual cases, without the cost of a Decimal.
    text = value if type(value) is str else repr(value) if type(value) is float else ""
    if not _PLAIN.fullmatch(text):
        text = format(_decimal(field, value), "f")
    if text[0] == "0" and not text.strip("0."):
        return "0"  # the broker refuses "0.0"
    whole, _, fraction = text.partition(".")
    if len(fraction) > decimals:
        if fraction[decimals:].strip("0"):
            raise InvalidOrder(
                field,
                value,
                f"has more than {decimals} decimals, which no price {_of_what(decimals)}has: round "
                f"it to the instrument's tick{_rounded(text)}",
            )
        return f"{whole}.{fraction[:decimals]}"
    if len(whole) > _MOST_DIGITS:
        raise InvalidOrder(field, value, "is out of any price's range")
    return whole if fraction == "0" else text


def _of_what(decimals: int) -> str:
    return "" if decimals == MOST_DECIMALS else "of this segment "


PriceReader: TypeAlias = Callable[[str, Price], Decimal | None]


def price_reader(decimals: int) -> PriceReader:
    """Return a function that returns a price as the exact decimal that is sent, None for zero. It
    takes what `price_text` takes, and raises what it raises."""

    def read(field: str, value: Price) -> Decimal | None:
        text = price_text(field, value, decimals)
        return None if text == "0" else Decimal(text)

    remembered = lru_cache(maxsize=4096, typed=True)(read)

    def exact_price(field: str, value: Price) -> Decimal | None:
        # A program quotes few prices, many times each. Only text and floats are remembered: a
        # number that equals another one may print differently.
        if type(value) is str or type(value) is float:
            return remembered(field, value)
        return read(field, value)

    return exact_price


exact_price_of = price_reader(MOST_DECIMALS)
"""Reads a price with the decimals of any segment."""


def _rounded(text: str) -> str:
    """Return the price rounded to two decimals, or to four where two would give 0."""
    for places in (2, MOST_DECIMALS):
        nearest = EXACT.quantize(Decimal(text), Decimal((0, (1,), -places)))
        if nearest:
            return f", such as '{nearest}'"
    return ""


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
    if number.adjusted() >= _MOST_DIGITS:
        raise InvalidOrder(field, value, "is out of any price's range")
    if number.adjusted() < -_MOST_DIGITS:
        raise InvalidOrder(field, value, "is too small for any price")
    return number


def _parse(field: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:  # an exponent beyond what Decimal holds
        raise InvalidOrder(field, text, "is out of any price's range") from error
