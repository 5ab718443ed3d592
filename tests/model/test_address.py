"""Which addresses a client connects to."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from neo_async.model.address import SOCKET, WEB, address_problem, shown_address


@pytest.mark.parametrize(
    "address",
    [
        "https://mis.kotaksecurities.com",
        "https://broker.example:8443/a/path",
        "http://127.0.0.1:8080",
        "http://127.8.9.1",
        "http://localhost:1/x",
        "http://LOCALHOST",
        "http://[::1]:8080",
        "HTTPS://broker.example",
    ],
)
def test_tls_anywhere_and_clear_text_on_this_machine_are_right(address):
    assert address_problem(address) == ""


@pytest.mark.parametrize(
    "address",
    [
        "http://broker.example",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://0.0.0.0",
        "http://0x7f.1",
        "http://[::2]",
    ],
)
def test_clear_text_to_another_machine_needs_an_explicit_wish(address):
    assert "in clear text" in address_problem(address)
    assert address_problem(address, insecure=True) == ""


@pytest.mark.parametrize("address", ["http://127.0.0.1", "http://broker.example"])
def test_after_tls_only_tls_is_right_whatever_was_wished(address):
    assert "must start with https://" in address_problem(address, tls_only=True, insecure=True)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "127.0.0.1",
        "https:/broker.example",
        "https://",
        "https://:80",
        "https://h:99999",
        "https://h:0",
        "https://[::1",
        "https://[1::2::3]",
        "https://0[::]",
        "https://127.0.0.1[::1]",
        "https://[::1]x",
        "https://[::1][::1]",
        "https://[::1%eth0/a",
        "https://x\u2100y.example",
        "https://b\u00fccher.example",
        "https://a b",
        "https://a/b c",
        "https://a\r\nX: y",
        "https://a/\tb",
        "https://a\\b.example",
        "https://user:secret@broker.example",
        "https://a..b",
        "https://" + "a" * 64 + ".example",
        "https://a/" + "b" * 2000,
        "wss://broker.example",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(address):
    assert address_problem(address, insecure=True)


def test_what_paths_are_added_to_holds_no_query():
    assert address_problem("https://a/b?c=d") == ""
    assert "query" in address_problem("https://a/b?c=d", is_base=True)
    assert "query" in address_problem("https://a/b#c", is_base=True)


def test_an_address_is_shown_without_a_password_or_a_query():
    shown = shown_address("https://user:secret@host/path?token=secret")
    assert shown == "'https://host/path'"
    assert len(shown_address("https://" + "a" * 5000)) < 200


@example("HTTP://0[::]")
@given(st.text() | st.text("htps:/[].@1:wf0\\", max_size=30).map("https://".__add__))
def test_any_text_is_judged_and_what_is_right_can_be_connected_to(text):
    shown_address(text)
    if not address_problem(text, schemes=WEB + SOCKET, insecure=True):
        url = URL(text, encoded=True)
        assert url.host
        assert url.port
        text.encode("ascii")
