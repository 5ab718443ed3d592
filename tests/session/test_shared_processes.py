"""Processes that share one login by a file, against an exchange in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from neo_async.exchange import Exchange
from tests.clients import client_of, logins, paths
from tests.fake_servers import VALIDATE

pytestmark = pytest.mark.real_time("processes of their own")

ROOT = Path(__file__).resolve().parents[2]

BOT = """
import asyncio, json, sys
from neo_async import NeoClient, NeoError

async def main():
    neo = NeoClient(session=sys.argv[1])
    try:
        async with neo:
            print(json.dumps({"token": neo.session.token, "paper": neo.is_paper}), flush=True)
            for line in iter(lambda: None, 0) if len(sys.argv) > 2 else ():
                if not await asyncio.to_thread(sys.stdin.readline):
                    break
                await neo.orders.book()
                print(json.dumps({"token": neo.session.token}), flush=True)
    except NeoError as error:
        print(json.dumps({"error": type(error).__name__}), flush=True)

asyncio.run(main())
"""


class Bot:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, "the bot has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def reads_orders(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        return await self.says()


def environment(exchange: Exchange, **changes: str) -> dict[str, str]:
    credentials = exchange.credentials
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("NEO_")},
        "PYTHONPATH": str(ROOT),
        "NEO_LOGIN_URL": exchange.login_url,
        "NEO_CONSUMER_KEY": credentials.consumer_key,
        "NEO_MOBILE_NUMBER": credentials.mobile_number,
        "NEO_UCC": credentials.ucc,
        "NEO_MPIN": credentials.mpin,
        "NEO_TOTP_SECRET": credentials.totp_secret,
        **changes,
    }


@contextlib.asynccontextmanager
async def bots(
    exchange: Exchange, path: Path, count: int, *arguments: str, **changes: str
) -> AsyncIterator[list[Bot]]:
    """Start processes at once, with nothing but the environment and the file's path."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            BOT,
            str(path),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(exchange, **changes),
        )
        for _ in range(count)
    ]
    try:
        yield [Bot(process) for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
            await process.communicate()


async def test_of_processes_that_start_at_once_one_logs_in(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with Exchange(seed=7, market_makers=False) as exchange:
        async with bots(exchange, path, 3, "stay") as started:
            answers = await asyncio.gather(*(bot.says() for bot in started))
            assert {answer["paper"] for answer in answers} == {True}
            assert len({answer["token"] for answer in answers}) == 1
            assert await logins(exchange) == 1
        # Killed, they have left no lock: the next one is at work at once.
        async with bots(exchange, path, 1) as (again,):
            assert (await again.says())["token"] == answers[0]["token"]
    assert path.stat().st_mode & 0o077 == 0


async def test_a_session_that_the_broker_ended_is_renewed_by_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with Exchange(seed=7, market_makers=False) as exchange:
        async with client_of(exchange, session=path, clock=time.time):
            pass
        async with bots(exchange, path, 3, "stay") as started:
            first = await asyncio.gather(*(bot.says() for bot in started))
            exchange.end_sessions()
            # As if 30 s had passed: waiting for a code is the subject of other tests.
            exchange._open.logins._used_steps[exchange.credentials.ucc].clear()
            stored = json.loads(path.read_bytes())
            path.write_text(json.dumps({**stored, "code_step": 0}, separators=(",", ":")))
            later = await asyncio.gather(*(bot.reads_orders() for bot in started))
            assert len({answer["token"] for answer in later}) == 1
            assert later[0]["token"] != first[0]["token"]
            assert await logins(exchange) == 2


async def test_restarts_in_a_row_are_one_login(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with Exchange(seed=7, market_makers=False) as exchange:
        tokens = set()
        for _ in range(5):
            async with bots(exchange, path, 1) as (bot,):
                tokens.add((await bot.says())["token"])
        assert len(tokens) == 1
        assert await logins(exchange) == 1


async def test_a_wrong_mpin_is_sent_once_by_processes_that_start_at_once(tmp_path: Path) -> None:
    async with Exchange(seed=7, market_makers=False) as exchange:
        path = tmp_path / "session.json"
        async with bots(exchange, path, 3, NEO_MPIN="000000") as started:
            answers = await asyncio.gather(*(bot.says() for bot in started))
        assert [answer["error"] for answer in answers] == ["WrongMpin"] * 3
        assert (await paths(exchange)).count(VALIDATE) == 1
