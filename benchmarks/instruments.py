"""Instruments: loading a scrip master, looking up, searching, memory.

    python -m benchmarks.instruments [--json] [--rounds N] [--rows N] [--file CSV]

A file of 100,000 options is generated and served by a process on the other core. First load is
from the request for the list to the last index, with the file on disk; cached load is by a client
that has nothing but that file. Beside both, a coroutine does nothing but take its turn: its longest
wait is how long the loop was held. Memory is what a fresh process grows by when it loads 200,000
rows from disk. `kotakneoapi` searches the broker's own file, with its cache filled and nothing left
to download; ours has loaded it.
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
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

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
from neo_async.client import NeoClient
from neo_async.config import Credentials, Endpoints
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import Segment
from neo_async.model.india import IST
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster_writer import write_scripmaster

ROOT = Path(__file__).resolve().parents[1]
REAL_FILE = ROOT.parent / "shared" / "data" / "scripmaster" / "nse_cm.csv"

SEGMENT = Segment.NSE_FO
UNDERLYINGS = 200
EXPIRIES = 6
STRIKE_STEP = 50
LOOKUPS = 1_000
SEARCHES = 200
ENTRY = "ITBEES"
"""What both sides search the broker's file for."""

CREDENTIALS = Credentials(
    consumer_key="consumer-key", mobile_number="+919999999999", ucc="ABC12", mpin="000000"
)


# --- the file -----------------------------------------------------------------------------------


def expiries(today: date) -> list[date]:
    return [today + timedelta(days=3 + 7 * week) for week in range(EXPIRIES)]


def option_rows(count: int, today: date) -> Iterator[Instrument]:
    """Calls and puts of many underlyings, in no order that would help a search."""
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
    """Python's own, in a process of its own: it sends a file as fast as the socket takes it."""
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
    """Lay out the files where the client will ask for them."""
    listing = folder / "script-details" / "1.0" / "masterscrip" / "file-paths"
    listing.parent.mkdir(parents=True, exist_ok=True)
    paths = [f"{url}/{name}" for name in files]
    listing.write_text(json.dumps({"data": {"filesPaths": paths}}))
    for name, content in files.items():
        (folder / name).write_bytes(content)


# --- loading ------------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True):
    milliseconds: float
    held_ms: float
    """The longest that another coroutine had to wait for its turn."""
    held_cpu_ms: float
    """The longest by processor time: without what the machine gave to others meanwhile."""


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


def memory(url: str, cache: Path) -> float:
    """MB by which a fresh process grows when it loads from disk."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instruments", "--memory", url, str(cache)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return float(done.stdout)


def print_memory(url: str, cache: Path) -> None:
    # What every program that uses the client has anyway: modules, event loop, its first thread.
    async def warm_up() -> None:
        await asyncio.to_thread(gc.collect)

    uvloop.run(warm_up())
    before = _resident_mb()
    instruments, _ = uvloop.run(load(url, cache, SEGMENT))
    gc.collect()
    print(_resident_mb() - before)
    assert instruments.loaded


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- looking up and searching ---------------------------------------------------------------------


def microseconds(work: Callable[[], object], repeats: int) -> float:
    """Of one call, over so many."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        work()
    return (time.perf_counter_ns() - start) / repeats / 1e3


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
    laps = alternate(list(calls), lambda name: calls[name](), rounds=rounds)
    return {name: summarise(values) for name, values in laps.items()}


def first_lookups(url: str, cache: Path) -> float:
    """Microseconds of a lookup that has to build the instrument, in no order."""
    instruments, _ = uvloop.run(load(url, cache, SEGMENT))
    symbols = [row.symbol for row in option_rows(LOOKUPS * 5, datetime.now(IST).date())]
    start = time.perf_counter_ns()
    for symbol in symbols:
        instruments.get(SEGMENT, symbol)
    return (time.perf_counter_ns() - start) / len(symbols) / 1e3


def first_part_search(url: str, cache: Path) -> float:
    """Microseconds of the first search of a process for a part of symbols."""
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
    laps = alternate(list(calls), lambda name: calls[name](), rounds=rounds)
    return {name: summarise(values) for name, values in laps.items()}


# --- the report -----------------------------------------------------------------------------------


def wanted_figures(
    loads: dict[str, dict[str, Figure]],
    grown: float | None,
    resolved_intent: dict[str, Figure],
    sdk: dict[str, Figure],
) -> list[Wanted]:
    figures = [
        at_most("first load", 1000, loads["first"]["milliseconds"].median, "ms"),
        at_most("first load: loop held", 5, loads["first"]["held_ms"].median, "ms"),
        at_most("cached load", 100, loads["cached"]["milliseconds"].median, "ms"),
        at_most("cached load: loop held", 5, loads["cached"]["held_ms"].median, "ms"),
        at_most("lookup by symbol", 1, resolved_intent["lookup by symbol"].median, "µs"),
        at_most("lookup by token", 1, resolved_intent["lookup by token"].median, "µs"),
        at_most("search", 2000, resolved_intent["search, expiry and strikes"].median, "µs"),
        at_most(
            "search by a part", 2000, resolved_intent["search by a part of symbols"].median, "µs"
        ),
    ]
    if grown is not None:
        figures.append(at_most("memory for twice the rows", 100, grown, "MB"))
    if sdk:
        ratio = sdk["kotakneoapi"].median / sdk["neo_async"].median
        figures.append(at_least("repeated search: kotakneoapi ÷ neo_async", 50, ratio))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.instruments")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=9, help="alternating rounds (default 9)")
    parser.add_argument("--rows", type=int, default=100_000, help="of the file (default 100000)")
    parser.add_argument("--file", type=Path, default=REAL_FILE, help="the broker's nse_cm file")
    parser.add_argument("--memory", nargs=2, metavar=("URL", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.memory[0], Path(arguments.memory[1]))
        return

    server_core, core = cores()
    pin(core)
    today = datetime.now(IST).date()
    files = {"nse_fo.csv": write_scripmaster(option_rows(arguments.rows, today))}
    if arguments.file.exists():
        files["nse_cm.csv"] = arguments.file.read_bytes()
    with (
        tempfile.TemporaryDirectory() as name,
        file_server(Path(name), server_core) as url,
    ):
        folder = Path(name)
        cache = folder / "cache"
        offer(folder, url, files)
        laps = measure_loads(url, folder, arguments.rounds)
        instruments, _ = uvloop.run(load(url, cache, SEGMENT))
        resolved_intent = measure_finding(instruments, arguments.rounds)
        resolved_intent["first lookup of an instrument"] = summarise(
            first_lookups(url, cache) for _ in range(arguments.rounds)
        )
        resolved_intent["first search by a part of symbols"] = summarise(
            first_part_search(url, cache) for _ in range(arguments.rounds)
        )
        sdk = (
            measure_against_sdk(url, cache, files["nse_cm.csv"], arguments.rounds)
            if "nse_cm.csv" in files
            else {}
        )
        grown = None
        if Path("/proc/self/statm").exists():
            twice = write_scripmaster(option_rows(2 * arguments.rows, today))
            offer(folder, url, {"nse_fo.csv": twice})
            uvloop.run(load(url, folder / "twice", SEGMENT))
            grown = memory(url, folder / "twice")

    loads = {
        name: {
            "milliseconds": summarise(lap.milliseconds for lap in values),
            "held_ms": summarise(lap.held_ms for lap in values),
            "held_cpu_ms": summarise(lap.held_cpu_ms for lap in values),
        }
        for name, values in laps.items()
    }
    wanted = wanted_figures(loads, grown, resolved_intent, sdk)
    description = machine(("neo-async", "msgspec", "aiohttp", "uvloop", "kotakneoapi"))
    if arguments.json:
        print_json(
            {
                "benchmark": "instruments",
                "machine": description,
                "rows": arguments.rows,
                "bytes": len(files["nse_fo.csv"]),
                "loads": loads,
                "memory_mb": grown,
                "microseconds": resolved_intent,
                "real_file": sdk,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(f"{arguments.rows:,} rows, {len(files['nse_fo.csv']) / 1e6:.1f} MB")
    print_table(
        "loading, ms",
        ["", "median", "low", "high", "loop held", "at worst", "by CPU"],
        [
            [
                name,
                *_spread(figures["milliseconds"]),
                number(figures["held_ms"].median),
                number(figures["held_ms"].high),
                number(figures["held_cpu_ms"].median),
            ]
            for name, figures in loads.items()
        ],
    )
    headings = ["", "median", "low", "high"]
    print_table(
        "finding, µs",
        headings,
        [[name, *_spread(figure)] for name, figure in resolved_intent.items()],
    )
    if sdk:
        print_table(
            "searching the broker's file, µs",
            headings,
            [[name, *_spread(figure)] for name, figure in sdk.items()],
        )
    print_wanted(wanted)


def _spread(figure: Figure) -> list[str]:
    return [number(figure.median), number(figure.low), number(figure.high)]


if __name__ == "__main__":
    main()
