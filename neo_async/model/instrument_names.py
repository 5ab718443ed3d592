"""How instruments are written: as a key, `nse_cm|2885`, or by trading symbol, name or index.

`|` and `:` are the same between segment and token, for `|` has a meaning in the shell. This module
knows no scrip master: what it cannot read by itself is looked up by `neo.instruments`.
"""

from __future__ import annotations

from typing import Final

from neo_async.errors import InvalidField
from neo_async.model.enums import Segment
from neo_async.model.indices import NAMES_BY_NUMBER, index_key
from neo_async.model.instruments import Instrument, InstrumentLike

_LONGEST: Final = 100
"""Longest text that may name an instrument, in characters."""
_SEGMENTS: Final = {segment.value: segment for segment in Segment}
_WITH_INDICES: Final = (Segment.NSE_CM, Segment.BSE_CM)

SPELLINGS: Final = (
    "must be an Instrument, a key such as 'nse_cm|2885', a trading symbol such as "
    "'nse_cm:RELIANCE-EQ', or an index such as 'nse_cm|Nifty 50'"
)


def read_name(name: object) -> tuple[Segment | None, str]:
    """Return the segment, None where the text has none, and the rest of an instrument's name.
    Raises InvalidField when it cannot name any."""
    if not isinstance(name, str):
        raise InvalidField("instrument", name, SPELLINGS)
    mark = "|" if "|" in name else ":"
    code, separator, rest = name.partition(mark)
    if not separator:
        code, rest = "", name
    segment = _SEGMENTS.get(code) or _SEGMENTS.get(code.strip().lower())
    rest = rest.strip()
    is_readable = rest.isprintable() and not {"|", ","} & set(rest) and len(rest) <= _LONGEST
    if not rest or not is_readable or (separator and segment is None):
        raise InvalidField("instrument", name, SPELLINGS)
    if separator and rest[0] == "0" and len(rest) > 1 and is_token(rest):
        raise InvalidField("instrument", name, "a token is written without leading zeros")
    return segment, rest


def key_of(name: InstrumentLike) -> str | None:
    """Return the key of an instrument, or of an index by its exact name, without a scrip master;
    None where one is needed. Raises InvalidField when the text cannot name an instrument."""
    if isinstance(name, Instrument):
        return name.key
    segment, rest = read_name(name)
    if segment is not None and is_token(rest):
        return f"{segment.value}|{rest}"
    index = index_key(segment, rest)
    if index is not None or segment not in _WITH_INDICES or is_contract_text(rest):
        return index
    # An index that this package does not list has lower case or a blank; trading symbols have not.
    return f"{segment.value}|{rest}" if rest != rest.upper() or " " in rest else None


def known_key(name: InstrumentLike) -> str:
    """Return the key of an instrument without a scrip master. Raises InvalidField where one is
    needed, and when the text cannot name an instrument."""
    key = key_of(name)
    if key is None:
        raise InvalidField("instrument", name, SPELLINGS)
    return key


def is_token(text: str) -> bool:
    """Return whether a text is an exchange token: digits."""
    return text.isascii() and text.isdigit()


def is_index_key(key: str) -> bool:
    """Return whether a key names an index: by its name, or by its number at NSE."""
    segment, _, token = key.partition("|")
    return not token.isdecimal() or (segment == Segment.NSE_CM and token in NAMES_BY_NUMBER)


def is_contract_text(text: str) -> bool:
    """Return whether a text of several words ends as contracts do: `NIFTY 24500 CE`."""
    return " " in text and text.rpartition(" ")[2].upper().endswith(("CE", "PE", "FUT"))
