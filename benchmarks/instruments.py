"""Instruments: loading a scrip master, lookups, searches, memory.

A file of 100,000 options is generated and served by a process on the other core. First load is
from the request for the list to the last index, with the file on disk; cached load is by a client
that has only that file. Beside both, a coroutine yields to the loop again and again: its longest
wait is how long the loop was held. Memory is the growth of a fresh process that loads 200,000 rows
from disk. `kotakneoapi` searches the broker's own file, with its cache filled and nothing left to
download; ours has loaded it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

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
    cores,
    measure_calls,
    microseconds,
    number,
    pin,
    resident_bytes,
    summarise,
)
from benchmarks.workers import ROOT, Channel, in_fresh_process
from neo_async.base.india import IST
from neo_async.client import NeoClient
from neo_async.config import Credentials, Endpoints
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster_writer import write_scripmaster

REAL_FILE = ROOT.parent / "shared" / "data" / "scripmaster" / "nse_cm.csv"

SEGMENT = Segment.NSE_FO
UNDERLYINGS = 200
EXPIRIES = 6
STRIKE_STEP = 50
LOOKUPS = 1_000
SEARCHES = 200
ENTRY = "ITBEES"
"""Text that both sides search in the broker's file."""

CREDENTIALS = Credentials(
    consumer_key="consumer-key", mobile_number="+919999999999", ucc="ABC12", mpin="000000"
)


# --- the file -----------------------------------------------------------------------------------


def expiries(today: date) -> list[date]:
    return [today + timedelta(days=3 + 7 * week) for week in range(EXPIRIES)]


def option_rows(count: int, today: date) -> Iterator[Instrument]:
    """Yield calls and puts of many underlyings, in no order that would help a search."""
    chance = random.Random(7)
    per_name = max(1, count // (UNDERLYINGS * EXPIRIES * 2))
    keys = [
        (f"STOCK{name}" if name else "NIFTY", expiry, 20_000 + STRIKE_STEP * strike, kind)
        for strike in range(per_name + 1)
        for name in range(UNDERLYINGS)
        for expiry in expiries(today)
        for kind in ("CE", "PE")
    ][:count]
    chance.shuffle(keys)
    for token, (name, expiry, strike, kind) in enumerate(keys, 35_000):
        price = chance.randrange(100, 200_000) / 20
        yield Instrument(
            segment=SEGMENT,
            token=str(token),
            symbol=f"{name}{expiry:%y%b%d}{strike}{kind}".upper(),
            name=name,
            description=f"{name} {expiry:%d %b %y} {kind}",
            strike=float(strike),
            freeze_quantity=1800,
            lower_band=round(price / 2, 2),
            upper_band=round(price * 2, 2),
            series="XX",
            kind="OPTSTK",
            lot_size=65,
            expiry=expiry,
            option_type=kind,
            underlying_token="26000",
        )


@contextlib.contextmanager
def file_server(folder: Path, core: int | None) -> Iterator[str]:
    """Serve a folder with Python's own file server, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > deadline:
                raise SystemExit("the file server did not start")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def offer(folder: Path, url: str, files: dict[str, bytes]) -> None:
    """Write the files to the paths that the client will request."""
    listing = folder / "script-details" / "1.0" / "masterscrip" / "file-paths"
    listing.parent.mkdir(parents=True, exist_ok=True)
    paths = [f"{url}/{name}" for name in files]
    listing.write_text(json.dumps({"data": {"filesPaths": paths}}))
    for name, content in files.items():
        (folder / name).write_bytes(content)


# --- loading ------------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True):
    """Figures of a load of a scrip master."""

    milliseconds: float
    held_ms: float
    """Longest time, in ms, that another coroutine waited for the loop."""
    held_cpu_ms: float
    """The same by processor time of the thread, without the time of other processes."""


async def load(url: str, cache: Path, segment: Segment) -> tuple[Instruments, Load]:
    neo = NeoClient(CREDENTIALS, endpoints=Endpoints(login=url), instruments_directory=cache)
    longest = longest_cpu = 0.0

    async def take_turns() -> None:
        nonlocal longest, longest_cpu
        last, last_cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0)
            now, now_cpu = time.perf_counter(), time.thread_time()
            longest, last = max(longest, now - last), now
            longest_cpu, last_cpu = max(longest_cpu, now_cpu - last_cpu), now_cpu

    ticker = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    start = time.perf_counter()
    try:
        (loaded,) = await neo.instruments.load(segment)
        seconds = time.perf_counter() - start
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        await neo.logout()
    if loaded.bad_row_count or loaded.is_stale:
        raise SystemExit(f"not loaded as it should be: {loaded}")
    return neo.instruments, Load(seconds * 1e3, longest * 1e3, longest_cpu * 1e3)


def measure_loads(url: str, folder: Path, rounds: int) -> dict[str, list[Load]]:
    cache = folder / "cache"

    def measure(name: str) -> Load:
        if name == "first":
            for path in cache.glob("*"):
                path.unlink()
        gc.collect()
        return uvloop.run(load(url, cache, SEGMENT))[1]

    return alternate(["first", "cached"], measure, rounds=rounds)


def serve_memory(channel: Channel, *, url: str, cache: str) -> None:
    """Send the MB by which this process grows when it loads from disk."""

    # Every program that uses the client has this anyway: modules, event loop, its first thread.
    async def warm_up() -> None:
        await asyncio.to_thread(gc.collect)

    uvloop.run(warm_up())
    before = resident_bytes()
    instruments, _ = uvloop.run(load(url, Path(cache), SEGMENT))
    gc.collect()
    channel.send((resident_bytes() - before) / 1e6)
    assert instruments.loaded


# --- looking up and searching ---------------------------------------------------------------------


def measure_finding(instruments: Instruments, rounds: int) -> dict[str, Figure]:
    day = expiries(datetime.now(IST).date())[1]
    every = instruments.search("")
    wanted = random.Random(1).sample(every, min(LOOKUPS, len(every)))
    symbols, tokens = [row.symbol for row in wanted], [row.token for row in wanted]

    def by_symbol() -> None:
        for symbol in symbols:
            instruments.get(SEGMENT, symbol)

    def by_token() -> None:
        for token in tokens:
            instruments.by_token(SEGMENT, token)

    searches: dict[str, Callable[[], object]] = {
        "search, expiry and strikes": lambda: instruments.search(
            "NIFTY", expiry=day, strike=(20_100, 21_000), option="CE"
        ),
        "chain around a price": lambda: instruments.chain("NIFTY", day, around=20_500),
        "search by a part of symbols": lambda: instruments.search(symbols[0][2:]),
        "search by start of names": lambda: instruments.search("STOC", expiry=day, strike=20_000),
    }
    calls: dict[str, Callable[[], float]] = {
        "lookup by symbol": lambda: microseconds(by_symbol, 20) / len(symbols),
        "lookup by token": lambda: microseconds(by_token, 20) / len(tokens),
        **{
            name: (lambda search=search: microseconds(search, SEARCHES))  # type: ignore[misc]
            for name, search in searches.items()
        },
    }
    return measure_calls(calls, rounds=rounds)


def first_lookups(url: str, cache: Path) -> float:
    """Return the microseconds of a lookup that has to build the instrument, in random order."""
    instruments, _ = uvloop.run(load(url, cache, SEGMENT))
    symbols = [row.symbol for row in option_rows(LOOKUPS * 5, datetime.now(IST).date())]
    start = time.perf_counter_ns()
    for symbol in symbols:
        instruments.get(SEGMENT, symbol)
    return (time.perf_counter_ns() - start) / len(symbols) / 1e3


def first_part_search(url: str, cache: Path) -> float:
    """Return the microseconds of the first search of a process by a part of symbols."""
    instruments, _ = uvloop.run(load(url, cache, SEGMENT))
    part = next(option_rows(1, datetime.now(IST).date())).symbol[2:]
    return microseconds(lambda: instruments.search(part), 1)


def measure_against_sdk(url: str, cache: Path, content: bytes, rounds: int) -> dict[str, Figure]:
    instruments, _ = uvloop.run(load(url, cache, Segment.NSE_CM))
    os.environ["NEO_SCRIP_CACHE_DIR"] = str(cache / "kotakneoapi")
    from neo_api_client import NeoAPI  # type: ignore[attr-defined]
    from neo_api_client.utils import scrip_cache

    logging.disable(logging.INFO)
    scrip_cache.write_csv("nse_cm", content)
    sdk = NeoAPI(consumer_key="consumer-key")

    def theirs() -> Any:
        return sdk.search_scrip("nse_cm", ENTRY)

    def ours() -> list[Instrument]:
        return instruments.search(ENTRY, segment=Segment.NSE_CM)

    tokens = {str(row["pSymbol"]) for row in theirs() if row["pSymbolName"] == ENTRY}
    if tokens != {row.token for row in ours()}:
        raise SystemExit(f"they find {tokens}, we find {ours()}")
    calls = {
        "neo_async": lambda: microseconds(ours, SEARCHES),
        "kotakneoapi": lambda: microseconds(theirs, 3),
    }
    return measure_calls(calls, rounds=rounds)


# --- the report -----------------------------------------------------------------------------------


def wanted_of(
    loads: dict[str, dict[str, Figure]],
    grown: float | None,
    finding: dict[str, Figure],
    sdk: dict[str, Figure],
) -> list[Wanted]:
    figures = [
        at_most("first load", 1000, loads["first"]["milliseconds"].median, "ms"),
        at_most("first load: loop held", 5, loads["first"]["held_ms"].median, "ms"),
        at_most("cached load", 100, loads["cached"]["milliseconds"].median, "ms"),
        at_most("cached load: loop held", 5, loads["cached"]["held_ms"].median, "ms"),
        at_most("lookup by symbol", 1, finding["lookup by symbol"].median, "µs"),
        at_most("lookup by token", 1, finding["lookup by token"].median, "µs"),
        at_most("search", 2000, finding["search, expiry and strikes"].median, "µs"),
        at_most("search by a part", 2000, finding["search by a part of symbols"].median, "µs"),
    ]
    if grown is not None:
        figures.append(at_most("memory for twice the rows", 100, grown, "MB"))
    if sdk:
        ratio = sdk["kotakneoapi"].median / sdk["neo_async"].median
        figures.append(at_least("repeated search: kotakneoapi ÷ neo_async", 50, ratio))
    return figures


def loads_table(loads: Mapping[str, Mapping[str, Figure]]) -> Table:
    return Table(
        "loading, ms",
        ["", "median", "low", "high", "loop held", "at worst", "by CPU"],
        [
            [
                name,
                *figures["milliseconds"].three_cells(),
                number(figures["held_ms"].median),
                number(figures["held_ms"].high),
                number(figures["held_cpu_ms"].median),
            ]
            for name, figures in loads.items()
        ],
    )


def times_table(title: str, times: Mapping[str, Figure]) -> Table:
    rows = [[name, *figure.three_cells()] for name, figure in times.items()]
    return Table(title, ["", "median", "low", "high"], rows)


def measure(arguments: argparse.Namespace) -> Report:
    """Measure loads, lookups, searches and memory."""
    server_core, core = cores()
    pin(core)
    rounds = arguments.rounds
    today = datetime.now(IST).date()
    files = {"nse_fo.csv": write_scripmaster(option_rows(arguments.rows, today))}
    if arguments.file.exists():
        files["nse_cm.csv"] = arguments.file.read_bytes()
    with tempfile.TemporaryDirectory() as name, file_server(Path(name), server_core) as url:
        folder = Path(name)
        cache = folder / "cache"
        offer(folder, url, files)
        samples = measure_loads(url, folder, rounds)
        instruments, _ = uvloop.run(load(url, cache, SEGMENT))
        finding = measure_finding(instruments, rounds)
        finding["first lookup of an instrument"] = summarise(
            first_lookups(url, cache) for _ in range(rounds)
        )
        finding["first search by a part of symbols"] = summarise(
            first_part_search(url, cache) for _ in range(rounds)
        )
        sdk = (
            measure_against_sdk(url, cache, files["nse_cm.csv"], rounds)
            if "nse_cm.csv" in files
            else {}
        )
        grown = measure_memory(folder, url, arguments.rows, today) if resident_bytes() else None
    loads = {
        name: {
            figure: summarise(getattr(sample, figure) for sample in each)
            for figure in Load.__struct_fields__
        }
        for name, each in samples.items()
    }
    tables = [loads_table(loads), times_table("finding, µs", finding)]
    if sdk:
        tables.append(times_table("searching the broker's file, µs", sdk))
    return Report(
        {
            "rows": arguments.rows,
            "bytes": len(files["nse_fo.csv"]),
            "loads": loads,
            "memory_mb": grown,
            "microseconds": finding,
            "real_file": sdk,
        },
        tables,
        wanted_of(loads, grown, finding, sdk),
        f"{arguments.rows:,} rows, {len(files['nse_fo.csv']) / 1e6:.1f} MB",
    )


def measure_memory(folder: Path, url: str, rows: int, today: date) -> float:
    """Return the MB by which a fresh process grows when it loads twice the rows from disk."""
    offer(folder, url, {"nse_fo.csv": write_scripmaster(option_rows(2 * rows, today))})
    cache = folder / "twice"
    uvloop.run(load(url, cache, SEGMENT))
    return in_fresh_process("instruments:serve_memory", float, url=url, cache=str(cache))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=100_000, help="of the file (default 100000)")
    parser.add_argument("--file", type=Path, default=REAL_FILE, help="the broker's nse_cm file")


BENCHMARK = Benchmark(
    "instruments",
    __doc__,
    measure,
    packages=("neo-async", "msgspec", "aiohttp", "uvloop", "kotakneoapi"),
    rounds=9,
    add_options=add_options,
)

if __name__ == "__main__":
    BENCHMARK.main()
