"""neo-async exchange, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    Credentials,
    Endpoints,
    NeoClient,
    OrderStatus,
    Product,
    RateLimited,
    Rejected,
    Segment,
    Side,
)
from tests.cli.terminal import interrupted

COMMAND = (sys.executable, "-m", "neo_async", "exchange")

needs_signals = pytest.mark.skipif(os.name != "posix", reason="ends by a POSIX signal")


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process and its ready line."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


async def buy_one(ready: dict[str, Any]) -> OrderStatus:
    credentials = Credentials(**ready["accounts"][0])
    endpoints = Endpoints(login=ready["login_url"], ca_file=ready.get("ca_file", ""))
    async with NeoClient(credentials, endpoints=endpoints) as neo:
        order = await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.BUY, 1, price="2200", product=Product.CNC
        )
        return await order.wait(timeout=5)


@needs_signals
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.real_time("the exchange is a real process")
async def test_it_serves_a_client_and_ends_cleanly(end: signal.Signals) -> None:
    with running("--seed", "3") as (process, ready):
        assert ready["event"] == "ready"
        assert {"login_url", "base_url", "feed_url", "realtime_url", "admin_url"} <= ready.keys()
        assert await buy_one(ready) is OrderStatus.COMPLETE
        process.send_signal(end)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "", "")


@needs_signals
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_comes_with_the_file_to_trust_while_it_runs() -> None:
    with running("--tls", "--env", "-") as (process, ready):
        assert ready["login_url"].startswith("https://")
        assert asyncio.run(buy_one(ready)) is OrderStatus.COMPLETE
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        exports = dict(
            shlex.split(line)[1].split("=", 1) for line in errors.splitlines() if "export" in line
        )
    assert Endpoints.from_env(exports) == Endpoints(
        login=ready["login_url"], ca_file=ready["ca_file"]
    )
    assert Credentials.from_env(exports) == Credentials(**ready["accounts"][0])
    assert not Path(ready["ca_file"]).exists()


def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=20, check=False
        )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"neo-async: cannot listen on 127.0.0.1, port {port}: ")
    assert run.stderr.count("127.0.0.1") == 1
    assert run.stderr.count("\n") == 1


def test_impossible_limits_are_a_usage_error() -> None:
    run = subprocess.run(
        [*COMMAND, "--orders-per-second", "5", "--total-per-second", "2"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


@pytest.mark.real_time("the exchange is a real process")
async def test_a_state_file_keeps_what_was_bought(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state.db"))
    with running(*state) as (process, ready):
        assert await buy_one(ready) is OrderStatus.COMPLETE
        process.kill()
    with running(*state) as (_, ready):
        credentials = Credentials(**ready["accounts"][0])
        async with NeoClient(credentials, endpoints=Endpoints(login=ready["login_url"])) as neo:
            (order,) = await neo.orders.book()
            assert (order.status, order.filled_quantity) == (OrderStatus.COMPLETE, 1)


def test_a_state_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Sir or Madam, " * 100)
    done = subprocess.run(
        [*COMMAND, "--state", str(file)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "file is not a database" in done.stderr


def test_accounts_are_as_many_as_asked_for() -> None:
    with running("--accounts", "3", "--market-hours") as (_, ready):
        assert len({account["ucc"] for account in ready["accounts"]}) == 3


@needs_signals
@pytest.mark.parametrize("from_file", [True, False])
def test_faults_come_from_a_file_or_the_command_line(tmp_path: Path, from_file: bool) -> None:
    faults = '{"throttle": 1, "calls": ["logins"]}'
    if from_file:
        path = tmp_path / "faults.json"
        path.write_text(faults)
        faults = str(path)
    with running("--faults", faults) as (process, ready):
        with pytest.raises(RateLimited):
            asyncio.run(buy_one(ready))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ('{"loose_after": 0.1}', "faults: 'loose_after' is none of them; there are seed, calls, "),
        ('{"lose_after": 3}', "lose_after=3.0: must be a probability from 0 to 1"),
        ("no/such.json", "--faults no/such.json: No such file or directory; neither JSON nor a"),
    ],
)
def test_faults_that_cannot_be_are_one_line(faults: str, text: str) -> None:
    done = subprocess.run(
        [*COMMAND, "--faults", faults], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


# --- the environment of another shell -------------------------------------------------------------


def sourced(path: Path, command: str) -> str:
    """What a command prints in a shell that has sourced the file, and that ends at any error."""
    done = subprocess.run(
        ["sh", "-euc", f". {shlex.quote(str(path))}; {command}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_signals
def test_the_environment_file_is_private_whole_and_gone_with_the_exchange(tmp_path: Path) -> None:
    path = tmp_path / "paper exchange" / "neo.env"
    path.parent.mkdir()
    path.write_text("export NEO_LOGIN_URL=http://of-another-exchange\n")
    with running("--env", str(path)) as (process, ready):
        # Written before the ready line: who has that needs no sleep.
        assert path.stat().st_mode & 0o777 == 0o600
        assert sourced(path, 'printf %s "$NEO_LOGIN_URL"') == ready["login_url"]
        assert sourced(path, 'printf %s "$NEO_EXCHANGE_ADMIN_URL"') == ready["admin_url"]
        assert sourced(path, 'printf %s "$NEO_TOTP_SECRET"') == ready["accounts"][0]["totp_secret"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert (errors, path.exists()) == ("", False)
    assert list(path.parent.iterdir()) == []


@needs_signals
def test_what_is_printed_on_stderr_can_be_sourced_with_a_replay_too(tmp_path: Path) -> None:
    from tests.cli.test_replay_command import recording

    replay = recording(tmp_path / "x.feed", [2101.0])
    with running("--replay", str(replay), "--env", "-") as (process, ready):
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    path = tmp_path / "neo.env"
    path.write_text(errors)
    assert "# recorded: nse_cm|11536 TCS-EQ" in errors
    assert sourced(path, 'printf %s "$NEO_LOGIN_URL"') == ready["login_url"]


# --- a person at a terminal -----------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize("env", [(), ("--env", "neo.env")])
def test_a_person_is_greeted_in_words_of_80_columns(tmp_path: Path, env: tuple[str, ...]) -> None:
    command = [
        "sh",
        "-c",
        f"cd {shlex.quote(str(tmp_path))} && exec {shlex.join((*COMMAND, *env))}",
    ]
    code, shown = interrupted(command, at=b"Ctrl-C ends")
    text = shown.decode().replace("\r", "")
    assert code == 0
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.startswith("Paper exchange, open at http://127.0.0.1:")
    assert "neo-async paper price RELIANCE-EQ 1420" in text
    assert ("  . ./neo.env" in text) is bool(env)
    assert ("export NEO_LOGIN_URL=http://127.0.0.1:" in text) is not bool(env)
    assert "{" not in text


@needs_signals
def test_a_program_at_a_terminal_asks_for_json() -> None:
    code, shown = interrupted([*COMMAND, "--json"], at=b"}\r\n")
    assert code == 0
    assert json.loads(shown.split(b"\r\n")[0])["event"] == "ready"


# --- rules and settings ---------------------------------------------------------------------------


async def place_cover_order(ready: dict[str, Any]) -> None:
    credentials = Credentials(**ready["accounts"][0])
    async with NeoClient(credentials, endpoints=Endpoints(login=ready["login_url"])) as neo:
        await neo.orders.place(
            Segment.NSE_CM,
            "TCS-EQ",
            Side.BUY,
            1,
            price="2100",
            product=Product.CO,
            trigger="2050",
        )


@pytest.mark.parametrize("older", [("--rules", "before-2026"), ("--set", "covered_orders=true")])
def test_cover_orders_are_refused_unless_the_older_rules_are_asked_for(
    older: tuple[str, str],
) -> None:
    with running() as (_, ready), pytest.raises(Rejected, match="BO/CO OrderType not allowed"):
        asyncio.run(place_cover_order(ready))
    with running(*older) as (_, ready):
        asyncio.run(place_cover_order(ready))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--set", "covered_order=true"), "is unknown; the nearest is covered_orders"),
        (("--set", "interval"), "must be name=value"),
        (("--set", "interval=soon"), "interval='soon': "),
        (("--rules", "2025"), "before-2026"),
    ],
)
def test_a_setting_that_cannot_be_is_a_usage_error(options: tuple[str, str], text: str) -> None:
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
