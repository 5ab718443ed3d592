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
    Segment,
    Side,
)

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
    with running("--tls", "--env") as (process, ready):
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
