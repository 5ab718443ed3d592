"""The spellings of sides, types, products and segments: a code or a name, in any case."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from neo_async import Interval, OrderType, Product, QuoteFilter, Segment, Side, Validity
from neo_async.model.enums import OffsetKind
from neo_async.model.spellings import choices, member_of

VOCABULARIES: tuple[type[Enum], ...] = (
    Side, OrderType, Product, Segment, Validity, OffsetKind, Interval, QuoteFilter,
)  # fmt: skip
MEMBERS = [(vocabulary, member) for vocabulary in VOCABULARIES for member in vocabulary]


@pytest.mark.parametrize(("vocabulary", "member"), MEMBERS)
def test_a_member_its_code_and_its_name_are_the_same_in_any_case(
    vocabulary: type[Enum], member: Enum
) -> None:
    code = str(member.value)
    for text in (member, code, code.upper(), code.lower(), member.name, member.name.title()):
        assert member_of(vocabulary, text) is member


@pytest.mark.parametrize(
    ("vocabulary", "text", "member"),
    [
        (Side, "b", Side.BUY),
        (OrderType, "sl-m", OrderType.SL_M),
        (OrderType, "SL_M", OrderType.SL_M),
        (OrderType, "slm", OrderType.SL_M),
        (OrderType, "mkt", OrderType.MARKET),
        (Segment, "NSE-CM", Segment.NSE_CM),
    ],
)
def test_the_marks_between_words_do_not_matter(
    vocabulary: type[Enum], text: str, member: Enum
) -> None:
    assert member_of(vocabulary, text) is member


@pytest.mark.parametrize("value", ["", "NSE", "stop", None, 7, b"B", "B" * 1000, ["B"]])
def test_nothing_is_guessed(value: Any) -> None:
    for vocabulary in VOCABULARIES:
        with pytest.raises(ValueError, match=r"^must be one of "):
            member_of(vocabulary, value)


def test_an_exchange_is_no_segment_and_the_error_says_which_it_has() -> None:
    with pytest.raises(ValueError, match=r"mcx_fo; NSE alone could be nse_cm or nse_fo$"):
        member_of(Segment, "NSE")


def test_codes_are_listed_with_what_they_mean() -> None:
    assert choices(Side) == "B (buy), S (sell)"
    assert choices(OrderType) == "L (limit), MKT (market), SL, SL-M"
    assert choices(Product) == "CNC, MIS, NRML, MTF, CO, BO"
