"""neo-async kite: what is shown, what is asked, what is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from neo_async.cli import prompts
from neo_async.cli.kite.access import _Stored
from neo_async.exchange import Exchange, Faults
from neo_async.kite import FundOrder, Sip
from tests.cli.conftest import Invoke, exchange_in_a_thread

ISIN = "INF174K01LS2"
FUND = "Kotak Select Focus Fund- Direct Plan - Growth"
HELD = "INF205K01NT8"
SIP = ("kite", "sip", "place", HELD, "500", "--frequency", "weekly")


@pytest.fixture
def house(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    """An open exchange, and the environment that leads commands to its investor."""
    with exchange_in_a_thread(Exchange(seed=5, market_makers=False, limits=None)) as exchange:
        monkeypatch.setenv("KITE_URL", exchange.kite_url)
        monkeypatch.setenv("KITE_CA_FILE", "")
        monkeypatch.setenv("KITE_API_KEY", exchange.kite.api_key)
        monkeypatch.setenv("KITE_API_SECRET", exchange.kite.api_secret)
        monkeypatch.setenv("KITE_ACCESS_TOKEN", exchange.kite.access_token)
        yield exchange


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "can_prompt", lambda: True)


def test_every_command_has_help(invoke: Invoke) -> None:
    for words in (
        (), ("login",), ("logout",), ("orders",), ("sips",), ("holdings",), ("instruments",),
        ("buy",), ("sell",), ("cancel",), ("sip",), ("sip", "place"), ("sip", "modify"),
        ("sip", "cancel"),
    ):  # fmt: skip
        assert invoke("kite", *words, "--help").exit_code == 0
    assert "KITE_API_KEY" in invoke("kite", "--help").stdout


def test_buying_selling_and_what_is_there(house: Exchange, invoke: Invoke) -> None:
    assert invoke("kite", "orders").stdout == "no orders in the last seven days\n"
    bought = invoke("kite", "buy", ISIN, "5000", "--tag", "cli", "--yes")
    assert bought.exit_code == 0
    (order,) = house.funds.orders()
    assert (order.amount, order.tag) == (5000_00, "cli")
    for word in (order.order_id, FUND, "5,000.00", "cli", "open"):
        assert word in bought.stdout
    sold = json.loads(invoke("kite", "sell", HELD, "1.5", "--yes", "--json").stdout)
    assert (sold["quantity"], sold["transaction_type"]) == (1.5, "SELL")
    listed = json.loads(invoke("kite", "orders", "--json").stdout)
    assert [row["order_id"] for row in listed] == [sold["order_id"], order.order_id]
    assert set(listed[0]) == set(FundOrder.__struct_fields__)
    assert order.order_id in invoke("kite", "orders", order.order_id).stdout
    holdings = invoke("kite", "holdings").stdout
    assert "382.488" in holdings
    assert "+2,457.93" in holdings
    assert len(json.loads(invoke("kite", "holdings", "--json").stdout)) == 2


def test_cancelling(house: Exchange, invoke: Invoke) -> None:
    order = json.loads(invoke("kite", "buy", ISIN, "5000", "--yes", "--json").stdout)
    outcome = invoke("kite", "cancel", order["order_id"], "--yes")
    assert "cancelled" in outcome.stdout
    again = invoke("kite", "cancel", order["order_id"], "--yes")
    assert again.exit_code == 1
    assert "is CANCELLED and cannot be cancelled" in again.everything


def test_sips_from_beginning_to_end(house: Exchange, invoke: Invoke) -> None:
    assert invoke("kite", "sips").stdout == "no SIPs\n"
    placed = json.loads(invoke(*SIP, "--instalments", "5", "--yes", "--json").stdout)
    assert set(placed) == set(Sip.__struct_fields__)
    sip_id = placed["sip_id"]
    house.funds.set_step_up(sip_id, {"05-05": 10})
    shown = invoke("kite", "sips").stdout
    for word in (sip_id, "500.00", "week", "0/5", "10 % on 05-05", "active"):
        assert word in shown
    changed = invoke(
        "kite", "sip", "modify", sip_id, "--amount", "1000", "--status", "paused",
        "--frequency", "monthly", "--day", "10", "--instalments", "-1", "--yes",
    )  # fmt: skip
    for word in ("1,000.00", "month, day 10", "paused"):
        assert word in changed.stdout
    assert "cancelled" in invoke("kite", "sip", "cancel", sip_id, "--yes").stdout
    assert invoke("kite", "sips").stdout == "no SIPs\n"
    assert "cancelled" in invoke("kite", "sips", sip_id).stdout


def test_funds_are_found(house: Exchange, invoke: Invoke) -> None:
    outcome = invoke("kite", "instruments", "kotak", "select", "--plan", "direct")
    assert ISIN in outcome.stdout
    assert "INF174K01336" not in outcome.stdout
    assert "2 of 183; --limit 0 shows all" in invoke("kite", "instruments", "--limit", "2").stdout
    assert "none of 183 funds matches" in invoke("kite", "instruments", "zzz").stdout
    assert "purchases" in invoke("kite", "instruments", "closed").stdout
    found = json.loads(invoke("kite", "instruments", "--isin", ISIN, "--json").stdout)
    assert [fund["name"] for fund in found] == [FUND]
    outcome = invoke("kite", "instruments", "--dividend", "reinvestment")
    assert outcome.exit_code == 2
    assert "does not support dividend reinvestment" in outcome.everything


# --- asking ---------------------------------------------------------------------------------------


def test_nothing_is_sent_where_nobody_can_be_asked(house: Exchange, invoke: Invoke) -> None:
    outcome = invoke("kite", "buy", ISIN, "5000")
    assert outcome.exit_code == 2
    assert f"buy {FUND} ({ISIN}) for 5000 rupees" in outcome.everything
    assert "--yes" in outcome.everything
    assert house.funds.orders() == []


@pytest.mark.usefixtures("at_a_terminal")
def test_every_change_says_what_it_is_and_takes_no_for_an_answer(
    house: Exchange, invoke: Invoke
) -> None:
    sip_id = json.loads(invoke(*SIP, "--yes", "--json").stdout)["sip_id"]
    order = json.loads(invoke("kite", "buy", ISIN, "5000", "--yes", "--json").stdout)["order_id"]
    before = house.funds.state.numbers
    for words, said in (
        (("buy", ISIN, "6000"), f"buy {FUND} ({ISIN}) for 6000 rupees"),
        (("sell", HELD, "2"), "sell 2 units of INVESCO"),
        (("cancel", order), f"cancel order {order}: buy 5,000.00 rupees of {FUND}, open"),
        (
            ("sip", "place", ISIN, "100", "--frequency", "monthly", "--day", "5",
             "--initial", "5000"),
            f"invest 100 rupees in {FUND} ({ISIN}) monthly on day 5, until it is cancelled, and "
            "5000 at first",
        ),
        (
            ("sip", "modify", sip_id, "--status", "paused"),
            f"modify SIP {sip_id}: 500.00 rupees weekly in INVESCO INDIA TAX PLAN - DIRECT PLAN, "
            "active: status paused",
        ),
        (("sip", "cancel", sip_id), f"cancel SIP {sip_id}"),
    ):  # fmt: skip
        outcome = invoke("kite", *words, typed="n\n")
        assert said in outcome.everything
        assert f"the access token's owner at {house.kite_url}" in outcome.everything
        assert outcome.everything.endswith("nothing was sent\n")
        assert outcome.exit_code == 1
    assert house.funds.state.numbers == before
    assert house.funds.sip(sip_id).state == "ACTIVE"
    assert invoke("kite", "buy", ISIN, "6000", typed="y\n").exit_code == 0
    assert house.funds.state.numbers == before + 1


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("buy", "INF174K01LS1", "5000"), "check digit is 2"),
        (("buy", ISIN, "5000.001"), "at most 2 decimals"),
        (("buy", ISIN, "50"), "at least 100"),
        (("sell", HELD, "1.0005"), "at most 3 decimals"),
        (("sip", "place", ISIN, "50", "--frequency", "weekly"), "at least 100"),
        (("sip", "place", ISIN, "500", "--frequency", "monthly"), "one of 1, 5"),
        (("sip", "modify", "1"), "nothing to change: give --amount"),
        (("cancel", "1/2"), "order_id='1/2'"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anybody_is_asked(
    house: Exchange, invoke: Invoke, words: tuple[str, ...], text: str
) -> None:
    outcome = invoke("kite", *words)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert text in outcome.everything
    assert "Send it?" not in outcome.everything


def test_without_a_list_of_funds_a_change_goes_out_unchecked(
    house: Exchange, invoke: Invoke
) -> None:
    house.faults.set(Faults(error_before=1.0, calls=("reads",)))
    outcome = invoke("kite", "buy", ISIN, "5000", "--yes")
    assert "not checked against the list of funds" in outcome.everything
    (order,) = house.funds.orders()
    assert f"{order.order_id} was sent, but cannot be read" in outcome.everything
    assert outcome.exit_code == 0


# --- the login ------------------------------------------------------------------------------------


def log_in(house: Exchange) -> str:
    with urlopen(f"{house.kite_url}/connect/login?api_key={house.kite.api_key}") as page:
        return str(page.url)


def test_a_login_is_kept_until_the_logout(
    house: Exchange, invoke: Invoke, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KITE_ACCESS_TOKEN")
    outcome = invoke("kite", "holdings")
    assert outcome.exit_code == 2
    assert "neo-async kite login" in outcome.everything
    address = log_in(house)
    assert invoke("kite", "login", address).stdout.startswith(f"logged in as {house.kite.user_id}")
    (file,) = cache.glob("kite-login-*.json")
    assert file.stat().st_mode & 0o077 == 0
    assert invoke("kite", "holdings").exit_code == 0
    assert f"{house.kite.user_id} at" in invoke("kite", "buy", ISIN, "5000").everything
    token = json.loads(file.read_text())["access_token"]
    assert invoke("kite", "logout").stdout == "logged out\n"
    assert not file.exists()
    monkeypatch.setenv("KITE_ACCESS_TOKEN", token)
    assert "Incorrect" in invoke("kite", "holdings").everything
    assert invoke("kite", "logout").stdout == "no login was stored\n"


@pytest.mark.usefixtures("house")
def test_a_file_that_others_can_read_is_not_trusted(
    house: Exchange, invoke: Invoke, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KITE_ACCESS_TOKEN")
    invoke("kite", "login", log_in(house))
    (file,) = cache.glob("kite-login-*.json")
    file.chmod(0o644)
    assert invoke("kite", "holdings").exit_code == 2


@pytest.mark.usefixtures("at_a_terminal")
def test_the_address_is_asked_for(
    house: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = invoke("kite", "login", typed=f"{log_in(house)}\n")
    assert f"log in at {house.kite_url}/connect/login?v=3" in outcome.everything
    assert "logged in as" in outcome.stdout
    assert "no request token" in invoke("kite", "login", "https://app/?status=x&a=b").everything
    monkeypatch.delenv("KITE_API_SECRET")
    assert "environment lacks KITE_API_SECRET" in invoke("kite", "login").everything
    monkeypatch.delenv("KITE_API_KEY")
    assert "environment lacks KITE_API_KEY" in invoke("kite", "orders").everything


def test_a_token_is_good_until_six_in_the_morning() -> None:
    def at(hour: float, day: int = 0) -> float:
        """Unix seconds of an hour in India on a Monday."""
        return 1_795_408_200.0 + (hour - 10) * 3600 + day * 86_400

    stored = _Stored(access_token="t", user_id="u", made_at=at(10))
    assert [stored.is_good(at(hour, day)) for hour, day in ((10, 0), (23.9, 0), (5.9, 1))] == [
        True, True, True
    ]  # fmt: skip
    assert not stored.is_good(at(6.1, 1))
    early = _Stored(access_token="t", user_id="u", made_at=at(5))
    assert not early.is_good(at(7))
    assert not stored.is_good(time.time() + 10**9)
