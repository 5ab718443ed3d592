from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import parse_qs, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import ProtocolError
from neo_async.wire.forms import decode_form, encode_form
from neo_async.wire.orders import CancelForm

Fields = dict[str, str]
fields = st.dictionaries(st.text(), st.text() | st.text(r"%+&={}:,\"' /-_~"), max_size=6)


@given(fields)
def test_what_is_encoded_is_decoded_again(values):
    assert decode_form(encode_form(values), Fields) == values


@given(fields)
def test_urllib_reads_what_is_encoded(values):
    body = encode_form(values).decode("ascii")
    (text,) = parse_qs(body, strict_parsing=True)["jData"]
    assert json.loads(text) == values


@given(fields)
def test_what_urllib_and_the_official_client_write_is_decoded(values):
    body = urlencode({"jData": json.dumps(values)}).encode()
    assert decode_form(body, Fields) == values
    assert decode_form(body.replace(b"+", b"%20"), Fields) == values


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_nothing_but_safe_characters_travels(text):
    body = encode_form({"ts": text})
    assert body.startswith(b"jData=")
    assert set(body[6:]) <= set(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+%"
    )


def test_a_struct_is_written_without_what_was_not_set():
    assert encode_form(CancelForm(on="250720000007242")) == (
        b"jData=%7B%22on%22%3A%22250720000007242%22%7D"
    )
    assert encode_form({"ts": "M&M-EQ"}) == b"jData=%7B%22ts%22%3A%22M%26M-EQ%22%7D"


def test_null_counts_as_absent():
    body = urlencode({"jData": '{"on": "7", "am": null, "ts": null, "new": null}'}).encode()
    assert decode_form(body, CancelForm) == CancelForm(on="7")
    with pytest.raises(ProtocolError, match="missing required field `on`"):
        decode_form(urlencode({"jData": '{"on": null}'}).encode(), CancelForm)


def test_other_fields_of_the_form_are_ignored():
    assert decode_form(b"sId=server1&jData=%7B%22on%22%3A%227%22%7D&x=", CancelForm).on == "7"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"on=7",
        b"jData",
        b"jData=",
        b"jData=7",
        b"jData=[]",
        b"jData=%7B%22on%22",
        b"jData=%7B%22on%22%3A7%7D",
        b"jData=" + b"%5B" * 5000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_form_is_refused(body):
    with pytest.raises(ProtocolError, match="jData"):
        decode_form(body, CancelForm)


@given(st.binary() | st.binary().map(lambda tail: b"jData=" + tail))
def test_no_body_whatever_raises_anything_else(body):
    with suppress(ProtocolError):
        assert decode_form(body, CancelForm).on


def test_the_encoding_is_that_of_msgspec():
    assert decode_form(encode_form({"a": "1"}), dict[str, str]) == {"a": "1"}
    assert msgspec.json.decode(parse_qs(encode_form({"ü": "€"}).decode())["jData"][0]) == {"ü": "€"}
