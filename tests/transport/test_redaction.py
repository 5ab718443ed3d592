"""No error repeats what was sent as a secret, however the server writes it."""

from __future__ import annotations

import time
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import ProtocolError, Rejected
from neo_async.transport.redaction import Secrets

TOKEN = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0/with+signs=="
PIN = "739184"

secrets = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=80)


@pytest.mark.parametrize(
    "written",
    [TOKEN, TOKEN.upper(), TOKEN.lower(), quote(TOKEN, safe=""), quote_plus(TOKEN),
     quote(TOKEN, safe="").lower(), TOKEN.replace("/", r"\/")],
)  # fmt: skip
def test_a_secret_is_found_however_it_is_written(written):
    for text in (f"token {written}.", f"x{written}x", rf'{{"a":"\n{written}"}}', written * 3):
        scrubbed = Secrets(TOKEN, PIN).scrub(text)
        assert written[8:] not in scrubbed
        assert "***" in scrubbed
    assert Secrets(TOKEN).scrub(f"token {written}.") == "token ***."


@given(secrets, st.text(), st.text())
def test_nothing_of_a_secret_is_left_and_nothing_else_is_taken(secret, before, after):
    scrubbed = Secrets(secret).scrub(before + secret + after)
    assert secret not in scrubbed
    assert "***" in scrubbed
    assert Secrets(secret).scrub("quite 1 other") in ("quite 1 other", "***")


@pytest.mark.parametrize("length", range(len(TOKEN) // 3, len(TOKEN)))
def test_an_excerpt_that_ends_in_a_secret_shows_little_of_it(length):
    assert Secrets(TOKEN).scrub(f"cannot take {TOKEN[:length]}'") == "cannot take ***'"


def test_a_short_secret_is_a_word_of_its_own():
    secrets = Secrets(PIN, "", "a", "id")
    assert (
        secrets.scrub(f"order 1{PIN}55 of {PIN}, a valid id")
        == f"order 1{PIN}55 of ***, a valid id"
    )


def test_bytes_stay_as_they_are_around_a_secret():
    assert Secrets(TOKEN).scrub(b"\xff\x00 " + TOKEN.encode() + b" \xe0") == b"\xff\x00 *** \xe0"


def test_an_error_and_its_causes_hold_no_secret():
    def fail() -> None:
        with Secrets(TOKEN, PIN).kept_out_of_errors():
            try:
                try:
                    raise ValueError(f"Invalid isoformat string: {TOKEN!r}")
                except ValueError as error:
                    raise ProtocolError("odd", body=f'{{"token":"{TOKEN}"}}') from error
            except ProtocolError as error:
                raise Rejected(f"no {PIN}", code=TOKEN, status=400, body=TOKEN) from error

    with pytest.raises(Rejected) as caught:
        fail()
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert TOKEN[:16] not in shown
    assert PIN not in shown
    assert str(error) == "no *** (code ***, HTTP 400)"
    assert error.status == 400


def test_a_context_that_is_not_shown_is_not_kept_either():
    def fail() -> None:
        with Secrets(TOKEN).kept_out_of_errors():
            try:
                raise ValueError(TOKEN)
            except ValueError:
                raise ProtocolError("odd") from None

    with pytest.raises(ProtocolError) as caught:
        fail()
    assert caught.value.__context__ is None


def test_secrets_print_as_nothing():
    assert repr(Secrets(TOKEN, PIN)) == "<Secrets, 2 values>"


@pytest.mark.parametrize("text", ["x" * 2_000_000, TOKEN[:20] * 100_000, "eyJhbGci" * 250_000])
def test_the_cost_is_linear(text):
    began = time.perf_counter()
    Secrets(TOKEN, PIN, "other-secret-0001").scrub(text)
    assert time.perf_counter() - began < 5
