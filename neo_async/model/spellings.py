"""Spellings of the closed vocabularies that users may write: a code or a name, in any case.

`"buy"`, `"B"` and `Side.BUY` are the same side, `"limit"` and `"L"` the same order type, `"SL-M"`,
`"sl_m"` and `"SLM"` another one. Nothing is guessed: `"NSE"` is no segment, because it could be
`nse_cm` or `nse_fo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Final, TypeVar

from neo_async.model.enums import Segment

E = TypeVar("E", bound=Enum)

_LONGEST: Final = 40
"""Longest text that may be a spelling, in characters."""
_SHORT: Final = 3
"""Most characters of a code that does not show by itself what it means."""


def member_of(vocabulary: type[E], value: object) -> E:
    """Return the member that a value spells. Raises ValueError whose text is the rule: which
    spellings there are."""
    for member in vocabulary:
        if member is value or member.value == value:
            return member
    if isinstance(value, str) and len(value) <= _LONGEST:
        spelled: E | None = _spellings(vocabulary).get(_plain(value))
        if spelled is not None:
            return spelled
    raise ValueError(f"must be one of {choices(vocabulary)}{_exchange_hint(vocabulary, value)}")


def choices(vocabulary: type[Enum]) -> str:
    """Return the codes of a vocabulary, with a name where the code does not show what it means:
    `B (buy), S (sell)`."""
    return ", ".join(map(_shown, vocabulary))


def _shown(member: Enum) -> str:
    code = str(member.value)
    if len(code) > _SHORT or _plain(member.name) == _plain(code):
        return code
    return f"{code} ({member.name.lower()})"


@cache
def _spellings(vocabulary: type[E]) -> Mapping[str, E]:
    names = {_plain(member.name): member for member in vocabulary}
    return names | {_plain(str(member.value)): member for member in vocabulary}


def _plain(text: str) -> str:
    """Return a text without its case and the marks between its words."""
    return "".join(character for character in text.casefold() if character not in "-_ ")


def _exchange_hint(vocabulary: type[Enum], value: object) -> str:
    if vocabulary is not Segment or not isinstance(value, str):
        return ""
    meant = [one.value for one in Segment if one.value.startswith(f"{_plain(value)}_")]
    return f"; {value} alone could be {' or '.join(meant)}" if len(meant) > 1 else ""
