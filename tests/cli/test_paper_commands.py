"""neo-async paper: play market and bank at an exchange."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest

from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke, Outcome


class Paper:
    """The commands, led to the exchange by the environment."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke

    def __call__(self, *arguments: str) -> Outcome:
        return self._invoke("paper", *arguments)


@pytest.fixture
def run(exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Paper:
    monkeypatch.setenv("NEO_EXCHANGE_ADMIN_URL", exchange.admin_url)
    return Paper(invoke)


def test_a_price_prints_by_symbol(exchange: Exchange, run: Paper) -> None:
    done = run("price", "RELIANCE-EQ", "1420")
    assert (done.exit_code, done.stdout) == (0, "nse_cm:RELIANCE-EQ traded at 1,420.00\n")
    refused = run("price", "RELAINCE-EQ", "1420")
    assert refused.exit_code == 2
    assert "the nearest are nse_cm:RELIANCE-EQ" in refused.everything


def test_a_payment_reaches_the_bank_or_says_why_not(exchange: Exchange, run: Paper) -> None:
    refused = run("credit", "NOSUCH1", "1500.00")
    assert (refused.exit_code, "'NOSUCH1' is unknown" in refused.everything) == (2, True)


def test_the_clock_is_shown_and_moved(exchange: Exchange, run: Paper) -> None:
    before = exchange.market.now_ns
    assert run("clock").stdout.endswith(" in India\n")
    assert run("clock", "--advance", "3600").exit_code == 0
    assert exchange.market.now_ns - before >= 3600 * 10**9
    refused = run("clock", "2020-01-01T09:15:00")
    assert (refused.exit_code, "must not be before" in refused.everything) == (2, True)


def test_settings_and_faults_are_shown_and_set(exchange: Exchange, run: Paper) -> None:
    assert json.loads(run("settings").stdout)["covered_orders"] is False
    answer = run("settings", "covered_orders=true", "interval=0.2")
    assert json.loads(answer.stdout) == {"covered_orders": True, "interval": 0.2}
    assert exchange.market.rules.covered_orders
    refused = run("settings", "covered_order=true")
    assert (refused.exit_code, "the nearest is covered_orders" in refused.everything) == (2, True)
    assert run("faults", '{"throttle": 0.5}').exit_code == 0
    assert exchange.faults.settings.throttle == 0.5
    assert json.loads(run("faults").stdout)["settings"] == {"throttle": 0.5}
    assert run("faults", '{"throtle": 0.5}').exit_code == 2


def test_ledger_requests_and_reset(exchange: Exchange, run: Paper) -> None:
    assert run("ledger").stdout == "no order was accepted\n"
    assert json.loads(run("ledger", "--json").stdout) == []
    assert run("requests").stdout == "no request has come\n"
    with pytest.raises(urllib.error.HTTPError):  # it wants a key, and is counted all the same
        urllib.request.urlopen(f"{exchange.login_url}/script-details/1.0/masterscrip/file-paths")
    (line,) = [line for line in run("requests").stdout.splitlines() if "/script-details" in line]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} +GET +/script-details", line)
    market = exchange.market
    assert run("reset").exit_code == 0
    assert exchange.market is not market


@pytest.mark.parametrize("url", ["", "127.0.0.1:1"])
def test_without_an_exchange_it_says_how_to_start_one(
    run: Paper, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("NEO_EXCHANGE_ADMIN_URL", url)
    done = run("ledger")
    assert done.exit_code == 2
    assert "neo-async exchange --env FILE" in done.everything


def test_an_exchange_that_is_gone_is_one_line_without_its_key(
    run: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO_EXCHANGE_ADMIN_URL", "http://127.0.0.1:1/admin/the-key-of-16-letters")
    done = run("ledger")
    assert done.exit_code == 1
    assert done.everything.startswith(
        "neo-async: cannot reach the exchange at http://127.0.0.1:1: "
    )
    assert "the-key" not in done.everything
    assert done.everything.count("\n") == 1
