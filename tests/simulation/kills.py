"""A bot that is killed with SIGKILL repeatedly, and restarts with its journal each time.

The bot places a sequence of orders, each once, and modifies and cancels some, against an exchange
with faults. After the last kill it starts once more without faults, and its journal is compared
with the exchange's ledger. An order in the ledger that the journal does not have is an orphan. A
tag that the ledger has twice is a double.

Run as a program, this module is the bot, with its settings as the argument.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from neo_async import (
    Credentials,
    Endpoints,
    NeoClient,
    NeoError,
    Order,
    OrderSettings,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
    Timeouts,
)
from neo_async.exchange import Exchange, Faults, Uniform
from neo_async.model.session import Session
from neo_async.wire.tags import own_tag

ROOT = Path(__file__).resolve().parents[2]

RESOLUTION_TIMEOUT = 1.5
"""Seconds. The exchange delays no answer longer than half of it."""
FAULTS = Faults(
    lose_before=0.06,
    lose_after=0.06,
    hang_before=0.02,
    hang_after=0.02,
    error_before=0.05,
    error_after=0.05,
    malformed=0.03,
    truncated=0.03,
    delay_before=0.2,
    delay_after=0.2,
    close_idle=0.05,
    close_crossing=0.05,
    delay_seconds=Uniform(low=0.01, high=0.7),
    hang_seconds=1.0,
    idle_seconds=0.02,
)
AT_ONCE = 4
LAST_START_TIMEOUT = 60.0
"""Seconds for the bot's last start."""


class Settings(msgspec.Struct):
    """The argument of the bot's process."""

    credentials: Credentials
    login_url: str
    session: Session
    journal: str
    is_last: bool
    """Whether the bot only resolves open requests, and ends."""


class Kills(msgspec.Struct):
    """The orders of a killed bot, compared with the ledger."""

    kills: int
    starting: int
    """Number of kills before the reconciliation was complete."""
    accepted: int = 0
    """Orders in the exchange's ledger."""
    resolved: int = 0
    """Requests that a kill had left open, and a restart resolved."""
    orphans: int = 0
    """Orders in the ledger that the journal does not have."""
    doubles: int = 0
    """Orders beyond the first of one tag."""
    problems: list[str] = []
    seconds: float = 0.0


# --- the bot --------------------------------------------------------------------------------------


async def run_bot(settings: Settings) -> None:
    neo = NeoClient(
        settings.credentials,
        endpoints=Endpoints(login=settings.login_url),
        limits=RateLimits(orders=500, total=500),
        timeouts=Timeouts(order=0.8, read=0.8),
        journal=settings.journal,
        orders=OrderSettings(live_updates=False, resolution_timeout=RESOLUTION_TIMEOUT),
    )
    print("begun", flush=True)
    await neo.resume(settings.session)
    try:
        print("ready", len(neo.reconciliation.resolved_intents), flush=True)
        if not settings.is_last:
            await _place_orders(neo)
    finally:
        await neo.logout()


async def _place_orders(neo: NeoClient) -> None:
    """Place the missing orders of the sequence, then continue at its end."""
    done = {order.tag for order in neo.reconciliation.orders}
    wanted = (f"o{n}" for n in itertools.count() if f"o{n}" not in done)
    while True:
        await asyncio.gather(*(_place_once(neo, tag) for tag in itertools.islice(wanted, AT_ONCE)))


async def _place_once(neo: NeoClient, tag: str) -> None:
    """Place the order of that tag, and cancel it, modify it or leave it open."""
    order: Order | None = None
    while order is None:
        with contextlib.suppress(NeoError):
            try:
                order = await neo.orders.place(
                    Segment.NSE_CM,
                    "ITBEES-EQ",
                    Side.BUY,
                    10,
                    price="39.00",
                    product=Product.CNC,
                    tag=tag,
                )
            except OutcomeUnknown as unknown:
                order = await unknown.outcome()
    with contextlib.suppress(NeoError):
        if int(tag[1:]) % 3 == 0:
            await neo.orders.cancel(order)
        elif int(tag[1:]) % 3 == 1:
            await neo.orders.modify(order, price="39.05")


# --- killing it -----------------------------------------------------------------------------------


async def kill_repeatedly(kills: int, seed: int = 1) -> Kills:
    dice = Random(f"{seed}|kills")
    started = time.perf_counter()
    result = Kills(kills, 0)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "orders.db")
        async with Exchange(
            seed=seed, limits=None, market_makers=False, cash="999999999.00"
        ) as exchange:
            settings = Settings(
                exchange.credentials,
                exchange.login_url,
                await _login(exchange),
                str(journal),
                is_last=False,
            )
            exchange.faults.set(FAULTS)
            for _ in range(kills):
                await _run_and_kill(settings, dice, result)
            exchange.faults.set(Faults())
            settings.is_last = True
            bot = await _start(settings)
            await asyncio.wait_for(bot.wait(), LAST_START_TIMEOUT)
            assert bot.stdout is not None
            result.resolved += _resolved_in(await bot.stdout.read())
            if bot.returncode:
                result.problems.append(f"the last start ended with {bot.returncode}")
            _compare_with_ledger(exchange, journal, result)
    result.seconds = time.perf_counter() - started
    return result


async def _login(exchange: Exchange) -> Session:
    neo = NeoClient(
        exchange.credentials, endpoints=exchange.endpoints, orders=OrderSettings(live_updates=False)
    )
    session = await neo.login()
    await neo.logout()
    return session


async def _run_and_kill(settings: Settings, dice: Random, result: Kills) -> None:
    """Kill the bot while it starts, while it resolves open requests, or while it places orders."""
    bot = await _start(settings)
    assert bot.stdout is not None
    output = bytearray()
    if dice.random() < 0.9:
        output += await bot.stdout.readline()
    if dice.random() < 0.6:
        output += await bot.stdout.readline()
    await asyncio.sleep(dice.uniform(0, 0.6))
    with contextlib.suppress(ProcessLookupError):
        bot.send_signal(signal.SIGKILL)
    code = await bot.wait()
    output += await bot.stdout.read()
    if code != -signal.SIGKILL:
        result.problems.append(f"the bot ended by itself, with {code}")
    result.starting += b"ready" not in output
    result.resolved += _resolved_in(bytes(output))


async def _start(settings: Settings) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.simulation.kills",
        msgspec.json.encode(settings).decode(),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )


def _resolved_in(output: bytes) -> int:
    """Return how many open requests the bot resolved, from what it printed at its start."""
    return sum(int(line.split()[1]) for line in output.splitlines() if line.startswith(b"ready"))


def _compare_with_ledger(exchange: Exchange, journal: Path, result: Kills) -> None:
    ledger = exchange.market.ledger
    result.accepted = len(ledger)
    intents = list(_intents(journal))
    known = {row["order_number"] for row in intents if row["action"] == "place"}
    for record in ledger:
        if record.number not in known:
            result.orphans += 1
            result.problems.append(f"orphan: {record.number} {record.client_tag}")
    wanted = collections.Counter(own_tag(record.client_tag) for record in ledger)
    for tag, count in wanted.items():
        if count > 1:
            result.doubles += count - 1
            result.problems.append(f"double: {tag} is there {count} times")
    for row in intents:
        if row["outcome"] in (None, "unknown"):
            order = row["client_tag"] or row["order_number"]
            result.problems.append(f"open: {row['action']} {order}")


def _intents(journal: Path) -> Iterator[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(journal)) as file:
        file.row_factory = sqlite3.Row
        yield from file.execute("SELECT * FROM intents")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(run_bot(msgspec.json.decode(sys.argv[1], type=Settings)))
