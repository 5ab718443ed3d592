from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import InvalidOrder
from neo_async.wire.tags import OWN_TAG_LENGTH, TagMaker, _count, matches, own_tag

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
own_tags = st.text(ALPHABET, max_size=OWN_TAG_LENGTH)


@given(own_tags)
def test_the_callers_own_tag_can_be_read_back(own):
    tag = TagMaker().make(own)
    assert own_tag(tag) == own
    assert re.fullmatch(r"[A-Za-z0-9_]{1,20}", tag)


@given(own_tags)
def test_it_can_be_read_back_after_a_cancel_too(own):
    assert own_tag(TagMaker().make(own) + "-1764835123") == own


def test_a_maker_never_repeats_itself():
    maker = TagMaker()
    tags = [maker.make(own) for own in ("", "a", "a_b") for _ in range(3000)]
    assert len(set(tags)) == len(tags)


def test_two_makers_do_not_share_tags():
    first, second = TagMaker(), TagMaker()
    assert {first.make() for _ in range(500)}.isdisjoint(second.make() for _ in range(500))


def test_the_counter_goes_on_beyond_four_digits():
    counted = list(islice(_count(), 36**4 + 1))
    assert (counted[0], counted[1], counted[36], counted[36**4 - 1], counted[36**4]) == (
        "0000",
        "0001",
        "0010",
        "zzzz",
        "00000",
    )


@pytest.mark.parametrize(
    "own", ["a-b", "a b", "ü", "a" * (OWN_TAG_LENGTH + 1), "a\n", "²", 7, 0, None, b"a"]
)
def test_an_own_tag_of_other_characters_or_length_is_refused(own):
    with pytest.raises(InvalidOrder, match=r"at most 9 characters of \[A-Za-z0-9_\]") as caught:
        TagMaker().make(own)
    assert (caught.value.field, caught.value.value) == ("tag", own)


@pytest.mark.parametrize(
    ("gui_order_id", "is_ours"),
    [
        ("bot_k3x9a20001", True),
        ("bot_k3x9a20001-1764835123", True),  # after a cancel
        ("1764835124-266187-****-ADMINAPI", False),  # after a modification: look by number
        ("bot_k3x9a200011", False),
        ("bot_k3x9a20001_", False),
        ("xbot_k3x9a20001", False),
        ("bot_k3x9a2000", False),
        ("", False),
    ],
)
def test_a_row_is_ours_by_its_tag_with_or_without_the_suffix_of_a_cancel(gui_order_id, is_ours):
    assert matches(gui_order_id, "bot_k3x9a20001") is is_ours


def test_the_brokers_own_tags_hold_nothing_of_ours():
    assert own_tag("1655803172-359607-TESTY1124A-ADMINAPI") == ""
    assert own_tag("") == ""
