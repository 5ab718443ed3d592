"""An exchange in a thread of its own, for commands that bring their own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from neo_async.cli import output
from neo_async.cli.app import app
from neo_async.exchange import Exchange

Invoke = Callable[..., "Outcome"]


class Outcome:
    def __init__(self, exit_code: int, stdout: str, everything: str) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.everything = everything
        """stdout and stderr."""


@contextlib.contextmanager
def exchange_in_a_thread(exchange: Exchange) -> Iterator[Exchange]:
    opened: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        closing = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with exchange:
            opened.set_result(lambda: loop.call_soon_threadsafe(closing.set))
            await closing.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    close = opened.result(timeout=5)
    try:
        yield exchange
    finally:
        close()
        thread.join(timeout=5)
    assert not thread.is_alive(), "the exchange did not close"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "neo_async"


def set_environment(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead commands to the first account."""
    credentials = exchange.credentials
    for name, value in {
        "NEO_LOGIN_URL": exchange.login_url,
        "NEO_CA_FILE": "",
        "NEO_CONSUMER_KEY": credentials.consumer_key,
        "NEO_MOBILE_NUMBER": credentials.mobile_number,
        "NEO_UCC": credentials.ucc,
        "NEO_MPIN": credentials.mpin,
        "NEO_TOTP_SECRET": credentials.totp_secret,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def exchange(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    """An open exchange, and the environment that leads commands to its first account. It has no
    rate limit: every command is a process with a limit of its own, and a test runs several in a
    second."""
    with exchange_in_a_thread(Exchange(seed=5, market_makers=False, limits=None)) as opened:
        set_environment(opened, monkeypatch)
        yield opened


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process. What it raises apart from exits is a failure of the test."""

    def run(*arguments: str, typed: str = "") -> Outcome:
        result = CliRunner().invoke(app, arguments, input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "neo-async: unexpected" not in result.stderr, result.stderr
        return Outcome(result.exit_code, result.stdout, result.output)

    return run


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    set_terminal(monkeypatch, 80)


def set_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Let tables be printed as for a terminal of this width without colours."""
    monkeypatch.setattr(
        output, "_console", lambda: Console(width=width, force_terminal=True, color_system=None)
    )


def one_line_a_row(table: str) -> str:
    """The headings, of a table whose lines all fit and none of which goes on in the next."""
    headings, rule, *rows = table.splitlines()
    assert rows
    assert all(len(line) <= 80 for line in (headings, rule, *rows))
    assert all(row.split()[-1][-1].isdigit() for row in rows)
    return " ".join(headings.split())
