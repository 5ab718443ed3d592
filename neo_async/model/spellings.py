"""Spellings of the closed vocabularies that users may write: a code or a name, in any case.

`"buy"`, `"B"` and `Side.BUY` are the same side, `"limit"` and `"L"` the same order type, `"SL-M"`,
`"sl_m"` and `"SLM"` another one. Nothing is guessed: `"NSE"` is no segment, because it could be
`nse_cm` or `nse_fo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Final, TypeAlias, TypeVar

from neo_async.model.enums import Segment

E = TypeVar("E", bound=Enum)

Vocabulary: TypeAlias = type[E] | tuple[E, ...]
"""A vocabulary, or some members of one."""

_LONGEST: Final = 40
"""Longest text that may be a spelling, in characters."""
_SHORT: Final = 3
"""Most characters of a code that does not show by itself what it means."""


def member_of(vocabulary: Vocabulary[E], value: object) -> E:
    """Return the member that a value spells. Raises ValueError whose text is the rule: which
    spellings there are."""
    spelled: E | None = None
    if isinstance(value, str):
        if len(value) <= _LONGEST:
            spelled = _spellings(vocabulary).get(plain(value))
    elif not isinstance(value, bool):
        spelled = next((member for member in vocabulary if member.value == value), None)
    if spelled is None:
        rule = f"must be one of {choices(vocabulary)}{_exchange_hint(vocabulary, value)}"
        raise ValueError(rule)
    return spelled


def choices(vocabulary: Vocabulary[E]) -> str:
    """Return the codes of a vocabulary, with a name where the code does not show what it means:
    `B (buy), S (sell)`."""
    return ", ".join(map(shown, vocabulary))


def shown(member: Enum) -> str:
    """Return the code of a member, with its name where the code does not show what it means."""
    code, word = str(member.value), telling(member)
    return code if word == code else f"{code} ({word})"


def telling(member: Enum) -> str:
    """Return the spelling that shows what a member means: its code, or else its name."""
    code = str(member.value)
    if len(code) > _SHORT or plain(member.name) == plain(code):
        return code
    return member.name.lower()


@cache
def _spellings(vocabulary: Vocabulary[E]) -> Mapping[str, E]:
    found: dict[str, E] = {}
    for member in vocabulary:
        for text in (member.name, str(member.value)):
            found[plain(text)] = member
    return found


def plain(text: str) -> str:
    """Return a text without its case and the marks between its words."""
    return "".join(character for character in text.casefold() if character not in "-_ ")


def _exchange_hint(vocabulary: object, value: object) -> str:
    if vocabulary is not Segment or not isinstance(value, str):
        return ""
    meant = [one.value for one in Segment if one.value.startswith(f"{plain(value)}_")]
    return f"; {value} alone could be {' or '.join(meant)}" if len(meant) > 1 else ""
