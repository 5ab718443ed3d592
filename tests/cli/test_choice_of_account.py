"""Which account a command works for: --account, --env-file, and what needs no account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("NEO_CONSUMER_KEY", "NEO_MOBILE_NUMBER", "NEO_UCC", "NEO_MPIN", "NEO_TOTP_SECRET")


def command(*arguments: str, env: dict[str, str]) -> tuple[int, str, str]:
    """In a process of its own: --env-file changes the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "neo_async", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT)},
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def bare(exchange: Exchange) -> dict[str, str]:
    """The environment without an account."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NEO_")}


def env_file(exchange: Exchange, path: Path, **changes: str) -> Path:
    values = {name: os.environ[name] for name in (*NAMES, "NEO_LOGIN_URL")} | changes
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def test_an_env_file_is_the_environment_of_a_command(
    exchange: Exchange, bare: dict[str, str], tmp_path: Path
) -> None:
    path = env_file(exchange, tmp_path / ".env")
    code, out, _ = command("--env-file", str(path), "login", "--json", env=bare)
    assert (code, json.loads(out)["ucc"]) == (0, exchange.credentials.ucc)


def test_an_env_file_never_overrides_the_environment(
    exchange: Exchange, bare: dict[str, str], tmp_path: Path
) -> None:
    path = env_file(exchange, tmp_path / ".env")
    code, out, err = command(
        "--env-file", str(path), "login", env={**bare, "NEO_MPIN": "999999", "NEO_UCC": "OTHER"}
    )
    assert (code, out) == (2, "")
    assert "NEO_UCC, NEO_MPIN set to something else in the environment" in err
    assert "999999" not in err
    (tmp_path / "bad").write_text("NEO_MPIN hush\n")
    code, _, err = command("--env-file", str(tmp_path / "bad"), "login", env=bare)
    assert (code, "hush" in err, "line 1" in err) == (2, False, True)
    code, _, err = command("--env-file", str(tmp_path / "missing"), "login", env=bare)
    assert (code, "No such file" in err) == (2, True)


def test_an_account_is_chosen_by_its_name(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    other = exchange.accounts[1]
    directory = tmp_path / "config" / "neo_async"
    directory.mkdir(parents=True)
    (directory / "accounts.toml").write_text(
        "[second]\n"
        + "".join(
            f'{name} = "{getattr(other, name)}"\n'
            for name in ("consumer_key", "mobile_number", "ucc", "mpin", "totp_secret")
        )
        + f'login_url = "{exchange.login_url}"\n'
    )
    (directory / "accounts.toml").chmod(0o600)
    for name in (*NAMES, "NEO_LOGIN_URL"):
        monkeypatch.delenv(name)
    assert json.loads(invoke("--account", "second", "login", "--json").stdout)["ucc"] == other.ucc
    assert invoke("--account", "second", "orders").stdout == "no orders today\n"
    assert other.ucc in invoke("--account", "second", "logout").stdout
    outcome = invoke("--account", "third", "orders")
    assert (outcome.exit_code, "'third' is none of second" in outcome.everything) == (2, True)
    assert invoke("orders").exit_code == 2  # the choice is of one command


def test_instruments_need_a_consumer_key_only(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[1:]:
        monkeypatch.delenv(name)
    assert "ITBEES" in invoke("instruments", "nse_cm", "--search", "ITBEES").stdout
    monkeypatch.delenv(NAMES[0])
    outcome = invoke("instruments", "nse_cm")
    assert outcome.exit_code == 2
    assert "environment lacks NEO_CONSUMER_KEY" in outcome.everything
    assert "NEO_MPIN" not in outcome.everything


def test_a_confirmation_tells_paper_from_live(exchange: Exchange, invoke: Invoke) -> None:
    arguments = ("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", "--price", "2100")
    outcome = invoke(*arguments)
    ucc = exchange.credentials.ucc
    assert f"for account {ucc} at {exchange.login_url}: paper\n" in outcome.everything
    assert exchange.market.ledger == []
