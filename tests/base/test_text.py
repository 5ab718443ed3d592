"""Words of others are seen, and do nothing."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.base.text import shown, shown_json


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("RAVI K", "RAVI K"),
        ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("\u202e00.51\u202c", r"\u202e00.51\u202c"),
        ("\u2066x\u2069\u200e\u200f\u061c", r"\u2066x\u2069\u200e\u200f\u061c"),
        ("\ud800", r"\ud800"),
        ("\ufeffx", r"\ufeffx"),
        # What people write stays: blanks, scripts with joiners, and emoji.
        ("रवि क\u200dष", "रवि क\u200dष"),
        ("1\u00a0500 \u20b9 👨\u200d👩", "1\u00a0500 \u20b9 👨\u200d👩"),
    ],
)
def test_what_acts_is_written_out_and_the_rest_stays(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(st.text(st.characters(codec=None)))
def test_nothing_that_acts_is_left(text: str) -> None:
    seen = shown(text)
    assert len(seen.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in seen)
    assert not any(
        unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE", "PDF", "LRI", "RLI")
        for letter in seen
    )
    assert shown(seen) == seen


@given(st.text())
def test_json_means_the_same(text: str) -> None:
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        assert json.loads(shown_json(written)) == text
        assert shown(shown_json(written)) == shown_json(written)
