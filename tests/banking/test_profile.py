"""A profile that cannot be right says which key is wrong."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from neo_async.banking import BankingProfile, Refusal
from neo_async.banking.names import Call
from neo_async.banking.profile import Server
from neo_async.errors import UsageError
from tests.banking.other_bank import PROFILE

WRONG = [
    ("[sever]\n", "sever: unknown key; known are server, customer, plan, "),
    ("[server]\nbase = 'https://x'\n", r"server\.base: unknown key; known are base_url, "),
    ("[server]\nbase_url = 'x'\n", r"server\.base_url='x': must start with https:// or http://"),
    ("[server]\nauth = 'oauth1'\n", r"server\.auth: Invalid enum value 'oauth1'"),
    ("[server]\ntimeout = 0\n", r"server\.timeout=0.*: must be above 0"),
    ("[plan]\nrequests_per_second = 0\n", r"plan\.requests_per_second=0: must be above 0"),
    ("[plan]\nrequests_per_day = -1\n", r"plan\.requests_per_day=-1"),
    ("[plan]\nrequests_per_day = 'x'\n", r"plan\.requests_per_day: Expected `int`"),
    ("[paths]\nfetch = 'x'\n", r"paths\.fetch='x': must be /path or METHOD /path"),
    ("[paths]\nfetsh = '/x'\n", r"paths\.fetsh: unknown key; known are create, modify, "),
    ("[request.fetsh]\n", r"request\.fetsh: unknown key; known are create, modify"),
    ("[request.fetch]\nclient = 'x'\n", r"request\.fetch\.client: unknown key; known are request_"),
    ("[request.fetch]\nclient_name = 'a b'\n", r"request\.fetch\.client_name='a b': must be names"),
    ("[request.fetch]\nclient_name = 7\n", r"request\.fetch\.client_name: must be a path"),
    ("[request.create]\naccounts = 'x'\n", r"accounts='x': must end with \[\]"),
    ("[request.create]\nclient_name = 'x[]'\n", r"client_name='x\[\]': is no list"),
    ("[response.fetch]\n'transactions.amount' = ''\n", r"transactions\.amount: must not be empty"),
    ("[response.fetch.transactions]\namount = 'x'\n", "must be a path as text; the fields of a"),
    ("[response]\nfetch = 'x'\n", r"response\.fetch: must be a table of names"),
    ("[constants.x]\n", r"constants\.x: unknown key"),
    ("[codes]\nX = 'y'\n", "Invalid enum value 'y'"),
    ("[status_words.account]\nA = 'OK'\n", r"status_words\.account\.A='OK': must be one of ACTIVE"),
    ("[format]\namount = 'float'\n", r"format\.amount: Invalid enum value 'float'"),
    ("[format]\ntimezone = 'IST'\n", r"format\.timezone='IST': must be like \+05:30"),
    ("[format]\nmax_items = 0\n", r"format\.max_items=0"),
    ("[rules]\nmobile = '('\n", r"rules\.mobile='\('"),
    ("[ack]\nmode = 'in_next_fetch'\n", r"request\.fetch\.ack_batch_id: must be given when"),
    ("[server\n", "Expected ']'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_profile_names_file_and_key(text, message, tmp_path):
    path = tmp_path / "bank.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        BankingProfile.load(path)
    assert str(path) in str(caught.value)


def test_what_is_not_given_keeps_its_default():
    profile = BankingProfile.of({"request": {"fetch": {"client_name": "ClientHeader.ClientName"}}})
    assert profile.request[Call.FETCH]["client_name"] == "ClientHeader.ClientName"
    assert profile.request[Call.FETCH]["physical_account"] == "physicalAccount"
    assert profile.codes["VA1002"] is Refusal.DUPLICATE
    assert profile.timezone.utcoffset(None) == timedelta(hours=5, minutes=30)


def test_a_struct_does_as_well_as_a_file():
    profile = BankingProfile(
        server=Server(base_url="https://bank.example"),
        request={"fetch": {"client_name": "Who"}},
    )
    assert profile.request[Call.FETCH]["client_name"] == "Who"
    changed = msgspec.structs.replace(profile, codes={"E9": Refusal.TEMPORARY})
    assert changed.request == profile.request
    assert changed.codes["E9"] is Refusal.TEMPORARY
    with pytest.raises(UsageError, match=r"request\.fetch\.who: unknown key"):
        BankingProfile(request={"fetch": {"who": "x"}})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"server": {"base_url": "https://bank.example:99999"}}, "server.base_url"),
        ({"server": {"base_url": "https://[::1"}}, "server.base_url"),
        ({"server": {"base_url": "https://bank.example/a b"}}, "server.base_url"),
        ({"server": {"base_url": "ftp://bank.example"}}, "server.base_url"),
        ({"server": {"base_url": "https://"}}, "server.base_url"),
        ({"server": {"extra_headers": {"X Key": "hush"}}}, "server.extra_headers.X Key"),
        ({"server": {"extra_headers": {"X": "hush\r\nY: 1"}}}, "server.extra_headers.X"),
        ({"server": {"extra_headers": {"X": "hu\u0161h"}}}, "server.extra_headers.X"),
        ({"server": {"request_id_header": "a:b"}}, "server.request_id_header"),
        ({"idempotency": {"header": "a\nb"}}, "idempotency.header"),
    ],
)
def test_what_could_not_be_sent_is_named_when_the_profile_is_made(sections, message):
    with pytest.raises(UsageError) as caught:
        BankingProfile.of(sections)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)


def test_headers_that_may_hold_a_secret_are_not_shown():
    profile = BankingProfile(server=Server(extra_headers={"X-Key": "hush"}))
    assert "hush" not in repr(profile)
    assert "hush" not in repr(profile.server)


def test_the_example_of_another_format_shares_no_path_with_the_default():
    """Else the tests with it would prove less than they say."""
    default, other = BankingProfile(), BankingProfile.load(PROFILE)
    for call in Call:
        assert default.path(call) != other.path(call) or not other.path(call)
        for ours, theirs in (
            (default.request[call], other.request[call]),
            (default.response[call], other.response[call]),
        ):
            if call is Call.ACK:
                continue
            used = {name for name in theirs.values() if name}
            shared = used & set(ours.values())
            assert not shared, f"{call}: {shared}"
