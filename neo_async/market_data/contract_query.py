"""Contracts in words: `NIFTY 24500 CE`, `NIFTY 01DEC 24500 CE`, `BANKNIFTY 24500CE 2026-12-08`,
`NIFTY DEC FUT`.

The underlying comes first; strike, expiry and `CE`, `PE` or `FUT` follow in any order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from neo_async.model.instruments import Instrument

_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)
_MONTH: Final = f"({'|'.join(_MONTHS)})[A-Z]*"
_OPTION_TYPES: Final = {"CE": "CE", "CALL": "CE", "PE": "PE", "PUT": "PE"}
_KINDS: Final = {"FUT": "FUT", "FUTURE": "FUT", "FUTURES": "FUT", "OPT": "OPT", "OPTIONS": "OPT"}
_STRIKE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,4})?)(CE|PE)?")
_ISO_DAY: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_DAY: Final = re.compile(rf"([0-9]{{1,2}})-?{_MONTH}(?:-?(20[0-9]{{2}}|[0-9]{{2}}))?")
_IN_MONTH: Final = re.compile(rf"{_MONTH}(?:-?(20[0-9]{{2}}|[0-9]{{2}}))?")
_SPACED_DAY: Final = re.compile(rf"\b([0-9]{{1,2}}) (?={_MONTH}\b)")
_SPACED_YEAR: Final = re.compile(rf"\b({_MONTH}) (?=20[0-9]{{2}}\b)")
_LONGEST: Final = 80


class ExpiryWords(NamedTuple):
    """The parts of an expiry that were given; None for those that were not."""

    month: int
    day: int | None = None
    year: int | None = None

    def matches(self, expiry: date) -> bool:
        return (
            self.month == expiry.month
            and self.day in (None, expiry.day)
            and self.year in (None, expiry.year)
        )


class ContractQuery(NamedTuple):
    """A contract in words."""

    name: str
    """Name of the underlying."""
    kind: str = ""
    """Start of the kind: `FUT` or `OPT`."""
    strike: float | None = None
    option_type: str = ""
    expiries: tuple[ExpiryWords, ...] = ()
    """Readings of the expiry, of which one must match: `26DEC` may be a day, or a month of 2026."""

    def has_expiry(self, instrument: Instrument) -> bool:
        """Return whether an instrument expires as the words say."""
        if not self.expiries:
            return True
        expiry = instrument.expiry
        return expiry is not None and any(words.matches(expiry) for words in self.expiries)


def read_contract(text: str) -> ContractQuery | None:
    """Return the contract that a text describes; None when it describes none."""
    if len(text) > _LONGEST:
        return None
    plain = " ".join(text.upper().split())
    plain = _SPACED_YEAR.sub(r"\1", _SPACED_DAY.sub(r"\1", plain))
    words = plain.split(" ")
    parts = list(map(_read_word, words))
    # The first word belongs to the name, whatever it looks like.
    count = next((place for place, part in enumerate(parts) if place and part is not None), 0)
    read = parts[count:]
    if None in read or not any(map(str.isalpha, "".join(words[:count]))):
        return None
    query = ContractQuery(" ".join(words[:count]))
    for part in read:
        assert part is not None
        if any(getattr(query, field) not in (None, "", ()) for field in part):
            return None  # two strikes, or two expiries
        query = query._replace(**part)
    return query


def nearest_strikes(
    query: ContractQuery, contracts: Sequence[Instrument], most: int
) -> list[Instrument]:
    """Return the contracts whose strike is nearest to the one in the words."""
    strike = query.strike
    with_strikes = [one for one in contracts if strike is not None and one.strike is not None]
    with_strikes.sort(key=lambda one: (abs((one.strike or 0) - (strike or 0)), one.expiry))
    return with_strikes[:most]


def _read_word(word: str) -> dict[str, Any] | None:
    """Return the fields of a ContractQuery that a word sets; None when it sets none."""
    if word in _OPTION_TYPES:
        return {"option_type": _OPTION_TYPES[word]}
    if word in _KINDS:
        return {"kind": _KINDS[word]}
    if (match := _STRIKE.fullmatch(word)) is not None:
        fields: dict[str, Any] = {"strike": float(match[1])}
        return fields | ({"option_type": match[2]} if match[2] else {})
    expiries = tuple(_read_expiry(word))
    return {"expiries": expiries} if expiries else None


def _read_expiry(word: str) -> Iterator[ExpiryWords]:
    if (match := _ISO_DAY.fullmatch(word)) is not None:
        yield ExpiryWords(int(match[2]), int(match[3]), int(match[1]))
    elif (match := _DAY.fullmatch(word)) is not None:
        month = _MONTHS.index(match[2]) + 1
        yield ExpiryWords(month, int(match[1]), _year(match[3]))
        if match[3] is None and len(match[1]) == 2:
            yield ExpiryWords(month, None, _year(match[1]))  # 26DEC, as in trading symbols
    elif (match := _IN_MONTH.fullmatch(word)) is not None:
        yield ExpiryWords(_MONTHS.index(match[1]) + 1, None, _year(match[2]))


def _year(text: str | None) -> int | None:
    return None if text is None else int(text) % 100 + 2000
