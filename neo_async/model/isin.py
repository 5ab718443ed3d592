"""ISINs: twelve characters, the last of which makes misspelt ones recognisable (ISO 6166)."""

from __future__ import annotations


def check_digit(body: str) -> str:
    """The last character that belongs to the first eleven, which are of [0-9A-Z]."""
    # Letters count as two digits. Every other digit is doubled, from the right, as the check digit
    # itself is none of these.
    digits = "".join(str(int(character, 36)) for character in body)
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 if place % 2 else 2)
        total += number // 10 + number % 10
    return str(-total % 10)
