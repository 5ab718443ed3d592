"""The command as a whole: help, version, its surroundings, and what it costs others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import neo_async
from tests.cli.conftest import Invoke

COMMANDS = (
    "demo",
    "exchange",
    "login",
    "logout",
    "orders",
    "trades",
    "positions",
    "holdings",
    "limits",
    "place",
    "modify",
    "cancel",
    "margin",
    "watch",
)


def test_help_lists_every_command_and_the_environment(invoke: Invoke) -> None:
    text = invoke("--help").stdout
    for word in (*COMMANDS, "NEO_CONSUMER_KEY", "NEO_LOGIN_URL", "NEO_CA_FILE"):
        assert word in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, invoke: Invoke) -> None:
    outcome = invoke(command, "--help")
    assert outcome.exit_code == 0
    assert f"neo-async {command}" in outcome.stdout or command in outcome.stdout


def test_the_version_is_the_package_s(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"{neo_async.__version__}\n"


def test_the_package_itself_imports_neither_typer_nor_rich() -> None:
    check = "import sys, neo_async.client; sys.exit(bool({'typer', 'rich'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_python_m_neo_async_is_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "neo_async", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{neo_async.__version__}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "neo_async", "exchange"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == 1
    assert run.stderr == "neo-async: [Errno 28] No space left on device\n"
