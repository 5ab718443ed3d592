"""Every Python block of README, pages and docstrings runs, with only the environment set.

A whole program runs in a process of its own. A block that makes a client runs as it stands, in the
environment of an exchange on this machine. Any other block is a fragment: it runs after `PREAMBLE`,
which logs a client in, and after what its page needs (`PAGES_NEED`). Loops over endless streams
(`async for`) end after their first turn.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import neo_async
import neo_async.kite
from neo_async import NeoClient
from neo_async.banking import VirtualAccounts
from neo_async.exchange import Exchange
from neo_async.kite import KiteMutualFunds
from tests.test_docs import PAGES, ROOT, programs_of

pytestmark = pytest.mark.real_time("programs as users run them")

LONGEST = 20.0
"""Seconds for which a block may run."""

MAKES_CLIENT = re.compile(r"\b(NeoClient|KiteMutualFunds|KiteSession|VirtualAccounts)\(")

IMPORTS = """
import asyncio, logging, os, signal
from datetime import date
import neo_async
from neo_async import *
from neo_async.banking import *
from neo_async.exchange import *
from neo_async.kite import KiteMutualFunds, KiteSession
"""

PREAMBLE = """
neo = NeoClient()
await neo.login()
def callback(tick): ...
def alarm(reason): ...
requests = [OrderRequest(Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, price="39", product=Product.CNC)]
await neo.instruments.load(Segment.NSE_CM)
feed = await neo.market_feed().__aenter__()
await feed.subscribe(["nse_cm|19084"])
order = await neo.orders.place(
    Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, price="39", product=Product.CNC
)
"""

PAGES_NEED: dict[str, str] = {
    "risk.md": "def alarm(reason): ...",
    "instruments.md": "await neo.instruments.load(Segment.NSE_FO)",
    "__init__.py": "",
}
"""What a page's blocks take for given beside that."""

NOT_BY_ENVIRONMENT = {
    "mutual_funds.md": "a browser gives the address of the login",
    "virtual_accounts.md": "the bank's profile is the user's own",
}
"""Pages of the other brokers, whose programs are run by their examples (tests/test_readme.py)."""


class Block(NamedTuple):
    page: str
    number: int
    program: str

    @property
    def is_whole(self) -> bool:
        return "neo_async.run(" in self.program or "asyncio.run(" in self.program

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks_of_pages() -> list[Block]:
    return [
        Block(page.name, number, program)
        for page in PAGES
        if page.name not in NOT_BY_ENVIRONMENT
        for number, program in enumerate(programs_of(page))
    ]


def examples_of_docstrings() -> list[Block]:
    """The indented programs in the docstrings of the package and of the clients that make one."""
    found = []
    for name, thing in {
        "neo_async": neo_async,
        "NeoClient": NeoClient,
        "exchange": sys.modules["neo_async.exchange.simulator"],
    }.items():
        lines = (inspect.getdoc(thing) or "").split("\n")
        begins = ("from neo_async", "async with", "    async with", "    from neo_async")
        start = next(number for number, line in enumerate(lines) if line.startswith(begins))
        indent = len(lines[start]) - len(lines[start].lstrip())
        program = []
        for line in lines[start:]:
            if line and len(line) - len(line.lstrip()) < indent:
                break
            program.append(line)
        found.append(Block(name, 0, textwrap.dedent("\n".join(program))))
    return found


BLOCKS = blocks_of_pages() + examples_of_docstrings()


class _EndlessLoops(ast.NodeTransformer):
    """Ends every `async for` after its first turn."""

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.body.append(ast.Break())
        return ast.fix_missing_locations(node)


async def run(program: str, scope: dict[str, Any]) -> None:
    """Run a program with `await` at its top level."""
    tree = _EndlessLoops().visit(ast.parse(program))
    code = compile(tree, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, scope)
    if inspect.isawaitable(made):
        await made


def environment_of(exchange: Exchange) -> dict[str, str]:
    credentials = exchange.credentials
    return {
        "NEO_LOGIN_URL": exchange.login_url,
        "NEO_CONSUMER_KEY": credentials.consumer_key,
        "NEO_MOBILE_NUMBER": credentials.mobile_number,
        "NEO_UCC": credentials.ucc,
        "NEO_MPIN": credentials.mpin,
        "NEO_TOTP_SECRET": credentials.totp_secret,
        "KITE_URL": exchange.kite_url,
        "KOTAK_BANK_URL": exchange.bank_url,
    }


@contextlib.asynccontextmanager
async def on_paper(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[Exchange]:
    """An exchange, and nothing but the environment that leads to it."""
    for name in list(os.environ):
        if name.startswith(("NEO_", "KITE_", "KOTAK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
    monkeypatch.chdir(directory)
    async with Exchange(seed=7) as exchange:
        for name, value in environment_of(exchange).items():
            monkeypatch.setenv(name, value)
        yield exchange


@pytest.mark.parametrize("block", BLOCKS, ids=str)
async def test_every_program_runs_with_only_the_environment(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = signal.getsignal(signal.SIGUSR1)
    async with on_paper(monkeypatch, tmp_path) as exchange, asyncio.timeout(LONGEST):
        if block.is_whole:
            await run_in_process(block.program, tmp_path)
            return
        scope: dict[str, Any] = {"exchange": exchange}
        await run(IMPORTS, scope)
        if MAKES_CLIENT.search(block.program):
            # A second client of the account, within one TOTP code, would have to wait.
            monkeypatch.setattr(exchange._open.logins, "_used_steps", _Forgetful())
        else:
            await run(PREAMBLE, scope)
        await run(PAGES_NEED.get(block.page, ""), scope)
        try:
            await run(block.program, scope)
        finally:
            for name in ("neo", "later"):
                if isinstance(scope.get(name), NeoClient):
                    await scope[name].logout()
    assert signal.getsignal(signal.SIGUSR1) is kept


class _Forgetful(dict[str, set[int]]):
    """The codes that the exchange has seen, without any memory."""

    def __missing__(self, key: str) -> set[int]:
        return set()


async def run_in_process(program: str, directory: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")


def test_every_page_has_its_programs_run() -> None:
    pages = {block.page for block in BLOCKS}
    assert {"README.md", "quickstart.md", "running.md", "orders.md", "risk.md"} <= pages
    assert sum(bool(MAKES_CLIENT.search(block.program)) for block in BLOCKS) >= 8


async def test_the_clients_of_other_brokers_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`KiteMutualFunds(key, token)` and `VirtualAccounts(id, secret)`, as docstrings write them."""
    async with on_paper(monkeypatch, tmp_path) as exchange:
        async with KiteMutualFunds(exchange.kite.api_key, exchange.kite.access_token) as kite:
            assert await kite.orders() == []
        customer = exchange.bank.client
        bank = VirtualAccounts(
            customer.client_id,
            customer.client_secret,
            client_name=customer.name,
            physical_account=customer.physical_accounts[0],
        )
        async with bank:
            assert [credit async for credit in bank.transactions()] == []
