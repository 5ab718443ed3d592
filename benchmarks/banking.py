"""Credits drained from the exchange's bank, with bank and client on one core.

    python -m benchmarks.banking [--json] [--rounds N] [--credits N]

Every lap is a fresh process, pinned to one core, in which the exchange runs, too: each credit is
made up, written as JSON, sent over loopback, read, typed, handed over and acknowledged with its
batch of 100 by the same core. The plan's limits are off. README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import uvloop

from benchmarks.harness import (
    Figure,
    Wanted,
    alternate,
    at_least,
    at_most,
    cores,
    machine,
    number,
    pin,
    print_json,
    print_machine,
    print_table,
    print_wanted,
    summarise,
)
from neo_async.banking import BankingProfile, VirtualAccount, VirtualAccounts
from neo_async.exchange import Exchange
from neo_async.exchange.bank import BankSettings

ROOT = Path(__file__).resolve().parents[1]
NUMBER = "ACME00000001"
SAMPLES = 20
"""Of memory, over a lap."""
WANTED = 10_000


class Lap(msgspec.Struct, frozen=True):
    per_second: float
    cpu_us: float
    """Processor time of bank and client for one credit."""
    resident_mib: list[float]
    """From the first credit to the last."""

    @property
    def growth(self) -> float:
        """MiB from the first fifth of the samples, when everything is warm, to the last."""
        first, last = self.resident_mib[SAMPLES // 5], self.resident_mib[-1]
        return last - first


# --- in a process of its own ----------------------------------------------------------------------

Drain = Callable[[Exchange, VirtualAccounts], AsyncIterator[int]]
"""Yields how many credits have come since the last time."""


async def bare(exchange: Exchange, client: VirtualAccounts) -> AsyncIterator[int]:
    """The limit: dicts by msgspec, looked at by nobody."""
    customer = exchange.bank.client
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def call(name: str, **content: object) -> Any:
            url = f"{exchange.bank_url}/va/v1/transactions/{name}?apikey={customer.client_id}"
            content |= {"requestId": str(uuid4()), "physicalAccount": customer.physical_accounts[0]}
            async with http.post(url, data=msgspec.json.encode(content)) as answer:
                return msgspec.json.decode(await answer.read())

        while (batch := await call("fetch", clientName=customer.name))["batchId"]:
            yield batch["count"]
            acknowledgement = {"batchId": batch["batchId"], "count": batch["count"]}
            await call("ack", status="RECEIVED", **acknowledgement)


async def one_by_one(exchange: Exchange, client: VirtualAccounts) -> AsyncIterator[int]:
    last = 0
    async for credit in client.transactions():
        assert credit.sequence == last + 1
        last = credit.sequence
        yield 1


async def in_batches(exchange: Exchange, client: VirtualAccounts) -> AsyncIterator[int]:
    async for batch in client.transactions().batches():
        yield len(batch)


DRAINS: dict[str, tuple[Drain, bool]] = {
    "bare": (bare, False),
    "credits": (one_by_one, False),
    "credits_store": (one_by_one, True),
    "batches": (in_batches, False),
    "batches_store": (in_batches, True),
}


async def drain(name: str, count: int, store: Path) -> Lap:
    work, has_store = DRAINS[name]
    plan = BankSettings(requests_per_second=None, requests_per_day=None)
    async with Exchange(seed=1, makers=False, bank=plan) as exchange:
        customer = exchange.bank.client
        profile = BankingProfile.of(
            {
                "server": {"base_url": exchange.bank_url},
                "plan": {"requests_per_second": 100_000, "requests_per_day": 0},
            }
        )
        async with VirtualAccounts(
            customer.client_id,
            customer.client_secret,
            profile=profile,
            client_name=customer.name,
            physical_account=customer.physical_accounts[0],
            store=store if has_store else None,
        ) as client:
            await client.create(VirtualAccount(NUMBER, "Asha Rao"))
            exchange.bank.credit(NUMBER, "1500.00", count=count)
            memory, came, step = [_resident_mib()], 0, max(1, count // SAMPLES)
            cpu, start = time.process_time(), time.perf_counter()
            async for some in work(exchange, client):
                came += some
                if came >= step * len(memory):
                    memory.append(_resident_mib())
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if came != count:
        raise SystemExit(f"{name}: {came} credits came, {count} were paid in")
    memory += [memory[-1]] * (SAMPLES + 1 - len(memory))
    return Lap(count / seconds, cpu / count * 1e6, memory)


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the report -----------------------------------------------------------------------------------


def measure(name: str, count: int) -> Lap:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.banking", "--lap", name, "--credits", str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return msgspec.json.decode(done.stdout, type=Lap)


def wanted_figures(peers: dict[str, dict[str, Figure]]) -> list[Wanted]:
    names = ("credits", "credits_store", "batches", "batches_store")
    figures = [
        at_least(f"{name.replace('_', ' with ')}", WANTED, peers[name]["figure"].median, "a second")
        for name in names
    ]
    growth = max(peers[name]["growth_mib"].median for name in names)
    return [*figures, at_most("memory: growth after the first fifth", 2, growth, "MiB")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.banking")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--credits", type=int, default=100_000, help="of a lap (default 100000)")
    parser.add_argument("--lap", choices=list(DRAINS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lap:
        pin(cores()[1])
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "credits.db"
            lap = uvloop.run(drain(arguments.lap, arguments.credits, store))
        print(msgspec.json.encode(lap).decode())
        return

    laps = alternate(
        list(DRAINS),
        lambda name: measure(name, arguments.credits),
        rounds=arguments.rounds,
        warm_up=0,  # a lap has a process of its own: there is nothing to warm
    )
    peers = {
        name: {
            "figure": summarise(lap.per_second for lap in values),
            "cpu_us": summarise(lap.cpu_us for lap in values),
            "growth_mib": summarise(lap.growth for lap in values),
        }
        for name, values in laps.items()
    }
    wanted = wanted_figures(peers)
    description = machine(("neo-async", "msgspec", "aiohttp", "uvloop"))
    if arguments.json:
        print_json(
            {
                "benchmark": "banking",
                "machine": description,
                "settings": {"credits": arguments.credits, "rounds": arguments.rounds},
                "peers": peers,
                "memory": {name: values[-1].resident_mib for name, values in laps.items()},
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    limit = peers["bare"]["figure"].median
    print_table(
        f"{arguments.credits:,} credits, bank and client on one core",
        ["", "credits a second", "low", "high", "× bare", "CPU, µs", "growth, MiB"],
        [
            [
                name,
                *(number(getattr(peer["figure"], part)) for part in ("median", "low", "high")),
                f"{peer['figure'].median / limit:.2f}",
                number(peer["cpu_us"].median),
                f"{peer['growth_mib'].median:.2f}",
            ]
            for name, peer in peers.items()
        ],
    )
    print_wanted(wanted)


if __name__ == "__main__":
    main()
