"""ISINs: twelve characters, the last of which is a check digit (ISO 6166)."""

from __future__ import annotations


def check_digit(body: str) -> str:
    """Return the check digit for the first eleven characters, which are of [0-9A-Z]."""
    # A letter counts as two digits (A is 10). Every other digit is doubled, from the last one.
    digits = "".join(str(int(character, 36)) for character in body)
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 if place % 2 else 2)
        total += number // 10 + number % 10
    return str(-total % 10)
