"""The exchange in a process of its own, to be killed at any moment."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pyotp

from neo_async.config import Credentials


class Process:
    def __init__(self, running: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._running = running
        self._ready = ready
        self.credentials = Credentials(**ready["accounts"][0])
        self.kite: dict[str, str] = ready["kite"]
        self.kite_url: str = ready["kite_url"]

    def kill(self) -> None:
        """With SIGKILL: it has no chance to tidy up."""
        if self._running.returncode is None:
            self._running.kill()

    async def log_in(self, http: aiohttp.ClientSession) -> dict[str, str]:
        """Sid and token. A new process takes a code of the moment again."""
        login = f"{self._ready['login_url']}/login/1.0"
        headers = {
            "Authorization": self.credentials.consumer_key,
            "neo-fin-key": "neotradeapi",
        }
        form = {
            "mobileNumber": self.credentials.mobile_number,
            "ucc": self.credentials.ucc,
            "totp": pyotp.TOTP(self.credentials.totp_secret).now(),
        }
        async with http.post(f"{login}/tradeApiLogin", json=form, headers=headers) as answer:
            view = (await answer.json())["data"]
        headers |= {"sid": view["sid"], "Auth": view["token"]}
        mpin = {"mpin": self.credentials.mpin}
        async with http.post(f"{login}/tradeApiValidate", json=mpin, headers=headers) as answer:
            trade = (await answer.json())["data"]
        return {"Sid": trade["sid"], "Auth": trade["token"]}

    async def post(
        self, http: aiohttp.ClientSession, pair: dict[str, str], path: str, arguments: object
    ) -> dict[str, Any]:
        url = f"{self._ready['base_url']}{path}"
        form = {"jData": json.dumps(arguments)}
        async with http.post(url, data=form, headers=pair) as answer:
            body: dict[str, Any] = await answer.json()
            return body

    async def ledger(self, http: aiohttp.ClientSession) -> list[dict[str, Any]]:
        async with http.get(f"{self._ready['admin_url']}/ledger") as answer:
            entries: list[dict[str, Any]] = await answer.json()
            return entries


@asynccontextmanager
async def exchange_process(state: Path, *options: str) -> AsyncIterator[Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "neo_async", "exchange", "--state", str(state)),
        *("--orders-per-second", "1000000", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    try:
        line = await asyncio.wait_for(running.stdout.readline(), 20)
        yield Process(running, json.loads(line))
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
