"""login, logout and the reports, against an exchange in another thread."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path

import pytest

from neo_async.cli import account
from neo_async.client import NeoClient
from neo_async.exchange import Exchange
from neo_async.model.enums import Segment
from neo_async.model.portfolio import Limits, PositionRow
from neo_async.portfolio.valuation import value_position
from tests.cli.conftest import Invoke

BUY = ("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", "--price", "2100", "--yes")


def test_an_account_without_business_says_so(exchange: Exchange, invoke: Invoke) -> None:
    assert invoke("orders").everything == "no orders today\n"
    assert invoke("trades").everything == "no trades today\n"
    assert invoke("positions").everything == "no positions\n"
    assert json.loads(invoke("orders", "--json").stdout) == []


def test_one_login_serves_many_commands(exchange: Exchange, cache: Path, invoke: Invoke) -> None:
    # A second login within 30 s would need the same TOTP code, which the exchange refuses.
    for _ in range(3):
        assert invoke("limits").exit_code == 0
    (file,) = cache.glob("login-*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_login_prints_who_is_logged_in_where(exchange: Exchange, invoke: Invoke) -> None:
    ucc, base_url = exchange.credentials.ucc, exchange.base_url
    printed = f"logged in as {ucc} at {base_url}: paper; available 1,000,000.00\n"
    assert invoke("login").everything == printed
    assert json.loads(invoke("login", "--json").stdout) == {
        "ucc": ucc,
        "base_url": base_url,
        "is_paper": True,
        "available": 1_000_000.0,
    }


def test_logging_out_leaves_no_session_behind(
    exchange: Exchange, cache: Path, invoke: Invoke
) -> None:
    invoke("login")
    (file,) = cache.glob("login-*.json")
    assert json.loads(file.read_bytes())["session"]["token"]
    assert invoke("logout").exit_code == 0
    assert json.loads(file.read_bytes())["session"] is None


def test_a_cache_that_cannot_be_written_is_one_line(
    exchange: Exchange,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    outcome = invoke("login")
    assert outcome.exit_code == 0
    assert "the login could not be stored in /dev/null/neo_async" in caplog.text
    outcome = invoke("logout")
    assert outcome.exit_code == 1
    assert outcome.everything.startswith("neo-async: [Errno 20] Not a directory")


def test_a_wrong_mpin_keeps_which_code_it_used_up(
    exchange: Exchange, cache: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    monkeypatch.setenv("NEO_MPIN", "000000")
    assert "Invalid MPIN" in invoke("login").everything
    (file,) = cache.glob("login-*.json")
    stored = json.loads(file.read_bytes())
    assert (stored["session"], stored["refusal_kind"]) == (None, "WrongMpin")
    assert began // 30 <= stored["code_step"] <= time.time() // 30


def test_logging_out_needs_no_credentials(
    exchange: Exchange, cache: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("login")
    for name in ("NEO_CONSUMER_KEY", "NEO_MOBILE_NUMBER", "NEO_UCC", "NEO_MPIN"):
        monkeypatch.delenv(name)
    outcome = invoke("logout")
    ucc = exchange.credentials.ucc
    assert outcome.exit_code == 0
    assert outcome.stdout == (
        f"the stored login of account {ucc} at {exchange.login_url} is deleted\n"
    )
    assert invoke("logout").stdout == "no login was stored\n"
    (file,) = cache.glob("login-*.json")
    assert json.loads(file.read_bytes())["session"] is None


def test_the_address_that_the_broker_sees(exchange: Exchange, invoke: Invoke) -> None:
    assert invoke("ip").stdout == "127.0.0.1\n"
    assert json.loads(invoke("ip", "--json").stdout) == {"ip": "127.0.0.1"}


def test_a_bot_and_the_commands_share_one_login(
    exchange: Exchange, cache: Path, invoke: Invoke
) -> None:
    async def bot() -> str:
        async with NeoClient(session=True) as neo:
            return neo.session.token

    token = asyncio.run(bot())
    assert invoke("orders").stdout == "no orders today\n"
    (file,) = cache.glob("login-*.json")
    assert json.loads(file.read_bytes())["session"]["token"] == token
    assert exchange._open.logins is not None
    assert asyncio.run(bot()) == token


def test_a_session_file_of_ones_own(
    exchange: Exchange, cache: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEO_SESSION_FILE", str(tmp_path / "own.json"))
    invoke("login")
    assert json.loads((tmp_path / "own.json").read_bytes())["session"]["token"]
    assert not cache.exists()
    assert "is deleted" in invoke("logout").stdout


def test_a_login_without_a_secret_needs_a_code(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEO_TOTP_SECRET")
    outcome = invoke("orders")
    assert outcome.exit_code == 2
    assert "neo-async login --totp CODE" in outcome.everything
    outcome = invoke("login", "--totp", "000000")
    assert outcome.exit_code == 1
    assert "TOTP" in outcome.everything


def test_holdings_and_limits_are_tables_with_aligned_money(
    exchange: Exchange, invoke: Invoke
) -> None:
    lines = invoke("holdings").stdout.splitlines()
    assert lines[0].split() == [
        "Symbol",
        "Quantity",
        "Sellable",
        "Average",
        "Close",
        "Value",
        "Unrealised",
    ]
    (tcs,) = (line for line in lines if line.startswith("TCS "))
    assert tcs.split() == ["TCS", "100", "100", "2,012.36", "2,117.00", "211,700.00", "+10,464.50"]
    assert len({len(line.rstrip()) for line in lines}) == 1  # every row ends in the same column
    assert "Available" in invoke("limits").stdout


def test_an_order_shows_in_the_reports(exchange: Exchange, invoke: Invoke) -> None:
    invoke(*BUY)
    exchange.market.print_price(Segment.NSE_CM, "11536", 2100_00)
    (order,) = json.loads(invoke("orders", "--json").stdout)
    assert order["symbol"] == "TCS-EQ"
    assert order["status"] == "complete"
    assert order["price"] == 2100.0
    (trade,) = json.loads(invoke("trades", "--json").stdout)
    assert (trade["quantity"], trade["price"]) == (5, 2100.0)
    (position,) = json.loads(invoke("positions", "--json").stdout)
    assert (position["net_quantity"], position["pnl"]) == (5, 0.0)
    assert "2,100.00" in invoke("trades").stdout
    assert "complete" in invoke("orders").stdout
    assert "TCS-EQ" in invoke("positions").stdout


def test_a_session_that_the_broker_ended_is_renewed_and_kept(
    exchange: Exchange, cache: Path, invoke: Invoke
) -> None:
    invoke("login")
    (file,) = cache.glob("login-*.json")
    first = json.loads(file.read_bytes())["session"]["token"]
    exchange.end_sessions()
    exchange._open.logins._used_steps[exchange.credentials.ucc].clear()  # as if 30 s had passed
    assert invoke("orders").everything == "no orders today\n"
    renewed = json.loads(file.read_bytes())["session"]["token"]
    assert renewed != first
    assert invoke("orders").exit_code == 0
    assert json.loads(file.read_bytes())["session"]["token"] == renewed


def test_an_unreachable_server_is_one_line_and_exit_code_1(
    cache: Path, exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO_LOGIN_URL", "http://127.0.0.1:1")
    outcome = invoke("orders")
    assert outcome.exit_code == 1
    assert outcome.everything == (
        "neo-async: cannot connect to http://127.0.0.1:1/login/1.0/tradeApiLogin: "
        "Connection refused\n"
    )


def test_missing_credentials_are_named_with_exit_code_2(
    cache: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("NEO_")]:
        monkeypatch.delenv(name)
    outcome = invoke("positions")
    assert outcome.exit_code == 2
    assert "NEO_CONSUMER_KEY, NEO_MOBILE_NUMBER, NEO_UCC, NEO_MPIN" in outcome.everything


def test_no_secret_is_ever_printed(exchange: Exchange, cache: Path, invoke: Invoke) -> None:
    outputs = [invoke("login").everything]
    (file,) = cache.glob("login-*.json")
    session = json.loads(file.read_bytes())["session"]
    for command in ("login", "orders", "trades", "positions", "holdings", "limits"):
        outputs += [invoke(command).everything, invoke(command, "--json").everything]
    outputs += [invoke(*BUY).everything, invoke("logout").everything]
    credentials = exchange.credentials
    for secret in (
        credentials.consumer_key,
        credentials.mpin,
        credentials.totp_secret,
        session["token"],
        session["sid"],
    ):
        assert not any(secret in output for output in outputs)


def test_an_unknown_amount_is_unknown_and_explained(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = PositionRow(
        segment="nse_cm",
        symbol="TCS-EQ",
        token="11536",
        product="CNC",
        carried_buy_quantity=10,
        carried_buy_value=21_000.0,
    )
    position = value_position(row, None, None)
    monkeypatch.setattr(account, "_read", lambda *_: [position])
    table = invoke("positions").stdout
    assert table.count("unknown") == 6
    assert f"TCS-EQ: {position.unknown_reason}" in table
    assert json.loads(invoke("positions", "--json").stdout)[0]["pnl"] is None

    monkeypatch.setattr(account, "_read", lambda *_: Limits(available=1.0, margin_used=0.0))
    table = invoke("limits").stdout
    assert "unknown: not in the broker's answer" in table
    assert [line.split()[-1] for line in table.splitlines() if line.startswith("Margin used")] == [
        "0.00"
    ]
