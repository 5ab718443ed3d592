"""Credits drained from the exchange's bank, with bank and client on one core.

    python -m benchmarks.banking [--json] [--rounds N] [--credits N]

Every lap is a fresh process, pinned to one core, in which the exchange runs, too: each credit is
made up, written as JSON, sent over loopback, read, typed, handed over and acknowledged with its
batch of 100 by the same core. The plan's limits are off. Memory is the client's alone: for that the
bank, which has to remember its answers for a day, has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
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
from neo_async.exchange import Behaviour, Exchange
from neo_async.exchange.bank.settings import BankSettings

ROOT = Path(__file__).resolve().parents[1]
NUMBER = "ACME00000001"
SAMPLES = 20
"""Of memory, over a lap."""
MEMORY_TIMES = 3
"""As many credits as in the other laps, for memory: what grows shows."""
WANTED = 10_000
WANTED_MIB = 1


class Lap(msgspec.Struct, frozen=True):
    per_second: float
    cpu_us: float
    """Processor time of the process for one credit."""
    resident_mib: list[float]
    """From the first credit to the last."""

    @property
    def growth(self) -> float:
        """MiB from the first fifth of the samples, when everything is warm, to the last."""
        first, last = self.resident_mib[len(self.resident_mib) // 5], self.resident_mib[-1]
        return last - first


class Far(msgspec.Struct, frozen=True):
    """The bank, and who one is to it."""

    url: str
    name: str
    client_id: str
    client_secret: str
    physical_account: str


# --- the bank -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bank_with(count: int) -> AsyncIterator[Far]:
    plan = BankSettings(requests_per_second=None, requests_per_day=None)
    async with Exchange(seed=1, market_makers=False, behaviour=Behaviour(bank=plan)) as exchange:
        customer = exchange.bank.client
        far = Far(
            exchange.bank_url,
            customer.name,
            customer.client_id,
            customer.client_secret,
            customer.physical_accounts[0],
        )
        async with client_of(far, None) as client:
            await client.create(VirtualAccount(NUMBER, "Asha Rao"))
        exchange.bank.credit(NUMBER, "1500.00", count=count)
        yield far


async def serve(count: int) -> None:
    """Until stdin ends."""
    async with bank_with(count) as far:
        print(msgspec.json.encode(far).decode(), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def bank_beside(count: int) -> Iterator[Far]:
    """In a process of its own, on the other core."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.banking", "--serve", "--credits", str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield msgspec.json.decode(process.stdout.readline(), type=Far)
        finally:
            process.stdin.close()


# --- draining it ----------------------------------------------------------------------------------


def client_of(far: Far, store: Path | None) -> VirtualAccounts:
    profile = BankingProfile.of(
        {
            "server": {"base_url": far.url},
            "plan": {"requests_per_second": 100_000, "requests_per_day": 0},
        }
    )
    return VirtualAccounts(
        far.client_id,
        far.client_secret,
        profile=profile,
        client_name=far.name,
        physical_account=far.physical_account,
        store=store,
    )


async def bare(far: Far, store: Path) -> AsyncIterator[int]:
    """The limit: dicts by msgspec, looked at by nobody."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def call(name: str, **content: object) -> Any:
            url = f"{far.url}/va/v1/transactions/{name}?apikey={far.client_id}"
            content |= {"requestId": str(uuid4()), "physicalAccount": far.physical_account}
            async with http.post(url, data=msgspec.json.encode(content)) as answer:
                return msgspec.json.decode(await answer.read())

        while (batch := await call("fetch", clientName=far.name))["batchId"]:
            yield batch["count"]
            acknowledgement = {"batchId": batch["batchId"], "count": batch["count"]}
            await call("ack", status="RECEIVED", **acknowledgement)


async def credits_(far: Far, store: Path | None = None) -> AsyncIterator[int]:
    last = 0
    async with client_of(far, store) as client:
        async for credit in client.transactions():
            assert credit.sequence == last + 1
            last = credit.sequence
            yield 1


async def batches(far: Far, store: Path | None = None) -> AsyncIterator[int]:
    async with client_of(far, store) as client:
        async for batch in client.transactions().batches():
            yield len(batch)


DRAINS: dict[str, Callable[[Far, Path], AsyncIterator[int]]] = {
    "bare": bare,
    "credits": lambda far, _: credits_(far),
    "credits_store": credits_,
    "batches": lambda far, _: batches(far),
    "batches_store": batches,
}
"""Each yields how many credits have come since the last time."""

OURS = tuple(name for name in DRAINS if name != "bare")


async def drain(name: str, count: int, far: Far) -> Lap:
    with tempfile.TemporaryDirectory() as folder:
        memory, came, step = [_resident_mib()], 0, max(1, count // SAMPLES)
        cpu, start = time.process_time(), time.perf_counter()
        async for some in DRAINS[name](far, Path(folder) / "credits.db"):
            came += some
            if came >= step * len(memory):
                memory.append(_resident_mib())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if came != count:
        raise SystemExit(f"{name}: {came} credits came, {count} were paid in")
    return Lap(count / seconds, cpu / count * 1e6, memory)


async def drain_on_one_core(name: str, count: int) -> Lap:
    async with bank_with(count) as far:
        return await drain(name, count, far)


def drain_beside(name: str, count: int) -> Lap:
    with bank_beside(count) as far:
        return uvloop.run(drain(name, count, far))


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the report -----------------------------------------------------------------------------------


def in_a_process(flag: str, name: str, count: int) -> Lap:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.banking", flag, name, "--credits", str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return msgspec.json.decode(done.stdout, type=Lap)


def wanted_figures(peers: dict[str, dict[str, Figure]], memory: dict[str, Lap]) -> list[Wanted]:
    figures = [
        at_least(name.replace("_", " with "), WANTED, peers[name]["figure"].median, "a second")
        for name in OURS
    ]
    growth = max(lap.growth for lap in memory.values())
    return [*figures, at_most("memory of the client: growth", WANTED_MIB, growth, "MiB")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.banking")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--credits", type=int, default=100_000, help="of a lap (default 100000)")
    for flag in ("--lap", "--memory"):
        parser.add_argument(flag, choices=list(DRAINS), help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    server_core, core = cores()
    if arguments.serve:
        pin(server_core)
        uvloop.run(serve(arguments.credits))
        return
    if arguments.lap:
        pin(core)
        lap = uvloop.run(drain_on_one_core(arguments.lap, arguments.credits))
        print(msgspec.json.encode(lap).decode())
        return
    if arguments.memory:
        pin(core)
        lap = drain_beside(arguments.memory, arguments.credits)
        print(msgspec.json.encode(lap).decode())
        return

    laps = alternate(
        list(DRAINS),
        lambda name: in_a_process("--lap", name, arguments.credits),
        rounds=arguments.rounds,
        warm_up=0,  # a lap has a process of its own: there is nothing to warm
    )
    peers = {
        name: {
            "figure": summarise(lap.per_second for lap in values),
            "cpu_us": summarise(lap.cpu_us for lap in values),
        }
        for name, values in laps.items()
    }
    memory = {
        name: in_a_process("--memory", name, MEMORY_TIMES * arguments.credits) for name in OURS
    }
    wanted = wanted_figures(peers, memory)
    description = machine(("neo-async", "msgspec", "aiohttp", "uvloop"))
    if arguments.json:
        print_json(
            {
                "benchmark": "banking",
                "machine": description,
                "settings": {"credits": arguments.credits, "rounds": arguments.rounds},
                "peers": peers,
                "memory": memory,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    limit = peers["bare"]["figure"].median
    print_table(
        f"{arguments.credits:,} credits, bank and client on one core",
        ["", "credits a second", "low", "high", "× bare", "CPU, µs"],
        [
            [
                name,
                *(number(getattr(peer["figure"], part)) for part in ("median", "low", "high")),
                f"{peer['figure'].median / limit:.2f}",
                number(peer["cpu_us"].median),
            ]
            for name, peer in peers.items()
        ],
    )
    print_table(
        f"memory of a client that drains {MEMORY_TIMES * arguments.credits:,} credits, MiB",
        ["", "at a fifth", "at the end"],
        [
            [name, f"{lap.resident_mib[-1] - lap.growth:.2f}", f"{lap.resident_mib[-1]:.2f}"]
            for name, lap in memory.items()
        ],
    )
    print_wanted(wanted)


if __name__ == "__main__":
    main()
