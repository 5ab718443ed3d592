"""Orders a second that the embedded exchange takes over REST, on one core.

    python -m benchmarks.exchange [--json] [--rounds N] [--seconds S] [--clients N]

The exchange has a process and a core of its own, with market makers at work; the senders of orders
have the other core. Each of 32 connections sends its next order when the answer to the last one is
there. README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pyotp
import uvloop

from benchmarks.harness import (
    Figure,
    alternate,
    at_least,
    cores,
    machine,
    number,
    percentile,
    pin,
    print_json,
    print_machine,
    print_table,
    print_wanted,
    summarise,
)
from neo_async.wire.feed import Stream, auth_frame, subscription_frame
from neo_async.wire.forms import encode_form

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("aiohttp", "uvloop", "msgspec")
CONNECTIONS = 32
WANTED_ORDERS = 2_000
WANTED_CLIENTS = 200
INSTRUMENTS = ("nse_cm|19084", "nse_cm|11536", "nse_cm|2885", "nse_cm|1333", "nse_cm|1594")
"""Instruments that every client of the market feed subscribes."""

_PLACE = "/quick/order/rule/ms/place"
_RESTING = (("B", "38.00"), ("S", "41.00"))
_TRADING = (("B", "41.00"), ("S", "38.00"))
"""Sides and prices in turn, so that positions stay small: away from the market, and through it."""

SCENES = {"resting": _RESTING, "trading": _TRADING}


class Lap(msgspec.Struct, frozen=True):
    orders_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    """Processor time of the exchange for one order."""
    messages_per_second: float = 0.0
    """Messages a second that the clients of the feeds received."""


class Measured(msgspec.Struct, frozen=True):
    orders_per_second: Figure
    p50_ms: Figure
    p99_ms: Figure
    server_cpu_us: Figure
    messages_per_second: Figure


# --- the exchange ---------------------------------------------------------------------------------


class Server:
    def __init__(self, ready: dict[str, Any]) -> None:
        self.ready = ready
        self.base_url: str = ready["base_url"]

    def cpu_seconds(self) -> float:
        """Return the processor time of the process so far."""
        fields = Path(f"/proc/{self.ready['pid']}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(core: int | None, accounts: int, state: Path | None) -> Iterator[Server]:
    arguments = ["--accounts", str(accounts)]
    if core is not None:
        arguments += ["--core", str(core)]
    if state is not None:
        arguments += ["--state", str(state)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.exchange_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the exchange ended early, with exit code {process.wait()}")
        yield Server(json.loads(line))
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


# --- the senders of orders ------------------------------------------------------------------------


async def log_in(
    http: aiohttp.ClientSession, server: Server, account: dict[str, str]
) -> dict[str, Any]:
    login = f"{server.ready['login_url']}/login/1.0"
    headers = {"Authorization": account["consumer_key"], "neo-fin-key": "neotradeapi"}
    form = {
        "mobileNumber": account["mobile_number"],
        "ucc": account["ucc"],
        "totp": pyotp.TOTP(account["totp_secret"]).now(),
    }
    async with http.post(f"{login}/tradeApiLogin", json=form, headers=headers) as answer:
        view = (await answer.json())["data"]
    headers |= {"sid": view["sid"], "Auth": view["token"]}
    mpin = {"mpin": account["mpin"]}
    async with http.post(f"{login}/tradeApiValidate", json=mpin, headers=headers) as answer:
        data: dict[str, Any] = (await answer.json())["data"]
        return data


def requests_of(server: Server, login: dict[str, Any], scene: str) -> list[bytes]:
    """Return the requests that one connection sends in turn."""
    address = urlsplit(server.base_url)
    requests = []
    for side, price in SCENES[scene]:
        form = {
            "am": "NO",
            "dq": "0",
            "es": "nse_cm",
            "mp": "0",
            "pc": "MIS",
            "pf": "N",
            "pr": price,
            "pt": "L",
            "qt": "1",
            "rt": "DAY",
            "tp": "0",
            "ts": "ITBEES-EQ",
            "tt": side,
            "os": "NEOTRADEAPI",
        }
        body = encode_form(form)
        head = (
            f"POST {address.path}{_PLACE} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Sid: {login['sid']}\r\nAuth: {login['token']}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Sender(asyncio.Protocol):
    """A connection: an order, its answer, the next order."""

    def __init__(self, requests: list[bytes], deadline: float) -> None:
        self._requests = requests
        self._deadline = deadline
        self._sent_at = 0.0
        self._answer = b""
        self.seconds: list[float] = []
        """Seconds from sending to the answer, for each order."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's class, so an assertion would fail.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(b'"stCode":200}'):
            if b"HTTP/1.1 200" not in self._answer:
                self._finish(RuntimeError(f"not accepted: {self._answer[:300]!r}"))
            return
        now = time.perf_counter()
        self.seconds.append(now - self._sent_at)
        if now < self._deadline:
            self._send()
        else:
            self._finish(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or ConnectionError("the exchange closed a connection"))

    def _send(self) -> None:
        self._answer = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[len(self.seconds) % len(self._requests)])

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


def _maker(sender: Sender) -> Callable[[], Sender]:
    return lambda: sender


async def measure(
    server: Server,
    logins: list[dict[str, Any]],
    scene: str,
    seconds: float,
    messages: Callable[[], int] = lambda: 0,
) -> Lap:
    address = urlsplit(server.base_url)
    assert address.port is not None
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    cpu, received = server.cpu_seconds(), messages()
    senders = []
    for index in range(CONNECTIONS):
        requests = requests_of(server, logins[index % len(logins)], scene)
        sender = Sender(requests, begin + seconds)
        senders.append(sender)
        await loop.create_connection(_maker(sender), str(address.hostname), address.port)
    await asyncio.gather(*(sender.done for sender in senders))
    took = time.perf_counter() - begin
    each = sorted(second for sender in senders for second in sender.seconds)
    return Lap(
        orders_per_second=len(each) / took,
        p50_ms=1e3 * percentile(each, 0.5),
        p99_ms=1e3 * percentile(each, 0.99),
        server_cpu_us=1e6 * (server.cpu_seconds() - cpu) / len(each),
        messages_per_second=(messages() - received) / took,
    )


# --- the clients of feeds -------------------------------------------------------------------------


class Listeners:
    """Clients with both feeds open, each with an account of its own."""

    def __init__(self) -> None:
        self.messages = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(
        self, http: aiohttp.ClientSession, server: Server, logins: list[dict[str, Any]]
    ) -> None:
        for login in logins:
            market = await http.ws_connect(server.ready["feed_url"])
            frame = auth_frame(login["ucc"], login["sid"], now_ms=1, now_iso="")
            await market.send_str(json.dumps(frame) if not isinstance(frame, str) else frame)
            await market.receive()
            wanted = subscription_frame("subscribe", Stream.SCRIP, INSTRUMENTS)
            await market.send_str(json.dumps(wanted) if not isinstance(wanted, str) else wanted)
            orders = await http.ws_connect(server.ready["realtime_url"])
            token, sid = login["token"], login["sid"]
            await orders.send_str(f"{{type:cn,Authorization:{token},Sid:{sid},src:WEB}}")
            for websocket in (market, orders):
                self._tasks.append(asyncio.create_task(self._listen(websocket)))

    async def _listen(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in websocket:
            self.messages += 1

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    @property
    def open_connections(self) -> int:
        return sum(not task.done() for task in self._tasks)


# --- rounds ---------------------------------------------------------------------------------------


async def _one_round(server: Server, scene: str, seconds: float, clients: int) -> Lap:
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        accounts = server.ready["accounts"][: clients or 1]
        logins = [await log_in(http, server, account) for account in accounts]
        if not clients:
            return await measure(server, logins, scene, seconds)
        listeners = Listeners()
        stack.push_async_callback(listeners.close)
        await listeners.open(http, server, logins)
        lap = await measure(server, logins, scene, seconds, lambda: listeners.messages)
        if listeners.open_connections != 2 * clients:
            raise SystemExit(f"only {listeners.open_connections} feed connections are left")
        return lap


def run_round(scene: str, seconds: float, *, clients: int = 0, keeps: bool = False) -> Lap:
    """Run a round on a fresh exchange, whose books and ledger begin empty."""
    server_core, _ = cores()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.db") if keeps else None
        with running(server_core, max(2, clients), state) as server:
            work: Awaitable[Lap] = _one_round(server, scene, seconds, clients)
            return uvloop.run(work)  # type: ignore[arg-type]


def _summary(laps: list[Lap]) -> Measured:
    return Measured(
        **{name: summarise(getattr(lap, name) for lap in laps) for name in Lap.__struct_fields__}
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchange", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of one round")
    parser.add_argument(
        "--clients", type=int, default=WANTED_CLIENTS, metavar="N", help="with both feeds open"
    )
    arguments = parser.parse_args()
    _, client_core = cores()
    description = machine(PACKAGES)
    pin(client_core)

    def measured(name: str) -> Lap:
        scene, _, place = name.partition(", ")
        return run_round(
            scene,
            arguments.seconds,
            clients=arguments.clients if place == "feeds open" else 0,
            keeps=place == "state file",
        )

    names = [f"{scene}{place}" for place in ("", ", state file") for scene in SCENES]
    names.append("trading, feeds open")
    laps = alternate(names, measured, rounds=arguments.rounds)
    results = {name: _summary(own) for name, own in laps.items()}
    wanted = [
        at_least(f"orders, {name}", WANTED_ORDERS, result.orders_per_second.median, "orders/s")
        for name, result in results.items()
        if not name.endswith("feeds open")
    ]
    wanted.append(
        at_least(
            "clients with both feeds open",
            WANTED_CLIENTS,
            arguments.clients,
            "clients",
            note="all still connected after a round of orders as fast as they are answered",
        )
    )
    if arguments.json:
        print_json(
            {
                "benchmark": "exchange",
                "machine": description,
                "clients": arguments.clients,
                "orders": results,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print_table(
        f"orders over REST, {CONNECTIONS} connections",
        ["scene", "orders/s", "lowest", "highest", "p50 ms", "p99 ms", "CPU µs", "messages/s"],
        [
            [
                name,
                *(
                    number(value)
                    for value in (
                        result.orders_per_second.median,
                        result.orders_per_second.low,
                        result.orders_per_second.high,
                        result.p50_ms.median,
                        result.p99_ms.median,
                        result.server_cpu_us.median,
                        result.messages_per_second.median,
                    )
                ),
            ]
            for name, result in results.items()
        ],
    )
    print_wanted(wanted)


if __name__ == "__main__":
    main()
