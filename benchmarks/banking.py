"""Banking: credits drained from the exchange's bank, with bank and client on one core.

Every sample is a fresh process on one core, in which the exchange runs, too: each credit is made,
written as JSON, sent over loopback, read, typed, handed over and acknowledged with its batch of 100
by the same core. The plan's limits are off. Memory is the client's alone: for that the bank, which
has to remember its answers for a day, has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import uvloop

from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Table,
    Wanted,
    alternate,
    at_least,
    at_most,
    number,
    resident_bytes,
    summarise,
)
from benchmarks.workers import Channel, Cores, Worker, in_fresh_process
from neo_async.banking import BankingProfile, VirtualAccount, VirtualAccounts
from neo_async.exchange import Behaviour, Exchange
from neo_async.exchange.bank.settings import BankSettings

NUMBER = "ACME00000001"
SAMPLES = 20
"""Samples of memory while one client drains."""
MEMORY_TIMES = 3
"""Factor by which the measurement of memory has more credits, so that growth shows."""
WANTED = 10_000
WANTED_MIB = 1


class Sample(msgspec.Struct, frozen=True):
    """Figures of a client that drained all credits."""

    per_second: float
    cpu_us: float
    """Processor time of the process for one credit."""
    resident_mib: list[float]
    """Memory from the first credit to the last."""

    @property
    def growth(self) -> float:
        """MiB from the first fifth of the samples, when everything is warm, to the last."""
        first, last = self.resident_mib[len(self.resident_mib) // 5], self.resident_mib[-1]
        return last - first


class Target(msgspec.Struct, frozen=True):
    """The bank's address, and the customer's identity there."""

    url: str
    name: str
    client_id: str
    client_secret: str
    physical_account: str


# --- the bank -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bank_with(count: int) -> AsyncIterator[Target]:
    plan = BankSettings(requests_per_second=None, requests_per_day=None)
    async with Exchange(seed=1, market_makers=False, behaviour=Behaviour(bank=plan)) as exchange:
        customer = exchange.bank.client
        bank = Target(
            exchange.bank_url,
            customer.name,
            customer.client_id,
            customer.client_secret,
            customer.physical_accounts[0],
        )
        async with accounts_of(bank, None) as client:
            await client.create(VirtualAccount(NUMBER, "Asha Rao"))
        exchange.bank.credit(NUMBER, "1500.00", count=count)
        yield bank


async def _serve_bank(channel: Channel, count: int) -> None:
    async with bank_with(count) as bank:
        channel.send(bank)
        await asyncio.to_thread(channel.wait_for_end)


def serve_bank(channel: Channel, *, count: int) -> None:
    """Serve a bank with so many credits until the worker ends."""
    uvloop.run(_serve_bank(channel, count))


# --- draining it ----------------------------------------------------------------------------------


def accounts_of(bank: Target, store: Path | None) -> VirtualAccounts:
    profile = BankingProfile.of(
        {
            "server": {"base_url": bank.url},
            "plan": {"requests_per_second": 100_000, "requests_per_day": 0},
        }
    )
    return VirtualAccounts(
        bank.client_id,
        bank.client_secret,
        profile=profile,
        client_name=bank.name,
        physical_account=bank.physical_account,
        store=store,
    )


async def bare(bank: Target, store: Path) -> AsyncIterator[int]:
    """Yield credits as dicts by msgspec, unread: the limit of what a client can reach."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def call(name: str, **content: object) -> Any:
            url = f"{bank.url}/va/v1/transactions/{name}?apikey={bank.client_id}"
            content |= {"requestId": str(uuid4()), "physicalAccount": bank.physical_account}
            async with http.post(url, data=msgspec.json.encode(content)) as answer:
                return msgspec.json.decode(await answer.read())

        while (batch := await call("fetch", clientName=bank.name))["batchId"]:
            yield batch["count"]
            acknowledgement = {"batchId": batch["batchId"], "count": batch["count"]}
            await call("ack", status="RECEIVED", **acknowledgement)


async def credits_(bank: Target, store: Path | None = None) -> AsyncIterator[int]:
    last = 0
    async with accounts_of(bank, store) as client:
        async for credit in client.transactions():
            assert credit.sequence == last + 1
            last = credit.sequence
            yield 1


async def batches(bank: Target, store: Path | None = None) -> AsyncIterator[int]:
    async with accounts_of(bank, store) as client:
        async for batch in client.transactions().batches():
            yield len(batch)


DRAINS: dict[str, Callable[[Target, Path], AsyncIterator[int]]] = {
    "bare": bare,
    "credits": lambda bank, _: credits_(bank),
    "credits_store": credits_,
    "batches": lambda bank, _: batches(bank),
    "batches_store": batches,
}
"""The ways to drain; each yields the number of credits since its last yield."""

OURS = tuple(name for name in DRAINS if name != "bare")


async def drain(name: str, count: int, bank: Target) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        memory, came, step = [resident_mib()], 0, max(1, count // SAMPLES)
        cpu, start = time.process_time(), time.perf_counter()
        async for some in DRAINS[name](bank, Path(folder) / "credits.db"):
            came += some
            if came >= step * len(memory):
                memory.append(resident_mib())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if came != count:
        raise SystemExit(f"{name}: {came} credits came, {count} were paid in")
    return Sample(count / seconds, cpu / count * 1e6, memory)


async def _drain_on_one_core(name: str, count: int) -> Sample:
    async with bank_with(count) as bank:
        return await drain(name, count, bank)


def serve_sample(channel: Channel, *, name: str, count: int) -> None:
    """Drain a bank in this process."""
    channel.send(uvloop.run(_drain_on_one_core(name, count)))


def serve_memory(channel: Channel, *, name: str, count: int, bank_core: int | None) -> None:
    """Drain a bank in another process, so that the memory is the client's alone."""
    with Worker("banking:serve_bank", bank_core, count=count) as worker:
        bank = msgspec.convert(worker.ready, Target)
        channel.send(uvloop.run(drain(name, count, bank)))


def resident_mib() -> float:
    return resident_bytes() / 2**20


# --- the report -----------------------------------------------------------------------------------


def wanted_of(peers: dict[str, dict[str, Figure]], memory: dict[str, Sample]) -> list[Wanted]:
    figures = [
        at_least(name.replace("_", " with "), WANTED, peers[name]["figure"].median, "a second")
        for name in OURS
    ]
    growth = max(sample.growth for sample in memory.values())
    return [*figures, at_most("memory of the client: growth", WANTED_MIB, growth, "MiB")]


def credits_table(peers: Mapping[str, Mapping[str, Figure]], count: int) -> Table:
    limit = peers["bare"]["figure"].median
    return Table(
        f"{count:,} credits, bank and client on one core",
        ["", "credits a second", "low", "high", "× bare", "CPU, µs"],
        [
            [
                name,
                *peer["figure"].three_cells(),
                f"{peer['figure'].median / limit:.2f}",
                number(peer["cpu_us"].median),
            ]
            for name, peer in peers.items()
        ],
    )


def memory_table(memory: Mapping[str, Sample], count: int) -> Table:
    return Table(
        f"memory of a client that drains {count:,} credits, MiB",
        ["", "at a fifth", "at the end"],
        [
            [name, f"{one.resident_mib[-1] - one.growth:.2f}", f"{one.resident_mib[-1]:.2f}"]
            for name, one in memory.items()
        ],
    )


def measure(arguments: argparse.Namespace) -> Report:
    """Measure every way to drain, and the memory of the client's ways."""
    on = Cores.of_machine()
    count = arguments.credits
    samples = alternate(
        list(DRAINS),
        lambda name: in_fresh_process(
            "banking:serve_sample", Sample, on.client, name=name, count=count
        ),
        rounds=arguments.rounds,
        warm_up=0,  # a fresh process has nothing to warm up
    )
    peers = {
        name: {
            "figure": summarise(one.per_second for one in each),
            "cpu_us": summarise(one.cpu_us for one in each),
        }
        for name, each in samples.items()
    }
    memory = {
        name: in_fresh_process(
            "banking:serve_memory",
            Sample,
            on.client,
            name=name,
            count=MEMORY_TIMES * count,
            bank_core=on.server,
        )
        for name in OURS
    }
    return Report(
        {
            "settings": {"credits": count, "rounds": arguments.rounds},
            "peers": peers,
            "memory": memory,
        },
        [credits_table(peers, count), memory_table(memory, MEMORY_TIMES * count)],
        wanted_of(peers, memory),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--credits", type=int, default=100_000, help="to drain (default 100000)")


BENCHMARK = Benchmark(
    "banking",
    __doc__,
    measure,
    packages=("neo-async", "msgspec", "aiohttp", "uvloop"),
    rounds=5,
    add_options=add_options,
)

if __name__ == "__main__":
    BENCHMARK.main()
